//! Models by name or folder. The pocket models are part of the program.

use crate::config::ModelConfig;
use crate::devices::fits;
use crate::error::ReferenceError;
use crate::train::pocket::{Card, digest};
use crate::weights::Weights;
use std::path::Path;

/// A trained model that is part of the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pocket {
    /// The one that answers.
    Frontier,
    /// The one that is distilled from it.
    Light,
}

impl Pocket {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Frontier, Self::Light];

    /// Its name where models are asked for.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Frontier => "pocket_frontier",
            Self::Light => "pocket_light",
        }
    }

    /// Its folder among trained models.
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Frontier => "frontier",
            Self::Light => "light",
        }
    }

    /// Its sizes.
    pub fn config(self) -> ModelConfig {
        match self {
            Self::Frontier => ModelConfig::pocket_frontier(),
            Self::Light => ModelConfig::pocket_light(),
        }
    }

    /// Its three files: weights, sizes, card.
    const fn files(self) -> (&'static [u8], &'static str, &'static str) {
        match self {
            Self::Frontier => (
                include_bytes!("../models/frontier/model.safetensors"),
                include_str!("../models/frontier/config.json"),
                include_str!("../models/frontier/card.json"),
            ),
            Self::Light => (
                include_bytes!("../models/light/model.safetensors"),
                include_str!("../models/light/config.json"),
                include_str!("../models/light/card.json"),
            ),
        }
    }

    /// Bytes of its weights.
    pub const fn bytes(self) -> usize {
        self.files().0.len()
    }

    /// What is said of it.
    ///
    /// # Errors
    /// If the card that was built in is none.
    pub fn card(self) -> Result<Card, ReferenceError> {
        parse(self.files().2, Path::new("card.json"))
    }
}

/// A model with its weights.
#[derive(Clone, Debug)]
pub struct Model {
    /// What it was asked for as.
    pub name: String,
    /// Sizes.
    pub config: ModelConfig,
    /// Weights.
    pub weights: Weights,
    /// Digest of its weights: of the file, or of name, sizes and seed if they are random.
    pub digest: String,
}

fn parse<T: serde::de::DeserializeOwned>(text: &str, path: &Path) -> Result<T, ReferenceError> {
    serde_json::from_str(text).map_err(|e| ReferenceError::Malformed {
        path: path.to_owned(),
        reason: e.to_string(),
        remedy: "take the config.json that was published with the weights".into(),
    })
}

/// A model by name (`pocket_frontier`, `pocket_light`), or from a folder with `config.json` and
/// safetensors.
///
/// # Errors
/// If there is no such model, or its files are not what they should be.
pub fn load(name: &str) -> Result<Model, ReferenceError> {
    if let Some(pocket) = Pocket::ALL.into_iter().find(|p| p.name() == name) {
        let (bytes, config, _) = pocket.files();
        let config: ModelConfig = parse(config, Path::new("config.json"))?;
        let weights = Weights::from_bytes(bytes, Path::new(name), &config)?;
        return Ok(Model {
            name: name.to_owned(),
            config,
            weights,
            digest: digest(bytes),
        });
    }
    let folder = Path::new(name);
    if !folder.is_dir() {
        return Err(ReferenceError::Config {
            field: "model".into(),
            reason: format!("there is neither a model nor a folder `{name}`"),
            remedy: "name pocket_frontier, pocket_light, or a folder with config.json and \
                     model.safetensors"
                .into(),
        });
    }
    let config = ModelConfig::read(folder)?;
    // The sizes alone may be too large, whatever the files are.
    fits("the model", config.host_bytes())?;
    let weights = Weights::load(folder, &config)?;
    let digest = weights.digest()?;
    Ok(Model {
        name: name.to_owned(),
        config,
        weights,
        digest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::pocket::HELD_OUT_PER_CLASS;
    use crate::train::score::{on_cpu, score};

    /// Held-out tasks per class that a test has time for.
    const SAMPLE: usize = 12;

    #[test]
    fn the_models_that_are_built_in_are_those_of_their_cards() {
        let mut bytes = 0;
        for pocket in Pocket::ALL {
            let model = load(pocket.name()).unwrap();
            let card = pocket.card().unwrap();
            assert_eq!(model.config, pocket.config());
            assert_eq!(model.digest, card.weights);
            assert_eq!(card.model, pocket.name());
            assert_eq!(card.parameters, model.config.parameters());
            assert_eq!(card.held_out.tasks_per_class, HELD_OUT_PER_CLASS);
            bytes += pocket.bytes();
            if let Some(night) = card.night {
                let teacher = load(Pocket::Frontier.name()).unwrap();
                assert_eq!(night.teacher, teacher.weights.digest().unwrap());
            }
        }
        assert!(bytes <= 16 << 20, "{bytes} bytes of weights");
    }

    /// The first of the tasks that cards report on are tried again. The share of a sample of `n` has
    /// deviation `sqrt(p (1 - p) / n)`; four of them, and room for one answer, catch weights that
    /// are not those of the card.
    #[test]
    fn a_sample_of_held_out_tasks_comes_out_as_cards_say() {
        for pocket in Pocket::ALL {
            let model = load(pocket.name()).unwrap();
            let card = pocket.card().unwrap();
            let mut backend = on_cpu(&model.config, &model.weights).unwrap();
            let sample = score(&mut backend, SAMPLE, card.held_out_seed).unwrap();
            let tried = (SAMPLE * sample.right.len()) as f64;
            let says = card.held_out.exact_match;
            let slack = 4.0 * (says * (1.0 - says) / tried).sqrt() + 1.0 / tried;
            let found = sample.exact_match;
            assert!(
                (found - says).abs() <= slack,
                "{found} against {says}: {sample:?}"
            );
        }
    }

    #[test]
    fn what_is_no_model_is_said_to_be_none() {
        let error = load("pocket_fontier").unwrap_err().to_string();
        assert!(error.contains("pocket_frontier, pocket_light"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().to_string_lossy().into_owned();
        let error = load(&name).unwrap_err().to_string();
        assert!(error.contains("config.json"), "{error}");
        let huge = ModelConfig {
            hidden_size: 1 << 20,
            intermediate_size: 1 << 22,
            num_hidden_layers: 1_000,
            ..ModelConfig::pocket_light()
        };
        let text = serde_json::to_string(&huge).unwrap();
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        let error = load(&name).unwrap_err();
        let memory = matches!(error, ReferenceError::Memory { .. });
        // Where the system does not say how much is free, the missing file is what is said.
        assert!(
            memory || crate::machine::machine().free_memory.is_none(),
            "{error}"
        );
        for (field, value) in [
            ("num_key_value_heads", 3),
            ("head_dim", 7),
            ("hidden_size", 0),
        ] {
            let mut json = serde_json::to_value(ModelConfig::pocket_light()).unwrap();
            json[field] = value.into();
            std::fs::write(folder.path().join("config.json"), json.to_string()).unwrap();
            let error = load(&name).unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}`")), "{error}");
        }
    }
}
