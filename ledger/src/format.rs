//! What a row looks like in files: one table of columns for CSV, JSON lines and Parquet, so that
//! they cannot drift apart. Times are in ns and say so in their names.

use crate::entry::AnswerSource;
use crate::result::RunResult;
use crate::rows::{End, Row};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use windtunnel_base::refusal::Refusal;

/// Version of the columns; a change of meaning raises it.
pub const FORMAT_VERSION: u32 = 1;

/// Why a file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The disk or the pipe.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The disk or the pipe, where no path is known.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A cell, a column or the version of a table of requests or samples.
    #[error("row {row}, column `{column}`: {reason}")]
    Cell {
        /// Row of data, from 1.
        row: u64,
        /// Column.
        column: String,
        /// What is the matter.
        reason: String,
    },
    /// Columns are missing or unknown.
    #[error("{0}")]
    Columns(String),
    /// Not a CSV file.
    #[error(transparent)]
    Csv(#[from] csv::Error),
    /// Not JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Not a Parquet file.
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
}

/// Where rows come from: written beside them where a format has a place for it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Provenance {
    /// Hash of the scenario.
    pub scenario_hash: String,
    /// Seed of the run.
    pub seed: u64,
    /// Class names, by rank.
    pub class_names: Vec<String>,
    /// Tenant names, by rank.
    pub tenant_names: Vec<String>,
}

impl Provenance {
    /// Of a run of the scenario with this hash.
    pub fn of(run: &RunResult, scenario_hash: &str) -> Self {
        Self {
            scenario_hash: scenario_hash.to_owned(),
            seed: run.seed,
            class_names: run.class_names.clone(),
            tenant_names: run.tenant_names.clone(),
        }
    }

    /// The name of a row's class or tenant; empty if it is not known.
    pub(crate) fn name(&self, of: Named, row: &Row) -> &str {
        let name = match of {
            Named::Class => self.class_names.get(row.class as usize),
            Named::Tenant => self.tenant_names.get(row.tenant as usize),
        };
        name.map_or("", String::as_str)
    }

    /// Learns a name from a row that was read.
    pub(crate) fn learn(&mut self, of: Named, row: &Row, name: &str) {
        let (names, rank) = match of {
            Named::Class => (&mut self.class_names, row.class as usize),
            Named::Tenant => (&mut self.tenant_names, row.tenant as usize),
        };
        // Ranks are dense; a file cannot make this grow beyond its own number of rows by much.
        if names.len() <= rank && rank < 1 << 20 {
            names.resize(rank + 1, String::new());
        }
        if let Some(slot) = names.get_mut(rank).filter(|slot| slot.is_empty()) {
            name.clone_into(slot);
        }
    }
}

/// Rows and where they come from, as read from a file.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Requests {
    /// One row per request.
    pub rows: Vec<Row>,
    /// Where they come from, as far as the format says it.
    pub provenance: Provenance,
}

/// Whose name a column holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Named {
    Class,
    Tenant,
}

/// How a column is read from a row and written to one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field {
    U32(fn(&Row) -> u32, fn(&mut Row, u32)),
    U64(fn(&Row) -> u64, fn(&mut Row, u64)),
    OptU32(fn(&Row) -> Option<u32>, fn(&mut Row, Option<u32>)),
    OptU64(fn(&Row) -> Option<u64>, fn(&mut Row, Option<u64>)),
    Bool(fn(&Row) -> bool, fn(&mut Row, bool)),
    OptBool(fn(&Row) -> Option<bool>, fn(&mut Row, Option<bool>)),
    End,
    Name(Named),
    Answer,
}

impl Field {
    /// Whether a cell may be empty.
    pub(crate) const fn optional(self) -> bool {
        matches!(
            self,
            Self::OptU32(..) | Self::OptU64(..) | Self::OptBool(..) | Self::Answer
        )
    }
}

/// A column of a table of requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) field: Field,
}

macro_rules! column {
    ($kind:ident $field:ident) => {
        Column {
            name: stringify!($field),
            field: Field::$kind(|row| row.$field, |row, value| row.$field = value),
        }
    };
}

/// The columns, in order; the last [`EXTRA`] are written only where a row has something in them.
pub(crate) const COLUMNS: [Column; 27] = [
    column!(U32 request),
    column!(U64 session),
    column!(U32 turn),
    column!(U32 tenant),
    Column {
        name: "tenant_name",
        field: Field::Name(Named::Tenant),
    },
    column!(U32 class),
    Column {
        name: "class_name",
        field: Field::Name(Named::Class),
    },
    column!(OptU32 replica),
    Column {
        name: "end",
        field: Field::End,
    },
    column!(Bool measured),
    column!(U64 sent_ns),
    column!(OptU64 dispatched_ns),
    column!(OptU64 accepted_ns),
    column!(OptU64 started_ns),
    column!(OptU64 first_token_ns),
    column!(OptU64 generated_ns),
    column!(OptU64 last_token_ns),
    column!(U64 ended_ns),
    column!(U32 prompt_tokens),
    column!(U32 cached_tokens),
    column!(U32 output_tokens),
    column!(U32 preemptions),
    column!(OptBool accepted_by_verifier),
    column!(Bool good),
    column!(Bool met_objectives),
    column!(OptU32 attempts),
    Column {
        name: "answer",
        field: Field::Answer,
    },
];

/// So many columns at the end are left out where no row has anything in any of them.
pub(crate) const EXTRA: usize = 2;

/// The columns that a file of these rows has.
pub(crate) fn columns_of(rows: &[Row]) -> &'static [Column] {
    if rows.iter().any(has_extra) {
        &COLUMNS
    } else {
        &COLUMNS[..COLUMNS.len() - EXTRA]
    }
}

/// Whether a row has something in the columns that most files leave out.
pub(crate) const fn has_extra(row: &Row) -> bool {
    row.attempts.is_some() || row.answer.is_some()
}

/// A row to be filled from a file.
pub(crate) const BLANK: Row = Row {
    request: 0,
    session: 0,
    turn: 0,
    tenant: 0,
    class: 0,
    replica: None,
    end: End::Unfinished,
    measured: false,
    sent_ns: 0,
    dispatched_ns: None,
    accepted_ns: None,
    started_ns: None,
    first_token_ns: None,
    generated_ns: None,
    last_token_ns: None,
    ended_ns: 0,
    prompt_tokens: 0,
    cached_tokens: 0,
    output_tokens: 0,
    preemptions: 0,
    accepted_by_verifier: None,
    good: false,
    met_objectives: false,
    attempts: None,
    answer: None,
};

/// The end of this name.
pub(crate) fn parse_end(name: &str) -> Option<End> {
    [End::Finished, End::Abandoned, End::Unfinished]
        .into_iter()
        .chain(Refusal::ALL.map(End::Refused))
        .find(|end| end.name() == name)
}

/// The source of answers of this name.
pub(crate) fn parse_answer(name: &str) -> Option<AnswerSource> {
    AnswerSource::ALL.into_iter().find(|s| s.name() == name)
}

/// Writes a file so that it is there whole or not at all: `fill` writes to a file beside it, which
/// takes its name at the end.
///
/// # Errors
/// Of the disk, and of `fill`; then nothing is left behind.
pub fn write_file<E: From<FormatError>>(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>,
) -> Result<(), E> {
    let fail = |source| FormatError::File {
        path: path.to_owned(),
        source,
    };
    let partial = Partial(partial_path(path));
    let file = File::create(&partial.0).map_err(fail)?;
    let mut writer = BufWriter::with_capacity(1 << 16, file);
    fill(&mut writer)?;
    writer.flush().map_err(fail)?;
    drop(writer);
    fs::rename(&partial.0, path).map_err(fail)?;
    Ok(())
}

/// Beside the file, so that renaming does not copy; with the process's number, so that two processes
/// that write the same file do not meet.
fn partial_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.partial", std::process::id()))
}

/// Removes the partial file, if it is still there.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("requests.csv");
        write_file::<FormatError>(&path, |w| Ok(w.write_all(b"old")?)).unwrap();
        let failed: Result<(), FormatError> = write_file(&path, |w| {
            w.write_all(b"half of the n")?;
            Err(io::Error::other("disk full").into())
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old", "the old file stays");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_field_of_a_row_has_its_column() {
        let json = serde_json::to_value(BLANK).unwrap();
        let mut fields: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        let mut columns: Vec<_> = COLUMNS
            .iter()
            .filter(|c| !matches!(c.field, Field::Name(_)))
            .map(|c| c.name.to_owned())
            .collect();
        fields.sort();
        columns.sort();
        assert_eq!(fields, columns);
    }
}
