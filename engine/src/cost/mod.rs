//! How long a step takes. A cost model is a pure function of the step's shape: an environment
//! model, how the world *is*.

/// From operations and bytes.
pub mod roofline;
/// From a linear fit.
pub mod linear;
/// From measured points.
pub mod table;
/// From operator tables.
pub mod operators;
/// From fitted coefficients of a roofline.
pub mod coefficients;
/// Tensor parallelism.
pub mod interconnect;

use crate::batch::BatchShape;
use coefficients::Coefficients;
use linear::Linear;
use operators::Operators;
use roofline::{BesideDecode, Roofline};
use table::Table;
use windtunnel_base::time::FineDuration;

/// What a cost model says of one step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StepCost {
    /// Duration, to a fraction of a nanosecond; at least one nanosecond. A model whose times are
    /// whole microseconds makes it from those.
    pub time: FineDuration,
    /// Whether the shape lies outside the range the model was measured or fitted on.
    pub extrapolated: bool,
}

/// Says how long a step takes. A pure function, shared by all replicas of a kind.
pub trait CostModel {
    /// Duration of one step over `shape`; more than zero.
    fn step(&self, shape: &BatchShape) -> StepCost;

    /// Whether [`BatchShape::context_max`] and [`BatchShape::context_squares`] must be kept.
    fn needs_spread(&self) -> bool {
        false
    }

    /// The multiple to which contexts are rounded up for
    /// [`BatchShape::prefill_context_rounded`]; at least 1.
    fn context_step(&self) -> u32 {
        1
    }
}

/// The cost model of a replica: one of the kinds, and the time of swaps added to it.
#[derive(Clone, PartialEq, Debug)]
pub struct CostFn {
    /// How long computing takes.
    pub model: StepModel,
    /// Bytes per second between host and device.
    pub swap_bandwidth: f64,
}

/// The kinds of cost models.
#[derive(Clone, PartialEq, Debug)]
pub enum StepModel {
    /// From operations and bytes.
    Roofline(Roofline),
    /// From a linear fit.
    Linear(Linear),
    /// From measured points.
    Table(Table),
    /// From operator tables.
    Operators(Operators),
    /// From fitted coefficients of a roofline.
    Coefficients(Box<Coefficients>),
}

/// At least so long, so that time goes on.
const SHORTEST: FineDuration = FineDuration::from_nanos(1);
/// At most so long, which is years, so that sums do not overflow.
const LONGEST: FineDuration = FineDuration::from_nanos(u64::MAX >> 8);

/// A cost model for steps that differ in the contexts of their decoding requests alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DecodeRun<'a> {
    cost: &'a CostFn,
    /// What those steps have in common, where that is known.
    common: Option<BesideDecode>,
}

impl DecodeRun<'_> {
    /// What [`CostModel::step`] says, to the last bit.
    #[inline]
    pub(crate) fn step(&self, shape: &BatchShape) -> StepCost {
        match &self.common {
            Some(common) => StepCost {
                time: duration(common.seconds(shape)),
                extrapolated: false,
            },
            None => self.cost.step(shape),
        }
    }
}

impl CostFn {
    /// For steps like this one but for the contexts of decoding requests.
    pub(crate) fn decode_run(&self, shape: &BatchShape) -> DecodeRun<'_> {
        let common = match &self.model {
            StepModel::Roofline(m) if shape.swap_bytes == 0 => Some(m.beside_decode(shape)),
            _ => None,
        };
        DecodeRun { cost: self, common }
    }
}

/// A duration within the bounds.
#[inline]
fn duration(seconds: f64) -> FineDuration {
    let time = FineDuration::from_secs_f64(seconds).unwrap_or(LONGEST);
    time.clamp(SHORTEST, LONGEST)
}

impl CostModel for CostFn {
    fn step(&self, shape: &BatchShape) -> StepCost {
        let (mut seconds, extrapolated) = match &self.model {
            // Whole microseconds stay whole.
            StepModel::Coefficients(m) if shape.swap_bytes == 0 => {
                let micros = m.micros(shape).min(u64::MAX >> 20);
                return StepCost {
                    time: FineDuration::from_micros(micros),
                    extrapolated: false,
                };
            }
            StepModel::Coefficients(m) => (m.micros(shape) as f64 * 1e-6, false),
            StepModel::Operators(m) => m.seconds(shape),
            StepModel::Roofline(m) => (m.seconds(shape), false),
            StepModel::Linear(m) => m.seconds(shape),
            StepModel::Table(m) => m.seconds(shape),
        };
        if shape.swap_bytes > 0 {
            seconds += shape.swap_bytes as f64 / self.swap_bandwidth;
        }
        StepCost {
            time: duration(seconds),
            extrapolated,
        }
    }

    fn needs_spread(&self) -> bool {
        match &self.model {
            StepModel::Operators(m) => m.needs_spread(),
            _ => false,
        }
    }

    fn context_step(&self) -> u32 {
        match &self.model {
            StepModel::Operators(m) => m.context_step(),
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware;
    use proptest::prelude::*;
    use roofline::RooflineSettings;

    proptest! {
        /// The short way through a run of steps against the long one, to the last bit.
        #[test]
        fn a_run_costs_what_its_steps_do(
            decode_seqs in 1_u32..3000,
            decode_context in 0_u64..1 << 40,
            tensor_parallel in 1_u32..9,
            swap_bytes in prop::sample::select(vec![0, 1 << 30]),
            ahead in 0_u64..5000,
        ) {
            let settings = RooflineSettings {
                tensor_parallel,
                compute_efficiency: 0.7,
                bandwidth_efficiency: 0.8,
                overhead: 1e-3,
                kv_bytes_per_element: 2.0,
            };
            let (gpu, model) = (&hardware::GPUS[0], &hardware::MODELS[0]);
            let cost = CostFn {
                model: StepModel::Roofline(Roofline::new(gpu, model, &settings)),
                swap_bandwidth: 25e9,
            };
            let first = BatchShape {
                decode_seqs,
                decode_context,
                sampled: decode_seqs,
                swap_bytes,
                ..BatchShape::default()
            };
            let mut later = first;
            later.pass(ahead, false);
            prop_assert_eq!(cost.decode_run(&first).step(&later), cost.step(&later));
        }
    }
}
