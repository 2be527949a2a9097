//! `Parameters` of a cmdlet, in all the shapes they come in.
//!
//! An array of `{Name, Value}` (Exchange admin); one PowerShell argument string such as
//! `-Name "x" -ExchangeLocation ("All")` (Security & Compliance), whose values hold unescaped quotes
//! and may be cut with `[...]`; a JSON string of either, after a hop through another tool; an
//! object; absent. Names are compared without case, and a name may repeat.

use exfilwatch_model::{Event, Value as Field};

use super::super::flatten::{Asked, text};
use super::super::json::{self, Raw};
use super::super::members::Members;
use super::Body;

/// Most parameters taken of one record.
const PARAMETERS_MAX: usize = 500;

/// Spelling under which a parameter is set, whatever the case it came in: those that rules name.
const KNOWN: &[&str] = &[
    "AccessRights",
    "AddToRecipients",
    "AuditBypassEnabled",
    "AuditDisabled",
    "AuditEnabled",
    "AutoForwardEnabled",
    "AutoForwardingMode",
    "BlindCopyTo",
    "BodyContainsWords",
    "CopyTo",
    "CopyToFolder",
    "DeleteMessage",
    "DeliverToMailboxAndForward",
    "Enabled",
    "Export",
    "ExternalEmailAddress",
    "ForwardAsAttachmentTo",
    "ForwardTo",
    "ForwardingAddress",
    "ForwardingSmtpAddress",
    "From",
    "GrantSendOnBehalfTo",
    "Identity",
    "JournalEmailAddress",
    "JournalingReportNdrTo",
    "Links",
    "Mailbox",
    "MarkAsRead",
    "Member",
    "MoveToFolder",
    "Name",
    "Preview",
    "Purge",
    "RedirectMessageTo",
    "RedirectTo",
    "Report",
    "Role",
    "Roles",
    "SearchName",
    "SmartHosts",
    "SoftDeleteMessage",
    "SubjectContainsWords",
    "SubjectOrBodyContainsWords",
    "Trustee",
    "UnifiedAuditLogIngestionEnabled",
    "User",
];

/// Sets `Parameters.<name>` for each parameter that is asked for, and `Parameters` where they came as
/// text.
pub(super) fn fill(event: &mut Event, raw: Raw<'_>, record: &Body<'_>) {
    if let Some(text) = json::text(raw)
        && !text.trim().is_empty()
    {
        event.set("Parameters", text);
    }
    for (name, value) in pairs(raw) {
        let name = format!("Parameters.{}", spelling(&name));
        if record.wants(&name) {
            event.add(name, value);
        }
    }
}

fn spelling(name: &str) -> &str {
    KNOWN
        .iter()
        .find(|known| known.eq_ignore_ascii_case(name))
        .copied()
        .unwrap_or(name)
}

/// The parameters in order, repeated names repeated.
pub(super) fn pairs(raw: Raw<'_>) -> Vec<(String, String)> {
    let mut pairs = match raw.first() {
        Some(b'[') => json::each(raw).filter_map(pair).collect(),
        Some(b'{') => of_object(raw),
        Some(b'"') => {
            let text = json::text(raw).unwrap_or_default();
            nested(&text).map_or_else(|| arguments(&text), pairs)
        }
        _ => Vec::new(),
    };
    pairs.truncate(PARAMETERS_MAX);
    pairs
}

/// An object is a pair, or has the parameters as its members.
fn of_object(raw: Raw<'_>) -> Vec<(String, String)> {
    let Ok(members) = Members::of(raw) else {
        return Vec::new();
    };
    if members.raw("Name").is_some() {
        return pair(raw).into_iter().collect();
    }
    let members = members.asked(|_| true).into_iter();
    members
        .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), joined(value)))
        .collect()
}

/// Text that is itself a JSON array or object.
fn nested(text: &str) -> Option<Raw<'_>> {
    let text = text.trim();
    if !text.starts_with(['[', '{']) {
        return None;
    }
    json::only(text.as_bytes()).ok()
}

fn pair(raw: Raw<'_>) -> Option<(String, String)> {
    let members = Members::of(raw).ok()?;
    let member = |wanted: &str| {
        let is = |name: &[u8]| name.eq_ignore_ascii_case(wanted.as_bytes());
        members.asked(is).first().map(|(_, value)| *value)
    };
    let name = member("Name").and_then(text)?;
    Some((
        name.trim().to_owned(),
        member("Value").map(joined).unwrap_or_default(),
    ))
}

/// A value as text; lists joined by `;` as Exchange joins them.
fn joined(raw: Raw<'_>) -> String {
    let texts: Vec<_> = match raw.first() {
        Some(b'[') => json::each(raw).filter_map(text).collect(),
        _ => text(raw).into_iter().collect(),
    };
    texts.join(";")
}

/// Splits a PowerShell argument string. A quote closes a value only where a switch, a bracket, a
/// comma or the end follows, since quotes inside values are not escaped.
fn arguments(text: &str) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut rest = text.trim_start();
    while let Some((name, after)) = switch(rest) {
        let (value, after) = argument(after);
        pairs.push((name.to_owned(), value));
        rest = after.trim_start();
        // A cut string can leave crumbs before the next switch.
        while !rest.is_empty() && switch(rest).is_none() {
            rest = rest
                .split_once(char::is_whitespace)
                .map_or("", |(_, after)| after.trim_start());
        }
        if pairs.len() == PARAMETERS_MAX {
            break;
        }
    }
    pairs
}

/// `-Name` and what follows it.
fn switch(text: &str) -> Option<(&str, &str)> {
    let after = text.strip_prefix('-')?;
    let length = after
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(after.len());
    let (name, after) = after.split_at_checked(length)?;
    let follows =
        after.is_empty() || after.starts_with(char::is_whitespace) || after.starts_with(':');
    let letter = name.starts_with(|c: char| c.is_ascii_alphabetic());
    (follows && letter).then_some((name, after))
}

/// The value of a switch (`True` where it has none) and the rest.
fn argument(text: &str) -> (String, &str) {
    let text = text.strip_prefix(':').unwrap_or(text).trim_start();
    if text.is_empty() || switch(text).is_some() {
        return ("True".to_owned(), text);
    }
    let end = match text.chars().next() {
        Some('"') => quoted_end(text),
        Some('(') => list_end(text),
        _ => text.find(char::is_whitespace).unwrap_or(text.len()),
    };
    let (value, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    let value = value.trim_start_matches('(').trim_end_matches(')');
    let plain: Vec<&str> = value
        .split("\",\"")
        .map(|part| part.trim().trim_matches('"'))
        .collect();
    (plain.join(";"), rest)
}

/// Byte behind the closing quote of a value.
fn quoted_end(text: &str) -> usize {
    let closes = |at: &usize| {
        let after = text.get(at + 1..).unwrap_or_default();
        let next = after.trim_start();
        next.is_empty() || (after.len() > next.len() && switch(next).is_some())
    };
    text.match_indices('"')
        .map(|(at, _)| at)
        .skip(1)
        .find(closes)
        .map_or(text.len(), |at| at + 1)
}

/// Byte behind the bracket that closes a list.
fn list_end(text: &str) -> usize {
    let closes = |at: &usize| {
        let next = text.get(at + 1..).unwrap_or_default().trim_start();
        next.is_empty() || switch(next).is_some()
    };
    text.match_indices(')')
        .map(|(at, _)| at)
        .find(closes)
        .map_or(text.len(), |at| at + 1)
}

/// The parameters of a record, looked up without case.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(super) fn of(raw: Option<Raw<'_>>) -> Self {
        Self(raw.map(pairs).unwrap_or_default())
    }

    /// All values of a name; an empty value is one.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The first value that is not empty.
    pub(super) fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name)
            .map(str::trim)
            .find(|value| !value.is_empty())
    }

    /// Whether a switch is given and not false.
    pub(super) fn is_true(&self, name: &str) -> bool {
        self.get(name).and_then(truth) == Some(true)
    }
}

/// `True`, `$true`, `False`, `$false` in any case.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text
        .trim()
        .trim_start_matches('$')
        .to_ascii_lowercase()
        .as_str()
    {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// A field's value as text, for callers that have the event only.
pub(super) fn field_text(event: &Event, name: &str) -> Option<String> {
    event
        .get(name)
        .map(Field::text)
        .map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: &Value) -> Vec<(String, String)> {
        pairs(value.to_string().as_bytes())
    }

    fn expect(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    }

    #[test]
    fn each_shape_gives_the_same_parameters() {
        let expected = expect(&[("Name", "x"), ("ForwardTo", "a@b.example")]);
        let array =
            json!([{"Name": "Name", "Value": "x"}, {"Name": "ForwardTo", "Value": "a@b.example"}]);
        assert_eq!(read(&array), expected);
        assert_eq!(read(&json!(array.to_string())), expected);
        assert_eq!(read(&json!({"Name_": 1})), expect(&[("Name_", "1")]));
        assert_eq!(read(&json!("-Name \"x\" -ForwardTo a@b.example")), expected);
        assert_eq!(read(&json!("")), vec![]);
        assert_eq!(read(&json!(7)), vec![]);
        assert_eq!(read(&json!([1, null, {"Value": "x"}])), vec![]);
    }

    #[test]
    fn argument_strings_with_loose_quotes_switches_and_cuts_are_read() {
        for (text, expected) in [
            (
                "-SearchName \"s 1\" -Export -Format \"FxStream\"",
                vec![
                    ("SearchName", "s 1"),
                    ("Export", "True"),
                    ("Format", "FxStream"),
                ],
            ),
            (
                "-Name \"the \"big\" one\" -ExchangeLocation (\"All\")",
                vec![("Name", "the \"big\" one"), ("ExchangeLocation", "All")],
            ),
            (
                "-Name \"a -Export b\" -Confirm:$false",
                vec![("Name", "a -Export b"), ("Confirm", "$false")],
            ),
            (
                "-ExchangeLocation (\"a@b.example\",\"c@d.example\") -Preview",
                vec![
                    ("ExchangeLocation", "a@b.example;c@d.example"),
                    ("Preview", "True"),
                ],
            ),
            (
                "-Comment \"Users would not see any[...]\"",
                vec![("Comment", "Users would not see any[...]")],
            ),
            (
                "-Comment \"cut off in the mid[...]",
                vec![("Comment", "cut off in the mid[...]")],
            ),
            ("nothing here", vec![]),
            ("-", vec![]),
            ("-Export", vec![("Export", "True")]),
        ] {
            assert_eq!(arguments(text), expect(&expected), "{text}");
        }
    }

    #[test]
    fn names_are_looked_up_without_case_and_repeats_are_kept() {
        let value =
            json!([{"Name": "forwardTO", "Value": ""}, {"name": "ForwardTo", "value": "x"}]);
        let parameters = Parameters::of(Some(value.to_string().as_bytes()));
        assert_eq!(parameters.all("ForwardTo").collect::<Vec<_>>(), ["", "x"]);
        assert_eq!(parameters.get("forwardto"), Some("x"));
    }
}
