//! Where records lie: a file for each hour of each stream.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, DurationRound, NaiveDateTime, TimeDelta, Utc};
use exfilwatch_model::StreamId;

/// Folders between the archive and a file, and the archive itself.
pub(super) const DEPTH: usize = 4;
const SUFFIX: &str = ".ndjson.zst";
const HOUR: &str = "%Y-%m-%dT%H";

/// A stream's hour.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    // First, so that places sort by age.
    hour: DateTime<Utc>,
    stream: StreamId,
}

impl Place {
    /// `None` where the names of the stream cannot be folders.
    pub(super) fn of(stream: &StreamId, time: DateTime<Utc>) -> Option<Self> {
        let parts = [stream.tenant().as_str(), stream.connector(), stream.name()];
        if parts.iter().any(|part| part.starts_with('.')) {
            return None;
        }
        let hour = time.duration_trunc(TimeDelta::hours(1)).ok()?;
        let stream = stream.clone();
        Some(Self { hour, stream })
    }

    pub(super) fn hour(&self) -> DateTime<Utc> {
        self.hour
    }

    pub(super) fn stream(&self) -> &StreamId {
        &self.stream
    }

    pub(super) fn path(&self, archive: &Path) -> PathBuf {
        archive
            .join(self.stream.tenant().as_str())
            .join(self.stream.connector())
            .join(self.stream.name())
            .join(format!("{}{SUFFIX}", self.hour.format(HOUR)))
    }
}

/// A file of the archive.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) place: Place,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// All files of the archive that `wanted` takes, by age. What is not named as ours is left alone.
pub(super) fn files(
    archive: &Path,
    wanted: impl Fn(&StreamId, DateTime<Utc>) -> bool,
) -> io::Result<Vec<Kept>> {
    let mut kept = Vec::new();
    for (tenant, below) in folders(archive)? {
        for (connector, below) in folders(&below)? {
            for (name, below) in folders(&below)? {
                let Ok(stream) = format!("{tenant}/{connector}/{name}").parse::<StreamId>() else {
                    continue;
                };
                files_of(&stream, &below, &wanted, &mut kept)?;
            }
        }
    }
    kept.sort_by(|a, b| a.place.cmp(&b.place));
    Ok(kept)
}

/// The files of one stream that `wanted` takes, by age; none where there is no such folder.
pub(super) fn files_of_stream(
    archive: &Path,
    stream: &StreamId,
    wanted: impl Fn(&StreamId, DateTime<Utc>) -> bool,
) -> io::Result<Vec<Kept>> {
    let mut kept = Vec::new();
    let folder = archive
        .join(stream.tenant().as_str())
        .join(stream.connector())
        .join(stream.name());
    if folder.is_dir() {
        files_of(stream, &folder, &wanted, &mut kept)?;
    }
    kept.sort_by(|a, b| a.place.cmp(&b.place));
    Ok(kept)
}

fn files_of(
    stream: &StreamId,
    folder: &Path,
    wanted: &impl Fn(&StreamId, DateTime<Utc>) -> bool,
    kept: &mut Vec<Kept>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(hour) = name.to_str().and_then(hour_of) else {
            continue;
        };
        let Some(place) = Place::of(stream, hour).filter(|_| wanted(stream, hour)) else {
            continue;
        };
        kept.push(Kept {
            place,
            path: entry.path(),
            bytes: entry.metadata()?.len(),
        });
    }
    Ok(())
}

fn hour_of(name: &str) -> Option<DateTime<Utc>> {
    let hour = format!("{}:00:00", name.strip_suffix(SUFFIX)?);
    let time = NaiveDateTime::parse_from_str(&hour, "%Y-%m-%dT%H:%M:%S").ok()?;
    Some(time.and_utc())
}

/// Folders below one, by name; none where it does not exist.
fn folders(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(name) = name.to_str().filter(|_| entry.path().is_dir()) {
            found.push((name.to_owned(), entry.path()));
        }
    }
    Ok(found)
}
