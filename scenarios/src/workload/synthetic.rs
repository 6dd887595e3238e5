//! Synthetic traffic: the superposition of clients, each with its own arrival process, lengths,
//! prefixes and conversations.

use super::arrivals::Arrivals;
use super::clients::{ClientPlan, Draws};
use super::facts::Facts;
use super::prefixes::Prefixes;
use super::questions::{Question, QuestionPlan, sampling};
use super::rate::Curve;
use super::sessions::{ClosedLoop, Open, SESSION_BITS};
use super::tasks::TaskRequest;
use super::{Arrival, TrafficError, Workload};
use crate::names::Names;
use crate::schema::Scenario;
use crate::schema::traffic::{ArrivalSpec, ClientSpec};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;
use windtunnel_base::content::{Extent, namespace, stream_key};
use windtunnel_base::ids::RequestId;
use windtunnel_base::rng::{Rng, Streams};
use windtunnel_base::time::SimTime;
use windtunnel_engine::config::EngineSpec;

/// Synthetic traffic, seed apart.
#[derive(Clone, Debug)]
pub(crate) struct SyntheticPlan {
    clients: Arc<[ClientPlan]>,
    /// All requests come at the beginning; `rate` of a client is then its weight in their order.
    at_once: bool,
}

impl SyntheticPlan {
    /// Compiles `[traffic]` without a trace.
    pub(crate) fn new(
        scenario: &Scenario,
        names: &Names,
        facts: &mut Facts,
    ) -> Result<Self, TrafficError> {
        let traffic = &scenario.traffic;
        let rate = traffic.request_rate.map_or(f64::INFINITY, |r| r.0);
        if rate.is_nan() || rate <= 0.0 {
            return Err(TrafficError::scenario(
                "traffic.request_rate",
                format!("a rate of {rate} requests per second sends none"),
                "give a rate above zero",
            ));
        }
        let single = [ClientSpec::default()];
        let specs: &[ClientSpec] = match traffic.clients.as_slice() {
            [] => &single,
            some => some,
        };
        let shares: Vec<f64> = specs.iter().map(|c| c.share.unwrap_or(1.0)).collect();
        let total: f64 = shares.iter().sum();
        if shares.iter().any(|s| s.is_nan() || *s < 0.0) || !(total > 0.0 && total.is_finite()) {
            return Err(TrafficError::scenario(
                "traffic.clients.share",
                "shares must be zero or more, and one of them more",
                "correct them",
            ));
        }
        let at_once = rate.is_infinite();
        if at_once && traffic.num_prompts.is_none() {
            return Err(TrafficError::scenario(
                "traffic.request_rate",
                "all requests come at once, but it is not said how many",
                "give `num_prompts`, or a rate such as \"8 req/s\"",
            ));
        }
        let mut clients = Vec::with_capacity(specs.len());
        for (index, (spec, share)) in specs.iter().zip(&shares).enumerate() {
            if *share > 0.0 {
                let rate = if at_once {
                    *share
                } else {
                    rate * share / total
                };
                let mut plan = ClientPlan::new(scenario, spec, index, rate, names)?;
                if at_once {
                    plan.arrivals = ArrivalSpec::Poisson;
                }
                clients.push(plan);
            }
        }
        distinguish(&mut clients);
        let plan = Self {
            clients: clients.into(),
            at_once,
        };
        plan.describe(scenario, facts);
        Ok(plan)
    }

    fn describe(&self, scenario: &Scenario, facts: &mut Facts) {
        let traffic = &scenario.traffic;
        facts.requests = traffic.num_prompts;
        facts.span_ns = traffic.duration.map(|d| d.0.as_nanos());
        if self.at_once {
            facts.span_ns = Some(0);
        } else if let (Some(duration), true) = (
            traffic.duration,
            self.clients.iter().all(|c| c.session.is_none()),
        ) {
            let seconds = duration.0.as_secs_f64();
            let mean: f64 = self
                .clients
                .iter()
                .map(|c| {
                    Curve::of(&c.arrivals, c.rate)
                        .map_or(c.rate * seconds, |curve| curve.integral(seconds))
                })
                .sum();
            let mean = (mean + 0.5) as u64;
            facts.requests = Some(traffic.num_prompts.map_or(mean, |n| n.min(mean)));
        }
        // Stations serve by time; how many tokens go with it matters to nobody.
        let all = &scenario.fleet;
        let tokens_matter = std::iter::once(&all.engine)
            .chain(all.pools.iter().map(|p| &p.engine))
            .any(|e| match e {
                EngineSpec::Station(station) => station.cascade.is_some(),
                other => other.llm().is_some(),
            });
        let tasks = traffic.tasks.is_some();
        let missing = |given: bool, of: &dyn Fn(&ClientSpec) -> bool| {
            tokens_matter
                && !given
                && (traffic.clients.is_empty() || !traffic.clients.iter().all(of))
        };
        if missing(tasks || traffic.input.is_some(), &|c| {
            c.tasks.is_some() || c.input.is_some()
        }) {
            facts.notes.push(format!(
                "`traffic.input` is absent: prompts have {} tokens, as in vLLM's random data set",
                super::clients::DEFAULT_INPUT
            ));
        }
        if missing(tasks || traffic.output.is_some(), &|c| {
            c.tasks.is_some() || c.output.is_some()
        }) {
            facts.notes.push(format!(
                "`traffic.output` is absent: answers have {} tokens, as in vLLM's random data set",
                super::clients::DEFAULT_OUTPUT
            ));
        }
    }

    /// The traffic of one seed.
    pub(crate) fn start(&self, seed: u64) -> Synthetic {
        let streams = Streams::new(seed);
        let mut synthetic = Synthetic {
            plans: Arc::clone(&self.clients),
            clients: Vec::with_capacity(self.clients.len()),
            fresh: BinaryHeap::with_capacity(self.clients.len()),
            sessions: ClosedLoop::default(),
            at_once: self.at_once,
            taken: 0,
        };
        for (index, plan) in self.clients.iter().enumerate() {
            // Both were compiled once before, when the plan was made.
            let arrivals = plan.start(streams).ok();
            let prefixes = plan.prefix.as_ref();
            let prefixes = prefixes.and_then(|p| Prefixes::new(p, streams, plan.entity).ok());
            let mut client = Client {
                arrivals,
                draws: Draws::new(streams, plan.entity),
                per_turn: Streams::new(streams.stream("turns", plan.entity).next_u64()),
                session_keys: stream_key(namespace("conversation"), plan.entity),
                prefixes,
                tasks: streams.stream("tasks", plan.entity),
                task_seed: streams.stream("different tasks", plan.entity).next_u64(),
                questions: streams.stream("questions", plan.entity),
                sent: 0,
            };
            if let Some(at) = client.arrivals.as_mut().and_then(Arrivals::next) {
                synthetic.fresh.push(Reverse((at, index as u32)));
            }
            synthetic.clients.push(client);
        }
        synthetic
    }
}

/// Clients of equal name would share their streams: later ones are told apart by their place.
fn distinguish(clients: &mut [ClientPlan]) {
    let mut seen = std::collections::BTreeSet::new();
    for (index, client) in clients.iter_mut().enumerate() {
        if !seen.insert(client.entity) {
            client.entity = stream_key(client.entity, index as u64);
            seen.insert(client.entity);
        }
    }
}

/// Synthetic traffic under one seed.
#[derive(Debug)]
pub(crate) struct Synthetic {
    plans: Arc<[ClientPlan]>,
    clients: Vec<Client>,
    /// Next requests (or first turns) of clients, by time.
    fresh: BinaryHeap<Reverse<(SimTime, u32)>>,
    sessions: ClosedLoop<Open>,
    at_once: bool,
    taken: u32,
}

#[derive(Debug)]
struct Client {
    arrivals: Option<Arrivals>,
    draws: Draws,
    /// Streams of single turns.
    per_turn: Streams,
    session_keys: u64,
    prefixes: Option<Prefixes>,
    /// Which tasks it asks.
    tasks: Rng,
    /// From which the few different tasks are drawn.
    task_seed: u64,
    /// What it asks.
    questions: Rng,
    /// Requests or conversations begun.
    sent: u64,
}

/// When a task is asked, and in which turn of which conversation.
struct Asked {
    at: SimTime,
    session: u64,
    turn: u32,
}

impl ClientPlan {
    /// The request that asks a task.
    fn ask(
        &self,
        task: TaskRequest,
        asked: Asked,
        draws: &mut Draws,
        prefix: &mut Vec<Extent>,
    ) -> Arrival {
        prefix.push(task.extent);
        let answer = Some(task.answer_tokens);
        let (mut truth, predicted) = self.outcome.draw(draws, answer, false);
        truth.task = Some(task.key);
        let mut question = Question::plain(task.extent.key);
        question.sampling = sampling("", self.labels.max_output_tokens);
        Arrival {
            at: asked.at,
            tenant: self.labels.tenant,
            class: self.labels.class,
            session: asked.session,
            turn: asked.turn,
            prompt_tokens: task.prompt_tokens,
            max_output_tokens: self.labels.max_output_tokens,
            predicted_output_tokens: predicted,
            patience: self.labels.patience,
            question: Some(question),
            truth,
        }
    }
}

impl Synthetic {
    fn next_fresh(&self) -> Option<SimTime> {
        let Reverse((at, _)) = *self.fresh.peek()?;
        Some(if self.at_once { SimTime::ZERO } else { at })
    }

    /// A request of a client, or the first turn of a conversation.
    fn take_fresh(&mut self, prefix: &mut Vec<Extent>) -> Option<Arrival> {
        let mut top = self.fresh.peek_mut()?;
        let Reverse((due, index)) = *top;
        let client = &mut self.clients[index as usize];
        match client.arrivals.as_mut().and_then(Arrivals::next) {
            Some(next) => {
                top.0.0 = next;
                drop(top);
            }
            None => drop(PeekMut::pop(top)),
        }
        let at = if self.at_once { SimTime::ZERO } else { due };
        let number = client.sent;
        client.sent += 1;
        let plan = &self.plans[index as usize];
        let group = match &client.prefixes {
            Some(prefixes) => prefixes.draw(&mut client.draws.prefix),
            None => 0,
        };
        if let (Some(tasks), None) = (&plan.tasks, &plan.session) {
            let task = tasks.draw(&mut client.tasks, client.task_seed);
            let session = u64::from(index) << SESSION_BITS | number;
            let asked = Asked {
                at,
                session,
                turn: 0,
            };
            return Some(plan.ask(task, asked, &mut client.draws, prefix));
        }
        let Some(session) = &plan.session else {
            let shared = match &client.prefixes {
                Some(prefixes) => prefixes.write(group, u32::MAX, prefix),
                None => 0,
            };
            let question = plan.questions.as_ref().map(|questions| {
                let asked = questions.draw(&mut client.questions, number, plan.entity);
                // After another beginning the same words are another prompt.
                let asked = prefix
                    .last()
                    .map_or(asked, |before| asked.after(before.key));
                (questions, asked)
            });
            let input = match question {
                Some((_, asked)) => plan.input.draw(&mut QuestionPlan::length_stream(asked)),
                None => plan.input.draw(&mut client.draws.input),
            };
            if let Some((questions, asked)) = question {
                prefix.push(questions.extent(asked, input.max(1)));
            }
            let prompt_tokens = shared.saturating_add(input).max(1);
            let (truth, predicted) = plan.outcome.draw(&mut client.draws, None, false);
            return Some(Arrival {
                at,
                tenant: plan.labels.tenant,
                class: plan.labels.class,
                session: u64::from(index) << SESSION_BITS | number,
                turn: 0,
                prompt_tokens,
                max_output_tokens: plan.labels.max_output_tokens,
                predicted_output_tokens: predicted,
                patience: plan.labels.patience,
                question: question.map(|(_, asked)| asked),
                truth,
            });
        };
        let turns = session
            .turns
            .draw(&mut client.per_turn.stream("turns", number));
        let open = Open::new(index, number, turns, group);
        Some(self.take_turn(at, open, prefix))
    }

    /// The next turn of a conversation.
    fn take_turn(&mut self, at: SimTime, mut open: Open, prefix: &mut Vec<Extent>) -> Arrival {
        let plan = &self.plans[open.client as usize];
        let client = &self.clients[open.client as usize];
        let mut draws = Draws::new(client.per_turn, open.turn_entity());
        if let Some(tasks) = &plan.tasks {
            let mut rng = client.per_turn.stream("task of a turn", open.turn_entity());
            let task = tasks.turn(open.task, &mut rng, client.task_seed);
            let asked = Asked {
                at,
                session: open.id(),
                turn: open.turn,
            };
            let arrival = plan.ask(task, asked, &mut draws, prefix);
            open.asked(task.key);
            if open.turn < open.turns {
                self.sessions.wait(RequestId(self.taken), open);
            }
            return arrival;
        }
        let input = plan.input.draw(&mut draws.input);
        let turn = open.turn;
        let prompt_tokens = match &plan.session {
            Some(session) => open.prompt(
                input,
                session,
                client.prefixes.as_ref(),
                client.session_keys,
                prefix,
            ),
            None => input.max(1),
        };
        let (truth, predicted) = plan.outcome.draw(&mut draws, None, true);
        open.said(prompt_tokens, truth.output_tokens);
        if open.turn < open.turns {
            self.sessions.wait(RequestId(self.taken), open);
        }
        Arrival {
            at,
            tenant: plan.labels.tenant,
            class: plan.labels.class,
            session: open.id(),
            turn,
            prompt_tokens,
            max_output_tokens: plan.labels.max_output_tokens,
            predicted_output_tokens: predicted,
            patience: plan.labels.patience,
            question: None,
            truth,
        }
    }
}

impl Workload for Synthetic {
    #[inline]
    fn next_at(&mut self) -> Option<SimTime> {
        match (self.next_fresh(), self.sessions.next_at()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn take(&mut self, prefix: &mut Vec<Extent>) -> Arrival {
        let turn = self.sessions.next_at();
        let fresh_first = match (self.next_fresh(), turn) {
            (Some(fresh), Some(turn)) => fresh <= turn,
            (fresh, _) => fresh.is_some(),
        };
        let arrival = if fresh_first {
            self.take_fresh(prefix)
        } else {
            let turn = self.sessions.pop();
            turn.map(|(at, open)| self.take_turn(at, open, prefix))
        };
        self.taken += 1;
        let Some(arrival) = arrival else {
            panic!("a request was taken although none is due");
        };
        arrival
    }

    fn departed(&mut self, request: RequestId, at: SimTime, finished: bool) {
        let Some(open) = self.sessions.answered(request) else {
            return;
        };
        let client = &self.clients[open.client as usize];
        let plan = self.plans[open.client as usize].session.as_ref();
        if let (true, Some(plan)) = (finished, plan) {
            let mut rng = client.per_turn.stream("think", open.turn_entity());
            let think = plan.think_time.draw(&mut rng);
            self.sessions
                .plan(at.saturating_add(think), open.id(), open);
        }
    }

    fn heeds_departures(&self) -> bool {
        self.plans.iter().any(|plan| plan.session.is_some())
    }
}
