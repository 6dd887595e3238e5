//! The emulator: kernels compiled by the C++ compiler of the host, one thread after the other. Every
//! allocation lies between two zones whose bytes are watched, and begins as numbers that are none.

use crate::error::CudaError;
use crate::machine::{DeviceInfo, Gemm, Grid, Kernel, Machine, Mark, Numbers, Program};
use half::bf16;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

const PRELUDE: &str = include_str!("prelude/host.hpp");
/// Bytes of a watched zone, and what is in it.
const ZONE: usize = 256;
const WATCHED: u8 = 0xa5;

type Launch = unsafe extern "C" fn(
    kernel: u32,
    count: u32,
    grid: *const u32,
    threads: *const u32,
    args: *mut *mut c_void,
) -> *const c_char;

#[derive(Debug)]
pub(crate) struct Emulator {
    info: DeviceInfo,
    folder: PathBuf,
    start: Instant,
    state: Mutex<State>,
    /// Calls until the device is lost.
    left: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    memory: BTreeMap<u64, Vec<u64>>,
    /// Where in its memory an allocation begins, and its bytes.
    sizes: BTreeMap<u64, (usize, usize)>,
    /// Where a kernel begins, and its number in its program.
    kernels: Vec<(Launch, u32)>,
    libraries: Vec<libloading::Library>,
    recording: Option<Vec<Work>>,
    graphs: BTreeMap<u64, Vec<Work>>,
    next_graph: u64,
}

#[derive(Clone, Debug)]
enum Work {
    Launch(Kernel, Grid, Vec<u64>),
    Gemm(Gemm, [u64; 3]),
}

impl Emulator {
    pub(crate) fn new(folder: &Path) -> Result<Self, CudaError> {
        let found = Command::new("c++").arg("--version").output();
        if !found.is_ok_and(|o| o.status.success()) {
            return Err(CudaError::Missing {
                what: "the C++ compiler c++".into(),
                looked: "looked in PATH".into(),
                remedy: "install one; only the emulator needs it".into(),
            });
        }
        std::fs::create_dir_all(folder)
            .map_err(|e| CudaError::failed("making the emulator's folder", e))?;
        Ok(Self {
            info: DeviceInfo {
                name: "emulator".into(),
                driver: (0, 0),
                compiler: (0, 0),
                blas: (0, 0, 0),
                capability: (0, 0),
                multiprocessors: 4,
                memory: 4 << 30,
            },
            folder: folder.to_owned(),
            start: Instant::now(),
            state: Mutex::default(),
            left: AtomicU64::new(u64::MAX),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call; an error once the device is lost.
    fn there(&self, call: &str) -> Result<(), CudaError> {
        let count = |left: u64| Some(left.saturating_sub(u64::from(left != u64::MAX)));
        match self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count)
        {
            Ok(0) | Err(_) => Err(CudaError::failed(call, "the device is lost")),
            Ok(_) => Ok(()),
        }
    }

    /// Compiles a program once per text; the file's name is a digest of it.
    fn build(&self, program: &Program<'_>) -> Result<PathBuf, CudaError> {
        let mut text = program.source(PRELUDE);
        text.push_str(
            "\nextern \"C\" const char *emulate(u32 kernel, u32 count, const u32 *grid, const u32 *threads, void **args) {\n    switch (kernel) {\n",
        );
        for (i, name) in program.kernels.iter().enumerate() {
            text.push_str(&format!(
                "    case {i}: return launch({name}, count, grid, threads, args);\n"
            ));
        }
        text.push_str("    }\n    return \"no such kernel\";\n}\n");
        let digest = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
        });
        let library = self.folder.join(format!("{digest:016x}.so"));
        if library.exists() {
            return Ok(library);
        }
        // Others may build the same program now: each has files of its own, and the last name wins.
        static BUILDS: AtomicU64 = AtomicU64::new(0);
        let build = BUILDS.fetch_add(1, Ordering::Relaxed);
        let own = format!("{}-{build}", std::process::id());
        let source = self.folder.join(format!("{digest:016x}.{own}.cpp"));
        let made = self.folder.join(format!("{digest:016x}.{own}.part"));
        let failed = |e: std::io::Error| CudaError::failed("building the emulator", e);
        std::fs::write(&source, text).map_err(failed)?;
        let output = Command::new("c++")
            .args(["-std=c++17", "-O2", "-fPIC", "-shared", "-ffp-contract=off"])
            .args(["-Wno-unknown-pragmas", "-o"])
            .arg(&made)
            .arg(&source)
            .output()
            .map_err(failed)?;
        if !output.status.success() {
            return Err(CudaError::Compile {
                log: String::from_utf8_lossy(&output.stderr).into_owned(),
            });
        }
        std::fs::rename(&made, &library).map_err(failed)?;
        let _ = std::fs::remove_file(&source);
        Ok(library)
    }
}

impl State {
    /// # Safety
    /// As for `Machine::launch`.
    unsafe fn launch(&self, kernel: Kernel, grid: Grid, words: &[u64]) -> Result<(), CudaError> {
        let Some(&(launch, number)) = self.kernels.get(kernel.0) else {
            return Err(CudaError::Misuse {
                what: "a kernel of another device".into(),
            });
        };
        let mut words = words.to_vec();
        let mut args: Vec<*mut c_void> = words.iter_mut().map(|w| (&raw mut *w).cast()).collect();
        let threads = [grid.threads, 1, 1];
        let count = args.len() as u32;
        // A library keeps the state of its block, and two emulators may have loaded the same one.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the function comes from a library that stays loaded, and runs once at a time; arguments are
        // the caller's promise.
        let error = unsafe {
            launch(
                number,
                count,
                grid.blocks.as_ptr(),
                threads.as_ptr(),
                args.as_mut_ptr(),
            )
        };
        drop(guard);
        if !error.is_null() {
            // SAFETY: the function returns null or a string of its own, ended by zero.
            let text = unsafe { CStr::from_ptr(error) }.to_string_lossy();
            return Err(CudaError::failed("a kernel", text));
        }
        self.check_zones()
    }

    fn check_zones(&self) -> Result<(), CudaError> {
        for (address, memory) in &self.memory {
            let (begin, bytes) = self.sizes.get(address).copied().unwrap_or((0, 0));
            // SAFETY: any memory of numbers may be read as bytes.
            let all = unsafe {
                std::slice::from_raw_parts(memory.as_ptr().cast::<u8>(), 8 * memory.len())
            };
            let whole = |zone: &[u8]| zone.iter().all(|&b| b == WATCHED);
            if !whole(&all[..begin]) || !whole(&all[begin + bytes..]) {
                return Err(CudaError::failed(
                    "a kernel",
                    format!("it wrote outside of a buffer of {bytes} bytes"),
                ));
            }
        }
        Ok(())
    }

    /// # Safety
    /// As for `Machine::gemm`.
    unsafe fn gemm(gemm: &Gemm, [weights, x, out]: [u64; 3]) {
        // SAFETY: the caller promises that the matrices lie in allocations, which are aligned.
        unsafe {
            let read = |numbers: Numbers, base: u64, i: usize| match numbers {
                Numbers::F32 => *(base as *const f32).add(i),
                Numbers::Bf16 => (*(base as *const bf16).add(i)).to_f32(),
            };
            let row_of = |base: u64, row: usize| -> Vec<f32> {
                (0..gemm.inputs)
                    .map(|k| read(gemm.numbers, base, row * gemm.inputs + k))
                    .collect()
            };
            let rows: Vec<Vec<f32>> = (0..gemm.rows).map(|r| row_of(x, r)).collect();
            for o in 0..gemm.outputs {
                let w = row_of(weights, o);
                for (r, row) in rows.iter().enumerate() {
                    let mut sum: f32 = row.iter().zip(&w).map(|(a, b)| a * b).sum();
                    let at = r * gemm.stride + o;
                    if gemm.add {
                        sum += read(gemm.result, out, at);
                    }
                    match gemm.result {
                        Numbers::F32 => *(out as *mut f32).add(at) = sum,
                        Numbers::Bf16 => *(out as *mut bf16).add(at) = bf16::from_f32(sum),
                    }
                }
            }
        }
    }
}

impl Machine for Emulator {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn memory(&self) -> Result<(u64, u64), CudaError> {
        let used: usize = self.state().sizes.values().map(|s| s.1).sum();
        Ok((
            self.info.memory.saturating_sub(used as u64),
            self.info.memory,
        ))
    }

    fn allocate(&self, bytes: usize) -> Result<u64, CudaError> {
        self.there("taking memory")?;
        let (available, _) = self.memory()?;
        if bytes as u64 > available {
            return Err(CudaError::Memory {
                needed: bytes as u64,
                available,
            });
        }
        let words = (2 * ZONE + bytes).div_ceil(8);
        // One zone more, so that the beginning can be moved to a multiple of 256, as the driver does.
        let mut memory = vec![u64::from_ne_bytes([WATCHED; 8]); words + ZONE / 8];
        let base = memory.as_mut_ptr() as u64;
        let begin = (base.next_multiple_of(ZONE as u64) - base) as usize + ZONE;
        // SAFETY: the part lies within the memory just made.
        unsafe { std::ptr::write_bytes(memory.as_mut_ptr().cast::<u8>().add(begin), 0xff, bytes) };
        let address = base + begin as u64;
        let mut state = self.state();
        state.memory.insert(address, memory);
        state.sizes.insert(address, (begin, bytes));
        Ok(address)
    }

    unsafe fn free(&self, address: u64) {
        let mut state = self.state();
        state.memory.remove(&address);
        state.sizes.remove(&address);
    }

    unsafe fn upload(&self, to: u64, bytes: &[u8]) -> Result<(), CudaError> {
        self.there("copying to the device")?;
        // SAFETY: the range is the caller's promise, and a slice of the host lies elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }

    unsafe fn download(&self, from: u64, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.there("copying from the device")?;
        // SAFETY: the range is the caller's promise, and a slice of the host lies elsewhere.
        unsafe {
            std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len())
        };
        Ok(())
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), CudaError> {
        self.there("copying on the device")?;
        // SAFETY: both ranges are the caller's promise, and apart.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    unsafe fn clear(&self, at: u64, bytes: usize) -> Result<(), CudaError> {
        self.there("clearing memory")?;
        // SAFETY: the range is the caller's promise.
        unsafe { std::ptr::write_bytes(at as *mut u8, 0, bytes) };
        Ok(())
    }

    fn load(&self, program: &Program<'_>) -> Result<Vec<Kernel>, CudaError> {
        let file = self.build(program)?;
        // SAFETY: the library was made of the prelude and trusted kernels; it runs nothing when loaded.
        let library = unsafe { libloading::Library::new(&file) }
            .map_err(|e| CudaError::failed("loading the emulated kernels", e))?;
        // SAFETY: the prelude defines the function so.
        let launch = unsafe { library.get::<Launch>(b"emulate") }
            .map(|f| *f)
            .map_err(|e| CudaError::failed("loading the emulated kernels", e))?;
        let mut state = self.state();
        let first = state.kernels.len();
        state.libraries.push(library);
        for i in 0..program.kernels.len() {
            state.kernels.push((launch, i as u32));
        }
        Ok((first..state.kernels.len()).map(Kernel).collect())
    }

    fn resident(&self, _: Kernel, _: u32) -> Result<u32, CudaError> {
        Ok(4)
    }

    unsafe fn launch(&self, kernel: Kernel, grid: Grid, words: &[u64]) -> Result<(), CudaError> {
        self.there("launching a kernel")?;
        let mut state = self.state();
        if let Some(recording) = &mut state.recording {
            recording.push(Work::Launch(kernel, grid, words.to_vec()));
            return Ok(());
        }
        // SAFETY: passed on.
        unsafe { state.launch(kernel, grid, words) }
    }

    unsafe fn gemm(&self, gemm: &Gemm, weights: u64, x: u64, out: u64) -> Result<(), CudaError> {
        self.there("a product")?;
        let mut state = self.state();
        if let Some(recording) = &mut state.recording {
            recording.push(Work::Gemm(*gemm, [weights, x, out]));
            return Ok(());
        }
        // SAFETY: passed on.
        unsafe { State::gemm(gemm, [weights, x, out]) };
        Ok(())
    }

    unsafe fn tune(&self, _: &Gemm, _: u64, _: u64, _: u64) -> Result<(), CudaError> {
        Ok(())
    }

    fn begin_graph(&self) -> Result<(), CudaError> {
        self.there("beginning to record")?;
        self.state().recording = Some(Vec::new());
        Ok(())
    }

    fn end_graph(&self) -> Result<u64, CudaError> {
        let mut state = self.state();
        let work = state.recording.take().unwrap_or_default();
        self.there("ending to record")?;
        state.next_graph += 1;
        let graph = state.next_graph;
        state.graphs.insert(graph, work);
        Ok(graph)
    }

    unsafe fn replay(&self, graph: u64) -> Result<(), CudaError> {
        self.there("launching a graph")?;
        let state = self.state();
        for work in state.graphs.get(&graph).into_iter().flatten() {
            // SAFETY: the work was checked when it was recorded; that its buffers are alive is the
            // caller's promise.
            unsafe {
                match work {
                    Work::Launch(kernel, grid, words) => state.launch(*kernel, *grid, words)?,
                    Work::Gemm(gemm, matrices) => State::gemm(gemm, *matrices),
                }
            }
        }
        Ok(())
    }

    unsafe fn drop_graph(&self, graph: u64) {
        self.state().graphs.remove(&graph);
    }

    fn wait(&self) -> Result<(), CudaError> {
        self.there("work on the device")
    }

    fn mark(&self) -> Result<Mark, CudaError> {
        Ok(Mark(self.start.elapsed().as_nanos() as u64))
    }

    /// Of the emulator itself: nothing follows from it for a device.
    fn between(&self, from: &Mark, to: &Mark) -> Result<f32, CudaError> {
        Ok((to.0 - from.0) as f32 * 1e-6)
    }

    fn drop_mark(&self, _: u64) {}

    fn lose_after(&self, calls: u64) {
        self.left.store(calls, Ordering::Relaxed);
    }
}
