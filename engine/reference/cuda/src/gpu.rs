//! A GPU through the driver: one context, one stream.

use crate::blas::Blas;
use crate::compile;
use crate::error::CudaError;
use crate::libraries::Library;
use crate::machine::{DeviceInfo, Gemm, Grid, Kernel, Machine, Mark, Program};
use cudarc::driver::{CudaContext, DriverError, result, sys};
use std::ffi::{CString, c_void};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of page-locked memory that small copies go through.
const STAGING: usize = 4 << 20;

/// The oldest driver whose calls are used, as the driver counts: CUDA 12.8.
const OLDEST_DRIVER: i32 = 12_080;

pub(crate) struct Gpu {
    context: Arc<CudaContext>,
    stream: sys::CUstream,
    info: DeviceInfo,
    blas: Mutex<Blas>,
    kernels: Mutex<Kernels>,
    staging: Mutex<Staging>,
}

#[derive(Default)]
struct Kernels {
    /// With their names, for messages.
    functions: Vec<(sys::CUfunction, String)>,
    modules: Vec<sys::CUmodule>,
}

impl Kernels {
    fn get(&self, kernel: Kernel) -> Result<&(sys::CUfunction, String), CudaError> {
        let found = self.functions.get(kernel.0);
        found.ok_or_else(|| CudaError::Misuse {
            what: "a kernel of another device".into(),
        })
    }
}

/// Page-locked memory: `used` bytes may still be read by the device.
struct Staging {
    base: *mut u8,
    used: usize,
}

// SAFETY: the handles are used with the context bound to the calling thread, which the driver allows
// from any thread; what is not synchronised inside the driver lies behind a mutex.
unsafe impl Send for Gpu {}
// SAFETY: as above.
unsafe impl Sync for Gpu {}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

fn named(what: &'static str) -> impl Fn(DriverError) -> CudaError {
    move |error| CudaError::failed(what, said(error))
}

/// What the driver says of an error.
fn said(error: DriverError) -> String {
    let text = error.error_string();
    let text = text.map(|s| s.to_string_lossy().into_owned());
    format!("{} ({:?})", text.unwrap_or_default(), error.0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    pub(crate) fn new(ordinal: u32) -> Result<Self, CudaError> {
        Library::Driver.find()?;
        let version = driver_version()?;
        result::init().map_err(named("cuInit"))?;
        let count = result::device::get_count().map_err(named("cuDeviceGetCount"))?;
        if i64::from(ordinal) >= i64::from(count) {
            return Err(CudaError::Missing {
                what: format!("GPU {ordinal}"),
                looked: format!("the driver shows {count}"),
                remedy: "name one that is there, or look at CUDA_VISIBLE_DEVICES".into(),
            });
        }
        if version < OLDEST_DRIVER {
            return Err(CudaError::Unfit {
                what: format!(
                    "the driver knows CUDA {}.{}, and 12.8 is needed",
                    version / 1000,
                    version % 1000 / 10
                ),
                remedy: "install a newer driver (570 or later)".into(),
            });
        }
        Library::Compiler.find()?;
        Library::Blas.find()?;
        let context = CudaContext::new(ordinal as usize).map_err(named("opening the device"))?;
        let capability = context
            .compute_capability()
            .map_err(named("asking for the capability"))?;
        let capability = (capability.0 as u32, capability.1 as u32);
        if capability < (8, 0) {
            return Err(CudaError::Unfit {
                what: format!(
                    "the device has compute capability {}.{}, and 8.0 is needed",
                    capability.0, capability.1
                ),
                remedy: "take an Ampere GPU or a later one, or the CPU".into(),
            });
        }
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(named("cuStreamCreate"))?;
        // SAFETY: the context is current on this thread since it was opened.
        let base = unsafe { result::malloc_host(STAGING, 0) }.map_err(named("cuMemHostAlloc"))?;
        let blas = Blas::new(stream)?;
        let multiprocessors = context
            .attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
            .map_err(named("asking for the multiprocessors"))?;
        let info = DeviceInfo {
            name: context.name().map_err(named("asking for the name"))?,
            driver: ((version / 1000) as u32, (version % 1000 / 10) as u32),
            compiler: compile::version()?,
            blas: blas.version(),
            capability,
            multiprocessors: multiprocessors as u32,
            memory: context
                .total_mem()
                .map_err(named("asking for the memory"))? as u64,
        };
        Ok(Self {
            context,
            stream,
            info,
            blas: Mutex::new(blas),
            kernels: Mutex::default(),
            staging: Mutex::new(Staging {
                base: base.cast(),
                used: 0,
            }),
        })
    }

    fn bind(&self) -> Result<(), CudaError> {
        self.context
            .bind_to_thread()
            .map_err(named("binding the context"))
    }

    fn synchronise(&self) -> Result<(), CudaError> {
        // SAFETY: the stream lives as long as this value.
        unsafe { result::stream::synchronize(self.stream) }.map_err(named("work on the device"))
    }
}

fn driver_version() -> Result<i32, CudaError> {
    let mut version = 0;
    // SAFETY: the driver is loaded, and the place is this function's own.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }
        .result()
        .map_err(named("cuDriverGetVersion"))?;
    Ok(version)
}

impl Machine for Gpu {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn memory(&self) -> Result<(u64, u64), CudaError> {
        let (free, total) = self.context.mem_get_info().map_err(named("cuMemGetInfo"))?;
        Ok((free as u64, total as u64))
    }

    fn allocate(&self, bytes: usize) -> Result<u64, CudaError> {
        self.bind()?;
        // SAFETY: the context is bound; what is in the memory is nobody's assumption.
        unsafe { result::malloc_sync(bytes) }.map_err(|error| {
            if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
                let available = self.memory().map_or(0, |m| m.0);
                return CudaError::Memory {
                    needed: bytes as u64,
                    available,
                };
            }
            named("cuMemAlloc")(error)
        })
    }

    unsafe fn free(&self, address: u64) {
        // Freeing waits for the device, so that no work under way loses its memory. What fails here
        // failed before, and was reported there.
        if self.bind().is_ok() {
            // SAFETY: the caller promises that the address is of `allocate` and not used again.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    unsafe fn upload(&self, to: u64, bytes: &[u8]) -> Result<(), CudaError> {
        self.bind()?;
        let mut staging = lock(&self.staging);
        let mut done = 0;
        while done < bytes.len() {
            if staging.used == STAGING {
                self.synchronise()?;
                staging.used = 0;
            }
            let size = (bytes.len() - done).min(STAGING - staging.used);
            // SAFETY: the staging memory has STAGING bytes, of which those from `used` on are not
            // read by the device; they are written here and left alone until the stream was waited for.
            // The target range is the caller's promise.
            unsafe {
                let place = staging.base.add(staging.used);
                std::ptr::copy_nonoverlapping(bytes.as_ptr().add(done), place, size);
                let part = std::slice::from_raw_parts(place, size);
                result::memcpy_htod_async(to + done as u64, part, self.stream)
            }
            .map_err(named("copying to the device"))?;
            // Pieces start at multiples of 64, as copies are fastest then.
            staging.used = (staging.used + size).next_multiple_of(64).min(STAGING);
            done += size;
        }
        Ok(())
    }

    unsafe fn download(&self, from: u64, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.bind()?;
        let mut staging = lock(&self.staging);
        if bytes.len() <= STAGING / 2 {
            if staging.used + bytes.len() > STAGING {
                self.synchronise()?;
                staging.used = 0;
            }
            // SAFETY: the bytes of the staging memory from `used` on are free, and are read after the
            // stream was waited for. The source range is the caller's promise.
            unsafe {
                let place = staging.base.add(staging.used);
                let part = std::slice::from_raw_parts_mut(place, bytes.len());
                result::memcpy_dtoh_async(part, from, self.stream)
                    .map_err(named("copying from the device"))?;
                result::stream::synchronize(self.stream).map_err(named("work on the device"))?;
                std::ptr::copy_nonoverlapping(place, bytes.as_mut_ptr(), bytes.len());
            }
        } else {
            self.synchronise()?;
            // SAFETY: all work is done, and the call returns when the copy is.
            unsafe { result::memcpy_dtoh_sync(bytes, from) }
                .map_err(named("copying from the device"))?;
        }
        staging.used = 0;
        Ok(())
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: both ranges are the caller's promise.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream) }
            .map_err(named("copying on the device"))
    }

    unsafe fn clear(&self, at: u64, bytes: usize) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: the range is the caller's promise.
        unsafe { result::memset_d8_async(at, 0, bytes, self.stream) }
            .map_err(named("clearing memory"))
    }

    fn load(&self, program: &Program<'_>) -> Result<Vec<Kernel>, CudaError> {
        let compiled = compile::compile(program, self.info.capability)?;
        self.bind()?;
        // SAFETY: the image is what NVRTC made, whole, and lives through the call.
        let module = unsafe { result::module::load_data(compiled.image.as_ptr().cast()) }
            .map_err(named("loading kernels"))?;
        let mut kernels = lock(&self.kernels);
        kernels.modules.push(module);
        let mut all = Vec::with_capacity(program.kernels.len());
        for name in program.kernels {
            let text = CString::new(*name).map_err(|e| CudaError::failed(name, e))?;
            // SAFETY: the module was just loaded and stays until this value is dropped.
            let function = unsafe { result::module::get_function(module, text) }
                .map_err(|e| CudaError::failed(&format!("the kernel `{name}`"), e))?;
            all.push(Kernel(kernels.functions.len()));
            kernels.functions.push((function, (*name).to_owned()));
        }
        Ok(all)
    }

    fn resident(&self, kernel: Kernel, threads: u32) -> Result<u32, CudaError> {
        self.bind()?;
        let kernels = lock(&self.kernels);
        let (function, _) = kernels.get(kernel)?;
        // SAFETY: the function belongs to a loaded module.
        let blocks = unsafe {
            result::occupancy::max_active_block_per_multiprocessor(*function, threads as i32, 0)
        };
        let blocks = blocks.map_err(named("cuOccupancyMaxActiveBlocksPerMultiprocessor"))?;
        Ok(u32::try_from(blocks).unwrap_or(0))
    }

    unsafe fn launch(&self, kernel: Kernel, grid: Grid, words: &[u64]) -> Result<(), CudaError> {
        self.bind()?;
        let kernels = lock(&self.kernels);
        let (function, name) = kernels.get(kernel)?;
        let mut pointers = [std::ptr::null_mut::<c_void>(); 16];
        for (pointer, word) in pointers.iter_mut().zip(words) {
            *pointer = std::ptr::from_ref(word).cast_mut().cast();
        }
        let [x, y, z] = grid.blocks;
        // SAFETY: the function belongs to a loaded module; the driver copies the arguments before it
        // returns; that they fit the kernel is the caller's promise.
        unsafe {
            result::launch_kernel(
                *function,
                (x, y, z),
                (grid.threads, 1, 1),
                0,
                self.stream,
                &mut pointers[..words.len()],
            )
        }
        .map_err(|error| CudaError::failed(&format!("launching the kernel `{name}`"), said(error)))
    }

    unsafe fn gemm(&self, gemm: &Gemm, weights: u64, x: u64, out: u64) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: passed on.
        unsafe { lock(&self.blas).run(gemm, [weights, x, out]) }
    }

    unsafe fn tune(&self, gemm: &Gemm, weights: u64, x: u64, out: u64) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: passed on.
        unsafe { lock(&self.blas).tune(gemm, [weights, x, out]) }
    }

    fn begin_graph(&self) -> Result<(), CudaError> {
        self.bind()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as this value.
        unsafe { result::stream::begin_capture(self.stream, mode) }
            .map_err(named("beginning to record"))
    }

    fn end_graph(&self) -> Result<u64, CudaError> {
        self.bind()?;
        // SAFETY: the stream lives as long as this value.
        let graph = unsafe { result::stream::end_capture(self.stream) }
            .map_err(named("ending to record"))?;
        if graph.is_null() {
            return Err(CudaError::failed("ending to record", "there is no graph"));
        }
        // SAFETY: the graph was just made, and is destroyed once, after the executable was made of it.
        let (executable, destroyed) = unsafe {
            (
                result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)),
                result::graph::destroy(graph),
            )
        };
        let executable = executable.map_err(named("preparing a graph"))?;
        destroyed.map_err(named("preparing a graph"))?;
        Ok(executable as u64)
    }

    unsafe fn replay(&self, graph: u64) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: the number is the handle that `end_graph` gave, still alive by the caller's promise.
        unsafe { result::graph::launch(graph as sys::CUgraphExec, self.stream) }
            .map_err(named("launching a graph"))
    }

    unsafe fn drop_graph(&self, graph: u64) {
        // An executable may be destroyed while it runs; the driver sees to it.
        if self.bind().is_ok() {
            // SAFETY: the number is the handle that `end_graph` gave, not used again.
            let _ = unsafe { result::graph::exec_destroy(graph as sys::CUgraphExec) };
        }
    }

    fn wait(&self) -> Result<(), CudaError> {
        self.bind()?;
        self.synchronise()?;
        lock(&self.staging).used = 0;
        Ok(())
    }

    fn mark(&self) -> Result<Mark, CudaError> {
        self.bind()?;
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT)
            .map_err(named("cuEventCreate"))?;
        // SAFETY: the event was just made, and the stream lives as long as this value.
        let recorded = unsafe { result::event::record(event, self.stream) };
        if let Err(error) = recorded {
            self.drop_mark(event as u64);
            return Err(named("cuEventRecord")(error));
        }
        Ok(Mark(event as u64))
    }

    fn between(&self, from: &Mark, to: &Mark) -> Result<f32, CudaError> {
        self.bind()?;
        let (from, to) = (from.0 as sys::CUevent, to.0 as sys::CUevent);
        // SAFETY: both numbers are handles that `mark` gave, not dropped yet as they are borrowed.
        unsafe {
            result::event::synchronize(to).map_err(named("work on the device"))?;
            result::event::elapsed(from, to).map_err(named("cuEventElapsedTime"))
        }
    }

    fn drop_mark(&self, mark: u64) {
        if self.bind().is_ok() {
            // SAFETY: the number is a handle that `mark` gave; its owner drops it once.
            let _ = unsafe { result::event::destroy(mark as sys::CUevent) };
        }
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if self.bind().is_err() {
            return;
        }
        let _ = self.synchronise();
        lock(&self.blas).close();
        let modules = std::mem::take(&mut lock(&self.kernels).modules);
        let base = lock(&self.staging).base;
        // SAFETY: all work is done, and every handle is this value's own and freed here once. Buffers,
        // graphs and marks hold the machine, so none is left.
        unsafe {
            for module in modules {
                let _ = result::module::unload(module);
            }
            let _ = result::free_host(base.cast());
            let _ = result::stream::destroy(self.stream);
        }
    }
}
