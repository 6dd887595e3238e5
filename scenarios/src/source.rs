//! The texts a scenario was read from, and places in them.

use std::fmt;

/// Where a value was written: a stretch of bytes of one source. The default is "nowhere": the
/// value is a default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Origin {
    /// Number of the source, counted from 1; 0 for defaults.
    source: u32,
    start: u32,
    end: u32,
}

impl Origin {
    /// A stretch of bytes of source `source`, which [`Sources::add`] gave.
    pub(crate) fn new(source: SourceId, span: std::ops::Range<usize>) -> Self {
        let clamp = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            source: source.0,
            start: clamp(span.start),
            end: clamp(span.end),
        }
    }

    /// A part of it, by bytes from its start; the whole if it is shorter than that.
    pub(crate) fn part(self, range: std::ops::Range<usize>) -> Self {
        let clamp = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let start = self.start.saturating_add(clamp(range.start));
        let end = self.start.saturating_add(clamp(range.end));
        if self.is_default() || end > self.end || start > end {
            return self;
        }
        Self { start, end, ..self }
    }

    /// Whether the value is a default that nobody wrote.
    pub fn is_default(self) -> bool {
        self.source == 0
    }
}

/// A source, as [`Sources::add`] numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SourceId(u32);

/// What kind of text a source is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceKind {
    /// A file, or a scenario of the library: places have line and column.
    File,
    /// An override of the command line: one line, no number.
    Override,
}

/// One text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceText {
    /// Name to show: a path as the user wrote it, `library:NAME`, or `--set`.
    pub name: String,
    /// What was read.
    pub text: String,
    /// File or override.
    pub kind: SourceKind,
}

/// All texts that took part.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sources {
    texts: Vec<SourceText>,
}

impl Sources {
    /// Takes a text in.
    pub(crate) fn add(&mut self, name: &str, text: &str, kind: SourceKind) -> SourceId {
        self.texts.push(SourceText {
            name: name.to_owned(),
            text: text.to_owned(),
            kind,
        });
        SourceId(u32::try_from(self.texts.len()).unwrap_or(u32::MAX))
    }

    /// The texts, in the order they were read.
    pub fn iter(&self) -> impl Iterator<Item = &SourceText> {
        self.texts.iter()
    }

    /// Line, column and text of a place; none for defaults.
    pub fn place(&self, origin: Origin) -> Option<Place> {
        let index = (origin.source as usize).checked_sub(1)?;
        let source = self.texts.get(index)?;
        let text = &source.text;
        let start = floor_boundary(text, origin.start as usize);
        let end = floor_boundary(text, (origin.end as usize).max(start));
        let line_start = text[..start].rfind('\n').map_or(0, |i| i + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |i| start + i);
        // A stretch over several lines is marked on its first only.
        let shown_end = end.min(line_end).max(start);
        Some(Place {
            source: source.name.clone(),
            kind: source.kind,
            line: count(text[..start].matches('\n').count() + 1),
            column: count(text[line_start..start].chars().count() + 1),
            width: count(text[start..shown_end].chars().count().max(1)),
            text: text[line_start..line_end].trim_end().to_owned(),
            span: start..end,
        })
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The last character boundary at or before `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A place in a source, for people and for tools.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Name of the source.
    pub source: String,
    /// File or override.
    pub kind: SourceKind,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Characters to mark, at least one, all on `line`.
    pub width: u32,
    /// The whole line.
    pub text: String,
    /// Bytes of the source.
    pub span: std::ops::Range<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            SourceKind::File => write!(f, "{}:{}:{}", self.source, self.line, self.column),
            SourceKind::Override => write!(f, "{} {}", self.source, self.text),
        }
    }
}
