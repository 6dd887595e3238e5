//! Compiling kernels with NVRTC. What was compiled is kept for as long as the process runs.

use crate::error::CudaError;
use crate::libraries::Library;
use crate::machine::Program;
use cudarc::nvrtc::{result, sys};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError};

const PRELUDE: &str = include_str!("prelude/device.cuh");

/// A compiled program.
#[derive(Debug)]
pub struct Compiled {
    /// Machine code, or PTX ending in zero where the compiler does not know the device yet.
    pub image: Vec<u8>,
    /// What the compiler said: registers and spills of every kernel.
    pub log: String,
}

/// Whether NVRTC is there.
///
/// # Errors
/// If it is not: where it was looked for.
pub fn has_compiler() -> Result<(), CudaError> {
    Library::Compiler.find()
}

pub(crate) fn version() -> Result<(u32, u32), CudaError> {
    Library::Compiler.find()?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is loaded, and both places are this function's own.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }
        .result()
        .map_err(|e| CudaError::failed("nvrtcVersion", e))?;
    Ok((major as u32, minor as u32))
}

fn architectures() -> Result<Vec<u32>, CudaError> {
    let failed = |e| CudaError::failed("nvrtcGetSupportedArchs", e);
    let mut count = 0;
    // SAFETY: the library is loaded (callers saw to it), and the place is this function's own.
    unsafe { sys::nvrtcGetNumSupportedArchs(&raw mut count) }
        .result()
        .map_err(failed)?;
    let mut all = vec![0; usize::try_from(count).unwrap_or(0)];
    // SAFETY: as above; there is room for as many numbers as the call before said.
    unsafe { sys::nvrtcGetSupportedArchs(all.as_mut_ptr()) }
        .result()
        .map_err(failed)?;
    Ok(all.into_iter().map(|x| x as u32).collect())
}

/// Compiles a program for a compute capability.
///
/// # Errors
/// If NVRTC is missing, or the program does not compile: with the compiler's log.
pub fn compile(program: &Program<'_>, capability: (u32, u32)) -> Result<Arc<Compiled>, CudaError> {
    static DONE: Mutex<BTreeMap<(u32, String), Arc<Compiled>>> = Mutex::new(BTreeMap::new());
    Library::Compiler.find()?;
    let wanted = capability.0 * 10 + capability.1;
    let key = (wanted, program.source(PRELUDE));
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(compiled) = done.get(&key) {
        return Ok(compiled.clone());
    }
    let known = architectures()?;
    let option = if known.contains(&wanted) {
        format!("--gpu-architecture=sm_{wanted}")
    } else {
        // A device newer than the compiler: the driver translates what an older one would run.
        let Some(nearest) = known.iter().filter(|&&a| a <= wanted).max() else {
            return Err(CudaError::Unfit {
                what: format!("this NVRTC does not compile for compute capability {wanted}"),
                remedy: "install an NVRTC that knows the device".into(),
            });
        };
        format!("--gpu-architecture=compute_{nearest}")
    };
    let compiled = Arc::new(translate(&key.1, program.name, &option)?);
    done.insert(key, compiled.clone());
    Ok(compiled)
}

fn translate(source: &str, name: &str, architecture: &str) -> Result<Compiled, CudaError> {
    let text = |s: &str| CString::new(s).map_err(|e| CudaError::failed("a program's text", e));
    let (source, name) = (text(source)?, text(name)?);
    let program = result::create_program(&source, Some(&name))
        .map_err(|e| CudaError::failed("nvrtcCreateProgram", e))?;
    let options = [architecture, "--std=c++17", "--ptxas-options=-v"];
    // SAFETY: the program was just created; it is destroyed below and not used after.
    let compiled = unsafe { result::compile_program(program, &options) };
    // SAFETY: as above.
    let log = unsafe { result::get_program_log(program) }.unwrap_or_default();
    let log: String = log
        .iter()
        .take_while(|&&c| c != 0)
        .map(|&c| char::from(c as u8))
        .collect();
    let image = match compiled {
        Ok(()) => image(program, architecture.contains("=sm_")),
        Err(_) => Err(CudaError::Compile { log: log.clone() }),
    };
    // SAFETY: as above.
    let destroyed = unsafe { result::destroy_program(program) };
    destroyed.map_err(|e| CudaError::failed("nvrtcDestroyProgram", e))?;
    Ok(Compiled { image: image?, log })
}

fn image(program: sys::nvrtcProgram, machine_code: bool) -> Result<Vec<u8>, CudaError> {
    if !machine_code {
        // SAFETY: the program is alive and compiled.
        let ptx = unsafe { result::get_ptx(program) };
        let ptx = ptx.map_err(|e| CudaError::failed("nvrtcGetPTX", e))?;
        return Ok(ptx.into_iter().map(|c| c as u8).collect());
    }
    let failed = |e| CudaError::failed("nvrtcGetCUBIN", e);
    let mut size = 0;
    // SAFETY: the program is alive and compiled, and the place is this function's own.
    unsafe { sys::nvrtcGetCUBINSize(program, &raw mut size) }
        .result()
        .map_err(failed)?;
    let mut bytes = vec![0_u8; size];
    // SAFETY: as above; there is room for as many bytes as the call before said.
    unsafe { sys::nvrtcGetCUBIN(program, bytes.as_mut_ptr().cast()) }
        .result()
        .map_err(failed)?;
    Ok(bytes)
}
