//! No content of a trace file is worse than an error with its line, reason and remedy.

mod common;

use common::play;
use common::slices::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use std::io::Write as _;
use windtunnel_scenarios::workload::TrafficError;

#[test]
fn malformed_files_say_where_and_why() {
    let csv = |rows: &str| format!("req_id,adapter,prompt_len,output_len,req_time_s\n{rows}\n");
    let azure = |row: &str| format!("TIMESTAMP,ContextTokens,GeneratedTokens\n{row}\n");
    let moon = |row: &str| format!("{}\n{row}\n", MOONCAKE.lines().next().unwrap_or(""));
    let agent = |request: &str| {
        format!("{{\"block_size\":64,\"requests\":[{{\"t\":0,\"in\":9,\"out\":9}},{request}]}}")
    };
    let burst = BURSTGPT.lines().next().unwrap_or("");
    let native = NATIVE.lines().next().unwrap_or("");
    let rates = RATES.lines().next().unwrap_or("");
    let cases: Vec<(&str, String, &str)> = vec![
        ("vtc", String::new(), "the file is empty"),
        ("vtc", "\n \n\r\n".into(), "the file is empty"),
        (
            "vtc",
            "a,b\n1,2\n".into(),
            ":1: the header lacks the column `adapter`; it has: a, b",
        ),
        ("vtc", csv(""), "no usable request"),
        (
            "vtc",
            csv("0,0,1,1,0\n\n1,0,-3,1,1"),
            ":4: column `prompt_len`: -3 tokens are less than 1",
        ),
        ("vtc", csv("0,0,0,1,0"), "0 tokens are less than 1"),
        (
            "vtc",
            csv("0,0,1.5,1,0"),
            "1.5 is not a whole number of tokens",
        ),
        (
            "vtc",
            csv("0,0,1e30,1,0"),
            "tokens are more than 1000000000",
        ),
        ("vtc", csv("0,0,NaN,1,0"), "not a whole number of tokens"),
        ("vtc", csv("0,0,many,1,0"), "`many` is not a number"),
        ("vtc", csv("0,0,,1,0"), "column `prompt_len`: it is empty"),
        (
            "vtc",
            csv("0,0,1,1,-1"),
            "column `req_time_s`: -1 is before the beginning",
        ),
        ("vtc", csv("0,0,1,1,1e300"), "more than 30 years"),
        ("vtc", csv("0,0,1,1,inf"), "more than 30 years"),
        (
            "vtc",
            csv("0,0,1,1"),
            "the row has 4 fields where the header has 5",
        ),
        ("vtc", csv("0,0,1,1,1,1"), "the row has 6 fields"),
        ("vtc", csv("0,\"0,1,1,1"), "the row has 2 fields"),
        (
            "vtc",
            csv("0,x,1,1,1"),
            "column `adapter`: `x` is not a whole number",
        ),
        (
            "azure",
            azure("2023-11-16,1,1"),
            ":2: column `TIMESTAMP`: `2023-11-16` is not a time",
        ),
        ("azure", azure("2023-02-16 25:00:00,1,1"), "is not a time"),
        (
            "azure",
            azure("2023-11-16 18:17:03.5,1,-1"),
            "column `GeneratedTokens`",
        ),
        (
            "mooncake",
            moon("{\"timestamp\": 1}"),
            ":2: missing field `input_length`",
        ),
        ("mooncake", moon("not json"), ":2: expected"),
        (
            "mooncake",
            moon(
                "{\"timestamp\": 1, \"input_length\": 5, \"output_length\": 1, \"hash_ids\": [0, 1]}",
            ),
            "2 blocks of 512 tokens are more than the 5 tokens",
        ),
        (
            "mooncake",
            moon(
                "{\"timestamp\": 1, \"input_length\": 5, \"output_length\": 1, \"hash_ids\": [-1]}",
            ),
            "integer `-1`",
        ),
        (
            "mooncake",
            moon("{\"timestamp\": 1e999, \"input_length\": 5, \"output_length\": 1}"),
            "out of range",
        ),
        (
            "burstgpt",
            format!("{burst}\n1,GPT-4,0,5,5,x\n"),
            "column `Request tokens`",
        ),
        (
            "native",
            format!("{native}\n1,0,7,0,a,b,finished,15.5,10,20,true\n"),
            "column `sent_ns`",
        ),
        (
            "native",
            format!("{native}\n1,0,7,0,a,b,finished,15,10,20,yes\n"),
            "neither true nor false",
        ),
        (
            "servegen",
            format!("{rates}\n0,0,1,1,Pareto,1,1\n"),
            "`Pareto` is neither Gamma nor Weibull",
        ),
        (
            "servegen",
            format!("{rates}\n0,0,1,1,Gamma,0,1\n"),
            "makes no gaps",
        ),
        (
            "servegen",
            format!("{rates}\n0,0,0,0,,0,0\n"),
            "no window of any client has traffic",
        ),
        (
            "agentic_coding",
            agent("{\"t\":1,\"in\":0,\"out\":9}"),
            "column `requests[1].in`",
        ),
        (
            "agentic_coding",
            agent("{\"t\":1,\"in\":9,\"out\":9,\"think_time\":-1}"),
            "requests[1].think_time",
        ),
        (
            "agentic_coding",
            agent("{\"t\":1,\"type\":\"subagent\",\"requests\":[{\"t\":0,\"in\":9,\"out\":-1}]}"),
            "requests[1].requests[0].out",
        ),
        (
            "agentic_coding",
            "{\"block_size\":0,\"requests\":[]}".into(),
            "column `block_size`",
        ),
    ];
    for (format, content, expected) in cases {
        let more = match format {
            "servegen" => "tokens_file = \"tokens\"",
            "agentic_coding" => "session_rate = \"1 req/s\"",
            _ => "",
        };
        let error = match try_trace(format, content.as_bytes(), more, false) {
            Ok(_) => panic!("{format} took {content:?}"),
            Err(error) => error,
        };
        let text = error.to_string();
        assert!(
            text.contains(expected),
            "{format} {content:?}\n said {text}\n not {expected}"
        );
        if matches!(error, TrafficError::Row { .. }) {
            assert!(text.contains("--skip-bad-rows"), "{text}");
        }
    }
}

#[test]
fn skipped_rows_are_counted_with_examples() {
    let text =
        "req_id,adapter,prompt_len,output_len,req_time_s\n0,0,1,1,0\n1,0,-1,1,1\n2,0,2,1,2\nx\n";
    let traffic = try_trace("vtc", text.as_bytes(), "", true).unwrap();
    assert_eq!(tokens(&play(&traffic, 1, 9)), [(1, 1), (2, 1)]);
    let facts = traffic.facts();
    assert_eq!(facts.skipped_rows, 2);
    assert_eq!(
        facts.skipped_examples,
        [
            "trace:3: prompt_len: -1 tokens are less than 1",
            "trace:5: the row has 1 fields where the header has 5"
        ]
    );
    // A session with a bad call is left out as a whole, the ones around it stay.
    let lines: Vec<&str> = AGENTS.lines().collect();
    let bad = lines[0].replace("\"in\":400", "\"in\":-4");
    let text = format!("{}\n{bad}\n{}\n", lines[1], lines[1]);
    let more = "session_rate = \"inf\"";
    let traffic = try_trace("agentic_coding", text.as_bytes(), more, true).unwrap();
    assert_eq!(play(&traffic, 1, 9).len(), 2);
    assert_eq!(traffic.facts().skipped_rows, 1);
}

#[test]
fn keys_that_do_not_go_with_a_format_are_refused() {
    let cases = [
        ("agentic_coding", AGENTS, "", "session_rate"),
        (
            "agentic_coding",
            AGENTS,
            "session_rate = \"1 req/s\"\njitter = \"3s\"",
            "jitter",
        ),
        ("servegen", RATES, "", "tokens_file"),
        ("vtc", VTC, "thin = 0.0", "thin"),
        (
            "vtc",
            VTC,
            "replicate = { copies = 0, shift = \"0s\" }",
            "copies",
        ),
        (
            "vtc",
            VTC,
            "slice = { from = \"2s\", to = \"1s\" }",
            "slice",
        ),
        ("vtc", VTC, "slice = { from = \"2h\" }", "slice"),
        ("vtc", VTC, "class = \"gold\"\n[classes.silver]\n", "gold"),
    ];
    for (format, content, more, key) in cases {
        match try_trace(format, content.as_bytes(), more, false) {
            Err(error) => assert!(
                error.to_string().contains(key) && !key.is_empty(),
                "{error}"
            ),
            Ok(_) => assert!(key.is_empty(), "{format} took {more}"),
        }
    }
}

const FORMATS: [(&str, &str, &str); 7] = [
    ("mooncake", MOONCAKE, ""),
    ("azure", AZURE, ""),
    ("burstgpt", BURSTGPT, ""),
    ("vtc", VTC, ""),
    ("native", NATIVE, ""),
    ("servegen", RATES, "tokens_file = \"tokens\""),
    ("agentic_coding", AGENTS, "session_rate = \"1 req/s\""),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever stands in a file: an error or traffic that can be played, never a panic.
    #[test]
    fn no_content_of_a_file_panics(
        which in 0..FORMATS.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..6),
        piece in "[0-9eE.,:\\[\\]{}\"+\\- \n]{0,12}",
        skip in any::<bool>(),
    ) {
        let (format, content, more) = FORMATS[which];
        let mut bytes = content.as_bytes().to_vec();
        for (place, byte, kind) in edits {
            let at = place.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at.max(1)),
                2 => { bytes.splice(at..at, piece.bytes()); }
                _ => { bytes.remove(at); if bytes.is_empty() { bytes.push(byte); } }
            }
        }
        if let Ok(traffic) = try_trace(format, &bytes, more, skip) {
            play(&traffic, 1, 200);
        }
    }

    /// Damaged archives, too.
    #[test]
    fn no_damaged_archive_panics(
        place in any::<prop::sample::Index>(), byte in any::<u8>(), zstd in any::<bool>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = if zstd {
            ruzstd::encoding::compress_to_vec(MOONCAKE.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest)
        } else {
            let mut gz = GzEncoder::new(Vec::new(), Compression::default());
            gz.write_all(MOONCAKE.as_bytes()).unwrap();
            gz.finish().unwrap()
        };
        let at = place.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len()) + 1);
        if let Ok(traffic) = try_trace("mooncake", &bytes, "", false) {
            play(&traffic, 1, 200);
        }
    }
}
