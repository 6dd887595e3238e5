//! What steps take in a live run: what they take alone, times a factor for prefills and one for each
//! measured number of decodes, and what the first step after a rest takes more.

use std::collections::BTreeMap;
use std::sync::Arc;
use windtunnel_base::ids::ReplicaId;
use windtunnel_base::time::SimTime;
use windtunnel_engine::batch::BatchShape;
use windtunnel_engine::config::TableSpec;
use windtunnel_engine::cost::table::Table;
use windtunnel_sim::run::Step;

/// One step of a live run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct LiveStep {
    /// What it computed.
    pub(super) shape: BatchShape,
    /// When it began.
    pub(super) from: SimTime,
    /// Seconds.
    pub(super) took: f64,
    /// Nothing was computed right before it: a thread had to wake, and caches were cold.
    pub(super) rested: bool,
}

impl LiveStep {
    /// The steps of a run, those of each replica in order.
    pub(super) fn all(steps: &[Step]) -> Vec<Self> {
        let mut last: BTreeMap<ReplicaId, SimTime> = BTreeMap::new();
        steps
            .iter()
            .map(|step| Self {
                shape: step.shape,
                from: step.from,
                took: step.to.since(step.from).as_secs_f64(),
                rested: last.insert(step.replica, step.to) != Some(step.from),
            })
            .collect()
    }
}

/// Step times of a live run.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct StepTimes {
    spec: TableSpec,
    /// None if the measured points are no grid, which `calibrate` does not give.
    table: Option<Table>,
    /// By number of sequences.
    decode: Vec<(u32, f64)>,
    prefill: f64,
    waking: f64,
}

/// Decodes that are looked at together: about as many as an answer has, so that the median over such
/// stretches is what the median answer sees of slow moments.
const STRETCH: usize = 32;
/// So many stretches make a factor of their own.
const STRETCHES: usize = 5;
/// Rounds of reweighting after which medians hardly move.
const ROUNDS: usize = 30;

impl StepTimes {
    /// Finds the factors of decode and prefill steps, and what a rest adds, in `steps` of live runs.
    /// All are medians: a moment in which something else had the core moves them little.
    pub(super) fn of(alone: TableSpec, steps: &[LiveStep]) -> Self {
        let mut times = Self {
            table: Table::new(&alone).ok(),
            spec: alone,
            decode: Vec::new(),
            prefill: 1.0,
            waking: 0.0,
        };
        times.decode = times.decode_factors(steps);
        for point in &mut times.spec.decode {
            let factor = times.decode.iter().find(|(seqs, _)| *seqs == point.seqs);
            point.ms *= factor.map_or(1.0, |(_, factor)| *factor);
        }
        times.table = Table::new(&times.spec).ok();
        // What prefills take beside decodes: their own time by a factor, and more after a rest.
        let prefills: Vec<(f64, f64, f64)> = steps
            .iter()
            .filter(|s| s.shape.prefill_seqs > 0)
            .map(|s| {
                let beside = times.seconds(&BatchShape {
                    prefill_seqs: 0,
                    ..s.shape
                });
                let alone = times.seconds(&s.shape) - beside;
                (alone, f64::from(u8::from(s.rested)), s.took - beside)
            })
            .collect();
        (times.prefill, times.waking) = medians(&prefills);
        let prefill = times.prefill;
        times.spec.prefill.iter_mut().for_each(|p| p.ms *= prefill);
        times.spec.extra_prompt_ms *= prefill;
        times.spec.mixed_saving_ms *= prefill;
        times.table = Table::new(&times.spec).ok();
        times
    }

    /// A factor for each measured number of sequences: a moment of the grid that was slow or fast is
    /// that of a few numbers, and most steps of a run are of those few. A number that too few live
    /// steps are near has the factor of the one below it.
    fn decode_factors(&self, steps: &[LiveStep]) -> Vec<(u32, f64)> {
        let mut sizes: Vec<u32> = self.spec.decode.iter().map(|p| p.seqs).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let mut near: Vec<Vec<&LiveStep>> = vec![Vec::new(); sizes.len()];
        let decodes = |s: &&LiveStep| s.shape.prefill_seqs == 0 && !s.rested;
        for step in steps.iter().filter(decodes) {
            let ratio = |size: u32| (f64::from(step.shape.decode_seqs) / f64::from(size)).ln();
            let nearest = (0..sizes.len())
                .min_by(|&a, &b| ratio(sizes[a]).abs().total_cmp(&ratio(sizes[b]).abs()));
            near[nearest.unwrap_or_default()].push(step);
        }
        let ratio = |of: &[&LiveStep]| {
            let said: f64 = of.iter().map(|s| self.seconds(&s.shape)).sum();
            of.iter().map(|s| s.took).sum::<f64>() / said
        };
        let enough = |of: &&Vec<&LiveStep>| of.len() >= STRETCH * STRETCHES;
        let known = |of: &Vec<&LiveStep>| median(of.chunks_exact(STRETCH).map(ratio).collect());
        // With few steps altogether, all of them have a say in one factor.
        let all: Vec<&LiveStep> = near.iter().flatten().copied().collect();
        let overall = || {
            median(
                all.chunks(STRETCH.min(all.len().max(1)))
                    .map(ratio)
                    .collect(),
            )
        };
        let first = near.iter().find(enough).and_then(known);
        let mut factor = first.or_else(overall).unwrap_or(1.0);
        let of_size = |(size, of): (&u32, &Vec<&LiveStep>)| {
            factor = Some(of).filter(enough).and_then(known).unwrap_or(factor);
            (*size, factor)
        };
        sizes.iter().zip(&near).map(of_size).collect()
    }

    /// Seconds of a step that follows another.
    fn seconds(&self, shape: &BatchShape) -> f64 {
        self.table.as_ref().map_or(0.0, |t| t.seconds(shape).0)
    }

    /// Seconds of a step, after a rest or after another step.
    pub(super) fn says(&self, shape: &BatchShape, rested: bool) -> f64 {
        let waking = if rested { self.waking } else { 0.0 };
        self.seconds(shape) + waking
    }

    pub(super) fn settings(&self) -> BTreeMap<String, String> {
        let entry = |name: &str, value: String| (name.to_owned(), value);
        let factor = |(seqs, factor): &(u32, f64)| format!("{factor:.3} at {seqs}");
        BTreeMap::from([
            entry(
                "decode_factors",
                self.decode
                    .iter()
                    .map(factor)
                    .collect::<Vec<_>>()
                    .join(", "),
            ),
            entry("prefill_factor", format!("{:.3}", self.prefill)),
            entry("waking_us", format!("{:.1}", self.waking * 1e6)),
        ])
    }

    /// What steps took against what is said of them, by kind and size: a line for each that came up.
    pub(super) fn residuals(said: &[(Arc<Self>, Vec<LiveStep>)]) -> Vec<String> {
        let mut kinds: BTreeMap<(u8, u64), Vec<(f64, f64)>> = BTreeMap::new();
        for (times, step) in said
            .iter()
            .flat_map(|(t, steps)| steps.iter().map(move |s| (t, s)))
        {
            let shape = &step.shape;
            let size = match (shape.decode_seqs, shape.prefill_seqs) {
                (seqs, 0) => (0, u64::from(seqs).next_power_of_two()),
                (0, _) if step.rested => (1, shape.prefill_tokens.next_power_of_two().max(16)),
                (0, _) => (2, shape.prefill_tokens.next_power_of_two().max(16)),
                _ => (3, shape.prefill_tokens.next_power_of_two().max(16)),
            };
            let says = times.says(shape, step.rested);
            kinds.entry(size).or_default().push((says, step.took));
        }
        let line = |((kind, size), of): ((u8, u64), Vec<(f64, f64)>)| {
            let what = [
                "decodes of up to",
                "prefills after a rest, up to",
                "prefills after a step, up to",
                "decodes and prefills, up to",
            ][usize::from(kind)];
            let unit = if kind == 0 {
                "sequences"
            } else {
                "prompt tokens"
            };
            let middle = |pick: fn(&(f64, f64)) -> f64| median(of.iter().map(pick).collect());
            let mean =
                |pick: fn(&(f64, f64)) -> f64| of.iter().map(pick).sum::<f64>() / of.len() as f64;
            format!(
                "{what} {size} {unit}: {} steps, measured {:.3} ms and said {:.3} ms at the median, {:.3} and {:.3} in the mean, off by {:+.1} % at the median and by {:.1} % at p90",
                of.len(),
                middle(|p| p.1).unwrap_or(0.0) * 1e3,
                middle(|p| p.0).unwrap_or(0.0) * 1e3,
                mean(|p| p.1) * 1e3,
                mean(|p| p.0) * 1e3,
                middle(|p| p.0 / p.1 - 1.0).unwrap_or(0.0) * 100.0,
                quantile(of.iter().map(|p| (p.0 / p.1 - 1.0).abs()).collect(), 0.9).unwrap_or(0.0)
                    * 100.0,
            )
        };
        kinds.into_iter().map(line).collect()
    }
}

fn median(values: Vec<f64>) -> Option<f64> {
    quantile(values, 0.5)
}

fn quantile(mut values: Vec<f64>, q: f64) -> Option<f64> {
    values.retain(|v| v.is_finite());
    values.sort_by(f64::total_cmp);
    let at = (q * values.len().saturating_sub(1) as f64).round() as usize;
    values.get(at).copied()
}

/// `f` and `w` of `left = f * alone + w * rested` with the least sum of relative distances, neither
/// below zero; 1 and 0 of nothing. Distances are made of squares by weights, round by round.
fn medians(points: &[(f64, f64, f64)]) -> (f64, f64) {
    let points: Vec<_> = points.iter().filter(|p| p.0 > 0.0).collect();
    if points.is_empty() {
        return (1.0, 0.0);
    }
    let (mut factor, mut waking) = (1.0_f64, 0.0_f64);
    for _ in 0..ROUNDS {
        let (mut xx, mut xw, mut ww, mut xy, mut wy) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for &&(alone, rested, left) in &points {
            let off = (left - factor * alone - waking * rested).abs();
            let weight = 1.0 / (alone * off.max(1e-3 * alone));
            xx += weight * alone * alone;
            xw += weight * alone * rested;
            ww += weight * rested;
            xy += weight * alone * left;
            wy += weight * rested * left;
        }
        let determinant = xx * ww - xw * xw;
        // If all or none rested, and all took the same, the two cannot be told apart.
        (factor, waking) = if determinant > 1e-9 * xx * ww {
            (
                (xy * ww - wy * xw) / determinant,
                (wy * xx - xy * xw) / determinant,
            )
        } else {
            (xy / xx, 0.0)
        };
        if waking < 0.0 || factor <= 0.0 {
            (factor, waking) = ((xy / xx).max(1e-3), 0.0);
        }
    }
    (factor, waking)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use windtunnel_engine::config::{DecodePoint, PrefillPoint};

    /// Half a millisecond and 0.1 per sequence; 1 ms and 0.02 per prompt token.
    pub(in crate::fidelity::live) fn alone() -> TableSpec {
        let mut table = TableSpec::default();
        for seqs in [1, 8] {
            for context in [1, 512] {
                let ms = 0.5 + 0.1 * f64::from(seqs);
                table.decode.push(DecodePoint { seqs, context, ms });
            }
        }
        for tokens in [1, 256] {
            for context in [0, 384] {
                let ms = 1.0 + 0.02 * f64::from(tokens);
                table.prefill.push(PrefillPoint {
                    tokens,
                    context,
                    ms,
                });
            }
        }
        table
    }

    pub(in crate::fidelity::live) fn step(
        seqs: u32,
        tokens: u64,
        rested: bool,
        ms: f64,
    ) -> LiveStep {
        LiveStep {
            shape: BatchShape {
                decode_seqs: seqs,
                decode_context: u64::from(seqs) * 100,
                prefill_seqs: u32::from(tokens > 0),
                prefill_tokens: tokens,
                ..BatchShape::default()
            },
            from: SimTime::ZERO,
            took: ms / 1e3,
            rested,
        }
    }

    /// Steps that take 1.2 times a decode and 1.1 times a prefill, and 0.3 ms more after a rest; a few
    /// take three times as long.
    fn steps() -> Vec<LiveStep> {
        (0..4_000_u32)
            .map(|i| {
                let slow = if i % 97 == 3 { 3.0 } else { 1.0 };
                let (seqs, tokens) = (1 + i / 4 % 8, u64::from(1 + i * 37 % 250));
                let decode = 1.2 * (0.5 + 0.1 * f64::from(seqs));
                let prefill = 1.1 * (1.0 + 0.02 * tokens as f64);
                match i % 4 {
                    0 => step(0, tokens, true, slow * (prefill + 0.3)),
                    1 => step(seqs, tokens, false, slow * (decode + prefill)),
                    _ => step(seqs, 0, false, slow * decode),
                }
            })
            .collect()
    }

    #[test]
    fn factors_and_waking_are_found_whatever_slow_moments_there_are() {
        let times = StepTimes::of(alone(), &steps());
        for (seqs, factor) in &times.decode {
            assert!((factor - 1.2).abs() < 0.02, "{seqs}: {times:?}");
        }
        assert!((times.prefill - 1.1).abs() < 0.02, "{times:?}");
        assert!((times.waking - 3e-4).abs() < 3e-5, "{times:?}");
        let says = times.seconds(&step(4, 0, false, 0.0).shape);
        assert!((says - 1.2 * 0.9e-3).abs() < 0.02e-3, "{says}");
        for line in StepTimes::residuals(&[(Arc::new(times), steps())]) {
            let off = line.split("off by ").nth(1).unwrap();
            let off: f64 = off.split(' ').next().unwrap().parse().unwrap();
            assert!(off.abs() < 3.0, "{line}");
        }
    }

    #[test]
    fn a_point_of_the_grid_that_was_measured_in_a_slow_moment_is_put_right() {
        let mut slow = alone();
        let eight = slow.decode.iter_mut().filter(|p| p.seqs == 8);
        eight.for_each(|p| p.ms *= 1.5);
        // Steps of one and of eight sequences: those between depend on both points.
        let ends: Vec<LiveStep> = steps()
            .into_iter()
            .filter(|s| s.shape.prefill_seqs > 0 || matches!(s.shape.decode_seqs, 1 | 8))
            .collect();
        let times = StepTimes::of(slow, &ends);
        for (seqs, ms) in [(1, 0.72), (8, 1.56)] {
            let says = times.seconds(&step(seqs, 0, false, 0.0).shape);
            assert!((says / (ms / 1e3) - 1.0).abs() < 0.03, "{seqs}: {says}");
        }
    }

    #[test]
    fn numbers_of_sequences_that_never_came_have_the_factor_of_those_below() {
        let few: Vec<LiveStep> = steps()
            .into_iter()
            .filter(|s| s.shape.decode_seqs == 1)
            .collect();
        let times = StepTimes::of(alone(), &few);
        assert_eq!(times.decode[0].1, times.decode[1].1);
        assert!((times.decode[1].1 - 1.2).abs() < 0.02, "{times:?}");
    }

    #[test]
    fn without_prefills_or_steps_it_is_what_was_measured_alone() {
        let times = StepTimes::of(alone(), &[]);
        assert_eq!(times.spec, alone());
        assert_eq!(times.waking, 0.0);
        // Rests that gain time do not happen: it is the factor that is smaller.
        let faster: Vec<_> = (0..50)
            .map(|i| step(0, 10 + i * 4, i % 2 == 0, 0.9))
            .collect();
        let times = StepTimes::of(alone(), &faster);
        assert!(times.waking >= 0.0 && times.prefill > 0.0, "{times:?}");
    }

    #[test]
    fn a_step_has_rested_if_none_ended_when_it_began() {
        let at = SimTime::from_nanos;
        let one = |replica, from, to| Step {
            replica: ReplicaId(replica),
            from: at(from),
            to: at(to),
            shape: BatchShape::default(),
            extrapolated: false,
            after: None,
        };
        let steps = [one(0, 5, 9), one(1, 9, 12), one(0, 9, 11), one(0, 20, 30)];
        let rested: Vec<bool> = LiveStep::all(&steps).iter().map(|s| s.rested).collect();
        assert_eq!(rested, [true, true, false, true]);
    }
}
