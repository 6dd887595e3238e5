//! What training leaves behind: checkpoints that it can be taken up from, and the model at the end.
//! Every file is written beside its place and then moved there, so none is ever half there.

use super::run::{Settings, Trainer};
use crate::config::ModelConfig;
use crate::error::ReferenceError;
use crate::weights::expected;
use half::f16;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The one entry of a checkpoint's header.
const HEADER: &str = "windtunnel";

/// What a checkpoint says of itself.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Sizes of the model.
    pub config: ModelConfig,
    /// How it is trained.
    pub settings: Settings,
    /// What it learns from, such as the digest of its teacher.
    pub source: String,
    /// Steps done.
    pub done: usize,
    /// CPU seconds spent, of all threads.
    pub cpu_seconds: f64,
}

/// Writes `bytes` to `file` by way of a temporary file beside it.
///
/// # Errors
/// If that fails; then `file` is as it was.
pub fn write(file: &Path, bytes: &[u8]) -> Result<(), ReferenceError> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let temporary = file.with_file_name(name);
    let written = std::fs::File::create(&temporary)
        .and_then(|mut f| f.write_all(bytes).and_then(|()| f.sync_all()))
        .and_then(|()| std::fs::rename(&temporary, file));
    written.map_err(|error| {
        // Nothing is left of it; that it cannot be removed either says no more.
        let _ = std::fs::remove_file(&temporary);
        ReferenceError::File {
            path: file.to_owned(),
            error,
        }
    })
}

/// The checkpoint of a folder.
pub fn checkpoint_of(folder: &Path) -> PathBuf {
    folder.join("checkpoint.safetensors")
}

fn as_bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn malformed(path: &Path, reason: impl std::fmt::Display) -> ReferenceError {
    ReferenceError::Malformed {
        path: path.to_owned(),
        reason: reason.to_string(),
        remedy: "remove it to train from the beginning, or train in another folder".into(),
    }
}

/// Writes down a training as it is.
///
/// # Errors
/// If the file cannot be written.
pub fn save_checkpoint(
    file: &Path,
    trainer: &Trainer,
    state: &State,
) -> Result<(), ReferenceError> {
    let params = trainer.params();
    let parts = [
        ("values", as_bytes(&params.values)),
        ("first", as_bytes(&params.first)),
        ("second", as_bytes(&params.second)),
    ];
    let mut views = Vec::new();
    for (name, bytes) in &parts {
        let view = TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes);
        views.push((*name, view.map_err(|e| malformed(file, e))?));
    }
    let header = serde_json::to_string(state).map_err(|e| malformed(file, e))?;
    let header = HashMap::from([(HEADER.to_owned(), header)]);
    let bytes = safetensors::serialize(views, Some(header)).map_err(|e| malformed(file, e))?;
    write(file, &bytes)
}

/// Takes up the training that `file` was written by. Gives what it said of itself; nothing if
/// there is no such file.
///
/// # Errors
/// If it is damaged, or of another training than the one that `wanted` describes.
pub fn take_up(
    file: &Path,
    trainer: &mut Trainer,
    wanted: &State,
) -> Result<Option<State>, ReferenceError> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(ReferenceError::File {
                path: file.to_owned(),
                error,
            });
        }
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| malformed(file, e))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| malformed(file, e))?;
    let text = header.metadata().as_ref().and_then(|m| m.get(HEADER));
    let text = text.ok_or_else(|| malformed(file, "it is no checkpoint of this trainer"))?;
    let state: State = serde_json::from_str(text).map_err(|e| malformed(file, e))?;
    let same = State {
        done: wanted.done,
        cpu_seconds: wanted.cpu_seconds,
        ..state.clone()
    };
    if same != *wanted {
        return Err(malformed(
            file,
            "it is of a training with other settings, sizes or data",
        ));
    }
    let count = trainer.params().values.len();
    let read = |name: &str| -> Result<Vec<f32>, ReferenceError> {
        let view = tensors.tensor(name).map_err(|e| malformed(file, e))?;
        if view.dtype() != Dtype::F32 || view.shape() != [count] {
            return Err(malformed(file, format!("`{name}` has another shape")));
        }
        let numbers = view.data().chunks_exact(4);
        Ok(numbers
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect())
    };
    trainer.take_up(state.done, read("values")?, read("first")?, read("second")?)?;
    Ok(Some(state))
}

/// The weights of a training as a safetensors file of 16-bit floats.
///
/// # Errors
/// If a weight is too large for a 16-bit float.
pub fn weights_file(
    config: &ModelConfig,
    values: &[f32],
    path: &Path,
) -> Result<Vec<u8>, ReferenceError> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (name, shape) in expected(config) {
        let count: usize = shape.iter().product();
        let mut bytes = Vec::with_capacity(2 * count);
        for &x in &values[start..start + count] {
            let short = f16::from_f32(x);
            if !short.is_finite() {
                return Err(ReferenceError::Tensor {
                    name,
                    reason: format!("{x} is no 16-bit float"),
                    remedy: "train at a lower rate".into(),
                });
            }
            bytes.extend(short.to_le_bytes());
        }
        parts.push((name, shape, bytes));
        start += count;
    }
    let mut views = Vec::new();
    for (name, shape, bytes) in &parts {
        let view = TensorView::new(Dtype::F16, shape.clone(), bytes);
        views.push((name.as_str(), view.map_err(|e| malformed(path, e))?));
    }
    safetensors::serialize(views, None).map_err(|e| malformed(path, e))
}
