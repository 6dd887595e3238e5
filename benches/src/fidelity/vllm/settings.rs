//! What a measured vLLM was run with: `vllm/meta.json` and the model's `config.json`.

/// The model that was served.
mod model;

use super::super::files::{self, Unreadable};
use super::super::play::Sheet;
use model::{Model, model_config};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use windtunnel_engine::hardware;
use windtunnel_scenarios::profile::parse_yaml;

/// What the engine was run with.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Engines, each with all GPUs of its tensor parallelism.
    pub(super) replicas: u32,
    /// KV blocks of each.
    pub(super) blocks: u64,
    /// Where that number comes from, if the engine did not tell it.
    estimated: Option<String>,
    /// Nobody told anything of memory: there is enough for all that may run.
    unbounded: bool,
    tensor_parallel: u32,
    max_num_seqs: Option<u32>,
    token_budget: Option<u32>,
    long_prefill: Option<u32>,
    max_model_len: Option<u32>,
    block_size: u32,
    prefix_cache: bool,
    reserve_full_prompt: Option<bool>,
    async_scheduling: Option<bool>,
    model: Model,
    model_config: String,
    gpu: Option<&'static str>,
    /// Gigabytes per second and nanoseconds of the link between GPUs, if somebody told them.
    link: Option<(f64, f64)>,
    told: BTreeMap<String, String>,
}

/// What is found first among places of a document, if it is not null.
fn look<'a>(document: &'a Value, places: &[&str]) -> Option<&'a Value> {
    let found = places.iter().filter_map(|place| document.pointer(place));
    found.into_iter().find(|value| !value.is_null())
}

fn number(document: &Value, places: &[&str]) -> Option<u64> {
    look(document, places)?.as_u64()
}

fn small(document: &Value, places: &[&str]) -> Option<u32> {
    u32::try_from(number(document, places)?).ok()
}

fn word(document: &Value, places: &[&str]) -> Option<String> {
    Some(look(document, places)?.as_str()?.to_owned())
}

impl Settings {
    /// Reads them; the inner error says what is missing for a simulation.
    pub(super) fn read(dir: &Path) -> Result<Result<Self, String>, Unreadable> {
        let meta_path = files::expect(dir, "vllm/meta.json", "what the engine was run with")?;
        let meta: Value = files::json(&meta_path)?;
        let model_config = model_config(dir)?;
        let model = Model::open(&dir.join(&model_config), &meta)?;
        let flag = |places: &[&str]| look(&meta, places).and_then(Value::as_bool);
        let of = |name: &str, sub: &str| {
            let resolved = format!("/resolved_config/{sub}/{name}");
            let asked = format!("/engine_kwargs/{name}");
            small(&meta, &[&resolved, &asked])
        };
        let tensor_parallel = of("tensor_parallel_size", "parallel_config").unwrap_or(1);
        let block_size = small(
            &meta,
            &[
                "/kv_cache/block_size",
                "/resolved_config/cache_config/block_size",
                "/engine_kwargs/block_size",
            ],
        )
        .unwrap_or(16)
        .max(1);
        let mut settings = Self {
            replicas: of("data_parallel_size", "parallel_config")
                .unwrap_or(1)
                .max(1),
            blocks: 0,
            estimated: None,
            unbounded: false,
            tensor_parallel,
            max_num_seqs: of("max_num_seqs", "scheduler_config"),
            token_budget: of("max_num_batched_tokens", "scheduler_config"),
            long_prefill: of("long_prefill_token_threshold", "scheduler_config").filter(|&n| n > 0),
            max_model_len: of("max_model_len", "model_config"),
            block_size,
            prefix_cache: flag(&[
                "/kv_cache/enable_prefix_caching",
                "/resolved_config/cache_config/enable_prefix_caching",
                "/engine_kwargs/enable_prefix_caching",
            ])
            .unwrap_or(true),
            reserve_full_prompt: flag(&[
                "/resolved_config/scheduler_config/scheduler_reserve_full_isl",
            ]),
            async_scheduling: flag(&[
                "/resolved_config/scheduler_config/async_scheduling",
                "/engine_kwargs/async_scheduling",
            ])
            .or_else(|| word(&meta, &["/vllm_version"]).and_then(|v| plans_ahead(&v))),
            model,
            model_config,
            gpu: None,
            link: None,
            told: BTreeMap::new(),
        };
        let names = gpu_names(dir, &meta)?;
        settings.link = link(dir)?;
        settings.gpu = names.iter().find_map(|name| known_gpu(name));
        if let Err(missing) = settings.find_blocks(dir, &meta)? {
            return Ok(Err(missing));
        }
        settings.tell(&meta, names.first().cloned());
        Ok(Ok(settings))
    }

    /// The number of KV blocks: as the engine told it, or from what it told of memory.
    fn find_blocks(&mut self, dir: &Path, meta: &Value) -> Result<Result<(), String>, Unreadable> {
        let told = number(
            meta,
            &[
                "/kv_cache/num_gpu_blocks",
                "/resolved_config/cache_config/num_gpu_blocks",
                "/resolved_config/cache_config/num_gpu_blocks_override",
                "/engine_kwargs/num_gpu_blocks_override",
            ],
        );
        let size = u64::from(self.block_size);
        let per_block = self.model.kv_per_token() * size as f64;
        if let Some(blocks) = told {
            self.blocks = blocks;
        } else if let Some(tokens) = number(meta, &["/kv_cache/num_kv_tokens"]) {
            self.blocks = tokens / size;
        } else if let Some(bytes) = number(
            meta,
            &[
                "/kv_cache/kv_cache_memory_bytes",
                "/resolved_config/cache_config/kv_cache_memory_bytes",
                "/engine_kwargs/kv_cache_memory_bytes",
            ],
        ) {
            self.blocks = (bytes as f64 * f64::from(self.tensor_parallel) / per_block) as u64;
        } else if let Some((memory, source)) = memory(dir, meta, self.gpu)? {
            let share = look(
                meta,
                &[
                    "/kv_cache/gpu_memory_utilization",
                    "/resolved_config/cache_config/gpu_memory_utilization",
                    "/engine_kwargs/gpu_memory_utilization",
                ],
            );
            let share = share.and_then(Value::as_f64).unwrap_or(0.9);
            let gpus = f64::from(self.tensor_parallel);
            let reserve = self.activations();
            let left = (memory * share - reserve) * gpus - self.model.weights();
            self.blocks = (left / per_block).max(0.0) as u64;
            let gib = f64::from(1 << 30);
            self.estimated = Some(format!(
                "{share} of {:.1} GiB ({source}), less {:.1} GiB of weights and {:.1} GiB for activations and runtime",
                memory / gib,
                self.model.weights() / gpus / gib,
                reserve / gib
            ));
            if self.blocks == 0 {
                return Ok(Err(format!(
                    "the engine did not tell its KV size, and {} leaves nothing for it; \
                     add `kv_cache.num_gpu_blocks` to vllm/meta.json",
                    self.estimated.as_deref().unwrap_or_default()
                )));
            }
        }
        if self.blocks == 0 {
            // Enough for as many requests as may run, of whatever length.
            let longest = self.max_model_len.unwrap_or(self.model.config.max_len);
            let each = longest.div_ceil(self.block_size);
            self.blocks = u64::from(self.max_num_seqs.unwrap_or(256)) * u64::from(each);
            self.unbounded = true;
        }
        Ok(Ok(()))
    }

    /// Bytes of a GPU that neither weights nor keys and values get. vLLM measures them at start, with a
    /// step of the whole token budget and a sampling step of all requests; here the larger of the
    /// two is counted out: 16-bit numbers per token for the gated MLP (twice its width, and
    /// the product), residual, its norm, queries and output; per request and word of the vocabulary
    /// a logit, its sorted copy and its probability in 32 bits and a sorted index in 64. The
    /// runtime (CUDA context and libraries) takes half a GiB.
    fn activations(&self) -> f64 {
        let f = f64::from;
        let config = &self.model.config;
        let gpus = f(self.tensor_parallel);
        let ffn = if config.experts > 1 && config.expert_ffn > 0 {
            config.expert_ffn
        } else {
            config.ffn
        };
        let per_token = 3.0 * f(ffn) / gpus + 4.0 * f(config.hidden);
        let forward = 2.0 * f(self.token_budget.unwrap_or(2048)) * per_token;
        let sampling = 20.0 * f(self.max_num_seqs.unwrap_or(256)) * f(config.vocab);
        forward.max(sampling) + f64::from(1 << 29)
    }

    /// The scenario that the run is played in; tables are in `dir/profile`.
    pub(super) fn scenario(&self, _dir: &Path) -> Sheet {
        let mut sheet = Sheet::default();
        let int = |n: u32| i64::from(n);
        sheet.set("version", 1);
        sheet.table("run").set("warm_up", "0s");
        sheet.table("fleet").set("replicas", int(self.replicas));
        sheet
            .table("fleet.engine")
            .set("kind", "continuous")
            .set("preset", "vllm-v1")
            .maybe("gpu", self.gpu)
            .set("tensor_parallel", int(self.tensor_parallel))
            .maybe("max_model_len", self.max_model_len.map(int));
        let m = self.model.config.model_spec();
        sheet
            .table("fleet.engine.custom_model")
            .set("layers", int(m.layers))
            .set("hidden", int(m.hidden))
            .set("ffn", int(m.ffn))
            .set("heads", int(m.heads))
            .set("kv_heads", int(m.kv_heads))
            .set("head_dim", int(m.head_dim))
            .set("vocab", int(m.vocab))
            .set("bytes_per_weight", m.bytes_per_weight)
            .set(
                "max_len",
                int(m.max_len.max(self.max_model_len.unwrap_or(0))),
            );
        sheet
            .table("fleet.engine.scheduler")
            .maybe("token_budget", self.token_budget.map(int))
            .maybe("max_num_seqs", self.max_num_seqs.map(int))
            .maybe("long_prefill_threshold", self.long_prefill.map(int))
            .maybe("async_scheduling", self.async_scheduling);
        sheet
            .table("fleet.engine.kv")
            .set("block_size", int(self.block_size))
            .set("blocks", self.blocks as i64)
            .set("prefix_cache", self.prefix_cache)
            .set("bytes_per_element", self.model.kv_bytes)
            .maybe("reserve_full_prompt", self.reserve_full_prompt);
        sheet
            .table("fleet.engine.cost")
            .set("kind", "operators")
            .set("folder", "profile")
            .set("model_config", self.model_config.as_str());
        if let Some((gigabytes, nanos)) = self.link {
            sheet
                .table("fleet.engine.cost.link")
                .set("bandwidth", format!("{gigabytes}GB/s").as_str())
                .set("latency", format!("{nanos}ns").as_str());
        }
        let routing = if self.replicas > 1 {
            "vllm-dp"
        } else {
            "round_robin"
        };
        sheet.table("gateway.routing").set("kind", routing);
        sheet
    }

    /// What the report says of the run.
    fn tell(&mut self, meta: &Value, gpu: Option<String>) {
        let shown = |n: Option<u32>| n.map(|n| n.to_string());
        let parts = [
            ("model", word(meta, &["/model", "/engine_kwargs/model"])),
            ("vLLM", word(meta, &["/vllm_version"])),
            ("GPU", gpu),
            ("tensor parallel", Some(self.tensor_parallel.to_string())),
            ("engines", Some(self.replicas.to_string())),
            ("tokens per step", shown(self.token_budget)),
            ("requests at once", shown(self.max_num_seqs)),
            (
                "KV blocks",
                Some(format!("{} of {}", self.blocks, self.block_size)),
            ),
            ("prefix cache", Some(self.prefix_cache.to_string())),
            (
                "async scheduling",
                self.async_scheduling.map(|on| on.to_string()),
            ),
        ];
        let told = parts
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        self.told = told.collect();
    }

    /// For the report.
    pub(super) fn told(&self) -> BTreeMap<String, String> {
        self.told.clone()
    }

    /// What to know when reading the figures; `peak` is the most blocks that any engine held.
    pub(super) fn notes(&self, peak: u64) -> Vec<String> {
        let mut notes = Vec::new();
        if self.unbounded {
            notes.push(
                "neither vllm/meta.json nor the GPU's name tells how much memory there was for keys and values: \
                 it was taken to suffice for all that may run. If the engine was short of it, these figures are \
                 wrong; add `kv_cache.num_gpu_blocks` to vllm/meta.json"
                    .into(),
            );
        }
        if let Some(how) = &self.estimated {
            let share = 100.0 * peak as f64 / self.blocks as f64;
            let matters = if share < 90.0 {
                "so its size hardly matters"
            } else {
                "so figures depend on it: give `kv_cache.num_gpu_blocks` if you know it"
            };
            notes.push(format!(
                "the engine did not tell its KV size; {} blocks follow from {how}. At most {share:.0} % of \
                 them were in use, {matters}",
                self.blocks
            ));
        }
        if self.gpu.is_none() && self.link.is_none() && self.tensor_parallel > 1 {
            notes.push("the GPU is not known by name: collectives without a table take the link of the default GPU".into());
        }
        notes
    }
}

/// Whether a version of vLLM schedules ahead where nobody says: from 0.14 on it does.
fn plans_ahead(version: &str) -> Option<bool> {
    let mut parts = version
        .trim_start_matches('v')
        .split('.')
        .map(str::parse::<u32>);
    let (major, minor) = (parts.next()?.ok()?, parts.next()?.ok()?);
    Some((major, minor) >= (0, 14))
}

/// What the GPU is called: by the engine, and by its operator tables.
fn gpu_names(dir: &Path, meta: &Value) -> Result<Vec<String>, Unreadable> {
    let mut names: Vec<String> = word(meta, &["/hardware/device_name"]).into_iter().collect();
    if let Some(path) = files::find(&dir.join("profile"), "meta.yaml") {
        let document = parse_yaml(&files::text(&path)?).map_err(|(line, reason)| Unreadable {
            file: path.clone(),
            line,
            reason,
            remedy: "write it in plain YAML".into(),
        })?;
        names.extend(
            ["/gpu", "/hardware"]
                .iter()
                .filter_map(|at| word(&document, &[at])),
        );
    }
    Ok(names)
}

/// The catalogue's name of a GPU that others call `name`.
fn known_gpu(name: &str) -> Option<&'static str> {
    let plain = |text: &str| -> String {
        let letters = text.chars().filter(char::is_ascii_alphanumeric);
        letters.collect::<String>().to_lowercase()
    };
    let name = plain(name);
    let known = hardware::GPUS.iter().map(|gpu| gpu.name);
    known
        .filter(|known| name.contains(&plain(known)))
        .max_by_key(|known| known.len())
}

/// Bytes of memory of one GPU, and who says so.
fn memory(
    dir: &Path,
    meta: &Value,
    gpu: Option<&'static str>,
) -> Result<Option<(f64, String)>, Unreadable> {
    if let Some(bytes) = number(meta, &["/hardware/device_total_memory_bytes"]) {
        return Ok(Some((bytes as f64, "vllm/meta.json".into())));
    }
    if let Some(path) = files::find(&dir.join("sim"), "cluster_config.json") {
        let cluster: Value = files::json(&path)?;
        let gib = cluster.pointer("/nodes/0/instances/0/npu_mem/mem_size");
        if let Some(gib) = gib.and_then(Value::as_f64) {
            let bytes = gib * f64::from(1 << 30);
            return Ok(Some((bytes, "sim/cluster_config.json".into())));
        }
    }
    let known = gpu.and_then(hardware::find_gpu);
    Ok(known.map(|gpu| (gpu.memory as f64, format!("the data sheet of {}", gpu.name))))
}

/// The link between GPUs that the description of the cluster gives, where there is one. Its
/// gigabytes have 2^30 bytes, as in the network simulator that it is written for.
fn link(dir: &Path) -> Result<Option<(f64, f64)>, Unreadable> {
    let Some(path) = files::find(&dir.join("sim"), "cluster_config.json") else {
        return Ok(None);
    };
    let cluster: Value = files::json(&path)?;
    let of = |name: &str| cluster.get(name).and_then(Value::as_f64);
    let positive = |x: &f64| x.is_finite() && *x > 0.0;
    Ok(of("link_bw")
        .filter(positive)
        .map(|gibibytes| gibibytes * f64::from(1 << 30) / 1e9)
        .zip(of("link_latency").filter(|x| x.is_finite() && *x >= 0.0)))
}

#[cfg(test)]
mod tests;
