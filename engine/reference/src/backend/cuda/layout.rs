//! Where numbers lie on the device: what the kernels and the host must agree on, in one place.

use crate::config::ModelConfig;
use crate::kv::format::KvFormat;

/// Tokens of a page; the attention kernels take a page at a time to the tensor cores.
pub(super) const PAGE: usize = 16;

/// Formats as the kernels number them.
pub(super) const FORMAT_F16: u32 = 1;
/// As above.
pub(super) const FORMAT_FP8: u32 = 2;
/// As above.
pub(super) const FORMAT_INT8: u32 = 3;

/// Bytes of `PageDesc`, `Span`, a tile, `Draw` and `Sampled` in `common.cuh` and `sampling.cu`.
pub(super) const DESCRIPTION: usize = 24;
/// As above.
pub(super) const SPAN: usize = 16;
/// As above.
pub(super) const TILE: usize = 8;
/// As above.
pub(super) const DRAW: usize = 16;
/// As above.
pub(super) const SAMPLED: usize = 16;

/// Rows (token times query heads of a group) of a block of the prefill kernel.
pub(super) const TILE_ROWS: usize = 64;

/// The number of a format that the device keeps; none for 32-bit floats.
pub(super) const fn format_number(format: KvFormat) -> Option<u32> {
    match format {
        KvFormat::F32 => None,
        KvFormat::F16 => Some(FORMAT_F16),
        KvFormat::Fp8 => Some(FORMAT_FP8),
        KvFormat::Int8 => Some(FORMAT_INT8),
    }
}

/// Sizes derived from a model's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sizes {
    pub(super) hidden: usize,
    pub(super) ffn: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) dim: usize,
    pub(super) vocab: usize,
}

impl Sizes {
    pub(super) const fn new(config: &ModelConfig) -> Self {
        Self {
            hidden: config.hidden_size,
            ffn: config.intermediate_size,
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            dim: config.head_dim,
            vocab: config.vocab_size,
        }
    }

    /// Query heads that share a key-value head.
    pub(super) const fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Numbers of all query heads of a token.
    pub(super) const fn query_width(&self) -> usize {
        self.heads * self.dim
    }

    /// Numbers of keys and values of a token.
    pub(super) const fn kv_width(&self) -> usize {
        2 * self.kv_heads * self.dim
    }

    /// Numbers of queries, keys and values of a token, which lie in this order.
    pub(super) const fn qkv_width(&self) -> usize {
        self.query_width() + self.kv_width()
    }

    /// Stripes of a page: layer, side, head.
    pub(super) const fn stripes(&self) -> usize {
        self.layers * 2 * self.kv_heads
    }

    /// Numbers of a page.
    pub(super) const fn page_numbers(&self) -> usize {
        self.stripes() * PAGE * self.dim
    }

    /// Bytes of a frame: the memory of one page in 16 bits, or of two in 8.
    pub(super) const fn frame_bytes(&self) -> usize {
        2 * self.page_numbers()
    }

    /// Bytes of the scales of one page in 8 bits.
    pub(super) const fn scale_bytes(&self) -> usize {
        4 * self.stripes()
    }

    /// Bytes of numbers and scales of a page, as the CPU counts them.
    pub(super) const fn page_bytes(&self, format: KvFormat) -> usize {
        let scales = if format.scaled() {
            self.scale_bytes()
        } else {
            0
        };
        self.page_numbers() * format.bytes() + scales
    }
}
