//! `report`: documents from a result folder, without running anything again.

use crate::args::{Format, ReportArgs};
use crate::common::print;
use crate::exit::Exit;
use crate::folder::{self, Folder};
use windtunnel_reports::render::{json, markdown, points, table};

pub(crate) fn report(args: &ReportArgs) -> anyhow::Result<Exit> {
    let read = Folder::read(&args.folder)?;
    let summary = read.summary();
    let dir = args.out.as_deref().unwrap_or(&args.folder);
    folder::write_documents(
        dir,
        &summary,
        &read.runs,
        &read.loaded.resolved_toml,
        &read.manifest.command,
    )?;
    match args.format {
        None => print(&format!("wrote {}\n", dir.join("report.html").display()))?,
        Some(Format::Table) => print(&table::render(&summary))?,
        Some(Format::Json) => print(&json::render(&summary)?)?,
        Some(Format::Csv) => print(&points::render(&[&summary]))?,
        Some(Format::Markdown) => print(&markdown::render(&summary))?,
    }
    Ok(Exit::Done)
}
