//! JSON lines: findings as OCSF documents, raw records and internal items as they are.
//!
//! One item is one line whatever it holds: line breaks between members become blanks, and inside
//! a string valid JSON has none.

mod file;
mod rotation;
mod stdout;

use std::borrow::Cow;

use bytes::Bytes;
use exfilwatch_model::{Envelope, Finding, Kind};

use crate::contract::{Delivered, Refusal};
use crate::formats::ocsf::Document;
use crate::formats::text::one_line;

pub(crate) use file::failed;

pub use file::Ndjson;
pub use stdout::Stdout;

/// Most lines and bytes of payload in a batch.
const BATCH_MAX: (usize, usize) = (10_000, 4 << 20);

/// The line of an item, without its line break. A record's is the record itself, not a copy.
pub(crate) fn line(envelope: &Envelope) -> Result<Bytes, serde_json::Error> {
    match envelope.kind {
        Kind::Findings | Kind::Signals => {
            let finding: Finding = serde_json::from_slice(&envelope.payload)?;
            serde_json::to_vec(&Document::new(&finding)).map(Bytes::from)
        }
        Kind::Events | Kind::Internal => Ok(match one_line(&envelope.payload) {
            Cow::Borrowed(_) => envelope.payload.clone(),
            Cow::Owned(line) => line.into(),
        }),
    }
}

/// Notes an item that is no JSON.
pub(crate) fn refuse(index: usize, error: &serde_json::Error, delivered: &mut Delivered) {
    delivered.refused.push(Refusal {
        index,
        reason: format!("not the JSON it should be: {error}"),
    });
}
