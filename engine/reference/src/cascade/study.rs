//! What the layers are worth, measured: where total gains lie as sessions repeat themselves more or less,
//! what late signals cost, and what the simulator needs of all that.

use super::report::{Cell, Grid};
use super::run::{Models, run};
use super::sessions::{Workload, draw};
use super::{Settings, Switches};
use crate::config::ModelConfig;
use crate::error::ReferenceError;
use crate::models::Model;
use serde::{Deserialize, Serialize};
use std::time::Instant;
use windtunnel_base::quantity::{Bandwidth, Bytes, Compute, Span};
use windtunnel_base::time::SimDuration;
use windtunnel_engine::config::calibration::{MeasuredCell, MeasuredLayers};
use windtunnel_engine::config::{CascadeDevice, CascadeModel, CascadeSkip};

/// Shares of turns that change nothing, of the map of total gains.
const REPEATED: [f64; 4] = [0.0, 0.3, 0.6, 0.9];
/// Sessions at once, of the map: what L1 can let share its launches.
const SESSIONS: [usize; 3] = [1, 4, 8];
/// Turns between publications of the control plane; the first publishes at every turn.
const PERIODS: [f64; 4] = [1.0, 2.0, 4.0, 8.0];
/// Times that a look at a state is measured.
const LOOKS: usize = 50;

/// All layers against none, on sessions of one kind.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Gain {
    /// Share of turns that change nothing.
    pub no_change: f64,
    /// Sessions at once.
    pub sessions: usize,
    /// How many times less time all layers take, by the device model.
    pub model: f64,
    /// And as measured on this machine.
    pub wall: f64,
    /// How many times fewer bytes.
    pub bytes: f64,
    /// How many times fewer launches.
    pub launches: f64,
    /// Share of tokens as without layers.
    pub agreement: f64,
    /// Share of answers exactly right, without layers.
    pub exact_without: f64,
    /// And with all.
    pub exact: f64,
}

/// All layers with signals that are published now and then.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Staleness {
    /// Turns between publications.
    pub period: f64,
    /// Time by the device model, over that with signals of the turn before.
    pub time: f64,
    /// Share of answers exactly right.
    pub exact: f64,
    /// What decisions by old signals lose: answers exactly right with signals of the turn before, less
    /// those with these, as a share of all turns. Below zero they were lucky.
    pub regret: f64,
}

/// The models without the one that answers are held against token by token: maps say nothing of
/// divergences, and holding an answer against it takes about as long as giving it.
fn unjudged<'a>(models: &'a mut Models<'_>) -> Models<'a> {
    Models {
        frontier: &mut *models.frontier,
        light: &mut *models.light,
        reference: None,
    }
}

fn compared(
    models: &mut Models<'_>,
    workload: &Workload,
    settings: &Settings,
) -> Result<(Cell, Cell), ReferenceError> {
    let sessions = draw(workload);
    let with = |layers| Settings {
        layers,
        ..settings.clone()
    };
    let (none, baseline) = run(models, &sessions, &with(Switches::NONE), None)?;
    let (all, _) = run(models, &sessions, &with(Switches::ALL), Some(&baseline))?;
    Ok((none, all))
}

/// Total gains over how many turns change nothing, and how many sessions go on at once. `told` is told of each point when it is done.
///
/// # Errors
/// As `run`.
pub fn map(
    models: &mut Models<'_>,
    workload: &Workload,
    settings: &Settings,
    told: &mut dyn FnMut(),
) -> Result<Vec<Gain>, ReferenceError> {
    let mut models = unjudged(models);
    let mut gains = Vec::new();
    for sessions in SESSIONS {
        for no_change in REPEATED {
            let workload = Workload {
                no_change,
                sessions,
                ..*workload
            };
            let (none, all) = compared(&mut models, &workload, settings)?;
            let times = |of: fn(&Cell) -> f64| of(&none) / of(&all).max(f64::MIN_POSITIVE);
            gains.push(Gain {
                no_change,
                sessions,
                model: times(|c| c.model_seconds),
                wall: times(|c| c.wall_seconds),
                bytes: times(|c| c.work.bytes() as f64),
                launches: times(|c| c.work.launches as f64),
                agreement: all.agreement.unwrap_or(0.0),
                exact_without: none.exact_match,
                exact: all.exact_match,
            });
            told();
        }
    }
    Ok(gains)
}

/// Points of [`map`].
pub const fn map_points() -> usize {
    SESSIONS.len() * REPEATED.len()
}

/// What it costs that signals of L5 are old (D15): all layers on the same sessions, with signals
/// published at every turn, and less often.
///
/// # Errors
/// As `run`.
pub fn staleness(
    models: &mut Models<'_>,
    workload: &Workload,
    settings: &Settings,
    told: &mut dyn FnMut(),
) -> Result<Vec<Staleness>, ReferenceError> {
    let mut models = unjudged(models);
    let sessions = draw(workload);
    let mut all: Vec<Staleness> = Vec::new();
    let mut fresh: Option<(f64, f64)> = None;
    for period in PERIODS {
        let mut settings = Settings {
            layers: Switches::ALL,
            ..settings.clone()
        };
        settings.control.period = period * settings.turn_gap;
        let (cell, _) = run(&mut models, &sessions, &settings, None)?;
        let (time, exact) = *fresh.get_or_insert((cell.model_seconds, cell.exact_match));
        all.push(Staleness {
            period,
            time: cell.model_seconds / time,
            exact: cell.exact_match,
            regret: exact - cell.exact_match,
        });
        told();
    }
    Ok(all)
}

/// Periods of [`staleness`].
pub const fn periods() -> usize {
    PERIODS.len()
}

/// Median seconds of looking at a state: what L0 costs at every turn.
///
/// # Errors
/// If the device fails.
pub fn look(models: &mut Models<'_>, workload: &Workload) -> Result<f64, ReferenceError> {
    let sessions = draw(workload);
    let mut times = Vec::new();
    for turn in sessions.iter().flatten().cycle().take(LOOKS) {
        let tokens: Vec<u32> = turn.state.bytes().map(u32::from).collect();
        let begin = Instant::now();
        std::hint::black_box(models.light.embed(&tokens)?);
        times.push(begin.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times.get(times.len() / 2).copied().unwrap_or(0.0))
}

/// What a device does, as far as the simulator's cascade asks.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Rates {
    /// Operations per second.
    pub flops_per_s: f64,
    /// Bytes per second.
    pub bytes_per_s: f64,
    /// Bytes of a weight in its memory.
    pub weight_bytes: f64,
}

/// Who was measured: names and digests are said of the light model only, as the frontier is known.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    /// The sizes of the frontier.
    pub frontier: &'a ModelConfig,
    /// The light model.
    pub light: &'a Model,
    /// What the device does.
    pub rates: Rates,
    /// Seconds of a look at a state.
    pub look: f64,
    /// The sessions.
    pub workload: &'a Workload,
}

/// What was measured, as a calibration says it and the simulator reads it. Launches take what steps
/// without layers took beyond the longer of computing and moving bytes; the share of turns skipped
/// rightly and wrongly is that of L0 alone; spans are as coherent as L1 alone found them, formats those
/// of L3 alone. None if one of these cells is missing.
pub fn layers(cells: &Grid, measured: &Measured<'_>) -> Option<MeasuredLayers> {
    let cell = |layers: Switches| cells.cells.iter().find(|c| c.layers == layers);
    let none = cell(Switches::NONE)?;
    let (skips, spans, formats) = (
        cell(Switches::only(0))?,
        cell(Switches::only(1))?,
        cell(Switches::only(3))?,
    );
    let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    let right = skips.turns_skipped - skips.false_skips;
    let unchanged = right + skips.false_runs;
    let pages = formats.mix.pages();
    Some(MeasuredLayers {
        light: measured.light.name.clone(),
        light_weights: measured.light.digest.clone(),
        sessions: measured.workload.sessions,
        turns: measured.workload.turns,
        no_change: measured.workload.no_change,
        device: device(none, measured),
        skip: CascadeSkip {
            tpr: share(right, unchanged),
            fpr: share(skips.false_skips, skips.turns.saturating_sub(unchanged)),
            cost: span(measured.look),
        },
        coherent: spans.span_mean.round().max(1.0) as u32,
        anchors: share(formats.mix.anchors, pages),
        int8: share(formats.mix.int8, pages),
        cells: cells.cells.iter().map(|c| figures(c, none)).collect(),
    })
}

fn span(seconds: f64) -> Span {
    Span(SimDuration::from_secs_f64(seconds).unwrap_or_default())
}

/// The device as the session cost model sees it.
fn device(none: &Cell, measured: &Measured<'_>) -> CascadeDevice {
    let rates = measured.rates;
    let steps = none.steps.max(1) as f64;
    let kernels = none.work.launches as f64 / steps;
    let computing = none.work.flops as f64 / rates.flops_per_s;
    let moving = none.work.bytes() as f64 / rates.bytes_per_s;
    let launch = (none.wall_seconds - computing.max(moving)).max(0.0) / (kernels * steps);
    let model = |config: &ModelConfig| {
        let kv = config.num_hidden_layers * 2 * config.num_key_value_heads * config.head_dim * 2;
        let deep = config.num_hidden_layers as f64 / measured.frontier.num_hidden_layers as f64;
        CascadeModel {
            parameters: config.parameters() as f64,
            kv_per_token: Bytes(kv as u64),
            kernels: (kernels * deep).round().max(1.0) as u32,
        }
    };
    CascadeDevice {
        compute: Compute(rates.flops_per_s),
        // The simulator's weights have two bytes.
        bandwidth: Bandwidth(rates.bytes_per_s * 2.0 / rates.weight_bytes),
        launch: span(launch),
        frontier: model(measured.frontier),
        light: model(&measured.light.config),
        ..CascadeDevice::default()
    }
}

fn figures(cell: &Cell, none: &Cell) -> MeasuredCell {
    let short = |x: f64, unit: f64| (x / unit).round() * unit;
    MeasuredCell {
        layers: cell.layers.name(),
        ms: short(cell.wall_seconds * 1e3, 1e-3),
        times_less: short(none.wall_seconds / cell.wall_seconds.max(1e-9), 1e-4),
        launches: cell.work.launches,
        bytes: cell.work.bytes(),
        flops: cell.work.flops,
        agreement: cell.agreement.unwrap_or(1.0),
        divergence: cell.quality.unwrap_or_default().mean_kl(),
        exact_match: cell.exact_match,
    }
}

/// [`layers`] as a table `[fleet.engine.cascade]`, in TOML.
pub fn table(measured: &MeasuredLayers) -> String {
    let device = &measured.device;
    let model = |m: &CascadeModel| {
        format!(
            "{{ parameters = {:.1}, kv_per_token = \"{}B\", kernels = {} }}",
            m.parameters, m.kv_per_token.0, m.kernels
        )
    };
    let us = |span: Span| span.0.as_secs_f64() * 1e6;
    format!(
        "[fleet.engine.cascade.device]\n\
         compute = \"{:.4}TFLOPS\"\n\
         bandwidth = \"{:.3}GB/s\"\n\
         launch = \"{:.3}us\"\n\
         frontier = {}\n\
         light = {}\n\n\
         [fleet.engine.cascade.world]\nno_change = {:?}\n\n\
         [fleet.engine.cascade.skip]\ntpr = {:.4}\nfpr = {:.4}\ncost = \"{:.3}us\"\n\n\
         [fleet.engine.cascade.spans]\nmax = {coherent}\ncoherent = {coherent}\n\n\
         [fleet.engine.cascade.evidence]\nanchors = {:.4}\nint8 = {:.4}\n",
        device.compute.0 / 1e12,
        device.bandwidth.0 / 1e9,
        us(device.launch),
        model(&device.frontier),
        model(&device.light),
        measured.no_change,
        measured.skip.tpr,
        measured.skip.fpr,
        us(measured.skip.cost),
        measured.anchors,
        measured.int8,
        coherent = measured.coherent,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::{Cpu, KvMemory};
    use crate::cascade::report::{grid, usual_cells};
    use crate::kv::format::KvFormat;
    use crate::weights::Weights;
    use windtunnel_engine::config::CascadeSpec;

    fn device(seed: u64) -> Cpu {
        let config = ModelConfig {
            num_hidden_layers: 1,
            ..ModelConfig::pocket_light()
        };
        let memory = KvMemory {
            pages: 400,
            page_tokens: 16,
            filling: KvFormat::F16,
        };
        Cpu::new(&config, &Weights::random(&config, seed).unwrap(), &memory).unwrap()
    }

    #[test]
    fn a_study_gives_a_table_that_the_simulator_reads_and_maps_that_repeat() {
        let (mut frontier, mut light) = (device(1), device(2));
        let config = crate::backend::Backend::config(&frontier).clone();
        let mut models = Models {
            frontier: &mut frontier,
            light: &mut light,
            reference: None,
        };
        let workload = Workload {
            sessions: 2,
            turns: 4,
            ..Workload::default()
        };
        let settings = Settings {
            max_new_tokens: 6,
            ..Settings::default()
        };
        let cells = grid(&mut models, &draw(&workload), &settings, &usual_cells()).unwrap();
        assert_eq!(cells.cells.len(), 9);
        let rates = Rates {
            flops_per_s: 1e11,
            bytes_per_s: 4e10,
            weight_bytes: 4.0,
        };
        let look = look(&mut models, &workload).unwrap();
        let light = Model {
            name: "light".into(),
            weights: Weights::random(&config, 2).unwrap(),
            config: config.clone(),
            digest: "0".into(),
        };
        let measured = Measured {
            frontier: &config,
            light: &light,
            rates,
            look,
            workload: &workload,
        };
        let layers = layers(&cells, &measured).unwrap();
        assert_eq!(layers.cells[0].layers, "none");
        assert!((layers.cells[0].times_less - 1.0).abs() < 1e-9);
        // A simulated cascade gets the same from the calibration as from the table.
        let mut given = CascadeSpec::default();
        layers.give(&mut given).unwrap();
        let text = table(&layers);
        #[derive(serde::Deserialize)]
        struct File {
            fleet: Fleet,
        }
        #[derive(serde::Deserialize)]
        struct Fleet {
            engine: Engine,
        }
        #[derive(serde::Deserialize)]
        struct Engine {
            cascade: CascadeSpec,
        }
        let file: File = toml::from_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let cascade = file.fleet.engine.cascade;
        assert_eq!(
            cascade.device.frontier.parameters,
            config.parameters() as f64
        );
        assert_eq!(given.device.frontier, cascade.device.frontier);
        assert_eq!(given.spans.coherent, cascade.spans.coherent);
        assert!((given.skip.tpr - cascade.skip.tpr).abs() < 1e-4);
        // Two sessions run side by side, and share all their steps while both have turns to answer.
        assert_eq!(cascade.spans.coherent, Some(2));
        let none = &cells.cells[0];
        let per_step = none.work.launches / none.steps;
        assert_eq!(u64::from(cascade.device.frontier.kernels), per_step);
        let mut done = 0;
        let gains = map(&mut models, &workload, &settings, &mut || done += 1).unwrap();
        assert_eq!((gains.len(), done), (map_points(), map_points()));
        // The more turns change nothing, the more there is to leave out.
        assert!(gains[3].launches > gains[0].launches, "{gains:?}");
        let stale = staleness(&mut models, &workload, &settings, &mut || {}).unwrap();
        assert_eq!((stale[0].time, stale[0].regret), (1.0, 0.0));
        assert_eq!(stale.len(), periods());
    }
}
