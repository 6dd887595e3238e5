//! The arguments that BLIS was run with, as `workloads/*.cmd.txt` has them.
//!
//! A line is a command (`run --model …`), or a name and its arguments (`w2_rr: --routing-policy …`).
//! `common:` goes before the arguments of every name of its file. Text in brackets is a comment; a
//! list in braces, such as `{1000|100000}`, is one of several runs.

use super::super::files::{self, Unreadable};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Arguments of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Command {
    /// What the runs are called that it is for: a name, or the file's.
    pub(super) name: String,
    /// Where it is written.
    pub(super) file: PathBuf,
    flags: BTreeMap<String, String>,
}

impl Command {
    /// The value of `--name`; `true` for one without a value.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.flags.get(name).map(String::as_str)
    }

    /// A number, or `default` if the flag is absent.
    pub(super) fn number<T: std::str::FromStr>(
        &self,
        name: &str,
        default: T,
    ) -> Result<T, Unreadable> {
        let Some(text) = self.get(name) else {
            return Ok(default);
        };
        text.parse().map_err(|_| {
            Unreadable::file(
                &self.file,
                format!("`--{name} {text}` of `{}` is no such number", self.name),
                "correct the file",
            )
        })
    }

    /// The flags, for the report.
    pub(super) fn flags(&self) -> impl Iterator<Item = (&str, &str)> {
        self.flags.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// The same arguments with some more, which win.
    fn and(&self, more: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut flags = self.flags.clone();
        flags.extend(more.clone());
        flags
    }
}

/// All commands of a folder.
pub(super) fn read(dir: &Path) -> Result<Vec<Command>, Unreadable> {
    let mut commands = Vec::new();
    for path in files::entries(&dir.join("workloads"))? {
        let name = files::name(&path);
        if let Some(stem) = name.strip_suffix(".cmd.txt") {
            commands.extend(parse(&files::text(&path)?, stem, &path));
        }
    }
    Ok(commands)
}

/// The commands of a text.
fn parse(text: &str, stem: &str, file: &Path) -> Vec<Command> {
    let text = text.replace("\\\r\n", " ").replace("\\\n", " ");
    let of = |name: &str, flags| Command {
        name: name.to_owned(),
        file: file.to_owned(),
        flags,
    };
    let mut common = of("common", BTreeMap::new());
    let mut commands = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['(', '#']) {
            continue;
        }
        let (name, rest) = match line.split_once(':') {
            Some((name, rest)) if is_name(name) => (name.trim(), rest),
            _ => (stem, line),
        };
        let flags = flags(rest);
        match name {
            "common" => common.flags.extend(flags),
            _ if flags.is_empty() && name == stem => {}
            _ => commands.push(of(name, common.and(&flags))),
        }
    }
    if commands.is_empty() && !common.flags.is_empty() {
        commands.push(of(stem, common.flags));
    }
    commands
}

fn is_name(text: &str) -> bool {
    let letters = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    !text.is_empty() && !text.starts_with('-') && text.chars().all(letters)
}

/// `--name value`, `--name=value` and `--name`, up to a comment in brackets.
fn flags(text: &str) -> BTreeMap<String, String> {
    let end = text.find(" (").unwrap_or(text.len());
    let words: Vec<&str> = text[..end].split_whitespace().collect();
    let plain = |word: &str| word.trim_matches(['"', '\'']).to_owned();
    let mut flags = BTreeMap::new();
    let mut rest = words.into_iter().peekable();
    while let Some(word) = rest.next() {
        let Some(flag) = word.strip_prefix("--") else {
            continue;
        };
        if let Some((name, value)) = flag.split_once('=') {
            flags.insert(name.to_owned(), plain(value));
        } else {
            let value = rest.next_if(|next| !next.starts_with("--"));
            flags.insert(flag.to_owned(), plain(value.unwrap_or("true")));
        }
    }
    flags
}

/// The command that made a result: the one with the longest name that is the result's, or that the
/// result's goes on from. Of a list in braces it takes what the result's name has as a word, as
/// `run_n1000` has 1000.
pub(super) fn of_result(commands: &[Command], result: &str) -> Option<Command> {
    let fits = |command: &&Command| continues(result, &command.name);
    let found = commands.iter().filter(fits).max_by_key(|c| c.name.len());
    let mut command = found?.clone();
    for value in command.flags.values_mut() {
        let inner = value.strip_prefix('{').and_then(|v| v.strip_suffix('}'));
        let list = inner.map(|list| list.split(['|', ',']).map(str::trim));
        let chosen = list.and_then(|mut list| list.find(|choice| has_word(result, choice)));
        if let Some(chosen) = chosen {
            *value = chosen.to_owned();
        }
    }
    Some(command)
}

/// Whether a name has a word between its separators, letters before a number aside.
fn has_word(name: &str, word: &str) -> bool {
    let letters = |w: &str| {
        w.trim_start_matches(|c: char| c.is_ascii_alphabetic())
            .to_owned()
    };
    name.split(['_', '-', '.'])
        .any(|w| w == word || letters(w) == word)
}

/// Whether `name` is `begin`, or `begin` and something more behind a separator.
pub(super) fn continues(name: &str, begin: &str) -> bool {
    name.strip_prefix(begin)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['_', '-', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_common_arguments_comments_and_lists() {
        let text = "common: run --model a/b --num-instances 8 \\\n  --workload-spec=w2.yaml\n\
                    # a remark\n\
                    w2_rr:     --routing-policy round-robin\n\
                    w2_oracle: --routing-policy weighted --num-instances 4 (a note: --tp 9)\n";
        let commands = parse(text, "w2_cluster", Path::new("x"));
        assert_eq!(commands.len(), 2);
        let oracle = of_result(&commands, "w2_oracle").expect("a command");
        assert_eq!(oracle.get("num-instances"), Some("4"));
        assert_eq!(oracle.get("workload-spec"), Some("w2.yaml"));
        assert_eq!((oracle.get("tp"), oracle.get("model")), (None, Some("a/b")));
        assert_eq!(
            of_result(&commands, "w2_rr_n10").map(|c| c.name),
            Some("w2_rr".to_owned())
        );
        assert_eq!(of_result(&commands, "w2_rrr"), None);
        assert_eq!(of_result(&commands, "w2"), None);

        let text = "run --rate 10 --num-requests {1000|100000} --quiet --log error\n(a remark)\n";
        let commands = parse(text, "w1_single", Path::new("x"));
        let command = of_result(&commands, "w1_single_n1000").expect("a command");
        assert_eq!(command.get("num-requests"), Some("1000"));
        let other = of_result(&commands, "w1_single").expect("a command");
        assert_eq!(other.get("num-requests"), Some("{1000|100000}"));
        assert_eq!(command.get("quiet"), Some("true"));
        assert_eq!(command.number("rate", 0.0), Ok(10.0));
        assert!(command.number::<u32>("log", 0).is_err());
    }

    #[test]
    fn the_longest_name_wins() {
        let text = "w: --a 1\nw_x: --a 2\nw_x_y: --a 3\n";
        let commands = parse(text, "file", Path::new("x"));
        let of = |result| of_result(&commands, result).map(|c| c.number("a", 0));
        assert_eq!(of("w_x_z"), Some(Ok(2)));
        assert_eq!(of("w_x_y"), Some(Ok(3)));
        assert_eq!(of("w_q"), Some(Ok(1)));
    }
}
