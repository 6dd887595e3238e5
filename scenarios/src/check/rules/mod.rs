//! Rules across fields of a scenario that is well-formed. Each rule is a small function; all of
//! them run, so that every finding comes at once.

/// Clients that try again.
mod clients;
/// Replicas.
mod fleet;
/// How many replicas there are.
mod scaling;
/// The gateway and its policies.
mod gateway;
/// The gateway's stages and pools.
mod stages;
/// Kernels that are rolled out.
mod rollouts;
/// What goes wrong.
mod faults;
/// Stored answers and coalescing.
mod answers;
/// The store that gateways share.
mod state_store;
/// The cache that replicas share.
mod shared_cache;
/// Classes, tenants, verification, thresholds.
mod objectives;
/// Verifiers that are asked one after the other.
mod ladder;
/// Distributions and arrival processes.
mod draws;
/// Clients, ends, traces.
mod traffic;

use super::Finding;
use crate::diagnostic::{Code, Severity};
use crate::schema::Scenario;
use crate::tree::{Node, Path};
use crate::workload::{self, TrafficError};

/// Every rule, in the order of the format.
const RULES: &[fn(&mut Rules<'_>)] = &[
    version,
    run,
    fleet::sizes,
    fleet::one_kind,
    fleet::engines,
    fleet::error_rates,
    scaling::scaling,
    gateway::admission,
    gateway::outliers,
    gateway::routing,
    gateway::queue,
    stages::stages,
    stages::limits,
    stages::paths,
    answers::answers,
    answers::coalescing,
    clients::clients,
    state_store::state_store,
    shared_cache::shared_cache,
    traffic::ends,
    traffic::rate,
    traffic::clients,
    traffic::draws,
    traffic::lengths_are_given,
    traffic::service,
    traffic::trace,
    objectives::classes_are_declared,
    objectives::classes,
    objectives::tenants,
    objectives::verification,
    ladder::ladder,
    faults::faults,
    objectives::thresholds,
    can_be_generated,
];

/// Everything that makes no sense, though it is well-formed.
pub(crate) fn check(scenario: &Scenario, tree: &Node) -> Vec<Finding> {
    let mut rules = Rules {
        scenario,
        tree,
        findings: Vec::new(),
    };
    for rule in RULES {
        rule(&mut rules);
    }
    rules.findings
}

/// What rules see, and what they found.
struct Rules<'a> {
    scenario: &'a Scenario,
    tree: &'a Node,
    findings: Vec<Finding>,
}

impl Rules<'_> {
    /// An error at the value that `path` leads to, or at the deepest part of it that is there.
    fn error(&mut self, code: Code, path: &Path, message: impl Into<String>) -> &mut Finding {
        let at = self.tree.origin_of(path);
        let finding = Finding::error(code, at, path.to_string(), message.into());
        self.findings.push(finding);
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }

    /// The same, but the scenario runs.
    fn warn(&mut self, code: Code, path: &Path, message: impl Into<String>) -> &mut Finding {
        let finding = self.error(code, path, message);
        finding.severity = Severity::Warning;
        finding
    }

    /// Says that a value must be otherwise unless it is.
    fn require(&mut self, path: &Path, holds: bool, must: &str) {
        if !holds {
            self.error(Code::OutOfRange, path, format!("`{path}` must {must}"));
        }
    }

    fn share(&mut self, path: &Path, value: f64) {
        let holds = (0.0..=1.0).contains(&value);
        self.require(path, holds, "lie between 0 and 1");
    }

    fn positive(&mut self, path: &Path, value: f64) {
        self.require(path, value > 0.0, "be more than zero");
    }

    fn not_negative(&mut self, path: &Path, value: f64) {
        self.require(path, value >= 0.0, "be zero or more");
    }

    fn at_least_one(&mut self, path: &Path, value: u64) {
        self.require(path, value >= 1, "be 1 or more");
    }
}

fn version(rules: &mut Rules<'_>) {
    let version = rules.scenario.version;
    if version != 1 {
        let message = format!("this program reads version 1 of the format, not {version}");
        rules
            .error(Code::Version, &Path::of("version"), message)
            .label = "write 1".to_owned();
    }
}

fn run(rules: &mut Rules<'_>) {
    if let Some(cut_off) = rules.scenario.run.cut_off {
        rules.positive(&Path::of("run.cut_off"), cut_off.0.as_secs_f64());
        if let crate::schema::WarmUp::Fixed(warm_up) = rules.scenario.run.warm_up
            && warm_up >= cut_off
        {
            let path = Path::of("run.warm_up");
            let message =
                format!("warm-up ({warm_up}) leaves nothing before the cut-off ({cut_off})");
            rules.error(Code::Contradiction, &path, message);
        }
    }
}

/// The generator itself has the last word, once nothing else is wrong.
fn can_be_generated(rules: &mut Rules<'_>) {
    let any_error = rules.findings.iter().any(|f| f.severity == Severity::Error);
    // Traces need their files, which a check does not.
    if any_error || rules.scenario.traffic.trace.is_some() {
        return;
    }
    match workload::prepare(rules.scenario, None, None, false) {
        Ok(_) => {}
        Err(TrafficError::Scenario {
            key,
            reason,
            remedy,
        }) => {
            let path = Path::of(&key);
            let message = format!("`{key}`: {reason}");
            rules.error(Code::OutOfRange, &path, message).label = remedy;
        }
        Err(other) => {
            rules.error(Code::OutOfRange, &Path::of("traffic"), other.to_string());
        }
    }
}
