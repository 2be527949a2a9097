//! Whole files through the reader.

mod any;
mod batches;
mod broken;
mod kinds;

use std::io::{self, Write};

use super::*;

/// Hands out a few bytes at a time, as a pipe does.
struct Dribble {
    bytes: io::Cursor<Vec<u8>>,
    step: usize,
}

impl Read for Dribble {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let step = self.step.min(buffer.len());
        self.bytes.read(&mut buffer[..step])
    }
}

fn open(bytes: impl Into<Vec<u8>>, limits: BatchLimits) -> Result<FileReader, FileError> {
    let reader = Dribble {
        bytes: io::Cursor::new(bytes.into()),
        step: 700_001,
    };
    FileReader::from_reader("sample", Box::new(reader), limits)
}

/// What a whole file gave.
#[derive(Debug, Default)]
struct Content {
    records: Vec<(Product, String)>,
    reasons: Vec<String>,
    places: Vec<usize>,
    error: Option<FileError>,
    ends: usize,
}

fn read(bytes: impl Into<Vec<u8>>) -> Content {
    read_with(bytes, BatchLimits::default())
}

fn read_with(bytes: impl Into<Vec<u8>>, limits: BatchLimits) -> Content {
    let mut all = Content::default();
    let reader = match open(bytes, limits) {
        Ok(reader) => reader,
        Err(error) => {
            return Content {
                error: Some(error),
                ..all
            };
        }
    };
    let mut offset = 0;
    for batch in reader {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                all.error = Some(error);
                continue;
            }
        };
        assert!(batch.records.len() + batch.malformed.len() <= limits.records_max);
        assert!(batch.offset > offset || batch.last, "the offset grows");
        assert!(batch.offset >= offset, "the offset never falls");
        offset = batch.offset;
        all.ends += usize::from(batch.last);
        for (product, record) in batch.records {
            let text = String::from_utf8(record.bytes().to_vec()).unwrap();
            all.records.push((product, text));
        }
        for malformed in batch.malformed {
            let (reason, place) = malformed.reason.rsplit_once(" (at byte ").unwrap();
            all.reasons.push(reason.to_owned());
            all.places
                .push(place.trim_end_matches(')').parse().unwrap());
        }
    }
    all
}

fn o365(number: usize) -> String {
    format!(
        r#"{{"CreationTime":"2026-01-01T00:00:00","Id":"{number}","Operation":"Set-Mailbox","ObjectId":"a\/b, \"c\"}}"}}"#
    )
}

fn google(number: usize) -> String {
    format!(
        r#"{{"kind":"admin#reports#activity","id":{{"time":"2026-01-01T00:00:00.000Z","uniqueQualifier":"{number}","applicationName":"drive"}},"events":[{{"name":"edit"}}]}}"#
    )
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn pretty(text: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    serde_json::to_string_pretty(&value).unwrap()
}

/// The same value, whatever the blanks.
fn value(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}
