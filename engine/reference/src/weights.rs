//! Weights in the Hugging Face layout: one safetensors file, or shards with an index.

use crate::config::ModelConfig;
use crate::devices::fits;
use crate::error::ReferenceError;
use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use windtunnel_base::digest::RunDigest;
use windtunnel_base::rng::Streams;

/// The weights of a decoder, as 32-bit floats on the host.
#[derive(Clone, Debug)]
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
}

/// Names and shapes of all tensors of a decoder; the head is absent if it is the embedding.
pub fn expected(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let (h, f) = (config.hidden_size, config.intermediate_size);
    let q = config.num_attention_heads * config.head_dim;
    let kv = config.num_key_value_heads * config.head_dim;
    let mut all = vec![(
        "model.embed_tokens.weight".to_owned(),
        vec![config.vocab_size, h],
    )];
    for i in 0..config.num_hidden_layers {
        let rows: [(&str, Vec<usize>); 9] = [
            ("input_layernorm", vec![h]),
            ("self_attn.q_proj", vec![q, h]),
            ("self_attn.k_proj", vec![kv, h]),
            ("self_attn.v_proj", vec![kv, h]),
            ("self_attn.o_proj", vec![h, q]),
            ("post_attention_layernorm", vec![h]),
            ("mlp.gate_proj", vec![f, h]),
            ("mlp.up_proj", vec![f, h]),
            ("mlp.down_proj", vec![h, f]),
        ];
        all.extend(rows.map(|(name, shape)| (format!("model.layers.{i}.{name}.weight"), shape)));
    }
    all.push(("model.norm.weight".to_owned(), vec![h]));
    if !config.tie_word_embeddings {
        all.push(("lm_head.weight".to_owned(), vec![config.vocab_size, h]));
    }
    all
}

impl Weights {
    /// Seeded random weights: normal with deviation `1 / sqrt(inputs)`, norms of one.
    ///
    /// # Errors
    /// If memory does not suffice.
    pub fn random(config: &ModelConfig, seed: u64) -> Result<Self, ReferenceError> {
        let streams = Streams::new(seed);
        let mut tensors = BTreeMap::new();
        for (i, (name, shape)) in expected(config).into_iter().enumerate() {
            let mut rng = streams.stream("weights", i as u64);
            let count: usize = shape.iter().product();
            let numbers: Vec<f32> = match shape[..] {
                [_, inputs] => {
                    let deviation = 1.0 / (inputs as f64).sqrt();
                    (0..count)
                        .map(|_| {
                            // The sum of four uniforms: near enough to a normal, and quick.
                            let sum: f64 = (0..4).map(|_| rng.f64() - 0.5).sum();
                            (sum * 3_f64.sqrt() * deviation) as f32
                        })
                        .collect()
                }
                _ => vec![1.0; count],
            };
            tensors.insert(name, Tensor::from_vec(numbers, shape, &Device::Cpu)?);
        }
        Ok(Self { tensors })
    }

    /// Reads the weights of `folder`: `model.safetensors`, or the shards that
    /// `model.safetensors.index.json` names. Numbers of 16 and 32 bits are taken.
    ///
    /// # Errors
    /// If a file is missing or truncated, memory does not suffice, or a tensor is missing, unknown, has another
    /// shape or type, or holds what is no number.
    pub fn load(folder: &Path, config: &ModelConfig) -> Result<Self, ReferenceError> {
        let single = folder.join("model.safetensors");
        let files = if single.exists() {
            vec![single]
        } else {
            shards(folder)?
        };
        // Beside the weights there is the file being read.
        let size = |file: &PathBuf| std::fs::metadata(file).map_or(0, |about| about.len());
        let largest = files.iter().map(size).max().unwrap_or(0);
        let what = format!("the model in {}", folder.display());
        fits(&what, config.host_bytes().saturating_add(largest))?;
        let wanted: BTreeMap<String, Vec<usize>> = expected(config).into_iter().collect();
        let mut tensors = BTreeMap::new();
        for file in files {
            let bytes = std::fs::read(&file).map_err(|error| ReferenceError::File {
                path: file.clone(),
                error,
            })?;
            read_bytes(&bytes, &file, &wanted, &mut tensors)?;
        }
        Self::complete(tensors, &wanted, folder)
    }

    /// Reads the weights from the bytes of one safetensors file; `path` names it in errors.
    ///
    /// # Errors
    /// As [`Weights::load`].
    pub fn from_bytes(
        bytes: &[u8],
        path: &Path,
        config: &ModelConfig,
    ) -> Result<Self, ReferenceError> {
        let wanted: BTreeMap<String, Vec<usize>> = expected(config).into_iter().collect();
        let mut tensors = BTreeMap::new();
        read_bytes(bytes, path, &wanted, &mut tensors)?;
        Self::complete(tensors, &wanted, path)
    }

    fn complete(
        tensors: BTreeMap<String, Tensor>,
        wanted: &BTreeMap<String, Vec<usize>>,
        place: &Path,
    ) -> Result<Self, ReferenceError> {
        if let Some(name) = wanted.keys().find(|n| !tensors.contains_key(*n)) {
            return Err(ReferenceError::Tensor {
                name: name.clone(),
                reason: format!("it is not in {}", place.display()),
                remedy: "take weights and config.json of the same model".into(),
            });
        }
        Ok(Self { tensors })
    }

    /// Writes one safetensors file, by way of a temporary one beside it.
    ///
    /// # Errors
    /// If the file cannot be written; then nothing is.
    pub fn save(&self, file: &Path) -> Result<(), ReferenceError> {
        let failed = |error: std::io::Error| ReferenceError::File {
            path: file.to_owned(),
            error,
        };
        let temporary = file.with_extension("part");
        let tensors: std::collections::HashMap<String, Tensor> = self
            .tensors
            .iter()
            .map(|(n, t)| (n.clone(), t.clone()))
            .collect();
        candle_core::safetensors::save(&tensors, &temporary)?;
        std::fs::rename(&temporary, file).map_err(failed)
    }

    /// From tensors by name.
    ///
    /// # Errors
    /// If one is missing or has another shape.
    pub fn from_tensors(
        tensors: BTreeMap<String, Tensor>,
        config: &ModelConfig,
    ) -> Result<Self, ReferenceError> {
        for (name, shape) in expected(config) {
            let Some(tensor) = tensors.get(&name) else {
                let remedy = "take weights and config of the same model".into();
                return Err(ReferenceError::Tensor {
                    name,
                    reason: "it is missing".into(),
                    remedy,
                });
            };
            check_shape(&name, tensor.dims(), &shape)?;
        }
        Ok(Self { tensors })
    }

    /// A tensor of [`expected`], or the embedding for a tied head.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn get(&self, name: &str) -> Result<&Tensor, ReferenceError> {
        let found = self.tensors.get(name).or_else(|| {
            (name == "lm_head.weight").then(|| self.tensors.get("model.embed_tokens.weight"))?
        });
        found.ok_or_else(|| ReferenceError::Tensor {
            name: name.to_owned(),
            reason: "it is missing".into(),
            remedy: "take weights and config of the same model".into(),
        })
    }

    /// Digest of all numbers, in the order of their names.
    ///
    /// # Errors
    /// If the device fails.
    pub fn digest(&self) -> Result<String, ReferenceError> {
        let mut digest = RunDigest::default();
        for (name, tensor) in &self.tensors {
            digest.absorb_bytes(name.as_bytes());
            for x in tensor.flatten_all()?.to_vec1::<f32>()? {
                digest.absorb_bytes(&x.to_le_bytes());
            }
        }
        Ok(digest.hex())
    }

    /// All tensors by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(n, t)| (n.as_str(), t))
    }
}

fn check_shape(name: &str, found: &[usize], expected: &[usize]) -> Result<(), ReferenceError> {
    if found == expected {
        return Ok(());
    }
    Err(ReferenceError::Tensor {
        name: name.to_owned(),
        reason: format!("its shape is {found:?}, and config.json means {expected:?}"),
        remedy: "take weights and config.json of the same model".into(),
    })
}

/// The files that an index names.
fn shards(folder: &Path) -> Result<Vec<PathBuf>, ReferenceError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let path = folder.join("model.safetensors.index.json");
    let text = std::fs::read(&path).map_err(|error| ReferenceError::File {
        path: folder.join("model.safetensors"),
        error,
    })?;
    let index: Index = serde_json::from_slice(&text).map_err(|e| ReferenceError::Malformed {
        path: path.clone(),
        reason: e.to_string(),
        remedy: "fetch it again".into(),
    })?;
    let mut names: Vec<String> = index.weight_map.into_values().collect();
    names.sort_unstable();
    names.dedup();
    Ok(names.into_iter().map(|n| folder.join(n)).collect())
}

fn read_bytes(
    bytes: &[u8],
    path: &Path,
    wanted: &BTreeMap<String, Vec<usize>>,
    tensors: &mut BTreeMap<String, Tensor>,
) -> Result<(), ReferenceError> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| ReferenceError::Malformed {
        path: path.to_owned(),
        reason: format!("it is no safetensors file, or truncated ({e})"),
        remedy: "fetch it again".into(),
    })?;
    // In the order of names: the file's own index has none, and the first error is what is told.
    let mut views: Vec<_> = file.iter().collect();
    views.sort_unstable_by_key(|(name, _)| *name);
    for (name, view) in views {
        let Some(shape) = wanted.get(name) else {
            if is_spare(name) {
                continue;
            }
            return Err(ReferenceError::Tensor {
                name: name.to_owned(),
                reason: "this decoder has no such tensor, so the model computes something else"
                    .into(),
                remedy: "take a model of the Llama family, with its own config.json".into(),
            });
        };
        check_shape(name, view.shape(), shape)?;
        let dtype = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                return Err(ReferenceError::Tensor {
                    name: name.to_owned(),
                    reason: format!("its numbers are {other:?}"),
                    remedy: "convert the weights to F32, F16 or BF16".into(),
                });
            }
        };
        if let Some(at) = first_without_value(view.data(), dtype) {
            return Err(ReferenceError::Tensor {
                name: name.to_owned(),
                reason: format!("its number {at} is infinite or not a number"),
                remedy: "fetch the weights again, or train them anew".into(),
            });
        }
        let tensor = Tensor::from_raw_buffer(view.data(), dtype, shape, &Device::Cpu)?
            .to_dtype(DType::F32)?;
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(())
}

/// What some writers store though it says nothing: the head of a model whose head is the embedding, and the
/// angles of rotary positions.
fn is_spare(name: &str) -> bool {
    name == "lm_head.weight" || name.ends_with(".rotary_emb.inv_freq")
}

/// The index of the first number that has no finite value: all bits of its exponent are set.
fn first_without_value(bytes: &[u8], dtype: DType) -> Option<usize> {
    let exponent: u16 = match dtype {
        DType::F16 => 0x7c00,
        // Of both, the exponent is in the upper half.
        _ => 0x7f80,
    };
    let width = dtype.size_in_bytes();
    bytes.chunks_exact(width).position(|number| {
        let upper = u16::from_le_bytes([number[width - 2], number[width - 1]]);
        upper & exponent == exponent
    })
}

#[cfg(test)]
mod tests;
