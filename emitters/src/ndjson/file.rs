//! A file of JSON lines. A batch counts as delivered after `fsync`.
//!
//! The file is opened for each batch, so it may be moved away at any time, by `rotation` or by
//! something like logrotate. A line that a crash cut short was never confirmed; it is taken off before
//! anything is appended, and the lane sends it again.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use exfilwatch_model::diagnosis::Check;
use exfilwatch_model::{Clock, Envelope};

use super::rotation::Rotation;
use super::{BATCH_MAX, line, refuse};
use crate::appending::{self, above, open_locked, sync_folder};
use crate::contract::{Delivered, EmitError, Emitter};
use crate::error::BuildError;
use crate::options::NdjsonOptions;

/// Largest torn line that is taken off; more is no line of ours.
const TORN_BYTES_MAX: u64 = 64 << 20;
/// Bytes read at once when the end of the last whole line is looked for.
const CHUNK_BYTES: u64 = 64 << 10;

/// JSON lines in a file; see the module.
#[derive(Debug)]
pub struct Ndjson {
    name: String,
    path: String,
    clock: Arc<dyn Clock>,
    /// One batch is written after the other.
    writer: Arc<Mutex<Writer>>,
}

impl Ndjson {
    /// `name` is `ndjson.NAME`. The folder must exist; the file is made with the first batch.
    pub fn new(
        name: &str,
        options: &NdjsonOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BuildError> {
        let unusable = |reason: String| BuildError::option(name, "path", &reason);
        let path = options.path.to_str();
        let path = path.ok_or_else(|| unusable("the name is not UTF-8".to_owned()))?;
        let folder = above(&options.path);
        if !folder.to_string_lossy().contains('{') && !folder.is_dir() {
            return Err(unusable(format!("{} is no folder", folder.display())));
        }
        if options.path.is_dir() {
            return Err(unusable(format!("{path} is a folder: name a file")));
        }
        Ok(Self {
            name: name.to_owned(),
            path: path.to_owned(),
            clock,
            writer: Arc::new(Mutex::new(Writer {
                rotation: Rotation::new(options),
                written: HashSet::new(),
            })),
        })
    }

    fn path_of(&self, envelope: &Envelope) -> PathBuf {
        self.path
            .replace("{tenant}", envelope.stream.tenant().as_str())
            .replace("{kind}", envelope.kind.as_str())
            .into()
    }
}

#[async_trait]
impl Emitter for Ndjson {
    fn name(&self) -> &str {
        &self.name
    }

    fn batch_max(&self) -> (usize, usize) {
        BATCH_MAX
    }

    async fn emit(&self, batch: &[Envelope]) -> Result<Delivered, EmitError> {
        let mut delivered = Delivered::default();
        let mut files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
        for (index, envelope) in batch.iter().enumerate() {
            let lines = files.entry(self.path_of(envelope)).or_default();
            match line(envelope) {
                Ok(line) => {
                    lines.extend_from_slice(&line);
                    lines.push(b'\n');
                }
                Err(error) => refuse(index, &error, &mut delivered),
            }
        }
        let (writer, now) = (self.writer.clone(), self.clock.now());
        let task = tokio::task::spawn_blocking(move || {
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.write(&files, now)
        });
        let written = task.await.map_err(|error| EmitError::Retry {
            what: format!("writing {}: {error}", self.path),
            after: None,
        })?;
        written.map(|()| delivered)
    }

    async fn diagnose(&self) -> Vec<Check> {
        vec![look(Path::new(&self.path))]
    }
}

/// What writes.
#[derive(Debug)]
struct Writer {
    rotation: Rotation,
    /// What of batches that failed was written before they failed, by file and digest: they come again, and
    /// that is not written again. No more than batches are in flight.
    written: HashSet<(PathBuf, u64)>,
}

impl Writer {
    fn write(
        &mut self,
        files: &BTreeMap<PathBuf, Vec<u8>>,
        now: DateTime<Utc>,
    ) -> Result<(), EmitError> {
        let mut of_this = Vec::new();
        for (path, lines) in files.iter().filter(|(_, lines)| !lines.is_empty()) {
            let mut hasher = DefaultHasher::new();
            lines.hash(&mut hasher);
            let part = (path.clone(), hasher.finish());
            if !self.written.contains(&part) {
                append(path, lines, self.rotation, now).map_err(|error| failed(path, &error))?;
                self.written.insert(part.clone());
            }
            of_this.push(part);
        }
        for part in of_this {
            self.written.remove(&part);
        }
        Ok(())
    }
}

/// Whether the file could be written; it is neither made nor changed.
fn look(path: &Path) -> Check {
    if path.to_string_lossy().contains('{') {
        let shown = path.display();
        return Check::ok(
            "receiver_file",
            format!("{shown}: a file for each tenant or kind"),
        );
    }
    let tried = if path.exists() {
        OpenOptions::new().append(true).open(path).map(drop)
    } else {
        appending::try_folder(above(path))
    };
    appending::check(path, tried)
}

/// Appends whole lines and syncs them, in a new file where it is time for one.
fn append(path: &Path, lines: &[u8], rotation: Rotation, now: DateTime<Utc>) -> io::Result<()> {
    let (mut file, mut end) = healed(path)?;
    if rotation.is_due(&file, lines.len() as u64, now)? {
        Rotation::put_aside(path, now)?;
        // With the lock of the old one held, nobody else puts the new one aside before it is ours.
        let old = file;
        (file, end) = healed(path)?;
        drop(old);
        rotation.tidy(path);
    }
    if end == 0 {
        sync_folder(above(path))?;
    }
    appending::append(&mut file, path, end, lines)?;
    // The lines are there for good: what fails from here on is no reason to write them again.
    if let Err(error) = rotation.note(&file, now) {
        tracing::warn!(file = %path.display(), %error, "the time of the last change stays the system's");
    }
    Ok(())
}

/// The file, and where it ends.
fn healed(path: &Path) -> io::Result<(File, u64)> {
    let mut file = open_locked(path)?;
    let end = heal(&mut file)?;
    Ok((file, end))
}

/// Takes a torn last line off; the length of the file after that.
fn heal(file: &mut File) -> io::Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    let whole = end_of_whole_lines(file, length)?;
    if whole == length {
        return Ok(length);
    }
    let mut first = [0];
    file.seek(SeekFrom::Start(whole))?;
    file.read_exact(&mut first)?;
    if first != *b"{" {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the file does not end in a JSON line: it is not one of ours, name another",
        ));
    }
    tracing::warn!(
        bytes = length - whole,
        "a line torn by a crash was taken off"
    );
    file.set_len(whole)?;
    Ok(whole)
}

/// Position after the last line break, 0 where there is none.
fn end_of_whole_lines(file: &mut File, length: u64) -> io::Result<u64> {
    let mut end = length;
    while end > 0 {
        if length - end > TORN_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the last line is too long to be one of ours, name another file",
            ));
        }
        let start = end.saturating_sub(CHUNK_BYTES);
        let mut chunk = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        Read::by_ref(file)
            .take(end - start)
            .read_to_end(&mut chunk)?;
        if let Some(at) = chunk.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// A disk's error by what the lane must do.
pub(crate) fn failed(path: &Path, error: &io::Error) -> EmitError {
    let what = format!("writing {}: {error}", path.display());
    let hold = |help: &str| EmitError::Hold {
        what: what.clone(),
        help: help.to_owned(),
    };
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            hold("let the service's user write there")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => hold("make room on the disk"),
        io::ErrorKind::NotFound => hold("make the folder"),
        io::ErrorKind::InvalidData | io::ErrorKind::IsADirectory => hold("name another file"),
        _ => EmitError::Retry { what, after: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(path: &Path, lines: &[u8]) -> io::Result<()> {
        let options = serde_json::json!({ "path": path });
        let options: NdjsonOptions = serde_json::from_value(options).unwrap();
        append(path, lines, Rotation::new(&options), DateTime::UNIX_EPOCH)
    }

    #[test]
    fn a_torn_line_is_taken_off_wherever_the_crash_cut_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.ndjson");
        let long = format!("{{\"a\":\"{}\"}}\n", "x".repeat(200_000));
        let whole = format!("{{\"first\":1}}\n{long}");
        for cut in [1, 5, 12, 13, 100, 70_000, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            add(&path, b"{\"next\":2}\n").unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            let kept = if cut < 12 { "" } else { "{\"first\":1}\n" };
            assert_eq!(text, format!("{kept}{{\"next\":2}}\n"), "cut at {cut}");
        }
    }

    #[test]
    fn a_file_that_is_not_ours_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "my notes").unwrap();
        let error = add(&path, b"{}\n").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "my notes");
    }
}
