//! What a machine that runs kernels must be able to do; a GPU is one, the emulator another.

use crate::error::CudaError;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;

/// What a device is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Its name, as the driver gives it.
    pub name: String,
    /// Version of the driver, as CUDA counts: 13.0 is (13, 0).
    pub driver: (u32, u32),
    /// Version of the compiler library.
    pub compiler: (u32, u32),
    /// Version of cuBLASLt.
    pub blas: (u32, u32, u32),
    /// Compute capability.
    pub capability: (u32, u32),
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of memory.
    pub memory: u64,
}

/// Source of kernels.
#[derive(Clone, Debug)]
pub struct Program<'a> {
    /// A name for messages.
    pub name: &'a str,
    /// The text, in CUDA C++; kernels are declared with `KERNEL`.
    pub text: String,
    /// Macros.
    pub defines: Vec<(&'static str, String)>,
    /// Names of its kernels.
    pub kernels: &'a [&'static str],
}

impl Program<'_> {
    /// The whole text: what the machine brings, macros, the program.
    pub(crate) fn source(&self, prelude: &str) -> String {
        let mut text = String::from(prelude);
        for (name, value) in &self.defines {
            text.push_str(&format!("#define {name} {value}\n"));
        }
        text.push_str(&self.text);
        text
    }
}

/// A kernel of a loaded program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Kernel(pub(crate) usize);

/// Blocks, and threads of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grid {
    /// Blocks in each of three directions.
    pub blocks: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
}

impl Grid {
    /// Blocks in a row.
    pub const fn new(blocks: u32, threads: u32) -> Self {
        Self {
            blocks: [blocks, 1, 1],
            threads,
        }
    }
}

/// Type of numbers in a matrix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Numbers {
    /// 32-bit floats.
    F32,
    /// The upper half of 32-bit floats.
    Bf16,
}

impl Numbers {
    /// Bytes of one.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// A product: `out[row, o] = sum over k of x[row, k] * weights[o, k]`, added to what is there if `add`.
/// Sums are 32-bit floats.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Gemm {
    /// Rows of `x` and of the output.
    pub rows: usize,
    /// Rows of the weights.
    pub outputs: usize,
    /// Length of the sum.
    pub inputs: usize,
    /// Numbers from one row of the output to the next.
    pub stride: usize,
    /// Type of `x` and the weights.
    pub numbers: Numbers,
    /// Type of the output.
    pub result: Numbers,
    /// Adds to the output.
    pub add: bool,
}

/// A moment in the stream.
#[derive(Debug)]
pub(crate) struct Mark(pub(crate) u64);

/// Memory and work of one device. Addresses are those of the device.
pub(crate) trait Machine: Send + Sync + Debug {
    fn info(&self) -> &DeviceInfo;
    /// Bytes free, and in all.
    fn memory(&self) -> Result<(u64, u64), CudaError>;
    fn allocate(&self, bytes: usize) -> Result<u64, CudaError>;
    /// # Safety
    /// The address comes from `allocate` and is not used again.
    unsafe fn free(&self, address: u64);
    /// # Safety
    /// The range lies in one allocation.
    unsafe fn upload(&self, to: u64, bytes: &[u8]) -> Result<(), CudaError>;
    /// Waits for all work before.
    /// # Safety
    /// The range lies in one allocation.
    unsafe fn download(&self, from: u64, bytes: &mut [u8]) -> Result<(), CudaError>;
    /// # Safety
    /// Both ranges lie in allocations, and do not overlap.
    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), CudaError>;
    /// # Safety
    /// The range lies in one allocation.
    unsafe fn clear(&self, at: u64, bytes: usize) -> Result<(), CudaError>;
    fn load(&self, program: &Program<'_>) -> Result<Vec<Kernel>, CudaError>;
    /// Blocks of so many threads that one multiprocessor holds at a time.
    fn resident(&self, kernel: Kernel, threads: u32) -> Result<u32, CudaError>;
    /// # Safety
    /// The arguments are what the kernel takes, one word each, and addresses among them are of
    /// allocations large enough for what it does.
    unsafe fn launch(&self, kernel: Kernel, grid: Grid, words: &[u64]) -> Result<(), CudaError>;
    /// # Safety
    /// The matrices lie in allocations.
    unsafe fn gemm(&self, gemm: &Gemm, weights: u64, x: u64, out: u64) -> Result<(), CudaError>;
    /// Measures the ways to compute this product and keeps the fastest; nothing where there is no choice.
    /// # Safety
    /// As for `gemm`; `out` is overwritten.
    unsafe fn tune(&self, gemm: &Gemm, weights: u64, x: u64, out: u64) -> Result<(), CudaError>;
    fn begin_graph(&self) -> Result<(), CudaError>;
    fn end_graph(&self) -> Result<u64, CudaError>;
    /// # Safety
    /// The graph comes from `end_graph`, is not dropped, and the allocations it uses are alive.
    unsafe fn replay(&self, graph: u64) -> Result<(), CudaError>;
    /// # Safety
    /// The graph comes from `end_graph` and is not used again.
    unsafe fn drop_graph(&self, graph: u64);
    fn wait(&self) -> Result<(), CudaError>;
    fn mark(&self) -> Result<Mark, CudaError>;
    /// Milliseconds from one to the other; waits for both.
    fn between(&self, from: &Mark, to: &Mark) -> Result<f32, CudaError>;
    fn drop_mark(&self, mark: u64);
    /// Takes the device away after so many more calls that it could fail at; for tests.
    #[cfg(feature = "emulator")]
    fn lose_after(&self, _calls: u64) {}
}
