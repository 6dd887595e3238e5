//! Cost models that scenarios read from folders: every layout, digests, and what is said of files
//! that cannot be used.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::fs;
use std::path::Path;
use tempfile::TempDir;
use windtunnel_engine::batch::BatchShape;
use windtunnel_engine::config::{ContinuousSpec, CostSpec};
use windtunnel_engine::cost::operators::OperatorTables;
use windtunnel_scenarios::{LoadEnv, Loaded, Report, Source, load, profile};

fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A folder of curves whose steps are easy to work out.
fn curves(dir: &Path) {
    let mut dense = "layer,tokens,time_us\n".to_owned();
    for layer in [
        "embedding",
        "layernorm",
        "qkv_proj",
        "o_proj",
        "gate_up_proj",
        "down_proj",
    ] {
        dense += &format!("{layer},1,10\n{layer},101,110\n");
    }
    write(dir, "dense.csv", &dense);
    write(
        dir,
        "per_sequence.csv",
        "layer,sequences,time_us\nlm_head,1,500\nlm_head,8,500\n",
    );
    write(
        dir,
        "attention.csv",
        "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n\
         0,0,2,100,20\n0,0,2,200,30\n64,0,0,0,40\n64,100,0,0,50\n",
    );
}

const META: &str = "\
hardware: TEST  # a comment
tp_degrees: [1]
skew_fit:
  enabled: true
  bucket_axes:
    pc: raw pc value (profiled grid point)
    n_bins: [0, 2, 1000000]
    n_labels: [n<=2, n>2]
    skew_rate_bins: [-0.01, 0.4, 1.01]
    skew_rate_labels: [sr<=40%, sr>40%]
    kv_big_bins: [0, 1024, 1000000000]
    kv_big_labels: [kvB<=1k, kvB>1k]
    kp_bins: [-1, 0, 1000000000]
    kp_labels: [kp=0, kp>0]
  per_tp:
    1:
      alpha_default: 0.25
      bucket_table: tp1/skew_fit.csv
";
const SKEW: &str = "pc,n_label,skew_rate_label,kv_big_label,kp_label,alpha,n_samples\n\
                    0,n<=2,sr>40%,kvB<=1k,kp=0,0.5,4\n";

fn scenario(cost: &str) -> String {
    format!(
        "extends = \"library:smoke\"\n[fleet.engine]\nkind = \"continuous\"\n\
         [fleet.engine.cost]\n{cost}\n"
    )
}

fn try_load(dir: &Path, text: &str) -> Result<Loaded, Report> {
    write(dir, "scenario.toml", text);
    let path = dir.join("scenario.toml");
    load(&Source::Path(path), &[], &LoadEnv::default())
}

fn engine(loaded: &Loaded) -> &ContinuousSpec {
    let engine = loaded.scenario.fleet.engine.llm();
    engine.unwrap_or_else(|| panic!("a station"))
}

/// What a user sees of a scenario that names the folder `profile`.
fn refused(dir: &Path) -> String {
    let text = scenario("kind = \"operators\"\nfolder = \"profile\"");
    let report = try_load(dir, &text).unwrap_err();
    let text = report.render(false);
    assert_eq!(report.diagnostics().len(), 1, "{text}");
    assert!(text.contains("S027"), "{text}");
    text
}

#[test]
fn a_scenario_reads_the_folder_beside_it_and_says_what_it_read() {
    let dir = TempDir::new().unwrap();
    curves(&dir.path().join("profile"));
    let text = scenario("kind = \"operators\"\nfolder = \"profile\"\noverhead = \"1ms\"");
    let loaded = try_load(dir.path(), &text).unwrap();
    let CostSpec::Operators(spec) = &engine(&loaded).cost else {
        panic!("another cost model");
    };
    let digest = spec.digest.clone().unwrap();
    assert_eq!(digest.len(), 32);
    assert!(loaded.resolved_toml.contains("folder = \"profile\""));
    assert!(
        loaded.resolved_toml.contains(&digest),
        "{}",
        loaded.resolved_toml
    );
    // The resolved scenario is the same scenario.
    let again = Source::Text {
        name: "resolved".into(),
        text: loaded.resolved_toml.clone(),
        dir: Some(dir.path().to_owned()),
    };
    let again = load(&again, &[], &LoadEnv::default()).unwrap();
    assert_eq!(again.content_hash, loaded.content_hash);
    // Other contents are another scenario, and refused where the digest is given.
    write(
        dir.path(),
        "profile/per_sequence.csv",
        "layer,sequences,time_us\nlm_head,1,501\n",
    );
    let changed = try_load(dir.path(), &text).unwrap();
    assert_ne!(changed.content_hash, loaded.content_hash);
    let report = try_load(dir.path(), &loaded.resolved_toml).unwrap_err();
    let shown = report.render(false);
    assert!(
        shown.contains("its contents have changed") && shown.contains("restore"),
        "{shown}"
    );
}

#[test]
fn degrees_of_parallelism_lie_in_folders_of_their_own() {
    let dir = TempDir::new().unwrap();
    curves(&dir.path().join("tp1"));
    curves(&dir.path().join("tp2"));
    write(dir.path(), "meta.yaml", &META.replace("[1]", "[1, 2]"));
    write(dir.path(), "tp1/skew_fit.csv", SKEW);
    write(
        dir.path(),
        "tp2/per_sequence.csv",
        "layer,sequences,time_us\nlm_head,1,1\n",
    );
    write(dir.path(), "tp2/skew_fit.csv", &SKEW.replace("0.5", "0.75"));
    let read = |gpus| profile::operators(dir.path(), None, gpus);
    let [one, two] = [1, 2].map(|gpus| match &*read(gpus).unwrap().tables {
        OperatorTables::Curves(tables) => tables.clone(),
        OperatorTables::Lookups(_) => panic!("no curves"),
    });
    assert_ne!(one.per_sequence, two.per_sequence);
    assert_ne!(one.skew, two.skew);
    assert!(one.skew.is_some());
    // Beside `meta.yaml` lie the tables of the degrees it names.
    curves(dir.path());
    let error = read(4).unwrap_err();
    assert!(
        error.reason.contains("tensor parallelism 1, 2, not 4"),
        "{error}"
    );
}

#[test]
fn the_skew_fit_counts_only_if_it_is_enabled() {
    let dir = TempDir::new().unwrap();
    curves(dir.path());
    write(dir.path(), "skew_fit.csv", SKEW);
    let skew = || match &*profile::operators(dir.path(), None, 1).unwrap().tables {
        OperatorTables::Curves(tables) => tables.skew.clone(),
        OperatorTables::Lookups(_) => panic!("no curves"),
    };
    assert!(skew().is_none(), "nothing says what its buckets are");
    write(dir.path(), "meta.yaml", META);
    assert!(skew().is_some());
    write(
        dir.path(),
        "meta.yaml",
        &META.replace("enabled: true", "enabled: false"),
    );
    assert!(skew().is_none());
    write(dir.path(), "meta.yaml", META);
    write(
        dir.path(),
        "skew_fit.csv",
        &SKEW.replace("sr>40%", "sr>50%"),
    );
    let error = profile::operators(dir.path(), None, 1).unwrap_err();
    assert!(
        error.line == 2 && error.reason.contains("`sr>50%` is none of"),
        "{error}"
    );
    fs::remove_file(dir.path().join("skew_fit.csv")).unwrap();
    let error = profile::operators(dir.path(), None, 1).unwrap_err();
    assert!(error.file.ends_with("skew_fit.csv"), "{error}");
}

#[test]
fn what_cannot_be_used_is_named_with_its_line() {
    for (file, text, says) in [
        (
            "dense.csv",
            "layer,tokens,time_us\nqkv_proj,2,1\nqkv_proj,1,1\n",
            "dense.csv:3: tokens 1 of layer `qkv_proj` stands after 2",
        ),
        (
            "dense.csv",
            "layer,tokens\nqkv_proj,2\n",
            "dense.csv:1: column `time_us` is absent",
        ),
        (
            "dense.csv",
            "layer,tokens,time_us\nqkv_proj,2,NaN\n",
            "dense.csv:2: column `time_us`: `NaN` is not a number",
        ),
        (
            "dense.csv",
            "layer,tokens,time_us\nqkv_proj,2,-1\n",
            "dense.csv:2: column `time_us`: -1 is no time",
        ),
        (
            "dense.csv",
            "layer,tokens,time_us\nqkv_proj,2\n",
            "dense.csv:2: the row has 2 fields where the header has 3",
        ),
        (
            "dense.csv",
            "layer,tokens,time_us\nqkv_proj,1.5,3\n",
            "dense.csv:2: column `tokens`: `1.5` is not a whole number",
        ),
        (
            "attention.csv",
            "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n0,0,1,16,1\n0,0,1,16,2\n",
            "attention.csv:3: the same point stands in line 2",
        ),
        ("meta.yaml", "a: [1\nb: 2\n", "meta.yaml:2: it is no YAML"),
        (
            "meta.yaml",
            "tp_degrees: [2]\n",
            "it was measured with tensor parallelism 2, not 1",
        ),
    ] {
        let dir = TempDir::new().unwrap();
        curves(&dir.path().join("profile"));
        write(&dir.path().join("profile"), file, text);
        let shown = refused(dir.path());
        assert!(shown.contains(says), "{shown}");
    }
    let dir = TempDir::new().unwrap();
    let shown = refused(dir.path());
    assert!(shown.contains("there is no such folder"), "{shown}");
    fs::create_dir(dir.path().join("profile")).unwrap();
    let shown = refused(dir.path());
    assert!(
        shown.contains("it holds no profile") && shown.contains("attn_prefill.csv"),
        "{shown}"
    );
    curves(&dir.path().join("profile"));
    fs::remove_file(dir.path().join("profile/attention.csv")).unwrap();
    let shown = refused(dir.path());
    assert!(shown.contains("attention.csv: cannot be read"), "{shown}");
}

#[test]
fn a_layer_nobody_knows_is_an_error_until_its_calls_are_told() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("profile");
    curves(&folder);
    let mut dense = fs::read_to_string(folder.join("dense.csv")).unwrap();
    dense += "router,1,5\n";
    write(&folder, "dense.csv", &dense);
    let cost = "kind = \"operators\"\nfolder = \"profile\"";
    let report = try_load(dir.path(), &scenario(cost)).unwrap_err();
    let shown = report.render(false);
    assert!(
        shown.contains("layer `router`") && shown.contains("calls = { router = 1 }"),
        "{shown}"
    );
    let told = scenario(&format!("{cost}\ncalls = {{ router = 1 }}"));
    assert!(try_load(dir.path(), &told).is_ok());
}

fn lookup_tables(dir: &Path) {
    for name in [
        "attn_pre_proj",
        "attn_post_proj",
        "attn_rope",
        "input_layernorm",
        "mlp_up_proj",
        "mlp_down_proj",
        "mlp_act",
        "add",
    ] {
        write(
            dir,
            &format!("{name}.csv"),
            "num_tokens,ms\n1,0.5\n16,0.5\n",
        );
    }
    write(
        dir,
        "attn_prefill.csv",
        "kv_cache_size,prefill_chunk_size_squared,ms\n0,1,1\n0,4,2\n32,1,3\n32,4,4\n",
    );
    write(
        dir,
        "attn_decode.csv",
        "batch_size,kv_cache_size,ms\n1,0,1\n1,32,2\n",
    );
}

#[test]
fn lookup_tables_have_a_row_for_every_key() {
    let dir = TempDir::new().unwrap();
    lookup_tables(dir.path());
    let read = || profile::operators(dir.path(), None, 1);
    let OperatorTables::Lookups(tables) = (*read().unwrap().tables).clone() else {
        panic!("no lookups");
    };
    assert_eq!(tables.prefill.step(), 32);
    assert_eq!(tables.by_tokens.len(), 8);
    for (file, text, says) in [
        (
            "attn_decode.csv",
            "batch_size,kv_cache_size,ms\n1,0,1\n1,32,2\n2,0,1\n",
            "(2, 32) is not there",
        ),
        (
            "attn_prefill.csv",
            "kv_cache_size,prefill_chunk_size_squared,ms\n0,3,1\n",
            "3 is not the square",
        ),
        (
            "mlp_act.csv",
            "num_tokens,ms\n2,0.5\n1,0.5\n",
            "num_tokens 1 stands after a larger one",
        ),
    ] {
        lookup_tables(dir.path());
        write(dir.path(), file, text);
        let error = read().unwrap_err();
        assert!(
            error.file.ends_with(file) && error.to_string().contains(says),
            "{error}"
        );
    }
    lookup_tables(dir.path());
    fs::remove_file(dir.path().join("add.csv")).unwrap();
    assert!(read().unwrap_err().file.ends_with("add.csv"));
}

#[test]
fn raw_profiles_become_tables() {
    let dir = TempDir::new().unwrap();
    let ops = [
        "attn_pre_proj",
        "attn_post_proj",
        "attn_rope",
        "input_layernorm",
        "post_attention_layernorm",
        "mlp_up_proj",
        "mlp_down_proj",
        "mlp_act",
        "add",
    ];
    let medians: Vec<_> = ops
        .iter()
        .map(|op| format!("time_stats.{op}.median"))
        .collect();
    let mut mlp = format!(
        "{},n_head,n_kv_head,n_embd,n_expanded_embd,num_tokens,num_tensor_parallel_workers\n",
        medians.join(",")
    );
    for (tokens, gpus, ms) in [(64, 1, 0.3), (1, 1, 0.1), (1, 1, 0.2), (64, 2, 9.0)] {
        mlp += &format!(
            "{},4,4,64,128,{tokens},{gpus}\n",
            [ms.to_string().as_str(); 9].join(",")
        );
    }
    write(dir.path(), "mlp_test.csv", &mlp);
    write(
        dir.path(),
        "attention_test.csv",
        "time_stats.attn_prefill.median,time_stats.attn_decode.median,batch_size,\
         prefill_chunk_size,kv_cache_size,is_prefill,num_tensor_parallel_workers\n\
         1,0,1,1,0,True,1\n2,0,1,1,128,True,1\n3,0,1,64,0,True,1\n4,0,1,64,128,True,1\n\
         0,5,1,0,0,False,1\n0,7,1,0,128,False,1\n0,9,2,0,0,False,1\n0,11,2,0,128,False,1\n",
    );
    let mut spec = ContinuousSpec {
        cost: CostSpec::Operators(Box::new(windtunnel_engine::config::OperatorsSpec {
            folder: ".".into(),
            ..Default::default()
        })),
        ..ContinuousSpec::default()
    };
    profile::resolve(&mut spec, Some(dir.path())).unwrap();
    let CostSpec::Operators(operators) = &spec.cost else {
        panic!("another cost model");
    };
    let model = windtunnel_engine::cost::operators::Operators::new(
        operators.tables.0.as_ref().unwrap(),
        &windtunnel_engine::cost::operators::Composition {
            layers: 10,
            tensor_parallel: 1,
            grouped_query: false,
            all_reduce: windtunnel_engine::cost::interconnect::AllReduce::default(),
            overhead: 0.0,
            calls: &operators.calls,
        },
    )
    .unwrap();
    // Two decodes with 63 in KV: 64 with the newest token, halfway between 9 and 11; linear
    // operators at 8 tokens, a ninth of the way from the mean of 0.1 and 0.2 to 0.3.
    let shape = BatchShape {
        decode_seqs: 2,
        decode_context: 126,
        ..BatchShape::default()
    };
    let (seconds, outside) = model.seconds(&shape);
    let linear = 9.0 * (0.15 + 0.15 * 7.0 / 63.0);
    assert!((seconds - 10.0 * (linear + 10.0) * 1e-3).abs() < 1e-12 && !outside);
    let error = profile::operators(dir.path(), None, 2).unwrap_err();
    assert!(
        error
            .reason
            .contains("no rows of `attn_prefill` for tensor parallelism 2"),
        "{error}"
    );
}

const COEFFICIENTS: &str = r#"{
 "alpha_us": { "alpha0_arrival_to_queue": 1.5, "alpha1_post_decode_per_request": 2.5, "alpha2_per_output_token": 3.5 },
 "beta": { "b1a_prefill_compute": 0.5, "b2a_decode_compute": 0, "b3_weight": 1, "b4_tp_allreduce": 0,
  "b5_per_layer_us": 10, "b6_per_request_us": 4, "b7_per_step_us": 100.75, "b1b_prefill_kv": 0, "b2b_decode_kv": 2 },
 "hardware": { "A": { "tflops_peak_bf16": 100, "hbm_TBps": 1 }, "B": { "tflops_peak_bf16": 200, "hbm_TBps": 2 } },
 "model": { "layers": 2, "hidden": 64, "heads": 4, "kv_heads": 2, "ffn": 128, "bytes_per_param": 2 }
}"#;

#[test]
fn coefficients_are_written_into_the_resolved_scenario() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "c.json", COEFFICIENTS);
    let cost = |more: &str| {
        scenario(&format!(
            "kind = \"coefficients\"\nfile = \"c.json\"\n{more}"
        ))
    };
    let report = try_load(dir.path(), &cost("")).unwrap_err();
    let shown = report.render(false);
    assert!(
        shown.contains("several entries: A, B") && shown.contains("S027"),
        "{shown}"
    );
    let loaded = try_load(dir.path(), &cost("hardware = \"B\"")).unwrap();
    let CostSpec::Coefficients(fit) = &engine(&loaded).cost else {
        panic!("another cost model");
    };
    assert_eq!(fit.alpha_us, Some([1.5, 2.5, 3.5]));
    assert_eq!((fit.tflops, fit.hbm_tbps), (Some(200.0), Some(2.0)));
    assert_eq!(fit.beta.unwrap().b2b, Some(2.0));
    assert_eq!(fit.architecture.unwrap().ffn, 128);
    assert!(
        loaded.resolved_toml.contains("b7 = 100.75"),
        "{}",
        loaded.resolved_toml
    );
    // Without its files it stands on its own.
    let alone: String = loaded
        .resolved_toml
        .lines()
        .filter(|l| !l.starts_with("file = \"c.json\"") && !l.starts_with("digest"))
        .map(|l| format!("{l}\n"))
        .collect();
    fs::remove_file(dir.path().join("c.json")).unwrap();
    let again = try_load(dir.path(), &alone).unwrap();
    let CostSpec::Coefficients(inline) = &engine(&again).cost else {
        panic!("another cost model");
    };
    assert_eq!(
        (inline.beta, inline.architecture),
        (fit.beta, fit.architecture)
    );
    write(
        dir.path(),
        "c.json",
        &COEFFICIENTS.replace("\"b3_weight\": 1,", ""),
    );
    let shown = try_load(dir.path(), &cost("hardware = \"B\""))
        .unwrap_err()
        .render(false);
    assert!(
        shown.contains("missing field `b3_weight`") && shown.contains("c.json:"),
        "{shown}"
    );
    write(dir.path(), "c.json", COEFFICIENTS);
    let shown = try_load(dir.path(), &cost("hardware = \"C\""))
        .unwrap_err()
        .render(false);
    assert!(
        shown.contains("no entry `C`") && shown.contains("it has A, B"),
        "{shown}"
    );
}

#[test]
fn coefficients_without_peaks_are_refused_by_the_engine() {
    let dir = TempDir::new().unwrap();
    let text = scenario("kind = \"coefficients\"\nbeta = { b7 = 100.0 }");
    let shown = try_load(dir.path(), &text).unwrap_err().render(false);
    assert!(
        shown.contains("cost.tflops") || shown.contains("it is needed and absent"),
        "{shown}"
    );
}
