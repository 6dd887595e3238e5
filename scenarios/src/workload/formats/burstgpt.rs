//! BurstGPT: CSV with `Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type`,
//! stamps in seconds. A row whose response has 0 tokens is a failure of the service; such rows
//! are counted and left out. Models become tenants.

use super::super::input::Source;
use super::super::table::Table;
use super::super::{Facts, TrafficError};
use super::Rows;

/// Reads a BurstGPT trace.
pub(crate) fn read(
    file: &str,
    source: &Source<'_>,
    facts: &mut Facts,
) -> Result<Rows, TrafficError> {
    let mut table = Table::open(
        source.open(file)?,
        &[
            &["Timestamp"],
            &["Model"],
            &["Request tokens"],
            &["Response tokens"],
        ],
    )?;
    let mut rows = Rows::default();
    let mut failures = 0_u64;
    while table.advance()? {
        let row = table.check_width().and_then(|()| {
            let output = table.tokens(3, 0)?;
            // A failure may also lack its prompt's length.
            let input = table.tokens(2, u32::from(output > 0))?;
            Ok((table.seconds(0)?, table.text(1)?.to_owned(), input, output))
        });
        match row {
            Ok((.., 0)) => failures += 1,
            Ok((at, model, input, output)) => {
                rows.at.push(at);
                rows.input.push(input);
                rows.output.push(output);
                let tenant = rows.tenants.number(&model);
                rows.tenant.push(tenant);
            }
            Err(bad) => table.lines().bad_row(bad, source, facts)?,
        }
    }
    if failures > 0 {
        facts.notes.push(format!(
            "rule `failures`: rows with a response of 0 tokens are failures of the recorded service and \
             are left out, here {failures}"
        ));
    }
    table.into_lines().finish(1, facts)?;
    Ok(rows)
}
