//! Clusters of BLIS (inference-sim), as its command line says them: the same routing decisions
//! from our general policies. What the flags mean was read from its documentation and behaviour;
//! the pieces are named where they are defined (`LoadSignal`, `ScorerKind`, `TelemetrySpec`).

use crate::schema::fleet::{Counted, TelemetryRefresh, TelemetrySpec};
use crate::schema::policies::{
    ForgetOrder, LoadSignal, PickerKind, PrefixIndexSpec, RoutingSpec, ScorerKind, TieBreak,
};
use std::collections::BTreeMap;
use windtunnel_base::quantity::Span;
use windtunnel_base::time::SimDuration;

/// Blocks per instance that its router's prefix index keeps.
const INDEX_BLOCKS: u64 = 10_000;
/// Scorers of `--routing-policy weighted` unless `--routing-scorers` says others.
const DEFAULT_SCORERS: &str = "precise-prefix-cache:2,queue-depth:1,kv-utilization:1";
/// Microseconds of `--snapshot-refresh-interval` and `--cache-signal-delay` unless given.
const DEFAULT_INTERVAL_US: u64 = 50_000;

/// What a command line says of the cluster around the engines.
///
/// A run is the same as BLIS's if arrivals go first among simultaneous events
/// (`TieOrder::ArrivalsFirst` of the simulator) and its seed is [`Self::seed`]: from it the
/// draws among equal replicas follow.
#[derive(Clone, PartialEq, Debug)]
pub struct BlisCluster {
    /// Replicas (`--num-instances`).
    pub replicas: u32,
    /// The simulation's seed (`--seed`; 42 unless given, whatever a workload file says).
    pub seed: u64,
    /// `--routing-policy`, `--routing-scorers` and the block size.
    pub routing: RoutingSpec,
    /// `--snapshot-refresh-interval`, `--cache-signal-delay`.
    pub telemetry: TelemetrySpec,
    /// `--admission-latency` and `--routing-latency` together: the gateway's own time.
    pub latency: Span,
}

/// A flag that cannot be followed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`--{flag}`: {reason}; {remedy}")]
pub struct BlisFlagError {
    /// The flag, without dashes.
    pub flag: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

fn error(flag: &str, reason: impl Into<String>, remedy: impl Into<String>) -> BlisFlagError {
    BlisFlagError {
        flag: flag.to_owned(),
        reason: reason.into(),
        remedy: remedy.into(),
    }
}

/// Flags by name, with their values; a flag without one has an empty value.
fn flags<'a>(arguments: impl IntoIterator<Item = &'a str>) -> BTreeMap<&'a str, &'a str> {
    let mut flags = BTreeMap::new();
    let mut open = None;
    for argument in arguments {
        if let Some(flag) = argument.strip_prefix("--") {
            let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
            flags.insert(name, value);
            open = (!flag.contains('=')).then_some(name);
        } else if let Some(name) = open.take() {
            flags.insert(name, argument);
        }
    }
    flags
}

/// The cluster that these arguments of `blis run` or `blis replay` describe. Flags that concern
/// engines, workloads and output are passed over.
///
/// # Errors
/// If a value is not of its flag's kind, or a flag asks for what has no counterpart here:
/// admission other than `always-admit`, pools for prefill and decode, flow control, scorers that
/// go by adapters or by cold requests.
pub fn cluster<'a>(
    arguments: impl IntoIterator<Item = &'a str>,
) -> Result<BlisCluster, BlisFlagError> {
    let flags = flags(arguments);
    refuse_others(&flags)?;
    let number = |flag: &str, default: u64| match flags.get(flag) {
        None => Ok(default),
        Some(text) => text.parse::<u64>().map_err(|_| {
            let reason = format!("`{text}` is not a whole number");
            error(flag, reason, format!("give one, such as {default}"))
        }),
    };
    let micros =
        |flag: &str, default| number(flag, default).map(|us| Span(SimDuration::from_micros(us)));
    let replicas = number("num-instances", 1)?;
    let replicas = u32::try_from(replicas).ok().filter(|&n| n > 0);
    let too_many = || error("num-instances", "out of range", "give 1 or more");
    let block_tokens = number("block-size-in-tokens", 16)?.clamp(1, u64::from(u32::MAX)) as u32;
    let (admission, routing) = (
        micros("admission-latency", 0)?,
        micros("routing-latency", 0)?,
    );
    let seed = flags.get("seed").map_or(Ok(42), |text| {
        let reason = format!("`{text}` is not a whole number");
        text.parse::<i64>()
            .map_err(|_| error("seed", reason, "give one, such as 42"))
    })?;
    Ok(BlisCluster {
        replicas: replicas.ok_or_else(too_many)?,
        seed: seed as u64,
        routing: policy(&flags, block_tokens)?,
        telemetry: TelemetrySpec {
            period: micros("snapshot-refresh-interval", DEFAULT_INTERVAL_US)?,
            delay: Span::default(),
            refresh: TelemetryRefresh::OnDecision,
            cache_period: micros("cache-signal-delay", DEFAULT_INTERVAL_US)?,
            counted: Counted::UntilLastStep,
        },
        latency: Span(admission.0 + routing.0),
    })
}

fn refuse_others(flags: &BTreeMap<&str, &str>) -> Result<(), BlisFlagError> {
    let nothing = |value: &str| matches!(value, "0" | "false" | "never");
    for flag in [
        "prefill-instances",
        "decode-instances",
        "prefill-decode-instances",
        "encode-instances",
        "flow-control",
        "model-autoscaler-interval-us",
        "lora-scorer-weight",
        "policy-config",
    ] {
        if flags.get(flag).is_some_and(|value| !nothing(value)) {
            return Err(error(flag, "has no counterpart here", "leave it out"));
        }
    }
    match flags.get("admission-policy") {
        None | Some(&"always-admit") => Ok(()),
        Some(other) => {
            let reason = format!("`{other}` has no counterpart here");
            Err(error("admission-policy", reason, "use `always-admit`"))
        }
    }
}

fn policy(flags: &BTreeMap<&str, &str>, block_tokens: u32) -> Result<RoutingSpec, BlisFlagError> {
    match flags.get("routing-policy").copied() {
        None | Some("" | "round-robin") => Ok(RoutingSpec::RoundRobin),
        Some("least-loaded") => Ok(RoutingSpec::LeastLoaded {
            load: LoadSignal::WaitingRunningInFlight,
            ties: TieBreak::GoRandom,
        }),
        Some("weighted") => {
            let text = flags.get("routing-scorers").copied();
            let text = text.filter(|t| !t.is_empty()).unwrap_or(DEFAULT_SCORERS);
            weighted(text, block_tokens)
        }
        Some(other) => {
            let reason = format!("`{other}` has no counterpart here");
            let remedy = "use `round-robin`, `least-loaded` or `weighted`";
            Err(error("routing-policy", reason, remedy))
        }
    }
}

fn weighted(text: &str, block_tokens: u32) -> Result<RoutingSpec, BlisFlagError> {
    const FLAG: &str = "routing-scorers";
    let mut scorers = BTreeMap::new();
    let mut order = Vec::new();
    for part in text.split(',').map(str::trim) {
        let pair = part
            .split_once(':')
            .map(|(n, w)| (n.trim(), w.trim().parse::<f64>()));
        let Some((name, Ok(weight))) = pair else {
            let reason = format!("`{part}` is not a name and a weight");
            return Err(error(FLAG, reason, "write `queue-depth:1`"));
        };
        let Some(kind) = scorer(name) else {
            let reason = format!("the scorer `{name}` has no counterpart here");
            let remedy = "use precise-prefix-cache, prefix-affinity, queue-depth, \
                          kv-utilization, load-balance, active-requests, running-requests, \
                          load-aware or vllm-dp";
            return Err(error(FLAG, reason, remedy));
        };
        if !(weight.is_finite() && weight > 0.0) {
            let reason = format!("the weight of `{name}` is {weight}");
            return Err(error(FLAG, reason, "give one above zero"));
        }
        if scorers.insert(kind, weight).is_some() {
            let reason = format!("`{name}` comes twice");
            return Err(error(FLAG, reason, "name each scorer once"));
        }
        order.push(kind);
    }
    Ok(RoutingSpec::Weighted {
        filters: Vec::new(),
        scorers,
        picker: PickerKind::MaxScoreGoRandomTie,
        prefix_index: PrefixIndexSpec {
            block_tokens,
            max_blocks: u32::MAX,
            capacity_blocks: INDEX_BLOCKS,
            forget: ForgetOrder::ShallowestFirst,
        },
        normalize: true,
        order,
    })
}

fn scorer(name: &str) -> Option<ScorerKind> {
    Some(match name {
        "precise-prefix-cache" => ScorerKind::PrecisePrefixRank,
        "prefix-affinity" => ScorerKind::PrefixCache,
        "queue-depth" => ScorerKind::QueueDepth,
        "kv-utilization" => ScorerKind::KvUtilization,
        "load-balance" => ScorerKind::LoadBalance,
        "active-requests" => ScorerKind::IdleFirst,
        "running-requests" => ScorerKind::Running,
        "load-aware" => ScorerKind::LoadAware,
        "vllm-dp" => ScorerKind::VllmDp,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<BlisCluster, BlisFlagError> {
        cluster(line.split_whitespace())
    }

    #[test]
    fn defaults_are_those_of_its_command_line() {
        let plain = of("run --model qwen/qwen3-14b --hardware H100 --log error").unwrap();
        assert_eq!((plain.replicas, plain.seed), (1, 42));
        assert_eq!(plain.routing, RoutingSpec::RoundRobin);
        assert_eq!(plain.telemetry.period.0, SimDuration::from_millis(50));
        assert_eq!(plain.telemetry.cache_period.0, SimDuration::from_millis(50));
        let weighted = of("--num-instances 8 --routing-policy weighted").unwrap();
        let RoutingSpec::Weighted { scorers, order, .. } = weighted.routing else {
            panic!("not weighted");
        };
        assert_eq!(scorers[&ScorerKind::PrecisePrefixRank], 2.0);
        assert_eq!(order.len(), 3);
    }

    #[test]
    fn both_spellings_of_a_value_count() {
        let line = "--num-instances=4 --routing-policy least-loaded \
                    --snapshot-refresh-interval 0 --cache-signal-delay=0 --seed -7";
        let cluster = of(line).unwrap();
        assert_eq!((cluster.replicas, cluster.seed), (4, (-7_i64) as u64));
        assert!(cluster.telemetry.period.0.is_zero());
        assert!(cluster.telemetry.cache_period.0.is_zero());
    }

    #[test]
    fn what_cannot_be_followed_is_said() {
        for (line, flag) in [
            ("--prefill-instances 2", "prefill-instances"),
            ("--admission-policy token-bucket", "admission-policy"),
            ("--routing-policy always-busiest", "routing-policy"),
            ("--num-instances 0", "num-instances"),
            ("--num-instances many", "num-instances"),
            (
                "--routing-policy weighted --routing-scorers no-hit-lru:1",
                "routing-scorers",
            ),
            (
                "--routing-policy weighted --routing-scorers queue-depth",
                "routing-scorers",
            ),
            (
                "--routing-policy weighted --routing-scorers queue-depth:-1",
                "routing-scorers",
            ),
        ] {
            assert_eq!(of(line).unwrap_err().flag, flag, "{line}");
        }
    }
}
