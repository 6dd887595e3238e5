//! Malformed input of every kind: refused with code 2, a message that says where, what and what to
//! do, no panic, and nothing written.

use crate::place::{Done, Place};

/// A scenario that is fine until something is replaced in it.
const GOOD: &str = r#"version = 1
name = "x"
[traffic]
request_rate = "5 req/s"
num_prompts = 20
input = { kind = "fixed", tokens = 10 }
output = { kind = "fixed", tokens = 10 }
"#;

/// Runs it, and checks what holds of every refusal.
fn refused(place: &Place, args: &[&str]) -> Done {
    let before = place.files();
    let done = place.run_args(args).code(2);
    assert_eq!(done.out, "", "{done}");
    assert!(done.err.contains("nothing was run"), "{done}");
    assert!(!done.err.contains("/tmp/"), "a path nobody typed: {done}");
    assert_eq!(place.files(), before);
    done
}

#[test]
fn the_scenario_they_start_from_is_fine() {
    let place = Place::new();
    place.write("s.toml", GOOD);
    place.run("run s.toml").code(0);
}

#[test]
fn scenario_files() {
    let routing = format!("{GOOD}[gateway.routing]\nkind = \"leest_loaded\"\n");
    let class = format!("{GOOD}[[traffic.clients]]\nclass = \"gold\"\n");
    let world = format!("{GOOD}[fleet.engine]\nkind = \"continuous\"\nmodel = \"llama-3.1-70b\"\n");
    let with = |from: &str, to: &str| {
        assert!(GOOD.contains(from), "{from}");
        GOOD.replacen(from, to, 1)
    };
    // What is wrong, the file, then words of the message: place, reason, remedy.
    let cases: Vec<(&str, String, &[&str])> = vec![
        (
            "syntax",
            with("\"x\"", "\"x"),
            &["s.toml:2:", "expected `\"`"],
        ),
        (
            "unknown key",
            format!("{GOOD}burst = 3\n"),
            &["s.toml:8:1", "unknown key `burst`", "known:"],
        ),
        (
            "misspelt key",
            with("num_prompts", "num_promts"),
            &["s.toml:5:1", "did you mean `num_prompts`?"],
        ),
        (
            "wrong type",
            with("= 20", "= \"many\""),
            &["s.toml:5:15", "must be a whole number"],
        ),
        (
            "a fraction",
            with("= 20", "= 2.5"),
            &["s.toml:5:15", "must be a whole number"],
        ),
        (
            "wrong unit",
            with("5 req/s", "5 ms"),
            &["s.toml:4:16", "unknown unit `ms`", "8 req/s"],
        ),
        (
            "no unit",
            with("\"5 req/s\"", "5"),
            &["s.toml:4:16", "write number and unit"],
        ),
        (
            "negative",
            with("5 req/s", "-5 req/s"),
            &["s.toml:4:16", "must be zero or more"],
        ),
        (
            "zero rate",
            with("5 req/s", "0 req/s"),
            &["s.toml:4:16", "more than zero"],
        ),
        (
            "zero requests",
            with("= 20", "= 0"),
            &["s.toml:5:15", "1 or more"],
        ),
        (
            "too large",
            with("= 20", "= 99999999999999999999"),
            &["s.toml:5:15", "at most"],
        ),
        (
            "not a number",
            with("\"fixed\", tokens = 10", "\"exponential\", mean = nan"),
            &["s.toml:6:", "finite"],
        ),
        (
            "unknown policy",
            routing,
            &["s.toml:9:8", "did you mean `least_loaded`?", "known:"],
        ),
        (
            "no kind",
            with("kind = \"fixed\", ", ""),
            &["s.toml:6:1", "does not say its `kind`", "known:"],
        ),
        (
            "missing key",
            with(", tokens = 10", ""),
            &["s.toml:6:1", "needs `tokens`", "example:"],
        ),
        (
            "contradiction",
            with("\"fixed\", tokens = 10", "\"uniform\", min = 10, max = 5"),
            &["s.toml:6:", "at least `min`"],
        ),
        (
            "unknown class",
            class,
            &["s.toml:9:", "there is no class `gold`", "[classes.gold]"],
        ),
        (
            "does not fit",
            world,
            &["s.toml:10:", "GiB per GPU", "tensor_parallel"],
        ),
        (
            "endless",
            with("num_prompts = 20\n", ""),
            &["never ends", "traffic.duration", "example:"],
        ),
        (
            "unknown metric",
            format!("thresholds = ['p99(tftt) <= 1s']\n{GOOD}"),
            &["s.toml:1:", "did you mean `ttft`?"],
        ),
        (
            "other version",
            with("version = 1", "version = 2"),
            &["s.toml:1:", "version 1", "write 1"],
        ),
        (
            "twice",
            format!("{GOOD}[traffic]\n"),
            &["s.toml:8:", "duplicate key"],
        ),
        (
            "empty",
            String::new(),
            &["s.toml:1:1", "never ends", "give "],
        ),
        (
            "extends nothing",
            format!("extends = \"no.toml\"\n{GOOD}"),
            &["s.toml:1:11", "cannot read no.toml"],
        ),
        (
            "extends unknown",
            format!("extends = \"library:chat-brust\"\n{GOOD}"),
            &["s.toml:1:11", "did you mean `chat-burst`?"],
        ),
        (
            "extends a folder",
            format!("extends = \".\"\n{GOOD}"),
            &["s.toml:1:11", "cannot read"],
        ),
    ];
    for (what, text, words) in cases {
        let place = Place::new();
        place.write("s.toml", text);
        let done = refused(&place, &["run", "s.toml"]);
        for word in words {
            assert!(done.err.contains(word), "{what}: no `{word}` in {done}");
        }
        // `check` says the same.
        let check = place.run("scenario check s.toml").code(2);
        assert_eq!(check.err, done.err, "{what}");
    }
}

#[test]
fn what_cannot_be_read_as_a_scenario_at_all() {
    let place = Place::new();
    place.write("latin.toml", b"name = \"\xff\xfe\"\n");
    place.write("folder.toml/inside", "");
    for (file, words) in [
        (
            "missing.toml",
            ["cannot read missing.toml", "windtunnel scenario new"],
        ),
        ("latin.toml", ["cannot read latin.toml", "UTF-8"]),
        (
            "folder.toml",
            ["cannot read folder.toml", "name the file in it"],
        ),
    ] {
        let done = refused(&place, &["run", file]);
        for word in words {
            assert!(done.err.contains(word), "no `{word}` in {done}");
        }
    }
    let done = refused(&place, &["run", ""]);
    assert!(done.err.contains("known: smoke"), "{done}");
}

#[test]
fn a_circle_of_extends_is_walked_once() {
    let place = Place::new();
    place.write("f/a.toml", "version = 1\nextends = \"b.toml\"\n");
    place.write("f/b.toml", "version = 1\nextends = \"a.toml\"\n");
    let done = place.run("run f/a.toml").code(2);
    for word in ["f/b.toml:2:11", "leads back to", "a.toml -> "] {
        assert!(done.err.contains(word), "no `{word}` in {done}");
    }
}

#[test]
fn overrides() {
    let place = Place::new();
    let cases: [(&str, &[&str]); 14] = [
        ("--set=x", &["--set", "key.path=value", "example:"]),
        ("--set=fleet.replicas", &["key.path=value"]),
        ("--set==5", &["no path of keys"]),
        ("--set=fleet..replicas=1", &["no path of keys"]),
        ("--set=fleet.replics=3", &["did you mean `replicas`?"]),
        ("--set=fleet.replicas=abc", &["must be a whole number"]),
        ("--set=fleet.replicas=", &["must be a whole number"]),
        (
            "--set=fleet.replicas.x=1",
            &["must be a whole number, not a table"],
        ),
        ("--set=traffic.request_rate=5ms", &["unknown unit `ms`"]),
        (
            "--set=gateway.routing.kind=foo",
            &["unknown routing policy", "known:"],
        ),
        ("--set=thresholds=3", &["must be an array"]),
        ("--request-rate=abc", &["--request-rate", "8 req/s"]),
        ("--burstiness=0", &["--burstiness", "more than zero"]),
        ("--max-concurrency=0", &["--max-concurrency", "1 or more"]),
    ];
    for (arg, words) in cases {
        let done = refused(&place, &["run", "smoke", arg]);
        for word in words {
            assert!(done.err.contains(word), "{arg}: no `{word}` in {done}");
        }
    }
}

#[test]
fn a_policy_file_may_not_change_the_world() {
    let place = Place::new();
    place.write("p.toml", "[fleet]\nreplicas = 3\n");
    let done = refused(&place, &["run", "smoke", "--policy", "p.toml"]);
    for word in ["p.toml:2:1", "fleet.replicas", "gateway.*"] {
        assert!(done.err.contains(word), "no `{word}` in {done}");
    }
}

/// A scenario that plays a trace.
fn player(format: &str, more: &str) -> String {
    format!(
        "version = 1\nname = \"t\"\n[traffic.trace]\nformat = \"{format}\"\nfile = \"t.csv\"\n{more}"
    )
}

const AZURE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
    2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n";
const VTC: &str = "req_id,adapter,prompt_len,output_len,req_time_s\n0,3,45,211,0.1\n1,4,46,9,0.5\n";
const BURST: &str = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
    5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,230,1317,Conversation log\n";
const MOONCAKE: &str = "{\"timestamp\": 0, \"input_length\": 900, \"output_length\": 5, \"hash_ids\": [0,1]}\n\
    {\"timestamp\": 3000, \"input_length\": 900, \"output_length\": 5, \"hash_ids\": [0,2]}\n";
const SERVEGEN: &str =
    "client,window_start_s,rate_rps,iat_cv,family,shape,scale\n0,0,2.0,1.0,Gamma,1.0,0.5\n";
const PDFS: &str = "{\"client\":0,\"windows\":{\"0\":{\"input_tokens\":\"{45: 1.0}\",\"output_tokens\":\"{5: 1.0}\"}}}\n";

#[test]
fn trace_files() {
    // Format, what is replaced by what in a good file, and words of the message.
    let cases: [(&str, &str, &str, &str, &[&str]); 22] = [
        (
            "azure",
            AZURE,
            "ContextTokens",
            "ctx",
            &["t.csv:1:", "`ContextTokens`", "trace.format"],
        ),
        (
            "azure",
            AZURE,
            "396",
            "-396",
            &["t.csv:3:", "`ContextTokens`", "--skip-bad-rows"],
        ),
        (
            "azure",
            AZURE,
            "396",
            "lots",
            &["t.csv:3:", "`lots` is not a number", "--skip-bad-rows"],
        ),
        (
            "azure",
            AZURE,
            "396",
            "99999999999",
            &["t.csv:3:", "more than", "--skip-bad-rows"],
        ),
        (
            "azure",
            AZURE,
            ",109",
            "",
            &["t.csv:3:", "2 fields", "--skip-bad-rows"],
        ),
        (
            "azure",
            AZURE,
            "2023-11-16 18:15:50",
            "yesterday",
            &["t.csv:3:", "`TIMESTAMP`"],
        ),
        ("azure", AZURE, AZURE, "", &["t.csv", "empty", "check"]),
        (
            "azure",
            AZURE,
            AZURE,
            "TIMESTAMP,ContextTokens,GeneratedTokens\n",
            &["no usable request", "check"],
        ),
        (
            "azure",
            AZURE,
            AZURE,
            VTC,
            &["t.csv:1:", "`TIMESTAMP`", "trace.format"],
        ),
        (
            "vtc",
            VTC,
            "0.5",
            "nan",
            &["t.csv:3:", "`req_time_s`", "--skip-bad-rows"],
        ),
        (
            "vtc",
            VTC,
            "0.5",
            "1e300",
            &["t.csv:3:", "1e300", "30 years"],
        ),
        ("vtc", VTC, ",46,", ",-46,", &["t.csv:3:", "`prompt_len`"]),
        (
            "burstgpt",
            BURST,
            "1087,230",
            "x,230",
            &["t.csv:3:", "`Request tokens`"],
        ),
        (
            "burstgpt",
            BURST,
            BURST,
            AZURE,
            &["t.csv:1:", "trace.format"],
        ),
        (
            "mooncake",
            MOONCAKE,
            "[0,2]}",
            "[0,2",
            &["t.csv:2:", "--skip-bad-rows"],
        ),
        (
            "mooncake",
            MOONCAKE,
            "3000",
            "-3000",
            &["t.csv:2:", "`timestamp`"],
        ),
        (
            "mooncake",
            MOONCAKE,
            "900",
            "900.5",
            &["t.csv:1:", "whole number of tokens"],
        ),
        (
            "mooncake",
            MOONCAKE,
            MOONCAKE,
            AZURE,
            &["t.csv:1:", "--skip-bad-rows"],
        ),
        ("mooncake", MOONCAKE, MOONCAKE, "", &["no usable request"]),
        (
            "agentic_coding",
            "{}\n",
            "{}",
            "{\"id\": \"x\"}",
            &["t.csv:1:", "missing field"],
        ),
        (
            "native",
            VTC,
            "x",
            "x",
            &["t.csv:1:", "`sent_ns`", "trace.format"],
        ),
        ("native", VTC, VTC, "", &["t.csv", "empty"]),
    ];
    for (format, good, from, to, words) in cases {
        let place = Place::new();
        let more = match format {
            "agentic_coding" => "session_rate = \"1 req/s\"\n",
            _ => "",
        };
        place.write("s.toml", player(format, more));
        place.write("t.csv", good.replacen(from, to, 1));
        let done = refused(&place, &["run", "s.toml"]);
        for word in words {
            assert!(
                done.err.contains(word),
                "{format}, {to}: no `{word}` in {done}"
            );
        }
    }
}

#[test]
fn pools_of_clients() {
    let cases: [(&str, &str, &[&str]); 4] = [
        ("2.0", "-2.0", &["rates.csv:2:", "`rate_rps`"]),
        (
            "Gamma",
            "Gumma",
            &["rates.csv:2:", "neither Gamma nor Weibull"],
        ),
        ("45: 1.0", "45 1.0", &["pdfs.jsonl:1:", "`number: weight`"]),
        ("45: 1.0", "45: -1.0", &["pdfs.jsonl:1:", "no weight"]),
    ];
    for (from, to, words) in cases {
        let place = Place::new();
        let text = player("servegen", "tokens_file = \"pdfs.jsonl\"\n");
        place.write("s.toml", text.replace("t.csv", "rates.csv"));
        place.write("rates.csv", SERVEGEN.replace(from, to));
        place.write("pdfs.jsonl", PDFS.replace(from, to));
        let done = refused(&place, &["run", "s.toml"]);
        for word in words {
            assert!(done.err.contains(word), "{to}: no `{word}` in {done}");
        }
    }
}

#[test]
fn compressed_and_binary_files() {
    let place = Place::new();
    place.write("s.toml", player("azure", "").replace("t.csv", "t.csv.gz"));
    // The head of a gzip file, and then nothing.
    place.write("t.csv.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab");
    let done = refused(&place, &["run", "s.toml"]);
    assert!(
        done.err
            .contains("t.csv.gz: the file is damaged from its beginning"),
        "{done}"
    );
    assert!(done.err.contains("fetch it again"), "{done}");
    // Garbage with the ending of something else.
    place.write(
        "t.csv.gz",
        (0..=255).cycle().take(9_000).collect::<Vec<u8>>(),
    );
    refused(&place, &["run", "s.toml"]);
    // A wrong ending is forgiven: what a file is, its first bytes tell.
    place.write("t.csv.gz", AZURE);
    place.run("run s.toml").code(0);
}

#[test]
fn bad_rows_are_counted_when_that_is_asked_for() {
    let place = Place::new();
    place.write("s.toml", player("azure", ""));
    place.write("t.csv", AZURE.replace("396", "lots"));
    refused(&place, &["run", "s.toml"]);
    let done = place.run("run s.toml --skip-bad-rows").code(0);
    assert!(done.err.contains("1 malformed row"), "{done}");
    assert!(done.err.contains("t.csv:3"), "{done}");
}

#[test]
fn traces_that_are_not_there() {
    let place = Place::new();
    place.write("empty/file", "");
    for (more, looked) in [
        (&[] as &[&str], "no folder was given to look in"),
        (&["--traces", "nowhere"], "looked for nowhere/azure"),
        (&["--traces", "empty"], "looked for empty/azure"),
    ] {
        let done = refused(&place, &[&["run", "azure-conv"], more].concat());
        assert!(done.err.contains(looked), "{done}");
        assert!(done.err.contains("WINDTUNNEL_TRACES"), "{done}");
    }
}

#[test]
fn messages_read_like_this() {
    let golden: [(&str, &str); 3] = [
        (
            "extends = \"library:smoke\"\nmax_in_flight = 3\n",
            "error[S010]: unknown key `max_in_flight` at the top level\n --> s.toml:2:1\n  |\n2 | max_in_flight = 3\n  | ^^^^^^^^^^^^^ there is `gateway.queue.max_in_flight`\n  \
             = known: classes, clients, extends, faults, fleet, gateway, name, purpose, run, tenants, thresholds, traffic, verification, version\n\
             1 error; nothing was run.\n",
        ),
        (
            "extends = \"library:smoke\"\ngateway.routing.kind = \"randum\"\n",
            "error[S014]: unknown routing policy\n --> s.toml:2:24\n  |\n2 | gateway.routing.kind = \"randum\"\n  |                        ^^^^^^^^ did you mean `random`?\n  \
             = known: ",
        ),
        (
            "fleet.telemetry.period = 5\nextends = \"library:smoke\"\n",
            "error[S011]: `fleet.telemetry.period` must be a string with number and unit, not an integer\n --> s.toml:1:26\n",
        ),
    ];
    for (text, expected) in golden {
        let place = Place::new();
        place.write("s.toml", text);
        let done = place.run("scenario check s.toml").code(2);
        assert!(
            done.err.starts_with(expected),
            "expected\n{expected}\ngot {done}"
        );
    }
}
