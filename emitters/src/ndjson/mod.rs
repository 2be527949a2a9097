//! JSON lines: findings as OCSF documents, raw records and internal items as they are.
//!
//! One item is one line whatever it holds: line breaks between members become blanks, and inside
//! a string valid JSON has none.

mod file;
mod stdout;

use exfilwatch_model::{Envelope, Finding, Kind};

use crate::contract::{Delivered, Refusal};
use crate::formats::ocsf::Document;
use crate::formats::text::one_line;

pub use file::Ndjson;
pub use stdout::Stdout;

/// Most lines and bytes of payload in a batch.
const BATCH_MAX: (usize, usize) = (10_000, 4 << 20);

/// Appends the line of an item, with its line break.
fn append_line(envelope: &Envelope, lines: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    match envelope.kind {
        Kind::Findings | Kind::Signals => {
            let finding: Finding = serde_json::from_slice(&envelope.payload)?;
            serde_json::to_writer(&mut *lines, &Document::new(&finding))?;
        }
        Kind::Events | Kind::Internal => lines.extend_from_slice(&one_line(&envelope.payload)),
    }
    lines.push(b'\n');
    Ok(())
}

/// Notes an item that is no JSON, and takes back what was written of it.
fn refuse(index: usize, error: &serde_json::Error, delivered: &mut Delivered) {
    delivered.refused.push(Refusal {
        index,
        reason: format!("not the JSON it should be: {error}"),
    });
}
