//! Clients, their ends, and traces.

use super::{Rules, draws, fleet};
use crate::diagnostic::Code;
use crate::schema::questions::QuestionsSpec;
use crate::schema::traffic::{ClientSpec, TasksSpec, TraceFormat};
use crate::tree::Path;
use std::collections::BTreeSet;

/// Something must end the run.
pub(super) fn ends(rules: &mut Rules<'_>) {
    let traffic = &rules.scenario.traffic;
    let path = Path::of("traffic");
    let ends = traffic.num_prompts.is_some()
        || traffic.duration.is_some()
        || traffic.trace.is_some()
        || rules.scenario.run.cut_off.is_some();
    if !ends {
        let finding = rules.error(Code::Endless, &path, "this traffic never ends");
        finding.notes = vec![
            "give `traffic.num_prompts`, `traffic.duration`, a trace, or `run.cut_off`".into(),
            "example: duration = \"10min\"".into(),
        ];
    }
    let traffic = &rules.scenario.traffic;
    if let Some(n) = traffic.num_prompts {
        rules.at_least_one(&path.key("num_prompts"), n);
    }
    if let Some(duration) = traffic.duration {
        rules.positive(&path.key("duration"), duration.0.as_secs_f64());
    }
    if let Some(n) = traffic.max_concurrency {
        rules.at_least_one(&path.key("max_concurrency"), n.into());
    }
}

/// A rate of zero sends nothing; an endless one sends all at once, so it must be known how many.
pub(super) fn rate(rules: &mut Rules<'_>) {
    let traffic = &rules.scenario.traffic;
    let path = Path::of("traffic.request_rate");
    let rate = traffic.request_rate.map(|r| r.0);
    if let Some(rate) = rate {
        rules.positive(&path, rate);
    }
    let traffic = &rules.scenario.traffic;
    let at_once = rate.is_none_or(f64::is_infinite);
    if at_once && traffic.trace.is_none() && traffic.num_prompts.is_none() {
        let message = match rate {
            None => "`traffic` has no `request_rate`, so all requests come at once",
            Some(_) => "all requests come at once",
        };
        rules
            .error(Code::Incomplete, &path, format!("{message}: how many?"))
            .label = "give `num_prompts`, or a rate such as \"8 req/s\"".to_owned();
    }
}

/// Shares and names of clients.
pub(super) fn clients(rules: &mut Rules<'_>) {
    let traffic = &rules.scenario.traffic;
    let path = |i: usize| Path::of(&format!("traffic.clients.{i}"));
    let mut names = BTreeSet::new();
    for (i, client) in traffic.clients.iter().enumerate() {
        if let Some(share) = client.share {
            rules.not_negative(&path(i).key("share"), share);
        }
        if !client.name.is_empty() && !names.insert(client.name.as_str()) {
            let message = format!("there is another client `{}`", client.name);
            rules.error(Code::Contradiction, &path(i).key("name"), message);
        }
    }
    let none = |c: &ClientSpec| c.share == Some(0.0);
    if !traffic.clients.is_empty() && traffic.clients.iter().all(none) {
        let message = "no client has a share of the traffic";
        rules.error(Code::Contradiction, &Path::of("traffic.clients"), message);
    }
}

/// All that is drawn, of `[traffic]` and of each client.
pub(super) fn draws(rules: &mut Rules<'_>) {
    let traffic = &rules.scenario.traffic;
    let shared = ClientSpec {
        arrivals: traffic.arrivals.clone(),
        input: traffic.input.clone(),
        output: traffic.output.clone(),
        max_output_tokens: traffic.max_output_tokens,
        questions: traffic.questions.clone(),
        prefix: traffic.prefix.clone(),
        session: traffic.session.clone(),
        predictor: traffic.predictor.clone(),
        service: traffic.service.clone(),
        tasks: traffic.tasks.clone(),
        ..ClientSpec::default()
    };
    draws_of(rules, &Path::of("traffic"), &shared);
    for (i, client) in traffic.clients.iter().enumerate() {
        draws_of(rules, &Path::of(&format!("traffic.clients.{i}")), client);
    }
}

fn draws_of(rules: &mut Rules<'_>, path: &Path, client: &ClientSpec) {
    if let Some(spec) = &client.arrivals {
        draws::arrivals(rules, &path.key("arrivals"), spec);
    }
    if let Some(spec) = &client.input {
        draws::length(rules, &path.key("input"), spec, 1);
    }
    if let Some(spec) = &client.output {
        draws::length(rules, &path.key("output"), spec, 1);
    }
    if let Some(n) = client.max_output_tokens {
        rules.at_least_one(&path.key("max_output_tokens"), n.into());
    }
    if let Some(spec) = &client.prefix {
        draws::prefix(rules, &path.key("prefix"), spec);
    }
    if let Some(spec) = &client.session {
        draws::session(rules, &path.key("session"), spec);
    }
    if let Some(spec) = &client.predictor {
        rules.not_negative(&path.key("predictor").key("error"), spec.error);
    }
    if let Some(spec) = &client.service {
        draws::time(rules, &path.key("service"), spec);
    }
    if let Some(spec) = &client.questions {
        questions(rules, path, client, spec);
    }
    if let Some(spec) = &client.tasks {
        tasks(rules, path, client, spec);
    }
}

/// A task has its own words: nothing is said about lengths beside it, and nothing stands before it;
/// a conversation of tasks has a task for each turn.
fn tasks(rules: &mut Rules<'_>, path: &Path, client: &ClientSpec, spec: &TasksSpec) {
    let others = [
        ("input", client.input.is_some()),
        ("output", client.output.is_some()),
        ("prefix", client.prefix.is_some()),
    ];
    for (key, given) in others {
        if given {
            let message = format!("`tasks` have their own words, so `{key}` means nothing");
            rules
                .error(Code::Contradiction, &path.key(key), message)
                .label = "leave one of them out".to_owned();
        }
    }
    if let Some(n) = spec.distinct {
        rules.at_least_one(&path.key("tasks").key("distinct"), n);
    }
    let repeats = path.key("tasks").key("no_change");
    rules.share(&repeats, spec.no_change);
    let session = client.session.is_some() || rules.scenario.traffic.session.is_some();
    if spec.no_change > 0.0 && !session {
        let message = "only turns of a conversation ask the same again; give `session` too";
        rules.warn(Code::Pointless, &repeats, message);
    }
}

/// Questions, and who else says what is asked.
fn questions(rules: &mut Rules<'_>, path: &Path, client: &ClientSpec, spec: &QuestionsSpec) {
    let here = path.key("questions");
    for (key, given) in [
        ("session", client.session.is_some()),
        ("tasks", client.tasks.is_some()),
    ] {
        if given {
            let message = format!("`{key}` says itself what is asked, beside `questions`");
            rules.error(Code::Contradiction, &here, message).label =
                "leave one of them out".to_owned();
        }
    }
    rules.at_least_one(&here.key("phrasings"), spec.phrasings);
    if let Some(n) = spec.distinct {
        rules.at_least_one(&here.key("distinct"), n);
    }
    if let Some(zipf) = spec.zipf {
        rules.not_negative(&here.key("zipf"), zipf);
    }
    let says = [("zipf", spec.zipf.is_some()), ("in_turn", spec.in_turn)];
    for (key, _) in says.into_iter().filter(|(_, given)| *given) {
        if spec.distinct.is_none() {
            let message = "without `distinct` every request asks a new question";
            rules.warn(Code::Pointless, &here.key(key), message);
        }
    }
    if spec.in_turn && spec.zipf.is_some() {
        let message = "questions are asked in turn, or drawn by their popularity";
        rules.error(Code::Contradiction, &here.key("in_turn"), message);
    }
}

/// LLM engines need lengths; those of vLLM's benchmark stand in, but nobody should be surprised.
pub(super) fn lengths_are_given(rules: &mut Rules<'_>) {
    let traffic = &rules.scenario.traffic;
    let by_time = fleet::is_stations(rules) && !fleet::is_cascades(rules);
    if traffic.trace.is_some() || by_time {
        return;
    }
    let all_say = |own: fn(&ClientSpec) -> bool, shared: bool| {
        shared || (!traffic.clients.is_empty() && traffic.clients.iter().all(own))
    };
    let missing: Vec<_> = [
        (
            "input",
            all_say(
                |c| c.input.is_some() || c.tasks.is_some(),
                traffic.input.is_some() || traffic.tasks.is_some(),
            ),
        ),
        (
            "output",
            all_say(
                |c| c.output.is_some() || c.tasks.is_some(),
                traffic.output.is_some() || traffic.tasks.is_some(),
            ),
        ),
    ]
    .into_iter()
    .filter(|(_, given)| !given)
    .map(|(key, _)| format!("`{key}`"))
    .collect();
    if !missing.is_empty() {
        let message = format!("not every client has {}", missing.join(" and "));
        let path = Path::of("traffic");
        let finding = rules.warn(Code::Incomplete, &path, message);
        finding.label = "1024 prompt and 128 output tokens are used".to_owned();
        finding.notes =
            vec!["example: input = { kind = \"lognormal\", mean = 512.0, sigma = 0.8 }".into()];
    }
}

/// Stations need service times, and nothing else does.
pub(super) fn service(rules: &mut Rules<'_>) {
    let traffic = &rules.scenario.traffic;
    let path = Path::of("traffic");
    if !fleet::is_stations(rules) || fleet::is_cascades(rules) {
        if traffic.service.is_some() {
            let message =
                "only stations use service times; LLM engines and cascades compute theirs";
            rules.warn(Code::Pointless, &path.key("service"), message);
        }
        return;
    }
    if traffic.service.is_some() {
        return;
    }
    let mut without: Vec<Path> = traffic
        .clients
        .iter()
        .enumerate()
        .filter(|(_, c)| c.service.is_none())
        .map(|(i, _)| Path::of(&format!("traffic.clients.{i}")))
        .collect();
    if traffic.clients.is_empty() {
        without.push(path);
    }
    for path in without {
        let message = format!("stations need service times, and `{path}` has none");
        let finding = rules.error(Code::Incomplete, &path, message);
        finding.notes =
            vec!["example: service = { kind = \"exponential\", mean = \"100ms\" }".into()];
    }
}

/// Whether a format has conversations.
fn has_sessions(format: TraceFormat) -> bool {
    matches!(format, TraceFormat::AgenticCoding | TraceFormat::Native)
}

pub(super) fn trace(rules: &mut Rules<'_>) {
    let traffic = &rules.scenario.traffic;
    let Some(trace) = &traffic.trace else { return };
    let path = Path::of("traffic.trace");
    if trace.format == TraceFormat::Servegen && trace.tokens_file.is_none() {
        let message = "`servegen` needs `tokens_file` beside its rates";
        let finding = rules.error(Code::Incomplete, &path, message);
        finding.notes =
            vec!["example: tokens_file = \"servegen/m-large_token_pdfs.jsonl.zst\"".into()];
    }
    rules.require(&path.key("file"), !trace.file.is_empty(), "name a file");
    if let Some(thin) = trace.thin {
        let holds = thin > 0.0 && thin <= 1.0;
        rules.require(&path.key("thin"), holds, "be more than 0 and at most 1");
    }
    if let Some(speed_up) = trace.speed_up {
        rules.positive(&path.key("speed_up"), speed_up);
    }
    if let Some(replicate) = &trace.replicate {
        let holds = (1..=10_000).contains(&replicate.copies);
        let path = path.key("replicate").key("copies");
        rules.require(&path, holds, "lie between 1 and 10000");
    }
    if let Some(rate) = trace.session_rate {
        let here = path.key("session_rate");
        rules.positive(&here, rate.0);
        if !has_sessions(trace.format) {
            let message = "this format has no conversations to start";
            rules.warn(Code::Pointless, &here, message);
        }
    }
    if trace.open_loop && !has_sessions(trace.format) {
        let message = "this format has no conversations: it is replayed as recorded anyway";
        rules.warn(Code::Pointless, &path.key("open_loop"), message);
    }
    let slice = &trace.slice;
    if let (Some(from), Some(to)) = (slice.from, slice.to) {
        let here = path.key("slice").key("to");
        rules.require(&here, to > from, "be after `from`");
    }
    if let Some(first) = slice.first {
        rules.at_least_one(&path.key("slice").key("first"), first);
    }
    ignored_with_trace(rules);
}

/// What a trace brings itself and a scenario gives all the same.
fn ignored_with_trace(rules: &mut Rules<'_>) {
    let traffic = &rules.scenario.traffic;
    let given = [
        ("clients", !traffic.clients.is_empty()),
        ("arrivals", traffic.arrivals.is_some()),
        ("input", traffic.input.is_some()),
        ("output", traffic.output.is_some()),
        ("session", traffic.session.is_some()),
        ("questions", traffic.questions.is_some()),
    ];
    for (key, _) in given.into_iter().filter(|(_, given)| *given) {
        let path = Path::of("traffic").key(key);
        let message = format!("`{path}` does not count: requests come from a trace");
        rules.warn(Code::Pointless, &path, message);
    }
}
