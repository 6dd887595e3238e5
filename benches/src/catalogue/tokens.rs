//! Token-level methods, V-T, and formats of keys and values, V-Q: through the reference engine's own
//! layers, pages and steps, and the simulator's cost models. E-06: the cascade's scenarios.

use super::{Case, CaseError, Check, Param, Point};
use windtunnel_base::rng::{Rng, Streams};
use windtunnel_engine::batch::BatchShape;
use windtunnel_engine::cascade::cost::TurnShape;
use windtunnel_engine::config::CascadeSpec;
use windtunnel_engine::cost::roofline::{Roofline, RooflineSettings};
use windtunnel_engine::hardware;
use windtunnel_ledger::rows::Row;
use windtunnel_reference::backend::cpu::{Cpu, KvMemory};
use windtunnel_reference::backend::{Backend, Sampling, Span, Work};
use windtunnel_reference::cascade::evidence::{EvidenceSettings, Mix};
use windtunnel_reference::cascade::speculate::accept;
use windtunnel_reference::config::ModelConfig;
use windtunnel_reference::kv::e4m3;
use windtunnel_reference::kv::format::KvFormat;
use windtunnel_reference::kv::pages::Pages;
use windtunnel_reference::weights::Weights;
use windtunnel_scenarios::load::{LoadEnv, Source, load};
use windtunnel_scenarios::{library, workload};
use windtunnel_sim::{RunOptions, run};

const ALPHA: Param = Param {
    name: "alpha",
    default: "0.8",
    doc: "probability that a draft stands",
};
const DRAFTS: Param = Param {
    name: "drafts",
    default: "5",
    doc: "drafts per step",
};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    Case {
        id: "V-T1",
        title: "speculative decoding: tokens per verifying step, and gain",
        source: "(1 - a^(g+1)) / (1 - a); over g c + 1 (Leviathan et al. 2023)",
        params: &[
            ALPHA,
            DRAFTS,
            Param {
                name: "cost",
                default: "0.05",
                doc: "time of a draft, over that of a step",
            },
        ],
        points: &[
            &[("alpha", "0.8"), ("drafts", "3")],
            &[("alpha", "0.8"), ("drafts", "5")],
            &[("alpha", "0.8"), ("drafts", "7")],
            &[("alpha", "0.6"), ("drafts", "5"), ("cost", "0.1")],
        ],
        run: speculation,
    },
    Case {
        id: "V-T2",
        title: "speculation under load: a gain at batch 1, a loss at a large one",
        source: "verifying computes g + 1 tokens per sequence; sign change (vLLM 2024)",
        params: &[ALPHA, DRAFTS],
        points: &[&[("alpha", "0.8"), ("drafts", "5")]],
        run: speculation_under_load,
    },
    Case {
        id: "V-T3",
        title: "token routing: gain at a share on the large model, draft always run",
        source: "1 / (c + f) where memory limits both (Fu et al. 2025: c + f of 1.5 and 32 billion)",
        params: &[Param {
            name: "share",
            default: "0.128",
            doc: "share of tokens on the large model",
        }],
        points: &[
            &[("share", "0.128")],
            &[("share", "0.5")],
            &[("share", "1")],
        ],
        run: routing,
    },
    Case {
        id: "V-T6",
        title: "early exit: operations of a token that leaves after some layers",
        source: "layers run, and keys and values of those left out; head besides",
        params: &[Param {
            name: "layers",
            default: "4",
            doc: "layers run, of 8",
        }],
        points: &[&[("layers", "2")], &[("layers", "4")], &[("layers", "8")]],
        run: early_exit,
    },
    Case {
        id: "V-Q1",
        title: "formats of keys and values on normal numbers, groups of 128: signal over noise",
        source: "uniform quantiser by largest number: 43.8 dB in INT8; FP8 E4M3: 31.5 dB",
        params: &[],
        points: &[&[]],
        run: noise,
    },
    Case {
        id: "V-Q3",
        title: "bits of a stored number: each format, and 80/15/5 FP8/INT8/FP16",
        source: "8, 8, 16; 8.4",
        params: &[],
        points: &[&[]],
        run: bits,
    },
    Case {
        id: "E-06",
        title: "the cascade's layers: what all are worth together, over the product of each alone",
        source: "interaction factor; the claim that layers multiply would have it in 0.9 to 1.1",
        params: &[Param {
            name: "scenario",
            default: "serr-agentic",
            doc: "a library scenario with a cascade",
        }],
        points: &[
            &[("scenario", "serr-agentic")],
            &[("scenario", "serr-long-context")],
            &[("scenario", "serr-one-shot")],
        ],
        run: interaction,
    },
];

/// Tokens per verifying step of drafts that stand independently, by the layer's own rule.
fn tokens_per_step(point: &Point<'_>, alpha: f64, drafts: usize) -> f64 {
    let mut rng = Streams::new(point.seed).stream("drafts", 0);
    let steps = point.length(400_000.0);
    let proposed = vec![1_u32; drafts];
    let mut tokens = 0;
    for _ in 0..steps {
        let chosen: Vec<u32> = (0..=drafts).map(|_| u32::from(rng.chance(alpha))).collect();
        tokens += accept(&proposed, &chosen).0 + 1;
    }
    tokens as f64 / steps as f64
}

fn expected_tokens(alpha: f64, drafts: usize) -> f64 {
    (1.0 - alpha.powi(drafts as i32 + 1)) / (1.0 - alpha)
}

fn speculation(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let alpha = point.number("alpha", 0.0..=0.999)?;
    let drafts = point.count("drafts", 1..=64)? as usize;
    let cost = point.number("cost", 0.0..=1.0)?;
    let measured = tokens_per_step(point, alpha, drafts);
    let expected = expected_tokens(alpha, drafts);
    let time = drafts as f64 * cost + 1.0;
    Ok(vec![
        Check::relative("tokens per step", expected, measured, 0.01),
        Check::relative("gain", expected / time, measured / time, 0.01),
    ])
}

fn speculation_under_load(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let alpha = point.number("alpha", 0.0..=0.999)?;
    let drafts = point.count("drafts", 1..=64)?;
    let tokens = tokens_per_step(point, alpha, drafts as usize);
    let settings = RooflineSettings {
        tensor_parallel: 4,
        compute_efficiency: 0.6,
        bandwidth_efficiency: 0.8,
        overhead: 0.0,
        kv_bytes_per_element: 2.0,
    };
    let missing = || CaseError::Run("a GPU or model of this case left the catalogue".into());
    let gpu = hardware::find_gpu("h100-sxm").ok_or_else(missing)?;
    let of = |name| {
        Ok(Roofline::new(
            gpu,
            hardware::find_model(name).ok_or_else(missing)?,
            &settings,
        ))
    };
    let (large, light) = (of("llama-3.1-70b")?, of("llama-3.1-8b")?);
    let context = 1_000;
    let decode = |batch: u64| BatchShape {
        decode_seqs: batch as u32,
        decode_context: batch * context,
        sampled: batch as u32,
        ..BatchShape::default()
    };
    let verify = |batch: u64| BatchShape {
        prefill_seqs: batch as u32,
        prefill_tokens: batch * (drafts + 1),
        prefill_context: batch * context,
        prefill_pairs: batch * (drafts + 1) * context,
        sampled: (batch * (drafts + 1)) as u32,
        ..BatchShape::default()
    };
    let gain = |batch: u64| {
        let plain = tokens * large.seconds(&decode(batch));
        let drafting = drafts as f64 * light.seconds(&decode(batch));
        plain / (drafting + large.seconds(&verify(batch)))
    };
    Ok(vec![
        Check::at_least("gain at batch 1", 1.3, gain(1)),
        Check::at_most("gain at batch 512", 1.0, gain(512)),
    ])
}

fn routing(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let share = point.number("share", 0.0..=1.0)?;
    let mut spec = CascadeSpec::default();
    spec.device.launch = windtunnel_base::quantity::Span::default();
    for model in [&mut spec.device.frontier, &mut spec.device.light] {
        model.kv_per_token = windtunnel_base::quantity::Bytes(0);
    }
    let decode = |spec: &CascadeSpec, large_share: f64| {
        let parts = spec.parts(&TurnShape {
            prompt_tokens: 1,
            cached_tokens: 0,
            output_tokens: 1_000,
            large_share,
        });
        parts.total() - parts.prefill
    };
    let plain = decode(&spec, 1.0);
    spec.layers.l2 = true;
    let c = spec.device.light.parameters / spec.device.frontier.parameters;
    Ok(vec![Check::relative(
        "gain",
        1.0 / (c + share),
        plain / decode(&spec, share),
        1e-9,
    )])
}

fn failed(error: windtunnel_reference::error::ReferenceError) -> CaseError {
    CaseError::Run(error.to_string())
}

fn early_exit(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let exit = point.count("layers", 1..=8)? as usize;
    let config = ModelConfig {
        num_hidden_layers: 8,
        ..ModelConfig::pocket_light()
    };
    let weights = Weights::random(&config, 1).map_err(failed)?;
    let memory = KvMemory {
        pages: 4,
        page_tokens: 16,
        filling: KvFormat::F16,
    };
    let mut cpu = Cpu::new(&config, &weights, &memory).map_err(failed)?;
    let page = cpu
        .take_page()
        .map_err(failed)?
        .ok_or_else(|| CaseError::Run("a new device has no page".into()))?;
    let mut step = |layers| -> Result<Work, CaseError> {
        let before = cpu.work();
        let span = Span {
            tokens: &[65],
            start: 0,
            pages: &[page],
            sample: Some(Sampling::GREEDY),
            layers,
        };
        cpu.step(&[span], &mut Vec::new()).map_err(failed)?;
        Ok(cpu.work().since(before))
    };
    let whole = step(None)?;
    let short = step(Some(exit))?;
    let (h, kv) = (
        config.hidden_size,
        2 * config.num_key_value_heads * config.head_dim,
    );
    let q = config.num_attention_heads * config.head_dim;
    let layer = 2 * (h * (q + kv) + q * h + 3 * h * config.intermediate_size) + 4 * q;
    let head = 2 * h * config.vocab_size;
    let expected = exit * layer + (8 - exit) * 2 * h * kv + head;
    Ok(vec![
        Check::exact("operations", expected as f64, short.flops as f64),
        Check::exact(
            "gain",
            (8 * layer + head) as f64 / expected as f64,
            whole.flops as f64 / short.flops as f64,
        ),
    ])
}

/// A normal number by Box and Muller.
fn normal(rng: &mut Rng) -> f32 {
    let radius = (-2.0 * rng.f64_open().ln()).sqrt();
    (radius * (std::f64::consts::TAU * rng.f64()).cos()) as f32
}

fn noise(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let table = e4m3::table();
    let groups = point.length(8_000.0);
    let decibels = |format: KvFormat, scaled: bool| {
        let mut rng = Streams::new(point.seed).stream("normal numbers", 0);
        let (mut signal, mut error) = (0.0_f64, 0.0_f64);
        let (mut bytes, mut back) = (vec![0; 128 * format.bytes()], vec![0_f32; 128]);
        for _ in 0..groups {
            let group: Vec<f32> = (0..128).map(|_| normal(&mut rng)).collect();
            let largest = group.iter().fold(0_f32, |m, x| m.max(x.abs()));
            let scale = if scaled { format.scale(largest) } else { 1.0 };
            format.store(&group, scale, &mut bytes);
            format.load(&bytes, scale, &table, &mut back);
            for (x, y) in group.iter().zip(&back) {
                signal += f64::from(*x).powi(2);
                error += f64::from(x - y).powi(2);
            }
        }
        10.0 * (signal / error).log10()
    };
    // The catalogue's figure for FP8 is that of numbers as they are.
    Ok(vec![
        Check::within("INT8, dB", 43.8, decibels(KvFormat::Int8, true), 0.1),
        Check::within("FP8 E4M3, dB", 31.5, decibels(KvFormat::Fp8, false), 0.1),
    ])
}

fn bits(_: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let config = ModelConfig::pocket_light();
    let stripes = 2 * config.num_hidden_layers * config.num_key_value_heads;
    let numbers = stripes * 16 * config.head_dim;
    // Twenty full pages, in the formats that the layer gives them.
    let measure = |formats: &[KvFormat]| {
        let mut pages = Pages::new(&config, formats.len(), 16, KvFormat::F16);
        let mut scales = 0;
        for &format in formats {
            if let Some(page) = pages.take() {
                pages.convert(page, format);
                scales += if format.scaled() { 4 * stripes } else { 0 };
            }
        }
        8.0 * (pages.bytes() - scales) as f64 / (numbers * formats.len()) as f64
    };
    let critical: Vec<usize> = (1..=20).collect();
    let mixed = Mix::default().assign(&critical, &EvidenceSettings::default());
    Ok(vec![
        Check::exact("FP16", 16.0, measure(&[KvFormat::F16])),
        Check::exact("FP8", 8.0, measure(&[KvFormat::Fp8])),
        Check::exact("INT8", 8.0, measure(&[KvFormat::Int8])),
        Check::within("80/15/5", 8.4, measure(&mixed), 1e-9),
    ])
}

/// Mean seconds of service of a turn with some layers.
fn turn_seconds(point: &Point<'_>, layers: &str) -> Result<f64, CaseError> {
    let env = LoadEnv {
        policies: vec![Source::Library(format!("cascade-{layers}"))],
        ..LoadEnv::default()
    };
    let name = point.text("scenario");
    if library::find(name).is_none_or(|e| !e.tags.contains(&"cascade")) {
        return Err(point.refuse("scenario", "no scenario of the library with a cascade"));
    }
    let source = Source::Library(name.to_owned());
    let loaded = load(&source, &[], &env).map_err(|r| CaseError::Run(r.to_string()))?;
    let traffic = workload::prepare(&loaded.scenario, None, None, false)
        .map_err(|e| CaseError::Run(e.to_string()))?;
    let options = RunOptions {
        names: Some(traffic.names()),
        ..RunOptions::default()
    };
    let mut source = traffic.workload(point.seed);
    let result = run(&loaded.scenario, &mut *source, point.seed, options)
        .map_err(|e| CaseError::Run(e.to_string()))?;
    let time = |r: &Row| Some(r.generated_ns? - r.started_ns?);
    let times: Vec<u64> = result.rows.iter().filter_map(time).collect();
    Ok(times.iter().sum::<u64>() as f64 / 1e9 / times.len().max(1) as f64)
}

fn interaction(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let plain = turn_seconds(point, "none")?;
    let mut checks = Vec::new();
    let mut product = 1.0;
    for layer in ["l0", "l1", "l2", "l3"] {
        let gain = plain / turn_seconds(point, layer)?;
        product *= gain;
        // A layer's own cost is small where it has nothing to save.
        checks.push(Check::at_least(
            format!("gain of {} alone", layer.to_uppercase()),
            0.9,
            gain,
        ));
    }
    let all = plain / turn_seconds(point, "all-but-l5")?;
    let coordinated = plain / turn_seconds(point, "all")?;
    checks.push(Check::at_least("gain of L0 to L4 together", 1.1, all));
    checks.push(Check::at_least(
        "gain of L0 to L5 together",
        1.1,
        coordinated,
    ));
    let factor = all / product;
    let distance = (factor - 1.0).abs();
    let name = format!("interaction factor {factor:.2}: its distance from 1");
    checks.push(Check::at_least(name, 0.1, distance));
    Ok(checks)
}
