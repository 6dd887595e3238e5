//! The limits a batch is formed under: data, and a few named rules.

use crate::config::{LengthBuckets, PreemptionKind, PrefixVisibility, RestartKind, SchedulerKind};
use crate::cost::{CostFn, CostModel};
use crate::energy::EnergyFn;
use crate::replica::ReplicaFacts;

/// What replicas of a kind have in common, and none of them changes: kept once, so that a large fleet
/// finds it in the processor's cache whichever replica's turn it is.
#[derive(Debug)]
pub(crate) struct Common {
    pub(super) facts: ReplicaFacts,
    pub(super) rules: Rules,
    pub(super) cost: CostFn,
    /// What the cost model rounds contexts of prompts up to, so that it is not asked per prompt.
    pub(super) context_step: u64,
    pub(super) energy: EnergyFn,
}

impl Common {
    pub(crate) fn new(rules: Rules, cost: CostFn, energy: EnergyFn, facts: ReplicaFacts) -> Self {
        Self {
            facts,
            rules,
            context_step: u64::from(cost.context_step()),
            cost,
            energy,
        }
    }
}

/// How a batch is formed.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) kind: SchedulerKind,
    /// Tokens of one step.
    pub(crate) token_budget: u32,
    /// Requests that run at once.
    pub(crate) max_num_seqs: u32,
    /// Prompt tokens of one request in one step.
    pub(crate) prefill_cap: u32,
    /// Requests that wait.
    pub(crate) queue_limit: u32,
    /// Tokens of one request, prompt and output, that fit model and memory.
    pub(crate) max_tokens: u32,
    /// Blocks that admission leaves free while others run.
    pub(crate) watermark: u64,
    /// Admit only where the whole prompt fits.
    pub(crate) reserve_full_prompt: bool,
    pub(crate) visibility: PrefixVisibility,
    pub(crate) preemption: PreemptionKind,
    pub(crate) restart: RestartKind,
    /// Blocks for the whole prompt are taken at admission.
    pub(crate) whole_prompt: bool,
    /// Blocks that must be free for a decoding request to run, whether it takes one or not.
    pub(crate) spare: u64,
    /// The budget of prompts is their number times the longest.
    pub(crate) padded_prompts: bool,
    /// Who shares a static batch.
    pub(crate) buckets: Option<LengthBuckets>,
    /// Decodes go before prompts and are not bounded by the budget.
    pub(crate) decodes_first: bool,
    pub(crate) admit_after_preemption: bool,
    /// Steps are planned when the one before begins.
    pub(crate) plans_ahead: bool,
    /// Bytes of KV per block, for swapping.
    pub(crate) block_bytes: u64,
    /// Who comes as a step ends joins the step that begins then.
    pub(crate) joins_at_boundary: bool,
    pub(crate) fast_forward: bool,
}

impl Rules {
    /// Whether prompts are cut into chunks that share a budget with decoding requests.
    pub(crate) fn chunks(&self) -> bool {
        !matches!(
            self.kind,
            SchedulerKind::Static | SchedulerKind::Fcfs | SchedulerKind::PrefillFirst
        )
    }

    /// Whether prompts have steps of their own, in which nobody decodes.
    pub(crate) fn prompts_alone(&self) -> bool {
        self.kind == SchedulerKind::PrefillFirst
    }

    /// Buckets of lengths; one where lengths do not matter.
    pub(crate) fn bucket_count(&self) -> usize {
        self.buckets.as_ref().map_or(0, |b| b.bounds.len()) + 1
    }

    /// Whether a batch stays as it is until its last request is done.
    pub(crate) fn is_static(&self) -> bool {
        self.kind == SchedulerKind::Static
    }

    /// Tokens of one step. A static batch is padded, not budgeted; Orca's running requests go
    /// first and its budget only bounds the prompts that join.
    pub(crate) fn step_budget(&self) -> u64 {
        match self.kind {
            SchedulerKind::Static => u64::MAX,
            _ => u64::from(self.token_budget),
        }
    }
}
