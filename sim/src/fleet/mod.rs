//! The replicas, when each has something to say, how far away they are, and how their statistics
//! travel.

/// When each replica next has something to say.
pub(crate) mod agenda;
/// What the fleet asks of a replica besides serving.
pub(crate) mod machine;
/// What one replica costs and draws.
pub(crate) mod meter;
/// How long messages travel.
pub(crate) mod network;
/// How statistics reach the gateway.
pub(crate) mod telemetry;

use agenda::Agenda;
use machine::Machine;
use network::Network;
use windtunnel_base::time::SimTime;
use windtunnel_engine::engine::EngineStats;

/// The replicas of a run.
#[derive(Debug)]
pub(crate) struct Fleet<M> {
    pub(crate) machines: Vec<M>,
    pub(crate) agenda: Agenda,
    pub(crate) network: Network,
    /// Replicas that something happened to at this instant: their next step is not settled.
    unsettled: Vec<u32>,
    states: Vec<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// It is listed in `unsettled`.
    unsettled: bool,
    /// Something happened to it since its statistics were last read.
    touched: bool,
}

impl<M: Machine> Fleet<M> {
    pub(crate) fn new(machines: Vec<M>, network: Network) -> Self {
        Self {
            agenda: Agenda::new(machines.len()),
            unsettled: Vec::with_capacity(machines.len()),
            // Nothing has ever been read of them.
            states: vec![
                State {
                    unsettled: false,
                    touched: true
                };
                machines.len()
            ],
            network,
            machines,
        }
    }

    /// Notes that something happened to a replica.
    #[inline]
    pub(crate) fn touch(&mut self, replica: usize) {
        let state = &mut self.states[replica];
        state.touched = true;
        if !state.unsettled {
            state.unsettled = true;
            self.unsettled.push(replica as u32);
        }
    }

    /// Whether some replica's next step is not settled.
    #[inline]
    pub(crate) fn is_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// Takes the unsettled replica if there is one only.
    #[inline]
    pub(crate) fn take_only_unsettled(&mut self) -> Option<u32> {
        let &[replica] = &self.unsettled[..] else {
            return None;
        };
        self.unsettled.clear();
        self.states[replica as usize].unsettled = false;
        Some(replica)
    }

    /// Moves the unsettled replicas to `list`, by ascending id, so that the order of what follows
    /// does not depend on who was touched first.
    pub(crate) fn take_unsettled(&mut self, list: &mut Vec<u32>) {
        list.clear();
        std::mem::swap(list, &mut self.unsettled);
        list.sort_unstable();
        for &replica in &*list {
            self.states[replica as usize].unsettled = false;
        }
    }

    /// A replica's statistics at `now`, if they can differ from those read last: something happened
    /// to it, or it is at work.
    #[inline]
    pub(crate) fn news(&mut self, replica: usize, now: SimTime) -> Option<EngineStats> {
        let touched = std::mem::take(&mut self.states[replica].touched);
        (touched || self.agenda.get(replica).is_some()).then(|| self.machines[replica].stats(now))
    }
}
