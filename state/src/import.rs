//! The way in: a state folder from an export. Made beside its place and moved there when it is
//! whole, so that an import that fails leaves nothing that looks like a state.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, Read, Write};
use std::path::Path;

use chrono::{DateTime, Utc};
use exfilwatch_model::{Envelope, Kind};

use crate::commit::{LaneMark, Position};
use crate::contract::StateError;
use crate::disk;
use crate::export::{Blob, ItemLine, Line, from_hex};
use crate::layout::{self, FORMAT_VERSION, Family, Key};
use crate::migrate;
use crate::prepare::Preparation;
use crate::state::{Options, QUARANTINE_FOLDER, State};
use crate::store::LANES_FROM;

/// Longest line taken: a frame's items with every byte escaped.
const LINE_BYTES_MAX: u64 = 256 << 20;
/// Entries written in one batch.
const BATCH_ENTRIES_MAX: usize = 1_000;

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    /// Lines.
    pub lines: u64,
    /// Entries of the store.
    pub entries: u64,
    /// Items of the outbox.
    pub items: u64,
}

/// Makes a state folder of an export. The folder must be absent or empty.
pub fn import(
    folder: &Path,
    input: &mut dyn BufRead,
    now: DateTime<Utc>,
) -> Result<Imported, StateError> {
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(invalid(format!("{} is not empty", folder.display())));
    }
    let mut beside = folder.as_os_str().to_owned();
    beside.push(".importing");
    let beside = Path::new(&beside);
    if beside.exists() {
        fs::remove_dir_all(beside).map_err(disk::failed("removing", beside))?;
    }
    let imported = fill(beside, input, now).inspect_err(|_| {
        // What is left is removed by the next import.
        drop(fs::remove_dir_all(beside));
    })?;
    fs::rename(beside, folder).map_err(disk::failed("moving", beside))?;
    match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => disk::sync_folder(parent)?,
        _ => {}
    }
    Ok(imported)
}

fn invalid(reason: String) -> StateError {
    StateError::Invalid { reason }
}

fn fill(
    folder: &Path,
    input: &mut dyn BufRead,
    now: DateTime<Utc>,
) -> Result<Imported, StateError> {
    let mut lines = Lines { input, number: 0 };
    let Some(Line::State {
        format,
        hash_key,
        lanes_from,
        ..
    }) = lines.next()?
    else {
        return Err(invalid("the first line is not of a state".to_owned()));
    };
    if format > FORMAT_VERSION {
        return Err(StateError::Version {
            folder: folder.to_owned(),
            found: format,
            known: FORMAT_VERSION,
        });
    }
    let hash_key = from_hex(&hash_key).and_then(|key| key.try_into().ok());
    let options = Options {
        hash_key: Some(hash_key.ok_or_else(|| invalid("the key does not read".to_owned()))?),
        ..Options::default()
    };
    let mut filling = Filling {
        state: State::open(folder, now, options)?.state,
        moved: BTreeMap::new(),
        entries: Vec::new(),
        imported: Imported::default(),
    };
    loop {
        match lines.next()? {
            Some(Line::End { lines: expected }) if expected == lines.number => break,
            Some(Line::End { .. }) => {
                return Err(invalid("lines of the export are missing".to_owned()));
            }
            Some(line) => filling
                .take(line)
                .map_err(|reason| invalid(format!("line {}: {reason}", lines.number)))??,
            None => return Err(invalid("the export is cut short".to_owned())),
        }
    }
    filling.write_entries()?;
    if let Some(from) = lanes_from {
        filling.keep_lanes_from(from)?;
    }
    filling.state.write_mirror(now)?;
    filling.imported.lines = lines.number;
    Ok(filling.imported)
}

struct Lines<'a> {
    input: &'a mut dyn BufRead,
    number: u64,
}

impl Lines<'_> {
    fn next(&mut self) -> Result<Option<Line>, StateError> {
        let mut line = Vec::new();
        let read = (&mut *self.input)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .map_err(disk::failed("reading", "the export"))?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        serde_json::from_slice(&line)
            .map(Some)
            .map_err(|error| invalid(format!("line {} does not read: {error}", self.number)))
    }
}

/// The state in the making.
struct Filling {
    state: State,
    /// Where frames were, and where they are now.
    moved: BTreeMap<Position, Position>,
    entries: Vec<(Family, Key, Vec<u8>)>,
    imported: Imported,
}

/// The outer error says what is wrong with the line, the inner one is the disk's.
type Taken = Result<Result<(), StateError>, String>;

impl Filling {
    fn take(&mut self, line: Line) -> Taken {
        match line {
            Line::State { .. } | Line::End { .. } => Err("only once in an export".to_owned()),
            Line::QuarantineFile { name, content } => self.take_file(&name, &content),
            Line::Frame {
                position,
                kind,
                tenant,
                items,
            } => {
                let envelope = |item: ItemLine| {
                    Some(Envelope {
                        kind,
                        payload: item.payload.bytes()?.into(),
                        stream: item.stream,
                        id: item.id,
                        time: item.time,
                        fetched_at: item.fetched_at,
                    })
                };
                let items: Option<Vec<_>> = items.into_iter().map(envelope).collect();
                let items = items.ok_or("a payload does not read")?;
                // Emitters rely on it, and an export can have been written by anybody.
                if kind == Kind::Events && !items.iter().all(Envelope::is_whole) {
                    return Err("a record of the outbox is no JSON object".to_owned());
                }
                self.imported.items += items.len() as u64;
                Ok(self
                    .state
                    .outbox_mut()
                    .append_one(kind, &tenant, &items)
                    .map(|(at, _)| {
                        self.moved.insert(position, at);
                    }))
            }
            Line::Entry { key, value } => {
                let (family, key) = key_of(&key)?;
                if family == Family::Gap {
                    let (key, body) = migrate::gap_entry(value)?;
                    return Ok(self.add(family, key, body));
                }
                let value = if family == Family::Lane {
                    self.moved_mark(value)?
                } else {
                    value
                };
                let body = serde_json::to_vec(&value).map_err(|error| error.to_string())?;
                Ok(self.add(family, key, body))
            }
            Line::Seen { key, fingerprints } => {
                let (family, key) = key_of(&key)?;
                let read = |text: &String| u64::from_str_radix(text, 16).ok();
                let read: Option<Vec<u64>> = fingerprints.iter().map(read).collect();
                let read = read.ok_or("a fingerprint does not read")?;
                Ok(self.add(family, key, layout::pack_fingerprints(&read)))
            }
            Line::Window {
                key,
                detector,
                memory_key,
                value,
            } => {
                let (family, key) = key_of(&key)?;
                let memory_key = memory_key.bytes().ok_or("a key does not read")?;
                let value = value.bytes().ok_or("a value does not read")?;
                let body = layout::pack_window(&detector, &memory_key, &value);
                Ok(body.and_then(|body| self.add(family, key, body)))
            }
        }
    }

    fn take_file(&mut self, name: &str, content: &Blob) -> Taken {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
        if name.starts_with('.') || !name.chars().all(plain) {
            return Err(format!("{name:?} is no name of a file in quarantine"));
        }
        let content = content.bytes().ok_or("the content does not read")?;
        let path = self.state.folder().join(QUARANTINE_FOLDER).join(name);
        Ok(disk::create(&path).and_then(|mut file| {
            file.write_all(&content)
                .and_then(|()| file.sync_all())
                .map_err(disk::failed("writing", path))
        }))
    }

    fn add(&mut self, family: Family, key: Key, body: Vec<u8>) -> Result<(), StateError> {
        self.entries.push((family, key, body));
        if self.entries.len() < BATCH_ENTRIES_MAX {
            return Ok(());
        }
        self.write_entries()
    }

    /// Writes what has come together, with the outbox as it is.
    fn write_entries(&mut self) -> Result<(), StateError> {
        self.imported.entries += self.entries.len() as u64;
        let entries = std::mem::take(&mut self.entries);
        self.state.write_imported(|preparation| {
            for (family, key, body) in entries {
                preparation.put(family, key, body)?;
            }
            Ok(())
        })
    }

    /// A lane's mark, moved with the frames.
    fn moved_mark(&self, value: serde_json::Value) -> Result<serde_json::Value, String> {
        let read = serde_json::from_value(value).map_err(|error| error.to_string());
        let mut mark: LaneMark = read?;
        mark.position = self.moved_position(mark.position);
        serde_json::to_value(mark).map_err(|error| error.to_string())
    }

    fn moved_position(&self, old: Position) -> Position {
        let frame = Position { item: 0, ..old };
        match self.moved.range(frame..).next() {
            Some((was, is)) if *was == frame => Position {
                item: old.item,
                ..*is
            },
            Some((_, is)) => *is,
            None => self.state.appended_end(),
        }
    }

    fn keep_lanes_from(&mut self, from: Position) -> Result<(), StateError> {
        let from = self.moved_position(from);
        self.state.write_imported(|preparation| {
            preparation.put_json(Family::Meta, layout::meta(LANES_FROM), &from)
        })
    }
}

fn key_of(parts: &[Blob]) -> Result<(Family, Key), String> {
    let mut parts = parts.iter();
    let family = match parts.next() {
        Some(Blob::Text(name)) => Family::from_name(name),
        _ => None,
    };
    let family = family.ok_or("the key has no family that is known")?;
    let mut key = Key::of(family);
    for part in parts {
        let part = part.bytes().ok_or("a part of the key does not read")?;
        key = key.part(&part);
    }
    Ok((family, key))
}

impl State {
    /// Writes entries of an import, and the end of the outbox as it is now.
    fn write_imported(
        &mut self,
        fill: impl FnOnce(&mut Preparation<'_>) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        self.outbox_mut().sync()?;
        let store = self.store();
        let mut preparation = Preparation::new(store.table());
        fill(&mut preparation)?;
        store.write(preparation.finish()?, self.appended_end())?;
        self.outbox_mut().publish();
        Ok(())
    }
}
