//! The CPU: weights as candle reads them, products by the library that candle has them from, the rest in
//! loops of our own over plain rows.
//!
//! Candle's products ask the system for its cores each time, which takes as long as a small product; its loops
//! over elements wake a pool whose threads wait by spinning. Beside a thread that computes
//! small steps they take more than they give, and make its times unsteady; here they are never started.
//! Products are shared among threads only if they are large.
//!
//! All arithmetic is in 32-bit floats. A token that leaves early (`Span::layers`) goes on in the
//! layers left out with its state frozen: only its keys and values are computed there, so that later
//! tokens find them.

use super::{Backend, Sampled, Span, Work};
use crate::config::ModelConfig;
use crate::error::ReferenceError;
use crate::kv::format::KvFormat;
use crate::kv::pages::Pages;
use crate::sampling::sample;
use crate::weights::Weights;
use candle_core::{Device, Tensor};
pub(crate) use rows::is_shared;
use rows::{add, gated, product, rms_norm};
use windtunnel_gemm::Matrix;

/// Attention over pages.
mod attention;
/// What a step does, counted.
mod count;
/// Loops over rows of numbers.
mod rows;

/// Multiplications from which on a product, or attention of a layer, is shared among threads: about a
/// millisecond of one core, which does some 100 billion operations per second, two per multiplication.
/// Waking threads that slept takes 20 to 100 us, and how long varies: of a millisecond shared by two that
/// is a fifth of what is saved at most. Derived from these rates; `engine bench` measures both
/// ways on the machine at hand.
const THREADED: usize = 1 << 26;
/// Weights from which on a product is shared, however few rows there are: 8 MiB, which one core reads in
/// about that long at some 10 GB/s.
const THREADED_WEIGHTS: usize = (8 << 20) / size_of::<f32>();

/// The CPU with one model.
#[derive(Debug)]
pub struct Cpu {
    config: ModelConfig,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    head: Matrix,
    pages: Pages,
    /// Cosine and sine by position and half dimension.
    rope: Vec<(f32, f32)>,
    logits: Vec<f32>,
    work: Work,
}

#[derive(Debug)]
struct Layer {
    input_norm: Vec<f32>,
    qkv: Matrix,
    kv: Matrix,
    o: Matrix,
    post_norm: Vec<f32>,
    gate_up: Matrix,
    down: Matrix,
}

/// How large the memory for keys and values is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KvMemory {
    /// Pages.
    pub pages: usize,
    /// Tokens of a page.
    pub page_tokens: usize,
    /// Format of pages that are being filled.
    pub filling: KvFormat,
}

impl KvMemory {
    /// Bytes of all pages of a model while they are being filled.
    pub fn bytes(&self, config: &ModelConfig) -> u64 {
        let tokens = (self.pages as u64).saturating_mul(self.page_tokens as u64);
        let numbers = config.kv_numbers().saturating_mul(tokens);
        numbers.saturating_mul(self.filling.bytes() as u64)
    }
}

impl Cpu {
    /// Bytes that a model takes on the CPU beside its weights as they were read: those in the order of
    /// products, the angles of all positions, and pages of keys and values.
    pub fn bytes(config: &ModelConfig, memory: &KvMemory) -> u64 {
        let angles = config.max_position_embeddings * config.head_dim / 2 * size_of::<(f32, f32)>();
        let model = config.host_bytes().saturating_add(angles as u64);
        memory.bytes(config).saturating_add(model)
    }

    /// A model on the CPU.
    ///
    /// # Errors
    /// If a weight is missing, or memory does not suffice.
    pub fn new(
        config: &ModelConfig,
        weights: &Weights,
        memory: &KvMemory,
    ) -> Result<Self, ReferenceError> {
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for i in 0..config.num_hidden_layers {
            let get = |name: &str| weights.get(&format!("model.layers.{i}.{name}.weight"));
            let (q, k, v) = (
                get("self_attn.q_proj")?,
                get("self_attn.k_proj")?,
                get("self_attn.v_proj")?,
            );
            layers.push(Layer {
                input_norm: flat(get("input_layernorm")?)?,
                qkv: turned(&Tensor::cat(&[q, k, v], 0)?)?,
                kv: turned(&Tensor::cat(&[k, v], 0)?)?,
                o: turned(get("self_attn.o_proj")?)?,
                post_norm: flat(get("post_attention_layernorm")?)?,
                gate_up: turned(&Tensor::cat(
                    &[get("mlp.gate_proj")?, get("mlp.up_proj")?],
                    0,
                )?)?,
                down: turned(get("mlp.down_proj")?)?,
            });
        }
        Ok(Self {
            config: config.clone(),
            embedding: weights.get("model.embed_tokens.weight")?.clone(),
            layers,
            norm: flat(weights.get("model.norm.weight")?)?,
            head: turned(weights.get("lm_head.weight")?)?,
            pages: Pages::new(config, memory.pages, memory.page_tokens, memory.filling),
            rope: rope(config),
            logits: Vec::new(),
            work: Work::default(),
        })
    }

    /// One layer over the states of all rows; those from `groups` are changed.
    fn layer(
        &mut self,
        i: usize,
        x: &mut [f32],
        rows: &[Row],
        groups: &[Group],
        spans: &[Span<'_>],
    ) -> Result<(), ReferenceError> {
        let (heads, kv_heads, dim, hidden, eps) = (
            self.config.num_attention_heads,
            self.config.num_key_value_heads,
            self.config.head_dim,
            self.config.hidden_size,
            self.config.rms_norm_eps as f32,
        );
        // Rows are ordered so that those which go on come first.
        let active: usize = groups.iter().map(|g| g.count).sum();
        let layer = &self.layers[i];
        let mut normed = rms_norm(x, &layer.input_norm, eps);
        let frozen = normed.split_off(active * hidden);
        if active > 0 {
            let width = (heads + 2 * kv_heads) * dim;
            let mut qkv = product(&normed, &layer.qkv);
            self.append(i, &rows[..active], &mut qkv, width, spans);
            // What is frozen is written before anybody attends, too.
            self.append_frozen(i, &rows[active..], frozen, spans)?;
            for (row, numbers) in rows[..active].iter().zip(qkv.chunks_exact_mut(width)) {
                self.rotate(&mut numbers[..heads * dim], row.position);
            }
            let attended = self.attend(i, groups, &qkv, width, spans)?;
            let (layer, x) = (&self.layers[i], &mut x[..active * hidden]);
            add(x, &product(&attended, &layer.o));
            let gate_up = product(&rms_norm(x, &layer.post_norm, eps), &layer.gate_up);
            let inner = gated(&gate_up, self.config.intermediate_size);
            add(x, &product(&inner, &layer.down));
            return Ok(());
        }
        self.append_frozen(i, rows, frozen, spans)
    }

    /// Keys and values of tokens that left before this layer.
    fn append_frozen(
        &mut self,
        layer: usize,
        rows: &[Row],
        normed: Vec<f32>,
        spans: &[Span<'_>],
    ) -> Result<(), ReferenceError> {
        if rows.is_empty() {
            return Ok(());
        }
        let width = 2 * self.config.num_key_value_heads * self.config.head_dim;
        let mut kv = product(&normed, &self.layers[layer].kv);
        self.append(layer, rows, &mut kv, width, spans);
        Ok(())
    }
}

/// One new token.
#[derive(Clone, Copy, Debug)]
struct Row {
    span: usize,
    position: usize,
}

/// The rows of one span, which lie together.
#[derive(Clone, Copy, Debug)]
struct Group {
    span: usize,
    /// First row.
    first: usize,
    /// Rows.
    count: usize,
    /// Position of the first.
    start: usize,
}

/// A matrix of `[outputs, inputs]` as `[inputs, outputs]`: so it need not be put in order for each
/// product, which takes several times as long as a product with few rows.
fn turned(matrix: &Tensor) -> Result<Matrix, ReferenceError> {
    let (outputs, inputs) = matrix.dims2()?;
    let numbers = flat(&matrix.t()?.contiguous()?)?;
    Matrix::new(inputs, outputs, numbers).ok_or_else(|| ReferenceError::Tensor {
        name: "a matrix of weights".into(),
        reason: "it has not as many numbers as its sizes say".into(),
        remedy: "take weights and config of the same model".into(),
    })
}

/// The numbers of a tensor, row by row.
fn flat(x: &Tensor) -> Result<Vec<f32>, ReferenceError> {
    Ok(x.flatten_all()?.to_vec1::<f32>()?)
}

pub(in crate::backend) fn rope(config: &ModelConfig) -> Vec<(f32, f32)> {
    let half = config.head_dim / 2;
    (0..config.max_position_embeddings)
        .flat_map(|p| {
            (0..half).map(move |i| {
                let angle = p as f64 * config.rope_frequency(i);
                (angle.cos() as f32, angle.sin() as f32)
            })
        })
        .collect()
}

impl Backend for Cpu {
    fn device(&self) -> String {
        format!("cpu, {} threads", rayon::current_num_threads())
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn take_page(&mut self) -> Result<Option<u32>, ReferenceError> {
        Ok(self.pages.take())
    }

    fn give_back_page(&mut self, page: u32) {
        self.pages.give_back(page);
    }

    fn page_tokens(&self) -> usize {
        self.pages.page_tokens()
    }

    fn convert_page(&mut self, page: u32, format: KvFormat) -> Result<(), ReferenceError> {
        let before = self.pages.page_bytes(page);
        self.pages.convert(page, format);
        if self.pages.format(page).is_some() {
            self.work.launches += 1;
            self.work.kv_read_bytes += before;
            self.work.kv_written_bytes += self.pages.page_bytes(page);
        }
        Ok(())
    }

    fn kv_bytes(&self) -> usize {
        self.pages.bytes()
    }

    fn step(
        &mut self,
        spans: &[Span<'_>],
        sampled: &mut Vec<Sampled>,
    ) -> Result<(), ReferenceError> {
        let all = self.config.num_hidden_layers;
        // Those that leave last come first, so that the rows that go on always lie in front.
        let mut order: Vec<usize> = (0..spans.len())
            .filter(|&s| !spans[s].tokens.is_empty())
            .collect();
        order.sort_by_key(|&s| std::cmp::Reverse(spans[s].layers.unwrap_or(all)));
        let (mut rows, mut groups, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
        for &s in &order {
            let span = &spans[s];
            groups.push(Group {
                span: s,
                first: rows.len(),
                count: span.tokens.len(),
                start: span.start,
            });
            rows.extend((0..span.tokens.len()).map(|i| Row {
                span: s,
                position: span.start + i,
            }));
            tokens.extend_from_slice(span.tokens);
        }
        sampled.clear();
        sampled.resize(spans.len(), Sampled::default());
        self.logits.clear();
        if rows.is_empty() {
            return Ok(());
        }
        let ids = Tensor::from_vec(tokens, rows.len(), &Device::Cpu)?;
        let mut x = flat(&self.embedding.index_select(&ids, 0)?)?;
        let (hidden, vocab) = (self.config.hidden_size, self.config.vocab_size);
        self.count_rows(rows.len());
        for i in 0..all {
            let active = groups
                .iter()
                .take_while(|g| spans[g.span].layers.unwrap_or(all) > i)
                .count();
            self.layer(i, &mut x, &rows, &groups[..active], spans)?;
            let going: usize = groups[..active].iter().map(|g| g.count).sum();
            self.count_layer(rows.len(), going, &groups[..active], spans);
        }
        // In the order of the spans, so that logits are too.
        groups.sort_by_key(|g| g.span);
        let asked: Vec<&Group> = groups
            .iter()
            .filter(|g| spans[g.span].sample.is_some())
            .collect();
        if asked.is_empty() {
            return Ok(());
        }
        let mut states = Vec::with_capacity(asked.len() * hidden);
        for group in &asked {
            let last = group.first + group.count - 1;
            states.extend_from_slice(&x[last * hidden..(last + 1) * hidden]);
        }
        let eps = self.config.rms_norm_eps as f32;
        self.logits = product(&rms_norm(&states, &self.norm, eps), &self.head);
        debug_assert_eq!(self.logits.len(), asked.len() * vocab);
        self.work.launches += 3; // gather, norm and sampling
        self.count_product(asked.len(), hidden, vocab);
        for (group, logits) in asked
            .iter()
            .zip(self.logits.chunks_exact(self.config.vocab_size))
        {
            let Some(sampling) = &spans[group.span].sample else {
                continue;
            };
            let position = group.start + group.count - 1;
            sampled[group.span] =
                sample(logits, sampling, position).ok_or(ReferenceError::NotANumber {
                    sequence: group.span,
                    position,
                })?;
        }
        Ok(())
    }

    fn logits(&mut self) -> Result<Vec<f32>, ReferenceError> {
        Ok(self.logits.clone())
    }

    fn embed(&mut self, tokens: &[u32]) -> Result<Vec<f32>, ReferenceError> {
        if tokens.is_empty() {
            return Ok(vec![0.0; self.config.hidden_size]);
        }
        let ids = Tensor::from_vec(tokens.to_vec(), tokens.len(), &Device::Cpu)?;
        let mean = self.embedding.index_select(&ids, 0)?.mean(0)?;
        self.count_rows(tokens.len());
        self.work.launches += 1;
        flat(&mean)
    }

    fn work(&self) -> Work {
        self.work
    }
}

#[cfg(test)]
mod tests;
