//! Rates that change with time, as curves that can be integrated and inverted exactly: arrival
//! times of a Poisson process with rate `r(t)` are where the integral of `r` passes the arrival
//! times of a Poisson process of rate 1. Inversion, unlike thinning, uses one draw per arrival, so
//! a higher rate moves every arrival to an earlier time and changes nothing else.

use crate::schema::traffic::ArrivalSpec;
use std::f64::consts::TAU;

/// A rate over time, in events per second; times in seconds since the run began.
#[derive(Clone, Debug)]
pub(crate) enum Curve {
    /// Straight pieces; the last goes on for ever and is level.
    Pieces(Vec<Piece>),
    /// `mean * (1 + amplitude * cos(omega * (t - peak)))`.
    Wave {
        mean: f64,
        amplitude: f64,
        peak: f64,
        omega: f64,
    },
}

/// From `begin` on the rate is `rate + slope * (t - begin)`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Piece {
    begin: f64,
    rate: f64,
    slope: f64,
}

impl Curve {
    /// The curve of an arrival process with this mean (or base) rate; `None` if its rate does
    /// not change by plan.
    pub(crate) fn of(spec: &ArrivalSpec, rate: f64) -> Option<Self> {
        let piece = |begin: f64, rate: f64, slope: f64| Piece { begin, rate, slope };
        Some(match *spec {
            ArrivalSpec::Diurnal {
                amplitude,
                peak,
                period,
            } => Self::Wave {
                mean: rate,
                amplitude,
                peak: peak.0.as_secs_f64(),
                omega: TAU / period.0.as_secs_f64(),
            },
            ArrivalSpec::Step { at, factor } => Self::Pieces(vec![
                piece(0.0, rate, 0.0),
                piece(at.0.as_secs_f64(), rate * factor, 0.0),
            ]),
            ArrivalSpec::Ramp { from, to, factor } => {
                let (from, to) = (from.0.as_secs_f64(), to.0.as_secs_f64());
                let mut pieces = vec![piece(0.0, rate, 0.0)];
                slope(&mut pieces, from, to, rate, rate * factor);
                pieces.push(piece(to, rate * factor, 0.0));
                Self::Pieces(pieces)
            }
            ArrivalSpec::FlashCrowd {
                at,
                rise,
                hold,
                fall,
                factor,
            } => {
                let up = at.0.as_secs_f64();
                let top = up + rise.0.as_secs_f64();
                let down = top + hold.0.as_secs_f64();
                let end = down + fall.0.as_secs_f64();
                let mut pieces = vec![piece(0.0, rate, 0.0)];
                slope(&mut pieces, up, top, rate, rate * factor);
                pieces.push(piece(top, rate * factor, 0.0));
                slope(&mut pieces, down, end, rate * factor, rate);
                pieces.push(piece(end, rate, 0.0));
                Self::Pieces(pieces)
            }
            ArrivalSpec::Poisson
            | ArrivalSpec::Constant
            | ArrivalSpec::Gamma { .. }
            | ArrivalSpec::Weibull { .. }
            | ArrivalSpec::OnOff { .. } => return None,
        })
    }

    /// Where the integral of the rate from `t` on reaches `area` (more than zero); `None` if it
    /// never does, because the rate has fallen to zero for good.
    pub(crate) fn reach(&self, t: f64, area: f64) -> Option<f64> {
        match self {
            Self::Pieces(pieces) => reach_in_pieces(pieces, t, area),
            Self::Wave { mean, .. } if *mean <= 0.0 => None,
            Self::Wave {
                mean,
                amplitude,
                peak,
                omega,
            } => Some(t + reach_in_wave(*amplitude, *omega, omega * (t - peak), area / mean)),
        }
    }

    /// The integral of the rate from 0 to `t`: the mean number of events until then.
    pub(crate) fn integral(&self, t: f64) -> f64 {
        match self {
            Self::Pieces(pieces) => pieces
                .iter()
                .enumerate()
                .map(|(i, p)| {
                    let end = pieces.get(i + 1).map_or(f64::INFINITY, |n| n.begin).min(t);
                    let x = (end - p.begin).max(0.0);
                    p.rate * x + 0.5 * p.slope * x * x
                })
                .sum(),
            Self::Wave {
                mean,
                amplitude,
                peak,
                omega,
            } => {
                let swing = libm::sin(omega * (t - peak)) + libm::sin(omega * peak);
                mean * (t + amplitude / omega * swing)
            }
        }
    }
}

/// Appends a straight line between two rates; nothing if it takes no time.
fn slope(pieces: &mut Vec<Piece>, from: f64, to: f64, low: f64, high: f64) {
    if to > from {
        pieces.push(Piece {
            begin: from,
            rate: low,
            slope: (high - low) / (to - from),
        });
    }
}

fn reach_in_pieces(pieces: &[Piece], t: f64, mut area: f64) -> Option<f64> {
    let first = pieces.partition_point(|p| p.begin <= t).max(1) - 1;
    let mut at = t;
    for (i, piece) in pieces.iter().enumerate().skip(first) {
        let rate = (piece.rate + piece.slope * (at - piece.begin)).max(0.0);
        if let Some(next) = pieces.get(i + 1) {
            let length = (next.begin - at).max(0.0);
            let whole = rate * length + 0.5 * piece.slope * length * length;
            if whole <= area {
                area -= whole;
                at = next.begin.max(at);
                continue;
            }
        } else if rate <= 0.0 {
            return None;
        }
        // The root of rate*x + slope*x^2/2 = area in the form that does not cancel.
        let root = (rate * rate + 2.0 * piece.slope * area).max(0.0).sqrt();
        return Some(at + 2.0 * area / (rate + root));
    }
    None
}

/// Solves `x + (a/w) (sin(phase + w x) - sin(phase)) = area` for `x`: Newton's method, kept inside
/// a bracket that bisection halves where Newton leaves it (at amplitude 1 the slope may vanish).
fn reach_in_wave(a: f64, w: f64, phase: f64, area: f64) -> f64 {
    let value = |x: f64| {
        // sin(p + y) - sin(p) = 2 cos(p + y/2) sin(y/2): exact also for the smallest steps.
        let half = 0.5 * w * x;
        x + 2.0 * a / w * libm::cos(phase + half) * libm::sin(half) - area
    };
    let (mut low, mut high) = (0.0, area + 2.0 * a / w);
    let mut x = (area / (1.0 + a * libm::cos(phase)).max(0.1)).min(high);
    for _ in 0..200 {
        let f = value(x);
        if f.abs() <= 1e-14 * area {
            break;
        }
        if f > 0.0 {
            high = x;
        } else {
            low = x;
        }
        if high - low <= 1e-15 * high {
            break;
        }
        let newton = x - f / (1.0 + a * libm::cos(phase + w * x));
        x = if newton > low && newton < high {
            newton
        } else {
            0.5 * (low + high)
        };
    }
    x
}
