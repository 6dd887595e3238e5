use super::*;
use crate::gateway::fixtures::request;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use windtunnel_base::content::{Extent, shared_tokens};

const fn e(key: u64, tokens: u32) -> Extent {
    Extent { key, tokens }
}

fn at(nanos: u64) -> SimTime {
    SimTime::from_nanos(nanos)
}

fn limits(block_tokens: u32, capacity_blocks: u64) -> RoutedLimits {
    RoutedLimits {
        block_tokens,
        max_blocks: u32::MAX,
        capacity_blocks,
        max_entries: u32::MAX,
        ttl: None,
    }
}

fn matches(index: &mut RoutedIndex, now: u64, tokens: u32, prefix: &[Extent]) -> Vec<u32> {
    let mut blocks = Vec::new();
    index.matches(&request(0, tokens, prefix), at(now), 3, &mut blocks);
    blocks
}

#[test]
fn matches_count_whole_blocks_across_extents() {
    let mut index = RoutedIndex::new(limits(16, 100));
    let prompt = [e(1, 24), e(2, 24)];
    index.insert(&request(0, 50, &prompt), ReplicaId(1), at(0));
    assert_eq!(
        index.blocks_kept(ReplicaId(1)),
        3,
        "48 shared tokens; 2 more end no block"
    );
    assert_eq!(matches(&mut index, 0, 50, &prompt), [0, 3, 0]);
    // 24 + 7 tokens shared: one block, although the second ends beyond the first extent.
    assert_eq!(
        matches(&mut index, 0, 60, &[e(1, 24), e(2, 7), e(3, 20)]),
        [0, 1, 0]
    );
    assert_eq!(
        matches(&mut index, 0, 60, &[e(1, 24), e(2, 8), e(3, 20)]),
        [0, 2, 0]
    );
    assert_eq!(
        matches(&mut index, 0, 60, &[e(1, 16), e(2, 24)]),
        [0, 1, 0],
        "the same stream after a shorter extent is another content"
    );
}

#[test]
fn the_least_recently_used_leaves_deepest_first() {
    let mut index = RoutedIndex::new(limits(10, 6));
    let (a, b) = ([e(1, 40)], [e(2, 20)]);
    index.insert(&request(0, 40, &a), ReplicaId(0), at(0));
    index.insert(&request(1, 20, &b), ReplicaId(0), at(1));
    assert_eq!(matches(&mut index, 1, 40, &a)[0], 4, "six blocks fit");
    // The beginning of `a` is used again; a third stream needs three blocks. What goes: the two
    // oldest blocks, the end of `a`, then the deepest of `b`.
    index.insert(&request(2, 20, &[e(1, 20)]), ReplicaId(0), at(2));
    index.insert(&request(3, 30, &[e(3, 30)]), ReplicaId(0), at(3));
    assert_eq!(matches(&mut index, 3, 40, &a)[0], 2);
    assert_eq!(matches(&mut index, 3, 20, &b)[0], 1);
    assert_eq!(index.blocks_kept(ReplicaId(0)), 6);
    // A prompt larger than the index keeps its beginning.
    index.insert(&request(4, 90, &[e(4, 90)]), ReplicaId(0), at(4));
    assert_eq!(matches(&mut index, 4, 90, &[e(4, 90)])[0], 6);
    assert_eq!(matches(&mut index, 4, 40, &a)[0], 0);
    assert_eq!(index.entries(), 1);
}

#[test]
fn what_nobody_shares_takes_space_all_the_same() {
    let mut index = RoutedIndex::new(limits(10, 5));
    index.insert(&request(0, 20, &[e(1, 20)]), ReplicaId(0), at(0));
    index.insert(&request(1, 40, &[]), ReplicaId(0), at(1));
    assert_eq!(index.blocks_kept(ReplicaId(0)), 5);
    assert_eq!(matches(&mut index, 1, 20, &[e(1, 20)])[0], 1);
}

#[test]
fn time_to_live_counts_from_the_last_use() {
    let mut index = RoutedIndex::new(RoutedLimits {
        ttl: Some(SimDuration::from_nanos(10)),
        ..limits(10, u64::MAX)
    });
    let prompt = [e(1, 40)];
    index.insert(&request(0, 40, &prompt), ReplicaId(0), at(0));
    index.insert(&request(1, 20, &[e(1, 20)]), ReplicaId(0), at(5));
    assert_eq!(matches(&mut index, 9, 40, &prompt)[0], 4);
    assert_eq!(
        matches(&mut index, 10, 40, &prompt)[0],
        2,
        "the used half lives on"
    );
    assert_eq!(matches(&mut index, 15, 40, &prompt)[0], 0);
    assert_eq!((index.entries(), index.places.len()), (0, 0));
}

#[test]
fn millions_of_tokens_cost_entries_by_request_not_by_block() {
    let mut index = RoutedIndex::new(limits(1, 10_000_000));
    // A conversation of 100 turns that grows by 1,000 tokens each.
    for turn in 1..=100 {
        let prompt = [e(9, 500), e(7, turn * 1000)];
        index.insert(
            &request(turn, 500 + turn * 1000, &prompt),
            ReplicaId(0),
            at(0),
        );
    }
    assert_eq!(index.blocks_kept(ReplicaId(0)), 100_500);
    assert_eq!(index.entries(), 2, "each turn covers the one before");
}

/// A prompt of so many streams, one block each; the first half is common to all prompts of that length.
fn forked(prompt: u64, streams: u64) -> Vec<Extent> {
    let own = |depth| if depth < streams / 2 { 0 } else { prompt << 20 };
    (0..streams).map(|d| e(own(d) + d, 16)).collect()
}

/// E06: the work of a lookup is linear in the length of the prompt, and neither the number of prompts held
/// nor how many of them go on from the same place adds to it.
#[test]
fn a_lookup_looks_once_at_each_stream_of_the_prompt_and_at_nothing_else() {
    for held in [1_u64, 100, 10_000] {
        for streams in [1_u64, 8, 64] {
            let mut index = RoutedIndex::new(limits(16, u64::MAX));
            let tokens = 16 * streams as u32;
            for prompt in 1..=held {
                let prompt = forked(prompt, streams);
                index.insert(&request(0, tokens, &prompt), ReplicaId(1), at(0));
            }
            let mut work = |prompt: u64, found: u32| {
                index.looked_at.set(0);
                let prompt = forked(prompt, streams);
                assert_eq!(matches(&mut index, 0, tokens, &prompt), [0, found, 0]);
                index.looked_at.get()
            };
            // Its place, and the one replica that has it.
            assert_eq!(work(held, streams as u32), 2 * streams);
            // What nobody has ends at the fork.
            assert_eq!(work(held + 1, streams as u32 / 2), 2 * (streams / 2) + 1);
        }
    }
}

/// The same where beginnings are forgotten first: a stretch is never looked at twice.
#[test]
fn stretches_cost_a_lookup_no_more_than_blocks() {
    let mut index = RoutedIndex::new(limits(16, u64::MAX)).forgetting(ForgetOrder::ShallowestFirst);
    for blocks in (1..=64).rev() {
        let prompt = [e(1, 16 * blocks)];
        index.insert(&request(0, 16 * blocks, &prompt), ReplicaId(1), at(0));
    }
    for blocks in [1_u32, 8, 64] {
        index.looked_at.set(0);
        let prompt = [e(1, 16 * blocks)];
        assert_eq!(matches(&mut index, 0, 16 * blocks, &prompt), [0, blocks, 0]);
        assert_eq!(index.looked_at.get(), 2 + u64::from(blocks));
    }
}

#[test]
fn entries_are_bounded_and_the_oldest_leaves_first() {
    let mut index = RoutedIndex::new(RoutedLimits {
        max_entries: 4,
        ..limits(10, u64::MAX)
    });
    for key in 0..6 {
        let prompt = [e(key, 30)];
        index.insert(&request(0, 30, &prompt), ReplicaId(0), at(key));
    }
    let found: Vec<_> = (0..6)
        .map(|key| matches(&mut index, 6, 30, &[e(key, 30)])[0])
        .collect();
    assert_eq!(found, [0, 0, 3, 3, 3, 3]);
    assert_eq!((index.entries(), index.blocks_kept(ReplicaId(0))), (4, 12));
    // A prompt of more streams than entries keeps its beginning, and the others leave.
    let long: Vec<_> = (100..107).map(|key| e(key, 10)).collect();
    index.insert(&request(0, 70, &long), ReplicaId(0), at(7));
    assert_eq!(matches(&mut index, 7, 70, &long)[0], 4);
    assert_eq!((index.entries(), index.blocks_kept(ReplicaId(0))), (4, 4));
    // Another replica has a bound of its own.
    index.insert(&request(0, 30, &[e(9, 30)]), ReplicaId(1), at(8));
    assert_eq!(index.entries(), 5);
}

/// One entry per block: the naive model of the index.
#[derive(Default)]
struct Naive {
    /// Chain up to the block's end, blocks above it, last use.
    blocks: Vec<(Vec<Extent>, u32, u64)>,
    uses: u64,
}

/// The chain of exactly the first `tokens` tokens.
fn cut(prefix: &[Extent], tokens: u32) -> Vec<Extent> {
    let mut left = tokens;
    let mut chain = Vec::new();
    for extent in prefix {
        let taken = extent.tokens.min(left);
        if taken > 0 {
            chain.push(e(extent.key, taken));
        }
        left -= taken;
    }
    chain
}

impl Naive {
    fn insert(&mut self, block: u32, capacity: usize, prompt: u32, prefix: &[Extent], id: u64) {
        self.uses += 1;
        // What nobody shares is a stream that only this request has.
        let mut prefix = prefix.to_vec();
        let shared: u32 = prefix.iter().map(|x| x.tokens).sum();
        if prompt > shared {
            prefix.push(e(1000 + id, prompt - shared));
        }
        for depth in 0..prompt / block {
            let end = (depth + 1) * block;
            let chain = cut(&prefix, end);
            let same = |(known, ..): &(Vec<Extent>, u32, u64)| {
                shared_tokens(known, &chain) == u64::from(end)
                    && known.iter().map(|x| x.tokens).sum::<u32>() == end
            };
            if let Some(found) = self.blocks.iter_mut().find(|b| same(b)) {
                found.2 = self.uses;
            } else {
                self.blocks.push((chain, depth, self.uses));
            }
        }
        while self.blocks.len() > capacity {
            let victim = (0..self.blocks.len())
                .min_by_key(|&i| (self.blocks[i].2, std::cmp::Reverse(self.blocks[i].1)));
            self.blocks.swap_remove(victim.unwrap());
        }
    }

    fn matched(&self, block: u32, prompt: u32, prefix: &[Extent]) -> u32 {
        let has = |depth: u32| {
            let end = u64::from((depth + 1) * block);
            let chain = cut(prefix, (depth + 1) * block);
            self.blocks
                .iter()
                .any(|(known, at, _)| *at == depth && shared_tokens(known, &chain) == end)
        };
        (0..prompt / block).take_while(|&d| has(d)).count() as u32
    }
}

/// Prompts that share system prompts, then fork into few conversations, at lengths that a
/// producer may make: below one parent every stream is named by its key.
fn prompts() -> impl Strategy<Value = Vec<(u32, u32, Vec<Extent>, u32)>> {
    let one = (
        0..3_u32,
        0..3_u64,
        0..3_u64,
        1..40_u32,
        0..20_u32,
        0..30_u32,
    )
        .prop_map(|(replica, system, talk, length, more, rest)| {
            let mut prefix = vec![e(10 + system, 7 + 5 * system as u32)];
            prefix.push(e(100 + 10 * system + talk, length));
            if more > 0 && length % 3 == 0 {
                prefix.push(e(200 + talk, more));
            }
            let shared: u32 = prefix.iter().map(|x| x.tokens).sum();
            (replica, rest, prefix, shared + rest)
        });
    prop::collection::vec(one, 1..60)
}

/// Routes prompts one after the other, and before some of them a replica loses all it had: against one
/// entry per block, which is forgotten with its replica.
fn with_losses(
    prompts: &[(u32, u32, Vec<Extent>, u32)],
    losses: &[Option<u32>],
    block: u32,
    capacity: u64,
) -> Result<(), TestCaseError> {
    let mut index = RoutedIndex::new(limits(block, capacity));
    let mut naive: Vec<Naive> = (0..3).map(|_| Naive::default()).collect();
    for (id, (replica, _, prefix, prompt)) in prompts.iter().enumerate() {
        if let Some(lost) = losses.get(id).copied().flatten() {
            index.forget(ReplicaId(lost));
            naive[lost as usize].blocks.clear();
            prop_assert_eq!(index.blocks_kept(ReplicaId(lost)), 0);
        }
        let got = matches(&mut index, id as u64, *prompt, prefix);
        let want: Vec<_> = naive
            .iter()
            .map(|n| n.matched(block, *prompt, prefix))
            .collect();
        prop_assert_eq!(got, want, "request {} of {:?}", id, prefix);
        index.insert(
            &request(id as u32, *prompt, prefix),
            ReplicaId(*replica),
            at(id as u64),
        );
        naive[*replica as usize].insert(block, capacity as usize, *prompt, prefix, id as u64);
        let mut kept = 0;
        for (r, naive) in naive.iter().enumerate() {
            let here = index.blocks_kept(ReplicaId(r as u32));
            prop_assert_eq!(here, naive.blocks.len() as u64);
            prop_assert!(here <= capacity);
            kept += here;
        }
        // Memory: never more entries than blocks, and no place that nobody holds.
        prop_assert!(index.entries() as u64 <= kept);
        prop_assert!(index.places.len() <= index.holdings.len());
        prop_assert!(index.holdings.len() <= index.entries());
    }
    (0..3).for_each(|r| index.forget(ReplicaId(r)));
    let left = (index.entries(), index.holdings.len(), index.places.len());
    prop_assert_eq!(left, (0, 0, 0), "what is forgotten takes no memory");
    Ok(())
}

proptest! {
    /// E06: the longest match is that of brute force, with evictions and with replicas that are lost and
    /// come back, and memory is bounded.
    #[test]
    fn replicas_that_are_lost_are_forgotten_and_learned_anew(
        prompts in prompts(),
        losses in prop::collection::vec(prop::option::weighted(0.2, 0..3_u32), 60),
        block in 1_u32..9,
        capacity in 1_u64..60,
    ) {
        with_losses(&prompts, &losses, block, capacity)?;
    }

    #[test]
    fn like_one_entry_per_block(
        prompts in prompts(),
        block in 1_u32..9,
        capacity in 1_u64..60,
    ) {
        let mut index = RoutedIndex::new(limits(block, capacity));
        let mut naive: Vec<Naive> = (0..3).map(|_| Naive::default()).collect();
        for (id, (replica, _, prefix, prompt)) in prompts.iter().enumerate() {
            let got = matches(&mut index, id as u64, *prompt, prefix);
            let want: Vec<_> = naive.iter().map(|n| n.matched(block, *prompt, prefix)).collect();
            prop_assert_eq!(got, want, "request {} of {:?}", id, prefix);
            index.insert(&request(id as u32, *prompt, prefix), ReplicaId(*replica), at(id as u64));
            naive[*replica as usize].insert(block, capacity as usize, *prompt, prefix, id as u64);
            let kept = naive[*replica as usize].blocks.len() as u64;
            prop_assert_eq!(index.blocks_kept(ReplicaId(*replica)), kept);
        }
    }

    /// With a bound on entries: never more, never more found than without it, and the prompt that was
    /// routed last is all there.
    #[test]
    fn entries_stay_within_their_bound(
        prompts in prompts(),
        block in 1_u32..9,
        most in 4_u32..12,
    ) {
        let bounds = RoutedLimits { max_entries: most, ..limits(block, u64::MAX) };
        let mut index = RoutedIndex::new(bounds);
        let mut unbounded = RoutedIndex::new(limits(block, u64::MAX));
        for (id, (replica, _, prefix, prompt)) in prompts.iter().enumerate() {
            let got = matches(&mut index, id as u64, *prompt, prefix);
            let all = matches(&mut unbounded, id as u64, *prompt, prefix);
            prop_assert!(got.iter().zip(&all).all(|(got, all)| got <= all));
            let asked = request(id as u32, *prompt, prefix);
            for index in [&mut index, &mut unbounded] {
                index.insert(&asked, ReplicaId(*replica), at(id as u64));
            }
            let shared: u32 = prefix.iter().map(|x| x.tokens).sum();
            let now = matches(&mut index, id as u64, *prompt, prefix)[*replica as usize];
            prop_assert_eq!(now, shared / block);
            let kept: u32 = index.replicas.iter().map(|kept| kept.entries).sum();
            prop_assert_eq!(kept as usize, index.entries());
            prop_assert!(index.replicas.iter().all(|kept| kept.entries <= most));
        }
    }

    /// Without a bound, a match is the longest prefix shared with anything routed there.
    #[test]
    fn like_the_longest_shared_prefix(prompts in prompts(), block in 1_u32..9) {
        let mut index = RoutedIndex::new(limits(block, u64::MAX));
        let mut routed: Vec<Vec<&[Extent]>> = vec![Vec::new(); 3];
        for (id, (replica, _, prefix, prompt)) in prompts.iter().enumerate() {
            let longest = |chains: &Vec<&[Extent]>| {
                let shared = chains.iter().map(|c| shared_tokens(c, prefix)).max();
                shared.unwrap_or(0) as u32 / block
            };
            let want: Vec<_> = routed.iter().map(longest).collect();
            prop_assert_eq!(matches(&mut index, id as u64, *prompt, prefix), want);
            index.insert(&request(id as u32, *prompt, prefix), ReplicaId(*replica), at(0));
            routed[*replica as usize].push(prefix);
        }
    }
}
