use super::*;

fn folder() -> PathBuf {
    let name = format!(
        "windtunnel-weights-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    );
    let folder = std::env::temp_dir().join(name.replace(['(', ')'], ""));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn weights_survive_a_file_and_shards() {
    let config = ModelConfig::pocket_light();
    let weights = Weights::random(&config, 1).unwrap();
    let folder = folder();
    weights.save(&folder.join("model.safetensors")).unwrap();
    let back = Weights::load(&folder, &config).unwrap();
    for (name, tensor) in weights.tensors() {
        let (a, b) = (
            tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            back.get(name)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap(),
        );
        assert_eq!(a, b, "{name}");
    }
    // The same in two shards with an index, half of it in bf16.
    std::fs::remove_file(folder.join("model.safetensors")).unwrap();
    let mut map = BTreeMap::new();
    let mut parts = [
        std::collections::HashMap::new(),
        std::collections::HashMap::new(),
    ];
    for (i, (name, tensor)) in weights.tensors().enumerate() {
        let part = i % 2;
        let tensor = if part == 0 {
            tensor.clone()
        } else {
            tensor.to_dtype(DType::BF16).unwrap()
        };
        parts[part].insert(name.to_owned(), tensor);
        map.insert(name.to_owned(), format!("part-{part}.safetensors"));
    }
    for (i, part) in parts.iter().enumerate() {
        candle_core::safetensors::save(part, folder.join(format!("part-{i}.safetensors"))).unwrap();
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    std::fs::write(
        folder.join("model.safetensors.index.json"),
        index.to_string(),
    )
    .unwrap();
    assert!(Weights::load(&folder, &config).is_ok());
    std::fs::remove_file(folder.join("part-1.safetensors")).unwrap();
    let error = Weights::load(&folder, &config).unwrap_err().to_string();
    assert!(error.contains("part-1.safetensors"), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_does_not_fit_is_named() {
    let config = ModelConfig::pocket_light();
    let folder = folder();
    let file = folder.join("model.safetensors");
    let error = |config: &ModelConfig| Weights::load(&folder, config).unwrap_err().to_string();
    assert!(error(&config).contains("model.safetensors"));
    Weights::random(&config, 1).unwrap().save(&file).unwrap();
    let wider = ModelConfig {
        intermediate_size: 300,
        ..config.clone()
    };
    let text = error(&wider);
    // The first of the names in their order, whatever the order in the file.
    assert!(
        text.contains("model.layers.0.mlp.down_proj.weight") && text.contains("[128, 256]"),
        "{text}"
    );
    let deeper = ModelConfig {
        num_hidden_layers: 3,
        ..config.clone()
    };
    assert!(error(&deeper).contains("model.layers.2."));
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    assert!(error(&config).contains("truncated"));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn numbers_without_a_value_and_unknown_tensors_are_named() {
    let config = ModelConfig::pocket_light();
    let weights = Weights::random(&config, 1).unwrap();
    let path = Path::new("model.safetensors");
    let with = |name: &str, tensor: Tensor| {
        let mut all: std::collections::HashMap<String, Tensor> = weights
            .tensors()
            .map(|(n, t)| (n.to_owned(), t.clone()))
            .collect();
        all.insert(name.to_owned(), tensor);
        let bytes = safetensors::serialize(&all, None).unwrap();
        Weights::from_bytes(&bytes, path, &config).map_err(|e| e.to_string())
    };
    let norm = "model.layers.1.post_attention_layernorm.weight";
    for (bad, dtype) in [
        (f32::NAN, DType::F32),
        (f32::INFINITY, DType::BF16),
        (f32::NEG_INFINITY, DType::F16),
    ] {
        let mut numbers = vec![1.0_f32; config.hidden_size];
        numbers[17] = bad;
        let tensor = Tensor::new(numbers, &Device::Cpu).unwrap();
        let error = with(norm, tensor.to_dtype(dtype).unwrap()).unwrap_err();
        assert!(
            error.contains(norm) && error.contains("number 17 "),
            "{error}"
        );
    }
    let one = Tensor::new(vec![1.0_f32], &Device::Cpu).unwrap();
    let bias = "model.layers.0.self_attn.q_proj.bias";
    let error = with(bias, one.clone()).unwrap_err();
    assert!(error.contains(bias), "{error}");
    // The largest numbers there are have a value, and what says nothing may be there.
    let large = Tensor::new(vec![f32::MAX; config.hidden_size], &Device::Cpu).unwrap();
    assert!(with(norm, large).is_ok());
    assert!(with("model.layers.0.self_attn.rotary_emb.inv_freq", one.clone()).is_ok());
    assert!(with("lm_head.weight", one).is_ok());
}
