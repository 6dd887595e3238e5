//! Readers against the published traces and their published statistics. Skipped, with a message,
//! where the traces are not there.

mod common;

use common::{percentile, play, play_with, real_traces, scenario};
use std::collections::{BTreeMap, HashSet};
use windtunnel_base::time::SimDuration;
use windtunnel_scenarios::workload::{Traffic, prepare};

/// Prepares a `[traffic.trace]` table over the real files.
fn real(trace: &str) -> Option<Traffic> {
    let traces = real_traces()?;
    let scenario = scenario(&format!("[traffic.trace]\n{trace}"));
    Some(prepare(&scenario, None, Some(&traces), false).unwrap_or_else(|e| panic!("{e}")))
}

/// p50, p90, p99 and the largest.
fn quantiles(values: &mut [u32]) -> [u32; 4] {
    [50.0, 90.0, 99.0, 100.0].map(|p| percentile(values, p))
}

/// Against published quantiles, which round between ranks in one way or another.
fn assert_quantiles(values: &mut [u32], published: &[u32]) {
    for (value, published) in quantiles(values).iter().zip(published) {
        assert!(value.abs_diff(*published) <= 1, "{value} for {published}");
    }
}

#[test]
fn mooncake_has_its_published_lengths_and_hit_ratio() {
    let Some(traffic) = real("format = \"mooncake\"\nfile = \"mooncake/conversation_trace.jsonl\"")
    else {
        return;
    };
    let sent = play(&traffic, 1, usize::MAX);
    assert_eq!(sent.len(), 12_031);
    assert_eq!(traffic.facts().requests, Some(12_031));
    let mut input: Vec<_> = sent.iter().map(|(a, _)| a.prompt_tokens).collect();
    let mut output: Vec<_> = sent.iter().map(|(a, _)| a.truth.output_tokens).collect();
    assert_quantiles(&mut input, &[6_909, 27_367, 85_400, 126_195]);
    assert_quantiles(&mut output, &[350, 597, 1_118, 2_000]);

    // An unbounded cache of blocks, filled through extents: a block is its place in its stream.
    let mut seen = HashSet::new();
    let (mut blocks, mut hits) = (0_u32, 0_u32);
    for (_, prefix) in &sent {
        for extent in prefix {
            for block in 0..extent.tokens.div_ceil(512) {
                blocks += 1;
                hits += u32::from(!seen.insert((extent.key, block)));
            }
        }
    }
    assert_eq!((blocks, blocks - hits), (288_500, 182_790));
    assert!((f64::from(hits) / f64::from(blocks) - 0.3664).abs() < 5e-5);
}

#[test]
fn azure_has_its_published_rows() {
    let conv = "format = \"azure\"\nfile = \"azure_llm_2023/AzureLLMInferenceTrace_conv.csv\"";
    let Some(traffic) = real(conv) else { return };
    let sent = play(&traffic, 1, usize::MAX);
    assert_eq!(sent.len(), 19_366);
    let mut input: Vec<_> = sent.iter().map(|(a, _)| a.prompt_tokens).collect();
    let mut output: Vec<_> = sent.iter().map(|(a, _)| a.truth.output_tokens).collect();
    assert_quantiles(&mut input, &[1_020, 2_734, 4_142, 14_050]);
    assert_quantiles(&mut output, &[129, 424, 601, 1_000]);
    // 58.4 minutes, 5.53 per second.
    let span = sent[sent.len() - 1].0.at.as_secs_f64();
    assert!((span / 60.0 - 58.4).abs() < 0.05, "{span}");
    assert_eq!(sent[0].0.at.as_nanos(), 0);
    assert_eq!(
        sent[1].0.at.as_nanos(),
        4_314_579_000,
        "stamps keep their 100 ns"
    );

    let code =
        "format = \"azure\"\nfile = \"azure_llm_2023/AzureLLMInferenceTrace_code_min00-38.csv.gz\"";
    let Some(traffic) = real(code) else { return };
    let sent = play(&traffic, 1, usize::MAX);
    assert_eq!(sent.len(), 7_015);
    let mut output: Vec<_> = sent.iter().map(|(a, _)| a.truth.output_tokens).collect();
    assert_quantiles(&mut output, &[13, 55, 248, 1_899]);
}

#[test]
fn vtc_has_its_published_tenants() {
    let vtc = "format = \"vtc\"\nfile = \"multi_tenant/vtc_arena_27tenants.csv\"";
    let Some(traffic) = real(vtc) else { return };
    let sent = play(&traffic, 1, usize::MAX);
    assert_eq!(sent.len(), 1_500);
    let mut of: BTreeMap<u32, u32> = BTreeMap::new();
    for (arrival, _) in &sent {
        *of.entry(arrival.tenant.0).or_default() += 1;
    }
    assert_eq!(of.len(), 27);
    let mut counts: Vec<_> = of.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let share = |n: usize| f64::from(counts[..n].iter().sum::<u32>()) / 1500.0;
    for (n, published) in [(1, 0.20), (3, 0.51), (10, 0.80)] {
        assert!((share(n) - published).abs() < 0.01, "top {n}: {}", share(n));
    }
    // The scenario's own tenant comes first, then the trace's.
    assert_eq!(traffic.names().tenants.len(), 28);
    let mut input: Vec<_> = sent.iter().map(|(a, _)| a.prompt_tokens).collect();
    assert_quantiles(&mut input, &[40, 432, 902, 1_021]);
}

#[test]
fn agent_sessions_reuse_their_prefixes_as_published() {
    let agents = "format = \"agentic_coding\"\nsession_rate = \"inf\"\n\
                  file = \"agentic_coding/claude_code_sessions_shared.jsonl\"";
    let Some(traffic) = real(agents) else { return };
    assert_eq!(traffic.facts().requests, Some(25_464));
    let mut workload = traffic.workload(1);
    let sent = play_with(
        &mut *workload,
        usize::MAX,
        SimDuration::from_secs(6),
        |_| false,
    );
    assert_eq!(sent.len(), 25_464, "every call of every chain is made");
    let mut output: Vec<_> = sent.iter().map(|(a, _)| a.truth.output_tokens).collect();
    assert_quantiles(&mut output, &[219, 940, 3_902]);
    let mean = sent
        .iter()
        .map(|(a, _)| f64::from(a.prompt_tokens))
        .sum::<f64>()
        / 25_464.0;
    assert!((mean / 127_000.0 - 1.0).abs() < 0.005, "{mean}");

    // What an unbounded cache finds of every call but the first of its chain.
    let mut seen = HashSet::new();
    let (mut blocks, mut hits) = (0_u64, 0_u64);
    let (mut first_blocks, mut first_hits) = (0_u64, 0_u64);
    for (arrival, prefix) in &sent {
        for extent in prefix {
            for block in 0..extent.tokens / 64 {
                let hit = u64::from(!seen.insert((extent.key, block)));
                if arrival.turn == 0 {
                    first_blocks += 1;
                    first_hits += hit;
                } else {
                    blocks += 1;
                    hits += hit;
                }
            }
        }
    }
    let ratio = hits as f64 / blocks as f64;
    assert!((ratio - 0.974).abs() < 0.001, "{ratio}");
    // Across sessions, first prompts share tools and system prompts and nothing else.
    let first = first_hits as f64 / first_blocks as f64;
    assert!(first > 0.02 && first < 0.5, "{first}");
}

#[test]
fn a_servegen_pool_sends_at_its_published_rates() {
    // One day of 73 clients at 16.0 requests per second in the mean.
    let pool = "format = \"servegen\"\nfile = \"servegen/deepseek-r1_rates.csv\"\n\
                tokens_file = \"servegen/deepseek-r1_token_pdfs.jsonl\"";
    let Some(traffic) = real(pool) else { return };
    let expected = traffic.facts().requests.unwrap();
    assert!(
        (expected as f64 / 86_400.0 - 16.0).abs() < 0.05,
        "{expected}"
    );
    let (mut count, mut input, mut output) = (0.0, 0.0, 0.0);
    let mut outputs = Vec::new();
    for seed in 1..=2 {
        let mut workload = traffic.workload(seed);
        while workload.next_at().is_some() {
            let arrival = workload.take(&mut Vec::new());
            count += 1.0;
            input += f64::from(arrival.prompt_tokens);
            output += f64::from(arrival.truth.output_tokens);
            outputs.push(arrival.truth.output_tokens);
        }
    }
    // Two days of bursty clients: the standard error of the count is below 0.5 %.
    assert!(
        (count / 2.0 / expected as f64 - 1.0).abs() < 0.02,
        "{count}"
    );
    assert!(
        (input / count / 1_268.0 - 1.0).abs() < 0.05,
        "{}",
        input / count
    );
    assert!(
        (output / count / 1_527.0 - 1.0).abs() < 0.03,
        "{}",
        output / count
    );
    let p50 = f64::from(quantiles(&mut outputs)[0]);
    assert!((p50 / 792.0 - 1.0).abs() < 0.03, "{p50}");
}
