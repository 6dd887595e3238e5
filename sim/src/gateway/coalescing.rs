//! Who is being answered for whom: flights of requests that ask the same. A flight has fetches, which
//! go to replicas, and followers, who wait for the first of them. Without coalescing nobody follows,
//! and flights only tell how many fetch the same at once.

use super::answers::Key;
use rustc_hash::FxHashMap;
use windtunnel_scenarios::schema::answers::OnFailure;

/// Nobody, or no flight.
const NONE: u32 = u32::MAX;

/// What a request is in a flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    /// Nothing.
    None,
    /// It goes to a replica, for this flight.
    Fetch(u32),
    /// It waits in this flight.
    Follow {
        flight: u32,
        before: u32,
        after: u32,
    },
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    key: Key,
    /// Requests under way for it.
    fetches: u32,
    /// Who waits, first and last.
    first: u32,
    last: u32,
    /// So many wait.
    followers: u32,
    /// A fetch that goes on although its client has left.
    kept: u32,
}

/// What comes of the failure of a fetch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failed {
    /// Nobody waits, or another fetch is still under way.
    Nobody,
    /// Those who wait fail too: they are to be taken out.
    All,
    /// This one goes on in its place; it is a fetch already.
    Promoted(u32),
}

/// All flights. Requests are known by the slots that the world keeps them in.
#[derive(Debug, Default)]
pub struct Flights {
    by_key: FxHashMap<u128, u32>,
    flights: Vec<Flight>,
    free: Vec<u32>,
    /// By slot.
    roles: Vec<Role>,
}

impl Flights {
    fn role(&self, slot: u32) -> Role {
        self.roles.get(slot as usize).copied().unwrap_or(Role::None)
    }

    fn set(&mut self, slot: u32, role: Role) {
        let i = slot as usize;
        if i >= self.roles.len() {
            self.roles.resize(i + 1, Role::None);
        }
        self.roles[i] = role;
    }

    /// Whether anybody is fetching the answer of a key.
    pub fn under_way(&self, key: Key) -> bool {
        let flight = self.by_key.get(&key.0).map(|&f| self.flights[f as usize]);
        flight.is_some_and(|f| f.fetches > 0)
    }

    /// Flights with fetches or followers.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// A request goes to a replica for a key; whether it is the only one that does.
    pub fn fetch(&mut self, slot: u32, key: Key) -> bool {
        debug_assert_eq!(self.role(slot), Role::None);
        let flight = match self.by_key.get(&key.0) {
            Some(&flight) => flight,
            None => self.open(key),
        };
        self.set(slot, Role::Fetch(flight));
        let flight = &mut self.flights[flight as usize];
        flight.fetches += 1;
        flight.fetches == 1
    }

    fn open(&mut self, key: Key) -> u32 {
        let new = Flight {
            key,
            fetches: 0,
            first: NONE,
            last: NONE,
            followers: 0,
            kept: NONE,
        };
        let at = self.free.pop().unwrap_or(self.flights.len() as u32);
        match self.flights.get_mut(at as usize) {
            Some(place) => *place = new,
            None => self.flights.push(new),
        }
        self.by_key.insert(key.0, at);
        at
    }

    /// A request waits for what is under way for a key; false if nothing is.
    pub fn follow(&mut self, slot: u32, key: Key) -> bool {
        debug_assert_eq!(self.role(slot), Role::None);
        let Some(&at) = self.by_key.get(&key.0) else {
            return false;
        };
        let flight = &mut self.flights[at as usize];
        if flight.fetches == 0 {
            return false;
        }
        let before = std::mem::replace(&mut flight.last, slot);
        flight.followers += 1;
        if before == NONE {
            flight.first = slot;
        }
        let follow = Role::Follow {
            flight: at,
            before,
            after: NONE,
        };
        self.set(slot, follow);
        if let Some(Role::Follow { after, .. }) = self.roles.get_mut(before as usize) {
            *after = slot;
        }
        true
    }

    /// Whether a request waits for another.
    pub fn follows(&self, slot: u32) -> bool {
        matches!(self.role(slot), Role::Follow { .. })
    }

    /// The key that a request fetches the answer of, if it does.
    pub fn fetches(&self, slot: u32) -> Option<Key> {
        match self.role(slot) {
            Role::Fetch(flight) => Some(self.flights[flight as usize].key),
            Role::None | Role::Follow { .. } => None,
        }
    }

    /// Whether others wait for what this request fetches, and for nobody else.
    pub fn is_needed(&self, slot: u32) -> bool {
        let Role::Fetch(flight) = self.role(slot) else {
            return false;
        };
        let flight = &self.flights[flight as usize];
        flight.followers > 0 && flight.fetches == 1
    }

    /// A fetch goes on for those who wait, although its client has left.
    pub fn keep_on(&mut self, slot: u32) {
        if let Role::Fetch(flight) = self.role(slot) {
            self.flights[flight as usize].kept = slot;
        }
    }

    /// The fetch for a key that goes on although its client and all who waited have left.
    pub fn kept_for_nobody(&self, key: Key) -> Option<u32> {
        let flight = &self.flights[*self.by_key.get(&key.0)? as usize];
        (flight.followers == 0 && flight.kept != NONE).then_some(flight.kept)
    }

    /// The requests that others wait for, and for nobody else; by ascending slot.
    pub fn leaders(&self) -> Vec<u32> {
        let slots = 0..self.roles.len() as u32;
        slots.filter(|&slot| self.is_needed(slot)).collect()
    }

    /// Who waits for what this request fetches, first come first.
    pub fn followers(&self, slot: u32) -> impl Iterator<Item = u32> + '_ {
        let first = match self.role(slot) {
            Role::Fetch(flight) => self.flights[flight as usize].first,
            Role::None | Role::Follow { .. } => NONE,
        };
        let after = |&slot: &u32| match self.role(slot) {
            Role::Follow { after, .. } => Some(after).filter(|&after| after != NONE),
            Role::None | Role::Fetch(_) => None,
        };
        std::iter::successors(Some(first).filter(|&first| first != NONE), after)
    }

    /// A request waits no longer; false if it did not.
    pub fn leave(&mut self, slot: u32) -> bool {
        let Role::Follow {
            flight,
            before,
            after,
        } = self.role(slot)
        else {
            return false;
        };
        self.set(slot, Role::None);
        match self.roles.get_mut(before as usize) {
            Some(Role::Follow { after: link, .. }) => *link = after,
            _ => self.flights[flight as usize].first = after,
        }
        match self.roles.get_mut(after as usize) {
            Some(Role::Follow { before: link, .. }) => *link = before,
            _ => self.flights[flight as usize].last = before,
        }
        self.flights[flight as usize].followers -= 1;
        self.close_if_idle(flight);
        true
    }

    /// A fetch has its answer: it and all who wait leave the flight. Followers are appended to `out`,
    /// first come first.
    pub fn answered(&mut self, slot: u32, out: &mut Vec<u32>) {
        let Role::Fetch(flight) = self.role(slot) else {
            return;
        };
        self.take_followers(flight, out);
        self.end_fetch(slot, flight);
    }

    /// A fetch failed, or was given up. Those who wait are left to `rule` if nothing else is under way
    /// for them; [`Failed::All`] says that they are in `out`.
    pub fn failed(&mut self, slot: u32, rule: OnFailure, out: &mut Vec<u32>) -> Failed {
        let Role::Fetch(at) = self.role(slot) else {
            return Failed::Nobody;
        };
        let flight = self.flights[at as usize];
        let came = if flight.followers == 0 || flight.fetches > 1 {
            Failed::Nobody
        } else {
            match rule {
                OnFailure::FanOut => {
                    self.take_followers(at, out);
                    Failed::All
                }
                OnFailure::Promote => {
                    let next = flight.first;
                    // Its own fetch keeps the flight from closing in between.
                    self.flights[at as usize].fetches += 1;
                    self.leave(next);
                    self.set(next, Role::Fetch(at));
                    Failed::Promoted(next)
                }
            }
        };
        self.end_fetch(slot, at);
        came
    }

    fn take_followers(&mut self, flight: u32, out: &mut Vec<u32>) {
        let f = &mut self.flights[flight as usize];
        let mut next = std::mem::replace(&mut f.first, NONE);
        (f.last, f.followers) = (NONE, 0);
        while next != NONE {
            out.push(next);
            let Role::Follow { after, .. } = self.role(next) else {
                break;
            };
            self.set(next, Role::None);
            next = after;
        }
    }

    fn end_fetch(&mut self, slot: u32, flight: u32) {
        self.set(slot, Role::None);
        let f = &mut self.flights[flight as usize];
        f.fetches -= 1;
        if f.kept == slot {
            f.kept = NONE;
        }
        self.close_if_idle(flight);
    }

    fn close_if_idle(&mut self, at: u32) {
        let flight = &self.flights[at as usize];
        if flight.fetches == 0 && flight.followers == 0 {
            self.by_key.remove(&flight.key.0);
            self.free.push(at);
        }
    }
}

#[cfg(test)]
#[path = "coalescing_tests.rs"]
mod tests;
