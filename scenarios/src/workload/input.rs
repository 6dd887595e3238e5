//! Files of traces: found, unpacked by their first bytes (never by their name), checksummed while
//! they are read, and given out line by line. Nothing is held in memory but the line at hand.

use super::{Facts, FileFact, TrafficError};
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use xxhash_rust::xxh3::Xxh3;

/// The longest line that is read: beyond it the file is no text. (The longest agent sessions take
/// some 30 MB.)
const MAX_LINE: u64 = 256 << 20;
/// How many examples of bad rows are kept.
const MAX_EXAMPLES: usize = 5;
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Where trace files are looked for, and what is done about bad rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// The folder of the scenario file.
    pub(crate) dir: Option<&'a Path>,
    /// The folder of traces.
    pub(crate) traces: Option<&'a Path>,
    /// Leave out rows that cannot be used.
    pub(crate) skip_bad_rows: bool,
}

impl Source<'_> {
    /// Finds a file: as it stands if absolute, else in the scenario's folder, else in the folder
    /// of traces; there also with `.gz` or `.zst` behind its name.
    fn find(&self, file: &str) -> Result<PathBuf, TrafficError> {
        let bases: Vec<&Path> = if Path::new(file).is_absolute() {
            vec![Path::new("")]
        } else {
            self.dir.into_iter().chain(self.traces).collect()
        };
        let mut tried = Vec::new();
        for base in bases {
            for ending in ["", ".gz", ".zst"] {
                let path = base.join(format!("{file}{ending}"));
                if path.is_file() {
                    return Ok(path);
                }
                if ending.is_empty() {
                    tried.push(path);
                }
            }
        }
        Err(TrafficError::NotFound {
            file: file.to_owned(),
            tried,
        })
    }

    /// Opens a file for reading by lines.
    pub(crate) fn open(&self, file: &str) -> Result<Lines, TrafficError> {
        let path = self.find(file)?;
        let unreadable = |source| TrafficError::Unreadable {
            file: path.clone(),
            source,
        };
        let stored = Rc::new(RefCell::new(Stored::default()));
        let raw = Stamped {
            file: File::open(&path).map_err(unreadable)?,
            stored: Rc::clone(&stored),
        };
        let mut raw = BufReader::with_capacity(1 << 16, raw);
        let begin = raw.fill_buf().map_err(unreadable)?;
        let reader: Box<dyn BufRead> = if begin.starts_with(GZIP_MAGIC) {
            Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(raw)))
        } else if begin.starts_with(ZSTD_MAGIC) {
            let frames = ZstdFrames {
                source: raw,
                decoder: None,
            };
            Box::new(BufReader::with_capacity(1 << 16, frames))
        } else {
            Box::new(raw)
        };
        Ok(Lines {
            file: file.to_owned(),
            path,
            reader,
            stored,
            line: 0,
            rows: 0,
            buffer: Vec::new(),
        })
    }
}

/// What was read of a file as it is stored.
#[derive(Default)]
struct Stored {
    bytes: u64,
    hash: Xxh3,
}

/// Counts and hashes what passes.
struct Stamped {
    file: File,
    stored: Rc<RefCell<Stored>>,
}

impl Read for Stamped {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buf)?;
        let mut stored = self.stored.borrow_mut();
        stored.bytes += n as u64;
        stored.hash.update(&buf[..n]);
        Ok(n)
    }
}

/// A zstd file: one frame after another, with their checksums.
struct ZstdFrames<R> {
    source: R,
    /// The frame being read.
    decoder: Option<FrameDecoder>,
}

impl<R: BufRead> ZstdFrames<R> {
    /// Begins the next frame; false at the end of the file.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            let mut decoder = FrameDecoder::new();
            match decoder.init(&mut self.source) {
                Ok(()) => {
                    self.decoder = Some(decoder);
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    io::copy(
                        &mut (&mut self.source).take(u64::from(length)),
                        &mut io::sink(),
                    )?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            let Some(decoder) = &mut self.decoder else {
                if self.begin()? {
                    continue;
                }
                return Ok(0);
            };
            if decoder.can_collect() > 0 {
                return decoder.read(buf);
            }
            if decoder.is_finished() {
                let (said, is) = (
                    decoder.get_checksum_from_data(),
                    decoder.get_calculated_checksum(),
                );
                if said.is_some() && is.is_some() && said != is {
                    return Err(io::Error::other("the checksum of its zstd frame is wrong"));
                }
                self.decoder = None;
                continue;
            }
            decoder
                .decode_blocks(
                    &mut self.source,
                    ruzstd::decoding::BlockDecodingStrategy::UptoBlocks(1),
                )
                .map_err(io::Error::other)?;
        }
    }
}

/// A file, line by line.
pub(crate) struct Lines {
    file: String,
    path: PathBuf,
    reader: Box<dyn BufRead>,
    stored: Rc<RefCell<Stored>>,
    /// Number of the line at hand, from 1.
    line: u64,
    rows: u64,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

impl Lines {
    /// Goes to the next line that is not blank; false at the end. A byte order mark in front of
    /// the first line is passed over.
    ///
    /// # Errors
    /// If the file cannot be read on.
    pub(crate) fn advance(&mut self) -> Result<bool, TrafficError> {
        loop {
            self.buffer.clear();
            let mut reader = (&mut self.reader).take(MAX_LINE);
            let n = reader
                .read_until(b'\n', &mut self.buffer)
                .map_err(|error| self.damaged(error.to_string()))?;
            if n == 0 {
                return Ok(false);
            }
            if n as u64 == MAX_LINE {
                return Err(self.damaged("a line is longer than 256 MiB".into()));
            }
            self.line += 1;
            if self.line == 1 && self.buffer.starts_with(BOM) {
                self.buffer.drain(..BOM.len());
            }
            let text = self.buffer.trim_ascii_end().len();
            self.buffer.truncate(text);
            if text > 0 {
                self.rows += 1;
                return Ok(true);
            }
        }
    }

    /// The line at hand, without its end.
    pub(crate) fn text(&self) -> &[u8] {
        &self.buffer
    }

    /// The error that the line at hand shows another format.
    pub(crate) fn wrong_format(&self, reason: String) -> TrafficError {
        TrafficError::Format {
            file: self.path.clone(),
            line: self.line,
            reason,
        }
    }

    /// The error that there is nothing to play.
    pub(crate) fn empty(&self, reason: &str) -> TrafficError {
        TrafficError::Empty {
            file: self.path.clone(),
            reason: reason.into(),
        }
    }

    fn damaged(&self, reason: String) -> TrafficError {
        TrafficError::Damaged {
            file: self.path.clone(),
            line: self.line,
            reason,
        }
    }

    /// What to do about a bad row: an error, or left out and counted.
    pub(crate) fn bad_row(
        &self,
        bad: Bad,
        source: &Source<'_>,
        facts: &mut Facts,
    ) -> Result<(), TrafficError> {
        let error = TrafficError::Row {
            file: self.path.clone(),
            line: self.line,
            column: bad.column,
            reason: bad.reason,
        };
        if !source.skip_bad_rows {
            return Err(error);
        }
        facts.skipped_rows += 1;
        if facts.skipped_examples.len() < MAX_EXAMPLES
            && let TrafficError::Row {
                line,
                column,
                reason,
                ..
            } = error
        {
            let colon = if column.is_empty() { "" } else { ": " };
            let file = &self.file;
            facts
                .skipped_examples
                .push(format!("{file}:{line}: {column}{colon}{reason}"));
        }
        Ok(())
    }

    /// Reads to the end and takes note of the file. `header` lines are not rows.
    pub(crate) fn finish(mut self, header: u64, facts: &mut Facts) -> Result<(), TrafficError> {
        while self.advance()? {}
        let stored = self.stored.borrow();
        facts.files.push(FileFact {
            file: self.file.clone(),
            bytes: stored.bytes,
            xxh3: format!("{:032x}", stored.hash.digest128()),
            rows: self.rows.saturating_sub(header),
        });
        Ok(())
    }
}

/// Why a row cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Bad {
    /// The column; empty for the row as a whole.
    pub(crate) column: String,
    /// What is wrong.
    pub(crate) reason: String,
}

impl Bad {
    /// A bad value in a column.
    pub(crate) fn new(column: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            column: column.into(),
            reason: reason.into(),
        }
    }
}
