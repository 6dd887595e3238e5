//! Coding-agent sessions (kv-cache-tester): JSON lines, one session each, with the calls of the
//! agent and, nested, of its sub-agents. Block ids are local to a session.
//!
//! What the reader decides: a sub-agent is a chain of calls of its own that begins as long after
//! the end of the call before it as recorded, and its parent does not wait for it (the parent's
//! recorded think time already contains what waiting there was). The first
//! `tool_tokens + system_tokens` of a first prompt, in whole blocks, are what sessions of the same
//! model, tools and system prompt share; everything else is the session's own.

use super::super::input::{Bad, Source};
use super::super::table::{nanos_of, whole_tokens};
use super::super::{Facts, TrafficError};
use super::{Runs, json_reason, note_empty_answers};
use serde::Deserialize;
use std::ops::Range;
use windtunnel_base::content::{Extent, namespace, stream_key};

/// All sessions, flattened.
#[derive(Debug, Default)]
pub(crate) struct AgentTrace {
    /// Chains of each session; the first is the agent itself if it makes a call.
    pub(crate) sessions: Vec<Range<u32>>,
    pub(crate) chains: Vec<Chain>,
    pub(crate) calls: Vec<Call>,
    /// Extents of the calls; keys are without the namespace of file and copy.
    pub(crate) extents: Vec<Extent>,
    /// Chains that begin after a call: (call, chain), sorted.
    pub(crate) spawns: Vec<(u32, u32)>,
    shared_tokens: u64,
    empty_answers: u64,
    stepped_back: u64,
}

/// Calls one after another.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub(crate) calls: Range<u32>,
    /// Whether it begins with its session, not after a call of another chain.
    pub(crate) begins_session: bool,
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// Closed loop: time after the end of the call before it, in ns.
    pub(crate) after: u64,
    /// Open loop: time since the session's begin, in ns.
    pub(crate) at: u64,
    pub(crate) input: u32,
    pub(crate) output: u32,
    /// Where its extents end.
    pub(crate) prefix_end: u64,
}

#[derive(Deserialize)]
struct Session {
    block_size: f64,
    #[serde(default)]
    tool_tokens: f64,
    #[serde(default)]
    system_tokens: f64,
    requests: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    t: f64,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    model: String,
    #[serde(rename = "in", default)]
    input: f64,
    #[serde(rename = "out", default)]
    output: f64,
    #[serde(default)]
    hash_ids: Runs,
    think_time: Option<f64>,
    api_time: Option<f64>,
    #[serde(default)]
    tool_tokens: f64,
    #[serde(default)]
    system_tokens: f64,
    #[serde(default)]
    requests: Vec<Item>,
}

/// Reads agent sessions.
pub(crate) fn read(
    file: &str,
    source: &Source<'_>,
    facts: &mut Facts,
) -> Result<AgentTrace, TrafficError> {
    let mut lines = source.open(file)?;
    let mut trace = AgentTrace::default();
    while lines.advance()? {
        let parsed = serde_json::from_slice::<Session>(lines.text())
            .map_err(|e| Bad::new("", json_reason(&e)))
            .and_then(|session| trace.append(&session));
        if let Err(bad) = parsed {
            lines.bad_row(bad, source, facts)?;
        }
    }
    if trace.calls.is_empty() {
        return Err(lines.empty("no usable session with a call is in the file"));
    }
    trace.spawns.sort_unstable();
    note_empty_answers(trace.empty_answers, facts);
    if trace.stepped_back > 0 {
        facts.notes.push(format!(
            "{} calls are recorded before the end of the call before them; in open loop they \
             come no earlier than it began",
            trace.stepped_back
        ));
    }
    facts.notes.push(format!(
        "prompts share across sessions what has the same model, tool and system tokens: {} of \
         the tokens of first prompts; all else is shared within a session only",
        trace.shared_tokens
    ));
    facts.notes.push(
        "answers are not taken to be reused as they were generated: only what the recorded \
         blocks of later prompts repeat is"
            .into(),
    );
    lines.finish(0, facts)?;
    Ok(trace)
}

/// The beginning of a first prompt, shared across sessions.
struct Root {
    runs: Runs,
    key: u64,
}

/// A session while it is appended.
struct Builder<'a> {
    trace: &'a mut AgentTrace,
    block: u64,
    keys: u64,
    roots: Vec<Root>,
}

impl AgentTrace {
    /// Extents of a call.
    pub(crate) fn prefix(&self, call: u32) -> &[Extent] {
        let begin = call
            .checked_sub(1)
            .map_or(0, |before| self.calls[before as usize].prefix_end);
        &self.extents[begin as usize..self.calls[call as usize].prefix_end as usize]
    }

    /// Chains that begin after a call.
    pub(crate) fn spawned_by(&self, call: u32) -> &[(u32, u32)] {
        let begin = self.spawns.partition_point(|&(c, _)| c < call);
        let count = self.spawns[begin..].partition_point(|&(c, _)| c == call);
        &self.spawns[begin..begin + count]
    }

    /// Appends a session as a whole, or nothing of it.
    fn append(&mut self, session: &Session) -> Result<(), Bad> {
        let block = whole_tokens(session.block_size, 1).map_err(|e| Bad::new("block_size", e))?;
        let before = (
            self.chains.len(),
            self.calls.len(),
            self.extents.len(),
            self.spawns.len(),
            (self.shared_tokens, self.empty_answers, self.stepped_back),
        );
        let keys = stream_key(namespace("agent session"), self.sessions.len() as u64);
        let mut builder = Builder {
            trace: self,
            block: u64::from(block),
            keys,
            roots: Vec::new(),
        };
        let shared = (session.tool_tokens, session.system_tokens);
        if let Err(bad) = builder.chain(&session.requests, shared, 0, None, "requests") {
            self.chains.truncate(before.0);
            self.calls.truncate(before.1);
            self.extents.truncate(before.2);
            self.spawns.truncate(before.3);
            (self.shared_tokens, self.empty_answers, self.stepped_back) = before.4;
            return Err(bad);
        }
        if self.chains.len() > before.0 {
            self.sessions
                .push(before.0 as u32..self.chains.len() as u32);
        }
        Ok(())
    }
}

impl Builder<'_> {
    /// Appends a chain of calls, then the sub-agents among them. `begin` is when its clock
    /// begins, in ns since the session's begin; `parent` the call after which it begins and the
    /// time when that call ended.
    fn chain(
        &mut self,
        items: &[Item],
        shared: (f64, f64),
        begin: u64,
        parent: Option<(u32, u64)>,
        path: &str,
    ) -> Result<(), Bad> {
        let mut children = Vec::new();
        let first = self.trace.calls.len() as u32;
        // When the call before ended, and when it began.
        let mut ended = parent.map_or(0, |(_, ended)| ended);
        let mut latest = 0;
        for (i, item) in items.iter().enumerate() {
            let of = |field: &'static str| {
                move |reason: String| Bad::new(format!("{path}[{i}].{field}"), reason)
            };
            let at = begin + nanos_of(item.t, 1e9).map_err(of("t"))?;
            let last = self.trace.calls.len() as u32;
            if item.kind == "subagent" {
                let after = if last > first {
                    Some((last - 1, ended))
                } else {
                    parent
                };
                children.push((i, item, at, after));
                continue;
            }
            let api = item.api_time.unwrap_or(0.0);
            let api = nanos_of(api, 1e9).map_err(of("api_time"))?;
            let input = whole_tokens(item.input, 1).map_err(of("in"))?;
            let output = whole_tokens(item.output, 0).map_err(of("out"))?;
            let after = match item.think_time {
                Some(think) if last > first => nanos_of(think, 1e9).map_err(of("think_time"))?,
                _ => at.saturating_sub(ended),
            };
            let covered = item.hash_ids.ids * self.block;
            if covered >= u64::from(input) + self.block {
                return Err(of("hash_ids")(format!(
                    "{} blocks of {} tokens are more than the {input} tokens of the prompt",
                    item.hash_ids.ids, self.block
                )));
            }
            self.trace.stepped_back += u64::from(last > first && at < ended);
            self.trace.empty_answers += u64::from(output == 0);
            latest = at.max(latest);
            self.extents(item, shared, last == first, input);
            self.trace.calls.push(Call {
                after,
                at: latest,
                input,
                output: output.max(1),
                prefix_end: self.trace.extents.len() as u64,
            });
            ended = at + api;
        }
        let calls = first..self.trace.calls.len() as u32;
        if !calls.is_empty() {
            if let Some((call, _)) = parent {
                let chain = self.trace.chains.len() as u32;
                self.trace.spawns.push((call, chain));
            }
            self.trace.chains.push(Chain {
                calls,
                begins_session: parent.is_none(),
            });
        }
        for (i, item, at, after) in children {
            let shared = (item.tool_tokens, item.system_tokens);
            self.chain(
                &item.requests,
                shared,
                at,
                after,
                &format!("{path}[{i}].requests"),
            )?;
        }
        Ok(())
    }

    /// Appends the extents of a prompt of `input` tokens.
    fn extents(&mut self, item: &Item, shared: (f64, f64), is_first: bool, input: u32) {
        let ids = &item.hash_ids;
        let Some(&(begin, _)) = ids.runs.first() else {
            return;
        };
        let starts_alike = |root: &Root| root.runs.runs.first().map(|r| r.0) == Some(begin);
        if is_first && !self.roots.iter().any(starts_alike) {
            // Ids name all that comes before them, so equal first ids mean one root.
            let tokens = (shared.0.max(0.0) + shared.1.max(0.0)) as u64;
            let blocks = (tokens.min(u64::from(input)) / self.block).min(ids.ids);
            if blocks > 0 {
                let kind = stream_key(namespace("tools and system"), namespace(&item.model));
                let kind = stream_key(kind, shared.0.max(0.0) as u64);
                self.roots.push(Root {
                    runs: head(ids, blocks),
                    key: stream_key(kind, shared.1.max(0.0) as u64),
                });
                self.trace.shared_tokens += blocks * self.block;
            }
        }
        let out = &mut self.trace.extents;
        let mut left = u64::from(input);
        let mut push = |key: u64, blocks: u64| {
            let tokens = (blocks * self.block).min(left);
            left -= tokens;
            if tokens > 0 {
                out.push(Extent {
                    key,
                    tokens: tokens as u32,
                });
            }
        };
        let mut skip = 0;
        if let Some(root) = self.roots.iter().find(|r| starts_alike(r)) {
            skip = common(&root.runs, ids);
            push(root.key, skip);
        }
        for &(first, count) in &ids.runs {
            let skipped = skip.min(u64::from(count));
            skip -= skipped;
            if skipped < u64::from(count) {
                let id = first.saturating_add(skipped);
                push(stream_key(self.keys, id), u64::from(count) - skipped);
            }
        }
    }
}

/// The first `ids` ids.
fn head(runs: &Runs, ids: u64) -> Runs {
    let mut left = ids;
    let mut head = Runs::default();
    for &(first, count) in &runs.runs {
        let count = u64::from(count).min(left);
        left -= count;
        if count > 0 {
            head.runs.push((first, count as u32));
        }
    }
    head.ids = ids - left;
    head
}

/// With how many equal ids two lists begin.
fn common(a: &Runs, b: &Runs) -> u64 {
    let mut same = 0;
    for (x, y) in a.runs.iter().zip(&b.runs) {
        if x.0 != y.0 {
            break;
        }
        same += u64::from(x.1.min(y.1));
        if x.1 != y.1 {
            break;
        }
    }
    same
}
