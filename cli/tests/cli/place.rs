//! A temporary folder, the binary run in it, and what came of it.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_windtunnel");

/// A folder of a test's own.
pub(crate) struct Place(TempDir);

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) what: String,
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, with the folders above it.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        let above = path.parent().expect("a file is in a folder");
        std::fs::create_dir_all(above).expect("folders can be made");
        std::fs::write(path, content).expect("the file can be written");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        let path = self.path(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// The binary in this folder, without what the outer environment might say.
    pub(crate) fn command(&self) -> assert_cmd::Command {
        let mut command = assert_cmd::Command::new(BINARY);
        command
            .current_dir(self.0.path())
            .env_remove("WINDTUNNEL_TRACES")
            .env_remove("NO_COLOR");
        command
    }

    /// Runs words that are separated by blanks.
    pub(crate) fn run(&self, words: &str) -> Done {
        self.run_args(&words.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs with arguments as given.
    pub(crate) fn run_args(&self, args: &[&str]) -> Done {
        let output = self.command().args(args).output().expect("the binary runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is text");
        let done = Done {
            what: args.join(" "),
            code: output.status.code().unwrap_or(-1),
            out: text(output.stdout),
            err: text(output.stderr),
        };
        assert!(!done.err.contains("panicked"), "a panic: {done}");
        done
    }

    /// All files below, by their path from here.
    pub(crate) fn files(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        collect(self.0.path(), self.0.path(), &mut found);
        found
    }

    /// The one folder in `out` that begins with `name` and a dash.
    pub(crate) fn folder(&self, out: &str, name: &str) -> String {
        let all = std::fs::read_dir(self.path(out)).expect("there are results");
        let named = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let start = format!("{name}-");
        let mut found: Vec<String> = all
            .map(|entry| named(entry.expect("entries can be read")))
            .filter(|n| n.starts_with(&start) && n.len() == start.len() + 8)
            .collect();
        assert_eq!(found.len(), 1, "in {out}: {found:?}");
        format!("{out}/{}", found.remove(0))
    }
}

fn collect(root: &Path, at: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(at).expect("folders can be read") {
        let path = entry.expect("entries can be read").path();
        if path.is_dir() {
            collect(root, &path, found);
        } else {
            let from_root = path.strip_prefix(root).expect("it is below");
            found.insert(from_root.display().to_string());
        }
    }
}

impl Done {
    /// Ends with `code`, or shows everything.
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// stdout as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e} in {self}"))
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "windtunnel {} -> {}\n--- stdout\n{}--- stderr\n{}",
            self.what, self.code, self.out, self.err
        )
    }
}

/// Rows of a CSV text without quoted fields, by column.
pub(crate) fn rows(csv: &str) -> Vec<BTreeMap<String, String>> {
    let mut lines = csv.lines().filter(|line| !line.starts_with('#'));
    let head: Vec<&str> = lines.next().expect("a header").split(',').collect();
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            assert_eq!(fields.len(), head.len(), "{line}");
            let named = head.iter().zip(fields);
            named.map(|(k, v)| (k.to_string(), v.to_owned())).collect()
        })
        .collect()
}

/// A metric's value of a summary; none if it is absent or withheld.
pub(crate) fn metric(summary: &Value, name: &str) -> Option<f64> {
    summary["metrics"][name]["value"].as_f64()
}
