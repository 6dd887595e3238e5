//! Step times that `windtunnel calibrate` measured: a JSON file with points, ranges and errors.

use super::files::Files;
use super::{ProfileError, same_digest, within};
use std::path::Path;
use windtunnel_engine::config::TableSpec;
use windtunnel_engine::config::calibration::{Calibration, FORMAT};
use windtunnel_engine::cost::table::Table;

/// Fills a table from the file it names; a table without one is left as it is.
pub(super) fn resolve(spec: &mut TableSpec, dir: Option<&Path>) -> Result<(), ProfileError> {
    let Some(name) = &spec.file else {
        return Ok(());
    };
    let path = within(dir, name);
    let mut files = Files::default();
    let text = files.text(&path)?;
    let remedy = "take a file that `windtunnel calibrate` wrote";
    let measured: Calibration = serde_json::from_str(&text).map_err(|e| {
        let reason = e.to_string();
        let reason = reason.split(" at line ").next().unwrap_or_default();
        ProfileError::new(&path, e.line() as u64, reason, remedy)
    })?;
    if measured.format != FORMAT {
        let reason = format!(
            "its format is {}, and this version reads {FORMAT}",
            measured.format
        );
        return Err(ProfileError::new(&path, 0, reason, remedy));
    }
    same_digest(&mut spec.digest, files.digest(), &path)?;
    spec.decode = measured.decode;
    spec.prefill = measured.prefill;
    spec.extra_prompt_ms = measured.extra_prompt_ms;
    spec.mixed_saving_ms = measured.mixed_saving_ms;
    for (key, ms) in [
        ("extra_prompt_ms", spec.extra_prompt_ms),
        ("mixed_saving_ms", spec.mixed_saving_ms),
    ] {
        if !(ms >= 0.0 && ms.is_finite()) {
            let reason = format!("`{key}` is {ms}, which is no time");
            return Err(ProfileError::new(&path, 0, reason, remedy));
        }
    }
    match Table::new(spec) {
        Ok(_) => Ok(()),
        Err((grid, error)) => {
            let reason = format!("`{grid}`: {error}");
            Err(ProfileError::new(&path, 0, reason, remedy))
        }
    }
}
