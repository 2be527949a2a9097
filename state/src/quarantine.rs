//! The folder of quarantined bytes: one file for each entry, written before the entry.
//!
//! A file without an entry is left from a commit that failed, or from before a rebuild; it is kept.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use uuid::Uuid;

use crate::commit::{Commit, Quarantined};
use crate::contract::StateError;
use crate::disk;

/// Most bytes kept. Beyond it entries are still made, and say that their bytes were not kept.
pub const QUARANTINE_BYTES_MAX: u64 = 256 << 20;

/// The folder, and how much is in it.
#[derive(Debug)]
pub(crate) struct Quarantine {
    folder: PathBuf,
    bytes: u64,
    bytes_max: u64,
}

impl Quarantine {
    pub(crate) fn open(folder: PathBuf, bytes_max: u64) -> Result<Self, StateError> {
        disk::make_private_folder(&folder)?;
        let bytes = files(&folder)?.iter().map(|(_, bytes)| bytes).sum();
        Ok(Self {
            folder,
            bytes,
            bytes_max,
        })
    }

    /// Decides the file names of what the commits bring.
    pub(crate) fn name_files(&self, commits: &mut [Commit]) {
        let mut bytes = self.bytes;
        for quarantined in commits.iter_mut().flat_map(|c| &mut c.quarantined) {
            if quarantined.bytes.is_empty() {
                continue;
            }
            bytes = bytes.saturating_add(quarantined.bytes.len() as u64);
            if bytes > self.bytes_max {
                quarantined.bytes = Bytes::new();
                quarantined
                    .reason
                    .push_str(" (bytes not kept: the quarantine is full)");
            } else {
                quarantined.file = Some(file_name(quarantined));
            }
        }
    }

    /// Writes the files and syncs them. Returns whether there were any.
    pub(crate) fn write(&mut self, commits: &[Commit]) -> Result<bool, StateError> {
        let mut written = false;
        for quarantined in commits.iter().flat_map(|commit| &commit.quarantined) {
            let Some(name) = &quarantined.file else {
                continue;
            };
            if quarantined.bytes.is_empty() {
                continue;
            }
            let path = self.folder.join(name);
            let mut file = disk::create(&path)?;
            file.write_all(&quarantined.bytes)
                .and_then(|()| file.sync_all())
                .map_err(disk::failed("writing", path))?;
            self.bytes = self.bytes.saturating_add(quarantined.bytes.len() as u64);
            written = true;
        }
        if written {
            disk::sync_folder(&self.folder)?;
        }
        Ok(written)
    }
}

impl Quarantine {
    /// Removes the bytes of what is over, after that is durable. A file that stays behind is only that.
    pub(crate) fn forget(&mut self, commits: &[Commit]) {
        let over = commits.iter().flat_map(|commit| &commit.quarantined);
        for name in over
            .filter(|entry| entry.fate.is_over())
            .filter_map(|entry| entry.file.as_ref())
        {
            let path = self.folder.join(name);
            let bytes = fs::metadata(&path).map_or(0, |file| file.len());
            if fs::remove_file(&path).is_ok() {
                self.bytes = self.bytes.saturating_sub(bytes);
            }
        }
    }
}

/// The bytes of a file in the quarantine of a state folder; `None` where it is not there.
pub fn quarantined_bytes(state_folder: &Path, file: &str) -> Result<Option<Bytes>, StateError> {
    let folder = state_folder.join(crate::state::QUARANTINE_FOLDER);
    Ok(disk::read(&folder.join(file))?.map(Bytes::from))
}

/// The same bytes of the same stream again are the same file.
fn file_name(quarantined: &Quarantined) -> String {
    let tenant = quarantined.stream.tenant();
    let name = format!("{}\0{}", quarantined.stream, quarantined.id);
    let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes());
    format!("{tenant}.{}.bin", digest.simple())
}

/// Names and sizes of the files of a folder, sorted. An absent folder has none.
pub(crate) fn files(folder: &Path) -> Result<Vec<(String, u64)>, StateError> {
    let failed = || disk::failed("listing", folder);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed()(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed())?;
        let bytes = entry.metadata().map_err(failed())?.len();
        files.push((entry.file_name().to_string_lossy().into_owned(), bytes));
    }
    files.sort();
    Ok(files)
}
