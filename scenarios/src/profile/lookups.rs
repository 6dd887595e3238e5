//! Folders of lookup tables (one file per operator), and raw profiles, from which such tables are
//! interpolated.

use super::ProfileError;
use super::files::{self, Files};
use super::model_config::ModelConfig;
use super::sheet::{Row, Sheet};
use rustc_hash::FxHashMap;
use std::path::{Path, PathBuf};
use windtunnel_engine::cost::operators::{LookupTables, OPERATORS, Plane, Series, TablesError};

/// What tables made of raw profiles count contexts in, as Vidur does by default.
const CONTEXT_STEP: u32 = 64;
/// Bytes per number of activations, by which a message size becomes tokens.
const ACTIVATION_BYTES: u64 = 2;

pub(super) fn read(
    files: &mut Files,
    folder: &Path,
    model: Option<&ModelConfig>,
    gpus: u32,
) -> Result<LookupTables, ProfileError> {
    let layers = model.map(|m| m.layers);
    if files::is_here(&folder.join("attn_prefill.csv")) {
        return tables(files, folder, layers);
    }
    let (mlp, attention) = (only(folder, "mlp")?, only(folder, "attention")?);
    match (mlp, attention) {
        (Some(mlp), Some(attention)) => {
            let raw = Raw { gpus, layers };
            raw.read(files, folder, &mlp, &attention)
        }
        _ => {
            let reason = "it holds no profile";
            let remedy = "known are folders with `dense.csv`, `per_sequence.csv` and \
                `attention.csv`; with `attn_prefill.csv`, `attn_decode.csv` and one table per \
                operator; or with `mlp*.csv` and `attention*.csv`";
            Err(ProfileError::new(folder, 0, reason, remedy))
        }
    }
}

/// The one file of a folder whose name begins so, if there is one.
fn only(folder: &Path, begin: &str) -> Result<Option<PathBuf>, ProfileError> {
    let error = |reason: String, remedy: &str| ProfileError::new(folder, 0, reason, remedy);
    let entries = std::fs::read_dir(folder)
        .map_err(|e| error(format!("cannot be read: {e}"), "check its permissions"))?;
    let mut found: Vec<String> = entries
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(begin))
        .filter_map(|name| {
            let name = name.strip_suffix(".gz").unwrap_or(&name);
            name.ends_with(".csv").then(|| name.to_owned())
        })
        .collect();
    found.sort();
    found.dedup();
    match found.as_slice() {
        [] => Ok(None),
        [name] => Ok(Some(folder.join(name))),
        more => {
            let reason = format!("several files could be it: {}", more.join(", "));
            Err(error(reason, "keep one of them in the folder"))
        }
    }
}

/// One table per operator, a row for every key.
fn tables(
    files: &mut Files,
    folder: &Path,
    layers: Option<u32>,
) -> Result<LookupTables, ProfileError> {
    let mut by_tokens = Vec::new();
    for (name, optional) in OPERATORS {
        let path = folder.join(format!("{name}.csv"));
        if optional && !files::is_here(&path) {
            continue;
        }
        let sheet = Sheet::open(files, &path)?;
        let mut points: Vec<(u32, f64)> = Vec::new();
        sheet.rows(&["num_tokens", "ms"], |row| {
            let (tokens, ms) = (row.whole(0)?, row.time(1)?);
            if points.last().is_some_and(|p| p.0 >= tokens) {
                let reason = format!("num_tokens {tokens} stands after a larger one");
                return Err(row.misplaced(reason, "sort the rows, each key once"));
            }
            points.push((tokens, ms));
            Ok(())
        })?;
        let series = Series::new(name, points);
        by_tokens.push(series.map_err(|e| ProfileError::of_tables(&path, &e))?);
    }
    let path = folder.join("attn_prefill.csv");
    let sheet = Sheet::open(files, &path)?;
    let squared = sheet.has("prefill_chunk_size_squared");
    let chunk_column = if squared {
        "prefill_chunk_size_squared"
    } else {
        "prefill_chunk_size"
    };
    let mut points = Vec::new();
    sheet.rows(&[chunk_column, "kv_cache_size", "ms"], |row| {
        let chunk = if squared { root(row)? } else { row.whole(0)? };
        points.push((chunk, row.whole(1)?, row.time(2)?));
        Ok(())
    })?;
    let of = |path: &Path, e: &TablesError| ProfileError::of_tables(path, e);
    let prefill = Plane::exact("attn_prefill", &points).map_err(|e| of(&path, &e))?;
    let path = folder.join("attn_decode.csv");
    let sheet = Sheet::open(files, &path)?;
    points.clear();
    sheet.rows(&["batch_size", "kv_cache_size", "ms"], |row| {
        points.push((row.whole(0)?, row.whole(1)?, row.time(2)?));
        Ok(())
    })?;
    let decode = Plane::exact("attn_decode", &points).map_err(|e| of(&path, &e))?;
    Ok(LookupTables {
        by_tokens,
        prefill,
        decode,
        layers,
    })
}

/// The whole number whose square stands in the first column.
fn root(row: &Row<'_>) -> Result<u32, ProfileError> {
    let square = row.large(0)?;
    let root = square.isqrt();
    match u32::try_from(root) {
        Ok(whole) if root * root == square => Ok(whole),
        _ => Err(row.error(0, format!("{square} is not the square of a whole number"))),
    }
}

/// How a raw profile is read.
struct Raw {
    gpus: u32,
    layers: Option<u32>,
}

impl Raw {
    fn read(
        &self,
        files: &mut Files,
        folder: &Path,
        mlp: &Path,
        attention: &Path,
    ) -> Result<LookupTables, ProfileError> {
        let mut by_tokens = Vec::new();
        let sheet = Sheet::open(files, mlp)?;
        let hidden = self.hidden(&sheet)?;
        for (name, optional) in OPERATORS {
            if ["attn_kv_cache_save", "all_reduce"].contains(&name) {
                continue;
            }
            if optional && !sheet.has(&median(name)) {
                continue;
            }
            let points = self.medians(&sheet, name)?;
            by_tokens.push(self.series(&sheet, name, points)?);
        }
        let sheet = Sheet::open(files, attention)?;
        if sheet.has(&median("attn_kv_cache_save")) {
            let points = self.saves(&sheet)?;
            by_tokens.push(self.series(&sheet, "attn_kv_cache_save", points)?);
        }
        let prefill = self.plane(&sheet, "attn_prefill", true)?;
        let decode = self.plane(&sheet, "attn_decode", false)?;
        if self.gpus > 1
            && let Some(path) = only(folder, "all_reduce")?
        {
            let sheet = Sheet::open(files, &path)?;
            let points = self.all_reduce(&sheet, hidden)?;
            by_tokens.push(self.series(&sheet, "all_reduce", points)?);
        }
        Ok(LookupTables {
            by_tokens,
            prefill,
            decode,
            layers: self.layers,
        })
    }

    /// Width of the residual stream, which all rows must agree on.
    fn hidden(&self, sheet: &Sheet) -> Result<u64, ProfileError> {
        let mut shape: Option<[u32; 4]> = None;
        let columns = ["n_embd", "n_expanded_embd", "n_head", "n_kv_head"];
        sheet.rows(&columns, |row| {
            let here = [row.whole(0)?, row.whole(1)?, row.whole(2)?, row.whole(3)?];
            if *shape.get_or_insert(here) != here {
                let reason = "the file holds models of several shapes";
                return Err(row.misplaced(reason, "keep the rows of one model"));
            }
            Ok(())
        })?;
        Ok(shape.map_or(0, |s| u64::from(s[0])))
    }

    /// Tokens and median times of an operator, for as many GPUs.
    fn medians(&self, sheet: &Sheet, name: &str) -> Result<Vec<(u32, f64)>, ProfileError> {
        let mut points = Vec::new();
        let column = median(name);
        let columns = ["num_tokens", "num_tensor_parallel_workers", &column];
        sheet.rows(&columns, |row| {
            if row.whole(1)? == self.gpus {
                points.push((row.whole(0)?, row.time(2)?));
            }
            Ok(())
        })?;
        Ok(points)
    }

    /// What writing keys and values takes, by new tokens: those of a chunk, or one per decode.
    fn saves(&self, sheet: &Sheet) -> Result<Vec<(u32, f64)>, ProfileError> {
        let column = median("attn_kv_cache_save");
        let columns = [
            "prefill_chunk_size",
            "batch_size",
            "num_tensor_parallel_workers",
            &column,
        ];
        let mut points = Vec::new();
        sheet.rows(&columns, |row| {
            if row.whole(2)? == self.gpus {
                points.push((row.whole(0)?.max(row.whole(1)?), row.time(3)?));
            }
            Ok(())
        })?;
        Ok(points)
    }

    fn plane(&self, sheet: &Sheet, name: &str, prefill: bool) -> Result<Plane, ProfileError> {
        let column = median(name);
        let columns = [
            "prefill_chunk_size",
            "batch_size",
            "kv_cache_size",
            "num_tensor_parallel_workers",
            &column,
        ];
        let mut points = Vec::new();
        sheet.rows(&columns, |row| {
            let (chunk, batch) = (row.whole(0)?, row.whole(1)?);
            // A row without a chunk is one of decodes.
            if row.whole(3)? == self.gpus && (chunk > 0) == prefill {
                let x = if prefill { chunk } else { batch };
                points.push((x, row.whole(2)?, row.time(4)?));
            }
            Ok(())
        })?;
        if points.is_empty() {
            return Err(self.nothing(sheet, name));
        }
        let plane = Plane::interpolated(name, &points, CONTEXT_STEP);
        plane.map_err(|e| ProfileError::of_tables(sheet.file(), &e))
    }

    /// Tokens whose activations make a message, and median times.
    fn all_reduce(&self, sheet: &Sheet, hidden: u64) -> Result<Vec<(u32, f64)>, ProfileError> {
        let column = median("all_reduce");
        let columns = [
            "size",
            "num_workers",
            "devices_per_node",
            "collective",
            &column,
        ];
        let per_token = hidden * ACTIVATION_BYTES;
        let mut points = Vec::new();
        sheet.rows(&columns, |row| {
            let here = row.whole(1)? == self.gpus && row.whole(2)? == self.gpus;
            if here && row.text(3) == "all_reduce" {
                let tokens = row.large(0)? / per_token.max(1);
                if let Ok(tokens) = u32::try_from(tokens) {
                    points.push((tokens, row.time(4)?));
                }
            }
            Ok(())
        })?;
        // No step computes more tokens than the linear operators were measured for, by far.
        points.retain(|p| p.0 <= 1 << 18);
        Ok(points)
    }

    /// Times of one key averaged.
    fn series(
        &self,
        sheet: &Sheet,
        name: &str,
        points: Vec<(u32, f64)>,
    ) -> Result<Series, ProfileError> {
        let mut sums: FxHashMap<u32, (f64, u32)> = FxHashMap::default();
        for (key, ms) in points {
            let sum = sums.entry(key).or_default();
            *sum = (sum.0 + ms, sum.1 + 1);
        }
        if sums.is_empty() {
            return Err(self.nothing(sheet, name));
        }
        let mut means: Vec<_> = sums
            .into_iter()
            .map(|(key, (sum, count))| (key, sum / f64::from(count)))
            .collect();
        means.sort_by_key(|m| m.0);
        Series::new(name, means).map_err(|e| ProfileError::of_tables(sheet.file(), &e))
    }

    fn nothing(&self, sheet: &Sheet, name: &str) -> ProfileError {
        let gpus = self.gpus;
        let reason = format!("it has no rows of `{name}` for tensor parallelism {gpus}");
        sheet.error(reason, "set `tensor_parallel` to what was measured")
    }
}

fn median(name: &str) -> String {
    format!("time_stats.{name}.median")
}
