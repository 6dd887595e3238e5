//! The safe side: memory that frees itself, bounds checked at every call, launches counted.

use crate::error::CudaError;
use crate::machine::{DeviceInfo, Gemm, Grid, Kernel, Machine, Program};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A device. Clones are the same device.
#[derive(Clone, Debug)]
pub struct Device {
    machine: Arc<dyn Machine>,
    launches: Arc<AtomicU64>,
}

/// Memory of a device; freed when dropped.
#[derive(Debug)]
pub struct Buffer {
    machine: Arc<dyn Machine>,
    address: u64,
    bytes: usize,
}

/// A place in a buffer, in bytes from its beginning.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    buffer: &'a Buffer,
    offset: usize,
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub enum Arg<'a> {
    /// An address.
    At(Place<'a>),
    /// No address.
    Null,
    /// A number.
    U32(u32),
    /// A number.
    U64(u64),
    /// A number.
    F32(f32),
}

/// Recorded work, to be done again with what the buffers then hold.
#[derive(Debug)]
pub struct Graph {
    machine: Arc<dyn Machine>,
    graph: u64,
    /// Launches of kernels and products in it.
    launches: u64,
}

impl Buffer {
    /// Its size.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its address on the device, for tables that kernels read.
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// A place in it.
    pub const fn at(&self, offset: usize) -> Place<'_> {
        Place {
            buffer: self,
            offset,
        }
    }

    /// As an argument, from its beginning.
    pub const fn arg(&self) -> Arg<'_> {
        Arg::At(self.at(0))
    }
}

impl<'a> Place<'a> {
    /// A place further on.
    pub const fn plus(self, bytes: usize) -> Self {
        Self {
            buffer: self.buffer,
            offset: self.offset + bytes,
        }
    }

    /// As an argument.
    pub const fn arg(self) -> Arg<'a> {
        Arg::At(self)
    }

    const fn address(&self) -> u64 {
        self.buffer.address + self.offset as u64
    }

    fn check(&self, bytes: usize, what: &str) -> Result<u64, CudaError> {
        let end = self.offset.checked_add(bytes);
        if end.is_some_and(|end| end <= self.buffer.bytes) {
            return Ok(self.address());
        }
        Err(CudaError::Misuse {
            what: format!(
                "{what} of {bytes} bytes from byte {} does not fit a buffer of {} bytes",
                self.offset, self.buffer.bytes
            ),
        })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the address is this buffer's own, and it is gone after this.
        unsafe { self.machine.free(self.address) }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: the graph is this value's own, and it is gone after this.
        unsafe { self.machine.drop_graph(self.graph) }
    }
}

impl Device {
    /// Opens a GPU by its number.
    ///
    /// # Errors
    /// If a library or the device is missing, or the device cannot run the kernels.
    pub fn gpu(ordinal: u32) -> Result<Self, CudaError> {
        Ok(Self::from_machine(Arc::new(crate::gpu::Gpu::new(ordinal)?)))
    }

    /// The emulator, which keeps compiled programs in `folder`.
    ///
    /// # Errors
    /// If there is no C++ compiler.
    #[cfg(feature = "emulator")]
    pub fn emulated(folder: &std::path::Path) -> Result<Self, CudaError> {
        Ok(Self::from_machine(Arc::new(
            crate::emulator::Emulator::new(folder)?,
        )))
    }

    /// Takes an emulated device away after so many more calls: that one and all after it fail, as they do when a
    /// GPU falls off its bus.
    #[cfg(feature = "emulator")]
    pub fn lose_after(&self, calls: u64) {
        self.machine.lose_after(calls);
    }

    fn from_machine(machine: Arc<dyn Machine>) -> Self {
        Self {
            machine,
            launches: Arc::new(AtomicU64::new(0)),
        }
    }

    /// What it is.
    pub fn info(&self) -> &DeviceInfo {
        self.machine.info()
    }

    /// Bytes free, and in all.
    ///
    /// # Errors
    /// If the device fails.
    pub fn memory(&self) -> Result<(u64, u64), CudaError> {
        self.machine.memory()
    }

    /// Launches so far: kernels, matrix products and graphs, each counted once.
    pub fn launches(&self) -> u64 {
        self.launches.load(Ordering::Relaxed)
    }

    fn count(&self) {
        self.launches.fetch_add(1, Ordering::Relaxed);
    }

    /// Memory, not cleared.
    ///
    /// # Errors
    /// If there is not enough.
    pub fn allocate(&self, bytes: usize) -> Result<Buffer, CudaError> {
        let address = self.machine.allocate(bytes.max(1))?;
        Ok(Buffer {
            machine: self.machine.clone(),
            address,
            bytes,
        })
    }

    /// Copies bytes to the device.
    ///
    /// # Errors
    /// If they do not fit, or the device fails.
    pub fn upload(&self, to: Place<'_>, bytes: &[u8]) -> Result<(), CudaError> {
        let address = to.check(bytes.len(), "an upload")?;
        // SAFETY: the range was checked to lie in the buffer.
        unsafe { self.machine.upload(address, bytes) }
    }

    /// Copies bytes from the device, once all work before is done.
    ///
    /// # Errors
    /// If there are not as many, or the device fails.
    pub fn download(&self, from: Place<'_>, bytes: &mut [u8]) -> Result<(), CudaError> {
        let address = from.check(bytes.len(), "a download")?;
        // SAFETY: the range was checked to lie in the buffer.
        unsafe { self.machine.download(address, bytes) }
    }

    /// 32-bit floats from the device.
    ///
    /// # Errors
    /// If there are not as many, or the device fails.
    pub fn download_f32(&self, from: Place<'_>, count: usize) -> Result<Vec<f32>, CudaError> {
        let mut bytes = vec![0; 4 * count];
        self.download(from, &mut bytes)?;
        Ok(bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect())
    }

    /// Copies within the device, between ranges that do not overlap.
    ///
    /// # Errors
    /// If they do, or do not fit, or the device fails.
    pub fn copy(&self, from: Place<'_>, to: Place<'_>, bytes: usize) -> Result<(), CudaError> {
        let (a, b) = (from.check(bytes, "a copy")?, to.check(bytes, "a copy")?);
        if a < b + bytes as u64 && b < a + bytes as u64 {
            return Err(CudaError::Misuse {
                what: "a copy onto itself".into(),
            });
        }
        // SAFETY: both ranges were checked to lie in their buffers, and to be apart.
        unsafe { self.machine.copy(a, b, bytes) }
    }

    /// Sets bytes to zero.
    ///
    /// # Errors
    /// If they do not fit, or the device fails.
    pub fn clear(&self, at: Place<'_>, bytes: usize) -> Result<(), CudaError> {
        let address = at.check(bytes, "clearing")?;
        // SAFETY: the range was checked to lie in the buffer.
        unsafe { self.machine.clear(address, bytes) }
    }

    /// Compiles a program and returns its kernels in the order of their names.
    ///
    /// # Errors
    /// If it does not compile, or lacks a kernel.
    pub fn load(&self, program: &Program<'_>) -> Result<Vec<Kernel>, CudaError> {
        self.machine.load(program)
    }

    /// Blocks of a kernel, of so many threads each, that the device holds at a time.
    ///
    /// # Errors
    /// If the device fails.
    pub fn resident_blocks(&self, kernel: Kernel, threads: u32) -> Result<u32, CudaError> {
        let each = self.machine.resident(kernel, threads)?;
        Ok(each.max(1) * self.info().multiprocessors)
    }

    /// Launches a kernel. Kernels are trusted: the arguments must be those it takes.
    ///
    /// # Errors
    /// If the grid has no block or one too large, or the device fails.
    pub fn launch(&self, kernel: Kernel, grid: Grid, args: &[Arg<'_>]) -> Result<(), CudaError> {
        let [x, y, z] = grid.blocks;
        let fits = (1..=i32::MAX as u32).contains(&x)
            && (1..=65_535).contains(&y)
            && (1..=65_535).contains(&z)
            && (1..=1_024).contains(&grid.threads);
        let mut words = [0_u64; 16];
        if !fits || args.len() > words.len() {
            return Err(CudaError::Misuse {
                what: format!("a launch of {grid:?} with {} arguments", args.len()),
            });
        }
        for (word, arg) in words.iter_mut().zip(args) {
            *word = match arg {
                Arg::At(place) => place.check(0, "an argument")?,
                Arg::Null => 0,
                Arg::U32(x) => u64::from(*x),
                Arg::U64(x) => *x,
                Arg::F32(x) => u64::from(x.to_bits()),
            };
        }
        self.count();
        // SAFETY: addresses are of live buffers of this device; what the kernel does with them is
        // the trust that the documentation of the crate states.
        unsafe { self.machine.launch(kernel, grid, &words[..args.len()]) }
    }

    fn check_gemm(
        gemm: &Gemm,
        weights: Place<'_>,
        x: Place<'_>,
        out: Place<'_>,
    ) -> Result<(u64, u64, u64), CudaError> {
        if gemm.rows == 0 || gemm.outputs == 0 || gemm.inputs == 0 || gemm.stride < gemm.outputs {
            return Err(CudaError::Misuse {
                what: format!("no product: {gemm:?}"),
            });
        }
        let last = (gemm.rows - 1) * gemm.stride + gemm.outputs;
        Ok((
            weights.check(
                gemm.outputs * gemm.inputs * gemm.numbers.bytes(),
                "a matrix of weights",
            )?,
            x.check(gemm.rows * gemm.inputs * gemm.numbers.bytes(), "a factor")?,
            out.check(last * gemm.result.bytes(), "a product")?,
        ))
    }

    /// A matrix product.
    ///
    /// # Errors
    /// If a matrix does not fit its buffer, or the device fails.
    pub fn gemm(
        &self,
        gemm: &Gemm,
        weights: Place<'_>,
        x: Place<'_>,
        out: Place<'_>,
    ) -> Result<(), CudaError> {
        let (w, x, out) = Self::check_gemm(gemm, weights, x, out)?;
        self.count();
        // SAFETY: all three were checked to lie in their buffers.
        unsafe { self.machine.gemm(gemm, w, x, out) }
    }

    /// Measures the ways to compute a product, and keeps the fastest for later. Overwrites `out`.
    ///
    /// # Errors
    /// As for [`Self::gemm`].
    pub fn tune(
        &self,
        gemm: &Gemm,
        weights: Place<'_>,
        x: Place<'_>,
        out: Place<'_>,
    ) -> Result<(), CudaError> {
        let (w, x, out) = Self::check_gemm(gemm, weights, x, out)?;
        // SAFETY: all three were checked to lie in their buffers.
        unsafe { self.machine.tune(gemm, w, x, out) }
    }

    /// Records work instead of doing it. Only launches and products may be recorded.
    ///
    /// # Errors
    /// What `work` returns, or that of the device; either way recording has ended.
    pub fn record<E: From<CudaError>>(
        &self,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<Graph, E> {
        let before = self.launches();
        self.machine.begin_graph()?;
        let done = work();
        let graph = self.machine.end_graph();
        let launches = self.launches() - before;
        self.launches.fetch_sub(launches, Ordering::Relaxed);
        let graph = graph.map(|graph| Graph {
            machine: self.machine.clone(),
            graph,
            launches,
        });
        done?;
        Ok(graph?)
    }

    /// Does recorded work. Its buffers must be those it was recorded with: a graph is dropped before they are.
    ///
    /// # Errors
    /// If the device fails.
    pub fn replay(&self, graph: &Graph) -> Result<(), CudaError> {
        self.count();
        // SAFETY: the graph is alive; that its buffers are is what the documentation asks for, and
        // dead ones are addresses of the device alone.
        unsafe { self.machine.replay(graph.graph) }
    }

    /// Waits for all work.
    ///
    /// # Errors
    /// If some of it failed.
    pub fn wait(&self) -> Result<(), CudaError> {
        self.machine.wait()
    }

    /// Milliseconds that `work` takes on the device.
    ///
    /// # Errors
    /// What `work` returns, or that of the device.
    pub fn time<E: From<CudaError>>(&self, work: impl FnOnce() -> Result<(), E>) -> Result<f32, E> {
        let from = self.machine.mark()?;
        let done = work();
        let to = self.machine.mark();
        let time = match &to {
            Ok(to) => self.machine.between(&from, to),
            Err(error) => Err(error.clone()),
        };
        self.machine.drop_mark(from.0);
        if let Ok(to) = to {
            self.machine.drop_mark(to.0);
        }
        done?;
        Ok(time?)
    }
}

impl Graph {
    /// Launches that are recorded in it.
    pub const fn launches(&self) -> u64 {
        self.launches
    }
}
