//! Engines that are known by name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Engines that are known by name. What each stands for is a file of the scenario library.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EnginePreset {
    /// vLLM with its V1 scheduler, as of 0.19.
    VllmV1,
    /// vLLM with its first scheduler, as Vidur models it.
    VllmV0,
    /// Sarathi-Serve, as Vidur models it.
    Sarathi,
    /// The engine of BLIS (inference-sim).
    Blis,
}

impl EnginePreset {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::VllmV1, Self::VllmV0, Self::Sarathi, Self::Blis];

    /// Its name in scenario files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VllmV1 => "vllm-v1",
            Self::VllmV0 => "vllm-v0",
            Self::Sarathi => "sarathi",
            Self::Blis => "blis",
        }
    }

    /// The preset of this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }
}
