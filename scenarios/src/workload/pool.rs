//! Requests drawn from a ServeGen pool. Each client's window is a stationary renewal process with
//! the window's rate and its law of gaps: it begins with the rest of a gap already under way, so
//! that the mean number of requests is exactly rate times length even where gaps vary a hundredfold.
//! Lengths of input and output are drawn independently, as ServeGen does.

use super::clients::{Draws, Labels, OutcomePlan};
use super::formats::servegen::{GapLaw, Pool, PoolClient, RateWindow, TokenWindow};
use super::lengths::Empirical;
use super::replay::trace_labels;
use super::sample::exponential;
use super::sessions::SESSION_BITS;
use super::transform::{Transform, entity_of, refuse};
use super::{Arrival, Facts, TrafficError, Workload};
use crate::names::Names;
use crate::schema::Scenario;
use crate::schema::traffic::TraceSpec;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;
use windtunnel_base::content::Extent;
use windtunnel_base::ids::{RequestId, TenantId};
use windtunnel_base::rng::{Rng, Streams};
use windtunnel_base::sample::Gamma;
use windtunnel_base::time::{SimDuration, SimTime};

/// A pool, seed apart.
#[derive(Clone, Debug)]
pub(crate) struct PoolPlan {
    shared: Arc<Shared>,
    transform: Transform,
    /// Every rate is multiplied by this.
    factor: f64,
    labels: Labels,
    outcome: OutcomePlan,
}

#[derive(Debug)]
struct Shared {
    /// Clients with traffic; their numbers, tenants and what they say.
    clients: Vec<(u64, TenantId, PoolClient)>,
    /// For clients without token distributions: which client's to use, weighted by load, by the
    /// beginning of the window.
    donors: Vec<(f64, Empirical)>,
    /// What is played, in seconds of the trace.
    begin: f64,
    end: f64,
    window: f64,
}

impl PoolPlan {
    /// Compiles a pool with the scenario's transformations.
    pub(crate) fn new(
        scenario: &Scenario,
        spec: &TraceSpec,
        pool: Pool,
        names: &mut Names,
        facts: &mut Facts,
    ) -> Result<Self, TrafficError> {
        let keys = [("trace.jitter", spec.jitter.is_some())];
        refuse(&scenario.traffic, &keys, "servegen")?;
        let transform = Transform::new(spec)?;
        transform.describe(spec, facts);
        let last = pool.clients.values().filter_map(|c| c.rates.last());
        let last = last.map(|w| w.begin + pool.window).fold(0.0, f64::max);
        let begin = transform.from as f64 / 1e9;
        let end = last.min(transform.to as f64 / 1e9);
        let mut shared = Shared {
            clients: Vec::new(),
            donors: Vec::new(),
            begin,
            end,
            window: pool.window,
        };
        for (number, mut client) in pool.clients {
            client
                .rates
                .retain(|w| w.begin + shared.window > begin && w.begin < end);
            if !client.rates.is_empty() {
                let tenant = names.add_tenant(&format!("client-{number}"));
                shared.clients.push((number, tenant, client));
            }
        }
        let load: f64 = shared
            .clients
            .iter()
            .map(|c| shared.load(&c.2, begin, end))
            .sum();
        if load <= 0.0 {
            return Err(TrafficError::scenario(
                "traffic.trace.slice",
                "the pool is idle in the slice",
                "choose another",
            ));
        }
        shared.find_donors(load, facts)?;
        let copies = f64::from(transform.copies);
        let now = load / (end - begin) * transform.thin * copies * transform.speed;
        let mut factor = 1.0;
        if let Some(rate) = scenario.traffic.request_rate {
            factor = rate.0 / now;
            if !(factor > 0.0 && factor.is_finite()) {
                return Err(TrafficError::scenario(
                    "traffic.request_rate",
                    "a pool cannot be brought to this rate",
                    "give a finite rate above zero",
                ));
            }
            facts.transformations.push(format!(
                "request_rate: all rates are multiplied by {factor:.6}, so that the mean is {} \
                 req/s instead of {now:.6} req/s; shapes in time stay",
                rate.0
            ));
        }
        facts.notes.push(
            "requests are drawn: per client and window a stationary renewal process with the \
             recorded rate and law of gaps; input and output lengths independently from the \
             recorded distributions"
                .into(),
        );
        let expected = load * transform.thin * copies * factor + 0.5;
        facts.requests = Some((expected as u64).min(transform.first));
        let shifted = transform.shift as f64 / 1e9 * (copies - 1.0);
        let span = (end - begin + shifted) / transform.speed;
        facts.span_ns = Some(SimDuration::from_secs_f64_saturating(span).as_nanos());
        let (labels, outcome) = trace_labels(scenario, spec, names)?;
        Ok(Self {
            shared: Arc::new(shared),
            transform,
            factor,
            labels,
            outcome,
        })
    }

    /// The traffic of one seed.
    pub(crate) fn start(&self, seed: u64) -> PoolPlay {
        let streams = Streams::new(seed);
        let mut play = PoolPlay {
            plan: self.clone(),
            streams,
            players: Vec::new(),
            due: BinaryHeap::new(),
            taken: 0,
        };
        for copy in 0..self.transform.copies {
            for (index, (number, ..)) in self.shared.clients.iter().enumerate() {
                let entity = entity_of(*number, copy);
                let mut player = Player {
                    client: index as u32,
                    copy,
                    gaps: streams.stream("arrivals", entity),
                    donors: streams.stream("donors", entity),
                    draws: Draws::new(streams, entity),
                    window: 0,
                    now: None,
                    sent: 0,
                };
                if let Some(at) = player.next(self, streams) {
                    play.due.push(Reverse((at, play.players.len() as u32)));
                }
                play.players.push(player);
            }
        }
        play
    }
}

impl Shared {
    /// Mean number of requests of a client between two times.
    fn load(&self, client: &PoolClient, from: f64, to: f64) -> f64 {
        let parts = client.rates.iter().map(|w| {
            let length = (w.begin + self.window).min(to) - w.begin.max(from);
            w.rate * length.max(0.0)
        });
        parts.sum()
    }

    /// Finds, for every window of token distributions, whose are used for clients without.
    fn find_donors(&mut self, load: f64, facts: &mut Facts) -> Result<(), TrafficError> {
        let mut begins: Vec<f64> = self
            .clients
            .iter()
            .flat_map(|c| c.2.tokens.iter().map(|t| t.0))
            .collect();
        begins.sort_by(f64::total_cmp);
        begins.dedup();
        let mut donors = Vec::new();
        for (i, &begin) in begins.iter().enumerate() {
            let end = begins.get(i + 1).copied().unwrap_or(f64::INFINITY);
            let mut who = Vec::new();
            let mut weight = Vec::new();
            for (index, (_, _, client)) in self.clients.iter().enumerate() {
                let load = self.load(client, begin, end);
                if load > 0.0 && client.tokens.iter().any(|t| t.0 == begin) {
                    who.push(index as u32);
                    weight.push(load);
                }
            }
            if let Ok(mixture) = Empirical::new(&who, Some(&weight)) {
                donors.push((begin, mixture));
            }
        }
        if donors.is_empty() {
            return Err(TrafficError::scenario(
                "traffic.trace.tokens_file",
                "no client that sends has token distributions",
                "give the file that belongs to `file`",
            ));
        }
        self.donors = donors;
        let without = self.clients.iter().filter(|c| c.2.tokens.is_empty());
        let (mut count, mut share) = (0, 0.0);
        for (.., client) in without {
            count += 1;
            share += self.load(client, self.begin, self.end) / load;
        }
        if count > 0 {
            facts.notes.push(format!(
                "{count} clients ({:.1} % of requests) have no token distributions; theirs are \
                 the others' mixture at that time, weighted by load",
                100.0 * share
            ));
        }
        Ok(())
    }

    /// The token distributions for a request of a client at a time.
    fn tokens(&self, client: u32, at: f64, donors: &mut Rng) -> Option<&TokenWindow> {
        let own = || {
            let windows = &self.clients[client as usize].2.tokens;
            let index = windows.partition_point(|t| t.0 <= at).checked_sub(1)?;
            Some(&windows[index])
        };
        let begin = self.donors.partition_point(|d| d.0 <= at).saturating_sub(1);
        let (begin, mixture) = &self.donors[begin];
        match own() {
            // Its own, unless its window is empty while others have one.
            Some((since, tokens)) if since >= begin => Some(tokens),
            _ => {
                let donor = mixture.draw(donors);
                let windows = &self.clients[donor as usize].2.tokens;
                windows.iter().find(|t| t.0 == *begin).map(|t| &t.1)
            }
        }
    }
}

/// One client being played.
#[derive(Debug)]
struct Player {
    client: u32,
    copy: u32,
    gaps: Rng,
    donors: Rng,
    draws: Draws,
    /// The window at hand.
    window: usize,
    /// Its last request in that window, in seconds of the trace.
    now: Option<f64>,
    /// Requests drawn, thinned ones included.
    sent: u64,
}

impl Player {
    /// When the next kept request comes, in ns of the trace; thinned ones are passed over.
    fn next(&mut self, plan: &PoolPlan, streams: Streams) -> Option<u64> {
        loop {
            let at = self.next_in_windows(plan)?;
            self.sent += 1;
            let number = plan.shared.clients[self.client as usize].0;
            let entity = number << SESSION_BITS | self.sent;
            if plan.transform.keeps(streams, entity, self.copy) {
                let since = SimDuration::from_secs_f64_saturating(at - plan.shared.begin);
                let shift = plan.transform.shift * u64::from(self.copy);
                return Some(since.as_nanos().saturating_add(shift));
            }
            // Lengths are drawn in order: those of a thinned request are drawn and let go.
            self.lengths(plan, at);
        }
    }

    fn next_in_windows(&mut self, plan: &PoolPlan) -> Option<f64> {
        let shared = &plan.shared;
        let rates = &shared.clients[self.client as usize].2.rates;
        loop {
            let window = rates.get(self.window)?;
            let rate = window.rate * plan.factor;
            let at = match self.now {
                None => {
                    let begin = window.begin.max(shared.begin);
                    begin + residual_gap(window.law, rate, &mut self.gaps)
                }
                Some(now) => now + gap(window.law, rate, &mut self.gaps),
            };
            if at < shared.window_end(rates, self.window, window) {
                self.now = Some(at);
                return Some(at);
            }
            self.window += 1;
            self.now = None;
        }
    }

    /// Input and output tokens of a request at a time.
    fn lengths(&mut self, plan: &PoolPlan, at: f64) -> (u32, u32) {
        match plan.shared.tokens(self.client, at, &mut self.donors) {
            Some(tokens) => (
                tokens.input.draw(&mut self.draws.input).max(1),
                tokens.output.draw(&mut self.draws.output).max(1),
            ),
            None => (1, 1),
        }
    }
}

impl Shared {
    /// Where a window ends: after its length, with the slice, or where the next begins.
    fn window_end(&self, rates: &[RateWindow], index: usize, window: &RateWindow) -> f64 {
        let next = rates.get(index + 1).map_or(f64::INFINITY, |w| w.begin);
        (window.begin + self.window).min(self.end).min(next)
    }
}

/// A gap with mean `1 / rate`.
fn gap(law: GapLaw, rate: f64, rng: &mut Rng) -> f64 {
    match law {
        GapLaw::Gamma { shape } => gamma(rng, shape) / (shape * rate),
        GapLaw::Weibull { shape } => weibull(exponential(rng), shape) / rate,
    }
}

/// What is left of a gap that a moment falls into: a gap chosen with probability proportional to
/// its length, then a uniform part of it (the equilibrium law of renewal theory, Cox 1962).
fn residual_gap(law: GapLaw, rate: f64, rng: &mut Rng) -> f64 {
    let part = rng.f64_open();
    match law {
        GapLaw::Gamma { shape } => part * gamma(rng, shape + 1.0) / (shape * rate),
        GapLaw::Weibull { shape } => {
            // Chosen by length, the power is gamma distributed.
            let power = gamma(rng, 1.0 + 1.0 / shape);
            part * weibull(power, shape) / rate
        }
    }
}

/// Gamma with scale 1; shapes were checked when the pool was read.
fn gamma(rng: &mut Rng, shape: f64) -> f64 {
    Gamma::new(shape, 1.0).map_or(0.0, |law| law.sample(rng))
}

/// A Weibull of mean 1 from the exponential it is a power of.
fn weibull(exponential: f64, shape: f64) -> f64 {
    libm::exp(libm::log(exponential) / shape - libm::lgamma(1.0 + 1.0 / shape))
}

/// A pool being played.
#[derive(Debug)]
pub(crate) struct PoolPlay {
    plan: PoolPlan,
    streams: Streams,
    players: Vec<Player>,
    /// Next requests: (ns of the trace since the begin of the slice, player).
    due: BinaryHeap<Reverse<(u64, u32)>>,
    taken: u64,
}

impl Workload for PoolPlay {
    fn next_at(&mut self) -> Option<SimTime> {
        let Reverse((at, _)) = *self.due.peek()?;
        (self.taken < self.plan.transform.first)
            .then(|| SimTime::from_nanos(self.plan.transform.run_time(at)))
    }

    fn take(&mut self, _: &mut Vec<Extent>) -> Arrival {
        let Some(mut top) = self.due.peek_mut() else {
            panic!("a request was taken although none is due");
        };
        let Reverse((due, index)) = *top;
        let player = &mut self.players[index as usize];
        let plan = &self.plan;
        let at = player.now.unwrap_or(plan.shared.begin);
        let (input, output) = player.lengths(plan, at);
        let (truth, predicted) = plan.outcome.draw(&mut player.draws, Some(output), false);
        let session = u64::from(index) << SESSION_BITS | player.sent;
        match player.next(plan, self.streams) {
            Some(next) => {
                top.0.0 = next;
                drop(top);
            }
            None => drop(PeekMut::pop(top)),
        }
        self.taken += 1;
        let (_, tenant, _) = plan.shared.clients[player.client as usize];
        Arrival {
            at: SimTime::from_nanos(plan.transform.run_time(due)),
            tenant,
            class: plan.labels.class,
            session,
            turn: 0,
            prompt_tokens: input,
            max_output_tokens: plan.labels.max_output_tokens,
            predicted_output_tokens: predicted,
            patience: plan.labels.patience,
            question: None,
            truth,
        }
    }

    fn departed(&mut self, _: RequestId, _: SimTime, _: bool) {}

    fn heeds_departures(&self) -> bool {
        false
    }
}
