//! A file of JSON lines. A batch counts as delivered after `fsync`.
//!
//! The file is opened for each batch, so it may be moved away for rotation at any time. A line that
//! a crash cut short was never confirmed; it is taken off before anything is appended, and the lane
//! sends it again.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use exfilwatch_model::Envelope;
use exfilwatch_model::diagnosis::{Cause, Check};

use super::{BATCH_MAX, line, refuse};
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
    /// One batch is written after the other.
    writing: Arc<Mutex<()>>,
}

impl Ndjson {
    /// `name` is `ndjson.NAME`. The folder must exist; the file is made with the first batch.
    pub fn new(name: &str, options: &NdjsonOptions) -> Result<Self, BuildError> {
        let unusable = |reason: String| BuildError::option(name, "path", &reason);
        let path = options.path.to_str();
        let path = path.ok_or_else(|| unusable("the name is not UTF-8".to_owned()))?;
        let folder = folder(&options.path);
        if !folder.to_string_lossy().contains('{') && !folder.is_dir() {
            return Err(unusable(format!("{} is no folder", folder.display())));
        }
        if options.path.is_dir() {
            return Err(unusable(format!("{path} is a folder: name a file")));
        }
        Ok(Self {
            name: name.to_owned(),
            path: path.to_owned(),
            writing: Arc::default(),
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
        let writing = self.writing.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _one_at_a_time = writing.lock().unwrap_or_else(PoisonError::into_inner);
            for (path, lines) in &files {
                append(path, lines).map_err(|error| failed(path, &error))?;
            }
            Ok(())
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

/// Whether the file could be written; it is neither made nor changed.
fn look(path: &Path) -> Check {
    const WRITABLE: &str = "receiver_file";
    let shown = path.display();
    if shown.to_string().contains('{') {
        return Check::ok(WRITABLE, format!("{shown}: a file for each tenant or kind"));
    }
    let tried = if path.exists() {
        OpenOptions::new().append(true).open(path).map(drop)
    } else {
        let trial = folder(path).join(format!(".exfilwatch-doctor-{}", std::process::id()));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        let made = options.open(&trial);
        made.and_then(|_| std::fs::remove_file(&trial))
    };
    match tried {
        Ok(()) => Check::ok(WRITABLE, format!("{shown} can be written")),
        Err(error) => Check::failed(
            WRITABLE,
            Cause::FileNotWritable,
            format!("{shown}: {error}"),
        ),
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

/// Appends whole lines and syncs them; on an error the file ends where it ended before.
fn append(path: &Path, lines: &[u8]) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let is_new = !path.exists();
    let mut file = open(path)?;
    let end = heal(&mut file)?;
    let written = file.write_all(lines).and_then(|()| file.sync_data());
    if let Err(error) = written {
        // Where this fails too, the next batch heals the file.
        if let Err(cut) = file.set_len(end) {
            tracing::warn!(path = %path.display(), %cut, "a torn line could not be taken off");
        }
        return Err(error);
    }
    if is_new {
        File::open(folder(path))?.sync_all()?;
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).read(true).append(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Findings name people: for the owner only, unless the file was there with other rights.
        options.mode(0o600);
    }
    options.open(path)
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

    #[test]
    fn a_torn_line_is_taken_off_wherever_the_crash_cut_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.ndjson");
        let long = format!("{{\"a\":\"{}\"}}\n", "x".repeat(200_000));
        let whole = format!("{{\"first\":1}}\n{long}");
        for cut in [1, 5, 12, 13, 100, 70_000, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            append(&path, b"{\"next\":2}\n").unwrap();
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
        let error = append(&path, b"{}\n").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "my notes");
    }
}
