//! What a record says of something, and what is made of all that was said.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use exfilwatch_model::{Event, Value, field};
use serde::{Deserialize, Serialize};

use super::Room;

/// Most destinations kept of a slot, those outside first; of more it is said that there are.
const DESTINATIONS_MAX: usize = 8;
/// Most bytes of a text that is kept; documents' addresses may be longer.
const TEXT_BYTES_MAX: usize = 200;
const THING_BYTES_MAX: usize = 600;

/// The slot of a thing as a whole: off where it is gone or closed to all outside. Its name is empty, or a
/// link's.
pub(super) const WHOLE: &str = "whole";

/// Which record said it. Of two at the same instant the one with the greater id is the later.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Version {
    pub(super) time: DateTime<Utc>,
    pub(super) record: String,
    part: u32,
}

impl Version {
    pub(super) fn of(event: &Event, part: u32) -> Self {
        Self {
            time: event.time,
            record: cut(&event.record_id, TEXT_BYTES_MAX),
            part,
        }
    }

    /// By time alone, so that what repeats all day is written seldom.
    pub(super) fn at(time: DateTime<Utc>) -> Self {
        Self {
            time,
            record: String::new(),
            part: 0,
        }
    }

    /// Whether another record said it, later.
    pub(super) fn is_behind(&self, other: &Self) -> bool {
        (self.time, &self.record) > (other.time, &other.record)
    }
}

/// Where mail goes. In this order those outside come first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Destination {
    /// `external`, `internal` or `unknown`.
    pub direction: String,
    /// The address, or what else the vendor names.
    pub address: String,
}

/// What of a thing is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SlotId {
    /// The mailbox or document.
    pub(super) of: String,
    /// By what: `inbox_rule`, `grant`, …
    pub(super) via: String,
    /// The rule's name, or the grantee.
    pub(super) name: String,
    /// Which of a rule's parameters; empty of the rule as one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) parameter: String,
}

impl SlotId {
    pub(super) fn new(of: &str, via: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            of: cut(of, THING_BYTES_MAX),
            via: via.into(),
            name: name.into(),
            parameter: String::new(),
        }
    }

    pub(super) fn with(self, parameter: &str) -> Self {
        Self {
            parameter: cut(parameter, TEXT_BYTES_MAX),
            ..self
        }
    }
}

/// What one event says of a slot.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) room: Room,
    pub(super) slot: SlotId,
    pub(super) version: Version,
    pub(super) on: bool,
    /// `None` where the event does not say: a rule that is switched on keeps its destinations.
    pub(super) to: Option<BTreeSet<Destination>>,
    pub(super) facts: BTreeMap<String, String>,
}

/// How a slot stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Slot {
    pub(super) id: SlotId,
    /// By what it was last switched.
    pub(super) switched: Version,
    pub(super) on: bool,
    /// What that record said beside, under our fields' names.
    pub(super) facts: BTreeMap<String, String>,
    /// By what its destinations were last set.
    pub(super) set: Option<Version>,
    pub(super) to: BTreeSet<Destination>,
    /// There are more destinations than are kept.
    pub(super) more: bool,
}

impl Slot {
    pub(super) fn of(said: Said) -> Self {
        let mut slot = Self {
            id: said.slot,
            switched: said.version.clone(),
            on: said.on,
            facts: said.facts,
            set: None,
            to: BTreeSet::new(),
            more: false,
        };
        slot.set_destinations(said.to, said.version);
        slot
    }

    /// Takes in what an event says; the same in any order and any number of times.
    pub(super) fn fold(&mut self, said: Said) {
        match said.version.cmp(&self.switched) {
            Ordering::Greater => {
                self.switched = said.version.clone();
                self.on = said.on;
                self.facts = said.facts;
            }
            Ordering::Equal => {
                self.on |= said.on;
                self.facts = said.facts.min(std::mem::take(&mut self.facts));
            }
            Ordering::Less => {}
        }
        self.set_destinations(said.to, said.version);
    }

    fn set_destinations(&mut self, to: Option<BTreeSet<Destination>>, version: Version) {
        let Some(to) = to else { return };
        match self.set.as_ref().map(|set| version.cmp(set)) {
            None | Some(Ordering::Greater) => {
                self.to = to;
                self.more = false;
                self.set = Some(version);
            }
            Some(Ordering::Equal) => self.to.extend(to),
            Some(Ordering::Less) => {}
        }
        while self.to.len() > DESTINATIONS_MAX {
            self.to.pop_last();
            self.more = true;
        }
    }

    /// When something was last said of it.
    pub(super) fn last(&self) -> DateTime<Utc> {
        let set = self.set.as_ref().map(|set| set.time);
        set.map_or(self.switched.time, |set| set.max(self.switched.time))
    }
}

/// At most so many bytes of a text, as they are written: without what could move a cursor, and with quotes
/// and backslashes counted twice.
fn cut(text: &str, bytes_max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(bytes_max));
    let mut bytes = 0;
    for c in text.chars().filter(|c| !c.is_control()) {
        bytes += c.len_utf8() + usize::from(matches!(c, '"' | '\\'));
        if bytes > bytes_max {
            break;
        }
        out.push(c);
    }
    out
}

/// A field of an event that is not empty.
pub(super) fn text(event: &Event, name: &str) -> Option<String> {
    let text = event.text(name)?;
    (!text.is_empty()).then(|| cut(&text, TEXT_BYTES_MAX))
}

/// All values of a field that are not empty.
pub(super) fn texts(event: &Event, name: &str) -> Vec<String> {
    let values = match event.get(name) {
        Some(Value::List(values)) => values.as_slice(),
        one => one.map_or(&[][..], std::slice::from_ref),
    };
    let texts = values
        .iter()
        .map(|value| cut(&value.text(), TEXT_BYTES_MAX));
    texts.filter(|text| !text.is_empty()).collect()
}

/// The facts that an event has.
pub(super) fn facts(event: &Event, names: &[&str]) -> BTreeMap<String, String> {
    let known = names
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), text(event, name)?)));
    known.collect()
}

/// What was refused has changed nothing.
pub(super) fn failed(event: &Event) -> bool {
    event.text(field::RESULT).as_deref() == Some("failure")
}
