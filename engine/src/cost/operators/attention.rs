//! Attention on a grid of four axes.
//!
//! A grid is ragged: a step without prompts has no context of prompts, one without decodes none of
//! decodes, large batches are not measured beside large chunks, and several sweeps over different
//! values may lie in one table. What is absent is filled once: between two times along whichever
//! axis has them, beyond all times by the line through the last two. A time is then the linear
//! interpolation between at most 16 corners.

use super::TablesError;

/// One measured time.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AttentionPoint {
    /// Tokens of requests that compute more than one.
    pub prefill_chunk: u32,
    /// What those requests have in KV, summed.
    pub kv_prefill: u32,
    /// Requests that compute one token.
    pub n_decode: u32,
    /// What each of those has in KV.
    pub kv_decode: u32,
    /// Microseconds of one call.
    pub us: f64,
}

/// Order of the axes in memory, the last running fastest.
const CHUNK: usize = 0;
const DECODES: usize = 1;
const PREFILL_KV: usize = 2;
const DECODE_KV: usize = 3;
const NAMES: [&str; 4] = ["prefill_chunk", "n_decode", "kv_prefill", "kv_decode"];

/// The most nodes that a grid may have once filled.
const MAX_NODES: usize = 1 << 22;

/// Times on four axes.
#[derive(Clone, PartialEq, Debug)]
pub struct AttentionGrid {
    axes: [Axis; 4],
    strides: [usize; 4],
    /// Microseconds.
    values: Vec<f64>,
    /// Whether a node was measured, or says the same as one that was.
    measured: Vec<bool>,
}

/// Rising values, and what makes finding a place among them quick.
#[derive(Clone, PartialEq, Debug)]
struct Axis {
    values: Vec<u32>,
    /// One over the distance to the next value.
    inverse: Vec<f64>,
    /// The cell in which every multiple of `1 << HINT_BITS` lies, up to the last value.
    hints: Vec<u8>,
}

/// A hint holds for so many bits of a number: 16 numbers.
const HINT_BITS: u32 = 4;
/// The most values on an axis, so that a hint is a byte.
const MAX_VALUES: usize = 256;
/// The largest value on an axis, so that hints stay small.
const MAX_VALUE: u32 = 1 << 22;

/// A place on an axis: between which nodes, and how far.
#[derive(Clone, Copy)]
struct Place {
    low: usize,
    high: usize,
    share: f64,
    outside: bool,
}

impl Axis {
    fn new(mut values: Vec<u32>) -> Self {
        values.sort_unstable();
        values.dedup();
        let gap = |w: &[u32]| 1.0 / f64::from(w[1] - w[0]);
        let inverse = values.windows(2).map(gap).collect();
        let mut axis = Self {
            values,
            inverse,
            hints: Vec::new(),
        };
        let last = axis.values.last().copied().unwrap_or(0);
        if axis.values.len() <= MAX_VALUES && last <= MAX_VALUE {
            let cell = |x: u32| axis.values.partition_point(|&v| v <= x).saturating_sub(1);
            axis.hints = (0..=last >> HINT_BITS)
                .map(|bucket| cell(bucket << HINT_BITS) as u8)
                .collect();
        }
        axis
    }

    /// Below the first value it is the first, beyond the last the last cell is extended.
    #[inline]
    fn place(&self, x: u64) -> Place {
        let (first, last) = (u64::from(self.values[0]), self.values.len() - 1);
        if last == 0 || x <= first {
            return Place {
                low: 0,
                high: 0,
                share: 0.0,
                outside: x != first,
            };
        }
        let hint = self.hints.get((x >> HINT_BITS) as usize);
        let mut low = hint.map_or(last - 1, |&cell| usize::from(cell).min(last - 1));
        while low + 1 < last && u64::from(self.values[low + 1]) <= x {
            low += 1;
        }
        Place {
            low,
            high: low + 1,
            share: (x - u64::from(self.values[low])) as f64 * self.inverse[low],
            outside: x > u64::from(self.values[last]),
        }
    }
}

/// A line of the grid along the contexts of decodes, everything else given.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    grid: &'a AttentionGrid,
    /// Chunk, decodes, context of prompts.
    places: [Place; 3],
}

impl AttentionGrid {
    /// From points in any order.
    ///
    /// # Errors
    /// If there are none, one is there twice, or a time is none.
    pub fn new(points: &[AttentionPoint]) -> Result<Self, TablesError> {
        let error = |reason: String, remedy| Err(TablesError::new("attention", reason, remedy));
        let coordinates =
            |p: &AttentionPoint| [p.prefill_chunk, p.n_decode, p.kv_prefill, p.kv_decode];
        if points.is_empty() {
            return error("it has no rows".into(), "measure attention");
        }
        let axes: [Axis; 4] =
            std::array::from_fn(|a| Axis::new(points.iter().map(|p| coordinates(p)[a]).collect()));
        let sizes = axes.each_ref().map(|a| a.values.len());
        let nodes = sizes.iter().product();
        let largest = axes.iter().filter_map(|a| a.values.last()).max();
        if largest.is_some_and(|&x| x > MAX_VALUE) || sizes.iter().any(|&n| n > MAX_VALUES) {
            let reason = format!(
                "its axes have {sizes:?} values up to {}",
                largest.copied().unwrap_or(0)
            );
            return error(
                reason,
                "check its columns: no axis needs more than 256 values",
            );
        }
        if nodes > MAX_NODES {
            let reason = format!("its axes have {sizes:?} values, which make {nodes} nodes");
            return error(reason, "measure on a common grid");
        }
        let strides = [
            sizes[1] * sizes[2] * sizes[3],
            sizes[2] * sizes[3],
            sizes[3],
            1,
        ];
        let mut filled = Filling {
            values: vec![None; nodes],
            measured: vec![false; nodes],
            axes: &axes,
            strides,
        };
        for p in points {
            let at: usize = std::array::from_fn::<_, 4, _>(|a| {
                let x = coordinates(p)[a];
                axes[a].values.partition_point(|&v| v < x) * strides[a]
            })
            .iter()
            .sum();
            let place = || {
                let named: Vec<String> = std::iter::zip(NAMES, coordinates(p))
                    .map(|(name, x)| format!("{name} {x}"))
                    .collect();
                named.join(", ")
            };
            if !(p.us >= 0.0 && p.us.is_finite()) {
                let reason = format!("{} at {} is no time", p.us, place());
                return error(reason, "measure it again, or drop the row");
            }
            if filled.values[at].replace(p.us).is_some() {
                let reason = format!("{} is there twice", place());
                return error(reason, "keep one of the rows");
            }
            filled.measured[at] = true;
        }
        let order = [DECODE_KV, PREFILL_KV, DECODES, CHUNK];
        // A line of one time says least: it comes last.
        for least in [usize::MAX, 2, 1] {
            while order
                .iter()
                .fold(false, |any, &axis| filled.fill(axis, least) | any)
            {}
        }
        let Filling {
            values, measured, ..
        } = filled;
        Ok(Self {
            values: values.into_iter().map(Option::unwrap_or_default).collect(),
            measured,
            axes,
            strides,
        })
    }

    /// Microseconds of one call, and whether a node was used that was not measured.
    pub fn at(&self, chunk: u64, kv_prefill: u64, decodes: u64, kv_decode: u64) -> (f64, bool) {
        self.line(chunk, kv_prefill, decodes).at(kv_decode)
    }

    /// The largest number of decodes that was measured.
    pub(crate) fn most_decodes(&self) -> u64 {
        u64::from(self.axes[DECODES].values.last().copied().unwrap_or(0))
    }

    /// Everything but the context of decodes.
    #[inline]
    pub(crate) fn line(&self, chunk: u64, kv_prefill: u64, decodes: u64) -> Line<'_> {
        let axis = |axis: usize, x: u64| self.axes[axis].place(x);
        Line {
            grid: self,
            places: [
                axis(CHUNK, chunk),
                axis(DECODES, decodes),
                axis(PREFILL_KV, kv_prefill),
            ],
        }
    }
}

impl Line<'_> {
    /// Microseconds of one call, and whether a node was used that was not measured.
    #[inline]
    pub(crate) fn at(&self, kv_decode: u64) -> (f64, bool) {
        let [chunk, decodes, prefill] = self.places;
        let along = self.grid.axes[DECODE_KV].place(kv_decode);
        let outside = chunk.outside || decodes.outside || prefill.outside || along.outside;
        // From the innermost axis out: what lies between two nodes of each.
        let grid = self.grid;
        let on_line = |base: usize| {
            between(along, |node| {
                let at = base + node;
                (grid.values[at], grid.measured[at])
            })
        };
        let [chunk_stride, decode_stride, prefill_stride, _] = grid.strides;
        let on_plane = |base: usize| between(prefill, |n| on_line(base + n * prefill_stride));
        let in_space = |base: usize| between(decodes, |n| on_plane(base + n * decode_stride));
        let (us, measured) = between(chunk, |n| in_space(n * chunk_stride));
        (us.max(0.0), outside || !measured)
    }
}

/// Linear between what two nodes give, or what one gives if the place is on it.
#[inline(always)]
fn between(place: Place, node: impl Fn(usize) -> (f64, bool)) -> (f64, bool) {
    let (a, a_measured) = node(place.low);
    if place.share == 0.0 {
        return (a, a_measured);
    }
    let (b, b_measured) = node(place.high);
    (a + place.share * (b - a), a_measured && b_measured)
}

/// A grid some of whose nodes have no time yet.
struct Filling<'a> {
    values: Vec<Option<f64>>,
    measured: Vec<bool>,
    axes: &'a [Axis; 4],
    strides: [usize; 4],
}

impl Filling<'_> {
    /// Fills lines along an axis; says whether there was anything to fill. Between two times it is
    /// linear. Where the axis means nothing (the context of prompts without prompts, that of decodes
    /// without decodes) the only time holds all along, as if measured. What has times on one
    /// side only waits for another axis unless they are `least` at least: then it is linear above the
    /// last two, and the first holds below.
    fn fill(&mut self, axis: usize, least: usize) -> bool {
        let (count, stride) = (self.axes[axis].values.len(), self.strides[axis]);
        let mut any = false;
        let mut known = Vec::new();
        for start in 0..self.values.len() {
            if start / stride % count != 0 {
                continue;
            }
            known.clear();
            known.extend((0..count).filter(|i| self.values[start + i * stride].is_some()));
            let meaningless = match axis {
                PREFILL_KV => self.is_zero(start, CHUNK),
                DECODE_KV => self.is_zero(start, DECODES),
                _ => false,
            };
            let same = meaningless && known.len() == 1;
            for i in 0..count {
                let after = known.partition_point(|&k| k < i);
                if known.is_empty() || known.get(after) == Some(&i) {
                    continue;
                }
                let here = start + i * stride;
                let measured = |k: usize| self.measured[start + k * stride];
                self.measured[here] = match (after.checked_sub(1), known.get(after)) {
                    _ if same => measured(known[0]),
                    // Like any other place between two measured nodes.
                    (Some(low), Some(&high)) => measured(known[low]) && measured(high),
                    _ if known.len() < least => continue,
                    _ => false,
                };
                self.values[here] = Some(self.between(&known, after, i, start, axis));
                any = true;
            }
        }
        any
    }

    fn is_zero(&self, node: usize, axis: usize) -> bool {
        let index = node / self.strides[axis] % self.axes[axis].values.len();
        self.axes[axis].values[index] == 0
    }

    /// The time at node `i` of a line, before which `after` of the known nodes lie.
    fn between(&self, known: &[usize], after: usize, i: usize, start: usize, axis: usize) -> f64 {
        let value = |k: usize| self.values[start + k * self.strides[axis]].unwrap_or_default();
        let x = |k: usize| f64::from(self.axes[axis].values[k]);
        let (low, high) = match (after, known.len()) {
            (0, _) | (_, 1) => return value(known[0]),
            (n, len) if n == len => (known[len - 2], known[len - 1]),
            (n, _) => (known[n - 1], known[n]),
        };
        let share = (x(i) - x(low)) / (x(high) - x(low));
        value(low) + share * (value(high) - value(low))
    }
}
