//! The library of acts: one for each detection that must be there, as data.
//!
//! A file of `simulator/acts/` is a list of [`Act`]s: what somebody does, as records in the vendor's shape,
//! and which detections are due for it. Every act is done by people of its own, so that what is said of
//! one person is said of one act. In texts `{actor}`, `{colleague}` and `{helper}` are those people's
//! addresses, `{domain}`, `{onmicrosoft}`, `{tenant}` and `{ip}` what belongs to them, `{i}` the number of
//! the repetition and `{guid}` a new GUID for each record.

use std::sync::OnceLock;

use rand::rngs::StdRng;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::book::{Activity, Book, new_guid, qualifier};
use super::super::people::Person;

/// People an act takes part with.
const PEOPLE: usize = 3;

const FILES: [&str; 5] = [
    include_str!("../../../acts/compliance.json"),
    include_str!("../../../acts/entra.json"),
    include_str!("../../../acts/exchange.json"),
    include_str!("../../../acts/sharepoint.json"),
    include_str!("../../../acts/workspace.json"),
];

/// Something that somebody does, told by one record or many.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Act {
    /// What is done, as a sentence: the script's name on the sheet.
    name: String,
    /// The detections that are due; each must tell of the act.
    due: Vec<String>,
    records: Vec<Told>,
}

/// A record, or several that differ by `{i}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    /// Content type of Office 365, or application of Google.
    stream: String,
    /// Seconds after the act's beginning; below zero for what was before it.
    #[serde(default)]
    at: i64,
    #[serde(default = "once")]
    times: u32,
    /// Seconds between two repetitions.
    #[serde(default)]
    every: i64,
    /// What was before, and belongs to no finding: the habit that the act is measured against.
    #[serde(default)]
    history: bool,
    /// Members of an Office 365 record beside those all have.
    #[serde(default)]
    body: Option<Map<String, Value>>,
    /// The elements of a Google activity.
    #[serde(default)]
    events: Option<Vec<Value>>,
    /// Google: address of who does it; nobody is named where it is empty.
    #[serde(default = "actor")]
    actor: String,
    /// Google: network address.
    #[serde(default = "ip")]
    ip: String,
}

fn once() -> u32 {
    1
}

fn actor() -> String {
    "{actor}".to_owned()
}

fn ip() -> String {
    "{ip}".to_owned()
}

/// All acts.
#[allow(clippy::expect_used)] // The files are part of the program; a test reads them.
pub(crate) fn acts() -> &'static [Act] {
    static ACTS: OnceLock<Vec<Act>> = OnceLock::new();
    ACTS.get_or_init(|| {
        let read = |text: &&str| serde_json::from_str::<Vec<Act>>(text).expect("a file of acts");
        FILES.iter().flat_map(read).collect()
    })
}

/// People that a tenant must have for every act to have its own.
pub const PEOPLE_MIN: usize = 400;

/// Has every act done, `step_ms` after the one before.
pub(crate) fn run(book: &mut Book<'_>, first_ms: i64, step_ms: i64, rng: &mut StdRng) {
    let mut at = first_ms;
    for (number, act) in acts().iter().enumerate() {
        let tenant = book.tenant;
        let people = [0, 1, 2].map(|n| tenant.person(1 + number * PEOPLE + n));
        act.write(book, at, people, rng);
        at += step_ms;
    }
}

impl Act {
    fn write(&self, book: &mut Book<'_>, start: i64, people: [&Person; PEOPLE], rng: &mut StdRng) {
        let mut ids = Vec::new();
        for told in &self.records {
            for number in 0..told.times {
                let at = start + (told.at + told.every * i64::from(number)) * 1_000;
                let id = told.write(book, at, (number, people), rng);
                if !told.history {
                    ids.push((id, at));
                }
            }
        }
        for detection in &self.due {
            let due = book.due(detection, &self.name, &people[0].email, &ids);
            due.ids_max = u8::MAX;
        }
    }
}

impl Told {
    fn write(
        &self,
        book: &mut Book<'_>,
        at: i64,
        (number, people): (u32, [&Person; PEOPLE]),
        rng: &mut StdRng,
    ) -> String {
        let words = words(book, number, people, rng);
        if let Some(body) = &self.body {
            let members: Vec<(&str, Value)> = body
                .iter()
                .map(|(name, value)| (name.as_str(), filled(value, &words)))
                .collect();
            return book.office365(&self.stream, at, rng, members);
        }
        let text = |text: &str| filled_text(text, &words);
        let person = Person {
            email: text(&self.actor),
            ip: text(&self.ip),
            ..people[0].clone()
        };
        let events = self.events.iter().flatten();
        let activity = Activity {
            application: application(&self.stream),
            event_ms: at,
            actor: (!self.actor.is_empty()).then_some(&person),
            with_ip: true,
            qualifier: qualifier(rng),
            events: events.map(|event| filled(event, &words)).collect(),
        };
        book.google(activity, rng)
    }
}

type Words = [(&'static str, String); 9];

fn words(
    book: &Book<'_>,
    number: u32,
    [actor, colleague, helper]: [&Person; PEOPLE],
    rng: &mut StdRng,
) -> Words {
    [
        ("{actor}", actor.email.clone()),
        ("{colleague}", colleague.email.clone()),
        ("{helper}", helper.email.clone()),
        ("{domain}", book.tenant.domain.clone()),
        ("{onmicrosoft}", book.tenant.onmicrosoft.clone()),
        ("{tenant}", book.tenant.alias.clone()),
        ("{ip}", actor.ip.clone()),
        ("{i}", number.to_string()),
        ("{guid}", new_guid(rng).to_string()),
    ]
}

fn filled_text(text: &str, words: &Words) -> String {
    let put = |text: String, (word, with): &(&str, String)| text.replace(word, with);
    words.iter().fold(text.to_owned(), put)
}

fn filled(value: &Value, words: &Words) -> Value {
    match value {
        Value::String(text) => Value::String(filled_text(text, words)),
        Value::Array(list) => list.iter().map(|one| filled(one, words)).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), filled(value, words)))
            .collect(),
        other => other.clone(),
    }
}

/// The applications' names live as long as the program.
fn application(name: &str) -> &'static str {
    const NAMES: [&str; 10] = [
        "access_transparency",
        "admin",
        "drive",
        "groups_enterprise",
        "login",
        "rules",
        "takeout",
        "token",
        "user_accounts",
        "vault",
    ];
    let known = NAMES.into_iter().find(|known| *known == name);
    known.unwrap_or("admin")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_act_is_whole() {
        for act in acts() {
            assert!(!act.due.is_empty() && !act.records.is_empty(), "{act:?}");
            for told in &act.records {
                assert!(told.body.is_some() != told.events.is_some(), "{}", act.name);
                let google = told.events.is_some();
                assert!(
                    !google || application(&told.stream) == told.stream,
                    "{}",
                    told.stream
                );
                assert!(told.times > 0, "{}", act.name);
            }
        }
        assert!(acts().len() * PEOPLE < PEOPLE_MIN, "{} acts", acts().len());
    }
}
