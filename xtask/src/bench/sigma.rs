//! What SigmaHQ's rules cost with the library that they are matched by, fed in the usual way: a
//! `serde_json::Value` of each record, given to its engine.
//!
//! Both sides look for the same: the rules that can match, with the names and values that `replay` looks
//! for. What a rule names is taken from the record where it lies; what is no member of it is worked out only
//! when a rule asks. Of each match the library's side tells the least that is of use: a line with the rule and
//! the record.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rsigma_eval::{Engine, Event, EventValue, JsonEvent};
use rsigma_parser::Detection;
use serde::Serialize;
use serde_json::Value;

use super::floors;
use crate::workspace;

/// Fields of ours that are members of a record, under the vendor's name.
const MEMBERS: [(&str, &str); 7] = [
    ("operation", "Operation"),
    ("service", "Workload"),
    ("result", RESULT),
    ("actor", "UserId"),
    ("alert_name", "Name"),
    ("source_ip", "ClientIP"),
    ("app_id", "ApplicationId"),
];
/// The member that says in several words whether it went well; rules ask for `success` or `failure`.
const RESULT: &str = "ResultStatus";
/// The record as it is written.
const RAW: &str = "raw";
/// The product of the records.
const PRODUCT: &str = "m365";

/// A match, as it is told.
#[derive(Serialize)]
struct Match<'a> {
    rule: &'a str,
    rule_id: Option<&'a str>,
    record: &'a str,
}

/// SigmaHQ's rules for the two clouds, where they lie beside the workspace.
pub(crate) fn folder() -> Option<PathBuf> {
    let folder = workspace::root().join("../shared/samples/sigma");
    folder.is_dir().then_some(folder)
}

/// Tells on standard output what the rules of a folder match in a file.
pub(crate) fn run(folder: &Path, file: &Path) -> Result<()> {
    let engine = engine(folder)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    floors::each_line(file, |line| {
        let text = std::str::from_utf8(line)?;
        let value: Value = serde_json::from_str(text)?;
        let record = Record {
            tree: JsonEvent::borrow(&value),
            value: &value,
            text,
        };
        for result in engine.evaluate(&record) {
            let told = Match {
                rule: &result.header.rule_title,
                rule_id: result.header.rule_id.as_deref(),
                record: value["Id"].as_str().unwrap_or_default(),
            };
            serde_json::to_writer(&mut out, &told)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    })?;
    out.flush().context("writing what matched")
}

/// The library's engine with the rules for these records. Those for Google's it would try in vain.
fn engine(folder: &Path) -> Result<Engine> {
    let mut rules = exfilwatch_detectors::mapped(&exfilwatch_detectors::folder(folder)?)?;
    ensure!(rules.len() > 50, "most rules are not run");
    rules.retain(|rule| rule.logsource.product.as_deref() == Some(PRODUCT));
    let mut engine = Engine::new();
    for mut rule in rules {
        rule.detection.named.values_mut().for_each(rename);
        engine.add_rule(&rule)?;
    }
    Ok(engine)
}

/// Gives fields the names of a record's members.
fn rename(detection: &mut Detection) {
    match detection {
        Detection::AllOf(items) => {
            for name in items.iter_mut().filter_map(|item| item.field.name.as_mut()) {
                if let Some((_, member)) = MEMBERS.iter().find(|(ours, _)| ours == name) {
                    *name = (*member).to_owned();
                }
            }
        }
        Detection::AnyOf(parts) | Detection::And(parts) => parts.iter_mut().for_each(rename),
        Detection::Keywords(_) | Detection::ArrayMatch { .. } | Detection::Conditional { .. } => {}
    }
}

/// A record, and what rules ask of it that is none of its members.
struct Record<'a> {
    tree: JsonEvent<'a>,
    value: &'a Value,
    text: &'a str,
}

impl<'a> Record<'a> {
    /// `success` or `failure`, however it is written.
    fn result(&self) -> Option<EventValue<'a>> {
        let status = self.value[RESULT].as_str()?;
        let is = |words: &[&str]| words.iter().any(|word| status.eq_ignore_ascii_case(word));
        let result = if is(&["true", "success", "succeeded"]) {
            "success"
        } else if is(&["false", "fail", "failed", "failure"]) {
            "failure"
        } else {
            return None;
        };
        Some(EventValue::Str(result.into()))
    }

    /// All values of a list of names and values, each with its name before it.
    fn pairs(&self, list: &str) -> Option<EventValue<'a>> {
        let mut all = Vec::new();
        for pair in self.value[list].as_array()? {
            let name = pair["Name"].as_str().unwrap_or_default();
            for (member, said) in [
                ("Value", ""),
                ("NewValue", ".NewValue"),
                ("OldValue", ".OldValue"),
            ] {
                if let Some(value) = pair[member].as_str() {
                    all.push(EventValue::Str(format!("{name}{said}={value}").into()));
                }
            }
        }
        (!all.is_empty()).then_some(EventValue::Array(all))
    }

    /// What a property was changed to.
    fn changed(&self, property: &str) -> Option<EventValue<'a>> {
        let mut properties = self.value["ModifiedProperties"].as_array()?.iter();
        let changed = properties.find(|one| one["Name"] == *property)?;
        Some(EventValue::from(changed.get("NewValue")?))
    }
}

impl Event for Record<'_> {
    fn get_field(&self, path: &str) -> Option<EventValue<'_>> {
        if path == RESULT {
            return self.result();
        }
        if path == RAW {
            return Some(EventValue::Str(self.text.into()));
        }
        if let Some(list) = path.strip_suffix(".*") {
            return self.pairs(list);
        }
        let property = path
            .strip_prefix("ModifiedProperties.")
            .and_then(|path| path.strip_suffix(".NewValue"));
        match property {
            Some(property) => self.changed(property),
            None => self.tree.get_field(path),
        }
    }

    fn any_string_value(&self, pred: &dyn Fn(&str) -> bool) -> bool {
        self.tree.any_string_value(pred)
    }

    fn all_string_values(&self) -> Vec<std::borrow::Cow<'_, str>> {
        self.tree.all_string_values()
    }

    fn visit_string_values(&self, visit: &mut dyn FnMut(&str)) {
        self.tree.visit_string_values(visit);
    }

    fn to_json(&self) -> Value {
        self.tree.to_json()
    }

    fn visit_top_level_keys(&self, visit: &mut dyn FnMut(&str)) -> bool {
        visit(RAW);
        self.tree.visit_top_level_keys(visit)
    }
}
