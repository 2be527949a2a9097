//! Files and folders of ours: private, synced, and with errors that name what was tried.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::contract::StateError;

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Makes an I/O error ours.
pub(crate) fn failed(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> StateError {
    let path = path.into();
    move |source| StateError::Io {
        action,
        path,
        source,
    }
}

/// Creates the folder where it is absent, and shuts it to others.
pub(crate) fn make_private_folder(folder: &Path) -> Result<(), StateError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(folder)
        .and_then(|()| fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE)))
        .map_err(failed("creating", folder))
}

/// Shuts a file that another library made.
pub(crate) fn make_private_file(path: &Path) -> Result<(), StateError> {
    fs::set_permissions(path, Permissions::from_mode(FILE_MODE)).map_err(failed("shutting", path))
}

/// Creates a file (or empties it) for writing.
pub(crate) fn create(path: &Path) -> Result<File, StateError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(path)
        .map_err(failed("creating", path))
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), StateError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed("syncing", folder))
}

/// Puts a whole file in place: temporary file, sync, rename, sync of the folder. After a crash it
/// is the old one or the new one.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), StateError> {
    let temporary = path.with_extension("new");
    let mut file = create(&temporary)?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(failed("writing", &temporary))?;
    fs::rename(&temporary, path).map_err(failed("renaming", &temporary))?;
    match path.parent() {
        Some(folder) => sync_folder(folder),
        None => Ok(()),
    }
}

/// Reads a file that may be absent.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("reading", path)(error)),
    }
}
