//! Files, read once and digested in the order they are read.

use super::ProfileError;
use flate2::read::MultiGzDecoder;
use std::io::Read as _;
use std::path::Path;
use windtunnel_base::digest::RunDigest;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
/// The largest file that is read, unpacked.
const MAX_BYTES: u64 = 1 << 30;

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct Files {
    digest: RunDigest,
}

impl Files {
    /// The text of a file; if it is not there, of the same name with `.gz` behind it. The digest is
    /// of the text, so packing changes nothing.
    pub(super) fn text(&mut self, path: &Path) -> Result<String, ProfileError> {
        let packed = packed(path);
        let found = if path.is_file() { path } else { &packed };
        let error = |reason: String| {
            ProfileError::new(path, 0, reason, "check the path and the file's permissions")
        };
        let bytes = std::fs::read(found).map_err(|e| error(format!("cannot be read: {e}")))?;
        let mut text = String::new();
        let read = if bytes.starts_with(GZIP_MAGIC) {
            MultiGzDecoder::new(&bytes[..])
                .take(MAX_BYTES)
                .read_to_string(&mut text)
        } else {
            bytes.as_slice().read_to_string(&mut text)
        };
        read.map_err(|e| error(format!("is damaged or no text: {e}")))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.digest.absorb_bytes(name.as_bytes());
        self.digest.absorb_bytes(&(text.len() as u64).to_le_bytes());
        self.digest.absorb_bytes(text.as_bytes());
        Ok(text)
    }

    /// 32 hexadecimal digits of all that was read.
    pub(super) fn digest(&self) -> String {
        self.digest.hex()
    }
}

/// Whether a file is there, packed or not.
pub(super) fn is_here(path: &Path) -> bool {
    path.is_file() || packed(path).is_file()
}

fn packed(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}
