//! Builds the one tree of all layers: built-in defaults, the main file and what it includes, the
//! environment, the flags.
//!
//! Knows the sections, but not what their members mean.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::DeTable;

use crate::files::{included, read_text};
use crate::nearest::suggestion;
use crate::origin::{Origin, Problem};
use crate::tree::{self, Entry, Node, Table, Value, table_at};

/// The built-in defaults, with comments.
pub(crate) const DEFAULTS: &str = include_str!("default.toml");

/// What variables of the environment begin with; `__` stands between the parts of the path.
const ENVIRONMENT_PREFIX: &str = "EXFILWATCH__";

/// Most parts of a path given by a variable or flag.
const PATH_PARTS_MAX: usize = 16;

/// The sections.
const SECTIONS: &[&str] = &[
    "defaults",
    "tenants",
    "connectors",
    "emitters",
    "detectors",
    "state",
    "serve",
    "run",
];

/// The sections that an included file may hold.
const INCLUDED_SECTIONS: &[&str] = &["tenants", "connectors"];

/// Where the layers come from. The caller reads the environment, so that only one place does.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The main file. Without one, only the other layers count.
    pub file: Option<PathBuf>,
    /// The environment; only names that begin with `EXFILWATCH__` are looked at
    /// (`EXFILWATCH__serve__listen`).
    pub environment: BTreeMap<String, String>,
    /// Values of the command line by path (`serve.listen`), a part with dots in quotes.
    pub flags: Vec<(String, String)>,
}

/// All layers in one tree.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    pub(crate) tree: Table,
    /// Included files, and the tenants each names as far as could be read.
    pub(crate) included: BTreeMap<Arc<Path>, BTreeSet<String>>,
    /// Included files that could not be read to the end; they may name more tenants.
    pub(crate) unread: BTreeSet<Arc<Path>>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
}

/// Reads all layers. Gives an error only where the main file cannot be understood at all.
pub(crate) fn read(sources: &Sources) -> Result<Layers, Vec<Problem>> {
    // Relative paths, the built-in ones too, are meant from the folder of the main file.
    let folder = sources.file.as_deref().and_then(Path::parent);
    let folder = folder.unwrap_or(Path::new(""));
    let mut layers = Layers {
        tree: tree::parse_defaults(DEFAULTS),
        ..Layers::default()
    };
    tree::resolve_paths(&mut layers.tree, folder);
    if let Some(path) = &sources.file {
        layers.add_main(path, folder)?;
    }
    layers.add_environment(&sources.environment);
    layers.add_flags(&sources.flags);
    layers.check_sections();
    Ok(layers)
}

impl Layers {
    fn add_main(&mut self, path: &Path, folder: &Path) -> Result<(), Vec<Problem>> {
        let file: Arc<Path> = Arc::from(path);
        let text = read_text(path).map_err(|what| {
            vec![Problem::new(
                &Origin::start_of(&file),
                format!("the file {what}"),
            )]
        })?;
        let (mut table, problems) = tree::parse(&text, &file);
        if !problems.is_empty() {
            return Err(problems);
        }
        tree::resolve_paths(&mut table, folder);
        let include = table.remove("include");
        // Sections and kinds are joined; a member set in the file replaces the built-in one whole.
        tree::lay_over(&mut self.tree, table, 2);
        if let Some(include) = include {
            let files = included(
                &include.node,
                folder,
                &mut self.problems,
                &mut self.warnings,
            );
            for file in files.into_iter().filter(|file| **file != *path) {
                self.add_included(&file);
            }
        }
        Ok(())
    }

    fn add_included(&mut self, file: &Arc<Path>) {
        let text = match read_text(file) {
            Ok(text) => text,
            Err(what) => {
                let problem = Problem::new(&Origin::start_of(file), format!("the file {what}"));
                self.problems.push(problem);
                self.included.insert(Arc::clone(file), BTreeSet::new());
                self.unread.insert(Arc::clone(file));
                return;
            }
        };
        let (mut table, problems) = tree::parse(&text, file);
        let tenants = table_at(&table, "tenants");
        let tenants = tenants.map(|tenants| tenants.keys().cloned().collect());
        self.included
            .insert(Arc::clone(file), tenants.unwrap_or_default());
        if !problems.is_empty() {
            self.problems.extend(problems);
            self.unread.insert(Arc::clone(file));
            return;
        }
        tree::resolve_paths(&mut table, file.parent().unwrap_or(Path::new("")));
        self.graft(table);
    }

    /// Adds what an included file holds. What is there already is refused, not replaced.
    fn graft(&mut self, table: Table) {
        for (section, entry) in table {
            if !INCLUDED_SECTIONS.contains(&section.as_str()) {
                let what = format!("`{section}` may not stand in an included file");
                let help = "only [tenants.…] and [connectors.…]; the rest belongs in the main file";
                self.problems
                    .push(Problem::new(&entry.key, what).help(help));
                continue;
            }
            let depth = if section == "connectors" { 2 } else { 1 };
            let section = (section, entry);
            graft_entry(&mut self.tree, section, depth, "", &mut self.problems);
        }
    }

    fn add_environment(&mut self, environment: &BTreeMap<String, String>) {
        for (name, value) in environment {
            let Some(path) = name.strip_prefix(ENVIRONMENT_PREFIX) else {
                continue;
            };
            let origin = Origin::Environment(name.as_str().into());
            let path: Vec<String> = path.split("__").map(str::to_owned).collect();
            self.set(&path, value, origin);
        }
    }

    fn add_flags(&mut self, flags: &[(String, String)]) {
        for (path, value) in flags {
            let origin = Origin::Flag(path.as_str().into());
            if let Some(parts) = parts(path) {
                self.set(&parts, value, origin);
            } else {
                let what = "not a path of the configuration";
                let problem = Problem::new(&origin, what).help("for example serve.listen");
                self.problems.push(problem);
            }
        }
    }

    fn set(&mut self, path: &[String], value: &str, origin: Origin) {
        if path.len() > PATH_PARTS_MAX {
            let what = format!("a path has at most {PATH_PARTS_MAX} parts");
            self.problems.push(Problem::new(&origin, what));
            return;
        }
        let value = Value::Text(value.to_owned());
        if let Err(problem) = tree::set(&mut self.tree, path, Node { origin, value }) {
            self.problems.push(problem);
        }
    }

    fn check_sections(&mut self) {
        for (name, entry) in &self.tree {
            if name == "include" {
                let what = "`include` can only be set in the main file";
                self.problems.push(Problem::new(&entry.key, what));
            } else if !SECTIONS.contains(&name.as_str()) {
                let help = suggestion(name, SECTIONS);
                let what = format!("unknown section `{name}`");
                self.problems
                    .push(Problem::new(&entry.key, what).help(help));
            } else if entry.node.table().is_none() {
                let what = format!("`{name}` must be a table, found {}", entry.node.noun());
                self.problems
                    .push(Problem::new(&entry.key, what).help(format!("[{name}]")));
            }
        }
    }
}

fn graft_entry(
    under: &mut Table,
    (key, entry): (String, Entry),
    depth: usize,
    name: &str,
    problems: &mut Vec<Problem>,
) {
    let name = if name.is_empty() {
        key.clone()
    } else {
        format!("{name}.{key}")
    };
    match under.get_mut(&key) {
        None => {
            under.insert(key, entry);
        }
        Some(below) => match (&mut below.node.value, entry.node.value) {
            (Value::Table(below), Value::Table(above)) if depth > 0 => {
                for member in above {
                    graft_entry(below, member, depth - 1, &name, problems);
                }
            }
            _ => {
                let what = format!("[{name}] is there already, at {}", below.key);
                problems.push(Problem::new(&entry.key, what).help("give it another name"));
            }
        },
    }
}

/// Parts of a path written with dots, as in TOML.
fn parts(path: &str) -> Option<Vec<String>> {
    let document = format!("{path} = 0");
    let document = DeTable::parse(&document).ok()?;
    let mut table = document.get_ref();
    let mut parts = Vec::new();
    loop {
        let (key, value) = table.iter().next()?;
        parts.push(key.get_ref().to_string());
        match value.get_ref().as_table() {
            Some(inner) if table.len() == 1 => table = inner,
            None if table.len() == 1 => return Some(parts),
            _ => return None,
        }
    }
}
