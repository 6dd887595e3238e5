//! Overrides, `extends`, policy files, origins, and what is shown of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use proptest::prelude::*;
use std::path::Path;
use windtunnel_scenarios::diagnostic::Code;
use windtunnel_scenarios::schema::policies::{LoadSignal, RoutingSpec, TieBreak};
use windtunnel_scenarios::show::{diff, show};
use windtunnel_scenarios::{LoadEnv, Loaded, Override, Report, Source, load};

fn with(base: &str, overrides: &[&str]) -> Result<Loaded, Report> {
    let overrides: Vec<_> = overrides.iter().map(|o| Override::new(*o)).collect();
    load(
        &Source::of_argument(base, Path::new("")),
        &overrides,
        &LoadEnv::default(),
    )
}

fn good(base: &str, overrides: &[&str]) -> Loaded {
    with(base, overrides).unwrap_or_else(|report| panic!("{overrides:?}:\n{report}"))
}

fn bad(base: &str, overrides: &[&str]) -> String {
    match with(base, overrides) {
        Ok(_) => panic!("{overrides:?} was accepted"),
        Err(report) => report.render(false),
    }
}

/// A scenario file in a folder of its own.
fn in_folder(files: &[(&str, &str)], main: &str) -> (tempfile::TempDir, Result<Loaded, Report>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let env = LoadEnv {
        working_dir: folder.path().to_owned(),
        ..LoadEnv::default()
    };
    let loaded = load(&Source::Path(main.into()), &[], &env);
    (folder, loaded)
}

#[test]
fn overrides_are_typed_by_the_format() {
    let s = good(
        "smoke",
        &[
            "fleet.replicas=8",
            "traffic.request_rate=12 req/s",
            "traffic.input.mean=300",
            "run.rows=false",
            "gateway.routing.load=waiting",
            "name=\"in quotes\"",
            "classes.default.ttft = 250ms",
            "thresholds=[\"goodput >= 0.5\"]",
        ],
    )
    .scenario;
    assert_eq!(s.fleet.replicas, 8);
    assert_eq!(s.traffic.request_rate.unwrap().0, 12.0);
    assert!(!s.run.rows);
    assert_eq!(
        s.gateway.routing,
        RoutingSpec::LeastLoaded {
            load: LoadSignal::Waiting,
            ties: TieBreak::LowestId,
        }
    );
    assert_eq!(s.name, "in quotes");
    assert_eq!(s.classes["default"].ttft.unwrap().to_string(), "250ms");
    assert_eq!(s.thresholds, ["goodput >= 0.5"]);
}

#[test]
fn a_new_kind_drops_what_belonged_to_the_old_one_in_any_order() {
    // Mooncake routes by `cache_aware` with a threshold of its own.
    for overrides in [
        [
            "gateway.routing.kind=prefix_hash",
            "gateway.routing.load_factor=2",
        ],
        [
            "gateway.routing.load_factor=2",
            "gateway.routing.kind=prefix_hash",
        ],
    ] {
        let s = good("mooncake-conversation", &overrides).scenario;
        assert_eq!(
            s.gateway.routing,
            RoutingSpec::PrefixHash {
                prefix_tokens: 256,
                load_factor: 2.0
            }
        );
    }
    // The same kind again keeps its keys.
    let s = good(
        "mooncake-conversation",
        &["gateway.routing.kind=cache_aware"],
    );
    let plain = good("mooncake-conversation", &[]);
    assert_eq!(s.content_hash, plain.content_hash);
    // The scheduler's limits are shared by all its kinds, so they stay.
    let s = good("long-prompts", &["fleet.engine.scheduler.kind=fcfs"]);
    assert!(s.resolved_toml.contains("token_budget = 2048"));
}

#[test]
fn the_kind_of_a_default_need_not_be_said() {
    let s = good("mm1", &[]);
    assert!(s.resolved_toml.contains("kind = \"least_loaded\""));
    // Nobody wrote `gateway.routing`; its default kind has a `load`.
    let s = good("mm1", &["gateway.routing.load=waiting"]).scenario;
    assert_eq!(
        s.gateway.routing,
        RoutingSpec::LeastLoaded {
            load: LoadSignal::Waiting,
            ties: TieBreak::LowestId,
        }
    );
}

#[test]
fn elements_of_arrays_are_named_by_their_place() {
    let s = good(
        "chat-burst",
        &[
            "traffic.clients.0.share=2",
            "traffic.clients.2.class=interactive",
        ],
    );
    assert_eq!(s.scenario.traffic.clients[0].share, Some(2.0));
    let text = bad("chat-burst", &["traffic.clients.7.share=2"]);
    assert!(text.contains("it has elements 0 to 2"), "{text}");
}

#[test]
fn errors_of_overrides_point_at_their_text() {
    for (text, says) in [
        ("gateway.routing.kind=randm", "did you mean `random`?"),
        ("fleet.replica=8", "did you mean `replicas`?"),
        ("fleet.replicas=many", "must be a whole number"),
        ("traffic.request_rate=8", "has no unit"),
        ("fleet.replicas", "an override is written `key.path=value`"),
        ("=8", "no path of keys"),
        ("a..b=8", "no path of keys"),
        ("fleet.replicas.x=8", "must be a whole number, not a table"),
        ("fleet.engine.kind=station", "service times"),
        ("classes.gold.ttft=200", "has no unit"),
    ] {
        let shown = bad("smoke", &[text]);
        assert!(shown.contains(says), "{text}:\n{shown}");
        if !says.contains("service") {
            assert!(shown.contains("--> --set"), "{text}:\n{shown}");
            assert!(shown.contains(&format!("| {text}")), "{text}:\n{shown}");
        }
    }
}

#[test]
fn an_engine_that_computes_keeps_what_was_said_of_the_one_that_simulates() {
    let kept = |name: &str, set: &[&str]| {
        let loaded = good(name, set);
        assert_eq!(loaded.warnings.warnings(), 0, "{}", loaded.warnings);
        loaded.scenario.fleet.engine.llm().unwrap().clone()
    };
    let simulated = kept("smoke", &["fleet.engine.scheduler.max_num_seqs=7"]);
    let computed = kept(
        "smoke",
        &[
            "fleet.engine.scheduler.max_num_seqs=7",
            "fleet.engine.kind=reference",
        ],
    );
    assert_eq!(simulated, computed);
    let back = kept("reference-smoke", &["fleet.engine.kind=continuous"]);
    assert_eq!((back.gpu.as_str(), back.max_model_len), ("l4", Some(512)));
    // A preset stands below either kind.
    let preset = kept(
        "smoke",
        &["fleet.engine.kind=reference", "fleet.engine.preset=vllm-v0"],
    );
    let plain = kept("smoke", &["fleet.engine.preset=vllm-v0"]);
    assert_eq!(preset, plain);
    // Layers that would act on nothing are no longer left out in silence.
    let text = bad("reference-cascade", &["fleet.engine.kind=continuous"]);
    assert!(text.contains("layers = {"), "{text}");
    assert!(text.contains("cascade-none"), "{text}");
}

#[test]
fn what_an_engine_of_another_kind_forgets_is_said() {
    let loaded = good(
        "serr-agentic",
        &["fleet.engine.kind=continuous", "fleet.engine.gpu=l4"],
    );
    let text = loaded.warnings.to_string();
    assert_eq!(loaded.warnings.warnings(), 1, "{text}");
    assert!(
        text.contains("`cascade`") && text.contains("no longer count"),
        "{text}"
    );
    assert!(text.contains("--set"), "{text}");
    // A policy of routing that changes brings its own keys, as everybody expects.
    let loaded = good("chat-burst", &["gateway.routing.kind=round_robin"]);
    assert_eq!(loaded.warnings.warnings(), 0, "{}", loaded.warnings);
}

#[test]
fn layers_merge_table_by_table_and_remember_their_places() {
    let (_folder, loaded) = in_folder(
        &[
            (
                "base/world.toml",
                "purpose = \"the base\"\n[fleet]\nreplicas = 3\n[traffic]\nnum_prompts = 10\n\
                 request_rate = \"1 req/s\"\ninput = { kind = \"fixed\", tokens = 7 }\n\
                 output = { kind = \"fixed\", tokens = 9 }\n",
            ),
            (
                "mid.toml",
                "extends = \"base/world.toml\"\n[traffic]\nnum_prompts = 20\n\
                 input = { kind = \"uniform\", min = 1, max = 5 }\n",
            ),
            (
                "top.toml",
                "extends = \"mid.toml\"\n[fleet]\nreplicas = 5\n",
            ),
        ],
        "top.toml",
    );
    let loaded = loaded.unwrap_or_else(|r| panic!("{r}"));
    let s = &loaded.scenario;
    assert_eq!((s.fleet.replicas, s.traffic.num_prompts), (5, Some(20)));
    assert_eq!(loaded.name, "top", "the file's own name");
    assert_eq!(s.purpose, "", "a purpose is not inherited");
    assert_eq!(s.extends, None);
    let place = |key: &str| {
        let place = loaded.origins.get(key).unwrap();
        (place.source.clone(), place.line)
    };
    assert_eq!(place("fleet.replicas"), ("top.toml".into(), 3));
    assert_eq!(place("traffic.num_prompts"), ("mid.toml".into(), 3));
    assert_eq!(place("traffic.input.max"), ("mid.toml".into(), 4));
    assert_eq!(
        place("traffic.output.tokens"),
        ("base/world.toml".into(), 8)
    );
    assert!(loaded.origins.get("traffic.input.tokens").is_none());
    assert!(loaded.origins.get("run.seed").is_none(), "a default");

    let text = show(&loaded, true);
    assert!(text.contains("replicas = 5  # top.toml:3"), "{text}");
    assert!(text.contains("seed = 1  # default"), "{text}");
}

#[test]
fn circles_of_extends_end_with_an_error() {
    let (_folder, loaded) = in_folder(
        &[
            ("a.toml", "extends = \"b.toml\""),
            ("b.toml", "extends = \"./sub/../a.toml\""),
            ("sub/x", ""),
        ],
        "a.toml",
    );
    let report = loaded.unwrap_err();
    assert_eq!(report.diagnostics()[0].code, Code::Cycle, "{report}");
    assert_eq!(report.errors(), 1);
}

#[test]
fn policy_files_decide_but_do_not_change_the_world() {
    let policy = |text: &str| {
        let env = LoadEnv {
            policies: vec![Source::Text {
                name: "policy.toml".into(),
                text: text.into(),
                dir: None,
            }],
            ..LoadEnv::default()
        };
        load(&Source::Library("chat-burst".into()), &[], &env)
    };
    let loaded = policy(
        "name = \"p\"\n[gateway.routing]\nkind = \"random\"\n[fleet.engine.scheduler]\nmax_num_seqs = 64\n\
         [fleet.engine.kv]\neviction = \"sieve\"\n",
    )
    .unwrap_or_else(|r| panic!("{r}"));
    assert_eq!(loaded.scenario.gateway.routing, RoutingSpec::Random);
    assert_eq!(loaded.name, "chat-burst");
    let changed = diff(&good("chat-burst", &[]), &loaded);
    let keys: Vec<_> = changed.lines().filter(|l| l.starts_with('+')).collect();
    assert_eq!(
        keys,
        [
            "+ fleet.engine.kv.eviction = \"sieve\"",
            "+ fleet.engine.scheduler.max_num_seqs = 64",
            "+ gateway.routing.kind = \"random\"",
        ],
        "{changed}"
    );

    let report = policy(
        "[fleet]\nreplicas = 9\n[fleet.engine.kv]\nblocks = 10\n[traffic]\nnum_prompts = 1\n",
    )
    .unwrap_err();
    let found: Vec<_> = report
        .diagnostics()
        .iter()
        .map(|d| (d.code, d.path.as_str()))
        .collect();
    let no = Code::NotADecision;
    assert_eq!(
        found,
        [
            (no, "fleet.replicas"),
            (no, "fleet.engine.kv.blocks"),
            (no, "traffic")
        ]
    );
}

#[test]
fn hashes_tell_scenarios_apart_and_names_do_not_count() {
    let plain = good("smoke", &[]);
    assert_eq!(plain.content_hash.len(), 32);
    let same = good(
        "smoke",
        &["name=other", "purpose=other", "fleet.replicas=2"],
    );
    assert_eq!(same.content_hash, plain.content_hash);
    assert_eq!(diff(&plain, &same), "");
    let other = good("smoke", &["run.seed=2"]);
    assert_ne!(other.content_hash, plain.content_hash);
    assert_eq!(diff(&plain, &other), "- run.seed = 1\n+ run.seed = 2\n");
}

#[test]
fn presets_are_shown_with_what_they_stand_for() {
    let text = show(&good("smoke", &["gateway.routing.kind=gie"]), false);
    assert!(
        text.contains("# stands for { kind = \"weighted\""),
        "{text}"
    );
    assert!(text.contains("prefix_cache = 3.0"), "{text}");
    // What is shown can be read again.
    let again = load(
        &Source::Text {
            name: "shown".into(),
            text,
            dir: None,
        },
        &[],
        &LoadEnv::default(),
    );
    again.unwrap_or_else(|r| panic!("{r}"));
}

#[test]
fn no_bound_can_be_said_and_survives_printing() {
    let overrides = [
        "gateway.routing.kind=consistent_hashing",
        "gateway.routing.epsilon=none",
    ];
    let loaded = good("smoke", &overrides);
    let RoutingSpec::ConsistentHashing { epsilon, .. } = loaded.scenario.gateway.routing else {
        panic!("another policy");
    };
    assert_eq!(epsilon, None);
    assert!(loaded.resolved_toml.contains("epsilon = \"none\""));
}

#[test]
fn arguments_are_paths_or_names() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = |p: &str| Source::Path(p.into());
    assert_eq!(
        Source::of_argument("smoke", here),
        Source::Library("smoke".into())
    );
    assert_eq!(
        Source::of_argument("library:x", here),
        Source::Library("x".into())
    );
    assert_eq!(Source::of_argument("a/b", here), path("a/b"));
    assert_eq!(Source::of_argument("x.toml", here), path("x.toml"));
    assert_eq!(Source::of_argument("Cargo.toml", here), path("Cargo.toml"));
}

/// Pieces that overrides are made of, right ones and wrong ones.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "fleet",
            "replicas",
            "engine",
            "kind",
            "gateway",
            "routing",
            "scorers",
            "traffic",
            "clients",
            "0",
            "1",
            "input",
            "mean",
            "arrivals",
            "classes",
            "default",
            "thresholds",
            "pools",
            "kv",
            "cost",
            "decode",
            "trace",
            "session",
            "turns",
            "run",
            "warm_up",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,6}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is typed, the answer is a scenario or an explanation.
    #[test]
    fn overrides_never_panic(
        path in prop::collection::vec(piece(), 1..5),
        value in prop_oneof![
            piece(),
            Just("{ kind = \"weighted\" }".to_owned()),
            Just("[{ kind = \"station\" }, 3]".to_owned()),
            Just("\"12 req/s\"".to_owned()),
            Just("-1e400".to_owned()),
            any::<i64>().prop_map(|n| n.to_string()),
            any::<f64>().prop_map(|x| x.to_string()),
        ],
        base in prop::sample::select(vec!["smoke", "chat-burst", "mm1", "weighted-gie"]),
    ) {
        let text = format!("{}={value}", path.join("."));
        match with(base, &[&text]) {
            Ok(loaded) => prop_assert!(!loaded.resolved_toml.is_empty()),
            Err(report) => prop_assert!(report.errors() > 0 && !report.render(true).is_empty()),
        }
    }

    /// Whatever a file holds, the answer is a scenario or an explanation.
    #[test]
    fn texts_never_panic(cut in 0_usize..4000, noise in "\\PC{0,12}") {
        let entry = windtunnel_scenarios::library::find("chat-burst").unwrap();
        let at = entry.text.char_indices().map(|(i, _)| i).nth(cut).unwrap_or(0);
        let text = format!("{}{noise}{}", &entry.text[..at], &entry.text[at..]);
        let source = Source::Text { name: "noise".into(), text, dir: None };
        if let Err(report) = load(&source, &[], &LoadEnv::default()) {
            prop_assert!(!report.render(false).is_empty());
        }
    }
}

#[test]
fn a_preset_stands_below_what_the_engine_says_itself() {
    use windtunnel_engine::config::{EngineSpec, SchedulerKind};
    let files = [
        (
            "base.toml",
            "[fleet.engine]\npreset = \"sarathi\"\nmodel = \"llama-2-7b\"\n\
             scheduler.token_budget = 256\n[traffic]\nnum_prompts = 10\nrequest_rate = \"1 req/s\"\n\
             [[fleet.pools]]\nreplicas = 1\nengine = { kind = \"continuous\", preset = \"vllm-v0\", kv = { watermark = 0.5 } }\n",
        ),
        (
            "main.toml",
            "extends = \"base.toml\"\n[fleet.engine]\nscheduler.max_num_seqs = 64\n",
        ),
    ];
    let (_folder, loaded) = in_folder(&files, "main.toml");
    let loaded = loaded.unwrap_or_else(|report| panic!("{report}"));
    let continuous =
        |spec: &EngineSpec| spec.llm().cloned().unwrap_or_else(|| panic!("no station"));
    let spec = continuous(&loaded.scenario.fleet.engine);
    // In order: the preset, the file below, the file above.
    assert!(spec.scheduler.unlimited_decodes && !spec.kv.prefix_cache);
    assert_eq!(spec.scheduler.token_budget, 256);
    assert_eq!(spec.scheduler.max_num_seqs, 64);
    let pool = continuous(&loaded.scenario.fleet.pools[0].engine);
    assert_eq!(pool.scheduler.kind, SchedulerKind::PrefillFirst);
    assert_eq!(pool.kv.watermark, 0.5);
    assert!(pool.kv.spare_block);
    let text = show(&loaded, true);
    for line in [
        "unlimited_decodes = true  # preset:sarathi:",
        "token_budget = 256  # base.toml:",
        "max_num_seqs = 64  # main.toml:",
        "padded_prompts = true  # preset:vllm-v0:",
        "watermark = 0.5  # base.toml:",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    // What was resolved says it all and resolves to itself.
    let (_folder, again) = in_folder(&[("again.toml", &loaded.resolved_toml)], "again.toml");
    let again = again.unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(again.content_hash, loaded.content_hash);
    // Overrides come on top, and may name a preset themselves.
    let s = good(
        "smoke",
        &[
            "fleet.engine.preset=blis",
            "fleet.engine.scheduler.max_num_seqs=3",
        ],
    );
    let spec = continuous(&s.scenario.fleet.engine);
    assert_eq!(
        (spec.scheduler.token_budget, spec.scheduler.max_num_seqs),
        (2048, 3)
    );
    let text = bad("smoke", &["fleet.engine.preset=vllm-1"]);
    assert!(text.contains("did you mean `vllm-v1`?"), "{text}");
}

#[test]
fn presets_are_the_same_from_code() {
    use windtunnel_engine::config::{EnginePreset, EngineSpec};
    use windtunnel_engine::replica::Replica;
    for preset in EnginePreset::ALL {
        let set = format!("fleet.engine.preset={}", preset.name());
        let EngineSpec::Continuous(by_file) = good("azure-conv", &[&set]).scenario.fleet.engine
        else {
            panic!("no station");
        };
        let by_code = windtunnel_scenarios::presets::engine(preset);
        // The scenario names a GPU and a model; the rules are the preset's.
        assert_eq!(by_code.preset, Some(preset));
        let rules =
            |kv: &windtunnel_engine::config::KvSpec| (kv.allocation, kv.spare_block, kv.restart);
        assert_eq!(by_code.scheduler, by_file.scheduler, "{}", preset.name());
        assert_eq!(rules(&by_code.kv), rules(&by_file.kv));
        assert_ne!(by_code.scheduler, Default::default());
        assert!(Replica::build(&EngineSpec::Continuous(Box::new(by_code))).is_ok());
    }
}
