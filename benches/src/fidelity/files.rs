//! Files of measured systems: tables, JSON, JSON lines, plain or packed with gzip. Whatever cannot be
//! read is told with file, line, reason and remedy.

use flate2::read::MultiGzDecoder;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// A file, or a folder, that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}{}: {reason}\n  {remedy}", .file.display(), at(*.line))]
pub struct Unreadable {
    /// Which.
    pub file: PathBuf,
    /// The line that shows it, from 1; 0 if it is no line.
    pub line: u64,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

fn at(line: u64) -> String {
    match line {
        0 => String::new(),
        n => format!(":{n}"),
    }
}

impl Unreadable {
    /// Something is wrong with a file as a whole.
    pub(super) fn file(file: &Path, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            reason: reason.into(),
            remedy: remedy.into(),
        }
    }
}

const FETCH_AGAIN: &str = "fetch the file again, or correct the line";

/// The file of this name, or the same with `.gz` behind it; `None` if there is neither.
pub(super) fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    [dir.join(name), dir.join(format!("{name}.gz"))]
        .into_iter()
        .find(|path| path.is_file())
}

/// The same, where the layout says that there must be one.
pub(super) fn expect(dir: &Path, name: &str, what: &str) -> Result<PathBuf, Unreadable> {
    find(dir, name).ok_or_else(|| {
        let file = dir.join(name);
        let reason = format!("there is no such file ({what})");
        Unreadable::file(
            &file,
            reason,
            "put it there, or give another folder to --fidelity",
        )
    })
}

/// Names of a folder's files or folders, sorted; none if there is no such folder.
pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>, Unreadable> {
    let unreadable = |e: std::io::Error| {
        Unreadable::file(
            dir,
            format!("cannot be listed: {e}"),
            "give a folder that can be read",
        )
    };
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        found.push(entry.map_err(unreadable)?.path());
    }
    found.sort();
    Ok(found)
}

/// A path's last part as text, without `.gz`.
pub(super) fn name(path: &Path) -> String {
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    name.strip_suffix(".gz").map_or(name.clone(), str::to_owned)
}

/// Opens a file, unpacked if it begins like gzip.
fn open(path: &Path) -> Result<Box<dyn BufRead>, Unreadable> {
    let unreadable = |e: std::io::Error| {
        Unreadable::file(
            path,
            format!("cannot be read: {e}"),
            "check that it is there and readable",
        )
    };
    let mut raw = BufReader::with_capacity(1 << 16, File::open(path).map_err(unreadable)?);
    let begin = raw.fill_buf().map_err(unreadable)?;
    Ok(if begin.starts_with(&[0x1f, 0x8b]) {
        Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(raw)))
    } else {
        Box::new(raw)
    })
}

/// The whole of a text file.
pub(super) fn text(path: &Path) -> Result<String, Unreadable> {
    let mut text = String::new();
    open(path)?
        .read_to_string(&mut text)
        .map_err(|e| Unreadable::file(path, format!("cannot be read as text: {e}"), FETCH_AGAIN))?;
    Ok(text)
}

/// A JSON document.
pub(super) fn json<T: DeserializeOwned>(path: &Path) -> Result<T, Unreadable> {
    from_json(path, &text(path)?)
}

/// A JSON document that is at hand.
pub(super) fn from_json<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, Unreadable> {
    serde_json::from_str(text).map_err(|e| Unreadable {
        file: path.to_owned(),
        line: e.line() as u64,
        reason: without_place(&e),
        remedy: FETCH_AGAIN.into(),
    })
}

/// One JSON document per line; blank lines are passed over.
pub(super) fn json_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, Unreadable> {
    let bad = |line: usize, reason: String| Unreadable {
        file: path.to_owned(),
        line: line as u64 + 1,
        reason,
        remedy: FETCH_AGAIN.into(),
    };
    let mut rows = Vec::new();
    for (i, line) in open(path)?.lines().enumerate() {
        let line = line.map_err(|e| bad(i, format!("cannot be read as text: {e}")))?;
        if !line.trim().is_empty() {
            rows.push(serde_json::from_str(&line).map_err(|e| bad(i, without_place(&e)))?);
        }
    }
    Ok(rows)
}

/// What `serde_json` says, without its own idea of lines.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

/// A table with a line of names on top, row by row.
pub(super) struct Table {
    path: PathBuf,
    reader: csv::Reader<Box<dyn BufRead>>,
    headers: csv::StringRecord,
    row: csv::StringRecord,
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column(usize);

impl Table {
    /// Opens a table.
    pub(super) fn open(path: &Path) -> Result<Self, Unreadable> {
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .from_reader(open(path)?);
        let headers = reader
            .headers()
            .map_err(|e| row_error(path, &e))?
            .iter()
            .map(|h| h.trim_start_matches('\u{feff}').to_owned())
            .collect();
        Ok(Self {
            path: path.to_owned(),
            reader,
            headers,
            row: csv::StringRecord::new(),
        })
    }

    /// A column that must be there.
    pub(super) fn column(&self, name: &str) -> Result<Column, Unreadable> {
        self.optional(name).ok_or_else(|| Unreadable {
            file: self.path.clone(),
            line: 1,
            reason: format!("there is no column `{name}`"),
            remedy: format!(
                "the columns are {}",
                self.headers.iter().collect::<Vec<_>>().join(", ")
            ),
        })
    }

    /// A column that may be there.
    pub(super) fn optional(&self, name: &str) -> Option<Column> {
        self.headers.iter().position(|h| h == name).map(Column)
    }

    /// Goes to the next row; false at the end.
    pub(super) fn advance(&mut self) -> Result<bool, Unreadable> {
        self.reader
            .read_record(&mut self.row)
            .map_err(|e| row_error(&self.path, &e))
    }

    /// The line at hand, from 1.
    pub(super) fn line(&self) -> u64 {
        self.row.position().map_or(0, csv::Position::line)
    }

    /// A cell of the row at hand.
    pub(super) fn text(&self, column: Column) -> &str {
        self.row.get(column.0).unwrap_or_default()
    }

    /// A cell as a number.
    pub(super) fn number<T: std::str::FromStr>(&self, column: Column) -> Result<T, Unreadable> {
        let text = self.text(column);
        text.parse().map_err(|_| {
            let name = self.headers.get(column.0).unwrap_or_default();
            self.wrong(format!("`{text}` in column `{name}` is no such number"))
        })
    }

    /// Something is wrong with the row at hand.
    pub(super) fn wrong(&self, reason: impl Into<String>) -> Unreadable {
        Unreadable {
            file: self.path.clone(),
            line: self.line(),
            reason: reason.into(),
            remedy: FETCH_AGAIN.into(),
        }
    }
}

fn row_error(path: &Path, error: &csv::Error) -> Unreadable {
    Unreadable {
        file: path.to_owned(),
        line: error.position().map_or(0, csv::Position::line),
        reason: format!("cannot be read as a table: {error}"),
        remedy: FETCH_AGAIN.into(),
    }
}
