//! What is there before `init` writes: the main file, and what it says for all tenants.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use exfilwatch_model::TenantId;
use uuid::Uuid;

use super::answers;
use crate::cli::failure::{Code, Failure};

/// The folder of the tenants' files, beside the main file.
pub(super) const TENANTS_FOLDER: &str = "tenants.d";

/// What is there.
#[derive(Debug, Clone)]
pub(super) struct Present {
    /// The main file, as it was named.
    pub(super) path: PathBuf,
    /// Its folder, absolute.
    pub(super) folder: PathBuf,
    /// Its content, where it exists.
    pub(super) main: Option<toml::Table>,
    /// Application of `[defaults.office365]`.
    pub(super) client_id: Option<Uuid>,
    credential: bool,
}

impl Present {
    /// Looks. A main file that is no TOML is an error: nothing can be added beside it.
    pub(super) fn look(path: &Path) -> Result<Self, Failure> {
        let absolute = std::path::absolute(path).map_err(|error| {
            Failure::caused(Code::Usage, format!("finding {}", path.display()), &error)
        })?;
        let folder = absolute.parent().map(Path::to_path_buf).unwrap_or_default();
        let text = match fs::read_to_string(path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                let what = format!("reading {}", path.display());
                return Err(Failure::caused(Code::Usage, what, &error));
            }
        };
        let main: Option<toml::Table> = match &text {
            Some(text) => Some(text.parse().map_err(|_| {
                Failure::new(Code::Usage, format!("{} is not TOML", path.display()))
                    .help("exfilwatch config check names the place")
            })?),
            None => None,
        };
        let defaults = main.as_ref().and_then(|main| main.get("defaults"));
        let defaults = defaults.and_then(|defaults| defaults.get("office365"));
        let text = |key: &str| defaults?.get(key)?.as_str();
        Ok(Self {
            path: path.to_owned(),
            folder,
            client_id: text("client_id").and_then(|id| answers::guid(id).ok()),
            credential: defaults.is_some_and(|defaults| {
                defaults.get("certificate").is_some() || defaults.get("client_secret").is_some()
            }),
            main,
        })
    }

    /// Whether the main file names one application with its credential for all tenants.
    pub(super) fn shared_application(&self) -> bool {
        self.client_id.is_some() && self.credential
    }

    /// The file of a tenant.
    pub(super) fn tenant_file(&self, tenant: &TenantId) -> PathBuf {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        folder.join(TENANTS_FOLDER).join(format!("{tenant}.toml"))
    }

    /// Whether the main file includes those of the tenants' folder.
    pub(super) fn includes_tenants(&self) -> bool {
        let include = self.main.as_ref().and_then(|main| main.get("include"));
        let patterns = include.and_then(|include| include.as_array());
        patterns.into_iter().flatten().any(|pattern| {
            let pattern = pattern.as_str().unwrap_or_default();
            let pattern = pattern.trim_start_matches("./");
            pattern == format!("{TENANTS_FOLDER}/*.toml")
                || pattern == format!("{TENANTS_FOLDER}/*")
        })
    }

    /// A path as it is written into a file that lies `below` folders under the main file's. One in
    /// the main file's folder stays relative, so that the whole can be moved; others are absolute.
    pub(super) fn written(&self, path: &Path, below: usize) -> PathBuf {
        let Ok(absolute) = std::path::absolute(path) else {
            return path.to_owned();
        };
        match absolute.strip_prefix(&self.folder) {
            Ok(inside) => {
                let mut written: PathBuf = std::iter::repeat_n("..", below).collect();
                written.push(inside);
                written
            }
            Err(_) => absolute,
        }
    }
}
