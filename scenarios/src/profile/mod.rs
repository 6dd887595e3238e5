//! Readers of measured systems: folders of operator tables, files of coefficients and calibrations,
//! as cost models use them.
//!
//! `resolve` fills the cost model of an engine from the files it names. What was read is told by a
//! digest, so that a scenario says what it ran on.

/// Files, read once and digested.
mod files;
/// Tables of comma-separated values.
mod sheet;
/// The part of YAML that profiles use.
mod yaml;
/// Folders of curves.
mod curves;
/// The fit for unequal lengths.
mod skew;
/// Folders of lookup tables, and raw profiles.
mod lookups;
/// Coefficients of an analytic step.
mod coefficients;
/// Tables that `windtunnel calibrate` wrote.
mod calibration;
/// Hugging Face `config.json`.
mod model_config;

pub use model_config::ModelConfig;
pub use yaml::parse as parse_yaml;

use files::Files;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use windtunnel_engine::config::{ContinuousSpec, CostSpec, OperatorsSpec, Resident, StationSpec};
use windtunnel_engine::cost::operators::{OperatorTables, TablesError};

/// Why a profile cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProfileError {
    /// The file or folder.
    pub file: PathBuf,
    /// Its line, from 1; 0 if it is the file as a whole.
    pub line: u64,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

impl std::fmt::Display for ProfileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}; {}", self.reason, self.remedy)
    }
}

impl std::error::Error for ProfileError {}

impl ProfileError {
    pub(crate) fn new(
        file: &Path,
        line: u64,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            file: file.to_owned(),
            line,
            reason: reason.into(),
            remedy: remedy.into(),
        }
    }

    /// What tables say of themselves, with the file they were read from.
    fn of_tables(file: &Path, error: &TablesError) -> Self {
        let reason = format!("{}: {}", error.table, error.reason);
        Self::new(file, 0, reason, &error.remedy)
    }
}

/// Tables, and the digest of the files they were read from.
#[derive(Clone, Debug)]
pub struct Tables {
    /// The tables.
    pub tables: Arc<OperatorTables>,
    /// 32 hexadecimal digits.
    pub digest: String,
}

/// Reads the operator tables of a folder, in whichever layout it has, for replicas of
/// `tensor_parallel` GPUs. `model_config` is a Hugging Face `config.json` for what the tables need
/// of the model.
///
/// # Errors
/// The first file and line that cannot be used.
pub fn operators(
    folder: &Path,
    model_config: Option<&Path>,
    tensor_parallel: u32,
) -> Result<Tables, ProfileError> {
    let mut files = Files::default();
    let model = match model_config {
        Some(path) => Some(model_config::read(&mut files, path)?),
        None => None,
    };
    if !folder.is_dir() {
        let remedy = "a relative path starts at the scenario file";
        return Err(ProfileError::new(
            folder,
            0,
            "there is no such folder",
            remedy,
        ));
    }
    let tables = if curves::is_here(folder, tensor_parallel) {
        OperatorTables::Curves(curves::read(
            &mut files,
            folder,
            model.as_ref(),
            tensor_parallel,
        )?)
    } else {
        let read = lookups::read(&mut files, folder, model.as_ref(), tensor_parallel)?;
        OperatorTables::Lookups(read)
    };
    Ok(Tables {
        tables: Arc::new(tables),
        digest: files.digest(),
    })
}

/// Fills the cost model of an engine from the files it names; `dir` is where relative paths start.
/// Other cost models are left as they are.
///
/// # Errors
/// The first file and line that cannot be used, or files that are not those of the digest.
pub fn resolve(spec: &mut ContinuousSpec, dir: Option<&Path>) -> Result<(), ProfileError> {
    let tensor_parallel = spec.tensor_parallel;
    match &mut spec.cost {
        CostSpec::Operators(operators) => resolve_operators(operators, dir, tensor_parallel),
        CostSpec::Coefficients(fit) => coefficients::resolve(fit, dir),
        CostSpec::Table(table) => calibration::resolve(table, dir),
        CostSpec::Roofline { .. } | CostSpec::Linear(_) => Ok(()),
    }
}

/// Gives the cascade of a station the costs in the calibration that it names; other stations are left as they
/// are.
///
/// # Errors
/// The first file and line that cannot be used, or a file that is not that of the digest.
pub fn resolve_cascade(spec: &mut StationSpec, dir: Option<&Path>) -> Result<(), ProfileError> {
    match &mut spec.cascade {
        Some(cascade) => calibration::resolve_cascade(cascade, dir),
        None => Ok(()),
    }
}

fn resolve_operators(
    spec: &mut OperatorsSpec,
    dir: Option<&Path>,
    tensor_parallel: u32,
) -> Result<(), ProfileError> {
    let folder = within(dir, &spec.folder);
    let config = spec.model_config.as_ref().map(|path| within(dir, path));
    let read = operators(&folder, config.as_deref(), tensor_parallel)?;
    same_digest(&mut spec.digest, read.digest, &folder)?;
    spec.tables = Resident(Some(read.tables));
    Ok(())
}

/// Takes note of a digest; where one is given, it must be the same.
fn same_digest(given: &mut Option<String>, found: String, file: &Path) -> Result<(), ProfileError> {
    match given {
        Some(given) if *given != found => {
            let reason = format!("its digest is {found}, not {given}: its contents have changed");
            let remedy = "restore the files, or leave out `digest`";
            Err(ProfileError::new(file, 0, reason, remedy))
        }
        _ => {
            *given = Some(found);
            Ok(())
        }
    }
}

/// A path as it stands if absolute, else within `dir`.
fn within(dir: Option<&Path>, path: &str) -> PathBuf {
    dir.map_or_else(|| PathBuf::from(path), |dir| dir.join(path))
}

#[cfg(test)]
mod tests;
