//! Ids of classes and tenants: ranks in alphabetical order.

use super::TrafficError;
use crate::schema::Scenario;
use std::collections::BTreeSet;
use windtunnel_base::ids::{ClassId, TenantId};
use windtunnel_base::time::SimDuration;

/// Classes and tenants of a scenario by id.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct NameTable {
    classes: Vec<String>,
    patience: Vec<Option<SimDuration>>,
    tenants: Vec<String>,
}

impl NameTable {
    /// All classes of the scenario (`default` if it lists none), and all tenants that it lists
    /// or that its clients name (`default` for clients that name none).
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let (mut classes, mut patience): (Vec<_>, Vec<_>) = scenario
            .classes
            .iter()
            .map(|(name, class)| (name.clone(), class.deadline.map(|d| d.0)))
            .unzip();
        if classes.is_empty() {
            classes.push("default".into());
            patience.push(None);
        }
        let mut tenants: BTreeSet<String> = scenario.tenants.keys().cloned().collect();
        let clients = &scenario.traffic.clients;
        tenants.extend(clients.iter().filter_map(|c| c.tenant.clone()));
        if tenants.is_empty() || clients.iter().any(|c| c.tenant.is_none()) {
            tenants.insert("default".into());
        }
        Self {
            classes,
            patience,
            tenants: tenants.into_iter().collect(),
        }
    }

    /// The id of a class.
    pub(crate) fn class(&self, name: &str) -> Option<ClassId> {
        self.classes
            .iter()
            .position(|c| c == name)
            .map(ClassId::from)
    }

    /// The id of a tenant; the first one's if there is none of that name.
    pub(crate) fn tenant(&self, name: &str) -> TenantId {
        let found = self.tenants.iter().position(|t| t == name);
        TenantId::from(found.unwrap_or(0))
    }

    /// The id of a tenant that a trace names; new ones come after the scenario's.
    pub(crate) fn tenant_or_new(&mut self, name: &str) -> TenantId {
        let found = self.tenants.iter().position(|t| t == name);
        TenantId::from(found.unwrap_or_else(|| {
            self.tenants.push(name.to_owned());
            self.tenants.len() - 1
        }))
    }

    /// How long clients of a class wait.
    pub(crate) fn patience(&self, class: ClassId) -> Option<SimDuration> {
        self.patience.get(class.index()).copied().flatten()
    }

    /// Names of all tenants, by id.
    pub(crate) fn tenants(&self) -> &[String] {
        &self.tenants
    }

    /// The error for an unknown class.
    pub(crate) fn no_class(&self, key: String, class: &str) -> TrafficError {
        TrafficError::scenario(
            key,
            format!("there is no class `{class}`"),
            format!("name one of {}", self.classes.join(", ")),
        )
    }
}
