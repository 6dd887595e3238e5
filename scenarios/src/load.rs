//! From a path or library name to a checked scenario.

use crate::check::{Finding, form, rules, shape::Shape};
use crate::diagnostic::{Code, Report, Severity};
use crate::layers;
use crate::overrides::{self, Override};
use crate::policy;
use crate::presets;
use crate::profile;
use crate::schema::Scenario;
use crate::schema_json::strip_nulls;
use crate::show;
use crate::source::{Place, Sources};
use crate::tree::{self, Node};
use std::path::{Path, PathBuf};
use windtunnel_base::digest::RunDigest;
use windtunnel_engine::config::{CostSpec, EngineSpec};

/// Where a scenario is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A file; relative paths start at [`LoadEnv::working_dir`].
    Path(PathBuf),
    /// A scenario of the library.
    Library(String),
    /// A text that is at hand already, such as the resolved scenario of a manifest.
    Text {
        /// Its name in messages.
        name: String,
        /// The scenario.
        text: String,
        /// Where relative paths in it start, if they may.
        dir: Option<PathBuf>,
    },
}

impl Source {
    /// What a user means by `argument`: a path if it contains a `/`, ends in `.toml` or exists
    /// in `working_dir`; else a name of the library (`library:` in front is allowed).
    pub fn of_argument(argument: &str, working_dir: &Path) -> Self {
        if let Some(name) = argument.strip_prefix("library:") {
            return Self::Library(name.to_owned());
        }
        let is_toml = Path::new(argument)
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("toml"));
        let is_path = argument.contains(['/', std::path::MAIN_SEPARATOR])
            || is_toml
            || working_dir.join(argument).is_file();
        if is_path {
            Self::Path(PathBuf::from(argument))
        } else {
            Self::Library(argument.to_owned())
        }
    }
}

/// What a load depends on besides its arguments.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LoadEnv {
    /// Where relative paths start; empty: the process's own working directory.
    pub working_dir: PathBuf,
    /// Policy files (`--policy`), laid over the scenario one after the other, below overrides: a
    /// path, or a name of the library's policies.
    pub policies: Vec<Source>,
}

/// A checked scenario and where its parts came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The scenario.
    pub scenario: Scenario,
    /// Where each value was written.
    pub origins: Origins,
    /// Folder that relative paths in the scenario start at, such as traces; none for scenarios
    /// of the library.
    pub dir: Option<PathBuf>,
    /// The scenario's name, or that of its file.
    pub name: String,
    /// The scenario as canonical TOML, complete: every default is written out.
    pub resolved_toml: String,
    /// 32 hexadecimal digits of what matters of the scenario: two scenarios have the same if
    /// and only if they differ in nothing but name and purpose.
    pub content_hash: String,
    /// Every text that was read.
    pub sources: Sources,
    /// What is odd but no error.
    pub warnings: Report,
}

/// Where each value of a scenario was written; what is absent is a default.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Origins {
    places: Vec<(String, Place)>,
}

impl Origins {
    fn of(tree: &Node, sources: &Sources) -> Self {
        let mut places = Vec::new();
        tree.leaves(&mut tree::Path::default(), &mut |path, node| {
            if let Some(place) = sources.place(node.at) {
                places.push((path.to_string(), place));
            }
        });
        places.sort_by(|a, b| a.0.cmp(&b.0));
        Self { places }
    }

    /// Where the value of a key such as `fleet.replicas` or `traffic.clients.0.share` was
    /// written; none for defaults.
    pub fn get(&self, path: &str) -> Option<&Place> {
        let found = self.places.binary_search_by(|(p, _)| p.as_str().cmp(path));
        found.ok().map(|i| &self.places[i].1)
    }

    /// All that was written, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Place)> {
        self.places
            .iter()
            .map(|(path, place)| (path.as_str(), place))
    }
}

/// Reads, merges and checks a scenario.
///
/// Layers from below: presets of engines, what it extends, itself, `env.policies`, `overrides`.
///
/// # Errors
/// All findings of the first step that has errors, with the warnings found until then. The steps
/// are reading, checking the tree against the schema, and rules across fields.
pub fn load(source: &Source, overrides: &[Override], env: &LoadEnv) -> Result<Loaded, Report> {
    let mut sources = Sources::default();
    let mut findings = Vec::new();
    match read(source, overrides, env, &mut sources, &mut findings) {
        Some(mut loaded) => {
            loaded.warnings = report(findings, &sources);
            loaded.sources = sources;
            Ok(loaded)
        }
        None => Err(report(findings, &sources)),
    }
}

fn report(findings: Vec<Finding>, sources: &Sources) -> Report {
    Report::new(findings.into_iter().map(|f| f.resolve(sources)).collect())
}

/// None if there are errors among the findings.
fn read(
    source: &Source,
    overrides: &[Override],
    env: &LoadEnv,
    sources: &mut Sources,
    findings: &mut Vec<Finding>,
) -> Option<Loaded> {
    let layer = layers::read_chain(source, &env.working_dir, sources, findings)?;
    let mut tree = layer.tree;
    for file in &env.policies {
        policy::apply(&mut tree, file, &env.working_dir, sources, findings);
    }
    overrides::apply(&mut tree, overrides, sources, findings);
    presets::apply(&mut tree, sources);
    form::fill_kinds(&mut tree, Shape::root());
    if !findings.iter().any(|f| f.code == Code::Syntax) {
        findings.extend(form::check(&tree));
    }
    let fatal = |f: &Finding| f.severity == Severity::Error;
    if findings.iter().any(fatal) {
        return None;
    }
    let mut scenario: Scenario = match serde_json::from_value(tree.to_json()) {
        Ok(scenario) => scenario,
        Err(error) => {
            // The schema is generated from the types, so this is a gap in the check.
            let message = format!("the scenario cannot be read: {error}");
            let finding = Finding::error(Code::WrongType, tree.at, String::new(), message);
            findings.push(finding);
            return None;
        }
    };
    if scenario.name.is_empty() {
        scenario.name.clone_from(&layer.name);
    }
    findings.extend(read_profiles(&mut scenario, layer.dir.as_deref(), &tree));
    findings.extend(rules::check(&scenario, &tree));
    if findings.iter().any(fatal) {
        return None;
    }
    let resolved_toml = show::resolved(&scenario);
    Some(Loaded {
        origins: Origins::of(&tree, sources),
        dir: layer.dir,
        name: scenario.name.clone(),
        resolved_toml,
        content_hash: content_hash(&scenario),
        sources: Sources::default(),
        warnings: Report::default(),
        scenario,
    })
}

/// Reads the files that cost models name.
fn read_profiles(scenario: &mut Scenario, dir: Option<&Path>, tree: &Node) -> Vec<Finding> {
    let fleet = &mut scenario.fleet;
    let first = (tree::Path::of("fleet.engine"), &mut fleet.engine);
    let pools = fleet.pools.iter_mut().enumerate().map(|(i, pool)| {
        let path = tree::Path::of(&format!("fleet.pools.{i}.engine"));
        (path, &mut pool.engine)
    });
    let mut findings = Vec::new();
    for (path, engine) in std::iter::once(first).chain(pools) {
        let (keys, read) = match engine {
            EngineSpec::Station(spec) => (["cascade", "file"], profile::resolve_cascade(spec, dir)),
            EngineSpec::Continuous(spec) | EngineSpec::Reference(spec) => {
                let read = profile::resolve(spec, dir);
                let key = match spec.cost {
                    CostSpec::Coefficients(_) => "file",
                    _ => "folder",
                };
                (["cost", key], read)
            }
        };
        if let Err(error) = read {
            let path = path.key(keys[0]).key(keys[1]);
            let message = format!("the cost model cannot be read: {error}");
            let at = tree.origin_of(&path);
            findings.push(Finding::error(Code::Profile, at, path.to_string(), message));
        }
    }
    findings
}

/// A hash of what matters of a scenario: its canonical JSON (keys in order, nothing that is
/// absent), name, purpose and `extends` left out.
pub fn content_hash(scenario: &Scenario) -> String {
    // Every value of the format has a JSON form: this cannot fail.
    let mut json = serde_json::to_value(scenario).unwrap_or_default();
    strip_nulls(&mut json);
    if let Some(table) = json.as_object_mut() {
        for key in ["name", "purpose", "extends"] {
            table.remove(key);
        }
    }
    let mut digest = RunDigest::default();
    digest.absorb_bytes(json.to_string().as_bytes());
    digest.hex()
}
