//! Files that are made from the program itself, so that they cannot tell another story than it.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::workspace::{cargo, printed, root};

/// Each file, and the command of exfilwatch that prints it.
const FILES: &[(&str, &[&str])] = &[
    ("docs/config.schema.json", &["config", "schema"]),
    ("docs/COVERAGE.md", &["rules", "list", "--coverage"]),
    ("docs/DOCTOR.md", &["doctor", "--causes"]),
    ("docs/RULES.md", &["rules", "list", "--markdown"]),
];

/// Writes the files, or with `check` only compares them.
pub(crate) fn run(check: bool) -> Result<()> {
    let mut stale = Vec::new();
    for (path, arguments) in FILES {
        let command = [&["run", "--quiet", "--bin", "exfilwatch", "--"], *arguments].concat();
        let wanted = printed(&mut cargo(&command))?;
        if is_stale(&root().join(path), &wanted) {
            if !check {
                std::fs::write(root().join(path), &wanted)
                    .with_context(|| format!("writing {path}"))?;
                println!("wrote {path}");
            }
            stale.push(*path);
        }
    }
    ensure!(
        !check || stale.is_empty(),
        "out of date: {}; run `cargo xtask generate` and commit what it writes",
        stale.join(", ")
    );
    Ok(())
}

fn is_stale(path: &Path, wanted: &str) -> bool {
    !std::fs::read_to_string(path).is_ok_and(|text| text == wanted)
}
