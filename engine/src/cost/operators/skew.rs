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
    /// Where the mean length lies between the smallest (0) and the largest (1).
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
    /// Places of the mean between smallest and largest.
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
    pub(crate) mean: u64,
    pub(crate) least: u64,
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

    /// The share for a batch: that of its bucket if its chunk is one of those measured, else the
    /// mean share of all buckets, as the makers of such profiles have it. (Their batches have two
    /// lengths each; left out one at a time, chunks are predicted better by their neighbours. Real batches
    /// have many lengths, and whole runs of a measured engine come out nearer with the mean.)
    pub(crate) fn share(&self, batch: &Unequal) -> f64 {
        let width = batch.most.saturating_sub(batch.least);
        let rate = match width {
            0 => 0.5,
            _ => batch.mean.saturating_sub(batch.least) as f64 / width as f64,
        };
        let Some(chunk) = self
            .chunks
            .iter()
            .position(|&c| u64::from(c) == batch.chunk)
        else {
            return self.default;
        };
        let bucket = Bucket {
            chunk,
            decodes: self.decodes.of(batch.decodes as f64),
            rate: self.rate.of(rate),
            longest: self.longest.of(batch.most as f64),
            kv_prefill: self.kv_prefill.of(batch.kv_prefill as f64),
        };
        self.shares[self.index(bucket)]
    }
}
