//! What time a step takes: the one place that reads a wall clock while a run goes on.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::execute::StepTime;

/// Wall time since a run in real time began, shared by its replicas and whoever waits for what is
/// due. It begins when it is first read, so that nothing before the run counts.
#[derive(Clone, Debug, Default)]
pub struct Epoch(Arc<OnceLock<Instant>>);

/// Below this a thread may sleep longer than it asked for.
const TOO_SHORT_TO_SLEEP: Duration = Duration::from_micros(300);

impl Epoch {
    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.0.get_or_init(Instant::now).elapsed()
    }

    /// Returns when an instant of the run is due, at once if it is past.
    pub fn wait_for(&self, at: SimTime) {
        let due = Duration::from_nanos(at.as_nanos());
        loop {
            let left = due.saturating_sub(self.elapsed());
            if left.is_zero() {
                return;
            }
            match left.checked_sub(TOO_SHORT_TO_SLEEP) {
                Some(sleep) if !sleep.is_zero() => std::thread::sleep(sleep),
                _ => std::hint::spin_loop(),
            }
        }
    }
}

/// What time a step takes.
#[derive(Clone, Debug)]
pub enum Clock {
    /// What the cost model says.
    CostModel,
    /// What the work that was done would take by a device model.
    CountedWork,
    /// What was measured around it: a simulated clock that advances by it.
    Measured,
    /// In real time: it ends now. What scheduler, gateway and books took since it was due counts
    /// as well.
    Wall(Epoch),
}

impl Clock {
    /// A step begins.
    pub fn start(&self) -> Option<Instant> {
        match self {
            Self::CostModel | Self::CountedWork => None,
            Self::Measured => Some(Instant::now()),
            Self::Wall(epoch) => {
                epoch.elapsed();
                None
            }
        }
    }

    /// The step that began at `begin` of the run's clock ends; `counted` are the seconds that its work
    /// would take by a device model.
    pub fn stop(&self, watch: Option<Instant>, begin: SimTime, counted: f64) -> StepTime {
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        let took = match (self, watch) {
            (Self::CountedWork, _) => SimDuration::from_secs_f64(counted)
                .unwrap_or_default()
                .as_nanos(),
            (Self::Wall(epoch), _) => nanos(epoch.elapsed()).saturating_sub(begin.as_nanos()),
            (_, Some(watch)) => nanos(watch.elapsed()),
            (_, None) => return StepTime::Modelled,
        };
        StepTime::Measured(SimDuration::from_nanos(took.max(1)))
    }
}
