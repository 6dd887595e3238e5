//! The catalogue: GPUs and models as data, and the memory that is left for keys and values.

/// A GPU.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Gpu {
    /// Name in scenario files.
    pub name: &'static str,
    /// Dense BF16 operations per second.
    pub compute: f64,
    /// Dense FP8 operations per second; none if it computes FP8 weights in 16 bits.
    pub compute_fp8: Option<f64>,
    /// Memory in bytes, as the driver reports it.
    pub memory: u64,
    /// Memory bandwidth in bytes per second.
    pub bandwidth: f64,
    /// Bandwidth to the other GPUs of its host, bytes per second and direction.
    pub interconnect: f64,
    /// Seconds before a collective call moves its first byte.
    pub interconnect_latency: f64,
    /// Watts while idle with a model loaded.
    pub idle_watts: f64,
    /// Watts at most (board power).
    pub peak_watts: f64,
    /// US dollars per hour on demand, of [`PRICES_AS_OF`].
    pub price: f64,
}

/// When the prices were noted. They are mid-range list prices of smaller clouds, to be replaced
/// by one's own (`gpu_price`).
pub const PRICES_AS_OF: &str = "2026-01";

const MIB: u64 = 1 << 20;

/// The GPUs known by name.
///
/// Compute, bandwidth, links and board power are from the vendors' data sheets (dense rates: the
/// sheets of H100, H200, L40S, L4 and B200 print twice as much, with sparsity). Memory is what the
/// driver reports. NVLink counts one direction: half of what the sheets print. Idle power and
/// latency of collectives are estimates.
pub const GPUS: [Gpu; 12] = [
    gpu(
        "h100-sxm",
        (989.4, Some(1978.9)),
        (81_559, 3.35),
        (450.0, 10.0),
        (120.0, 700.0),
        3.00,
    ),
    gpu(
        "h100-pcie",
        (756.0, Some(1513.0)),
        (81_559, 2.0),
        (64.0, 25.0),
        (65.0, 350.0),
        2.40,
    ),
    gpu(
        "h200",
        (989.4, Some(1978.9)),
        (143_771, 4.8),
        (450.0, 10.0),
        (120.0, 700.0),
        3.60,
    ),
    gpu(
        "a100-80gb",
        (312.0, None),
        (81_920, 2.039),
        (300.0, 12.0),
        (65.0, 400.0),
        1.50,
    ),
    gpu(
        "a100-40gb",
        (312.0, None),
        (40_960, 1.555),
        (300.0, 12.0),
        (55.0, 400.0),
        1.20,
    ),
    gpu(
        "l40s",
        (362.05, Some(733.0)),
        (46_068, 0.864),
        (32.0, 25.0),
        (35.0, 350.0),
        1.00,
    ),
    gpu(
        "l4",
        (121.0, Some(242.5)),
        (23_034, 0.300),
        (32.0, 25.0),
        (17.0, 72.0),
        0.70,
    ),
    gpu(
        "a10g",
        (70.0, None),
        (23_028, 0.600),
        (32.0, 25.0),
        (25.0, 300.0),
        1.00,
    ),
    gpu(
        "rtx-4090",
        (165.2, Some(330.3)),
        (24_564, 1.008),
        (32.0, 25.0),
        (25.0, 450.0),
        0.40,
    ),
    gpu(
        "rtx-pro-6000",
        (503.8, Some(1007.6)),
        (97_887, 1.792),
        (64.0, 25.0),
        (30.0, 600.0),
        1.60,
    ),
    gpu(
        "b200",
        (2250.0, Some(4500.0)),
        (183_359, 8.0),
        (900.0, 10.0),
        (140.0, 1000.0),
        5.00,
    ),
    gpu(
        "mi300x",
        (1307.4, Some(2614.9)),
        (196_592, 5.3),
        (448.0, 12.0),
        (140.0, 750.0),
        2.50,
    ),
];

/// Teraflops (BF16, FP8), memory in MiB and TB/s, link in GB/s and µs, watts (idle, peak), dollars.
const fn gpu(
    name: &'static str,
    (bf16, fp8): (f64, Option<f64>),
    (mib, terabytes): (u64, f64),
    (gigabytes, micros): (f64, f64),
    (idle_watts, peak_watts): (f64, f64),
    price: f64,
) -> Gpu {
    Gpu {
        name,
        compute: bf16 * 1e12,
        compute_fp8: match fp8 {
            Some(t) => Some(t * 1e12),
            None => None,
        },
        memory: mib * MIB,
        bandwidth: terabytes * 1e12,
        interconnect: gigabytes * 1e9,
        interconnect_latency: micros * 1e-6,
        idle_watts,
        peak_watts,
        price,
    }
}

/// A dense decoder-only transformer with gated MLP, as its published configuration says.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Model {
    /// Name in scenario files.
    pub name: &'static str,
    /// Layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Width of the gated MLP.
    pub ffn: u32,
    /// Query heads.
    pub heads: u32,
    /// Key-value heads.
    pub kv_heads: u32,
    /// Numbers per head.
    pub head_dim: u32,
    /// Rows of embedding and head, which are two matrices in all of these models.
    pub vocab: u32,
    /// Bytes per weight of the layers; embedding and head have two. One: products too are in eight bits, where
    /// the GPU can. Less: weights are stored so, and products are in sixteen bits.
    pub bytes_per_weight: f64,
    /// Longest prompt plus output.
    pub max_len: u32,
}

/// The models known by name, from their published `config.json`.
pub const MODELS: [Model; 11] = [
    model(
        "llama-3.1-8b",
        [32, 4096, 14_336],
        [32, 8, 128],
        128_256,
        2.0,
        131_072,
    ),
    model(
        "llama-3.1-8b-fp8",
        [32, 4096, 14_336],
        [32, 8, 128],
        128_256,
        1.0,
        131_072,
    ),
    model(
        "llama-3.1-8b-int4",
        [32, 4096, 14_336],
        [32, 8, 128],
        128_256,
        0.5,
        131_072,
    ),
    model(
        "llama-3.1-70b",
        [80, 8192, 28_672],
        [64, 8, 128],
        128_256,
        2.0,
        131_072,
    ),
    model(
        "llama-3.1-405b-fp8",
        [126, 16_384, 53_248],
        [128, 8, 128],
        128_256,
        1.0,
        131_072,
    ),
    model(
        "llama-2-7b",
        [32, 4096, 11_008],
        [32, 32, 128],
        32_000,
        2.0,
        4096,
    ),
    model(
        "qwen2.5-7b",
        [28, 3584, 18_944],
        [28, 4, 128],
        152_064,
        2.0,
        32_768,
    ),
    model(
        "qwen3-8b",
        [36, 4096, 12_288],
        [32, 8, 128],
        151_936,
        2.0,
        40_960,
    ),
    model(
        "qwen3-14b",
        [40, 5120, 17_408],
        [40, 8, 128],
        151_936,
        2.0,
        40_960,
    ),
    model(
        "qwen3-32b",
        [64, 5120, 25_600],
        [64, 8, 128],
        151_936,
        2.0,
        40_960,
    ),
    model(
        "mistral-7b",
        [32, 4096, 14_336],
        [32, 8, 128],
        32_768,
        2.0,
        32_768,
    ),
];

const fn model(
    name: &'static str,
    [layers, hidden, ffn]: [u32; 3],
    [heads, kv_heads, head_dim]: [u32; 3],
    vocab: u32,
    bytes_per_weight: f64,
    max_len: u32,
) -> Model {
    Model {
        name,
        layers,
        hidden,
        ffn,
        heads,
        kv_heads,
        head_dim,
        vocab,
        bytes_per_weight,
        max_len,
    }
}

impl Model {
    /// Weights of all layers: attention projections, gated MLP, two norms.
    pub fn layer_parameters(&self) -> u64 {
        let [hidden, ffn] = [self.hidden, self.ffn].map(u64::from);
        let [heads, kv_heads, head_dim] = [self.heads, self.kv_heads, self.head_dim].map(u64::from);
        let attention = hidden * head_dim * (2 * heads + 2 * kv_heads);
        u64::from(self.layers) * (attention + 3 * hidden * ffn + 2 * hidden)
    }

    /// Weights of the head, which are as many as those of the embedding.
    pub fn head_parameters(&self) -> u64 {
        u64::from(self.hidden) * u64::from(self.vocab)
    }

    /// All weights.
    pub fn parameters(&self) -> u64 {
        self.layer_parameters() + 2 * self.head_parameters() + u64::from(self.hidden)
    }

    /// Bytes of all weights.
    pub fn weight_bytes(&self) -> u64 {
        let layers = self.layer_parameters() as f64 * self.bytes_per_weight;
        layers as u64 + 4 * self.head_parameters()
    }

    /// Bytes of keys and values per token, over all GPUs: `2 * kv_heads * head_dim * layers *
    /// bytes`.
    pub fn kv_bytes_per_token(&self, bytes_per_element: f64) -> f64 {
        let width = f64::from(self.kv_heads) * f64::from(self.head_dim);
        2.0 * width * f64::from(self.layers) * bytes_per_element
    }
}

/// The GPU of that name.
pub fn find_gpu(name: &str) -> Option<&'static Gpu> {
    GPUS.iter().find(|g| g.name == name)
}

/// The model of that name.
pub fn find_model(name: &str) -> Option<&'static Model> {
    MODELS.iter().find(|m| m.name == name)
}

/// Bytes per GPU left for keys and values: `utilization * memory - weights / tp - reserve`;
/// negative if weights and reserve do not fit.
pub fn kv_bytes_per_gpu(gpu: &Gpu, model: &Model, tp: u32, utilization: f64, reserve: u64) -> f64 {
    utilization * gpu.memory as f64 - model.weight_bytes() as f64 / f64::from(tp) - reserve as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str) -> &'static Model {
        find_model(name).unwrap()
    }

    #[test]
    fn bytes_per_token_are_the_published_ones() {
        assert_eq!(known("llama-3.1-8b").kv_bytes_per_token(2.0), 131_072.0);
        assert_eq!(known("llama-3.1-70b").kv_bytes_per_token(2.0), 327_680.0);
        assert_eq!(known("qwen3-32b").kv_bytes_per_token(2.0), 262_144.0);
    }

    #[test]
    fn parameters_are_the_published_ones() {
        let published = [
            ("llama-3.1-8b", 8.03e9),
            ("llama-3.1-8b-fp8", 8.03e9),
            ("llama-3.1-8b-int4", 8.03e9),
            ("llama-3.1-70b", 70.55e9),
            ("llama-3.1-405b-fp8", 405.85e9),
            ("llama-2-7b", 6.738e9),
            ("qwen2.5-7b", 7.615e9),
            ("qwen3-8b", 8.19e9),
            ("qwen3-14b", 14.77e9),
            ("qwen3-32b", 32.76e9),
            ("mistral-7b", 7.248e9),
        ];
        assert_eq!(published.len(), MODELS.len());
        for (name, parameters) in published {
            let ours = known(name).parameters() as f64;
            assert!((ours / parameters - 1.0).abs() < 1e-3, "{name}: {ours}");
        }
    }

    #[test]
    fn two_h100_hold_the_tokens_that_were_reported() {
        let (gpu, model) = (find_gpu("h100-sxm").unwrap(), known("qwen3-32b"));
        let bytes = 2.0 * kv_bytes_per_gpu(gpu, model, 2, 0.9, 4 << 30);
        let tokens = bytes / model.kv_bytes_per_token(2.0);
        assert!((tokens / 307_328.0 - 1.0).abs() < 0.1, "{tokens}");
    }
}
