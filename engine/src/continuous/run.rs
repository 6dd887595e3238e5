//! A run: one step, or many decode-only steps in a row, whose ends are known but have not come.

use crate::batch::BatchShape;
use windtunnel_base::time::{FineTime, SimTime};

/// The end of one step of a run: on the replica's own clock, where the next step begins. Its parts lie
/// side by side, so that it takes 16 bytes: a large fleet keeps many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepEnd {
    nanos: u64,
    fraction: u32,
    pub(crate) extrapolated: bool,
}

impl StepEnd {
    #[inline]
    pub(crate) fn new(fine: FineTime, extrapolated: bool) -> Self {
        let (nanos, fraction) = fine.parts();
        Self {
            nanos,
            fraction,
            extrapolated,
        }
    }

    #[inline]
    pub(crate) fn fine(&self) -> FineTime {
        FineTime::of_parts((self.nanos, self.fraction))
    }

    /// When others see it.
    #[inline]
    pub(crate) fn at(&self) -> SimTime {
        self.fine().rounded_up()
    }
}

/// Steps that fast-forward computes ahead at first, and at most.
const SHORTEST: usize = 8;
const LONGEST: usize = 4096;

/// The step or steps in progress. State outside is as of the start of the first one, whose
/// blocks are taken already; later steps take theirs when the run is committed.
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct Run {
    pub(crate) ends: Vec<StepEnd>,
    pub(crate) start: SimTime,
    /// Blocks the decoding requests took for the first step.
    pub(crate) first_growth: u64,
    /// Blocks of cached content that went for those.
    pub(crate) first_evicted: u64,
    /// Steps the next run may compute ahead. It doubles when a run is used up and shrinks to
    /// twice what was used when one is cut, so that the steps thrown away are never more than
    /// a fixed multiple of the steps used.
    limit: usize,
    /// Of the first step; later ones differ by one token of context per request.
    pub(crate) shape: BatchShape,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            start: SimTime::ZERO,
            shape: BatchShape::default(),
            first_growth: 0,
            first_evicted: 0,
            ends: Vec::new(),
            limit: SHORTEST,
        }
    }
}

impl Run {
    /// When the last of its steps ends, or `None` if nothing is in progress.
    pub(crate) fn end(&self) -> Option<SimTime> {
        self.ends.last().map(StepEnd::at)
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Drops all steps but those that have ended at `now`, the one then in progress and `planned`
    /// more. A step that ends at `now` has ended.
    pub(crate) fn cut(&mut self, now: SimTime, planned: usize) {
        let ended = self.first(|end| end > now);
        let kept = ended + 1 + planned;
        if kept < self.ends.len() {
            self.ends.truncate(kept);
            self.limit = (2 * self.ends.len()).clamp(SHORTEST, LONGEST);
        }
    }

    /// The run is over; the next may be longer if this one was as long as allowed.
    pub(crate) fn clear(&mut self) {
        if self.ends.len() >= self.limit {
            self.limit = (2 * self.limit).min(LONGEST);
        }
        self.ends.clear();
    }

    /// When the last of its first `steps` steps began; the start of the run if there are none.
    pub(crate) fn start_of(&self, steps: usize) -> SimTime {
        match steps {
            0 | 1 => self.start,
            n => self.ends[n - 2].at(),
        }
    }

    /// Drops the steps from the one on that begins at `now`, if one does after another.
    pub(crate) fn stop_at(&mut self, now: SimTime) {
        let ended = self.first(|end| end > now);
        if ended > 0 && ended < self.ends.len() && self.ends[ended - 1].at() == now {
            self.ends.truncate(ended);
            self.limit = (2 * ended).clamp(SHORTEST, LONGEST);
        }
    }

    /// The first step whose end is so, which those of all later steps are too; their number if none is.
    /// Mostly it is among the first of many, which is where this looks.
    #[inline]
    fn first(&self, so: impl Fn(SimTime) -> bool) -> usize {
        let (mut from, mut to) = (0, 1);
        while to <= self.ends.len() && !so(self.ends[to - 1].at()) {
            from = to;
            to *= 2;
        }
        let to = to.min(self.ends.len());
        from + self.ends[from..to].partition_point(|e| !so(e.at()))
    }

    /// Whether the step after the first `step` ones is there and begins before `now`.
    #[inline]
    pub(crate) fn begins_before(&self, step: usize, now: SimTime) -> bool {
        let begins = match step {
            0 => self.start,
            n => self.ends[n - 1].at(),
        };
        step < self.ends.len() && begins < now
    }

    /// Steps that began before `now`.
    pub(crate) fn begun(&self, now: SimTime) -> usize {
        if self.ends.is_empty() || self.start >= now {
            return 0;
        }
        (1 + self.first(|end| end >= now)).min(self.ends.len())
    }
}
