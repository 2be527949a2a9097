//! Plain, gzip or zstd, told by the first bytes.

use std::io::{Cursor, Read};

use flate2::read::MultiGzDecoder;

use super::error::FileError;

/// Bytes that tell every kind below.
const MAGIC_BYTES: usize = 6;

/// The decoded content. Archives of other kinds are refused with the command that opens them.
pub(super) fn decoded(
    name: &str,
    mut reader: Box<dyn Read + Send>,
) -> Result<Box<dyn Read + Send>, FileError> {
    let open = |source| FileError::Open {
        name: name.to_owned(),
        source,
    };
    let mut magic = Vec::with_capacity(MAGIC_BYTES);
    (&mut reader)
        .take(MAGIC_BYTES as u64)
        .read_to_end(&mut magic)
        .map_err(open)?;
    let refused = match magic.as_slice() {
        [b'P', b'K', 3, 4, ..] => Some(("a zip archive", "unzip -p FILE")),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Some(("xz data", "xz -dc FILE")),
        [b'B', b'Z', b'h', ..] => Some(("bzip2 data", "bzip2 -dc FILE")),
        _ => None,
    };
    if let Some((kind, command)) = refused {
        return Err(FileError::Unsupported {
            name: name.to_owned(),
            reason: format!("it is {kind}; give its content as standard input: {command} | … -"),
        });
    }
    let is_gzip = magic.starts_with(&[0x1f, 0x8b]);
    let is_zstd = matches!(
        magic.as_slice(),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]
    );
    let whole = Cursor::new(magic).chain(reader);
    Ok(if is_gzip {
        Box::new(MultiGzDecoder::new(whole))
    } else if is_zstd {
        Box::new(zstd::Decoder::new(whole).map_err(open)?)
    } else {
        Box::new(whole)
    })
}
