//! Where a request's time went, and what makes the slow ones slow.

use crate::stats;
use serde::{Deserialize, Serialize};
use windtunnel_ledger::decision::Decision;
use windtunnel_ledger::entry::{Entry, Fact, Purpose};
use windtunnel_ledger::result::RunResult;
use windtunnel_ledger::rows::{End, Row};
use windtunnel_scenarios::schema::Scenario;

/// Requests around a quantile that are looked at: this share of all, on each side.
const AROUND: f64 = 0.005;
/// And at least so many on each side.
const AROUND_LEAST: usize = 5;

/// A part of a request's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// On the way: client to gateway, gateway to replica, and back.
    Network,
    /// Attempts that brought no answer, and waiting before the one that did. Known only for a watched
    /// request; otherwise it is within the gateway's part.
    Attempts,
    /// In the gateway's stages, and waiting there.
    Gateway,
    /// Waiting at the replica before it first joined a batch.
    Queue,
    /// Computing the prompt, to the first token.
    Prefill,
    /// From the first token to the last.
    Decode,
    /// Out of memory after a preemption, waiting to join again. Known only for a watched request;
    /// otherwise it is within prefill or decode.
    Preempted,
    /// After the last token: the verifier.
    Verification,
}

impl Part {
    /// All parts, in order of time.
    pub const ALL: [Self; 8] = [
        Self::Network,
        Self::Attempts,
        Self::Gateway,
        Self::Queue,
        Self::Prefill,
        Self::Decode,
        Self::Preempted,
        Self::Verification,
    ];

    /// As a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Attempts => "attempts",
            Self::Gateway => "gateway",
            Self::Queue => "queue",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Preempted => "preempted",
            Self::Verification => "verification",
        }
    }
}

/// One-way delays, ns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Network {
    /// Between client and gateway.
    pub client_ns: u64,
    /// Between gateway and replica.
    pub replica_ns: u64,
}

impl Network {
    /// That of a scenario.
    pub fn of(scenario: &Scenario) -> Self {
        let network = &scenario.fleet.network;
        Self {
            client_ns: network.client_to_gateway.0.as_nanos(),
            replica_ns: network.gateway_to_replica.0.as_nanos(),
        }
    }

    /// From a replica to the client.
    pub const fn back_ns(&self) -> u64 {
        self.client_ns + self.replica_ns
    }
}

/// A request's life, in parts that add up to it.
#[derive(Clone, PartialEq, Debug)]
pub struct Life {
    /// The request.
    pub row: Row,
    /// From sent to ended, ns.
    pub total_ns: u64,
    /// Parts that took time, ns, in order of [`Part::ALL`].
    pub parts: Vec<(Part, u64)>,
    /// The attempts of its client in their order; empty if it makes none, or the request was not
    /// watched.
    pub attempts: Vec<Attempt>,
    /// Why it (or each attempt) went where it went, if that was kept.
    pub decisions: Vec<Decision>,
}

/// One attempt of a client. Times in ns since the run began; absent where it did not come so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Attempt {
    /// Its rank among the pieces of work of the run, as in decisions.
    pub work: u32,
    /// What it was made for.
    pub purpose: Purpose,
    /// When its client sent it.
    pub sent_ns: u64,
    /// When the gateway sent it to a replica.
    pub dispatched_ns: Option<u64>,
    /// The replica.
    pub replica: Option<u32>,
    /// When it first joined a batch.
    pub started_ns: Option<u64>,
    /// When its last output token left the replica.
    pub generated_ns: Option<u64>,
    /// When it was over, or nobody waited for it any more.
    pub closed_ns: Option<u64>,
    /// Whether the request's answer is this one's.
    pub answered: bool,
}

impl Attempt {
    /// Its client sent it for a purpose.
    const fn new(entry: &Entry, purpose: Purpose) -> Self {
        Self {
            work: entry.request.0,
            purpose,
            sent_ns: entry.at.as_nanos(),
            dispatched_ns: None,
            replica: None,
            started_ns: None,
            generated_ns: None,
            closed_ns: None,
            answered: false,
        }
    }

    fn learn(&mut self, entry: &Entry) {
        let at = entry.at.as_nanos();
        match entry.fact {
            Fact::Dispatched(replica) => {
                (self.dispatched_ns, self.replica) = (Some(at), Some(replica.0));
            }
            Fact::Started { .. } => {
                self.started_ns.get_or_insert(at);
            }
            Fact::Generated => self.generated_ns = Some(at),
            Fact::Closed => self.closed_ns = Some(at),
            _ => {}
        }
    }
}

impl Life {
    /// Share of a part, 0 to 1.
    pub fn share(&self, part: Part) -> f64 {
        let ns = self.parts.iter().find(|p| p.0 == part).map_or(0, |p| p.1);
        ns as f64 / self.total_ns.max(1) as f64
    }
}

/// One request's life; `None` if there is no row of it.
pub fn request(run: &RunResult, request: u32, network: &Network) -> Option<Life> {
    let at = run
        .rows
        .binary_search_by_key(&request, |r| r.request)
        .ok()?;
    let row = run.rows[at];
    let mut attempts = attempts(&run.watched, request);
    let (served, since) = match attempts.iter_mut().find(|a| answers(a, &row)) {
        Some(attempt) => {
            attempt.answered = true;
            (attempt.work, attempt.sent_ns)
        }
        // Nothing but attempts, to the end.
        None => (
            request,
            attempts.first().map_or(row.sent_ns, |_| row.ended_ns),
        ),
    };
    let entries: Vec<&Entry> = run
        .watched
        .iter()
        .filter(|e| e.request.0 == served)
        .collect();
    let parts = parts(&row, since, &entries, network);
    let decided =
        |d: &&Decision| d.request == request || attempts.iter().any(|a| a.work == d.request);
    let decisions = run.decisions.iter().filter(decided).cloned().collect();
    Some(Life {
        row,
        total_ns: row.ended_ns.saturating_sub(row.sent_ns),
        parts: Part::ALL
            .into_iter()
            .zip(parts)
            .filter(|&(_, ns)| ns > 0)
            .collect(),
        attempts,
        decisions,
    })
}

/// The attempts of a watched request, from its entries.
fn attempts(watched: &[Entry], request: u32) -> Vec<Attempt> {
    let mut attempts: Vec<Attempt> = Vec::new();
    for entry in watched.iter().filter(|e| e.request.0 != request) {
        match entry.fact {
            Fact::Begun(purpose) => attempts.push(Attempt::new(entry, purpose)),
            _ => {
                let known = attempts.iter_mut().find(|a| a.work == entry.request.0);
                if let Some(attempt) = known {
                    attempt.learn(entry);
                }
            }
        }
    }
    attempts
}

/// Whether a request's answer is that of an attempt: their stamps are the same.
fn answers(attempt: &Attempt, row: &Row) -> bool {
    let finished = row.end == End::Finished && attempt.dispatched_ns.is_some();
    finished
        && attempt.dispatched_ns == row.dispatched_ns
        && attempt.generated_ns == row.generated_ns
}

/// The parts in order of [`Part::ALL`]; they add up to the life. Cuts the life at its stations, in
/// order, and gives each stretch to one part; a request that ended early was in the part it had
/// reached. The attempt that was served was sent `since`.
fn parts(row: &Row, since: u64, entries: &[&Entry], network: &Network) -> [u64; 8] {
    let mut parts = [0; 8];
    let mut at = row.sent_ns;
    let end = row.ended_ns.max(at);
    let mut upto = |part: Part, until: u64| {
        let until = until.clamp(at, end);
        parts[part as usize] += until - at;
        at = until;
    };
    upto(Part::Attempts, since);
    upto(Part::Network, since.saturating_add(network.client_ns));
    upto(Part::Gateway, row.dispatched_ns.unwrap_or(u64::MAX));
    upto(Part::Network, row.accepted_ns.unwrap_or(u64::MAX));
    upto(Part::Queue, row.started_ns.unwrap_or(u64::MAX));
    // Times at the client are later than at the replica by the way back; that is the network's.
    let back = network.back_ns();
    let first = row.first_token_ns.map(|ns| ns.saturating_sub(back));
    upto(Part::Prefill, first.unwrap_or(u64::MAX));
    let generated = row.generated_ns.unwrap_or(u64::MAX);
    upto(Part::Decode, generated);
    if row.accepted_by_verifier.is_some() {
        upto(Part::Verification, row.ended_ns.saturating_sub(back));
    }
    upto(Part::Network, u64::MAX);
    for (after_first_token, ns) in preempted(row, entries, first) {
        let from = if after_first_token {
            Part::Decode
        } else {
            Part::Prefill
        };
        let moved = ns.min(parts[from as usize]);
        parts[from as usize] -= moved;
        parts[Part::Preempted as usize] += moved;
    }
    parts
}

/// Stretches from a preemption to the next start, and whether the first token had left before.
fn preempted(row: &Row, entries: &[&Entry], first: Option<u64>) -> Vec<(bool, u64)> {
    let mut stretches = Vec::new();
    let mut since = None;
    for entry in entries {
        let at = entry.at.as_nanos();
        match entry.fact {
            Fact::Preempted { .. } => since = Some(at),
            Fact::Started { .. } => {
                if let Some(begin) = since.take() {
                    let ns = at.saturating_sub(begin);
                    stretches.push((first.is_some_and(|f| f <= begin), ns));
                }
            }
            _ => {}
        }
    }
    if let Some(begin) = since {
        let rest = row.ended_ns.saturating_sub(begin);
        stretches.push((first.is_some_and(|f| f <= begin), rest));
    }
    stretches
}

/// What a quantile of a metric is made of, beside the median.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Quantile {
    /// `ttft` or `e2e`.
    pub metric: &'static str,
    /// 0 to 1.
    pub q: f64,
    /// The quantile, ms.
    pub value_ms: f64,
    /// The median, ms.
    pub median_ms: f64,
    /// Requests looked at around the quantile.
    pub n: usize,
    /// Mean time in each part, ms: around the quantile, and around the median.
    pub parts: Vec<PartMeans>,
    /// The part that explains most of the distance from the median.
    pub dominant: Part,
    /// Its share of that distance.
    pub dominant_share: f64,
}

/// One part of the requests around a quantile and around the median.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct PartMeans {
    /// The part.
    pub part: Part,
    /// Mean around the quantile, ms.
    pub at_quantile_ms: f64,
    /// Mean around the median, ms.
    pub at_median_ms: f64,
}

/// Why a quantile cannot be explained.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ExplainError {
    /// Only these have parts.
    #[error("`{0}` has no parts to explain; ask for `ttft` or `e2e`")]
    Metric(String),
    /// Rows are needed.
    #[error("{0}")]
    TooFew(String),
}

/// What makes up a quantile of `ttft` or `e2e`: the mean parts of the finished, measured requests
/// around it, against those around the median.
///
/// # Errors
/// Another metric; no rows; a sample that does not support the quantile.
pub fn quantile(
    run: &RunResult,
    from_ns: u64,
    metric: &str,
    q: f64,
    network: &Network,
) -> Result<Quantile, ExplainError> {
    let (name, of): (&'static str, fn(&Row) -> Option<u64>) = match metric {
        "ttft" => ("ttft", Row::ttft_ns),
        "e2e" => ("e2e", Row::e2e_ns),
        other => return Err(ExplainError::Metric(other.to_owned())),
    };
    let mut rows: Vec<(u64, &Row)> = run
        .rows
        .iter()
        .filter(|r| r.end == End::Finished && r.sent_ns >= from_ns)
        .filter_map(|r| Some((of(r)?, r)))
        .collect();
    let n = rows.len();
    if (n as f64) * (1.0 - q) < crate::metric::MIN_BEYOND_QUANTILE - 1e-6 || n < 20 {
        return Err(ExplainError::TooFew(format!(
            "{n} finished requests with rows do not support {}",
            crate::metric::quantile_name(q)
        )));
    }
    rows.sort_unstable_by_key(|&(ns, r)| (ns, r.request));
    let around = |q: f64| {
        let rank = ((q * n as f64).ceil() as usize).clamp(1, n) - 1;
        let side = ((n as f64 * AROUND) as usize).max(AROUND_LEAST);
        let those = &rows[rank.saturating_sub(side)..(rank + side + 1).min(n)];
        (rows[rank].0 as f64 / 1e6, those)
    };
    let (value_ms, slow) = around(q);
    let (median_ms, usual) = around(0.5);
    let means = |those: &[(u64, &Row)]| {
        let lives: Vec<[u64; 8]> = those.iter().map(|(_, r)| upto(r, name, network)).collect();
        Part::ALL.map(|part| {
            let ms: Vec<f64> = lives
                .iter()
                .map(|l| l[part as usize] as f64 / 1e6)
                .collect();
            stats::mean(&ms).unwrap_or(0.0)
        })
    };
    let (at_quantile, at_median) = (means(slow), means(usual));
    let parts: Vec<PartMeans> = Part::ALL
        .into_iter()
        .map(|part| PartMeans {
            part,
            at_quantile_ms: at_quantile[part as usize],
            at_median_ms: at_median[part as usize],
        })
        .filter(|p| p.at_quantile_ms > 0.0 || p.at_median_ms > 0.0)
        .collect();
    let excess = |p: &PartMeans| p.at_quantile_ms - p.at_median_ms;
    let total: f64 = parts.iter().map(excess).sum();
    let most = parts.iter().max_by(|a, b| excess(a).total_cmp(&excess(b)));
    Ok(Quantile {
        metric: name,
        q,
        value_ms,
        median_ms,
        n: slow.len(),
        dominant: most.map_or(Part::Decode, |p| p.part),
        dominant_share: most.map_or(0.0, |p| excess(p) / total.max(f64::MIN_POSITIVE)),
        parts,
    })
}

/// The parts of a row up to what the metric ends with.
fn upto(row: &Row, metric: &str, network: &Network) -> [u64; 8] {
    let mut row = *row;
    let end = match metric {
        "ttft" => row.first_token_ns,
        _ => row.last_token_ns,
    };
    if let Some(end) = end {
        row.ended_ns = end;
        row.generated_ns = Some(end.saturating_sub(network.back_ns()));
        // Checks come after the last token.
        row.accepted_by_verifier = None;
    }
    parts(&row, row.sent_ns, &[], network)
}
