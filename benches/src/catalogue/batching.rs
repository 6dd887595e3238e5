//! Batching and KV memory, V-C1 to V-C6: LLM engines behind the gateway.

use super::lab::Lab;
use super::theory;
use super::{Case, CaseError, Check, Param, Point};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    Case {
        id: "V-C1",
        title: "continuous over static batching, exponential output lengths: gain in throughput",
        source: "mean of the largest of B exponentials",
        params: &[Param {
            name: "batch",
            default: "8",
            doc: "requests per batch",
        }],
        points: &[
            &[("batch", "4")],
            &[("batch", "8")],
            &[("batch", "16")],
            &[("batch", "32")],
            &[("batch", "64")],
        ],
        run: exponential_gain,
    },
    Case {
        id: "V-C2",
        title: "the same with lognormal output lengths",
        source: "mean of the largest of B lognormals, integrated numerically",
        params: &[
            Param {
                name: "batch",
                default: "8",
                doc: "requests per batch",
            },
            Param {
                name: "sigma",
                default: "1",
                doc: "standard deviation of the logarithm of the length",
            },
        ],
        points: &[
            &[("sigma", "0.5"), ("batch", "8")],
            &[("sigma", "0.5"), ("batch", "32")],
            &[("sigma", "0.5"), ("batch", "64")],
            &[("sigma", "1"), ("batch", "8")],
            &[("sigma", "1"), ("batch", "32")],
            &[("sigma", "1"), ("batch", "64")],
        ],
        run: lognormal_gain,
    },
    Case {
        id: "V-C3",
        title: "decode-only engine, step = a + b B: mean batch, gap between tokens and latency",
        source: "mean field: B = x a / (1 - x b) with x tokens per ms",
        params: &[
            Param {
                name: "base_us",
                default: "6781",
                doc: "a, microseconds",
            },
            Param {
                name: "per_seq_ns",
                default: "86600",
                doc: "b, nanoseconds per running request",
            },
            Param {
                name: "rate",
                default: "10",
                doc: "requests per second",
            },
            Param {
                name: "tokens",
                default: "400",
                doc: "output tokens of each",
            },
        ],
        points: &[
            &[
                ("base_us", "6781"),
                ("per_seq_ns", "86600"),
                ("rate", "10"),
                ("tokens", "400"),
            ],
            &[
                ("base_us", "6781"),
                ("per_seq_ns", "86600"),
                ("rate", "20"),
                ("tokens", "400"),
            ],
            &[
                ("base_us", "16289"),
                ("per_seq_ns", "138300"),
                ("rate", "4"),
                ("tokens", "350"),
            ],
        ],
        run: mean_field,
    },
    Case {
        id: "V-C4",
        title: "throughput at batch B over that of a smaller batch; where it reaches a given ratio",
        source: "B (a + b) / (a + b B) with measured a and b",
        params: &[
            Param {
                name: "preset",
                default: "4xh100-llama-3.1-70b",
                doc: "a fit of the catalogue of linear cost models",
            },
            Param {
                name: "batch",
                default: "30",
                doc: "requests running",
            },
            Param {
                name: "over",
                default: "1",
                doc: "requests running in the batch compared with",
            },
            Param {
                name: "reach",
                default: "0",
                doc: "find the batch that reaches this ratio, instead; 0 does not",
            },
        ],
        points: &[
            &[("preset", "4xh100-llama-3.1-70b"), ("reach", "24")],
            &[("preset", "h100-llama-3.1-8b"), ("reach", "24")],
            &[("batch", "18"), ("over", "8")],
            &[("batch", "27"), ("over", "8")],
            &[("batch", "898"), ("over", "8")],
            &[("preset", "h100-llama-3.1-8b"), ("batch", "256")],
        ],
        run: throughput_ratio,
    },
    Case {
        id: "V-C5",
        title: "paged KV: share of held memory without a token in it",
        source: "(b - 1) / 2 over mean length plus that; 1 - mean / b where one block holds any of them",
        params: &[
            Param {
                name: "block",
                default: "16",
                doc: "tokens per block",
            },
            Param {
                name: "mean",
                default: "512",
                doc: "mean tokens of a request",
            },
        ],
        points: &[
            &[("block", "16"), ("mean", "180")],
            &[("block", "16"), ("mean", "200")],
            &[("block", "16"), ("mean", "338")],
            &[("block", "16"), ("mean", "512")],
            &[("block", "128"), ("mean", "512")],
            &[("block", "2048"), ("mean", "512")],
            &[("block", "2048"), ("mean", "338")],
        ],
        run: paging_waste,
    },
    Case {
        id: "V-C6",
        title: "KV bytes per token and tokens per instance",
        source: "2 * KV heads * head size * layers * bytes; llm-d's published 307,328 tokens",
        params: &[
            Param {
                name: "model",
                default: "qwen3-32b",
                doc: "a model of the catalogue",
            },
            Param {
                name: "gpu",
                default: "h100-sxm",
                doc: "a GPU of the catalogue",
            },
            Param {
                name: "gpus",
                default: "2",
                doc: "GPUs per replica",
            },
        ],
        points: &[
            &[("model", "llama-3.1-8b"), ("gpus", "1")],
            &[("model", "llama-3.1-70b"), ("gpus", "4")],
            &[("model", "qwen3-32b"), ("gpus", "2")],
        ],
        run: kv_capacity,
    },
];

/// A saturated engine whose steps all take 1 ms, whatever runs.
fn saturated(scheduler: &str, batch: u64, requests: u64, output: &str) -> String {
    format!(
        r#"
        version = 1
        fleet.replicas = 1
        gateway.routing.kind = "round_robin"
        [fleet.engine]
        kind = "continuous"
        scheduler = {{ kind = "{scheduler}", max_num_seqs = {batch}, token_budget = 1000000 }}
        kv = {{ blocks = 100000000, prefix_cache = false, watermark = 0.0 }}
        cost = {{ kind = "linear", base = "1ms" }}
        [traffic]
        request_rate = "inf"
        num_prompts = {requests}
        input = {{ kind = "fixed", tokens = 1 }}
        output = {output}
        "#
    )
}

/// Ratio of the times that both kinds of batching need for the same requests.
fn gain(point: &Point<'_>, batch: u64, output: &str) -> Result<super::Sampled, CaseError> {
    // The last requests of a continuous run leave slots empty; with 2,000 rounds that is below a
    // tenth of a percent. Each replication has the same requests under both schedulers.
    let requests = batch * point.length(2_000.0);
    let time = |scheduler: &str| -> Result<Vec<f64>, CaseError> {
        let runs = Lab::whole(&saturated(scheduler, batch, requests, output), point)?.run()?;
        Ok(runs.values(|r| r.end_ns() as f64))
    };
    let (all, rolling) = (time("static")?, time("chunked")?);
    Ok(super::Sampled::of(
        &all.iter()
            .zip(&rolling)
            .map(|(s, c)| s / c)
            .collect::<Vec<_>>(),
    ))
}

fn exponential_gain(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let batch = point.count("batch", 1..=512)?;
    let measured = gain(point, batch, r#"{ kind = "exponential", mean = 1000.0 }"#)?;
    Ok(vec![Check::sampled(
        "gain",
        theory::harmonic(batch as u32),
        &measured,
        0.02,
    )])
}

fn lognormal_gain(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let batch = point.count("batch", 1..=512)?;
    let sigma = point.number("sigma", 0.01..=1.5)?;
    let output = format!(r#"{{ kind = "lognormal", mean = 1000.0, sigma = {sigma:?} }}"#);
    let measured = gain(point, batch, &output)?;
    Ok(vec![Check::sampled(
        "gain",
        theory::largest_lognormal(batch as u32, sigma),
        &measured,
        0.02,
    )])
}

fn mean_field(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let a = point.number("base_us", 1.0..=1e6)? / 1e3;
    let b = point.number("per_seq_ns", 1.0..=1e9)? / 1e6;
    let rate = point.number("rate", 0.1..=1e5)?;
    let tokens = point.count("tokens", 2..=100_000)?;
    let x = rate * tokens as f64 / 1e3;
    if x * b >= 0.95 {
        return Err(point.refuse(
            "rate",
            format!(
                "unstable or nearly so: the limit is {:.0} tokens per second",
                1e3 / b
            ),
        ));
    }
    let text = format!(
        r#"
        version = 1
        fleet.replicas = 1
        gateway.routing.kind = "round_robin"
        [fleet.engine]
        kind = "continuous"
        scheduler = {{ kind = "chunked", max_num_seqs = 100000, token_budget = 10000000 }}
        kv = {{ blocks = 100000000, prefix_cache = false, watermark = 0.0 }}
        cost = {{ kind = "linear", base = "{}us", per_seq = "{}ns" }}
        [traffic]
        request_rate = "{rate} req/s"
        input = {{ kind = "fixed", tokens = 1 }}
        output = {{ kind = "fixed", tokens = {tokens} }}
        "#,
        point.text("base_us"),
        point.text("per_seq_ns"),
    );
    let runs = Lab::new(&text, point, 40_000.0)?.run()?;
    let batch = x * a / (1.0 - x * b);
    let gap = a + b * batch;
    // The rate that no load exceeds shows at an endless batch, of 200,000 here: a / (a + b B) short.
    let (seqs, each) = (200_000, 20);
    let output = format!(r#"{{ kind = "fixed", tokens = {each} }}"#);
    let cost = format!(
        r#"base = "{}us", per_seq = "{}ns""#,
        point.text("base_us"),
        point.text("per_seq_ns")
    );
    let text = saturated("chunked", seqs, seqs, &output)
        .replace(r#"base = "1ms""#, &cost)
        .replace("token_budget = 1000000", "token_budget = 10000000");
    let seconds = Lab::whole(&text, point)?.once()?.end_ns() as f64 / 1e9;
    let most = seqs as f64 / (a + b * seqs as f64) * 1e3;
    Ok(vec![
        Check::relative(
            format!(
                "tokens per second of 200,000 at once (without end: {:.0})",
                1e3 / b
            ),
            most,
            (seqs * (each - 1)) as f64 / seconds,
            0.01,
        ),
        Check::sampled(
            "mean batch",
            batch,
            &runs.each(|r| r.mean_in_system()),
            0.04,
        ),
        Check::sampled(
            "mean gap between tokens (ms)",
            gap,
            &runs.each(|r| r.mean_seconds(|p| &p.itl) * 1e3),
            0.04,
        ),
        Check::sampled(
            "mean latency (s)",
            gap * tokens as f64 / 1e3,
            &runs.each(|r| r.mean_seconds(|p| &p.e2e)),
            0.04,
        ),
    ])
}

/// Output tokens per second of an engine with this fit that always runs `seqs` requests.
fn throughput(point: &Point<'_>, preset: &str, seqs: u64) -> Result<f64, CaseError> {
    // Two rounds of long outputs, so that the single prefill steps weigh nothing.
    let (requests, tokens) = (2 * seqs, 20_000);
    let output = format!(r#"{{ kind = "fixed", tokens = {tokens} }}"#);
    let cost = format!(r#"preset = "{preset}", per_prefill_token = "0ns""#);
    let text = saturated("chunked", seqs, requests, &output).replace(r#"base = "1ms""#, &cost);
    let seconds = Lab::whole(&text, point)?.once()?.end_ns() as f64 / 1e9;
    Ok((requests * tokens) as f64 / seconds)
}

/// What the catalogue prints: fit, ratio, batch that reaches it.
const REACHED: [(&str, f64, f64); 2] = [
    ("4xh100-llama-3.1-70b", 24.0, 29.8),
    ("h100-llama-3.1-8b", 24.0, 34.0),
];

fn throughput_ratio(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let preset = point.text("preset");
    let fits = &windtunnel_engine::cost::linear::STEP_FITS;
    let fit = fits.iter().find(|f| f.name == preset);
    let fit = fit.ok_or_else(|| point.refuse("preset", "no such fit in the catalogue"))?;
    let (a, b) = (fit.base_ms, fit.per_seq_ms);
    let over = point.count("over", 1..=4_096)?;
    let reach = point.number("reach", 0.0..=1e6)?;
    let below = throughput(point, preset, over)?;
    let m = over as f64;
    // Ratio of an endless batch: (1 / b) over the throughput of the smaller one.
    let limit = (a + b * m) / (b * m);
    if reach > 0.0 {
        if reach < 1.0 || reach > 0.99 * limit {
            let reason = format!("this fit reaches from 1 to less than {limit:.1} times");
            return Err(point.refuse("reach", reason));
        }
        // B (a + b m) = r m (a + b B), solved for B.
        let exact = reach * m * a / (a + b * m - reach * m * b);
        if exact > 65_536.0 {
            return Err(point.refuse("reach", format!("it takes a batch of {exact:.0}")));
        }
        let ratio = |seqs: f64| Ok(throughput(point, preset, seqs as u64)? / below);
        let (low, high) = (ratio(exact.floor())?, ratio(exact.floor() + 1.0)?);
        let found = exact.floor() + (reach - low) / (high - low);
        let mut checks = vec![Check::relative("batch that reaches it", exact, found, 0.01)];
        if let Some(&(.., table)) = REACHED
            .iter()
            .find(|k| (k.0, k.1, over) == (preset, reach, 1))
        {
            checks.push(Check::digits(
                "the same, against the table",
                table,
                found,
                1,
            ));
        }
        return Ok(checks);
    }
    let batch = point.count("batch", 1..=65_536)?;
    let n = batch as f64;
    let ratio = throughput(point, preset, batch)? / below;
    let exact = n / m * (a + b * m) / (a + b * n);
    // The fits end at a batch of 256; the catalogue has one measurement far beyond.
    let beyond = preset == "4xh100-llama-3.1-70b" && (batch, over) == (898, 8);
    let note = if beyond {
        " (fit extrapolated; hardware: 14.5)"
    } else {
        ""
    };
    let name = format!("throughput over that of the smaller batch{note}");
    Ok(vec![
        Check::relative(name, exact, ratio, 0.01),
        Check::at_most("and its limit at an endless batch", limit, ratio),
    ])
}

fn paging_waste(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    use windtunnel_base::rng::Streams;
    use windtunnel_engine::kv::{KvCache, KvLayout};
    let block = point.count("block", 1..=4096)?;
    let mean = point.count("mean", 1..=1_000_000)?;
    let requests = point.length(200_000.0);
    let mut cache = KvCache::new(&KvLayout {
        total_blocks: u64::MAX >> 8,
        block_size: block as u32,
        prefix_cache: false,
        eviction: windtunnel_engine::config::EvictionKind::Lru,
    });
    let mut rng = Streams::new(point.seed).stream("paging waste", 0);
    let mut tokens = 0;
    for _ in 0..requests {
        // Any length between half and one and a half times the mean.
        let length = mean / 2 + 1 + rng.below(mean.max(2));
        tokens += length;
        cache
            .take(length.div_ceil(block))
            .map_err(|s| CaseError::Run(format!("{} blocks missing", s.missing)))?;
    }
    let held = cache.held_blocks() * block;
    let waste = (held - tokens) as f64 / held as f64;
    let length = tokens as f64 / requests as f64;
    let expected = if block > mean / 2 + mean.max(2) {
        // One block for any length: a contiguous reservation.
        1.0 - length / block as f64
    } else {
        let tail = (block - 1) as f64 / 2.0;
        tail / (length + tail)
    };
    Ok(vec![Check::within("share wasted", expected, waste, 0.003)])
}

fn kv_capacity(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    use windtunnel_engine::hardware;
    let (model, gpu) = (point.text("model"), point.text("gpu"));
    let gpus = point.count("gpus", 1..=64)?;
    let spec =
        hardware::find_model(model).ok_or_else(|| point.refuse("model", "not in the catalogue"))?;
    let text = format!(
        r#"
        version = 1
        fleet.engine = {{ kind = "continuous", gpu = "{gpu}", model = "{model}", tensor_parallel = {gpus} }}
        traffic = {{ request_rate = "1 req/s", num_prompts = 1, input = {{ kind = "fixed", tokens = 10 }}, output = {{ kind = "fixed", tokens = 10 }} }}
        "#
    );
    if hardware::find_gpu(gpu).is_none() {
        return Err(point.refuse("gpu", "not in the catalogue"));
    }
    // What is left to be wrong: so many of them cannot share the model, or do not hold it.
    let run = Lab::whole(&text, point)?.once();
    let result = run.map_err(|e| point.refuse("gpus", e.to_string()))?;
    let tokens = result.kv_blocks()? * 16;
    let published = match model {
        "llama-3.1-8b" => Some(131_072.0),
        "llama-3.1-70b" => Some(327_680.0),
        "qwen3-32b" => Some(262_144.0),
        _ => None,
    };
    let formula =
        2.0 * f64::from(spec.kv_heads) * f64::from(spec.head_dim) * f64::from(spec.layers) * 2.0;
    let mut checks = vec![Check::exact(
        "KV bytes per token",
        published.unwrap_or(formula),
        spec.kv_bytes_per_token(2.0),
    )];
    if (model, gpu, gpus) == ("qwen3-32b", "h100-sxm", 2) {
        checks.push(Check::relative(
            "KV tokens per instance, as llm-d reports",
            307_328.0,
            tokens as f64,
            0.10,
        ));
    }
    Ok(checks)
}

/// V-P8: what fits when every shard gets the same memory, over what fits when memory follows need.
pub(super) fn unequal_shards(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let text = point.text("shards");
    let shards: Result<Vec<f64>, _> = text.split(',').map(|s| s.trim().parse::<f64>()).collect();
    let shards = shards.map_err(|_| point.refuse("shards", "numbers separated by commas"))?;
    if shards.is_empty() || !shards.iter().all(|s| (1e-6..=1e6).contains(s)) {
        return Err(point.refuse("shards", "every shard needs more than zero, 1e-6 to 1e6"));
    }
    let blocks = |split: &str| -> Result<f64, CaseError> {
        let text = format!(
            r#"
            version = 1
            [fleet.engine]
            kind = "continuous"
            gpu = "h100-sxm"
            model = "llama-3.1-70b"
            tensor_parallel = 4
            kv.block_size = 1
            kv.shards = {{ weights = {shards:?}, split = "{split}" }}
            [traffic]
            request_rate = "1 req/s"
            num_prompts = 1
            input = {{ kind = "fixed", tokens = 10 }}
            output = {{ kind = "fixed", tokens = 10 }}
            "#
        );
        Ok(Lab::whole(&text, point)?.once()?.kv_blocks()? as f64)
    };
    let mean = shards.iter().sum::<f64>() / shards.len() as f64;
    let largest = shards.iter().copied().fold(0.0, f64::max);
    let ratio = blocks("equal")? / blocks("proportional")?;
    // Capacity is a whole number of blocks; with a hundred thousand of them that is 1e-5.
    Ok(vec![Check::relative(
        "tokens that fit, equal over proportional split",
        mean / largest,
        ratio,
        2e-5,
    )])
}
