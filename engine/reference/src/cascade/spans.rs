//! L1: requests and tokens that take the same path through the model form a span, and a span shares
//! launches. It saves launches, and the weights read by them; it changes no result.

use serde::{Deserialize, Serialize};

/// Parameters of L1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpanSettings {
    /// Most requests of a span.
    pub max: usize,
}

impl Default for SpanSettings {
    fn default() -> Self {
        Self { max: 4 }
    }
}

/// Gathers the indices of `paths` into spans: within one all paths are the same, none holds more than
/// `max`, and the order of requests is kept within a path.
pub fn coherent<P: Ord + Copy>(paths: &[P], max: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..paths.len()).collect();
    order.sort_by_key(|&i| paths[i]);
    let mut spans: Vec<Vec<usize>> = Vec::new();
    for i in order {
        match spans.last_mut() {
            Some(span) if paths[span[0]] == paths[i] && span.len() < max => span.push(i),
            _ => spans.push(vec![i]),
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use windtunnel_base::rng::Rng;

    #[test]
    fn spans_are_of_one_path_and_as_few_as_can_be() {
        let mut rng = Rng::from_seed(1);
        for _ in 0..500 {
            let paths: Vec<u64> = (0..rng.below(40)).map(|_| rng.below(4)).collect();
            let max = 1 + rng.below(6) as usize;
            let spans = coherent(&paths, max);
            let mut seen: Vec<usize> = spans.concat();
            for span in &spans {
                assert!(!span.is_empty() && span.len() <= max);
                assert!(span.iter().all(|&i| paths[i] == paths[span[0]]));
                assert!(span.windows(2).all(|w| w[0] < w[1]));
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..paths.len()).collect::<Vec<_>>());
            let least: usize = (0..4)
                .map(|p| paths.iter().filter(|q| **q == p).count().div_ceil(max))
                .sum();
            assert_eq!(spans.len(), least);
        }
    }
}
