//! Where a model can run: what was found, and a backend on it.

use crate::backend::Backend;
use crate::backend::cpu::{Cpu, KvMemory};
use crate::backend::cuda::{CudaBackend, CudaOptions, Source};
use crate::config::ModelConfig;
use crate::error::ReferenceError;
use crate::kv::format::KvFormat;
use crate::machine::machine;
use crate::weights::Weights;
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;

/// A kind of device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// The CPU, through candle.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// A device, or why there is none of its kind.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Found {
    /// Its kind.
    pub kind: DeviceKind,
    /// Whether it can be used.
    pub usable: bool,
    /// What it is; why it cannot be used, otherwise.
    pub what: String,
    /// Libraries, features, versions.
    pub details: Vec<(String, String)>,
}

/// Looks for devices. The first that is usable is the one that is used unless told otherwise: a GPU
/// comes before the CPU.
pub fn find() -> Vec<Found> {
    let mut found = vec![gpu()];
    let here = machine();
    let mut details = vec![
        (
            "threads".to_owned(),
            rayon::current_num_threads().to_string(),
        ),
        ("vector extensions".to_owned(), here.features.join(" ")),
    ];
    if let Some(bytes) = here.free_memory {
        let gib = bytes as f64 / f64::from(1 << 30);
        details.push(("free memory".to_owned(), format!("{gib:.1} GiB")));
    }
    found.push(Found {
        kind: DeviceKind::Cpu,
        usable: true,
        what: format!("{}, {} cores, {}", here.cpu, here.cores, here.system),
        details,
    });
    found
}

fn gpu() -> Found {
    match windtunnel_cuda::Device::gpu(0) {
        Ok(device) => {
            let info = device.info();
            let gib = info.memory as f64 / f64::from(1 << 30);
            let pair = |(a, b): (u32, u32)| format!("{a}.{b}");
            let (a, b, c) = info.blas;
            Found {
                kind: DeviceKind::Cuda,
                usable: true,
                what: format!("{}, {gib:.0} GiB", info.name),
                details: vec![
                    ("driver".to_owned(), pair(info.driver)),
                    ("compiler".to_owned(), pair(info.compiler)),
                    ("cuBLASLt".to_owned(), format!("{a}.{b}.{c}")),
                    ("capability".to_owned(), pair(info.capability)),
                ],
            }
        }
        Err(error) => Found {
            kind: DeviceKind::Cuda,
            usable: false,
            what: error.to_string(),
            details: Vec::new(),
        },
    }
}

/// Puts a model on a device, with `pages` pages of 16 tokens for keys and values as 16-bit floats.
///
/// # Errors
/// If there is no such device, or its memory does not suffice.
pub fn open(
    kind: DeviceKind,
    config: &ModelConfig,
    weights: &Weights,
    pages: usize,
) -> Result<Box<dyn Backend + Send>, ReferenceError> {
    let memory = KvMemory {
        pages,
        page_tokens: 16,
        filling: KvFormat::F16,
    };
    match kind {
        DeviceKind::Cpu => {
            let what = "the model on the CPU with its keys and values";
            fits(what, Cpu::bytes(config, &memory))?;
            Ok(ready(Box::new(Cpu::new(config, weights, &memory)?)))
        }
        DeviceKind::Cuda => {
            let source = Source::Host(weights);
            let options = CudaOptions::default();
            let backend = CudaBackend::new(0, config, source, &memory, options)?;
            Ok(ready(Box::new(backend)))
        }
    }
}

/// A device as it is; in tests, one that fails when it is told to.
pub(crate) fn ready(backend: Box<dyn Backend + Send>) -> Box<dyn Backend + Send> {
    #[cfg(feature = "faults")]
    let backend = crate::backend::faulty::with_fault(backend);
    backend
}

/// As [`open`]; without a kind, on the first device where the model fits.
///
/// # Errors
/// As [`open`].
pub fn open_any(
    kind: Option<DeviceKind>,
    config: &ModelConfig,
    weights: &Weights,
    pages: usize,
) -> Result<Box<dyn Backend + Send>, ReferenceError> {
    let on = |kind| open(kind, config, weights, pages);
    match kind {
        Some(kind) => on(kind),
        None => first_that_fits(|| on(DeviceKind::Cuda), || on(DeviceKind::Cpu)),
    }
}

/// Told of what somebody should know though nothing failed; see [`on_warning`].
static WARN: OnceLock<fn(&str)> = OnceLock::new();

/// Has warnings told to `tell`: that the CPU computes what does not fit the GPU. The first call counts;
/// without one nobody is told.
pub fn on_warning(tell: fn(&str)) {
    let _ = WARN.set(tell);
}

/// What device `auto` means: what `gpu` makes if a GPU can be used and it has the memory and knows
/// the model's sizes, else what `cpu` makes, with a warning if there was a GPU.
///
/// # Errors
/// Of `cpu`; of `gpu` if the GPU fails for another reason.
pub fn first_that_fits<T>(
    gpu: impl FnOnce() -> Result<T, ReferenceError>,
    cpu: impl FnOnce() -> Result<T, ReferenceError>,
) -> Result<T, ReferenceError> {
    let usable = |found: &Found| found.usable && found.kind == DeviceKind::Cuda;
    if !find().iter().any(usable) {
        return cpu();
    }
    fall_back(gpu, cpu, &|text| {
        if let Some(tell) = WARN.get() {
            tell(text);
        }
    })
}

fn fall_back<T>(
    gpu: impl FnOnce() -> Result<T, ReferenceError>,
    cpu: impl FnOnce() -> Result<T, ReferenceError>,
    warn: &dyn Fn(&str),
) -> Result<T, ReferenceError> {
    match gpu() {
        // The GPU's kernels do not know all sizes, and its memory is less; the host's loops do.
        Err(error @ (ReferenceError::Config { .. } | ReferenceError::Memory { .. })) => {
            warn(&format!(
                "warning: the CPU computes instead of the GPU: {error}"
            ));
            cpu()
        }
        made => made,
    }
}

/// Checks that so many bytes are free on the host, as far as the system says.
///
/// # Errors
/// If they are not.
pub fn fits(what: &str, needed: u64) -> Result<(), ReferenceError> {
    match machine().free_memory {
        Some(available) if available < needed => Err(ReferenceError::Memory {
            what: what.to_owned(),
            needed,
            available,
            remedy: "take a smaller model or fewer pages, or a machine with more memory".into(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn what_does_not_fit_the_gpu_goes_to_the_cpu_with_a_word_and_failures_do_not() {
        let told = RefCell::new(Vec::new());
        let warn = |text: &str| told.borrow_mut().push(text.to_owned());
        let full = || ReferenceError::Memory {
            what: "the model".into(),
            needed: 9,
            available: 8,
            remedy: "take less".into(),
        };
        let made = fall_back(|| Err(full()), || Ok("cpu"), &warn);
        assert_eq!(made.unwrap(), "cpu");
        assert!(told.borrow()[0].contains("the model needs 9 bytes and 8 are free"));
        assert_eq!(fall_back(|| Ok("gpu"), || Ok("cpu"), &warn).unwrap(), "gpu");
        let broken = || ReferenceError::Device {
            device: "gpu".into(),
            reason: "it is gone".into(),
        };
        assert!(fall_back(|| Err(broken()), || Ok("cpu"), &warn).is_err());
        // If neither has room, the CPU's answer counts.
        assert!(fall_back(|| Err(full()), || Err::<&str, _>(full()), &warn).is_err());
        assert_eq!(told.borrow().len(), 2);
    }
}
