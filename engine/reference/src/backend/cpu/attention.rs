//! Attention over pages: rotation, keys and values to their pages, and what queries make of them.

use super::rows::{dot, softmax};
use super::{Cpu, Group, Row, THREADED, flat};
use crate::backend::Span;
use crate::error::ReferenceError;
use crate::kv::pages::Side;
use candle_core::{Device, Tensor};
use rayon::prelude::*;

/// Positions of a prompt that are attended at once: more would compute more scores of tokens that come
/// later, and throw them away.
const TILE: usize = 32;

impl Cpu {
    /// Rotates the heads of one row by its position: the first half of a head with the second.
    pub(super) fn rotate(&self, heads: &mut [f32], position: usize) {
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
    pub(super) fn append(
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
    pub(super) fn attend(
        &self,
        layer: usize,
        groups: &[Group],
        queries: &[f32],
        width: usize,
        spans: &[Span<'_>],
    ) -> Result<Vec<f32>, ReferenceError> {
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
        let one = |&(g, kv_head): &(usize, usize)| {
            let group = &groups[g];
            let (keys, values) = self.past(layer, group, kv_head, &spans[group.span]);
            let mut own = Vec::with_capacity(group.count * shared * dim);
            for row in group.first..group.first + group.count {
                let at = row * width + kv_head * shared * dim;
                own.extend_from_slice(&queries[at..at + shared * dim]);
            }
            let head = Head {
                start: group.start,
                shared,
                dim,
            };
            if group.count == 1 {
                Ok(head.token(&own, &keys, &values))
            } else {
                head.prompt(&own, keys, values)
            }
        };
        let pairs: usize = groups.iter().map(|g| g.count * (g.start + g.count)).sum();
        let parts: Vec<Vec<f32>> = if 2 * pairs * heads * dim < THREADED {
            jobs.iter().map(one).collect::<Result<_, ReferenceError>>()
        } else {
            jobs.par_iter().map(one).collect()
        }?;
        let mut all = vec![0_f32; rows * heads * dim];
        for ((g, kv_head), part) in jobs.into_iter().zip(parts) {
            for (i, numbers) in part.chunks_exact(shared * dim).enumerate() {
                let at = (groups[g].first + i) * heads * dim + kv_head * shared * dim;
                all[at..at + shared * dim].copy_from_slice(numbers);
            }
        }
        Ok(all)
    }

    /// Keys and values of one head, of all tokens up to the last of the group.
    fn past(
        &self,
        layer: usize,
        group: &Group,
        head: usize,
        span: &Span<'_>,
    ) -> (Vec<f32>, Vec<f32>) {
        let (dim, size) = (self.config.head_dim, self.pages.page_tokens());
        let context = group.start + group.count;
        let (mut keys, mut values) = (vec![0_f32; context * dim], vec![0_f32; context * dim]);
        for (i, &page) in span.pages.iter().take(context.div_ceil(size)).enumerate() {
            let tokens = (context - i * size).min(size);
            let place = i * size * dim..(i * size + tokens) * dim;
            for (side, out) in [(Side::Key, &mut keys), (Side::Value, &mut values)] {
                self.pages
                    .read(page, layer, side, head, tokens, &mut out[place.clone()]);
            }
        }
        (keys, values)
    }
}

/// One key-value head, and the query heads that share it.
struct Head {
    /// Position of the first query.
    start: usize,
    shared: usize,
    dim: usize,
}

impl Head {
    /// Attention of one position.
    fn token(&self, queries: &[f32], keys: &[f32], values: &[f32]) -> Vec<f32> {
        let scale = 1.0 / (self.dim as f32).sqrt();
        let mut out = vec![0_f32; queries.len()];
        let mut scores = vec![0_f32; self.start + 1];
        let heads = queries.chunks_exact(self.dim);
        for (query, out) in heads.zip(out.chunks_exact_mut(self.dim)) {
            for (score, key) in scores.iter_mut().zip(keys.chunks_exact(self.dim)) {
                *score = dot(query, key);
            }
            softmax(&mut scores, scale);
            for (share, value) in scores.iter().zip(values.chunks_exact(self.dim)) {
                for (o, v) in out.iter_mut().zip(value) {
                    *o += share * v;
                }
            }
        }
        out
    }

    /// Attention of the positions of a prompt, some of them at a time.
    fn prompt(
        &self,
        queries: &[f32],
        keys: Vec<f32>,
        values: Vec<f32>,
    ) -> Result<Vec<f32>, ReferenceError> {
        let scale = 1.0 / (self.dim as f32).sqrt();
        let context = keys.len() / self.dim;
        let keys = Tensor::from_vec(keys, (context, self.dim), &Device::Cpu)?;
        let values = Tensor::from_vec(values, (context, self.dim), &Device::Cpu)?;
        let mut out = Vec::with_capacity(queries.len());
        for (i, tile) in queries.chunks(TILE * self.shared * self.dim).enumerate() {
            let rows = tile.len() / self.dim;
            let first = self.start + i * TILE;
            let seen = first + rows / self.shared;
            let tile = Tensor::from_slice(tile, (rows, self.dim), &Device::Cpu)?;
            let mut scores = flat(&tile.matmul(&keys.narrow(0, 0, seen)?.t()?)?)?;
            for (row, scores) in scores.chunks_exact_mut(seen).enumerate() {
                let (past, later) = scores.split_at_mut(first + row / self.shared + 1);
                softmax(past, scale);
                later.fill(0.0);
            }
            let scores = Tensor::from_vec(scores, (rows, seen), &Device::Cpu)?;
            out.extend(flat(&scores.matmul(&values.narrow(0, 0, seen)?)?)?);
        }
        Ok(out)
    }
}
