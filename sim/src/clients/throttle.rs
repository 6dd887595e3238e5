//! Adaptive throttling of clients (Beyer et al., "Site Reliability Engineering", 2016, chapter 21): an
//! attempt is held back with probability `max(0, (requests - k * accepts) / (requests + 1))`, counted
//! over a window of the past. Those held back count as requests too.

use windtunnel_base::time::{SimDuration, SimTime};

/// Parts of the window; one leaves at a time.
const SLICES: usize = 60;

/// Requests and accepts of the window.
#[derive(Clone, Debug)]
pub(super) struct Throttle {
    k: f64,
    slice_ns: u64,
    slices: [(u32, u32); SLICES],
    /// The slice that is being filled, counted from the beginning of time.
    present: u64,
    requests: u64,
    accepts: u64,
}

impl Throttle {
    pub(super) fn new(k: f64, window: SimDuration) -> Self {
        Self {
            k,
            slice_ns: (window.as_nanos() / SLICES as u64).max(1),
            slices: [(0, 0); SLICES],
            present: 0,
            requests: 0,
            accepts: 0,
        }
    }

    /// Forgets what has left the window.
    fn turn_to(&mut self, now: SimTime) -> &mut (u32, u32) {
        let present = now.as_nanos() / self.slice_ns;
        let passed = present.saturating_sub(self.present).min(SLICES as u64);
        self.present = self.present.max(present);
        for back in 0..passed {
            let slice = &mut self.slices[((self.present - back) % SLICES as u64) as usize];
            let (requests, accepts) = std::mem::take(slice);
            self.requests -= u64::from(requests);
            self.accepts -= u64::from(accepts);
        }
        &mut self.slices[(self.present % SLICES as u64) as usize]
    }

    /// The probability with which an attempt is held back now.
    pub(super) fn refusal(&mut self, now: SimTime) -> f64 {
        self.turn_to(now);
        let (requests, accepts) = (self.requests as f64, self.accepts as f64);
        ((requests - self.k * accepts) / (requests + 1.0)).max(0.0)
    }

    /// An attempt, held back or not.
    pub(super) fn request(&mut self, now: SimTime) {
        self.turn_to(now).0 += 1;
        self.requests += 1;
    }

    /// One was answered.
    pub(super) fn accepted(&mut self, now: SimTime) {
        self.turn_to(now).1 += 1;
        self.accepts += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nobody_is_held_back_while_half_are_accepted() {
        let mut throttle = Throttle::new(2.0, SimDuration::from_secs(60));
        let at = SimTime::from_nanos(5);
        for _ in 0..10 {
            throttle.request(at);
        }
        assert_eq!(throttle.refusal(at), 10.0 / 11.0);
        for _ in 0..5 {
            throttle.accepted(at);
        }
        assert_eq!(throttle.refusal(at), 0.0);
    }

    proptest! {
        /// Against a list of all that happened.
        #[test]
        fn like_a_list(
            k in 1.0..3.0_f64,
            window in 60_u64..6_000,
            events in prop::collection::vec((0_u64..2_000, any::<bool>()), 0..200),
        ) {
            let mut throttle = Throttle::new(k, SimDuration::from_nanos(window));
            let slice = window / 60;
            let (mut now, mut list) = (0, Vec::new());
            for (gap, accepted) in events {
                now += gap;
                let at = SimTime::from_nanos(now);
                let seen = |kind: bool| list.iter()
                    .filter(|&&(t, a)| a == kind && t / slice + 60 > now / slice)
                    .count() as f64;
                let (requests, accepts) = (seen(false), seen(true));
                let expected = ((requests - k * accepts) / (requests + 1.0)).max(0.0);
                prop_assert_eq!(throttle.refusal(at), expected);
                if accepted { throttle.accepted(at) } else { throttle.request(at) }
                list.push((now, accepted));
            }
        }
    }
}
