//! `explain`: where one request's time went and why it went where it went, or what makes up a
//! percentile.

use crate::args::{ExplainArgs, Format, LoadArgs};
use crate::common::{self, print, ready};
use crate::exit::{Exit, Stop};
use crate::folder::Folder;
use serde_json::json;
use std::path::Path;
use windtunnel_ledger::result::RunResult;
use windtunnel_reports::explain::{self, Life, Network};
use windtunnel_reports::render::story;
use windtunnel_reports::steady;

pub(crate) fn explain(args: &ExplainArgs) -> anyhow::Result<Exit> {
    let (run, network) = subject(args)?;
    if let Some(request) = args.request {
        let life = explain::request(&run, request, &network).ok_or_else(|| {
            let last = run.rows.last().map_or(0, |r| r.request);
            Stop::usage(format!(
                "error: there is no request {request}; this run has 0 to {last}"
            ))
        })?;
        let text = match args.format {
            Format::Json => life_json(&life)?,
            _ => story::life(&life),
        };
        print(&text)?;
        return Ok(Exit::Done);
    }
    let percentile = args.percentile.unwrap_or(99.0);
    if !(0.0..100.0).contains(&percentile) {
        return Err(Stop::usage(
            "error: `--percentile` lies between 0 and 100, such as 99",
        ));
    }
    let window = steady::assess(&run).window;
    let found = explain::quantile(
        &run,
        window.from_ns,
        &args.metric,
        percentile / 100.0,
        &network,
    )
    .map_err(|e| Stop::usage(format!("error: {e}")))?;
    let text = match args.format {
        Format::Json => serde_json::to_string_pretty(&found)? + "\n",
        _ => story::quantile(&found),
    };
    print(&text)?;
    Ok(Exit::Done)
}

/// The run to explain: from a result folder, or made now, with its decisions.
fn subject(args: &ExplainArgs) -> anyhow::Result<(RunResult, Network)> {
    let path = Path::new(&args.subject);
    if path.is_dir() {
        let mut folder = Folder::read(path)?;
        let wanted = args.seeds.seed;
        let at = folder
            .runs
            .iter()
            .position(|r| wanted.is_none_or(|seed| r.seed == seed));
        let at = at.ok_or_else(|| Stop::usage("error: no such seed in this folder"))?;
        let run = folder.runs.swap_remove(at);
        if run.rows.is_empty() {
            return Err(Stop::usage(
                "error: this folder has no request rows; run the scenario again without `--rows none`",
            ));
        }
        return Ok((run, Network::of(&folder.loaded.scenario)));
    }
    let load: &LoadArgs = &args.load;
    let ready = ready(&args.subject, load, &[], args.talk)?;
    let seeds = common::seeds(&args.seeds, ready.loaded.scenario.run.seed)?;
    let mut points = common::points(&ready, &seeds[..1], true, true);
    points[0].watch = args.request;
    let run = common::run_points(&args.subject, &points, Some(1), args.talk)?.swap_remove(0);
    Ok((run, Network::of(&ready.loaded.scenario)))
}

fn life_json(life: &Life) -> anyhow::Result<String> {
    let parts: Vec<_> = life
        .parts
        .iter()
        .map(|&(part, ns)| json!({ "part": part.name(), "ns": ns, "share": life.share(part) }))
        .collect();
    let value = json!({ "schema_version": 1, "row": life.row, "total_ns": life.total_ns, "parts": parts, "attempts": life.attempts, "decisions": life.decisions });
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}
