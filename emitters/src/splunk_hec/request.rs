//! Bodies: events laid end to end within the limits, compressed where that pays.

use std::io::Write;
use std::ops::Range;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// Bodies up to this size are not compressed.
const GZIP_ABOVE_BYTES: usize = 1 << 10;

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

/// A body, and whether it is compressed.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    pub(super) gzip: bool,
}

/// Lays events end to end. Objects without any separator: arrays and commas break older servers.
pub(super) fn body<'a>(events: impl Iterator<Item = &'a Bytes>, gzip: bool) -> Body {
    let mut bytes = Vec::new();
    for event in events {
        bytes.extend_from_slice(event);
    }
    if gzip
        && bytes.len() > GZIP_ABOVE_BYTES
        && let Some(compressed) = compress(&bytes)
    {
        return Body {
            bytes: compressed.into(),
            gzip: true,
        };
    }
    Body {
        bytes: bytes.into(),
        gzip: false,
    }
}

/// Level 1: the fastest. Writing to memory does not fail; if it did, the body goes as it is.
fn compress(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;

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

    #[test]
    fn a_body_is_compressed_only_when_large_and_wanted() {
        let (small, large) = (Bytes::from_static(b"{}"), Bytes::from(vec![b'x'; 5_000]));
        assert!(!body([&small].into_iter(), true).gzip);
        assert!(!body([&large].into_iter(), false).gzip);
        let packed = body([&small, &large].into_iter(), true);
        assert!(packed.gzip && packed.bytes.len() < 1_000);
        let mut plain = String::new();
        let mut decoder = flate2::read::GzDecoder::new(&packed.bytes[..]);
        decoder.read_to_string(&mut plain).unwrap();
        assert_eq!(plain.len(), 5_002);
        assert!(plain.starts_with("{}x"));
    }
}
