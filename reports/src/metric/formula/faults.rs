//! Metrics of what goes wrong.

use super::{Reading, Scope, count, ratio};

/// Requests sent to a replica that was no more.
pub fn stale_route_rate(s: &Scope<'_>) -> Reading {
    let gateway = s.whole.map(|measured| &measured.run.gateway);
    let stale = gateway.and_then(|g| Some((g.stale_routes?, g.dispatched)));
    stale.map_or(Reading::Absent, |(stale, all)| ratio(stale, all))
}

/// Times that a replica was left alone for failing.
pub fn ejections(s: &Scope<'_>) -> Reading {
    let gateway = s.whole.map(|measured| &measured.run.gateway);
    let ejections = gateway.and_then(|g| g.ejections);
    ejections.map_or(Reading::Absent, count)
}
