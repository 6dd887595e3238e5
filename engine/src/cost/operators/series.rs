//! Times over one whole number, such as the tokens of a step, and weighted sums of them.

use super::TablesError;

/// The largest key that may be measured: sums are kept for every number up to it.
const MAX_KEY: u32 = 1 << 20;

/// Measured times over one whole number.
#[derive(Clone, PartialEq, Debug)]
pub struct Series {
    name: String,
    /// Rising keys, and times in the table's unit.
    points: Vec<(u32, f64)>,
}

impl Series {
    /// From points whose keys rise.
    ///
    /// # Errors
    /// If there are none, their keys do not rise or go too far, or a time is negative or none.
    pub fn new(name: &str, points: Vec<(u32, f64)>) -> Result<Self, TablesError> {
        let error = |reason: String, remedy| Err(TablesError::new(name, reason, remedy));
        let Some(&(last, _)) = points.last() else {
            return error("it has no rows".into(), "measure it, or leave it out");
        };
        if let Some(pair) = points.windows(2).find(|w| w[0].0 >= w[1].0) {
            let reason = format!("key {} stands after {}", pair[1].0, pair[0].0);
            return error(reason, "sort its rows by key, each key once");
        }
        if last > MAX_KEY {
            let reason = format!("key {last} is beyond {MAX_KEY}");
            return error(reason, "no step computes so much; check the column");
        }
        if let Some((key, time)) = points.iter().find(|p| !(p.1 >= 0.0 && p.1.is_finite())) {
            let reason = format!("{time} at key {key} is no time");
            return error(reason, "measure it again, or drop the row");
        }
        Ok(Self {
            name: name.to_owned(),
            points,
        })
    }

    /// What was measured.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Smallest and largest key.
    pub fn range(&self) -> (u32, u32) {
        // `new` refuses to make an empty one.
        let first = self.points.first().map_or(0, |p| p.0);
        (first, self.points.last().map_or(0, |p| p.0))
    }

    /// Time per key beyond the last point.
    pub(crate) fn slope(&self) -> f64 {
        match self.points.as_slice() {
            [.., (x0, y0), (x1, y1)] => (y1 - y0) / f64::from(x1 - x0),
            _ => 0.0,
        }
    }

    /// Linear between points and beyond the last; the first holds below it.
    pub(crate) fn at(&self, key: u32) -> f64 {
        let after = self.points.partition_point(|p| p.0 <= key);
        let Some(&(x0, y0)) = after.checked_sub(1).and_then(|i| self.points.get(i)) else {
            return self.points[0].1;
        };
        if x0 == key {
            return y0;
        }
        match self.points.get(after) {
            Some(&(x1, y1)) => y0 + f64::from(key - x0) / f64::from(x1 - x0) * (y1 - y0),
            None => (y0 + self.slope() * f64::from(key - x0)).max(0.0),
        }
    }
}

/// A weighted sum of series, kept for every key that was measured.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Curve {
    /// By key, from 0 to the largest of any series.
    values: Vec<f64>,
    /// Per key beyond that.
    slope: f64,
    /// Keys that all series were measured on.
    range: (u64, u64),
}

impl Curve {
    pub(crate) fn new(parts: &[(&Series, f64)]) -> Self {
        let last = parts.iter().map(|(s, _)| s.range().1).max().unwrap_or(0);
        let sum = |key| parts.iter().map(|(s, weight)| weight * s.at(key)).sum();
        let common = |pick: fn(u32, u32) -> u32, end: fn((u32, u32)) -> u32| {
            let ends = parts.iter().map(|(s, _)| end(s.range()));
            ends.reduce(pick).map_or(0, u64::from)
        };
        Self {
            values: (0..=last).map(sum).collect(),
            slope: parts.iter().map(|(s, weight)| weight * s.slope()).sum(),
            range: (common(u32::max, |r| r.0), common(u32::min, |r| r.1)),
        }
    }

    /// The sum at a key, and whether a series was not measured there.
    #[inline]
    pub(crate) fn at(&self, key: u64) -> (f64, bool) {
        let outside = key < self.range.0 || key > self.range.1;
        match self.values.get(key as usize) {
            Some(&value) => (value, outside),
            None => (self.beyond(key), outside),
        }
    }

    #[cold]
    fn beyond(&self, key: u64) -> f64 {
        let last = self.values.len() as u64 - 1;
        let value = self.values[last as usize] + self.slope * (key - last) as f64;
        value.max(0.0)
    }
}
