//! Traces with stamps, played again: rows become arrivals at their recorded times, as transformed.

use super::clients::{Draws, Labels, OutcomePlan, class_id, patience};
use super::formats::Rows;
use super::transform::{Transform, entity_of};
use super::{Arrival, Facts, TrafficError, Workload};
use crate::names::{DEFAULT, Names};
use crate::schema::Scenario;
use crate::schema::traffic::TraceSpec;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;
use windtunnel_base::content::{Extent, namespace, stream_key};
use windtunnel_base::ids::{ClassId, RequestId, TenantId};
use windtunnel_base::rng::Streams;
use windtunnel_base::time::{SimDuration, SimTime};

/// A trace with stamps, seed apart.
#[derive(Clone, Debug)]
pub(crate) struct ReplayPlan {
    rows: Arc<Rows>,
    /// The rows of the slice.
    slice: Range<usize>,
    transform: Transform,
    outcome: OutcomePlan,
    labels: Labels,
    /// Ids of the trace's tenants and classes, by its own numbers.
    tenants: Arc<[TenantId]>,
    classes: Arc<[(ClassId, Option<SimDuration>)]>,
    /// Namespace of the file.
    keys: u64,
}

/// What a scenario says on every request of a trace.
pub(crate) fn trace_labels(
    scenario: &Scenario,
    trace: &TraceSpec,
    names: &Names,
) -> Result<(Labels, OutcomePlan), TrafficError> {
    let traffic = &scenario.traffic;
    let class = class_id(names, trace.class.as_deref(), "traffic.trace.class".into())?;
    let labels = Labels {
        tenant: names.tenant(DEFAULT).unwrap_or_default(),
        class,
        patience: patience(names, class),
        max_output_tokens: traffic.max_output_tokens,
    };
    let outcome = OutcomePlan::of(
        scenario,
        traffic.max_output_tokens,
        traffic.predictor.as_ref(),
        traffic.service.as_ref(),
    )
    .map_err(|(field, reason)| {
        TrafficError::scenario(format!("traffic.{field}"), reason, "correct it")
    })?;
    Ok((labels, outcome))
}

impl ReplayPlan {
    /// Compiles rows with the scenario's transformations.
    pub(crate) fn new(
        scenario: &Scenario,
        trace: &TraceSpec,
        mut rows: Rows,
        names: &mut Names,
        facts: &mut Facts,
    ) -> Result<Self, TrafficError> {
        let (labels, outcome) = trace_labels(scenario, trace, names)?;
        let mut transform = Transform::new(trace)?;
        transform.describe(trace, facts);
        let late = rows.sort();
        if late > 0 {
            let rows = if late == 1 { "row" } else { "rows" };
            facts.notes.push(format!(
                "{late} {rows} stood after a later one; all were sorted by their time"
            ));
        }
        let tenants = rows.tenants.names.iter().map(|t| names.add_tenant(t));
        let tenants = tenants.collect();
        let classes = map_classes(&rows, trace, names, labels.class, facts);
        let begin = rows.at.partition_point(|&at| at < transform.from);
        let end = rows.at.partition_point(|&at| at < transform.to);
        let first = usize::try_from(transform.first).unwrap_or(usize::MAX);
        let slice = begin..end.min(begin.saturating_add(first));
        if slice.is_empty() {
            return Err(TrafficError::scenario(
                "traffic.trace",
                if rows.len() == 0 {
                    "no usable request is in the file"
                } else {
                    "no request of the trace lies in the slice"
                },
                "check `format` and `slice`",
            ));
        }
        let span = rows.at[slice.end - 1] - rows.at[slice.start]
            + transform.shift * u64::from(transform.copies - 1);
        let expected = slice.len() as f64 * transform.thin * f64::from(transform.copies);
        if let Some(rate) = scenario.traffic.request_rate {
            rescale(&mut transform, rate.0, expected, span, facts)?;
        }
        facts.requests = Some((expected + 0.5) as u64);
        let lead = rows.at[slice.start] - transform.from;
        facts.span_ns = Some(transform.run_time(lead + span));
        Ok(Self {
            rows: Arc::new(rows),
            slice,
            transform,
            outcome,
            labels,
            tenants,
            classes,
            keys: namespace(&trace.file),
        })
    }

    /// The traffic of one seed.
    pub(crate) fn start(&self, seed: u64) -> Replay {
        let mut replay = Replay {
            plan: self.clone(),
            streams: Streams::new(seed),
            heads: BinaryHeap::new(),
            due: BinaryHeap::new(),
            taken: 0,
        };
        for copy in 0..self.transform.copies {
            replay.head(copy, self.slice.start);
        }
        replay.fill();
        replay
    }

    /// When a row of a copy comes, in ns of the trace since the begin of the slice, without
    /// jitter.
    fn stamp(&self, row: usize, copy: u32) -> u64 {
        self.rows.at[row] - self.transform.from + self.transform.shift * u64::from(copy)
    }
}

/// Ids of the classes that the trace itself names.
fn map_classes(
    rows: &Rows,
    trace: &TraceSpec,
    names: &Names,
    default: ClassId,
    facts: &mut Facts,
) -> Arc<[(ClassId, Option<SimDuration>)]> {
    let mut unknown = Vec::new();
    let ids = rows.classes.names.iter().map(|name| {
        let class = match names.class(name) {
            // A class given for the whole trace overrides what was recorded.
            _ if trace.class.is_some() => default,
            Some(class) => class,
            None => {
                unknown.push(name.as_str());
                default
            }
        };
        (class, patience(names, class))
    });
    let ids = ids.collect();
    if !unknown.is_empty() {
        facts.notes.push(format!(
            "recorded classes that the scenario lacks are played as `default`: {}",
            unknown.join(", ")
        ));
    }
    ids
}

/// Speeds the trace up or slows it down until its mean rate is `rate` per second.
fn rescale(
    transform: &mut Transform,
    rate: f64,
    expected: f64,
    span: u64,
    facts: &mut Facts,
) -> Result<(), TrafficError> {
    let now = expected / (span as f64 / 1e9) * transform.speed;
    if !(rate > 0.0 && now.is_finite()) {
        return Err(TrafficError::scenario(
            "traffic.request_rate",
            "the trace cannot be brought to this rate",
            "it must be more than zero, and the trace longer than an instant",
        ));
    }
    transform.speed *= rate / now;
    facts.transformations.push(format!(
        "request_rate: time runs {:.6} times faster, so that the mean rate is {rate} req/s \
         instead of {now:.6} req/s",
        rate / now
    ));
    Ok(())
}

/// A trace being played.
#[derive(Debug)]
pub(crate) struct Replay {
    plan: ReplayPlan,
    streams: Streams,
    /// The next kept row of every copy by its stamp: (stamp, copy, row).
    heads: BinaryHeap<Reverse<(u64, u32, usize)>>,
    /// Rows whose turn it may be: those with stamps up to the earliest jittered time.
    due: BinaryHeap<Reverse<(u64, u32, usize)>>,
    taken: u64,
}

impl Replay {
    /// Puts the first kept row of a copy from `row` on at its head.
    fn head(&mut self, copy: u32, row: usize) {
        let plan = &self.plan;
        let mut rows = row..plan.slice.end;
        // Conversations are kept or left out as a whole.
        let entity = |r: usize| plan.rows.recorded.get(r).map_or(r as u64, |r| r.session);
        if let Some(row) = rows.find(|&r| plan.transform.keeps(self.streams, entity(r), copy)) {
            self.heads.push(Reverse((plan.stamp(row, copy), copy, row)));
        }
    }

    /// Moves rows on until none that could come earlier than the first due is left behind.
    fn fill(&mut self) {
        while let Some(&Reverse((stamp, copy, row))) = self.heads.peek() {
            if self.due.peek().is_some_and(|Reverse((at, ..))| *at < stamp) {
                return;
            }
            self.heads.pop();
            let jitter = match self.plan.transform.jitter {
                0 => 0,
                grid => {
                    let entity = entity_of(row as u64, copy);
                    self.streams.stream("jitter", entity).below(grid)
                }
            };
            self.due.push(Reverse((stamp + jitter, copy, row)));
            self.head(copy, row + 1);
        }
    }
}

impl Workload for Replay {
    fn next_at(&mut self) -> Option<SimTime> {
        let Reverse((at, ..)) = *self.due.peek()?;
        Some(SimTime::from_nanos(self.plan.transform.run_time(at)))
    }

    fn take(&mut self, prefix: &mut Vec<Extent>) -> Arrival {
        let Some(Reverse((at, copy, row))) = self.due.pop() else {
            panic!("a request was taken although none is due");
        };
        self.fill();
        let plan = &self.plan;
        let rows = &plan.rows;
        let keys = stream_key(plan.keys, u64::from(copy));
        prefix.extend(rows.prefix(row).iter().map(|e| Extent {
            key: stream_key(keys, e.key),
            tokens: e.tokens,
        }));
        let mut draws = Draws::new(self.streams, entity_of(row as u64, copy));
        let (mut truth, predicted) = plan.outcome.draw(&mut draws, Some(rows.output[row]), false);
        let (mut class, mut patience) = (plan.labels.class, plan.labels.patience);
        // Without conversations of its own every request is one.
        let (mut session, mut turn) = (self.taken, 0);
        if let Some(recorded) = rows.recorded.get(row) {
            (class, patience) = plan.classes[recorded.class as usize];
            session = match copy {
                0 => recorded.session,
                _ => stream_key(u64::from(copy), recorded.session),
            };
            turn = recorded.turn;
            truth.good = recorded.good;
        }
        self.taken += 1;
        let tenant = match rows.tenant.get(row) {
            Some(&tenant) => plan.tenants[tenant as usize],
            None => plan.labels.tenant,
        };
        Arrival {
            at: SimTime::from_nanos(plan.transform.run_time(at)),
            tenant,
            class,
            session,
            turn,
            prompt_tokens: rows.input[row],
            max_output_tokens: plan.labels.max_output_tokens,
            predicted_output_tokens: predicted,
            patience,
            question: None,
            truth,
        }
    }

    fn departed(&mut self, _: RequestId, _: SimTime, _: bool) {}

    fn heeds_departures(&self) -> bool {
        false
    }
}
