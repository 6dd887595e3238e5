//! The decoder over whole padded sequences, in operations that candle can differentiate. It is
//! also the independent implementation that the engine's own is tested against.

use crate::config::ModelConfig;
use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

/// A decoder.
#[derive(Debug)]
pub struct Decoder {
    config: ModelConfig,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Tensor,
    /// Cosines and sines by position, `[positions, head_dim / 2]`.
    rope: (Tensor, Tensor),
}

#[derive(Debug)]
struct Layer {
    input_norm: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    post_norm: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

/// `x * w^T` for `x` of `[.., inputs]` and `w` of `[outputs, inputs]`.
fn linear(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let (batch, len, width) = x.dims3()?;
    let rows = x.reshape((batch * len, width))?;
    rows.matmul(&w.t()?)?.reshape((batch, len, w.dim(0)?))
}

fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(mean + eps)?.sqrt()?)?
        .broadcast_mul(weight)
}

impl Decoder {
    /// A decoder with the weights of `vb`, named as in the Hugging Face layout.
    ///
    /// # Errors
    /// If a weight is absent or has another shape.
    pub fn new(config: &ModelConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let h = config.hidden_size;
        let (q, kv) = (
            config.num_attention_heads * config.head_dim,
            config.num_key_value_heads * config.head_dim,
        );
        let matrix =
            |vb: &VarBuilder<'_>, rows: usize, columns: usize| vb.get((rows, columns), "weight");
        let model = vb.pp("model");
        let embedding = model
            .pp("embed_tokens")
            .get((config.vocab_size, h), "weight")?;
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for i in 0..config.num_hidden_layers {
            let vb = model.pp("layers").pp(i);
            let (attn, mlp) = (vb.pp("self_attn"), vb.pp("mlp"));
            let norm = |name: &str| vb.pp(name).get(h, "weight");
            layers.push(Layer {
                input_norm: norm("input_layernorm")?,
                q: matrix(&attn.pp("q_proj"), q, h)?,
                k: matrix(&attn.pp("k_proj"), kv, h)?,
                v: matrix(&attn.pp("v_proj"), kv, h)?,
                o: matrix(&attn.pp("o_proj"), h, q)?,
                post_norm: norm("post_attention_layernorm")?,
                gate: matrix(&mlp.pp("gate_proj"), config.intermediate_size, h)?,
                up: matrix(&mlp.pp("up_proj"), config.intermediate_size, h)?,
                down: matrix(&mlp.pp("down_proj"), h, config.intermediate_size)?,
            });
        }
        let norm = model.pp("norm").get(h, "weight")?;
        let head = if config.tie_word_embeddings {
            embedding.clone()
        } else {
            vb.pp("lm_head").get((config.vocab_size, h), "weight")?
        };
        let rope = rope_table(config, vb.device())?;
        Ok(Self {
            config: config.clone(),
            embedding,
            layers,
            norm,
            head,
            rope,
        })
    }

    /// Logits `[batch, len, vocab]` of tokens `[batch, len]`; position `i` sees tokens `0..=i`.
    ///
    /// # Errors
    /// If the sequences are longer than the model takes.
    pub fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        let (batch, len) = tokens.dims2()?;
        let h = self.config.hidden_size;
        let mut x = self
            .embedding
            .index_select(&tokens.flatten_all()?, 0)?
            .reshape((batch, len, h))?;
        let mask = causal_mask(len, tokens.device())?;
        let eps = self.config.rms_norm_eps;
        for layer in &self.layers {
            let attended = self.attention(layer, &rms_norm(&x, &layer.input_norm, eps)?, &mask)?;
            x = (x + attended)?;
            let y = rms_norm(&x, &layer.post_norm, eps)?;
            let gated =
                (candle_nn::ops::silu(&linear(&y, &layer.gate)?)? * linear(&y, &layer.up)?)?;
            x = (x + linear(&gated, &layer.down)?)?;
        }
        linear(&rms_norm(&x, &self.norm, eps)?, &self.head)
    }

    fn attention(&self, layer: &Layer, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let (batch, len, _) = x.dims3()?;
        let (heads, kv_heads, dim) = (
            self.config.num_attention_heads,
            self.config.num_key_value_heads,
            self.config.head_dim,
        );
        let split = |w: &Tensor, heads: usize| {
            linear(x, w)?
                .reshape((batch, len, heads, dim))?
                .transpose(1, 2)?
                .contiguous()
        };
        let q = self.rotate(&split(&layer.q, heads)?)?;
        let k = repeat(&self.rotate(&split(&layer.k, kv_heads)?)?, heads / kv_heads)?;
        let v = repeat(&split(&layer.v, kv_heads)?, heads / kv_heads)?;
        let scores = (q.matmul(&k.t()?)? / (dim as f64).sqrt())?.broadcast_add(mask)?;
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
        let out = weights
            .matmul(&v)?
            .transpose(1, 2)?
            .reshape((batch, len, heads * dim))?;
        linear(&out, &layer.o)
    }

    /// Rotates `[batch, heads, len, dim]` by position: the first half of a head with the second.
    fn rotate(&self, x: &Tensor) -> Result<Tensor> {
        let (_, _, len, dim) = x.dims4()?;
        let (cos, sin) = (
            self.rope.0.narrow(0, 0, len)?,
            self.rope.1.narrow(0, 0, len)?,
        );
        let (a, b) = (
            x.narrow(D::Minus1, 0, dim / 2)?,
            x.narrow(D::Minus1, dim / 2, dim / 2)?,
        );
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        Tensor::cat(&[first, second], D::Minus1)
    }
}

/// Each key-value head once for every query head it serves.
fn repeat(x: &Tensor, times: usize) -> Result<Tensor> {
    let (batch, heads, len, dim) = x.dims4()?;
    x.unsqueeze(2)?
        .expand((batch, heads, times, len, dim))?
        .reshape((batch, heads * times, len, dim))
}

fn rope_table(config: &ModelConfig, device: &Device) -> Result<(Tensor, Tensor)> {
    let half = config.head_dim / 2;
    let positions = config.max_position_embeddings;
    let angles: Vec<f32> = (0..positions)
        .flat_map(|p| (0..half).map(move |i| (p as f64 * config.rope_frequency(i)) as f32))
        .collect();
    let angles = Tensor::from_vec(angles, (positions, half), device)?;
    Ok((angles.cos()?, angles.sin()?))
}

fn causal_mask(len: usize, device: &Device) -> Result<Tensor> {
    let mask: Vec<f32> = (0..len)
        .flat_map(|i| (0..len).map(move |j| if j > i { f32::NEG_INFINITY } else { 0.0 }))
        .collect();
    Tensor::from_vec(mask, (len, len), device)?.to_dtype(DType::F32)
}
