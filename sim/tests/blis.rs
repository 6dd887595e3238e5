//! Whole runs of BLIS, request by request: where each went, when its first token came and when
//! it was done, to the microsecond. The runs are in a folder shared beside the repository; without
//! it these tests say so and pass.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "the helpers of tests are tests"
)]

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use windtunnel_base::content::Extent;
use windtunnel_base::ids::{ClassId, RequestId, TenantId};
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::config::{
    ArchitectureSpec, BetaSpec, CoefficientsSpec, ContinuousSpec, CostSpec, EngineSpec,
};
use windtunnel_engine::request::Truth;
use windtunnel_scenarios::blis::cluster;
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::workload::{Arrival, Workload};
use windtunnel_sim::{RunOptions, TieOrder, run};

/// The folder of BLIS runs, if it is there.
fn folder() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("WINDTUNNEL_SHARED").map_or_else(beside, PathBuf::from);
    let folder = shared.join("fidelity/blis");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no BLIS runs at {}", folder.display());
    None
}

/// A compressed table as rows of fields by column name.
fn table(path: &Path) -> Vec<HashMap<String, String>> {
    let file = std::fs::File::open(path).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .unwrap();
    let mut lines = text.lines();
    let names: Vec<_> = lines.next().unwrap().split(',').collect();
    let row = |line: &str| {
        let fields = names.iter().zip(line.split(','));
        fields
            .map(|(n, f)| ((*n).to_owned(), f.to_owned()))
            .collect()
    };
    lines.map(row).collect()
}

/// Requests of a trace, by arrival.
struct Requests(std::vec::IntoIter<(Arrival, Extent)>);

impl Requests {
    fn read(path: &Path) -> Self {
        let rows = table(path);
        let mut groups: Vec<String> = Vec::new();
        let mut requests: Vec<_> = rows
            .iter()
            .map(|row| {
                let number = |name: &str| row[name].parse::<u32>().unwrap();
                let group = &row["prefix_group"];
                let key = groups.iter().position(|g| g == group).unwrap_or_else(|| {
                    groups.push(group.clone());
                    groups.len() - 1
                });
                let prefix = number("prefix_length");
                let arrival = Arrival {
                    at: SimTime::ZERO
                        + SimDuration::from_micros(row["arrival_time_us"].parse().unwrap()),
                    tenant: TenantId(0),
                    class: ClassId(0),
                    session: u64::from(number("request_id")),
                    turn: 0,
                    prompt_tokens: prefix + number("input_tokens"),
                    max_output_tokens: None,
                    predicted_output_tokens: None,
                    patience: None,
                    question: None,
                    truth: Truth {
                        output_tokens: number("output_tokens"),
                        service: SimDuration::ZERO,
                        good: true,
                        attack: false,
                        output_continues: false,
                        task: None,
                    },
                };
                let extent = Extent {
                    key: key as u64,
                    tokens: prefix,
                };
                (arrival, extent)
            })
            .collect();
        requests.sort_by_key(|(arrival, _)| arrival.at);
        Self(requests.into_iter())
    }
}

impl Workload for Requests {
    fn next_at(&mut self) -> Option<SimTime> {
        self.0.as_slice().first().map(|(arrival, _)| arrival.at)
    }

    fn take(&mut self, prefix: &mut Vec<Extent>) -> Arrival {
        let (arrival, extent) = self.0.next().unwrap();
        prefix.push(extent);
        arrival
    }

    fn departed(&mut self, _: RequestId, _: SimTime, _: bool) {}
}

/// The replicas of these runs, as `coefficients.json` has them.
fn engine(folder: &Path) -> ContinuousSpec {
    let text = std::fs::read_to_string(folder.join("config/coefficients.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let alpha = |name: &str| json["alpha_us"][name].as_f64().unwrap();
    let beta = |name: &str| json["beta"][name].as_f64().unwrap();
    let model = |name: &str| json["model"][name].as_u64().unwrap() as u32;
    let limit = |name: &str| json["engine"][name].as_u64().unwrap();
    let mut spec = ContinuousSpec::default();
    spec.scheduler.token_budget = limit("max_num_batched_tokens") as u32;
    spec.scheduler.max_num_seqs = limit("max_num_seqs") as u32;
    spec.scheduler.join_at_boundary = true;
    spec.kv.block_size = limit("kv_block_tokens") as u32;
    spec.kv.blocks = Some(limit("kv_blocks_auto"));
    spec.kv.watermark = 0.0;
    spec.max_model_len = Some(model("max_model_len"));
    spec.cost = CostSpec::Coefficients(Box::new(CoefficientsSpec {
        file: None,
        hardware: None,
        model_config: None,
        digest: None,
        alpha_us: Some([
            alpha("alpha0_arrival_to_queue"),
            alpha("alpha1_post_decode_per_request"),
            alpha("alpha2_per_output_token"),
        ]),
        beta: Some(BetaSpec {
            b1a: beta("b1a_prefill_compute"),
            b1b: Some(beta("b1b_prefill_kv")),
            b2a: beta("b2a_decode_compute"),
            b2b: Some(beta("b2b_decode_kv")),
            b3: beta("b3_weight"),
            b4: beta("b4_tp_allreduce"),
            b5: beta("b5_per_layer_us"),
            b6: beta("b6_per_request_us"),
            b7: beta("b7_per_step_us"),
            b8: beta("b8_per_moe_layer_us"),
        }),
        tflops: json["hardware"]["H100"]["tflops_peak_bf16"].as_f64(),
        tflops_fp8: None,
        hbm_tbps: json["hardware"]["H100"]["hbm_TBps"].as_f64(),
        architecture: Some(ArchitectureSpec {
            layers: model("layers"),
            hidden: model("hidden"),
            heads: model("heads"),
            kv_heads: model("kv_heads"),
            ffn: model("ffn"),
            bytes: model("bytes_per_param").into(),
            ..ArchitectureSpec::default()
        }),
    }));
    spec
}

/// Replica, time to first token and end-to-end time in microseconds, by request.
type Served = Vec<(u32, u64, u64)>;

/// W2 under these flags.
fn simulate(folder: &Path, flags: &str) -> Served {
    let cluster = cluster(flags.split_whitespace()).unwrap();
    let mut scenario = Scenario::default();
    scenario.fleet.replicas = cluster.replicas;
    scenario.fleet.engine = EngineSpec::Continuous(Box::new(engine(folder)));
    scenario.fleet.telemetry = cluster.telemetry;
    scenario.gateway.routing = cluster.routing;
    scenario.gateway.latency = cluster.latency;
    let mut requests = Requests::read(&folder.join("traces/w2_prefix16.csv.gz"));
    let options = RunOptions {
        ties: TieOrder::ArrivalsFirst,
        samples: 0,
        ..RunOptions::default()
    };
    let result = run(&scenario, &mut requests, cluster.seed, options).unwrap();
    let since = |ns: Option<u64>, from: u64| (ns.unwrap() - from) / 1000;
    let mut served: Vec<_> = result
        .rows
        .iter()
        .map(|row| {
            let first = since(row.first_token_ns, row.sent_ns);
            let last = since(row.last_token_ns, row.sent_ns);
            (row.session as usize, (row.replica.unwrap(), first, last))
        })
        .collect();
    served.sort_unstable();
    served.into_iter().map(|(_, row)| row).collect()
}

fn measured(path: &Path) -> Served {
    let rows = table(path);
    let mut served: Vec<_> = rows
        .iter()
        .map(|row| {
            let micros = |name: &str| (row[name].parse::<f64>().unwrap() * 1000.0).round() as u64;
            let replica = row["handled_by"].strip_prefix("instance_").unwrap();
            let request: usize = row["request_id"].parse().unwrap();
            let replica = replica.parse().unwrap();
            (request, (replica, micros("ttft_ms"), micros("e2e_ms")))
        })
        .collect();
    served.sort_unstable();
    served.into_iter().map(|(_, row)| row).collect()
}

#[track_caller]
fn assert_same(simulated: &Served, measured: &Served) {
    assert_eq!(simulated.len(), measured.len());
    let differ = |i: &usize| simulated[*i] != measured[*i];
    let wrong: Vec<_> = (0..measured.len()).filter(differ).collect();
    let shown: Vec<_> = wrong
        .iter()
        .take(5)
        .map(|&i| (i, simulated[i], measured[i]))
        .collect();
    let n = wrong.len();
    assert!(
        wrong.is_empty(),
        "{n} differ, as (request, here, there): {shown:?}"
    );
}

#[test]
fn round_robin_over_eight_replicas() {
    let Some(folder) = folder() else { return };
    let flags = "--num-instances 8 --routing-policy round-robin";
    let measured = measured(&folder.join("results/w2_rr.requests.csv.gz"));
    assert_same(&simulate(&folder, flags), &measured);
}

#[test]
fn least_loaded_by_live_state() {
    let Some(folder) = folder() else { return };
    let flags = "--num-instances 8 --routing-policy least-loaded \
                 --snapshot-refresh-interval 0 --cache-signal-delay 0";
    let measured = measured(&folder.join("results/w2_least_loaded_oracle.requests.csv.gz"));
    assert_same(&simulate(&folder, flags), &measured);
}
