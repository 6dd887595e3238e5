//! Predictions beside measurements, as table, CSV, JSON and one page that works offline.

use super::html::{STYLE, escaped};
use super::number::{count, digits, figure};
use super::plots::{self, Plot, PlotError};
use crate::fidelity::{Equality, Errors, Fidelity, Figure, Run, STATISTICS, System};
use crate::threshold::Verdict;
use std::fmt::Write as _;

const LABEL: usize = 42;
const CELL: usize = 11;
/// Closer figures are shown as equal.
const EQUAL: f64 = 1e-12;

/// The comparison as indented JSON with a newline at its end.
///
/// # Errors
/// None that a comparison can cause; serialising is fallible in general.
pub fn json(fidelity: &Fidelity) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string_pretty(fidelity)? + "\n")
}

/// The comparison in words and figures, for a terminal.
pub fn table(fidelity: &Fidelity) -> String {
    let mut out = String::new();
    for (system, run) in runs(fidelity) {
        let _ = writeln!(out, "{}", headline(system, run));
        if let Some(reason) = &run.not_compared {
            let _ = writeln!(out, "  not compared: {reason}");
        }
        let families = families(&run.figures);
        if families.iter().any(|f| f[0].statistic == "mean") {
            let _ = write!(out, "  {:LABEL$}", "");
            for statistic in STATISTICS {
                let _ = write!(out, "{statistic:>CELL$}");
            }
            out.push('\n');
        }
        for family in &families {
            of_family(&mut out, family);
        }
        for errors in &run.errors {
            let _ = writeln!(
                out,
                "  {:LABEL$}{}",
                format!("{} per request", errors.metric),
                of_errors(errors)
            );
        }
        for equality in &run.equalities {
            let _ = writeln!(out, "  {:42} {}", equality.what, of_equality(equality));
            if let Some(first) = &equality.first_mismatch {
                let _ = writeln!(
                    out,
                    "      first at {}: measured {}, simulated {}",
                    first.place, first.measured, first.simulated
                );
            }
        }
        for note in &run.notes {
            let _ = writeln!(out, "  note: {note}");
        }
        out.push('\n');
    }
    let _ = writeln!(out, "{}", in_words(fidelity));
    out
}

/// All figures, errors and equalities, a line each.
pub fn csv(fidelity: &Fidelity) -> String {
    let mut out =
        "system,run,kind,what,statistic,unit,measured,simulated,error,target,verdict\n".to_owned();
    let number = |value: Option<f64>| value.map_or(String::new(), |v| format!("{v}"));
    for (system, run) in runs(fidelity) {
        let (system, name) = (quoted(&system.name), quoted(&run.name));
        for f in &run.figures {
            let _ = writeln!(
                out,
                "{system},{name},figure,{},{},{},{},{},{},{},{}",
                f.metric,
                f.statistic,
                f.unit,
                number(f.measured),
                number(f.simulated),
                number(f.relative_error),
                number(f.target),
                f.verdict.map_or("", word)
            );
        }
        for e in &run.errors {
            for (statistic, value) in [("median", e.median), ("p95", e.p95), ("max", e.max)] {
                let _ = writeln!(
                    out,
                    "{system},{name},absolute_error,{},{statistic},{},,,{value},,",
                    e.metric, e.unit
                );
            }
        }
        for e in &run.equalities {
            let _ = writeln!(
                out,
                "{system},{name},equality,{},equal,{},{},{},{},{},{}",
                quoted(&e.what),
                e.unit,
                e.compared + e.only_measured,
                e.equal,
                e.largest,
                e.bound,
                word(e.verdict)
            );
        }
        if let Some(reason) = &run.not_compared {
            let _ = writeln!(
                out,
                "{system},{name},not_compared,{},,,,,,,undecided",
                quoted(reason)
            );
        }
    }
    out
}

/// Values of a run request by request: those of every metric, measured and simulated.
pub fn requests_csv(run: &Run) -> String {
    let mut out = "request".to_owned();
    for pairs in &run.pairs {
        let (metric, unit) = (pairs.metric, pairs.unit);
        let _ = write!(out, ",measured_{metric}_{unit},simulated_{metric}_{unit}");
    }
    out.push('\n');
    let rows = run
        .pairs
        .iter()
        .map(|p| p.measured.len().max(p.simulated.len()));
    for i in 0..rows.max().unwrap_or(0) {
        let _ = write!(out, "{i}");
        for pairs in &run.pairs {
            for side in [&pairs.measured, &pairs.simulated] {
                let value = side.get(i).copied().flatten();
                let _ = write!(out, ",{}", value.map_or(String::new(), |v| format!("{v}")));
            }
        }
        out.push('\n');
    }
    out
}

/// The plots of a run: predicted over measured, and curves over time.
///
/// # Errors
/// None that a comparison can cause; drawing is fallible in general.
pub fn plots(run: &Run) -> Result<Vec<Plot>, PlotError> {
    plots::of_run(run)
}

/// One page with everything, plots included.
///
/// # Errors
/// None that a comparison can cause; drawing is fallible in general.
pub fn html(fidelity: &Fidelity, command: &str) -> Result<String, PlotError> {
    let (class, _) = badge(fidelity.verdict);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>fidelity · windtunnel</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header>\n<p class=\"brand\">windtunnel</p>\n<h1>Predicted and measured</h1>\n\
         <p class=\"purpose\">Percentiles: {}.</p>\n</header>\n<p class=\"verdict {class}\">{}</p>\n",
        fidelity.percentiles,
        escaped(&in_words(fidelity))
    );
    for (system, run) in runs(fidelity) {
        section(&mut page, system, run)?;
    }
    let _ = write!(
        page,
        "<section>\n<h2>Repeat</h2>\n<pre class=\"command\"><code>{}</code></pre>\n</section>\n</main>\n</body>\n</html>\n",
        escaped(command)
    );
    Ok(page)
}

fn runs(fidelity: &Fidelity) -> impl Iterator<Item = (&System, &Run)> {
    let of = |system| std::iter::repeat(system);
    fidelity
        .systems
        .iter()
        .flat_map(move |system| of(system).zip(&system.runs))
}

/// Figures of one metric each.
fn families(figures: &[Figure]) -> Vec<&[Figure]> {
    figures.chunk_by(|a, b| a.metric == b.metric).collect()
}

fn headline(system: &System, run: &Run) -> String {
    let (_, verdict) = badge(run.verdict);
    let mut line = format!("{} / {}  ({})", system.name, run.name, system.layout);
    if run.requests > 0 {
        let _ = write!(
            line,
            "  {} requests, {} steps",
            count(run.requests),
            count(run.steps)
        );
    }
    let _ = write!(line, "  {verdict}");
    line
}

fn of_family(out: &mut String, family: &[Figure]) {
    let metric = family[0].metric;
    let unit = family[0].unit;
    let at = |statistic: &str| family.iter().find(|f| f.statistic == statistic);
    let whole: Vec<Option<&Figure>> = match at("") {
        Some(figure) => vec![Some(figure)],
        None => STATISTICS.iter().map(|s| at(s)).collect(),
    };
    type Text<'a> = &'a dyn Fn(&Figure) -> String;
    let lines: [(&str, Text<'_>); 4] = [
        ("measured", &|f| bare(f.measured, unit)),
        ("simulated", &|f| bare(f.simulated, unit)),
        ("error", &|f| {
            let mark = if f.verdict == Some(Verdict::Fail) {
                " !"
            } else {
                ""
            };
            format!("{}{mark}", percent(f.relative_error))
        }),
        ("95 % of errors, %", &|f| interval(f.interval, 0)),
    ];
    let same = |f: &Figure| f.relative_error.is_some_and(|e| e.abs() <= EQUAL);
    let all_equal = family.iter().all(same);
    for (i, (what, text)) in lines.iter().enumerate() {
        // Where everything is equal, once is enough.
        if all_equal && *what == "simulated" {
            continue;
        }
        if i == 3 && family.iter().all(|f| f.interval.is_none()) {
            continue;
        }
        let name = match (i, unit) {
            (0, "" | "ms" | "share") => metric.to_owned(),
            (0, unit) => format!("{metric}, {unit}"),
            _ => String::new(),
        };
        let _ = write!(out, "  {:LABEL$}", fitted(&name, what));
        for figure in &whole {
            let text = figure.map_or(String::new(), text);
            let _ = write!(out, "{text:>CELL$}");
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
}

/// Where errors lie, in percent with so many places.
fn interval(between: Option<[f64; 2]>, places: usize) -> String {
    between.map_or(String::new(), |[low, high]| {
        format!("{:+.places$}..{:+.places$}", low * 100.0, high * 100.0)
    })
}

/// A metric's name and, at the right, what the line shows.
fn fitted(name: &str, what: &str) -> String {
    let room = LABEL.saturating_sub(what.len() + 1);
    let name: String = name.chars().take(room).collect();
    format!("{name:room$} {what}")
}

fn shown(value: Option<f64>, unit: &str) -> String {
    value.map_or("–".into(), |v| match unit {
        "requests" | "tokens" | "times" | "" if v.fract() == 0.0 && v >= 0.0 => count(v as u64),
        _ => figure(v, unit),
    })
}

/// The same without a unit that is a word; that stands beside the metric.
fn bare(value: Option<f64>, unit: &str) -> String {
    match unit {
        "" | "ms" | "share" => shown(value, unit),
        _ => shown(value, "").trim_end().to_owned(),
    }
}

/// `+0.62 %`.
fn percent(error: Option<f64>) -> String {
    match error {
        None => "–".into(),
        Some(error) if error.abs() <= EQUAL => "equal".into(),
        Some(error) if error.abs() < 5e-7 => "< 0.0001 %".into(),
        Some(error) => format!("{:+.*} %", decimals(error), error * 100.0),
    }
}

fn decimals(error: f64) -> usize {
    match error.abs() {
        x if x >= 1e-3 => 2,
        x if x >= 1e-4 => 3,
        _ => 4,
    }
}

fn of_errors(errors: &Errors) -> String {
    if errors.max < 1e-9 {
        return format!("equal in all {}", count(errors.n));
    }
    format!(
        "off by {} (median), {} (p95), {} (most)",
        figure(errors.median, errors.unit),
        figure(errors.p95, errors.unit),
        figure(errors.max, errors.unit)
    )
}

fn of_equality(equality: &Equality) -> String {
    let (_, verdict) = badge(equality.verdict);
    let all = equality.compared + equality.only_measured;
    let mut text = format!("{} of {} equal", count(equality.equal), count(all));
    if equality.largest > 0.0 {
        let _ = write!(
            text,
            ", largest difference {} {}",
            small(equality.largest),
            equality.unit
        );
        text.truncate(text.trim_end().len());
    }
    if equality.only_simulated > 0 {
        let _ = write!(text, ", {} more simulated", count(equality.only_simulated));
    }
    let _ = write!(text, "  {verdict}");
    text
}

/// A difference, in powers of ten if it is tiny.
fn small(value: f64) -> String {
    if value < 1e-3 {
        format!("{value:.1e}")
    } else {
        digits(value)
    }
}

/// The verdict in a sentence.
fn in_words(fidelity: &Fidelity) -> String {
    let of = |verdict| {
        runs(fidelity)
            .filter(|(_, run)| run.verdict == verdict)
            .count()
    };
    let (passed, failed, open) = (of(Verdict::Pass), of(Verdict::Fail), of(Verdict::Undecided));
    let all = passed + failed + open;
    let mut text = match fidelity.verdict {
        Verdict::Pass => format!("{passed} of {all} runs meet every stated target"),
        Verdict::Fail => format!("{failed} of {all} runs miss a stated target"),
        Verdict::Undecided => "nothing could be held against a target".to_owned(),
    };
    if open > 0 && fidelity.verdict != Verdict::Undecided {
        let _ = write!(text, "; {open} could not be compared");
    }
    text.push('.');
    text
}

const fn badge(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Pass => ("pass", "met"),
        Verdict::Fail => ("fail", "MISSED"),
        Verdict::Undecided => ("undecided", "undecided"),
    }
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "fail",
        Verdict::Undecided => "undecided",
    }
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// A run on the page.
fn section(page: &mut String, system: &System, run: &Run) -> Result<(), PlotError> {
    let (class, verdict) = badge(run.verdict);
    let _ = write!(
        page,
        "<section>\n<h2>{} / {} <span class=\"badge {class}\">{}</span></h2>\n<dl class=\"facts\">\n",
        escaped(&system.name),
        escaped(&run.name),
        verdict.to_lowercase()
    );
    let counts = [("requests", run.requests), ("steps", run.steps)];
    let counts = counts.map(|(name, n)| (name.to_owned(), count(n)));
    let settings = run.settings.iter().map(|(k, v)| (k.clone(), v.clone()));
    for (term, text) in counts.into_iter().chain(settings) {
        let _ = writeln!(
            page,
            "<div><dt>{}</dt><dd>{}</dd></div>",
            escaped(&term),
            escaped(&text)
        );
    }
    page.push_str("</dl>\n");
    let notes = run.not_compared.iter().chain(&run.notes);
    for note in notes {
        let _ = writeln!(
            page,
            "<p class=\"warning\"><strong>Note</strong> {}</p>",
            escaped(note)
        );
    }
    figures(page, run);
    equalities(page, run);
    let plots = plots::of_run(run)?;
    if !plots.is_empty() {
        page.push_str("<div class=\"plots\">\n");
        for plot in plots {
            let _ = writeln!(
                page,
                "<figure>\n<h3>{}</h3>\n{}\n<figcaption>{}</figcaption>\n</figure>",
                escaped(&plot.title),
                plot.svg,
                escaped(&plot.caption)
            );
        }
        page.push_str("</div>\n");
    }
    page.push_str("</section>\n");
    Ok(())
}

fn figures(page: &mut String, run: &Run) {
    if run.figures.is_empty() {
        return;
    }
    page.push_str(
        "<div class=\"wide\"><table>\n<thead><tr><th>metric</th><th>statistic</th><th class=\"n\">measured</th>\
         <th class=\"n\">simulated</th><th class=\"n\">error</th><th class=\"n\">target</th><th></th></tr></thead>\n<tbody>\n",
    );
    for f in &run.figures {
        let verdict = f.verdict.map_or(String::new(), |v| {
            let (class, word) = badge(v);
            format!(
                "<span class=\"badge {class}\">{}</span>",
                word.to_lowercase()
            )
        });
        let target = f.target.map_or(String::new(), |t| {
            if t < 1e-6 {
                "equal".into()
            } else {
                format!("± {} %", digits(t * 100.0))
            }
        });
        let _ = writeln!(
            page,
            "<tr><td><code>{}</code></td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}{}</td><td class=\"n\">{target}</td><td>{verdict}</td></tr>",
            f.metric,
            f.statistic,
            escaped(&shown(f.measured, f.unit)),
            escaped(&shown(f.simulated, f.unit)),
            escaped(&percent(f.relative_error)),
            f.interval.map_or(String::new(), |of| format!(
                "<br><small>95 % between {} %</small>",
                interval(Some(of), 1).replace("..", " and ")
            )),
        );
    }
    page.push_str("</tbody>\n</table></div>\n");
    for errors in &run.errors {
        let _ = writeln!(
            page,
            "<p><small><code>{}</code> request by request: {}.</small></p>",
            errors.metric,
            escaped(&of_errors(errors))
        );
    }
}

fn equalities(page: &mut String, run: &Run) {
    if run.equalities.is_empty() {
        return;
    }
    page.push_str(
        "<div class=\"wide\"><table>\n<thead><tr><th>equal, one by one</th><th class=\"n\">equal</th>\
         <th class=\"n\">of</th><th class=\"n\">largest difference</th><th>first that differ</th><th></th></tr></thead>\n<tbody>\n",
    );
    for e in &run.equalities {
        let (class, word) = badge(e.verdict);
        let first = e.first_mismatch.as_ref().map_or(String::new(), |m| {
            format!(
                "{}: measured {}, simulated {}",
                m.place, m.measured, m.simulated
            )
        });
        let _ = writeln!(
            page,
            "<tr><td>{}<br><small>{}</small></td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{} {}</td>\
             <td><small>{}</small></td><td><span class=\"badge {class}\">{}</span></td></tr>",
            escaped(&e.what),
            escaped(&e.basis),
            count(e.equal),
            count(e.compared + e.only_measured),
            small(e.largest),
            e.unit,
            escaped(&first),
            word.to_lowercase()
        );
    }
    page.push_str("</tbody>\n</table></div>\n");
}

#[cfg(test)]
mod tests;
