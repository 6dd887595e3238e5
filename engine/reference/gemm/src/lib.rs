//! Matrix products on the CPU behind a safe interface.
//!
//! They are those of the library that candle uses, called without what candle does around each: it asks the
//! system for the number of its cores every time, which takes longer than a product of few rows with a
//! small matrix.

use gemm::Parallelism;

/// A matrix of `inputs` rows and `outputs` columns, row by row.
#[derive(Clone, PartialEq, Debug)]
pub struct Matrix {
    inputs: usize,
    outputs: usize,
    numbers: Vec<f32>,
}

/// Who computes a product.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Threads {
    /// The thread that asks for it.
    One,
    /// All of the pool that the thread is in.
    All,
}

impl Matrix {
    /// A matrix of these numbers; none if they are not `inputs` times `outputs`.
    pub fn new(inputs: usize, outputs: usize, numbers: Vec<f32>) -> Option<Self> {
        let fits = inputs.checked_mul(outputs) == Some(numbers.len());
        fits.then_some(Self {
            inputs,
            outputs,
            numbers,
        })
    }

    /// Rows: numbers of a row of what it is multiplied with.
    pub const fn inputs(&self) -> usize {
        self.inputs
    }

    /// Columns: numbers of a row of the product.
    pub const fn outputs(&self) -> usize {
        self.outputs
    }

    /// The rows of `x`, of `inputs` numbers each, by this matrix: as many rows of `outputs` numbers. What is
    /// left over of `x` after its last whole row does not count. Sums are 32-bit floats, and the same
    /// whoever computes them.
    pub fn product(&self, x: &[f32], threads: Threads) -> Vec<f32> {
        let rows = x.len().checked_div(self.inputs).unwrap_or(0);
        let mut out = vec![0.0; rows * self.outputs];
        let (inputs, outputs) = (self.inputs as isize, self.outputs as isize);
        let parallelism = match threads {
            Threads::One => Parallelism::None,
            Threads::All => Parallelism::Rayon(0),
        };
        // SAFETY: `x` has `rows` rows of `inputs` numbers, the matrix `inputs` of `outputs`, and `out` is as
        // large as the product, of its own and not read; rows lie one after the other in all three.
        unsafe {
            gemm::gemm(
                rows,
                self.outputs,
                self.inputs,
                out.as_mut_ptr(),
                1,
                outputs,
                false,
                x.as_ptr(),
                1,
                inputs,
                self.numbers.as_ptr(),
                1,
                outputs,
                0.0_f32,
                1.0_f32,
                false,
                false,
                false,
                parallelism,
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut x = seed;
        let mut next = || {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (x >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn products_are_sums_of_products_whoever_computes_them() {
        for (rows, inputs, outputs) in [
            (1, 1, 1),
            (3, 5, 7),
            (17, 64, 33),
            (64, 256, 300),
            (0, 4, 4),
        ] {
            let (x, m) = (numbers(rows * inputs, 1), numbers(inputs * outputs, 2));
            let matrix = Matrix::new(inputs, outputs, m.clone()).unwrap();
            let got = matrix.product(&x, Threads::One);
            assert_eq!(got.len(), rows * outputs);
            assert_eq!(got, matrix.product(&x, Threads::All));
            for r in 0..rows {
                for o in 0..outputs {
                    let terms = (0..inputs)
                        .map(|k| f64::from(x[r * inputs + k]) * f64::from(m[k * outputs + o]));
                    let want: f64 = terms.sum();
                    // As many roundings of 2^-24 as there are terms, each of which is at most one.
                    let bound = inputs as f64 * inputs as f64 / f64::from(1 << 24);
                    let off = (f64::from(got[r * outputs + o]) - want).abs();
                    assert!(off <= bound, "{rows} x {inputs} x {outputs}: {off}");
                }
            }
        }
    }

    #[test]
    fn a_matrix_has_as_many_numbers_as_its_sizes_say() {
        assert!(Matrix::new(2, 3, vec![0.0; 5]).is_none());
        assert!(Matrix::new(usize::MAX, 2, vec![]).is_none());
        let matrix = Matrix::new(2, 1, vec![3.0, 5.0]).unwrap();
        // Half a row is none.
        assert_eq!(matrix.product(&[1.0, 2.0, 9.0], Threads::One), [13.0]);
        let none = Matrix::new(0, 4, vec![]).unwrap();
        assert!(none.product(&[], Threads::One).is_empty());
    }
}
