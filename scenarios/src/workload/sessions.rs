//! Conversations in closed loop: each turn's prompt is all that was said before plus a new input,
//! and comes a think time after the answer to the last one.
//!
//! Every turn draws from streams of its own, named by client, conversation and turn, so the order
//! in which answers come moves no draw. An open conversation is one small record; nothing is kept
//! of what was said but its length.

use super::clients::SessionPlan;
use super::prefixes::Prefixes;
use rustc_hash::FxHashMap;
use windtunnel_base::content::{Extent, stream_key};
use windtunnel_base::ids::RequestId;
use windtunnel_base::ladder::{Ladder, Timed};
use windtunnel_base::rng::mix64;
use windtunnel_base::time::SimTime;

/// An open conversation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    /// Which client has it.
    pub(crate) client: u32,
    /// Its number among the client's conversations.
    pub(crate) number: u64,
    /// The next turn, from 0.
    pub(crate) turn: u32,
    /// How many turns it has.
    pub(crate) turns: u32,
    /// Tokens said so far, prompts and answers, as far as the next prompt repeats them.
    context: u32,
    /// How often its beginning was cut off; each time its content gets a new name.
    cuts: u32,
    /// Group of its shared prefix.
    group: u32,
    /// The task asked last, in a conversation of tasks.
    pub(crate) task: Option<u64>,
}

impl Open {
    /// A conversation before its first turn. It has at least one.
    pub(crate) fn new(client: u32, number: u64, turns: u32, group: u32) -> Self {
        Self {
            client,
            number,
            turn: 0,
            turns: turns.max(1),
            context: 0,
            cuts: 0,
            group,
            task: None,
        }
    }

    /// The conversation's id among those of all clients.
    pub(crate) fn id(&self) -> u64 {
        u64::from(self.client) << SESSION_BITS | self.number
    }

    /// The entity that names this turn's streams.
    pub(crate) fn turn_entity(&self) -> u64 {
        mix64(self.number) ^ u64::from(self.turn)
    }

    /// Appends the extents of a prompt with `input` new tokens and says how long it is (more than
    /// zero). `keys` is the namespace of the client's conversations.
    pub(crate) fn prompt(
        &mut self,
        input: u32,
        plan: &SessionPlan,
        prefixes: Option<&Prefixes>,
        keys: u64,
        out: &mut Vec<Extent>,
    ) -> u32 {
        let own = stream_key(keys, self.number);
        let begin = out.len();
        let mut shared = 0;
        // What was cut off once never comes back, nor does the shared prefix in front of it.
        if let (Some(prefixes), 0) = (prefixes, self.cuts) {
            shared = prefixes.write(self.group, u32::MAX, out);
        }
        let said = if self.turn == 0 { shared } else { self.context };
        let mut prompt = said.saturating_add(input).max(1);
        if prompt > plan.max_context {
            prompt = plan.max_context;
            out.truncate(begin);
            shared = 0;
            self.cuts += 1;
        }
        if prompt > shared {
            out.push(Extent {
                key: stream_key(own, u64::from(self.cuts)),
                tokens: prompt - shared,
            });
        }
        prompt
    }

    /// Takes note of the task that was asked in the turn just sent.
    pub(crate) fn asked(&mut self, task: u64) {
        self.task = Some(task);
        self.turn += 1;
    }

    /// Takes note of what was said in the turn just sent; the next turn repeats it.
    pub(crate) fn said(&mut self, prompt: u32, output: u32) {
        self.context = prompt.saturating_add(output);
        self.turn += 1;
    }
}

/// What goes on after an answer: those whose next step has a time, and those that wait.
#[derive(Debug)]
pub(crate) struct ClosedLoop<T> {
    open: Vec<T>,
    free: Vec<u32>,
    /// Next steps by time, then by the order given.
    due: Ladder<Due>,
    waiting: FxHashMap<RequestId, u32>,
}

/// Time, order and slot of a step.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Due(SimTime, u64, u32);

impl Timed for Due {
    #[inline]
    fn time(&self) -> u64 {
        self.0.as_nanos()
    }
}

impl<T> Default for ClosedLoop<T> {
    fn default() -> Self {
        Self {
            open: Vec::new(),
            free: Vec::new(),
            due: Ladder::default(),
            waiting: FxHashMap::default(),
        }
    }
}

impl<T: Copy> ClosedLoop<T> {
    /// When the next step is due.
    #[inline]
    pub(crate) fn next_at(&mut self) -> Option<SimTime> {
        self.due.peek().map(|due| due.0)
    }

    /// Takes the one whose step is due.
    pub(crate) fn pop(&mut self) -> Option<(SimTime, T)> {
        let Due(at, _, slot) = self.due.pop()?;
        self.free.push(slot);
        Some((at, self.open[slot as usize]))
    }

    /// Keeps one until the answer to `request` comes.
    pub(crate) fn wait(&mut self, request: RequestId, one: T) {
        let slot = self.keep(one);
        self.waiting.insert(request, slot);
    }

    /// The one that waited for this answer, if any; it is let go.
    pub(crate) fn answered(&mut self, request: RequestId) -> Option<T> {
        if self.waiting.is_empty() {
            return None; // the usual case without conversations
        }
        let slot = self.waiting.remove(&request)?;
        self.free.push(slot);
        Some(self.open[slot as usize])
    }

    /// Plans the next step of one; steps of one time go by `order`.
    pub(crate) fn plan(&mut self, at: SimTime, order: u64, one: T) {
        let slot = self.keep(one);
        self.due.push(Due(at, order, slot));
    }

    fn keep(&mut self, one: T) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.open[slot as usize] = one;
            slot
        } else {
            self.open.push(one);
            self.open.len() as u32 - 1
        }
    }
}

/// Conversation ids are the client's rank above this many bits of the conversation's number.
pub(crate) const SESSION_BITS: u32 = 40;
