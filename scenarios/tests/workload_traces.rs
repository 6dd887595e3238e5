//! Traces of a few rows: what readers make of them, and what transformations do.

mod common;

use common::slices::*;
use common::{Sent, play, play_with, scenario};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use windtunnel_base::content::{Extent, shared_tokens};
use windtunnel_base::time::SimDuration;
use windtunnel_scenarios::workload::{TrafficError, prepare};

#[test]
fn mooncake_blocks_become_extents() {
    let sent = play(&trace("mooncake", MOONCAKE, ""), 1, 99);
    assert_eq!(
        nanos(&sent),
        [0, 3_000_000_000, 3_000_000_000, 6_000_000_000]
    );
    assert_eq!(tokens(&sent), [(1100, 5), (1500, 6), (600, 7), (1600, 8)]);
    let lengths: Vec<Vec<u32>> = sent
        .iter()
        .map(|(_, p)| p.iter().map(|e| e.tokens).collect())
        .collect();
    // Runs of consecutive ids; the last block is partial.
    assert_eq!(
        lengths,
        [vec![1100], vec![1024, 476], vec![512, 88], vec![1024, 576]]
    );
    let shared = |a: usize, b: usize| shared_tokens(&sent[a].1, &sent[b].1);
    assert_eq!((shared(0, 1), shared(0, 2), shared(1, 2)), (1024, 512, 512));
    // Block 7 is full in the last: what is there of it in the second is shared.
    assert_eq!(shared(1, 3), 1500);
}

#[test]
fn tables_are_read_with_their_own_clocks_and_rules() {
    // Azure: a day's end, a byte order mark, CRLF.
    let azure = format!("\u{feff}{AZURE}");
    let sent = play(&trace("azure", &azure, ""), 1, 99);
    assert_eq!(nanos(&sent), [0, 1_750_000_000]);
    assert_eq!(tokens(&sent), [(374, 44), (396, 109)]);

    let burst = trace("burstgpt", BURSTGPT, "");
    let sent = play(&burst, 1, 99);
    assert_eq!(nanos(&sent), [5_000_000_000, 118_000_000_000]);
    assert_eq!(tokens(&sent), [(472, 18), (1087, 230)]);
    assert!(
        burst
            .facts()
            .notes
            .iter()
            .any(|n| n.contains("left out, here 1"))
    );
    assert_eq!(burst.names().tenants, ["default", "ChatGPT", "GPT-4"]);

    let vtc = trace("vtc", VTC, "");
    let sent = play(&vtc, 1, 99);
    assert_eq!(tokens(&sent), [(13, 199), (36, 137), (456, 1)]);
    assert_eq!(sent[0].0.tenant, sent[2].0.tenant);
    assert!(vtc.facts().notes[0].contains("1 requests had answers of 0 tokens"));

    let native = trace("native", NATIVE, "");
    let sent = play(&native, 1, 99);
    assert_eq!(nanos(&sent), [1500, 2500], "the same nanosecond");
    assert_eq!(tokens(&sent), [(10, 20), (30, 3)]);
    assert_eq!(
        (sent[1].0.session, sent[1].0.turn, sent[1].0.truth.good),
        (7, 1, false)
    );
    assert_eq!(native.names().tenants, ["default", "acme"]);
}

#[test]
fn agents_call_in_closed_loop_beside_their_sub_agents() {
    let text = "session_rate = \"inf\"";
    let traffic = trace("agentic_coding", AGENTS, text);
    let mut workload = traffic.workload(1);
    let sent = play_with(&mut *workload, 99, SimDuration::from_secs(1), |_| false);
    // Both sessions begin at 0; at equal times the parent goes first. Answers take 1 s. The sub-agent began 3 s after its parent's
    // answer, so at 4; its second call thinks for 3 s after the answer at 5. The parent's second
    // call thinks for 7 s after the answer at 1.
    let times: Vec<_> = sent
        .iter()
        .map(|(a, _)| (a.at.as_secs_f64(), a.prompt_tokens))
        .collect();
    assert_eq!(
        times,
        [(0.0, 300), (0.0, 200), (4.0, 130), (8.0, 400), (8.0, 200)]
    );
    let by = |tokens: u32, turn: u32| -> &Vec<Extent> {
        let found = sent
            .iter()
            .find(|(a, _)| (a.prompt_tokens, a.turn) == (tokens, turn));
        &found.unwrap_or_else(|| panic!("{tokens}")).1
    };
    // 130 tokens of tools and system are two whole blocks, shared across sessions; ids are not.
    assert_eq!(shared_tokens(by(300, 0), by(200, 0)), 128);
    assert_eq!(shared_tokens(by(300, 0), by(400, 1)), 256);
    assert_eq!(shared_tokens(by(130, 0), by(200, 1)), 128);
    assert_eq!(shared_tokens(by(300, 0), by(130, 0)), 0);

    // Open loop: as recorded, whatever the answers do; a failed call ends its chain only in
    // closed loop.
    let open = trace(
        "agentic_coding",
        AGENTS,
        "session_rate = \"inf\"\nopen_loop = true",
    );
    let mut workload = open.workload(1);
    let sent = play_with(&mut *workload, 99, SimDuration::from_secs(100), |_| true);
    let times: Vec<_> = sent.iter().map(|(a, _)| a.at.as_secs_f64()).collect();
    assert_eq!(times, [0.0, 0.0, 5.0, 9.0, 9.0]);
    let mut workload = traffic.workload(1);
    let failed = play_with(&mut *workload, 99, SimDuration::from_secs(1), |_| true);
    assert_eq!(failed.len(), 2);
    // Twice as fast: half the thinking.
    let fast = trace(
        "agentic_coding",
        AGENTS,
        "session_rate = \"inf\"\nspeed_up = 2.0",
    );
    let mut workload = fast.workload(1);
    let sent = play_with(&mut *workload, 99, SimDuration::from_secs(1), |_| false);
    assert_eq!(sent[4].0.at.as_secs_f64(), 5.0, "2.5 + 1 + 1.5");
}

#[test]
fn pools_send_at_their_rates_even_where_gaps_vary_widely() {
    let more = "tokens_file = \"tokens\"";
    let traffic = trace("servegen", RATES, more);
    // 2 * 600 + 4 * 600 + 1 * 1200.
    assert_eq!(traffic.facts().requests, Some(4_800));
    let mut count = 0.0;
    for seed in 0..40 {
        let sent = play(&traffic, seed, usize::MAX);
        let idle = |(a, _): &&Sent| {
            a.tenant.0 == 1 && (600..1200).contains(&(a.at.as_nanos() / 1_000_000_000))
        };
        assert_eq!(
            sent.iter().filter(idle).count(),
            0,
            "client 0 is idle in the second window"
        );
        assert!(sent.iter().all(|(a, _)| a.truth.output_tokens == 7));
        count += sent.len() as f64;
    }
    // Variance per day about sum of rate * CV^2 = 1200 + 2400 * 9.1 + 1200 * 5: sd 170.
    assert!(
        (count / 40.0 - 4_800.0).abs() < 5.0 * 170.0 / 40_f64.sqrt(),
        "{}",
        count / 40.0
    );
    assert!(
        traffic
            .facts()
            .notes
            .iter()
            .any(|n| n.contains("1 clients (25.0 % of requests)"))
    );
    assert!(
        traffic
            .facts()
            .notes
            .iter()
            .any(|n| n.contains("25.0 % of output tokens"))
    );
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("trace"), RATES).unwrap();
    std::fs::write(dir.path().join("tokens"), PDFS).unwrap();
    let text = "[traffic]\nrequest_rate = \"8 req/s\"\n[traffic.trace]\nformat = \"servegen\"\n\
                file = \"trace\"\ntokens_file = \"tokens\"";
    let faster = prepare_in(dir.path(), text, false).unwrap();
    assert_eq!(faster.facts().requests, Some(14_400), "8/s over 1800 s");
}

/// `n` rows of one token more each, one per second.
fn ladder(n: u32) -> String {
    let mut text = "req_id,adapter,prompt_len,output_len,req_time_s\n".to_owned();
    for i in 0..n {
        text += &format!("{i},0,{},1,{i}\n", i + 1);
    }
    text
}

#[test]
fn slices_and_speed_are_exact() {
    let play = |more: &str| play(&trace("vtc", &ladder(100), more), 1, 999);
    let sent = play("slice = { from = \"10s\", to = \"20s\" }");
    assert_eq!(
        (sent.len(), sent[0].0.at.as_nanos(), sent[0].0.prompt_tokens),
        (10, 0, 11)
    );
    assert_eq!(play("slice = { from = \"10s\", first = 3 }").len(), 3);
    let fast = play("speed_up = 4.0");
    assert_eq!(fast[99].0.at.as_nanos(), 99_000_000_000 / 4);
    assert_eq!(tokens(&fast), tokens(&play("")));
}

#[test]
fn a_rate_is_reached_by_running_time_faster() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("trace"), ladder(100)).unwrap();
    let text = "[traffic]\nrequest_rate = \"10 req/s\"\n[traffic.trace]\nformat = \"vtc\"\nfile = \"trace\"";
    let traffic = prepare_in(dir.path(), text, false).unwrap();
    let sent = play(&traffic, 1, 999);
    assert_eq!(
        sent[99].0.at.as_nanos(),
        10_000_000_000,
        "100 requests in 10 s"
    );
    assert!(traffic.facts().transformations[0].contains("mean rate is 10 req/s"));
    let at_once = prepare_in(dir.path(), &text.replace("10 req/s", "inf"), false).unwrap();
    assert!(
        play(&at_once, 1, 999)
            .iter()
            .all(|(a, _)| a.at.as_nanos() == 0)
    );
}

#[test]
fn thinning_is_nested_and_changes_with_the_seed() {
    let kept = |thin: f64, seed: u64| -> BTreeSet<u32> {
        let traffic = trace("vtc", &ladder(2_000), &format!("thin = {thin}"));
        play(&traffic, seed, 9_999)
            .iter()
            .map(|(a, _)| a.prompt_tokens)
            .collect()
    };
    let (few, more) = (kept(0.2, 1), kept(0.5, 1));
    assert!(few.is_subset(&more));
    assert_ne!(few, kept(0.2, 2));
    // Binomial: standard deviations 18 and 22.
    assert!((few.len() as f64 - 400.0).abs() < 90.0 && (more.len() as f64 - 1000.0).abs() < 110.0);
}

#[test]
fn copies_are_shifted_and_share_nothing() {
    let more = "replicate = { copies = 3, shift = \"1s\" }";
    let traffic = trace("mooncake", MOONCAKE, more);
    assert_eq!(traffic.facts().requests, Some(12));
    let sent = play(&traffic, 1, 99);
    let seconds: Vec<_> = nanos(&sent).iter().map(|n| n / 1_000_000_000).collect();
    assert_eq!(seconds, [0, 1, 2, 3, 3, 4, 4, 5, 5, 6, 7, 8]);
    let first: BTreeSet<u64> = sent
        .iter()
        .filter(|(a, _)| a.prompt_tokens == 1100)
        .map(|(_, p)| p[0].key)
        .collect();
    assert_eq!(first.len(), 3, "block 0 of each copy is its own");
    let sessions: BTreeSet<u64> = sent.iter().map(|(a, _)| a.session).collect();
    assert_eq!(sessions.len(), 12);
}

#[test]
fn jitter_spreads_stamps_within_their_grid_anew_for_every_seed() {
    let more = "jitter = \"3s\"";
    let traffic = trace("mooncake", MOONCAKE, more);
    let sent = play(&traffic, 1, 99);
    let mut by_tokens: Vec<_> = sent
        .iter()
        .map(|(a, _)| (a.prompt_tokens, a.at.as_nanos()))
        .collect();
    by_tokens.sort_unstable();
    let begins = [(600, 3), (1100, 0), (1500, 3), (1600, 6)];
    for ((tokens, at), (expected, begin)) in by_tokens.iter().zip(begins) {
        assert_eq!(*tokens, expected);
        let since = at - begin * 1_000_000_000;
        assert!(since < 3_000_000_000);
    }
    assert_ne!(nanos(&sent), nanos(&play(&traffic, 2, 99)));
    assert_eq!(nanos(&sent), nanos(&play(&traffic, 1, 99)));
}

#[test]
fn unsorted_rows_are_sorted_and_counted() {
    let text = "req_id,adapter,prompt_len,output_len,req_time_s\n0,0,1,1,5\n1,1,2,1,1\n2,0,3,1,9\n";
    let traffic = trace("vtc", text, "");
    assert_eq!(tokens(&play(&traffic, 1, 9)), [(2, 1), (1, 1), (3, 1)]);
    assert!(traffic.facts().notes[0].contains("1 row stood after a later one"));
    let mut lines: Vec<&str> = MOONCAKE.lines().collect();
    lines.reverse();
    let sent = play(&trace("mooncake", &lines.join("\n"), ""), 1, 9);
    assert_eq!(sent[0].1[0].tokens, 1100, "extents move with their rows");
}

#[test]
fn files_are_found_unpacked_and_checksummed() {
    let mut gz = GzEncoder::new(Vec::new(), Compression::default());
    gz.write_all(VTC.as_bytes()).unwrap();
    let gz = gz.finish().unwrap();
    // By its first bytes, not by its name.
    let packed = try_trace("vtc", &gz, "", false).unwrap();
    assert_eq!(play(&packed, 1, 9).len(), 3);
    let file = &packed.facts().files[0];
    assert_eq!((file.bytes, file.rows), (gz.len() as u64, 3));
    assert_eq!(
        file.xxh3,
        format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&gz))
    );
    // Two members one after another are one file.
    let half = VTC.find("1,2").unwrap();
    let pack = |text: &str| {
        let mut gz = GzEncoder::new(Vec::new(), Compression::default());
        gz.write_all(text.as_bytes()).unwrap();
        gz.finish().unwrap()
    };
    let two = [pack(&VTC[..half]), pack(&VTC[half..])].concat();
    assert_eq!(
        play(&try_trace("vtc", &two, "", false).unwrap(), 1, 9).len(),
        3
    );
    let cut = try_trace("vtc", &gz[..gz.len() - 12], "", false).unwrap_err();
    assert!(matches!(cut, TrafficError::Damaged { .. }), "{cut}");

    let zst = |text: &str| {
        ruzstd::encoding::compress_to_vec(
            text.as_bytes(),
            ruzstd::encoding::CompressionLevel::Fastest,
        )
    };
    assert_eq!(
        play(&try_trace("vtc", &zst(VTC), "", false).unwrap(), 1, 9).len(),
        3
    );
    let two = [zst(&VTC[..half]), zst(&VTC[half..])].concat();
    assert_eq!(
        play(&try_trace("vtc", &two, "", false).unwrap(), 1, 9).len(),
        3
    );
    let whole = zst(VTC);
    let cut = try_trace("vtc", &whole[..whole.len() - 9], "", false).unwrap_err();
    assert!(matches!(cut, TrafficError::Damaged { .. }), "{cut}");

    // The traces folder is the second place; `.gz` need not be written.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("trace.csv.gz"), &gz).unwrap();
    let text = scenario("[traffic.trace]\nformat = \"vtc\"\nfile = \"trace.csv\"");
    assert!(prepare(&text, Some(Path::new("/nowhere")), Some(dir.path()), false).is_ok());
    let error = prepare(&text, Some(Path::new("/nowhere")), None, false)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/nowhere/trace.csv") && error.contains("WINDTUNNEL_TRACES"),
        "{error}"
    );
}
