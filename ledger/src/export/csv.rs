//! Comma-separated values: a header of names with units, then one line per request. Absent values are
//! empty cells. The first column is the version of the format, so that every line tells it.

use crate::format::{BLANK, COLUMNS, Column, FORMAT_VERSION, Field, FormatError};
use crate::format::{Provenance, Requests, columns_of, parse_answer, parse_end};
use crate::rows::Row;
use std::io::{Read, Write};

const VERSION: &str = "version";

/// Writes rows.
///
/// # Errors
/// Of the writer.
pub fn write(rows: &[Row], provenance: &Provenance, to: impl Write) -> Result<(), FormatError> {
    let mut csv = csv::Writer::from_writer(to);
    let columns = columns_of(rows);
    let names = columns.iter().map(|c| c.name);
    csv.write_record(std::iter::once(VERSION).chain(names))?;
    let version = FORMAT_VERSION.to_string();
    let mut cell = String::new();
    for row in rows {
        csv.write_field(&version)?;
        for column in columns {
            cell.clear();
            print(column.field, row, provenance, &mut cell);
            csv.write_field(&cell)?;
        }
        csv.write_record(None::<&[u8]>)?;
    }
    csv.flush()?;
    Ok(())
}

fn print(field: Field, row: &Row, provenance: &Provenance, to: &mut String) {
    use std::fmt::Write as _;
    // Writing to a string cannot fail.
    let _ = match field {
        Field::U32(get, _) => write!(to, "{}", get(row)),
        Field::U64(get, _) => write!(to, "{}", get(row)),
        Field::OptU32(get, _) => get(row).map_or(Ok(()), |v| write!(to, "{v}")),
        Field::OptU64(get, _) => get(row).map_or(Ok(()), |v| write!(to, "{v}")),
        Field::Bool(get, _) => write!(to, "{}", get(row)),
        Field::OptBool(get, _) => get(row).map_or(Ok(()), |v| write!(to, "{v}")),
        Field::End => write!(to, "{}", row.end.name()),
        Field::Name(of) => write!(to, "{}", provenance.name(of, row)),
        Field::Answer => row.answer.map_or(Ok(()), |a| write!(to, "{}", a.name())),
    };
}

/// Reads what [`write()`] wrote. Columns may come in any order, and those whose cells may be
/// empty may be missing.
///
/// # Errors
/// A missing or unknown column, another version, a cell that is no value of its column.
pub fn read(from: impl Read) -> Result<Requests, FormatError> {
    let mut csv = csv::Reader::from_reader(from);
    let places = places(csv.headers()?)?;
    let mut requests = Requests::default();
    let mut record = csv::StringRecord::new();
    let mut number = 0;
    while csv.read_record(&mut record)? {
        number += 1;
        let fail = |column: &str, reason: String| FormatError::Cell {
            row: number,
            column: column.to_owned(),
            reason,
        };
        let version = record.get(places.version).unwrap_or("");
        if version != FORMAT_VERSION.to_string() {
            let reason = format!("this is version `{version}`, known is {FORMAT_VERSION}");
            return Err(fail(VERSION, reason));
        }
        let mut row = BLANK;
        let cells = || {
            places
                .columns
                .iter()
                .map(|&(column, at)| (column, record.get(at).unwrap_or("")))
        };
        for (column, cell) in cells() {
            parse(column.field, cell, &mut row).map_err(|reason| fail(column.name, reason))?;
        }
        // Names need the ranks, wherever their columns stand.
        for (column, cell) in cells() {
            if let Field::Name(of) = column.field {
                requests.provenance.learn(of, &row, cell);
            }
        }
        requests.rows.push(row);
    }
    Ok(requests)
}

/// Where the columns stand.
struct Places {
    version: usize,
    columns: Vec<(Column, usize)>,
}

fn places(header: &csv::StringRecord) -> Result<Places, FormatError> {
    let at = |name: &str| header.iter().position(|h| h == name);
    let known = |name: &str| name == VERSION || COLUMNS.iter().any(|c| c.name == name);
    if let Some(unknown) = header.iter().find(|name| !known(name)) {
        return Err(FormatError::Columns(format!("unknown column `{unknown}`")));
    }
    let columns: Vec<_> = COLUMNS
        .iter()
        .filter_map(|&column| Some((column, at(column.name)?)))
        .collect();
    let missing = |c: &&Column| at(c.name).is_none() && !c.field.optional();
    match (at(VERSION), COLUMNS.iter().find(missing)) {
        (Some(version), None) => Ok(Places { version, columns }),
        (version, column) => Err(FormatError::Columns(format!(
            "column `{}` is missing",
            column
                .filter(|_| version.is_some())
                .map_or(VERSION, |c| c.name)
        ))),
    }
}

fn parse(field: Field, cell: &str, row: &mut Row) -> Result<(), String> {
    fn value<T: std::str::FromStr>(cell: &str) -> Result<T, String> {
        cell.parse().map_err(|_| {
            let what = std::any::type_name::<T>();
            format!("`{cell}` is no {what}")
        })
    }
    fn optional<T: std::str::FromStr>(cell: &str) -> Result<Option<T>, String> {
        (!cell.is_empty()).then(|| value(cell)).transpose()
    }
    match field {
        Field::U32(_, set) => set(row, value(cell)?),
        Field::U64(_, set) => set(row, value(cell)?),
        Field::OptU32(_, set) => set(row, optional(cell)?),
        Field::OptU64(_, set) => set(row, optional(cell)?),
        Field::Bool(_, set) => set(row, value(cell)?),
        Field::OptBool(_, set) => set(row, optional(cell)?),
        Field::End => {
            row.end = parse_end(cell).ok_or_else(|| format!("`{cell}` is no end"))?;
        }
        Field::Name(_) => {}
        Field::Answer if cell.is_empty() => row.answer = None,
        Field::Answer => {
            let source = parse_answer(cell);
            row.answer = Some(source.ok_or_else(|| format!("`{cell}` is no source of answers"))?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::any_requests;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(requests in any_requests()) {
            let mut file = Vec::new();
            write(&requests.rows, &requests.provenance, &mut file).unwrap();
            let read = read(file.as_slice()).unwrap();
            prop_assert_eq!(&read.rows, &requests.rows);
            prop_assert_eq!(&read.provenance.class_names, &requests.provenance.class_names);
            prop_assert_eq!(&read.provenance.tenant_names, &requests.provenance.tenant_names);
        }
    }

    #[test]
    fn the_header_is_stable() {
        let mut file = Vec::new();
        write(&[], &Provenance::default(), &mut file).unwrap();
        assert_eq!(
            String::from_utf8(file).unwrap(),
            "version,request,session,turn,tenant,tenant_name,class,class_name,replica,end,measured,\
             sent_ns,dispatched_ns,accepted_ns,started_ns,first_token_ns,generated_ns,last_token_ns,ended_ns,\
             prompt_tokens,cached_tokens,output_tokens,preemptions,accepted_by_verifier,good,\
             met_objectives\n"
        );
    }

    #[test]
    fn bad_files_say_what_and_where() {
        let mut file = Vec::new();
        write(&[BLANK], &Provenance::default(), &mut file).unwrap();
        let good = String::from_utf8(file).unwrap();
        let error = |text: String| read(text.as_bytes()).unwrap_err().to_string();
        let said = error(good.replace("sent_ns", "sent_ms"));
        assert_eq!(said, "unknown column `sent_ms`");
        let said = error(good.replace(",sent_ns", "").replacen(",0", "", 1));
        assert_eq!(said, "column `sent_ns` is missing");
        let said = error(good.replace("unfinished", "vanished"));
        assert_eq!(said, "row 1, column `end`: `vanished` is no end");
        let said = error(good.replace("\n1,", "\n7,"));
        assert!(said.contains("version `7`"), "{said}");
    }
}
