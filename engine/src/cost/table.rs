//! Step time from measured points on a grid.
//!
//! Decode steps are a function of (requests, mean context), prefill steps of (new tokens, tokens in
//! KV before them). Between points it is interpolated linearly in both; outside the grid the
//! nearest cell is extended, and the result says so. A prompt beyond the first adds its own time, and
//! a mixed step is the sum of its two parts less what is paid once.

use crate::batch::BatchShape;
use crate::config::TableSpec;

/// Two measured grids.
#[derive(Clone, PartialEq, Debug)]
pub struct Table {
    decode: Grid,
    prefill: Grid,
    /// Seconds of a prefilling request beyond the first.
    extra_prompt: f64,
    /// Seconds that a mixed step saves.
    mixed_saving: f64,
}

/// Why points do not make a grid.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GridError {
    /// There is nothing to interpolate.
    #[error("it has no points; add the measured ones")]
    Empty,
    /// A pair of axis values has no point, or two.
    #[error(
        "the point ({x}, {y}) is there {found} times; every pair of axis values needs one point"
    )]
    Incomplete {
        /// First axis.
        x: u32,
        /// Second axis.
        y: u32,
        /// How often.
        found: usize,
    },
    /// A time makes no sense.
    #[error("the time at ({x}, {y}) is not a positive number of milliseconds")]
    BadTime {
        /// First axis.
        x: u32,
        /// Second axis.
        y: u32,
    },
}

/// Times over two axes.
#[derive(Clone, PartialEq, Debug)]
struct Grid {
    xs: Vec<f64>,
    ys: Vec<f64>,
    /// Seconds, `ys` running faster.
    seconds: Vec<f64>,
}

impl Grid {
    /// From points `(x, y, milliseconds)` in any order.
    fn new(points: &[(u32, u32, f64)]) -> Result<Self, GridError> {
        if points.is_empty() {
            return Err(GridError::Empty);
        }
        let axis = |pick: fn(&(u32, u32, f64)) -> u32| {
            let mut values: Vec<u32> = points.iter().map(pick).collect();
            values.sort_unstable();
            values.dedup();
            values
        };
        let (xs, ys) = (axis(|p| p.0), axis(|p| p.1));
        let mut seconds = Vec::with_capacity(xs.len() * ys.len());
        for &x in &xs {
            for &y in &ys {
                let mut here = points.iter().filter(|p| (p.0, p.1) == (x, y));
                let (Some(&(_, _, ms)), 0) = (here.next(), here.count()) else {
                    let found = points.iter().filter(|p| (p.0, p.1) == (x, y)).count();
                    return Err(GridError::Incomplete { x, y, found });
                };
                if !(ms > 0.0 && ms.is_finite()) {
                    return Err(GridError::BadTime { x, y });
                }
                seconds.push(ms / 1e3);
            }
        }
        let floats = |axis: Vec<u32>| axis.into_iter().map(f64::from).collect();
        Ok(Self {
            xs: floats(xs),
            ys: floats(ys),
            seconds,
        })
    }

    /// Bilinear between the corners of the nearest cell, and whether the point is outside the grid.
    fn at(&self, x: f64, y: f64) -> (f64, bool) {
        let (i, u, out_x) = locate(&self.xs, x);
        let (j, v, out_y) = locate(&self.ys, y);
        let corner = |di: usize, dj: usize| {
            let i = (i + di).min(self.xs.len() - 1);
            let j = (j + dj).min(self.ys.len() - 1);
            self.seconds[i * self.ys.len() + j]
        };
        let low = corner(0, 0) * (1.0 - v) + corner(0, 1) * v;
        let high = corner(1, 0) * (1.0 - v) + corner(1, 1) * v;
        // A cell that falls with its axis must not reach below nothing far outside.
        let seconds = (low * (1.0 - u) + high * u).max(0.0);
        (seconds, out_x || out_y)
    }
}

/// The cell of an axis nearest to `value`, the position in it (outside 0 to 1 if beyond the ends), and
/// whether it is beyond. An axis with one value is constant.
fn locate(axis: &[f64], value: f64) -> (usize, f64, bool) {
    let last = axis.len() - 1;
    let outside = value < axis[0] || value > axis[last];
    if last == 0 {
        return (0, 0.0, outside);
    }
    let cell = axis.partition_point(|&a| a <= value).clamp(1, last) - 1;
    let position = (value - axis[cell]) / (axis[cell + 1] - axis[cell]);
    (cell, position, outside)
}

impl Table {
    /// Reads the measured points.
    ///
    /// # Errors
    /// Which of the two grids (`decode` or `prefill`) is not one, and why.
    pub fn new(spec: &TableSpec) -> Result<Self, (&'static str, GridError)> {
        let decode: Vec<_> = spec
            .decode
            .iter()
            .map(|p| (p.seqs, p.context, p.ms))
            .collect();
        let prefill: Vec<_> = spec
            .prefill
            .iter()
            .map(|p| (p.tokens, p.context, p.ms))
            .collect();
        Ok(Self {
            decode: Grid::new(&decode).map_err(|e| ("decode", e))?,
            prefill: Grid::new(&prefill).map_err(|e| ("prefill", e))?,
            extra_prompt: spec.extra_prompt_ms / 1e3,
            mixed_saving: spec.mixed_saving_ms / 1e3,
        })
    }

    /// Seconds of a step, and whether it lies outside what was measured.
    pub fn seconds(&self, shape: &BatchShape) -> (f64, bool) {
        let (mut decode, mut prefill, mut outside) = (0.0, 0.0, false);
        if shape.decode_seqs > 0 {
            let mean = shape.decode_context as f64 / f64::from(shape.decode_seqs);
            let (seconds, out) = self.decode.at(f64::from(shape.decode_seqs), mean);
            decode = seconds;
            outside |= out;
        }
        if shape.prefill_seqs > 0 {
            let mean = shape.prefill_context as f64 / f64::from(shape.prefill_seqs);
            let (seconds, out) = self.prefill.at(shape.prefill_tokens as f64, mean);
            prefill = seconds + self.extra_prompt * f64::from(shape.prefill_seqs - 1);
            outside |= out;
        }
        // Never shorter than the longer of the two parts alone.
        let saving = self.mixed_saving.min(decode.min(prefill));
        (decode + prefill - saving, outside)
    }
}
