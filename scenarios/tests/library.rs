//! Every scenario and policy of the library loads without a finding and survives printing.

use windtunnel_scenarios::{LoadEnv, Source, library, load};

#[test]
fn every_scenario_is_clean_and_survives_printing() {
    for entry in library::list() {
        let source = Source::Library(entry.name.into());
        let loaded = load(&source, &[], &LoadEnv::default())
            .unwrap_or_else(|report| panic!("{}:\n{report}", entry.name));
        assert!(
            loaded.warnings.is_empty(),
            "{}:\n{}",
            entry.name,
            loaded.warnings
        );
        assert!(!entry.purpose().is_empty(), "{} has no purpose", entry.name);
        assert_eq!(loaded.name, entry.name);

        // The resolved text is the scenario itself: read back, it is the same and prints the same.
        let printed = Source::Text {
            name: format!("{} printed", entry.name),
            text: loaded.resolved_toml.clone(),
            dir: None,
        };
        let again = load(&printed, &[], &LoadEnv::default())
            .unwrap_or_else(|report| panic!("{} printed:\n{report}", entry.name));
        assert_eq!(again.scenario, loaded.scenario, "{}", entry.name);
        assert_eq!(again.resolved_toml, loaded.resolved_toml);
        assert_eq!(again.content_hash, loaded.content_hash);
    }
}

#[test]
fn every_policy_lies_over_a_scenario_it_is_for() {
    for entry in library::policies() {
        let world = if entry.tags.contains(&"cascade") {
            "serr-busy"
        } else {
            "smoke"
        };
        let env = LoadEnv {
            policies: vec![Source::Library(entry.name.into())],
            ..LoadEnv::default()
        };
        let loaded = load(&Source::Library(world.into()), &[], &env)
            .unwrap_or_else(|report| panic!("{}:\n{report}", entry.name));
        let plain = load(&Source::Library(world.into()), &[], &LoadEnv::default()).unwrap();
        // That of all layers is what the scenario says already.
        let same = loaded.content_hash == plain.content_hash;
        assert_eq!(same, entry.name == "cascade-all", "{}", entry.name);
        assert_eq!(loaded.name, world, "a policy does not rename a scenario");
        assert_eq!(loaded.scenario.traffic, plain.scenario.traffic);
    }
}
