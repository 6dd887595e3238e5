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
    FilterSpec, LoadSignal, PickerKind, PrefixIndexSpec, ScorerKind, TieBreak,
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
        r#"{"kind":"cache_aware","max_tree_tokens":200,"balance_abs_threshold":2}"#,
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
            },
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

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
