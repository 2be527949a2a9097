//! Bodies: events laid end to end within the limits, compressed where that pays.
//!
//! A body that is not compressed is laid out while it is sent, a chunk at a time, so it is never in memory
//! whole; compressing is done in a task of its own. Either way the tasks that drive lanes stay free.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::Write;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body::{Frame, SizeHint};

use super::encoded::Encoded;

/// Bodies up to this size are not compressed.
const GZIP_ABOVE_BYTES: usize = 1 << 10;
/// So much is laid out at a time, unless an event is larger: it stays in the processor's cache until it is
/// sent or compressed.
const CHUNK_BYTES: usize = 64 << 10;

/// Cuts the sizes of events into runs within the limits, which count bytes before compression.
/// A larger event is a run by itself. Runs cover all events in order.
pub(super) fn runs(sizes: &[usize], events_max: usize, bytes_max: usize) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let (mut start, mut bytes) = (0, 0_usize);
    for (at, size) in sizes.iter().enumerate() {
        let full = at - start >= events_max.max(1) || bytes.saturating_add(*size) > bytes_max;
        if at > start && full {
            runs.push(start..at);
            (start, bytes) = (at, 0);
        }
        bytes = bytes.saturating_add(*size);
    }
    if start < sizes.len() {
        runs.push(start..sizes.len());
    }
    runs
}

/// The events of a request, end to end. Objects without any separator: arrays and commas break older
/// servers.
#[derive(Debug)]
pub(super) struct Load {
    encoded: Arc<Encoded>,
    /// Its pieces.
    run: Vec<usize>,
    /// Pieces that go without `fields`.
    plain: BTreeSet<usize>,
}

impl Load {
    /// Of these pieces of a batch.
    pub(super) fn new(encoded: &Arc<Encoded>, run: &[usize], plain: &BTreeSet<usize>) -> Self {
        Self {
            encoded: Arc::clone(encoded),
            run: run.to_vec(),
            plain: plain.clone(),
        }
    }

    /// Of the piece at a place of the run.
    fn parts(&self, place: usize) -> [&[u8]; 4] {
        let piece = self.run.get(place).copied().unwrap_or(usize::MAX);
        self.encoded.parts(piece, !self.plain.contains(&piece))
    }

    fn length(&self, place: usize) -> usize {
        self.parts(place).iter().map(|part| part.len()).sum()
    }
}

/// The text of a load in chunks of whole events.
#[derive(Debug)]
pub(super) struct Chunks {
    load: Arc<Load>,
    next: usize,
    bytes_left: usize,
}

impl Chunks {
    fn of(load: &Arc<Load>) -> Self {
        Self {
            load: Arc::clone(load),
            next: 0,
            bytes_left: (0..load.run.len()).map(|at| load.length(at)).sum(),
        }
    }
}

impl Chunks {
    /// Appends the next chunk; nothing where there is none.
    fn lay_out(&mut self, chunk: &mut Vec<u8>) {
        let (mut end, mut bytes) = (self.next, 0);
        while end < self.load.run.len() {
            let more = self.load.length(end);
            if bytes > 0 && bytes + more > CHUNK_BYTES {
                break;
            }
            (end, bytes) = (end + 1, bytes + more);
        }
        chunk.reserve_exact(bytes);
        for at in self.next..end {
            for part in self.load.parts(at) {
                chunk.extend_from_slice(part);
            }
        }
        (self.next, self.bytes_left) = (end, self.bytes_left - bytes);
    }
}

impl Iterator for Chunks {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut chunk = Vec::new();
        self.lay_out(&mut chunk);
        (!chunk.is_empty()).then_some(chunk)
    }
}

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = self.next();
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes_left == 0
    }

    /// Exact, so that the length stands in the head: not everything before an indexer takes a body without.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes_left as u64)
    }
}

/// A body.
#[derive(Debug)]
pub(super) enum Body {
    /// Laid out while it is sent.
    Chunks(Chunks),
    Gzip(Bytes),
    /// A question, which is short.
    Text(String),
}

impl Body {
    pub(super) fn is_gzip(&self) -> bool {
        matches!(self, Self::Gzip(_))
    }
}

impl From<Body> for reqwest::Body {
    fn from(body: Body) -> Self {
        match body {
            Body::Chunks(chunks) => Self::wrap(chunks),
            Body::Gzip(bytes) => bytes.into(),
            Body::Text(text) => text.into(),
        }
    }
}

/// The body for a load; the same load gives the same one.
pub(super) async fn body(load: Load, gzip: bool) -> Body {
    let load = Arc::new(load);
    let chunks = Chunks::of(&load);
    if !gzip || chunks.bytes_left <= GZIP_ABOVE_BYTES {
        return Body::Chunks(chunks);
    }
    match tokio::spawn(compress(chunks)).await {
        Ok(Ok(bytes)) => Body::Gzip(bytes.into()),
        // Writing to memory does not fail; if it did, the body goes as it is.
        Ok(Err(_)) | Err(_) => Body::Chunks(Chunks::of(&load)),
    }
}

/// Level 1: the fastest. Others have their turn after each chunk, which takes about a tenth of a millisecond.
async fn compress(mut chunks: Chunks) -> std::io::Result<Vec<u8>> {
    let room = Vec::with_capacity(chunks.bytes_left / 4);
    let mut encoder = GzEncoder::new(room, Compression::fast());
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    while chunks.bytes_left > 0 {
        chunk.clear();
        chunks.lay_out(&mut chunk);
        encoder.write_all(&chunk)?;
        tokio::task::yield_now().await;
    }
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use chrono::DateTime;
    use exfilwatch_model::{Envelope, Kind};
    use proptest::prelude::*;

    use super::super::encoded::Encoder;
    use super::*;

    #[test]
    fn runs_keep_the_limits_and_a_large_event_goes_alone() {
        assert_eq!(runs(&[1, 1, 1], 2, 100), [0..2, 2..3]);
        assert_eq!(runs(&[50, 50, 1], 10, 100), [0..2, 2..3]);
        assert_eq!(runs(&[10, 500, 10], 10, 100), [0..1, 1..2, 2..3]);
        assert!(runs(&[], 10, 100).is_empty());
    }

    proptest! {
        #[test]
        fn runs_cover_everything_once(
            sizes in proptest::collection::vec(0_usize..200, 0..50),
            events_max in 0_usize..10,
            bytes_max in 0_usize..300,
        ) {
            let runs = runs(&sizes, events_max, bytes_max);
            let covered: Vec<usize> = runs.iter().cloned().flatten().collect();
            prop_assert_eq!(covered, (0..sizes.len()).collect::<Vec<_>>());
            for run in runs {
                let bytes: usize = sizes[run.clone()].iter().sum();
                prop_assert!(run.len() <= events_max.max(1));
                prop_assert!(bytes <= bytes_max || run.len() == 1);
            }
        }
    }

    /// A batch with records of these sizes.
    fn encoded(sizes: &[usize]) -> Arc<Encoded> {
        let options = serde_json::json!({ "url": "http://127.0.0.1", "token": { "env": "T" } });
        let options = serde_json::from_value(options).unwrap();
        let mut encoder = Encoder::new(&options, sizes.len());
        for (item, size) in sizes.iter().enumerate() {
            let envelope = Envelope {
                kind: Kind::Events,
                stream: "contoso/office365/dlp".parse().unwrap(),
                id: item.to_string(),
                time: None,
                fetched_at: DateTime::UNIX_EPOCH,
                payload: format!(r#"{{"x":"{}"}}"#, "y".repeat(*size)).into(),
            };
            encoder.add(item, &envelope).unwrap();
        }
        Arc::new(encoder.finish())
    }

    /// Its text, piece by piece.
    fn whole(encoded: &Encoded, run: &[usize], plain: &BTreeSet<usize>) -> Vec<u8> {
        let piece = |at: &usize| {
            let text = encoded.parts(*at, !plain.contains(at)).concat();
            assert!(plain.contains(at) || text.len() == encoded.pieces[*at].length());
            text
        };
        run.iter().flat_map(piece).collect()
    }

    #[tokio::test]
    async fn chunks_hold_all_events_of_the_run_in_order_and_know_their_length() {
        let encoded = encoded(&[10, CHUNK_BYTES, 10, CHUNK_BYTES / 2, 3 * CHUNK_BYTES, 0]);
        let plain = BTreeSet::from([2, 5]);
        for run in [vec![0, 1, 2, 3, 4, 5], vec![2], vec![5, 4, 0], vec![]] {
            let expected = whole(&encoded, &run, &plain);
            let Body::Chunks(chunks) = body(Load::new(&encoded, &run, &plain), false).await else {
                panic!("compressed")
            };
            let size = http_body::Body::size_hint(&chunks).exact();
            assert_eq!(size, Some(expected.len() as u64));
            let chunks: Vec<Vec<u8>> = chunks.collect();
            assert_eq!(chunks.concat(), expected);
            let is_bounded = |chunk: &Vec<u8>| {
                let events = chunk.windows(7).filter(|text| text == b"\"time\":").count();
                chunk.len() <= CHUNK_BYTES || events == 1
            };
            assert!(chunks.iter().all(is_bounded));
        }
    }

    #[tokio::test]
    async fn a_body_is_compressed_only_when_large_and_wanted_and_always_to_the_same() {
        let encoded = encoded(&[1, 5_000, 3 * CHUNK_BYTES]);
        let of = |run: &[usize], gzip| body(Load::new(&encoded, run, &BTreeSet::new()), gzip);
        assert!(!of(&[0], true).await.is_gzip());
        assert!(!of(&[0, 1, 2], false).await.is_gzip());
        let (once, again) = (of(&[0, 1, 2], true).await, of(&[0, 1, 2], true).await);
        let (Body::Gzip(once), Body::Gzip(again)) = (once, again) else {
            panic!("not compressed")
        };
        assert!(once == again && once.len() < 10_000);
        let mut text = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(&once[..]);
        decoder.read_to_end(&mut text).unwrap();
        assert!(text == whole(&encoded, &[0, 1, 2], &BTreeSet::new()));
    }
}
