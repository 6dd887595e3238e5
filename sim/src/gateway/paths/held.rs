//! Requests that wait before their pool is chosen, and when each may go on. Nobody asks again in vain: who
//! waits for chance to rise knows when it has, and who waits for room in the bucket waits in line.

use crate::gateway::queue::WaitingRoom;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use windtunnel_base::ids::{ClassId, RequestId, TenantId};
use windtunnel_base::time::SimTime;
use windtunnel_scenarios::schema::gateway::{QueueOrder, QueueSpec};

/// Who waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiter {
    /// The request.
    pub request: RequestId,
    /// Its class.
    pub class: ClassId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Priority of its class; lower goes first where the queue's order asks for it.
    pub priority: i32,
}

/// What a request waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// This time.
    Then(SimTime),
    /// Room in the bucket.
    Room,
}

/// All who wait.
#[derive(Clone, Debug)]
pub(super) struct Held {
    waits: FxHashMap<RequestId, Wait>,
    /// Those who wait for a time, by it.
    timed: BTreeMap<(SimTime, u64), RequestId>,
    /// Those who wait for room, in the order of the gateway's queue.
    line: WaitingRoom,
    /// How many ever waited.
    came: u64,
    /// How many of those who wait would take an expired answer.
    would_take: usize,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    kernel: u8,
    /// Its number among all who ever waited.
    number: u64,
    until: Until,
    /// It would take an expired answer, and there was none.
    takes_expired: bool,
}

impl Held {
    /// Nobody waits yet; tenants have these weights.
    pub(super) fn new(order: QueueOrder, weights: &[f64]) -> Self {
        let unlimited = QueueSpec {
            order,
            ..QueueSpec::default()
        };
        Self {
            waits: FxHashMap::default(),
            timed: BTreeMap::new(),
            line: WaitingRoom::new(&unlimited, weights),
            came: 0,
            would_take: 0,
        }
    }

    /// A request of a kernel begins to wait.
    pub(super) fn push(&mut self, who: Waiter, kernel: u8, until: Until, takes_expired: bool) {
        let number = self.came;
        self.came += 1;
        match until {
            Until::Then(at) => {
                self.timed.insert((at, number), who.request);
            }
            Until::Room => {
                // It has no limit.
                let _ = self.line.push(who.request, who.tenant, who.priority);
            }
        }
        let wait = Wait {
            kernel,
            number,
            until,
            takes_expired,
        };
        self.would_take += usize::from(takes_expired);
        self.waits.insert(who.request, wait);
    }

    /// Takes a request out; `false` if it does not wait.
    pub(super) fn remove(&mut self, request: RequestId) -> bool {
        let Some(wait) = self.forget(request) else {
            return false;
        };
        match wait.until {
            Until::Then(at) => self.timed.remove(&(at, wait.number)).is_some(),
            Until::Room => self.line.remove(request),
        }
    }

    /// Takes out all who wait for a kernel, in the order in which they came.
    pub(super) fn take_all_of(&mut self, kernel: u8) -> Vec<RequestId> {
        let all = self.in_order(|wait| wait.kernel == kernel);
        all.iter().for_each(|&request| {
            self.remove(request);
        });
        all
    }

    /// When the first of those who wait for a time has waited long enough.
    pub(super) fn first_time(&self) -> Option<SimTime> {
        self.timed.first_key_value().map(|(&(at, _), _)| at)
    }

    /// Takes out who has waited until now or longer.
    pub(super) fn pop_timed(&mut self, now: SimTime) -> Option<RequestId> {
        let first = self.timed.first_entry().filter(|e| e.key().0 <= now)?;
        let request = first.remove();
        self.forget(request);
        Some(request)
    }

    /// Whether nobody waits for room.
    pub(super) fn line_is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Takes out who is first in line for room.
    pub(super) fn pop_line(&mut self) -> Option<RequestId> {
        let request = self.line.pop()?;
        self.forget(request);
        Some(request)
    }

    /// A tenant was served so many tokens, which some orders count.
    pub(super) fn served(&mut self, tenant: TenantId, prompt: u32, output: u32) {
        self.line.served(tenant, prompt, output);
    }

    /// Those who would take an expired answer, in the order in which they came.
    pub(super) fn takers_of_expired(&self) -> Vec<RequestId> {
        match self.would_take {
            0 => Vec::new(),
            _ => self.in_order(|wait| wait.takes_expired),
        }
    }

    fn in_order(&self, wanted: impl Fn(&Wait) -> bool) -> Vec<RequestId> {
        let waits = self.waits.iter().filter(|(_, wait)| wanted(wait));
        let mut all: Vec<(u64, RequestId)> = waits.map(|(&id, wait)| (wait.number, id)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, request)| request).collect()
    }

    fn forget(&mut self, request: RequestId) -> Option<Wait> {
        let wait = self.waits.remove(&request)?;
        self.would_take -= usize::from(wait.takes_expired);
        Some(wait)
    }
}
