//! How near an engine's steps come to what the device can do: bytes over its memory bandwidth, or
//! operations over its rate of matrix products, whichever takes longer; both are measured first.

use crate::backend::cpu::is_shared;
use crate::backend::{Backend, Sampled, Sampling, Span};
use crate::error::ReferenceError;
use crate::models::Model;
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use serde::Serialize;
use std::ops::ControlFlow;
use std::time::Instant;
use windtunnel_gemm::{Matrix, Threads};

/// Bytes that are read to measure bandwidth: more than any cache holds.
const SWEEP: usize = 256 << 20;
/// Rows and columns of the matrices that the rate is measured on.
const SQUARE: usize = 1024;
/// Times each step is measured.
const REPEATS: usize = 15;

/// What a device can do.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Ceiling {
    /// Bytes per second, read from memory by all threads.
    pub bytes_per_s: f64,
    /// Operations per second of a large product of matrices, two per multiply and add.
    pub flops_per_s: f64,
}

/// A step, measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Line {
    /// `decode` or `prefill`.
    pub phase: &'static str,
    /// Sequences.
    pub sequences: usize,
    /// New tokens of each.
    pub tokens: usize,
    /// Tokens in KV of each.
    pub context: usize,
    /// Median time of a step.
    pub ms: f64,
    /// Of this, one layer.
    pub layer_ms: f64,
    /// And embedding, head and sampling.
    pub ends_ms: f64,
    /// Operations of the step.
    pub flops: u64,
    /// Bytes of weights, keys and values that it moves.
    pub bytes: u64,
    /// The least time it could take.
    pub floor_ms: f64,
    /// What sets that: `bytes` or `operations`.
    pub bound: &'static str,
    /// The least time over the time.
    pub achieved: f64,
}

/// A matrix product by one thread, and by all.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Sharing {
    /// Rows.
    pub rows: usize,
    /// Rows and columns of the matrix.
    pub width: usize,
    /// Median time of one thread.
    pub one_ms: f64,
    /// Median time of all.
    pub all_ms: f64,
    /// Whether the engine shares a product of this size.
    pub shared: bool,
}

impl Sharing {
    /// How many times as long as the faster way the engine's way takes.
    pub fn loss(&self) -> f64 {
        let own = if self.shared {
            self.all_ms
        } else {
            self.one_ms
        };
        own / self.one_ms.min(self.all_ms)
    }
}

/// Widths and rows of the products that [`sharing`] measures.
const WIDTHS: [usize; 4] = [256, 512, 1024, 2048];
const ROWS: [usize; 4] = [1, 8, 32, 128];

/// Measures from which size on it pays to share a product among threads. Nothing if there is one thread.
pub fn sharing() -> Vec<Sharing> {
    if rayon::current_num_threads() < 2 {
        return Vec::new();
    }
    let sizes = WIDTHS.iter().flat_map(|&w| ROWS.map(|r| (r, w)));
    sizes
        .filter_map(|(rows, width)| {
            let matrix = Matrix::new(width, width, vec![0.5; width * width])?;
            let x = vec![0.25; rows * width];
            let mut times = [Vec::new(), Vec::new()];
            for round in 0..=REPEATS {
                // In turns, so that what else the machine does shows in both.
                for (threads, times) in [Threads::One, Threads::All].into_iter().zip(&mut times) {
                    let begin = Instant::now();
                    std::hint::black_box(matrix.product(&x, threads));
                    if round > 0 {
                        times.push(begin.elapsed().as_secs_f64() * 1e3);
                    }
                }
            }
            let [one_ms, all_ms] = times.map(|mut times| {
                times.sort_by(f64::total_cmp);
                times[times.len() / 2]
            });
            Some(Sharing {
                rows,
                width,
                one_ms,
                all_ms,
                shared: is_shared(rows, width * width),
            })
        })
        .collect()
}

/// Measures what the CPU can do: the best of several, since anything else that runs only takes away.
///
/// # Errors
/// If memory does not suffice.
pub fn cpu_ceiling() -> Result<Ceiling, ReferenceError> {
    let memory = vec![1_u64; SWEEP / 8];
    let part = memory.len() / rayon::current_num_threads().max(1) / 4;
    let mut bytes_per_s = 0_f64;
    for _ in 0..7 {
        let begin = Instant::now();
        let sum: u64 = memory
            .par_chunks(part.max(1))
            .map(|c| c.iter().fold(0_u64, |s, x| s.wrapping_add(*x)))
            .reduce(|| 0, u64::wrapping_add);
        std::hint::black_box(sum);
        bytes_per_s = bytes_per_s.max(SWEEP as f64 / begin.elapsed().as_secs_f64());
    }
    let square =
        |x: f64| Tensor::full(x as f32, (SQUARE, SQUARE), &Device::Cpu)?.to_dtype(DType::F32);
    let (a, b) = (square(0.5)?, square(0.25)?);
    let mut flops_per_s = 0_f64;
    for _ in 0..7 {
        let begin = Instant::now();
        std::hint::black_box(a.matmul(&b)?);
        let flops = 2.0 * (SQUARE as f64).powi(3);
        flops_per_s = flops_per_s.max(flops / begin.elapsed().as_secs_f64());
    }
    Ok(Ceiling {
        bytes_per_s,
        flops_per_s,
    })
}

/// The steps that are measured: (sequences, new tokens of each, tokens in KV of each).
fn steps(longest: usize) -> Vec<(usize, usize, usize)> {
    let context = (longest / 4).max(1);
    let decode = [1, 2, 4, 8, 16, 32, 64].map(|batch| (batch, 1, context));
    let prefill = [16, 64, 128, 256].map(|tokens| (1, tokens, 0));
    let several = [(4, 64, 0), (16, 64, 0)];
    decode
        .into_iter()
        .chain(prefill)
        .chain(several)
        .filter(|&(_, tokens, context)| tokens + context <= longest)
        .collect()
}

/// Measures decode and prefill steps of `model` at several batch sizes. `open` gives a backend for
/// the same weights with as many layers and pages as asked. Nothing if `listener`, told the share
/// done, stops it.
///
/// # Errors
/// If the device fails or its memory does not suffice.
pub fn bench(
    model: &Model,
    ceiling: Ceiling,
    open: &dyn Fn(usize, usize) -> Result<Box<dyn Backend + Send>, ReferenceError>,
    listener: &mut dyn FnMut(f64) -> ControlFlow<()>,
) -> Result<Option<Vec<Line>>, ReferenceError> {
    let longest = model.config.max_position_embeddings.min(1024);
    let layers = model.config.num_hidden_layers;
    let pages = |size: usize| {
        steps(longest)
            .iter()
            .map(|s| s.0 * (s.1 + s.2).div_ceil(size))
            .max()
            .unwrap_or(1)
    };
    let mut whole = open(layers, pages(16))?;
    let mut one = open(1, pages(16))?;
    let all = steps(longest);
    let mut lines = Vec::new();
    for (i, &(sequences, tokens, context)) in all.iter().enumerate() {
        if listener(i as f64 / all.len() as f64).is_break() {
            return Ok(None);
        }
        let before = whole.work();
        let (ms, computed) = time(whole.as_mut(), sequences, tokens, context)?;
        let work = whole.work().since(before);
        let (one_ms, _) = time(one.as_mut(), sequences, tokens, context)?;
        let layer_ms = if layers > 1 {
            (ms - one_ms) / (layers - 1) as f64
        } else {
            ms
        };
        let (flops, bytes) = (work.flops / computed, work.bytes() / computed);
        let by_bytes = bytes as f64 / ceiling.bytes_per_s * 1e3;
        let by_flops = flops as f64 / ceiling.flops_per_s * 1e3;
        let floor_ms = by_bytes.max(by_flops);
        lines.push(Line {
            phase: if tokens == 1 { "decode" } else { "prefill" },
            sequences,
            tokens,
            context,
            ms,
            layer_ms,
            ends_ms: (ms - layer_ms * layers as f64).max(0.0),
            flops,
            bytes,
            floor_ms,
            bound: if by_bytes > by_flops {
                "bytes"
            } else {
                "operations"
            },
            achieved: floor_ms / ms,
        });
    }
    Ok(Some(lines))
}

/// Median time of a step in milliseconds, and how many steps were computed.
fn time(
    backend: &mut dyn Backend,
    sequences: usize,
    tokens: usize,
    context: usize,
) -> Result<(f64, u64), ReferenceError> {
    let each = (tokens + context).div_ceil(backend.page_tokens());
    let mut pages: Vec<Vec<u32>> = Vec::new();
    for _ in 0..sequences {
        let Some(taken) = backend.take_pages(each)? else {
            return Err(ReferenceError::Memory {
                what: format!("a step of {sequences} sequences (in pages)"),
                needed: (sequences * each) as u64,
                available: pages.iter().map(|p| p.len() as u64).sum(),
                remedy: "give the device more pages".into(),
            });
        };
        pages.push(taken);
    }
    let text: Vec<u32> = (0..tokens as u32).map(|i| 97 + i % 26).collect();
    let spans: Vec<Span<'_>> = pages
        .iter()
        .map(|pages| Span {
            tokens: &text,
            start: context,
            pages,
            sample: Some(Sampling::GREEDY),
            layers: None,
        })
        .collect();
    let mut sampled: Vec<Sampled> = Vec::new();
    let mut times = Vec::with_capacity(REPEATS);
    for round in 0..=REPEATS {
        let begin = Instant::now();
        backend.step(&spans, &mut sampled)?;
        // The first fills caches.
        if round > 0 {
            times.push(begin.elapsed().as_secs_f64() * 1e3);
        }
    }
    drop(spans);
    for page in pages.into_iter().flatten() {
        backend.give_back_page(page);
    }
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], REPEATS as u64 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;
    use crate::devices::{DeviceKind, open};
    use crate::weights::Weights;

    #[test]
    fn products_are_measured_both_ways_over_what_the_engine_does_with_them() {
        let all = rayon::ThreadPoolBuilder::new()
            .num_threads(2)
            .build()
            .unwrap()
            .install(sharing);
        assert_eq!(all.len(), WIDTHS.len() * ROWS.len());
        assert!(
            all.iter()
                .all(|s| s.one_ms > 0.0 && s.all_ms > 0.0 && s.loss() >= 1.0)
        );
        let of = |rows, width| {
            all.iter()
                .find(|s| (s.rows, s.width) == (rows, width))
                .unwrap()
        };
        assert!(!of(1, 256).shared && of(1, 2048).shared && of(128, 1024).shared);
        let alone = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap();
        assert!(alone.install(sharing).is_empty());
    }

    #[test]
    fn no_step_is_faster_than_its_floor_and_its_parts_make_it_up() {
        let config = ModelConfig {
            max_position_embeddings: 64,
            ..ModelConfig::pocket_light()
        };
        let model = Model {
            name: "random".into(),
            weights: Weights::random(&config, 1).unwrap(),
            config: config.clone(),
            digest: String::new(),
        };
        let ceiling = cpu_ceiling().unwrap();
        assert!(ceiling.bytes_per_s > 1e8 && ceiling.flops_per_s > 1e8);
        let open = |layers: usize, pages: usize| {
            let config = ModelConfig {
                num_hidden_layers: layers,
                ..config.clone()
            };
            open(DeviceKind::Cpu, &config, &model.weights, pages)
        };
        let lines = bench(&model, ceiling, &open, &mut |_| ControlFlow::Continue(()))
            .unwrap()
            .unwrap();
        assert!(
            lines
                .iter()
                .any(|l| l.phase == "decode" && l.sequences == 64)
        );
        for line in &lines {
            let parts = line.layer_ms * config.num_hidden_layers as f64 + line.ends_ms;
            assert!(parts + 1e-9 >= line.ms, "{line:?}");
            // Twice the parameters per token, less what embeddings do not compute, and attention.
            assert!(line.flops > 0 && line.bytes > 0 && line.floor_ms > 0.0);
            // The weights fit in a cache, so steps may be faster than memory, not than arithmetic.
            let by_flops = line.flops as f64 / ceiling.flops_per_s * 1e3;
            assert!(by_flops < 1.5 * line.ms, "{line:?}");
        }
        let more = lines
            .windows(2)
            .filter(|w| w[0].phase == "decode" && w[1].phase == "decode");
        assert!(more.into_iter().all(|w| w[1].flops > w[0].flops));
    }
}
