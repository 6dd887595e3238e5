//! Distributions of times: log-linear buckets as in HDR histograms, in pages of one octave that
//! are made on first use. Exact below 2 µs, within one part in 1024 above; merging and writing to
//! files lose nothing.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Buckets of one octave; their width is the octave's least value over this.
const PAGE: usize = 1 << PAGE_BITS;
const PAGE_BITS: u32 = 10;

/// A distribution of times in ns: exact count, sum, least and most; quantiles within 0.1 %.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Distribution {
    /// Page 0 holds 0 to 1023, page `p` the octave that begins at `2^(p + 9)`.
    pages: Vec<Option<Box<[u64; PAGE]>>>,
    count: u64,
    sum: u128,
    min: u64,
    max: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        Self {
            pages: Vec::new(),
            count: 0,
            sum: 0,
            min: u64::MAX,
            max: 0,
        }
    }
}

/// Page and place of a value.
#[inline]
const fn place(ns: u64) -> (usize, usize) {
    if ns < PAGE as u64 {
        return (0, ns as usize);
    }
    let octave = 63 - ns.leading_zeros();
    let page = octave - PAGE_BITS + 1;
    (
        page as usize,
        (ns >> (octave - PAGE_BITS)) as usize & (PAGE - 1),
    )
}

/// Least and greatest value of a bucket.
const fn bounds(page: usize, slot: usize) -> (u64, u64) {
    if page == 0 {
        return (slot as u64, slot as u64);
    }
    let shift = page as u32 - 1;
    let low = ((PAGE + slot) as u64) << shift;
    (low, low + ((1 << shift) - 1))
}

impl Distribution {
    /// Adds `count` values of `ns`.
    #[inline]
    pub fn record(&mut self, ns: u64, count: u64) {
        if count == 0 {
            return;
        }
        self.count += count;
        self.sum += u128::from(ns) * u128::from(count);
        self.min = self.min.min(ns);
        self.max = self.max.max(ns);
        let (page, slot) = place(ns);
        self.page(page)[slot] += count;
    }

    #[inline]
    fn page(&mut self, page: usize) -> &mut [u64; PAGE] {
        if page >= self.pages.len() {
            self.pages.resize(page + 1, None);
        }
        self.pages[page].get_or_insert_with(|| Box::new([0; PAGE]))
    }

    /// Adds another distribution.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        for (page, theirs) in other.pages.iter().enumerate() {
            let Some(theirs) = theirs else { continue };
            for (mine, theirs) in self.page(page).iter_mut().zip(theirs.iter()) {
                *mine += theirs;
            }
        }
    }

    /// Occupied buckets in order: least value, greatest value, count.
    fn buckets(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.pages
            .iter()
            .enumerate()
            .filter_map(|(p, page)| Some((p, page.as_ref()?)))
            .flat_map(|(p, page)| {
                page.iter()
                    .enumerate()
                    .filter(|&(_, &count)| count > 0)
                    .map(move |(slot, &count)| {
                        let (low, high) = bounds(p, slot);
                        (low, high, count)
                    })
            })
    }

    /// How many values.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Sum of all values, in ns; exact.
    pub const fn sum(&self) -> u128 {
        self.sum
    }

    /// The exact mean, in ns.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }

    /// The `q`-quantile in ns, 0 to 1: the least value with at least `q` of all at or below it,
    /// never less and at most one part in 1024 more. `None` if there are no values.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = ((q.clamp(0.0, 1.0) * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        self.buckets()
            .find(|&(_, _, count)| {
                seen += count;
                seen >= rank
            })
            .map(|(_, high, _)| high.clamp(self.min, self.max) as f64)
    }

    /// Least value, in ns.
    pub fn min(&self) -> Option<u64> {
        (self.count > 0).then_some(self.min)
    }

    /// Greatest value, in ns.
    pub fn max(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max)
    }

    /// Points `(ns, share at or below)` of the distribution function, for plots.
    pub fn cdf(&self) -> Vec<(f64, f64)> {
        let mut seen = 0;
        self.buckets()
            .map(|(_, high, count)| {
                seen += count;
                (
                    high.clamp(self.min, self.max) as f64,
                    seen as f64 / self.count as f64,
                )
            })
            .collect()
    }
}

/// As in files: only occupied buckets. The sum is a text because it may exceed 64 bits, which few
/// JSON readers forgive.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sparse {
    sum: String,
    min: u64,
    max: u64,
    /// Least value of a bucket, and its count.
    buckets: Vec<(u64, u64)>,
}

impl Serialize for Distribution {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        Sparse {
            sum: self.sum.to_string(),
            min: self.min().unwrap_or(0),
            max: self.max,
            buckets: self.buckets().map(|(low, _, count)| (low, count)).collect(),
        }
        .serialize(s)
    }
}

impl<'de> Deserialize<'de> for Distribution {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let sparse = Sparse::deserialize(d)?;
        let mut read = Self::default();
        for (low, count) in sparse.buckets {
            read.record(low, count);
        }
        if read.count > 0 {
            // Buckets know their values to one part in 1024; these three are exact.
            read.sum = sparse.sum.parse().map_err(serde::de::Error::custom)?;
            read.min = sparse.min;
            read.max = sparse.max;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against sorting: never less than the true quantile, at most one part in 1024 more.
        #[test]
        fn quantiles_agree_with_sorting(
            mut values in prop::collection::vec(0..u64::MAX / 1024, 1..300),
            small in prop::collection::vec(0..5_000_000_u64, 0..300),
            q in 0.0..=1.0_f64,
        ) {
            values.extend(small);
            let mut d = Distribution::default();
            values.iter().for_each(|&v| d.record(v, 1));
            values.sort_unstable();
            let rank = ((q * values.len() as f64).ceil() as usize).max(1);
            let exact = values[rank - 1] as f64;
            let read = d.quantile(q).unwrap();
            prop_assert!(exact <= read && read <= exact * (1.0 + 1.0 / 1024.0), "{exact} {read}");
            let sum: u128 = values.iter().map(|&v| u128::from(v)).sum();
            prop_assert_eq!(d.mean().unwrap(), sum as f64 / values.len() as f64);
        }

        #[test]
        fn merging_is_recording_and_files_lose_nothing(
            a in prop::collection::vec((0..u64::MAX / 8, 1..9_u64), 0..60),
            b in prop::collection::vec((0..3_000_000_u64, 1..9_u64), 0..60),
        ) {
            let of = |pairs: &[(u64, u64)]| {
                let mut d = Distribution::default();
                pairs.iter().for_each(|&(v, n)| d.record(v, n));
                d
            };
            let mut merged = of(&a);
            merged.merge(&of(&b));
            let both: Vec<_> = a.iter().chain(&b).copied().collect();
            prop_assert_eq!(&merged, &of(&both));
            let text = serde_json::to_string(&merged).unwrap();
            prop_assert_eq!(serde_json::from_str::<Distribution>(&text).unwrap(), merged);
        }
    }

    #[test]
    fn buckets_tile_the_line() {
        let mut next = 0;
        for page in 0..=54 {
            for slot in 0..PAGE {
                let (low, high) = bounds(page, slot);
                assert_eq!(low, next);
                assert_eq!((place(low), place(high)), ((page, slot), (page, slot)));
                next = high.wrapping_add(1);
            }
        }
        assert_eq!(next, 0, "the last bucket ends at the greatest value");
    }

    #[test]
    fn an_empty_one_has_no_figures() {
        let d = Distribution::default();
        assert_eq!(
            (d.mean(), d.quantile(0.5), d.min(), d.max(), d.cdf()),
            (None, None, None, None, vec![])
        );
        let text = serde_json::to_string(&d).unwrap();
        assert_eq!(serde_json::from_str::<Distribution>(&text).unwrap(), d);
    }
}
