//! When requests come: every arrival process as a stream of times.

use super::rate::Curve;
use super::sample::exponential;
use crate::schema::traffic::ArrivalSpec;
use windtunnel_base::rng::Rng;
use windtunnel_base::sample::{Gamma, SampleError, Weibull};
use windtunnel_base::time::{SimDuration, SimTime};

/// A stream of arrival times. Kept in seconds, because rounding every gap up to a nanosecond
/// would slow fast streams down; each time is rounded up once.
#[derive(Clone, Debug)]
pub(crate) struct Arrivals {
    process: Process,
    gaps: Rng,
    /// The last arrival, in seconds.
    now: f64,
}

#[derive(Clone, Debug)]
enum Process {
    Poisson { mean_gap: f64 },
    Constant { rate: f64, sent: u64 },
    Gamma(Gamma),
    Weibull(Weibull),
    OnOff(OnOff),
    Varying(Curve),
}

/// Poisson while on. Begins in its stationary state, so that the mean rate holds from the start.
#[derive(Clone, Debug)]
struct OnOff {
    rate_while_on: f64,
    mean_on: f64,
    mean_off: f64,
    phases: Rng,
    on: bool,
    /// When the phase ends, in seconds.
    until: f64,
}

impl Arrivals {
    /// The process with this mean rate per second (finite, more than zero). `gaps` and `phases`
    /// are streams of its own.
    pub(crate) fn new(
        spec: &ArrivalSpec,
        rate: f64,
        gaps: Rng,
        phases: Rng,
    ) -> Result<Self, String> {
        if !(rate.is_finite() && rate > 0.0) {
            return Err(format!("a rate of {rate} per second gives no arrivals"));
        }
        validate(spec)?;
        let process = match *spec {
            ArrivalSpec::Poisson => Process::Poisson {
                mean_gap: 1.0 / rate,
            },
            ArrivalSpec::Constant => Process::Constant { rate, sent: 0 },
            ArrivalSpec::Gamma { burstiness } => {
                Process::Gamma(Gamma::with_mean(burstiness, 1.0 / rate).map_err(text)?)
            }
            ArrivalSpec::Weibull { shape } => {
                Process::Weibull(Weibull::with_mean(shape, 1.0 / rate).map_err(text)?)
            }
            ArrivalSpec::OnOff { on, off } => {
                let (mean_on, mean_off) = (on.0.as_secs_f64(), off.0.as_secs_f64());
                let mut phases = phases;
                let begins_on = phases.chance(mean_on / (mean_on + mean_off));
                let mean = if begins_on { mean_on } else { mean_off };
                Process::OnOff(OnOff {
                    rate_while_on: rate * (mean_on + mean_off) / mean_on,
                    mean_on,
                    mean_off,
                    until: mean * exponential(&mut phases),
                    phases,
                    on: begins_on,
                })
            }
            ArrivalSpec::Diurnal { .. }
            | ArrivalSpec::Step { .. }
            | ArrivalSpec::Ramp { .. }
            | ArrivalSpec::FlashCrowd { .. } => Process::Varying(
                Curve::of(spec, rate).ok_or_else(|| "it has no rate curve".to_owned())?,
            ),
        };
        Ok(Self {
            process,
            gaps,
            now: 0.0,
        })
    }

    /// The next arrival, never earlier than the last; `None` if there will be none.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<SimTime> {
        match &mut self.process {
            Process::Poisson { mean_gap } => self.now += *mean_gap * exponential(&mut self.gaps),
            Process::Constant { rate, sent } => {
                *sent += 1;
                self.now = *sent as f64 / *rate;
            }
            Process::Gamma(law) => self.now += law.sample(&mut self.gaps),
            Process::Weibull(law) => self.now += law.sample(&mut self.gaps),
            Process::OnOff(on_off) => self.now = on_off.next(self.now, &mut self.gaps),
            Process::Varying(curve) => {
                self.now = curve.reach(self.now, exponential(&mut self.gaps))?;
            }
        }
        let at = SimTime::ZERO + SimDuration::from_secs_f64_saturating(self.now);
        (at < SimTime::MAX).then_some(at)
    }
}

impl OnOff {
    fn next(&mut self, now: f64, gaps: &mut Rng) -> f64 {
        let mut work = exponential(gaps) / self.rate_while_on;
        let mut at = now;
        loop {
            if self.on {
                if at + work <= self.until {
                    return at + work;
                }
                work -= self.until - at;
            }
            at = self.until;
            self.on = !self.on;
            let mean = if self.on { self.mean_on } else { self.mean_off };
            self.until = at + mean * exponential(&mut self.phases);
        }
    }
}

/// What is wrong with an arrival process, if anything.
pub(crate) fn validate(spec: &ArrivalSpec) -> Result<(), String> {
    let positive = |what: &str, x: f64| {
        (x.is_finite() && x > 0.0)
            .then_some(())
            .ok_or_else(|| format!("its `{what}` {x} must be more than zero"))
    };
    let factor_ok = |x: f64| {
        (x.is_finite() && x >= 0.0)
            .then_some(())
            .ok_or_else(|| format!("its `factor` {x} must be zero or more"))
    };
    match *spec {
        ArrivalSpec::Poisson | ArrivalSpec::Constant => Ok(()),
        ArrivalSpec::Gamma { burstiness } => positive("burstiness", burstiness),
        ArrivalSpec::Weibull { shape } => {
            let law = Weibull::with_mean(shape, 1.0);
            law.map(drop).map_err(text)
        }
        ArrivalSpec::OnOff { on, .. } => positive("on", on.0.as_secs_f64()),
        ArrivalSpec::Diurnal {
            amplitude, period, ..
        } => {
            if !(0.0..=1.0).contains(&amplitude) {
                return Err(format!(
                    "its `amplitude` {amplitude} must lie between 0 and 1"
                ));
            }
            positive("period", period.0.as_secs_f64())
        }
        ArrivalSpec::Ramp { from, to, factor } => {
            if from.0 > to.0 {
                return Err(format!("it begins at {from}, after its end at {to}"));
            }
            factor_ok(factor)
        }
        ArrivalSpec::Step { factor, .. } | ArrivalSpec::FlashCrowd { factor, .. } => {
            factor_ok(factor)
        }
    }
}

/// Why there is no such law, in words.
fn text(error: SampleError) -> String {
    error.to_string()
}
