//! The stages that a request passes at the gateway: what each takes and costs, and what gives way when
//! the latency budget is over.
//!
//! They come in two parts. The first ends with the exact lookup, because a hit ends it all; the second
//! leads to the replica. A request passes each part in one go: its times are added up.

use super::buckets::Buckets;
use windtunnel_base::ids::{RequestId, TenantId};
use windtunnel_base::refusal::Refusal;
use windtunnel_base::rng::{Rng, Streams};
use windtunnel_base::sample::Lognormal;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_base::units::NanoUsd;
use windtunnel_ledger::gateway::{PipelineTotals, StageKind};
use windtunnel_scenarios::schema::pipeline::{Fail, PipelineSpec, RateLimitSpec, SpendBucketSpec};

/// Which stages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Up to the exact lookup.
    BeforeLookup,
    /// From there to the replica.
    AfterLookup,
}

impl Part {
    /// Its stages, in their order.
    const fn stages(self) -> &'static [StageKind] {
        use StageKind::*;
        match self {
            Self::BeforeLookup => &[
                Parse,
                IngressFilter,
                Authenticate,
                Tokenize,
                RateLimit,
                ExactLookup,
            ],
            Self::AfterLookup => &[SemanticLookup, KernelLookup, PathChoice, Admission, Routing],
        }
    }
}

/// Whether a stage may be left out when time is short.
const fn may_be_left_out(kind: StageKind) -> bool {
    use StageKind::*;
    matches!(
        kind,
        IngressFilter | RateLimit | SemanticLookup | KernelLookup
    )
}

/// Whether leaving a stage out leaves a request unchecked, so that its class has to say.
const fn checks(kind: StageKind) -> bool {
    use StageKind::*;
    matches!(kind, IngressFilter | RateLimit)
}

/// Who passes.
#[derive(Clone, Copy, Debug)]
pub struct Passenger {
    /// Which request; draws are its own, whatever others do.
    pub request: RequestId,
    /// Who pays.
    pub tenant: TenantId,
    /// Tokens of its prompt.
    pub prompt_tokens: u32,
    /// The most that its answer may have.
    pub max_output_tokens: Option<u32>,
    /// Whether it is an attack in truth: for the classifier, which errs at its own rates.
    pub attack: bool,
    /// What its class wants when a check is left out.
    pub fail: Fail,
    /// Time it has spent in the stages so far.
    pub elapsed: SimDuration,
}

/// What came of passing a part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Passage {
    /// Time in its stages.
    pub took: SimDuration,
    /// Price of its stages.
    pub price: NanoUsd,
    /// Which stages were left out, by [`StageKind`].
    left_out: u16,
    /// What the budgets of its tenant were charged.
    pub charge: Charge,
    /// Why it is turned away, if it is.
    pub refused: Option<Refusal>,
}

impl Passage {
    /// Whether a stage was left out.
    pub const fn left_out(&self, kind: StageKind) -> bool {
        self.left_out & (1 << kind as u16) != 0
    }
}

/// What a tenant's budgets were charged for a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Charge {
    /// Tokens.
    pub tokens: u64,
    /// Money.
    pub spend: NanoUsd,
}

#[derive(Clone, Debug)]
struct Stage {
    time: Time,
    per_token: SimDuration,
    price: NanoUsd,
    share: Option<SimDuration>,
}

#[derive(Clone, Debug)]
enum Time {
    Fixed(SimDuration),
    Drawn(Lognormal),
}

/// The stages of a gateway, with their state.
#[derive(Clone, Debug)]
pub struct Pipeline {
    budget: Option<SimDuration>,
    stages: [Option<Stage>; StageKind::ALL.len()],
    /// Rates at which the filter blocks attacks, and others.
    filter: Option<(f64, f64)>,
    limits: Limits,
    /// Whether anything is drawn.
    draws: bool,
    streams: Streams,
    totals: PipelineTotals,
}

impl Pipeline {
    /// The stages that a scenario names.
    pub fn new(spec: &PipelineSpec, streams: Streams) -> Self {
        let plain = |s: &Option<windtunnel_scenarios::schema::pipeline::StageSpec>| {
            s.as_ref()
                .map(|s| stage(s.time.0, s.sigma, s.price.0, s.share.map(|s| s.0)))
        };
        let mut stages: [Option<Stage>; StageKind::ALL.len()] = Default::default();
        for (kind, spec) in [
            (StageKind::Parse, &spec.parse),
            (StageKind::Authenticate, &spec.authenticate),
            (StageKind::ExactLookup, &spec.exact_lookup),
            (StageKind::SemanticLookup, &spec.semantic_lookup),
            (StageKind::KernelLookup, &spec.kernel_lookup),
            (StageKind::PathChoice, &spec.path_choice),
            (StageKind::Admission, &spec.admission),
            (StageKind::Routing, &spec.routing),
        ] {
            stages[kind as usize] = plain(spec);
        }
        stages[StageKind::IngressFilter as usize] = spec
            .ingress_filter
            .as_ref()
            .map(|s| stage(s.time.0, s.sigma, s.price.0, s.share.map(|s| s.0)));
        stages[StageKind::RateLimit as usize] = spec
            .rate_limit
            .as_ref()
            .map(|s| stage(s.time.0, s.sigma, s.price.0, s.share.map(|s| s.0)));
        stages[StageKind::Tokenize as usize] = spec.tokenize.as_ref().map(|s| Stage {
            per_token: s.per_token.0,
            ..stage(s.time.0, s.sigma, s.price.0, s.share.map(|s| s.0))
        });
        let drawn = |s: &Stage| matches!(s.time, Time::Drawn(_));
        let filter = spec.ingress_filter.as_ref();
        Self {
            budget: spec.budget.map(|s| s.0),
            draws: filter.is_some() || stages.iter().flatten().any(drawn),
            totals: PipelineTotals::new(StageKind::ALL.map(|k| stages[k as usize].is_some())),
            stages,
            filter: filter.map(|s| (s.true_positive_rate, s.false_positive_rate)),
            limits: Limits::new(spec.rate_limit.as_ref()),
            streams,
        }
    }

    /// A request passes a part of the stages at `now`.
    pub fn pass(&mut self, part: Part, who: &Passenger, now: SimTime) -> Passage {
        let mut passage = Passage {
            took: SimDuration::ZERO,
            price: NanoUsd(0),
            left_out: 0,
            charge: Charge::default(),
            refused: None,
        };
        let mut rng = self.draws.then(|| self.stream(part, who.request));
        for &kind in part.stages() {
            if let Err(reason) = self.stage(kind, who, now, &mut passage, rng.as_mut()) {
                passage.refused = Some(reason);
                break;
            }
        }
        let whole = who.elapsed + passage.took;
        if part == Part::AfterLookup || passage.refused.is_some() {
            self.totals
                .passed(whole.as_nanos(), self.budget.map(SimDuration::as_nanos));
        }
        passage
    }

    /// A request ends its way here, with what the exact lookup found.
    pub fn ends_at_lookup(&mut self, elapsed: SimDuration) {
        let budget = self.budget.map(SimDuration::as_nanos);
        self.totals.passed(elapsed.as_nanos(), budget);
    }

    /// Gives a tenant back what its request was charged and did not use.
    pub fn settle(
        &mut self,
        tenant: TenantId,
        charge: Charge,
        prompt: u32,
        output: u32,
        now: SimTime,
    ) {
        self.limits.settle(tenant, charge, (prompt, output), now);
    }

    /// What the stages have done.
    pub fn totals(&self) -> &PipelineTotals {
        &self.totals
    }

    /// Draws of a request in a part: its own, so that nobody moves them.
    fn stream(&self, part: Part, request: RequestId) -> Rng {
        let entity = u64::from(request.0) << 1 | u64::from(part == Part::AfterLookup);
        self.streams.stream("gateway stages", entity)
    }

    fn stage(
        &mut self,
        kind: StageKind,
        who: &Passenger,
        now: SimTime,
        passage: &mut Passage,
        rng: Option<&mut Rng>,
    ) -> Result<(), Refusal> {
        let Some(stage) = &self.stages[kind as usize] else {
            return Ok(());
        };
        let mut rng = rng;
        let drawn = stage.time(who.prompt_tokens, rng.as_deref_mut());
        // Drawn whether it is used or not: leaving a stage out moves nobody's luck.
        let luck = match (kind, rng) {
            (StageKind::IngressFilter, Some(rng)) => rng.f64(),
            _ => 0.0,
        };
        let totals = &mut self.totals.stages[kind as usize];
        let left = self
            .budget
            .map(|budget| budget.saturating_sub(who.elapsed + passage.took));
        let (took, done) = match left {
            Some(left) if may_be_left_out(kind) => {
                let fits = stage.share.is_none_or(|share| share <= left);
                match (fits && !left.is_zero(), drawn <= left) {
                    (false, _) => (SimDuration::ZERO, false),
                    (true, false) => (left, false),
                    (true, true) => (drawn, true),
                }
            }
            _ => (drawn, true),
        };
        passage.took += took;
        totals.record(
            took.as_nanos(),
            stage.share.map(SimDuration::as_nanos),
            done,
        );
        if done || !took.is_zero() {
            passage.price.0 += stage.price.0;
            totals.price_nano_usd += stage.price.0;
        }
        if !done {
            passage.left_out |= 1 << kind as u16;
            return match who.fail {
                Fail::Closed if checks(kind) => Err(Refusal::Blocked),
                _ => Ok(()),
            };
        }
        self.decide(kind, who, luck, now, &mut passage.charge)
    }

    /// What a stage says of a request.
    fn decide(
        &mut self,
        kind: StageKind,
        who: &Passenger,
        luck: f64,
        now: SimTime,
        charge: &mut Charge,
    ) -> Result<(), Refusal> {
        match (kind, self.filter) {
            (StageKind::IngressFilter, Some((caught, blamed))) => {
                let blocks = luck < if who.attack { caught } else { blamed };
                self.totals.attacks += u64::from(who.attack);
                self.totals.attacks_blocked += u64::from(who.attack && blocks);
                self.totals.honest_blocked += u64::from(!who.attack && blocks);
                if blocks {
                    Err(Refusal::Blocked)
                } else {
                    Ok(())
                }
            }
            (StageKind::RateLimit, _) => {
                *charge = self.limits.charge(who, now)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn stage(time: SimDuration, sigma: f64, price: NanoUsd, share: Option<SimDuration>) -> Stage {
    // Checked scenarios have sigmas that make a law; without one the mean is taken.
    let law = (sigma > 0.0 && !time.is_zero())
        .then(|| Lognormal::new(time.as_secs_f64(), sigma).ok())
        .flatten();
    Stage {
        time: law.map_or(Time::Fixed(time), Time::Drawn),
        per_token: SimDuration::ZERO,
        price,
        share,
    }
}

impl Stage {
    fn time(&self, tokens: u32, rng: Option<&mut Rng>) -> SimDuration {
        let own = match (&self.time, rng) {
            (Time::Drawn(law), Some(rng)) => SimDuration::from_secs_f64_saturating(law.sample(rng)),
            (Time::Fixed(time), _) => *time,
            (Time::Drawn(_), None) => SimDuration::ZERO,
        };
        own + self.per_token.saturating_mul(u64::from(tokens))
    }
}

/// Budgets of the tenants.
#[derive(Clone, Debug, Default)]
struct Limits {
    requests: Option<Buckets>,
    tokens: Option<Buckets>,
    spend: Option<(Buckets, SpendBucketSpec)>,
}

impl Limits {
    fn new(spec: Option<&RateLimitSpec>) -> Self {
        let Some(spec) = spec else {
            return Self::default();
        };
        Self {
            requests: spec
                .requests
                .as_ref()
                .map(|s| Buckets::new(s.rate.0, u64::from(s.burst))),
            tokens: spec
                .tokens
                .as_ref()
                .map(|s| Buckets::new(s.per_second, s.burst)),
            spend: spec.spend.as_ref().map(|s| {
                let per_second = s.rate.0.0 as f64 / 3600.0;
                (Buckets::new(per_second, s.burst.0.0), s.clone())
            }),
        }
    }

    /// Charges a request in full, or refuses it and charges nothing.
    fn charge(&mut self, who: &Passenger, now: SimTime) -> Result<Charge, Refusal> {
        let output = who.max_output_tokens.unwrap_or(0);
        let tenant = who.tenant;
        let charge = Charge {
            tokens: u64::from(who.prompt_tokens) + u64::from(output),
            spend: match &self.spend {
                Some((_, prices)) => price(prices, who.prompt_tokens, output),
                None => NanoUsd(0),
            },
        };
        let limited = Err(Refusal::RateLimited);
        if let Some(b) = &mut self.tokens
            && !b.holds(tenant, charge.tokens, now)
        {
            return limited;
        }
        if let Some((b, _)) = &mut self.spend
            && !b.holds(tenant, charge.spend.0, now)
        {
            return limited;
        }
        if let Some(b) = &mut self.requests
            && !b.take(tenant, 1, now)
        {
            return limited;
        }
        if let Some(b) = &mut self.tokens {
            b.take(tenant, charge.tokens, now);
        }
        if let Some((b, _)) = &mut self.spend {
            b.take(tenant, charge.spend.0, now);
        }
        Ok(charge)
    }

    fn settle(&mut self, tenant: TenantId, charge: Charge, used: (u32, u32), now: SimTime) {
        let (prompt, output) = used;
        if let Some(b) = &mut self.tokens {
            let used = u64::from(prompt) + u64::from(output);
            b.give_back(tenant, charge.tokens.saturating_sub(used), now);
        }
        if let Some((b, prices)) = &mut self.spend {
            let used = price(prices, prompt, output);
            b.give_back(tenant, charge.spend.0.saturating_sub(used.0), now);
        }
    }
}

/// Price of a request, rounded up to a nano-dollar.
fn price(prices: &SpendBucketSpec, prompt: u32, output: u32) -> NanoUsd {
    let input = u128::from(prompt) * u128::from(prices.input_per_million.0.0);
    let output = u128::from(output) * u128::from(prices.output_per_million.0.0);
    NanoUsd((input + output).div_ceil(1_000_000) as u64)
}

#[cfg(test)]
mod tests;
