//! Which device computes: named, or the GPU if there is one that will do.

use super::Backend;
use super::cpu::{Cpu, KvMemory};
use super::cuda::{CudaBackend, CudaOptions, Source};
use crate::config::ModelConfig;
use crate::error::ReferenceError;
use crate::kv::format::KvFormat;
use crate::weights::Weights;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use windtunnel_cuda::libraries::Library;
use windtunnel_cuda::{Device, DeviceInfo};

/// A device by name: `auto`, `cpu`, `cuda` or `cuda:1`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Choice {
    /// The first GPU if the model runs there, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU by its number.
    Cuda(u32),
}

impl FromStr for Choice {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_prefix("cuda:").map(str::parse::<u32>);
        match (text, number) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(Ok(number))) => Ok(Self::Cuda(number)),
            _ => Err(ReferenceError::Config {
                field: "device".into(),
                reason: format!("`{text}` is no device"),
                remedy: "name auto, cpu, cuda or cuda:1".into(),
            }),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// A device with a model, and why it is not the one that might be expected.
#[allow(
    missing_debug_implementations,
    reason = "a backend is a trait object without one"
)]
pub struct Opened {
    /// The device.
    pub backend: Box<dyn Backend + Send>,
    /// Why `auto` took the CPU.
    pub note: Option<String>,
}

/// Puts a model on a device. Pages on a GPU are filled with 16-bit floats, whatever `memory` says.
///
/// # Errors
/// If the device named is not there or the model does not fit it; `auto` goes to the CPU instead.
pub fn open(
    choice: Choice,
    config: &ModelConfig,
    weights: &Weights,
    memory: &KvMemory,
) -> Result<Opened, ReferenceError> {
    let cpu = || Cpu::new(config, weights, memory).map(|c| Box::new(c) as Box<dyn Backend + Send>);
    let gpu = |number| {
        let memory = KvMemory {
            filling: KvFormat::F16,
            ..*memory
        };
        let source = Source::Host(weights);
        CudaBackend::new(number, config, source, &memory, CudaOptions::default())
            .map(|c| Box::new(c) as Box<dyn Backend + Send>)
    };
    let note = match choice {
        Choice::Cpu => None,
        Choice::Cuda(number) => {
            return Ok(Opened {
                backend: gpu(number)?,
                note: None,
            });
        }
        Choice::Auto => match gpu(0) {
            Ok(backend) => {
                return Ok(Opened {
                    backend,
                    note: None,
                });
            }
            Err(error) => Some(format!("running on the CPU: {error}")),
        },
    };
    Ok(Opened {
        backend: cpu()?,
        note,
    })
}

/// A library of the GPU, as it was found.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LibraryReport {
    /// What it is for.
    pub name: String,
    /// Why it cannot be used; none if it can.
    pub missing: Option<String>,
}

/// What there is to compute on.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DeviceReport {
    /// Threads of the CPU backend.
    pub cpu_threads: usize,
    /// The GPU, if one can be used.
    pub gpu: Option<DeviceInfo>,
    /// Bytes free on it.
    pub gpu_free: Option<u64>,
    /// Why no GPU can be used.
    pub reason: Option<String>,
    /// The libraries.
    pub libraries: Vec<LibraryReport>,
}

/// Looks for everything that a GPU needs, and says what is there.
pub fn device_report(gpu: u32) -> DeviceReport {
    let libraries = [
        ("driver", Library::Driver),
        ("NVRTC", Library::Compiler),
        ("cuBLASLt", Library::Blas),
    ]
    .map(|(name, library)| LibraryReport {
        name: name.into(),
        missing: library.find().err().map(|e| e.to_string()),
    })
    .to_vec();
    let opened = Device::gpu(gpu);
    let (info, free, reason) = match &opened {
        Ok(device) => (
            Some(device.info().clone()),
            device.memory().ok().map(|m| m.0),
            None,
        ),
        Err(error) => (None, None, Some(error.to_string())),
    };
    DeviceReport {
        cpu_threads: rayon::current_num_threads(),
        gpu: info,
        gpu_free: free,
        reason,
        libraries,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names() {
        for (text, choice) in [
            ("auto", Choice::Auto),
            ("cpu", Choice::Cpu),
            ("cuda:3", Choice::Cuda(3)),
        ] {
            assert_eq!(text.parse::<Choice>().ok(), Some(choice));
            assert_eq!(choice.to_string(), text);
        }
        assert_eq!("cuda".parse::<Choice>().ok(), Some(Choice::Cuda(0)));
        for text in ["gpu", "cuda:x", ""] {
            let error = text.parse::<Choice>().unwrap_err().to_string();
            assert!(error.contains("auto, cpu, cuda"), "{error}");
        }
    }

    #[test]
    fn auto_always_finds_a_device_and_says_why_it_is_the_cpu() {
        let config = ModelConfig::pocket_light();
        let weights = Weights::random(&config, 1).unwrap();
        let memory = KvMemory {
            pages: 4,
            page_tokens: 16,
            filling: KvFormat::F32,
        };
        let report = device_report(0);
        let opened = open(Choice::Auto, &config, &weights, &memory).unwrap();
        let name = opened.backend.device();
        if report.gpu.is_some() {
            assert!(opened.note.is_none() && !name.starts_with("cpu"), "{name}");
        } else {
            assert!(name.starts_with("cpu"), "{name}");
            let note = opened.note.unwrap();
            // The same reason in the report, which names a place and a remedy.
            assert!(note.contains(report.reason.as_deref().unwrap()), "{note}");
            let named = open(Choice::Cuda(0), &config, &weights, &memory).err();
            assert!(named.is_some(), "a device that is named is not replaced");
        }
    }
}
