//! Prompts fetched from a shared cache while their requests wait; see [`crate::refill`].
//!
//! Whether a prompt is fetched is decided once, when its request first comes up (or arrives, if it is
//! fetched ahead): a decision that moved with what else is on the link would depend on how often
//! it is asked for, and steps that are taken in one go ask less often.

use super::ContinuousBatching;
use crate::batch::BatchShape;
use crate::cost::CostModel;
use crate::refill::{Refill, RefillRules, RefillWhen};
use windtunnel_base::ids::RequestId;
use windtunnel_base::time::{SimDuration, SimTime};

/// What a request could have of the shared cache, and has.
#[derive(Clone, Copy, Debug, Default)]
struct Stage {
    /// Tokens of its prompt that the shared cache has, in whole blocks.
    offered: u32,
    /// Those from here to `offered` are here, or on the link; `offered` if none are.
    from: u32,
    /// Whether they are fetched, once that is decided.
    fetches: Option<bool>,
    /// When the first were asked for.
    begun: Option<SimTime>,
    /// When all asked for are here.
    ready: SimTime,
    /// When it could first have been admitted with them.
    wanted: Option<SimTime>,
}

/// The link to a shared cache, and who waits for what is on it.
#[derive(Debug)]
pub(super) struct Refilling {
    rules: RefillRules,
    bytes_per_token: f64,
    /// When the link has carried all it was asked for.
    link_free: SimTime,
    /// When the step that is being planned begins.
    now: SimTime,
    /// By slot.
    stages: Vec<Stage>,
    /// Requests that stand aside, and until when.
    aside: Vec<(SimTime, u32)>,
    done: Vec<Refill>,
    fetched: u64,
}

impl Refilling {
    fn new(rules: RefillRules, bytes_per_token: f64) -> Self {
        Self {
            rules,
            bytes_per_token,
            link_free: SimTime::ZERO,
            now: SimTime::ZERO,
            stages: Vec::new(),
            aside: Vec::new(),
            done: Vec::new(),
            fetched: 0,
        }
    }

    /// A request of which the shared cache has so many tokens takes a slot.
    fn open(&mut self, slot: u32, offered: u32) {
        let i = slot as usize;
        if i >= self.stages.len() {
            self.stages.resize(i + 1, Stage::default());
        }
        self.stages[i] = Stage {
            offered,
            from: offered,
            ..Stage::default()
        };
    }

    fn stage(&self, slot: u32) -> Stage {
        self.stages.get(slot as usize).copied().unwrap_or_default()
    }

    /// When so many tokens that are asked for at `now` have left the link.
    fn carried(&self, now: SimTime, tokens: u32) -> SimTime {
        let seconds = f64::from(tokens) * self.bytes_per_token / self.rules.bandwidth;
        let span = SimDuration::from_secs_f64_saturating(seconds);
        self.link_free.max(now).saturating_add(span)
    }

    /// Asks at `now` for the tokens from `here` on that were not asked for before.
    fn fetch(&mut self, slot: u32, here: u32, now: SimTime) {
        let stage = self.stage(slot);
        let tokens = stage.from - here;
        self.link_free = self.carried(now, tokens);
        self.fetched += u64::from(tokens);
        self.stages[slot as usize] = Stage {
            from: here,
            begun: stage.begun.or(Some(now)),
            ready: self.link_free.saturating_add(self.rules.latency),
            ..stage
        };
    }

    /// When the next who stands aside can come back.
    pub(super) fn wake(&self) -> Option<SimTime> {
        self.aside.iter().map(|&(at, _)| at).min()
    }
}

impl ContinuousBatching {
    /// Lets it fetch prompts from a shared cache. To be called before anything is submitted.
    pub fn share_cache(&mut self, rules: RefillRules) {
        let per_block = self.common.rules.block_bytes as f64;
        let per_token = per_block / f64::from(self.memory.block_size());
        self.refilling = Some(Box::new(Refilling::new(rules, per_token)));
    }

    /// Says how many tokens of the prompt of a request that was submitted at this very instant the shared
    /// cache has; `ahead`: they may be fetched at once, not only when the request comes up.
    pub fn offer(&mut self, now: SimTime, request: RequestId, tokens: u32, ahead: bool) {
        let Some(slot) = self.sequences.find(request) else {
            return;
        };
        let s = &self.sequences[slot];
        let most = tokens.min(s.target - 1);
        let here = self.memory.lookup(&s.prefix, s.target - 1);
        let Some(refilling) = &mut self.refilling else {
            return;
        };
        refilling.open(slot, most - most % self.memory.block_size());
        if ahead && self.pays(slot, here, now) {
            self.fetch(slot, here, now);
        }
    }

    /// Moves what was fetched for requests admitted since the last call to `refills`.
    pub fn take_refills(&mut self, refills: &mut Vec<Refill>) {
        if let Some(refilling) = &mut self.refilling {
            refills.append(&mut refilling.done);
        }
    }

    /// Tokens fetched so far, for nothing or not.
    pub fn fetched_tokens(&self) -> u64 {
        self.refilling.as_ref().map_or(0, |r| r.fetched)
    }

    /// When a request that stands aside can come back, if one does.
    pub(super) fn wake(&self) -> Option<SimTime> {
        self.refilling.as_ref()?.wake()
    }

    /// Whether all who wait stand aside.
    pub(super) fn all_stand_aside(&self) -> bool {
        let aside = self.refilling.as_ref().map_or(0, |r| r.aside.len());
        self.waiting.len() as usize == aside
    }

    /// Those whose prompts are here by `now` queue again, where they stood.
    pub(super) fn come_back(&mut self, now: SimTime) {
        let Some(refilling) = &mut self.refilling else {
            return;
        };
        refilling.now = now;
        refilling.aside.retain(|&(ready, slot)| {
            if ready <= now {
                self.waiting.come_back(slot, &mut self.sequences);
            }
            ready > now
        });
    }

    /// Tokens that need not be computed of the prompt of a request that has come up: those cached
    /// here, and what is fetched beyond.
    pub(super) fn with_refill(&mut self, slot: u32, here: u32) -> u32 {
        let Some(refilling) = &self.refilling else {
            return here;
        };
        let (stage, now) = (refilling.stage(slot), refilling.now);
        if stage.offered <= here {
            return here;
        }
        let fetches = match stage.fetches {
            Some(fetches) => fetches,
            None => self.pays(slot, here, now),
        };
        if let Some(refilling) = &mut self.refilling {
            refilling.stages[slot as usize].fetches = Some(fetches);
        }
        if fetches { stage.offered } else { here }
    }

    /// Whether a request that could be admitted now with what is fetched has it. If not, it stands aside
    /// until it does.
    pub(super) fn has_refill(&mut self, slot: u32, here: u32) -> bool {
        let Some(refilling) = &mut self.refilling else {
            return true;
        };
        let now = refilling.now;
        refilling.stages[slot as usize].wanted.get_or_insert(now);
        if refilling.stage(slot).from > here {
            // Not asked for yet, or cached here when the rest was, and forgotten meanwhile.
            refilling.fetch(slot, here, now);
        }
        let ready = refilling.stage(slot).ready;
        if ready > now {
            refilling.aside.push((ready, slot));
            self.waiting.set_aside();
        }
        ready <= now
    }

    /// A request is admitted, with `here` tokens cached here and those up to `found` fetched. What it may
    /// compute again later it computes.
    pub(super) fn refilled(&mut self, slot: u32, here: u32, found: u32) {
        let request = self.sequences[slot].request;
        let Some(refilling) = &mut self.refilling else {
            return;
        };
        let stage = refilling.stage(slot);
        if let Some(begun) = stage.begun.filter(|_| found > here) {
            let wanted = stage.wanted.unwrap_or(begun).min(stage.ready);
            refilling.done.push(Refill {
                request,
                tokens: found - here,
                took: stage.ready.since(begun),
                hidden: wanted.since(begun),
            });
        }
        refilling.open(slot, 0);
    }

    /// A request that waits is dropped.
    pub(super) fn drop_refill(&mut self, slot: u32) {
        if let Some(refilling) = &mut self.refilling {
            refilling.aside.retain(|&(_, other)| other != slot);
        }
    }

    fn fetch(&mut self, slot: u32, here: u32, now: SimTime) {
        if let Some(refilling) = &mut self.refilling {
            refilling.stages[slot as usize].fetches = Some(true);
            refilling.fetch(slot, here, now);
        }
    }

    /// Whether to fetch at `now` what the shared cache has of a prompt beyond `here` tokens.
    fn pays(&self, slot: u32, here: u32, now: SimTime) -> bool {
        let Some(refilling) = &self.refilling else {
            return false;
        };
        let offered = refilling.stage(slot).offered;
        if offered <= here {
            return false;
        }
        match refilling.rules.when {
            RefillWhen::Always => true,
            RefillWhen::Never => false,
            RefillWhen::IfFaster => {
                let carried = refilling.carried(now, offered - here);
                let refill = carried.saturating_add(refilling.rules.latency).since(now);
                refill < self.recompute(slot, here, offered)
            }
        }
    }

    /// What computing the tokens between `here` and `offered` adds to a step of the prompt alone.
    fn recompute(&self, slot: u32, here: u32, offered: u32) -> SimDuration {
        let target = self.sequences[slot].target;
        let alone = |computed: u32| {
            let mut shape = BatchShape::default();
            self.add_prefill(&mut shape, target - computed, computed, target);
            self.common.cost.step(&shape).time.rounded_up()
        };
        alone(here).saturating_sub(alone(offered))
    }

    /// Adds to a step `tokens` tokens of a prompt of `target`, `computed` of which are in KV.
    pub(super) fn add_prefill(
        &self,
        shape: &mut BatchShape,
        tokens: u32,
        computed: u32,
        target: u32,
    ) {
        let (t, c) = (u64::from(tokens), u64::from(computed));
        shape.prefill_seqs += 1;
        shape.prefill_tokens += t;
        shape.prefill_context += c;
        shape.prefill_context_rounded += c.next_multiple_of(self.common.context_step);
        if tokens == 1 {
            shape.single_prefills += 1;
            shape.single_context += c;
        }
        shape.prefill_pairs += t * c + t * (t + 1) / 2;
        shape.prefill_prompt_products += t * u64::from(target);
        shape.prefill_squares += t * t;
        shape.sampled += u32::from(computed + tokens == target);
    }
}
