//! The policy at work on a finding.
//!
//! First all values are listed that may not go out, from every place that says which field they are of.
//! Then every text of the finding is written anew: a value by what stands for it, and any text that
//! is kept with the listed values replaced inside it. So a value that one field withholds does not go
//! out by another.

use std::collections::BTreeMap;
use std::mem::take;
use std::net::IpAddr;

use aho_corasick::{AhoCorasick, MatchKind};
use exfilwatch_model::identity::normal_entity;
use exfilwatch_model::{Finding, MessagePart, Provenance, Suppression, TenantId, field};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::classes::action;
use super::options::{FieldAction, FieldsOptions};
use super::pseudonym::{Secret, TenantKey};

/// Stands for what was dropped, where something has to stand.
const WITHHELD: &str = "(withheld)";
/// Shorter values are not looked for within other texts: they would be found in any word.
const SOUGHT_CHARS_MIN: usize = 4;
/// Between the values of a list that is written as one text.
const SEPARATOR: &str = ", ";
/// Marks a cut.
const ELLIPSIS: char = '…';

/// The members of an item about ourselves that can be about a person.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Notice {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) finding_uid: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// What may go out, and the key of the pseudonyms.
#[derive(Debug)]
pub struct Policy {
    options: FieldsOptions,
    secret: Secret,
}

impl Policy {
    pub(super) fn new(options: FieldsOptions, secret: Secret) -> Self {
        Self { options, secret }
    }

    /// The id under which a finding of the tenant goes out.
    pub fn sent_uid(&self, tenant: &TenantId, uid: Uuid) -> Uuid {
        self.secret.of_tenant(tenant).id(uid)
    }

    /// An item about ourselves as it may go out. Only what an analyst said of a finding is about a person.
    pub(super) fn apply_to_notice(&self, tenant: &TenantId, mut notice: Notice) -> Notice {
        let key = self.secret.of_tenant(tenant);
        let withheld = || WITHHELD.to_owned();
        if let Some(uid) = &mut notice.finding_uid {
            *uid = key.id(*uid);
            // Free words, which may name anybody.
            notice.reason = notice.reason.map(|_| withheld().into());
        }
        notice.entity = notice.entity.map(|entity| {
            let written = stand_in(self.options.strictest(), &entity, &key);
            written.unwrap_or_else(withheld)
        });
        notice
    }

    /// The finding as it may go out. The same finding always gives the same.
    pub fn apply(&self, mut finding: Finding) -> Finding {
        let key = self.secret.of_tenant(&finding.tenant);
        let withheld = Withheld::new(self, &finding, &key);
        (finding.uid, finding.incident_uid) = (key.id(finding.uid), key.id(finding.incident_uid));
        let of = |name: &str| action(&self.options, name);
        let write = |action: FieldAction, value: &mut Option<String>| {
            *value = value
                .take()
                .and_then(|value| withheld.written(action, &value));
        };
        write(self.target(&finding), &mut finding.target);
        finding.entity = withheld.stated(self.entity(&finding), &finding.entity);
        write(of(field::ACTOR), &mut finding.user);
        write(of(field::SOURCE_IP), &mut finding.src);
        write(of(field::EXTERNAL_DOMAIN), &mut finding.external_domain);
        finding.message = self.message(&finding, &withheld);
        finding.matched = take(&mut finding.matched)
            .into_iter()
            .filter_map(|(name, text)| {
                let whole = finding
                    .values
                    .get(&name)
                    .is_some_and(|all| all.contains(&text));
                let written = withheld.joined(of(&name), &text, whole)?;
                Some((name, written))
            })
            .collect();
        finding.values = take(&mut finding.values)
            .into_iter()
            .map(|(name, values)| (withheld.list(of(&name), &values), name))
            .filter(|(values, _)| !values.is_empty())
            .map(|(values, name)| (name, values))
            .collect();
        if let Some(Suppression::Exception(name)) = &mut finding.suppressed {
            *name = withheld.replaced(name);
        }
        for evidence in &mut finding.evidence {
            evidence.record = None;
        }
        finding.provenance = Provenance::default();
        finding
    }

    /// The sentence. One of which nobody knows what it quotes is not sent.
    fn message(&self, finding: &Finding, withheld: &Withheld) -> String {
        if finding.provenance.message.is_empty() {
            return finding.rule.title.clone();
        }
        let part = |part: &MessagePart| match part {
            MessagePart::Text(text) => MessagePart::Text(text.clone()),
            MessagePart::Values { field, shown, more } => {
                let action = action(&self.options, field);
                let shown = shown.iter().map(|value| withheld.stated(action, value));
                MessagePart::Values {
                    field: field.clone(),
                    shown: shown.collect(),
                    more: *more,
                }
            }
        };
        let provenance = Provenance {
            message: finding.provenance.message.iter().map(part).collect(),
            ..Provenance::default()
        };
        provenance.message()
    }

    fn target(&self, finding: &Finding) -> FieldAction {
        self.action(finding.provenance.target.as_ref(), finding)
    }

    fn entity(&self, finding: &Finding) -> FieldAction {
        self.action(finding.provenance.entity.as_ref(), finding)
    }

    /// What happens to a value of a field; the field may not be known. What is about a log of ours and not
    /// about a person has nothing to withhold.
    fn action(&self, name: Option<&String>, finding: &Finding) -> FieldAction {
        let is_ours = finding.entity_type == "stream" && finding.user.is_none();
        match name {
            Some(name) => action(&self.options, name),
            None if is_ours => FieldAction::Keep,
            None => self.options.strictest(),
        }
    }
}

/// The values of one finding that may not go out, and what stands for each.
struct Withheld {
    /// By [`normal_entity`]; `None` for what is dropped.
    values: BTreeMap<String, Option<String>>,
    /// Looks for them within texts.
    sought: Sought,
}

/// Looks for values within texts.
struct Sought {
    patterns: Option<AhoCorasick>,
    /// What stands for each pattern.
    instead: Vec<String>,
}

impl Sought {
    /// Of values and what stands for them, by [`normal_entity`].
    fn new(values: &BTreeMap<String, (String, Option<String>)>) -> Self {
        let (mut patterns, mut instead) = (Vec::new(), Vec::new());
        for (normal, (value, written)) in values {
            if written.as_ref() == Some(value) {
                continue;
            }
            for spelling in spellings(value, normal) {
                if spelling.chars().count() >= SOUGHT_CHARS_MIN {
                    patterns.push(spelling);
                    instead.push(written.clone().unwrap_or_else(|| WITHHELD.to_owned()));
                }
            }
        }
        let patterns = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::LeftmostLongest)
            .build(&patterns);
        Self {
            patterns: patterns.ok(),
            instead,
        }
    }

    /// The text without the values.
    fn replaced(&self, text: &str) -> String {
        match &self.patterns {
            Some(patterns) => patterns.replace_all(text, &self.instead),
            // The search could not be built: then nothing can be told apart.
            None => WITHHELD.to_owned(),
        }
    }
}

impl Withheld {
    fn new(policy: &Policy, finding: &Finding, key: &TenantKey) -> Self {
        let mut listed: BTreeMap<String, (FieldAction, String)> = BTreeMap::new();
        let mut add = |action: FieldAction, value: &str| {
            let value = value.trim();
            if action == FieldAction::Keep || value.is_empty() {
                return;
            }
            let known = listed.entry(normal_entity(value));
            let known = known.or_insert_with(|| (action, value.to_owned()));
            known.0 = known.0.max(action);
        };
        for (action, value) in named(policy, finding) {
            add(action, value);
        }
        let (cut, whole): (Vec<_>, Vec<_>) = listed
            .into_iter()
            .partition(|(_, (action, _))| matches!(action, FieldAction::Truncate(_)));
        let mut values = BTreeMap::new();
        for (normal, (action, value)) in whole {
            let written = stand_in(action, &value, key);
            values.insert(normal, (value, written));
        }
        // What is left of a value holds none that goes out as nothing or as a pseudonym.
        let before = Sought::new(&values);
        for (normal, (action, value)) in cut {
            let written = stand_in(action, &before.replaced(&value), key);
            values.insert(normal, (value, written));
        }
        Self {
            sought: Sought::new(&values),
            values: values
                .into_iter()
                .map(|(normal, (_, written))| (normal, written))
                .collect(),
        }
    }

    /// A value of a field with this action; `None` where it is dropped.
    fn written(&self, action: FieldAction, value: &str) -> Option<String> {
        match (action, self.values.get(&normal_entity(value))) {
            (FieldAction::Drop, _) => None,
            (_, Some(written)) => written.clone(),
            (_, None) => Some(self.replaced(value)),
        }
    }

    /// A value where something has to stand.
    fn stated(&self, action: FieldAction, value: &str) -> String {
        let written = self.written(action, value);
        written.unwrap_or_else(|| WITHHELD.to_owned())
    }

    fn list(&self, action: FieldAction, values: &[String]) -> Vec<String> {
        let written = values
            .iter()
            .filter_map(|value| self.written(action, value));
        let mut written: Vec<String> = written.collect();
        written.sort();
        written.dedup();
        written
    }

    /// A text that may be a list that was joined.
    fn joined(&self, action: FieldAction, text: &str, is_whole: bool) -> Option<String> {
        if is_whole || !text.contains(SEPARATOR) {
            return self.written(action, text);
        }
        let values = text.split(SEPARATOR);
        let written: Vec<String> = values.filter_map(|v| self.written(action, v)).collect();
        (!written.is_empty()).then(|| written.join(SEPARATOR))
    }

    /// A text that is kept, without the values that are not.
    fn replaced(&self, text: &str) -> String {
        self.sought.replaced(text)
    }
}

/// Every value of which the finding says the field, with what is to happen to it.
fn named<'a>(policy: &Policy, finding: &'a Finding) -> Vec<(FieldAction, &'a str)> {
    let options = &policy.options;
    let of = |name: &str| action(options, name);
    let mut named = Vec::new();
    let flat = [
        (of(field::ACTOR), &finding.user),
        (of(field::SOURCE_IP), &finding.src),
        (of(field::EXTERNAL_DOMAIN), &finding.external_domain),
        (policy.target(finding), &finding.target),
    ];
    let flat = flat.into_iter();
    named.extend(flat.filter_map(|(action, value)| Some((action, value.as_deref()?))));
    named.push((policy.entity(finding), finding.entity.as_str()));
    for (name, values) in &finding.values {
        named.extend(values.iter().map(|value| (of(name), value.as_str())));
    }
    for (name, text) in &finding.matched {
        // A list was joined to one text; whether a single value holds the separator nobody knows.
        named.push((of(name), text.as_str()));
        named.extend(text.split(SEPARATOR).map(|value| (of(name), value)));
    }
    for part in &finding.provenance.message {
        if let MessagePart::Values { field, shown, .. } = part {
            named.extend(shown.iter().map(|value| (of(field), value.as_str())));
        }
    }
    named
}

/// What stands for a value.
fn stand_in(action: FieldAction, value: &str, key: &TenantKey) -> Option<String> {
    match action {
        FieldAction::Keep => Some(value.to_owned()),
        FieldAction::Truncate(length) => Some(truncated(value, length)),
        FieldAction::Hash => Some(key.pseudonym(value)),
        FieldAction::Drop => None,
    }
}

/// See [`FieldAction::Truncate`].
fn truncated(value: &str, length: u8) -> String {
    match (value.parse(), value.rsplit_once('@')) {
        (Ok(IpAddr::V4(address)), _) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(length.into()));
            IpAddr::from((address.to_bits() & mask.unwrap_or(0)).to_be_bytes()).to_string()
        }
        (Ok(IpAddr::V6(address)), _) => {
            let bits = 2 * u32::from(length);
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(bits));
            IpAddr::from((address.to_bits() & mask.unwrap_or(0)).to_be_bytes()).to_string()
        }
        (Err(_), Some((person, domain))) => format!("{}@{domain}", beginning(person, length)),
        (Err(_), None) => beginning(value, length),
    }
}

fn beginning(text: &str, length: u8) -> String {
    let length = usize::from(length);
    if text.chars().nth(length).is_none() {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(length).collect();
    cut.push(ELLIPSIS);
    cut
}

/// How a value may stand within a text: as it is, and a mail address as it stands in web addresses
/// (`alice%40contoso.example`, and OneDrive's `alice_contoso_example`).
fn spellings(value: &str, normal: &str) -> Vec<String> {
    let mut spellings = vec![value.to_owned(), normal.to_owned()];
    if normal.contains('@') {
        spellings.push(normal.replace('@', "%40"));
        spellings.push(normal.replace(['@', '.'], "_"));
    }
    spellings.dedup();
    spellings
}
