//! What cascade layers ask of the device beside steps, and the choice of the fastest product.

use super::CudaBackend;
use super::products::Matrix;
use crate::error::ReferenceError;
use windtunnel_cuda::{Arg, CudaError, Gemm, Grid, Place};

fn words(numbers: impl IntoIterator<Item = u32>) -> Vec<u8> {
    numbers.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn floats(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

impl CudaBackend {
    /// The causal risk of tokens from their severities, sequence by sequence:
    /// `r[t] = max(s[t], gamma * r[t - 1])`. `severity` holds all sequences one after the other.
    ///
    /// # Errors
    /// If the device fails.
    pub fn causal_risk(
        &self,
        severity: &[f32],
        lengths: &[usize],
        gamma: f32,
    ) -> Result<Vec<f32>, ReferenceError> {
        let total: usize = lengths.iter().sum();
        if total != severity.len() {
            return Err(ReferenceError::Device {
                device: "cuda".into(),
                reason: format!("{} severities for {total} tokens", severity.len()),
            });
        }
        if total == 0 {
            return Ok(Vec::new());
        }
        let offsets = std::iter::once(0).chain(lengths.iter().scan(0_u32, |at, &n| {
            *at += n as u32;
            Some(*at)
        }));
        let device = &self.device;
        let (from, to) = (device.allocate(4 * total)?, device.allocate(4 * total)?);
        let bounds = device.allocate(4 * (lengths.len() + 1))?;
        device.upload(from.at(0), &floats(severity))?;
        device.upload(bounds.at(0), &words(offsets))?;
        let args = [from.arg(), bounds.arg(), Arg::F32(gamma), to.arg()];
        let grid = Grid::new(lengths.len() as u32, 1_024);
        device.launch(self.kernels.risk_scan, grid, &args)?;
        Ok(device.download_f32(to.at(0), total)?)
    }

    /// The state of a turn, the mean embedding of its tokens, and its distance from the state before, as
    /// 1 - cosine; 1 if either is zero, or there is none before.
    ///
    /// # Errors
    /// If the model has no such token, `before` has another width, or the device fails.
    pub fn turn_state(
        &self,
        tokens: &[u32],
        before: Option<&[f32]>,
    ) -> Result<(Vec<f32>, f32), ReferenceError> {
        let hidden = self.sizes.hidden;
        let unknown = tokens.iter().any(|&t| t as usize >= self.sizes.vocab);
        if unknown || before.is_some_and(|b| b.len() != hidden) {
            return Err(ReferenceError::Device {
                device: "cuda".into(),
                reason: format!(
                    "a turn has tokens below {} and a state of {hidden} numbers",
                    self.sizes.vocab
                ),
            });
        }
        let device = &self.device;
        let ids = device.allocate(4 * tokens.len())?;
        device.upload(ids.at(0), &words(tokens.iter().copied()))?;
        let old = device.allocate(4 * hidden)?;
        if let Some(before) = before {
            device.upload(old.at(0), &floats(before))?;
        }
        let out = device.allocate(4 * (hidden + 1))?;
        let args = [
            self.weights.embedding.arg(),
            ids.arg(),
            Arg::U32(tokens.len() as u32),
            if before.is_some() {
                old.arg()
            } else {
                Arg::Null
            },
            out.arg(),
            out.at(4 * hidden).arg(),
        ];
        device.launch(self.kernels.turn_delta, Grid::new(1, 1_024), &args)?;
        let mut state = device.download_f32(out.at(0), hidden + 1)?;
        let delta = state.pop().unwrap_or(1.0);
        Ok((state, delta))
    }

    /// Brings rows together (`from[rows[i]]` to `i`), or back. Rows have `width` 32-bit floats.
    ///
    /// # Errors
    /// If the device fails.
    pub fn move_rows(
        &self,
        from: Place<'_>,
        to: Place<'_>,
        rows: &[u32],
        width: usize,
        back: bool,
    ) -> Result<(), ReferenceError> {
        if rows.is_empty() {
            return Ok(());
        }
        let device = &self.device;
        let table = device.allocate(4 * rows.len())?;
        device.upload(table.at(0), &words(rows.iter().copied()))?;
        let kernel = if back {
            self.kernels.scatter_rows
        } else {
            self.kernels.gather_rows
        };
        let args = [from.arg(), table.arg(), to.arg(), Arg::U32(width as u32)];
        device.launch(kernel, Grid::new(rows.len() as u32, 256), &args)?;
        // The table must outlive the kernel.
        Ok(device.wait()?)
    }

    /// Measures the ways to compute all products of so many rows, and keeps the fastest.
    ///
    /// # Errors
    /// If the device fails.
    pub fn tune(&mut self, rows: &[usize]) -> Result<(), ReferenceError> {
        self.graphs.clear();
        for &rows in rows.iter().filter(|&&r| r <= self.work.room.rows) {
            for matrix in Matrix::ALL {
                let head = matrix == Matrix::Head;
                if head && rows > self.work.room.asked {
                    continue;
                }
                let gemm = self.gemm_of(matrix, rows);
                let (w, x, out) = self.matrices(matrix, 0);
                self.device.tune(&gemm, w, x, out)?;
                if rows <= 16 && self.skinny_kernel(&gemm).is_some() {
                    let bucket = rows.next_power_of_two().ilog2() as usize;
                    let (own, library) = self.race(matrix, &gemm)?;
                    self.skinny[bucket][matrix as usize] = own < library;
                }
            }
        }
        Ok(())
    }

    /// A matrix of a layer, and the buffers that its product has.
    pub(super) fn matrices(
        &self,
        matrix: Matrix,
        layer: usize,
    ) -> (Place<'_>, Place<'_>, Place<'_>) {
        let (w, layer) = (&self.work, &self.weights.layers[layer]);
        match matrix {
            Matrix::Qkv => (layer.qkv.at(0), w.normed.at(0), w.qkv.at(0)),
            Matrix::Output => (layer.o.at(0), w.attended.at(0), w.x.at(0)),
            Matrix::GateUp => (layer.gate_up.at(0), w.normed.at(0), w.gate_up.at(0)),
            Matrix::Down => (layer.down.at(0), w.gated.at(0), w.x.at(0)),
            Matrix::Head => (self.weights.head(), w.normed.at(0), w.logits.at(0)),
        }
    }

    /// Milliseconds of a product through all layers, by the own kernel and by the library: weights come
    /// from memory then, as in a step.
    fn race(&self, matrix: Matrix, gemm: &Gemm) -> Result<(f32, f32), ReferenceError> {
        let Some(kernel) = self.skinny_kernel(gemm) else {
            return Ok((f32::INFINITY, 0.0));
        };
        let layers = self.sizes.layers;
        let all = |own: bool| -> Result<(), CudaError> {
            for layer in 0..layers {
                let (w, x, out) = self.matrices(matrix, layer);
                if own {
                    self.launch_skinny(kernel, gemm, w, x, out)?;
                } else {
                    self.device.gemm(gemm, w, x, out)?;
                }
            }
            Ok(())
        };
        let mut best = [f32::INFINITY; 2];
        for _ in 0..3 {
            for (own, best) in [true, false].into_iter().zip(&mut best) {
                let time = self.device.time::<CudaError>(|| all(own))?;
                *best = best.min(time);
            }
        }
        Ok((best[0], best[1]))
    }
}
