//! A retry budget: a bucket that every request fills by a share, and every retry empties by one. So
//! retries are never more than `burst + share * requests`, whatever happens.

/// Shares are counted in 2^-32, so that nothing is lost over any run.
const ONE: u64 = 1 << 32;

/// What may still be spent on retries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    share: u64,
    full: u64,
    left: u64,
}

impl Budget {
    /// A full one.
    pub(super) fn new(share: f64, burst: u32) -> Self {
        let full = u64::from(burst) * ONE;
        Self {
            share: (share * ONE as f64).round() as u64,
            full,
            left: full,
        }
    }

    /// A request fills it; a bucket for less than one retry at once holds one all the same.
    pub(super) fn request(&mut self) {
        self.left = (self.left + self.share).min(self.full.max(ONE));
    }

    /// Takes a retry out, if there is one.
    pub(super) fn take(&mut self) -> bool {
        let enough = self.left >= ONE;
        self.left -= if enough { ONE } else { 0 };
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_tenth_is_one_in_ten() {
        let mut budget = Budget::new(0.1, 0);
        let mut retries = 0;
        for _ in 0..1000 {
            budget.request();
            retries += u32::from(budget.take());
        }
        // 2^-32 times 0.1 is rounded: the tenth request may find a hair less than one.
        assert!((99..=100).contains(&retries), "{retries}");
        let mut budget = Budget::new(0.0, 2);
        assert_eq!(
            [budget.take(), budget.take(), budget.take()],
            [true, true, false]
        );
    }

    proptest! {
        /// Against exact arithmetic over eighths: the same answers, and the bound.
        #[test]
        fn like_a_plain_bucket(
            eighths in 0_u64..20,
            burst in 1_u32..6,
            moves in prop::collection::vec(any::<bool>(), 0..300),
        ) {
            let mut budget = Budget::new(eighths as f64 / 8.0, burst);
            let full = u64::from(burst) * 8;
            let (mut left, mut requests, mut retries) = (full, 0, 0);
            for is_request in moves {
                if is_request {
                    budget.request();
                    left = (left + eighths).min(full);
                    requests += 1;
                } else {
                    let may = left >= 8;
                    prop_assert_eq!(budget.take(), may);
                    left -= if may { 8 } else { 0 };
                    retries += u64::from(may);
                }
                prop_assert!(8 * retries <= full + eighths * requests);
            }
        }
    }
}
