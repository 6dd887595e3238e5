//! Curves composed into a step:
//!
//! ```text
//! once + layers * (calls of dense layers + attention) + per-sequence layers + overhead
//! ```

use super::attention::AttentionGrid;
use super::series::{Curve, Series};
use super::skew::{SkewFit, Unequal};
use super::{Composition, OperatorTables, TablesError};
use crate::batch::BatchShape;
use std::sync::Arc;

/// Times in microseconds per call.
#[derive(Clone, PartialEq, Debug)]
pub struct CurveTables {
    /// By tokens of the step.
    pub dense: Vec<Series>,
    /// By requests of the step.
    pub per_sequence: Vec<Series>,
    /// Attention.
    pub attention: AttentionGrid,
    /// Correction for unequal lengths; none if it was not measured or is switched off.
    pub skew: Option<SkewFit>,
    /// Expert layers by tokens and experts that are touched.
    pub moe: Vec<MoePoint>,
    /// How tokens choose experts, if there are any.
    pub experts: Option<Experts>,
    /// Transformer layers, if the folder tells.
    pub layers: Option<u32>,
}

/// One measured call of an expert layer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MoePoint {
    /// Tokens.
    pub tokens: u32,
    /// Experts that at least one of them goes to.
    pub experts: u32,
    /// Microseconds.
    pub us: f64,
}

/// How tokens choose experts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Experts {
    /// Experts of a layer.
    pub count: u32,
    /// Experts that one token goes to.
    pub per_token: u32,
}

/// How often a dense layer runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Calls {
    /// Per step.
    PerStep(u32),
    /// Per transformer layer.
    PerLayer(u32),
}

/// Dense layers known by name. `all_reduce` runs only where GPUs share layers.
pub const LAYERS: [(&str, Calls); 11] = [
    ("embedding", Calls::PerStep(1)),
    ("final_layernorm", Calls::PerStep(1)),
    ("layernorm", Calls::PerLayer(2)),
    ("qkv_proj", Calls::PerLayer(1)),
    ("qk_norm", Calls::PerLayer(1)),
    ("rotary_emb", Calls::PerLayer(1)),
    ("o_proj", Calls::PerLayer(1)),
    ("gate_up_proj", Calls::PerLayer(1)),
    ("act_fn", Calls::PerLayer(1)),
    ("down_proj", Calls::PerLayer(1)),
    (ALL_REDUCE, Calls::PerLayer(2)),
];
const ALL_REDUCE: &str = "all_reduce";

/// Curves for one model.
#[derive(Debug)]
pub(super) struct Curves {
    tables: Arc<OperatorTables>,
    layers: f64,
    /// Microseconds by tokens: all dense layers, expert layers and all-reduces.
    tokens: Curve,
    /// Microseconds by requests.
    requests: Curve,
    /// Microseconds per step, and per token, of all-reduces without a table.
    all_reduce: Option<(f64, f64)>,
    /// Microseconds of every step.
    overhead: f64,
}

impl Curves {
    pub(super) fn new(
        shared: &Arc<OperatorTables>,
        c: &Composition<'_>,
    ) -> Result<Self, TablesError> {
        let OperatorTables::Curves(tables) = &**shared else {
            return Err(TablesError::new(
                "tables",
                "they are no curves",
                "take others",
            ));
        };
        let layers = f64::from(c.layers);
        let mut parts = Vec::new();
        let mut reduced = false;
        for series in &tables.dense {
            let calls = calls_of(series.name(), c)?;
            if series.name() == ALL_REDUCE {
                reduced = true;
                if c.tensor_parallel < 2 {
                    continue;
                }
            }
            let weight = match calls {
                Calls::PerStep(n) => f64::from(n),
                Calls::PerLayer(n) => f64::from(n) * layers,
            };
            parts.push((series, weight));
        }
        for needed in ["qkv_proj", "o_proj"] {
            needs(&tables.dense, needed, "dense.csv")?;
        }
        if tables.moe.is_empty() {
            needs(&tables.dense, "gate_up_proj", "dense.csv")?;
            needs(&tables.dense, "down_proj", "dense.csv")?;
        }
        needs(&tables.per_sequence, "lm_head", "per_sequence.csv")?;
        let experts = tables.expert_layer(c.tensor_parallel)?;
        parts.extend(experts.iter().map(|series| (series, layers)));
        let per_sequence: Vec<_> = tables.per_sequence.iter().map(|s| (s, 1.0)).collect();
        let modelled = (c.tensor_parallel > 1 && !reduced)
            .then_some((c.all_reduce.per_step * 1e6, c.all_reduce.per_token * 1e6));
        Ok(Self {
            tokens: Curve::new(&parts),
            requests: Curve::new(&per_sequence),
            tables: Arc::clone(shared),
            layers,
            all_reduce: modelled,
            overhead: c.overhead * 1e6,
        })
    }

    fn tables(&self) -> Option<&CurveTables> {
        match &*self.tables {
            OperatorTables::Curves(tables) => Some(tables),
            OperatorTables::Lookups(_) => None,
        }
    }

    pub(super) fn corrects_skew(&self) -> bool {
        self.tables().is_some_and(|t| t.skew.is_some())
    }

    pub(super) fn seconds(&self, shape: &BatchShape) -> (f64, bool) {
        let tokens = shape.tokens();
        let (dense, dense_out) = self.tokens.at(tokens);
        let (requests, requests_out) = self.requests.at(u64::from(shape.seqs()));
        let (attention, attention_out) = self.attention(shape);
        let mut us = dense + self.layers * attention + requests + self.overhead;
        if let Some((per_step, per_token)) = self.all_reduce {
            us += per_step + per_token * tokens as f64;
        }
        (us * 1e-6, dense_out || requests_out || attention_out)
    }

    /// Microseconds of attention in one layer.
    #[inline]
    fn attention(&self, shape: &BatchShape) -> (f64, bool) {
        let Some(tables) = self.tables() else {
            return (0.0, true);
        };
        // A request that computes one token is a decode, whatever it computes it for.
        let single = u64::from(shape.single_prefills);
        let decodes = u64::from(shape.decode_seqs) + single;
        let chunk = shape.prefill_tokens - single;
        let kv_prefill = shape.prefill_context - shape.single_context;
        if decodes == 0 && chunk == 0 {
            return (0.0, false);
        }
        let mean = match decodes {
            0 => 0,
            n => (shape.decode_context + shape.single_context) / n,
        };
        let line = tables.attention.line(chunk, kv_prefill, decodes);
        let (at_mean, outside) = line.at(mean);
        let Some(skew) = &tables.skew else {
            return (at_mean, outside);
        };
        let most = u64::from(shape.context_max);
        if decodes < 2 || most == mean {
            return (at_mean, outside);
        }
        let share = skew.share(&Unequal {
            chunk,
            kv_prefill,
            decodes,
            contexts: shape.decode_context + shape.single_context,
            squares: shape.context_squares,
            most,
        });
        if share == 0.0 {
            return (at_mean, outside);
        }
        let measured = skew.measured_decodes(decodes, tables.attention.most_decodes());
        let line = match measured == decodes {
            true => line,
            false => tables.attention.line(chunk, kv_prefill, measured),
        };
        let (middle, _) = line.at(mean);
        let (at_most, most_outside) = line.at(most);
        // A grid that falls with length there says nothing of unequal ones.
        let further = (at_most - middle).max(0.0);
        let us = (at_mean + share * further).max(0.0);
        (us, outside || most_outside)
    }
}

fn calls_of(name: &str, c: &Composition<'_>) -> Result<Calls, TablesError> {
    if let Some(&calls) = c.calls.get(name) {
        return Ok(Calls::PerLayer(calls));
    }
    let known = LAYERS.iter().find(|(known, _)| *known == name);
    known.map(|&(_, calls)| calls).ok_or_else(|| {
        let names: Vec<_> = LAYERS.iter().map(|(name, _)| *name).collect();
        TablesError::new(
            format!("dense.csv: layer `{name}`"),
            format!(
                "nobody knows how often it runs; known are {}",
                names.join(", ")
            ),
            format!("say it: `calls = {{ {name} = 1 }}` (per transformer layer; 0 leaves it out)"),
        )
    })
}

fn needs(series: &[Series], name: &str, file: &str) -> Result<(), TablesError> {
    if series.iter().any(|s| s.name() == name) {
        return Ok(());
    }
    let has: Vec<_> = series.iter().map(Series::name).collect();
    Err(TablesError::new(
        file,
        format!("it lacks layer `{name}`; it has {}", has.join(", ")),
        "measure it",
    ))
}

impl CurveTables {
    /// An expert layer by the tokens of the step alone: experts are chosen evenly, so `t` tokens
    /// touch `min(t * per_token, count)` of them. GPUs that share layers own equal parts of the
    /// experts; of `t` tokens, `t * (1 - ((g - 1) / g) ^ per_token)` come to each.
    fn expert_layer(&self, gpus: u32) -> Result<Option<Series>, TablesError> {
        if self.moe.is_empty() {
            return Ok(None);
        }
        let Some(experts) = self.experts else {
            return Err(TablesError::new(
                "moe.csv",
                "the model's number of experts is not known",
                "give `model_config` with `num_experts` and `num_experts_per_tok`",
            ));
        };
        let mut by_experts: Vec<(u32, Series)> = Vec::new();
        let mut counts: Vec<u32> = self.moe.iter().map(|p| p.experts).collect();
        counts.sort_unstable();
        counts.dedup();
        for count in counts {
            let mut points: Vec<_> = self.moe.iter().filter(|p| p.experts == count).collect();
            points.sort_by_key(|p| p.tokens);
            let points = points.into_iter().map(|p| (p.tokens, p.us)).collect();
            by_experts.push((
                count,
                Series::new(&format!("moe.csv, {count} experts"), points)?,
            ));
        }
        let last = self.moe.iter().map(|p| p.tokens).max().unwrap_or(1);
        let gpus = gpus.max(1);
        let missed = f64::from(gpus - 1) / f64::from(gpus);
        let reached = 1.0 - libm::pow(missed, f64::from(experts.per_token));
        let points = (1..=last)
            .map(|tokens| {
                let pairs = f64::from(tokens) * f64::from(experts.per_token) / f64::from(gpus);
                let owned = (experts.count / gpus).max(1);
                let touched = (pairs.round_ties_even() as u32).clamp(1, owned);
                let here = (f64::from(tokens) * reached).round_ties_even() as u32;
                (tokens, expert_time(&by_experts, here.max(1), touched))
            })
            .collect();
        Series::new("moe.csv", points).map(Some)
    }
}

/// Linear between the curves of two numbers of experts, and beyond the last.
fn expert_time(by_experts: &[(u32, Series)], tokens: u32, experts: u32) -> f64 {
    let last = by_experts.len() - 1;
    let after = by_experts.partition_point(|(count, _)| *count <= experts);
    if after == 0 || last == 0 {
        return by_experts[0].1.at(tokens);
    }
    let low = after.min(last) - 1;
    let ((x0, a), (x1, b)) = (&by_experts[low], &by_experts[low + 1]);
    let (a, b) = (a.at(tokens), b.at(tokens));
    let share = (f64::from(experts) - f64::from(*x0)) / (f64::from(*x1) - f64::from(*x0));
    (a + share * (b - a)).max(0.0)
}
