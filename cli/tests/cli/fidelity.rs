//! `validate --fidelity` on small folders written here, whose times follow by hand from tables in which
//! every operator takes as long as every other.

use crate::place::{Done, Place};
use serde_json::{Value, json};

/// What a step of the Vidur folder takes: 11 operators of half a millisecond in each of 32 layers.
const STEP: f64 = 0.176;

fn vidur(place: &Place, slower: f64) {
    for table in [
        "add",
        "attn_kv_cache_save",
        "attn_post_proj",
        "attn_pre_proj",
        "attn_rope",
        "input_layernorm",
        "mlp_act",
        "mlp_down_proj",
        "mlp_up_proj",
        "post_attention_layernorm",
    ] {
        let rows: String = (1..=64).map(|n| format!("{n},0.5\n")).collect();
        place.write(
            &format!("sys/tables/{table}.csv"),
            format!("num_tokens,ms\n{rows}"),
        );
    }
    let mut prefill = "kv_cache_size,prefill_chunk_size_squared,ms\n".to_owned();
    let mut decode = "batch_size,kv_cache_size,ms\n".to_owned();
    for kv in [0, 64] {
        (1..=64).for_each(|n: u32| prefill += &format!("{kv},{},0.5\n", n * n));
        (1..=4).for_each(|n| decode += &format!("{n},{kv},0.5\n"));
    }
    place.write("sys/tables/attn_prefill.csv", prefill);
    place.write("sys/tables/attn_decode.csv", decode);
    let argv = "--replica_config_model_name meta-llama/Llama-2-7b-hf --cluster_config_num_replicas 1 \
                --replica_scheduler_config_type sarathi --sarathi_scheduler_config_chunk_size 64 \
                --sarathi_scheduler_config_batch_size_cap 4";
    let argv: Vec<&str> = argv.split_whitespace().collect();
    let summary = json!({ "num_blocks": 100.0, "block_size": 16, "argv": argv });
    place.write("sys/runs/tiny/summary.json", summary.to_string());
    place.write(
        "sys/runs/tiny/arrivals.csv",
        "request_id,arrived_at,num_prefill_tokens,num_decode_tokens\n0,0.5,16,3\n1,10.0,20,1\n",
    );
    // Alone, the first takes a prefill and two decodes, the second a prefill.
    let t = |from: f64, steps: f64| from + steps * STEP * slower;
    place.write(
        "sys/runs/tiny/requests.csv",
        format!(
            "request_id,replica_id,arrived_at,num_prefill_tokens,num_decode_tokens,scheduled_at,prefill_completed_at,completed_at,num_restarts\n\
             0,0,0.5,16,3,0.5,{},{},0\n1,0,10.0,20,1,10.0,{},{},0\n",
            t(0.5, 1.0), t(0.5, 3.0), t(10.0, 1.0), t(10.0, 1.0)
        ),
    );
    let mut batches = "batch_id,replica_id,scheduled_at,completed_at,num_requests,num_tokens,num_prefill_tokens,kv_blocks_after,queued_after\n".to_owned();
    for (i, (from, steps, counts)) in [
        (0.5, 0.0, "1,16,16,1,0"),
        (0.5, 1.0, "1,1,0,2,0"),
        (0.5, 2.0, "1,1,0,0,0"),
        (10.0, 0.0, "1,20,20,0,0"),
    ]
    .into_iter()
    .enumerate()
    {
        batches += &format!(
            "{i},0,{},{},{counts}\n",
            t(from, steps),
            t(from, steps + 1.0)
        );
    }
    place.write("sys/runs/tiny/batches.csv", batches);
}

/// Every step takes a millisecond; 100 us to the queue, 10 us after the last token, 1 us per token.
fn blis(place: &Place, slower: f64) {
    let coefficients = json!({
        "alpha_us": { "alpha0_arrival_to_queue": 100.9, "alpha1_post_decode_per_request": 10.9,
                      "alpha2_per_output_token": 1.9 },
        "beta": { "b1a_prefill_compute": 0.0, "b2a_decode_compute": 0.0, "b3_weight": 0.0,
                  "b4_tp_allreduce": 0.0, "b5_per_layer_us": 0.0, "b6_per_request_us": 0.0,
                  "b7_per_step_us": 1000.5, "b8_per_moe_layer_us": 0.0, "b1b_prefill_kv": 0.0,
                  "b2b_decode_kv": 0.0 },
        "hardware": { "H100": { "tflops_peak_bf16": 989.5, "hbm_TBps": 3.35 } },
        "model": { "layers": 2, "hidden": 64, "heads": 2, "kv_heads": 2, "head_dim": 32, "ffn": 128,
                   "bytes_per_param": 2, "max_model_len": 4096 },
        "engine": { "tp": 1, "kv_block_tokens": 16, "kv_blocks_auto": 100, "max_num_seqs": 8,
                    "max_num_batched_tokens": 64 },
    });
    place.write("sys/config/coefficients.json", coefficients.to_string());
    place.write(
        "sys/workloads/w.cmd.txt",
        "common: run --model x --hardware H100 --num-instances 2 --workload-spec load.yaml\n\
         w_rr: --routing-policy round-robin   (in turn)\n",
    );
    place.write(
        "sys/traces/load.csv",
        "request_id,prefix_group,prefix_length,input_tokens,output_tokens,arrival_time_us\n\
         0,a,16,10,3,1000\n1,a,16,20,1,2000\n",
    );
    let us = |us: f64| format!("{:.3}", (us * slower).floor() / 1e3);
    place.write(
        "sys/results/w_rr.requests.csv",
        format!(
            "request_id,handled_by,ttft_ms,itl_ms,e2e_ms,scheduling_delay_ms\n\
             0,instance_0,{},1.001,{},0.1\n1,instance_1,{},0,{},0.1\n",
            us(1101.0),
            us(3113.0),
            us(1101.0),
            us(1111.0)
        ),
    );
    let summary = json!({ "completed_requests": 2, "ttft_mean_ms": 1.101 * slower,
                          "itl_p90_ms": 1.001, "total_output_tokens": 4 });
    place.write("sys/results/w_rr.summary.json", summary.to_string());
}

/// Every operator takes 100 us: with two layers of nine (`layernorm` counts twice) and four outside of
/// layers, a step takes 2.2 ms.
fn vllm(place: &Place, slower: f64) {
    let mut dense = "layer,tokens,time_us\n".to_owned();
    for layer in [
        "embedding",
        "layernorm",
        "qkv_proj",
        "rotary_emb",
        "o_proj",
        "gate_up_proj",
        "act_fn",
        "down_proj",
        "final_layernorm",
    ] {
        for tokens in [1, 64] {
            dense += &format!("{layer},{tokens},100\n");
        }
    }
    place.write("sys/profile/dense.csv", dense);
    place.write(
        "sys/profile/per_sequence.csv",
        "layer,sequences,time_us\nlm_head,1,100\nlm_head,8,100\nsampler,1,100\nsampler,8,100\n",
    );
    let mut attention = "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n".to_owned();
    for chunk in [0, 16, 64] {
        for kv in [0, 16, 64] {
            for (n, context) in [(0, 0), (1, 16), (1, 64), (8, 16), (8, 64)] {
                if chunk + n > 0 && (chunk > 0 || kv == 0) {
                    attention += &format!("{chunk},{kv},{n},{context},100\n");
                }
            }
        }
    }
    place.write("sys/profile/attention.csv", attention);
    place.write(
        "sys/profile/meta.yaml",
        "gpu: some GPU\ntp_degrees: [1]\nskew_fit:\n  enabled: false\n",
    );
    let config = json!({ "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2,
                         "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 100,
                         "max_position_embeddings": 4096, "torch_dtype": "bfloat16" });
    place.write("sys/model_config_x.json", config.to_string());
    let meta = json!({ "model": "x", "vllm_version": "0.19.0",
                       "engine_kwargs": { "max_num_seqs": 8, "max_num_batched_tokens": 64 },
                       "kv_cache": { "num_gpu_blocks": 100, "block_size": 16 } });
    place.write("sys/vllm/meta.json", meta.to_string());
    let (mut asked, mut served) = (String::new(), String::new());
    for i in 0..10 {
        // Far apart, so that each is alone: a prefill, then three decodes.
        let at = f64::from(i) * 2.0;
        let first = 100.0 + at + 0.0022 * slower;
        let last = first + 3.0 * 0.0022 * slower;
        asked += &format!(
            "{}\n",
            json!({ "request_id": i, "arrival_time_ns": at * 1e9,
            "input_toks": 32, "output_toks": 4, "input_block_hashes": [format!("a{i}"), format!("b{i}")] })
        );
        served += &format!(
            "{}\n",
            json!({ "request_id": format!("bench-{i}"), "input_toks": 32,
            "output_toks": 4, "arrival_time": 5000.0 + at, "queued_ts": 100.0 + at,
            "first_token_ts": first, "last_token_ts": last })
        );
    }
    place.write("sys/workload_x.jsonl", asked);
    place.write("sys/vllm/requests.jsonl", served);
}

fn validate(place: &Place, more: &str) -> Done {
    place.run(&format!("validate --fidelity sys --no-progress {more}"))
}

/// A layout's folder, whose measured times are so many times those that its tables make.
type Folder = fn(&Place, f64);
const LAYOUTS: [(&str, Folder); 3] = [("vidur", vidur), ("blis", blis), ("vllm", vllm)];

#[test]
fn what_tables_say_is_met_and_five_per_cent_more_is_missed() {
    for (layout, write) in LAYOUTS {
        let place = Place::new();
        write(&place, 1.0);
        let document = validate(&place, "--format json").code(0).json();
        assert_eq!(document["verdict"], "pass");
        assert_eq!(document["systems"][0]["layout"], layout);
        let place = Place::new();
        write(&place, 1.05);
        let done = validate(&place, "").code(3);
        assert!(
            done.out.contains("MISSED") && done.out.contains("miss a stated target"),
            "{done}"
        );
    }
}

#[test]
fn a_measured_engine_is_held_to_the_tolerance_asked_for() {
    let place = Place::new();
    vllm(&place, 1.05);
    validate(&place, "--tolerance 4.5%").code(3);
    let document = validate(&place, "--tolerance 0.06 --format json").code(0);
    assert!(document.out.contains("\"target\": 0.06"), "{document}");
    for wrong in ["0", "-1%", "much", "nan"] {
        let done = validate(&place, &format!("--tolerance={wrong}")).code(2);
        assert!(done.err.contains("such as `3%`"), "{done}");
    }
    // Without recorded runs there is nothing that it could be about.
    place.run("validate --tolerance 3% V-B1").code(2);
    place.run("validate --fidelity live --tolerance 3%").code(2);
}

#[test]
fn every_iteration_and_request_is_held_against_vidurs() {
    let place = Place::new();
    vidur(&place, 1.0);
    let document = validate(&place, "--format json").code(0).json();
    let run = &document["systems"][0]["runs"][0];
    assert_eq!((&run["requests"], &run["steps"]), (&json!(2), &json!(4)));
    let compared = |what: &str| {
        let all = run["equalities"].as_array().expect("a list");
        let found: Vec<&Value> = all.iter().filter(|e| e["what"] == what).collect();
        assert_eq!(found.len(), 1, "{what}: {run}");
        assert_eq!(found[0]["equal"], found[0]["compared"]);
        found[0]["compared"].clone()
    };
    assert_eq!(compared("end of every iteration"), 4);
    assert_eq!(compared("KV blocks held after of every iteration"), 4);
    assert_eq!(compared("completion of every request"), 2);
    // One block more held than there was, in one iteration.
    let batches = place
        .read("sys/runs/tiny/batches.csv")
        .replace("1,1,0,2,0", "1,1,0,3,0");
    place.write("sys/runs/tiny/batches.csv", batches);
    let done = validate(&place, "").code(3);
    assert!(
        done.out.contains(
            "replica 0, iteration 1 (sys/runs/tiny/batches.csv:3): measured 3, simulated 2"
        ),
        "{done}"
    );
    // Without iterations requests are still compared, and it says so.
    std::fs::remove_file(place.path("sys/runs/tiny/batches.csv")).expect("a file");
    let done = validate(&place, "").code(0);
    assert!(done.out.contains("no batches.csv"), "{done}");
}

#[test]
fn a_run_in_another_world_is_another_run() {
    let place = Place::new();
    blis(&place, 1.0);
    let done = validate(&place, "w_rr --set fleet.replicas=1").code(3);
    assert!(done.out.contains("instance of every request"), "{done}");
    let done = validate(&place, "--set fleet.replica=1").code(2);
    assert!(done.err.contains("did you mean"), "{done}");
    let done = validate(&place, "w_lr").code(2);
    assert!(done.err.contains("sys/w_rr"), "{done}");
    assert!(done.out.is_empty(), "{done}");
}

#[test]
fn documents_are_written() {
    let place = Place::new();
    vllm(&place, 1.0);
    validate(&place, "--out there").code(0);
    let files = place.files();
    for file in [
        "there/report.html",
        "there/fidelity.json",
        "there/figures.csv",
        "there/requests/sys-measured.csv",
        "there/plots/sys-measured-predicted_ttft.svg",
    ] {
        assert!(files.contains(file), "{file} is not among {files:?}");
    }
    assert_eq!(place.json("there/fidelity.json")["verdict"], "pass");
    let page = place.read("there/report.html");
    assert!(page.contains("<svg") && !page.contains("<script"));
    // Jobs change nothing.
    let [one, two] =
        [1, 2].map(|jobs| validate(&place, &format!("--format json --jobs {jobs}")).out);
    assert_eq!(one, two);
}

#[test]
fn a_kv_size_that_nobody_tells_is_said_to_be_a_guess() {
    let place = Place::new();
    vllm(&place, 1.0);
    let meta = json!({ "model": "x", "engine_kwargs": { "max_num_seqs": 8, "max_num_batched_tokens": 64 } });
    place.write("sys/vllm/meta.json", meta.to_string());
    let done = validate(&place, "").code(0);
    assert!(
        done.out
            .contains("add `kv_cache.num_gpu_blocks` to vllm/meta.json"),
        "{done}"
    );
    // With the GPU's memory it follows, and the report says how.
    let meta = json!({ "model": "x", "engine_kwargs": { "max_num_seqs": 8, "max_num_batched_tokens": 64 },
                       "hardware": { "device_total_memory_bytes": 8_u64 << 30 } });
    place.write("sys/vllm/meta.json", meta.to_string());
    let done = validate(&place, "").code(0);
    assert!(done.out.contains("did not tell its KV size"), "{done}");
}

#[test]
fn runs_of_unknown_rules_are_left_out_and_named() {
    let place = Place::new();
    vidur(&place, 1.0);
    let known = place.read("sys/runs/tiny/summary.json");
    place.write(
        "sys/runs/other/summary.json",
        known.replace("\"sarathi\"", "\"orca\""),
    );
    let done = validate(&place, "").code(0);
    assert!(
        done.out.contains("its replica scheduler is `orca`"),
        "{done}"
    );
    assert!(done.out.contains("1 could not be compared"), "{done}");
    validate(&place, "other").code(4);
    let place = Place::new();
    blis(&place, 1.0);
    let command = place.read("sys/workloads/w.cmd.txt");
    place.write(
        "sys/workloads/w.cmd.txt",
        command.replace("round-robin", "always-busiest"),
    );
    let done = validate(&place, "").code(4);
    assert!(done.out.contains("always-busiest"), "{done}");
}

#[test]
fn what_cannot_be_read_is_code_2_with_place_reason_and_remedy() {
    let cases: [(Folder, &str, Option<&str>, &str); 10] = [
        (vidur, "sys/runs/tiny/arrivals.csv", None, "arrivals.csv"),
        (
            vidur,
            "sys/runs/tiny/arrivals.csv",
            Some("request_id,arrived_at\n0,1\n"),
            "num_prefill_tokens",
        ),
        (
            vidur,
            "sys/runs/tiny/summary.json",
            Some("{"),
            "summary.json:1",
        ),
        (
            vidur,
            "sys/tables/attn_rope.csv",
            Some("num_tokens,ms\n1,fast\n"),
            "attn_rope.csv",
        ),
        (
            blis,
            "sys/config/coefficients.json",
            Some("[]"),
            "coefficients.json",
        ),
        (
            blis,
            "sys/results/w_rr.requests.csv",
            Some("request_id,ttft_ms,e2e_ms\n9,1,1\n"),
            "w_rr.requests.csv:2",
        ),
        (
            blis,
            "sys/workloads/w.cmd.txt",
            Some("w_rr: --workload-spec load.yaml --num-instances many\n"),
            "num-instances",
        ),
        (
            vllm,
            "sys/vllm/requests.jsonl",
            Some("{\"input_toks\": 1}\n"),
            "requests.jsonl:1",
        ),
        (vllm, "sys/workload_x.jsonl", None, "workload"),
        (
            vllm,
            "sys/model_config_x.json",
            Some("{}"),
            "model_config_x.json",
        ),
    ];
    for (write, file, content, said) in cases {
        let place = Place::new();
        write(&place, 1.0);
        match content {
            Some(text) => place.write(file, text),
            None => std::fs::remove_file(place.path(file)).expect("a file"),
        }
        let done = validate(&place, "").code(2);
        assert!(
            done.err.contains(said) && done.out.is_empty(),
            "{file}: {done}"
        );
        assert!(done.err.contains("nothing was compared"), "{file}: {done}");
    }
    let place = Place::new();
    place.write("sys/readme.txt", "nothing here");
    let done = validate(&place, "").code(2);
    assert!(done.err.contains("vllm/requests.jsonl"), "{done}");
    let done = place.run("validate --fidelity nowhere").code(2);
    assert!(done.err.contains("no such folder"), "{done}");
}

/// The measured systems of the folder shared beside the repository.
#[test]
fn measured_systems_are_met() {
    let beside = || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("WINDTUNNEL_SHARED").map_or_else(beside, Into::into);
    let folder = shared.join("fidelity");
    if !folder.is_dir() {
        println!("skipped: no measured systems at {}", folder.display());
        return;
    }
    let folder = folder.display().to_string();
    let place = Place::new();
    place
        .run_args(&["validate", "--fidelity", &folder, "--no-progress"])
        .code(0);
}
