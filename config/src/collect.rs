//! Reads one table into its type and finds all its faults in one run: after each fault the faulty
//! member is taken out and the rest is read again.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;

use crate::nearest::suggestion;
use crate::origin::{Origin, Problem};
use crate::reader::{Fault, ReadError, TableReader};
use crate::shape::Shape;
use crate::tree::{Table, Value};

/// Most faults listed of one table.
const FAULTS_PER_TABLE_MAX: usize = 32;

/// A table that is to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading<'a> {
    /// Its members.
    pub(crate) table: &'a Table,
    /// Its place, for what is missing in it.
    pub(crate) place: &'a Origin,
    /// Its name, as it stands in brackets.
    pub(crate) name: &'a str,
}

/// The typed value, or all that is wrong.
pub(crate) fn read<T: DeserializeOwned>(
    shape: &Shape,
    reading: Reading<'_>,
) -> Result<T, Vec<Problem>> {
    let mut problems: Vec<Problem> = shape
        .required()
        .filter(|key| !reading.table.contains_key(*key))
        .map(|key| missing(&reading, key))
        .collect();
    let value = read_present(shape, reading, &mut problems);
    match value {
        Some(value) if problems.is_empty() => Ok(value),
        _ => Err(problems),
    }
}

/// What is wrong with a table to which other members will be added before it is read.
pub(crate) fn faults_of_part<T: DeserializeOwned>(
    shape: &Shape,
    reading: Reading<'_>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    read_present::<T>(shape, reading, &mut problems);
    problems
}

/// A member that must be there and is not.
pub(crate) fn missing(reading: &Reading<'_>, key: &str) -> Problem {
    let what = format!("`{key}` is missing in [{}]", reading.name);
    Problem::new(reading.place, what)
}

/// Reads what is there. Missing members of the table itself are not reported.
fn read_present<T: DeserializeOwned>(
    shape: &Shape,
    reading: Reading<'_>,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let mut table = reading.table.clone();
    let mut removed = BTreeSet::new();
    for fault in shape.faults(&table) {
        remove(&mut table, &fault.path);
        removed.extend(fault.path.first().cloned());
        problems.push(fault.problem);
    }
    for _ in 0..FAULTS_PER_TABLE_MAX {
        let error = match T::deserialize(TableReader(&table)) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let path = error.path.clone();
        if path.is_empty() {
            let secondary = matches!(error.fault, Fault::Missing(_));
            if !secondary {
                problems.push(problem(error, &reading));
            }
            return None;
        }
        // A table that lost a faulty member may now lack it: that is no news.
        let known_broken = path.first().is_some_and(|key| removed.contains(key));
        let secondary = known_broken && matches!(error.fault, Fault::Missing(_));
        if !secondary {
            problems.push(problem(error, &reading));
        }
        remove(&mut table, &path);
        removed.extend(path.first().cloned());
    }
    None
}

fn problem(error: ReadError, reading: &Reading<'_>) -> Problem {
    let origin = error.origin.as_ref().unwrap_or(reading.place).clone();
    match error.fault {
        Fault::UnknownKey { key, known } => Problem::new(
            &origin,
            format!("unknown key `{key}` in [{}]", reading.name),
        )
        .help(suggestion(&key, known)),
        Fault::Missing(key) => {
            let below = error.path.join(".");
            Problem::new(&origin, format!("`{key}` is missing in `{below}`"))
        }
        Fault::Said(what) => Problem::new(&origin, format!("`{}`: {what}", error.path.join("."))),
        Fault::Other { what, help } => Problem {
            help,
            ..Problem::new(&origin, format!("`{}`: {what}", error.path.join(".")))
        },
    }
}

fn remove(table: &mut Table, path: &[String]) {
    let Some((key, rest)) = path.split_first() else {
        return;
    };
    let descended = match table.get_mut(key).map(|entry| &mut entry.node.value) {
        Some(Value::Table(inner)) if !rest.is_empty() => {
            remove(inner, rest);
            true
        }
        _ => false,
    };
    if !descended {
        table.remove(key);
    }
}
