//! Matrix products of a step: by cuBLASLt, or by own kernels where those are faster.

use super::CudaBackend;
use windtunnel_cuda::{Arg, CudaError, Gemm, Grid, Kernel, Numbers, Place};

/// Matrices of a layer, and the head.
pub(super) const MATRICES: usize = 5;

/// Which matrix a product is with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Matrix {
    Qkv,
    Output,
    GateUp,
    Down,
    Head,
}

impl Matrix {
    pub(super) const ALL: [Self; MATRICES] = [
        Self::Qkv,
        Self::Output,
        Self::GateUp,
        Self::Down,
        Self::Head,
    ];
}

impl CudaBackend {
    /// Sizes of a product with a matrix.
    pub(super) fn gemm_of(&self, matrix: Matrix, rows: usize) -> Gemm {
        let s = &self.sizes;
        let (outputs, inputs) = match matrix {
            Matrix::Qkv => (s.qkv_width(), s.hidden),
            Matrix::Output => (s.hidden, s.query_width()),
            Matrix::GateUp => (2 * s.ffn, s.hidden),
            Matrix::Down => (s.hidden, s.ffn),
            Matrix::Head => (s.vocab, s.hidden),
        };
        let add = matches!(matrix, Matrix::Output | Matrix::Down);
        let wide = add || matrix == Matrix::Head;
        Gemm {
            rows,
            outputs,
            inputs,
            stride: outputs,
            numbers: self.options.numbers,
            result: if wide {
                Numbers::F32
            } else {
                self.options.numbers
            },
            add,
        }
    }

    /// The own kernel for a product, if it has one.
    pub(super) fn skinny_kernel(&self, gemm: &Gemm) -> Option<Kernel> {
        let kernels = self.kernels.skinny?[usize::from(gemm.rows > 8)];
        (gemm.rows <= 16).then(|| match (gemm.add, gemm.result) {
            (true, _) => kernels[2],
            (false, Numbers::F32) => kernels[1],
            (false, Numbers::Bf16) => kernels[0],
        })
    }

    pub(super) fn launch_skinny(
        &self,
        kernel: Kernel,
        gemm: &Gemm,
        weights: Place<'_>,
        x: Place<'_>,
        out: Place<'_>,
    ) -> Result<(), CudaError> {
        let args = [
            weights.arg(),
            x.arg(),
            out.arg(),
            Arg::U32(gemm.rows as u32),
            Arg::U32(gemm.outputs as u32),
            Arg::U32(gemm.inputs as u32),
            Arg::U32(gemm.stride as u32),
        ];
        let grid = Grid::new(gemm.outputs.div_ceil(16) as u32, 256);
        self.device.launch(kernel, grid, &args)
    }

    /// Whether the own kernel computes a product.
    pub(super) fn is_own(&self, matrix: Matrix, rows: usize) -> bool {
        rows <= 16
            && self.skinny[rows.next_power_of_two().ilog2() as usize][matrix as usize]
            && self.kernels.skinny.is_some()
    }

    /// A product with a layer's matrix and the buffers of a step, for measuring.
    pub(super) fn product_of(
        &self,
        matrix: Matrix,
        rows: usize,
        layer: usize,
    ) -> Result<(), CudaError> {
        let (weights, x, out) = self.matrices(matrix, layer);
        self.product(matrix, rows, weights, x, out)
    }

    pub(super) fn product(
        &self,
        matrix: Matrix,
        rows: usize,
        weights: Place<'_>,
        x: Place<'_>,
        out: Place<'_>,
    ) -> Result<(), CudaError> {
        let gemm = self.gemm_of(matrix, rows);
        if self.is_own(matrix, rows)
            && let Some(kernel) = self.skinny_kernel(&gemm)
        {
            return self.launch_skinny(kernel, &gemm, weights, x, out);
        }
        self.device.gemm(&gemm, weights, x, out)
    }
}
