//! Which pool a request goes to, where the scenario has several; and those who wait before that.

use super::World;
use super::requests::Place;
use crate::event::Event;
use crate::fleet::machine::Machine;
use crate::gateway::paths::{Asks, Path, Until, Waiter};
use windtunnel_base::ids::RequestId;
use windtunnel_base::refusal::Refusal;

impl<M: Machine> World<'_, M> {
    /// An admitted request is told which pool serves it.
    pub(super) fn choose_path(&mut self, slot: u32, asks: Asks) {
        let skipped = self.skipped_kernel(slot);
        let flight = self.requests.get(slot);
        let (id, class) = (flight.id, flight.arrival.class);
        let Some(paths) = &mut self.gateway.paths else {
            return self.enter_lane(slot);
        };
        let path = match skipped {
            // Nobody looked for a kernel: the frontier serves whoever is not known to have one.
            true => paths.without_kernel(class, self.now),
            false => paths.choose(id, class, self.now, asks),
        };
        match path {
            Path::Pool(pool) | Path::Stale(pool) => {
                self.requests.get_mut(slot).lane = pool;
                self.enter_lane(slot);
            }
            // As if whoever should have answered had failed: who is turned away while an expired answer is
            // kept is given that, and so are those who wait for its answer.
            Path::StaleAnswer(_) if self.has_spare(slot) => self.turn_away(slot, Refusal::Shed),
            Path::StaleAnswer(until) => self.hold(slot, asks, until, true),
            Path::Hold(until) => self.hold(slot, asks, until, false),
            Path::Refuse => self.turn_away(slot, Refusal::Shed),
        }
    }

    /// A request waits until something has changed that may let it go on.
    fn hold(&mut self, slot: u32, asked: Asks, until: Until, takes_expired: bool) {
        let flight = self.requests.get_mut(slot);
        flight.place = Place::Held;
        let who = Waiter {
            request: flight.id,
            class: flight.arrival.class,
            tenant: flight.arrival.tenant,
            priority: flight.priority,
        };
        if let Some(paths) = &mut self.gateway.paths {
            paths.hold(who, asked, until, takes_expired, self.now);
        }
        self.await_held();
    }

    /// Sets the alarm for the next of those who wait.
    fn await_held(&mut self) {
        let due = self.gateway.paths.as_ref().and_then(|p| p.next_due());
        if self.gateway.held_alarm.map(|(at, _)| at) == due {
            return;
        }
        if let Some((_, alarm)) = self.gateway.held_alarm.take() {
            self.queue.cancel(alarm);
        }
        self.gateway.held_alarm = due.map(|at| {
            let event = Event::HeldDue;
            (at, self.queue.schedule(at, event.class(), event))
        });
    }

    /// Some of those who wait may go on.
    pub(super) fn held_due(&mut self) {
        self.gateway.held_alarm = None;
        while let Some((request, asks)) = self.next_held() {
            self.ask_again(request, asks);
        }
        self.await_held();
    }

    fn next_held(&mut self) -> Option<(RequestId, Asks)> {
        self.gateway.paths.as_mut()?.due(self.now)
    }

    fn ask_again(&mut self, request: RequestId, asks: Asks) {
        // It may have left for what became of one that was let go on just before it.
        if let Some(slot) = self.requests.slot(request)
            && self.requests.get(slot).place == Place::Held
        {
            self.choose_path(slot, asks);
        }
    }

    /// A request that waits leaves.
    pub(super) fn leave_held(&mut self, slot: u32) {
        let id = self.requests.get(slot).id;
        if let Some(paths) = &mut self.gateway.paths {
            // False if it has just been let go on, and has not asked again yet.
            paths.leaves(id, self.now);
        }
        self.await_held();
    }

    /// A kernel is evicted, or is back: those who waited for it ask again.
    pub(super) fn evict_kernel(&mut self, kernel: &str, evicted: bool) {
        let Some(paths) = &mut self.gateway.paths else {
            return;
        };
        let waited = paths.evict(kernel, self.now, evicted);
        self.let_go_on(waited);
    }

    /// A kernel is suspected of having drifted, or is so no more: likewise.
    pub(super) fn suspect_kernel(&mut self, kernel: u8, suspect: bool) {
        let Some(paths) = &mut self.gateway.paths else {
            return;
        };
        let waited = paths.suspect(kernel, self.now, suspect);
        self.let_go_on(waited);
    }

    fn let_go_on(&mut self, waited: Vec<RequestId>) {
        for request in waited {
            self.ask_again(request, Asks::Again);
        }
        self.await_held();
    }

    /// An answer was kept: those who wait and ask the same take it.
    pub(super) fn give_to_held(&mut self) {
        let Some(paths) = &self.gateway.paths else {
            return;
        };
        for request in paths.takers_of_expired() {
            if let Some(slot) = self.requests.slot(request)
                && self.has_spare(slot)
            {
                self.leave_held(slot);
                self.turn_away(slot, Refusal::Shed);
            }
        }
    }
}
