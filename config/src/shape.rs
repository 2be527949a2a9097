//! What the JSON Schema of an options type says beyond its serde form: required members, ranges,
//! and which members are secrets.
//!
//! Checked on the tree, so that every fault has its place and all are found in one run.

use exfilwatch_model::SecretSource;
use schemars::{JsonSchema, schema_for};
use serde_json::Value as Json;

use crate::origin::Problem;
use crate::tree::{Node, Table, Value};

/// What to do where a secret was written down.
const SECRET_HELP: &str = "a secret never stands in the configuration: name where it is found, \
     { file = \"…\" } or { env = \"…\" }";

/// The shape of one options type.
#[derive(Debug)]
pub(crate) struct Shape {
    schema: Json,
    secret: String,
}

/// A fault, and the way to the member that has to go for the rest to be read.
#[derive(Debug)]
pub(crate) struct ShapeFault {
    pub(crate) path: Vec<String>,
    pub(crate) problem: Problem,
}

impl Shape {
    /// The shape of `T`.
    pub(crate) fn of<T: JsonSchema>() -> Self {
        Self {
            schema: schema_for!(T).to_value(),
            secret: format!("#/$defs/{}", SecretSource::schema_name()),
        }
    }

    /// Members without which it cannot be read.
    pub(crate) fn required(&self) -> impl Iterator<Item = &str> {
        let required = self.schema.get("required").and_then(Json::as_array);
        required.into_iter().flatten().filter_map(Json::as_str)
    }

    /// Secrets written down and numbers out of range.
    pub(crate) fn faults(&self, table: &Table) -> Vec<ShapeFault> {
        let mut faults = Vec::new();
        self.walk_table(&self.schema, table, &mut Vec::new(), &mut faults);
        faults
    }

    fn walk_table(
        &self,
        schema: &Json,
        table: &Table,
        path: &mut Vec<String>,
        faults: &mut Vec<ShapeFault>,
    ) {
        for (key, entry) in table {
            let Some(member) = schema.get("properties").and_then(|all| all.get(key)) else {
                continue;
            };
            path.push(key.clone());
            self.walk(member, &entry.node, path, faults);
            path.pop();
        }
    }

    fn walk(
        &self,
        schema: &Json,
        node: &Node,
        path: &mut Vec<String>,
        faults: &mut Vec<ShapeFault>,
    ) {
        let Some((schema, secret)) = self.resolved(schema) else {
            return;
        };
        let node: &Node = &node.expanded();
        let problem = if secret {
            secret_fault(node)
        } else {
            range_fault(schema, node)
        };
        if let Some(problem) = problem {
            let path = path.clone();
            faults.push(ShapeFault { path, problem });
        } else if let (Value::Table(table), false) = (&node.value, secret) {
            self.walk_table(schema, table, path, faults);
        }
    }

    /// Follows a reference, also where it stands beside `null`. Tells whether it is the type of
    /// secrets.
    fn resolved<'a>(&'a self, schema: &'a Json) -> Option<(&'a Json, bool)> {
        let choices = schema.get("anyOf").and_then(Json::as_array);
        let referring = choices
            .into_iter()
            .flatten()
            .chain([schema])
            .find_map(|one| one.get("$ref").and_then(Json::as_str));
        match referring {
            None => Some((schema, false)),
            Some(reference) => {
                let target = self.schema.pointer(reference.strip_prefix('#')?)?;
                Some((target, reference == self.secret))
            }
        }
    }
}

/// A secret that is written down rather than named, without repeating it.
fn secret_fault(node: &Node) -> Option<Problem> {
    let Value::Table(table) = &node.value else {
        return Some(Problem::new(&node.origin, "a secret is written here").help(SECRET_HELP));
    };
    let mut entries = table.iter();
    let (Some((key, entry)), None) = (entries.next(), entries.next()) else {
        let what = "a secret must be named in exactly one way";
        return Some(Problem::new(&node.origin, what).help(SECRET_HELP));
    };
    if key != "file" && key != "env" {
        let what = format!("unknown key `{key}`");
        return Some(Problem::new(&entry.key, what).help(SECRET_HELP));
    }
    let text = match &entry.node.value {
        Value::String(text) if !text.is_empty() => text,
        _ => {
            let what = format!("`{key}` must be a string that is not empty");
            return Some(Problem::new(&entry.node.origin, what).help(SECRET_HELP));
        }
    };
    let plausible = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (key == "env" && !plausible).then(|| {
        let what = "`env` must be the name of an environment variable";
        Problem::new(&entry.node.origin, what).help(SECRET_HELP)
    })
}

/// A number outside the range its schema gives.
fn range_fault(schema: &Json, node: &Node) -> Option<Problem> {
    let Value::Integer(number) = node.value else {
        return None;
    };
    let bound = |name| schema.get(name).and_then(Json::as_i64);
    let (least, most) = (bound("minimum"), bound("maximum"));
    let inside =
        least.is_none_or(|least| number >= least) && most.is_none_or(|most| number <= most);
    (!inside).then(|| {
        let range = match (least, most) {
            (Some(least), Some(most)) => format!("from {least} to {most}"),
            (Some(least), None) => format!("of {least} or more"),
            (None, most) => format!("of {} or less", most.unwrap_or_default()),
        };
        Problem::new(
            &node.origin,
            format!("{number} is out of range, expected a number {range}"),
        )
    })
}
