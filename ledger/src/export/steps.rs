//! Steps of replicas, one row each, as CSV or Parquet: written while a run goes on, so that memory does not
//! follow its length.

use super::parquet::batch;
use crate::format::FormatError;
use parquet::basic::{Compression, IntType, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, Int64Type};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{Type, TypePtr};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Rows that are kept until they are written: a row group of a Parquet file.
const AT_ONCE: usize = 1 << 16;

/// One step of a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StepRow {
    /// Rank of the step in the run, by its end; from 0.
    pub step: u64,
    /// Which replica.
    pub replica: u32,
    /// When it began, in ns.
    pub start_ns: u64,
    /// When it ended, in ns.
    pub end_ns: u64,
    /// Requests that computed prompt tokens.
    pub prefill_requests: u32,
    /// Prompt tokens computed.
    pub prefill_tokens: u64,
    /// Tokens those requests had in KV before.
    pub prefill_context: u64,
    /// Requests that generated a token each.
    pub decode_requests: u32,
    /// Tokens those had in KV before.
    pub decode_context: u64,
    /// Tokens that came out.
    pub emitted_tokens: u32,
    /// Bytes moved between host and device.
    pub swap_bytes: u64,
    /// The cost model was outside the range it was measured on.
    pub extrapolated: bool,
    /// The replica after the step; none where the run was cut off within it.
    pub after: Option<AfterStep>,
}

/// A replica after a step: who finished has left, nobody has joined yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AfterStep {
    /// Requests in the batch.
    pub running: u32,
    /// Requests waiting.
    pub waiting: u32,
    /// KV blocks that running requests hold.
    pub kv_held_blocks: u64,
    /// KV blocks with content that nobody holds.
    pub kv_cached_blocks: u64,
    /// KV blocks in all.
    pub kv_total_blocks: u64,
}

/// A column: its name with the unit, and what stands in it.
#[derive(Clone, Copy, Debug)]
pub struct StepColumn {
    /// Name in both formats.
    pub name: &'static str,
    value: Value,
}

#[derive(Clone, Copy, Debug)]
enum Value {
    Number(fn(&StepRow) -> u64),
    After(fn(&AfterStep) -> u64),
    Extrapolated,
}

const fn number(name: &'static str, get: fn(&StepRow) -> u64) -> StepColumn {
    let value = Value::Number(get);
    StepColumn { name, value }
}

const fn after(name: &'static str, get: fn(&AfterStep) -> u64) -> StepColumn {
    let value = Value::After(get);
    StepColumn { name, value }
}

/// The columns of both formats, in their order.
pub const STEP_COLUMNS: [StepColumn; 17] = [
    number("step", |s| s.step),
    number("replica", |s| s.replica as u64),
    number("start_ns", |s| s.start_ns),
    number("end_ns", |s| s.end_ns),
    number("prefill_requests", |s| s.prefill_requests as u64),
    number("prefill_tokens", |s| s.prefill_tokens),
    number("prefill_context", |s| s.prefill_context),
    number("decode_requests", |s| s.decode_requests as u64),
    number("decode_context", |s| s.decode_context),
    number("emitted_tokens", |s| s.emitted_tokens as u64),
    number("swap_bytes", |s| s.swap_bytes),
    StepColumn {
        name: "extrapolated",
        value: Value::Extrapolated,
    },
    after("running", |a| a.running as u64),
    after("waiting", |a| a.waiting as u64),
    after("kv_held_blocks", |a| a.kv_held_blocks),
    after("kv_cached_blocks", |a| a.kv_cached_blocks),
    after("kv_total_blocks", |a| a.kv_total_blocks),
];

/// The formats of steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StepFormat {
    /// A header and a line per step; absent values are empty.
    Csv,
    /// A column per value, of 64 bits without sign.
    Parquet,
}

impl StepFormat {
    /// The format that a file's name asks for by its end: `.csv` or `.parquet`.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "csv" => Some(Self::Csv),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// Writes steps as they come.
pub struct StepWriter<W: Write + Send> {
    to: To<W>,
    rows: Vec<StepRow>,
    told: u64,
    /// The first thing that went wrong; nothing is written after it.
    error: Option<FormatError>,
}

enum To<W: Write + Send> {
    Csv(W),
    Parquet(Box<SerializedFileWriter<W>>),
}

impl<W: Write + Send> std::fmt::Debug for StepWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepWriter")
            .field("told", &self.told)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl<W: Write + Send> StepWriter<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// Of the writer.
    pub fn new(format: StepFormat, mut to: W) -> Result<Self, FormatError> {
        let to = match format {
            StepFormat::Csv => {
                let names: Vec<&str> = STEP_COLUMNS.iter().map(|c| c.name).collect();
                writeln!(to, "{}", names.join(","))?;
                To::Csv(to)
            }
            StepFormat::Parquet => {
                let properties = WriterProperties::builder()
                    .set_created_by("windtunnel".to_owned())
                    .set_compression(Compression::SNAPPY)
                    .set_statistics_enabled(EnabledStatistics::Chunk)
                    .build();
                let file = SerializedFileWriter::new(to, schema()?, Arc::new(properties))?;
                To::Parquet(Box::new(file))
            }
        };
        Ok(Self {
            to,
            rows: Vec::new(),
            told: 0,
            error: None,
        })
    }

    /// Adds a step; its rank is given to it here. What goes wrong is told at the end.
    pub fn push(&mut self, row: StepRow) {
        if self.error.is_some() {
            return;
        }
        let step = self.told;
        self.told += 1;
        self.rows.push(StepRow { step, ..row });
        if self.rows.len() >= AT_ONCE {
            self.error = self.flush().err();
        }
    }

    /// Ends the file and hands back where it was written to.
    ///
    /// # Errors
    /// The first of the writer, whenever it came.
    pub fn finish(mut self) -> Result<W, FormatError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        self.flush()?;
        match self.to {
            To::Csv(mut to) => {
                to.flush()?;
                Ok(to)
            }
            To::Parquet(file) => Ok(file.into_inner()?),
        }
    }

    fn flush(&mut self) -> Result<(), FormatError> {
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Ok(());
        }
        match &mut self.to {
            To::Csv(to) => rows.iter().try_for_each(|row| line(row, to))?,
            To::Parquet(file) => group(&rows, file)?,
        }
        self.rows = rows;
        self.rows.clear();
        Ok(())
    }
}

fn line(row: &StepRow, to: &mut impl Write) -> Result<(), FormatError> {
    for (i, column) in STEP_COLUMNS.iter().enumerate() {
        if i > 0 {
            to.write_all(b",")?;
        }
        match column.value {
            Value::Number(get) => write!(to, "{}", get(row))?,
            Value::Extrapolated => write!(to, "{}", row.extrapolated)?,
            Value::After(get) => row
                .after
                .map_or(Ok(()), |state| write!(to, "{}", get(&state)))?,
        }
    }
    to.write_all(b"\n")?;
    Ok(())
}

fn group<W: Write + Send>(
    rows: &[StepRow],
    file: &mut SerializedFileWriter<W>,
) -> Result<(), FormatError> {
    let mut group = file.next_row_group()?;
    for column in &STEP_COLUMNS {
        // Unsigned integers travel in signed ones of the same width, bit by bit.
        match column.value {
            Value::Number(get) => {
                let values: Vec<i64> = rows.iter().map(|r| get(r) as i64).collect();
                batch::<Int64Type, W>(&mut group, &values, None)?;
            }
            Value::Extrapolated => {
                let values: Vec<bool> = rows.iter().map(|r| r.extrapolated).collect();
                batch::<BoolType, W>(&mut group, &values, None)?;
            }
            Value::After(get) => {
                let states = rows.iter().filter_map(|r| r.after.as_ref());
                let values: Vec<i64> = states.map(|a| get(a) as i64).collect();
                let levels: Vec<i16> = rows.iter().map(|r| i16::from(r.after.is_some())).collect();
                batch::<Int64Type, W>(&mut group, &values, Some(&levels))?;
            }
        }
    }
    group.close()?;
    Ok(())
}

fn schema() -> Result<TypePtr, FormatError> {
    let unsigned = LogicalType::Integer(IntType {
        bit_width: 64,
        is_signed: false,
    });
    let fields = STEP_COLUMNS
        .iter()
        .map(|column| {
            let (physical, logical, repetition) = match column.value {
                Value::Number(_) => (
                    Physical::INT64,
                    Some(unsigned.clone()),
                    Repetition::REQUIRED,
                ),
                Value::After(_) => (
                    Physical::INT64,
                    Some(unsigned.clone()),
                    Repetition::OPTIONAL,
                ),
                Value::Extrapolated => (Physical::BOOLEAN, None, Repetition::REQUIRED),
            };
            let field = Type::primitive_type_builder(column.name, physical)
                .with_logical_type(logical)
                .with_repetition(repetition)
                .build()?;
            Ok(Arc::new(field))
        })
        .collect::<Result<Vec<_>, FormatError>>()?;
    let group = Type::group_type_builder("steps").with_fields(fields);
    Ok(Arc::new(group.build()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::file::reader::{FileReader as _, SerializedFileReader};

    fn rows() -> impl Iterator<Item = StepRow> {
        (0..AT_ONCE as u64 + 3).map(|i| StepRow {
            step: 0,
            replica: (i % 3) as u32,
            start_ns: 10 * i,
            end_ns: u64::MAX - i,
            prefill_requests: 1,
            prefill_tokens: 2,
            prefill_context: 3,
            decode_requests: 4,
            decode_context: 5,
            emitted_tokens: 6,
            swap_bytes: 7,
            extrapolated: i % 2 == 1,
            after: (i % 5 != 0).then_some(AfterStep {
                running: 8,
                waiting: 9,
                kv_held_blocks: 10,
                kv_cached_blocks: 11,
                kv_total_blocks: 12,
            }),
        })
    }

    fn written(format: StepFormat) -> Result<Vec<u8>, FormatError> {
        let mut writer = StepWriter::new(format, Vec::new())?;
        rows().for_each(|row| writer.push(row));
        writer.finish()
    }

    #[test]
    fn lines_are_the_steps_in_order() -> Result<(), Box<dyn std::error::Error>> {
        let text = String::from_utf8(written(StepFormat::Csv)?)?;
        let mut lines = text.lines();
        let header = lines.next().unwrap_or_default();
        assert_eq!(header.split(',').count(), STEP_COLUMNS.len());
        assert!(header.starts_with("step,replica,start_ns,end_ns,"));
        let lines: Vec<&str> = lines.collect();
        assert_eq!(lines.len(), AT_ONCE + 3);
        assert_eq!(
            lines[0],
            format!("0,0,0,{},1,2,3,4,5,6,7,false,,,,,", u64::MAX)
        );
        let second = format!("1,1,10,{},1,2,3,4,5,6,7,true,8,9,10,11,12", u64::MAX - 1);
        assert_eq!(lines[1], second);
        Ok(())
    }

    #[test]
    fn parquet_holds_the_same() -> Result<(), Box<dyn std::error::Error>> {
        let csv = String::from_utf8(written(StepFormat::Csv)?)?;
        let mut file = tempfile::tempfile()?;
        file.write_all(&written(StepFormat::Parquet)?)?;
        let reader = SerializedFileReader::new(file)?;
        let mut read = Vec::new();
        for row in reader.get_row_iter(None)? {
            let cells: Vec<String> = row?
                .get_column_iter()
                .map(|(_, cell)| cell.to_string())
                .map(|cell| if cell == "null" { String::new() } else { cell })
                .collect();
            read.push(cells.join(","));
        }
        assert_eq!(read, csv.lines().skip(1).collect::<Vec<_>>());
        Ok(())
    }

    #[test]
    fn a_full_disk_shows_at_the_end() -> Result<(), FormatError> {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or_else(|| {
                    std::io::Error::new(std::io::ErrorKind::StorageFull, "no space left")
                })?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut writer = StepWriter::new(StepFormat::Csv, Full(1000))?;
        rows().for_each(|row| writer.push(row));
        let error = writer.finish().err().map(|e| e.to_string());
        assert_eq!(error.as_deref(), Some("no space left"));
        Ok(())
    }
}
