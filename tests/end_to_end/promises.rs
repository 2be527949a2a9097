//! docs/DELIVERY.md: the tests that hold its promises exist, and no row of its failure table is without one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Rows of the failure table.
const ROWS: usize = 111;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn promises() -> String {
    fs::read_to_string(root().join("docs/DELIVERY.md")).unwrap()
}

/// All Rust sources of the workspace, target folders left out.
fn sources(folder: &Path, files: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            files.insert(path, text);
        }
    }
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(plain)
}

#[test]
fn every_test_that_a_promise_names_exists() {
    let promises = promises();
    let mut code = BTreeMap::new();
    sources(root(), &mut code);
    let is_test =
        |name: &&str| name.len() > 24 && is_name(name) && !name.starts_with("exfilwatch_");
    let named: Vec<&str> = quoted(&promises).filter(is_test).collect();
    assert!(named.len() > 100, "{named:?}");
    let is_there = |name: &str| {
        let definition = format!("fn {name}(");
        code.values().any(|text| text.contains(&definition))
    };
    let absent: Vec<_> = named.iter().filter(|name| !is_there(name)).collect();
    assert!(absent.is_empty(), "promised, but not there: {absent:?}");
}

#[test]
fn each_row_of_the_failure_table_has_a_test_where_it_says_or_a_reason() {
    let promises = promises();
    let (_, table) = promises.split_once("\n## Failure table\n").unwrap();
    let mut rows = BTreeMap::new();
    for line in table.lines().filter(|line| line.starts_with("| ")) {
        let (number, held) = line[2..].split_once(" | ").unwrap();
        if let Ok(number) = number.parse::<usize>() {
            assert!(rows.insert(number, held).is_none(), "row {number} twice");
        }
    }
    assert!(rows.keys().copied().eq(1..=ROWS), "{:?}", rows.keys());
    for (number, held) in rows {
        // A reason, in a sentence.
        if let Some(reason) = held.strip_prefix("– ") {
            assert!(reason.len() > 40, "row {number}: {reason}");
            continue;
        }
        let is_file = |text: &&str| Path::new(text).extension().is_some_and(|end| end == "rs");
        let texts: Vec<String> = quoted(held)
            .filter(is_file)
            .map(|file| {
                let text = fs::read_to_string(root().join(file));
                text.unwrap_or_else(|error| panic!("row {number}: {file}: {error}"))
            })
            .collect();
        let names: Vec<&str> = quoted(held).filter(|text| is_name(text)).collect();
        assert!(!names.is_empty(), "row {number} names no test: {held}");
        for name in names {
            let definition = format!("fn {name}(");
            let found = texts.iter().any(|text| text.contains(&definition));
            assert!(found, "row {number}: no {name} in the files it names");
        }
    }
}
