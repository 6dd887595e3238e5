//! The correction for unequal lengths: a batch whose decodes differ in length takes longer than one
//! whose decodes all have the mean length, by a measured share of the way to one whose decodes all
//! have the largest.

/// Buckets of one axis: right ends, rising. What is beyond the last belongs to the last.
#[derive(Clone, PartialEq, Debug)]
pub struct Bins(pub Vec<f64>);

impl Bins {
    /// The bucket of a value; right ends belong to their bucket.
    #[inline]
    fn of(&self, value: f64) -> usize {
        let bucket = self.0.partition_point(|&end| end < value);
        bucket.min(self.0.len().saturating_sub(1))
    }
}

/// Which bucket a share was measured for: place of the chunk among [`SkewFit::chunks`], and
/// buckets of the other axes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bucket {
    /// Chunk of prompt tokens.
    pub chunk: usize,
    /// Number of decodes.
    pub decodes: usize,
    /// Share of decodes that have the largest length, where there are two.
    pub rate: usize,
    /// Largest length.
    pub longest: usize,
    /// Context of the prompts.
    pub kv_prefill: usize,
}

/// Measured shares by bucket.
#[derive(Clone, PartialEq, Debug)]
pub struct SkewFit {
    /// Measured chunks of prompt tokens, rising.
    pub chunks: Vec<u32>,
    /// Numbers of decodes.
    pub decodes: Bins,
    /// Shares of long ones.
    pub rate: Bins,
    /// Largest lengths.
    pub longest: Bins,
    /// Contexts of prompts.
    pub kv_prefill: Bins,
    /// By bucket, the axes in the order of [`Bucket`], the last running fastest.
    shares: Vec<f64>,
    /// Of every bucket that was not measured, and of batches with other chunks.
    default: f64,
}

/// A batch as the correction sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unequal {
    pub(crate) chunk: u64,
    pub(crate) kv_prefill: u64,
    pub(crate) decodes: u64,
    /// What they have in KV, summed, their squares summed, and the largest.
    pub(crate) contexts: u64,
    pub(crate) squares: u128,
    pub(crate) most: u64,
}

impl SkewFit {
    /// A fit in which every bucket has the share `default`.
    pub fn new(
        chunks: Vec<u32>,
        [decodes, rate, longest, kv_prefill]: [Bins; 4],
        default: f64,
    ) -> Self {
        let buckets = decodes.0.len() * rate.0.len() * longest.0.len() * kv_prefill.0.len();
        Self {
            shares: vec![default; chunks.len().max(1) * buckets],
            default,
            chunks,
            decodes,
            rate,
            longest,
            kv_prefill,
        }
    }

    /// Sets the share of a bucket; false if there is no such bucket.
    pub fn set(&mut self, bucket: Bucket, share: f64) -> bool {
        let within = bucket.decodes < self.decodes.0.len()
            && bucket.rate < self.rate.0.len()
            && bucket.longest < self.longest.0.len()
            && bucket.kv_prefill < self.kv_prefill.0.len();
        let at = self.index(bucket);
        match self.shares.get_mut(at) {
            Some(here) if within => {
                *here = share;
                true
            }
            _ => false,
        }
    }

    fn index(&self, b: Bucket) -> usize {
        let index = b.chunk * self.decodes.0.len() + b.decodes;
        let index = index * self.rate.0.len() + b.rate;
        (index * self.longest.0.len() + b.longest) * self.kv_prefill.0.len() + b.kv_prefill
    }

    /// The number of decodes that the bucket of `decodes` was measured at: its end, but for
    /// batches larger than any measured (`most`), which stand for themselves.
    ///
    /// What a long context adds is the time of those who work on it alone when all others are
    /// done. That does not depend on how many others there were, so it is taken at the size at which
    /// it was measured; at its own, a batch would be the faster for being smaller than that.
    #[inline]
    pub(crate) fn measured_decodes(&self, decodes: u64, most: u64) -> u64 {
        let end = self.decodes.0[self.decodes.of(decodes as f64)];
        if end >= decodes as f64 && end <= most as f64 {
            end as u64
        } else {
            decodes
        }
    }

    /// The share for a batch: that of its bucket if its chunk is one of those measured, else the
    /// mean share of all buckets, as the makers of such profiles have it.
    pub(crate) fn share(&self, batch: &Unequal) -> f64 {
        let chunk = |&c: &u32| u64::from(c) == batch.chunk;
        let Some(chunk) = self.chunks.iter().position(chunk) else {
            return self.default;
        };
        let bucket = Bucket {
            chunk,
            decodes: self.decodes.of(batch.decodes as f64),
            rate: self.rate.of(batch.rate()),
            longest: self.longest.of(batch.most as f64),
            kv_prefill: self.kv_prefill.of(batch.kv_prefill as f64),
        };
        self.shares[self.index(bucket)]
    }
}

impl Unequal {
    /// The share of long ones in the batch of two lengths that has the same number, mean, variance
    /// and longest: shares were measured on such batches, where it is the `skew_rate`.
    ///
    /// With a share `p` at the longest, which lies `d` above the mean, the variance is
    /// `p/(1-p) d^2`. (The place of the mean between shortest and longest is the same for two
    /// lengths, but takes a spread batch with one outlier for one that has many long ones.)
    fn rate(&self) -> f64 {
        let (n, sum) = (u128::from(self.decodes), u128::from(self.contexts));
        // Both times the number of decodes, squared: whole numbers.
        let variance = (n * self.squares).saturating_sub(sum * sum) as f64;
        let above = (n * u128::from(self.most)).saturating_sub(sum) as f64;
        let all = above * above + variance;
        if all > 0.0 { variance / all } else { 0.5 }
    }
}
