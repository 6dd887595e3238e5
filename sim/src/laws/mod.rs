//! Laws that every run must obey. They watch and never act: a run is bit-identical with laws on and
//! off. A broken law is a bug of ours or of a policy, never of a scenario.

use facts::Facts;
use windtunnel_base::ids::{ReplicaId, RequestId};
use windtunnel_base::time::SimTime;

/// Facts to look at, in blocks.
pub(crate) mod facts;
/// Every request ends, once.
pub(crate) mod conservation;
/// Facts of a request come in a possible order, and time never runs back.
pub(crate) mod causality;
/// Books balance, and all time is paid once.
pub(crate) mod books;
/// Replicas' memory adds up.
pub(crate) mod memory;
/// Work that could run does run.
pub(crate) mod progress;
/// The gateway keeps to the replicas there are, and to their limits.
pub(crate) mod bounds;
/// Stored answers stay with their tenant, and are given in time.
pub(crate) mod answers;

/// The laws.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Law {
    /// Every request ends, once.
    Conservation,
    /// Facts of a request come in a possible order, and time never runs back.
    Causality,
    /// Books balance, and all time is paid once.
    Books,
    /// Replicas' memory adds up.
    Memory,
    /// Work that could run does run.
    Progress,
    /// The gateway keeps to the replicas there are, and to their limits.
    Bounds,
    /// Stored answers stay with their tenant, and are given in time.
    Answers,
}

impl std::fmt::Display for Law {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Conservation => "conservation",
            Self::Causality => "causality",
            Self::Books => "books",
            Self::Memory => "memory",
            Self::Progress => "progress",
            Self::Bounds => "bounds",
            Self::Answers => "answers",
        })
    }
}

/// A broken law.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("law of {law} broken at {} s{}{}: expected {expected}, found {found}", .at.as_secs_f64(),
    .request.map(|r| format!(", request {}", r.0)).unwrap_or_default(),
    .replica.map(|r| format!(", replica {}", r.0)).unwrap_or_default())]
pub struct Violation {
    /// Which one.
    pub law: Law,
    /// When it showed.
    pub at: SimTime,
    /// At which request.
    pub request: Option<RequestId>,
    /// At which replica.
    pub replica: Option<ReplicaId>,
    /// What should be so.
    pub expected: String,
    /// What is so.
    pub found: String,
}

impl Violation {
    /// A breach that concerns no single request or replica.
    pub(crate) fn new(
        law: Law,
        at: SimTime,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Box<Self> {
        Box::new(Self {
            law,
            at,
            request: None,
            replica: None,
            expected: expected.into(),
            found: found.into(),
        })
    }

    /// Names the request.
    pub(crate) fn of(mut self: Box<Self>, request: RequestId) -> Box<Self> {
        self.request = Some(request);
        self
    }

    /// Names the replica.
    pub(crate) fn on(mut self: Box<Self>, replica: ReplicaId) -> Box<Self> {
        self.replica = Some(replica);
        self
    }
}

/// What a law says: nothing, or what is wrong.
pub(crate) type Verdict = Result<(), Box<Violation>>;

/// The laws that watch entries and steps of one run.
#[derive(Debug, Default)]
pub(crate) struct Laws {
    pub(crate) conservation: conservation::Conservation,
    pub(crate) causality: causality::Causality,
    pub(crate) progress: progress::Progress,
    pub(crate) memory: memory::Memory,
}

impl Laws {
    /// Checks facts in order: the first breach of all laws is told.
    pub(crate) fn facts(&mut self, facts: &Facts) -> Verdict {
        // One law after the other, each in a loop of its own; the breach of the earliest fact counts.
        let found = [
            self.conservation.facts(facts),
            self.causality.facts(facts),
            self.progress.facts(facts),
        ];
        let first = found.into_iter().flatten().min_by_key(|breach| breach.0);
        first.map_or(Ok(()), |(_, breach)| Err(breach))
    }
}

/// The first fact of a block that breaks a law, and how.
pub(crate) type Breach = Option<(usize, Box<Violation>)>;
