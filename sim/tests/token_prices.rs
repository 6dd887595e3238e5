//! Tokens that are paid for one by one, to the nano-dollar.

mod common;

use common::{Script, job, plain, request, span, stations, units};
use windtunnel_base::content::Extent;
use windtunnel_base::quantity::Money;
use windtunnel_base::units::NanoUsd;
use windtunnel_ledger::account::Account;
use windtunnel_scenarios::schema::clients::{ClientsSpec, HedgingSpec};
use windtunnel_scenarios::schema::faults::{FaultSpec, Target};
use windtunnel_scenarios::schema::fleet::PoolSpec;
use windtunnel_scenarios::schema::policies::RoutingSpec;
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

/// Two dollars a million for the prompt, one for the answer.
fn plain_prices() -> TokenPricesSpec {
    TokenPricesSpec {
        input: dollars(2),
        output: dollars(1),
        ..TokenPricesSpec::default()
    }
}

/// Steps take 8 units, and the first one 4 more for the prompt: tokens come at 12, 20, 28, 36 and so on.
const PROMPT: u64 = 4 * 2000;

/// What the answer cost so far as it came, and how many tokens replicas generated.
fn for_output(scenario: &Scenario, script: &Script) -> (u64, u64) {
    let result = run(scenario, &mut script.clone(), 7, RunOptions::default());
    let result = result.unwrap_or_else(|e| panic!("{e}"));
    let books = || result.segments.iter().map(|s| &s.books);
    let paid: u64 = books().map(|b| b.money.received(Account::Tokens)).sum();
    let generated = books().map(|b| b.output_tokens_generated).sum();
    ((paid - PROMPT) / 1000, generated)
}

#[test]
fn an_answer_that_its_client_breaks_off_costs_what_there_is_of_it() {
    let long = || request(0, 4, 50);
    for (patience, tokens) in [(5, 1), (11, 1), (13, 2), (30, 4), (36, 5), (37, 5)] {
        let mut ask = long();
        ask.patience = Some(units(patience));
        // The step in progress is not broken off, nor one that begins at that very instant.
        let found = for_output(&priced(plain_prices()), &Script::new([ask]));
        assert_eq!(found, (tokens, tokens), "after {patience} units");
    }
    // Who leaves while the last token is made pays for the whole answer, and who never starts for nothing.
    let mut last = request(0, 4, 3);
    last.patience = Some(units(25));
    assert_eq!(
        for_output(&priced(plain_prices()), &Script::new([last])).0,
        3
    );
    let mut scenario = priced(plain_prices());
    let engine = scenario.fleet.engine.llm_mut().expect("an LLM engine");
    engine.scheduler.max_num_seqs = 1;
    let mut waits = request(1, 9, 9);
    waits.patience = Some(units(20));
    assert_eq!(for_output(&scenario, &Script::new([long(), waits])).0, 50);
    // What the end of the run cuts off is not over.
    scenario.run.cut_off = Some(span(30));
    assert_eq!(for_output(&scenario, &Script::new([long()])).0, 0);
}

#[test]
fn a_timeout_and_a_loser_cost_what_there_is_of_their_answers() {
    let mut scenario = priced(plain_prices());
    scenario.clients = Some(ClientsSpec {
        attempt_timeout: Some(span(30)),
        ..ClientsSpec::default()
    });
    let long = || Script::new([request(0, 4, 50)]);
    assert_eq!(for_output(&scenario, &long()), (4, 4));
    // Work that nobody cancels is done, and paid.
    if let Some(clients) = &mut scenario.clients {
        clients.cancel_dead_work = false;
    }
    assert_eq!(for_output(&scenario, &long()), (50, 50));
    // A second attempt at unit 50 on another replica: its tokens come at 62 and every 8 units, until the first
    // one's eighth and last is there at 68.
    scenario.fleet.replicas = 2;
    scenario.gateway.routing = RoutingSpec::RoundRobin;
    scenario.clients = Some(ClientsSpec {
        hedging: Some(HedgingSpec {
            after: span(50),
            max: 1,
        }),
        ..ClientsSpec::default()
    });
    let (paid, generated) = for_output(&scenario, &Script::new([request(0, 4, 8)]));
    // Two prompts, eight tokens, and the loser's two: the one at 62, and the one of the step in progress.
    assert_eq!((paid, generated), (8 + 2 + PROMPT / 1000, 10));
}

#[test]
fn what_a_lost_replica_had_made_is_paid() {
    let mut scenario = priced(plain_prices());
    scenario.faults = vec![FaultSpec::ReplicaLoss {
        at: span(30),
        lasts: span(500),
        detection: span(0),
        on: Target::default(),
    }];
    let script = Script::new([request(0, 4, 50)]);
    assert_eq!(for_output(&scenario, &script), (4, 4));
}

/// A station makes an answer evenly: a quarter of its service is a quarter of its tokens.
#[test]
fn a_station_is_paid_for_its_share() {
    let mut scenario = stations(1, 1);
    scenario.fleet.token_prices = Some(plain_prices());
    for (patience, tokens) in [(10, 25), (1, 2), (39, 97), (40, 100)] {
        let mut ask = job(0, 40);
        (ask.prompt_tokens, ask.truth.output_tokens) = (4, 100);
        ask.patience = Some(units(patience));
        let found = for_output(&scenario, &Script::new([ask])).0;
        assert_eq!(found, tokens, "after {patience} of 40 units");
    }
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
        error_rate: None,
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
