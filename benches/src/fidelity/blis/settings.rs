//! What runs of BLIS were made with: `config/coefficients.json` and the arguments, whose absent values
//! are BLIS's own defaults.

use super::super::Playable;
use super::super::files::{self, Unreadable};
use super::super::play::Sheet;
use super::commands::Command;
use serde_json::Value;
use std::path::{Path, PathBuf};
use windtunnel_engine::hardware;
use windtunnel_scenarios::blis::{BlisCluster, cluster};

/// What all runs of a folder share.
#[derive(Debug)]
pub(super) struct System {
    path: PathBuf,
    coefficients: Value,
    /// The model's `config.json`, if there is one: its name, relative to the folder.
    model_config: Option<String>,
}

impl System {
    /// Reads it.
    pub(super) fn read(dir: &Path) -> Result<Self, Unreadable> {
        let path = files::expect(dir, "config/coefficients.json", "coefficients and limits")?;
        let mut configs = files::entries(&dir.join("config"))?.into_iter();
        let model_config = configs.find_map(|path| {
            let name = path.file_name()?.to_string_lossy().into_owned();
            name.ends_with(".config.json")
                .then(|| format!("config/{name}"))
        });
        Ok(Self {
            coefficients: files::json(&path)?,
            path,
            model_config,
        })
    }

    fn number(&self, place: &str) -> Option<f64> {
        self.coefficients.pointer(place)?.as_f64()
    }

    fn whole(&self, place: &str) -> Option<u32> {
        u32::try_from(self.coefficients.pointer(place)?.as_u64()?).ok()
    }
}

/// What a run was made with.
#[derive(Debug)]
pub(super) struct Settings<'a> {
    system: &'a System,
    command: &'a Command,
    /// Microseconds: to the queue, after the last token, per token.
    alpha: [f64; 3],
    beta: Option<Vec<f64>>,
    cluster: BlisCluster,
    tensor_parallel: u32,
    blocks: u64,
    block_tokens: u32,
    max_num_seqs: u32,
    token_budget: u32,
    long_prefill: u32,
    max_model_len: Option<u32>,
}

/// Flags that change what is simulated in a way that cannot be played, and the value they have if
/// nothing is asked for.
const UNKNOWN: [(&str, &[&str]); 6] = [
    ("latency-model", &["trained-physics"]),
    ("scheduler", &["fcfs"]),
    ("preemption-policy", &["fcfs"]),
    ("kv-cpu-blocks", &["0"]),
    ("dp", &["1"]),
    ("horizon", &[]),
];

/// Flags whose values are numbers: what is none is a mistake of the file.
const NUMBERS: [&str; 7] = [
    "num-instances",
    "block-size-in-tokens",
    "snapshot-refresh-interval",
    "cache-signal-delay",
    "admission-latency",
    "routing-latency",
    "seed",
];

impl<'a> Settings<'a> {
    /// Puts the arguments of a run on what its folder says.
    /// The inner error says what cannot be played.
    pub(super) fn of(
        system: &'a System,
        command: &'a Command,
    ) -> Result<Playable<Self>, Unreadable> {
        for (flag, usual) in UNKNOWN {
            if let Some(value) = command.get(flag).filter(|value| !usual.contains(value)) {
                return Ok(Err(format!(
                    "it was run with `--{flag} {value}`, which cannot be played"
                )));
            }
        }
        let arguments: Vec<String> = command.flags().map(|(k, v)| format!("--{k}={v}")).collect();
        let cluster = match cluster(arguments.iter().map(String::as_str)) {
            Ok(cluster) => cluster,
            Err(e) if NUMBERS.contains(&e.flag.as_str()) => {
                let reason = format!("`{}`: `--{}`: {}", command.name, e.flag, e.reason);
                return Err(Unreadable::file(&command.file, reason, e.remedy));
            }
            Err(e) => return Ok(Err(format!("it was run with {e}"))),
        };
        let list = |flag: &str| -> Result<Option<Vec<f64>>, Unreadable> {
            let Some(text) = command.get(flag) else {
                return Ok(None);
            };
            let numbers = text.split(',').map(|n| n.trim().parse().ok());
            numbers
                .collect::<Option<Vec<f64>>>()
                .map(Some)
                .ok_or_else(|| {
                    let reason = format!("`--{flag} {text}` is no list of numbers");
                    Unreadable::file(&command.file, reason, "correct the file")
                })
        };
        let alpha = |i: usize, name: &str| {
            let place = format!("/alpha_us/{name}");
            system.number(&place).ok_or_else(|| {
                let reason = format!("`alpha_us.{name}` is missing (alpha {i})");
                Unreadable::file(&system.path, reason, "fetch the file again")
            })
        };
        let alpha = match list("alpha-coeffs")? {
            Some(given) if given.len() == 3 => [given[0], given[1], given[2]],
            _ => [
                alpha(0, "alpha0_arrival_to_queue")?,
                alpha(1, "alpha1_post_decode_per_request")?,
                alpha(2, "alpha2_per_output_token")?,
            ],
        };
        let limit = |flags: [&str; 2], place: &str, default: u32| {
            let default = system.whole(place).unwrap_or(default);
            let default = command.number(flags[1], default)?;
            command.number(flags[0], default)
        };
        let told = system
            .coefficients
            .pointer("/engine/kv_blocks_auto")
            .and_then(Value::as_u64);
        let blocks = command.number("total-kv-blocks", told.unwrap_or(0))?;
        if blocks == 0 {
            return Err(Unreadable::file(
                &system.path,
                "`engine.kv_blocks_auto` is missing",
                "add the number of KV blocks",
            ));
        }
        let model_len = system.whole("/engine/max_model_len");
        let model_len = model_len.or_else(|| system.whole("/model/max_model_len"));
        let max_model_len = command.number("max-model-len", model_len.unwrap_or(0))?;
        Ok(Ok(Self {
            system,
            command,
            alpha,
            cluster,
            beta: list("beta-coeffs")?,
            tensor_parallel: command.number("tp", system.whole("/engine/tp").unwrap_or(1))?,
            blocks,
            block_tokens: limit(["block-size-in-tokens", ""], "/engine/kv_block_tokens", 16)?,
            max_num_seqs: limit(
                ["max-num-seqs", "max-num-running-reqs"],
                "/engine/max_num_seqs",
                256,
            )?,
            token_budget: limit(
                ["max-num-batched-tokens", "max-num-scheduled-tokens"],
                "/engine/max_num_batched_tokens",
                2048,
            )?,
            long_prefill: command.number("long-prefill-token-threshold", 0)?,
            max_model_len: Some(max_model_len).filter(|&n| n > 0),
        }))
    }

    /// What is added to every gap between tokens, in microseconds,
    /// truncated as every derived time is.
    pub(super) fn per_token_us(&self) -> u64 {
        self.alpha[2].max(0.0) as u64
    }

    /// What is added after the last token, in microseconds.
    pub(super) fn completion_us(&self) -> u64 {
        self.alpha[1].max(0.0) as u64
    }

    /// The scenario that the run is played in.
    pub(super) fn scenario(&self) -> Result<Sheet, Unreadable> {
        let int = |n: u32| i64::from(n);
        let mut sheet = Sheet::default();
        sheet.set("version", 1);
        sheet.table("run").set("warm_up", "0s");
        sheet
            .table("fleet.engine")
            .set("kind", "continuous")
            .set("preset", "blis")
            .set("tensor_parallel", int(self.tensor_parallel))
            .maybe("max_model_len", self.max_model_len.map(int));
        self.model(&mut sheet)?;
        sheet
            .table("fleet.engine.scheduler")
            .set("token_budget", int(self.token_budget))
            .set("max_num_seqs", int(self.max_num_seqs))
            .maybe(
                "long_prefill_threshold",
                Some(self.long_prefill).filter(|&n| n > 0).map(int),
            );
        sheet
            .table("fleet.engine.kv")
            .set("block_size", int(self.block_tokens))
            .set("blocks", self.blocks as i64);
        sheet
            .table("fleet.engine.cost")
            .set("kind", "coefficients")
            .set("file", "config/coefficients.json")
            .set("alpha_us", self.alpha.map(toml::Value::from).to_vec())
            .maybe("hardware", self.command.get("hardware"));
        if self.system.coefficients.get("model").is_none() {
            sheet.maybe("model_config", self.system.model_config.as_deref());
        }
        if let Some(beta) = &self.beta {
            const ORDER: [&str; 10] = [
                "b1a", "b2a", "b3", "b4", "b5", "b6", "b7", "b8", "b1b", "b2b",
            ];
            sheet.table("fleet.engine.cost.beta");
            for (name, &value) in ORDER.iter().zip(beta) {
                sheet.set(name, value);
            }
        }
        self.cluster(&mut sheet)?;
        Ok(sheet)
    }

    /// The replicas, what is known of them, and how requests are routed.
    fn cluster(&self, sheet: &mut Sheet) -> Result<(), Unreadable> {
        let value = |value: Result<toml::Value, toml::ser::Error>| {
            value.map_err(|e| {
                let reason = format!("`{}` cannot be played: {e}", self.command.name);
                Unreadable::file(&self.command.file, reason, "leave this run out")
            })
        };
        let telemetry = value(toml::Value::try_from(&self.cluster.telemetry))?;
        let routing = value(toml::Value::try_from(&self.cluster.routing))?;
        sheet
            .table("fleet")
            .set("replicas", i64::from(self.cluster.replicas))
            .set("telemetry", telemetry);
        sheet
            .table("gateway")
            .set("latency", self.cluster.latency.to_string())
            .set("routing", routing);
        sheet.seed = Some(self.cluster.seed);
        Ok(())
    }

    /// The model: by the coefficients' own constants, or by its name.
    fn model(&self, sheet: &mut Sheet) -> Result<(), Unreadable> {
        let get = |name: &str| self.system.whole(&format!("/model/{name}"));
        let sizes = [
            ("layers", get("layers")),
            ("hidden", get("hidden")),
            ("ffn", get("ffn")),
            ("heads", get("heads")),
            ("kv_heads", get("kv_heads")),
        ];
        if sizes.iter().all(|(_, size)| size.is_some()) {
            let size = |i: usize| sizes[i].1.unwrap_or(1);
            sheet.table("fleet.engine.custom_model");
            for (i, (name, _)) in sizes.iter().enumerate() {
                sheet.set(name, i64::from(size(i)));
            }
            let longest = get("max_model_len")
                .max(self.max_model_len)
                .unwrap_or(32_768);
            let head = get("head_dim").unwrap_or(size(1) / size(3).max(1));
            sheet
                .set("head_dim", i64::from(head))
                // Not looked at where blocks are given.
                .set("vocab", i64::from(get("vocab").unwrap_or(32_000)))
                .set(
                    "bytes_per_weight",
                    i64::from(get("bytes_per_param").unwrap_or(2).min(2)),
                )
                .set("max_len", i64::from(longest));
            return Ok(());
        }
        let name = self.command.get("model").unwrap_or_default();
        let name = name.rsplit('/').next().unwrap_or_default();
        match hardware::find_model(name) {
            Some(model) => {
                sheet.set("model", model.name);
                Ok(())
            }
            None => Err(Unreadable::file(
                &self.system.path,
                format!("it has no `model`, and `{name}` is not known"),
                "add the model's sizes",
            )),
        }
    }
}
