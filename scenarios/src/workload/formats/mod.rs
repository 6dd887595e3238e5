//! Readers of traces, one file per format. Each turns a file into `Rows`, or into what its
//! format knows instead of rows, and says what it had to decide.

use super::table::short;
use rustc_hash::FxHashMap;
use windtunnel_base::content::Extent;

/// Mooncake: JSON lines with chained block hashes.
pub(crate) mod mooncake;
/// Azure LLM inference 2023 and 2024.
pub(crate) mod azure;
/// BurstGPT.
pub(crate) mod burstgpt;
/// VTC arena: many tenants.
pub(crate) mod vtc;
/// Windtunnel's own rows.
pub(crate) mod native;
/// ServeGen: rates and token distributions.
pub(crate) mod servegen;
/// Coding-agent sessions.
pub(crate) mod agentic;

/// Requests with stamps, column by column: a column that a trace does not have is empty.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// When each was sent, in ns on the trace's clock.
    pub(crate) at: Vec<u64>,
    /// Prompt tokens, at least 1.
    pub(crate) input: Vec<u32>,
    /// Output tokens, at least 1.
    pub(crate) output: Vec<u32>,
    /// Tenants as numbers of the trace's own (see [`Self::tenants`]).
    pub(crate) tenant: Vec<u32>,
    /// Names of the trace's tenants.
    pub(crate) tenants: NameList,
    /// Names of the trace's classes.
    pub(crate) classes: NameList,
    /// Where each request's extents end in `extents`; they begin where those of the one before
    /// end.
    pub(crate) prefix_ends: Vec<u64>,
    /// Extents; keys are numbers within the trace, without namespace.
    pub(crate) extents: Vec<Extent>,
    /// What only our own rows have.
    pub(crate) recorded: Vec<Recorded>,
}

/// What our own rows know beyond others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Recorded {
    pub(crate) session: u64,
    pub(crate) turn: u32,
    pub(crate) class: u32,
    pub(crate) good: bool,
}

impl Rows {
    /// How many requests.
    pub(crate) fn len(&self) -> usize {
        self.at.len()
    }

    /// Extents of a request.
    pub(crate) fn prefix(&self, row: usize) -> &[Extent] {
        if self.prefix_ends.is_empty() {
            return &[];
        }
        let begin = row.checked_sub(1).map_or(0, |r| self.prefix_ends[r]);
        &self.extents[begin as usize..self.prefix_ends[row] as usize]
    }

    /// Sorts by time, equal times in the order of the file; says how many rows stood after a
    /// later one.
    pub(crate) fn sort(&mut self) -> usize {
        let mut latest = 0;
        let late = self.at.iter().filter(|&&at| {
            let is_late = at < latest;
            latest = latest.max(at);
            is_late
        });
        let late = late.count();
        if late == 0 {
            return 0;
        }
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|&i| self.at[i]);
        if !self.prefix_ends.is_empty() {
            let mut extents = Vec::with_capacity(self.extents.len());
            let mut ends = Vec::with_capacity(self.prefix_ends.len());
            for &row in &order {
                extents.extend_from_slice(self.prefix(row));
                ends.push(extents.len() as u64);
            }
            (self.extents, self.prefix_ends) = (extents, ends);
        }
        permute(&mut self.at, &order);
        permute(&mut self.input, &order);
        permute(&mut self.output, &order);
        permute(&mut self.tenant, &order);
        permute(&mut self.recorded, &order);
        late
    }
}

/// Names that a trace brings, numbered as they come.
#[derive(Debug, Default)]
pub(crate) struct NameList {
    pub(crate) names: Vec<String>,
    numbers: FxHashMap<String, u32>,
}

impl NameList {
    /// The number of a name, added if it is new.
    pub(crate) fn number(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }
}

/// Puts a column into another order; an absent one stays absent.
fn permute<T: Copy>(column: &mut Vec<T>, order: &[usize]) {
    if !column.is_empty() {
        *column = order.iter().map(|&i| column[i]).collect();
    }
}

/// Maximal runs of consecutive ids, in place of the ids: `first` and how many.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Runs {
    pub(crate) runs: Vec<(u64, u32)>,
    /// Ids in all.
    pub(crate) ids: u64,
}

impl Runs {
    /// Appends an id.
    pub(crate) fn push(&mut self, id: u64) {
        self.ids += 1;
        match self.runs.last_mut() {
            Some((first, count))
                if first.checked_add(u64::from(*count)) == Some(id) && *count < u32::MAX =>
            {
                *count += 1;
            }
            _ => self.runs.push((id, 1)),
        }
    }
}

impl<'de> serde::Deserialize<'de> for Runs {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Ids;
        impl<'de> serde::de::Visitor<'de> for Ids {
            type Value = Runs;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of block ids")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut ids: A) -> Result<Runs, A::Error> {
                let mut runs = Runs::default();
                while let Some(id) = ids.next_element::<u64>()? {
                    runs.push(id);
                }
                Ok(runs)
            }
        }
        d.deserialize_seq(Ids)
    }
}

/// What `serde_json` says about a line, without its own idea of line numbers.
pub(crate) fn json_reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or(&text);
    format!("{} (at character {})", short_reason(text), error.column())
}

fn short_reason(text: &str) -> String {
    if text.chars().count() <= 160 {
        return text.to_owned();
    }
    short(text)
}

/// Notes how many answers had no tokens: they are played with one, because an answer begins with
/// a token.
pub(crate) fn note_empty_answers(count: u64, facts: &mut super::Facts) {
    if count > 0 {
        facts.notes.push(format!(
            "{count} requests had answers of 0 tokens; they are played with 1"
        ));
    }
}
