//! Replicas that fail one request after the other, joined to the world. To routing an ejected replica is what a
//! lost one is, but its cache is not forgotten: it comes back as it was.

use super::World;
use super::lanes::Gone;
use crate::event::Event;
use crate::fleet::machine::Machine;
use windtunnel_base::ids::ReplicaId;

impl<M: Machine> World<'_, M> {
    /// The gateway has an answer of a replica.
    pub(super) fn replica_answered(&mut self, replica: Option<ReplicaId>) {
        if let Some(outliers) = &mut self.gateway.outliers
            && let Some(replica) = replica
        {
            outliers.answered(replica);
        }
    }

    /// The gateway sees that a replica has failed a request.
    pub(super) fn replica_failed(&mut self, replica: Option<ReplicaId>) {
        let (Some(outliers), Some(replica)) = (&mut self.gateway.outliers, replica) else {
            return;
        };
        if !outliers.failed(replica) {
            return;
        }
        let lanes = &self.gateway.lanes;
        let (size, there) = lanes.sizes_around(replica);
        let ejected = lanes.gone_around(replica, Gone::Ejected);
        if there < 2 || ejected >= outliers.most_ejected(size) {
            return;
        }
        let time = outliers.eject(replica);
        self.set_ejected(replica, true);
        if let Some(ejections) = &mut self.gateway.totals.ejections {
            *ejections += 1;
        }
        let event = Event::EjectionOver { replica };
        let at = self.now.saturating_add(time);
        self.queue.schedule(at, event.class(), event);
        // It keeps no run going, unless somebody waits who may need this replica.
        self.idle_events += 1;
        self.turns_left += 1;
    }

    /// A replica was left alone for long enough.
    pub(super) fn ejection_over(&mut self, replica: ReplicaId) {
        self.idle_events -= 1;
        self.turns_left -= 1;
        if let Some(outliers) = &mut self.gateway.outliers {
            outliers.returns(replica);
        }
        self.set_ejected(replica, false);
    }

    fn set_ejected(&mut self, replica: ReplicaId, ejected: bool) {
        let full = self.gateway.is_full(replica);
        let lanes = &mut self.gateway.lanes;
        lanes.set_gone(replica, Gone::Ejected, ejected, full);
        self.gateway.changes.note_everything();
    }
}
