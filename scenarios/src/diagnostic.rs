//! Findings about a scenario, and how they are shown: place, reason and remedy.

use crate::source::{Place, SourceKind};
use std::fmt::{self, Write as _};

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal)*) => {
        /// What a finding is about. Numbers are stable: tools may rely on them.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Code { $($(#[doc = $doc])* $name,)* }

        impl Code {
            /// Every code, for lists and for tools that want the rules beforehand.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its number, such as `S014`.
            pub fn number(self) -> &'static str {
                match self { $(Self::$name => $number,)* }
            }

            /// What it stands for, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),*).trim_ascii(),)* }
            }
        }
    };
}

codes! {
    /// A file or library entry cannot be read.
    Unreadable = "S001"
    /// The text is not TOML.
    Syntax = "S002"
    /// Scenarios extend each other in a circle.
    Cycle = "S003"
    /// An override of the command line is not `key.path=value`, or its path leads nowhere.
    BadOverride = "S004"
    /// A policy file says something that is no decision of an operator.
    NotADecision = "S005"
    /// A key that the format does not know.
    UnknownKey = "S010"
    /// A value of the wrong type.
    WrongType = "S011"
    /// A key that must be given is absent.
    MissingKey = "S012"
    /// A value that is none of the known ones.
    UnknownValue = "S013"
    /// A `kind` that is none of the known ones.
    UnknownKind = "S014"
    /// A quantity that cannot be read: number, unit or both.
    BadQuantity = "S015"
    /// A number outside the range that makes sense.
    OutOfRange = "S020"
    /// Traffic never ends.
    Endless = "S021"
    /// Something that the rest of the scenario needs is absent.
    Incomplete = "S022"
    /// Two parts of the scenario contradict each other.
    Contradiction = "S023"
    /// A name that is declared nowhere.
    UndeclaredName = "S024"
    /// A replica cannot be built as described.
    Engine = "S025"
    /// A threshold that cannot be read.
    BadThreshold = "S026"
    /// A measured profile that a cost model names cannot be used.
    Profile = "S027"
    /// An objective or threshold for a class that no client sends.
    UnusedClass = "S031"
    /// A limit that can never be met, or never matters.
    Pointless = "S032"
    /// The version of the format is another one.
    Version = "S033"
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.number())
    }
}

/// How much a finding matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Nothing is run.
    Error,
    /// Probably not what was meant; runs all the same.
    Warning,
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// What it is about.
    pub code: Code,
    /// What is wrong, in one line.
    pub message: String,
    /// Where, if it is anywhere.
    pub place: Option<Place>,
    /// The key it is about, such as `gateway.routing.kind`; may be empty.
    pub path: String,
    /// What stands beside the mark, such as "did you mean `random`?"; may be empty.
    pub label: String,
    /// Further lines: known values, a remedy, an example.
    pub notes: Vec<String>,
}

/// All findings of one load, errors first, each part in the order of the text.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// Puts findings in order: errors first, then by source, line and column.
    pub(crate) fn new(mut diagnostics: Vec<Diagnostic>) -> Self {
        let key = |d: &Diagnostic| {
            let place = d.place.as_ref();
            (
                d.severity,
                place.map(|p| (p.source.clone(), p.line, p.column)),
                d.code,
                d.path.clone(),
            )
        };
        diagnostics.sort_by_key(key);
        diagnostics.dedup();
        Self { diagnostics }
    }

    /// The findings.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// How many findings forbid a run.
    pub fn errors(&self) -> usize {
        self.of(Severity::Error)
    }

    /// How many do not.
    pub fn warnings(&self) -> usize {
        self.of(Severity::Warning)
    }

    fn of(&self, severity: Severity) -> usize {
        self.diagnostics
            .iter()
            .filter(|d| d.severity == severity)
            .count()
    }

    /// All findings as text, each with its line and a mark under it, and a closing sentence.
    /// `color` adds ANSI escape sequences.
    pub fn render(&self, color: bool) -> String {
        let paint = Paint { color };
        let mut out = String::new();
        for diagnostic in &self.diagnostics {
            paint.diagnostic(&mut out, diagnostic);
        }
        let (errors, warnings) = (self.errors(), self.warnings());
        let warned = match warnings {
            0 => String::new(),
            n => counted(n, "warning"),
        };
        if errors > 0 {
            let and = if warnings > 0 { " and " } else { "" };
            out += &format!(
                "{}{and}{warned}; nothing was run.\n",
                counted(errors, "error")
            );
        } else if warnings > 0 {
            out += &format!("{warned}.\n");
        }
        out
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

fn counted(n: usize, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {what}{plural}")
}

struct Paint {
    color: bool,
}

const BOLD: &str = "1";
const BLUE: &str = "1;34";
const RED: &str = "1;31";
const YELLOW: &str = "1;33";

impl Paint {
    fn paint(&self, style: &str, text: &str) -> String {
        if self.color && !text.is_empty() {
            format!("\u{1b}[{style}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    fn diagnostic(&self, out: &mut String, d: &Diagnostic) {
        let (word, style) = match d.severity {
            Severity::Error => ("error", RED),
            Severity::Warning => ("warning", YELLOW),
        };
        let head = self.paint(style, &format!("{word}[{}]", d.code));
        let message = self.paint(BOLD, &format!(": {}", d.message));
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{head}{message}");
        let gutter = match &d.place {
            Some(place) => self.place(out, place, &d.label, style),
            None => {
                if !d.label.is_empty() {
                    let _ = writeln!(out, "  = {}", d.label);
                }
                1
            }
        };
        for note in &d.notes {
            let mark = self.paint(BLUE, "=");
            let indent = " ".repeat(gutter + 4);
            let note = note.replace('\n', &format!("\n{indent}"));
            let _ = writeln!(out, "{:gutter$} {mark} {note}", "");
        }
    }

    /// Shows the line with its mark; returns the width of the line number.
    fn place(&self, out: &mut String, place: &Place, label: &str, style: &str) -> usize {
        let number = match place.kind {
            SourceKind::File => place.line.to_string(),
            SourceKind::Override => String::from(" "),
        };
        let gutter = number.len();
        let bar = self.paint(BLUE, "|");
        let arrow = self.paint(BLUE, "-->");
        let title = match place.kind {
            SourceKind::File => place.to_string(),
            SourceKind::Override => place.source.clone(),
        };
        // Tabs are shown as one space each, so that the mark stands under what it marks.
        let line = place.text.replace('\t', " ");
        let before = " ".repeat(place.column.saturating_sub(1) as usize);
        let mark = self.paint(style, &"^".repeat(place.width as usize));
        let label = if label.is_empty() {
            String::new()
        } else {
            format!(" {}", self.paint(style, label))
        };
        let number = self.paint(BLUE, &number);
        let _ = writeln!(out, "{:gutter$}{arrow} {title}", "");
        let _ = writeln!(out, "{:gutter$} {bar}", "");
        let _ = writeln!(out, "{number} {bar} {line}");
        let _ = writeln!(out, "{:gutter$} {bar} {before}{mark}{label}", "");
        gutter
    }
}
