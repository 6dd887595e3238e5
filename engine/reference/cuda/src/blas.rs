//! Matrix products by cuBLASLt. A product's plan (descriptors and the algorithm) is kept by its sizes
//! and the alignment of its matrices.

use crate::error::CudaError;
use crate::machine::{Gemm, Numbers};
use cudarc::cublaslt::result as lt;
use cudarc::cublaslt::sys;
use cudarc::driver::result as driver;
use cudarc::driver::sys::{CUevent_flags, CUstream};
use std::collections::BTreeMap;
use std::ffi::c_void;

/// Bytes of scratch memory for algorithms; what cuBLAS itself takes on Hopper.
const WORKSPACE: usize = 32 << 20;
/// Algorithms that are tried when a product is tuned, and how often each.
const CANDIDATES: usize = 16;
const REPEATS: usize = 5;
/// Written between two trials, so that weights come from memory as they do in a model: more than
/// any second-level cache.
const FLUSH: usize = 192 << 20;

#[derive(Debug)]
pub(crate) struct Blas {
    handle: sys::cublasLtHandle_t,
    stream: CUstream,
    workspace: u64,
    plans: BTreeMap<(Gemm, [u8; 3]), Plan>,
}

/// Descriptors, all owned.
#[derive(Debug)]
struct Plan {
    product: sys::cublasLtMatmulDesc_t,
    weights: sys::cublasLtMatrixLayout_t,
    x: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
    algorithm: sys::cublasLtMatmulAlgo_t,
    tuned: bool,
}

fn failed(what: &'static str) -> impl Fn(lt::CublasError) -> CudaError {
    move |error| CudaError::failed(what, error)
}

const fn kind(numbers: Numbers) -> sys::cudaDataType {
    match numbers {
        Numbers::F32 => sys::cudaDataType::CUDA_R_32F,
        Numbers::Bf16 => sys::cudaDataType::CUDA_R_16BF,
    }
}

/// The power of two up to 256 that divides an address, as its exponent.
fn alignment(address: u64) -> u8 {
    address.trailing_zeros().min(8) as u8
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: the descriptors are this plan's own; null ones were never made.
        unsafe {
            for layout in [self.weights, self.x, self.out] {
                if !layout.is_null() {
                    let _ = lt::destroy_matrix_layout(layout);
                }
            }
            if !self.product.is_null() {
                let _ = lt::destroy_matmul_desc(self.product);
            }
        }
    }
}

impl Plan {
    /// Descriptors without an algorithm yet. The library counts by columns, so a matrix of rows is its
    /// transpose there: out' = (weights')' x'.
    fn new(gemm: &Gemm) -> Result<Self, CudaError> {
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let scale = sys::cudaDataType::CUDA_R_32F;
        let mut plan = Self {
            product: lt::create_matmul_desc(compute, scale)
                .map_err(failed("cublasLtMatmulDescCreate"))?,
            weights: std::ptr::null_mut(),
            x: std::ptr::null_mut(),
            out: std::ptr::null_mut(),
            algorithm: sys::cublasLtMatmulAlgo_t { data: [0; 8] },
            tuned: false,
        };
        let layout = failed("cublasLtMatrixLayoutCreate");
        let (rows, outputs, inputs) = (gemm.rows as u64, gemm.outputs as u64, gemm.inputs as u64);
        let numbers = kind(gemm.numbers);
        plan.weights =
            lt::create_matrix_layout(numbers, inputs, outputs, inputs as i64).map_err(&layout)?;
        plan.x = lt::create_matrix_layout(numbers, inputs, rows, inputs as i64).map_err(&layout)?;
        plan.out = lt::create_matrix_layout(kind(gemm.result), outputs, rows, gemm.stride as i64)
            .map_err(&layout)?;
        // CUBLAS_OP_T.
        let transposed = 1_i32;
        // SAFETY: the descriptor is alive, and the value has the type and size of this attribute.
        unsafe {
            lt::set_matmul_desc_attribute(
                plan.product,
                sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA,
                (&raw const transposed).cast(),
                size_of_val(&transposed),
            )
        }
        .map_err(failed("cublasLtMatmulDescSetAttribute"))?;
        Ok(plan)
    }

    /// The algorithms that the library proposes, the most promising first.
    fn candidates(
        &self,
        handle: sys::cublasLtHandle_t,
        alignments: [u8; 3],
        count: usize,
    ) -> Result<Vec<sys::cublasLtMatmulAlgo_t>, CudaError> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference =
            lt::create_matmul_pref().map_err(failed("cublasLtMatmulPreferenceCreate"))?;
        let [weights, x, out] = alignments.map(|a| 1_u32 << a);
        let workspace = WORKSPACE;
        let set = |attribute, value: *const c_void, size| {
            // SAFETY: the preference is alive until the end of this function; the value is of the
            // type and size of its attribute.
            unsafe { lt::set_matmul_pref_attribute(preference, attribute, value, size) }
        };
        let settings = [
            (
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                weights,
            ),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, x),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out),
        ];
        let mut done = set(
            Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            (&raw const workspace).cast(),
            size_of::<usize>(),
        );
        for (attribute, value) in &settings {
            done = done.and_then(|()| set(*attribute, std::ptr::from_ref(value).cast(), 4));
        }
        let empty = sys::cublasLtMatmulHeuristicResult_t {
            algo: sys::cublasLtMatmulAlgo_t { data: [0; 8] },
            workspaceSize: 0,
            state: sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED,
            wavesCount: 0.0,
            reserved: [0; 4],
        };
        let mut found = vec![empty; count];
        let mut number = 0;
        let done = done.and_then(|()| {
            // SAFETY: all descriptors are alive, and there is room for `count` results.
            unsafe {
                sys::cublasLtMatmulAlgoGetHeuristic(
                    handle,
                    self.product,
                    self.weights,
                    self.x,
                    self.out,
                    self.out,
                    preference,
                    count as i32,
                    found.as_mut_ptr(),
                    &raw mut number,
                )
            }
            .result()
        });
        // SAFETY: the preference is alive and not used again.
        let _ = unsafe { lt::destroy_matmul_pref(preference) };
        done.map_err(failed("cublasLtMatmulAlgoGetHeuristic"))?;
        found.truncate(usize::try_from(number).unwrap_or(0));
        Ok(found
            .into_iter()
            .filter(|f| {
                f.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS
                    && f.workspaceSize <= WORKSPACE
            })
            .map(|f| f.algo)
            .collect())
    }
}

impl Blas {
    /// The context must be current.
    pub(crate) fn new(stream: CUstream) -> Result<Self, CudaError> {
        let handle = lt::create_handle().map_err(failed("cublasLtCreate"))?;
        // SAFETY: the context is current.
        let workspace = unsafe { driver::malloc_sync(WORKSPACE) };
        let workspace = workspace.map_err(|e| CudaError::failed("cuBLASLt's workspace", e))?;
        Ok(Self {
            handle,
            stream,
            workspace,
            plans: BTreeMap::new(),
        })
    }

    pub(crate) fn version(&self) -> (u32, u32, u32) {
        // SAFETY: the library is loaded: there is a handle.
        let version = unsafe { sys::cublasLtGetVersion() } as u32;
        // 13.0.2 is 130002 since version 11; before, there were fewer digits.
        (version / 10_000, version / 100 % 100, version % 100)
    }

    /// Frees everything. The context must be current, and nothing may run.
    pub(crate) fn close(&mut self) {
        self.plans.clear();
        if !self.handle.is_null() {
            // SAFETY: the handle and the memory are this value's own, and used no more.
            unsafe {
                let _ = lt::destroy_handle(self.handle);
                let _ = driver::free_sync(self.workspace);
            }
            self.handle = std::ptr::null_mut();
        }
    }

    fn plan(&mut self, gemm: &Gemm, alignments: [u8; 3]) -> Result<&mut Plan, CudaError> {
        let key = (*gemm, alignments);
        if !self.plans.contains_key(&key) {
            let mut plan = Plan::new(gemm)?;
            let found = plan.candidates(self.handle, alignments, 1)?;
            let Some(first) = found.first() else {
                return Err(CudaError::failed(
                    "cuBLASLt",
                    format!("it has no algorithm for {gemm:?}"),
                ));
            };
            plan.algorithm = *first;
            self.plans.insert(key, plan);
        }
        self.plans
            .get_mut(&key)
            .ok_or_else(|| CudaError::failed("cuBLASLt", "a plan was lost"))
    }

    /// Computes a product of the matrices at three addresses: weights, `x` and output.
    ///
    /// # Safety
    /// The matrices lie in allocations, and the context is current.
    pub(crate) unsafe fn run(&mut self, gemm: &Gemm, at: [u64; 3]) -> Result<(), CudaError> {
        let alignments = at.map(alignment);
        let (handle, stream, workspace) = (self.handle, self.stream, self.workspace);
        let plan = self.plan(gemm, alignments)?;
        // SAFETY: passed on; the plan is of these sizes and alignments.
        unsafe {
            product(
                handle,
                stream,
                workspace,
                plan,
                &plan.algorithm,
                gemm.add,
                at,
            )
        }
    }

    /// # Safety
    /// As for `run`.
    pub(crate) unsafe fn tune(&mut self, gemm: &Gemm, at: [u64; 3]) -> Result<(), CudaError> {
        let alignments = at.map(alignment);
        let (handle, stream, workspace) = (self.handle, self.stream, self.workspace);
        let plan = self.plan(gemm, alignments)?;
        if plan.tuned {
            return Ok(());
        }
        let found = plan.candidates(handle, alignments, CANDIDATES)?;
        // SAFETY: the context is current. If there is no room, the first proposal stays.
        let Ok(flush) = (unsafe { driver::malloc_sync(FLUSH) }) else {
            return Ok(());
        };
        let mut best = f32::INFINITY;
        for algorithm in found {
            let mut shortest = f32::INFINITY;
            for _ in 0..REPEATS {
                // SAFETY: the memory was allocated above; the matrices are the caller's promise.
                let time = unsafe {
                    let _ = driver::memset_d8_async(flush, 0, FLUSH, stream);
                    timed(stream, || {
                        product(handle, stream, workspace, plan, &algorithm, gemm.add, at)
                    })
                };
                // An algorithm that does not run is no candidate.
                let Ok(time) = time else {
                    shortest = f32::INFINITY;
                    break;
                };
                shortest = shortest.min(time);
            }
            if shortest < best {
                best = shortest;
                plan.algorithm = algorithm;
            }
        }
        plan.tuned = true;
        // SAFETY: the memory was allocated above, and the stream was waited for.
        let _ = unsafe { driver::free_sync(flush) };
        Ok(())
    }
}

/// # Safety
/// The matrices lie in allocations of the plan's sizes, and the context is current.
unsafe fn product(
    handle: sys::cublasLtHandle_t,
    stream: CUstream,
    workspace: u64,
    plan: &Plan,
    algorithm: &sys::cublasLtMatmulAlgo_t,
    add: bool,
    [weights, x, out]: [u64; 3],
) -> Result<(), CudaError> {
    let (one, rest) = (1_f32, if add { 1_f32 } else { 0_f32 });
    // SAFETY: descriptors are the plan's; addresses are the caller's promise; the two factors are read
    // before the call returns, as they are pointers to the host.
    unsafe {
        lt::matmul(
            handle,
            plan.product,
            (&raw const one).cast(),
            (&raw const rest).cast(),
            weights as *const c_void,
            plan.weights,
            x as *const c_void,
            plan.x,
            out as *const c_void,
            plan.out,
            out as *mut c_void,
            plan.out,
            algorithm,
            workspace as *mut c_void,
            WORKSPACE,
            stream.cast(),
        )
    }
    .map_err(failed("cublasLtMatmul"))
}

/// Milliseconds that work takes on the stream.
///
/// # Safety
/// The context is current.
unsafe fn timed(
    stream: CUstream,
    work: impl FnOnce() -> Result<(), CudaError>,
) -> Result<f32, CudaError> {
    let failed = |e| CudaError::failed("timing", e);
    let event = || driver::event::create(CUevent_flags::CU_EVENT_DEFAULT).map_err(failed);
    let (from, to) = (event()?, event()?);
    // SAFETY: both events were just made and are destroyed once, after they were waited for.
    unsafe {
        let time = driver::event::record(from, stream)
            .map_err(failed)
            .and_then(|()| work())
            .and_then(|()| driver::event::record(to, stream).map_err(failed))
            .and_then(|()| driver::event::synchronize(to).map_err(failed))
            .and_then(|()| driver::event::elapsed(from, to).map_err(failed));
        let _ = (driver::event::destroy(from), driver::event::destroy(to));
        time
    }
}
