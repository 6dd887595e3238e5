//! Replicas that fail one request after the other, and that the gateway leaves alone for a while. Names are
//! Envoy's.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::quantity::Span;
use windtunnel_base::time::SimDuration;

/// Outlier detection: the gateway counts failures itself, and need not wait until whoever checks the
/// replicas' health tells it (`detection` of a `replica_loss`). A replica that fails so many requests in a row is
/// ejected at once: it gets no more of them until its time is over. Requests that a replica refuses because it
/// is full are no failures. Several gateways share what they find.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OutlierDetectionSpec {
    /// Off, it ejects nobody, and ejections are counted as none.
    pub enabled: bool,
    /// Failures in a row after which a replica is ejected; 1 or more.
    pub consecutive_5xx: u32,
    /// How long the first time; the second time in a row twice as long, and so on, until an answer
    /// comes from it again.
    pub base_ejection_time: Span,
    /// Never longer than this, or than `base_ejection_time` if that is longer.
    pub max_ejection_time: Span,
    /// At most this share of a pool's replicas, in per cent, rounded down, is ejected at once: but one may always
    /// be, and the last one that serves never is.
    pub max_ejection_percent: f64,
}

impl Default for OutlierDetectionSpec {
    fn default() -> Self {
        Self {
            enabled: true,
            consecutive_5xx: 5,
            base_ejection_time: Span(SimDuration::from_secs(30)),
            max_ejection_time: Span(SimDuration::from_secs(300)),
            max_ejection_percent: 10.0,
        }
    }
}
