//! What a process has cost so far, and on what machine.

use serde::{Deserialize, Serialize};

/// CPU time of this process so far, all threads, in ns; `None` where the system does not say.
pub fn cpu_ns() -> Option<u64> {
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let (s, ns) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
        Some(s.ok()? * 1_000_000_000 + ns.ok()?)
    }
    #[cfg(not(unix))]
    None
}

/// The most memory this process has had in RAM, in bytes; `None` where the system does not say (it
/// does on Linux).
pub fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Where figures were measured.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MachineLine {
    /// Model of the CPU, as the system calls it.
    pub cpu: String,
    /// Cores that may be used.
    pub cores: usize,
    /// System and architecture.
    pub system: String,
    /// Processes that ran or wanted to, on average over the last minute: above the number of cores,
    /// figures suffer.
    pub load: Option<f64>,
}

/// This machine.
pub fn machine() -> MachineLine {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = field("model name").unwrap_or_else(|| "unknown CPU".into());
    let cpu = match field("cpu family") {
        Some(family) => format!("{model} (family {family})"),
        None => model,
    };
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    MachineLine {
        cpu,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        load: load.and_then(|text| text.split_whitespace().next()?.parse().ok()),
    }
}
