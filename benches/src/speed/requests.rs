//! The requests of the shapes that other simulators were measured on: constant gaps and normal lengths,
//! which the scenario file has no words for, made here by the same laws; or the very requests, from
//! files.

use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;
use windtunnel_base::content::{Extent, namespace, stream_key};
use windtunnel_base::ids::{ClassId, RequestId, TenantId};
use windtunnel_base::rng::{Rng, Streams};
use windtunnel_base::sample::{Exponential, Normal, SampleError};
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::request::Truth;
use windtunnel_scenarios::workload::{Arrival, Workload};

/// A request, as far as these shapes tell them apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Request {
    pub(super) at: SimTime,
    /// Without the shared prefix.
    pub(super) input: u32,
    pub(super) output: u32,
    /// Which prefix, and how long it is.
    pub(super) prefix: Option<(u32, u32)>,
}

/// Plays requests in their order.
#[derive(Clone, Debug)]
pub(super) struct Played {
    requests: Arc<[Request]>,
    next: usize,
    keys: u64,
}

impl Played {
    pub(super) fn new(requests: &Arc<[Request]>) -> Self {
        Self {
            requests: Arc::clone(requests),
            next: 0,
            keys: namespace("speed"),
        }
    }
}

impl Workload for Played {
    #[inline]
    fn next_at(&mut self) -> Option<SimTime> {
        self.requests.get(self.next).map(|request| request.at)
    }

    fn take(&mut self, prefix: &mut Vec<Extent>) -> Arrival {
        let request = self.requests[self.next];
        let number = self.next as u64;
        self.next += 1;
        let shared = request.prefix.map_or(0, |(group, tokens)| {
            let key = stream_key(self.keys, u64::from(group));
            prefix.push(Extent { key, tokens });
            tokens
        });
        Arrival {
            at: request.at,
            tenant: TenantId(0),
            class: ClassId(0),
            session: number,
            turn: 0,
            prompt_tokens: shared + request.input,
            max_output_tokens: None,
            predicted_output_tokens: None,
            patience: None,
            question: None,
            truth: Truth {
                output_tokens: request.output,
                service: SimDuration::ZERO,
                good: true,
                attack: false,
                output_continues: false,
                task: None,
            },
        }
    }

    fn departed(&mut self, _: RequestId, _: SimTime, _: bool) {}

    fn heeds_departures(&self) -> bool {
        false
    }
}

/// A normal length within limits, to the nearest token.
fn length(law: &Normal, rng: &mut Rng, (min, max): (u32, u32)) -> u32 {
    ((law.sample(rng) + 0.5) as u32).clamp(min, max)
}

/// One every 100 ms; prompts and answers normal with mean 512 and deviation 256, from 2 to 7,000 tokens.
pub(super) fn one_replica(count: u64, seed: u64) -> Result<Arc<[Request]>, SampleError> {
    let streams = Streams::new(seed);
    let (mut input, mut output) = (streams.stream("input", 0), streams.stream("output", 0));
    let law = Normal::new(512.0, 256.0)?;
    let limits = (2, 7_000);
    Ok((1..=count)
        .map(|i| Request {
            at: SimTime::from_nanos(i * 100_000_000),
            input: length(&law, &mut input, limits),
            output: length(&law, &mut output, limits),
            prefix: None,
        })
        .collect())
}

/// Poisson, 160 per second; 16 prefixes of 512 tokens, equally often; behind them normal lengths with
/// mean 256 and deviation 128, from 16 to 2,048 tokens; answers exponential with mean 128.
pub(super) fn shared_prefixes(count: u64, seed: u64) -> Result<Arc<[Request]>, SampleError> {
    let streams = Streams::new(seed);
    let stream = |purpose| streams.stream(purpose, 0);
    let (mut gaps, mut groups) = (stream("arrivals"), stream("prefix"));
    let (mut input, mut output) = (stream("input"), stream("output"));
    let gap = Exponential::new(1.0 / 160.0)?;
    let prompt = Normal::new(256.0, 128.0)?;
    let answer = Exponential::new(128.0)?;
    let mut now = 0.0;
    Ok((0..count)
        .map(|_| {
            now += gap.sample(&mut gaps);
            Request {
                at: SimTime::ZERO + SimDuration::from_secs_f64_saturating(now),
                input: length(&prompt, &mut input, (16, 2_048)),
                output: (answer.sample(&mut output).ceil() as u32).max(1),
                prefix: Some((groups.below(16) as u32, 512)),
            }
        })
        .collect())
}

/// So many requests: those given, again and again, each round as much later as the last one's end.
pub(super) fn repeated(requests: &[Request], number: u64) -> Arc<[Request]> {
    let span = requests.last().map_or(0, |last| last.at.as_nanos());
    let endless = requests.iter().cycle().enumerate();
    let rounds = requests.len().max(1);
    endless
        .take(number as usize)
        .map(|(i, request)| Request {
            at: SimTime::from_nanos(request.at.as_nanos() + (i / rounds) as u64 * span),
            ..*request
        })
        .collect()
}

/// Reads requests from a table with these columns, packed or not: arrival in units of so many ns, input
/// and output tokens, and, where given, group and length of the prefix.
///
/// # Errors
/// What is wrong with which file and line.
pub(super) fn read(
    path: &Path,
    unit: f64,
    columns: [&str; 3],
    prefix: Option<[&str; 2]>,
) -> Result<Arc<[Request]>, String> {
    let name = path.display();
    let file = File::open(path).map_err(|error| format!("cannot open {name}: {error}"))?;
    let packed = path.extension().is_some_and(|end| end == "gz");
    let lines: Box<dyn BufRead> = if packed {
        Box::new(BufReader::new(MultiGzDecoder::new(file)))
    } else {
        Box::new(BufReader::new(file))
    };
    let mut lines = lines.lines();
    let mut line = |number: usize| match lines.next() {
        None => Ok(None),
        Some(Ok(line)) => Ok(Some(line)),
        Some(Err(error)) => Err(format!("{name}, line {number}: {error}")),
    };
    let head = line(1)?.ok_or_else(|| format!("{name} is empty"))?;
    let place = |column: &str| {
        let found = head.split(',').position(|c| c.trim() == column);
        found.ok_or_else(|| format!("{name} has no column `{column}`"))
    };
    let places = [place(columns[0])?, place(columns[1])?, place(columns[2])?];
    let prefix = match prefix {
        Some([group, tokens]) => Some((place(group)?, place(tokens)?)),
        None => None,
    };
    let (mut groups, mut requests) = (Vec::<String>::new(), Vec::new());
    while let Some(text) = line(requests.len() + 2)? {
        let cells: Vec<&str> = text.split(',').collect();
        let number = |place: usize| {
            let cell = cells.get(place).map_or("", |cell| cell.trim());
            let number = cell.parse::<f64>().ok();
            number
                .filter(|n| n.is_finite() && *n >= 0.0)
                .ok_or_else(|| {
                    let line = requests.len() + 2;
                    let column = head.split(',').nth(place).unwrap_or("a column");
                    format!("{name}, line {line}: `{cell}` is no number of `{column}`")
                })
        };
        let tokens = |place: usize| number(place).map(|n| n as u32);
        let shared = match prefix {
            Some((group, length)) => {
                let group = cells.get(group).copied().unwrap_or_default();
                let known = groups.iter().position(|g| g == group);
                let rank = known.unwrap_or_else(|| {
                    groups.push(group.to_owned());
                    groups.len() - 1
                });
                Some((rank as u32, tokens(length)?)).filter(|shared| shared.1 > 0)
            }
            None => None,
        };
        requests.push(Request {
            at: SimTime::from_nanos((number(places[0])? * unit).round() as u64),
            input: tokens(places[1])?.clamp(1, 1_000_000_000),
            output: tokens(places[2])?.clamp(1, 1_000_000_000),
            prefix: shared,
        });
    }
    if let Some(i) = requests.windows(2).position(|two| two[0].at > two[1].at) {
        return Err(format!(
            "{name}, line {}: earlier than the line before",
            i + 3
        ));
    }
    Ok(requests.into())
}
