//! Parquet: one column per field, written through the low-level column writers, with statistics;
//! version, scenario hash, seed and names stand in the file's metadata.

use crate::format::{BLANK, COLUMNS, Column, EXTRA, FORMAT_VERSION, Field, FormatError};
use crate::format::{Provenance, Requests, columns_of, parse_answer, parse_end};
use crate::rows::Row;
use parquet::basic::{Compression, IntType, LogicalType, Repetition, Type as Physical};
use parquet::column::reader::get_typed_column_reader;
use parquet::column::writer::get_typed_column_writer_mut;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{ChunkReader, FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};
use std::io::Write;
use std::sync::Arc;

/// Rows of a row group: what a reader must take at once, and what filters by statistics can skip.
const ROW_GROUP: usize = 1 << 17;

const VERSION_KEY: &str = "windtunnel.version";
const HASH_KEY: &str = "windtunnel.scenario_hash";
const SEED_KEY: &str = "windtunnel.seed";
const CLASSES_KEY: &str = "windtunnel.class_names";
const TENANTS_KEY: &str = "windtunnel.tenant_names";

/// Writes rows.
///
/// # Errors
/// Of the writer.
pub fn write(
    rows: &[Row],
    provenance: &Provenance,
    to: impl Write + Send,
) -> Result<(), FormatError> {
    let columns = columns_of(rows);
    let mut file =
        SerializedFileWriter::new(to, schema(columns)?, Arc::new(properties(provenance)?))?;
    for rows in rows.chunks(ROW_GROUP) {
        let mut group = file.next_row_group()?;
        for column in columns {
            write_column(&mut group, column.field, rows, provenance)?;
        }
        group.close()?;
    }
    file.close()?;
    Ok(())
}

fn properties(provenance: &Provenance) -> Result<WriterProperties, FormatError> {
    let pair = |key: &str, value: String| KeyValue::new(key.to_owned(), value);
    let metadata = vec![
        pair(VERSION_KEY, FORMAT_VERSION.to_string()),
        pair(HASH_KEY, provenance.scenario_hash.clone()),
        pair(SEED_KEY, provenance.seed.to_string()),
        pair(CLASSES_KEY, serde_json::to_string(&provenance.class_names)?),
        pair(
            TENANTS_KEY,
            serde_json::to_string(&provenance.tenant_names)?,
        ),
    ];
    Ok(WriterProperties::builder()
        .set_created_by("windtunnel".to_owned())
        .set_compression(Compression::SNAPPY)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_key_value_metadata(Some(metadata))
        .build())
}

fn schema(columns: &[Column]) -> Result<TypePtr, FormatError> {
    let integer = |bit_width| {
        LogicalType::Integer(IntType {
            bit_width,
            is_signed: false,
        })
    };
    let fields = columns
        .iter()
        .map(|column| {
            let (physical, logical) = match column.field {
                Field::U32(..) | Field::OptU32(..) => (Physical::INT32, Some(integer(32))),
                Field::U64(..) | Field::OptU64(..) => (Physical::INT64, Some(integer(64))),
                Field::Bool(..) | Field::OptBool(..) => (Physical::BOOLEAN, None),
                Field::End | Field::Name(_) | Field::Answer => {
                    (Physical::BYTE_ARRAY, Some(LogicalType::String))
                }
            };
            let repetition = if column.field.optional() {
                Repetition::OPTIONAL
            } else {
                Repetition::REQUIRED
            };
            let field = Type::primitive_type_builder(column.name, physical)
                .with_logical_type(logical)
                .with_repetition(repetition)
                .build()?;
            Ok(Arc::new(field))
        })
        .collect::<Result<Vec<_>, FormatError>>()?;
    let group = Type::group_type_builder("requests").with_fields(fields);
    Ok(Arc::new(group.build()?))
}

fn write_column<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    field: Field,
    rows: &[Row],
    provenance: &Provenance,
) -> Result<(), FormatError> {
    // Unsigned integers travel in signed ones of the same width, bit by bit.
    match field {
        Field::U32(get, _) => put::<Int32Type, W>(group, rows, |r| get(r) as i32),
        Field::U64(get, _) => put::<Int64Type, W>(group, rows, |r| get(r) as i64),
        Field::OptU32(get, _) => put_some::<Int32Type, W>(group, rows, |r| Some(get(r)? as i32)),
        Field::OptU64(get, _) => put_some::<Int64Type, W>(group, rows, |r| Some(get(r)? as i64)),
        Field::Bool(get, _) => put::<BoolType, W>(group, rows, get),
        Field::OptBool(get, _) => put_some::<BoolType, W>(group, rows, get),
        Field::End => put::<ByteArrayType, W>(group, rows, |r| ByteArray::from(r.end.name())),
        Field::Name(of) => {
            put::<ByteArrayType, W>(group, rows, |r| ByteArray::from(provenance.name(of, r)))
        }
        Field::Answer => {
            put_some::<ByteArrayType, W>(group, rows, |r| Some(ByteArray::from(r.answer?.name())))
        }
    }
}

fn put<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    rows: &[Row],
    get: impl Fn(&Row) -> T::T,
) -> Result<(), FormatError> {
    let values: Vec<T::T> = rows.iter().map(get).collect();
    batch::<T, W>(group, &values, None)
}

fn put_some<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    rows: &[Row],
    get: impl Fn(&Row) -> Option<T::T>,
) -> Result<(), FormatError> {
    let values: Vec<T::T> = rows.iter().filter_map(&get).collect();
    let levels: Vec<i16> = rows.iter().map(|r| i16::from(get(r).is_some())).collect();
    batch::<T, W>(group, &values, Some(&levels))
}

/// Writes the next column of a group; `levels` say which values are there, if some may be absent.
pub(super) fn batch<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<(), FormatError> {
    let missing = || FormatError::Columns("the schema has fewer columns than the table".to_owned());
    let mut writer = group.next_column()?.ok_or_else(missing)?;
    get_typed_column_writer_mut::<T>(writer.untyped()).write_batch(values, levels, None)?;
    writer.close()?;
    Ok(())
}

/// Reads what [`write()`] wrote.
///
/// # Errors
/// A missing column or one of another type, another version, a cell that is no value of its
/// column.
pub fn read(from: impl ChunkReader + 'static) -> Result<Requests, FormatError> {
    let file = SerializedFileReader::new(from)?;
    let metadata = file.metadata().file_metadata();
    let pairs = metadata.key_value_metadata();
    let text = |key: &str| {
        let pair = pairs.and_then(|pairs| pairs.iter().find(|p| p.key == key));
        pair.and_then(|p| p.value.clone()).unwrap_or_default()
    };
    if text(VERSION_KEY) != FORMAT_VERSION.to_string() {
        return Err(FormatError::Columns(format!(
            "this is version `{}` of a table of requests, known is {FORMAT_VERSION}",
            text(VERSION_KEY)
        )));
    }
    let provenance = Provenance {
        scenario_hash: text(HASH_KEY),
        seed: text(SEED_KEY)
            .parse()
            .map_err(|_| FormatError::Columns(format!("`{SEED_KEY}` is no number")))?,
        class_names: serde_json::from_str(&text(CLASSES_KEY))?,
        tenant_names: serde_json::from_str(&text(TENANTS_KEY))?,
    };
    let mut rows = Vec::new();
    for group in 0..file.num_row_groups() {
        let group = file.get_row_group(group)?;
        let begin = rows.len();
        rows.resize(begin + group.metadata().num_rows() as usize, BLANK);
        let whole = has_column(group.as_ref(), COLUMNS[COLUMNS.len() - 1].name);
        let columns = COLUMNS.len() - if whole { 0 } else { EXTRA };
        for column in &COLUMNS[..columns] {
            read_column(
                group.as_ref(),
                column.name,
                column.field,
                &mut rows[begin..],
            )?;
        }
    }
    Ok(Requests { rows, provenance })
}

fn read_column(
    group: &dyn RowGroupReader,
    name: &str,
    field: Field,
    rows: &mut [Row],
) -> Result<(), FormatError> {
    match field {
        Field::U32(_, set) => {
            get::<Int32Type>(group, name, rows, |r, v| set(r, v.unwrap_or(0) as u32))
        }
        Field::U64(_, set) => {
            get::<Int64Type>(group, name, rows, |r, v| set(r, v.unwrap_or(0) as u64))
        }
        Field::OptU32(_, set) => {
            get::<Int32Type>(group, name, rows, |r, v| set(r, v.map(|v| v as u32)))
        }
        Field::OptU64(_, set) => {
            get::<Int64Type>(group, name, rows, |r, v| set(r, v.map(|v| v as u64)))
        }
        Field::Bool(_, set) => {
            get::<BoolType>(group, name, rows, |r, v| set(r, v.unwrap_or(false)))
        }
        Field::OptBool(_, set) => get::<BoolType>(group, name, rows, set),
        Field::End => {
            let mut unknown = None;
            get::<ByteArrayType>(group, name, rows, |r, v| {
                let word = v.as_ref().and_then(|v| v.as_utf8().ok()).unwrap_or("");
                match parse_end(word) {
                    Some(end) => r.end = end,
                    None => unknown = Some(word.to_owned()),
                }
            })?;
            unknown.map_or(Ok(()), |word| {
                Err(FormatError::Columns(format!("`{word}` is no end")))
            })
        }
        Field::Answer => {
            let mut unknown = None;
            get::<ByteArrayType>(group, name, rows, |r, v| {
                let word = v.as_ref().and_then(|v| v.as_utf8().ok());
                r.answer = word.and_then(parse_answer);
                if r.answer.is_none() {
                    unknown = word.map(str::to_owned).or(unknown.take());
                }
            })?;
            unknown.map_or(Ok(()), |word| {
                let said = format!("`{word}` is no source of answers");
                Err(FormatError::Columns(said))
            })
        }
        // They stand in the metadata, where names that no row has are kept as well.
        Field::Name(_) => Ok(()),
    }
}

fn has_column(group: &dyn RowGroupReader, name: &str) -> bool {
    let schema = group.metadata().schema_descr();
    schema.columns().iter().any(|c| c.name() == name)
}

fn get<T: DataType>(
    group: &dyn RowGroupReader,
    name: &str,
    rows: &mut [Row],
    mut set: impl FnMut(&mut Row, Option<T::T>),
) -> Result<(), FormatError> {
    let schema = group.metadata().schema_descr();
    let index = schema
        .columns()
        .iter()
        .position(|c| c.name() == name && c.physical_type() == T::get_physical_type())
        .ok_or_else(|| {
            let physical = T::get_physical_type();
            FormatError::Columns(format!("column `{name}` of type {physical} is missing"))
        })?;
    let optional = schema.column(index).max_def_level() > 0;
    let mut reader = get_typed_column_reader::<T>(group.get_column_reader(index)?);
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    let mut read = 0;
    while read < rows.len() {
        let levels = optional.then_some(&mut levels);
        let (records, ..) = reader.read_records(rows.len() - read, levels, None, &mut values)?;
        if records == 0 {
            return Err(FormatError::Columns(format!(
                "column `{name}` ends after {read} rows"
            )));
        }
        read += records;
    }
    let mut values = values.into_iter();
    for (i, row) in rows.iter_mut().enumerate() {
        let present = !optional || levels[i] > 0;
        let value = if present { values.next() } else { None };
        set(row, value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::any_requests;
    use proptest::prelude::*;
    use std::fs::File;

    fn through_a_file(requests: &Requests) -> (tempfile::TempDir, File) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("requests.parquet");
        let file = File::create(&path).unwrap();
        write(&requests.rows, &requests.provenance, file).unwrap();
        let file = File::open(path).unwrap();
        (dir, file)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_written_is_read(requests in any_requests()) {
            let (_dir, file) = through_a_file(&requests);
            prop_assert_eq!(read(file).unwrap(), requests);
        }
    }

    #[test]
    fn statistics_and_row_groups_are_there() {
        let rows: Vec<Row> = (0..ROW_GROUP as u32 + 5)
            .map(|request| Row { request, ..BLANK })
            .collect();
        let requests = Requests {
            rows,
            provenance: Provenance::default(),
        };
        let (_dir, file) = through_a_file(&requests);
        let reader = SerializedFileReader::new(file.try_clone().unwrap()).unwrap();
        assert_eq!(reader.num_row_groups(), 2);
        let statistics = reader.metadata().row_group(1).column(0).statistics();
        let min = statistics.unwrap().min_bytes_opt().unwrap();
        assert_eq!(min, (ROW_GROUP as i32).to_le_bytes());
        assert_eq!(read(file).unwrap().rows, requests.rows);
    }

    #[test]
    fn another_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        std::fs::write(&path, b"PAR1 nothing PAR1").unwrap();
        assert!(read(File::open(&path).unwrap()).is_err());
    }
}
