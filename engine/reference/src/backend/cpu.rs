//! The CPU: matrix products through candle, attention over pages by hand.
//!
//! All arithmetic is in 32-bit floats. A token that leaves early (`Span::layers`) goes on in the
//! layers left out with its state frozen: only its keys and values are computed there, so that later
//! tokens find them.

use super::{Backend, Sampled, Span, Work};
use crate::config::ModelConfig;
use crate::error::ReferenceError;
use crate::kv::format::KvFormat;
use crate::kv::pages::{Pages, Side};
use crate::sampling::sample;
use crate::weights::Weights;
use candle_core::{D, Device, Tensor};
use rayon::prelude::*;

/// The CPU with one model.
#[derive(Debug)]
pub struct Cpu {
    config: ModelConfig,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Tensor,
    pages: Pages,
    /// Cosine and sine by position and half dimension.
    rope: Vec<(f32, f32)>,
    logits: Vec<f32>,
    work: Work,
}

#[derive(Debug)]
struct Layer {
    input_norm: Tensor,
    qkv: Tensor,
    kv: Tensor,
    o: Tensor,
    post_norm: Tensor,
    gate_up: Tensor,
    down: Tensor,
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

impl Cpu {
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
                input_norm: get("input_layernorm")?.clone(),
                qkv: Tensor::cat(&[q, k, v], 0)?,
                kv: Tensor::cat(&[k, v], 0)?,
                o: get("self_attn.o_proj")?.clone(),
                post_norm: get("post_attention_layernorm")?.clone(),
                gate_up: Tensor::cat(&[get("mlp.gate_proj")?, get("mlp.up_proj")?], 0)?,
                down: get("mlp.down_proj")?.clone(),
            });
        }
        Ok(Self {
            config: config.clone(),
            embedding: weights.get("model.embed_tokens.weight")?.clone(),
            layers,
            norm: weights.get("model.norm.weight")?.clone(),
            head: weights.get("lm_head.weight")?.clone(),
            pages: Pages::new(config, memory.pages, memory.page_tokens, memory.filling),
            rope: rope(config),
            logits: Vec::new(),
            work: Work::default(),
        })
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor, ReferenceError> {
        Ok(candle_nn::ops::rms_norm(
            x,
            weight,
            self.config.rms_norm_eps as f32,
        )?)
    }

    /// Rotates the heads of one row by its position: the first half of a head with the second.
    fn rotate(&self, heads: &mut [f32], position: usize) {
        let half = self.config.head_dim / 2;
        let turns = &self.rope[position * half..(position + 1) * half];
        for head in heads.chunks_exact_mut(2 * half) {
            let (first, second) = head.split_at_mut(half);
            for ((a, b), &(cos, sin)) in first.iter_mut().zip(second).zip(turns) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }

    /// Writes the keys and values of new tokens to their pages. `kv` has a row per token.
    fn append(
        &mut self,
        layer: usize,
        rows: &[Row],
        kv: &mut [f32],
        width: usize,
        spans: &[Span<'_>],
    ) {
        let (heads, dim, size) = (
            self.config.num_key_value_heads,
            self.config.head_dim,
            self.pages.page_tokens(),
        );
        for (row, numbers) in rows.iter().zip(kv.chunks_exact_mut(width)) {
            let numbers = &mut numbers[width - 2 * heads * dim..];
            let (keys, values) = numbers.split_at_mut(heads * dim);
            self.rotate(keys, row.position);
            let page = spans[row.span].pages[row.position / size];
            let token = row.position % size;
            for head in 0..heads {
                let part = head * dim..(head + 1) * dim;
                self.pages
                    .write(page, layer, Side::Key, head, token, &keys[part.clone()]);
                self.pages
                    .write(page, layer, Side::Value, head, token, &values[part]);
            }
        }
    }

    /// Attention of the active rows: `[rows, heads * dim]`. `queries` are rotated already.
    fn attend(
        &self,
        layer: usize,
        groups: &[Group],
        queries: &[f32],
        width: usize,
        spans: &[Span<'_>],
    ) -> Vec<f32> {
        let (heads, kv_heads, dim) = (
            self.config.num_attention_heads,
            self.config.num_key_value_heads,
            self.config.head_dim,
        );
        let shared = heads / kv_heads;
        let rows: usize = groups.iter().map(|g| g.count).sum();
        let jobs: Vec<(usize, usize)> = (0..groups.len())
            .flat_map(|g| (0..kv_heads).map(move |h| (g, h)))
            .collect();
        let parts: Vec<Vec<f32>> = jobs
            .par_iter()
            .map(|&(g, kv_head)| {
                let group = &groups[g];
                let mut out = vec![0_f32; group.count * shared * dim];
                self.attend_head(
                    layer,
                    group,
                    kv_head,
                    queries,
                    width,
                    &spans[group.span],
                    &mut out,
                );
                out
            })
            .collect();
        let mut all = vec![0_f32; rows * heads * dim];
        for ((g, kv_head), part) in jobs.into_iter().zip(parts) {
            for (i, numbers) in part.chunks_exact(shared * dim).enumerate() {
                let at = (groups[g].first + i) * heads * dim + kv_head * shared * dim;
                all[at..at + shared * dim].copy_from_slice(numbers);
            }
        }
        all
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one inner loop, called from one place"
    )]
    fn attend_head(
        &self,
        layer: usize,
        group: &Group,
        kv_head: usize,
        queries: &[f32],
        width: usize,
        span: &Span<'_>,
        out: &mut [f32],
    ) {
        let (dim, size) = (self.config.head_dim, self.pages.page_tokens());
        let shared = self.config.num_attention_heads / self.config.num_key_value_heads;
        let context = group.start + group.count;
        let (mut keys, mut values) = (vec![0_f32; context * dim], vec![0_f32; context * dim]);
        for (i, &page) in span.pages.iter().take(context.div_ceil(size)).enumerate() {
            let tokens = (context - i * size).min(size);
            let place = i * size * dim..(i * size + tokens) * dim;
            self.pages.read(
                page,
                layer,
                Side::Key,
                kv_head,
                tokens,
                &mut keys[place.clone()],
            );
            self.pages.read(
                page,
                layer,
                Side::Value,
                kv_head,
                tokens,
                &mut values[place],
            );
        }
        let scale = 1.0 / (dim as f32).sqrt();
        let mut scores = vec![0_f32; context];
        for i in 0..group.count {
            let seen = group.start + i + 1;
            for j in 0..shared {
                let at = (group.first + i) * width + (kv_head * shared + j) * dim;
                let query = &queries[at..at + dim];
                let mut top = f32::NEG_INFINITY;
                for (score, key) in scores[..seen].iter_mut().zip(keys.chunks_exact(dim)) {
                    *score = dot(query, key) * scale;
                    top = top.max(*score);
                }
                let mut total = 0_f32;
                for score in &mut scores[..seen] {
                    *score = (*score - top).exp();
                    total += *score;
                }
                let place = &mut out[(i * shared + j) * dim..(i * shared + j + 1) * dim];
                for (score, value) in scores[..seen].iter().zip(values.chunks_exact(dim)) {
                    let weight = score / total;
                    for (o, v) in place.iter_mut().zip(value) {
                        *o += weight * v;
                    }
                }
            }
        }
    }

    /// Counts a product of `rows` rows by a matrix.
    fn count_product(&mut self, rows: usize, inputs: usize, outputs: usize) {
        self.work.launches += 1;
        self.work.flops += 2 * (rows * inputs * outputs) as u64;
        self.work.weight_bytes += (inputs * outputs * size_of::<f32>()) as u64;
    }

    /// Counts a look-up of embeddings.
    const fn count_rows(&mut self, rows: usize) {
        self.work.launches += 1;
        self.work.weight_bytes += (rows * self.config.hidden_size * size_of::<f32>()) as u64;
    }

    /// Counts what a layer does to rows of which the first `active` go on.
    fn count_layer(&mut self, rows: usize, active: usize, groups: &[Group], spans: &[Span<'_>]) {
        let c = &self.config;
        let (heads, dim, hidden, inner) = (
            c.num_attention_heads,
            c.head_dim,
            c.hidden_size,
            c.intermediate_size,
        );
        let kv = 2 * c.num_key_value_heads * dim;
        self.work.launches += 1; // norm
        if active > 0 {
            self.count_product(active, hidden, heads * dim + kv);
            self.work.launches += 1; // rotation and append
        }
        if active < rows {
            self.count_product(rows - active, hidden, kv);
            self.work.launches += 1;
        }
        let (filling, size) = (self.pages.filling(), self.pages.page_tokens());
        self.work.kv_written_bytes += (rows * kv * filling.bytes()) as u64;
        if active == 0 {
            return;
        }
        self.work.launches += 1; // attention
        for group in groups {
            let last = group.start + group.count;
            let seen: usize = (group.start + 1..=last).sum();
            self.work.flops += 4 * (seen * heads * dim) as u64;
            for (i, &page) in spans[group.span].pages.iter().enumerate() {
                let tokens = last.saturating_sub(i * size).min(size);
                self.work.kv_read_bytes += self.pages.read_bytes(page, tokens);
            }
        }
        self.count_product(active, heads * dim, hidden);
        self.work.launches += 2; // sum and norm
        self.count_product(active, hidden, 2 * inner);
        self.work.launches += 1; // gate
        self.count_product(active, inner, hidden);
        self.work.launches += 1; // sum
    }

    /// One layer over the states of all rows; those from `groups` are changed.
    fn layer(
        &mut self,
        i: usize,
        x: Tensor,
        rows: &[Row],
        groups: &[Group],
        spans: &[Span<'_>],
    ) -> Result<Tensor, ReferenceError> {
        let (heads, kv_heads, dim) = (
            self.config.num_attention_heads,
            self.config.num_key_value_heads,
            self.config.head_dim,
        );
        let layer = &self.layers[i];
        let normed = self.rms_norm(&x, &layer.input_norm)?;
        let active: usize = groups.iter().map(|g| g.count).sum();
        if active == 0 {
            let mut kv = flat(&normed.matmul(&layer.kv.t()?)?)?;
            self.append(i, rows, &mut kv, 2 * kv_heads * dim, spans);
            return Ok(x);
        }
        // Rows are ordered so that those which go on come first.
        let width = (heads + 2 * kv_heads) * dim;
        let mut qkv = flat(&normed.narrow(0, 0, active)?.matmul(&layer.qkv.t()?)?)?;
        self.append(i, &rows[..active], &mut qkv, width, spans);
        if active < rows.len() {
            let frozen = normed.narrow(0, active, rows.len() - active)?;
            let mut kv = flat(&frozen.matmul(&self.layers[i].kv.t()?)?)?;
            self.append(i, &rows[active..], &mut kv, 2 * kv_heads * dim, spans);
        }
        for (row, numbers) in rows[..active].iter().zip(qkv.chunks_exact_mut(width)) {
            self.rotate(&mut numbers[..heads * dim], row.position);
        }
        let attended = self.attend(i, groups, &qkv, width, spans);
        let layer = &self.layers[i];
        let attended = Tensor::from_vec(attended, (active, heads * dim), &Device::Cpu)?;
        let y = (x.narrow(0, 0, active)? + attended.matmul(&layer.o.t()?)?)?;
        let gate_up = self
            .rms_norm(&y, &layer.post_norm)?
            .matmul(&layer.gate_up.t()?)?;
        let width = self.config.intermediate_size;
        let gated = (candle_nn::ops::silu(&gate_up.narrow(1, 0, width)?)?
            * gate_up.narrow(1, width, width)?)?;
        let y = (y + gated.matmul(&layer.down.t()?)?)?;
        if active == rows.len() {
            return Ok(y);
        }
        Ok(Tensor::cat(
            &[y, x.narrow(0, active, rows.len() - active)?],
            0,
        )?)
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

fn flat(x: &Tensor) -> Result<Vec<f32>, ReferenceError> {
    Ok(x.flatten_all()?.to_vec1::<f32>()?)
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Eight sums side by side, which the compiler turns into one vector.
    let mut sums = [0_f32; 8];
    let (ca, cb) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = ca
        .remainder()
        .iter()
        .zip(cb.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in ca.zip(cb) {
        for ((s, x), y) in sums.iter_mut().zip(x).zip(y) {
            *s += x * y;
        }
    }
    sums.iter().sum::<f32>() + rest
}

pub(super) fn rope(config: &ModelConfig) -> Vec<(f32, f32)> {
    let half = config.head_dim / 2;
    (0..config.max_position_embeddings)
        .flat_map(|p| {
            (0..half).map(move |i| {
                let angle = p as f64 * config.rope_theta.powf(-(i as f64) / half as f64);
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

    fn take_page(&mut self) -> Option<u32> {
        self.pages.take()
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
        let mut x = self.embedding.index_select(&ids, 0)?;
        let (hidden, vocab) = (self.config.hidden_size, self.config.vocab_size);
        self.count_rows(rows.len());
        for i in 0..all {
            let active = groups
                .iter()
                .take_while(|g| spans[g.span].layers.unwrap_or(all) > i)
                .count();
            x = self.layer(i, x, &rows, &groups[..active], spans)?;
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
        let last: Vec<u32> = asked
            .iter()
            .map(|g| (g.first + g.count - 1) as u32)
            .collect();
        let last = Tensor::from_vec(last, asked.len(), &Device::Cpu)?;
        let states = self.rms_norm(&x.index_select(&last, 0)?, &self.norm)?;
        let logits = states.matmul(&self.head.t()?)?;
        debug_assert_eq!(logits.dim(D::Minus1)?, self.config.vocab_size);
        self.logits = flat(&logits)?;
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
