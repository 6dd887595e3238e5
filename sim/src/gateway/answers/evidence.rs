//! What was seen of one stored answer: at which similarity it was right, and at which wrong.
//!
//! That a stored answer is right is the likelier the more similar a question is. So what was seen at
//! lower similarities is, if anything, too pessimistic for a higher one: the share of right ones among
//! the cases just below is a lower estimate. It is trusted where the Chernoff bound says so:
//! with `k` right of `n`, a probability of `p = 1 - max_error` or less would give as many or more with
//! a chance of at most `exp(-n KL(k/n || p))`. Windows of 1, 2, 4, … bins below are tried, and the
//! chance is shared among them.

/// Bins over similarities from 0 to 1.
const BINS: usize = 100;
/// Widths of windows that are tried, in bins.
const WIDTHS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// What was seen of one stored answer.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// By similarity: how often it would have been right, and how often wrong. None seen: no memory.
    bins: Option<Box<[[u32; 2]; BINS]>>,
}

/// When that is enough.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LearnedRule {
    /// Least probability of being right.
    p: f64,
    /// `ln` of the reciprocal of the chance to be misled.
    surprise: f64,
}

impl LearnedRule {
    /// Right with a probability of `1 - max_error` or more, with this confidence; both more than 0
    /// and less than 1.
    pub fn new(max_error: f64, confidence: f64) -> Self {
        Self {
            p: 1.0 - max_error,
            surprise: libm::log(WIDTHS.len() as f64 / (1.0 - confidence)),
        }
    }

    /// Whether `right` of `all` show it.
    fn shown_by(&self, right: u32, all: u32) -> bool {
        let (n, share) = (f64::from(all), f64::from(right) / f64::from(all));
        all > 0 && share > self.p && n * divergence(share, self.p) >= self.surprise
    }
}

/// Kullback-Leibler divergence of one coin from another, in nats; `q` strictly between 0 and 1.
fn divergence(p: f64, q: f64) -> f64 {
    let term = |p: f64, q: f64| if p > 0.0 { p * libm::log(p / q) } else { 0.0 };
    term(p, q) + term(1.0 - p, 1.0 - q)
}

fn bin(similarity: f64) -> usize {
    // Casts of floats stop at the ends of the range.
    ((similarity * BINS as f64) as usize).min(BINS - 1)
}

impl Evidence {
    /// A question of this similarity was answered on its own: whether the stored answer would have been
    /// right.
    pub fn saw(&mut self, similarity: f64, right: bool) {
        let bins = self.bins.get_or_insert_with(|| Box::new([[0; 2]; BINS]));
        let seen = &mut bins[bin(similarity)][usize::from(!right)];
        *seen = seen.saturating_add(1);
    }

    /// Whether what was seen shows that the answer is right for a question of this similarity.
    pub fn shows(&self, rule: &LearnedRule, similarity: f64) -> bool {
        let Some(bins) = &self.bins else {
            return false;
        };
        // Its own bin reaches above it: what is seen there may be better than what is asked.
        let top = bin(similarity);
        let (mut right, mut all, mut width) = (0, 0, 0);
        for below in 1..=top.min(WIDTHS[WIDTHS.len() - 1]) {
            let [good, bad] = bins[top - below];
            right += good;
            all += good + bad;
            if below == WIDTHS[width] {
                width += 1;
                if rule.shown_by(right, all) {
                    return true;
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windtunnel_base::rng::Rng;

    #[test]
    fn nothing_seen_shows_nothing() {
        let rule = LearnedRule::new(0.02, 0.95);
        assert!(!Evidence::default().shows(&rule, 0.99));
    }

    #[test]
    fn so_many_right_ones_in_a_row_are_needed() {
        // With none wrong: n ln(1 / .98) >= ln(7 / .05), so n >= 244.6.
        let rule = LearnedRule::new(0.02, 0.95);
        let mut evidence = Evidence::default();
        (0..244).for_each(|_| evidence.saw(0.90, true));
        assert!(!evidence.shows(&rule, 0.95));
        evidence.saw(0.90, true);
        assert!(evidence.shows(&rule, 0.95));
        // Not where nothing below was seen, and not after many wrong ones.
        assert!(!evidence.shows(&rule, 0.90));
        (0..20).for_each(|_| evidence.saw(0.90, false));
        assert!(!evidence.shows(&rule, 0.95));
    }

    /// At a similarity where it is wrong just too often, it is trusted in about one of twenty stories at
    /// most: the confidence is kept.
    #[test]
    fn the_confidence_holds() {
        let rule = LearnedRule::new(0.05, 0.95);
        let (stories, mut misled) = (2_000, 0);
        for story in 0..stories {
            let mut rng = Rng::from_seed(story);
            let mut evidence = Evidence::default();
            for _ in 0..400 {
                evidence.saw(0.8 + 0.09 * rng.f64(), !rng.chance(0.05));
            }
            misled += u64::from(evidence.shows(&rule, 0.9));
        }
        assert!(misled as f64 <= 0.05 * stories as f64, "{misled}");
    }

    #[test]
    fn similarities_outside_of_zero_to_one_are_at_the_ends() {
        let mut evidence = Evidence::default();
        for similarity in [-0.5, 1.5, f64::NAN] {
            evidence.saw(similarity, true);
        }
        let bins = evidence.bins.unwrap();
        assert_eq!((bins[0][0], bins[BINS - 1][0]), (2, 1));
    }
}
