//! The engine that computes: info, bench, train and calibrate, with good input and with bad.

use crate::place::{Done, Place};
use serde_json::Value;
use windtunnel_reference::devices::DeviceKind;

/// A model small enough to write down here.
const TINY: &str = r#"{"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
"num_key_value_heads": 1, "head_dim": 8, "vocab_size": 258, "max_position_embeddings": 32, "rope_theta": 10000.0,
"rms_norm_eps": 1e-5, "tie_word_embeddings": true}"#;

/// Its tensors: name, shape, and the type they should have.
const TENSORS: [(&str, &[usize]); 11] = [
    ("model.embed_tokens.weight", &[258, 8]),
    ("model.layers.0.input_layernorm.weight", &[8]),
    ("model.layers.0.self_attn.q_proj.weight", &[8, 8]),
    ("model.layers.0.self_attn.k_proj.weight", &[8, 8]),
    ("model.layers.0.self_attn.v_proj.weight", &[8, 8]),
    ("model.layers.0.self_attn.o_proj.weight", &[8, 8]),
    ("model.layers.0.post_attention_layernorm.weight", &[8]),
    ("model.layers.0.mlp.gate_proj.weight", &[8, 8]),
    ("model.layers.0.mlp.up_proj.weight", &[8, 8]),
    ("model.layers.0.mlp.down_proj.weight", &[8, 8]),
    ("model.norm.weight", &[8]),
];

/// A safetensors file; `change` may alter a tensor's type and shape, or leave it out.
fn safetensors(change: impl Fn(&str) -> Option<(&'static str, Vec<usize>)>) -> Vec<u8> {
    let (mut header, mut at) = (serde_json::Map::new(), 0);
    for (name, shape) in TENSORS {
        let (dtype, shape) = change(name).unwrap_or(("F16", shape.to_vec()));
        if dtype.is_empty() {
            continue;
        }
        let width = if dtype == "F16" { 2 } else { 4 };
        let bytes = width * shape.iter().product::<usize>();
        let entry =
            serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [at, at + bytes]});
        header.insert(name.to_owned(), entry);
        at += bytes;
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    // 0x2c2c is a small number in any of the types.
    file.extend(vec![0x2c; at]);
    file
}

/// The same model, for sequences as long as tasks and their answers are.
fn long() -> String {
    let (from, to) = (
        "\"max_position_embeddings\": 32",
        "\"max_position_embeddings\": 512",
    );
    assert!(TINY.contains(from));
    TINY.replace(from, to)
}

fn model(place: &Place, config: &str, weights: &[u8]) {
    place.write("m/config.json", config);
    std::fs::write(place.path("m/model.safetensors"), weights).expect("a writable folder");
}

fn refused(place: &Place, args: &str) -> Done {
    let before = place.files();
    let done = place.run(args).code(2);
    assert_eq!(done.out, "", "{done}");
    assert_eq!(place.files(), before);
    done
}

const CALIBRATE: &str = "calibrate --model m --out t.json --device cpu --budget 1ms --max-num-seqs 2 --max-num-batched-tokens 16";

#[test]
fn info_names_devices_and_models_with_what_they_can_do() {
    let place = Place::new();
    let done = place.run("engine info --format json").code(0);
    let info: Value = serde_json::from_str(&done.out).unwrap();
    let devices = info["devices"].as_array().unwrap();
    let first = devices.iter().find(|d| d["usable"] == true).unwrap();
    assert_eq!(info["used"], first["kind"], "{done}");
    let cpu = devices.iter().find(|d| d["kind"] == "cpu").unwrap();
    assert!(cpu["what"].as_str().unwrap().contains("cores"), "{done}");
    for (i, name) in ["pocket_frontier", "pocket_light"].iter().enumerate() {
        assert_eq!(info["models"][i]["name"], *name);
        assert!(info["models"][i]["card"]["held_out"]["exact_match"].is_number());
    }
    let text = place.run("engine info").code(0).out;
    assert!(
        text.contains("pocket_light") && text.contains("held-out"),
        "{text}"
    );
}

#[test]
fn a_calibration_is_a_cost_table_that_a_scenario_runs_on() {
    let place = Place::new();
    model(&place, TINY, &safetensors(|_| None));
    let done = place.run(CALIBRATE).code(0);
    assert!(done.out.contains("held out"), "{done}");
    let table: Value = serde_json::from_str(&place.read("t.json")).unwrap();
    assert_eq!(table["format"], 1);
    assert_eq!(table["ranges"]["decode_seqs"], serde_json::json!([1, 2]));
    assert!(table["held_out"]["mixed"]["steps"].as_u64() > Some(0));
    assert_eq!(table["provenance"]["model"], "m");
    let scenario = "version = 1\nname = \"x\"\n[fleet.engine]\nkind = \"continuous\"\n\
                    [fleet.engine.cost]\nkind = \"table\"\nfile = \"t.json\"\n\
                    [traffic]\nrequest_rate = \"5 req/s\"\nnum_prompts = 20\n\
                    input = { kind = \"fixed\", tokens = 10 }\noutput = { kind = \"fixed\", tokens = 10 }\n";
    place.write("s.toml", scenario);
    place.run("run s.toml --no-progress").code(0);
    // Another file in its place is noticed where the digest is known.
    let shown = place.run("scenario show s.toml").code(0).out;
    place.write("resolved.toml", &shown);
    place.write(
        "t.json",
        place
            .read("t.json")
            .replace("\"load_ms\": ", "\"load_ms\": 1"),
    );
    let done = place.run("scenario check resolved.toml").code(2);
    assert!(done.err.contains("t.json"), "{done}");
    // A damaged one is named, with its line.
    place.write("t.json", "{\n\"format\": 1,\n\"decode\": 3 }");
    let done = place.run("scenario check s.toml").code(2);
    assert!(
        done.err.contains("t.json") && done.err.contains("calibrate"),
        "{done}"
    );
}

#[test]
fn layers_are_measured_beside_the_steps_and_a_simulated_cascade_reads_them() {
    let place = Place::new();
    model(&place, &long(), &safetensors(|_| None));
    place.run(CALIBRATE).code(0);
    let without: Value = serde_json::from_str(&place.read("t.json")).unwrap();
    assert!(without.get("layers").is_none(), "{without}");
    let scenario = "version = 1\nname = \"x\"\nextends = \"library:serr-agentic\"\n\
                    [fleet.engine.cascade]\nfile = \"t.json\"\n";
    place.write("s.toml", scenario);
    let done = place.run("scenario check s.toml").code(2);
    assert!(done.err.contains("no layers were measured"), "{done}");
    let done = place.run(&format!("{CALIBRATE} --light m")).code(0);
    assert!(done.out.contains("times less"), "{done}");
    let table: Value = serde_json::from_str(&place.read("t.json")).unwrap();
    let layers = &table["layers"];
    let cells = layers["cells"].as_array().expect("cells");
    let names: Vec<_> = cells.iter().filter_map(|c| c["layers"].as_str()).collect();
    let alone = ["none", "l0", "l1", "l2", "l3", "l4", "l5"];
    assert!(names.starts_with(&alone) && names.len() == 9, "{names:?}");
    for cell in cells {
        for key in ["ms", "times_less", "launches", "bytes", "agreement"] {
            assert!(cell[key].as_f64() > Some(0.0), "{key}: {cell}");
        }
    }
    let shown = place.run("scenario show s.toml --origins").code(0);
    let launch = layers["device"]["launch"].as_str().expect("a time");
    assert!(shown.out.contains(launch), "{launch}: {shown}");
    place
        .run("run s.toml --set traffic.duration=5min --no-progress")
        .code(0);
    // Where the scenario says the same as the file, it is refused, as is another file in its place.
    let both = format!("{scenario}skip = {{ tpr = 0.5, fpr = 0.1, cost = \"1ms\" }}\n");
    place.write("both.toml", both);
    let done = place.run("scenario check both.toml").code(2);
    assert!(done.err.contains("leave them out of one"), "{done}");
    let resolved = place.run("scenario show s.toml").code(0).out;
    place.write("resolved.toml", resolved);
    place.run("scenario check resolved.toml").code(0);
    place.write(
        "t.json",
        place
            .read("t.json")
            .replace("\"light\": \"m\"", "\"light\": \"n\""),
    );
    let done = place.run("scenario check resolved.toml").code(2);
    assert!(done.err.contains("its contents have changed"), "{done}");
}

/// Weights that all have a value, and a gate whose product with the other half has none.
fn overflowing() -> Vec<u8> {
    let own = |name: &str| TENSORS.into_iter().find(|(n, _)| *n == name);
    let mut weights = safetensors(|name| own(name).map(|(_, shape)| ("F32", shape.to_vec())));
    // Gate, up and down projection and the final norm come last. 0x7e7e7e7e is 8e37.
    let numbers = weights.len() - 4 * (3 * 64 + 8);
    weights[numbers..].fill(0x7e);
    weights
}

#[test]
fn what_computes_no_numbers_ends_with_an_error_and_leaves_nothing_behind() {
    let place = Place::new();
    model(&place, &long(), &overflowing());
    let before = place.files();
    let run = "reference-smoke --set engine.reference.model=m --set engine.reference.device=cpu --no-progress";
    for (command, words) in [
        (
            format!("run {run}"),
            &["not numbers", "position", "nothing was written"][..],
        ),
        (
            format!("live {run}"),
            &["not numbers", "position", "nothing was written"],
        ),
        (
            format!("run {run} --set engine.cascade.layers.l2=true --set engine.cascade.light=m"),
            &["not numbers", "position", "nothing was written"],
        ),
        (
            "engine ask hello --device cpu --model m --max-tokens 4".into(),
            &["not numbers"],
        ),
        (CALIBRATE.into(), &["not numbers"]),
        (format!("{CALIBRATE} --light m"), &["not numbers"]),
        (
            "engine cascade --device cpu --frontier m --light m --out c.toml".into(),
            &["not numbers"],
        ),
    ] {
        let done = place.run(&command).code(1);
        assert_eq!(done.out, "", "{done}");
        for word in words {
            assert!(done.err.contains(word), "{word}: {done}");
        }
        assert_eq!(place.files(), before, "{command}");
    }
}

#[test]
fn runs_refuse_the_models_that_calibrations_refuse() {
    let place = Place::new();
    let good = safetensors(|_| None);
    let norm = "model.norm.weight";
    let wrong = |dtype: &'static str, shape: &[usize]| {
        let shape = shape.to_vec();
        safetensors(move |n| (n == norm).then(|| (dtype, shape.clone())))
    };
    let sizes = |from: &str, to: &str| long().replacen(from, to, 1);
    let head = sizes("\"head_dim\": 8", "\"head_dim\": 7");
    let huge = sizes(
        "\"intermediate_size\": 8",
        "\"intermediate_size\": 16000000",
    )
    .replace("\"hidden_size\": 8", "\"hidden_size\": 1000000");
    let run =
        "run reference-smoke --set engine.reference.model=m --set engine.reference.device=cpu";
    for (config, weights, words) in [
        (
            long(),
            wrong("", &[]),
            &[norm, "config.json of the same model"][..],
        ),
        (long(), wrong("F16", &[9]), &[norm, "[9]", "[8]"]),
        (long(), wrong("I32", &[8]), &[norm, "I32"]),
        (
            long(),
            good[..good.len() / 2].to_vec(),
            &["model.safetensors", "truncated"],
        ),
        (head, good.clone(), &["`head_dim`"]),
        (huge, good.clone(), &["the model m", "free"]),
        ("{".into(), good.clone(), &["config.json"]),
    ] {
        model(&place, &config, &weights);
        for verb in [run.to_owned(), run.replacen("run", "live", 1)] {
            let done = refused(&place, &verb);
            for word in words {
                assert!(done.err.contains(word), "{word}: {done}");
            }
            assert!(done.err.contains("nothing was run"), "{done}");
        }
    }
    // A shard that the index names is not there.
    place.write("m/config.json", long());
    std::fs::remove_file(place.path("m/model.safetensors")).unwrap();
    place.write(
        "m/model.safetensors.index.json",
        "{\"weight_map\": {\"model.norm.weight\": \"part-2.safetensors\"}}",
    );
    assert!(refused(&place, run).err.contains("part-2.safetensors"));
    model(&place, &long(), &good);
    let blocks = format!("{run} --set engine.kv.blocks=4000000000");
    let done = refused(&place, &blocks);
    assert!(
        done.err.contains("kv.blocks") && done.err.contains("free"),
        "{done}"
    );
    // Without a GPU, asking for one is the request's fault.
    let gpu = place.run(&format!("{run} --set engine.reference.device=cuda"));
    assert!(
        gpu.code == 0 || (gpu.code == 2 && gpu.err.contains("cuda")),
        "{gpu}"
    );
}

#[test]
fn weights_that_are_not_the_model_s_are_refused_by_name() {
    let place = Place::new();
    let good = safetensors(|_| None);
    let norm = "model.norm.weight";
    let wrong = |name: &'static str, dtype: &'static str, shape: &[usize]| {
        let shape = shape.to_vec();
        safetensors(move |n| (n == name).then(|| (dtype, shape.clone())))
    };
    let mut without_value = good.clone();
    let numbers = without_value.len() - 8 * 2; // those of the last tensor, the final norm
    without_value[numbers..].fill(0xff);
    let biased = &TINY.replacen('{', "{\"attention_bias\": true, ", 1);
    let cases: [(&str, Vec<u8>, &[&str]); 8] = [
        (
            TINY,
            wrong(norm, "", &[]),
            &[norm, "config.json of the same model"],
        ),
        (TINY, wrong(norm, "F16", &[9]), &[norm, "[9]", "[8]"]),
        (TINY, wrong(norm, "I32", &[8]), &[norm, "I32", "F16"]),
        (
            TINY,
            good[..good.len() / 2].to_vec(),
            &["model.safetensors", "truncated"],
        ),
        (TINY, Vec::new(), &["model.safetensors", "truncated"]),
        (TINY, without_value, &[norm, "number 0 ", "not a number"]),
        (biased, good.clone(), &["`attention_bias`"]),
        (
            "{\"hidden_size\": 8}",
            good.clone(),
            &["config.json", "intermediate_size"],
        ),
    ];
    for (config, weights, words) in cases {
        model(&place, config, &weights);
        let done = refused(&place, CALIBRATE);
        for word in words {
            assert!(done.err.contains(word), "{word}: {done}");
        }
    }
    place.write("m/config.json", TINY);
    std::fs::remove_file(place.path("m/model.safetensors")).unwrap();
    let done = refused(&place, CALIBRATE);
    assert!(done.err.contains("model.safetensors"), "{done}");
}

#[test]
fn sizes_that_are_none_or_do_not_fit_are_refused() {
    let place = Place::new();
    let good = safetensors(|_| None);
    let config = |from: &str, to: &str| {
        assert!(TINY.contains(from), "{from}");
        TINY.replace(from, to)
    };
    for (config, words) in [
        (config("\"head_dim\": 8", "\"head_dim\": 7"), "`head_dim`"),
        (
            config("\"num_hidden_layers\": 1", "\"num_hidden_layers\": 0"),
            "`num_hidden_layers`",
        ),
        (
            config(
                "\"intermediate_size\": 8",
                "\"intermediate_size\": 16000000",
            )
            .replace("\"hidden_size\": 8", "\"hidden_size\": 1000000"),
            "free",
        ),
    ] {
        model(&place, &config, &good);
        let done = refused(&place, CALIBRATE);
        assert!(done.err.contains(words), "{words}: {done}");
    }
    // More weights than can be counted.
    let mut endless: Value = serde_json::from_str(TINY).unwrap();
    let sizes = endless.as_object_mut().unwrap().values_mut();
    sizes
        .filter(|v| v.is_u64())
        .for_each(|v| *v = (1 << 24).into());
    model(&place, &endless.to_string(), &good);
    let run = "run reference-smoke --set engine.reference.model=m";
    for args in [CALIBRATE, run, "engine ask hello --model m --device cpu"] {
        let done = refused(&place, args);
        assert!(done.err.contains("free"), "{done}");
    }
    model(&place, TINY, &good);
    for (args, words) in [
        ("calibrate --model nobody --out t.json", "pocket_frontier"),
        (
            "calibrate --model m --out t.json --device gpu",
            "auto, cpu, cuda",
        ),
        (
            "calibrate --model m --out t.json --budget soon",
            "--budget soon",
        ),
        ("calibrate --model m --out none/t.json", "--out none/t.json"),
        (
            "calibrate --model m --out t.json --device cpu --max-num-seqs 0",
            "max_seqs",
        ),
        ("engine cascade --out none/c.toml", "--out none/c.toml"),
        ("engine bench --model nobody", "pocket_frontier"),
        ("engine bench --format csv", "json"),
    ] {
        let done = refused(&place, args);
        assert!(done.err.contains(words), "{words}: {done}");
    }
}

#[test]
fn training_is_taken_up_only_where_it_was_the_same() {
    let place = Place::new();
    // Before the frontier is asked thousands of tasks, for the light model.
    for model in ["frontier", "light"] {
        let file = format!("models/{model}/checkpoint.safetensors");
        place.write(&file, "half a fi");
        let train = format!("engine train --model {model} --steps 1 --no-progress");
        let done = refused(&place, &train);
        assert!(done.err.contains(&file), "{done}");
        assert!(done.err.contains("remove it"), "{done}");
    }
}

#[test]
fn a_bench_is_kept_as_a_file_with_where_it_comes_from() {
    let place = Place::new();
    let bench = "engine bench --model pocket_light --device cpu --out figures.json --no-progress";
    let done = place.run(bench).code(0);
    assert!(
        done.out.contains("achieved") && done.err.contains("figures.json"),
        "{done}"
    );
    let figures = place.json("figures.json");
    for key in [
        "version", "date", "machine", "device", "model", "ceiling", "steps",
    ] {
        assert!(!figures[key].is_null(), "{key}: {figures}");
    }
    assert!(figures["sharing"].is_array());
    assert!(figures["machine"]["cpu"].is_string());
    assert_eq!(
        figures["date"].as_str().map(str::len),
        Some("2026-11-21".len())
    );
    // Sizes without weights are for a GPU.
    let before = place.files();
    let done = place
        .run("engine bench --model 8b --device cpu --out b.json")
        .code(2);
    assert!(done.err.contains("--device cuda"), "{done}");
    let done = place
        .run("engine bench --model 8b --out nowhere/b.json")
        .code(2);
    assert!(done.err.contains("nothing was measured"), "{done}");
    if windtunnel_reference::devices::find()
        .iter()
        .all(|d| d.kind != DeviceKind::Cuda || !d.usable)
    {
        let done = place.run("engine bench --model 8b --out b.json").code(2);
        assert!(done.err.contains("is not there"), "{done}");
    }
    assert_eq!(place.files(), before);
}
