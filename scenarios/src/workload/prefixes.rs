//! Prefixes that many requests share: a system prompt, then one of many groups, popular as Zipf.

use super::lengths::Length;
use crate::schema::traffic::PrefixSpec;
use windtunnel_base::content::{Extent, namespace, stream_key};
use windtunnel_base::rng::{Rng, Streams};
use windtunnel_base::sample::Zipf;

/// The shared prefixes of one client.
#[derive(Clone, Debug)]
pub(crate) struct Prefixes {
    popularity: Option<Zipf>,
    groups: u32,
    tokens: Length,
    /// Where the lengths of groups come from: each is drawn from a stream of its own, so no
    /// table of groups is kept.
    lengths: Streams,
    system: Extent,
    group_keys: u64,
}

impl Prefixes {
    /// The prefixes of the client named by `entity`.
    pub(crate) fn new(spec: &PrefixSpec, streams: Streams, entity: u64) -> Result<Self, String> {
        let zipf = spec.zipf.unwrap_or(0.0);
        let popularity = Zipf::new(u64::from(spec.groups.max(1)), zipf);
        let popularity = popularity.map_err(|e| format!("`zipf`: {e}"))?;
        let tokens = Length::new(&spec.tokens).map_err(|e| format!("`tokens`: {e}"))?;
        let lengths = Streams::new(streams.stream("prefix lengths", entity).next_u64());
        Ok(Self {
            popularity: (zipf > 0.0 && spec.groups > 1).then_some(popularity),
            groups: spec.groups,
            tokens,
            lengths,
            system: Extent {
                key: stream_key(namespace("system prompt"), entity),
                tokens: spec.system_tokens,
            },
            group_keys: stream_key(namespace("prefix group"), entity),
        })
    }

    /// Which group a request belongs to.
    pub(crate) fn draw(&self, rng: &mut Rng) -> u32 {
        match &self.popularity {
            Some(zipf) => zipf.sample(rng) as u32,
            None if self.groups > 1 => rng.below(u64::from(self.groups)) as u32,
            None => 0,
        }
    }

    /// Appends the prefix of a group, cut off after `limit` tokens; says how long it is.
    pub(crate) fn write(&self, group: u32, limit: u32, out: &mut Vec<Extent>) -> u32 {
        let system = self.system.tokens.min(limit);
        let own = self.group_tokens(group).min(limit - system);
        if system > 0 {
            out.push(Extent {
                tokens: system,
                ..self.system
            });
        }
        if own > 0 {
            out.push(Extent {
                key: stream_key(self.group_keys, u64::from(group)),
                tokens: own,
            });
        }
        system + own
    }

    /// Tokens of a group, without the system prompt.
    fn group_tokens(&self, group: u32) -> u32 {
        if self.groups == 0 {
            return 0;
        }
        match &self.tokens {
            Length::Fixed(tokens) => *tokens,
            length => length.draw(&mut self.lengths.stream("group", u64::from(group))),
        }
    }
}
