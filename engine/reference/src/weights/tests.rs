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
