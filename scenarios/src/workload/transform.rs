//! What is done to a trace before it is played: slices, thinning, copies, speed, jitter. Every
//! choice is written down in words in `Facts::transformations`.

use super::{Facts, TrafficError};
use crate::schema::traffic::{TraceSpec, TrafficSpec};
use windtunnel_base::rng::Streams;
use windtunnel_base::rng::mix64;

/// The transformations of a trace, compiled. They apply in the order of the fields, on the
/// trace's clock until `speed` turns it into the run's.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Transform {
    /// Begin and end of the slice, in ns of the trace.
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// First so many requests (or conversations) of the slice.
    pub(crate) first: u64,
    /// Kept share.
    pub(crate) thin: f64,
    pub(crate) copies: u32,
    /// How much later each copy is, in ns of the trace.
    pub(crate) shift: u64,
    /// Width of the grid that stamps are spread over, in ns of the trace; 0 for none.
    pub(crate) jitter: u64,
    /// Trace time over run time.
    pub(crate) speed: f64,
}

impl Transform {
    /// Compiles the transformations of `trace`.
    pub(crate) fn new(trace: &TraceSpec) -> Result<Self, TrafficError> {
        let bad = |field: &str, reason: &str, remedy: &str| {
            Err(TrafficError::scenario(
                format!("traffic.trace.{field}"),
                reason,
                remedy,
            ))
        };
        let thin = trace.thin.unwrap_or(1.0);
        if !(thin > 0.0 && thin <= 1.0) {
            return bad("thin", "it must be more than 0 and at most 1", "correct it");
        }
        let speed = trace.speed_up.unwrap_or(1.0);
        if !(speed > 0.0 && speed.is_finite()) {
            return bad("speed_up", "it must be more than 0", "correct it");
        }
        let (copies, shift) = trace
            .replicate
            .as_ref()
            .map_or((1, 0), |r| (r.copies, r.shift.0.as_nanos()));
        if copies == 0 {
            return bad(
                "replicate.copies",
                "0 copies are no traffic",
                "give 1 or more",
            );
        }
        if u64::from(copies)
            .checked_mul(shift)
            .is_none_or(|all| all > u64::MAX / 4)
        {
            return bad(
                "replicate.shift",
                "the last copy is centuries late",
                "shorten it",
            );
        }
        let from = trace.slice.from.map_or(0, |s| s.0.as_nanos());
        let to = trace.slice.to.map_or(u64::MAX, |s| s.0.as_nanos());
        if from >= to {
            return bad(
                "slice",
                "it ends before it begins",
                "correct `from` and `to`",
            );
        }
        Ok(Self {
            from,
            to,
            first: trace.slice.first.unwrap_or(u64::MAX),
            thin,
            copies,
            shift,
            jitter: trace.jitter.map_or(0, |s| s.0.as_nanos()),
            speed,
        })
    }

    /// Writes the transformations down.
    pub(crate) fn describe(&self, trace: &TraceSpec, facts: &mut Facts) {
        let said = &mut facts.transformations;
        let slice = &trace.slice;
        if slice.from.is_some() || slice.to.is_some() {
            let from = slice.from.unwrap_or_default();
            let to = slice
                .to
                .map_or_else(|| "the end".into(), |to| to.to_string());
            said.push(format!("slice: from {from} to {to} of the trace"));
        }
        if let Some(first) = slice.first {
            said.push(format!("slice: the first {first}"));
        }
        if self.thin < 1.0 {
            said.push(format!(
                "thin: each is kept with probability {} by a hash of its place and the seed",
                self.thin
            ));
        }
        if self.copies > 1 {
            let shift = trace
                .replicate
                .as_ref()
                .map(|r| r.shift)
                .unwrap_or_default();
            said.push(format!(
                "replicate: {} copies, each {shift} later than the one before, with prefixes of \
                 its own",
                self.copies
            ));
        }
        if let Some(grid) = trace.jitter.filter(|_| self.jitter > 0) {
            said.push(format!(
                "jitter: every arrival is moved later by a uniform time below {grid}, anew for \
                 every seed"
            ));
        }
        if self.speed != 1.0 && trace.speed_up.is_some() {
            said.push(format!("speed_up: time runs {} times faster", self.speed));
        }
    }

    /// Whether one is kept under this seed. What is kept at a low share is kept at every higher.
    pub(crate) fn keeps(&self, streams: Streams, entity: u64, copy: u32) -> bool {
        self.thin >= 1.0 || streams.stream("thin", entity_of(entity, copy)).f64() < self.thin
    }

    /// Run time of a trace time (`from` taken off), in ns.
    pub(crate) fn run_time(&self, trace_ns: u64) -> u64 {
        scale(trace_ns, self.speed)
    }
}

/// `ns / speed`, exact if the speed is 1.
pub(crate) fn scale(ns: u64, speed: f64) -> u64 {
    if speed == 1.0 {
        ns
    } else {
        (ns as f64 / speed).round() as u64
    }
}

/// What names the streams of one request (or conversation) of one copy.
pub(crate) fn entity_of(entity: u64, copy: u32) -> u64 {
    if copy == 0 {
        entity
    } else {
        mix64(entity) ^ mix64(u64::from(copy).wrapping_neg())
    }
}

/// Refuses keys that do not go with a format.
pub(crate) fn refuse(
    traffic: &TrafficSpec,
    keys: &[(&str, bool)],
    format: &str,
) -> Result<(), TrafficError> {
    debug_assert!(traffic.trace.is_some(), "only traces have formats");
    match keys.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((key, _)) => Err(TrafficError::scenario(
            format!("traffic.{key}"),
            format!("it does not go with traces of the format `{format}`"),
            "leave it out",
        )),
    }
}
