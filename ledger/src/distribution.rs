//! Distributions of times: log-linear buckets as in HDR histograms, in pages of one octave that
//! are made on first use. Exact below 2 µs, within one part in 1024 above; merging and writing to
//! files lose nothing.
//!
//! The first values are kept as a list: most distributions of a short run, or of a short segment of
//! time, never have enough of them to be worth a page of 8 KB, and merging lists costs next to nothing.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Buckets of one octave; their width is the octave's least value over this.
const PAGE: usize = 1 << PAGE_BITS;
const PAGE_BITS: u32 = 10;
/// Longest list before pages are made: less memory than two pages.
const LISTED: usize = 960;

/// A distribution of times in ns: exact count, sum, least and most; quantiles within 0.1 %.
#[derive(Clone)]
pub struct Distribution {
    /// Page 0 holds 0 to 1023, page `p` the octave that begins at `2^(p + 9)`. Empty while the list
    /// suffices.
    pages: Vec<Option<Box<[u64; PAGE]>>>,
    /// Buckets (page and slot in one number) and counts, as they came.
    list: Vec<(u32, u64)>,
    count: u64,
    sum: u128,
    min: u64,
    max: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        Self {
            pages: Vec::new(),
            list: Vec::new(),
            count: 0,
            sum: 0,
            min: u64::MAX,
            max: 0,
        }
    }
}

/// Equal counts in equal buckets, whichever way they are kept.
impl PartialEq for Distribution {
    fn eq(&self, other: &Self) -> bool {
        let exact = |d: &Self| (d.count, d.sum, d.min, d.max);
        exact(self) == exact(other) && self.buckets().eq(other.buckets())
    }
}

impl Eq for Distribution {}

/// What equality is about.
impl std::fmt::Debug for Distribution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let buckets: Vec<_> = self.buckets().map(|(low, _, n)| (low, n)).collect();
        f.debug_struct("Distribution")
            .field("sum", &self.sum)
            .field("min", &self.min())
            .field("max", &self.max())
            .field("buckets", &buckets)
            .finish()
    }
}

/// The number of a value's bucket: page, then slot.
#[inline]
const fn bucket(ns: u64) -> u32 {
    // Below 1024 there is no leading one to cut off and nothing to shift out.
    let octave = 63 - (ns | PAGE as u64 >> 1).leading_zeros();
    if octave < PAGE_BITS {
        return ns as u32;
    }
    let page = octave - PAGE_BITS + 1;
    (page << PAGE_BITS) | (ns >> (octave - PAGE_BITS)) as u32 & (PAGE as u32 - 1)
}

/// Least and greatest value of a bucket.
const fn bounds(bucket: u32) -> (u64, u64) {
    let (page, slot) = (bucket >> PAGE_BITS, bucket & (PAGE as u32 - 1));
    if page == 0 {
        return (slot as u64, slot as u64);
    }
    let shift = page - 1;
    let low = (PAGE as u64 + slot as u64) << shift;
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
        self.add(bucket(ns), count);
    }

    /// Adds to a bucket, and to no sum.
    #[inline]
    fn add(&mut self, bucket: u32, count: u64) {
        let (page, slot) = ((bucket >> PAGE_BITS) as usize, bucket as usize % PAGE);
        if let Some(Some(page)) = self.pages.get_mut(page) {
            page[slot] += count;
        } else if self.pages.is_empty() && self.list.len() < LISTED {
            self.list.push((bucket, count));
        } else {
            self.spread();
            self.page(page)[slot] += count;
        }
    }

    /// A page, made if it is not there.
    #[cold]
    fn page(&mut self, page: usize) -> &mut [u64; PAGE] {
        if page >= self.pages.len() {
            self.pages.resize(page + 1, None);
        }
        self.pages[page].get_or_insert_with(|| Box::new([0; PAGE]))
    }

    /// Moves the list to pages.
    #[cold]
    fn spread(&mut self) {
        for (bucket, count) in std::mem::take(&mut self.list) {
            self.page((bucket >> PAGE_BITS) as usize)[bucket as usize % PAGE] += count;
        }
    }

    /// Adds another distribution.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        if self.pages.is_empty() && self.list.len() + other.list.len() <= LISTED {
            self.list.extend_from_slice(&other.list);
        } else {
            for &(bucket, count) in &other.list {
                self.add(bucket, count);
            }
        }
        if !other.pages.is_empty() {
            self.spread();
        }
        for (page, theirs) in other.pages.iter().enumerate() {
            let Some(theirs) = theirs else { continue };
            for (mine, theirs) in self.page(page).iter_mut().zip(theirs.iter()) {
                *mine += theirs;
            }
        }
    }

    /// Like [`Self::merge`]; what is in pages on one side only changes hands.
    pub fn absorb(&mut self, mut other: Self) {
        if self.pages.is_empty() && !other.pages.is_empty() {
            std::mem::swap(self, &mut other);
        }
        let mut pages = std::mem::take(&mut other.pages);
        self.merge(&other);
        if pages.is_empty() {
            return;
        }
        self.spread();
        if self.pages.len() < pages.len() {
            std::mem::swap(&mut self.pages, &mut pages);
        }
        for (mine, theirs) in self.pages.iter_mut().zip(pages) {
            match (mine, theirs) {
                (Some(mine), Some(theirs)) => {
                    for (mine, theirs) in mine.iter_mut().zip(theirs.iter()) {
                        *mine += theirs;
                    }
                }
                (mine @ None, theirs) => *mine = theirs,
                (Some(_), None) => {}
            }
        }
    }

    /// Occupied buckets in order: least value, greatest value, count.
    fn buckets(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        // One of the two is empty.
        let mut listed = self.list.clone();
        listed.sort_unstable_by_key(|entry| entry.0);
        listed.dedup_by(|later, first| {
            let same = later.0 == first.0;
            first.1 += if same { later.1 } else { 0 };
            same
        });
        let paged = self.pages.iter().enumerate();
        let paged = paged
            .filter_map(|(p, page)| Some((p, page.as_ref()?)))
            .flat_map(|(p, page)| {
                let counts = page.iter().enumerate().filter(|&(_, &count)| count > 0);
                counts.map(move |(slot, &count)| ((p << PAGE_BITS | slot) as u32, count))
            });
        listed.into_iter().chain(paged).map(|(bucket, count)| {
            let (low, high) = bounds(bucket);
            (low, high, count)
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

        /// Of every mixture of lists and pages.
        #[test]
        fn merging_is_recording_and_files_lose_nothing(
            a in prop::collection::vec((0..u64::MAX / 8, 1..9_u64), 0..60),
            b in prop::collection::vec((0..3_000_000_u64, 1..9_u64), 0..60),
            (long_a, long_b) in prop::sample::select(vec![(1, 1), (40, 1), (1, 40), (40, 40)]),
        ) {
            let repeat = |pairs: &[(u64, u64)], times: u64| -> Vec<(u64, u64)> {
                (0..times).flat_map(|i| pairs.iter().map(move |&(v, n)| (v / (i + 1), n))).collect()
            };
            let (a, b) = (repeat(&a, long_a), repeat(&b, long_b));
            let of = |pairs: &[(u64, u64)]| {
                let mut d = Distribution::default();
                pairs.iter().for_each(|&(v, n)| d.record(v, n));
                d
            };
            let mut merged = of(&a);
            merged.merge(&of(&b));
            let both: Vec<_> = a.iter().chain(&b).copied().collect();
            prop_assert_eq!(&merged, &of(&both));
            let mut absorbed = of(&a);
            absorbed.absorb(of(&b));
            prop_assert_eq!(&absorbed, &merged);
            prop_assert!(merged.pages.is_empty() || merged.list.is_empty());
            prop_assert!(absorbed.pages.is_empty() || absorbed.list.is_empty());
            prop_assert_eq!(merged == of(&a), b.is_empty());
            let text = serde_json::to_string(&merged).unwrap();
            prop_assert_eq!(serde_json::from_str::<Distribution>(&text).unwrap(), merged);
        }
    }

    #[test]
    fn buckets_tile_the_line() {
        let mut next = 0;
        for number in 0..55 * PAGE as u32 {
            let (low, high) = bounds(number);
            assert_eq!(low, next);
            assert_eq!((bucket(low), bucket(high)), (number, number));
            next = high.wrapping_add(1);
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
