//! Rules across fields of a scenario that is well-formed.

use super::Finding;
use crate::schema::Scenario;
use crate::tree::Node;

/// Everything that makes no sense, though it is well-formed.
pub(crate) fn check(_scenario: &Scenario, _tree: &Node) -> Vec<Finding> {
    Vec::new()
}
