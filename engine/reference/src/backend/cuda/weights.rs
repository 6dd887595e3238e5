//! Weights on the device: copied from the host, or made there from a seed.

use super::kernels::Kernels;
use super::layout::Sizes;
use crate::error::ReferenceError;
use crate::weights::Weights;
use half::bf16;
use windtunnel_base::rng::mix64;
use windtunnel_cuda::{Arg, Buffer, CudaError, Device, Grid, Numbers, Place};

/// Where weights come from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// The host.
    Host(&'a Weights),
    /// A seed: numbers of the same distribution as [`Weights::random`] makes, but other ones, as they are
    /// made on the device, all at once.
    Seed(u64),
}

/// Matrices of one layer.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) input_norm: Buffer,
    /// Queries, keys, values.
    pub(super) qkv: Buffer,
    pub(super) o: Buffer,
    pub(super) post_norm: Buffer,
    /// Gate, up.
    pub(super) gate_up: Buffer,
    pub(super) down: Buffer,
}

/// All weights.
#[derive(Debug)]
pub(super) struct DeviceWeights {
    pub(super) embedding: Buffer,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Buffer,
    /// None if it is the embedding.
    head: Option<Buffer>,
}

impl DeviceWeights {
    pub(super) fn head(&self) -> Place<'_> {
        self.head.as_ref().unwrap_or(&self.embedding).at(0)
    }
}

/// Copies or makes tensors, one after the other.
pub(super) struct Loader<'a> {
    pub(super) device: &'a Device,
    pub(super) kernels: &'a Kernels,
    pub(super) source: Source<'a>,
    pub(super) numbers: Numbers,
    /// Tensors made from the seed so far.
    pub(super) made: u64,
}

impl Loader<'_> {
    pub(super) fn load(
        mut self,
        sizes: &Sizes,
        tied: bool,
    ) -> Result<DeviceWeights, ReferenceError> {
        let (h, f, vocab) = (sizes.hidden, sizes.ffn, sizes.vocab);
        let (q, kv) = (sizes.query_width(), sizes.kv_width() / 2);
        let embedding = self.matrix(&[("model.embed_tokens.weight".into(), vocab)], h)?;
        let mut layers = Vec::with_capacity(sizes.layers);
        for i in 0..sizes.layers {
            let name = |name: &str| format!("model.layers.{i}.{name}.weight");
            layers.push(Layer {
                input_norm: self.norm(&name("input_layernorm"), h)?,
                qkv: self.matrix(
                    &[
                        (name("self_attn.q_proj"), q),
                        (name("self_attn.k_proj"), kv),
                        (name("self_attn.v_proj"), kv),
                    ],
                    h,
                )?,
                o: self.matrix(&[(name("self_attn.o_proj"), h)], q)?,
                post_norm: self.norm(&name("post_attention_layernorm"), h)?,
                gate_up: self.matrix(&[(name("mlp.gate_proj"), f), (name("mlp.up_proj"), f)], h)?,
                down: self.matrix(&[(name("mlp.down_proj"), h)], f)?,
            });
        }
        let norm = self.norm("model.norm.weight", h)?;
        let head = if tied {
            None
        } else {
            Some(self.matrix(&[("lm_head.weight".into(), vocab)], h)?)
        };
        Ok(DeviceWeights {
            embedding,
            layers,
            norm,
            head,
        })
    }

    /// Matrices of the same width below each other: names and rows.
    fn matrix(
        &mut self,
        parts: &[(String, usize)],
        inputs: usize,
    ) -> Result<Buffer, ReferenceError> {
        let rows: usize = parts.iter().map(|p| p.1).sum();
        let buffer = self.device.allocate(rows * inputs * self.numbers.bytes())?;
        let deviation = 1.0 / (inputs as f32).sqrt();
        let mut at = 0;
        for (name, rows) in parts {
            at += self.tensor(name, buffer.at(at), rows * inputs, deviation)?;
        }
        Ok(buffer)
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<Buffer, ReferenceError> {
        let buffer = self.device.allocate(width * self.numbers.bytes())?;
        self.tensor(name, buffer.at(0), width, 0.0)?;
        Ok(buffer)
    }

    /// Returns its bytes.
    fn tensor(
        &mut self,
        name: &str,
        to: Place<'_>,
        count: usize,
        deviation: f32,
    ) -> Result<usize, ReferenceError> {
        match self.source {
            Source::Host(weights) => {
                let numbers = weights.get(name)?.flatten_all()?.to_vec1::<f32>()?;
                if numbers.len() != count {
                    return Err(ReferenceError::Tensor {
                        name: name.into(),
                        reason: format!("it has {} numbers instead of {count}", numbers.len()),
                        remedy: "take weights and config of the same model".into(),
                    });
                }
                // In pieces, so that the host holds no second copy of a large tensor.
                const PIECE: usize = 1 << 20;
                for (i, piece) in numbers.chunks(PIECE).enumerate() {
                    let at = to.plus(i * PIECE * self.numbers.bytes());
                    self.device.upload(at, &as_bytes(piece, self.numbers))?;
                }
            }
            Source::Seed(seed) => {
                self.made += 1;
                let seed = mix64(mix64(seed) ^ self.made);
                let blocks = count.div_ceil(256).clamp(1, 16 * 1024) as u32;
                let args = [
                    to.arg(),
                    Arg::U64(count as u64),
                    Arg::U64(seed),
                    Arg::F32(deviation),
                ];
                self.device
                    .launch(self.kernels.fill, Grid::new(blocks, 256), &args)?;
            }
        }
        Ok(count * self.numbers.bytes())
    }
}

/// Numbers as the device keeps them.
pub(super) fn as_bytes(numbers: &[f32], kind: Numbers) -> Vec<u8> {
    match kind {
        Numbers::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Numbers::Bf16 => numbers
            .iter()
            .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
            .collect(),
    }
}

/// Bytes of all weights.
pub(super) fn bytes(sizes: &Sizes, tied: bool, numbers: Numbers) -> usize {
    let (h, f) = (sizes.hidden, sizes.ffn);
    let layer = h * (sizes.qkv_width() + sizes.query_width() + 3 * f + 2);
    let ends = sizes.vocab * h * if tied { 1 } else { 2 } + h;
    (sizes.layers * layer + ends) * numbers.bytes()
}

impl From<CudaError> for ReferenceError {
    fn from(error: CudaError) -> Self {
        match error {
            CudaError::Memory { needed, available } => Self::Memory {
                what: "a buffer on the GPU".into(),
                needed,
                available,
                remedy: "take fewer pages, a smaller model, or a GPU with more memory".into(),
            },
            other => Self::Device {
                device: "cuda".into(),
                reason: other.to_string(),
            },
        }
    }
}
