//! Lengths in tokens and service times: specifications compiled once, then drawn.

use super::sample::{exponential, gamma, normal};
use crate::schema::traffic::{LengthSpec, TimeSpec};
use windtunnel_base::rng::Rng;
use windtunnel_base::time::SimDuration;

/// Longest prompt, output or prefix in tokens: far beyond any model, and four of them still fit
/// 32 bits.
pub(crate) const MAX_TOKENS: u32 = 1_000_000_000;

/// A length in tokens, ready to be drawn. Never zero unless it is fixed, uniform or empirical
/// and says so; the caller raises what must be positive.
#[derive(Clone, Debug)]
pub(crate) enum Length {
    Fixed(u32),
    Uniform {
        min: u32,
        count: u64,
    },
    Exponential {
        mean: f64,
        min: u32,
        max: u32,
    },
    Lognormal {
        mu: f64,
        sigma: f64,
        min: u32,
        max: u32,
    },
    Empirical(Empirical),
}

impl Length {
    /// Compiles a specification, or says what is wrong with it.
    pub(crate) fn new(spec: &LengthSpec) -> Result<Self, String> {
        let limits = |min: &Option<u32>, max: &Option<u32>| {
            let (min, max) = (min.unwrap_or(1), max.unwrap_or(MAX_TOKENS).min(MAX_TOKENS));
            if min > max {
                Err(format!("its `min` {min} is above its `max` {max}"))
            } else {
                Ok((min, max))
            }
        };
        match spec {
            LengthSpec::Fixed { tokens } if *tokens > MAX_TOKENS => {
                Err(format!("{tokens} tokens are more than {MAX_TOKENS}"))
            }
            LengthSpec::Fixed { tokens } => Ok(Self::Fixed(*tokens)),
            LengthSpec::Uniform { min, max } if min > max => {
                Err(format!("its `min` {min} is above its `max` {max}"))
            }
            LengthSpec::Uniform { max, .. } if *max > MAX_TOKENS => {
                Err(format!("{max} tokens are more than {MAX_TOKENS}"))
            }
            LengthSpec::Uniform { min, max } => Ok(Self::Uniform {
                min: *min,
                count: u64::from(max - min) + 1,
            }),
            LengthSpec::Exponential { mean, min, max } => {
                positive("mean", *mean)?;
                let (min, max) = limits(min, max)?;
                Ok(Self::Exponential {
                    mean: *mean,
                    min,
                    max,
                })
            }
            LengthSpec::Lognormal {
                mean,
                sigma,
                min,
                max,
            } => {
                positive("mean", *mean)?;
                not_negative("sigma", *sigma)?;
                let (min, max) = limits(min, max)?;
                // E[exp(N(mu, sigma^2))] = exp(mu + sigma^2 / 2).
                Ok(Self::Lognormal {
                    mu: libm::log(*mean) - sigma * sigma / 2.0,
                    sigma: *sigma,
                    min,
                    max,
                })
            }
            LengthSpec::Empirical { tokens, weights } => {
                if let Some(most) = tokens.iter().find(|&&t| t > MAX_TOKENS) {
                    return Err(format!("{most} tokens are more than {MAX_TOKENS}"));
                }
                Empirical::new(tokens, weights.as_deref()).map(Self::Empirical)
            }
        }
    }

    /// One length.
    #[inline]
    pub(crate) fn draw(&self, rng: &mut Rng) -> u32 {
        match self {
            Self::Fixed(tokens) => *tokens,
            Self::Uniform { min, count } => min + rng.below(*count) as u32,
            Self::Exponential { mean, min, max } => {
                ((mean * exponential(rng)).ceil() as u32).clamp(*min, *max)
            }
            Self::Lognormal {
                mu,
                sigma,
                min,
                max,
            } => {
                // To the nearest: rounding up would add half a token to the mean.
                let tokens = libm::exp(mu + sigma * normal(rng)) + 0.5;
                (tokens as u32).clamp(*min, *max)
            }
            Self::Empirical(empirical) => empirical.draw(rng),
        }
    }
}

/// Token counts with weights, drawn by inversion: one uniform per draw.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Empirical {
    tokens: Box<[u32]>,
    /// Sums of weights up to each count, itself included.
    cumulative: Box<[f64]>,
}

impl Empirical {
    /// Compiles counts and weights, or says what is wrong with them.
    pub(crate) fn new(tokens: &[u32], weights: Option<&[f64]>) -> Result<Self, String> {
        if tokens.is_empty() {
            return Err("it lists no token counts".into());
        }
        let mut sum = 0.0;
        let cumulative: Box<[f64]> = match weights {
            None => (1..=tokens.len()).map(|n| n as f64).collect(),
            Some(w) if w.len() != tokens.len() => {
                return Err(format!(
                    "it has {} weights for {} token counts",
                    w.len(),
                    tokens.len()
                ));
            }
            Some(w) => {
                if let Some(bad) = w.iter().find(|x| !(x.is_finite() && **x >= 0.0)) {
                    return Err(format!("weight {bad} is not a number from zero up"));
                }
                w.iter()
                    .map(|x| {
                        sum += x;
                        sum
                    })
                    .collect()
            }
        };
        let total = cumulative[cumulative.len() - 1];
        if !(total > 0.0 && total.is_finite()) {
            return Err("its weights do not add up to a positive number".into());
        }
        Ok(Self {
            tokens: tokens.into(),
            cumulative,
        })
    }

    /// One token count.
    #[inline]
    pub(crate) fn draw(&self, rng: &mut Rng) -> u32 {
        let last = self.cumulative.len() - 1;
        let at = rng.f64() * self.cumulative[last];
        let index = self.cumulative.partition_point(|&c| c <= at);
        self.tokens[index.min(last)]
    }
}

/// A time, ready to be drawn. All in seconds but what is fixed.
#[derive(Clone, Debug)]
pub(crate) enum Time {
    Fixed(SimDuration),
    Exponential {
        mean: f64,
    },
    Lognormal {
        mu: f64,
        sigma: f64,
    },
    Gamma {
        shape: f64,
        scale: f64,
    },
    /// With probability `p` exponential of mean `first`, else of mean `second`.
    Hyperexponential {
        p: f64,
        first: f64,
        second: f64,
    },
    TwoPoint {
        low: SimDuration,
        high: SimDuration,
        p_high: f64,
    },
}

impl Time {
    /// Compiles a specification, or says what is wrong with it.
    pub(crate) fn new(spec: &TimeSpec) -> Result<Self, String> {
        Ok(match spec {
            TimeSpec::Fixed { value } => Self::Fixed(value.0),
            TimeSpec::Exponential { mean } => Self::Exponential {
                mean: mean.0.as_secs_f64(),
            },
            TimeSpec::Lognormal { mean, sigma } => {
                not_negative("sigma", *sigma)?;
                if mean.0.is_zero() {
                    return Ok(Self::Fixed(SimDuration::ZERO));
                }
                Self::Lognormal {
                    mu: libm::log(mean.0.as_secs_f64()) - sigma * sigma / 2.0,
                    sigma: *sigma,
                }
            }
            TimeSpec::Gamma { mean, cv2 } => {
                positive("cv2", *cv2)?;
                Self::Gamma {
                    shape: 1.0 / cv2,
                    scale: mean.0.as_secs_f64() * cv2,
                }
            }
            TimeSpec::Hyperexponential { mean, cv2 } => {
                if !(cv2.is_finite() && *cv2 >= 1.0) {
                    return Err(format!("its `cv2` {cv2} must be 1 or more"));
                }
                // Balanced means: p / rate1 = (1 - p) / rate2 (Whitt 1982).
                let p = 0.5 * (1.0 + ((cv2 - 1.0) / (cv2 + 1.0)).sqrt());
                let mean = mean.0.as_secs_f64();
                Self::Hyperexponential {
                    p,
                    first: mean / (2.0 * p),
                    second: mean / (2.0 * (1.0 - p)),
                }
            }
            TimeSpec::TwoPoint { low, high, p_high } => {
                if !(0.0..=1.0).contains(p_high) {
                    return Err(format!("its `p_high` {p_high} must lie between 0 and 1"));
                }
                Self::TwoPoint {
                    low: low.0,
                    high: high.0,
                    p_high: *p_high,
                }
            }
        })
    }

    /// One time.
    #[inline]
    pub(crate) fn draw(&self, rng: &mut Rng) -> SimDuration {
        let seconds = match self {
            Self::Fixed(value) => return *value,
            Self::TwoPoint { low, high, p_high } => {
                return if rng.chance(*p_high) { *high } else { *low };
            }
            Self::Exponential { mean } => mean * exponential(rng),
            Self::Lognormal { mu, sigma } => libm::exp(mu + sigma * normal(rng)),
            Self::Gamma { shape, scale } => scale * gamma(rng, *shape),
            Self::Hyperexponential { p, first, second } => {
                let mean = if rng.chance(*p) { first } else { second };
                mean * exponential(rng)
            }
        };
        SimDuration::from_secs_f64_saturating(seconds)
    }
}

fn positive(what: &str, value: f64) -> Result<(), String> {
    if value.is_finite() && value > 0.0 {
        Ok(())
    } else {
        Err(format!("its `{what}` {value} must be more than zero"))
    }
}

fn not_negative(what: &str, value: f64) -> Result<(), String> {
    if value.is_finite() && value >= 0.0 {
        Ok(())
    } else {
        Err(format!("its `{what}` {value} must be zero or more"))
    }
}
