//! Where a request goes: the policy is asked, the decision is kept if somebody wants to see it, and the
//! request is sent to its replica.

use super::World;
use super::requests::Place;
use super::signals::{Cache, LiveCaches, Nothing};
use crate::event::Hop;
use crate::fleet::machine::Machine;
use crate::fleet::telemetry::Telemetry;
use crate::laws::bounds;
use crate::view::{FleetView, News, PolicyCx, ReplicaView, Route};
use windtunnel_base::ids::{ReplicaId, RequestId};
use windtunnel_ledger::decision::{Candidate, Decision};
use windtunnel_ledger::entry::Fact;

impl<M: Machine> World<'_, M> {
    /// Asks the policy where a request goes, and sends it there.
    pub(super) fn route(&mut self, slot: u32) {
        let lane = self.requests.get(slot).lane;
        self.read_signals(lane);
        let gateway = &mut self.gateway;
        // A policy changes nothing of this.
        let all = gateway.offers_all();
        if !all {
            gateway.leave_out_full(lane);
        }
        if gateway.shared.is_some() {
            let flight = self.requests.get(slot);
            gateway.know(flight.id, lane, flight.answered);
        }
        let (offered, news) = if all {
            (&gateway.views, gateway.changes.news())
        } else {
            (&gateway.offered, News::Everything)
        };
        let live = LiveCaches(&self.fleet.machines);
        let fleet = FleetView {
            now: self.now,
            replicas: offered,
            cache: match &gateway.cache {
                Cache::Blind => &Nothing,
                Cache::Live => &live,
                Cache::Reported(view, _) | Cache::Copied(view, ..) => view,
            },
            news,
        };
        let request = self.requests.view(slot);
        let record = gateway.record_decisions || self.recorder.watches(request.id);
        let mut cx = PolicyCx {
            rng: &mut gateway.rng,
            scores: record.then_some(&mut gateway.scores),
        };
        let policy = &mut gateway.lanes.get_mut(lane).policy;
        let route = policy.route(&request, &fleet, &mut cx);
        if record {
            let age = match &gateway.telemetry {
                Telemetry::Off => None,
                Telemetry::Live => Some(Age::None),
                Telemetry::Scraped(_) | Telemetry::OnDecision(_) => Some(Age::SinceReading),
            };
            let decision = describe(request.id, &fleet, age, route, &gateway.scores);
            gateway.decisions.push(decision);
            gateway.scores.clear();
        }
        match route {
            Route::To(replica) => {
                let lawful = bounds::route(self.now, request.id, replica, offered);
                let breach = lawful.is_err();
                self.recorder.judge(lawful);
                gateway.told(all);
                let expects_cached = gateway.decided(lane, self.now);
                self.requests.get_mut(slot).expects_cached = expects_cached;
                if !breach {
                    self.dispatch(slot, replica);
                }
            }
            Route::Refuse(reason) => self.turn_away(slot, reason),
        }
    }

    /// Sends a request to a replica.
    fn dispatch(&mut self, slot: u32, replica: ReplicaId) {
        let gateway = &mut self.gateway;
        let view = &mut gateway.views[replica.index()];
        let lawful = bounds::room(self.now, view, gateway.max_in_flight);
        self.recorder.judge(lawful);
        let flight = self.requests.get_mut(slot);
        let prompt = flight.arrival.prompt_tokens;
        view.in_flight += 1;
        view.in_flight_tokens += u64::from(prompt);
        view.total_tokens += u64::from(prompt)
            + u64::from(flight.arrival.predicted_output_tokens.unwrap_or_default());
        if view.in_flight == gateway.max_in_flight {
            gateway.lanes.filled(replica, true);
        }
        gateway.changes.note(replica);
        gateway.totals.dispatched += 1;
        gateway.served(flight.lane, flight.arrival.tenant, prompt, 0);
        gateway.count_shared(flight.id, replica, true, self.now);
        flight.place = Place::Out;
        flight.answer.replica = Some(replica);
        flight.answer.dispatched = self.now;
        self.recorder.dispatched(replica, prompt);
        self.fact(slot, Fact::Dispatched(replica));
        let way = self.fleet.network.replica + self.fleet.frontends[replica.index()].input.0;
        self.hop(slot, way, Hop::ToReplica);
    }
}

/// How old statistics are, where a policy reads them.
#[derive(Clone, Copy)]
enum Age {
    /// They are live.
    None,
    /// As their reading.
    SinceReading,
}

/// A decision as it is kept.
fn describe(
    request: RequestId,
    fleet: &FleetView<'_>,
    age: Option<Age>,
    route: Route,
    scores: &[f64],
) -> Decision {
    let nanos = |v: &ReplicaView, age| match age {
        Age::None => 0,
        Age::SinceReading => fleet.now.since(v.stats.read_at).as_nanos(),
    };
    let candidate = |v: &ReplicaView| Candidate {
        replica: v.id.0,
        score: scores.get(v.id.index()).copied(),
        in_flight: v.in_flight,
        running: v.stats.value.running,
        waiting: v.stats.value.waiting,
        telemetry_age_ns: age.map(|age| nanos(v, age)),
    };
    let (replica, refused) = match route {
        Route::To(replica) => (Some(replica.0), None),
        Route::Refuse(reason) => (None, Some(reason)),
    };
    Decision {
        at_ns: fleet.now.as_nanos(),
        request: request.0,
        replica,
        refused,
        candidates: fleet.replicas.iter().map(candidate).collect(),
    }
}
