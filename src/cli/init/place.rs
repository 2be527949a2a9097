//! Checks the new files and puts them in place: whole or not at all, for the owner alone, and
//! nothing that is there is replaced without `--force`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use exfilwatch_config::{Config, Sources};
use exfilwatch_model::TenantId;

use super::files::NewFile;
use super::present::{Present, TENANTS_FOLDER};
use crate::cli::failure::{Code, Failure, Outcome};

const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Reads the new files as `run` will, in a folder of their own, together with the main file that is
/// there. What is wrong is said before anything is written.
pub(super) fn check(files: &[NewFile], present: &Present, tenant: &TenantId) -> Outcome {
    let main_stays = !files.iter().any(|file| file.path == present.path);
    if main_stays && !present.includes_tenants() {
        let what = format!(
            "{} does not include {TENANTS_FOLDER}/*.toml",
            present.path.display()
        );
        return Err(Failure::new(Code::Usage, what).help(format!(
            "nothing was written; add this line at its top: include = [\"{TENANTS_FOLDER}/*.toml\"]"
        )));
    }
    let scratch = Scratch::new().map_err(|error| {
        Failure::caused(
            Code::State,
            "making a folder for checking the files",
            &error,
        )
    })?;
    let config = scratch.load(files, present).map_err(|what| {
        Failure::new(Code::Usage, what).help("nothing was written; put the answer right")
    })?;
    if let Some(disabled) = config.disabled.first() {
        let problems: Vec<String> = disabled.problems.iter().map(scratch_free).collect();
        return Err(Failure::new(Code::Usage, problems.join("\n"))
            .help("nothing was written; put the answer right"));
    }
    debug_assert!(config.tenants.contains_key(tenant));
    Ok(())
}

/// A problem without the place in a folder that is gone when it is read.
fn scratch_free(problem: &exfilwatch_config::Problem) -> String {
    match &problem.help {
        Some(help) => format!("{} ({help})", problem.what),
        None => problem.what.clone(),
    }
}

/// A folder that is removed when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        let name = format!("exfilwatch-init-{}", uuid::Uuid::new_v4());
        let folder = std::env::temp_dir().join(name);
        DirBuilder::new().mode(FOLDER_MODE).create(&folder)?;
        Ok(Self(folder))
    }

    fn load(&self, files: &[NewFile], present: &Present) -> Result<Config, String> {
        let main = self.0.join("exfilwatch.toml");
        let folder = self.0.join(TENANTS_FOLDER);
        let written = fs::create_dir(&folder).and_then(|()| {
            if let Some(table) = &present.main {
                // Its other included files are not part of the question.
                let mut table = table.clone();
                let pattern = format!("{TENANTS_FOLDER}/*.toml");
                table.insert("include".to_owned(), vec![pattern].into());
                fs::write(&main, table.to_string())?;
            }
            for file in files {
                let name = file.path.file_name().unwrap_or_default();
                let to = if file.path == present.path {
                    main.clone()
                } else {
                    folder.join(name)
                };
                fs::write(to, &file.text)?;
            }
            Ok(())
        });
        written.map_err(|error| format!("writing the files for checking: {error}"))?;
        let sources = Sources {
            file: Some(main),
            ..Sources::default()
        };
        exfilwatch_config::load(&sources).map_err(|error| {
            let problems: Vec<String> = error.problems.iter().map(scratch_free).collect();
            problems.join("\n")
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::debug!(folder = %self.0.display(), %error, "left behind");
        }
    }
}

/// Puts the files in place. Where one cannot be, those before it are taken away again, unless they
/// replaced others.
pub(super) fn place(files: &[NewFile], force: bool) -> Outcome {
    if !force && let Some(there) = files.iter().find(|file| file.path.exists()) {
        return Err(exists(&there.path));
    }
    let mut placed: Vec<&Path> = Vec::new();
    for file in files {
        if let Err(error) = put(file, force) {
            if !force {
                for path in placed {
                    if let Err(error) = fs::remove_file(path) {
                        tracing::warn!(path = %path.display(), %error, "left behind");
                    }
                }
            }
            return Err(match error.kind() {
                ErrorKind::AlreadyExists => exists(&file.path),
                _ => {
                    let what = format!("writing {}", file.path.display());
                    Failure::caused(Code::State, what, &error)
                        .help("check space and permissions of the folder")
                }
            });
        }
        placed.push(&file.path);
    }
    Ok(())
}

fn exists(path: &Path) -> Failure {
    Failure::new(Code::Usage, format!("{} is there already", path.display()))
        .help("nothing was written; --force replaces it, --config and --tenant name another")
}

/// Writes beside, syncs, and gives it its name: by a link, which never replaces, or by renaming.
fn put(file: &NewFile, force: bool) -> io::Result<()> {
    let folder = match file.path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(folder)?;
    let beside = folder.join(format!(".exfilwatch-init-{}", uuid::Uuid::new_v4()));
    let mut new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(&beside)?;
    let done = new
        .write_all(file.text.as_bytes())
        .and_then(|()| new.sync_all())
        .and_then(|()| {
            if force {
                fs::rename(&beside, &file.path)
            } else {
                fs::hard_link(&beside, &file.path)
            }
        });
    if (!force || done.is_err())
        && let Err(error) = fs::remove_file(&beside)
    {
        tracing::warn!(path = %beside.display(), %error, "left behind");
    }
    done?;
    File::open(folder)?.sync_all()
}
