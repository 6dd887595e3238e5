//! Tokens that are paid for one by one, to the nano-dollar.

mod common;

use common::{Script, plain, request, units};
use windtunnel_base::content::Extent;
use windtunnel_base::quantity::Money;
use windtunnel_base::units::NanoUsd;
use windtunnel_ledger::account::Account;
use windtunnel_scenarios::schema::fleet::PoolSpec;
use windtunnel_scenarios::schema::token_prices::TokenPricesSpec;
use windtunnel_scenarios::schema::{FleetSpec, Scenario};
use windtunnel_sim::{RunOptions, run};

/// What was paid for tokens, in nano-dollars.
fn paid(scenario: &Scenario, script: &Script) -> u64 {
    let result = run(scenario, &mut script.clone(), 7, RunOptions::default());
    let result = result.unwrap_or_else(|e| panic!("{e}"));
    let segments = result.segments.iter();
    segments
        .map(|s| s.books.money.received(Account::Tokens))
        .sum()
}

fn priced(prices: TokenPricesSpec) -> Scenario {
    let mut scenario = plain();
    scenario.fleet.token_prices = Some(prices);
    scenario
}

/// Prompts of 101 tokens, the first 96 of which all have in common.
fn script(requests: u64) -> Script {
    let mut script = Script::new([]);
    let prefix = vec![Extent { key: 5, tokens: 96 }];
    script.requests = (0..requests)
        .map(|i| (request(1000 * i, 101, 3), prefix.clone()))
        .collect();
    script
}

/// Dollars per million tokens: thousands of nano-dollars per token.
fn dollars(amount: u64) -> Money {
    Money(NanoUsd(amount * 1_000_000_000))
}

#[test]
fn prompts_are_paid_by_where_they_are_found_and_answers_by_their_length() {
    let prices = TokenPricesSpec {
        input: dollars(4),
        cache_write: Some(dollars(5)),
        cached_input: Some(dollars(1)),
        output: dollars(20),
    };
    // Five tokens nobody shares, three of output; 96 are written once and found twice.
    let each = 5 * 4000 + 3 * 20_000;
    let expected = 3 * each + 96 * (5000 + 2 * 1000);
    assert_eq!(paid(&priced(prices), &script(3)), expected);
    let plain_input = TokenPricesSpec {
        cache_write: None,
        cached_input: None,
        ..prices
    };
    assert_eq!(
        paid(&priced(plain_input), &script(3)),
        3 * (each + 96 * 4000)
    );
    assert_eq!(
        paid(&plain(), &script(3)),
        0,
        "where nobody asks, nobody pays"
    );
}

#[test]
fn fractions_of_a_nano_dollar_are_rounded_down_once() {
    let prices = TokenPricesSpec {
        input: Money(NanoUsd(300_001)),
        output: Money(NanoUsd(700_003)),
        ..TokenPricesSpec::default()
    };
    let millionths = 7 * (101 * 300_001 + 3 * 700_003);
    assert_eq!(paid(&priced(prices), &script(7)), millionths / 1_000_000);
}

#[test]
fn an_answer_that_is_broken_off_costs_its_prompt() {
    let prices = TokenPricesSpec {
        input: dollars(2),
        output: dollars(1),
        ..TokenPricesSpec::default()
    };
    let mut ask = request(0, 4, 50);
    ask.patience = Some(units(30));
    assert_eq!(paid(&priced(prices), &Script::new([ask])), 4 * 2000);
}

/// Replicas that were ordered cost what those of their pool do, and move nobody else's prices.
#[test]
fn replicas_to_come_have_the_prices_of_their_pool() {
    let prices = TokenPricesSpec {
        input: dollars(4),
        cache_write: None,
        cached_input: None,
        output: dollars(20),
    };
    let mut fleet = priced(prices).fleet;
    fleet.replicas = 1;
    fleet.pools.push(PoolSpec {
        name: "free".to_owned(),
        replicas: 2,
        engine: fleet.engine.clone(),
        token_prices: None,
    });
    let there = |fleet: &FleetSpec| -> Vec<bool> {
        let prices = fleet.token_prices();
        prices.iter().map(Option::is_some).collect()
    };
    assert_eq!(there(&fleet), [true, false, false]);
    let scaling = serde_json::json!({
        "max_replicas": 3,
        "policy": { "kind": "reactive", "signal": { "kind": "queue_depth", "target": 2.0 } },
    });
    fleet.scaling = Some(serde_json::from_value(scaling).expect("a table of scaling"));
    assert_eq!(there(&fleet), [true, true, true, false, false]);
}
