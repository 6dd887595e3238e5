//! Values for every key of two numbers: the first counts by one, the second in steps.

use super::{AttentionGrid, AttentionPoint, TablesError};

/// Values on `first..first + rows` times `0, step, 2 * step, …`.
#[derive(Clone, PartialEq, Debug)]
pub struct Plane {
    first: u32,
    rows: usize,
    step: u32,
    columns: usize,
    /// Columns run faster. Below zero where nothing was measured nearby; the value is its size.
    values: Vec<f64>,
}

/// The most values of a plane.
const MAX_VALUES: usize = 1 << 24;

impl Plane {
    /// From a value `(x, y, time)` for every key, in any order: `x` without a gap, `y` from 0 in
    /// equal steps.
    ///
    /// # Errors
    /// If a key lacks a value, has two, or a time is none.
    pub fn exact(name: &str, points: &[(u32, u32, f64)]) -> Result<Self, TablesError> {
        let error = |reason: String, remedy| Err(TablesError::new(name, reason, remedy));
        let axis = |pick: fn(&(u32, u32, f64)) -> u32| {
            let mut values: Vec<u32> = points.iter().map(pick).collect();
            values.sort_unstable();
            values.dedup();
            values
        };
        let (xs, ys) = (axis(|p| p.0), axis(|p| p.1));
        let (Some(&first), Some(&y_last)) = (xs.first(), ys.last()) else {
            return error("it has no rows".into(), "measure it");
        };
        let step = match ys.as_slice() {
            [a, b, ..] => b - a,
            _ => 1,
        };
        let mut plane = Self {
            first,
            rows: xs.len(),
            step,
            columns: (y_last / step) as usize + 1,
            values: Vec::new(),
        };
        if plane.rows.saturating_mul(plane.columns) > MAX_VALUES {
            return error("its keys are too many".into(), "check its columns");
        }
        plane.values = vec![f64::NAN; plane.rows * plane.columns];
        for &(x, y, time) in points {
            if !(time >= 0.0 && time.is_finite()) {
                return error(
                    format!("{time} at ({x}, {y}) is no time"),
                    "compute it again",
                );
            }
            match plane.slot(x, y) {
                Some(slot) if plane.values[slot].is_nan() => plane.values[slot] = time,
                Some(_) => {
                    return error(format!("({x}, {y}) is there twice"), "keep one of the rows");
                }
                None => {
                    let reason = format!(
                        "({x}, {y}) is off the grid of whole numbers from {first} times steps of {step}"
                    );
                    return error(reason, "give a row for every key");
                }
            }
        }
        match plane.values.iter().position(|v| v.is_nan()) {
            Some(slot) => {
                let x = first as usize + slot / plane.columns;
                let y = slot % plane.columns * step as usize;
                error(
                    format!("({x}, {y}) is not there"),
                    "give a row for every key",
                )
            }
            None => Ok(plane),
        }
    }

    /// From measured points `(x, y, time)`, times of one key averaged: every whole `x` up to the
    /// largest, `y` in steps up to the largest, linear in both between points and beyond them where
    /// a row or column ends early.
    ///
    /// # Errors
    /// If there are none, or a time is none.
    pub fn interpolated(
        name: &str,
        points: &[(u32, u32, f64)],
        step: u32,
    ) -> Result<Self, TablesError> {
        let mut sorted = points.to_vec();
        sorted.sort_by_key(|p| (p.0, p.1));
        let merged: Vec<AttentionPoint> = sorted
            .chunk_by(|a, b| (a.0, a.1) == (b.0, b.1))
            .map(|same| AttentionPoint {
                prefill_chunk: same[0].0,
                kv_prefill: same[0].1,
                n_decode: 0,
                kv_decode: 0,
                us: same.iter().map(|p| p.2).sum::<f64>() / same.len() as f64,
            })
            .collect();
        let renamed = |e: TablesError| TablesError::new(name, e.reason, e.remedy);
        let grid = AttentionGrid::new(&merged).map_err(renamed)?;
        let last = |pick: fn(&(u32, u32, f64)) -> u32| points.iter().map(pick).max().unwrap_or(0);
        let (x_last, y_last) = (last(|p| p.0), last(|p| p.1));
        let columns = y_last.div_ceil(step) as usize + 1;
        let rows = x_last.max(1) as usize;
        if rows.saturating_mul(columns) > MAX_VALUES {
            let reason = "its keys are too many";
            return Err(TablesError::new(name, reason, "check its columns"));
        }
        let mut values = Vec::with_capacity(rows * columns);
        for x in 1..=rows as u64 {
            for column in 0..columns as u64 {
                let (time, outside) = grid.at(x, column * u64::from(step), 0, 0);
                values.push(if outside { -time } else { time });
            }
        }
        Ok(Self {
            first: 1,
            rows,
            step,
            columns,
            values,
        })
    }

    /// What the second key counts in.
    pub fn step(&self) -> u32 {
        self.step
    }

    fn slot(&self, x: u32, y: u32) -> Option<usize> {
        let row = x.checked_sub(self.first)? as usize;
        let column = (y / self.step) as usize;
        let within = row < self.rows && column < self.columns && y.is_multiple_of(self.step);
        within.then_some(row * self.columns + column)
    }

    /// The value at `x` and the multiple of the step at or above `y`, and whether it is outside of
    /// what was measured.
    #[inline]
    pub(crate) fn at(&self, x: u64, y: u64) -> (f64, bool) {
        let row = x.wrapping_sub(u64::from(self.first)) as usize;
        let column = y.div_ceil(u64::from(self.step)) as usize;
        if row < self.rows && column < self.columns {
            let value = self.values[row * self.columns + column];
            (value.abs(), value.is_sign_negative())
        } else {
            (self.beyond(x, column), true)
        }
    }

    /// Extended along the line from the middle of an axis to its end: single steps of tables made
    /// by trees say little. Below the first `x`, the first.
    #[cold]
    fn beyond(&self, x: u64, column: usize) -> f64 {
        let value = |row: usize, column: usize| self.values[row * self.columns + column].abs();
        let row = x.saturating_sub(u64::from(self.first)) as usize;
        let along_y = |row: usize| extended(column, self.columns, |c| value(row, c));
        extended(row, self.rows, along_y).max(0.0)
    }
}

/// The value at an index, or beyond the last, on the line from the middle to the last.
fn extended(index: usize, count: usize, value: impl Fn(usize) -> f64) -> f64 {
    let last = count - 1;
    if index <= last {
        return value(index);
    }
    let middle = last / 2;
    let top = value(last);
    if middle == last {
        return top;
    }
    let slope = (top - value(middle)) / (last - middle) as f64;
    top + slope * (index - last) as f64
}
