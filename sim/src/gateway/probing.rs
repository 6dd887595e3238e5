//! Which of the kernels' answers are probed, and what is made of the outcomes: a one-sided cumulative sum per
//! kernel (Page 1954), `S = max(0, S + step)`, with an alarm when `S > h`. Nothing here knows an error rate:
//! detectors see whether answers differed, one probe after the other.

use windtunnel_base::ids::RequestId;
use windtunnel_base::rng::Streams;
use windtunnel_scenarios::schema::probing::DetectorSpec;

/// The detectors of all kernels, and the draw of probes.
#[derive(Clone, Debug)]
pub struct Probing {
    share: f64,
    /// What an outcome adds: of two answers that differ, and of two that do not.
    steps: [f64; 2],
    limit: f64,
    watches: Vec<Watch>,
    streams: Streams,
}

/// One kernel's.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    sum: f64,
    /// How many alarms there were: what was probed before the last one says nothing of the kernel as it will be.
    version: u32,
    suspect: bool,
}

impl Probing {
    /// Detectors of so many kernels, which probe that share of requests.
    pub fn new(share: f64, detector: &DetectorSpec, kernels: usize, streams: Streams) -> Self {
        let (steps, limit) = match *detector {
            DetectorSpec::LogLikelihood { p0, p1, h } => {
                let same = libm::log((1.0 - p1) / (1.0 - p0));
                ([libm::log(p1 / p0), same], h)
            }
            DetectorSpec::Standardised { p0, k, h } => {
                let deviation = (p0 * (1.0 - p0)).sqrt();
                ([1.0, 0.0].map(|seen| (seen - p0) / deviation - k), h)
            }
        };
        Self {
            share,
            steps,
            limit,
            watches: vec![Watch::default(); kernels],
            streams,
        }
    }

    /// Whether a kernel's answer to a request is probed.
    pub fn wants(&self, kernel: u8, request: RequestId) -> bool {
        let suspect = self.watches[usize::from(kernel)].suspect;
        let draw = || self.streams.stream("probe", u64::from(request.0)).f64();
        !suspect && draw() < self.share
    }

    /// Which version of a kernel is watched; probes are told with that of their beginning.
    pub fn version(&self, kernel: u8) -> u32 {
        self.watches[usize::from(kernel)].version
    }

    /// Whether the answers of a probe differed, which began with that version: whether that raises an
    /// alarm, or nothing if it came too late to say anything.
    pub fn outcome(&mut self, kernel: u8, version: u32, differs: bool) -> Option<bool> {
        let watch = &mut self.watches[usize::from(kernel)];
        if watch.version != version {
            return None;
        }
        let [up, down] = self.steps;
        let step = if differs { up } else { down };
        watch.sum = (watch.sum + step).max(0.0);
        let alarm = watch.sum > self.limit;
        if alarm {
            *watch = Watch {
                sum: 0.0,
                version: version + 1,
                suspect: true,
            };
        }
        Some(alarm)
    }

    /// A kernel was built anew: it is suspect no more.
    pub fn rebuilt(&mut self, kernel: u8) {
        self.watches[usize::from(kernel)].suspect = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probing(detector: DetectorSpec) -> Probing {
        Probing::new(0.25, &detector, 2, Streams::new(1))
    }

    #[test]
    fn a_quarter_is_probed_unless_the_kernel_is_suspect() {
        let mut probing = probing(DetectorSpec::default());
        let n = 40_000;
        let probed = |p: &Probing| (0..n).filter(|&i| p.wants(0, RequestId(i))).count();
        let all = probed(&probing) as f64 / f64::from(n);
        assert!((all - 0.25).abs() < 4.0 * (0.25 * 0.75 / f64::from(n)).sqrt());
        while probing.outcome(0, 0, true) == Some(false) {}
        assert_eq!((probed(&probing), probing.version(0)), (0, 1));
        assert!(probing.wants(1, RequestId(0)) == probing.clone().wants(1, RequestId(0)));
        probing.rebuilt(0);
        assert_eq!(probed(&probing) as f64 / f64::from(n), all);
    }

    /// By hand: ln 5 up, ln(0.75 / 0.95) down, 4.6 to exceed.
    #[test]
    fn sums_are_those_by_hand() {
        let mut probing = probing(DetectorSpec::default());
        let mut told = |differs| probing.outcome(1, 0, differs);
        // 1.609, 1.373, 2.982, 2.746, 4.355, 4.119, 5.728
        let seen = [true, false, true, false, true, false, true].map(&mut told);
        assert_eq!(seen[..6], [Some(false); 6]);
        assert_eq!(seen[6], Some(true));
        assert_eq!(told(true), None, "of the version before");
        assert_eq!(probing.outcome(1, 1, false), Some(false));
        // It never falls below zero: three in a row raise an alarm after any number of the others.
        (0..100).for_each(|_| assert_eq!(probing.outcome(1, 1, false), Some(false)));
        let seen = [true; 3].map(|differs| probing.outcome(1, 1, differs));
        assert_eq!(seen, [Some(false), Some(false), Some(true)]);
    }

    /// (1 - 0.2) / 0.4 - 0.5 = 1.5 up, -0.2 / 0.4 - 0.5 = -1 down, 3 to exceed.
    #[test]
    fn standardised_sums_are_those_by_hand() {
        let mut probing = probing(DetectorSpec::Standardised {
            p0: 0.2,
            k: 0.5,
            h: 2.9,
        });
        // 1.5, 0.5, 2.0, 3.5
        let seen = [true, false, true, true].map(|differs| probing.outcome(0, 0, differs));
        assert_eq!(seen, [Some(false), Some(false), Some(false), Some(true)]);
    }
}
