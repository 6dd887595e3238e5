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
/// The cache of prompts that replicas share.
pub(crate) mod shared_cache;
/// How statistics reach the gateway.
pub(crate) mod telemetry;

use agenda::Agenda;
use machine::Machine;
use network::Network;
use windtunnel_engine::config::FrontendSpec;

/// The replicas of a run.
#[derive(Debug)]
pub(crate) struct Fleet<M> {
    pub(crate) machines: Vec<M>,
    pub(crate) agenda: Agenda,
    pub(crate) network: Network,
    /// Time on the way in and out of each replica.
    pub(crate) frontends: Vec<FrontendSpec>,
    /// Replicas that something happened to at this instant: their next step is not settled.
    unsettled: Vec<u32>,
    /// Replicas that something happened to since they were last taken from here.
    touched: Vec<u32>,
    states: Vec<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// It is listed in `unsettled`.
    unsettled: bool,
    /// It is listed in `touched`.
    touched: bool,
}

impl<M: Machine> Fleet<M> {
    pub(crate) fn new(machines: Vec<M>, network: Network) -> Self {
        Self {
            agenda: Agenda::new(machines.len()),
            unsettled: Vec::with_capacity(machines.len()),
            // Nothing has ever been read of them.
            touched: (0..machines.len() as u32).collect(),
            states: vec![
                State {
                    unsettled: false,
                    touched: true
                };
                machines.len()
            ],
            network,
            frontends: machines.iter().map(Machine::frontend).collect(),
            machines,
        }
    }

    /// Notes that something happened to a replica.
    #[inline]
    pub(crate) fn touch(&mut self, replica: usize) {
        let state = &mut self.states[replica];
        if !state.unsettled {
            state.unsettled = true;
            self.unsettled.push(replica as u32);
        }
        self.note_change(replica);
    }

    #[inline]
    fn note_change(&mut self, replica: usize) {
        if !std::mem::replace(&mut self.states[replica].touched, true) {
            self.touched.push(replica as u32);
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
            // Settling changes it once more, after whoever read it in this instant.
            self.note_change(replica as usize);
        }
    }

    /// Moves the replicas that something happened to since the last call to `list`, in no order.
    /// Of the others, nothing but what passes with time can differ.
    pub(crate) fn take_touched(&mut self, list: &mut Vec<u32>) {
        list.clear();
        std::mem::swap(list, &mut self.touched);
        for &replica in &*list {
            self.states[replica as usize].touched = false;
        }
    }
}
