//! What a run of Vidur was made with: `summary.json`, above all the arguments in it.

use super::super::Playable;
use super::super::files::{self, Unreadable};
use super::super::play::Sheet;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use windtunnel_engine::hardware;

#[derive(Deserialize)]
struct Summary {
    argv: Vec<String>,
    #[serde(default)]
    num_blocks: Option<f64>,
    #[serde(default)]
    block_size: Option<f64>,
    /// Gaps between tokens, in seconds, by statistic.
    #[serde(default)]
    tbt: BTreeMap<String, f64>,
}

/// What a run was made with; what the arguments leave out is Vidur's default.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) replicas: u32,
    pub(super) blocks: u64,
    derived: bool,
    block_size: u32,
    scheduler: String,
    /// Tokens of a step.
    budget: u32,
    cap: u32,
    watermark: f64,
    routing: String,
    model: String,
    tensor_parallel: u32,
    /// Statistics of gaps between tokens, in milliseconds, as far as they are told.
    pub(super) gaps: BTreeMap<String, f64>,
}

impl Settings {
    /// Reads them; the inner error says what cannot be played.
    pub(super) fn read(run: &Path) -> Result<Playable<Self>, Unreadable> {
        let path = files::expect(run, "summary.json", "what the run was made with")?;
        let summary: Summary = files::json(&path)?;
        let flags = Flags::new(&summary.argv, &path);
        let scheduler = flags.text("replica_scheduler_config_type", "sarathi");
        let (preset_budget, budget_flag) = match scheduler.as_str() {
            "sarathi" => (512, "chunk_size"),
            "vllm" => (4096, "max_tokens_in_batch"),
            other => {
                return Ok(Err(format!(
                    "its replica scheduler is `{other}`; known are sarathi and vllm"
                )));
            }
        };
        let of_scheduler = |flag: &str| format!("{scheduler}_scheduler_config_{flag}");
        let stages: u32 = flags.number("replica_config_num_pipeline_stages", 1)?;
        if stages != 1 {
            return Ok(Err(format!(
                "it has {stages} pipeline stages; only runs with one can be played"
            )));
        }
        let model = flags.text("replica_config_model_name", "meta-llama/Llama-2-7b-hf");
        let tensor_parallel = flags.number("replica_config_tensor_parallel_size", 1)?;
        let block_size = match summary.block_size {
            Some(size) => size as u32,
            None => flags.number(&of_scheduler("block_size"), 16)?,
        };
        let told = match summary.num_blocks {
            Some(blocks) => Some(blocks as u64),
            None => flags.maybe(&of_scheduler("num_blocks"))?,
        };
        let mut settings = Self {
            replicas: flags.number("cluster_config_num_replicas", 1)?,
            blocks: told.unwrap_or(0),
            derived: told.is_none(),
            block_size,
            budget: flags.number(&of_scheduler(budget_flag), preset_budget)?,
            cap: flags.number(&of_scheduler("batch_size_cap"), 128)?,
            watermark: flags.number(&of_scheduler("watermark_blocks_fraction"), 0.01)?,
            routing: flags.text("global_scheduler_config_type", "round_robin"),
            model,
            tensor_parallel,
            gaps: summary
                .tbt
                .iter()
                .map(|(k, s)| (k.clone(), s * 1e3))
                .collect(),
            scheduler,
        };
        if settings.replicas == 0 || block_size == 0 {
            return Err(Unreadable::file(
                &path,
                "a run needs a replica, and blocks of a token at least",
                "correct the file",
            ));
        }
        if told.is_none() {
            settings.blocks = settings.capacity(&flags)?;
        }
        if !matches!(settings.routing.as_str(), "round_robin" | "lor") {
            return Ok(Err(format!(
                "its requests are routed by `{}`; known are round_robin and lor",
                settings.routing
            )));
        }
        Ok(Ok(settings))
    }

    /// Blocks as Vidur derives them: what the weights leave of the memory, in requests of the
    /// longest length.
    fn capacity(&self, flags: &Flags<'_>) -> Result<u64, Unreadable> {
        let device = flags.text("replica_config_device", "a100");
        let gib = match device.as_str() {
            "a100" | "h100" => 80.0,
            "a40" => 45.0,
            other => {
                return Err(Unreadable::file(
                    flags.file,
                    format!("it has no `num_blocks`, and the memory of `{other}` is not known"),
                    "add `num_blocks`",
                ));
            }
        };
        let Some(model) = hardware::find_model(self.known_model()) else {
            return Err(Unreadable::file(
                flags.file,
                format!("it has no `num_blocks`, and `{}` is not known", self.model),
                "add `num_blocks`",
            ));
        };
        let max_tokens: u32 =
            flags.number("trace_request_length_generator_config_max_tokens", 4096)?;
        let margin: f64 = flags.number("replica_config_memory_margin_fraction", 0.1)?;
        let f = f64::from;
        let tp = f(self.tensor_parallel);
        let width = f(model.head_dim);
        let attention = f(model.hidden) * width * f(model.heads + 2 * model.kv_heads)
            + f(model.hidden) * width * f(model.heads);
        let weights =
            2.0 * f(model.layers) * (attention + 3.0 * f(model.hidden) * f(model.ffn)) / tp;
        let free = gib * f64::from(1 << 30) * (1.0 - margin) - weights;
        let heads = (f(model.kv_heads) / tp).ceil();
        let request = 2.0 * 2.0 * width * heads * f(max_tokens) * f(model.layers);
        let slots = (free / request).floor().max(0.0);
        Ok(slots as u64 * u64::from(max_tokens / self.block_size))
    }

    /// The model's name in the catalogue: without its owner and what stands for a file format.
    fn known_model(&self) -> &'static str {
        let name = self.model.rsplit('/').next().unwrap_or_default();
        let plain = |name: &str| -> String {
            let name = name.to_lowercase();
            let name = name.trim_start_matches("meta-").trim_end_matches("-hf");
            name.chars().filter(|c| c.is_ascii_alphanumeric()).collect()
        };
        let wanted = plain(name);
        let models = hardware::MODELS.iter().map(|m| m.name);
        models
            .filter(|known| plain(known) == wanted)
            .max_by_key(|known| known.len())
            .unwrap_or("")
    }

    /// The scenario that the run is played in; tables are in `dir`.
    pub(super) fn scenario(&self, dir: &Path) -> Result<Sheet, Unreadable> {
        let mut sheet = Sheet::default();
        sheet.set("version", 1);
        sheet.table("run").set("warm_up", "0s");
        sheet
            .table("fleet")
            .set("replicas", i64::from(self.replicas));
        let preset = if self.scheduler == "vllm" {
            "vllm-v0"
        } else {
            "sarathi"
        };
        let model = match self.known_model() {
            "" => self.model.as_str(),
            known => known,
        };
        sheet
            .table("fleet.engine")
            .set("kind", "continuous")
            .set("preset", preset)
            .set("model", model)
            .set("tensor_parallel", i64::from(self.tensor_parallel));
        sheet
            .table("fleet.engine.scheduler")
            .set("token_budget", i64::from(self.budget))
            .set("max_num_seqs", i64::from(self.cap));
        sheet
            .table("fleet.engine.kv")
            .set("block_size", i64::from(self.block_size))
            .set("blocks", self.blocks as i64)
            .set("watermark", self.watermark);
        let tables = dir.join("tables");
        if !tables.is_dir() {
            return Err(Unreadable::file(
                &tables,
                "there is no such folder",
                "put Vidur's lookup tables there",
            ));
        }
        sheet
            .table("fleet.engine.cost")
            .set("kind", "operators")
            .set("folder", "tables");
        sheet.table("gateway.routing");
        match self.routing.as_str() {
            "lor" => sheet
                .set("kind", "least_loaded")
                .set("load", "waiting")
                .set("ties", "lowest_id"),
            _ => sheet.set("kind", "round_robin"),
        };
        Ok(sheet)
    }

    /// For the report.
    pub(super) fn told(&self) -> BTreeMap<String, String> {
        [
            ("scheduler", self.scheduler.clone()),
            ("tokens per step", self.budget.to_string()),
            ("requests at once", self.cap.to_string()),
            ("replicas", self.replicas.to_string()),
            ("routing", self.routing.clone()),
            ("model", self.model.clone()),
            ("tensor parallel", self.tensor_parallel.to_string()),
            (
                "KV blocks",
                format!("{} of {}", self.blocks, self.block_size),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Where the number of blocks comes from, if it is not told.
    pub(super) fn blocks_note(&self) -> Option<String> {
        self.derived.then(|| {
            format!(
                "{} KV blocks, from memory and weights by Vidur's formula",
                self.blocks
            )
        })
    }
}

/// Arguments as `--name value` or `--name=value`.
struct Flags<'a> {
    values: BTreeMap<&'a str, &'a str>,
    file: &'a Path,
}

impl<'a> Flags<'a> {
    fn new(argv: &'a [String], file: &'a Path) -> Self {
        let mut values = BTreeMap::new();
        let mut rest = argv.iter().peekable();
        while let Some(word) = rest.next() {
            let Some(flag) = word.strip_prefix("--") else {
                continue;
            };
            if let Some((name, value)) = flag.split_once('=') {
                values.insert(name, value);
            } else if let Some(value) = rest.next_if(|next| !next.starts_with("--")) {
                values.insert(flag, value.as_str());
            } else {
                values.insert(flag, "true");
            }
        }
        Self { values, file }
    }

    fn text(&self, name: &str, default: &str) -> String {
        self.values.get(name).copied().unwrap_or(default).to_owned()
    }

    fn maybe<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Unreadable> {
        let Some(text) = self.values.get(name) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| {
            Unreadable::file(
                self.file,
                format!("`--{name} {text}` in `argv` is no such number"),
                "correct the file",
            )
        })
    }

    fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> Result<T, Unreadable> {
        Ok(self.maybe(name)?.unwrap_or(default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(argv: &str, rest: &str) -> Result<Playable<Settings>, Unreadable> {
        let dir = tempfile::tempdir().expect("a folder");
        let argv: Vec<&str> = argv.split_whitespace().collect();
        let text = format!("{{\"argv\": {}{rest}}}", serde_json::json!(argv));
        std::fs::write(dir.path().join("summary.json"), text).expect("a file");
        Settings::read(dir.path())
    }

    #[test]
    fn arguments_say_what_a_run_was_made_with() {
        let s = of(
            "--replica_scheduler_config_type vllm --vllm_scheduler_config_batch_size_cap=64 \
             --cluster_config_num_replicas 4 --global_scheduler_config_type lor --no-metrics_x \
             --vllm_scheduler_config_num_blocks 900",
            ", \"block_size\": 32.0",
        )
        .expect("a file")
        .expect("settings");
        assert_eq!((s.replicas, s.cap, s.budget), (4, 64, 4096));
        assert_eq!(
            (s.blocks, s.block_size, s.routing.as_str()),
            (900, 32, "lor")
        );
        assert_eq!(s.known_model(), "llama-2-7b");
    }

    #[test]
    fn blocks_that_are_not_told_follow_from_memory() {
        // 80 GiB, a tenth aside, less the weights of Llama 2 7B: 29 requests of 4,096 tokens.
        let s = of("--replica_config_device a100", "")
            .expect("a file")
            .expect("settings");
        assert_eq!((s.blocks, s.derived), (7424, true));
        let error = of("--replica_config_device tpu", "").expect_err("no memory");
        assert!(error.reason.contains("tpu"), "{error}");
        let other = of("--replica_scheduler_config_type orca", "").expect("a file");
        assert!(other.expect_err("no rules").contains("sarathi"));
        let error = of("--cluster_config_num_replicas many", "").expect_err("no number");
        assert!(error.reason.contains("many"), "{error}");
    }
}
