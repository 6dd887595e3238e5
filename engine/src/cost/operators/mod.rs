//! Step time from measured operators.
//!
//! Two forms. *Curves*: times per call over one number (tokens, or requests), and attention on a
//! grid of four axes; a step is the sum of the calls. *Lookups*: tables that hold a value for every
//! key, with rules that round a batch to a key. Whatever depends on one number alone is summed when
//! the model is built, so that a decode step takes a few loads.

/// Times over one number, and sums of them.
mod series;
/// Attention on a grid of four axes.
mod attention;
/// The correction for unequal lengths.
mod skew;
/// Curves composed into a step.
mod curves;
/// Planes of values for every key of two numbers.
mod plane;
/// Lookup tables composed into a step.
mod lookups;

use super::interconnect::AllReduce;
use crate::batch::BatchShape;
pub use attention::{AttentionGrid, AttentionPoint};
use curves::Curves;
pub use curves::{CurveTables, Experts, LAYERS, MoePoint};
use lookups::Lookups;
pub use lookups::{LookupTables, OPERATORS};
pub use plane::Plane;
pub use series::Series;
pub use skew::{Bins, Bucket, SkewFit};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The tables of a folder.
#[derive(Clone, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one per folder, behind an Arc"
)]
pub enum OperatorTables {
    /// Curves and a grid, in microseconds per call.
    Curves(CurveTables),
    /// A value for every key, in milliseconds per layer.
    Lookups(LookupTables),
}

/// Why tables make no model.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{table}: {reason}; {remedy}")]
pub struct TablesError {
    /// Which table.
    pub table: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

impl TablesError {
    pub(crate) fn new(
        table: impl Into<String>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            table: table.into(),
            reason: reason.into(),
            remedy: remedy.into(),
        }
    }
}

/// What a composition depends on beside the tables.
#[derive(Clone, PartialEq, Debug)]
pub struct Composition<'a> {
    /// Transformer layers of the model.
    pub layers: u32,
    /// GPUs that share every layer.
    pub tensor_parallel: u32,
    /// Several query heads share a key-value head.
    pub grouped_query: bool,
    /// All-reduces of a whole step where no table has them.
    pub all_reduce: AllReduce,
    /// Seconds added to every step.
    pub overhead: f64,
    /// Calls per layer of layers that are not known by name.
    pub calls: &'a BTreeMap<String, u32>,
}

/// The time of a step, composed from tables. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Operators(Arc<Form>);

#[derive(Debug)]
enum Form {
    Curves(Curves),
    Lookups(Lookups),
}

impl PartialEq for Operators {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Operators {
    /// Composes tables for a model.
    ///
    /// # Errors
    /// If a table that the composition needs is absent, or holds a layer that is not known.
    pub fn new(
        tables: &Arc<OperatorTables>,
        composition: &Composition<'_>,
    ) -> Result<Self, TablesError> {
        let form = match &**tables {
            OperatorTables::Curves(_) => Form::Curves(Curves::new(tables, composition)?),
            OperatorTables::Lookups(_) => Form::Lookups(Lookups::new(tables, composition)?),
        };
        Ok(Self(Arc::new(form)))
    }

    /// Seconds of a step, and whether it lies outside what was measured.
    pub fn seconds(&self, shape: &BatchShape) -> (f64, bool) {
        match &*self.0 {
            Form::Curves(m) => m.seconds(shape),
            Form::Lookups(m) => m.seconds(shape),
        }
    }

    /// Whether shortest and longest context of a step matter.
    pub fn needs_spread(&self) -> bool {
        match &*self.0 {
            Form::Curves(m) => m.corrects_skew(),
            Form::Lookups(_) => false,
        }
    }

    /// The multiple to which the context of every prefilling request is rounded up before it is
    /// summed.
    pub fn context_step(&self) -> u32 {
        match &*self.0 {
            Form::Curves(_) => 1,
            Form::Lookups(m) => m.context_step(),
        }
    }
}

#[cfg(test)]
mod tests;
