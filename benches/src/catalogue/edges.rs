//! Answers kept near to clients, I28.

use super::answers::{seconds, world};
use super::lab::{Lab, Run};
use super::theory;
use super::{Case, CaseError, Check, Param, Point};
use windtunnel_ledger::entry::AnswerSource;

/// The cases of this file.
pub(super) const CASES: &[Case] = &[Case {
    id: "I28",
    title: "answers kept at the edge and at the origin: hits, and mean latency",
    source: "Che, Tung & Wang 2002; a sum of ways",
    params: &[
        Param {
            name: "alpha",
            default: "1.2",
            doc: "Zipf exponent of the popularity of 10,000 questions, a tenth of which fits",
        },
        Param {
            name: "near",
            default: "0.005",
            doc: "from a client to the edge, s",
        },
        Param {
            name: "far",
            default: "0.075",
            doc: "from the edge to the origin, s",
        },
        Param {
            name: "service",
            default: "0.02",
            doc: "time of an answer at the origin, s",
        },
    ],
    points: &[
        &[("service", "0.02")],
        &[("service", "2")],
        &[("alpha", "0.8")],
    ],
    run: edge_cache,
}];

/// Different questions, and how many answers fit.
const ITEMS: usize = 10_000;
const FITS: f64 = 1_000.0;

/// Hits and mean latency of a gateway that keeps answers, at so many seconds from clients and from
/// replicas.
fn kept_at(point: &Point<'_>, alpha: f64, service: f64, ways: [f64; 2]) -> Result<Run, CaseError> {
    let fill = theory::che_time(&theory::zipf(ITEMS, alpha), FITS);
    let (warm_up, counted) = (1.5 * fill, 400_000.0);
    // So few that hardly anybody asks for what is on its way.
    let text = world(
        2.0,
        &seconds(service),
        &format!("distinct = {ITEMS}, zipf = {alpha:?}"),
        &format!(
            "[gateway.answers]\ncapacity = {FITS}\n\
             [fleet.network]\nclient_to_gateway = \"{}\"\ngateway_to_replica = \"{}\"",
            seconds(ways[0]),
            seconds(ways[1])
        ),
    );
    // One long run instead of eight.
    let requests = 8.0 * (warm_up + counted);
    Lab::settled(&text, point, requests, warm_up / (warm_up + counted))?.once()
}

fn edge_cache(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let alpha = point.number("alpha", 0.0..=3.0)?;
    let near = point.number("near", 0.0..=10.0)?;
    let far = point.number("far", 0.0..=10.0)?;
    let service = point.number("service", 1e-6..=100.0)?;
    let edge = kept_at(point, alpha, service, [near, far])?;
    let origin = kept_at(point, alpha, service, [near + far, 0.0])?;
    let kept = edge.class("default");
    let hits = kept.elsewhere[AnswerSource::Stored as usize] as f64;
    let expected = theory::che_lru(&theory::zipf(ITEMS, alpha), FITS);
    let noise = 3.0 * (expected * (1.0 - expected) / kept.sent as f64).sqrt();
    let points = noise.max(0.005);
    let mean = |run: &Run| run.mean_seconds(|p| &p.e2e);
    let miss = 2.0 * far + service;
    Ok(vec![
        Check::within("hit ratio", expected, hits / kept.sent as f64, points),
        Check::within(
            "mean latency at the edge, s: near there and back, and misses far and served",
            2.0 * near + (1.0 - expected) * miss,
            mean(&edge),
            points * miss,
        ),
        Check::within(
            "mean latency at the origin, s: all the way there and back, and misses served",
            2.0 * (near + far) + (1.0 - expected) * service,
            mean(&origin),
            points * service + 1e-6,
        ),
        Check::within(
            "what the edge saves: hits times the way they are spared, s",
            expected * 2.0 * far,
            mean(&origin) - mean(&edge),
            points * 2.0 * far + 1e-6,
        ),
    ])
}
