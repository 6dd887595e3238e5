//! What a step does, counted: products, bytes and loops over all rows.

use super::{Cpu, Group};
use crate::backend::Span;

impl Cpu {
    /// Counts a product of `rows` rows by a matrix.
    pub(super) fn count_product(&mut self, rows: usize, inputs: usize, outputs: usize) {
        self.work.launches += 1;
        self.work.flops += 2 * (rows * inputs * outputs) as u64;
        self.work.weight_bytes += (inputs * outputs * size_of::<f32>()) as u64;
    }

    /// Counts a look-up of embeddings.
    pub(super) const fn count_rows(&mut self, rows: usize) {
        self.work.launches += 1;
        self.work.weight_bytes += (rows * self.config.hidden_size * size_of::<f32>()) as u64;
    }

    /// Counts what a layer does to rows of which the first `active` go on.
    pub(super) fn count_layer(
        &mut self,
        rows: usize,
        active: usize,
        groups: &[Group],
        spans: &[Span<'_>],
    ) {
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
}
