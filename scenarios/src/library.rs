//! Scenarios and policies that come with the program, each a commented file that teaches.

/// One file of the library.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name, as in `windtunnel run NAME` or `extends = "library:NAME"`.
    pub name: &'static str,
    /// What to find it by.
    pub tags: &'static [&'static str],
    /// The file.
    pub text: &'static str,
}

impl Entry {
    /// Its purpose, in one line: the file's own words.
    pub fn purpose(&self) -> &'static str {
        self.text
            .lines()
            .find_map(|line| line.strip_prefix("purpose = \""))
            .and_then(|rest| rest.strip_suffix('"'))
            .unwrap_or_default()
    }
}

macro_rules! entries {
    ($folder:literal: $($name:literal $($tag:literal)*;)*) => { &[
        $(Entry {
            name: $name,
            tags: &[$($tag),*],
            text: include_str!(concat!("../", $folder, "/", $name, ".toml")),
        },)*
    ] };
}

const SCENARIOS: &[Entry] = entries! { "library":
    "smoke" "fast" "first";
};

const POLICIES: &[Entry] = entries! { "library/policies":
    "round-robin" "baseline";
};

/// The scenarios, in the order to read them.
pub fn list() -> &'static [Entry] {
    SCENARIOS
}

/// The scenario of this name.
pub fn find(name: &str) -> Option<&'static Entry> {
    SCENARIOS.iter().find(|e| e.name == name)
}

/// The policies, for `--policy`.
pub fn policies() -> &'static [Entry] {
    POLICIES
}

/// The policy of this name.
pub fn find_policy(name: &str) -> Option<&'static Entry> {
    POLICIES.iter().find(|e| e.name == name)
}
