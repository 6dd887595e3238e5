//! Tables of comma-separated values with a header; columns are found by name.

use super::ProfileError;
use super::files::Files;
use std::path::{Path, PathBuf};

/// A table in memory.
#[derive(Debug)]
pub(super) struct Sheet {
    file: PathBuf,
    text: String,
    header: Vec<String>,
}

/// One row: the wanted columns in the order asked for.
#[derive(Debug)]
pub(super) struct Row<'a> {
    file: &'a Path,
    /// From 1.
    pub(super) line: u64,
    names: &'a [&'a str],
    fields: &'a csv::StringRecord,
    /// Where the wanted columns are.
    places: &'a [usize],
}

impl Sheet {
    pub(super) fn open(files: &mut Files, path: &Path) -> Result<Self, ProfileError> {
        let text = files.text(path)?;
        let text = text.trim_start_matches('\u{feff}').to_owned();
        let header = reader(&text)
            .headers()
            .map(|names| names.iter().map(str::to_owned).collect())
            .map_err(|e| no_table(path, &e))?;
        Ok(Self {
            file: path.to_owned(),
            header,
            text,
        })
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn has(&self, column: &str) -> bool {
        self.header.iter().any(|h| h == column)
    }

    /// Calls `take` for every row with the columns asked for.
    pub(super) fn rows(
        &self,
        columns: &[&str],
        mut take: impl FnMut(&Row<'_>) -> Result<(), ProfileError>,
    ) -> Result<(), ProfileError> {
        let mut places = Vec::new();
        for column in columns {
            let Some(place) = self.header.iter().position(|h| h == column) else {
                let has: String = self.header.join(", ").chars().take(200).collect();
                let reason = format!("column `{column}` is absent; it has: {has}");
                let remedy = "check the layout of the folder";
                return Err(ProfileError::new(&self.file, 1, reason, remedy));
            };
            places.push(place);
        }
        let mut reader = reader(&self.text);
        let mut row = csv::StringRecord::new();
        while reader
            .read_record(&mut row)
            .map_err(|e| no_table(&self.file, &e))?
        {
            let number = row.position().map_or(0, csv::Position::line);
            if row.len() != self.header.len() {
                let (here, there) = (row.len(), self.header.len());
                let reason = format!("the row has {here} fields where the header has {there}");
                return Err(ProfileError::new(
                    &self.file,
                    number,
                    reason,
                    "mend the row",
                ));
            }
            take(&Row {
                file: &self.file,
                line: number,
                names: columns,
                fields: &row,
                places: &places,
            })?;
        }
        Ok(())
    }

    /// The error that the file as a whole cannot be used.
    pub(super) fn error(&self, reason: impl Into<String>, remedy: &str) -> ProfileError {
        ProfileError::new(&self.file, 0, reason, remedy)
    }
}

impl<'a> Row<'a> {
    pub(super) fn text(&self, column: usize) -> &'a str {
        &self.fields[self.places[column]]
    }

    /// A whole number of 32 bits; `16.0` is one too.
    pub(super) fn whole(&self, column: usize) -> Result<u32, ProfileError> {
        let text = self.text(column);
        let whole = text.parse::<u32>().ok().or_else(|| {
            let float = text.parse::<f64>().ok()?;
            let fits = float.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&float);
            fits.then_some(float as u32)
        });
        whole.ok_or_else(|| self.error(column, format!("`{text}` is not a whole number")))
    }

    /// A whole number of 64 bits.
    pub(super) fn large(&self, column: usize) -> Result<u64, ProfileError> {
        let text = self.text(column);
        let error = |_| self.error(column, format!("`{text}` is not a whole number"));
        text.parse().map_err(error)
    }

    /// A finite number.
    pub(super) fn number(&self, column: usize) -> Result<f64, ProfileError> {
        let text = self.text(column);
        let number = text.parse::<f64>().ok().filter(|x| x.is_finite());
        number.ok_or_else(|| self.error(column, format!("`{text}` is not a number")))
    }

    /// A time: a finite number of zero or more.
    pub(super) fn time(&self, column: usize) -> Result<f64, ProfileError> {
        let time = self.number(column)?;
        if time < 0.0 {
            return Err(self.error(column, format!("{time} is no time")));
        }
        Ok(time)
    }

    /// The error that a column of this row cannot be used.
    pub(super) fn error(&self, column: usize, reason: impl std::fmt::Display) -> ProfileError {
        let reason = format!("column `{}`: {reason}", self.names[column]);
        ProfileError::new(
            self.file,
            self.line,
            reason,
            "mend the row, or measure again",
        )
    }

    /// The error that this row cannot stand here.
    pub(super) fn misplaced(&self, reason: impl Into<String>, remedy: &str) -> ProfileError {
        ProfileError::new(self.file, self.line, reason, remedy)
    }
}

fn reader(text: &str) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .flexible(true)
        .from_reader(text.as_bytes())
}

fn no_table(file: &Path, error: &csv::Error) -> ProfileError {
    let line = error.position().map_or(0, csv::Position::line);
    let reason = format!("cannot be read as a table: {error}");
    ProfileError::new(file, line, reason, "mend the row")
}
