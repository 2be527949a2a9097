//! The configuration as a tree of values, each with its origin; parsing and layering of trees.
//!
//! Knows nothing of what the keys mean.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use crate::origin::{Origin, Problem};

/// Most syntax errors listed of one file.
const SYNTAX_ERRORS_MAX: usize = 20;

/// Keys whose values are paths in the file system. A relative one is meant relative to the folder
/// of the file it stands in.
const PATH_KEYS: &[&str] = &[
    "file",
    "key_file",
    "certificate_file",
    "ca_file",
    "folder",
    "path",
    "rules_dir",
    "people_file",
    "apps_file",
    "partners_file",
    "free_mail_file",
    "lookalikes_file",
    "country_file",
    "asn_file",
];

/// A value and where it was set.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) origin: Origin,
    pub(crate) value: Value,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Text of an environment variable or flag: read as whatever is wanted of it.
    Text(String),
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Date,
    Array(Vec<Node>),
    Table(Table),
}

/// A key's own place, and what it holds.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Origin,
    pub(crate) node: Node,
}

/// Keys and values of one table.
pub(crate) type Table = BTreeMap<String, Entry>;

impl Node {
    pub(crate) fn table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The value as text, where it is text.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) | Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Text of an environment variable or flag read as a TOML value (`["a", "b"]`, `7`, `true`);
    /// as a string where it is none.
    pub(crate) fn expanded(&self) -> Cow<'_, Self> {
        let Value::Text(text) = &self.value else {
            return Cow::Borrowed(self);
        };
        let origin = &self.origin;
        Cow::Owned(match DeValue::parse(text) {
            Ok(value) => node_of(
                value.get_ref(),
                origin,
                &|_| origin.clone(),
                &mut Vec::new(),
            ),
            Err(_) => Self {
                origin: origin.clone(),
                value: Value::String(text.clone()),
            },
        })
    }

    /// A noun for messages: what kind of value this is, never the value.
    pub(crate) fn noun(&self) -> &'static str {
        match &self.value {
            Value::Text(_) | Value::String(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a number with a decimal point",
            Value::Boolean(_) => "true or false",
            Value::Date => "a date",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

/// The table under a key, when there is one.
pub(crate) fn table_at<'a>(table: &'a Table, key: &str) -> Option<&'a Table> {
    table.get(key).and_then(|entry| entry.node.table())
}

/// Parses a document. With syntax errors, the table is what could be understood and must only be
/// used for looking up names.
pub(crate) fn parse(text: &str, file: &Arc<Path>) -> (Table, Vec<Problem>) {
    let lines = Lines::new(text);
    let origin = |offset| {
        let (line, column) = lines.place(offset);
        Origin::File {
            file: Arc::clone(file),
            line,
            column,
        }
    };
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<Problem> = errors
        .iter()
        .take(SYNTAX_ERRORS_MAX)
        .map(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            Problem::new(
                &origin(offset),
                format!("not valid TOML: {}", error.message()),
            )
        })
        .collect();
    let table = table_of(document.get_ref(), &origin, &mut problems);
    (table, problems)
}

/// The built-in defaults. Their origin is [`Origin::Default`] throughout.
pub(crate) fn parse_defaults(text: &str) -> Table {
    let (document, _) = DeTable::parse_recoverable(text);
    table_of(document.get_ref(), &|_| Origin::Default, &mut Vec::new())
}

/// Makes relative paths in `table` absolute or relative to where we stand, by putting `folder` in
/// front.
pub(crate) fn resolve_paths(table: &mut Table, folder: &Path) {
    for (key, entry) in table {
        match &mut entry.node.value {
            Value::Table(inner) => resolve_paths(inner, folder),
            Value::String(text) if PATH_KEYS.contains(&key.as_str()) && !text.is_empty() => {
                *text = folder.join(&*text).to_string_lossy().into_owned();
            }
            _ => {}
        }
    }
}

/// Lays `over` on `under`: tables are joined down to `depth` levels, everything below is
/// replaced whole.
pub(crate) fn lay_over(under: &mut Table, over: Table, depth: usize) {
    for (key, entry) in over {
        match under.get_mut(&key).map(|below| &mut below.node.value) {
            Some(Value::Table(below)) if depth > 0 => match entry.node.value {
                Value::Table(above) => lay_over(below, above, depth - 1),
                _ => {
                    under.insert(key, entry);
                }
            },
            _ => {
                under.insert(key, entry);
            }
        }
    }
}

/// Sets one value at a path, with the tables on the way to it.
pub(crate) fn set(table: &mut Table, path: &[String], node: Node) -> Result<(), Problem> {
    let Some((key, rest)) = path.split_first() else {
        return Err(Problem::new(&node.origin, "an empty path sets nothing"));
    };
    let origin = node.origin.clone();
    if rest.is_empty() {
        table.insert(key.clone(), Entry { key: origin, node });
        return Ok(());
    }
    let entry = table.entry(key.clone()).or_insert_with(|| Entry {
        key: origin.clone(),
        node: Node {
            origin: origin.clone(),
            value: Value::Table(Table::new()),
        },
    });
    match &mut entry.node.value {
        Value::Table(inner) => set(inner, rest, node),
        _ => Err(Problem::new(
            &origin,
            format!("`{key}` is a single value, so nothing can be set below it"),
        )),
    }
}

fn table_of(
    document: &DeTable<'_>,
    origin: &dyn Fn(usize) -> Origin,
    problems: &mut Vec<Problem>,
) -> Table {
    document
        .iter()
        .map(|(key, value)| {
            let place = origin(key.span().start);
            let node = node_of(
                value.get_ref(),
                &origin(value.span().start),
                origin,
                problems,
            );
            (key.get_ref().to_string(), Entry { key: place, node })
        })
        .collect()
}

fn node_of(
    value: &DeValue<'_>,
    place: &Origin,
    origin: &dyn Fn(usize) -> Origin,
    problems: &mut Vec<Problem>,
) -> Node {
    let value = match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(integer) => {
            let read = i64::from_str_radix(integer.as_str(), integer.radix());
            if read.is_err() {
                problems.push(Problem::new(place, "this integer is too big"));
            }
            Value::Integer(read.unwrap_or_default())
        }
        DeValue::Float(float) => Value::Float(float.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(boolean) => Value::Boolean(*boolean),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| node_of(item.get_ref(), &origin(item.span().start), origin, problems))
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(table_of(table, origin, problems)),
    };
    Node {
        origin: place.clone(),
        value,
    }
}

/// Turns byte offsets into lines and columns.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let breaks = text.match_indices('\n').map(|(offset, _)| offset + 1);
        Self {
            text,
            starts: std::iter::once(0).chain(breaks).collect(),
        }
    }

    fn place(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or_default();
        let before = self.text.get(start..offset).unwrap_or_default();
        (line, before.chars().count() + 1)
    }
}
