//! Policy files: overlays that change what an operator decides and nothing of the world, so that
//! one world compares many policies.

use crate::check::Finding;
use crate::check::shape::Shape;
use crate::diagnostic::Code;
use crate::layers::{self, merge};
use crate::load::Source;
use crate::source::Sources;
use crate::tree::{Node, Path, Table, Value};

/// What a policy file may set; a table named here may be set with all it holds.
const DECISIONS: &[&str] = &[
    "gateway",
    "clients",
    "fleet.scaling.min_replicas",
    "fleet.scaling.max_replicas",
    "fleet.scaling.period",
    "fleet.scaling.tolerance",
    "fleet.scaling.policy",
    "fleet.scaling.scale_up",
    "fleet.scaling.scale_down",
    "fleet.engine.preset",
    "fleet.engine.scheduler",
    "fleet.engine.kv.block_size",
    "fleet.engine.kv.memory_utilization",
    "fleet.engine.kv.watermark",
    "fleet.engine.kv.allocation",
    "fleet.engine.kv.spare_block",
    "fleet.engine.kv.reserve_full_prompt",
    "fleet.engine.kv.prefix_cache",
    "fleet.engine.kv.visibility",
    "fleet.engine.kv.eviction",
    "fleet.engine.kv.preemption",
    "fleet.engine.kv.restart",
    "fleet.engine.kv.swap_space",
    "fleet.engine.cascade.layers",
    "fleet.engine.cascade.route",
    "fleet.engine.cascade.evidence",
    "fleet.engine.cascade.control",
    "fleet.engine.cascade.shadow.q_min",
    "fleet.engine.cascade.shadow.k",
    "fleet.engine.cascade.shadow.target",
    "fleet.engine.cascade.shadow.eta",
    "fleet.engine.cascade.shadow.full",
];

/// Keys that describe the file itself.
const ABOUT: &[&str] = &["version", "name", "purpose"];

/// Lays a policy file over a scenario.
pub(crate) fn apply(
    root: &mut Node,
    file: &Source,
    working_dir: &std::path::Path,
    sources: &mut Sources,
    findings: &mut Vec<Finding>,
) {
    let Some(mut layer) = layers::read_policy(file, working_dir, sources, findings) else {
        return;
    };
    let Some(table) = layer.as_table_mut() else {
        return;
    };
    table.retain(|e| !ABOUT.contains(&e.key.as_str()));
    refuse_others(table, &mut Path::default(), findings);
    merge(root, layer, Shape::root());
}

/// Reports and removes what is no decision.
fn refuse_others(table: &mut Table, path: &mut Path, findings: &mut Vec<Finding>) {
    for entry in table.entries_mut() {
        path.push_key(&entry.key);
        let here = path.to_string();
        let within = DECISIONS
            .iter()
            .any(|d| here == *d || here.starts_with(&format!("{d}.")));
        let leads_on = DECISIONS.iter().any(|d| d.starts_with(&format!("{here}.")));
        // The kind of an engine may be said, to be clear, as long as it is the one that is there;
        // changing it would change the world.
        match (&mut entry.node.value, within, leads_on) {
            (_, true, _) => {}
            (Value::Table(inner), _, true) => refuse_others(inner, path, findings),
            _ => {
                let message = format!("`{here}` is not for a policy file to decide");
                let finding = Finding::error(Code::NotADecision, entry.key_at, here, message)
                    .label("describes the world")
                    .note("a policy file may set gateway.*, clients.*, fleet.scaling.{min_replicas, max_replicas, period,")
                    .note("tolerance, policy, scale_up, scale_down}, fleet.engine.preset, fleet.engine.scheduler.* and")
                    .note(
                        "fleet.engine.kv.{block_size, memory_utilization, watermark, allocation, \
                         spare_block, reserve_full_prompt, prefix_cache, visibility, eviction, \
                         preemption, restart, swap_space}, and of a cascade its layers and what \
                         they are told: fleet.engine.cascade.{layers, route, evidence, control, \
                         shadow.{q_min, k, target, eta, full}}",
                    );
                findings.push(finding);
            }
        }
        path.pop();
    }
    table.retain(|e| {
        path.push_key(&e.key);
        let here = path.to_string();
        path.pop();
        DECISIONS
            .iter()
            .any(|d| here == *d || here.starts_with(&format!("{d}.")) || d.starts_with(&here))
    });
}
