//! Traces for cases that replay one without time, read by the simulator's own reader.

use super::{CaseError, Point};
use std::collections::BTreeMap;
use std::ops::Range;
use windtunnel_base::content::Extent;
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::workload::{self, TrafficError};
use windtunnel_sim::gateway::replay::ReplayRequest;

/// Tokens of a block in Mooncake's format.
pub(super) const BLOCK: u32 = 512;

/// The prompts of a trace, in order.
pub(super) struct Trace {
    extents: Vec<Extent>,
    prompts: Vec<(Range<usize>, u32)>,
}

/// Reads the trace that the parameter `trace` names.
///
/// # Errors
/// If it is not in the traces folder, or not in Mooncake's format.
pub(super) fn mooncake(point: &Point<'_>) -> Result<Trace, CaseError> {
    let file = point.text("trace");
    let quoted = toml::Value::String(file.into());
    let text = format!(
        r#"
        version = 1
        traffic.trace = {{ format = "mooncake", file = {quoted} }}
        "#
    );
    let scenario: Scenario = toml::from_str(&text).map_err(|e| CaseError::Run(e.to_string()))?;
    let traffic =
        workload::prepare(&scenario, None, point.traces, false).map_err(|e| match &e {
            TrafficError::NotFound { .. } => CaseError::NeedsFiles(file.into()),
            _ => point.refuse("trace", e.to_string()),
        })?;
    let mut source = traffic.workload(point.seed);
    let (mut extents, mut prompts) = (Vec::new(), Vec::new());
    while source.next_at().is_some() {
        let from = extents.len();
        let tokens = source.take(&mut extents).prompt_tokens;
        prompts.push((from..extents.len(), tokens));
    }
    Ok(Trace { extents, prompts })
}

impl Trace {
    /// The requests as the trace has them; each is its own conversation.
    pub(super) fn requests(&self) -> impl Iterator<Item = ReplayRequest<'_>> {
        let request = |(rank, (range, tokens)): (usize, &(Range<usize>, u32))| ReplayRequest {
            prefix: &self.extents[range.clone()],
            prompt_tokens: *tokens,
            session: rank as u64,
        };
        self.prompts.iter().enumerate().map(request)
    }

    /// Whether all prompts begin with the same block.
    pub(super) fn shares_first_block(&self) -> bool {
        let first = |r: ReplayRequest<'_>| r.prefix.first().map(|e| (e.key, e.tokens >= BLOCK));
        let mut firsts = self.requests().map(first);
        let one = firsts.next().flatten();
        one.is_some() && firsts.all(|f| f.map(|f| f.0) == one.map(|f| f.0))
    }

    /// The chain of each prompt filled up to whole blocks, and its own tokens.
    pub(super) fn each_in_whole_blocks(&self, mut each: impl FnMut(&[Extent], u32)) {
        let mut chain = Vec::new();
        for request in self.requests() {
            chain.clear();
            chain.extend_from_slice(request.prefix);
            let tokens: u32 = chain.iter().map(|e| e.tokens).sum();
            if let Some(last) = chain.last_mut() {
                last.tokens += tokens.next_multiple_of(BLOCK) - tokens;
            }
            each(&chain, request.prompt_tokens);
        }
    }

    /// A number for every block of every prompt, the same for blocks that are the same and come
    /// after the same: the plain reading of what extents mean.
    pub(super) fn block_ids(&self) -> Vec<Vec<u32>> {
        let mut known = BTreeMap::new();
        let mut prompts = Vec::new();
        self.each_in_whole_blocks(|chain, _| {
            let mut ids = Vec::new();
            let mut before = u32::MAX;
            for extent in chain {
                for place in 0..extent.tokens / BLOCK {
                    let next = known.len() as u32;
                    before = *known.entry((before, extent.key, place)).or_insert(next);
                    ids.push(before);
                }
            }
            prompts.push(ids);
        });
        prompts
    }
}
