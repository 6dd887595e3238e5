use super::super::evidence::EvidenceSettings;
use super::super::report::{divergence, grid, usual_cells};
use super::super::route::{RouteSettings, ShortPath};
use super::super::sessions::{Workload, draw};
use super::super::shadow::ShadowSettings;
use super::super::skip;
use super::*;
use crate::backend::cpu::{Cpu, KvMemory};
use crate::config::ModelConfig;
use crate::kv::format::KvFormat;
use crate::weights::Weights;

fn frontier_config() -> ModelConfig {
    ModelConfig {
        num_hidden_layers: 3,
        tie_word_embeddings: false,
        ..ModelConfig::pocket_light()
    }
}

fn light_config() -> ModelConfig {
    ModelConfig {
        hidden_size: 64,
        intermediate_size: 96,
        num_hidden_layers: 1,
        tie_word_embeddings: false,
        ..ModelConfig::pocket_light()
    }
}

/// Random weights with a head so large that tokens are chosen with some certainty.
fn weights(config: &ModelConfig, seed: u64) -> Weights {
    let tensors = Weights::random(config, seed)
        .unwrap()
        .tensors()
        .map(|(name, tensor)| {
            let scale = if name == "lm_head.weight" { 4.0 } else { 1.0 };
            (name.to_owned(), (tensor * scale).unwrap())
        })
        .collect();
    Weights::from_tensors(tensors, config).unwrap()
}

fn device(config: &ModelConfig, seed: u64, pages: usize) -> Cpu {
    let memory = KvMemory {
        pages,
        page_tokens: 16,
        filling: KvFormat::F16,
    };
    Cpu::new(config, &weights(config, seed), &memory).unwrap()
}

struct Bench {
    frontier: Cpu,
    light: Cpu,
    reference: Cpu,
}

impl Bench {
    fn new() -> Self {
        Self {
            frontier: device(&frontier_config(), 1, 400),
            light: device(&light_config(), 2, 400),
            reference: device(&frontier_config(), 1, 40),
        }
    }

    fn models(&mut self) -> Models<'_> {
        Models {
            frontier: &mut self.frontier,
            light: &mut self.light,
            reference: Some(&mut self.reference),
        }
    }

    /// Runs, and holds that no page is left behind.
    fn run(&mut self, workload: &Workload, settings: &Settings) -> (Cell, Answers) {
        let (cell, answers) = run(&mut self.models(), &draw(workload), settings, None).unwrap();
        for device in [&self.frontier, &self.light, &self.reference] {
            assert_eq!(device.kv_bytes(), 0, "pages stay behind");
        }
        (cell, answers)
    }
}

fn workload() -> Workload {
    Workload {
        sessions: 3,
        turns: 4,
        ..Workload::default()
    }
}

fn settings(layers: Switches) -> Settings {
    Settings {
        layers,
        max_new_tokens: 24,
        ..Settings::default()
    }
}

fn routed(short: ShortPath, threshold: f64) -> Settings {
    Settings {
        route: RouteSettings {
            short,
            threshold,
            ..RouteSettings::default()
        },
        ..settings(Switches::only(2))
    }
}

#[test]
fn spans_change_no_answer_and_share_launches_exactly() {
    let mut bench = Bench::new();
    let work = Workload {
        sessions: 4,
        ..workload()
    };
    let (plain, a) = bench.run(&work, &settings(Switches::NONE));
    let (spans, b) = bench.run(&work, &settings(Switches::only(1)));
    assert_eq!(a, b);
    assert_eq!(plain.steps, plain.computed_tokens);
    // Answers of one turn end at different times, and then spans are shorter.
    assert!(spans.span_mean > 2.0 && spans.span_mean <= 4.0);
    let per_step = plain.work.launches / plain.steps;
    assert_eq!(plain.work.launches, per_step * plain.steps);
    assert_eq!(spans.work.launches, per_step * spans.steps);
    assert_eq!(plain.work.flops, spans.work.flops);
    assert_eq!(plain.work.kv_read_bytes, spans.work.kv_read_bytes);
    // One session has nobody to share with: L1 is worth nothing (D03, D06).
    let lonely = Workload {
        sessions: 1,
        ..workload()
    };
    let (plain, _) = bench.run(&lonely, &settings(Switches::NONE));
    let (spans, _) = bench.run(&lonely, &settings(Switches::only(1)));
    assert_eq!(plain.work, spans.work);
}

#[test]
fn skipped_turns_cost_their_embedding_and_no_more() {
    let mut bench = Bench::new();
    let work = Workload {
        no_change: 1.0,
        danger: 0.0,
        turns: 6,
        ..workload()
    };
    let always = Settings {
        skip: skip::SkipSettings {
            threshold: 2.0,
            ..skip::SkipSettings::default()
        },
        ..settings(Switches::only(0))
    };
    let (plain, a) = bench.run(&work, &settings(Switches::NONE));
    let (skipping, b) = bench.run(&work, &always);
    assert_eq!(a, b, "the same states have the same answers");
    assert_eq!((skipping.turns_run, skipping.turns_skipped), (3, 15));
    assert_eq!((skipping.false_skips, skipping.false_runs), (0, 0));
    // D05: S = 1 / (1 - s + c0), where every turn pays for its embedding.
    let embedding: f64 = draw(&work)
        .iter()
        .flatten()
        .map(|t| {
            let rows = t.state.len() as f64 * 64.0 * 4.0;
            2.0 * 4e-6 + rows / 5e10
        })
        .sum();
    let skipped = 15.0 / 18.0;
    let want = 1.0 / (1.0 - skipped + embedding / plain.model_seconds);
    let got = plain.model_seconds / skipping.model_seconds;
    assert!((got / want - 1.0).abs() < 1e-9, "{got} {want}");
    // Where everything changes nothing is skipped, and the embeddings are all that L0 adds.
    let busy = Workload {
        no_change: 0.0,
        small_changes: 0.0,
        ..work
    };
    let (plain, a) = bench.run(&busy, &settings(Switches::NONE));
    let (skipping, b) = bench.run(&busy, &settings(Switches::only(0)));
    assert_eq!((a, skipping.turns_skipped), (b, 0));
    assert!(plain.model_seconds < skipping.model_seconds);
}

#[test]
fn false_skips_are_counted_when_everything_is_skipped() {
    let mut bench = Bench::new();
    let blind = Settings {
        skip: skip::SkipSettings {
            threshold: 2.0,
            markers: Vec::new(),
            ..skip::SkipSettings::default()
        },
        ..settings(Switches::only(0))
    };
    let busy = Workload {
        no_change: 0.0,
        ..workload()
    };
    let (cell, answers) = bench.run(&busy, &blind);
    assert_eq!((cell.turns_skipped, cell.false_skips), (9, 9));
    assert!(answers.iter().all(|s| s.iter().all(|a| *a == s[0])));
    // A marker runs a turn whatever the threshold says.
    let alarmed = Workload {
        danger: 1.0,
        ..busy
    };
    let careful = Settings {
        skip: skip::SkipSettings {
            threshold: 2.0,
            ..skip::SkipSettings::default()
        },
        ..blind
    };
    let (cell, _) = bench.run(&alarmed, &careful);
    assert_eq!((cell.turns_skipped, cell.danger_runs), (0, 12));
}

#[test]
fn drafts_give_the_answers_of_the_frontier_in_fewer_steps() {
    let mut bench = Bench::new();
    let (_, plain) = bench.run(&workload(), &settings(Switches::NONE));
    for drafts in [1, 3, 5] {
        let path = ShortPath::Speculative { drafts };
        let (cell, answers) = bench.run(&workload(), &routed(path, 0.5));
        assert_eq!(answers, plain, "{drafts} drafts");
        assert!(cell.draft_acceptance < 1.0);
        assert!(cell.quality.unwrap().mean_kl() < 1e-9);
        // A light model that is the frontier drafts what it chooses: every draft stands.
        let mut twin = Bench {
            light: device(&frontier_config(), 1, 400),
            ..Bench::new()
        };
        let (cell, answers) = twin.run(&workload(), &routed(path, 0.5));
        assert_eq!(answers, plain);
        assert!((cell.draft_acceptance - 1.0).abs() < 1e-12);
        assert!(cell.tokens_per_draft_step > 1.0 + 0.5 * drafts as f64);
    }
}

#[test]
fn the_threshold_decides_between_the_models() {
    let mut bench = Bench::new();
    let (_, plain) = bench.run(&workload(), &settings(Switches::NONE));
    // Nothing is below zero risk: the frontier alone, and nothing else is even tried.
    let (none, answers) = bench.run(&workload(), &routed(ShortPath::SmallModel, 0.0));
    assert_eq!((answers, none.short_share), (plain.clone(), 0.0));
    // Everything is below 2, without the override's 1 being more: the light model alone.
    let (all, answers) = bench.run(&workload(), &routed(ShortPath::SmallModel, 2.0));
    assert!((all.short_share - 1.0).abs() < 1e-12);
    let mut swapped = Bench {
        frontier: device(&light_config(), 2, 400),
        reference: device(&light_config(), 2, 40),
        ..Bench::new()
    };
    let (_, of_light) = swapped.run(&workload(), &settings(Switches::NONE));
    assert_eq!(answers, of_light);
    let quality = all.quality.unwrap();
    assert!(quality.mean_kl() > 0.1 && quality.same_share() < 0.9);
    // Leaving after the last layer is not leaving.
    let (exit, answers) = bench.run(
        &workload(),
        &routed(ShortPath::EarlyExit { layers: 3 }, 2.0),
    );
    assert_eq!(answers, plain);
    assert!(exit.short_share > 0.9 && exit.quality.unwrap().mean_kl() < 1e-9);
    let (exit, _) = bench.run(
        &workload(),
        &routed(ShortPath::EarlyExit { layers: 1 }, 2.0),
    );
    assert!(exit.quality.unwrap().mean_kl() > 1e-3);
}

#[test]
fn critical_tokens_never_take_the_short_path_under_the_override() {
    let mut bench = Bench::new();
    for short in [ShortPath::SmallModel, ShortPath::EarlyExit { layers: 1 }] {
        for threshold in [0.5, 0.9, 1.0] {
            let (cell, _) = bench.run(&workload(), &routed(short, threshold));
            assert_eq!(cell.critical_short, 0, "{short:?} at {threshold}");
        }
    }
    // Without it they do: the control run.
    let mut off = routed(ShortPath::SmallModel, 2.0);
    off.route.severity_override = false;
    let more = Workload {
        turns: 12,
        ..workload()
    };
    let (cell, _) = bench.run(&more, &off);
    assert!(cell.critical_short > 0);
}

#[test]
fn kept_prefixes_change_no_answer_and_small_pages_change_few() {
    let mut bench = Bench::new();
    let work = Workload {
        preamble: 96,
        ..workload()
    };
    let (plain, a) = bench.run(&work, &settings(Switches::NONE));
    let mut prefix = settings(Switches::only(3));
    prefix.evidence.quantise = false;
    let (kept, b) = bench.run(&work, &prefix);
    assert_eq!(a, b);
    // Six pages of preamble per prompt, but for those of the first turn of each session.
    assert!(kept.prefix_hit_rate > 0.4, "{}", kept.prefix_hit_rate);
    assert!(kept.work.flops < plain.work.flops * 7 / 10);
    assert_eq!((plain.prefix_hit_rate, plain.kv_bits), (0.0, 0.0));
    let mut small = settings(Switches::only(3));
    small.evidence.prefix = false;
    let (small, _) = bench.run(&work, &small);
    let shares = [small.mix.anchors, small.mix.int8, small.mix.fp8]
        .map(|n| n as f64 / small.mix.pages() as f64);
    assert!((shares[0] - 0.05).abs() < 0.02 && (shares[1] - 0.15).abs() < 0.02);
    assert!((small.kv_bits - 8.4).abs() < 0.2);
    assert!(small.kv_mean_bytes < 0.8 * plain.kv_mean_bytes);
    let quality = small.quality.unwrap();
    assert!(
        quality.mean_kl() > 0.0 && quality.mean_kl() < 0.5,
        "{}",
        quality.mean_kl()
    );
}

#[test]
fn a_device_that_is_full_says_so_and_gets_its_pages_back() {
    let mut bench = Bench {
        frontier: device(&frontier_config(), 1, 7),
        ..Bench::new()
    };
    let all = settings(Switches::NONE);
    let sessions = draw(&workload());
    let error = run(&mut bench.models(), &sessions, &all, None).unwrap_err();
    assert!(matches!(error, ReferenceError::Memory { .. }), "{error}");
    assert_eq!(bench.frontier.kv_bytes(), 0);
    // Kept prefixes give way: one session at a time fits however many turns it has.
    let one = Workload {
        sessions: 1,
        turns: 20,
        no_change: 0.0,
        class: Some(windtunnel_tasks::TaskClass::Tools),
        ..workload()
    };
    let mut prefix = settings(Switches::only(3));
    prefix.evidence = EvidenceSettings {
        anchors: 0.0,
        ..EvidenceSettings::default()
    };
    bench.run(&one, &prefix);
}

#[test]
fn verification_finds_what_differs_and_lowers_the_threshold() {
    let mut bench = Bench::new();
    let mut careful = routed(ShortPath::SmallModel, 0.95);
    careful.layers.l4 = true;
    careful.route.severity_override = false;
    careful.shadow = ShadowSettings {
        q_min: 1.0,
        ..ShadowSettings::default()
    };
    let (cell, _) = bench.run(&workload(), &careful);
    assert_eq!(cell.verified.verified, cell.verified.accepted);
    assert!(cell.verified.differed > 0.0 && cell.verified.first_catch.is_some());
    assert!(cell.route_threshold < 0.95);
    assert!(cell.shadow_work.flops > 0 && cell.shadow_seconds < cell.model_seconds);
    // What is found is what the reference says: the same model, token by token.
    let quality = cell.quality.unwrap();
    assert!(quality.same_share() < 1.0);
    let mut blind = careful.clone();
    blind.layers.l4 = false;
    let (cell, _) = bench.run(&workload(), &blind);
    assert!((cell.route_threshold - 0.95).abs() < 1e-12);
    assert_eq!((cell.verified.accepted, cell.shadow_work.flops), (0, 0));
}

#[test]
fn a_grid_has_all_layers_alone_and_together_and_repeats() {
    let mut bench = Bench::new();
    let work = workload();
    let sessions = draw(&work);
    let mut all = settings(Switches::ALL);
    all.route.threshold = 0.9;
    let first = grid(&mut bench.models(), &sessions, &all, &usual_cells()).unwrap();
    let second = grid(&mut bench.models(), &sessions, &all, &usual_cells()).unwrap();
    assert_eq!(first.cells.len(), 9);
    for (a, b) in first.cells.iter().zip(&second.cells) {
        let a = Cell {
            wall_seconds: b.wall_seconds,
            ..a.clone()
        };
        assert_eq!(a, *b, "counted figures are the same every time");
    }
    let factor = first
        .interaction(Switches::ALL, |c| c.model_seconds)
        .unwrap();
    assert!(factor > 0.1 && factor < 10.0, "{factor}");
    let json = serde_json::to_string(&first).unwrap();
    let back: super::super::report::Grid = serde_json::from_str(&json).unwrap();
    assert_eq!(back.cells.len(), 9);
    assert_eq!(first.table().lines().count(), 11);
    assert!(first.table().contains("l0+l1+l2+l3+l4+l5"));
}

#[test]
fn settings_that_mean_nothing_are_named() {
    let mut bench = Bench::new();
    let sessions = draw(&workload());
    let mut refuse = |change: fn(&mut Settings), field: &str| {
        let mut settings = settings(Switches::ALL);
        change(&mut settings);
        let error = run(&mut bench.models(), &sessions, &settings, None).unwrap_err();
        assert!(error.to_string().contains(field), "{error}");
    };
    refuse(|s| s.skip.threshold = f64::NAN, "cascade.skip.threshold");
    refuse(|s| s.spans.max = 0, "cascade.spans.max");
    refuse(|s| s.route.gamma = 1.5, "cascade.route.gamma");
    refuse(
        |s| s.route.short = ShortPath::EarlyExit { layers: 9 },
        "cascade.route.short.early_exit.layers",
    );
    refuse(|s| s.evidence.int8 = 0.99, "cascade.evidence.int8");
    refuse(|s| s.shadow.eta = 0.0, "cascade.shadow.eta");
    refuse(|s| s.control.period = 0.0, "cascade.control.period");
    refuse(|s| s.max_new_tokens = 600, "cascade.max_new_tokens");
}

#[test]
fn divergence_is_that_of_the_distributions() {
    let p = [0.5_f32.ln(), 0.5_f32.ln()];
    let q = [0.9_f32.ln() + 3.0, 0.1_f32.ln() + 3.0];
    let want = 0.5 * (0.5_f64 / 0.9).ln() + 0.5 * (0.5_f64 / 0.1).ln();
    assert!((divergence(&p, &q) - want).abs() < 1e-6);
    assert!(divergence(&p, &p) < 1e-12);
}
