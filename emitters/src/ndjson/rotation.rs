//! Rotation of a file of lines: when it is put aside, under which name, and how many are kept.
//!
//! A file is put aside before a batch, never within one, and only when it ends in a whole line. Nothing of
//! it stands in memory: its length and the time of its last change say all, so a restart goes on as if
//! there had been none.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, NaiveDateTime, Utc};

use crate::appending::{above, sync_folder};
use crate::options::NdjsonOptions;

/// Time at which a file was put aside, in its name. Names sort by age.
const STAMP: &str = "%Y%m%dT%H%M%S%.3fZ";
const COMPRESSED: &str = ".zst";
const UNFINISHED: &str = ".zst.part";
/// Level of compression: the file is read once and seldom again.
const LEVEL: i32 = 3;
/// Names that are tried for a file put aside.
const NAMES_MAX: i64 = 1_000;

/// What is configured of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rotation {
    bytes: Option<u64>,
    seconds: Option<i64>,
    files_max: usize,
    compress: bool,
}

impl Rotation {
    pub(super) fn new(options: &NdjsonOptions) -> Self {
        Self {
            bytes: options.rotate_bytes,
            seconds: options
                .rotate_seconds
                .map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX)),
            files_max: options.files_max,
            compress: options.compress,
        }
    }

    /// Whether the file is to be put aside before so many more bytes are written to it.
    pub(super) fn is_due(&self, file: &File, more: u64, now: DateTime<Utc>) -> io::Result<bool> {
        let metadata = file.metadata()?;
        if metadata.len() == 0 {
            return Ok(false);
        }
        let full = |most: u64| metadata.len().saturating_add(more) > most;
        let changed = DateTime::<Utc>::from(metadata.modified()?);
        let over = |seconds: i64| {
            let period = |at: DateTime<Utc>| at.timestamp().div_euclid(seconds.max(1));
            period(changed) < period(now)
        };
        Ok(self.bytes.is_some_and(full) || self.seconds.is_some_and(over))
    }

    /// The time of the last change is when its last lines were written by our clock.
    pub(super) fn note(&self, file: &File, now: DateTime<Utc>) -> io::Result<()> {
        if self.seconds.is_some() {
            file.set_modified(SystemTime::from(now))?;
        }
        Ok(())
    }

    /// Puts the file aside. Its lock is still held by whoever calls.
    pub(super) fn put_aside(path: &Path, now: DateTime<Utc>) -> io::Result<()> {
        for later in 0..NAMES_MAX {
            let at = now + chrono::TimeDelta::milliseconds(later);
            let aside = named(path, &at.format(STAMP).to_string());
            // Another writer of the same name holds the lock or comes after us.
            if !aside.exists() && !with(&aside, COMPRESSED).exists() {
                fs::rename(path, &aside)?;
                tracing::info!(file = %aside.display(), "a full file was put aside");
                return sync_folder(above(path));
            }
        }
        Err(io::Error::other(
            "no free name for the file to be put aside",
        ))
    }

    /// Compresses what lies aside and removes the oldest beyond what is kept. What cannot be done now is
    /// done at the next rotation: no reason to hold up what is to be delivered.
    pub(super) fn tidy(&self, path: &Path) {
        if let Err(error) = self.try_tidy(path) {
            let file = path.display();
            tracing::warn!(%file, %error, "files put aside could not be tidied up");
        }
    }

    fn try_tidy(&self, path: &Path) -> io::Result<()> {
        let mut aside = aside(path)?;
        if self.compress {
            for file in &mut aside {
                if !file.is_compressed {
                    compress(&file.path)?;
                    file.path = with(&file.path, COMPRESSED);
                }
            }
        }
        let surplus = aside.len().saturating_sub(self.files_max);
        for file in aside.iter().take(surplus) {
            fs::remove_file(&file.path)?;
            tracing::info!(file = %file.path.display(), files_max = self.files_max, "the oldest file was removed");
        }
        sync_folder(above(path))
    }
}

/// A file that lies aside.
#[derive(Debug)]
struct Aside {
    path: PathBuf,
    is_compressed: bool,
}

/// The files that were put aside of this one, the oldest first. Of one that was compressed just before a
/// crash the original goes; what a crash left unfinished goes too.
fn aside(path: &Path) -> io::Result<Vec<Aside>> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(above(path))? {
        let entry = entry?;
        let file = entry.file_name();
        let stamp = file
            .to_str()
            .and_then(|file| file.strip_prefix(name)?.strip_prefix('.'));
        let Some(stamp) = stamp else {
            continue;
        };
        if stamp.strip_suffix(UNFINISHED).is_some_and(is_stamp) {
            fs::remove_file(entry.path())?;
            continue;
        }
        let plain = stamp.strip_suffix(COMPRESSED);
        if !is_stamp(plain.unwrap_or(stamp)) {
            continue;
        }
        if plain.is_none() && with(&entry.path(), COMPRESSED).exists() {
            fs::remove_file(entry.path())?;
            continue;
        }
        found.push(Aside {
            path: entry.path(),
            is_compressed: plain.is_some(),
        });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn is_stamp(text: &str) -> bool {
    NaiveDateTime::parse_from_str(text, STAMP).is_ok()
}

/// The compressed file stands whole under its name before the original goes.
fn compress(path: &Path) -> io::Result<()> {
    let unfinished = with(path, UNFINISHED);
    let original = File::open(path)?;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let target = options.open(&unfinished)?;
    target.set_permissions(original.metadata()?.permissions())?;
    let mut encoder = zstd::Encoder::new(BufWriter::new(&target), LEVEL)?;
    encoder.include_checksum(true)?;
    io::copy(&mut BufReader::new(original), &mut encoder)?;
    encoder.finish()?.flush()?;
    target.sync_all()?;
    fs::rename(&unfinished, with(path, COMPRESSED))?;
    sync_folder(above(path))?;
    fs::remove_file(path)
}

fn named(path: &Path, stamp: &str) -> PathBuf {
    with(path, &format!(".{stamp}"))
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
