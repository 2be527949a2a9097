//! Reads the sections of the tree into typed tables, and notes all that is wrong on the way.

use std::collections::BTreeSet;

use exfilwatch_model::TenantId;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::collect::{self, Reading};
use crate::kinds::{CONNECTORS, EMITTERS, Kind, as_json, names};
use crate::nearest::suggestion;
use crate::options::Tenant;
use crate::origin::{Origin, Problem};
use crate::shape::Shape;
use crate::show::{self, Shown, joined};
use crate::tree::{self, Entry, Table, table_at};

/// A table with a name of its own, read.
pub(crate) struct Item<T> {
    /// Its name in its section, or below its kind.
    pub(crate) name: String,
    /// The whole name, as it stands in brackets.
    pub(crate) path: String,
    /// Place of its head.
    pub(crate) origin: Origin,
    pub(crate) options: T,
    /// Effective values as JSON.
    pub(crate) values: Json,
    /// The table it was read from, defaults included, for the places of its members.
    pub(crate) table: Table,
}

impl<T> Item<T> {
    /// Place of a member, or of the table where it has none.
    pub(crate) fn place_of(&self, key: &str) -> &Origin {
        let entry = self.table.get(key);
        entry.map_or(&self.origin, |entry| &entry.node.origin)
    }

    pub(crate) fn show(&self, shown: &mut Vec<Shown>) {
        show::list(&self.path, &self.values, &self.table, shown);
    }
}

/// Reads tables and keeps what is wrong.
#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) problems: Vec<Problem>,
    pub(crate) shown: Vec<Shown>,
    /// Places of faults in defaults, which come up again in each table of the kind.
    faulty_defaults: BTreeSet<Origin>,
}

impl Tables {
    /// A section that is one table. Its defaults where it cannot be read.
    pub(crate) fn single<T>(&mut self, tree: &Table, name: &str) -> T
    where
        T: DeserializeOwned + Serialize + JsonSchema + Default,
    {
        // That a section is a table was checked when the layers were joined.
        let Some((entry, table)) = tree
            .get(name)
            .and_then(|entry| Some((entry, entry.node.table()?)))
        else {
            return T::default();
        };
        let place = &entry.key;
        match collect::read::<T>(&Shape::of::<T>(), Reading { table, place, name }) {
            Ok(value) => {
                show::list(name, &as_json(&value), table, &mut self.shown);
                value
            }
            Err(problems) => {
                self.problems.extend(problems);
                T::default()
            }
        }
    }

    /// `[tenants.<alias>]`
    pub(crate) fn tenants(&mut self, tree: &Table) -> Vec<Item<Tenant>> {
        let shape = Shape::of::<Tenant>();
        let mut items = Vec::new();
        for (name, entry) in table_at(tree, "tenants").into_iter().flatten() {
            let path = joined("tenants", name);
            let Some(table) = self.named_table(&path, name, entry) else {
                continue;
            };
            let reading = Reading {
                table,
                place: &entry.key,
                name: &path,
            };
            match collect::read::<Tenant>(&shape, reading) {
                Ok(options) => items.push(Item {
                    name: name.clone(),
                    origin: entry.key.clone(),
                    values: as_json(&options),
                    table: table.clone(),
                    options,
                    path,
                }),
                Err(problems) => self.problems.extend(problems),
            }
        }
        items
    }

    /// `[defaults.<kind>]`: checked once, so that a fault is reported once.
    pub(crate) fn check_defaults(&mut self, tree: &Table) {
        let mut known = names(CONNECTORS);
        known.extend(names(EMITTERS));
        self.check_kinds(tree, "defaults", &known);
        let before = self.problems.len();
        self.check_defaults_of(tree, CONNECTORS);
        self.check_defaults_of(tree, EMITTERS);
        let faults = self.problems.iter().skip(before);
        self.faulty_defaults = faults.map(|problem| problem.origin.clone()).collect();
    }

    fn check_defaults_of<T>(&mut self, tree: &Table, kinds: &[Kind<T>]) {
        let Some(defaults) = table_at(tree, "defaults") else {
            return;
        };
        for kind in kinds {
            let Some(entry) = defaults.get(kind.name) else {
                continue;
            };
            let Some(table) = entry.node.table() else {
                continue;
            };
            let name = joined("defaults", kind.name);
            let reading = Reading {
                table,
                place: &entry.key,
                name: &name,
            };
            self.problems
                .extend((kind.faults_of_defaults)(&(kind.shape)(), reading));
        }
    }

    /// `[<section>.<kind>.<name>]`, each with the defaults of its kind below it.
    pub(crate) fn section<T>(
        &mut self,
        tree: &Table,
        section: &str,
        kinds: &[Kind<T>],
    ) -> Vec<Item<T>> {
        self.check_kinds(tree, section, &names(kinds));
        let mut items = Vec::new();
        for kind in kinds {
            let tables = table_at(tree, section).and_then(|kinds| table_at(kinds, kind.name));
            let Some(tables) = tables else { continue };
            let defaults = table_at(tree, "defaults").and_then(|all| table_at(all, kind.name));
            let shape = (kind.shape)();
            let kind_path = joined(section, kind.name);
            for (name, entry) in tables {
                let path = joined(&kind_path, name);
                let Some(own) = self.named_table(&path, name, entry) else {
                    continue;
                };
                let table = with_defaults(defaults, own, kind.one_of);
                let reading = Reading {
                    table: &table,
                    place: &entry.key,
                    name: &path,
                };
                match (kind.read)(&shape, reading) {
                    Ok(read) => items.push(Item {
                        name: name.clone(),
                        origin: entry.key.clone(),
                        options: read.options,
                        values: read.values,
                        table,
                        path,
                    }),
                    Err(problems) => self.extend_but_for_defaults(problems),
                }
            }
        }
        items
    }

    fn extend_but_for_defaults(&mut self, problems: Vec<Problem>) {
        let new = problems
            .into_iter()
            .filter(|problem| !self.faulty_defaults.contains(&problem.origin));
        self.problems.extend(new);
    }

    /// Unknown kinds, and values where a kind's table should be.
    fn check_kinds(&mut self, tree: &Table, section: &str, known: &[&str]) {
        for (kind, entry) in table_at(tree, section).into_iter().flatten() {
            if !known.contains(&kind.as_str()) {
                let what = format!("unknown kind `{kind}` in [{section}]");
                let help = suggestion(kind, known);
                self.problems
                    .push(Problem::new(&entry.key, what).help(help));
            } else if entry.node.table().is_none() {
                let what = format!("`{kind}` must be a table, found {}", entry.node.noun());
                self.problems.push(Problem::new(&entry.key, what));
            }
        }
    }

    /// The table of a name, when it is one and the name can be used in keys and file names.
    fn named_table<'a>(&mut self, path: &str, name: &str, entry: &'a Entry) -> Option<&'a Table> {
        if let Err(error) = TenantId::new(name) {
            self.problems
                .push(Problem::new(&entry.key, error.to_string()));
            return None;
        }
        let table = entry.node.table();
        if table.is_none() {
            let above = path.rsplit_once('.').map_or(path, |(above, _)| above);
            let what = format!("`{path}` must be a table, found {}", entry.node.noun());
            let help = format!("members stand below a name: [{above}.NAME]");
            self.problems
                .push(Problem::new(&entry.key, what).help(help));
        }
        table
    }
}

/// A table over the defaults of its kind. Of members that exclude each other, its own displaces
/// those of the defaults.
fn with_defaults(defaults: Option<&Table>, own: &Table, one_of: &[&str]) -> Table {
    let mut table = defaults.cloned().unwrap_or_default();
    if one_of.iter().any(|key| own.contains_key(*key)) {
        table.retain(|key, _| !one_of.contains(&key.as_str()));
    }
    tree::lay_over(&mut table, own.clone(), 0);
    table
}
