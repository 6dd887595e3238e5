//! `compare`: scenarios, policies or result folders side by side, paired over seeds.

use crate::args::{CompareArgs, Format};
use crate::common::{self, print, ready};
use crate::exit::{Exit, Stop};
use crate::folder::Folder;
use std::fmt::Write as _;
use std::path::Path;
use windtunnel_reports::compare::{Comparison, compare as paired};
use windtunnel_reports::render::{number::figure, points};
use windtunnel_reports::summary::Summary;

/// What a comparison shows first, where the scenario has it.
const HEADLINES: [&str; 8] = [
    "ttft_p50",
    "ttft_p99",
    "tpot_p50",
    "e2e_p99",
    "goodput",
    "output_token_throughput",
    "prefix_hit_rate",
    "cost_per_verified_output",
];

pub(crate) fn compare(args: &CompareArgs) -> anyhow::Result<Exit> {
    let subjects = subjects(args)?;
    let mut summaries = Vec::with_capacity(subjects.len());
    for subject in &subjects {
        summaries.push(summary(args, subject)?);
    }
    let Some((base, others)) = summaries.split_first() else {
        return Err(Stop::usage("error: nothing to compare"));
    };
    if others.is_empty() {
        return Err(Stop::usage(
            "error: one subject only; name at least two, such as `windtunnel compare chat-burst policy:round-robin`",
        ));
    }
    let pairs: Result<Vec<Comparison>, _> =
        others.iter().map(|other| paired(base, other)).collect();
    let pairs = pairs.map_err(|e| Stop::usage(format!("error: {e}")))?;
    match args.format {
        Format::Json => print(&(serde_json::to_string_pretty(&pairs)? + "\n"))?,
        Format::Csv => print(&points::render(&summaries.iter().collect::<Vec<_>>()))?,
        Format::Table | Format::Markdown => print(&text(args, &summaries, &pairs))?,
    }
    Ok(Exit::Done)
}

/// One thing to compare.
enum Subject {
    /// A result folder.
    Folder(String),
    /// A scenario, with policies laid over it.
    Run {
        name: String,
        scenario: String,
        policies: Vec<String>,
    },
}

/// `policy:` subjects apply to `--on`, or to the first scenario named.
fn subjects(args: &CompareArgs) -> anyhow::Result<Vec<Subject>> {
    let plain = |s: &&String| !s.starts_with("policy:") && !Path::new(s.as_str()).is_dir();
    let on = args
        .on
        .clone()
        .or_else(|| args.subjects.iter().find(plain).cloned());
    let mut all = Vec::new();
    for subject in &args.subjects {
        all.push(if let Some(policy) = subject.strip_prefix("policy:") {
            let Some(scenario) = on.clone() else {
                return Err(Stop::usage(format!(
                    "error: `{subject}` needs a scenario to apply to; give one with --on"
                )));
            };
            Subject::Run {
                name: policy.to_owned(),
                scenario,
                policies: vec![policy.to_owned()],
            }
        } else if Path::new(subject).is_dir() {
            Subject::Folder(subject.clone())
        } else {
            Subject::Run {
                name: subject.clone(),
                scenario: subject.clone(),
                policies: Vec::new(),
            }
        });
    }
    Ok(all)
}

fn summary(args: &CompareArgs, subject: &Subject) -> anyhow::Result<Summary> {
    match subject {
        Subject::Folder(path) => {
            let mut summary = Folder::read(Path::new(path))?.summary();
            summary.scenario.name = path
                .trim_end_matches('/')
                .rsplit('/')
                .next()
                .unwrap_or(path)
                .to_owned();
            Ok(summary)
        }
        Subject::Run {
            name,
            scenario,
            policies,
        } => {
            let ready = ready(scenario, &args.load, policies, args.talk)?;
            let seeds = common::seeds(&args.seeds, ready.loaded.scenario.run.seed)?;
            let points = common::points(&ready, &seeds, false, true);
            let runs = common::run_points(name, &points, args.seeds.jobs, args.talk)?;
            let mut summary = Summary::from_runs(
                &ready.loaded.scenario,
                name,
                &ready.loaded.content_hash,
                &runs,
            );
            summary.scenario.name.clone_from(name);
            Ok(summary)
        }
    }
}

fn text(args: &CompareArgs, summaries: &[Summary], pairs: &[Comparison]) -> String {
    let mut out = overview(args, summaries);
    for pair in pairs {
        out.push('\n');
        if args.metrics.is_empty() {
            out.push_str(&pair.table(args.threshold, false));
        } else {
            let mut pair = pair.clone();
            pair.metrics.retain(|m| args.metrics.contains(&m.metric));
            out.push_str(&pair.table(args.threshold, true));
        }
    }
    out
}

/// One row per subject, the metrics that people look at first.
fn overview(args: &CompareArgs, summaries: &[Summary]) -> String {
    let wanted: Vec<&str> = if args.metrics.is_empty() {
        HEADLINES.to_vec()
    } else {
        args.metrics.iter().map(String::as_str).collect()
    };
    let there = |name: &&str| {
        summaries
            .iter()
            .any(|s| s.metrics.get(*name).is_some_and(|e| e.value.is_some()))
    };
    let columns: Vec<&str> = wanted.into_iter().filter(there).collect();
    let width = summaries
        .iter()
        .map(|s| s.scenario.name.chars().count())
        .max()
        .unwrap_or(0)
        .clamp(8, 28);
    let mut out = format!("{:width$}", "");
    for name in &columns {
        // Long names break at their last word so that a column stays narrow.
        let short = name
            .replace("output_token_throughput", "tokens/s")
            .replace("cost_per_verified_output", "cost/verified")
            .replace("prefix_hit_rate", "prefix hits");
        let _ = write!(out, " {short:>13}");
    }
    out.push('\n');
    for summary in summaries {
        let name: String = summary.scenario.name.chars().take(width).collect();
        let _ = write!(out, "{name:width$}");
        for column in &columns {
            let shown = summary
                .metrics
                .get(*column)
                .and_then(|e| Some(figure(e.value?, &e.unit)));
            let _ = write!(out, " {:>13}", shown.unwrap_or_default());
        }
        out.push('\n');
    }
    out
}
