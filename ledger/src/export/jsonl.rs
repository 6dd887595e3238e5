//! JSON lines: one object per request, with the names of the CSV columns and numbers as numbers.

use crate::entry::AnswerSource;
use crate::format::{Column, Field, FormatError, Provenance, columns_of};
use crate::rows::Row;
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::io::Write;

/// Writes rows.
///
/// # Errors
/// Of the writer.
pub fn write(rows: &[Row], provenance: &Provenance, mut to: impl Write) -> Result<(), FormatError> {
    let columns = columns_of(rows);
    for row in rows {
        let line = Line {
            columns,
            row,
            provenance,
        };
        serde_json::to_writer(&mut to, &line)?;
        to.write_all(b"\n")?;
    }
    to.flush()?;
    Ok(())
}

struct Line<'a> {
    columns: &'a [Column],
    row: &'a Row,
    provenance: &'a Provenance,
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let row = self.row;
        let mut map = s.serialize_map(Some(self.columns.len()))?;
        for column in self.columns {
            let name = column.name;
            match column.field {
                Field::U32(get, _) => map.serialize_entry(name, &get(row)),
                Field::U64(get, _) => map.serialize_entry(name, &get(row)),
                Field::OptU32(get, _) => map.serialize_entry(name, &get(row)),
                Field::OptU64(get, _) => map.serialize_entry(name, &get(row)),
                Field::Bool(get, _) => map.serialize_entry(name, &get(row)),
                Field::OptBool(get, _) => map.serialize_entry(name, &get(row)),
                Field::End => map.serialize_entry(name, row.end.name()),
                Field::Name(of) => map.serialize_entry(name, self.provenance.name(of, row)),
                Field::Answer => map.serialize_entry(name, &row.answer.map(AnswerSource::name)),
            }?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::BLANK;
    use crate::rows::End;

    #[test]
    fn one_object_per_line() {
        let provenance = Provenance {
            class_names: vec!["chat".into()],
            ..Provenance::default()
        };
        let rows = [
            BLANK,
            Row {
                request: 1,
                end: End::Finished,
                started_ns: Some(7),
                ..BLANK
            },
        ];
        let mut file = Vec::new();
        write(&rows, &provenance, &mut file).unwrap();
        let text = String::from_utf8(file).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["started_ns"], serde_json::Value::Null);
        assert_eq!(lines[1]["started_ns"], 7);
        assert_eq!(lines[1]["end"], "finished");
        assert_eq!(lines[1]["class_name"], "chat");
    }
}
