//! One client of a synthetic workload: its specification compiled, and its streams of chance.

use super::TrafficError;
use super::arrivals::Arrivals;
use super::lengths::{Length, MAX_TOKENS, Time};
use super::predictor::predict;
use super::prefixes::Prefixes;
use super::questions::QuestionPlan;
use super::tasks::TaskPlan;
use crate::names::{DEFAULT, Names};
use crate::schema::Scenario;
use crate::schema::traffic::{ArrivalSpec, ClientSpec, PrefixSpec, SessionSpec};
use windtunnel_base::content::namespace;
use windtunnel_base::ids::{ClassId, TenantId};
use windtunnel_base::rng::{Rng, Streams};
use windtunnel_base::sample::Normal;
use windtunnel_base::time::SimDuration;
use windtunnel_engine::request::Truth;

/// A client, seed apart: what all runs of a scenario share.
#[derive(Clone, Debug)]
pub(crate) struct ClientPlan {
    /// Names its streams and keys: its name if it has one, so that neither its place in the
    /// list nor another client moves its draws.
    pub(crate) entity: u64,
    /// Requests or conversations per second; a mere weight if all come at once.
    pub(crate) rate: f64,
    pub(crate) arrivals: ArrivalSpec,
    pub(crate) labels: Labels,
    pub(crate) input: Length,
    pub(crate) outcome: OutcomePlan,
    pub(crate) prefix: Option<PrefixSpec>,
    pub(crate) session: Option<SessionPlan>,
    pub(crate) tasks: Option<TaskPlan>,
    pub(crate) questions: Option<QuestionPlan>,
}

/// What is said on every request of a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Labels {
    pub(crate) tenant: TenantId,
    pub(crate) class: ClassId,
    pub(crate) patience: Option<SimDuration>,
    pub(crate) max_output_tokens: Option<u32>,
}

/// How answers come out.
#[derive(Clone, Debug)]
pub(crate) struct OutcomePlan {
    pub(crate) output: Length,
    pub(crate) limit: Option<u32>,
    pub(crate) service: Option<Time>,
    pub(crate) error_rate: f64,
    /// Share of requests that are attacks.
    pub(crate) attack: f64,
    pub(crate) predictor: Option<Normal>,
}

/// Conversations, compiled.
#[derive(Clone, Debug)]
pub(crate) struct SessionPlan {
    pub(crate) turns: Length,
    pub(crate) think_time: Time,
    pub(crate) max_context: u32,
}

/// One stream per purpose, so that a change of one distribution moves no other draw.
#[derive(Clone, Debug)]
pub(crate) struct Draws {
    pub(crate) input: Rng,
    pub(crate) output: Rng,
    pub(crate) prefix: Rng,
    pub(crate) service: Rng,
    pub(crate) good: Rng,
    pub(crate) attack: Rng,
    pub(crate) predictor: Rng,
}

impl Draws {
    /// The streams of one entity.
    pub(crate) fn new(streams: Streams, entity: u64) -> Self {
        Self {
            input: streams.stream("input", entity),
            output: streams.stream("output", entity),
            prefix: streams.stream("prefix", entity),
            service: streams.stream("service", entity),
            good: streams.stream("good", entity),
            attack: streams.stream("attack", entity),
            predictor: streams.stream("predictor", entity),
        }
    }
}

impl OutcomePlan {
    /// Draws the hidden truth of one answer and what a predictor says about it. `recorded` is
    /// its length if a trace gives it.
    #[inline]
    pub(crate) fn draw(
        &self,
        draws: &mut Draws,
        recorded: Option<u32>,
        output_continues: bool,
    ) -> (Truth, Option<u32>) {
        let drawn = recorded.unwrap_or_else(|| self.output.draw(&mut draws.output));
        let output_tokens = drawn.min(self.limit.unwrap_or(MAX_TOKENS)).max(1);
        let service = match &self.service {
            Some(time) => time.draw(&mut draws.service),
            None => SimDuration::ZERO,
        };
        let attack = self.attack > 0.0 && draws.attack.chance(self.attack);
        let good = self.error_rate <= 0.0 || !draws.good.chance(self.error_rate);
        let truth = Truth {
            output_tokens,
            service,
            // Nobody asked for what an attack brings out. Streams are for one purpose alone: a draw that
            // nobody waits for need not be made.
            good: good && !attack,
            attack,
            output_continues,
            task: None,
        };
        let predicted = self
            .predictor
            .as_ref()
            .map(|error| predict(output_tokens, error, &mut draws.predictor));
        (truth, predicted)
    }
}

impl ClientPlan {
    /// Compiles client `index`; what it leaves out comes from `[traffic]`.
    pub(crate) fn new(
        scenario: &Scenario,
        spec: &ClientSpec,
        index: usize,
        rate: f64,
        names: &Names,
    ) -> Result<Self, TrafficError> {
        let traffic = &scenario.traffic;
        let at = |field: &str| client_key(scenario, index, field);
        let bad = |field: &str| {
            let key = at(field);
            move |reason: String| TrafficError::scenario(key, reason, "correct it")
        };
        let length = |field, own: &Option<_>, shared: &Option<_>, default| match own
            .as_ref()
            .or(shared.as_ref())
        {
            Some(spec) => Length::new(spec).map_err(bad(field)),
            None => Ok(Length::Fixed(default)),
        };
        let class = class_id(names, spec.class.as_deref(), at("class"))?;
        let tenant = names.tenant(spec.tenant.as_deref().unwrap_or(DEFAULT));
        let limit = spec.max_output_tokens.or(traffic.max_output_tokens);
        let prefix = spec.prefix.as_ref().or(traffic.prefix.as_ref());
        if let Some(prefix) = prefix {
            Prefixes::new(prefix, Streams::new(0), 0).map_err(bad("prefix"))?;
        }
        let session = match spec.session.as_ref().or(traffic.session.as_ref()) {
            Some(session) => Some(SessionPlan::new(session).map_err(bad("session"))?),
            None => None,
        };
        // A client that says lengths of its own asks no tasks that all share.
        let says_lengths = spec.input.is_some()
            || spec.output.is_some()
            || spec.prefix.is_some()
            || spec.session.is_some();
        let shared_tasks = traffic.tasks.as_ref().filter(|_| !says_lengths);
        let tasks = spec.tasks.as_ref().or(shared_tasks);
        // What is said in a conversation depends on all before it, and tasks are questions themselves.
        let by_other_means = session.is_some() || tasks.is_some();
        let shared_questions = traffic.questions.as_ref().filter(|_| !by_other_means);
        let questions = spec.questions.as_ref().or(shared_questions);
        if questions.is_some() && by_other_means {
            let reason = "conversations and tasks say themselves what is asked".to_owned();
            return Err(bad("questions")(reason));
        }
        let questions =
            questions.map(|asked| QuestionPlan::new(asked, limit).map_err(bad("questions")));
        let arrivals = spec.arrivals.as_ref().or(traffic.arrivals.as_ref());
        let arrivals = arrivals.cloned().unwrap_or(ArrivalSpec::Poisson);
        super::arrivals::validate(&arrivals).map_err(bad("arrivals"))?;
        Ok(Self {
            entity: if spec.name.is_empty() {
                index as u64
            } else {
                namespace(&spec.name)
            },
            rate,
            arrivals,
            labels: Labels {
                tenant: tenant.unwrap_or_default(),
                class,
                patience: patience(names, class),
                max_output_tokens: limit,
            },
            input: length("input", &spec.input, &traffic.input, DEFAULT_INPUT)?,
            outcome: OutcomePlan {
                output: length("output", &spec.output, &traffic.output, DEFAULT_OUTPUT)?,
                attack: spec.attack.unwrap_or(0.0),
                ..OutcomePlan::of(
                    scenario,
                    limit,
                    spec.predictor.as_ref().or(traffic.predictor.as_ref()),
                    spec.service.as_ref().or(traffic.service.as_ref()),
                )
                .map_err(|(field, reason)| bad(field)(reason))?
            },
            prefix: prefix.cloned(),
            session,
            tasks: tasks.map(TaskPlan::new),
            questions: questions.transpose()?,
        })
    }

    /// The arrival process of this client under one seed.
    pub(crate) fn start(&self, streams: Streams) -> Result<Arrivals, String> {
        Arrivals::new(
            &self.arrivals,
            self.rate,
            streams.stream("arrivals", self.entity),
            streams.stream("phases", self.entity),
        )
    }
}

/// Lengths of vLLM's `random` benchmark data set, where a scenario names none.
pub(crate) const DEFAULT_INPUT: u32 = 1024;
/// See [`DEFAULT_INPUT`].
pub(crate) const DEFAULT_OUTPUT: u32 = 128;

impl OutcomePlan {
    /// What a scenario says about answers, their lengths apart; or the field that is wrong, and
    /// why.
    pub(crate) fn of(
        scenario: &Scenario,
        limit: Option<u32>,
        predictor: Option<&crate::schema::traffic::PredictorSpec>,
        service: Option<&crate::schema::traffic::TimeSpec>,
    ) -> Result<Self, (&'static str, String)> {
        let predictor = predictor.map(|p| Normal::new(0.0, p.error)).transpose();
        if limit == Some(0) {
            let reason = "an answer has at least one token".to_owned();
            return Err(("max_output_tokens", reason));
        }
        let service = service.map(Time::new).transpose();
        Ok(Self {
            output: Length::Fixed(DEFAULT_OUTPUT),
            limit,
            service: service.map_err(|e| ("service", e))?,
            error_rate: scenario.verification.as_ref().map_or(0.0, |v| v.error_rate),
            attack: 0.0,
            predictor: predictor.map_err(|e| ("predictor", e.to_string()))?,
        })
    }
}

impl SessionPlan {
    fn new(spec: &SessionSpec) -> Result<Self, String> {
        if spec.max_context == Some(0) {
            return Err("its `max_context` must be more than zero".into());
        }
        Ok(Self {
            turns: Length::new(&spec.turns).map_err(|e| format!("`turns`: {e}"))?,
            think_time: Time::new(&spec.think_time).map_err(|e| format!("`think_time`: {e}"))?,
            max_context: spec.max_context.unwrap_or(MAX_TOKENS).min(MAX_TOKENS),
        })
    }
}

/// The key of a client's field in the scenario file.
fn client_key(scenario: &Scenario, index: usize, field: &str) -> String {
    match scenario.traffic.clients.get(index) {
        Some(client) if client.name.is_empty() => format!("traffic.clients[{index}].{field}"),
        Some(client) => format!("traffic.clients.{}.{field}", client.name),
        None => format!("traffic.{field}"),
    }
}

/// The id of a class that `key` names; `default` if it names none.
pub(crate) fn class_id(
    names: &Names,
    class: Option<&str>,
    key: String,
) -> Result<ClassId, TrafficError> {
    let class = class.unwrap_or(DEFAULT);
    names.class(class).ok_or_else(|| {
        let known: Vec<_> = names
            .classes
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        TrafficError::scenario(
            key,
            format!("there is no class `{class}`"),
            format!("name one of {}", known.join(", ")),
        )
    })
}

/// How long clients of a class wait.
pub(crate) fn patience(names: &Names, class: ClassId) -> Option<SimDuration> {
    let (_, spec) = names.classes.get(class.index())?;
    spec.deadline.map(|d| d.0)
}
