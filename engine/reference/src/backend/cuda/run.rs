//! A step on the device: the launches of every layer, in order, directly or as a graph.

use super::layout::{SAMPLED, SPAN};
use super::plan::{Active, Shape};
use super::products::Matrix;
use super::workspace::Room;
use super::{CudaBackend, Launches};
use crate::backend::{Sampled, Span};
use crate::error::ReferenceError;
use windtunnel_cuda::{Arg, CudaError, Device, Gemm, Grid, Kernel, Place};

/// Rows that decode steps are filled up to, so that few graphs serve all.
pub(super) const BUCKETS: [usize; 10] = [1, 2, 4, 8, 16, 32, 48, 64, 96, 128];

/// Threads of a block of decode attention.
const DECODE_THREADS: u32 = 128;

/// Blocks that decode attention is split into at most: as many as the device holds at a time, which keeps
/// every multiprocessor's memory requests going, and no second round that few take part in.
pub(super) fn split_blocks(device: &Device, decode: Kernel) -> Result<usize, CudaError> {
    Ok(device.resident_blocks(decode, DECODE_THREADS)? as usize)
}

/// Splits of a decode: all that fit, or for contexts with fewer pages a power of two, so that few graphs
/// serve all; every warp has a page at least.
pub(super) fn splits(blocks: usize, kv_heads: usize, spans: usize, pages: usize) -> usize {
    let by_blocks = blocks / (kv_heads * spans).max(1);
    let by_pages = pages.div_ceil(4).max(1);
    by_blocks.min(1 << by_pages.ilog2()).max(1)
}

impl CudaBackend {
    /// Computes a step up to its tokens, which stay on the device.
    pub(super) fn compute(&mut self, spans: &[Span<'_>]) -> Result<(), ReferenceError> {
        let scratch = self.scratch();
        let graphs = self.options.graphs;
        self.plan.build(
            spans,
            self.sizes.layers,
            self.sizes.group(),
            scratch,
            |rows| BUCKETS.into_iter().find(|&b| graphs && b >= rows),
        );
        self.answered.clear();
        for (row, &s) in self.plan.asked.iter().enumerate() {
            if spans[s].sample.is_some() {
                self.answered.push(row);
            }
        }
        // In the order of the spans, also where rows are in that of a graph.
        let asked = &self.plan.asked;
        self.answered.sort_by_key(|&row| asked[row]);
        self.launches = Launches::default();
        if self.plan.shape.rows == 0 {
            return Ok(());
        }
        let shape = &self.plan.shape;
        let pages = (self.plan.bytes.len() - shape.tables.pages) / 4;
        let room = Room {
            rows: shape.rows,
            asked: shape.asked,
            pages,
        };
        self.make_room(room)?;
        self.device
            .upload(self.work.tables.at(0), &self.plan.bytes)?;
        let shape = &self.plan.shape;
        let count = splits(
            self.split_blocks,
            self.sizes.kv_heads,
            shape.active.first().map_or(1, |a| a.decodes),
            shape.decode_pages,
        );
        let before = self.device.launches();
        if !self.plan.uniform {
            self.launch_all(shape, count)?;
            let calls = self.device.launches() - before;
            self.launches = Launches { calls, work: calls };
            return Ok(());
        }
        let key = (shape.rows, count);
        if let Some(graph) = self.graphs.get(&key) {
            self.device.replay(graph)?;
            self.launches = Launches {
                calls: 1,
                work: graph.launches(),
            };
            return Ok(());
        }
        // The first time directly: then every product's plan is there when the graph is recorded.
        self.launch_all(shape, count)?;
        let calls = self.device.launches() - before;
        self.launches = Launches { calls, work: calls };
        let graph = self
            .device
            .record::<CudaError>(|| self.launch_all(shape, count))?;
        self.graphs.insert(key, graph);
        Ok(())
    }

    /// Fetches tokens, once all work is done.
    pub(super) fn read_sampled(
        &mut self,
        spans: &[Span<'_>],
        sampled: &mut [Sampled],
    ) -> Result<(), ReferenceError> {
        let asked = &self.plan.asked;
        if asked.is_empty() {
            // A device that failed must not go unnoticed.
            return Ok(self.device.wait()?);
        }
        let mut bytes = vec![0; SAMPLED * asked.len()];
        self.device.download(self.work.sampled.at(0), &mut bytes)?;
        for (entry, &s) in bytes.chunks_exact(SAMPLED).zip(asked) {
            if spans[s].sample.is_none() {
                continue;
            }
            let word = |i: usize| [entry[i], entry[i + 1], entry[i + 2], entry[i + 3]];
            let token = u32::from_le_bytes(word(0));
            if token as usize >= self.sizes.vocab {
                // What is no number may have reached the pages, and would stay there.
                self.frames.distrust();
                return Err(ReferenceError::NotANumber {
                    sequence: s,
                    position: spans[s].start + spans[s].tokens.len() - 1,
                });
            }
            sampled[s] = Sampled {
                token,
                entropy: f32::from_le_bytes(word(4)),
                margin: f32::from_le_bytes(word(8)),
                log_probability: f32::from_le_bytes(word(12)),
            };
        }
        Ok(())
    }

    /// Attention of the latest step alone, `repeats` times through all layers, for measuring.
    pub(super) fn attention_alone(&self, repeats: usize) -> Result<(), CudaError> {
        let shape = &self.plan.shape;
        let decodes = shape.active.first().map_or(1, |a| a.decodes);
        let blocks = self.split_blocks;
        let count = splits(blocks, self.sizes.kv_heads, decodes, shape.decode_pages);
        for _ in 0..repeats {
            for (layer, active) in shape.active.iter().enumerate() {
                self.attend(layer, shape, *active, count)?;
            }
        }
        Ok(())
    }

    fn table(&self, at: usize) -> Place<'_> {
        self.work.tables.at(at)
    }

    /// Everything from tokens to tokens.
    fn launch_all(&self, shape: &Shape, splits: usize) -> Result<(), CudaError> {
        let (w, tables) = (&self.work, &shape.tables);
        let rows = shape.rows as u32;
        let args = [
            self.weights.embedding.arg(),
            self.table(tables.tokens).arg(),
            w.x.arg(),
        ];
        self.device
            .launch(self.kernels.embed, Grid::new(rows, 256), &args)?;
        for (layer, active) in shape.active.iter().enumerate() {
            self.layer(layer, shape, *active, splits)?;
        }
        if shape.asked == 0 {
            return Ok(());
        }
        let last = self.table(tables.last_rows).arg();
        self.norm(last, self.weights.norm.at(0), shape.asked)?;
        self.product(
            Matrix::Head,
            shape.asked,
            self.weights.head(),
            w.normed.at(0),
            w.logits.at(0),
        )?;
        let draws = self.table(tables.draws);
        let args = [w.logits.arg(), draws.arg(), w.sampled.arg()];
        let grid = Grid::new(shape.asked as u32, 1_024);
        self.device.launch(self.kernels.sample, grid, &args)
    }

    /// One layer: rows that left before it only get their keys and values.
    fn layer(
        &self,
        layer: usize,
        shape: &Shape,
        active: Active,
        splits: usize,
    ) -> Result<(), CudaError> {
        let (w, sizes, weights) = (&self.work, &self.sizes, &self.weights.layers[layer]);
        let e = self.options.numbers.bytes();
        self.norm(Arg::Null, weights.input_norm.at(0), shape.rows)?;
        if active.rows > 0 {
            let (x, out) = (w.normed.at(0), w.qkv.at(0));
            self.product(Matrix::Qkv, active.rows, weights.qkv.at(0), x, out)?;
        }
        if active.rows < shape.rows {
            let gemm = Gemm {
                rows: shape.rows - active.rows,
                outputs: sizes.kv_width(),
                inputs: sizes.hidden,
                stride: sizes.qkv_width(),
                numbers: self.options.numbers,
                result: self.options.numbers,
                add: false,
            };
            self.device.gemm(
                &gemm,
                weights.qkv.at(e * sizes.query_width() * sizes.hidden),
                w.normed.at(e * active.rows * sizes.hidden),
                w.qkv
                    .at(e * (active.rows * sizes.qkv_width() + sizes.query_width())),
            )?;
        }
        self.rotate_append(layer, shape)?;
        if active.rows == 0 {
            return Ok(());
        }
        self.attend(layer, shape, active, splits)?;
        let rows = active.rows;
        let (attended, x) = (w.attended.at(0), w.x.at(0));
        self.product(Matrix::Output, rows, weights.o.at(0), attended, x)?;
        self.norm(Arg::Null, weights.post_norm.at(0), rows)?;
        self.gate(layer, rows)?;
        let gated = w.gated.at(0);
        self.product(Matrix::Down, rows, weights.down.at(0), gated, x)
    }

    /// gated = silu(gate) * up of the normed rows.
    pub(super) fn gate(&self, layer: usize, rows: usize) -> Result<(), CudaError> {
        let (w, sizes, weights) = (&self.work, &self.sizes, &self.weights.layers[layer]);
        if self.is_own(Matrix::GateUp, rows)
            && let Some(kernels) = self.kernels.gated
        {
            let args = [
                weights.gate_up.arg(),
                w.normed.arg(),
                w.gated.arg(),
                Arg::U32(rows as u32),
                Arg::U32(sizes.ffn as u32),
                Arg::U32(sizes.hidden as u32),
            ];
            let grid = Grid::new(sizes.ffn.div_ceil(8) as u32, 256);
            return self
                .device
                .launch(kernels[usize::from(rows > 8)], grid, &args);
        }
        let e = self.options.numbers.bytes();
        let (normed, gate_up) = (w.normed.at(0), w.gate_up.at(0));
        self.product(Matrix::GateUp, rows, weights.gate_up.at(0), normed, gate_up)?;
        let pairs = (sizes.ffn / 2) as u32;
        for first in (0..rows).step_by(65_535) {
            let grid = Grid {
                blocks: [pairs.div_ceil(256), (rows - first).min(65_535) as u32, 1],
                threads: 256,
            };
            let args = [
                w.gate_up.at(e * first * 2 * sizes.ffn).arg(),
                w.gated.at(e * first * sizes.ffn).arg(),
            ];
            self.device.launch(self.kernels.swiglu, grid, &args)?;
        }
        Ok(())
    }

    /// normed = norm of the residual stream, of all rows or those that a table names.
    fn norm(&self, rows: Arg<'_>, weight: Place<'_>, count: usize) -> Result<(), CudaError> {
        let args = [
            self.work.x.arg(),
            rows,
            weight.arg(),
            self.work.normed.arg(),
            Arg::F32(self.config.rms_norm_eps as f32),
        ];
        // As many threads as there is work for, in whole warps.
        let threads = (self.sizes.hidden.div_ceil(4).next_multiple_of(32)).clamp(32, 1_024) as u32;
        let grid = Grid::new(count as u32, threads);
        self.device.launch(self.kernels.rms_norm, grid, &args)
    }

    fn rotate_append(&self, layer: usize, shape: &Shape) -> Result<(), CudaError> {
        let (w, tables) = (&self.work, &shape.tables);
        let args = [
            w.qkv.arg(),
            w.queries.arg(),
            self.turns.arg(),
            self.table(tables.spans).arg(),
            self.table(tables.spans_of_rows).arg(),
            self.table(tables.pages).arg(),
            self.descriptions.arg(),
            Arg::U32(layer as u32),
        ];
        let grid = Grid::new(shape.rows as u32, 256);
        self.device.launch(self.kernels.rotate_append, grid, &args)
    }

    fn attend(
        &self,
        layer: usize,
        shape: &Shape,
        active: Active,
        splits: usize,
    ) -> Result<(), CudaError> {
        let (w, tables, sizes) = (&self.work, &shape.tables, &self.sizes);
        let layer = Arg::U32(layer as u32);
        let (pages, descriptions) = (self.table(tables.pages).arg(), self.descriptions.arg());
        for first in (0..active.decodes).step_by(65_535) {
            let count = (active.decodes - first).min(65_535) as u32;
            let decodes = self.table(tables.decodes + SPAN * first).arg();
            let args = [
                w.queries.arg(),
                decodes,
                pages,
                descriptions,
                layer,
                w.partial.arg(),
                w.sums.arg(),
                w.attended.arg(),
            ];
            let grid = Grid {
                blocks: [sizes.kv_heads as u32, count, splits as u32],
                threads: DECODE_THREADS,
            };
            self.device
                .launch(self.kernels.attention_decode, grid, &args)?;
            if splits > 1 {
                let args = [
                    w.partial.arg(),
                    w.sums.arg(),
                    decodes,
                    Arg::U32(splits as u32),
                    w.attended.arg(),
                ];
                let grid = Grid {
                    blocks: [sizes.heads as u32, count, 1],
                    threads: sizes.dim as u32,
                };
                self.device.launch(self.kernels.combine, grid, &args)?;
            }
        }
        for first in (0..active.tiles).step_by(65_535) {
            let args = [
                w.queries.arg(),
                self.table(tables.spans).arg(),
                self.table(tables.tiles + super::layout::TILE * first).arg(),
                pages,
                descriptions,
                layer,
                w.attended.arg(),
            ];
            let grid = Grid {
                blocks: [
                    sizes.kv_heads as u32,
                    (active.tiles - first).min(65_535) as u32,
                    1,
                ],
                threads: 128,
            };
            self.device
                .launch(self.kernels.attention_prefill, grid, &args)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_are_split_until_the_device_is_full_or_pages_run_out() {
        // 396 blocks (three on each of 132 multiprocessors), 8 key-value heads.
        assert_eq!(splits(396, 8, 1, 512), 49);
        assert_eq!(splits(396, 8, 1, 65), 16);
        assert_eq!(splits(396, 8, 1, 20), 4);
        assert_eq!(splits(396, 8, 1, 1), 1);
        assert_eq!(splits(396, 8, 8, 512), 6);
        assert_eq!(splits(396, 8, 64, 512), 1);
        for spans in 1..200 {
            for pages in 1..100 {
                let n = splits(396, 8, spans, pages);
                assert!(
                    n == 1 || n * 8 * spans <= 396,
                    "the buffer of partial sums has 396 blocks"
                );
            }
        }
    }
}
