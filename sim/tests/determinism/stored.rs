//! Random stored answers, who waits for whom, and what is asked.

use crate::common::U;
use proptest::prelude::*;
use windtunnel_base::eviction::EvictionKind;
use windtunnel_base::quantity::Span;
use windtunnel_base::time::SimDuration;
use windtunnel_scenarios::schema::answers::{
    AnswersSpec, CoalescingSpec, OnFailure, SemanticSpec, SimilarityRule, TtlSince,
};
use windtunnel_scenarios::workload::Question;

/// Few questions in few wordings, so that they meet.
pub(crate) fn question() -> impl Strategy<Value = Option<Question>> {
    let asked = (0_u64..2, 0_u64..3, 0_u64..8).prop_map(|(about, wording, sampling)| Question {
        about,
        words: 10 * about + wording / 2,
        sampling: sampling / 7,
    });
    prop::option::weighted(0.85, asked)
}

fn span(most: u64) -> impl Strategy<Value = Span> {
    (1..most * U).prop_map(|ns| Span(SimDuration::from_nanos(ns)))
}

fn semantic() -> impl Strategy<Value = SemanticSpec> {
    let rule = prop_oneof![
        (0.5_f64..1.0).prop_map(|at_least| SimilarityRule::Threshold { at_least }),
        (0.05_f64..0.9, 0.1_f64..0.9).prop_map(|(max_error, confidence)| {
            SimilarityRule::Learned {
                max_error,
                confidence,
            }
        }),
    ];
    rule.prop_map(|rule| SemanticSpec {
        rule,
        ..SemanticSpec::default()
    })
}

pub(crate) fn answers() -> impl Strategy<Value = AnswersSpec> {
    let time = (
        prop::option::weighted(0.9, span(25)),
        any::<bool>(),
        0.0_f64..1.0,
    );
    let stale = (span(20), span(150), prop::option::of(0.1_f64..3.0));
    let room = (prop::option::of(1_u64..4), any::<(bool, bool)>());
    (time, stale, room, prop::option::of(semantic())).prop_map(|(time, stale, room, semantic)| {
        let (ttl, since_use, ttl_jitter) = time;
        let (stale_while_revalidate, stale_if_error, early_refresh) = stale;
        let (capacity, (exact, keep_rejected)) = room;
        AnswersSpec {
            exact: exact || semantic.is_none(),
            ttl,
            ttl_since: if since_use {
                TtlSince::Use
            } else {
                TtlSince::Write
            },
            ttl_jitter,
            early_refresh,
            stale_while_revalidate,
            stale_if_error,
            capacity,
            eviction: if keep_rejected {
                EvictionKind::Lfu
            } else {
                EvictionKind::Lru
            },
            keep_rejected,
            semantic,
            ..AnswersSpec::default()
        }
    })
}

pub(crate) fn coalescing() -> impl Strategy<Value = CoalescingSpec> {
    (any::<bool>(), prop::option::of(span(20))).prop_map(|(promote, follower_timeout)| {
        CoalescingSpec {
            on_failure: if promote {
                OnFailure::Promote
            } else {
                OnFailure::FanOut
            },
            follower_timeout,
            ..CoalescingSpec::default()
        }
    })
}
