//! What a file holds, in 32 bytes, so that a file seen before is told by its content.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

use super::error::FileError;

/// Bytes read at a time.
const BLOCK_BYTES: usize = 256 << 10;

/// SHA-256 of a file as it lies on the disk (compressed, if it is). Printed in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentDigest([u8; SHA256_OUTPUT_LEN]);

impl ContentDigest {
    /// Reads the whole file, in blocks.
    pub fn of_file(path: &Path) -> Result<Self, FileError> {
        let name = path.display().to_string();
        let open = |source| FileError::Open {
            name: name.clone(),
            source,
        };
        let mut file = File::open(path).map_err(open)?;
        let mut context = Context::new(&SHA256);
        let mut block = vec![0; BLOCK_BYTES];
        let mut offset = 0;
        loop {
            let count = file.read(&mut block).map_err(|source| FileError::Read {
                name: name.clone(),
                offset,
                source,
            })?;
            if count == 0 {
                break;
            }
            context.update(&block[..count]);
            offset += count as u64;
        }
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(context.finish().as_ref());
        Ok(Self(bytes))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; SHA256_OUTPUT_LEN] {
        &self.0
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
