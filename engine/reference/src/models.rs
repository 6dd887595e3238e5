//! Models by folder.

use crate::config::ModelConfig;
use crate::error::ReferenceError;
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

/// A model from a folder with `config.json` and
/// safetensors.
///
/// # Errors
/// If there is no such model, or its files are not what they should be.
pub fn load(name: &str) -> Result<Model, ReferenceError> {
    let folder = Path::new(name);
    if !folder.is_dir() {
        return Err(ReferenceError::Config {
            field: "model".into(),
            reason: format!("there is no folder `{name}`"),
            remedy: "name a folder with config.json and model.safetensors".into(),
        });
    }
    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(|error| ReferenceError::File {
        path: path.clone(),
        error,
    })?;
    let config: ModelConfig = parse(&text, &path)?;
    config.check()?;
    let weights = Weights::load(folder, &config)?;
    let digest = weights.digest()?;
    Ok(Model {
        name: name.to_owned(),
        config,
        weights,
        digest,
    })
}
