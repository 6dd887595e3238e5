//! What was computed, over all replicas.

use super::World;
use crate::fleet::machine::Machine;
use crate::run::RunError;
use windtunnel_base::ids::ReplicaId;
use windtunnel_engine::execute::{Executed, Layers, Stored};
use windtunnel_ledger::computed::{ComputedTotals, LayerTotals, StoredTotals};

impl<M: Machine> World<'_, M> {
    /// Tells the replicas that the run is over.
    pub(super) fn close_replicas(&mut self) -> Result<(), RunError> {
        for (r, machine) in self.fleet.machines.iter_mut().enumerate() {
            machine.close().map_err(|error| RunError::Execution {
                replica: ReplicaId::from(r),
                at: self.now,
                error,
            })?;
        }
        Ok(())
    }

    /// What the replicas that compute did, if there are any.
    pub(super) fn computed_totals(&self) -> Option<ComputedTotals> {
        let machines = self.fleet.machines.iter();
        total(machines.filter_map(M::executed))
    }
}

fn total(replicas: impl Iterator<Item = Executed>) -> Option<ComputedTotals> {
    let mut totals: Option<ComputedTotals> = None;
    let mut layered = 0;
    for replica in replicas {
        let t = totals.get_or_insert_default();
        t.tokens += replica.tokens;
        t.launches += replica.launches;
        t.operations += replica.operations;
        t.weight_bytes += replica.weight_bytes;
        t.kv_read_bytes += replica.kv_read_bytes;
        t.kv_written_bytes += replica.kv_written_bytes;
        t.model_steps += replica.model_steps;
        t.model_sequences += replica.model_sequences;
        t.kv_mean_bytes += replica.kv_mean_bytes;
        t.counted_seconds += replica.counted_seconds;
        if let Some(layers) = &replica.layers {
            layered += 1;
            add(t.layers.get_or_insert_default(), layers, layered);
        }
    }
    totals
}

/// Adds the layers of the `nth` replica that has any: counts sum up, signals and thresholds are means.
fn add(t: &mut LayerTotals, l: &Layers, nth: u32) {
    for (mine, theirs) in t.on.iter_mut().zip(l.on) {
        *mine |= theirs;
    }
    let counts = [
        (&mut t.turns, l.turns),
        (&mut t.skipped, l.skipped),
        (&mut t.skipped_wrong, l.skipped_wrong),
        (&mut t.danger_runs, l.danger_runs),
        (&mut t.computed_tokens, l.computed_tokens),
        (&mut t.short_tokens, l.short_tokens),
        (&mut t.critical_short, l.critical_short),
        (&mut t.drafts, l.drafts),
        (&mut t.drafts_kept, l.drafts_kept),
        (&mut t.draft_steps, l.draft_steps),
        (&mut t.accepted, l.accepted),
        (&mut t.checks, l.checks),
        (&mut t.mismatches, l.mismatches),
        (&mut t.compared, l.compared),
        (&mut t.compared_tokens, l.compared_tokens),
        (&mut t.same_tokens, l.same_tokens),
        (&mut t.drawn_tokens, l.drawn_tokens),
        (&mut t.publications, l.publications),
        (&mut t.lost_publications, l.lost_publications),
    ];
    for (sum, more) in counts {
        *sum += more;
    }
    store(&mut t.f16, l.f16);
    store(&mut t.int8, l.int8);
    store(&mut t.fp8, l.fp8);
    t.false_accepts += l.false_accepts;
    t.checking_seconds += l.checking_seconds;
    t.divergence += l.divergence;
    let means = [
        (&mut t.signals.risk, l.signals.risk),
        (&mut t.signals.novelty, l.signals.novelty),
        (&mut t.signals.drift, l.signals.drift),
        (&mut t.signals.confidence, l.signals.confidence),
        (&mut t.skip_threshold, l.skip_threshold),
        (&mut t.route_threshold, l.route_threshold),
    ];
    for (mean, value) in means {
        *mean += (value - *mean) / f64::from(nth);
    }
}

const fn store(t: &mut StoredTotals, more: Stored) {
    t.blocks += more.blocks;
    t.bytes += more.bytes;
}

#[cfg(test)]
mod tests {
    use super::*;
    use windtunnel_engine::execute::Signals;

    #[test]
    fn replicas_add_up_and_signals_are_means() {
        assert_eq!(total(std::iter::empty()), None);
        let layered = |turns, risk| Executed {
            tokens: 10,
            launches: 100,
            kv_mean_bytes: 8.0,
            layers: Some(Layers {
                on: [turns > 2, false, false, false, false, true],
                turns,
                f16: Stored {
                    blocks: 1,
                    bytes: 32,
                },
                false_accepts: 0.5,
                signals: Signals {
                    risk,
                    ..Signals::default()
                },
                ..Layers::default()
            }),
            ..Executed::default()
        };
        let plain = Executed {
            tokens: 5,
            launches: 7,
            ..Executed::default()
        };
        let replicas = [layered(2, 0.2), plain, layered(4, 0.6), layered(6, 0.4)];
        let all = total(replicas.into_iter()).unwrap();
        assert_eq!((all.tokens, all.launches), (35, 307));
        assert!((all.kv_mean_bytes - 24.0).abs() < 1e-12);
        let layers = all.layers.unwrap();
        assert_eq!(layers.on, [true, false, false, false, false, true]);
        assert_eq!((layers.turns, layers.f16.bytes), (12, 96));
        assert!((layers.false_accepts - 1.5).abs() < 1e-12);
        assert!((layers.signals.risk - 0.4).abs() < 1e-12);
        assert_eq!(total([plain].into_iter()).unwrap().layers, None);
    }
}
