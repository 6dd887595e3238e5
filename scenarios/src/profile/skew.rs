//! The fit for unequal lengths: `skew_fit` of `meta.yaml`, and `skew_fit.csv`.

use super::ProfileError;
use super::files::{self, Files};
use super::sheet::Sheet;
use serde_json::Value as Json;
use std::path::Path;
use windtunnel_engine::cost::operators::{Bins, Bucket, SkewFit};

/// One axis: names of its buckets.
struct Axis<'a> {
    labels: Vec<&'a str>,
    bins: Bins,
}

/// None if the folder's fit is absent or switched off.
pub(super) fn read(
    files: &mut Files,
    home: &Path,
    meta: &Json,
    meta_file: &Path,
    gpus: u32,
) -> Result<Option<SkewFit>, ProfileError> {
    let Some(fit) = meta.get("skew_fit") else {
        return Ok(None);
    };
    if fit.get("enabled") != Some(&Json::Bool(true)) {
        return Ok(None);
    }
    let own = fit
        .get("per_tp")
        .and_then(|per| per.get(gpus.to_string()))
        .unwrap_or(&Json::Null);
    let default = own
        .get("alpha_default")
        .or_else(|| fit.get("alpha_default"))
        .and_then(Json::as_f64)
        .unwrap_or(0.0);
    let axes = own
        .get("bucket_axes")
        .or_else(|| fit.get("bucket_axes"))
        .unwrap_or(&Json::Null);
    let axis = |name| axis(axes, name, meta_file);
    let decodes = axis("n")?;
    let rate = axis("skew_rate")?;
    let longest = axis("kv_big")?;
    let kv_prefill = axis("kp")?;
    let path = home.join("skew_fit.csv");
    if !files::is_here(&path) {
        let remedy = "copy it beside `attention.csv`, or set `skew_fit.enabled: false`";
        return Err(ProfileError::new(&path, 0, "it is not there", remedy));
    }
    let sheet = Sheet::open(files, &path)?;
    let columns = [
        "pc",
        "n_label",
        "skew_rate_label",
        "kv_big_label",
        "kp_label",
        "alpha",
    ];
    let mut chunks = Vec::new();
    sheet.rows(&columns[..1], |row| {
        chunks.push(row.whole(0)?);
        Ok(())
    })?;
    chunks.sort_unstable();
    chunks.dedup();
    let bins = [&decodes, &rate, &longest, &kv_prefill].map(|a| a.bins.clone());
    let mut skew = SkewFit::new(chunks.clone(), bins, default);
    sheet.rows(&columns, |row| {
        let place = |column: usize, axis: &Axis<'_>| {
            let label = row.text(column);
            let found = axis.labels.iter().position(|l| *l == label);
            found.ok_or_else(|| {
                let known = axis.labels.join(", ");
                row.error(column, format!("`{label}` is none of {known}"))
            })
        };
        let chunk = row.whole(0)?;
        let bucket = Bucket {
            chunk: chunks.partition_point(|&c| c < chunk),
            decodes: place(1, &decodes)?,
            rate: place(2, &rate)?,
            longest: place(3, &longest)?,
            kv_prefill: place(4, &kv_prefill)?,
        };
        skew.set(bucket, row.number(5)?);
        Ok(())
    })?;
    Ok(Some(skew))
}

/// `NAME_bins` and `NAME_labels`: bucket `i` reaches from bin `i` (left out) to bin `i + 1`.
fn axis<'a>(axes: &'a Json, name: &str, file: &Path) -> Result<Axis<'a>, ProfileError> {
    let list = |key: String| axes.get(&key).and_then(Json::as_array);
    let bins = list(format!("{name}_bins"));
    let labels = list(format!("{name}_labels"));
    let read = bins.zip(labels).and_then(|(bins, labels)| {
        let ends: Option<Vec<f64>> = bins.iter().skip(1).map(Json::as_f64).collect();
        let labels: Option<Vec<&str>> = labels.iter().map(Json::as_str).collect();
        Some((ends?, labels?))
    });
    match read {
        Some((ends, labels))
            if ends.len() == labels.len()
                && !ends.is_empty()
                && ends.windows(2).all(|w| w[0] < w[1]) =>
        {
            Ok(Axis {
                labels,
                bins: Bins(ends),
            })
        }
        _ => {
            let reason = format!(
                "`skew_fit.bucket_axes` lacks `{name}_bins` (rising) with one `{name}_labels` between any two"
            );
            let remedy = "take the `meta.yaml` that the fit was written with";
            Err(ProfileError::new(file, 0, reason, remedy))
        }
    }
}
