//! The GPU: matrix products by cuBLASLt or own kernels, all else by own kernels, compiled when the model is
//! loaded. One binary runs with or without one.
//!
//! The residual stream and all sums are 32-bit floats; weights and activations 16-bit (or 32, for checks);
//! keys and values 16-bit floats in pages that are being filled and anchors, 8 bits where a page was
//! converted. A step's parameters go to the device as one block; a decode step is a recorded graph, chosen by
//! its number of rows and the splits of its attention, and never recorded again for other parameters.

mod count;
mod frames;
mod kernels;
mod layout;
mod limits;
/// Measuring the device and the model on it.
pub mod measure;
mod plan;
mod products;
mod run;
mod signals;
mod weights;
mod workspace;

pub use weights::Source;

use super::cpu::KvMemory;
use super::{Backend, Sampled, Span, Work};
use crate::config::ModelConfig;
use crate::error::ReferenceError;
use crate::kv::format::KvFormat;
use frames::{Frames, Move, Page};
use kernels::Kernels;
use layout::{DESCRIPTION, PAGE, Sizes};
use limits::{check_fit, check_memory, turns};
use plan::{Plan, used_pages};
use std::collections::BTreeMap;
use weights::{DeviceWeights, Loader};
use windtunnel_cuda::{Arg, Buffer, CudaError, Device, Graph, Grid, Numbers};
use workspace::{Room, Workspace};

/// How a model is put on a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CudaOptions {
    /// Type of weights and activations; 32-bit floats are for checks.
    pub numbers: Numbers,
    /// Records decode steps as graphs.
    pub graphs: bool,
    /// New tokens of the largest step that memory is taken for; larger ones take more when they come.
    pub rows: usize,
    /// Spans of the largest step that memory is taken for.
    pub spans: usize,
    /// Measures the ways to compute every product when the model is loaded. Without, what cuBLASLt
    /// proposes is taken, and own kernels for at most 8 rows.
    pub tune: bool,
}

impl Default for CudaOptions {
    fn default() -> Self {
        Self {
            numbers: Numbers::Bf16,
            graphs: true,
            rows: 2_048,
            spans: 128,
            tune: true,
        }
    }
}

/// Launches of a step: what the host asked the device to do, and what that amounted to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Launches {
    /// Calls of the host: kernels, products and graphs.
    pub calls: u64,
    /// Kernels and products that ran, those inside graphs too.
    pub work: u64,
}

/// A GPU with one model.
#[derive(Debug)]
pub struct CudaBackend {
    // Graphs are dropped before the buffers that they use.
    graphs: BTreeMap<(usize, usize), Graph>,
    config: ModelConfig,
    sizes: Sizes,
    options: CudaOptions,
    device: Device,
    kernels: Kernels,
    weights: DeviceWeights,
    work: Workspace,
    turns: Buffer,
    frames: Frames,
    /// All frames, and one more that rows without a sequence write to and conversions go through.
    arena: Buffer,
    scales: Buffer,
    /// Where each page is, as the device sees it; the last is the scratch page.
    descriptions: Buffer,
    /// Products that own kernels do, by rows (1, 2, up to 4, 8, 16) and matrix.
    skinny: [[bool; products::MATRICES]; 5],
    plan: Plan,
    /// Blocks that decode attention is split into at most.
    split_blocks: usize,
    /// Which row of the logits belongs to each span that asked.
    answered: Vec<usize>,
    launches: Launches,
    work_done: Work,
}

impl CudaBackend {
    /// Puts a model on the GPU of this number.
    ///
    /// # Errors
    /// If there is no GPU or a library is missing, the model is not of the kinds the kernels know, or memory
    /// does not suffice.
    pub fn new(
        ordinal: u32,
        config: &ModelConfig,
        source: Source<'_>,
        memory: &KvMemory,
        options: CudaOptions,
    ) -> Result<Self, ReferenceError> {
        Self::on(Device::gpu(ordinal)?, config, source, memory, options)
    }

    /// Puts a model on a device that is open.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn on(
        device: Device,
        config: &ModelConfig,
        source: Source<'_>,
        memory: &KvMemory,
        options: CudaOptions,
    ) -> Result<Self, ReferenceError> {
        kernels::check(config)?;
        check_memory(memory)?;
        let sizes = Sizes::new(config);
        let room = Room {
            rows: options.rows.max(options.spans).max(1),
            asked: options.spans.max(1),
            pages: options.spans.max(1) * config.max_position_embeddings.div_ceil(PAGE),
        };
        let kernels = kernels::load(&device, config, options.numbers)?;
        let blocks = run::split_blocks(&device, kernels.attention_decode)?;
        check_fit(&device, &sizes, config, memory, &options, (&room, blocks))?;
        let weights = Loader {
            device: &device,
            kernels: &kernels,
            source,
            numbers: options.numbers,
            made: 0,
        }
        .load(&sizes, config.tie_word_embeddings)?;
        let work = Workspace::new(&device, &sizes, options.numbers, room, blocks)?;
        let turns = turns(&device, config)?;
        let arena = device.allocate((memory.pages + 1) * sizes.frame_bytes())?;
        let scales = device.allocate(2 * (memory.pages + 1) * sizes.scale_bytes())?;
        let descriptions = device.allocate((memory.pages + 1) * DESCRIPTION)?;
        let mut backend = Self {
            graphs: BTreeMap::new(),
            config: config.clone(),
            sizes,
            options,
            device,
            kernels,
            weights,
            work,
            turns,
            frames: Frames::new(sizes, memory.pages),
            arena,
            scales,
            descriptions,
            skinny: [true, true, true, true, false].map(|on| [on; products::MATRICES]),
            plan: Plan::default(),
            split_blocks: blocks,
            answered: Vec::new(),
            launches: Launches::default(),
            work_done: Work::default(),
        };
        let scratch = Page {
            format: KvFormat::F16,
            half: 2 * memory.pages,
        };
        backend.clear_frame(scratch)?;
        backend.describe(memory.pages as u32, scratch)?;
        if options.tune {
            backend.tune(&run::BUCKETS)?;
        }
        backend.device.wait()?;
        Ok(backend)
    }

    /// The device.
    pub const fn gpu(&self) -> &Device {
        &self.device
    }

    /// Launches of the latest step.
    pub const fn launches(&self) -> Launches {
        self.launches
    }

    /// Turns graphs on or off.
    pub const fn set_graphs(&mut self, on: bool) {
        self.options.graphs = on;
    }

    /// An error with the device that it came from.
    fn named(&self, error: ReferenceError) -> ReferenceError {
        match error {
            ReferenceError::Device { device, reason } if device == "cuda" => {
                ReferenceError::Device {
                    device: self.device(),
                    reason,
                }
            }
            other => other,
        }
    }

    /// The page that rows without a sequence use.
    const fn scratch(&self) -> u32 {
        (self.descriptions.bytes() / DESCRIPTION - 1) as u32
    }

    fn clear_frame(&self, page: Page) -> Result<(), CudaError> {
        let bytes = self.sizes.frame_bytes();
        self.device
            .clear(self.arena.at(page.half / 2 * bytes), bytes)
    }

    /// Where a page's numbers and scales begin.
    fn places(&self, page: Page) -> (usize, usize) {
        (
            page.half * (self.sizes.frame_bytes() / 2),
            page.half * self.sizes.scale_bytes(),
        )
    }

    /// Tells the device where a page is.
    fn describe(&self, number: u32, page: Page) -> Result<(), CudaError> {
        let (data, scales) = self.places(page);
        let format = layout::format_number(page.format).unwrap_or(layout::FORMAT_F16);
        let mut bytes = [0_u8; DESCRIPTION];
        bytes[..8].copy_from_slice(&(self.arena.address() + data as u64).to_le_bytes());
        bytes[8..16].copy_from_slice(&(self.scales.address() + scales as u64).to_le_bytes());
        bytes[16..20].copy_from_slice(&format.to_le_bytes());
        self.device
            .upload(self.descriptions.at(number as usize * DESCRIPTION), &bytes)
    }

    fn convert(&self, old: Page, new: Page) -> Result<(), CudaError> {
        let number = |p: Page| Arg::U32(layout::format_number(p.format).unwrap_or(0));
        let ((from, from_scales), (to, to_scales)) = (self.places(old), self.places(new));
        let args = [
            self.arena.at(from).arg(),
            self.scales.at(from_scales).arg(),
            number(old),
            self.arena.at(to).arg(),
            self.scales.at(to_scales).arg(),
            number(new),
        ];
        let grid = Grid::new(self.sizes.stripes() as u32, 256);
        self.device.launch(self.kernels.convert_page, grid, &args)
    }

    /// Stores a page again; by way of the scratch frame if old and new memory overlap.
    fn move_page(&self, old: Page, place: Move) -> Result<(), CudaError> {
        match place {
            Move::Stay => Ok(()),
            Move::Away(new) => self.convert(old, new),
            Move::InPlace(new) => {
                let between = Page {
                    format: new.format,
                    half: 2 * self.scratch() as usize,
                };
                self.convert(old, between)?;
                let ((from, from_scales), (to, to_scales)) =
                    (self.places(between), self.places(new));
                let bytes = self.sizes.page_numbers() * new.format.bytes();
                self.device
                    .copy(self.arena.at(from), self.arena.at(to), bytes)?;
                self.device.copy(
                    self.scales.at(from_scales),
                    self.scales.at(to_scales),
                    self.sizes.scale_bytes(),
                )?;
                // Rows without a sequence must find numbers there.
                self.clear_frame(between)
            }
        }
    }

    /// Refuses what the kernels would read or write astray.
    fn check(&self, spans: &[Span<'_>]) -> Result<(), ReferenceError> {
        let wrong = |s: usize, reason: String| {
            Err(ReferenceError::Device {
                device: "cuda".into(),
                reason: format!("span {s} of the step: {reason}"),
            })
        };
        for (s, span) in spans.iter().enumerate() {
            let end = span.start + span.tokens.len();
            if end > self.config.max_position_embeddings {
                let most = self.config.max_position_embeddings;
                return wrong(
                    s,
                    format!("it ends at position {end}, and the model has {most}"),
                );
            }
            if let Some(token) = span
                .tokens
                .iter()
                .find(|&&t| t as usize >= self.sizes.vocab)
            {
                return wrong(s, format!("the model has no token {token}"));
            }
            let used = used_pages(span);
            if span.pages.len() < used {
                return wrong(
                    s,
                    format!("it needs {used} pages and has {}", span.pages.len()),
                );
            }
            for (i, &page) in span.pages[..used].iter().enumerate() {
                let Some(found) = self.frames.page(page) else {
                    return wrong(s, format!("page {page} is not in use"));
                };
                if (i + 1) * PAGE > span.start && !span.tokens.is_empty() && found.format.scaled() {
                    return wrong(s, format!("page {page} is written to and has 8 bits"));
                }
            }
        }
        Ok(())
    }

    /// Takes more memory if a step needs it; graphs use the old, so they go.
    fn make_room(&mut self, needed: Room) -> Result<(), ReferenceError> {
        if self.work.room.holds(&needed) {
            return Ok(());
        }
        self.device.wait()?;
        self.graphs.clear();
        let room = self.work.room.grown(&needed);
        self.work = Workspace::new(
            &self.device,
            &self.sizes,
            self.options.numbers,
            room,
            self.split_blocks,
        )?;
        Ok(())
    }

    /// Stores a page again in another format.
    fn store_again(&mut self, page: u32, format: KvFormat) -> Result<(), ReferenceError> {
        if layout::format_number(format).is_none() {
            return Err(ReferenceError::Device {
                device: "cuda".into(),
                reason: "pages of 32-bit floats are for the CPU; convert to f16, fp8 or int8"
                    .into(),
            });
        }
        let Some(old) = self.frames.page(page) else {
            return Ok(());
        };
        let place = self.frames.convert(page, format);
        let place = place.ok_or_else(|| ReferenceError::Memory {
            what: "a page in 16 bits".into(),
            needed: self.sizes.frame_bytes() as u64,
            available: 0,
            remedy: "give pages back first".into(),
        })?;
        self.move_page(old, place)?;
        if place != Move::Stay {
            self.work_done.launches += 1;
            self.work_done.kv_read_bytes += self.sizes.page_bytes(old.format) as u64;
            self.work_done.kv_written_bytes += self.sizes.page_bytes(format) as u64;
        }
        if let Move::Away(new) | Move::InPlace(new) = place {
            self.describe(page, new)?;
        }
        Ok(())
    }
}

impl Backend for CudaBackend {
    fn device(&self) -> String {
        let info = self.device.info();
        format!(
            "{}, compute capability {}.{}, driver for CUDA {}.{}",
            info.name, info.capability.0, info.capability.1, info.driver.0, info.driver.1
        )
    }

    fn hardware(&self) -> Option<(String, String)> {
        let info = self.device.info();
        let cuda = format!("CUDA {}.{}", info.driver.0, info.driver.1);
        let driver = match crate::machine::gpu_driver() {
            Some(version) => format!("{version}, {cuda}"),
            None => cuda,
        };
        Some((info.name.clone(), driver))
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn take_page(&mut self) -> Result<Option<u32>, ReferenceError> {
        let Some((number, page, clear)) = self.frames.take() else {
            return Ok(None);
        };
        let mut told = self.describe(number, page);
        if clear {
            told = told.and_then(|()| self.clear_frame(page));
        }
        if let Err(error) = told {
            self.frames.give_back(number);
            return Err(self.named(error.into()));
        }
        Ok(Some(number))
    }

    fn give_back_page(&mut self, page: u32) {
        self.frames.give_back(page);
    }

    fn page_tokens(&self) -> usize {
        PAGE
    }

    fn convert_page(&mut self, page: u32, format: KvFormat) -> Result<(), ReferenceError> {
        self.store_again(page, format).map_err(|e| self.named(e))
    }

    fn kv_bytes(&self) -> usize {
        self.frames.bytes()
    }

    fn step(
        &mut self,
        spans: &[Span<'_>],
        sampled: &mut Vec<Sampled>,
    ) -> Result<(), ReferenceError> {
        sampled.clear();
        sampled.resize(spans.len(), Sampled::default());
        let done = self.check(spans).and_then(|()| self.compute(spans));
        let done = done.and_then(|()| {
            self.count_step(spans);
            self.read_sampled(spans, sampled)
        });
        done.map_err(|e| self.named(e))
    }

    fn logits(&mut self) -> Result<Vec<f32>, ReferenceError> {
        let vocab = self.sizes.vocab;
        let mut all = Vec::with_capacity(self.answered.len() * vocab);
        for &row in &self.answered {
            let place = self.work.logits.at(4 * row * vocab);
            let row = self.device.download_f32(place, vocab);
            all.extend(row.map_err(|e| self.named(e.into()))?);
        }
        Ok(all)
    }

    fn embed(&mut self, tokens: &[u32]) -> Result<Vec<f32>, ReferenceError> {
        let state = self.turn_state(tokens, None);
        let (state, _) = state.map_err(|e| self.named(e))?;
        self.work_done.launches += 1;
        let bytes = tokens.len() * self.sizes.hidden * self.options.numbers.bytes();
        self.work_done.weight_bytes += bytes as u64;
        Ok(state)
    }

    fn work(&self) -> Work {
        self.work_done
    }
}

#[cfg(test)]
mod tests;
