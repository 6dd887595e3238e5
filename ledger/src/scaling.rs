//! How many replicas there were over a run whose pool follows its load, and why.

use crate::distribution::Distribution;
use serde::{Deserialize, Serialize};

/// So many changes are kept; those of long runs after them are only counted.
pub const KEPT_CHANGES: usize = 10_000;

/// What happened to a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScalingStep {
    /// It was ordered, and is paid from now on.
    Ordered,
    /// It is ready to serve.
    Ready,
    /// It gets no more requests.
    Draining,
    /// It was released, and is paid no more.
    Released,
}

/// A change of one replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScalingChange {
    /// When, ns.
    pub at_ns: u64,
    /// Which replica.
    pub replica: u32,
    /// What happened to it.
    pub step: ScalingStep,
}

/// What an autoscaler did over a run.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScalingTotals {
    /// Replicas ordered.
    pub orders: u64,
    /// Of those, the ones let go before they were ready.
    pub cancelled: u64,
    /// Ready replicas that had to go.
    pub drains: u64,
    /// Replica-nanoseconds from order to release, those at the start from the begin of the run; all
    /// replicas of the pool together.
    pub provisioned_ns: u128,
    /// Replica-nanoseconds in which replicas took new requests.
    pub ready_ns: u128,
    /// The most replicas that were paid at once.
    pub peak: u32,
    /// Looks at the signal.
    pub checks: u64,
    /// Of those, the ones that found requests waiting.
    pub short_checks: u64,
    /// From the first look that found requests waiting to the next replica that became ready, ns.
    pub time_to_capacity: Distribution,
    /// The signal and the requests at a replica, reading by reading, where the signal is one of
    /// processors.
    pub signal: Moments,
    /// The first changes, [`KEPT_CHANGES`] at most.
    pub changes: Vec<ScalingChange>,
}

impl ScalingTotals {
    /// Notes a change, if there is room for it.
    pub fn note(&mut self, change: ScalingChange) {
        if self.changes.len() < KEPT_CHANGES {
            self.changes.push(change);
        }
    }
}

/// Means and central second moments of pairs of readings, by Welford's recurrences.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moments {
    /// Pairs.
    pub n: u64,
    mean: [f64; 2],
    square: [f64; 2],
    product: f64,
}

impl Moments {
    /// Adds a pair.
    pub fn add(&mut self, x: f64, y: f64) {
        self.n += 1;
        let n = self.n as f64;
        let before = [x - self.mean[0], y - self.mean[1]];
        self.mean[0] += before[0] / n;
        self.mean[1] += before[1] / n;
        let after = [x - self.mean[0], y - self.mean[1]];
        self.square[0] += before[0] * after[0];
        self.square[1] += before[1] * after[1];
        self.product += before[0] * after[1];
    }

    /// Correlation of the two, -1 to 1; none if one of them never changed.
    pub fn correlation(&self) -> Option<f64> {
        let scale = (self.square[0] * self.square[1]).sqrt();
        (scale > 0.0).then(|| self.product / scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlation_is_that_of_the_definition() {
        let pairs = [(1.0, 2.0), (2.0, 1.0), (3.0, 5.0), (4.0, 4.0), (7.0, 5.5)];
        let mut moments = Moments::default();
        assert_eq!(moments.correlation(), None);
        pairs.iter().for_each(|&(x, y)| moments.add(x, y));
        let n = pairs.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / n;
        let (mx, my) = (mean(|p| p.0), mean(|p| p.1));
        let sum = |of: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>();
        let product = sum(&|p| (p.0 - mx) * (p.1 - my));
        let squares = sum(&|p| (p.0 - mx).powi(2)) * sum(&|p| (p.1 - my).powi(2));
        let expected = product / squares.sqrt();
        let found = moments.correlation().unwrap();
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }
}
