//! Outlier detection: replicas that fail one request after the other are left alone for a while.

use windtunnel_base::ids::ReplicaId;
use windtunnel_base::time::SimDuration;
use windtunnel_scenarios::schema::outliers::OutlierDetectionSpec;

/// What the gateway knows of each replica's failures.
#[derive(Clone, Debug)]
pub struct Outliers {
    consecutive: u32,
    base: SimDuration,
    longest: SimDuration,
    /// Share of a pool that may be ejected at once.
    share: f64,
    replicas: Vec<Record>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// Failures since the last answer or return.
    failures: u32,
    /// Ejections since the last answer.
    times: u32,
    ejected: bool,
}

impl Outliers {
    /// Nobody has failed yet.
    pub fn new(spec: &OutlierDetectionSpec, replicas: usize) -> Self {
        let base = spec.base_ejection_time.0;
        Self {
            consecutive: spec.consecutive_5xx.max(1),
            base,
            longest: spec.max_ejection_time.0.max(base),
            share: spec.max_ejection_percent / 100.0,
            replicas: vec![Record::default(); replicas],
        }
    }

    /// How many of a pool of so many replicas may be ejected at once.
    pub fn most_ejected(&self, pool: usize) -> usize {
        ((self.share * pool as f64) as usize).max(1)
    }

    /// A replica has answered a request.
    pub fn answered(&mut self, replica: ReplicaId) {
        let record = &mut self.replicas[replica.index()];
        (record.failures, record.times) = (0, 0);
    }

    /// A replica has failed a request. True if it is to be ejected, should that be possible.
    pub fn failed(&mut self, replica: ReplicaId) -> bool {
        let record = &mut self.replicas[replica.index()];
        if record.ejected {
            return false; // a request sent before
        }
        record.failures = record.failures.saturating_add(1);
        record.failures >= self.consecutive
    }

    /// A replica is ejected; for how long.
    pub fn eject(&mut self, replica: ReplicaId) -> SimDuration {
        let record = &mut self.replicas[replica.index()];
        record.ejected = true;
        record.times = record.times.saturating_add(1);
        let time = self.base.saturating_mul(u64::from(record.times));
        time.min(self.longest)
    }

    /// Its time is over.
    pub fn returns(&mut self, replica: ReplicaId) {
        let record = &mut self.replicas[replica.index()];
        (record.failures, record.ejected) = (0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windtunnel_base::quantity::Span;

    #[test]
    fn who_fails_again_and_again_is_left_alone_longer_each_time() {
        let seconds = SimDuration::from_secs;
        let spec = OutlierDetectionSpec {
            consecutive_5xx: 3,
            base_ejection_time: Span(seconds(30)),
            max_ejection_time: Span(seconds(70)),
            ..OutlierDetectionSpec::default()
        };
        let mut outliers = Outliers::new(&spec, 2);
        let (good, bad) = (ReplicaId(0), ReplicaId(1));
        for lasts in [30, 60, 70] {
            assert!(!outliers.failed(bad) && !outliers.failed(bad));
            assert!(!outliers.failed(good), "each counts its own");
            outliers.answered(good);
            assert!(outliers.failed(bad));
            assert_eq!(outliers.eject(bad), seconds(lasts));
            assert!(!outliers.failed(bad), "it is ejected already");
            outliers.returns(bad);
        }
        // An answer in between is a new beginning.
        assert!(!outliers.failed(bad) && !outliers.failed(bad));
        outliers.answered(bad);
        assert!(!outliers.failed(bad) && !outliers.failed(bad) && outliers.failed(bad));
        assert_eq!(outliers.eject(bad), seconds(30));
    }

    #[test]
    fn one_of_few_may_be_ejected_and_a_share_of_many() {
        let outliers = Outliers::new(&OutlierDetectionSpec::default(), 0);
        assert_eq!(
            [1, 4, 19, 20, 99].map(|n| outliers.most_ejected(n)),
            [1, 1, 1, 2, 9]
        );
    }
}
