use super::*;
use crate::config::{CascadeLayers, CascadeRoute};
use windtunnel_base::quantity::{Bytes, Span};

fn spec(layers: [bool; 6]) -> CascadeSpec {
    let [l0, l1, l2, l3, l4, l5] = layers;
    CascadeSpec {
        layers: CascadeLayers {
            l0,
            l1,
            l2,
            l3,
            l4,
            l5,
        },
        ..CascadeSpec::default()
    }
}

fn only(layer: usize) -> CascadeSpec {
    spec(std::array::from_fn(|i| i == layer))
}

/// Sessions of ten turns with growing contexts, one turn a second over all of them.
fn play(spec: &CascadeSpec, turns: u64) -> Vec<Turn> {
    let mut cascade = Cascade::new(spec);
    (0..turns)
        .map(|i| {
            let (round, session) = (i / 20, i % 20);
            let turn = round % 10;
            cascade.turn(&Arrival {
                now: SimTime::from_nanos(i * 1_000_000_000),
                session: session + 20 * (round / 10),
                prompt_tokens: 2_000 + 300 * turn as u32,
                output_tokens: 100 + (i % 37) as u32,
            })
        })
        .collect()
}

fn mean_time(turns: &[Turn]) -> f64 {
    turns.iter().map(|t| t.parts.total()).sum::<f64>() / turns.len() as f64
}

fn speedup(of: &CascadeSpec) -> f64 {
    let plain = CascadeSpec {
        layers: CascadeLayers::default(),
        ..of.clone()
    };
    mean_time(&play(&plain, 4_000)) / mean_time(&play(of, 4_000))
}

#[test]
fn parts_sum_to_the_time_and_each_bottleneck_can_dominate() {
    for turn in play(&spec([true; 6]), 2_000) {
        let whole = turn.time.as_secs_f64();
        assert!((turn.parts.total() - whole).abs() < 1e-8, "{turn:?}");
    }
    let share = |spec: &CascadeSpec, shape: TurnShape, of: fn(&Parts) -> f64| {
        let parts = spec.parts(&shape);
        of(&parts) / parts.total()
    };
    let shape = |prompt_tokens, output_tokens| TurnShape {
        prompt_tokens,
        cached_tokens: 0,
        output_tokens,
        large_share: 1.0,
    };
    let plain = spec([false; 6]);
    assert!(share(&plain, shape(30_000, 20), |p| p.prefill) > 0.5);
    assert!(share(&plain, shape(500, 500), |p| p.memory) > 0.5);
    let mut small = plain.clone();
    small.device.frontier = small.device.light.clone();
    assert!(share(&small, shape(500, 500), |p| p.launch) > 0.3);
    let mut crowded = plain;
    crowded.device.batch = 400;
    assert!(share(&crowded, shape(200, 500), |p| p.compute) > 0.5);
}

#[test]
fn skipping_gains_what_its_formula_says_and_spoils_its_false_skips() {
    // D05, where every turn pays for looking: S = 1 / (1 - s + c0) with equal turns.
    let mut l0 = only(0);
    l0.world.no_change = 0.3;
    let mut cascade = Cascade::new(&l0);
    let (mut skipped, mut spoiled, mut all, mut time) = (0, 0, 0, 0.0);
    let mut full = 0.0;
    for i in 0..40_000_u32 {
        let arrival = Arrival {
            now: SimTime::from_nanos(u64::from(i)),
            session: u64::from(i % 8),
            prompt_tokens: 1_000 + i / 8 % 2_000,
            output_tokens: 1 + i / 16_000,
        };
        let turn = cascade.turn(&arrival);
        full += l0
            .parts(&TurnShape {
                prompt_tokens: arrival.prompt_tokens,
                cached_tokens: 0,
                output_tokens: arrival.output_tokens,
                large_share: 1.0,
            })
            .total();
        if i >= 8 {
            all += 1;
            skipped += u32::from(turn.skipped);
            spoiled += u32::from(turn.spoiled);
        }
        time += turn.parts.total();
    }
    let share = |n: u32, of: u32| f64::from(n) / f64::from(of);
    // .3 * .9 right skips and .7 * .02 wrong ones; four standard errors.
    let skips = share(skipped, all);
    assert!(
        (skips - 0.284).abs() < 4.0 * (0.284_f64 * 0.716 / 4e4).sqrt(),
        "{skips}"
    );
    assert!((share(spoiled, all) - 0.014).abs() < 4.0 * (0.014_f64 / 4e4).sqrt());
    let want = 1.0 / (1.0 - skips + 40_000.0 * 0.005 / full);
    assert!(
        (full / time / want - 1.0).abs() < 0.005,
        "{} {want}",
        full / time
    );
}

#[test]
fn routing_at_one_sequence_gains_one_over_light_plus_large_share() {
    // V-T3, where memory limits both models and nothing else costs: S = 1 / (c + f).
    let mut l2 = only(2);
    l2.device.launch = Span::default();
    l2.device.frontier.kv_per_token = Bytes(0);
    l2.device.light.kv_per_token = Bytes(0);
    let shape = |large_share| TurnShape {
        prompt_tokens: 1,
        cached_tokens: 0,
        output_tokens: 1_000,
        large_share,
    };
    let c = 1.5 / 32.0;
    for f in [0.05, 0.13, 0.5, 1.0] {
        let parts = l2.parts(&shape(f));
        let plain = only(0).device.frontier.parameters * 2.0 * 1_000.0 / 2.7e12;
        let gain = plain / (parts.total() - parts.prefill);
        assert!((gain * (c + f) - 1.0).abs() < 1e-9, "{f}: {gain}");
    }
    // With a batch some sequence nearly always needs the frontier, and the gain is gone.
    l2.device.batch = 64;
    let parts = l2.parts(&shape(0.13));
    let plain = spec([false; 6]);
    let plain = CascadeSpec {
        device: l2.device.clone(),
        ..plain
    };
    assert!(plain.parts(&shape(1.0)).total() / parts.total() < 1.1);
}

#[test]
fn spans_save_their_share_of_launches_and_nothing_under_graphs() {
    let mut l1 = only(1);
    l1.device.batch = 4;
    let mut plain = l1.clone();
    plain.layers.l1 = false;
    let shape = TurnShape {
        prompt_tokens: 500,
        cached_tokens: 0,
        output_tokens: 200,
        large_share: 1.0,
    };
    let (with, without) = (l1.parts(&shape), plain.parts(&shape));
    assert!((without.launch / with.launch - 4.0).abs() < 1e-9);
    // D06: Amdahl on the launch share.
    let launches = without.total() - plain_without_launches(&plain, &shape);
    let want = without.total() / (without.total() - 0.75 * launches);
    assert!((without.total() / with.total() / want - 1.0).abs() < 1e-9);
    for spec in [&mut l1, &mut plain] {
        spec.spans.graph = Some(Span(SimDuration::from_micros(10)));
    }
    assert_eq!(l1.parts(&shape), plain.parts(&shape));
}

fn plain_without_launches(spec: &CascadeSpec, shape: &TurnShape) -> f64 {
    let mut free = spec.clone();
    free.device.launch = Span::default();
    free.parts(shape).total()
}

#[test]
fn small_formats_halve_what_contexts_cost_and_hold_twice_as_many() {
    let l3 = only(3);
    assert!((l3.kv_bits() - 8.4).abs() < 1e-12);
    let mut anchored = l3.clone();
    anchored.evidence.anchors = 1.0;
    assert!((anchored.kv_bits() - 16.0).abs() < 1e-12);
    // A memory for eleven long contexts at 16 bits holds twenty at 8.4, so that all turns but the
    // first of each session find theirs; at 16 bits only short contexts survive.
    let tight = |mut spec: CascadeSpec| {
        spec.device.context_memory = Bytes(11 * 5_000 * (256 << 10));
        let turns = play(&spec, 4_000);
        let later = turns.iter().skip(20);
        later.filter(|t| t.cached_tokens > 0).count()
    };
    let (small, wide) = (tight(l3), tight(anchored));
    assert!(small == 3_600 && wide < 1_200, "{small} {wide}");
}

#[test]
fn no_single_layer_helps_everywhere_and_together_they_do() {
    // D03: for each layer a world in which it gains less than a tenth.
    let mut busy = only(0);
    busy.world.no_change = 0.0;
    busy.skip.fpr = 0.0;
    let mut graphs = only(1);
    graphs.device.batch = 4;
    graphs.spans.graph = Some(Span(SimDuration::from_micros(10)));
    let mut critical = only(2);
    critical.world.critical = 1.0;
    let mut single = only(3);
    single.device.context_memory = Bytes(0);
    for (name, world) in [
        ("l0", busy),
        ("l1", graphs),
        ("l2", critical),
        ("l3", single),
    ] {
        let gain = speedup(&world);
        assert!(gain < 1.1, "{name}: {gain}");
    }
    for layer in [4, 5] {
        assert!((speedup(&only(layer)) - 1.0).abs() < 1e-12);
    }
    // And each has one in which it gains more.
    let agentic = |layer: usize| {
        let mut s = only(layer);
        s.device.context_memory = Bytes(64 << 30);
        if layer == 1 {
            s.device.frontier = s.device.light.clone();
            s.device.batch = 4;
        }
        s
    };
    for layer in 0..4 {
        let gain = speedup(&agentic(layer));
        assert!(gain > 1.1, "l{layer}: {gain}");
    }
}

#[test]
fn critical_tokens_stay_off_the_short_path_under_the_override() {
    let mut l2 = only(2);
    l2.world.critical = 0.2;
    assert!(l2.critical_short(0.87).abs() < 1e-12);
    assert!((l2.large_share(0.87) - (1.0 - 0.8 * 0.87)).abs() < 1e-12);
    l2.route = CascadeRoute {
        severity_override: false,
        ..l2.route
    };
    assert!((l2.critical_short(0.87) - 0.87).abs() < 1e-12);
    assert!((l2.large_share(0.87) - 0.13).abs() < 1e-12);
}

#[test]
fn a_lower_threshold_costs_more_and_spoils_less() {
    // D16.
    let mut last: Option<(f64, usize)> = None;
    for threshold in [0.95, 0.8, 0.6, 0.4, 0.0] {
        let mut l2 = only(2);
        l2.route.threshold = threshold;
        l2.world.error = 0.01;
        let turns = play(&l2, 4_000);
        let now = (
            mean_time(&turns),
            turns.iter().filter(|t| t.spoiled).count(),
        );
        if let Some((time, spoiled)) = last {
            assert!(
                now.0 > time && now.1 <= spoiled,
                "{threshold}: {now:?} after {last:?}"
            );
        }
        last = Some(now);
    }
    assert_eq!(last.map(|l| l.1), Some(0));
}

#[test]
fn verification_brings_bad_answers_to_the_target_and_follows_a_drift() {
    // D14: bad answers are a share of 1 % in the long run, before and after a step of drift.
    let mut l24 = spec([false, false, true, false, true, false]);
    l24.world.error = 0.004;
    l24.shadow.q_min = 0.5;
    // The corrected share of one verification is 1.27 or -0.07: steps must be small beside the
    // threshold, or the mean of their square is not.
    l24.shadow.eta = 0.002;
    l24.world.drift_at = Some(Span(SimDuration::from_secs(200_000)));
    l24.world.drift_factor = 3.0;
    let turns = play(&l24, 400_000);
    let bad = |part: &[Turn]| part.iter().filter(|t| t.spoiled).count() as f64 / part.len() as f64;
    let (calm, drifted) = (bad(&turns[100_000..200_000]), bad(&turns[300_000..]));
    assert!((calm / 0.01 - 1.0).abs() < 0.2, "{calm}");
    assert!((drifted / 0.01 - 1.0).abs() < 0.2, "{drifted}");
    // The control: without verification the drift stays.
    let mut blind = l24.clone();
    blind.layers.l4 = false;
    let turns = play(&blind, 400_000);
    assert!(bad(&turns[300_000..]) > 2.0 * bad(&turns[100_000..200_000]));
}

#[test]
fn a_bad_answer_is_caught_after_as_many_turns_as_the_catalogue_says() {
    // D13, V-D5: 1 / (q Se de) turns from one catch to the next, at a threshold that stays.
    let mut l24 = spec([false, false, true, false, true, false]);
    l24.world.error = 0.02;
    l24.shadow.eta = 1e-12;
    let turns = play(&l24, 200_000);
    let count = |which: fn(&Turn) -> bool| turns.iter().filter(|t| which(t)).count() as f64;
    let catches = count(|t| t.flagged && t.spoiled);
    let bad = count(|t| t.spoiled) / 200_000.0;
    let q = l24.shadow.q_min + l24.shadow.k * l24.large_share(l24.route.threshold);
    let want = 1.0 / (q * l24.shadow.sensitivity * bad);
    // Four standard errors of a count.
    let gap = 200_000.0 / catches;
    assert!(
        (gap / want - 1.0).abs() < 4.0 / catches.sqrt(),
        "{gap} {want}"
    );
}

#[test]
fn publications_are_read_late_and_their_threshold_is_bounded() {
    let mut l5 = spec([false, false, true, false, true, true]);
    l5.world.error = 0.02;
    l5.shadow.q_min = 0.5;
    l5.control.delay = Span(SimDuration::from_secs(5));
    let mut cascade = Cascade::new(&l5);
    let mut seen = Vec::new();
    for i in 0..20_000_u64 {
        cascade.turn(&Arrival {
            now: SimTime::from_nanos(i * 200_000_000),
            session: i % 50,
            prompt_tokens: 1_000,
            output_tokens: 50 + (i % 101) as u32,
        });
        seen.push(cascade.threshold());
    }
    // Nothing is read before the first publication and its delay have passed.
    assert!(cascade.published != l5.shadow.target);
    assert!(seen.iter().all(|t| (0.0..=0.99).contains(t)));
    // It settles: the last tenth moves less than the whole did.
    let spread = |part: &[f64]| {
        part.iter().copied().fold(f64::MIN, f64::max)
            - part.iter().copied().fold(f64::MAX, f64::min)
    };
    assert!(spread(&seen[18_000..]) <= spread(&seen));
    let first = seen.iter().position(|t| (t - seen[0]).abs() > 0.2);
    assert!(first.is_none_or(|i| i >= 25), "{first:?}");
}
