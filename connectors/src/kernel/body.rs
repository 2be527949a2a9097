//! Bodies under a cap: what is decoded is counted while it streams, so that neither a long body
//! nor a small one that unpacks to a long one fills memory.

use std::io::Write;

use bytes::{Bytes, BytesMut};
use flate2::write::MultiGzDecoder;
use futures::StreamExt;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, Response};

use super::transport::{BodyStream, TransportError};

/// Largest blob, decoded, in bytes.
pub const BLOB_BYTES_MAX: usize = 256 << 20;
/// Largest body of anything else, decoded, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 20;
/// Largest body of a token response or an error, decoded, in bytes.
pub const SMALL_BODY_BYTES_MAX: usize = 256 << 10;
/// Bytes that may come out of one byte that went in, once more than [`RATIO_FREE_BYTES`] are out.
pub const RATIO_MAX: usize = 200;
/// Decoded bytes before the ratio is looked at.
pub const RATIO_FREE_BYTES: usize = 1 << 20;
/// Compressed bytes decoded between two looks at the caps: at most 1 MiB comes out of them.
const STEP_BYTES: usize = 1 << 10;
/// Decoded bytes gathered before they are handed on.
const PIECE_BYTES: usize = 128 << 10;

/// Why a body cannot be read to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The network, or a body that is cut short: try again.
    #[error("{0}")]
    Broken(String),
    /// Over the cap, or packed beyond belief: it will be so the next time, too.
    #[error("{0}")]
    TooLarge(String),
}

impl From<TransportError> for BodyError {
    fn from(error: TransportError) -> Self {
        Self::Broken(error.0)
    }
}

/// A body that is being decoded.
pub struct Body {
    pieces: BodyStream,
    gzip: Option<MultiGzDecoder<Vec<u8>>>,
    cap: usize,
    taken: usize,
    given: usize,
    input: Bytes,
    ended: bool,
}

impl Body {
    /// Takes the body out of a response. Knows `gzip` and no encoding, one layer.
    pub fn new(response: Response<BodyStream>, cap: usize) -> Result<Self, BodyError> {
        let gzip = is_gzip(response.headers())?.then(|| MultiGzDecoder::new(Vec::new()));
        Ok(Self {
            pieces: response.into_body(),
            gzip,
            cap,
            taken: 0,
            given: 0,
            input: Bytes::new(),
            ended: false,
        })
    }

    /// The next decoded piece; `None` at the end of the body.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        let mut out = BytesMut::new();
        while out.len() < PIECE_BYTES && !self.ended {
            if self.input.is_empty() {
                match self.pieces.next().await {
                    Some(piece) => self.input = piece?,
                    None => self.end(&mut out)?,
                }
                self.taken += self.input.len();
            }
            if self.gzip.is_none() {
                let piece = std::mem::take(&mut self.input);
                self.count(piece.len())?;
                if !piece.is_empty() {
                    return Ok(Some(piece));
                }
            }
            self.unpack(&mut out)?;
        }
        Ok((!out.is_empty()).then(|| out.freeze()))
    }

    /// The whole body.
    pub async fn read_all(mut self) -> Result<Bytes, BodyError> {
        let mut all = BytesMut::new();
        while let Some(piece) = self.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    fn unpack(&mut self, out: &mut BytesMut) -> Result<(), BodyError> {
        while !self.input.is_empty() && out.len() < PIECE_BYTES {
            let Some(gzip) = &mut self.gzip else {
                return Ok(());
            };
            let step = self.input.split_to(self.input.len().min(STEP_BYTES));
            gzip.write_all(&step).map_err(|e| corrupt(&e))?;
            let decoded = std::mem::take(gzip.get_mut());
            self.count(decoded.len())?;
            out.extend_from_slice(&decoded);
        }
        Ok(())
    }

    fn end(&mut self, out: &mut BytesMut) -> Result<(), BodyError> {
        self.ended = true;
        if let Some(gzip) = &mut self.gzip {
            gzip.try_finish().map_err(|e| corrupt(&e))?;
            let decoded = std::mem::take(gzip.get_mut());
            self.count(decoded.len())?;
            out.extend_from_slice(&decoded);
        }
        Ok(())
    }

    fn count(&mut self, decoded: usize) -> Result<(), BodyError> {
        self.given += decoded;
        if self.given > self.cap {
            return Err(BodyError::TooLarge(format!(
                "the body is larger than {} MiB decoded",
                self.cap >> 20
            )));
        }
        if self.given > RATIO_FREE_BYTES && self.given > self.taken.saturating_mul(RATIO_MAX) {
            return Err(BodyError::TooLarge(format!(
                "the body unpacks to more than {RATIO_MAX} times its size"
            )));
        }
        Ok(())
    }
}

fn corrupt(error: &std::io::Error) -> BodyError {
    BodyError::Broken(format!("the gzip body is damaged or cut short: {error}"))
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, BodyError> {
    let mut layers = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or("?").split(','))
        .map(|layer| layer.trim().to_ascii_lowercase())
        .filter(|layer| !layer.is_empty() && layer != "identity");
    match (layers.next().as_deref(), layers.next()) {
        (None, _) => Ok(false),
        (Some("gzip" | "x-gzip"), None) => Ok(true),
        _ => Err(BodyError::TooLarge(
            "the body is encoded in a way that was not asked for".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use futures::stream;

    fn response(encoding: &str, pieces: Vec<Bytes>) -> Response<BodyStream> {
        Response::builder()
            .header(CONTENT_ENCODING, encoding)
            .body(stream::iter(pieces).map(Ok).boxed())
            .unwrap()
    }

    fn gzip(bytes: &[u8]) -> Bytes {
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap().into()
    }

    #[tokio::test]
    async fn plain_and_packed_bodies_come_out_the_same_however_they_are_cut() {
        let text: Vec<u8> = (0..400_000_u32).flat_map(u32::to_le_bytes).collect();
        let packed = gzip(&text);
        let cut = |all: &Bytes, step: usize| -> Vec<Bytes> {
            all.chunks(step).map(Bytes::copy_from_slice).collect()
        };
        for step in [1_usize, 999, 70_000, 10_000_000] {
            let step = step.max(packed.len() / 2_000);
            for (encoding, all) in [("gzip", &packed), ("identity", &Bytes::from(text.clone()))] {
                let body = Body::new(response(encoding, cut(all, step)), BODY_BYTES_MAX).unwrap();
                assert!(body.read_all().await.unwrap() == text, "{encoding} {step}");
            }
        }
    }

    #[tokio::test]
    async fn a_bomb_is_stopped_by_ratio_and_a_long_body_by_the_cap() {
        let bomb = gzip(&vec![0; 64 << 20]);
        let body = Body::new(response("gzip", vec![bomb]), BLOB_BYTES_MAX).unwrap();
        let error = body.read_all().await.unwrap_err();
        assert!(matches!(&error, BodyError::TooLarge(why) if why.contains("200 times")));
        let long = vec![Bytes::from(vec![b'x'; 1_000]); 20];
        let body = Body::new(response("", long), 10_000).unwrap();
        assert!(matches!(body.read_all().await, Err(BodyError::TooLarge(_))));
    }

    #[tokio::test]
    async fn a_body_cut_short_is_broken_and_not_an_end() {
        let packed = gzip(b"[{\"a\":1},{\"a\":2}]");
        let cut = packed.slice(..packed.len() - 9);
        let body = Body::new(response("gzip", vec![cut]), BODY_BYTES_MAX).unwrap();
        assert!(matches!(body.read_all().await, Err(BodyError::Broken(_))));
    }

    #[test]
    fn a_second_layer_is_refused() {
        for encoding in ["gzip, gzip", "br", "gzip, br"] {
            assert!(
                Body::new(response(encoding, vec![]), 1).is_err(),
                "{encoding}"
            );
        }
    }
}
