//! Lengths in tokens and service times: specifications compiled once, then drawn.

use crate::schema::traffic::{LengthSpec, TimeSpec};
use windtunnel_base::rng::Rng;
use windtunnel_base::sample::{Exponential, Gamma, Hyperexponential, Lognormal, SampleError};
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
        law: Exponential,
        min: u32,
        max: u32,
    },
    Lognormal {
        law: Lognormal,
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
                let (min, max) = limits(min, max)?;
                Ok(Self::Exponential {
                    law: Exponential::new(*mean).map_err(text)?,
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
                let (min, max) = limits(min, max)?;
                Ok(Self::Lognormal {
                    law: Lognormal::new(*mean, *sigma).map_err(text)?,
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
            Self::Exponential { law, min, max } => {
                (law.sample(rng).ceil() as u32).clamp(*min, *max)
            }
            // To the nearest: rounding up would add half a token to the mean.
            Self::Lognormal { law, min, max } => ((law.sample(rng) + 0.5) as u32).clamp(*min, *max),
            Self::Empirical(empirical) => empirical.draw(rng),
        }
    }
}

/// Token counts with weights, drawn by inversion: one uniform per draw, so that a distribution
/// with longer lengths makes every length longer or leaves it. Pools hold millions of entries,
/// so an entry is no more than its count and its cumulative weight.
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

/// A time, ready to be drawn.
#[derive(Clone, Debug)]
pub(crate) enum Time {
    Fixed(SimDuration),
    Exponential(Exponential),
    Lognormal(Lognormal),
    Gamma(Gamma),
    Hyperexponential(Hyperexponential),
    TwoPoint {
        low: SimDuration,
        high: SimDuration,
        p_high: f64,
    },
}

impl Time {
    /// Compiles a specification, or says what is wrong with it.
    pub(crate) fn new(spec: &TimeSpec) -> Result<Self, String> {
        let mean = match spec {
            TimeSpec::Fixed { value } => return Ok(Self::Fixed(value.0)),
            TimeSpec::TwoPoint { low, high, p_high } => {
                if !(0.0..=1.0).contains(p_high) {
                    return Err(format!("its `p_high` {p_high} must lie between 0 and 1"));
                }
                return Ok(Self::TwoPoint {
                    low: low.0,
                    high: high.0,
                    p_high: *p_high,
                });
            }
            TimeSpec::Exponential { mean }
            | TimeSpec::Lognormal { mean, .. }
            | TimeSpec::Gamma { mean, .. }
            | TimeSpec::Hyperexponential { mean, .. } => mean.0,
        };
        if mean.is_zero() {
            return Ok(Self::Fixed(SimDuration::ZERO));
        }
        let mean = mean.as_secs_f64();
        match spec {
            TimeSpec::Lognormal { sigma, .. } => Lognormal::new(mean, *sigma).map(Self::Lognormal),
            TimeSpec::Gamma { cv2, .. } => Gamma::with_mean(1.0 / cv2, mean).map(Self::Gamma),
            TimeSpec::Hyperexponential { cv2, .. } => {
                Hyperexponential::new(mean, *cv2).map(Self::Hyperexponential)
            }
            _ => Exponential::new(mean).map(Self::Exponential),
        }
        .map_err(text)
    }

    /// One time.
    #[inline]
    pub(crate) fn draw(&self, rng: &mut Rng) -> SimDuration {
        let seconds = match self {
            Self::Fixed(value) => return *value,
            Self::TwoPoint { low, high, p_high } => {
                return if rng.chance(*p_high) { *high } else { *low };
            }
            Self::Exponential(law) => law.sample(rng),
            Self::Lognormal(law) => law.sample(rng),
            Self::Gamma(law) => law.sample(rng),
            Self::Hyperexponential(law) => law.sample(rng),
        };
        SimDuration::from_secs_f64_saturating(seconds)
    }
}

/// Why there is no such law, in words.
fn text(error: SampleError) -> String {
    error.to_string()
}
