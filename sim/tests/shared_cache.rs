//! The two levels of prompt caches: what is found where, what fetching costs and hides, and a plain
//! program that keeps lists of blocks.

mod common;

use common::{Script, U, plain, request, span};
use proptest::prelude::*;
use windtunnel_base::content::Extent;
use windtunnel_base::quantity::{Bandwidth, Span};
use windtunnel_base::time::SimDuration;
use windtunnel_engine::config::{ContinuousSpec, CostSpec, LinearSpec};
use windtunnel_engine::refill::RefillWhen;
use windtunnel_ledger::result::RunResult;
use windtunnel_ledger::rows::Row;
use windtunnel_ledger::shared_cache::SharedCacheTotals;
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::schema::policies::{AffinityKey, LoadSignal, RoutingSpec, TtlFrom};
use windtunnel_scenarios::schema::shared_cache::{Prefetch, SharedCacheSpec};
use windtunnel_scenarios::workload::Arrival;
use windtunnel_sim::{RunOptions, run};

/// Bytes of keys and values per token of the model of [`llm`].
const PER_TOKEN: f64 = 131_072.0;

fn play(scenario: &Scenario, script: &Script) -> RunResult {
    run(scenario, &mut script.clone(), 7, RunOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn totals(result: &RunResult) -> SharedCacheTotals {
    result.shared_cache.unwrap_or_default()
}

/// Two replicas in turn before a shared cache, each with a link that takes so many units per token.
fn pair(per_token: f64, latency: SimDuration) -> Scenario {
    let mut scenario = plain();
    scenario.fleet.replicas = 2;
    scenario.gateway.routing = RoutingSpec::RoundRobin;
    scenario.fleet.shared_cache = Some(SharedCacheSpec {
        bandwidth: Bandwidth(PER_TOKEN / (per_token * common::units(1).as_secs_f64())),
        latency: Span(latency),
        refill: RefillWhen::Always,
        prefetch: Prefetch::Off,
        ..SharedCacheSpec::default()
    });
    scenario
}

fn cache(scenario: &mut Scenario) -> &mut SharedCacheSpec {
    scenario.fleet.shared_cache.as_mut().expect("it has one")
}

fn engine(scenario: &mut Scenario) -> &mut ContinuousSpec {
    scenario.fleet.engine.llm_mut().expect("an LLM engine")
}

/// Requests of one prompt each, whose first `shared` tokens are those of stream `key`.
fn script(requests: &[(Arrival, u64, u32)]) -> Script {
    let mut script = Script::new([]);
    script.requests = requests
        .iter()
        .map(|&(arrival, key, tokens)| {
            let prefix = (tokens > 0).then_some(Extent { key, tokens });
            (arrival, prefix.into_iter().collect())
        })
        .collect();
    script
}

fn ttft(row: &Row) -> u64 {
    row.first_token_ns.expect("it was answered") - row.sent_ns
}

/// Time per output token after the first, in ns.
fn tpot(row: &Row) -> u64 {
    (row.ended_ns - row.first_token_ns.expect("it was answered")) / u64::from(row.output_tokens - 1)
}

/// Measured on a wafer-scale system (Qwen3-32B): a prompt of n tokens takes `1.993e-5 n + 3.095e-10 n^2`
/// seconds, one that is cached `3.05e-3 + 3.615e-6 n`; the reductions are those of the same log.
#[test]
fn the_first_token_of_a_cached_prompt_takes_what_the_refill_model_says() {
    let measured = [
        (2048, 0.744),
        (4096, 0.803),
        (8192, 0.822),
        (16_384, 0.843),
        (32_768, 0.876),
        (38_000 / 16 * 16, 0.882),
    ];
    for (n, reduction) in measured {
        let mut scenario = pair(3615.0 / U as f64, SimDuration::from_micros(3050));
        let spec = engine(&mut scenario);
        spec.cost = CostSpec::Linear(LinearSpec {
            base: Some(Span(SimDuration::from_micros(1))),
            per_prefill_token: Some(Span(SimDuration::from_nanos(19_930))),
            // n^2 is twice the number of pairs of one prompt.
            per_mega_pair: Some(Span(SimDuration::from_micros(619))),
            ..LinearSpec::default()
        });
        spec.scheduler.token_budget = 1 << 20;
        spec.kv.blocks = Some(10_000);
        let asks = |at| (request(at, n + 1, 9), 5, n);
        let result = play(&scenario, &script(&[asks(0), asks(100_000)]));
        let [cold, hit] = &result.rows[..] else {
            panic!("two requests");
        };
        assert_eq!((cold.cached_tokens, hit.cached_tokens), (0, n));
        assert_eq!(totals(&result).shared_tokens, u64::from(n));
        // What is left is a step of one token that sees all the others.
        let step = 1e-6 + 19.93e-6 + 619e-12 * f64::from(n + 1);
        let refill = 3.05e-3 + 3.615e-6 * f64::from(n);
        let found = ttft(hit) as f64 / 1e9;
        assert!((found - refill - step).abs() < 3e-9, "{n}: {found}");
        let saved = 1.0 - ttft(hit) as f64 / ttft(cold) as f64;
        assert!((saved / reduction - 1.0).abs() < 0.06, "{n}: {saved}");
        // Tokens after the first come as ever.
        assert_eq!(tpot(cold), tpot(hit));
    }
}

#[test]
fn a_refill_pays_if_it_is_faster_than_computing_and_not_otherwise() {
    // A prompt token takes a unit to compute.
    let asks = |at| (request(at, 101, 2), 5, 96);
    let script = script(&[asks(0), asks(1000)]);
    let second = |per_token, when| {
        let mut scenario = pair(per_token, common::units(10));
        cache(&mut scenario).refill = when;
        let result = play(&scenario, &script);
        (ttft(&result.rows[1]), totals(&result).shared_tokens)
    };
    let computed = second(0.5, RefillWhen::Never);
    assert_eq!(computed, ((101 + 8) * U, 0));
    // 10 + 96 / 2 + a step of 5 tokens, and 10 + 96 x 2 + the same.
    assert_eq!(second(0.5, RefillWhen::Always), ((10 + 48 + 13) * U, 96));
    assert_eq!(second(2.0, RefillWhen::Always), ((10 + 192 + 13) * U, 96));
    assert_eq!(second(0.5, RefillWhen::IfFaster), ((10 + 48 + 13) * U, 96));
    assert_eq!(second(2.0, RefillWhen::IfFaster), computed);
    // 86 units for 96 tokens make the refill just as long as computing them: not worth it.
    let (below, even) = (85.0 / 96.0, 86.01 / 96.0);
    assert_eq!(second(even, RefillWhen::IfFaster), computed);
    assert!(second(below, RefillWhen::IfFaster).0 < computed.0);
}

#[test]
fn what_is_fetched_ahead_hides_behind_the_queue() {
    // 64 tokens take 20 + 64 units; the other request keeps the replica busy for 9 x 8 units and more.
    let refill = 20 + 64;
    for outputs in [1, 5, 9, 12, 40] {
        for prefetch in [Prefetch::Always, Prefetch::OnAffinity, Prefetch::Off] {
            let mut scenario = pair(1.0, common::units(20));
            cache(&mut scenario).prefetch = prefetch;
            engine(&mut scenario).scheduler.max_num_seqs = 1;
            let fills = (request(0, 65, 1), 5, 64);
            // In turn: the first replica computes the prompt, the second one serves a long answer and then
            // finds the prompt in the shared cache.
            let busy = (request(1000, 8, outputs), 1, 0);
            let other = (request(1001, 8, 1), 2, 0);
            let hit = (request(1010, 65, 1), 5, 64);
            let result = play(&scenario, &script(&[fills, busy, other, hit]));
            let totals = totals(&result);
            let wait = (result.rows[1].ended_ns - 1010 * U) / U;
            let ahead = prefetch == Prefetch::Always;
            let hidden = if ahead { wait.min(refill) } else { 0 };
            assert_eq!((totals.refills, totals.refill_ns), (1, refill * U));
            assert_eq!(totals.hidden_ns, hidden * U, "{outputs} {prefetch:?}");
            let step = 8 + 1;
            let expected = wait + refill - hidden + step;
            assert_eq!(
                ttft(&result.rows[3]),
                expected * U,
                "{outputs} {prefetch:?}"
            );
        }
    }
}

/// F38: a request that follows the map of affinity finds its prompt fetched by the time its turn comes. Times in
/// units: fetching takes 20 + 64, the request before it `wait`, its own step 8 + 1.
#[test]
fn a_hit_on_affinity_hides_the_refill_behind_the_queue() {
    const REFILL: u64 = 20 + 64;
    const STEP: u64 = 8 + 1;
    let of = |conversation: u64, (mut ask, key, tokens): (Arrival, u64, u32)| {
        ask.session = conversation;
        (ask, key, tokens)
    };
    // What it waited, and its time to first token, if its own conversation or another one asks again; the
    // request before it has so many output tokens.
    let play_with = |prefetch, ttl: u64, conversation, outputs: u32| {
        let mut scenario = pair(1.0, common::units(20));
        scenario.fleet.replicas = 1;
        scenario.gateway.routing = RoutingSpec::Affinity {
            key: AffinityKey::Conversation,
            columns: 1,
            ttl: span(ttl),
            ttl_from: TtlFrom::LastUse,
            max_entries: 100,
            epsilon: None,
            load: LoadSignal::InFlight,
        };
        cache(&mut scenario).prefetch = prefetch;
        engine(&mut scenario).scheduler.max_num_seqs = 1;
        // Others push its prompt out of the replica's own eight blocks.
        engine(&mut scenario).kv.blocks = Some(8);
        let fill = |n| of(n, (request(500 * (n - 1), 65, 1), n, 64));
        let busy = of(90, (request(3000, 8, outputs), 90, 0));
        let hit = of(conversation, (request(3010, 65, 1), 1, 64));
        let asks = [fill(1), fill(2), fill(3), fill(4), busy, hit];
        let result = play(&scenario, &script(&asks));
        assert_eq!(result.rows[5].cached_tokens, 64);
        let wait = (result.rows[4].ended_ns - 3010 * U) / U;
        assert_eq!(wait, u64::from(8 * outputs) + 8 - 10);
        let totals = totals(&result);
        let hidden = (totals.hidden_ns / U, totals.refills, totals.refill_ns / U);
        (wait, ttft(&result.rows[5]) / U, hidden)
    };
    for outputs in [1, 4, 10, 11, 12, 30] {
        let long = 100_000;
        let (wait, with, hidden) = play_with(Prefetch::OnAffinity, long, 1, outputs);
        assert_eq!(hidden, (wait.min(REFILL), 1, REFILL));
        assert_eq!(with, wait.max(REFILL) + STEP, "{outputs} tokens before it");
        // Without: one after the other.
        let alone = (wait, wait + REFILL + STEP, (0, 1, REFILL));
        assert_eq!(play_with(Prefetch::Off, long, 1, outputs), alone);
        // Who comes for the first time follows no map, nor who comes when that has forgotten.
        assert_eq!(play_with(Prefetch::OnAffinity, long, 77, outputs), alone);
        assert_eq!(play_with(Prefetch::OnAffinity, 2900, 1, outputs), alone);
        let same = play_with(Prefetch::Always, long, 77, outputs);
        assert_eq!(same, (wait, with, hidden));
    }
}

#[test]
fn a_link_carries_one_prompt_after_the_other_and_others_go_on_meanwhile() {
    let mut scenario = pair(1.0, common::units(20));
    scenario.fleet.replicas = 1;
    // Its own eight blocks are soon needed for others.
    engine(&mut scenario).kv.blocks = Some(8);
    let fill = |at, key| (request(at, 65, 1), key, 64);
    let mut asks = vec![fill(0, 1), fill(500, 2), fill(1000, 3), fill(1500, 4)];
    // Both come at once; a third has nothing to fetch.
    asks.extend([fill(3000, 1), fill(3000, 2), (request(3000, 8, 4), 9, 0)]);
    let result = play(&scenario, &script(&asks));
    let ttfts: Vec<u64> = result.rows[4..].iter().map(|r| ttft(r) / U).collect();
    // The third is served at once; the first when its 64 tokens are here, the second 64 units later:
    // the latency holds up nobody else on the link.
    assert_eq!(ttfts[2], 16);
    assert_eq!(ttfts[0], 20 + 64 + 9);
    assert_eq!(ttfts[1], 20 + 128 + 9);
    assert_eq!(totals(&result).shared_tokens, 128);
}

#[test]
fn a_request_that_leaves_while_its_prompt_is_fetched_leaves_nothing_behind() {
    let mut scenario = pair(1.0, common::units(20));
    let mut hit = request(1000, 65, 3);
    hit.patience = Some(common::units(30));
    let fills = (request(0, 65, 1), 5, 64);
    let later = (request(1100, 65, 3), 6, 0);
    let result = play(&scenario, &script(&[fills, (hit, 5, 64), later]));
    assert_eq!(result.rows[1].ended_ns, 1030 * U);
    let found = totals(&result);
    assert_eq!((found.refills, found.fetched_tokens), (0, 64));
    // The one after it finds an idle replica.
    assert_eq!(ttft(&result.rows[2]), (65 + 8) * U);
    // And with nobody else there the run comes to its end.
    scenario.run.cut_off = Some(span(1010));
    assert_eq!(
        play(&scenario, &script(&[fills, (hit, 5, 64)])).end_ns,
        1010 * U
    );
}

#[test]
fn replicas_that_were_lost_find_their_prompts_in_the_shared_cache() {
    use windtunnel_scenarios::schema::FaultSpec;
    use windtunnel_scenarios::schema::faults::Target;
    let mut scenario = pair(0.125, common::units(1));
    scenario.fleet.replicas = 1;
    scenario.faults = vec![FaultSpec::ReplicaLoss {
        at: span(500),
        lasts: span(100),
        detection: span(0),
        on: Target {
            pool: None,
            replicas: vec![0],
        },
    }];
    let asks = |at| (request(at, 65, 1), 5, 64);
    let script = script(&[asks(0), asks(300), asks(1000)]);
    let with = play(&scenario, &script);
    assert_eq!(totals(&with).local_tokens, 64, "before the loss");
    assert_eq!(totals(&with).shared_tokens, 64, "after it");
    scenario.fleet.shared_cache = None;
    let without = play(&scenario, &script);
    assert_eq!(without.rows[2].cached_tokens, 0);
    assert!(ttft(&with.rows[2]) < ttft(&without.rows[2]));
}

// --- a plain program -------------------------------------------------------------------------

/// Blocks by name, oldest first; names tell a block and all before it.
#[derive(Clone, Debug, Default)]
struct Lists {
    recent: Vec<u64>,
    capacity: usize,
}

impl Lists {
    fn matched(&self, blocks: &[u64]) -> usize {
        let here = |b: &&u64| self.recent.contains(b);
        blocks.iter().take_while(here).count()
    }

    /// Adds blocks that fit, so that the last of them is the oldest.
    fn touch(&mut self, blocks: &[u64]) {
        let kept = &blocks[..blocks.len().min(self.capacity)];
        self.recent.retain(|b| !kept.contains(b));
        self.recent.extend(kept.iter().rev());
        let over = self.recent.len().saturating_sub(self.capacity);
        self.recent.drain(..over);
    }
}

/// Names of the blocks of a prompt, of 16 tokens each.
fn names(prefix: &[Extent]) -> Vec<u64> {
    let tokens = prefix
        .iter()
        .flat_map(|e| (0..e.tokens).map(move |i| (e.key, i)));
    let tokens: Vec<(u64, u32)> = tokens.collect();
    let name = |end: usize| {
        let seen = tokens[..end].iter();
        seen.fold(17_u64, |name, &(key, i)| {
            (name ^ key.wrapping_mul(31).wrapping_add(u64::from(i)))
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        })
    };
    (1..=tokens.len() / 16).map(|n| name(16 * n)).collect()
}

fn prompts() -> impl Strategy<Value = Vec<Vec<Extent>>> {
    let extent = (1_u64..4, 1_u32..4).prop_map(|(key, blocks)| Extent {
        key,
        tokens: 16 * blocks,
    });
    prop::collection::vec(prop::collection::vec(extent, 1..4), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Requests one after the other over replicas in turn, against lists of blocks: what each finds in its
    /// replica's cache, and what in the shared one beyond that.
    #[test]
    fn two_levels_find_what_lists_of_blocks_hold(
        prompts in prompts(),
        replicas in 1_u32..4,
        local in 13_u64..30,
        shared in 4_u64..60,
    ) {
        let mut scenario = pair(0.001, SimDuration::ZERO);
        scenario.fleet.replicas = replicas;
        engine(&mut scenario).kv.blocks = Some(local);
        cache(&mut scenario).capacity = 16 * shared;
        let mut script = Script::new([]);
        script.requests = prompts.iter().enumerate().map(|(i, prefix)| {
            let tokens: u32 = prefix.iter().map(|e| e.tokens).sum();
            (request(1000 * i as u64, tokens + 1, 1), prefix.clone())
        }).collect();
        let result = play(&scenario, &script);

        let of = |capacity: u64| Lists { recent: Vec::new(), capacity: capacity as usize };
        let mut locals = vec![of(local); replicas as usize];
        let mut behind = of(shared);
        let (mut here, mut fetched, mut all) = (0, 0, 0);
        for (i, prefix) in prompts.iter().enumerate() {
            let blocks = names(prefix);
            let level = &mut locals[i % replicas as usize];
            let found = level.matched(&blocks);
            let beyond = behind.matched(&blocks).saturating_sub(found);
            prop_assert_eq!(result.rows[i].cached_tokens as usize, 16 * (found + beyond));
            here += 16 * found as u64;
            fetched += 16 * beyond as u64;
            all += u64::from(result.rows[i].prompt_tokens);
            // A block of the prompt's own last token takes its turn to leave, before the others.
            let mut used = blocks.clone();
            used.push(u64::MAX - i as u64);
            level.touch(&used);
            behind.touch(&blocks);
        }
        let totals = totals(&result);
        prop_assert_eq!((totals.local_tokens, totals.shared_tokens), (here, fetched));
        prop_assert_eq!(totals.fetched_tokens, fetched);
        // Every prompt token was computed, or found in one cache or the other.
        let computed: u64 = result.segments.iter().map(|s| s.books.prompt_tokens_computed).sum();
        prop_assert_eq!(computed + here + fetched, all);
    }

    /// Deciding by time takes the shorter of both, to the nanosecond.
    #[test]
    fn refilling_where_it_is_faster_is_the_best_of_both(
        tokens in 1_u32..30,
        per_token in 0.001_f64..3.0,
        latency in 0_u64..200 * U,
    ) {
        let asks = |at| (request(at, 16 * tokens + 3, 2), 5, 16 * tokens);
        let script = script(&[asks(0), asks(10_000)]);
        let second = |when| {
            let mut scenario = pair(per_token, SimDuration::from_nanos(latency));
            cache(&mut scenario).refill = when;
            ttft(&play(&scenario, &script).rows[1])
        };
        let [always, never] = [RefillWhen::Always, RefillWhen::Never].map(second);
        prop_assert_eq!(second(RefillWhen::IfFaster), always.min(never));
    }
}

#[test]
fn conversations_find_their_answers_in_the_shared_cache_too() {
    let scenario = pair(0.125, common::units(1));
    let turn = |at, tokens, output| {
        let mut arrival = request(at, tokens, output);
        arrival.truth.output_continues = true;
        (arrival, 5, tokens)
    };
    // The second turn repeats the first with its answer; the answer's last token is not in memory.
    let result = play(&scenario, &script(&[turn(0, 40, 40), turn(2000, 96, 8)]));
    assert_eq!(result.rows[1].cached_tokens, (40 + 39) / 16 * 16);
    assert_eq!(totals(&result).shared_tokens, 64);
}
