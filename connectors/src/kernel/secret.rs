//! Secrets: where they are, and reading them at the moment they are needed.
//!
//! A secret is read anew for every token request, so that a rotated one is taken up without a
//! restart. It lives as a [`SecretString`] and never stands in an error, a log or a `Debug`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use exfilwatch_model::SecretSource;
use secrecy::{ExposeSecret, SecretString};

/// Largest secret file, in bytes: a service account's key has about 2.4 KiB.
pub const SECRET_BYTES_MAX: u64 = 256 << 10;

/// The process's environment. The application reads it in one place and hands it in.
pub trait Environment: Send + Sync {
    /// The value of a variable, if it is set and is text.
    fn var(&self, name: &str) -> Option<String>;
}

impl<F: Fn(&str) -> Option<String> + Send + Sync> Environment for F {
    fn var(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// Why a secret could not be had. The text says where it was looked for, never what stood there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The variable is not set, or empty.
    #[error("environment variable {0} is not set")]
    Unset(String),
    /// The file cannot be read.
    #[error("cannot read secret file {path}: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// Others than the owner may read the file.
    #[error("secret file {path} may be read by others (mode {mode:04o}): run chmod 600 on it")]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is empty or holds no text.
    #[error("secret file {0} holds no usable text")]
    Empty(PathBuf),
}

/// A secret that can be read when it is needed.
#[derive(Clone)]
pub struct Secret {
    source: SecretSource,
    environment: Arc<dyn Environment>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            SecretSource::File(path) => write!(f, "Secret(file {})", path.display()),
            SecretSource::Env(name) => write!(f, "Secret(environment variable {name})"),
        }
    }
}

impl Secret {
    /// Nothing is read yet.
    pub fn new(source: SecretSource, environment: Arc<dyn Environment>) -> Self {
        Self {
            source,
            environment,
        }
    }

    /// Reads it; white space around it is dropped (a file ends in a line break).
    pub fn read(&self) -> Result<SecretString, SecretError> {
        match &self.source {
            SecretSource::File(path) => read_secret_file(path),
            SecretSource::Env(name) => match self.environment.var(name) {
                Some(value) if !value.trim().is_empty() => Ok(value.trim().into()),
                _ => Err(SecretError::Unset(name.clone())),
            },
        }
    }
}

/// Reads a file that must be readable by its owner alone.
pub fn read_secret_file(path: &Path) -> Result<SecretString, SecretError> {
    use std::io::Read;
    let unreadable = |error: std::io::Error| SecretError::Unreadable {
        path: path.to_owned(),
        why: error.to_string(),
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    check_mode(path, &file.metadata().map_err(unreadable)?)?;
    let mut text = String::new();
    file.take(SECRET_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    match text.trim() {
        "" => Err(SecretError::Empty(path.to_owned())),
        secret => Ok(secret.into()),
    }
}

/// Why a secret could not be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// There is a file already, and others may read it: whoever put it there did not mean a secret.
    #[error(transparent)]
    Open(#[from] SecretError),
    /// The file cannot be written.
    #[error("cannot write secret file {path}: {why}")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
}

/// Whether [`keep_secret_file`] may be expected to work, asked before a person is made to do
/// something. Refuses a file that others may read, and a folder that does not exist.
pub fn check_secret_place(path: &Path) -> Result<(), KeepError> {
    match std::fs::metadata(path) {
        Ok(metadata) => check_mode(path, &metadata)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(unwritable(path, &error)),
    }
    std::fs::metadata(folder_of(path))
        .map(|_| ())
        .map_err(|error| unwritable(path, &error))
}

/// Puts the secret into a file that its owner alone may read. The old content stands until the new
/// one is on the disk. `unique` tells the file written meanwhile from that of another process.
pub fn keep_secret_file(path: &Path, secret: &SecretString, unique: u64) -> Result<(), KeepError> {
    check_secret_place(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!(".{name}.{unique:016x}"));
    let written = write_new(&aside, secret).and_then(|()| std::fs::rename(&aside, path));
    if let Err(error) = written {
        // It may not exist; what matters is that no secret is left lying about.
        std::fs::remove_file(&aside).unwrap_or_default();
        return Err(unwritable(path, &error));
    }
    std::fs::File::open(folder_of(path))
        .and_then(|folder| folder.sync_all())
        .map_err(|error| unwritable(path, &error))
}

fn write_new(path: &Path, secret: &SecretString) -> std::io::Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(secret.expose_secret().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> KeepError {
    KeepError::Unwritable {
        path: path.to_owned(),
        why: error.to_string(),
    }
}

/// What group and others may do.
#[cfg(unix)]
const OTHERS: u32 = 0o077;

#[cfg(unix)]
fn check_mode(path: &Path, metadata: &std::fs::Metadata) -> Result<(), SecretError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & OTHERS == 0 {
        return Ok(());
    }
    Err(SecretError::Open {
        path: path.to_owned(),
        mode,
    })
}

#[cfg(not(unix))]
fn check_mode(_: &Path, _: &std::fs::Metadata) -> Result<(), SecretError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_environment() -> Arc<dyn Environment> {
        Arc::new(|_: &str| None)
    }

    #[test]
    fn a_variable_is_read_through_the_environment_handed_in() {
        let environment: Arc<dyn Environment> =
            Arc::new(|name: &str| (name == "SET").then(|| " s3cret\n".to_owned()));
        let read =
            |name: &str| Secret::new(SecretSource::Env(name.into()), environment.clone()).read();
        assert_eq!(read("SET").unwrap().expose_secret(), "s3cret");
        assert_eq!(
            read("NOT_SET").unwrap_err(),
            SecretError::Unset("NOT_SET".into())
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused_by_name_and_mode() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "s3cret\n").unwrap();
        let secret = Secret::new(SecretSource::File(path.clone()), no_environment());
        for (mode, allowed) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            match secret.read() {
                Ok(value) => assert!(allowed && value.expose_secret() == "s3cret", "{mode:o}"),
                Err(error) => {
                    assert!(!allowed, "{mode:o}");
                    let text = error.to_string();
                    assert!(text.contains(&format!("{mode:04o}")) && text.contains("secret"));
                }
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_kept_secret_is_its_owners_alone_and_an_open_file_is_not_written_into() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        for secret in ["first", "second"] {
            keep_secret_file(&path, &secret.into(), 7).unwrap();
            assert_eq!(mode(&path), 0o600);
            assert_eq!(read_secret_file(&path).unwrap().expose_secret(), secret);
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = keep_secret_file(&path, &"third".into(), 7).unwrap_err();
        assert!(refused.to_string().contains("0644"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "second\n");
        let nowhere = folder.path().join("none/token");
        let refused = keep_secret_file(&nowhere, &"x".into(), 7).unwrap_err();
        assert!(refused.to_string().contains("none/token"), "{refused}");
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing is left beside it: {left:?}");
    }

    #[test]
    fn debug_shows_where_a_secret_is_and_nothing_else() {
        let environment: Arc<dyn Environment> = Arc::new(|_: &str| Some("s3cret".to_owned()));
        let secret = Secret::new(SecretSource::Env("NAME".into()), environment);
        assert_eq!(format!("{secret:?}"), "Secret(environment variable NAME)");
    }
}
