//! Windtunnel's own `requests.csv` (columns of `ledger::rows`): what was sent in one run is sent
//! again, at the same nanosecond.
//!
//! Rows do not tell what prompts had in common, so nothing is shared in a replay, and turns of
//! conversations come at their recorded times.

use super::super::input::{Bad, Source};
use super::super::table::{MAX_TIME_NS, Table, short};
use super::super::{Facts, TrafficError};
use super::{Recorded, Rows};

/// Reads rows of a run.
pub(crate) fn read(
    file: &str,
    source: &Source<'_>,
    facts: &mut Facts,
) -> Result<Rows, TrafficError> {
    let mut table = Table::open(
        source.open(file)?,
        &[
            &["sent_ns"],
            &["prompt_tokens"],
            &["output_tokens"],
            &["session"],
            &["turn"],
            &["end"],
            &["good"],
        ],
    )?;
    let tenant = table.optional("tenant_name");
    let class = table.optional("class_name");
    let mut rows = Rows::default();
    let mut cut_short = 0_u64;
    while table.advance()? {
        let row = table.check_width().and_then(|()| read_row(&table));
        match row {
            Ok((at, input, output, recorded, finished)) => {
                cut_short += u64::from(!finished);
                rows.at.push(at);
                rows.input.push(input);
                rows.output.push(output.max(1));
                let name = |column: Option<usize>| match column.map(|c| table.text(c)) {
                    Some(Ok(name)) if !name.is_empty() => name,
                    _ => crate::names::DEFAULT,
                };
                let number = rows.tenants.number(name(tenant));
                rows.tenant.push(number);
                let class = rows.classes.number(name(class));
                rows.recorded.push(Recorded { class, ..recorded });
            }
            Err(bad) => table.lines().bad_row(bad, source, facts)?,
        }
    }
    facts.notes.push(
        "prompts share nothing and conversations come at their recorded times: rows do not tell \
         more"
            .into(),
    );
    if cut_short > 0 {
        facts.notes.push(format!(
            "{cut_short} recorded requests did not finish: the output they would have had is not \
             known and is taken to be what was delivered, at least 1 token"
        ));
    }
    table.into_lines().finish(1, facts)?;
    Ok(rows)
}

type NativeRow = (u64, u32, u32, Recorded, bool);

fn read_row(table: &Table) -> Result<NativeRow, Bad> {
    let end = table.text(5)?;
    let good = match table.text(6)? {
        "true" => true,
        "false" => false,
        other => {
            let reason = format!("`{}` is neither true nor false", short(other));
            return Err(Bad::new(table.name(6), reason));
        }
    };
    Ok((
        table.whole(0, MAX_TIME_NS)?,
        table.tokens(1, 1)?,
        table.tokens(2, 0)?,
        Recorded {
            session: table.whole(3, u64::MAX)?,
            turn: table.whole(4, u64::from(u32::MAX))? as u32,
            class: 0,
            good,
        },
        end == "finished",
    ))
}
