use super::*;

#[test]
fn gpus_are_known_by_what_others_call_them() {
    assert_eq!(known_gpu("NVIDIA GeForce RTX 4090"), Some("rtx-4090"));
    assert_eq!(known_gpu("RTXPRO6000"), Some("rtx-pro-6000"));
    assert_eq!(known_gpu("NVIDIA H100-SXM"), Some("h100-sxm"));
    assert_eq!(known_gpu("TPU v5"), None);
}

#[test]
fn versions_say_whether_steps_are_planned_ahead() {
    assert_eq!(plans_ahead("0.19.0"), Some(true));
    assert_eq!(plans_ahead("v0.11.2.dev1"), Some(false));
    assert_eq!(
        (plans_ahead("main"), plans_ahead("1.0")),
        (None, Some(true))
    );
}

/// An engine that told its memory and not its blocks, by hand.
#[test]
fn blocks_follow_from_memory() {
    let dir = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    };
    let config = serde_json::json!({
        "num_hidden_layers": 10, "hidden_size": 1000, "num_attention_heads": 10,
        "num_key_value_heads": 5, "head_dim": 100, "intermediate_size": 2000,
        "vocab_size": 50_000, "max_position_embeddings": 4096, "torch_dtype": "bfloat16"
    });
    write("model_config_x.json", config.to_string());
    let meta = serde_json::json!({
        "engine_kwargs": { "max_num_seqs": 100, "max_num_batched_tokens": 1000 },
        "hardware": { "device_total_memory_bytes": 10_000_000_000_u64 }
    });
    write("vllm/meta.json", meta.to_string());
    let settings = Settings::read(dir.path())
        .expect("files")
        .expect("settings");
    // Weights: 10 x (1000*100*2*15 + 3*1000*2000) numbers and 2 x 50,000,000, two bytes each.
    let weights = 10.0 * (3_000_000.0 + 6_000_000.0) * 2.0 + 200_000_000.0;
    // Sampling (20 x 100 x 50,000) is larger than a step (2 x 1000 x 10,000).
    let reserve = 100_000_000.0 + 536_870_912.0;
    // 10 layers x 5 heads x 100 numbers, keys and values, two bytes, 16 tokens.
    let blocks = (9e9 - reserve - weights) / (10.0 * 500.0 * 2.0 * 2.0 * 16.0);
    assert_eq!(settings.blocks, blocks as u64);
    assert!(settings.notes(1)[0].contains("did not tell its KV size"));
    // Nothing of memory at all.
    write("vllm/meta.json", "{}".into());
    let settings = Settings::read(dir.path())
        .expect("files")
        .expect("settings");
    // 256 requests of 4,096 tokens.
    assert_eq!(settings.blocks, 256 * 256);
    assert!(settings.notes(1)[0].contains("num_gpu_blocks"));
}

#[test]
fn links_are_those_of_the_cluster_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(link(dir.path()).unwrap(), None);
    std::fs::create_dir(dir.path().join("sim")).unwrap();
    let file = dir.path().join("sim/cluster_config.json");
    std::fs::write(&file, r#"{ "link_bw": 16, "link_latency": 20000 }"#).unwrap();
    assert_eq!(link(dir.path()).unwrap(), Some((17.179_869_184, 20_000.0)));
    std::fs::write(&file, r#"{ "link_bw": 0, "link_latency": 20000 }"#).unwrap();
    assert_eq!(link(dir.path()).unwrap(), None);
}
