//! `summary.json`, and its published schema.

use crate::summary::Summary;

/// The summary as indented JSON with a newline at its end.
///
/// # Errors
/// None that a summary can cause; serialising is fallible in general.
pub fn render(summary: &Summary) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string_pretty(summary)? + "\n")
}

/// The JSON schema of `summary.json`.
///
/// # Errors
/// None that the schema can cause; serialising is fallible in general.
pub fn schema() -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string_pretty(&schemars::schema_for!(Summary))? + "\n")
}
