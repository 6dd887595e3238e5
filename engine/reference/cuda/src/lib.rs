//! A GPU behind a safe interface: memory, kernels compiled at run time, matrix products, graphs.
//!
//! The libraries (driver, NVRTC, cuBLASLt) are found when a device is opened; a binary that holds this
//! crate builds and runs without them. All work goes to one stream, in order. Kernels are trusted code:
//! what a kernel does to the memory it is given is as if it were part of this crate; the memory itself
//! lies on the device, and no kernel is handed an address of the host.
//!
//! With the feature `emulator` the same kernels, compiled by the host's C++ compiler, run on the CPU, one
//! thread after the other. That is slow and exact enough to test every index and every sum.

mod blas;
mod compile;
/// What can go wrong.
pub mod error;
mod device;
#[cfg(feature = "emulator")]
mod emulator;
mod gpu;
/// Finding the libraries at run time.
pub mod libraries;
mod machine;

pub use compile::{Compiled, compile, has_compiler};
pub use device::{Arg, Buffer, Device, Graph, Place};
pub use error::CudaError;
pub use machine::{DeviceInfo, Gemm, Grid, Kernel, Numbers, Program};
