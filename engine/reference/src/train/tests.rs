use super::pocket::{Plan, Report, train};
use super::run::Settings;
use crate::config::ModelConfig;
use crate::error::ReferenceError;
use std::ops::ControlFlow;

const TINY: Settings = Settings {
    steps: 12,
    batch: 6,
    shard: 2,
    rate: 5e-3,
    warm_up: 4,
    prompt_weight: 0.0,
    seed: 3,
};

fn tiny() -> ModelConfig {
    ModelConfig {
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 8,
        ..ModelConfig::pocket_light()
    }
}

fn run(
    folder: &std::path::Path,
    settings: &Settings,
    stop_after: usize,
) -> Result<(bool, Vec<f64>), ReferenceError> {
    let mut losses = Vec::new();
    let plan = Plan {
        name: "tiny",
        config: tiny(),
        settings: *settings,
        teacher: None,
        held_out_per_class: 2,
    };
    let card = train(&plan, folder, &mut |report| {
        if let Report::Step(loss) = report {
            losses.push(loss);
        }
        if losses.len() >= stop_after {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    Ok((card.is_some(), losses))
}

#[test]
fn a_training_that_was_interrupted_ends_as_one_that_was_not() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (done, losses) = run(whole.path(), &TINY, usize::MAX).unwrap();
    assert!(done && losses.len() == TINY.steps);
    assert!(losses[TINY.steps - 1] < losses[0], "it learns: {losses:?}");

    let (done, first) = run(parts.path(), &TINY, 5).unwrap();
    assert!(!done && first == losses[..5]);
    let mut names: Vec<_> = std::fs::read_dir(parts.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["checkpoint.safetensors"]);
    let (done, rest) = run(parts.path(), &TINY, usize::MAX).unwrap();
    assert!(done && rest == losses[5..]);
    for file in ["model.safetensors", "config.json"] {
        let read = |folder: &tempfile::TempDir| std::fs::read(folder.path().join(file)).unwrap();
        assert!(read(&whole) == read(&parts), "{file}");
    }
    assert!(!parts.path().join("checkpoint.safetensors").exists());
}

#[test]
fn a_checkpoint_of_another_training_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &TINY, 2).unwrap();
    let other = Settings { seed: 4, ..TINY };
    let error = run(folder.path(), &other, 2).unwrap_err().to_string();
    assert!(error.contains("checkpoint.safetensors"), "{error}");
    assert!(error.contains("other settings"), "{error}");
    // Half a file, or something else, is refused too and named.
    let file = folder.path().join("checkpoint.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    for damaged in [&bytes[..bytes.len() / 2], b"{}", b""] {
        std::fs::write(&file, damaged).unwrap();
        let error = run(folder.path(), &TINY, 2).unwrap_err().to_string();
        assert!(error.contains("checkpoint.safetensors"), "{error}");
    }
}
