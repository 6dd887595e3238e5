//! Runs agentic sessions through the layers, alone and together, and prints what each is worth.
//! `cascade [FRONTIER LIGHT]`: folders with `model.safetensors` of the pocket models; random weights
//! without them.
use std::io::Write as _;
use std::path::Path;
use windtunnel_reference::backend::cpu::{Cpu, KvMemory};
use windtunnel_reference::cascade::Settings;
use windtunnel_reference::cascade::report::{grid, usual_cells};
use windtunnel_reference::cascade::run::Models;
use windtunnel_reference::cascade::sessions::{Workload, draw};
use windtunnel_reference::config::ModelConfig;
use windtunnel_reference::kv::format::KvFormat;
use windtunnel_reference::weights::Weights;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folders: Vec<String> = std::env::args().skip(1).collect();
    let weights = |config: &ModelConfig, which: usize| match folders.get(which) {
        Some(folder) => Weights::load(Path::new(folder), config),
        None => Weights::random(config, which as u64 + 1),
    };
    let (f, l) = (ModelConfig::pocket_frontier(), ModelConfig::pocket_light());
    let memory = KvMemory {
        pages: 1_000,
        page_tokens: 16,
        filling: KvFormat::F16,
    };
    let (of_frontier, of_light) = (weights(&f, 0)?, weights(&l, 1)?);
    let mut frontier = Cpu::new(&f, &of_frontier, &memory)?;
    let mut light = Cpu::new(&l, &of_light, &memory)?;
    let mut reference = Cpu::new(&f, &of_frontier, &memory)?;
    let mut models = Models {
        frontier: &mut frontier,
        light: &mut light,
        reference: Some(&mut reference),
    };
    let sessions = draw(&Workload::default());
    let grid = grid(&mut models, &sessions, &Settings::default(), &usual_cells())?;
    write!(std::io::stdout(), "{}", grid.table())?;
    Ok(())
}
