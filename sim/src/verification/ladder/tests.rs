use super::*;
use windtunnel_base::ids::RequestId;
use windtunnel_base::quantity::{Money, Power, Span};
use windtunnel_base::time::SimDuration;
use windtunnel_base::units::NanoUsd;
use windtunnel_scenarios::schema::ladder::BudgetSpec;

const N: u32 = 200_000;
const PRIOR: f64 = 0.05;

fn level(name: &str, evidence: EvidenceSpec, price: u64) -> LevelSpec {
    LevelSpec {
        name: name.to_owned(),
        evidence,
        latency: Span(SimDuration::from_millis(1)),
        price: Money(NanoUsd(price)),
        power: Power(0.0),
    }
}

fn test(sensitivity: f64, specificity: f64) -> EvidenceSpec {
    EvidenceSpec::Test {
        sensitivity,
        specificity,
    }
}

fn ladder(levels: Vec<LevelSpec>) -> LadderSpec {
    LadderSpec {
        levels,
        ..LadderSpec::default()
    }
}

fn build(ladder: &LadderSpec) -> Ladder {
    let spec = VerificationSpec {
        error_rate: PRIOR,
        ..VerificationSpec::default()
    };
    Ladder::new(ladder, &spec, Streams::new(7))
}

fn answer(i: u32) -> AnswerId {
    AnswerId::new(RequestId(i), false)
}

/// Within four standard errors of a share.
fn is_share(found: u32, of: u32, expected: f64) -> bool {
    let n = f64::from(of);
    let within = 4.0 * (expected * (1.0 - expected) / n).sqrt();
    (f64::from(found) / n - expected).abs() <= within
}

#[test]
fn a_test_alone_judges_as_its_rates_say() {
    // It moves the odds of 1 to 19 by 0.9 / 0.03 or 0.1 / 0.97: to 0.61 and 0.005, on both sides of the
    // limit of 0.0099. So who fails is rejected, and nobody else.
    let only = build(&ladder(vec![level("t", test(0.9, 0.97), 1)]));
    let accepted = |good| {
        let all = (0..N).map(|i| only.verdict(0, answer(i), good, true));
        all.filter(|v| *v == Some(true)).count() as u32
    };
    assert!(is_share(accepted(true), N, 0.97));
    assert!(is_share(accepted(false), N, 0.1));
}

#[test]
fn a_score_told_by_its_rates_has_them_at_one_limit() {
    let spec = EvidenceSpec::ScoreAt {
        sensitivity: 0.95,
        specificity: 0.97,
    };
    let (evidence, d) = (Evidence::new(spec), spec.separation().expect("a score"));
    // The score that 97 % of the good ones lie below, as a likelihood ratio.
    let limit = d * windtunnel_base::sample::normal_quantile(0.97) - d * d / 2.0;
    let above = |good| {
        let draws = (0..N).map(|i| {
            let mut rng = Streams::new(3).stream("test", u64::from(i));
            evidence.draw(&mut rng, good)
        });
        draws.filter(|llr| *llr > limit).count() as u32
    };
    assert!(is_share(above(false), N, 0.95));
    assert!(is_share(above(true), N, 0.03));
}

#[test]
fn what_evidence_is_worth_is_what_it_takes_off_the_loss() {
    // By chance: the mean loss of the better decision, before and after, over answers of which so many are
    // bad. Half a percent of the loss at stake.
    let kinds = [
        test(0.9, 0.97),
        test(0.5, 1.0),
        EvidenceSpec::Score { separation: 2.0 },
    ];
    for spec in kinds {
        let evidence = Evidence::new(spec);
        let all = build(&ladder(vec![level("l", spec, 1)]));
        for bad in [0.002, 0.0099, 0.05, 0.4] {
            let log_odds = libm::log(bad / (1.0 - bad));
            let (accept, reject) = all.losses.of_both(log_odds);
            let mut after = 0.0;
            for good in [true, false] {
                let share = if good { 1.0 - bad } else { bad };
                let losses = (0..N).map(|i| {
                    let mut rng = Streams::new(11).stream("test", u64::from(i));
                    let known = log_odds + evidence.draw(&mut rng, good);
                    let accepted = known < all.losses.balance();
                    match (accepted, good) {
                        (true, false) => all.losses.bad_accepted,
                        (false, true) => all.losses.good_rejected,
                        _ => 0.0,
                    }
                });
                after += share * losses.sum::<f64>() / f64::from(N);
            }
            let found = accept.min(reject) - after;
            let worth = all.worth(log_odds, evidence);
            let allowed = 0.005 * accept.max(reject);
            assert!(
                (worth - found).abs() <= allowed,
                "{spec:?} at {bad}: {worth} and {found}"
            );
        }
    }
}

#[test]
fn evidence_is_worth_most_where_both_mistakes_cost_the_same() {
    for spec in [test(0.9, 0.97), EvidenceSpec::Score { separation: 1.5 }] {
        let (all, evidence) = (
            build(&ladder(vec![level("l", spec, 1)])),
            Evidence::new(spec),
        );
        let worth = |off: f64| all.worth(all.losses.balance() + off, evidence);
        for step in 0..40 {
            let (near, far) = (0.2 * f64::from(step), 0.2 * f64::from(step + 1));
            assert!(worth(near) >= worth(far) - 1e-3, "{spec:?} at +{near}");
            assert!(worth(-near) >= worth(-far) - 1e-3, "{spec:?} at -{near}");
            assert!(worth(far) >= -1e-3 && worth(-far) >= -1e-3);
        }
        // Who knows learns nothing.
        assert_eq!(worth(f64::INFINITY), 0.0);
        assert_eq!(worth(f64::NEG_INFINITY), 0.0);
    }
}

#[test]
fn a_certain_test_settles_the_matter() {
    // Who passes is good for sure, whatever the next one would say.
    let levels = vec![
        level("proof", test(1.0, 0.5), 1),
        level("judge", EvidenceSpec::Score { separation: 3.0 }, 0),
    ];
    let both = build(&ladder(levels));
    for i in 0..1000 {
        match both.verdict(0, answer(i), true, true) {
            Some(accepted) => assert!(accepted),
            None => assert!(both.verdict(1, answer(i), true, true).is_some()),
        }
        let bad = both.verdict(0, answer(i), false, true);
        assert_eq!(bad, None, "it fails, and the judge costs nothing");
    }
}

#[test]
fn nobody_climbs_where_there_is_nobody_or_no_money() {
    let judge = |price| level("judge", EvidenceSpec::Score { separation: 3.0 }, price);
    let mut spec = ladder(vec![level("t", test(0.6, 0.9), 100), judge(900)]);
    let climbs = |of: &Ladder, i, may| of.verdict(0, answer(i), true, may).is_none();
    let free = build(&spec);
    assert!((0..100).any(|i| climbs(&free, i, true)));
    assert!(!(0..100).any(|i| climbs(&free, i, false)));
    // 250 for each answer: one in six may climb.
    spec.budget = Some(BudgetSpec {
        share: 0.25,
        frontier_price: Money(NanoUsd(1_500)),
        kernel_price: Money(NanoUsd(500)),
    });
    spec.climb = Climb::Always;
    let mut bound = build(&spec);
    for i in 0..600 {
        bound.ask(0);
        if climbs(&bound, i, true) {
            bound.ask(1);
        }
        assert!(bound.spent <= 250 * u128::from(bound.answers));
    }
    assert_eq!(bound.spent, 600 * 100 + 100 * 900);
}

#[test]
fn a_level_more_moves_nobody_elses_evidence() {
    let one = build(&ladder(vec![level("t", test(0.7, 0.9), 1)]));
    let mut two = ladder(vec![level("t", test(0.7, 0.9), 1)]);
    two.levels
        .push(level("judge", EvidenceSpec::Score { separation: 2.0 }, 1));
    let two = build(&two);
    for i in 0..1000 {
        let good = i % 3 > 0;
        let alone = one.verdict(0, answer(i), good, true);
        assert_eq!(alone, two.verdict(0, answer(i), good, false));
    }
    let again = AnswerId::new(RequestId(5), true);
    assert_ne!(again, answer(5), "another answer, other evidence");
}
