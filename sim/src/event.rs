//! What can be due, and what goes first among things due at the same instant.
//!
//! Ends of steps and arrivals have places of their own (one per replica, one per run), so the
//! queue holds only messages under way, timers and scrapes.

use crate::gateway::state_store::StoreAnswer;
use windtunnel_base::ids::ReplicaId;
use windtunnel_base::refusal::Refusal;

/// What goes first among the end of a step, a message and an arrival at the same nanosecond.
/// Steps begin last of all, when everything that happens at their instant has been told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TieOrder {
    /// Ends of steps, then messages and timers, then arrivals: an arrival meets the settled state.
    #[default]
    Settled,
    /// Arrivals, then messages and timers, then ends of steps: an arrival is routed by the state
    /// before the steps that end with it, as in simulators that handle cluster events first.
    ArrivalsFirst,
}

/// Where the next thing to happen comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// A replica's step, or run of steps, ends.
    Step,
    /// The event queue.
    Queue,
    /// The workload sends a request.
    Arrival,
}

impl TieOrder {
    /// The sources, first to go first.
    pub(crate) const fn sources(self) -> [Source; 3] {
        match self {
            Self::Settled => [Source::Step, Source::Queue, Source::Arrival],
            Self::ArrivalsFirst => [Source::Arrival, Source::Queue, Source::Step],
        }
    }
}

/// An event of the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// Something about a request reaches its next place.
    Hop {
        /// The request's slot.
        slot: u32,
        /// What reaches what.
        hop: Hop,
    },
    /// A client's patience ends, with a request or with an attempt.
    Timeout {
        /// The request's slot, or the attempt's.
        slot: u32,
    },
    /// A client tries again.
    Retry {
        /// The slot of its call.
        slot: u32,
    },
    /// A client makes an attempt beside one under way.
    Hedge {
        /// The slot of its call.
        slot: u32,
    },
    /// A request waited long enough for another that asks the same.
    FollowerTimeout {
        /// The request's slot.
        slot: u32,
    },
    /// Some of those who wait before their pool is chosen may go on.
    HeldDue,
    /// A kernel that was suspected of having drifted is built anew.
    Rebuilt {
        /// Its number.
        kernel: u8,
    },
    /// Something about a kernel that is rolled out.
    Rollout {
        /// Its number.
        kernel: u8,
        /// What.
        turn: RolloutTurn,
    },
    /// A replica that was ejected gets requests again.
    EjectionOver {
        /// Which.
        replica: ReplicaId,
    },
    /// Telemetry reads every replica.
    Scrape,
    /// Something about how many replicas there are.
    Scaling(ScalingTurn),
    /// Something goes wrong, or is over.
    Fault {
        /// Its number in the scenario.
        index: u32,
        /// What of it happens.
        turn: Turn,
    },
}

/// What of a fault happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// It begins.
    Begin,
    /// The gateway notices that it has begun.
    Noticed,
    /// It ends.
    End,
    /// The gateway notices that it is over.
    Forgotten,
}

/// What happens to a pool whose size follows its load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ScalingTurn {
    /// It is time to look at the signal.
    Look,
    /// A replica that was ordered is ready.
    Ready(ReplicaId),
    /// Nothing that was sent to a replica on its way out can reach it any more.
    Silent(ReplicaId),
}

/// What happens to a kernel that is rolled out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RolloutTurn {
    /// Its first stage begins.
    Begin,
    /// It has answered requests of the past.
    Replayed,
    /// A withdrawal has come through.
    Withdrawn,
}

/// Something about a request on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hop {
    /// The request reaches the gateway.
    ToGateway,
    /// The first part of the gateway's stages is over.
    Looked,
    /// A stage has turned it away.
    TurnedAway(Refusal),
    /// The gateway's own stages are done with it.
    Ready,
    /// The gateway has the state store's answer, or has none.
    StoreSeen(StoreAnswer),
    /// It reaches its replica.
    ToReplica,
    /// The gateway sees the first output token.
    TokenSeen,
    /// The gateway has the whole answer.
    AnswerSeen,
    /// The gateway sees that the replica refused.
    RefusalSeen(Refusal),
    /// The verifier is done with the answer.
    Judged,
    /// This level of a ladder of verifiers is.
    Weighed(u8),
    /// Who stands in for the verifier is.
    JudgedByBackup,
    /// A kernel's answer was checked as a probe.
    Probed,
    /// A human has decided about a suggestion.
    Suggested,
    /// The client has the whole answer.
    AnswerDelivered,
    /// The client learns that it was refused.
    RefusalDelivered(Refusal),
    /// A cancellation reaches the gateway.
    CancelAtGateway,
    /// A cancellation reaches the replica.
    CancelAtReplica,
}

impl Event {
    /// The class by which simultaneous events of the queue are ordered; lower goes first.
    pub(crate) const fn class(self) -> u8 {
        match self {
            Self::Hop { hop, .. } => match hop {
                // What replicas say comes first: room is made before it is asked for.
                Hop::TokenSeen | Hop::AnswerSeen | Hop::RefusalSeen(_) => 0,
                Hop::Judged
                | Hop::Probed
                | Hop::Suggested
                | Hop::Weighed(_)
                | Hop::JudgedByBackup => 1,
                // An answer that arrives as patience ends has arrived.
                Hop::AnswerDelivered | Hop::RefusalDelivered(_) => 2,
                // Cancelled work leaves before new work comes.
                Hop::CancelAtGateway | Hop::CancelAtReplica => 5,
                // Work already routed reaches its replica before the next is routed.
                Hop::ToReplica => 6,
                // New work last.
                Hop::ToGateway
                | Hop::Looked
                | Hop::TurnedAway(_)
                | Hop::StoreSeen(_)
                | Hop::Ready => 7,
            },
            // A scrape reads the state after all answers of its instant.
            Self::Scrape | Self::Scaling(ScalingTurn::Look) => 3,
            // A replica is ready for whoever comes at the instant.
            Self::Scaling(ScalingTurn::Ready(_)) => 4,
            // After all that could still reach it.
            Self::Scaling(ScalingTurn::Silent(_)) => 7,
            Self::Timeout { .. } | Self::FollowerTimeout { .. } => 4,
            // What goes wrong at an instant goes wrong for whoever comes in it.
            Self::Fault { .. }
            | Self::EjectionOver { .. }
            | Self::Rebuilt { .. }
            | Self::Rollout { .. } => 4,
            Self::Retry { .. } | Self::Hedge { .. } | Self::HeldDue => 7,
        }
    }
}
