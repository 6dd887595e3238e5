//! Why traffic cannot be made: always with the file and line where there is one, the reason, and
//! what to do about it. No content of a file is worth a panic.

use std::path::PathBuf;

/// Why the traffic of a scenario cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// A trace file is nowhere to be found.
    #[error(
        "trace file `{file}` is not there ({}); set --traces DIR or \
         WINDTUNNEL_TRACES to the folder that holds it",
        tried_places(.tried)
    )]
    NotFound {
        /// The file as the scenario names it.
        file: String,
        /// The places where it was sought.
        tried: Vec<PathBuf>,
    },
    /// The operating system does not give the file.
    #[error("cannot read {}: {source}", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The file is damaged: a broken compression, a line without end.
    #[error(
        "{}:{}: {reason}; fetch it again and compare its checksum",
        .file.display(), damaged_at(*.line)
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The last line that could be read, from 1; 0 if none.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The file is not what `trace.format` says.
    #[error("{}:{line}: {reason}; check `traffic.trace.format`", .file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// The line that tells, from 1.
        line: u64,
        /// What was expected and what is there.
        reason: String,
    },
    /// A row cannot be used.
    #[error(
        "{}:{line}: {}{reason}; correct the row, or pass --skip-bad-rows to leave such rows out \
         and have them counted",
        .file.display(), column_prefix(.column)
    )]
    Row {
        /// The file.
        file: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// The column or field; empty if it is the row as a whole.
        column: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing is left to play.
    #[error("{}: {reason}; check the file and `traffic.trace.format`", .file.display())]
    Empty {
        /// The file.
        file: PathBuf,
        /// Why there is nothing.
        reason: String,
    },
    /// The scenario asks for something that cannot be.
    #[error("`{key}`: {reason}; {remedy}")]
    Scenario {
        /// The key of the scenario.
        key: String,
        /// What is wrong with it.
        reason: String,
        /// What to write instead.
        remedy: String,
    },
}

impl TrafficError {
    /// A scenario error.
    pub(crate) fn scenario(
        key: impl Into<String>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::Scenario {
            key: key.into(),
            reason: reason.into(),
            remedy: remedy.into(),
        }
    }
}

fn tried_places(tried: &[PathBuf]) -> String {
    if tried.is_empty() {
        return "no folder was given to look in".to_owned();
    }
    let paths: Vec<String> = tried.iter().map(|p| p.display().to_string()).collect();
    format!("looked for {}", paths.join(", "))
}

/// Where a damaged file stops making sense; `line` is the last that could be read.
fn damaged_at(line: u64) -> String {
    match line {
        0 => " the file is damaged from its beginning".into(),
        _ => format!("{line}: the file is damaged after this line"),
    }
}

fn column_prefix(column: &str) -> String {
    if column.is_empty() {
        String::new()
    } else {
        format!("column `{column}`: ")
    }
}
