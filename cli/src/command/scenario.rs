//! `scenario list|new|check|show|diff|schema`.

use crate::args::{Format, LoadArgs, ScenarioCommand};
use crate::common::{load_scenario, print, say, write};
use crate::exit::{Exit, Stop};
use std::fmt::Write as _;
use std::path::Path;
use windtunnel_scenarios::{library, schema_json, show, template};

pub(crate) fn scenario(command: ScenarioCommand) -> anyhow::Result<Exit> {
    match command {
        ScenarioCommand::List { format } => list(format),
        ScenarioCommand::New { file, from } => new(&file, from.as_deref()),
        ScenarioCommand::Check { scenarios, load } => check(&scenarios, &load),
        ScenarioCommand::Show {
            scenario,
            origins,
            load,
        } => {
            let loaded = load_scenario(&scenario, &load, &[], None)?;
            print(&show::show(&loaded, origins))?;
            Ok(Exit::Done)
        }
        ScenarioCommand::Diff { a, b } => {
            let load = LoadArgs::default();
            let (a, b) = (
                load_scenario(&a, &load, &[], None)?,
                load_scenario(&b, &load, &[], None)?,
            );
            print(&show::diff(&a, &b))?;
            Ok(Exit::Done)
        }
        ScenarioCommand::Schema => {
            print(&schema_json::schema_text())?;
            Ok(Exit::Done)
        }
    }
}

fn list(format: Format) -> anyhow::Result<Exit> {
    let mut out = String::new();
    match format {
        Format::Json => {
            let rows: Vec<_> = library::list()
                .iter()
                .map(|e| serde_json::json!({ "name": e.name, "purpose": e.purpose(), "tags": e.tags }))
                .collect();
            out = serde_json::to_string_pretty(&rows)? + "\n";
        }
        _ => {
            let width = library::list()
                .iter()
                .map(|e| e.name.len())
                .max()
                .unwrap_or(0);
            for e in library::list() {
                let _ = writeln!(out, "{:<width$}  {}", e.name, e.purpose());
            }
            let names: Vec<_> = library::policies().iter().map(|p| p.name).collect();
            let _ = writeln!(
                out,
                "\npolicies for --policy and `compare … policy:NAME`: {}",
                names.join(", ")
            );
        }
    }
    print(&out)?;
    Ok(Exit::Done)
}

fn new(file: &Path, from: Option<&str>) -> anyhow::Result<Exit> {
    if let Some(base) = from.filter(|base| library::find(base).is_none()) {
        let known: Vec<_> = library::list().iter().map(|e| e.name).collect();
        return Err(Stop::usage(format!(
            "error: no library scenario `{base}`\nknown: {}",
            known.join(", ")
        )));
    }
    if file.exists() {
        return Err(Stop::usage(format!(
            "error: {} exists already; choose another name or remove it",
            file.display()
        )));
    }
    let stem = file
        .file_stem()
        .map_or_else(|| "mine".into(), |s| s.to_string_lossy().into_owned());
    let text = match from {
        None => template::template(&stem),
        Some(base) => extension(&stem, base),
    };
    write(file, text.as_bytes())?;
    print(&format!(
        "wrote {0}; try `windtunnel run {0}`\n",
        file.display()
    ))?;
    Ok(Exit::Done)
}

fn check(scenarios: &[String], load: &LoadArgs) -> anyhow::Result<Exit> {
    let mut bad = false;
    for name in scenarios {
        match load_scenario(name, load, &[], None) {
            Ok(_) => print(&format!("{name}: fine\n"))?,
            Err(error) => {
                say(error);
                bad = true;
            }
        }
    }
    Ok(if bad { Exit::Usage } else { Exit::Done })
}

/// A file that changes a library scenario: everything not said is that scenario's.
fn extension(name: &str, base: &str) -> String {
    let name = toml::Value::String(name.to_owned());
    format!(
        "# Everything that is not said here is as in the library's `{base}`: see it with\n\
         #   windtunnel scenario show {base}\n\
         version = 1\nname = {name}\nextends = \"library:{base}\"\n\n\
         # Change what you like, for example:\n\
         # [fleet]\n# replicas = 8\n#\n# [gateway.routing]\n# kind = \"kv_router\"\n"
    )
}
