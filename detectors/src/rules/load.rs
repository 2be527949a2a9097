//! Where rule files come from: built in, and a folder laid over them.

use std::fs;
use std::io::Read;
use std::path::Path;

use include_dir::{Dir, include_dir};

use super::error::{Place, RuleError};
use super::rule_file::FILE_BYTES_MAX;

static EMBEDDED: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/rules");

/// Most rule files in a folder.
const FILES_MAX: usize = 10_000;
/// Deepest folder below the one named.
const DEPTH_MAX: usize = 8;

/// A rule file, not yet read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Path, as it is shown.
    pub name: String,
    /// The YAML text.
    pub text: String,
}

/// The built-in rule files, by path.
pub fn embedded() -> Vec<SourceFile> {
    let mut files = Vec::new();
    collect_embedded(&EMBEDDED, &mut files);
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

fn collect_embedded(dir: &Dir<'static>, files: &mut Vec<SourceFile>) {
    for file in dir.files().filter(|file| is_rule_file(file.path())) {
        if let Some(text) = file.contents_utf8() {
            let name = file.path().to_string_lossy().into_owned();
            files.push(SourceFile {
                name,
                text: text.to_owned(),
            });
        }
    }
    for dir in dir.dirs() {
        collect_embedded(dir, files);
    }
}

/// The rule files of a folder and the folders in it, by path.
pub fn folder(dir: &Path) -> Result<Vec<SourceFile>, RuleError> {
    let mut files = Vec::new();
    collect_folder(dir, 0, &mut files)?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn collect_folder(dir: &Path, depth: usize, files: &mut Vec<SourceFile>) -> Result<(), RuleError> {
    let shown = dir.display().to_string();
    let place = Place {
        file: &shown,
        document: 0,
    };
    let failed = |error: std::io::Error| {
        place.error(
            "",
            format!("it cannot be read: {error}"),
            "check the path and its permissions",
        )
    };
    if depth > DEPTH_MAX {
        let problem = format!("folders are more than {DEPTH_MAX} deep");
        return Err(place.error("", problem, "move the rules up"));
    }
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        if entry.file_type().map_err(failed)?.is_dir() {
            collect_folder(&path, depth + 1, files)?;
        } else if is_rule_file(&path) {
            if files.len() >= FILES_MAX {
                let problem = format!("there are more than {FILES_MAX} rule files");
                return Err(place.error("", problem, "remove some"));
            }
            files.push(read(&path)?);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<SourceFile, RuleError> {
    let name = path.display().to_string();
    let place = Place {
        file: &name,
        document: 0,
    };
    let limit = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX) + 1;
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(limit).read_to_string(&mut text))
        .map_err(|error| {
            place.error(
                "",
                format!("it cannot be read: {error}"),
                "check that it is UTF-8 text",
            )
        })?;
    Ok(SourceFile { name, text })
}

fn is_rule_file(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "yml" || extension == "yaml")
}
