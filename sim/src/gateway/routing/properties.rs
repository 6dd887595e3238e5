//! What holds for every policy on every scene.

use super::tests::{FACTS, least, parse, scene};
use super::*;
use crate::gateway::fixtures::{Shown, decide, replica, request};
use crate::view::Feedback;
use proptest::prelude::*;
use std::collections::BTreeMap;
use windtunnel_base::content::Extent;
use windtunnel_base::rng::Rng;
use windtunnel_base::time::SimTime;
use windtunnel_engine::request::RequestView;
use windtunnel_scenarios::schema::policies::{
    FilterSpec, ForgetOrder, LoadSignal, PickerKind, PrefixIndexSpec, ScorerKind, TieBreak,
};

/// Every policy, at parameters under which all its branches occur.
fn every_policy() -> Vec<RoutingSpec> {
    use LoadSignal as L;
    let mut all = vec![RoutingSpec::RoundRobin, RoutingSpec::Random];
    for load in [
        L::InFlight,
        L::InFlightTokens,
        L::TotalTokens,
        L::Waiting,
        L::WaitingAndRunning,
        L::KvUtilization,
        L::VllmDp,
    ] {
        all.push(RoutingSpec::PowerOfTwo { load, choices: 2 });
        for ties in [TieBreak::LowestId, TieBreak::Random] {
            all.push(RoutingSpec::LeastLoaded { load, ties });
        }
    }
    for text in [
        r#"{"kind":"session"}"#,
        r#"{"kind":"consistent_hashing","virtual_nodes":5}"#,
        r#"{"kind":"consistent_hashing","key":"prefix","epsilon":"none"}"#,
        r#"{"kind":"prefix_hash","prefix_tokens":20}"#,
        r#"{"kind":"affinity","columns":1}"#,
        r#"{"kind":"affinity","key":"conversation","epsilon":"none","load":"waiting"}"#,
        r#"{"kind":"affinity","key":"prompt","max_entries":2,"ttl_from":"first_use"}"#,
        r#"{"kind":"cache_aware","max_tree_tokens":200,"balance_abs_threshold":2}"#,
        r#"{"kind":"cache_aware","max_tree_nodes":3,"balance_abs_threshold":2}"#,
        r#"{"kind":"kv_router"}"#,
        r#"{"kind":"kv_router","use_kv_events":false,"temperature":0.5}"#,
    ] {
        all.push(parse(text));
    }
    let scorers: BTreeMap<_, _> = [
        ScorerKind::QueueDepth,
        ScorerKind::KvUtilization,
        ScorerKind::PrefixCache,
        ScorerKind::PrecisePrefixCache,
        ScorerKind::LoadAware,
        ScorerKind::ActiveRequest,
        ScorerKind::SessionAffinity,
        ScorerKind::NoHitLru,
        ScorerKind::Running,
    ]
    .into_iter()
    .zip([1.0, 0.5, 2.0, 1.5, 0.7, 0.3, 0.9, 0.2, 0.1])
    .collect();
    for picker in [
        PickerKind::MaxScore,
        PickerKind::MaxScoreRandomTie,
        PickerKind::WeightedRandom,
    ] {
        all.push(RoutingSpec::Weighted {
            filters: vec![
                FilterSpec::MaxWaiting { limit: 3 },
                FilterSpec::LongestPrefix { within_tokens: 16 },
                FilterSpec::MaxKvUtilization { limit: 0.5 },
                FilterSpec::LeastWaiting,
            ],
            scorers: scorers.clone(),
            picker,
            prefix_index: PrefixIndexSpec {
                block_tokens: 4,
                max_blocks: 8,
                capacity_blocks: 30,
                forget: ForgetOrder::DeepestFirst,
            },
            normalize: false,
            order: Vec::new(),
        });
    }
    all.extend([
        RoutingSpec::SglangGateway,
        RoutingSpec::Gie,
        RoutingSpec::LlmD,
        RoutingSpec::Dynamo,
        RoutingSpec::VllmDp,
    ]);
    all
}

fn shown() -> impl Strategy<Value = Shown> {
    (
        0..5_u32,
        0..300_u64,
        0..900_u64,
        0..6_u32,
        0..6_u32,
        0..1001_u64,
    )
        .prop_map(
            |(in_flight, in_flight_tokens, total_tokens, waiting, running, kv_held)| Shown {
                in_flight,
                in_flight_tokens,
                total_tokens,
                waiting,
                running,
                kv_held,
            },
        )
}

/// Routable replicas among eight, with what they show and have cached; and a request.
type Moment = (Vec<(u32, Shown)>, Vec<u32>, (u64, u64, u32, u32));

fn moments() -> impl Strategy<Value = Vec<Moment>> {
    let fleet = prop::collection::btree_map(0..8_u32, shown(), 1..8)
        .prop_map(|fleet| fleet.into_iter().collect());
    let cached = prop::collection::vec(0..100_u32, 8);
    let asked = (0..4_u64, 0..3_u64, 1..50_u32, 0..30_u32);
    prop::collection::vec((fleet, cached, asked), 1..30)
}

fn play(spec: &RoutingSpec, moments: &[Moment]) -> Vec<(u32, Vec<f64>)> {
    let mut policy = build(spec, &FACTS);
    let mut rng = Rng::from_seed(9);
    let mut choices = Vec::new();
    for (id, (fleet, cached, (session, key, shared, rest))) in moments.iter().enumerate() {
        let prefix = [Extent {
            key: *key,
            tokens: *shared,
        }];
        let asked = RequestView {
            session: *session,
            ..request(id as u32, shared + rest, &prefix)
        };
        let replicas: Vec<_> = fleet.iter().map(|&(id, s)| replica(id, s)).collect();
        choices.push(decide(policy.as_mut(), &asked, &replicas, cached, &mut rng));
        // Some answers begin or end, some fail.
        for (back, feedback) in [
            (1, Feedback::FirstToken),
            (2, Feedback::Finished),
            (3, Feedback::Failed),
        ] {
            if id >= back && policy.wants_feedback() {
                let (.., (_, key, shared, rest)) = moments[id - back];
                let prefix = [Extent {
                    key,
                    tokens: shared,
                }];
                let old = request((id - back) as u32, shared + rest, &prefix);
                let to = ReplicaId(choices[id - back].0);
                policy.observe(&old, to, feedback, SimTime::ZERO);
            }
        }
    }
    choices
}

/// What happens between two decisions: replicas whose loads or statistics change, whether the
/// policy is told which, and the next request.
type Turn = (Vec<(u32, Shown)>, u32, (u64, u64, u32, u32));

fn turns() -> impl Strategy<Value = (u32, Vec<Turn>)> {
    let few = prop::collection::btree_map(0..48_u32, shown(), 0..4)
        .prop_map(|fleet| fleet.into_iter().collect());
    let asked = (0..4_u64, 0..3_u64, 1..50_u32, 0..30_u32);
    let turn = (few, 0..8_u32, asked);
    (30..48_u32, prop::collection::vec(turn, 1..40))
}

/// The choices of a policy that is told what changed, or (`told` false) never is. Loads alone
/// change between statistics that stay, as between two scrapes, unless the turn says otherwise.
fn choices_of(spec: &RoutingSpec, replicas: u32, turns: &[Turn], told: bool) -> Vec<u32> {
    let mut policy = build(spec, &FACTS);
    let mut rng = Rng::from_seed(9);
    let mut fleet: Vec<_> = (0..replicas)
        .map(|id| replica(id, Shown::default()))
        .collect();
    let cached = crate::gateway::fixtures::Cached(vec![0; replicas as usize]);
    let mut changed = std::collections::BTreeSet::new();
    let mut sent: Vec<(ReplicaId, u64, u32, u32)> = Vec::new();
    for (number, (changes, how, (key, session, shared, rest))) in turns.iter().enumerate() {
        for (id, shown) in changes.iter().filter(|(id, _)| *id < replicas) {
            let view = &mut fleet[*id as usize];
            let stats = view.stats;
            *view = replica(*id, *shown);
            if *how > 1 {
                view.stats = stats;
            }
            changed.insert(ReplicaId(*id));
        }
        let list: Vec<_> = changed.iter().copied().collect();
        let prefix = [Extent {
            key: *key,
            tokens: *shared,
        }];
        let now = SimTime::from_nanos(number as u64 * 1_000_000_000);
        let seen = FleetView {
            now,
            replicas: &fleet,
            cache: &cached,
            news: if told && number > 0 && *how > 0 {
                crate::view::News::Only(&list)
            } else {
                crate::view::News::Everything
            },
        };
        let asked = RequestView {
            session: *session,
            ..request(number as u32, shared + rest, &prefix)
        };
        let mut cx = PolicyCx {
            rng: &mut rng,
            scores: None,
        };
        let crate::view::Route::To(to) = policy.route(&asked, &seen, &mut cx) else {
            panic!("refused");
        };
        changed = std::collections::BTreeSet::from([to]);
        fleet[to.index()].in_flight += 1;
        sent.push((to, *key, *shared, *rest));
        if number >= 2 && policy.wants_feedback() {
            let (to, key, shared, rest) = sent[number - 2];
            let prefix = [Extent {
                key,
                tokens: shared,
            }];
            let old = request((number - 2) as u32, shared + rest, &prefix);
            let feedback = [Feedback::FirstToken, Feedback::Finished][number % 2];
            policy.observe(&old, to, feedback, now);
        }
    }
    sent.into_iter().map(|(to, ..)| to.0).collect()
}

/// Policies that keep an order, at parameters under which it matters.
fn that_keep_an_order() -> Vec<RoutingSpec> {
    let mut all = every_policy();
    for text in [
        r#"{"kind":"kv_router","use_kv_events":false}"#,
        r#"{"kind":"kv_router","use_kv_events":false,"ttl":"6s","overlap_score_credit":0.7}"#,
        r#"{"kind":"kv_router","use_kv_events":false,"prefill_load_scale":2.0,"decode_active_request_weight":3.0}"#,
        r#"{"kind":"least_loaded","ties":"go_random","load":"waiting_running_in_flight"}"#,
        r#"{"kind":"weighted","scorers":{"queue_depth":1,"load_balance":2,"prefix_cache":0.3},"picker":"max_score_go_random_tie","normalize":true}"#,
        r#"{"kind":"weighted","scorers":{"running":1,"session_affinity":0.5,"load_aware":1},"picker":"max_score_random_tie"}"#,
        r#"{"kind":"weighted","scorers":{"kv_utilization":1,"prefix_cache":3},"order":["prefix_cache"]}"#,
        r#"{"kind":"weighted","scorers":{"idle_first":1,"vllm_dp":3}}"#,
    ] {
        all.push(parse(text));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// An order that is kept from decision to decision chooses what looking at every replica
    /// chooses, and draws as often.
    #[test]
    fn being_told_what_changed_changes_no_choice((replicas, turns) in turns()) {
        for spec in that_keep_an_order() {
            let told = choices_of(&spec, replicas, &turns, true);
            prop_assert_eq!(told, choices_of(&spec, replicas, &turns, false), "{:?}", spec);
        }
    }

    /// Every policy names a replica in view and repeats itself; what is scored best is chosen,
    /// unless it is chance that chooses.
    #[test]
    fn choices_are_in_view_repeatable_and_explained(moments in moments()) {
        for spec in every_policy() {
            let choices = play(&spec, &moments);
            prop_assert_eq!(&choices, &play(&spec, &moments), "{:?} repeats itself", spec);
            for ((chosen, scores), (fleet, ..)) in choices.iter().zip(&moments) {
                prop_assert!(fleet.iter().any(|(id, _)| id == chosen), "{:?}", spec);
                let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let drawn = matches!(&spec,
                    RoutingSpec::KvRouter { temperature, .. } if *temperature > 0.0)
                    || matches!(&spec,
                    RoutingSpec::Weighted { picker: PickerKind::WeightedRandom, .. });
                let its = scores[*chosen as usize];
                prop_assert!(drawn || its >= best, "{:?}: {} of {:?}", spec, chosen, scores);
                prop_assert!(its > f64::NEG_INFINITY, "{:?} chose one that was out", spec);
            }
        }
    }

    /// No policy but those that hash or take turns cares how replicas are called: if all loads
    /// differ, exchanging what two replicas show exchanges the choice.
    #[test]
    fn names_do_not_matter(turn in 1..4_usize, cached in prop::sample::subsequence((0..20_u32).collect::<Vec<_>>(), 4)) {
        let (_, after, _) = scene();
        let choice = |spec: &RoutingSpec, turn: usize| {
            let at = |place: usize| (place + turn) % 4;
            let fleet: Vec<_> = (0..4).map(|p| ReplicaView { id: ReplicaId(p as u32), ..after[at(p)] }).collect();
            let cached: Vec<_> = (0..4).map(|p| cached[at(p)] * 16).collect();
            let mut rng = Rng::from_seed(3);
            let asked = request(0, 400, &[]);
            let to = decide(build(spec, &FACTS).as_mut(), &asked, &fleet, &cached, &mut rng).0;
            at(to as usize)
        };
        for spec in [
            least(LoadSignal::InFlight),
            least(LoadSignal::InFlightTokens),
            least(LoadSignal::TotalTokens),
            least(LoadSignal::Waiting),
            least(LoadSignal::WaitingAndRunning),
            least(LoadSignal::KvUtilization),
            parse(r#"{"kind":"session"}"#),
            parse(r#"{"kind":"cache_aware"}"#),
            RoutingSpec::Gie,
            RoutingSpec::LlmD,
            RoutingSpec::Dynamo,
        ] {
            prop_assert_eq!(choice(&spec, 0), choice(&spec, turn), "{:?}", spec);
        }
    }
}
