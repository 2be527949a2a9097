//! The way out: a state folder as JSON lines, for people and for [`crate::import`].
//!
//! Order: one `state` line; the quarantined files; the frames of the outbox that some lane still
//! needs; the entries of the store, sorted; one `end` line with the count, so that a file that was
//! cut short is noticed.

use std::io::Write;

use exfilwatch_model::{Kind, StreamId, TenantId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::commit::Position;
use crate::contract::{StateError, StateStore};
use crate::disk;
use crate::layout::{self, FORMAT_VERSION, Family};
use crate::outbox::{Damage, FrameWalk};
use crate::quarantine;
use crate::state::{QUARANTINE_FOLDER, State};
use crate::table::Table;

/// Bytes: as text where they are UTF-8, else as hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Blob {
    Text(String),
    Hex { hex: String },
}

impl Blob {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Hex { hex: to_hex(bytes) },
        }
    }

    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Text(text) => Some(text.clone().into_bytes()),
            Self::Hex { hex } => from_hex(hex),
        }
    }
}

/// An item of the outbox.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ItemLine {
    pub(crate) stream: StreamId,
    pub(crate) id: String,
    pub(crate) time: Option<chrono::DateTime<chrono::Utc>>,
    pub(crate) fetched_at: chrono::DateTime<chrono::Utc>,
    pub(crate) payload: Blob,
}

/// One line of an export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub(crate) enum Line {
    State {
        format: u32,
        tool: String,
        hash_key: String,
        outbox_end: Position,
        lanes_from: Option<Position>,
    },
    QuarantineFile {
        name: String,
        content: Blob,
    },
    Frame {
        position: Position,
        kind: Kind,
        tenant: TenantId,
        items: Vec<ItemLine>,
    },
    Entry {
        key: Vec<Blob>,
        value: Value,
    },
    Seen {
        key: Vec<Blob>,
        fingerprints: Vec<String>,
    },
    Window {
        key: Vec<Blob>,
        detector: String,
        memory_key: Blob,
        value: Blob,
    },
    End {
        lines: u64,
    },
}

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exported {
    /// Lines, the first and last included.
    pub lines: u64,
    /// Items of the outbox among them.
    pub items: u64,
    /// Stretches of the outbox that could not be read and are not in the export.
    pub damage: Vec<Damage>,
}

impl State {
    /// Writes all of the state as JSON lines.
    pub fn export(&self, out: &mut dyn Write) -> Result<Exported, StateError> {
        let mut export = Export {
            out,
            done: Exported::default(),
        };
        let store = self.store();
        export.line(&Line::State {
            format: FORMAT_VERSION,
            tool: env!("CARGO_PKG_VERSION").to_owned(),
            hash_key: to_hex(&store.hash_key()?),
            outbox_end: self.outbox_end(),
            lanes_from: store.lanes_from()?,
        })?;
        export.quarantine(self)?;
        export.frames(self)?;
        store.table().walk(&[], &[], &mut |key, value| {
            let body = layout::open(key, value).map_err(|reason| store.corrupt(reason))?;
            let line = entry_line(key, body).map_err(|reason| store.corrupt(reason))?;
            line.map_or(Ok(()), |line| export.line(&line))?;
            Ok(true)
        })?;
        let lines = export.done.lines + 1;
        export.line(&Line::End { lines })?;
        export
            .out
            .flush()
            .map_err(disk::failed("writing", EXPORT))?;
        Ok(export.done)
    }
}

/// Name of the output in errors.
const EXPORT: &str = "the export";

struct Export<'a> {
    out: &'a mut dyn Write,
    done: Exported,
}

impl Export<'_> {
    fn line(&mut self, line: &Line) -> Result<(), StateError> {
        let mut bytes = layout::to_json("a line of the export", line)?;
        bytes.push(b'\n');
        self.done.lines += 1;
        self.out
            .write_all(&bytes)
            .map_err(disk::failed("writing", EXPORT))
    }

    fn quarantine(&mut self, state: &State) -> Result<(), StateError> {
        let folder = state.folder().join(QUARANTINE_FOLDER);
        for (name, _) in quarantine::files(&folder)? {
            if let Some(content) = disk::read(&folder.join(&name))? {
                let content = Blob::of(&content);
                self.line(&Line::QuarantineFile { name, content })?;
            }
        }
        Ok(())
    }

    fn frames(&mut self, state: &State) -> Result<(), StateError> {
        let mut walk = FrameWalk::new(&state.outbox_folder(), state.needed_from()?);
        let mut damage = Vec::new();
        while let Some((position, frame)) = walk.next_whole(state.outbox_end(), &mut damage)? {
            self.done.items += frame.items.len() as u64;
            let item = |item: exfilwatch_model::Envelope| ItemLine {
                stream: item.stream,
                id: item.id,
                time: item.time,
                fetched_at: item.fetched_at,
                payload: Blob::of(&item.payload),
            };
            self.line(&Line::Frame {
                position,
                kind: frame.kind,
                tenant: frame.tenant,
                items: frame.items.into_iter().map(item).collect(),
            })?;
        }
        self.done.damage = damage;
        Ok(())
    }
}

/// The line of an entry; `None` for what stands in the first line.
fn entry_line(key: &[u8], body: &[u8]) -> Result<Option<Line>, String> {
    let unreadable = || format!("{} does not read", layout::display(key));
    let parts = layout::parts(key).ok_or_else(unreadable)?;
    let family = parts
        .first()
        .and_then(|name| Family::from_name(std::str::from_utf8(name).ok()?))
        .ok_or_else(unreadable)?;
    let key_parts = parts.iter().map(|part| Blob::of(part)).collect();
    Ok(match family {
        Family::Meta => None,
        Family::Seen => Some(Line::Seen {
            key: key_parts,
            fingerprints: layout::unpack_fingerprints(body)?
                .iter()
                .map(|fingerprint| format!("{fingerprint:016x}"))
                .collect(),
        }),
        Family::Window => {
            let (detector, memory_key, value) =
                layout::unpack_window(body).ok_or_else(unreadable)?;
            Some(Line::Window {
                key: key_parts,
                detector: detector.to_owned(),
                memory_key: Blob::of(memory_key),
                value: Blob::of(value),
            })
        }
        _ => Some(Line::Entry {
            key: key_parts,
            value: layout::from_json(key, body)?,
        }),
    })
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 0xF])
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect()
}

pub(crate) fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    rest.is_empty()
        .then(|| pairs.iter().map(byte).collect::<Option<Vec<u8>>>())
        .flatten()
}
