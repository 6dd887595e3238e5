//! Checks of a scenario: first the merged tree against the JSON schema, then, if that is clean,
//! rules across fields. Each step reports all it finds at once.

/// What the schema says of one place.
pub(crate) mod shape;
/// The tree against the schema.
pub(crate) mod form;
/// Rules across fields.
pub(crate) mod rules;
/// "Did you mean".
pub(crate) mod suggest;

use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::source::{Origin, Sources};

/// A finding whose place is not yet looked up.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) at: Origin,
    pub(crate) path: String,
    pub(crate) label: String,
    pub(crate) notes: Vec<String>,
}

impl Finding {
    pub(crate) fn error(code: Code, at: Origin, path: String, message: String) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message,
            at,
            path,
            label: String::new(),
            notes: Vec::new(),
        }
    }

    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// With its place looked up.
    pub(crate) fn resolve(self, sources: &Sources) -> Diagnostic {
        Diagnostic {
            severity: self.severity,
            code: self.code,
            message: self.message,
            place: sources.place(self.at),
            path: self.path,
            label: self.label,
            notes: self.notes,
        }
    }
}
