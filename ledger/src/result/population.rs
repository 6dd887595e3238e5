//! Counters and distributions of a population of requests.

use crate::distribution::Distribution;
use crate::entry::AnswerSource;
use crate::rows::{End, Row};
use serde::{Deserialize, Deserializer, Serialize};
use windtunnel_base::refusal::Refusal;

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "what the serializer calls"
)]
const fn is_zero(n: &u64) -> bool {
    *n == 0
}

const fn is_nothing(n: &u128) -> bool {
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

/// What an answer that has come is worth, beyond its row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// There is a verifier, but nobody was to check this answer.
    pub trusted: bool,
    /// Accepted or trusted, in time, and good in truth.
    pub useful: bool,
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
    /// Whole answers that came within the segment from whom nobody was to check, although there is a verifier.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub trusted: u64,
    /// Accepted or trusted, in time, and good in truth.
    pub verified_useful: u64,
    /// Checks that began within the segment; an answer may see several levels of a ladder.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub checks: u64,
    /// Bad answers that a verifier rejected within the segment, whatever became of them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bad_caught: u64,
    /// Bad answers that it accepted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bad_accepted: u64,
    /// Good answers that it rejected.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub good_rejected: u64,
    /// Good answers that it accepted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub good_accepted: u64,
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
    /// Charged for tokens within the segment, in millionths of a nano-dollar; counted by tenant alone.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub token_charges: u128,
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
    /// Time until the answer is whole, checked and, if it was rejected for another, replaced, ns; finished
    /// requests, where there is a verifier.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub with_verifier: Distribution,
    /// Time until the first answer was whole, ns: of the same requests, had nobody checked them.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub without_verifier: Distribution,
}

fn is_empty(distribution: &Distribution) -> bool {
    distribution.count() == 0
}

fn none_of_any(counts: &[u64; AnswerSource::ALL.len()]) -> bool {
    *counts == [0; AnswerSource::ALL.len()]
}

impl Population {
    /// Adds an answer to the segment that it came in, as money is posted where it was spent: so
    /// rates and costs per output hold in a backlog too.
    pub(super) fn deliver(&mut self, row: &Row, standing: Standing) {
        self.delivered += 1;
        self.delivered_tokens += u64::from(row.output_tokens);
        if row.accepted_by_verifier != Some(false) {
            self.released += 1;
            self.released_bad += u64::from(!row.good);
        }
        if let Some(accepted) = row.accepted_by_verifier {
            self.verified += 1;
            self.accepted += u64::from(accepted);
        }
        self.trusted += u64::from(standing.trusted);
        self.verified_useful += u64::from(standing.useful);
    }

    /// Adds a request to the segment that it was sent in.
    pub(super) fn add(&mut self, row: &Row) {
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
        self.with_verifier.merge(&o.with_verifier);
        self.without_verifier.merge(&o.without_verifier);
    }

    /// Like [`Self::merge`], but takes over what it can.
    pub(super) fn absorb(&mut self, o: Self) {
        self.merge_counts(&o);
        self.ttft.absorb(o.ttft);
        self.tpot.absorb(o.tpot);
        self.itl.absorb(o.itl);
        self.e2e.absorb(o.e2e);
        self.queue.absorb(o.queue);
        self.with_verifier.absorb(o.with_verifier);
        self.without_verifier.absorb(o.without_verifier);
    }

    fn merge_counts(&mut self, o: &Self) {
        for (mine, theirs) in self.refused.iter_mut().zip(o.refused) {
            *mine += theirs;
        }
        for (mine, theirs) in self.elsewhere.iter_mut().zip(o.elsewhere) {
            *mine += theirs;
        }
        macro_rules! add { ($($f:ident)*) => { $( self.$f += o.$f; )* } }
        add!(sent finished abandoned unfinished met_objectives delivered delivered_tokens released released_bad checks bad_caught bad_accepted good_rejected good_accepted verified accepted trusted verified_useful good started
             prompt_tokens cached_tokens output_tokens preemptions single_token attempts retries hedges throttled
             wasted_tokens token_charges);
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

#[cfg(test)]
mod tests {
    use super::nearest;

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
}
