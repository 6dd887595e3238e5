//! What is checked before a model goes to the GPU, and the table of its rotations.

use super::layout::{DESCRIPTION, PAGE, Sizes};
use super::workspace::Room;
use super::{CudaOptions, weights, workspace};
use crate::backend::cpu::KvMemory;
use crate::config::ModelConfig;
use crate::error::ReferenceError;
use crate::kv::format::KvFormat;
use windtunnel_cuda::{Buffer, CudaError, Device};

/// Checks that pages are as the kernels take them.
pub(super) fn check_memory(memory: &KvMemory) -> Result<(), ReferenceError> {
    if memory.page_tokens != PAGE {
        return Err(ReferenceError::Config {
            field: "page_tokens".into(),
            reason: format!(
                "the GPU kernels take pages of {PAGE} tokens, not {}",
                memory.page_tokens
            ),
            remedy: format!("take {PAGE}"),
        });
    }
    if memory.filling != KvFormat::F16 {
        return Err(ReferenceError::Config {
            field: "filling".into(),
            reason: "the GPU fills pages with 16-bit floats".into(),
            remedy: "take f16".into(),
        });
    }
    Ok(())
}

/// Compares what a model needs with what is free, before any of it is taken.
pub(super) fn check_fit(
    device: &Device,
    sizes: &Sizes,
    config: &ModelConfig,
    memory: &KvMemory,
    options: &CudaOptions,
    (room, blocks): (&Room, usize),
) -> Result<(), ReferenceError> {
    let weights = weights::bytes(sizes, config.tie_word_embeddings, options.numbers);
    let pages = (memory.pages + 1) * (sizes.frame_bytes() + 2 * sizes.scale_bytes() + DESCRIPTION);
    let work = workspace::bytes(sizes, options.numbers, room, blocks);
    let turns = 4 * config.max_position_embeddings * config.head_dim;
    let needed = (weights + pages + work + turns) as u64;
    let (available, _) = device.memory()?;
    if needed > available {
        return Err(ReferenceError::Memory {
            what: format!(
                "the model ({weights} bytes of weights, {pages} of keys and values, {work} of workspace)"
            ),
            needed,
            available,
            remedy: "take fewer pages, a smaller model, or a GPU with more memory".into(),
        });
    }
    Ok(())
}

/// Cosine and sine by position and half dimension.
pub(super) fn turns(device: &Device, config: &ModelConfig) -> Result<Buffer, CudaError> {
    let table = crate::backend::cpu::rope(config);
    let bytes: Vec<u8> = table
        .iter()
        .flat_map(|(cos, sin)| [cos.to_le_bytes(), sin.to_le_bytes()].concat())
        .collect();
    let buffer = device.allocate(bytes.len())?;
    device.upload(buffer.at(0), &bytes)?;
    Ok(buffer)
}
