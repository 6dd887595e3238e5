//! Which pool a request goes to, where the scenario has several.

use super::World;
use super::requests::Place;
use crate::event::Hop;
use crate::fleet::machine::Machine;
use crate::gateway::paths::Path;
use windtunnel_base::refusal::Refusal;
use windtunnel_base::time::SimTime;

impl<M: Machine> World<'_, M> {
    /// An admitted request is told which pool serves it; `again` if it was held back before.
    pub(super) fn choose_path(&mut self, slot: u32, again: bool) {
        let skipped = self.skipped_kernel(slot);
        let flight = self.requests.get(slot);
        let (id, class) = (flight.id, flight.arrival.class);
        let Some(paths) = &mut self.gateway.paths else {
            return self.enter_lane(slot);
        };
        let path = match skipped {
            // Nobody looked for a kernel: the frontier serves whoever is not known to have one.
            true => paths.without_kernel(class, self.now),
            false => paths.choose(id, class, self.now, again),
        };
        match path {
            Path::Pool(pool) | Path::Stale(pool) => {
                self.requests.get_mut(slot).lane = pool;
                self.enter_lane(slot);
            }
            // As if whoever should have answered had failed: who is turned away while an expired answer is
            // kept is given that, and so are those who wait for its answer.
            Path::StaleAnswer(_) if self.has_spare(slot) => self.turn_away(slot, Refusal::Shed),
            Path::StaleAnswer(until) | Path::Hold(until) => self.hold(slot, until),
            Path::Refuse => self.turn_away(slot, Refusal::Shed),
        }
    }

    fn hold(&mut self, slot: u32, until: SimTime) {
        if let Some(paths) = &mut self.gateway.paths {
            paths.held();
        }
        self.requests.get_mut(slot).place = Place::Held;
        self.hop(slot, until.since(self.now), Hop::AskAgain);
    }

    /// A request that was held back asks again.
    pub(super) fn ask_again(&mut self, slot: u32) {
        if self.requests.get(slot).place == Place::Held {
            self.choose_path(slot, true);
        }
    }
}
