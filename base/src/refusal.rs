//! Why a request was turned away: said by engine, gateway and ledger.

/// The reason for refusing a request. A refusal is data, not an error.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// A waiting room was full: the gateway's or the replica's.
    QueueFull,
    /// It can never fit: prompt and output exceed the replica's memory or model length.
    TooLong,
    /// A rate limit of its tenant.
    RateLimited,
    /// Admission control turned it away under load.
    Shed,
    /// No replica could take it.
    NoReplica,
    /// Its client held it back itself, because too many of its kind were turned away.
    Throttled,
    /// No attempt was answered in time, and no more were made.
    TimedOut,
    /// What should have answered failed.
    Unavailable,
    /// A filter of the gateway found it harmful.
    Blocked,
}

impl Refusal {
    /// All reasons, in the order of reports.
    pub const ALL: [Self; 9] = [
        Self::QueueFull,
        Self::TooLong,
        Self::RateLimited,
        Self::Shed,
        Self::NoReplica,
        Self::Throttled,
        Self::TimedOut,
        Self::Unavailable,
        Self::Blocked,
    ];

    /// The reason as a word, as in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::TooLong => "too_long",
            Self::RateLimited => "rate_limited",
            Self::Shed => "shed",
            Self::NoReplica => "no_replica",
            Self::Throttled => "throttled",
            Self::TimedOut => "timed_out",
            Self::Unavailable => "unavailable",
            Self::Blocked => "blocked",
        }
    }
}
