//! Lookup tables composed into a step as Vidur does, sums in its order: a step on the same tables
//! takes the same time to the last bit.

use super::plane::Plane;
use super::series::Series;
use super::{Composition, OperatorTables, TablesError};
use crate::batch::BatchShape;
use std::sync::Arc;

/// Times in milliseconds per layer.
#[derive(Clone, PartialEq, Debug)]
pub struct LookupTables {
    /// Operators by tokens of the step, see [`OPERATORS`].
    pub by_tokens: Vec<Series>,
    /// Attention of prompts: new tokens, tokens in KV.
    pub prefill: Plane,
    /// Attention of decodes: requests, tokens in KV of each.
    pub decode: Plane,
    /// Transformer layers, if the folder tells.
    pub layers: Option<u32>,
}

/// Operators by tokens, and whether a step can do without (it then takes no time).
pub const OPERATORS: [(&str, bool); 11] = [
    ("attn_pre_proj", false),
    ("attn_post_proj", false),
    ("attn_rope", false),
    ("attn_kv_cache_save", true),
    ("input_layernorm", false),
    ("mlp_up_proj", false),
    ("mlp_down_proj", false),
    ("mlp_act", false),
    ("post_attention_layernorm", true),
    ("add", false),
    ("all_reduce", true),
];

/// Linear operators run on a multiple of so many tokens.
const TOKEN_STEP: u64 = 8;
/// Launching a collective on the CPU, in milliseconds.
const LAUNCH_MS: f64 = 0.02;
/// What several requests at once add where query heads share key-value heads.
const GROUPED_FACTOR: f64 = 1.1;

/// What linear operators sum to for one number of tokens, as far as the order of sums allows.
#[derive(Clone, Copy, Debug, Default)]
struct Linear {
    /// Projections around attention, and positions.
    projections: f64,
    reduce: f64,
    norm: f64,
    mlp: f64,
    add: f64,
}

/// Tables for one model.
#[derive(Debug)]
pub(super) struct Lookups {
    tables: Arc<OperatorTables>,
    /// By tokens over [`TOKEN_STEP`].
    linear: Vec<Linear>,
    /// By tokens.
    save: Vec<f64>,
    /// Tokens that all operators were measured on.
    measured: (u64, u64),
    layers: f64,
    grouped: f64,
    /// Milliseconds of an all-reduce, and per token; if no table has it.
    modelled_reduce: Option<(f64, f64)>,
    tensor_parallel: u32,
    overhead: f64,
}

impl Lookups {
    pub(super) fn new(
        shared: &Arc<OperatorTables>,
        c: &Composition<'_>,
    ) -> Result<Self, TablesError> {
        let OperatorTables::Lookups(tables) = &**shared else {
            return Err(TablesError::new(
                "tables",
                "they are no lookups",
                "take others",
            ));
        };
        for (name, optional) in OPERATORS {
            let found = tables.by_tokens.iter().any(|s| s.name() == name);
            if !found && !optional {
                let reason = format!("the operator `{name}` is not there");
                return Err(TablesError::new(name, reason, "give its table"));
            }
        }
        let ranges = || tables.by_tokens.iter().map(Series::range);
        let measured = (
            ranges().map(|r| u64::from(r.0)).max().unwrap_or(0),
            ranges().map(|r| u64::from(r.1)).min().unwrap_or(0),
        );
        let has_reduce = tables.by_tokens.iter().any(|s| s.name() == "all_reduce");
        let calls = 2.0 * f64::from(c.layers.max(1));
        let modelled_reduce = (c.tensor_parallel > 1 && !has_reduce).then_some((
            c.all_reduce.per_step / calls * 1e3,
            c.all_reduce.per_token / calls * 1e3,
        ));
        let mut lookups = Self {
            tables: Arc::clone(shared),
            linear: Vec::new(),
            save: Vec::new(),
            measured,
            layers: f64::from(c.layers),
            grouped: if c.grouped_query { GROUPED_FACTOR } else { 1.0 },
            modelled_reduce,
            tensor_parallel: c.tensor_parallel,
            overhead: c.overhead,
        };
        lookups.linear = (0..=measured.1 / TOKEN_STEP)
            .map(|eighth| lookups.linear_at(eighth * TOKEN_STEP))
            .collect();
        lookups.save = (0..=measured.1)
            .map(|tokens| lookups.time("attn_kv_cache_save", tokens))
            .collect();
        Ok(lookups)
    }

    fn tables(&self) -> Option<&LookupTables> {
        match &*self.tables {
            OperatorTables::Lookups(tables) => Some(tables),
            OperatorTables::Curves(_) => None,
        }
    }

    pub(super) fn context_step(&self) -> u32 {
        self.tables().map_or(1, |t| t.prefill.step())
    }

    /// Milliseconds of an operator for so many tokens; none if it has no table. Beyond the last
    /// key on the line from the middle of the table to its end.
    fn time(&self, name: &str, tokens: u64) -> f64 {
        let series = self
            .tables()
            .and_then(|t| t.by_tokens.iter().find(|s| s.name() == name));
        let Some(series) = series else { return 0.0 };
        let key = tokens as u32;
        let (_, last) = series.range();
        if key <= last {
            return series.at(key);
        }
        let middle = last / 2;
        let slope = (series.at(last) - series.at(middle)) / f64::from((last - middle).max(1));
        (series.at(last) + slope * f64::from(key - last)).max(0.0)
    }

    fn linear_at(&self, tokens: u64) -> Linear {
        let time = |name| self.time(name, tokens);
        let reduce = match self.modelled_reduce {
            _ if self.tensor_parallel < 2 => 0.0,
            Some((per_call, per_token)) => per_call + per_token * tokens as f64,
            None => time("all_reduce") + LAUNCH_MS,
        };
        Linear {
            projections: time("attn_pre_proj") + time("attn_post_proj") + time("attn_rope"),
            reduce,
            norm: time("input_layernorm"),
            mlp: time("mlp_up_proj")
                + time("mlp_down_proj")
                + time("mlp_act")
                + reduce
                + time("post_attention_layernorm"),
            add: time("add"),
        }
    }

    pub(super) fn seconds(&self, shape: &BatchShape) -> (f64, bool) {
        let Some(tables) = self.tables() else {
            return (0.0, true);
        };
        let tokens = shape.tokens();
        let rounded = tokens.div_ceil(TOKEN_STEP);
        let linear = match self.linear.get(rounded as usize) {
            Some(&linear) => linear,
            None => self.linear_at(rounded * TOKEN_STEP),
        };
        let save = match self.save.get(tokens as usize) {
            Some(&save) => save,
            None => self.time("attn_kv_cache_save", tokens),
        };
        let last = rounded * TOKEN_STEP;
        let mut outside = last > self.measured.1 || tokens < self.measured.0;
        let mut decode = 0.0;
        if shape.decode_seqs > 0 {
            let seqs = u64::from(shape.decode_seqs);
            // What is processed: all in KV, and the token that came out last.
            let mean = shape.decode_context / seqs + 1;
            let (ms, beyond) = tables.decode.at(seqs, mean);
            decode = ms * if seqs > 1 { self.grouped } else { 1.0 };
            outside |= beyond;
        }
        let mut prefill = 0.0;
        if shape.prefill_seqs > 0 {
            let chunk = (shape.prefill_squares as f64).sqrt().round_ties_even() as u64;
            let (ms, beyond) = tables.prefill.at(chunk, shape.prefill_context_rounded);
            prefill = ms
                * if shape.prefill_seqs > 1 {
                    self.grouped
                } else {
                    1.0
                };
            outside |= beyond;
        }
        let attention = linear.projections + save + decode + prefill + linear.reduce + linear.norm;
        let block = attention + linear.mlp + linear.add;
        let seconds = block * self.layers * 1e-3;
        if self.overhead > 0.0 {
            return (seconds + self.overhead, outside);
        }
        (seconds, outside)
    }
}
