//! How fast the number of replicas changes: stabilisation and limits on the speed, as Kubernetes'
//! autoscaler has them (`behavior` of `autoscaling/v2`).

use std::collections::VecDeque;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_scenarios::schema::scaling::ScalingRuleSpec;

const SCALE_DOWN_STABILIZATION: SimDuration = SimDuration::from_secs(300);
const SCALE_UP_REPLICAS: u32 = 4;
const ALL_OF_THEM: f64 = 100.0;
const PER: SimDuration = SimDuration::from_secs(15);

/// The rule of one direction.
#[derive(Clone, Debug)]
struct Rule {
    stabilization: SimDuration,
    replicas: Option<u32>,
    percent: Option<f64>,
    per: SimDuration,
}

impl Rule {
    fn new(spec: &ScalingRuleSpec, stabilization: SimDuration, replicas: Option<u32>) -> Self {
        let unsaid = spec.replicas.is_none() && spec.percent.is_none();
        Self {
            stabilization: spec.stabilization.map_or(stabilization, |span| span.0),
            replicas: if unsaid { replicas } else { spec.replicas },
            percent: if unsaid {
                Some(ALL_OF_THEM)
            } else {
                spec.percent
            },
            per: spec.per.map_or(PER, |span| span.0),
        }
    }
}

/// Both rules, with what they remember.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    up: Rule,
    down: Rule,
    /// What was wanted, and when.
    wanted: VecDeque<(SimTime, u32)>,
    /// How the number changed, and when.
    changes: VecDeque<(SimTime, i64)>,
}

impl Rules {
    /// For a pool that starts with so many replicas: that counts as wanted at time zero.
    pub(super) fn new(up: &ScalingRuleSpec, down: &ScalingRuleSpec, start: u32) -> Self {
        Self {
            up: Rule::new(up, SimDuration::ZERO, Some(SCALE_UP_REPLICAS)),
            down: Rule::new(down, SCALE_DOWN_STABILIZATION, None),
            wanted: VecDeque::from([(SimTime::ZERO, start)]),
            changes: VecDeque::new(),
        }
    }

    /// How many there may be of those that are wanted, where there are `present` now.
    pub(super) fn hold_back(&mut self, now: SimTime, present: u32, wanted: u32) -> u32 {
        let target = self.stabilized(now, present, wanted);
        let longest = self.up.per.max(self.down.per);
        while (self.changes.front()).is_some_and(|&(at, _)| now.since(at) >= longest) {
            self.changes.pop_front();
        }
        let settled = match target.cmp(&present) {
            std::cmp::Ordering::Greater => target.min(self.most(now, present)).max(present),
            std::cmp::Ordering::Less => target.max(self.least(now, present)).min(present),
            std::cmp::Ordering::Equal => present,
        };
        if settled != present {
            let change = i64::from(settled) - i64::from(present);
            self.changes.push_back((now, change));
        }
        settled
    }

    /// The least change of all that were wanted within each direction's window.
    fn stabilized(&mut self, now: SimTime, present: u32, wanted: u32) -> u32 {
        self.wanted.push_back((now, wanted));
        let longest = self.up.stabilization.max(self.down.stabilization);
        while (self.wanted.front()).is_some_and(|&(at, _)| now.since(at) > longest) {
            self.wanted.pop_front();
        }
        let within = |window: SimDuration| {
            let recent = self.wanted.iter();
            recent.filter(move |&&(at, _)| now.since(at) <= window)
        };
        let up = within(self.up.stabilization).map(|w| w.1).min();
        let down = within(self.down.stabilization).map(|w| w.1).max();
        let (up, down) = (up.unwrap_or(wanted), down.unwrap_or(wanted));
        if present < up {
            up
        } else if present > down {
            down
        } else {
            present
        }
    }

    /// How many there were at the begin of the last `per`.
    fn before(&self, now: SimTime, present: u32, per: SimDuration) -> f64 {
        let recent = self.changes.iter().filter(|c| now.since(c.0) < per);
        let change: i64 = recent.map(|c| c.1).sum();
        (i64::from(present) - change).max(0) as f64
    }

    fn most(&self, now: SimTime, present: u32) -> u32 {
        let before = self.before(now, present, self.up.per);
        let by_number = self.up.replicas.map(|n| before + f64::from(n));
        let by_share = self.up.percent.map(|p| (before * (1.0 + p / 100.0)).ceil());
        let most = by_number.into_iter().chain(by_share).reduce(f64::max);
        most.map_or(u32::MAX, |most| most as u32)
    }

    fn least(&self, now: SimTime, present: u32) -> u32 {
        let before = self.before(now, present, self.down.per);
        let by_number = self.down.replicas.map(|n| before - f64::from(n));
        let by_share = self.down.percent.map(|p| before * (1.0 - p / 100.0));
        let least = by_number.into_iter().chain(by_share).reduce(f64::min);
        least.map_or(0, |least| least.max(0.0) as u32)
    }
}
