//! Reading configuration files: size limit, encoding, and which files `include` names.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::origin::Problem;
use crate::tree::{Node, Value};

/// Largest configuration file, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Most files that all patterns of `include` may name together.
pub const INCLUDED_FILES_MAX: usize = 10_000;

/// The text of a file, or why it cannot be used.
pub(crate) fn read_text(path: &Path) -> Result<String, String> {
    read_text_up_to(path, FILE_BYTES_MAX)
}

/// The same of a file that may have another size.
pub(crate) fn read_text_up_to(path: &Path, bytes_max: u64) -> Result<String, String> {
    let file = File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    let mut bytes = Vec::new();
    let read = file.take(bytes_max + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("is larger than {bytes_max} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        format!("is not UTF-8 text at byte {offset}")
    })
}

/// Files named by `include`, in order of their paths, each once. Patterns are relative to `folder`;
/// `*` stands for any characters in the last part. What is wrong goes to `problems`, what is only
/// odd to `warnings`.
pub(crate) fn included(
    include: &Node,
    folder: &Path,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) -> Vec<Arc<Path>> {
    let Value::Array(patterns) = &include.value else {
        let what = format!(
            "`include` must be a list of file names, found {}",
            include.noun()
        );
        problems.push(Problem::new(&include.origin, what).help("include = [\"tenants.d/*.toml\"]"));
        return Vec::new();
    };
    let mut files = BTreeSet::new();
    for pattern in patterns {
        match matching(pattern, folder) {
            Ok(found) if found.is_empty() => {
                warnings.push(Problem::new(&pattern.origin, "no file has such a name"));
            }
            Ok(found) => files.extend(found),
            Err(what) => problems.push(Problem::new(&pattern.origin, what)),
        }
        if files.len() > INCLUDED_FILES_MAX {
            let what = format!("more than {INCLUDED_FILES_MAX} files are included");
            problems.push(Problem::new(&pattern.origin, what));
            return Vec::new();
        }
    }
    files.into_iter().map(Arc::from).collect()
}

fn matching(pattern: &Node, folder: &Path) -> Result<Vec<PathBuf>, String> {
    let Some(text) = pattern.text() else {
        return Err(format!("expected a file name, found {}", pattern.noun()));
    };
    let (parent, name) = text.rsplit_once('/').unwrap_or(("", text));
    if parent.contains('*') {
        return Err("`*` may only stand in the last part of the name".to_owned());
    }
    let parent = match (parent, text.starts_with('/')) {
        ("", true) => PathBuf::from("/"),
        _ => folder.join(parent),
    };
    if !name.contains('*') {
        let file = parent.join(name);
        return if file.is_file() {
            Ok(vec![file])
        } else {
            Err(format!("there is no file {}", file.display()))
        };
    }
    let here = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        &parent
    };
    let entries = std::fs::read_dir(here)
        .map_err(|error| format!("the folder {} cannot be listed: {error}", here.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| format!("the folder cannot be listed: {error}"))?;
        let file_name = entry.file_name().to_string_lossy().into_owned();
        // Hidden files are the half-written copies of editors and the links of mounted volumes.
        if file_name.starts_with('.') || !matches(&file_name, name) {
            continue;
        }
        found.push(parent.join(file_name));
        if found.len() > INCLUDED_FILES_MAX {
            break;
        }
    }
    Ok(found)
}

/// Whether a name fits a pattern with any number of `*`.
fn matches(name: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (name, pattern, fits) in [
            ("a.toml", "*.toml", true),
            ("a.toml.bak", "*.toml", false),
            ("a.toml", "a.toml", true),
            ("b.toml", "a.toml", false),
            ("tenant-a.toml", "tenant-*.toml", true),
            ("tenant-.toml", "tenant-*.toml", true),
            ("x.toml", "x*x.toml", false),
            ("abcabc", "a*b*c", true),
            ("acb", "a*b*c", false),
            ("anything", "*", true),
        ] {
            assert_eq!(matches(name, pattern), fits, "{name} {pattern}");
        }
    }
}
