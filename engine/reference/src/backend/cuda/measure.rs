//! What the device can do, and how near the model comes to it. The floor is measured first, on the same
//! device in the same run: bytes over the bandwidth of a kernel that only reads, operations over the
//! rate of a large matrix product.

use super::products::Matrix;
use super::{CudaBackend, PAGE};
use crate::backend::{Backend, Sampled, Sampling, Span};
use crate::config::ModelConfig;
use crate::error::ReferenceError;
use crate::kv::format::KvFormat;
use serde::{Deserialize, Serialize};
use windtunnel_cuda::{Arg, Buffer, CudaError, DeviceInfo, Gemm, Grid, Numbers};

/// What to measure.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct BenchPlan {
    /// Batches of decode steps.
    pub batches: Vec<usize>,
    /// Tokens before each decoded one.
    pub context: usize,
    /// Tokens of prefill steps.
    pub prefills: Vec<usize>,
    /// Formats whose reading by attention is measured, at the largest batch for which there are pages.
    pub formats: Vec<KvFormat>,
    /// Times that each figure is taken; the shortest counts.
    pub repeats: usize,
    /// Decode steps to one figure, as single ones are too short for the device's clock.
    pub steps: usize,
    /// Bytes that are read to measure bandwidth, a quarter of what is free at most: far more than any
    /// cache holds.
    pub sweep: usize,
    /// Rows and columns of the matrices that the rate is measured on.
    pub square: usize,
}

impl Default for BenchPlan {
    fn default() -> Self {
        Self {
            batches: vec![1, 2, 4, 8, 16, 32, 64],
            context: 1_024,
            prefills: vec![512, 2_048],
            formats: vec![KvFormat::F16, KvFormat::Fp8, KvFormat::Int8],
            repeats: 5,
            steps: 20,
            sweep: 4 << 30,
            square: 8_192,
        }
    }
}

/// What the device can do.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Floor {
    /// Bytes per second of a kernel that only reads.
    pub read_bytes_per_s: f64,
    /// Bytes per second, read and written, of a kernel that copies.
    pub copy_bytes_per_s: f64,
    /// Operations per second of a large product in the model's type.
    pub gemm_flops_per_s: f64,
}

/// A whole step.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct StepPoint {
    /// Sequences.
    pub batch: usize,
    /// New tokens of each.
    pub tokens: usize,
    /// Tokens before them.
    pub context: usize,
    /// Whether the step was one graph.
    pub graph: bool,
    /// Milliseconds from tokens to tokens, the host's part included.
    pub ms: f64,
    /// Milliseconds that the step's bytes and operations take at the device's best.
    pub floor_ms: f64,
    /// Floor over time.
    pub share: f64,
    /// Calls of the host, and kernels that ran.
    pub calls: u64,
    /// As above.
    pub kernels: u64,
}

/// One matrix product of the model, over all layers.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct ProductPoint {
    /// Rows of the weights.
    pub outputs: usize,
    /// Length of the sum.
    pub inputs: usize,
    /// Tokens.
    pub rows: usize,
    /// Whether the own kernel computes it.
    pub own: bool,
    /// Milliseconds of one.
    pub ms: f64,
    /// At the device's best.
    pub floor_ms: f64,
    /// Floor over time.
    pub share: f64,
}

/// Attention alone.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct AttentionPoint {
    /// How pages are stored.
    pub format: KvFormat,
    /// Sequences.
    pub batch: usize,
    /// Tokens of each.
    pub context: usize,
    /// Milliseconds through all layers.
    pub ms: f64,
    /// Bytes per second of keys and values.
    pub bytes_per_s: f64,
    /// Over the bandwidth of a kernel that only reads.
    pub share: f64,
}

/// Everything, with where it comes from.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct GpuBench {
    /// The device and its libraries.
    pub device: DeviceInfo,
    /// Version of the device's driver; none where the system does not say.
    #[serde(default)]
    pub driver: Option<String>,
    /// When, as the caller says.
    pub date: String,
    /// Version of this program.
    pub version: String,
    /// The model.
    pub config: ModelConfig,
    /// Type of weights and activations.
    pub numbers: Numbers,
    /// What was measured.
    pub plan: BenchPlan,
    /// What the device can do.
    pub floor: Floor,
    /// Decode steps, with and without graphs.
    pub decode: Vec<StepPoint>,
    /// Prefill steps.
    pub prefill: Vec<StepPoint>,
    /// Products.
    pub products: Vec<ProductPoint>,
    /// Attention.
    pub attention: Vec<AttentionPoint>,
}

/// Measures a model on its device. All its pages must be free.
///
/// # Errors
/// If memory does not suffice, pages are too few for the smallest batch, or the device fails.
pub fn bench(
    backend: &mut CudaBackend,
    plan: &BenchPlan,
    date: &str,
) -> Result<GpuBench, ReferenceError> {
    let floor = floor(backend, plan)?;
    backend.tune(&plan.prefills)?;
    let mut decode = Vec::new();
    for &batch in &plan.batches {
        for graph in [true, false] {
            decode.push(measure_step(backend, plan, &floor, batch, 1, graph)?);
        }
    }
    let mut prefill = Vec::new();
    for &tokens in &plan.prefills {
        prefill.push(measure_step(backend, plan, &floor, 1, tokens, false)?);
    }
    let rows: Vec<usize> = plan.batches.iter().chain(&plan.prefills).copied().collect();
    let products = products(backend, plan, &floor, &rows)?;
    let mut attention = Vec::new();
    for &format in &plan.formats {
        attention.push(measure_attention(backend, plan, &floor, format)?);
    }
    Ok(GpuBench {
        device: backend.device.info().clone(),
        driver: crate::machine::gpu_driver(),
        date: date.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config: backend.config.clone(),
        numbers: backend.options.numbers,
        plan: plan.clone(),
        floor,
        decode,
        prefill,
        products,
        attention,
    })
}

/// The shortest of several times, in seconds; once more before, which does not count.
fn shortest(
    repeats: usize,
    mut once: impl FnMut() -> Result<f32, ReferenceError>,
) -> Result<f64, ReferenceError> {
    once()?;
    let mut best = f64::INFINITY;
    for _ in 0..repeats.max(1) {
        best = best.min(f64::from(once()?) * 1e-3);
    }
    Ok(best)
}

fn random(backend: &CudaBackend, numbers: usize) -> Result<Buffer, CudaError> {
    let buffer = backend
        .device
        .allocate(numbers * backend.options.numbers.bytes())?;
    let args = [
        buffer.arg(),
        Arg::U64(numbers as u64),
        Arg::U64(numbers as u64),
        Arg::F32(1.0),
    ];
    let grid = Grid::new(numbers.div_ceil(256).clamp(1, 16 * 1024) as u32, 256);
    backend.device.launch(backend.kernels.fill, grid, &args)?;
    Ok(buffer)
}

/// Measures what the device can do.
///
/// # Errors
/// If memory does not suffice, or the device fails.
pub fn floor(backend: &CudaBackend, plan: &BenchPlan) -> Result<Floor, ReferenceError> {
    let repeats = plan.repeats;
    let device = &backend.device;
    let (free, _) = device.memory()?;
    let bytes = (free as usize / 4).min(plan.sweep).max(4096) / 4096 * 4096;
    let numbers = backend.options.numbers;
    let grid = Grid::new(device.info().multiprocessors * 16, 512);
    let (from, to) = (
        random(backend, bytes / numbers.bytes())?,
        device.allocate(bytes)?,
    );
    let pieces = Arg::U64(bytes as u64 / 16);
    let read = shortest(repeats, || {
        let args = [from.arg(), pieces, to.arg()];
        device.time(|| Ok(device.launch(backend.kernels.read_all, grid, &args)?))
    })?;
    let copy = shortest(repeats, || {
        let args = [from.arg(), pieces, to.arg()];
        device.time(|| Ok(device.launch(backend.kernels.copy_all, grid, &args)?))
    })?;
    drop((from, to));
    let n = plan.square.max(8);
    let gemm = Gemm {
        rows: n,
        outputs: n,
        inputs: n,
        stride: n,
        numbers,
        result: numbers,
        add: false,
    };
    let (a, b) = (random(backend, n * n)?, random(backend, n * n)?);
    let out = device.allocate(n * n * numbers.bytes())?;
    device.tune(&gemm, a.at(0), b.at(0), out.at(0))?;
    let product = shortest(repeats, || {
        device.time(|| Ok(device.gemm(&gemm, a.at(0), b.at(0), out.at(0))?))
    })?;
    Ok(Floor {
        read_bytes_per_s: bytes as f64 / read,
        copy_bytes_per_s: 2.0 * bytes as f64 / copy,
        gemm_flops_per_s: 2.0 * (n as f64).powi(3) / product,
    })
}

/// Pages for sequences of so many tokens; all are given back if there are too few.
fn take_pages(
    backend: &mut CudaBackend,
    batch: usize,
    tokens: usize,
) -> Result<Vec<Vec<u32>>, ReferenceError> {
    let each = tokens.div_ceil(PAGE);
    let mut all: Vec<Vec<u32>> = Vec::with_capacity(batch);
    for _ in 0..batch {
        let mut pages = Vec::with_capacity(each);
        while pages.len() < each {
            let Some(page) = backend.take_page()? else {
                all.push(pages);
                give_back(backend, all);
                return Err(ReferenceError::Memory {
                    what: format!("{batch} sequences of {tokens} tokens"),
                    needed: (batch * each * backend.sizes.frame_bytes()) as u64,
                    available: backend.arena.bytes() as u64,
                    remedy: "put the model on the device with more pages, or ask for less".into(),
                });
            };
            pages.push(page);
        }
        all.push(pages);
    }
    Ok(all)
}

fn give_back(backend: &mut CudaBackend, all: Vec<Vec<u32>>) {
    for page in all.into_iter().flatten() {
        backend.give_back_page(page);
    }
}

fn spans<'a>(tokens: &'a [u32], start: usize, pages: &'a [Vec<u32>]) -> Vec<Span<'a>> {
    pages
        .iter()
        .map(|pages| Span {
            tokens,
            start,
            pages,
            sample: Some(Sampling::GREEDY),
            layers: None,
        })
        .collect()
}

fn measure_step(
    backend: &mut CudaBackend,
    plan: &BenchPlan,
    floor: &Floor,
    batch: usize,
    tokens: usize,
    graph: bool,
) -> Result<StepPoint, ReferenceError> {
    let context = if tokens == 1 { plan.context } else { 0 };
    let pages = take_pages(backend, batch, context + tokens)?;
    let vocab = backend.sizes.vocab;
    let text: Vec<u32> = (0..tokens).map(|i| (i * 7 % vocab) as u32).collect();
    let spans = spans(&text, context, &pages);
    let device = backend.device.clone();
    let graphs = std::mem::replace(&mut backend.options.graphs, graph);
    let mut sampled: Vec<Sampled> = Vec::new();
    let steps = if tokens == 1 { plan.steps.max(1) } else { 2 };
    let mut step = || -> Result<f32, ReferenceError> {
        device.time(|| (0..steps).try_for_each(|_| backend.step(&spans, &mut sampled)))
    };
    let seconds = shortest(plan.repeats, &mut step).map(|s| s / steps as f64);
    let before = backend.work_done;
    let once = backend.step(&spans, &mut sampled);
    let done = backend.work_done.since(before);
    backend.options.graphs = graphs;
    drop(spans);
    give_back(backend, pages);
    once?;
    let seconds = seconds?;
    let bytes = (done.weight_bytes + done.kv_read_bytes) as f64;
    let least = (bytes / floor.read_bytes_per_s).max(done.flops as f64 / floor.gemm_flops_per_s);
    let launches = backend.launches;
    Ok(StepPoint {
        batch,
        tokens,
        context,
        graph: graph && tokens == 1,
        ms: 1e3 * seconds,
        floor_ms: 1e3 * least,
        share: least / seconds,
        calls: launches.calls,
        kernels: launches.work,
    })
}

fn products(
    backend: &CudaBackend,
    plan: &BenchPlan,
    floor: &Floor,
    rows: &[usize],
) -> Result<Vec<ProductPoint>, ReferenceError> {
    let mut all = Vec::new();
    for &rows in rows.iter().filter(|&&r| r <= backend.work.room.rows) {
        for matrix in Matrix::ALL {
            if matrix == Matrix::Head && rows > backend.work.room.asked {
                continue;
            }
            let gemm = backend.gemm_of(matrix, rows);
            let layers = backend.sizes.layers;
            let seconds = shortest(plan.repeats, || {
                backend.device.time(|| {
                    for layer in 0..layers {
                        backend.product_of(matrix, rows, layer)?;
                    }
                    Ok(())
                })
            })? / layers as f64;
            let bytes = (gemm.outputs * gemm.inputs * gemm.numbers.bytes()) as f64;
            let flops = 2.0 * (gemm.outputs * gemm.inputs * rows) as f64;
            let least = (bytes / floor.read_bytes_per_s).max(flops / floor.gemm_flops_per_s);
            all.push(ProductPoint {
                outputs: gemm.outputs,
                inputs: gemm.inputs,
                rows,
                own: backend.is_own(matrix, rows),
                ms: 1e3 * seconds,
                floor_ms: 1e3 * least,
                share: least / seconds,
            });
        }
    }
    Ok(all)
}

fn measure_attention(
    backend: &mut CudaBackend,
    plan: &BenchPlan,
    floor: &Floor,
    format: KvFormat,
) -> Result<AttentionPoint, ReferenceError> {
    // The last page stays in 16 bits: the new token is written there.
    let context = plan.context.div_ceil(PAGE).max(1) * PAGE;
    let (mut batch, mut pages) = (0, Vec::new());
    let mut batches = plan.batches.clone();
    batches.sort_unstable();
    for &candidate in batches.iter().rev() {
        if let Ok(taken) = take_pages(backend, candidate, context + 1) {
            (batch, pages) = (candidate, taken);
            break;
        }
    }
    if batch == 0 {
        // Says what is missing.
        pages = take_pages(backend, 1, context + 1)?;
        batch = 1;
    }
    let measured = attention_of(backend, plan, format, context, &pages);
    give_back(backend, pages);
    let (seconds, bytes) = measured?;
    let rate = bytes / seconds;
    Ok(AttentionPoint {
        format,
        batch,
        context: context + 1,
        ms: 1e3 * seconds,
        bytes_per_s: rate,
        share: rate / floor.read_bytes_per_s,
    })
}

/// Seconds, and bytes read.
fn attention_of(
    backend: &mut CudaBackend,
    plan: &BenchPlan,
    format: KvFormat,
    context: usize,
    pages: &[Vec<u32>],
) -> Result<(f64, f64), ReferenceError> {
    for page in pages.iter().flat_map(|p| &p[..context / PAGE]) {
        backend.convert_page(*page, format)?;
    }
    let text = [1];
    let spans = spans(&text, context, pages);
    let before = backend.work_done;
    backend.step(&spans, &mut Vec::new())?;
    let bytes = backend.work_done.since(before).kv_read_bytes as f64;
    let device = backend.device.clone();
    let times = 4;
    let seconds = shortest(plan.repeats, || {
        device.time(|| Ok(backend.attention_alone(times)?))
    })?;
    Ok((seconds / times as f64, bytes))
}
