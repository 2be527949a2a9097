//! Stock Sigma rules on these logs. Their field names are those of Defender for Cloud Apps, of Entra's
//! own log and of Cloud Logging; here they get the names that events have. What no event can have is said,
//! and such a rule is left out rather than dead.

mod forms;
mod report;

use std::collections::{BTreeMap, BTreeSet};

use exfilwatch_model::field;
use rsigma_parser::{
    CorrelationCondition, CorrelationRule, Detection, DetectionItem, FieldSpec, Modifier,
    SigmaRule, SigmaString, SigmaValue,
};

use super::interest;
use super::lint::unknown_field;
use super::need::Need;
use forms::{Form, Name};

pub use report::{Stock, StockState, mapped, stock};

/// What was made of a stock rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mapped {
    /// Fields that have another name here, by theirs.
    pub(crate) renamed: BTreeMap<String, String>,
    /// Fields that are not looked at, since they follow from the others.
    pub(crate) left_out: BTreeSet<String>,
    /// What the reader of the report should know.
    pub(crate) notes: Vec<String>,
    /// Why it can never match.
    pub(crate) never: Option<String>,
}

/// Entra's activities that reach the unified audit log.
const ACTIVITIES: &str = include_str!("activities.txt");

/// Gives the fields of a stock rule the names that events have.
pub(crate) fn map(rule: &mut SigmaRule) -> Mapped {
    let Some(form) = Form::of(&rule.logsource) else {
        return Mapped::default();
    };
    let mut mapper = Mapper {
        form,
        is_admin_log: rule.logsource.service.as_deref() == Some(ADMIN_LOG),
        mapping: Mapped::default(),
        dead: BTreeMap::new(),
    };
    for detection in rule.detection.named.values_mut() {
        mapper.detection(detection);
    }
    let Mapper {
        mut mapping, dead, ..
    } = mapper;
    if Need::of(rule).may_be_met(&mut |claim| !dead.contains_key(claim.field())) {
        mapping.notes.extend(dead.into_values());
    } else {
        let reasons: Vec<&str> = dead.values().map(String::as_str).collect();
        mapping.never = Some(reasons.join("; "));
    }
    let (product, adds_alerts) = match form {
        Form::Office365 | Form::Entra => ("m365", false),
        Form::Alerts => ("m365", true),
        Form::CloudLogging | Form::Google => ("google_workspace", false),
    };
    rule.logsource.product = Some(product.to_owned());
    if adds_alerts && mapping.renamed.values().any(|to| to == field::ALERT_NAME) {
        only_alerts(rule, &mut mapping);
    }
    if mapping.never.is_none() && interest::operations(rule).is_empty() {
        let note = "it names no operation: every record of the product is looked through for it";
        mapping.notes.push(note.to_owned());
    }
    mapping
}

/// A vendor's alert is known by its operation, so that other records need not be taken apart.
fn only_alerts(rule: &mut SigmaRule, mapping: &mut Mapped) {
    let alerts = DetectionItem {
        field: FieldSpec::new(
            Some(field::OPERATION.to_owned()),
            vec![Modifier::StartsWith],
        ),
        values: vec![text("Alert")],
    };
    let mut all = true;
    for detection in rule.detection.named.values_mut() {
        all &= in_alerts_only(detection, &alerts);
    }
    let what = if all {
        "looked for"
    } else {
        "what names an alert is looked for"
    };
    mapping
        .notes
        .push(format!("{what} in alerts only (operation Alert*)"));
}

/// Lets each map that names an alert look at alerts only, also in a list of maps. Whether that is all
/// that is looked for.
fn in_alerts_only(detection: &mut Detection, alerts: &DetectionItem) -> bool {
    let names_alert = |item: &DetectionItem| item.field.name.as_deref() == Some(field::ALERT_NAME);
    match detection {
        Detection::AllOf(items) if items.iter().any(names_alert) => {
            items.push(alerts.clone());
            true
        }
        Detection::AnyOf(maps) => {
            let mut all = true;
            for map in maps {
                all &= in_alerts_only(map, alerts);
            }
            all
        }
        _ => false,
    }
}

/// The same for a stock correlation: its keys and what it counts.
pub(crate) fn map_correlation(rule: &mut CorrelationRule) -> Mapped {
    let mut mapping = Mapped::default();
    let aliases: Vec<String> = rule
        .aliases
        .iter()
        .map(|alias| alias.alias.clone())
        .collect();
    let mut rename = |name: &mut String| {
        let key = forms::key(name);
        if key != *name {
            mapping.renamed.insert(name.clone(), key.clone());
        } else if let Some(problem) = unknown_field(name) {
            mapping.never.get_or_insert(problem);
        }
        *name = key;
    };
    for name in rule
        .group_by
        .iter_mut()
        .filter(|name| !aliases.contains(name))
    {
        rename(name);
    }
    if let CorrelationCondition::Threshold {
        field: Some(fields),
        ..
    } = &mut rule.condition
    {
        fields.iter_mut().for_each(&mut rename);
    }
    for alias in &mut rule.aliases {
        alias.mapping.values_mut().for_each(&mut rename);
    }
    mapping
}

/// The log whose parameters are written large.
const ADMIN_LOG: &str = "google_workspace.admin";

struct Mapper {
    form: Form,
    is_admin_log: bool,
    mapping: Mapped,
    /// Names that stand for what no event has, and why.
    dead: BTreeMap<String, String>,
}

impl Mapper {
    fn detection(&mut self, detection: &mut Detection) {
        match detection {
            Detection::AllOf(items) => {
                let mapped = self.items(std::mem::take(items));
                *items = mapped;
            }
            Detection::AnyOf(parts) | Detection::And(parts) => {
                for part in parts {
                    self.detection(part);
                }
            }
            Detection::Keywords(_)
            | Detection::ArrayMatch { .. }
            | Detection::Conditional { .. } => {}
        }
    }

    /// A selection: items that must all hold.
    fn items(&mut self, items: Vec<DetectionItem>) -> Vec<DetectionItem> {
        let names: Vec<Name> = items
            .iter()
            .map(|item| {
                item.field
                    .name
                    .as_deref()
                    .map_or(Name::Unknown, |n| self.form.name(n))
            })
            .collect();
        let names_operation = names.contains(&Name::Operation);
        let property = items.iter().zip(&names).find_map(|(item, name)| {
            let value = item.values.first().filter(|_| *name == Name::Property)?;
            Some(plain(value))
        });
        let has_value = names
            .iter()
            .any(|name| matches!(name, Name::Is(to) if to == "ModifiedProperties.*"));
        let mut mapped = Vec::new();
        // A selection that repeats the operation in other words names it once.
        let mut operations = 0;
        for (item, name) in items.into_iter().zip(names) {
            let Some(from) = item.field.name.clone() else {
                mapped.push(item);
                continue;
            };
            match name {
                Name::Operation => {
                    operations += 1;
                    mapped.push(self.operation(&from, item, operations));
                }
                Name::Result => mapped.push(self.result(&from, item)),
                Name::Service => mapped.push(self.service(&from, item)),
                Name::Implied => match self.implied(&from, &item, names_operation) {
                    Some(dead) => mapped.push(dead),
                    None => {
                        self.mapping.left_out.insert(from);
                    }
                },
                Name::Property if item.values.len() != 1 => {
                    let reason =
                        format!("{from} names several properties, of which one is looked at");
                    mapped.push(self.dead(from, reason, item));
                }
                Name::Property if has_value => {
                    self.mapping.left_out.insert(from);
                }
                // That a property was changed at all.
                Name::Property => mapped.push(self.changed(&from, item)),
                Name::Is(to) => {
                    let to = match &property {
                        Some(property) if to == "ModifiedProperties.*" => {
                            format!("ModifiedProperties.{property}.NewValue")
                        }
                        _ => to,
                    };
                    mapped.push(self.renamed(&from, to, item));
                }
                Name::Unknown => {
                    let reason = format!("no record of this log has {from}");
                    mapped.push(self.dead(from, reason, item));
                }
            }
        }
        mapped
    }

    /// An item that cannot hold, under a name that says so.
    fn dead(&mut self, name: String, reason: String, mut item: DetectionItem) -> DetectionItem {
        item.field.name = Some(name.clone());
        self.dead.insert(name, reason);
        item
    }

    fn changed(&mut self, from: &str, mut item: DetectionItem) -> DetectionItem {
        let property = item.values.first().map(plain).unwrap_or_default();
        let to = format!("ModifiedProperties.{property}.NewValue");
        self.mapping.renamed.insert(from.to_owned(), to.clone());
        item.field.name = Some(to);
        item.field.modifiers = vec![Modifier::Exists];
        item.values = vec![SigmaValue::Bool(true)];
        item
    }

    fn renamed(&mut self, from: &str, to: String, mut item: DetectionItem) -> DetectionItem {
        if matches!(self.form, Form::Office365 | Form::Alerts | Form::Google)
            && let Some(problem) = unknown_field(&to).filter(|_| !to.ends_with(".*") && to != "raw")
        {
            return self.dead(to, problem, item);
        }
        let to = match to.strip_prefix("parameters.") {
            Some(parameter) if self.is_admin_log && parameter.contains('_') => {
                format!("parameters.{}", parameter.to_uppercase())
            }
            _ => to,
        };
        if to == "Target.ID" {
            // Parties are told apart by what their id begins with.
            item.field.modifiers = vec![Modifier::StartsWith];
            let values = item
                .values
                .iter()
                .map(|value| plain(value).replace(' ', ""));
            item.values = values.map(|value| text(&format!("{value}_"))).collect();
        }
        if to.ends_with(".*") && item.field.modifiers.is_empty() {
            item.field.modifiers = vec![Modifier::Contains];
        }
        if from != to {
            self.mapping.renamed.insert(from.to_owned(), to.clone());
        }
        item.field.name = Some(to);
        item
    }

    fn operation(&mut self, from: &str, mut item: DetectionItem, number: u32) -> DetectionItem {
        match self.form {
            Form::Entra => {
                let values: Vec<SigmaValue> = if item.field.has_modifier(Modifier::All) {
                    all_in_one(&item)
                } else {
                    let values = item.values.iter();
                    values
                        .flat_map(|value| self.activity(value, &item))
                        .collect()
                };
                if values.is_empty() {
                    let named: Vec<String> = item.values.iter().map(plain).collect();
                    let reason = format!(
                        "the unified audit log has no activity {}: only Entra's Core Directory writes there",
                        named.join(", ")
                    );
                    return self.dead(format!("{from} ({number})"), reason, item);
                }
                item.values = values;
            }
            Form::CloudLogging if from.to_lowercase().ends_with("methodname") => {
                item.values = item.values.iter().map(method).collect();
            }
            _ => {}
        }
        self.mapping
            .renamed
            .insert(from.to_owned(), field::OPERATION.to_owned());
        item.field.name = Some(field::OPERATION.to_owned());
        item
    }

    /// An activity of Entra as the unified audit log spells it, with a full stop; none where it has none.
    fn activity(&mut self, value: &SigmaValue, item: &DetectionItem) -> Vec<SigmaValue> {
        let wanted = plain(value);
        let lower = wanted.to_lowercase();
        if wanted.contains(['*', '?']) || item.field.has_modifier(Modifier::Re) {
            return vec![value.clone()];
        }
        let is_part = item.field.has_modifier(Modifier::Contains);
        let is_start = item.field.has_modifier(Modifier::StartsWith);
        let is_end = item.field.has_modifier(Modifier::EndsWith);
        let mut known = ACTIVITIES.lines().filter(|line| !line.starts_with('#'));
        let found = known.find(|line| {
            let name = line.trim_start_matches("? ").to_lowercase();
            if is_part {
                name.contains(&lower)
            } else if is_start {
                name.starts_with(&lower)
            } else if is_end {
                name.ends_with(&lower)
            } else {
                name == lower
            }
        });
        let Some(line) = found else {
            return Vec::new();
        };
        if line.starts_with('?') {
            let note = format!("not sure that the unified audit log has {wanted}: it fires if so");
            self.mapping.notes.push(note);
        }
        if is_part || is_start {
            return vec![value.clone()];
        }
        vec![value.clone(), text(&format!("{wanted}."))]
    }

    fn result(&mut self, from: &str, mut item: DetectionItem) -> DetectionItem {
        let ours = |value: &SigmaValue| match plain(value).to_lowercase().as_str() {
            "success" | "succeeded" | "true" => Some(text("success")),
            "failure" | "failed" | "false" => Some(text("failure")),
            _ => None,
        };
        let values: Option<Vec<SigmaValue>> = item.values.iter().map(ours).collect();
        let Some(values) = values else {
            let named: Vec<String> = item.values.iter().map(plain).collect();
            let reason = format!(
                "{from} is success or failure here, never {}",
                named.join(", ")
            );
            return self.dead(from.to_owned(), reason, item);
        };
        item.values = values;
        self.mapping
            .renamed
            .insert(from.to_owned(), field::RESULT.to_owned());
        item.field.name = Some(field::RESULT.to_owned());
        item
    }

    fn service(&mut self, from: &str, mut item: DetectionItem) -> DetectionItem {
        let known = item
            .values
            .iter()
            .filter_map(|value| forms::application(&plain(value)));
        let values: Vec<SigmaValue> = known.flatten().map(|name| text(name)).collect();
        if values.is_empty() {
            let named: Vec<String> = item.values.iter().map(plain).collect();
            let reason = format!(
                "the Reports API has no application for {}",
                named.join(", ")
            );
            return self.dead(from.to_owned(), reason, item);
        }
        item.values = values;
        self.mapping
            .renamed
            .insert(from.to_owned(), field::SERVICE.to_owned());
        item.field.name = Some(field::SERVICE.to_owned());
        item
    }

    /// What says nothing beside the operation; but other services of Entra do not write here.
    fn implied(
        &mut self,
        from: &str,
        item: &DetectionItem,
        names_operation: bool,
    ) -> Option<DetectionItem> {
        let named: Vec<String> = item.values.iter().map(plain).collect();
        let is_service = from.eq_ignore_ascii_case("LoggedByService");
        if is_service && !named.iter().any(|name| name == "Core Directory") {
            let named = named.join(", ");
            let reason = format!(
                "Entra's service {named} does not write to the unified audit log; Core Directory does"
            );
            return Some(self.dead(from.to_owned(), reason, item.clone()));
        }
        if names_operation {
            return None;
        }
        let reason = format!("no record of this log has {from}, and no operation is named");
        Some(self.dead(from.to_owned(), reason, item.clone()))
    }
}

/// The values, if there is an activity that holds all of them.
fn all_in_one(item: &DetectionItem) -> Vec<SigmaValue> {
    let wanted: Vec<String> = item
        .values
        .iter()
        .map(|v| plain(v).to_lowercase())
        .collect();
    let holds_all = |line: &str| {
        let name = line.to_lowercase();
        wanted.iter().all(|part| name.contains(part.as_str()))
    };
    let mut known = ACTIVITIES.lines().filter(|line| !line.starts_with('#'));
    if known.any(holds_all) {
        item.values.clone()
    } else {
        Vec::new()
    }
}

fn text(text: &str) -> SigmaValue {
    SigmaValue::String(SigmaString::new(text))
}

fn plain(value: &SigmaValue) -> String {
    match value {
        SigmaValue::String(text) => text.to_string(),
        SigmaValue::Integer(number) => number.to_string(),
        SigmaValue::Float(number) => number.to_string(),
        SigmaValue::Bool(truth) => truth.to_string(),
        SigmaValue::Null => String::new(),
    }
}

/// `google.admin.AdminService.changeApplicationSetting` is the event `change_application_setting`.
fn method(value: &SigmaValue) -> SigmaValue {
    let whole = plain(value);
    let last = whole.rsplit('.').next().unwrap_or_default();
    let mut name = String::new();
    for c in last.chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    text(&name)
}

#[cfg(test)]
mod tests;
