//! Names of classes, tenants and clients in a fixed order: a name's place is its id.

use crate::schema::{ClassSpec, Scenario};
use std::collections::BTreeSet;
use windtunnel_base::ids::{ClassId, TenantId};

/// Name of the class and the tenant of requests that name none.
pub const DEFAULT: &str = "default";

/// Names by id.
#[derive(Clone, PartialEq, Debug)]
pub struct Names {
    /// Classes; `default` first if it is declared or used, the others by alphabet.
    pub classes: Vec<(String, ClassSpec)>,
    /// Tenants; `default` first if some client names no tenant, the others by alphabet. Traces
    /// with tenants of their own add them behind.
    pub tenants: Vec<String>,
    /// Clients in the order of the file; one named `default` if the file lists none.
    pub clients: Vec<String>,
}

impl Names {
    /// The names of a scenario.
    pub fn of(scenario: &Scenario) -> Self {
        let traffic = &scenario.traffic;
        let name = |n: &Option<String>| n.clone().unwrap_or_else(|| DEFAULT.to_owned());
        let mut classes: BTreeSet<String> = scenario.classes.keys().cloned().collect();
        let mut tenants: BTreeSet<String> = scenario.tenants.keys().cloned().collect();
        let mut clients = Vec::new();
        if let Some(trace) = &traffic.trace {
            classes.insert(name(&trace.class));
            tenants.insert(DEFAULT.to_owned());
        } else if traffic.clients.is_empty() {
            classes.insert(DEFAULT.to_owned());
            tenants.insert(DEFAULT.to_owned());
        }
        for (i, client) in traffic.clients.iter().enumerate() {
            classes.insert(name(&client.class));
            tenants.insert(name(&client.tenant));
            clients.push(if client.name.is_empty() {
                format!("client-{i}")
            } else {
                client.name.clone()
            });
        }
        if clients.is_empty() {
            clients.push(DEFAULT.to_owned());
        }
        let spec = |class: &String| scenario.classes.get(class).cloned().unwrap_or_default();
        Self {
            classes: default_first(classes)
                .into_iter()
                .map(|class| (class.clone(), spec(&class)))
                .collect(),
            tenants: default_first(tenants),
            clients,
        }
    }

    /// The id of a class; none if no such class is declared or used.
    pub fn class(&self, name: &str) -> Option<ClassId> {
        let at = self.classes.iter().position(|(n, _)| n == name)?;
        u32::try_from(at).ok().map(ClassId)
    }

    /// The id of a tenant.
    pub fn tenant(&self, name: &str) -> Option<TenantId> {
        let at = self.tenants.iter().position(|n| n == name)?;
        u32::try_from(at).ok().map(TenantId)
    }

    /// The id of a tenant that a trace brings along, added if it is new.
    pub fn add_tenant(&mut self, name: &str) -> TenantId {
        if let Some(id) = self.tenant(name) {
            return id;
        }
        self.tenants.push(name.to_owned());
        TenantId(u32::try_from(self.tenants.len() - 1).unwrap_or(u32::MAX))
    }
}

fn default_first(names: BTreeSet<String>) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().collect();
    // Stable: the others stay in the order of the alphabet.
    names.sort_by_key(|n| n != DEFAULT);
    names
}
