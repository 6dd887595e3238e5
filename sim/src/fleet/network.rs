//! How long messages travel.

use windtunnel_base::time::SimDuration;
use windtunnel_scenarios::schema::fleet::NetworkSpec;

/// One-way delays, the same in both directions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network {
    /// Between a client and the gateway.
    pub(crate) client: SimDuration,
    /// Between the gateway and a replica.
    pub(crate) replica: SimDuration,
}

impl Network {
    pub(crate) const fn new(spec: &NetworkSpec) -> Self {
        Self {
            client: spec.client_to_gateway.0,
            replica: spec.gateway_to_replica.0,
        }
    }

    /// From a replica to a client.
    pub(crate) fn all_the_way(self) -> SimDuration {
        self.replica + self.client
    }
}
