//! Folders of curves: `dense.csv`, `per_sequence.csv`, `attention.csv` and what goes with them, in
//! `tp1/`, `tp2/`, … or beside `meta.yaml`.

use super::ProfileError;
use super::files::{self, Files};
use super::model_config::ModelConfig;
use super::sheet::Sheet;
use super::{skew, yaml};
use rustc_hash::FxHashMap;
use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use windtunnel_engine::cost::operators::{
    AttentionGrid, AttentionPoint, CurveTables, Experts, MoePoint, Series,
};

/// Whether a folder has this layout.
pub(super) fn is_here(folder: &Path, gpus: u32) -> bool {
    let home = home(folder, gpus);
    ["dense.csv", "per_sequence.csv"]
        .iter()
        .any(|name| files::is_here(&home.join(name)))
        || folder.join("meta.yaml").is_file()
}

/// Where the tables for so many GPUs lie.
fn home(folder: &Path, gpus: u32) -> PathBuf {
    let own = folder.join(format!("tp{gpus}"));
    if own.is_dir() { own } else { folder.to_owned() }
}

pub(super) fn read(
    files: &mut Files,
    folder: &Path,
    model: Option<&ModelConfig>,
    gpus: u32,
) -> Result<CurveTables, ProfileError> {
    let home = home(folder, gpus);
    let meta_file = folder.join("meta.yaml");
    let meta = if meta_file.is_file() {
        yaml::read(files, &meta_file)?
    } else {
        Json::Null
    };
    if home == folder {
        measured_for(&meta, &meta_file, gpus)?;
    }
    let dense = series(files, &home.join("dense.csv"), "tokens")?;
    let per_sequence = series(files, &home.join("per_sequence.csv"), "sequences")?;
    let attention = attention(files, &home.join("attention.csv"))?;
    let skew = skew::read(files, &home, &meta, &meta_file, gpus)?;
    // An expert layer is measured on one GPU, whatever the others do.
    let places = [home.join("moe.csv"), folder.join("tp1").join("moe.csv")];
    let moe = match places.iter().find(|p| files::is_here(p)) {
        Some(file) => moe(files, file)?,
        None => Vec::new(),
    };
    Ok(CurveTables {
        dense,
        per_sequence,
        attention,
        skew,
        moe,
        experts: model.and_then(|m| {
            (m.experts > 1).then_some(Experts {
                count: m.experts,
                per_token: m.experts_per_token.max(1),
            })
        }),
        layers: model.map(|m| m.layers),
    })
}

/// Tables that lie beside `meta.yaml` are those of the degrees it names.
fn measured_for(meta: &Json, file: &Path, gpus: u32) -> Result<(), ProfileError> {
    let Some(degrees) = meta.get("tp_degrees").and_then(Json::as_array) else {
        return Ok(());
    };
    if degrees.iter().any(|d| d.as_u64() == Some(u64::from(gpus))) {
        return Ok(());
    }
    let names: Vec<String> = degrees.iter().map(Json::to_string).collect();
    let reason = format!(
        "it was measured with tensor parallelism {}, not {gpus}",
        names.join(", ")
    );
    Err(ProfileError::new(
        file,
        0,
        reason,
        "set `tensor_parallel` to that, or measure it",
    ))
}

/// Times by layer over one number.
fn series(files: &mut Files, path: &Path, key: &str) -> Result<Vec<Series>, ProfileError> {
    let sheet = Sheet::open(files, path)?;
    let mut layers: Vec<(String, Vec<(u32, f64)>)> = Vec::new();
    sheet.rows(&["layer", key, "time_us"], |row| {
        let (name, at, us) = (row.text(0), row.whole(1)?, row.time(2)?);
        let layer = match layers.iter().rposition(|(n, _)| n == name) {
            Some(i) => i,
            None => {
                layers.push((name.to_owned(), Vec::new()));
                layers.len() - 1
            }
        };
        let points = &mut layers[layer].1;
        if let Some(&(before, _)) = points.last()
            && before >= at
        {
            let reason = format!("{key} {at} of layer `{name}` stands after {before}");
            return Err(row.misplaced(reason, &format!("sort the rows of a layer by {key}")));
        }
        points.push((at, us));
        Ok(())
    })?;
    let named = |(name, points): (String, Vec<(u32, f64)>)| Series::new(&name, points);
    let series: Result<Vec<_>, _> = layers.into_iter().map(named).collect();
    series.map_err(|e| ProfileError::of_tables(path, &e))
}

fn attention(files: &mut Files, path: &Path) -> Result<AttentionGrid, ProfileError> {
    let sheet = Sheet::open(files, path)?;
    let columns = [
        "prefill_chunk",
        "kv_prefill",
        "n_decode",
        "kv_decode",
        "time_us",
    ];
    let mut seen: FxHashMap<[u32; 4], u64> = FxHashMap::default();
    let mut points = Vec::new();
    sheet.rows(&columns, |row| {
        let key = [row.whole(0)?, row.whole(1)?, row.whole(2)?, row.whole(3)?];
        if let Some(first) = seen.insert(key, row.line) {
            let reason = format!("the same point stands in line {first}");
            return Err(row.misplaced(reason, "keep one of the rows"));
        }
        points.push(AttentionPoint {
            prefill_chunk: key[0],
            kv_prefill: key[1],
            n_decode: key[2],
            kv_decode: key[3],
            us: row.time(4)?,
        });
        Ok(())
    })?;
    AttentionGrid::new(&points).map_err(|e| ProfileError::of_tables(path, &e))
}

fn moe(files: &mut Files, path: &Path) -> Result<Vec<MoePoint>, ProfileError> {
    let sheet = Sheet::open(files, path)?;
    let mut points = Vec::new();
    sheet.rows(&["tokens", "activated_experts", "time_us"], |row| {
        points.push(MoePoint {
            tokens: row.whole(0)?,
            experts: row.whole(1)?,
            us: row.time(2)?,
        });
        Ok(())
    })?;
    Ok(points)
}
