//! VTC arena (OSDI '24): CSV with `req_id,adapter,prompt_len,output_len,req_time_s`. Adapters are
//! tenants.

use super::super::input::Source;
use super::super::table::Table;
use super::super::{Facts, TrafficError};
use super::{Rows, note_empty_answers};

/// Reads a VTC trace.
pub(crate) fn read(
    file: &str,
    source: &Source<'_>,
    facts: &mut Facts,
) -> Result<Rows, TrafficError> {
    let mut table = Table::open(
        source.open(file)?,
        &[
            &["adapter"],
            &["prompt_len"],
            &["output_len"],
            &["req_time_s", "req_time"],
        ],
    )?;
    let mut rows = Rows::default();
    let mut empty_answers = 0_u64;
    while table.advance()? {
        let row = table.check_width().and_then(|()| {
            let adapter = table.whole(0, 1 << 20)?;
            Ok((
                adapter,
                table.tokens(1, 1)?,
                table.tokens(2, 0)?,
                table.seconds(3)?,
            ))
        });
        match row {
            Ok((adapter, input, output, at)) => {
                empty_answers += u64::from(output == 0);
                rows.at.push(at);
                rows.input.push(input);
                rows.output.push(output.max(1));
                let tenant = rows.tenants.number(&format!("adapter-{adapter}"));
                rows.tenant.push(tenant);
            }
            Err(bad) => table.lines().bad_row(bad, source, facts)?,
        }
    }
    note_empty_answers(empty_answers, facts);
    table.into_lines().finish(1, facts)?;
    Ok(rows)
}
