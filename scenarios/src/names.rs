//! Names of classes, tenants and clients in a fixed order: a name's place is its id.

use crate::schema::{ClassSpec, Scenario};
use std::collections::BTreeSet;
use windtunnel_base::ids::{ClassId, TenantId};

/// Name of the class and the tenant of requests that name none.
pub const DEFAULT: &str = "default";

/// Names by id.
#[derive(Clone, PartialEq, Debug)]
pub struct Names {
    /// The classes of the scenario by alphabet; `default` if it lists none.
    pub classes: Vec<(String, ClassSpec)>,
    /// Tenants by alphabet: those listed, those that clients name, and `default` if there is no
    /// other or some client names none. Traces with tenants of their own add them behind.
    pub tenants: Vec<String>,
    /// Clients in the order of the file; one named `default` if the file lists none.
    pub clients: Vec<String>,
}

impl Names {
    /// The names of a scenario.
    pub fn of(scenario: &Scenario) -> Self {
        let clients = &scenario.traffic.clients;
        let mut classes: Vec<_> = scenario
            .classes
            .iter()
            .map(|(name, spec)| (name.clone(), spec.clone()))
            .collect();
        if classes.is_empty() {
            classes.push((DEFAULT.to_owned(), ClassSpec::default()));
        }
        let mut tenants: BTreeSet<String> = scenario.tenants.keys().cloned().collect();
        tenants.extend(clients.iter().filter_map(|c| c.tenant.clone()));
        if tenants.is_empty() || clients.iter().any(|c| c.tenant.is_none()) {
            tenants.insert(DEFAULT.to_owned());
        }
        let mut client_names: Vec<_> = clients
            .iter()
            .enumerate()
            .map(|(i, client)| match client.name.as_str() {
                "" => format!("client-{i}"),
                name => name.to_owned(),
            })
            .collect();
        if client_names.is_empty() {
            client_names.push(DEFAULT.to_owned());
        }
        Self {
            classes,
            tenants: tenants.into_iter().collect(),
            clients: client_names,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::traffic::ClientSpec;

    #[test]
    fn order_is_that_of_the_alphabet_and_default_is_there_when_needed() {
        let plain = Names::of(&Scenario::default());
        assert_eq!(plain.classes[0].0, DEFAULT);
        assert_eq!(
            (plain.tenants.as_slice(), plain.clients.len()),
            (&[DEFAULT.to_owned()][..], 1)
        );

        let mut scenario = Scenario::default();
        for class in ["zeta", "alpha"] {
            scenario.classes.insert(class.into(), ClassSpec::default());
        }
        let client = |tenant: &str| ClientSpec {
            tenant: Some(tenant.into()),
            ..ClientSpec::default()
        };
        scenario.traffic.clients = vec![client("b"), client("a")];
        let mut names = Names::of(&scenario);
        assert_eq!(names.class("alpha"), Some(ClassId(0)));
        assert_eq!(names.class("zeta"), Some(ClassId(1)));
        assert_eq!(names.class(DEFAULT), None, "nobody needs it");
        assert_eq!(names.tenants, ["a", "b"]);
        assert_eq!(names.clients, ["client-0", "client-1"]);

        // Tenants of a trace come behind, so that the ids of the scenario's do not move.
        assert_eq!(names.add_tenant("tenant-0"), TenantId(2));
        assert_eq!(names.add_tenant("a"), TenantId(0));
    }
}
