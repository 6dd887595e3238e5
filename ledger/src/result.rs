//! The result of a run: segments of time with their counters, distributions and books, so that
//! warm-up can be left out after the fact without keeping every request.

use crate::account::Books;
use crate::decision::{Decision, GatewayTotals};
pub use crate::distribution::Distribution;
use crate::entry::{AnswerSource, Entry};
use crate::gateway::{PathTotals, PipelineTotals};
use crate::rows::{End, Row};
use crate::scaling::ScalingTotals;
use crate::shared_cache::SharedCacheTotals;
use crate::state_store::{IndexTotals, StoreTotals};
use serde::{Deserialize, Deserializer, Serialize};
use windtunnel_base::ids::ClassId;
use windtunnel_base::refusal::Refusal;
use windtunnel_base::time::{SimDuration, SimTime};

/// Segments are merged in pairs when there are more than this.
const MAX_SEGMENTS: usize = 32;

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "what the serializer calls"
)]
const fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Reads how many were turned away for each reason; files written when there were fewer reasons have
/// fewer numbers.
fn refusals<'de, D: Deserializer<'de>>(from: D) -> Result<[u64; Refusal::ALL.len()], D::Error> {
    let read = Vec::<u64>::deserialize(from)?;
    let mut all = [0; Refusal::ALL.len()];
    if read.len() > all.len() {
        let known = format!("at most {} numbers, one per reason", all.len());
        return Err(serde::de::Error::invalid_length(
            read.len(),
            &known.as_str(),
        ));
    }
    all[..read.len()].copy_from_slice(&read);
    Ok(all)
}

/// What happened to the requests of one population (all, or one class) that were sent within one
/// segment.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Population {
    /// Sent by clients.
    pub sent: u64,
    /// When the last of them was sent, ns; 0 if none was.
    #[serde(default)]
    pub last_sent_ns: u64,
    /// Whole answer at the client.
    pub finished: u64,
    /// Turned away, by reason in the order of [`Refusal::ALL`].
    #[serde(deserialize_with = "refusals")]
    pub refused: [u64; Refusal::ALL.len()],
    /// Given up by their clients.
    pub abandoned: u64,
    /// Cut off by the end of the run.
    pub unfinished: u64,
    /// Finished within all objectives of their class.
    pub met_objectives: u64,
    /// Whole answers that came within the segment, whenever they were asked for.
    #[serde(default)]
    pub delivered: u64,
    /// Output tokens of those.
    #[serde(default)]
    pub delivered_tokens: u64,
    /// Answers judged by a verifier within the segment, whenever they were asked for.
    pub verified: u64,
    /// Accepted by it.
    pub accepted: u64,
    /// Accepted in time and good in truth.
    pub verified_useful: u64,
    /// Whole answers that came within the segment and were not rejected by a verifier.
    #[serde(default)]
    pub released: u64,
    /// Bad ones of those.
    #[serde(default)]
    pub released_bad: u64,
    /// Good in truth, among the finished.
    pub good: u64,
    /// Joined a batch.
    pub started: u64,
    /// Prompt tokens of those.
    pub prompt_tokens: u64,
    /// Prompt tokens of those found in cache.
    pub cached_tokens: u64,
    /// Output tokens delivered by finished requests.
    pub output_tokens: u64,
    /// Times that requests were thrown out of memory.
    pub preemptions: u64,
    /// Attempts that clients sent within the segment, where they make several.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempts: u64,
    /// Of those, the ones made again after a failure.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u64,
    /// Of those, the ones made beside another under way.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hedges: u64,
    /// Attempts that clients held back themselves within the segment.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub throttled: u64,
    /// Output tokens generated for attempts that nobody waited for any more, counted when that showed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub wasted_tokens: u64,
    /// Finished requests of one output token, which have no TPOT.
    pub single_token: u64,
    /// Finished with an answer from elsewhere, by source in the order of [`AnswerSource::ALL`].
    #[serde(default, skip_serializing_if = "none_of_any")]
    pub elsewhere: [u64; AnswerSource::ALL.len()],
    /// Time to first token, ns, finished requests.
    pub ttft: Distribution,
    /// Time per output token after the first, ns, finished requests with two or more.
    pub tpot: Distribution,
    /// Gaps between tokens, ns, pooled over all requests.
    pub itl: Distribution,
    /// End-to-end latency, ns, finished requests.
    pub e2e: Distribution,
    /// Waiting before the first batch, ns, started requests.
    pub queue: Distribution,
}

fn none_of_any(counts: &[u64; AnswerSource::ALL.len()]) -> bool {
    *counts == [0; AnswerSource::ALL.len()]
}

impl Population {
    /// Adds an answer to the segment that it came in, as money is posted where it was spent: so
    /// rates and costs per output hold in a backlog too.
    fn deliver(&mut self, row: &Row, useful: bool) {
        self.delivered += 1;
        self.delivered_tokens += u64::from(row.output_tokens);
        if row.accepted_by_verifier != Some(false) {
            self.released += 1;
            self.released_bad += u64::from(!row.good);
        }
        if let Some(accepted) = row.accepted_by_verifier {
            self.verified += 1;
            self.accepted += u64::from(accepted);
            self.verified_useful += u64::from(useful);
        }
    }

    /// Adds a request to the segment that it was sent in.
    fn add(&mut self, row: &Row) {
        self.sent += 1;
        self.last_sent_ns = self.last_sent_ns.max(row.sent_ns);
        self.preemptions += u64::from(row.preemptions);
        if row.started_ns.is_some() {
            self.started += 1;
            self.prompt_tokens += u64::from(row.prompt_tokens);
            self.cached_tokens += u64::from(row.cached_tokens);
        }
        if let Some(ns) = row.queue_ns() {
            self.queue.record(ns, 1);
        }
        match row.end {
            End::Refused(reason) => self.refused[reason as usize] += 1,
            End::Abandoned => self.abandoned += 1,
            End::Unfinished => self.unfinished += 1,
            End::Finished => {
                self.finished += 1;
                if let Some(source) = row.answer {
                    self.elsewhere[source as usize] += 1;
                }
                self.output_tokens += u64::from(row.output_tokens);
                self.good += u64::from(row.good);
                self.met_objectives += u64::from(row.met_objectives);
                row.ttft_ns()
                    .into_iter()
                    .for_each(|ns| self.ttft.record(ns, 1));
                row.e2e_ns()
                    .into_iter()
                    .for_each(|ns| self.e2e.record(ns, 1));
                match row.tpot_ns() {
                    Some(ns) => self.tpot.record(nearest(ns), 1),
                    None => self.single_token += 1,
                }
            }
        }
    }

    /// Adds another population's figures.
    pub fn merge(&mut self, o: &Self) {
        self.merge_counts(o);
        self.ttft.merge(&o.ttft);
        self.tpot.merge(&o.tpot);
        self.itl.merge(&o.itl);
        self.e2e.merge(&o.e2e);
        self.queue.merge(&o.queue);
    }

    /// Like [`Self::merge`], but takes over what it can.
    fn absorb(&mut self, o: Self) {
        self.merge_counts(&o);
        self.ttft.absorb(o.ttft);
        self.tpot.absorb(o.tpot);
        self.itl.absorb(o.itl);
        self.e2e.absorb(o.e2e);
        self.queue.absorb(o.queue);
    }

    fn merge_counts(&mut self, o: &Self) {
        for (mine, theirs) in self.refused.iter_mut().zip(o.refused) {
            *mine += theirs;
        }
        for (mine, theirs) in self.elsewhere.iter_mut().zip(o.elsewhere) {
            *mine += theirs;
        }
        macro_rules! add { ($($f:ident)*) => { $( self.$f += o.$f; )* } }
        add!(sent finished abandoned unfinished met_objectives delivered delivered_tokens released released_bad verified accepted verified_useful good started
             prompt_tokens cached_tokens output_tokens preemptions single_token attempts retries hedges throttled
             wasted_tokens);
        self.last_sent_ns = self.last_sent_ns.max(o.last_sent_ns);
    }
}

/// The nearest whole number, halves up, of a number that is not negative: `f64::round`, which is a call
/// into a library where the target has no instruction for it.
#[inline]
fn nearest(x: f64) -> u64 {
    let whole = x as u64;
    // Exact: both are close, or `x` is whole.
    whole + u64::from(x - whole as f64 >= 0.5)
}

/// A stretch of time: requests sent in it, tokens and spending that fell into it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// All requests.
    pub all: Population,
    /// By class; empty if the scenario has only one.
    pub classes: Vec<Population>,
    /// Money, energy and tokens.
    pub books: Books,
    /// Steps that ended in it.
    pub steps: u64,
    /// Of those, steps outside the cost model's range.
    pub extrapolated_steps: u64,
    /// Sum over steps of requests decoding, for the mean batch.
    pub decode_seqs: u64,
}

impl Segment {
    fn new(classes: usize) -> Self {
        let classes = if classes > 1 {
            vec![Population::default(); classes]
        } else {
            Vec::new()
        };
        Self {
            classes,
            ..Self::default()
        }
    }

    /// Adds another segment.
    pub fn merge(&mut self, o: &Self) {
        self.all.merge(&o.all);
        for (mine, theirs) in self.classes.iter_mut().zip(&o.classes) {
            mine.merge(theirs);
        }
        self.merge_counts(o);
    }

    /// Like [`Self::merge`], but takes over what it can.
    fn absorb(&mut self, o: Self) {
        self.merge_counts(&o);
        self.all.absorb(o.all);
        for (mine, theirs) in self.classes.iter_mut().zip(o.classes) {
            mine.absorb(theirs);
        }
    }

    fn merge_counts(&mut self, o: &Self) {
        self.books.merge(&o.books);
        self.steps += o.steps;
        self.extrapolated_steps += o.extrapolated_steps;
        self.decode_seqs += o.decode_seqs;
    }
}

/// A stretch of a run: the requests sent in it, before, during or after a disturbance.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// `before`, `during` or `after`.
    pub name: String,
    /// Its begin, ns: the end of a fixed warm-up at the earliest.
    pub from_ns: u64,
    /// Its end, ns.
    pub to_ns: u64,
    /// All requests.
    pub all: Population,
    /// By class; empty if the scenario has only one.
    pub classes: Vec<Population>,
}

impl Phase {
    fn holds(&self, ns: u64) -> bool {
        (self.from_ns..self.to_ns).contains(&ns)
    }
}

/// State of one replica at one sampling instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReplicaSample {
    /// Requests running.
    pub running: u32,
    /// Requests waiting in the replica.
    pub waiting: u32,
    /// KV blocks held by running requests.
    pub kv_held: u64,
    /// KV blocks with reusable content nobody runs on.
    pub kv_cached: u64,
    /// KV blocks in all.
    pub kv_total: u64,
}

/// State of the system at one sampling instant.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sample {
    /// When, in ns.
    pub at_ns: u64,
    /// Requests waiting at the gateway.
    pub gateway_waiting: u32,
    /// Requests in the whole system.
    pub in_system: u32,
    /// Each replica.
    pub replicas: Vec<ReplicaSample>,
}

/// What one replica did over a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaTotals {
    /// Requests sent to it.
    pub requests: u64,
    /// Prompt tokens of those.
    pub prompt_tokens: u64,
    /// Output tokens it generated.
    pub output_tokens: u64,
    /// Time in steps, ns.
    pub busy_ns: u64,
}

/// A whole run. Serialised without samples and rows, which have files of their own
/// (`store`).
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunResult {
    /// The seed.
    pub seed: u64,
    /// Hash over every entry, in order.
    pub digest: String,
    /// When the last thing happened, ns.
    pub end_ns: u64,
    /// Class names, by [`ClassId`].
    pub class_names: Vec<String>,
    /// Tenant names, by rank.
    pub tenant_names: Vec<String>,
    /// Length of a segment, ns; segment `i` covers `i * segment_ns ..`.
    pub segment_ns: u64,
    /// The segments.
    pub segments: Vec<Segment>,
    /// Before, during and after the scenario's disturbance, if it has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<Phase>,
    /// Fixed warm-up, if the scenario sets one, ns.
    pub fixed_warm_up_ns: Option<u64>,
    /// Samples at equal distances.
    #[serde(skip)]
    pub samples: Vec<Sample>,
    /// Totals per replica.
    pub replicas: Vec<ReplicaTotals>,
    /// One row per request, in order of request, if the scenario asks for rows.
    #[serde(skip)]
    pub rows: Vec<Row>,
    /// What the gateway did.
    pub gateway: GatewayTotals,
    /// What the gateway's stages did, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<PipelineTotals>,
    /// What the choice of pools did, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<PathTotals>,
    /// What the gateways' store did, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_store: Option<StoreTotals>,
    /// What the routing policy's index did, if it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<IndexTotals>,
    /// What the cache of prompts that replicas share did, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_cache: Option<SharedCacheTotals>,
    /// How many replicas there were, if their number followed the load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingTotals>,
    /// Every routing decision, if asked for; else that of the watched request, if any.
    pub decisions: Vec<Decision>,
    /// Every entry of the watched request, if any.
    pub watched: Vec<Entry>,
    /// Integral of the number of requests in the system over time, in request-nanoseconds.
    pub in_system_ns: u128,
    /// Events handled: arrivals, ends of steps (or of runs of steps), messages, timers. Not part of
    /// the digest, because fast-forward makes fewer of them.
    pub events: u64,
    /// Facts written down: entries that laws checked and the digest took in.
    #[serde(default)]
    pub facts: u64,
}

/// Collects a run while it happens. Memory does not grow with the number of requests unless rows
/// are kept.
#[derive(Debug)]
pub struct Collector {
    classes: usize,
    segment_ns: u64,
    segments: Vec<Segment>,
    /// Where the segment asked for last begins, and which it is: the next question is mostly for the
    /// same one, and needs no division.
    last: (u64, usize),
    phases: Vec<Phase>,
    keep_rows: bool,
    rows: Vec<Row>,
}

impl Collector {
    /// For so many classes; `first_segment` is the initial length of a segment, doubled whenever a
    /// run gets long.
    pub fn new(classes: usize, first_segment: SimDuration, keep_rows: bool) -> Self {
        Self {
            classes,
            segment_ns: first_segment.as_nanos().max(1),
            segments: Vec::new(),
            last: (0, 0),
            phases: Vec::new(),
            keep_rows,
            rows: Vec::new(),
        }
    }

    /// Tells requests sent before, during and after `disturbance` apart too; nothing before `begin`.
    pub fn compare_phases(&mut self, begin: SimTime, disturbance: (SimTime, SimTime)) {
        let (from, to) = disturbance;
        let bounds = [begin, from.max(begin), to.max(begin), SimTime::MAX];
        let names = ["before", "during", "after"];
        self.phases = names
            .iter()
            .zip(bounds.windows(2))
            .map(|(name, bounds)| Phase {
                name: (*name).to_owned(),
                from_ns: bounds[0].as_nanos(),
                to_ns: bounds[1].as_nanos(),
                all: Population::default(),
                classes: Segment::new(self.classes).classes,
            })
            .collect();
    }

    /// Adds a row to the phases that it was sent and answered in.
    #[cold]
    fn add_to_phases(&mut self, row: &Row, useful: bool) {
        let class = row.class as usize;
        for phase in &mut self.phases {
            if phase.holds(row.sent_ns) {
                phase.all.add(row);
                phase
                    .classes
                    .get_mut(class)
                    .into_iter()
                    .for_each(|c| c.add(row));
            }
            if row.end == End::Finished && phase.holds(row.ended_ns) {
                phase.all.deliver(row, useful);
                let class = phase.classes.get_mut(class);
                class.into_iter().for_each(|c| c.deliver(row, useful));
            }
        }
    }

    /// The present length of a segment, ns; only ever doubles.
    pub const fn segment_ns(&self) -> u64 {
        self.segment_ns
    }

    /// The segments so far.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The segment that `at` falls into.
    #[inline]
    pub fn segment(&mut self, at: SimTime) -> &mut Segment {
        let (begin, index) = self.last;
        let within = at.as_nanos().wrapping_sub(begin) < self.segment_ns;
        let index = if within && index < self.segments.len() {
            index
        } else {
            self.find(at)
        };
        &mut self.segments[index]
    }

    /// The number of the segment that `at` falls into, which is there then.
    fn find(&mut self, at: SimTime) -> usize {
        let mut index = at.as_nanos() / self.segment_ns;
        while index >= MAX_SEGMENTS as u64 {
            self.halve();
            index = at.as_nanos() / self.segment_ns;
        }
        self.last = (index * self.segment_ns, index as usize);
        while self.segments.len() <= self.last.1 {
            self.segments.push(Segment::new(self.classes));
        }
        self.last.1
    }

    /// Merges segments in pairs, which makes them twice as long.
    #[cold]
    fn halve(&mut self) {
        self.segment_ns *= 2;
        let mut merged = Vec::with_capacity(MAX_SEGMENTS);
        let mut old = std::mem::take(&mut self.segments).into_iter();
        while let Some(mut a) = old.next() {
            if let Some(b) = old.next() {
                a.absorb(b);
            }
            merged.push(a);
        }
        self.segments = merged;
    }

    /// Adds a request that has ended. `useful`: accepted by a verifier, in time, and good in truth.
    pub fn row(&mut self, row: Row, useful: bool) {
        let segment = self.segment(SimTime::from_nanos(row.sent_ns));
        segment.all.add(&row);
        if let Some(class) = segment.classes.get_mut(row.class as usize) {
            class.add(&row);
        }
        if row.end == End::Finished {
            let segment = self.segment(SimTime::from_nanos(row.ended_ns));
            segment.all.deliver(&row, useful);
            if let Some(class) = segment.classes.get_mut(row.class as usize) {
                class.deliver(&row, useful);
            }
        }
        if !self.phases.is_empty() {
            self.add_to_phases(&row, useful);
        }
        if self.keep_rows {
            self.rows.push(row);
        }
    }

    /// Counts something about requests of a class that happened at `at`.
    pub fn count(&mut self, at: SimTime, class: ClassId, add: impl Fn(&mut Population)) {
        let segment = self.segment(at);
        add(&mut segment.all);
        if let Some(class) = segment.classes.get_mut(class.index()) {
            add(class);
        }
        let phases = self.phases.iter_mut();
        for phase in phases.filter(|phase| phase.holds(at.as_nanos())) {
            add(&mut phase.all);
            if let Some(class) = phase.classes.get_mut(class.index()) {
                add(class);
            }
        }
    }

    /// Adds `count` gaps between tokens.
    #[inline]
    pub fn gap(&mut self, at: SimTime, class: ClassId, gap: SimDuration, count: u64) {
        let segment = self.segment(at);
        segment.all.itl.record(gap.as_nanos(), count);
        if let Some(class) = segment.classes.get_mut(class.index()) {
            class.itl.record(gap.as_nanos(), count);
        }
    }

    /// The phases, if they were asked for, the last of them ended at `end`.
    pub fn take_phases(&mut self, end: SimTime) -> Vec<Phase> {
        let mut phases = std::mem::take(&mut self.phases);
        for phase in &mut phases {
            phase.to_ns = phase.to_ns.min(end.as_nanos());
            phase.from_ns = phase.from_ns.min(phase.to_ns);
        }
        phases
    }

    /// Ends the collection: segments, their length, rows in order of request.
    pub fn finish(mut self) -> (Vec<Segment>, u64, Vec<Row>) {
        self.rows.sort_unstable_by_key(|r| r.request);
        (self.segments, self.segment_ns, self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::BLANK;
    use proptest::prelude::*;

    fn row(request: u32, sent_ns: u64, class: u32) -> Row {
        Row {
            request,
            class,
            sent_ns,
            end: End::Finished,
            first_token_ns: Some(sent_ns + 3),
            last_token_ns: Some(sent_ns + 10),
            ended_ns: sent_ns + 10,
            output_tokens: 2,
            ..BLANK
        }
    }

    proptest! {
        /// However often segments are merged, each request is in the segment of its sending, classes
        /// add up, and nothing is lost.
        #[test]
        fn segments_hold_what_was_sent_in_them(
            sent in prop::collection::vec((0..100_000_u64, 0..3_u32), 0..200),
            first in 1..5_000_u64,
        ) {
            let mut collector = Collector::new(3, SimDuration::from_nanos(first), true);
            for (request, &(at, class)) in sent.iter().enumerate() {
                collector.row(row(request as u32, at, class), false);
            }
            let (segments, segment_ns, rows) = collector.finish();
            prop_assert!(segments.len() <= MAX_SEGMENTS);
            prop_assert!(segment_ns % first == 0 && (segment_ns / first).is_power_of_two());
            prop_assert_eq!(rows.len(), sent.len());
            for (i, segment) in segments.iter().enumerate() {
                let inside = |&&(at, _): &&(u64, u32)| at / segment_ns == i as u64;
                prop_assert_eq!(segment.all.sent as usize, sent.iter().filter(inside).count());
                let mut classes = Population::default();
                segment.classes.iter().for_each(|c| classes.merge(c));
                prop_assert_eq!(&classes, &segment.all);
            }
            let counted: u64 = segments.iter().map(|s| s.all.ttft.count()).sum();
            prop_assert_eq!(counted as usize, sent.len());
        }
    }

    #[test]
    fn the_nearest_is_what_round_says() {
        let mut random = windtunnel_base::rng::Rng::from_seed(5);
        for i in 0..100_000 {
            let x = random.f64() * (1_u64 << (i % 63)) as f64;
            for x in [x, x.floor(), x.floor() + 0.5, (x.floor() + 0.5).next_down()] {
                assert_eq!(nearest(x), x.round() as u64, "{x:e}");
            }
        }
    }

    #[test]
    fn one_class_is_not_kept_twice() {
        let mut collector = Collector::new(1, SimDuration::from_secs(1), false);
        collector.row(row(0, 0, 0), false);
        let (segments, _, rows) = collector.finish();
        assert!(segments[0].classes.is_empty() && rows.is_empty());
        assert_eq!(segments[0].all.sent, 1);
    }
}
