//! Synthetic traffic: laws of arrivals, conversations, and what moves no draw.

mod common;

use common::{Sent, mean_and_cv, play, play_with, scenario, seconds, traffic};
use windtunnel_base::content::shared_tokens;
use windtunnel_base::ids::TenantId;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_scenarios::workload::{Arrival, Traffic, prepare};

const N: usize = 200_000;

/// Gaps of `N` arrivals at 100 per second.
fn gaps(arrivals: &str, seed: u64) -> Vec<f64> {
    let traffic = traffic(&format!(
        "[traffic]\nrequest_rate = \"100 req/s\"\ninput = {{ kind = \"fixed\", tokens = 8 }}\n\
         output = {{ kind = \"fixed\", tokens = 8 }}\narrivals = {arrivals}"
    ));
    let times = seconds(&play(&traffic, seed, N));
    std::iter::once(times[0])
        .chain(times.windows(2).map(|w| w[1] - w[0]))
        .collect()
}

/// Mean 1/rate within `z = 5` standard errors `cv / sqrt(n)`, and the CV within five of its own,
/// `cv * sqrt((kurtosis - 1) / 4 + cv^2 - skewness * cv) / sqrt(n)`, given as `cv_error`.
fn assert_renewal(arrivals: &str, cv: f64, cv_error: f64) {
    let (mean, measured) = mean_and_cv(&gaps(arrivals, 1));
    let n = (N as f64).sqrt();
    assert!(
        (mean * 100.0 - 1.0).abs() < 5.0 * cv / n,
        "{arrivals}: mean {mean}"
    );
    assert!(
        (measured - cv).abs() < 5.0 * cv_error / n,
        "{arrivals}: CV {measured} instead of {cv}"
    );
}

#[test]
fn gaps_have_the_configured_variation() {
    // V-B10. The standard error of a sample CV times sqrt(n) is 1 for the exponential (asymptotic
    // variance of s/m: c^2 (kappa/4 + c^2 - gamma c) with kappa the excess-free fourth moment).
    assert_renewal("{ kind = \"poisson\" }", 1.0, 1.0);
    // Gamma of shape k: CV 1/sqrt(k); asymptotic variance (k + 1) / (2 k^2).
    let gamma = |k: f64| ((k + 1.0) / (2.0 * k * k)).sqrt();
    assert_renewal("{ kind = \"gamma\", burstiness = 0.25 }", 2.0, gamma(0.25));
    assert_renewal("{ kind = \"gamma\", burstiness = 4.0 }", 0.5, gamma(4.0));
    // Weibull of shape 1 is exponential; of shape 0.5, CV sqrt(5), heavy: moments up to 24.
    assert_renewal("{ kind = \"weibull\", shape = 1.0 }", 1.0, 1.0);
    assert_renewal("{ kind = \"weibull\", shape = 0.5 }", 5.0_f64.sqrt(), 8.2);
    // Constant gaps but for the rounding of times to nanoseconds.
    let (mean, cv) = mean_and_cv(&gaps("{ kind = \"constant\" }", 1));
    assert!((mean - 0.01).abs() < 1e-9 && cv < 1e-6, "{mean} {cv}");
}

/// Counts within `[from, to)` over many seeds, beside their expectation `mean`: the sum of Poisson
/// counts must lie within five of its standard deviations.
fn assert_count(arrivals: &str, from: f64, to: f64, mean: f64) {
    let traffic = traffic(&format!(
        "[traffic]\nrequest_rate = \"10 req/s\"\nduration = \"400s\"\narrivals = {arrivals}\n\
         input = {{ kind = \"fixed\", tokens = 8 }}\noutput = {{ kind = \"fixed\", tokens = 8 }}"
    ));
    let mut count = 0.0;
    let seeds = 50;
    for seed in 0..seeds {
        let times = seconds(&play(&traffic, seed, usize::MAX));
        count += times.iter().filter(|t| (from..to).contains(*t)).count() as f64;
    }
    let mean = mean * seeds as f64;
    assert!(
        (count - mean).abs() < 5.0 * mean.sqrt(),
        "{arrivals} in {from}..{to}: {count} instead of {mean}"
    );
}

#[test]
fn changing_rates_integrate_to_the_count() {
    // V-B10: every window holds the integral of the rate.
    let step = "{ kind = \"step\", at = \"100s\", factor = 3.0 }";
    assert_count(step, 0.0, 100.0, 1000.0);
    assert_count(step, 100.0, 200.0, 3000.0);
    let ramp = "{ kind = \"ramp\", from = \"100s\", to = \"200s\", factor = 3.0 }";
    assert_count(ramp, 0.0, 100.0, 1000.0);
    // From 10 to 20 in the first half of the ramp: 15 in the mean.
    assert_count(ramp, 100.0, 150.0, 750.0);
    assert_count(ramp, 200.0, 300.0, 3000.0);
    let crowd = "{ kind = \"flash_crowd\", at = \"100s\", rise = \"20s\", hold = \"60s\", \
                 fall = \"20s\", factor = 5.0 }";
    assert_count(crowd, 100.0, 120.0, 600.0);
    assert_count(crowd, 120.0, 180.0, 3000.0);
    assert_count(crowd, 180.0, 200.0, 600.0);
    assert_count(crowd, 200.0, 400.0, 2000.0);
    // A jump, not a slope.
    let jump = "{ kind = \"flash_crowd\", at = \"100s\", rise = \"0s\", hold = \"50s\", \
                fall = \"0s\", factor = 4.0 }";
    assert_count(jump, 0.0, 100.0, 1000.0);
    assert_count(jump, 100.0, 150.0, 2000.0);
    assert_count(jump, 150.0, 250.0, 1000.0);
    // A whole wave is the mean; its upper half adds 2 * amplitude / omega.
    let day = "{ kind = \"diurnal\", amplitude = 1.0, peak = \"100s\", period = \"400s\" }";
    let swing = 10.0 * 2.0 * 400.0 / std::f64::consts::TAU;
    assert_count(day, 0.0, 400.0, 4000.0);
    assert_count(day, 0.0, 200.0, 2000.0 + swing);
    assert_count(day, 200.0, 400.0, 2000.0 - swing);
}

#[test]
fn the_expected_count_is_the_integral_of_the_rate() {
    let facts = |arrivals: &str| {
        let text = format!(
            "[traffic]\nrequest_rate = \"10 req/s\"\nduration = \"400s\"\narrivals = {arrivals}"
        );
        traffic(&text).facts().requests
    };
    assert_eq!(facts("{ kind = \"poisson\" }"), Some(4_000));
    let step = "{ kind = \"step\", at = \"100s\", factor = 3.0 }";
    assert_eq!(facts(step), Some(10_000));
    let day = "{ kind = \"diurnal\", amplitude = 0.5, period = \"400s\" }";
    assert_eq!(facts(day), Some(4_000));
}

#[test]
fn bursts_keep_the_mean_rate_and_spread_counts() {
    // On 1 s, off 3 s: while on the rate is 40/s. The count of T seconds has mean 10 T and, for
    // a two-state process, variance 10 T (1 + 2 * 30 * 0.75) as T grows: 46 times Poisson's.
    let traffic = traffic(
        "[traffic]\nrequest_rate = \"10 req/s\"\nduration = \"20000s\"\n\
         arrivals = { kind = \"on_off\", on = \"1s\", off = \"3s\" }",
    );
    let times = seconds(&play(&traffic, 1, usize::MAX));
    let mean = 200_000.0;
    assert!((times.len() as f64 - mean).abs() < 5.0 * (46.0 * mean).sqrt());
    let mut counts = vec![0.0; 200];
    for t in &times {
        counts[((t / 100.0) as usize).min(199)] += 1.0;
    }
    let (m, cv) = mean_and_cv(&counts);
    let dispersion = m * cv * cv;
    // A sample variance of 200 windows is good to 10 %; three of these.
    assert!((dispersion / 46.0 - 1.0).abs() < 0.3, "{dispersion}");
}

#[test]
fn lengths_have_the_configured_means() {
    let mean = |input: &str| {
        let traffic = traffic(&format!(
            "[traffic]\nrequest_rate = \"10 req/s\"\ninput = {input}\n\
             output = {{ kind = \"fixed\", tokens = 7 }}"
        ));
        let sent = play(&traffic, 1, 100_000);
        assert!(sent.iter().all(|(a, _)| a.truth.output_tokens == 7));
        sent.iter()
            .map(|(a, _)| f64::from(a.prompt_tokens))
            .sum::<f64>()
            / 1e5
    };
    // Tolerances are five standard errors, sd / sqrt(1e5).
    let uniform = mean("{ kind = \"uniform\", min = 10, max = 90 }");
    assert!((uniform - 50.0).abs() < 0.37, "{uniform}");
    // Rounded up, so half a token above.
    let exponential = mean("{ kind = \"exponential\", mean = 300.0 }");
    assert!((exponential - 300.5).abs() < 4.8, "{exponential}");
    let lognormal = mean("{ kind = \"lognormal\", mean = 500.0, sigma = 1.0 }");
    assert!((lognormal - 500.0).abs() < 10.4, "{lognormal}");
    let empirical = mean("{ kind = \"empirical\", tokens = [10, 20], weights = [3.0, 1.0] }");
    assert!((empirical - 12.5).abs() < 0.07, "{empirical}");
    let capped = mean("{ kind = \"lognormal\", mean = 500.0, sigma = 2.0, min = 5, max = 5 }");
    assert!((capped - 5.0).abs() < 1e-9);
}

/// The id of tenant `a`.
fn tenant_a(traffic: &Traffic) -> TenantId {
    let id = traffic.names().tenant("a");
    id.unwrap_or_else(|| panic!("there is no tenant `a`"))
}

/// Two clients; `b` is the text of the second.
fn two_clients(rate: u32, a_extra: &str, b: &str) -> Vec<Sent> {
    let traffic = traffic(&format!(
        "[traffic]\nrequest_rate = \"{rate} req/s\"\noutput = {{ kind = \"fixed\", tokens = 5 }}\n\
         [[traffic.clients]]\nname = \"a\"\ntenant = \"a\"\n{a_extra}\n{b}"
    ));
    let a = tenant_a(&traffic);
    let sent = play(&traffic, 3, 4_000);
    sent.into_iter()
        .filter(|(r, _)| r.tenant == a)
        .take(1_500)
        .collect()
}

#[test]
fn another_client_or_another_length_moves_no_arrival() {
    let lengths = "input = { kind = \"lognormal\", mean = 100.0, sigma = 1.0 }";
    let alone = two_clients(10, lengths, "");
    let second = "[[traffic.clients]]\nname = \"b\"\ntenant = \"b\"\n\
                  input = { kind = \"fixed\", tokens = 9 }";
    // The same rate for `a`: half of twice as much.
    let beside = two_clients(20, lengths, second);
    let key = |s: &[Sent]| -> Vec<_> {
        s.iter()
            .map(|(a, _)| (a.at, a.prompt_tokens, a.truth))
            .collect()
    };
    assert_eq!(key(&alone), key(&beside), "a client moved another's draws");
    // The one before in the file is no different from the one after.
    let first = format!("tenant = \"a\"\n{lengths}");
    let swapped = traffic(&format!(
        "[traffic]\nrequest_rate = \"20 req/s\"\noutput = {{ kind = \"fixed\", tokens = 5 }}\n\
         {second}\n[[traffic.clients]]\nname = \"a\"\n{first}"
    ));
    let a = swapped.names().tenant("a").unwrap();
    let sent = play(&swapped, 3, 4_000);
    let sent: Vec<_> = sent
        .into_iter()
        .filter(|(r, _)| r.tenant == a)
        .take(1_500)
        .collect();
    assert_eq!(key(&alone), key(&sent));

    let other = two_clients(10, "input = { kind = \"fixed\", tokens = 1 }", "");
    let at = |s: &[Sent]| -> Vec<_> { s.iter().map(|(a, _)| a.at).collect() };
    assert_eq!(at(&alone), at(&other), "lengths moved arrivals");
}

#[test]
fn clients_send_by_their_shares() {
    let traffic = traffic(
        "[traffic]\nrequest_rate = \"100 req/s\"\n\
         [[traffic.clients]]\nname = \"a\"\ntenant = \"a\"\nshare = 3.0\n\
         [[traffic.clients]]\nname = \"b\"\ntenant = \"b\"\n",
    );
    let a = traffic.names().tenant("a").unwrap();
    let sent = play(&traffic, 1, 40_000);
    let of_a = sent.iter().filter(|(r, _)| r.tenant == a).count() as f64;
    // Binomial with p = 3/4: standard deviation 87.
    assert!((of_a - 30_000.0).abs() < 435.0, "{of_a}");
    assert!(sent.windows(2).all(|w| w[0].0.at <= w[1].0.at));
}

#[test]
fn stops_are_exact_and_all_at_once_is_at_zero() {
    let by_count = traffic("[traffic]\nrequest_rate = \"5 req/s\"\nnum_prompts = 17");
    assert_eq!(play(&by_count, 1, usize::MAX).len(), 17);
    let by_time = traffic("[traffic]\nrequest_rate = \"5 req/s\"\nduration = \"100s\"");
    let sent = play(&by_time, 1, usize::MAX);
    assert!(
        sent.iter()
            .all(|(a, _)| a.at <= SimTime::from_nanos(100_000_000_000))
    );
    assert!((sent.len() as f64 - 500.0).abs() < 5.0 * 500_f64.sqrt());
    let at_once = traffic(
        "[traffic]\nrequest_rate = \"inf\"\nnum_prompts = 1000\n\
         [[traffic.clients]]\nname = \"a\"\ntenant = \"a\"\nshare = 3.0\n\
         [[traffic.clients]]\nname = \"b\"\ntenant = \"b\"\n",
    );
    let sent = play(&at_once, 1, usize::MAX);
    assert_eq!(sent.len(), 1000);
    assert!(sent.iter().all(|(a, _)| a.at == SimTime::ZERO));
    let a = at_once.names().tenant("a").unwrap();
    let of_a = sent.iter().filter(|(r, _)| r.tenant == a).count() as f64;
    assert!((of_a - 750.0).abs() < 5.0 * 13.7, "shares count: {of_a}");
}

#[test]
fn clients_hold_back_beyond_max_concurrency() {
    // 10 at once, at most 2 under way, 1 s each: one pair per second, in order.
    let traffic =
        traffic("[traffic]\nrequest_rate = \"inf\"\nnum_prompts = 10\nmax_concurrency = 2");
    let times = seconds(&play(&traffic, 1, usize::MAX));
    assert_eq!(times, [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]);
}

const CHAT: &str = "[traffic]\nrequest_rate = \"2 req/s\"\nnum_prompts = 600\n\
    input = { kind = \"uniform\", min = 10, max = 50 }\n\
    output = { kind = \"uniform\", min = 5, max = 200 }\n\
    prefix = { groups = 3, system_tokens = 40, tokens = { kind = \"fixed\", tokens = 60 } }\n\
    session = { turns = { kind = \"uniform\", min = 1, max = 6 }, \
    think_time = { kind = \"exponential\", mean = \"5s\" } }\n";

/// The turns of every conversation, in order.
fn conversations(sent: &[Sent]) -> std::collections::BTreeMap<u64, Vec<Sent>> {
    let mut of = std::collections::BTreeMap::<u64, Vec<Sent>>::new();
    for (arrival, prefix) in sent {
        of.entry(arrival.session)
            .or_default()
            .push((*arrival, prefix.clone()));
    }
    of
}

#[test]
fn conversations_repeat_all_that_was_said() {
    let sent = play(&traffic(CHAT), 1, usize::MAX);
    let mut longest = 0;
    for turns in conversations(&sent).values() {
        longest = longest.max(turns.len());
        for (i, (arrival, prefix)) in turns.iter().enumerate() {
            assert_eq!(arrival.turn as usize, i);
            assert!(arrival.truth.output_continues);
            let covered: u32 = prefix.iter().map(|e| e.tokens).sum();
            assert_eq!(
                covered, arrival.prompt_tokens,
                "the stream covers the prompt"
            );
            assert_eq!(prefix[0].tokens, 40, "the system prompt comes first");
            assert_eq!(prefix[1].tokens, 60, "then the group");
        }
        for pair in turns.windows(2) {
            let ((before, one), (after, two)) = (&pair[0], &pair[1]);
            // Closed loop: after the answer (1 s) and a think time.
            assert!(after.at >= before.at + SimDuration::from_secs(1));
            let context = before.prompt_tokens + before.truth.output_tokens;
            assert!((10..=50).contains(&(after.prompt_tokens - context)));
            // The next prompt shares all of this one, and its answer continues the stream.
            assert_eq!(shared_tokens(one, two), u64::from(before.prompt_tokens));
        }
    }
    assert!(longest >= 5, "{longest}");
    // Conversations share the system prompt and, within a group, the group's prefix; no more.
    let first: Vec<_> = sent.iter().filter(|(a, _)| a.turn == 0).take(40).collect();
    let mut kinds = std::collections::BTreeSet::new();
    for (i, (_, a)) in first.iter().enumerate() {
        for (_, b) in &first[..i] {
            kinds.insert(shared_tokens(a, b));
        }
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), [40, 100]);
}

#[test]
fn the_order_of_answers_moves_no_turn() {
    let traffic = traffic(&CHAT.replace("num_prompts = 600", "duration = \"10000s\""));
    let said = |latency: u64| {
        let mut workload = traffic.workload(1);
        let latency = SimDuration::from_millis(latency);
        let sent = play_with(&mut *workload, 3_000, latency, |_| false);
        conversations(&sent)
    };
    let (fast, slow) = (said(1), said(20_000));
    let what = |turns: &[Sent]| -> Vec<_> {
        let each = turns
            .iter()
            .map(|(a, e)| (a.prompt_tokens, a.truth, e.clone()));
        each.collect()
    };
    let mut compared = 0;
    for (session, turns) in &fast {
        let Some(other) = slow.get(session) else {
            continue;
        };
        let n = turns.len().min(other.len());
        assert_eq!(what(&turns[..n]), what(&other[..n]));
        compared += n;
    }
    assert!(compared > 1_000, "{compared}");
}

#[test]
fn a_failed_turn_ends_its_conversation() {
    let traffic = traffic(&CHAT.replace("min = 1, max = 6", "min = 6, max = 6"));
    let mut workload = traffic.workload(1);
    let second = |a: &Arrival| a.turn == 1;
    let sent = play_with(
        &mut *workload,
        usize::MAX,
        SimDuration::from_secs(1),
        second,
    );
    assert!(sent.iter().any(|(a, _)| a.turn == 1));
    assert!(sent.iter().all(|(a, _)| a.turn <= 1));
}

#[test]
fn a_full_context_forgets_its_beginning() {
    let text = CHAT
        .replace("session = {", "session = { max_context = 400,")
        .replace("min = 1, max = 6", "min = 12, max = 12");
    let sent = play(&traffic(&text), 1, usize::MAX);
    let mut cut = 0;
    for turns in conversations(&sent).values() {
        for pair in turns.windows(2) {
            let ((before, one), (after, two)) = (&pair[0], &pair[1]);
            assert!(after.prompt_tokens <= 400);
            if after.prompt_tokens == 400 && two.len() == 1 {
                // What was cut off at the front changes all that follows.
                cut += 1;
                assert_eq!(shared_tokens(one, two), 0);
                assert_eq!(two[0].tokens, 400);
            } else {
                assert_eq!(shared_tokens(one, two), u64::from(before.prompt_tokens));
            }
        }
    }
    assert!(cut > 50, "{cut}");
}

#[test]
fn groups_are_popular_as_zipf() {
    let traffic = traffic(
        "[traffic]\nrequest_rate = \"10 req/s\"\n\
         prefix = { groups = 100, zipf = 1.0, tokens = { kind = \"uniform\", min = 1, max = 999 } }",
    );
    let sent = play(&traffic, 1, 100_000);
    let mut of = std::collections::BTreeMap::<u64, (u32, u32)>::new();
    for (_, prefix) in &sent {
        assert_eq!(
            prefix.len(),
            1,
            "without a system prompt there is only the group"
        );
        let entry = of.entry(prefix[0].key).or_insert((0, prefix[0].tokens));
        assert_eq!(entry.1, prefix[0].tokens, "a group keeps its length");
        entry.0 += 1;
    }
    let mut counts: Vec<_> = of.values().map(|v| f64::from(v.0)).collect();
    counts.sort_by(|a, b| b.total_cmp(a));
    let harmonic: f64 = (1..=100).map(|k| 1.0 / f64::from(k)).sum();
    for rank in [1, 2, 5, 10] {
        let expected = 1e5 / harmonic / rank as f64;
        let off = (counts[rank - 1] - expected).abs();
        assert!(
            off < 5.0 * expected.sqrt(),
            "rank {rank}: {} for {expected}",
            counts[rank - 1]
        );
    }
}

#[test]
fn truth_prediction_patience_and_service_follow_the_scenario() {
    let traffic = traffic(
        "[traffic]\nrequest_rate = \"10 req/s\"\nmax_output_tokens = 300\n\
         output = { kind = \"uniform\", min = 100, max = 500 }\n\
         predictor = { error = 0.5 }\n\
         service = { kind = \"gamma\", mean = \"2s\", cv2 = 4.0 }\n\
         [verification]\nerror_rate = 0.2\n[classes.default]\ndeadline = \"30s\"\n",
    );
    let sent = play(&traffic, 1, 50_000);
    let n = sent.len() as f64;
    assert!(sent.iter().all(|(a, _)| a.truth.output_tokens <= 300));
    assert!(
        sent.iter()
            .all(|(a, _)| a.patience == Some(SimDuration::from_secs(30)))
    );
    let bad = sent.iter().filter(|(a, _)| !a.truth.good).count() as f64;
    assert!((bad / n - 0.2).abs() < 5.0 * (0.16 / n).sqrt(), "{bad}");
    let errors: Vec<f64> = sent
        .iter()
        .map(|(a, _)| {
            let predicted = f64::from(a.predicted_output_tokens.unwrap());
            (predicted / f64::from(a.truth.output_tokens)).ln()
        })
        .collect();
    let mean = errors.iter().sum::<f64>() / n;
    let sd = (errors.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / n).sqrt();
    // Standard errors 0.5/sqrt(n) and 0.5/sqrt(2n); rounding to tokens of some 200 adds 1e-5.
    assert!(
        mean.abs() < 0.012 && (sd - 0.5).abs() < 0.008,
        "{mean} {sd}"
    );
    let service: Vec<f64> = sent
        .iter()
        .map(|(a, _)| a.truth.service.as_secs_f64())
        .collect();
    let (mean, cv) = mean_and_cv(&service);
    // CV 2: five standard errors of the mean are 0.089; of the CV (shape 1/4) 3.16 * 5 / 224.
    assert!(
        (mean - 2.0).abs() < 0.09 && (cv - 2.0).abs() < 0.071,
        "{mean} {cv}"
    );
}

#[test]
fn what_cannot_be_played_is_refused_with_a_remedy() {
    let cases = [
        ("[traffic]\n", "num_prompts"),
        ("[traffic]\nrequest_rate = \"0 req/s\"", "rate above zero"),
        (
            "[traffic]\nrequest_rate = \"1 req/s\"\nmax_concurrency = 0",
            "at least 1",
        ),
        (
            "[traffic]\nrequest_rate = \"1 req/s\"\narrivals = { kind = \"gamma\", burstiness = 0.0 }",
            "burstiness",
        ),
        (
            "[traffic]\nrequest_rate = \"1 req/s\"\ninput = { kind = \"uniform\", min = 5, max = 4 }",
            "above its `max`",
        ),
        (
            "[traffic]\nrequest_rate = \"1 req/s\"\ninput = { kind = \"empirical\", tokens = [] }",
            "no token counts",
        ),
    ];
    for (text, expected) in cases {
        let error = prepare(&scenario(text), None, None, false)
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{text}\n{error}");
    }
}
