//! What may be wrong with a state folder, looked at from outside: nothing of it is opened, rebuilt
//! or changed, so a running process is not disturbed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use exfilwatch_model::diagnosis::{Cause, Check};

use crate::disk;
use crate::layout::FORMAT_VERSION;
use crate::state::{FORMAT_FILE, LOCK_FILE, OUTBOX_FOLDER};

/// Below this the process could stop within minutes, whatever the budget.
const FREE_BYTES_MIN: u64 = 256 << 20;
/// What group and others may do.
const OTHERS: u32 = 0o077;
const MIB: u64 = 1 << 20;

const FOLDER: &str = "state_folder";
const WRITE: &str = "state_write";
const SPACE: &str = "state_space";
const LOCK: &str = "state_lock";
const FORMAT: &str = "state_format";

/// What the outbox may come to hold.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Bytes, over all lanes.
    pub outbox_bytes_max: u64,
}

/// Looks at the folder. `answers` says whether a process answers on its control socket: then that
/// the folder is locked is as it should be.
pub fn look(folder: &Path, budget: Budget, answers: bool) -> Vec<Check> {
    let metadata = match fs::metadata(folder) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return absent(folder, budget),
        Err(error) => {
            return broken(Check::failed(
                FOLDER,
                Cause::StateNotWritable,
                said(folder, &error),
            ));
        }
    };
    if !metadata.is_dir() {
        let seen = format!("{} is a file", folder.display());
        return broken(Check::failed(FOLDER, Cause::StateNotWritable, seen));
    }
    let write = write(folder);
    let space = if write.stops() {
        Check::skipped(SPACE, "nothing can be written there")
    } else {
        space(folder, budget)
    };
    vec![
        mode(folder, metadata.permissions().mode()),
        write,
        space,
        lock(folder, answers),
        format(folder),
    ]
}

fn said(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn broken(check: Check) -> Vec<Check> {
    let mut checks = vec![check];
    for step in [WRITE, SPACE, LOCK, FORMAT] {
        checks.push(Check::skipped(step, "the folder cannot be used"));
    }
    checks
}

/// Before the first run: the nearest folder above that exists must take it.
fn absent(folder: &Path, budget: Budget) -> Vec<Check> {
    let above = folder
        .ancestors()
        .skip(1)
        .map(|parent| {
            if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            }
        })
        .find(|parent| parent.exists());
    let Some(above) = above else {
        let seen = format!("{}: no folder above it exists", folder.display());
        return broken(Check::failed(FOLDER, Cause::StateNotWritable, seen));
    };
    let not_yet = format!(
        "{} does not exist yet: the first run makes it",
        folder.display()
    );
    vec![
        Check::ok(FOLDER, not_yet),
        write(above),
        space(above, budget),
        Check::ok(LOCK, "not in use"),
        Check::ok(FORMAT, "new"),
    ]
}

fn mode(folder: &Path, mode: u32) -> Check {
    let mode = mode & 0o7777;
    let seen = format!("{} has mode {mode:04o}", folder.display());
    if mode & OTHERS == 0 {
        Check::ok(FOLDER, seen)
    } else {
        Check::warning(FOLDER, Cause::StateOpenToOthers, seen)
    }
}

/// Writes a file, syncs it and the folder, and takes it away again.
fn write(folder: &Path) -> Check {
    let path = folder.join(format!(".doctor-{}", std::process::id()));
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(b"doctor\n").map(|()| file));
    let file = match made {
        Ok(file) => file,
        Err(error) => return Check::failed(WRITE, Cause::StateNotWritable, said(folder, &error)),
    };
    let synced = file
        .sync_all()
        .and_then(|()| File::open(folder)?.sync_all());
    let removed = fs::remove_file(&path);
    match (synced, removed) {
        (Err(error), _) => {
            let seen = format!("fsync in {}: {error}", folder.display());
            Check::failed(WRITE, Cause::StateSyncFails, seen)
        }
        (_, Err(error)) => Check::failed(WRITE, Cause::StateNotWritable, said(&path, &error)),
        _ => Check::ok(WRITE, "written, synced and removed a file"),
    }
}

/// Room on the disk against what the outbox may still come to hold.
fn space(folder: &Path, budget: Budget) -> Check {
    let free = match rustix::fs::statvfs(folder) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
        Err(error) => {
            return Check::failed(SPACE, Cause::StateNotWritable, said(folder, &error.into()));
        }
    };
    let held = crate::outbox::list(&folder.join(OUTBOX_FOLDER))
        .map_or(0, |segments| segments.iter().map(|(_, bytes)| bytes).sum());
    judged(free, budget.outbox_bytes_max.saturating_sub(held))
}

fn judged(free: u64, wanted: u64) -> Check {
    let seen = format!(
        "{} MiB free; the outbox may grow by {} MiB",
        free / MIB,
        wanted / MIB
    );
    let check = if free < FREE_BYTES_MIN {
        Check::failed(SPACE, Cause::DiskSpaceLow, seen)
    } else if free < wanted {
        Check::warning(SPACE, Cause::DiskSpaceLow, seen)
    } else {
        Check::ok(SPACE, seen)
    };
    check.fact("free_bytes", free).fact("wanted_bytes", wanted)
}

/// Tries the lock, and gives it back at once.
fn lock(folder: &Path, answers: bool) -> Check {
    let path = folder.join(LOCK_FILE);
    let file = match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Check::ok(LOCK, "not in use");
        }
        Err(error) => {
            return Check::failed(LOCK, Cause::StateNotWritable, said(&path, &error));
        }
    };
    match file.try_lock() {
        Ok(()) => Check::ok(LOCK, "not in use"),
        Err(TryLockError::Error(error)) => {
            Check::failed(LOCK, Cause::StateLocked, said(&path, &error))
        }
        Err(TryLockError::WouldBlock) => {
            let holder = holder(&file);
            let who = holder.as_ref().map_or_else(
                || "another process".to_owned(),
                |(id, name)| format!("process {id} ({name})"),
            );
            let check = if answers {
                Check::ok(LOCK, format!("in use by {who}, which answers"))
            } else {
                let seen = format!("in use by {who}, which does not answer on the control socket");
                Check::failed(LOCK, Cause::StateLocked, seen)
            };
            match holder {
                Some((id, _)) => check.fact("process_id", id),
                None => check,
            }
        }
    }
}

/// Id and name of the process that holds the lock of a file, where the system tells (Linux).
fn holder(file: &File) -> Option<(u32, String)> {
    let metadata = file.metadata().ok()?;
    let (device, inode) = (metadata.dev(), metadata.ino());
    let wanted = format!(
        "{:02x}:{:02x}:{inode}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    );
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let id: u32 = locks.lines().find_map(|line| holder_in(line, &wanted))?;
    let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
    let name: String = name.trim().chars().filter(|c| !c.is_control()).collect();
    Some((
        id,
        if name.is_empty() {
            "no longer there".to_owned()
        } else {
            name
        },
    ))
}

/// `1: FLOCK  ADVISORY  WRITE 4711 fd:01:123456 0 EOF`; a waiter's line has `->` in it.
fn holder_in(line: &str, wanted: &str) -> Option<u32> {
    let mut words = line.split_whitespace().skip(1);
    let kind = words.next()?;
    let (id, file) = (words.nth(2)?, words.next()?);
    (kind == "FLOCK" && file == wanted).then(|| id.parse().ok())?
}

fn format(folder: &Path) -> Check {
    let read = disk::read(&folder.join(FORMAT_FILE)).ok().flatten();
    let found: Option<u32> =
        read.and_then(|content| std::str::from_utf8(&content).ok()?.trim().parse().ok());
    match found {
        None => Check::ok(FORMAT, "new"),
        Some(found) if found <= FORMAT_VERSION => Check::ok(FORMAT, format!("format {found}")),
        Some(found) => Check::failed(
            FORMAT,
            Cause::StateTooNew,
            format!("format {found}; this version knows up to {FORMAT_VERSION}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exfilwatch_model::diagnosis::Verdict;

    const BUDGET: Budget = Budget {
        outbox_bytes_max: 1,
    };

    fn find(checks: &[Check], name: &str) -> Check {
        checks.iter().find(|c| c.check == name).unwrap().clone()
    }

    #[test]
    fn room_is_judged_against_the_budget_and_against_a_floor() {
        let gib = 1 << 30;
        for (free, wanted, verdict) in [
            (10 * gib, gib, Verdict::Ok),
            (gib, 10 * gib, Verdict::Warning),
            (MIB, 0, Verdict::Failed),
        ] {
            assert_eq!(judged(free, wanted).verdict, verdict, "{free} {wanted}");
        }
    }

    #[test]
    fn a_folder_that_is_fine_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let checks = look(folder.path(), BUDGET, false);
        assert!(
            checks.iter().all(|check| check.verdict == Verdict::Ok),
            "{checks:?}"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let absent = folder.path().join("not/yet");
        let checks = look(&absent, BUDGET, false);
        assert!(checks.iter().all(|check| check.verdict == Verdict::Ok));
        assert!(!absent.exists());
    }

    #[test]
    fn who_holds_the_lock_is_named_and_fine_only_where_he_answers() {
        let folder = tempfile::tempdir().unwrap();
        let held = File::create(folder.path().join(LOCK_FILE)).unwrap();
        held.try_lock().unwrap();
        let silent = find(&look(folder.path(), BUDGET, false), LOCK);
        assert_eq!(silent.cause, Some(Cause::StateLocked));
        if Path::new("/proc/locks").exists() {
            assert_eq!(silent.facts["process_id"], std::process::id());
        }
        let alive = find(&look(folder.path(), BUDGET, true), LOCK);
        assert_eq!(alive.verdict, Verdict::Ok);
        drop(held);
        let free = find(&look(folder.path(), BUDGET, false), LOCK);
        assert_eq!(free.seen, "not in use");
    }

    #[test]
    fn an_open_folder_a_file_and_a_newer_format_have_their_causes() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.path().join(FORMAT_FILE), "9999\n").unwrap();
        let checks = look(folder.path(), BUDGET, false);
        assert_eq!(find(&checks, FOLDER).cause, Some(Cause::StateOpenToOthers));
        assert_eq!(find(&checks, FORMAT).cause, Some(Cause::StateTooNew));
        let file = folder.path().join(FORMAT_FILE);
        let checks = look(&file, BUDGET, false);
        assert_eq!(find(&checks, FOLDER).cause, Some(Cause::StateNotWritable));
        assert_eq!(find(&checks, LOCK).verdict, Verdict::Skipped);
    }
}
