//! The decoding requests, as sums.
//!
//! Every member gains one token per step. So a step needs their number, the sum of their
//! contexts, and how many begin a new block; none of them is touched until it finishes. Steps in
//! which the set takes part are numbered; what happens to a member is a function of that number.

use crate::batch::growth_of_squares;
use crate::continuous::sequence::{Phase, Sequences};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use windtunnel_base::ids::ClassId;
use windtunnel_base::time::SimTime;

#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct DecodeSet {
    /// Steps done so far.
    steps: u64,
    /// Their place in the ring of crossings.
    place: u32,
    count: u32,
    /// Sum of tokens in KV.
    context: u64,
    /// When the members' last tokens came out.
    last_token: SimTime,
    /// First a ring: how many members need a new block at the steps of each residue modulo the block
    /// size. Behind it the members by class.
    counts: Vec<u32>,
    /// (step count when done, place in the batch, slot); entries of those who left stay behind.
    finishing: BinaryHeap<Reverse<(u64, u64, u32)>>,
    /// How many did. While there are none, nobody needs to be looked at to know who is next.
    stale: u32,
    block_size: u32,
    /// Members for whom the last token came out at another time.
    late: Vec<(ClassId, SimTime)>,
    /// Members by context, the longest first, if the cost model asks for the spread; entries of those
    /// who left stay behind for a while.
    longest: Option<BinaryHeap<Member>>,
    /// Sum of the squares of tokens in KV, if the cost model asks for the spread.
    squares: u128,
}

impl DecodeSet {
    pub(crate) fn new(block_size: u32, with_spread: bool) -> Self {
        Self {
            steps: 0,
            place: 0,
            count: 0,
            context: 0,
            last_token: SimTime::ZERO,
            counts: vec![0; block_size as usize],
            finishing: BinaryHeap::new(),
            stale: 0,
            block_size,
            late: Vec::new(),
            longest: with_spread.then(BinaryHeap::new),
            squares: 0,
        }
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }
    pub(crate) fn count(&self) -> u32 {
        self.count
    }
    pub(crate) fn context(&self) -> u64 {
        self.context
    }
    /// Sum of the squares of the contexts; zero if nobody asks for the spread.
    pub(crate) fn squares(&self) -> u128 {
        self.squares
    }
    /// Members of each class, as far as there have been any.
    pub(crate) fn by_class(&self) -> &[u32] {
        &self.counts[self.block_size as usize..]
    }

    fn crossings(&self) -> &[u32] {
        &self.counts[..self.block_size as usize]
    }
    /// When the members' last tokens came out, but for [`Self::late`].
    pub(crate) fn last_token(&self) -> SimTime {
        self.last_token
    }
    /// Class and time of members whose last token came out at another time.
    pub(crate) fn late(&self) -> &[(ClassId, SimTime)] {
        &self.late
    }

    /// Blocks that the step after `ahead` more steps takes.
    #[inline]
    pub(crate) fn blocks_needed(&self, ahead: u64) -> u64 {
        u64::from(self.counts[self.ring(ahead)])
    }

    /// Blocks that each step from the one after `ahead` more steps on takes, without end.
    #[inline]
    pub(crate) fn blocks_from(&self, ahead: u64) -> impl Iterator<Item = u64> + '_ {
        let (crossings, mut place) = (self.crossings(), self.ring(ahead));
        std::iter::from_fn(move || {
            let needed = crossings[place];
            place += 1;
            if place == crossings.len() {
                place = 0;
            }
            Some(u64::from(needed))
        })
    }

    /// Blocks that the steps `from..to` from now take.
    pub(crate) fn growth(&self, from: u64, to: u64) -> u64 {
        if to <= from {
            return 0;
        }
        let sum = |part: &[u32]| part.iter().map(|&n| u64::from(n)).sum::<u64>();
        let crossings = self.crossings();
        let size = crossings.len();
        let (mut steps, mut whole) = (to - from, 0);
        if steps >= size as u64 {
            whole = steps / size as u64 * sum(crossings);
            steps %= size as u64;
        }
        // What is left of a round, which may go on at the beginning of the ring.
        let first = self.ring(from);
        let end = first + steps as usize;
        let rest = match end.checked_sub(size) {
            None => sum(&crossings[first..end]),
            Some(over) => sum(&crossings[first..]) + sum(&crossings[..over]),
        };
        whole + rest
    }

    /// Place of the step after `ahead` more steps.
    #[inline]
    fn ring(&self, ahead: u64) -> usize {
        let (place, size) = (u64::from(self.place) + ahead, u64::from(self.block_size));
        // Mostly it is close by, and no division is needed.
        match place {
            p if p < size => p as usize,
            p if p < 2 * size => (p - size) as usize,
            p => (p % size) as usize,
        }
    }

    /// Residue of the steps at which a member with `computed` tokens now begins a new block.
    fn crossing_of(&self, computed: u32) -> usize {
        let size = self.block_size as usize;
        let place = self.place as usize + size - computed as usize % size;
        if place < size { place } else { place - size }
    }

    /// A running request starts to decode.
    pub(crate) fn join(&mut self, slot: u32, seqs: &mut Sequences) {
        let crossing = self.crossing_of(seqs[slot].computed);
        let s = &mut seqs[slot];
        debug_assert!(s.generated < s.output && s.generated > 0);
        s.phase = Phase::Decoding;
        s.joined = self.steps;
        s.finish_at = self.steps + u64::from(s.output - s.generated);
        if self.count == 0 {
            self.last_token = s.last_token;
        }
        self.count += 1;
        self.context += u64::from(s.computed);
        self.counts[crossing] += 1;
        let class = self.block_size as usize + s.class.index();
        if class >= self.counts.len() {
            self.counts.resize(class + 1, 0);
        }
        self.counts[class] += 1;
        self.finishing
            .push(Reverse((s.finish_at, s.admission, slot)));
        let member = (s.computed as i64 - self.steps as i64, s.admission, slot);
        if let Some(longest) = &mut self.longest {
            self.squares += square(s.computed);
            longest.push(member);
            // What stayed behind is dropped once it is more than the members.
            if longest.len() > 2 * self.count as usize + 16 {
                longest.retain(|m| is_at(*m, seqs));
            }
        }
        let s = &seqs[slot];
        if s.last_token != self.last_token {
            self.late.push((s.class, s.last_token));
        }
    }

    /// The next step is a member's last, which is earlier than was known when it joined.
    pub(crate) fn finish_next(&mut self, slot: u32, seqs: &mut Sequences) {
        let s = &mut seqs[slot];
        debug_assert!(s.phase == Phase::Decoding && s.finish_at > self.steps);
        s.finish_at = self.steps + 1;
        self.stale += 1;
        self.finishing
            .push(Reverse((s.finish_at, s.admission, slot)));
    }

    /// A member leaves before it is done; the caller says what becomes of it.
    pub(crate) fn leave(&mut self, slot: u32, seqs: &mut Sequences) {
        self.stale += 1;
        self.take_out(slot, seqs);
    }

    /// Takes a member out of the sums.
    fn take_out(&mut self, slot: u32, seqs: &mut Sequences) {
        let computed = seqs[slot].computed_at(self.steps);
        let crossing = self.crossing_of(computed);
        let s = &mut seqs[slot];
        debug_assert_eq!(s.phase, Phase::Decoding);
        s.generated = s.generated_at(self.steps);
        s.computed = computed;
        s.phase = Phase::Paused;
        // One who joined late and leaves before its first step keeps its own time.
        if s.joined < self.steps || s.last_token == self.last_token {
            s.last_token = self.last_token;
        } else if let Some(i) = self.late.iter().position(|&l| l == (s.class, s.last_token)) {
            self.late.swap_remove(i);
        }
        self.count -= 1;
        self.context -= u64::from(computed);
        if self.longest.is_some() {
            self.squares -= square(computed);
        }
        self.counts[crossing] -= 1;
        self.counts[self.block_size as usize + s.class.index()] -= 1;
    }

    /// Step count at which the next member is done.
    pub(crate) fn next_finish(&mut self, seqs: &Sequences) -> Option<u64> {
        while let Some(&Reverse((at, admission, slot))) = self.finishing.peek() {
            if self.stale == 0 || self.is_member(at, admission, slot, seqs) {
                return Some(at);
            }
            self.finishing.pop();
            self.stale -= 1;
        }
        None
    }

    /// The members that are done at this step count, in no order. Their entries are at the top of
    /// the heap: nothing below a later one is looked at.
    pub(crate) fn finishing_at<'a>(
        &'a self,
        at: u64,
        seqs: &'a Sequences,
    ) -> impl Iterator<Item = u32> + 'a {
        let entries = self.finishing.as_slice();
        let mut open = vec![0];
        std::iter::from_fn(move || {
            while let Some(i) = open.pop() {
                let Some(&Reverse((done, admission, slot))) = entries.get(i) else {
                    continue;
                };
                if done > at {
                    continue;
                }
                open.extend([2 * i + 1, 2 * i + 2]);
                if done == at && self.is_member(done, admission, slot, seqs) {
                    return Some(slot);
                }
            }
            None
        })
    }

    fn is_member(&self, at: u64, admission: u64, slot: u32, seqs: &Sequences) -> bool {
        seqs.live(slot).is_some_and(|s| {
            s.phase == Phase::Decoding && s.finish_at == at && s.admission == admission
        })
    }

    /// Most tokens in KV of any member; none if there is no member or nobody asks.
    pub(crate) fn longest(&mut self, seqs: &Sequences) -> Option<u32> {
        let longest = self.longest.as_mut()?;
        loop {
            let &member = longest.peek()?;
            if is_at(member, seqs) {
                return Some((member.0 + self.steps as i64) as u32);
            }
            longest.pop();
        }
    }

    /// `steps` steps are done, the last of them at `end`.
    pub(crate) fn advance(&mut self, steps: u64, end: SimTime) {
        self.place = self.ring(steps) as u32;
        self.steps += steps;
        self.last_token = end;
        if self.longest.is_some() {
            self.squares += growth_of_squares(steps, self.context, u64::from(self.count));
        }
        self.context += steps * u64::from(self.count);
        self.late.clear();
    }

    /// Takes out one member that is done, in the order of the batch.
    pub(crate) fn pop_finished(&mut self, seqs: &mut Sequences) -> Option<u32> {
        if self.next_finish(seqs)? > self.steps {
            return None;
        }
        let Reverse((_, _, slot)) = self.finishing.pop()?;
        self.take_out(slot, seqs);
        Some(slot)
    }
}

fn square(context: u32) -> u128 {
    u128::from(context) * u128::from(context)
}

/// (context minus steps, place in the batch, slot): the same all the time a request is a member.
type Member = (i64, u64, u32);

/// Whether a request is (still) a member with this context.
fn is_at((offset, admission, slot): Member, seqs: &Sequences) -> bool {
    seqs.live(slot).is_some_and(|s| {
        s.phase == Phase::Decoding
            && s.admission == admission
            && s.computed as i64 - s.joined as i64 == offset
    })
}

#[cfg(test)]
mod tests;
