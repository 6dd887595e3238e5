use super::*;
use proptest::prelude::*;
use windtunnel_base::quantity::{HourlyPrice, Money, Rate, Span};
use windtunnel_scenarios::schema::pipeline::{
    IngressFilterSpec, RequestBucketSpec, StageSpec, TokenBucketSpec, TokenizeSpec,
};

fn ms(x: u64) -> Span {
    Span(SimDuration::from_millis(x))
}

fn stage_of(time: Span, share: Option<Span>) -> Option<StageSpec> {
    Some(StageSpec {
        time,
        share,
        price: Money(NanoUsd(7)),
        ..StageSpec::default()
    })
}

fn passenger(request: u32) -> Passenger {
    Passenger {
        request: RequestId(request),
        tenant: TenantId(0),
        prompt_tokens: 1_000,
        max_output_tokens: Some(500),
        attack: false,
        fail: Fail::Open,
        elapsed: SimDuration::ZERO,
    }
}

fn pass(pipeline: &mut Pipeline, part: Part, who: &Passenger) -> Passage {
    pipeline.pass(part, who, SimTime::ZERO)
}

#[test]
fn times_and_prices_add_up_and_tokens_take_their_time() {
    let spec = PipelineSpec {
        parse: stage_of(ms(1), None),
        tokenize: Some(TokenizeSpec {
            time: ms(2),
            per_token: Span(SimDuration::from_nanos(800)),
            ..TokenizeSpec::default()
        }),
        routing: stage_of(ms(3), None),
        ..PipelineSpec::default()
    };
    let mut pipeline = Pipeline::new(&spec, Streams::new(1));
    let first = pass(&mut pipeline, Part::BeforeLookup, &passenger(0));
    assert_eq!(first.took, SimDuration::from_micros(3_800));
    assert_eq!(first.price, NanoUsd(7));
    let who = Passenger {
        elapsed: first.took,
        ..passenger(0)
    };
    assert_eq!(pass(&mut pipeline, Part::AfterLookup, &who).took, ms(3).0);
    assert_eq!(pipeline.totals().time.max(), Some(6_800_000));
    assert_eq!(
        pipeline.totals().stages[StageKind::Parse as usize].price_nano_usd,
        7
    );
}

#[test]
fn what_does_not_fit_is_left_out_and_what_must_be_is_not() {
    let spec = |share| PipelineSpec {
        budget: Some(ms(5)),
        parse: stage_of(ms(3), None),
        semantic_lookup: stage_of(ms(4), share),
        routing: stage_of(ms(1), None),
        ..PipelineSpec::default()
    };
    // Its share does not fit into the two milliseconds that are left: it is not even begun.
    let mut pipeline = Pipeline::new(&spec(Some(ms(3))), Streams::new(1));
    let who = Passenger {
        elapsed: ms(3).0,
        ..passenger(0)
    };
    let passage = pass(&mut pipeline, Part::AfterLookup, &who);
    assert!(passage.left_out(StageKind::SemanticLookup));
    assert_eq!(passage.took, ms(1).0);
    // Its share would, but it takes longer: it is broken off after two, and routing is late.
    let mut pipeline = Pipeline::new(&spec(Some(ms(1))), Streams::new(1));
    let passage = pass(&mut pipeline, Part::AfterLookup, &who);
    assert!(passage.left_out(StageKind::SemanticLookup));
    assert_eq!(passage.took, ms(3).0);
    let totals = pipeline.totals();
    assert_eq!(totals.over_budget, 1, "5 + 1 ms of 5");
    let stage = &totals.stages[StageKind::SemanticLookup as usize];
    assert_eq!((stage.over_share, stage.left_out), (1, 1));
}

#[test]
fn a_check_that_cannot_be_made_fails_as_its_class_says() {
    let spec = PipelineSpec {
        budget: Some(ms(1)),
        parse: stage_of(ms(1), None),
        ingress_filter: Some(IngressFilterSpec::default()),
        ..PipelineSpec::default()
    };
    for (fail, refused) in [(Fail::Open, None), (Fail::Closed, Some(Refusal::Blocked))] {
        let mut pipeline = Pipeline::new(&spec, Streams::new(1));
        let who = Passenger {
            fail,
            ..passenger(0)
        };
        assert_eq!(
            pass(&mut pipeline, Part::BeforeLookup, &who).refused,
            refused
        );
    }
}

#[test]
fn the_filter_errs_at_its_own_rates_and_by_request() {
    let spec = PipelineSpec {
        ingress_filter: Some(IngressFilterSpec::default()),
        ..PipelineSpec::default()
    };
    let mut pipeline = Pipeline::new(&spec, Streams::new(3));
    let mut blocked = |attack, ids: std::ops::Range<u32>| {
        ids.filter(|&i| {
            let who = Passenger {
                attack,
                ..passenger(i)
            };
            pass(&mut pipeline, Part::BeforeLookup, &who)
                .refused
                .is_some()
        })
        .count() as f64
    };
    // Three standard errors of 20,000 draws.
    let near = |n: f64, p: f64| (n / 20_000.0 - p).abs() < 3.0 * (p * (1.0 - p) / 20_000.0).sqrt();
    let (caught, blamed) = (blocked(true, 0..20_000), blocked(false, 20_000..40_000));
    assert!(near(caught, 0.9) && near(blamed, 0.01), "{caught} {blamed}");
    // The same request meets the same luck, whoever came before it.
    let again = |i| {
        pass(
            &mut Pipeline::new(&spec, Streams::new(3)),
            Part::BeforeLookup,
            &passenger(i),
        )
    };
    assert_eq!(again(20_007).refused, again(20_007).refused);
    let totals = pipeline.totals();
    assert_eq!(
        (totals.attacks, totals.attacks_blocked),
        (20_000, caught as u64)
    );
}

#[test]
fn a_request_that_one_budget_refuses_takes_nothing_from_the_others() {
    let spec = PipelineSpec {
        rate_limit: Some(RateLimitSpec {
            requests: Some(RequestBucketSpec {
                rate: Rate(1.0),
                burst: 2,
            }),
            tokens: Some(TokenBucketSpec {
                per_second: 100.0,
                burst: 2_000,
            }),
            spend: Some(SpendBucketSpec {
                rate: HourlyPrice(NanoUsd(3_600)),
                burst: Money(NanoUsd(10_000_000)),
                input_per_million: Money(NanoUsd(1_000_000_000)),
                output_per_million: Money(NanoUsd(2_000_000_000)),
            }),
            ..RateLimitSpec::default()
        }),
        ..PipelineSpec::default()
    };
    let mut pipeline = Pipeline::new(&spec, Streams::new(1));
    let first = pass(&mut pipeline, Part::BeforeLookup, &passenger(0));
    assert_eq!(first.refused, None);
    // A thousand prompt tokens at a micro-dollar, five hundred of output at two.
    assert_eq!(first.charge.spend, NanoUsd(2_000_000));
    let limited = pass(&mut pipeline, Part::BeforeLookup, &passenger(1));
    assert_eq!(
        limited.refused,
        Some(Refusal::RateLimited),
        "500 tokens are left"
    );
    // The answer had 100 tokens only: 400 come back, and the next one needs 1,500 of 900.
    pipeline.settle(TenantId(0), first.charge, 1_000, 100, SimTime::ZERO);
    let small = Passenger {
        prompt_tokens: 700,
        max_output_tokens: Some(200),
        ..passenger(2)
    };
    assert_eq!(
        pass(&mut pipeline, Part::BeforeLookup, &small).refused,
        None
    );
    let third = pass(&mut pipeline, Part::BeforeLookup, &small);
    assert_eq!(
        third.refused,
        Some(Refusal::RateLimited),
        "both requests are used up"
    );
}

proptest! {
    /// With a share for every stage that its time keeps to, the whole keeps to the sum of shares; and the
    /// draws of a request do not depend on who passed before it.
    #[test]
    fn shares_that_are_kept_keep_the_budget(
        times in prop::collection::vec(0_u64..2_000_000, 3),
        sigma in 0.0_f64..1.0, ids in prop::collection::vec(0_u32..50, 1..20),
    ) {
        let stage = |i: usize| Some(StageSpec {
            time: Span(SimDuration::from_nanos(times[i])), sigma, ..StageSpec::default()
        });
        let spec = PipelineSpec {
            parse: stage(0), kernel_lookup: stage(1), routing: stage(2), ..PipelineSpec::default()
        };
        let mut together = Pipeline::new(&spec, Streams::new(9));
        for id in ids {
            for part in [Part::BeforeLookup, Part::AfterLookup] {
                let alone = pass(&mut Pipeline::new(&spec, Streams::new(9)), part, &passenger(id));
                prop_assert_eq!(pass(&mut together, part, &passenger(id)), alone);
            }
        }
        let totals = together.totals();
        let sum: u64 = totals.stages.iter().filter_map(|s| s.time.max()).sum();
        prop_assert!(totals.time.max() <= Some(sum));
    }
}
