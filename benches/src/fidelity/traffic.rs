//! The recorded requests, played again: every arrival, length and shared beginning as it was.

use windtunnel_base::content::Extent;
use windtunnel_base::ids::{ClassId, RequestId, TenantId};
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::request::Truth;
use windtunnel_scenarios::workload::{Arrival, Workload};

/// A recorded request.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorded {
    /// When it came, since the run began.
    pub(super) at: SimTime,
    /// Tokens of its prompt, at least 1.
    pub(super) prompt: u32,
    /// Tokens of its answer, at least 1.
    pub(super) output: u32,
    /// What its prompt begins with, as far as others share it.
    pub(super) prefix: Vec<Extent>,
    /// Which conversation it belongs to; unique if none.
    pub(super) session: u64,
    /// How long its client waits before it gives up.
    pub(super) patience: Option<SimDuration>,
}

/// Recorded requests in the order of their arrival (equal times in the order of the record).
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    requests: Vec<Recorded>,
    /// Place in the record of each.
    order: Vec<usize>,
}

impl Traffic {
    /// Puts recorded requests in order.
    pub(super) fn new(record: Vec<Recorded>) -> Self {
        let mut order: Vec<usize> = (0..record.len()).collect();
        order.sort_by_key(|&i| record[i].at);
        let requests = order.iter().map(|&i| record[i].clone()).collect();
        Self { requests, order }
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// The place in the record of the request that came `rank`-th.
    pub(super) fn recorded_at(&self, rank: u32) -> usize {
        self.order[rank as usize]
    }

    /// Plays them from the beginning.
    pub(super) fn play(&self) -> Player<'_> {
        Player {
            requests: &self.requests,
            next: 0,
        }
    }
}

/// Recorded requests on their way.
pub(super) struct Player<'a> {
    requests: &'a [Recorded],
    next: usize,
}

impl Workload for Player<'_> {
    fn next_at(&mut self) -> Option<SimTime> {
        self.requests.get(self.next).map(|r| r.at)
    }

    fn take(&mut self, prefix: &mut Vec<Extent>) -> Arrival {
        let request = &self.requests[self.next];
        self.next += 1;
        prefix.extend_from_slice(&request.prefix);
        Arrival {
            at: request.at,
            tenant: TenantId(0),
            class: ClassId(0),
            session: request.session,
            turn: 0,
            prompt_tokens: request.prompt,
            max_output_tokens: Some(request.output),
            predicted_output_tokens: None,
            patience: request.patience,
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
}

/// Turns chained block hashes into extents. Whoever is the first to have a block names a stream, which
/// goes on to the end of that prompt's whole blocks; who has the same blocks later begins with that
/// stream's beginning. A chained hash stands for all tokens up to its block, so one that is known
/// means that all before it are.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Stream of each known block, and its place in it.
    blocks: std::collections::BTreeMap<String, (u64, u32)>,
    named: u64,
}

impl Streams {
    /// The extents of a prompt with these blocks of `block` tokens.
    pub(super) fn extents(&mut self, hashes: &[String], block: u32) -> Vec<Extent> {
        let mut extents: Vec<Extent> = Vec::new();
        for (i, hash) in hashes.iter().enumerate() {
            // A known block that does not continue what was found is no link of this chain.
            let expected = |key: u64| match extents.last() {
                Some(last) if last.key == key => last.tokens / block,
                _ => 0,
            };
            let known = self.blocks.get(hash).copied();
            let Some((key, place)) = known.filter(|&(key, place)| place == expected(key)) else {
                self.named += 1;
                let rest = &hashes[i..];
                for (place, hash) in rest.iter().enumerate() {
                    self.blocks
                        .entry(hash.clone())
                        .or_insert((self.named, place as u32));
                }
                extents.push(Extent {
                    key: self.named,
                    tokens: rest.len() as u32 * block,
                });
                break;
            };
            match extents.last_mut() {
                Some(last) if last.key == key => last.tokens = (place + 1) * block,
                _ => extents.push(Extent {
                    key,
                    tokens: (place + 1) * block,
                }),
            }
        }
        extents
    }
}

/// Seconds of a record as time of the simulation, to the nearest nanosecond.
pub(super) fn time(seconds: f64) -> Option<SimTime> {
    let nanos = (seconds * 1e9).round();
    (0.0..9e18)
        .contains(&nanos)
        .then(|| SimTime::from_nanos(nanos as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use windtunnel_base::content::shared_tokens;

    fn hashes(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn chained_hashes_become_extents_that_share_the_same_tokens() {
        // Each letter of a chain stands for all before it.
        let prompts = ["a b c d", "a b x y", "a b x z", "a b c d e", "q", "a b x y"];
        let mut streams = Streams::default();
        let chains: Vec<_> = prompts
            .iter()
            .map(|p| streams.extents(&hashes(p), 16))
            .collect();
        let shared = |i: usize, j: usize| shared_tokens(&chains[i], &chains[j]) / 16;
        for i in 0..prompts.len() {
            for j in 0..prompts.len() {
                let (a, b) = (hashes(prompts[i]), hashes(prompts[j]));
                let same = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
                assert_eq!(
                    shared(i, j),
                    same as u64,
                    "{} and {}",
                    prompts[i],
                    prompts[j]
                );
            }
            let tokens: u32 = chains[i].iter().map(|e| e.tokens).sum();
            assert_eq!(tokens as usize, 16 * hashes(prompts[i]).len());
        }
        assert_eq!(chains[0].len(), 1, "one stream is one extent");
    }

    #[test]
    fn requests_are_played_in_order_and_find_back() {
        let at = |ns| Recorded {
            at: SimTime::from_nanos(ns),
            prompt: 1,
            output: 1,
            ..Recorded::default()
        };
        let traffic = Traffic::new(vec![at(30), at(10), at(30), at(20)]);
        let mut player = traffic.play();
        let mut times = Vec::new();
        while player.next_at().is_some() {
            times.push(player.take(&mut Vec::new()).at.as_nanos());
        }
        assert_eq!(times, [10, 20, 30, 30]);
        let places: Vec<usize> = (0..4).map(|rank| traffic.recorded_at(rank)).collect();
        assert_eq!(places, [1, 3, 0, 2]);
        assert_eq!(time(0.1 + 0.2), Some(SimTime::from_nanos(300_000_000)));
        assert_eq!((time(-1.0), time(f64::NAN)), (None, None));
    }
}
