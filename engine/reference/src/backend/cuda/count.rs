//! What steps amount to: operations and bytes, by the sizes of what was launched.

use super::plan::Active;
use super::products::Matrix;
use super::{CudaBackend, PAGE};
use crate::backend::Span;

impl CudaBackend {
    /// Counts the step that was just launched.
    pub(super) fn count_step(&mut self, spans: &[Span<'_>]) {
        self.work_done.launches += self.launches.calls;
        let shape = self.plan.shape.clone();
        let sizes = self.sizes;
        let e = self.options.numbers.bytes();
        self.work_done.weight_bytes += (shape.rows * sizes.hidden * e) as u64;
        for active in &shape.active {
            self.count_layer(shape.rows, *active);
        }
        if shape.asked > 0 {
            self.count_product(Matrix::Head, shape.asked);
        }
        for span in spans.iter().filter(|s| !s.tokens.is_empty()) {
            let layers = span.layers.unwrap_or(sizes.layers).min(sizes.layers) as u64;
            let last = span.start + span.tokens.len();
            let seen: usize = (span.start + 1..=last).sum();
            self.work_done.flops += layers * 4 * (seen * sizes.query_width()) as u64;
            let read: u64 = span
                .pages
                .iter()
                .enumerate()
                .map(|(i, &page)| self.read_bytes(page, last.saturating_sub(i * PAGE).min(PAGE)))
                .sum();
            self.work_done.kv_read_bytes += layers * read;
        }
    }

    fn count_product(&mut self, matrix: Matrix, rows: usize) {
        let gemm = self.gemm_of(matrix, rows);
        let numbers = gemm.outputs * gemm.inputs;
        self.work_done.flops += 2 * (rows * numbers) as u64;
        self.work_done.weight_bytes += (numbers * gemm.numbers.bytes()) as u64;
    }

    fn count_layer(&mut self, rows: usize, active: Active) {
        let sizes = self.sizes;
        if active.rows > 0 {
            for matrix in [Matrix::Qkv, Matrix::Output, Matrix::GateUp, Matrix::Down] {
                self.count_product(matrix, active.rows);
            }
        }
        if active.rows < rows {
            let numbers = sizes.kv_width() * sizes.hidden;
            self.work_done.flops += 2 * ((rows - active.rows) * numbers) as u64;
            self.work_done.weight_bytes += (numbers * self.options.numbers.bytes()) as u64;
        }
        // Pages are filled with 16-bit floats.
        self.work_done.kv_written_bytes += 2 * (rows * sizes.kv_width()) as u64;
    }

    /// Bytes that attention of one layer reads of a page's first tokens.
    fn read_bytes(&self, page: u32, tokens: usize) -> u64 {
        let Some(page) = self.frames.page(page) else {
            return 0;
        };
        let stripes = if tokens == 0 {
            0
        } else {
            2 * self.sizes.kv_heads
        };
        let scale = if page.format.scaled() { 4 } else { 0 };
        (stripes * (tokens * self.sizes.dim * page.format.bytes() + scale)) as u64
    }
}
