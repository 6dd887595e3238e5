//! The sums against a plain list of members.

use super::DecodeSet;
use crate::continuous::sequence::Sequences;
use crate::request::{RequestView, Submission, Truth};
use proptest::prelude::*;
use windtunnel_base::ids::{ClassId, RequestId, TenantId};
use windtunnel_base::time::{SimDuration, SimTime};

const BLOCK: u32 = 4;
const NOW: SimTime = SimTime::ZERO;

/// A member as a list would keep it: slot, tokens in KV, tokens still to emit.
type Member = (u32, u32, u32);

fn enter(seqs: &mut Sequences, id: u32, computed: u32, left: u32) -> u32 {
    let submission = Submission {
        request: RequestView {
            id: RequestId(id),
            sent_at: NOW,
            deadline: None,
            prompt_tokens: computed,
            max_output_tokens: None,
            predicted_output_tokens: None,
            tenant: TenantId(0),
            class: ClassId(id % 3),
            priority: 0,
            session: 0,
            prefix: &[],
        },
        truth: Truth {
            output_tokens: left + 1,
            service: SimDuration::ZERO,
            good: true,
            attack: false,
            output_continues: false,
            task: None,
        },
    };
    let slot = seqs.insert(NOW, &submission, left + 1, None);
    let s = &mut seqs[slot];
    (s.computed, s.generated, s.admission) = (computed, 1, u64::from(id));
    slot
}

fn check(set: &mut DecodeSet, seqs: &Sequences, list: &[Member]) {
    assert_eq!(set.count() as usize, list.len());
    let context: u64 = list.iter().map(|m| u64::from(m.1)).sum();
    assert_eq!(set.context(), context);
    let contexts = || list.iter().map(|m| m.1);
    assert_eq!(set.longest(seqs), contexts().max());
    let squares: u128 = contexts().map(|c| u128::from(c).pow(2)).sum();
    assert_eq!(set.squares(), squares);
    let finish = list.iter().map(|m| set.steps() + u64::from(m.2)).min();
    assert_eq!(set.next_finish(seqs), finish);
    let by_class: u32 = set.by_class().iter().sum();
    assert_eq!(by_class, set.count());
    let new_blocks = |ahead: u32| {
        let begins = |m: &&Member| (m.1 + ahead).is_multiple_of(BLOCK);
        list.iter().filter(begins).count() as u64
    };
    for ahead in 0..2 * BLOCK {
        assert_eq!(set.blocks_needed(u64::from(ahead)), new_blocks(ahead));
    }
    let growth: u64 = (1..11).map(new_blocks).sum();
    assert_eq!(set.growth(1, 11), growth);
}

proptest! {
    #[test]
    fn sums_are_those_of_the_members(
        moves in prop::collection::vec((0_u8..4, 0_u32..40, 1_u32..12), 1..60),
    ) {
        let mut set = DecodeSet::new(BLOCK, true);
        let mut seqs = Sequences::default();
        let mut list: Vec<Member> = Vec::new();
        for (id, (what, a, b)) in (0..).zip(moves) {
            match what {
                0 | 1 => {
                    let slot = enter(&mut seqs, id, a + 1, b);
                    set.join(slot, &mut seqs);
                    list.push((slot, a + 1, b));
                }
                2 if !list.is_empty() => {
                    let (slot, computed, left) = list.remove(a as usize % list.len());
                    set.leave(slot, &mut seqs);
                    prop_assert_eq!(seqs[slot].computed, computed);
                    prop_assert_eq!(seqs[slot].output - seqs[slot].generated, left);
                    if b % 2 == 0 {
                        set.join(slot, &mut seqs); // a pause
                        list.push((slot, computed, left));
                    } else {
                        seqs.remove(slot);
                    }
                }
                _ if !list.is_empty() => {
                    let most = list.iter().map(|m| m.2).min().unwrap_or(1);
                    let steps = b.min(most);
                    set.advance(u64::from(steps), NOW);
                    for m in &mut list {
                        (m.1, m.2) = (m.1 + steps, m.2 - steps);
                    }
                    while let Some(slot) = set.pop_finished(&mut seqs) {
                        let place = list.iter().position(|m| (m.0, m.2) == (slot, 0));
                        prop_assert!(place.is_some(), "{slot} is not done");
                        list.remove(place.unwrap_or_default());
                        seqs.remove(slot);
                    }
                    prop_assert!(list.iter().all(|m| m.2 > 0), "all who are done came out");
                }
                _ => {}
            }
            check(&mut set, &seqs, &list);
        }
    }
}
