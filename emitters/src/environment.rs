//! How an emitter reads a secret: through the environment the application gives it.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use exfilwatch_model::SecretSource;
use secrecy::SecretString;

/// Longest secret file read, in bytes.
const SECRET_BYTES_MAX: usize = 64 << 10;

/// Reads environment variables; only the application knows the real ones. Cheap to clone.
#[derive(Clone)]
pub struct Environment(Arc<Variable>);

type Variable = dyn Fn(&str) -> Option<String> + Send + Sync;

impl Environment {
    /// `variable` gives the value of a variable, or `None` where it is not set.
    pub fn new(variable: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(variable))
    }

    /// Reads a secret. The error says which source, never what stood there.
    pub fn secret(&self, source: &SecretSource) -> Result<SecretString, SecretError> {
        let text = match source {
            SecretSource::Env(name) => {
                (self.0)(name).ok_or_else(|| SecretError::Unset(name.clone()))?
            }
            SecretSource::File(path) => read_private(path)?,
        };
        let secret = text.trim_end_matches(['\r', '\n']);
        let plain = secret.bytes().all(|byte| byte.is_ascii_graphic());
        if secret.is_empty() || secret.len() > SECRET_BYTES_MAX || !plain {
            return Err(SecretError::Unusable);
        }
        Ok(SecretString::from(secret))
    }
}

/// Reads a file that only its owner may read.
fn read_private(path: &Path) -> Result<String, SecretError> {
    let unreadable = |source| SecretError::Unreadable {
        path: path.display().to_string(),
        source,
    };
    let mode = std::fs::metadata(path)
        .map_err(unreadable)?
        .permissions()
        .mode()
        & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Open {
            path: path.display().to_string(),
            mode,
        });
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set.
    #[error("environment variable {0} is not set")]
    Unset(String),
    /// Others than the owner may read the file.
    #[error("secret file {path} may be read by others (mode {mode:04o}): run chmod 600 on it")]
    Open {
        /// The file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// The file cannot be read.
    #[error("secret file {path} cannot be read: {source}")]
    Unreadable {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is empty, too long, or holds blanks or line breaks.
    #[error("the secret is empty, too long, or holds characters a token cannot have")]
    Unusable,
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn a_secret_is_read_where_its_source_says_and_never_shown() {
        let environment = Environment::new(|name| (name == "SET").then(|| "s3cret\n".to_owned()));
        let secret = environment
            .secret(&SecretSource::Env("SET".to_owned()))
            .unwrap();
        assert_eq!(secret.expose_secret(), "s3cret");
        let unset = environment.secret(&SecretSource::Env("UNSET".to_owned()));
        assert!(matches!(unset, Err(SecretError::Unset(name)) if name == "UNSET"));

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(
            environment
                .secret(&SecretSource::File(path.clone()))
                .is_err()
        );
        std::fs::write(&path, "from file\n").unwrap();
        let mode = |bits| std::fs::Permissions::from_mode(bits);
        std::fs::set_permissions(&path, mode(0o644)).unwrap();
        assert!(matches!(
            environment.secret(&SecretSource::File(path.clone())),
            Err(SecretError::Open { mode: 0o644, .. })
        ));
        std::fs::set_permissions(&path, mode(0o600)).unwrap();
        assert!(matches!(
            environment.secret(&SecretSource::File(path.clone())),
            Err(SecretError::Unusable)
        ));
        std::fs::write(&path, "abc\r\n").unwrap();
        let secret = environment.secret(&SecretSource::File(path)).unwrap();
        assert_eq!(secret.expose_secret(), "abc");
    }
}
