//! Names of fields that no event has, and what the writer may have meant.

use exfilwatch_model::{Product, field};

use super::Weight;

/// Lists of `{Name, Value}` that the readers unpack.
const PAIRS: &[&str] = &[
    "Parameters",
    "OperationProperties",
    "ModifiedProperties",
    "ExtendedProperties",
    "DeviceProperties",
    "parameters",
];
/// Members of such a pair.
const PAIR_MEMBERS: &[&str] = &[
    "Value",
    "NewValue",
    "OldValue",
    "value",
    "name",
    "boolValue",
];
/// Vendors' members that are lists, or lie in one: an event has several values, or none.
const LISTS: &[&str] = &[
    "AffectedItems.",
    "Actor.",
    "Target.",
    "Folders.",
    "role",
    "source_asn",
];
/// Names that Sigma's own rules use for other forms of these logs, and ours.
const OTHER_FORMS: &[(&str, &str)] = &[
    ("eventName", "operation (of an alert: alert_name)"),
    ("eventSource", "service"),
    ("eventService", "service"),
    ("setting_name", "parameters.SETTING_NAME"),
    ("new_value", "parameters.NEW_VALUE"),
    ("operationName", "operation"),
    ("OperationName", "operation"),
    ("properties.message", "operation"),
    ("ActivityDisplayName", "operation"),
    ("activityType", "operation"),
];
/// Top-level members of Google's records that are written small and without a dot.
const GOOGLE_MEMBERS: &[&str] = &["kind", "type", "source", "deleted"];

/// What is wrong with the name of a field: how much it matters, what, and what to do.
pub(super) fn problem(name: &str, product: Option<Product>) -> Option<(Weight, String, String)> {
    if field::ALL.contains(&name) || name == "raw" || name.ends_with(".*") {
        return None;
    }
    if let Some((_, ours)) = OTHER_FORMS.iter().find(|(other, _)| *other == name) {
        let problem = format!("{name} is a name of another form of this log: no event has it");
        return Some((Weight::Fault, problem, format!("write {ours}")));
    }
    if name.starts_with("protoPayload.") {
        let problem = format!("{name} is Cloud Logging's: no event has it");
        let help = "write operation, service, actor or parameters.<name>";
        return Some((Weight::Fault, problem, help.to_owned()));
    }
    if name.contains('[') {
        let problem = format!("{name}: brackets are part of the name here, and no event has it");
        let help =
            "pairs are unpacked: write Parameters.ForwardTo, or split the record in the reader";
        return Some((Weight::Fault, problem, help.to_owned()));
    }
    if let Some(found) = of_pair(name) {
        return Some(found);
    }
    if name == "Operation" || name == "Workload" {
        let ours = if name == "Operation" {
            field::OPERATION
        } else {
            field::SERVICE
        };
        let problem = format!("{name} is not what the index knows: every record is looked through");
        return Some((Weight::Note, problem, format!("write {ours}")));
    }
    unknown(name, product)
}

/// `Parameters.Value`, and a list of pairs as if it were text.
fn of_pair(name: &str) -> Option<(Weight, String, String)> {
    if PAIRS.contains(&name) {
        let problem = format!(
            "{name} is a list of names and values, unpacked to one field each: as a whole it is hardly \
             ever there"
        );
        return Some((
            Weight::Fault,
            problem,
            format!("write {name}.<name of the parameter>"),
        ));
    }
    let (list, member) = name.split_once('.')?;
    (PAIRS.contains(&list) && PAIR_MEMBERS.contains(&member)).then(|| {
        let problem = format!(
            "{name}: a name and a value of two selections could come from two different parameters, and \
             so they are unpacked: no event has this field"
        );
        let help = format!("write {list}.<name of the parameter>, as in Parameters.ForwardTo|contains");
        (Weight::Fault, problem, help)
    })
}

/// A name in small letters is one of ours or nobody's: vendors write theirs otherwise.
fn unknown(name: &str, product: Option<Product>) -> Option<(Weight, String, String)> {
    let is_small = name
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !is_small || (product != Some(Product::M365) && GOOGLE_MEMBERS.contains(&name)) {
        return None;
    }
    let near = field::ALL
        .iter()
        .min_by_key(|known| distance(name, known))?;
    let help = if distance(name, near) <= 3 {
        format!("did you mean {near}? The list stands in docs/RULE-FILES.md")
    } else {
        "see the list in docs/RULE-FILES.md; vendors' members keep their spelling".to_owned()
    };
    let problem = format!("no event has a field {name}");
    Some((Weight::Fault, problem, help))
}

/// Whether an event may have several values of it, of which only the first counts.
pub(super) fn may_be_list(name: &str) -> bool {
    LISTS
        .iter()
        .any(|list| name == *list || (list.ends_with('.') && name.starts_with(list)))
}

/// How many letters are to be changed, added or taken away.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (y, pair) in b.iter().zip(row.windows(2)) {
            let (&[diagonal, above], Some(&left)) = (pair, next.last()) else {
                continue;
            };
            let changed = diagonal + usize::from(x != *y);
            next.push(changed.min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
