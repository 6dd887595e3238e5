//! A hash of the prompt's first tokens (SGLang `prefix_hash`): cheap affinity without an index.

use crate::gateway::routing::consistent_hashing::RING;
use crate::gateway::routing::order::InFlight;
use crate::gateway::routing::ring::HashRing;
use crate::gateway::routing::{FleetFacts, note, position, width};
use crate::view::{FleetView, PolicyCx, Route, RoutingPolicy, Signals};
use windtunnel_base::ids::ReplicaId;
use windtunnel_base::rng::mix64;
use windtunnel_engine::request::RequestView;

/// Points of each replica: enough that the shares of 20 replicas stay within about 20 % of
/// each other.
const VIRTUAL_NODES: u32 = 160;

/// A ring over the hash of the first `prefix_tokens` tokens. A replica with more than
/// `load_factor * (requests in flight + 1) / replicas` in flight is passed over; if all have,
/// the first keeps the request.
#[derive(Clone, Debug)]
pub(super) struct PrefixHash {
    prefix_tokens: u32,
    load_factor: f64,
    ring: HashRing,
    in_flight: InFlight,
}

impl PrefixHash {
    pub(super) fn new(prefix_tokens: u32, load_factor: f64, fleet: &FleetFacts) -> Self {
        Self {
            prefix_tokens,
            load_factor,
            ring: HashRing::new(fleet.replicas as u32, VIRTUAL_NODES, RING),
            in_flight: InFlight::default(),
        }
    }
}

/// Equal for two prompts if and only if (up to chance) their first `tokens` tokens are equal.
pub(super) fn hash_of_first(request: &RequestView<'_>, tokens: u32) -> u64 {
    let mut left = tokens.min(request.prompt_tokens);
    let mut hash = 0;
    for extent in request.prefix {
        let taken = extent.tokens.min(left);
        hash = mix64(mix64(hash ^ extent.key).wrapping_add(u64::from(taken)));
        left -= taken;
        if left == 0 {
            return hash;
        }
    }
    // The rest is the request's own: nobody else's first tokens are these.
    mix64(mix64(hash.wrapping_add(u64::from(left))) ^ u64::from(request.id.0))
}

impl RoutingPolicy for PrefixHash {
    fn signals(&self) -> Signals {
        Signals::default()
    }

    fn route(
        &mut self,
        request: &RequestView<'_>,
        fleet: &FleetView<'_>,
        cx: &mut PolicyCx<'_>,
    ) -> Route {
        if width(fleet) > self.ring.nodes() as usize {
            self.ring.grow(width(fleet) as u32);
        }
        let total = self.in_flight.follow(fleet);
        let mean = (total + 1) as f64 / fleet.replicas.len() as f64;
        let most = if total == 0 {
            f64::INFINITY
        } else {
            mean * self.load_factor
        };
        let in_flight = |node: u32| {
            let place = position(fleet, ReplicaId(node))?;
            Some(f64::from(fleet.replicas[place].in_flight))
        };
        let fits = |node: u32| in_flight(node).is_some_and(|load| load <= most);
        let hash = hash_of_first(request, self.prefix_tokens);
        let node = self
            .ring
            .first_fit(hash, fits)
            .or_else(|| self.ring.first_fit(hash, |node| in_flight(node).is_some()));
        let id = node.map_or(fleet.replicas[0].id, |(node, _)| ReplicaId(node));
        if cx.scores.is_some() {
            note(cx, fleet, |_, replica| {
                let hops = self.ring.first_fit(hash, |node| node == replica.id.0);
                hops.filter(|_| fits(replica.id.0) || replica.id == id)
                    .map_or(f64::NEG_INFINITY, |(_, hops)| -f64::from(hops))
            });
        }
        Route::To(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::fixtures::request;
    use windtunnel_base::content::Extent;

    #[test]
    fn equal_first_tokens_hash_alike_however_they_go_on() {
        let e = |key, tokens| Extent { key, tokens };
        let hash = |id, prefix: &[Extent], prompt| hash_of_first(&request(id, prompt, prefix), 100);
        let long = hash(0, &[e(1, 100), e(2, 50)], 200);
        assert_eq!(
            long,
            hash(1, &[e(1, 300)], 300),
            "the first 100 are of stream 1"
        );
        assert_ne!(
            long,
            hash(2, &[e(1, 99), e(2, 1)], 200),
            "the 100th differs"
        );
        assert_ne!(
            hash(3, &[e(1, 40)], 200),
            hash(4, &[e(1, 40)], 200),
            "sharing 40 tokens is not sharing 100"
        );
        assert_eq!(
            hash(5, &[e(1, 40)], 40),
            hash(6, &[e(1, 40)], 40),
            "short prompts hash whole"
        );
    }
}
