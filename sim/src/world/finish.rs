//! How a run ends: what must hold then, and its result.

use super::World;
use crate::fleet::machine::Machine;
use crate::laws::{Violation, books, progress::Progress};
use windtunnel_base::time::SimTime;
use windtunnel_ledger::result::RunResult;
use windtunnel_scenarios::Names;

impl<M: Machine> World<'_, M> {
    /// Nothing is due any more. With laws, everybody must have left; without, who has not is
    /// unfinished.
    pub(super) fn check_quiet(&mut self) -> Result<(), Box<Violation>> {
        if self.recorder.laws.is_some() {
            let waiting = self.gateway.lanes.waiting();
            let live = self.in_system + self.works;
            Progress::finish(self.now, live as usize, waiting)?;
            self.gateway.check_finished(self.now)?;
        }
        if self.in_system + self.works > 0 {
            self.cut_off(self.now);
        }
        Ok(())
    }

    /// Closes the books of a run.
    pub(super) fn finish(mut self, names: &Names, seed: u64) -> Result<RunResult, Box<Violation>> {
        let end = self.now;
        (0..self.fleet.machines.len()).for_each(|r| self.sample_replica(r));
        self.check_replicas();
        let laws = self.recorder.laws.is_some();
        let shared_cache = self.shared_cache_totals();
        let computed = self.computed_totals();
        let paths = self.path_totals(end);
        let rollouts = self.rollouts.as_ref().map(|r| r.totals());
        let mut record = self.recorder.finish(end)?;
        let scaling = match self.scaling.take() {
            Some(scaling) => Some(scaling.finish(end, &record.unpaid)?),
            None => None,
        };
        let phases = record.collector.take_phases(end);
        let evictions = self.answers.as_ref().map(|desk| desk.evictions());
        self.gateway.totals.answers.evictions = evictions.unwrap_or_default();
        let tenants = record.collector.take_tenants();
        let (segments, segment_ns, rows) = record.collector.finish();
        let (state_store, index) = self.gateway.shared_totals(end);
        if let Some(totals) = shared_cache.filter(|_| laws) {
            books::cached(end, segments.iter().map(|s| &s.books), totals.found())?;
        }
        Ok(RunResult {
            seed,
            digest: record.digest,
            end_ns: end.as_nanos(),
            class_names: names.classes.iter().map(|(name, _)| name.clone()).collect(),
            tenant_names: names.tenants.clone(),
            tenants,
            segment_ns,
            segments,
            phases,
            fixed_warm_up_ns: self.warm_up.map(SimTime::as_nanos),
            samples: self
                .sampler
                .finish(|r| self.fleet.machines[r].stats(end).kv_total),
            replicas: record.replicas,
            rows,
            pipeline: self.gateway.stages.map(|s| s.pipeline.totals().clone()),
            paths,
            rollouts: rollouts.unwrap_or_default(),
            gateway: self.gateway.totals,
            verifiers: self.verifier.map_or(Vec::new(), |v| v.totals),
            state_store,
            index,
            shared_cache,
            computed,
            scaling,
            decisions: self.gateway.decisions,
            watched: record.watched,
            in_system_ns: self.in_system_ns,
            events: self.events,
            facts: record.facts,
        })
    }
}
