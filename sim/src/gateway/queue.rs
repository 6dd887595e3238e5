//! The waiting room in front of full replicas: a binary heap that knows where everybody stands,
//! so that a request whose client gave up leaves in O(log n).

use super::fair::{FairRoom, Turn};
use rustc_hash::FxHashMap;
use windtunnel_base::ids::{RequestId, TenantId};
use windtunnel_base::refusal::Refusal;
use windtunnel_scenarios::schema::gateway::{QueueOrder, QueueSpec};

/// Requests that wait at the gateway, in the order of its policy.
#[derive(Clone, Debug)]
pub struct WaitingRoom {
    order: QueueOrder,
    /// Set if the order is one between tenants; then the heap is empty.
    fair: Option<FairRoom>,
    limit: usize,
    pushed: i64,
    heap: Vec<Waiting>,
    /// Where each request stands in the heap.
    places: FxHashMap<RequestId, u32>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// Least goes first; no two are equal.
    rank: (i32, i64),
    request: RequestId,
}

impl WaitingRoom {
    /// An empty room; tenants have these weights, those beyond them 1.
    pub fn new(spec: &QueueSpec, weights: &[f64]) -> Self {
        let turn = match spec.order {
            QueueOrder::RoundRobin => Some(Turn::RoundRobin),
            QueueOrder::Vtc => Some(Turn::VirtualTokenCounter),
            QueueOrder::Fcfs | QueueOrder::Priority | QueueOrder::Lifo => None,
        };
        Self {
            order: spec.order,
            fair: turn.map(|turn| FairRoom::new(turn, weights)),
            limit: spec.limit.map_or(usize::MAX, |limit| limit as usize),
            pushed: 0,
            heap: Vec::new(),
            places: FxHashMap::default(),
        }
    }

    /// Lets a request wait. `priority` is that of its class; lower goes first where the order
    /// asks for it.
    ///
    /// # Errors
    /// `QueueFull` if the room is full.
    ///
    /// # Panics
    /// In debug builds, if the request waits already.
    pub fn push(
        &mut self,
        request: RequestId,
        tenant: TenantId,
        priority: i32,
    ) -> Result<(), Refusal> {
        if self.len() >= self.limit {
            return Err(Refusal::QueueFull);
        }
        if let Some(fair) = &mut self.fair {
            fair.push(request, tenant);
            return Ok(());
        }
        self.pushed += 1;
        let rank = match self.order {
            QueueOrder::Fcfs | QueueOrder::RoundRobin | QueueOrder::Vtc => (0, self.pushed),
            QueueOrder::Priority => (priority, self.pushed),
            QueueOrder::Lifo => (0, -self.pushed),
        };
        let place = self.heap.len();
        self.heap.push(Waiting { rank, request });
        let before = self.places.insert(request, place as u32);
        debug_assert!(before.is_none(), "{request:?} waits twice");
        self.rise(place);
        Ok(())
    }

    /// Who goes next.
    pub fn peek(&self) -> Option<RequestId> {
        match &self.fair {
            Some(fair) => fair.peek(),
            None => self.heap.first().map(|w| w.request),
        }
    }

    /// Takes who goes next.
    pub fn pop(&mut self) -> Option<RequestId> {
        if let Some(fair) = &mut self.fair {
            return fair.pop();
        }
        let next = self.peek()?;
        self.take_at(0);
        Some(next)
    }

    /// Takes a request out of turn, in O(log n); `false` if it does not wait here.
    pub fn remove(&mut self, request: RequestId) -> bool {
        if let Some(fair) = &mut self.fair {
            return fair.remove(request);
        }
        let Some(&place) = self.places.get(&request) else {
            return false;
        };
        self.take_at(place as usize);
        true
    }

    /// A tenant was served so many tokens, which some orders count.
    #[inline]
    pub fn served(&mut self, tenant: TenantId, prompt: u32, output: u32) {
        if let Some(fair) = &mut self.fair {
            fair.served(tenant, prompt, output);
        }
    }

    /// How many wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.fair.as_ref().map_or(self.heap.len(), FairRoom::len)
    }

    /// Whether nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn take_at(&mut self, place: usize) {
        let gone = self.heap.swap_remove(place);
        self.places.remove(&gone.request);
        if place < self.heap.len() {
            // The last one came from another branch: it may belong above or below.
            self.settle(place);
            self.rise(place);
            self.sink(place);
        }
    }

    fn settle(&mut self, place: usize) {
        self.places.insert(self.heap[place].request, place as u32);
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.settle(a);
        self.settle(b);
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let above = (place - 1) / 2;
            if self.heap[above].rank <= self.heap[place].rank {
                return;
            }
            self.swap(above, place);
            place = above;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let mut first = place;
            for child in [left, right] {
                if child < self.heap.len() && self.heap[child].rank < self.heap[first].rank {
                    first = child;
                }
            }
            if first == place {
                return;
            }
            self.swap(first, place);
            place = first;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn room(order: QueueOrder, limit: Option<u32>) -> WaitingRoom {
        let spec = QueueSpec {
            max_in_flight: None,
            limit,
            order,
        };
        WaitingRoom::new(&spec, &[])
    }

    #[test]
    fn orders_differ_on_one_scene() {
        // Three requests with priorities 1, 0, 1, in this order.
        let leave = |order| {
            let mut room = room(order, None);
            for (id, priority) in [(10, 1), (11, 0), (12, 1)] {
                room.push(RequestId(id), TenantId(0), priority).unwrap();
            }
            std::iter::from_fn(|| room.pop())
                .map(|r| r.0)
                .collect::<Vec<_>>()
        };
        assert_eq!(leave(QueueOrder::Fcfs), [10, 11, 12]);
        assert_eq!(leave(QueueOrder::Priority), [11, 10, 12]);
        assert_eq!(leave(QueueOrder::Lifo), [12, 11, 10]);
    }

    #[test]
    fn a_full_room_refuses_and_a_leaver_makes_space() {
        let mut room = room(QueueOrder::Fcfs, Some(1));
        assert_eq!(room.push(RequestId(0), TenantId(0), 0), Ok(()));
        assert_eq!(
            room.push(RequestId(1), TenantId(0), 0),
            Err(Refusal::QueueFull)
        );
        assert!(room.remove(RequestId(0)));
        assert!(!room.remove(RequestId(0)), "it has left");
        assert_eq!(room.push(RequestId(1), TenantId(0), 0), Ok(()));
        assert_eq!((room.pop(), room.pop()), (Some(RequestId(1)), None));
    }

    proptest! {
        /// Against a sorted list, over random pushes, pops and removals.
        #[test]
        fn like_a_sorted_list(
            order in prop::sample::select(vec![QueueOrder::Fcfs, QueueOrder::Priority, QueueOrder::Lifo]),
            moves in prop::collection::vec((0_u8..4, 0_i32..3, 0_u32..200), 1..200),
        ) {
            let mut room = room(order, Some(40));
            let mut model: Vec<(i32, u32)> = Vec::new(); // in order of arrival
            let mut next_id = 0;
            let first = |model: &[(i32, u32)]| match order {
                QueueOrder::Lifo => model.len().checked_sub(1),
                QueueOrder::Priority => (0..model.len()).min_by_key(|&i| model[i].0),
                _ => (!model.is_empty()).then_some(0),
            };
            for (what, priority, pick) in moves {
                match what {
                    0 | 1 => {
                        let got = room.push(RequestId(next_id), TenantId(0), priority);
                        prop_assert_eq!(got.is_ok(), model.len() < 40);
                        if got.is_ok() { model.push((priority, next_id)); }
                        next_id += 1;
                    }
                    2 => {
                        let want = first(&model).map(|i| RequestId(model.remove(i).1));
                        prop_assert_eq!(room.peek(), want);
                        prop_assert_eq!(room.pop(), want);
                    }
                    _ => {
                        let place = model.iter().position(|&(_, id)| id == pick);
                        if let Some(place) = place { model.remove(place); }
                        prop_assert_eq!(room.remove(RequestId(pick)), place.is_some());
                    }
                }
                prop_assert_eq!(room.len(), model.len());
            }
        }
    }
}
