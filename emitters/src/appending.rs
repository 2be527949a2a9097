//! Files that only grow: opened for each batch, appended to whole, synced before anything counts as
//! delivered. What a crash cut short is taken off by whoever appends next, in the way of the format.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use exfilwatch_model::diagnosis::{Cause, Check};

/// Times that a file may be moved away between opening and locking it before that is an error.
const OPENINGS_MAX: usize = 8;

/// The folder of a file.
pub(crate) fn above(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

/// Opens a file for its owner only (unless it was there with other rights), makes it where there is none,
/// and locks it: another process, or another emitter of this one, waits for its turn. Let go when closed.
pub(crate) fn open_locked(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).read(true).append(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    for _ in 0..OPENINGS_MAX {
        let file = options.open(path)?;
        file.lock()?;
        if is_at(&file, path)? {
            return Ok(file);
        }
        // Moved away while we waited for it.
    }
    Err(io::Error::other("the file is moved away again and again"))
}

/// Whether the file is still the one at the path.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let own = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
fn is_at(_file: &File, _path: &Path) -> io::Result<bool> {
    Ok(true)
}

/// Appends bytes to a file that ends at `end`, and syncs them; on an error it ends there again.
pub(crate) fn append(file: &mut File, path: &Path, end: u64, bytes: &[u8]) -> io::Result<()> {
    let written = file.write_all(bytes).and_then(|()| file.sync_data());
    if written.is_err() {
        // Where this fails too, the next batch heals the file.
        if let Err(cut) = file.set_len(end) {
            tracing::warn!(path = %path.display(), %cut, "what was torn could not be taken off");
        }
    }
    written
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Whether files can be made in a folder; nothing is kept of the trial.
pub(crate) fn try_folder(folder: &Path) -> io::Result<()> {
    let trial = folder.join(format!(".exfilwatch-doctor-{}", std::process::id()));
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&trial)?;
    std::fs::remove_file(&trial)
}

/// What `doctor` says of a trial.
pub(crate) fn check(shown: &Path, tried: io::Result<()>) -> Check {
    const WRITABLE: &str = "receiver_file";
    let shown = shown.display();
    match tried {
        Ok(()) => Check::ok(WRITABLE, format!("{shown} can be written")),
        Err(error) => {
            let what = format!("{shown}: {error}");
            Check::failed(WRITABLE, Cause::FileNotWritable, what)
        }
    }
}
