//! Step times that `windtunnel calibrate` measured: a JSON file with points, ranges and errors.

use super::files::Files;
use super::{ProfileError, same_digest, within};
use std::path::Path;
use windtunnel_engine::config::calibration::{Calibration, FORMAT};
use windtunnel_engine::config::{CascadeDevice, CascadeSkip, CascadeSpec, TableSpec};
use windtunnel_engine::cost::table::Table;

/// Fills a table from the file it names; a table without one is left as it is.
pub(super) fn resolve(spec: &mut TableSpec, dir: Option<&Path>) -> Result<(), ProfileError> {
    let Some(name) = &spec.file else {
        return Ok(());
    };
    let path = within(dir, name);
    let measured = read(&path, &mut spec.digest)?;
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
            return Err(ProfileError::new(&path, 0, reason, REMEDY));
        }
    }
    match Table::new(spec) {
        Ok(_) => Ok(()),
        Err((grid, error)) => {
            let reason = format!("`{grid}`: {error}");
            Err(ProfileError::new(&path, 0, reason, REMEDY))
        }
    }
}

/// Gives a simulated cascade the costs of the layers in the file it names; one without is left as it is.
pub(super) fn resolve_cascade(
    spec: &mut CascadeSpec,
    dir: Option<&Path>,
) -> Result<(), ProfileError> {
    let Some(name) = &spec.file else {
        return Ok(());
    };
    let path = within(dir, name);
    let said = CascadeDevice {
        batch: spec.device.batch,
        context_memory: spec.device.context_memory,
        ..CascadeDevice::default()
    };
    if spec.digest.is_none() && (spec.device != said || spec.skip != CascadeSkip::default()) {
        let reason = "it gives `device` and `skip`, which the scenario gives too";
        return Err(ProfileError::new(&path, 0, reason, "leave them out of one"));
    }
    let measured = read(&path, &mut spec.digest)?;
    let Some(layers) = measured.layers else {
        let remedy = "calibrate again with `--light`";
        let reason = "no layers were measured";
        return Err(ProfileError::new(&path, 0, reason, remedy));
    };
    layers.give(spec).map_err(|key| {
        let reason = format!("`{key}` is not what a device does");
        ProfileError::new(&path, 0, reason, REMEDY)
    })
}

/// What to do about a file that is none.
const REMEDY: &str = "take a file that `windtunnel calibrate` wrote";

/// Reads a calibration, and notes its digest.
fn read(path: &Path, digest: &mut Option<String>) -> Result<Calibration, ProfileError> {
    let mut files = Files::default();
    let text = files.text(path)?;
    let measured: Calibration = serde_json::from_str(&text).map_err(|e| {
        let reason = e.to_string();
        let reason = reason.split(" at line ").next().unwrap_or_default();
        ProfileError::new(path, e.line() as u64, reason, REMEDY)
    })?;
    if measured.format != FORMAT {
        let reason = format!(
            "its format is {}, and this version reads {FORMAT}",
            measured.format
        );
        return Err(ProfileError::new(path, 0, reason, REMEDY));
    }
    same_digest(digest, files.digest(), path)?;
    Ok(measured)
}
