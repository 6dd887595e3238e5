//! YAML of profiles and traces, as a tree of JSON.

use super::ProfileError;
use super::files::Files;
use serde_json::Value as Json;
use std::path::Path;

pub(super) fn read(files: &mut Files, path: &Path) -> Result<Json, ProfileError> {
    let text = files.text(path)?;
    parse(&text).map_err(|(line, reason)| {
        ProfileError::new(path, line, reason, "write it as a table in plain YAML")
    })
}

/// Reads a document whose outermost value is a table; an empty one is null.
///
/// # Errors
/// The line, from 1 (0 if unknown), and what is wrong with it.
pub fn parse(text: &str) -> Result<Json, (u64, String)> {
    // The crate's own excerpt of the file would stand below ours.
    let options = serde_saphyr::options! { with_snippet: false };
    match serde_saphyr::from_str_with_options(text, options) {
        Ok(it @ (Json::Object(_) | Json::Null)) => Ok(it),
        Ok(_) => Err((1, "it is no table of `key: value`".into())),
        Err(error) => {
            let line = error.location().map_or(0, |at| at.line());
            let whole = error.to_string();
            let reason = whole.lines().next().unwrap_or_default();
            Err((line, format!("it is no YAML: {reason}")))
        }
    }
}
