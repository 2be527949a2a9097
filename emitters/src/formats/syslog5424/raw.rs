//! Lines of raw records and internal items: the JSON itself is MSG.
//!
//! A record over the limit is shortened: long texts and lists are cut first, so that the members
//! that say who and what stay; then the largest members go. The line says `truncated="true"`.

use exfilwatch_model::{Envelope, Kind};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Header, NotJson, Params, Start};
use crate::formats::cef;
use crate::formats::internal::name;
use crate::formats::text::{ascii_json, cut_json};
use crate::options::SyslogFormat;

/// Longest text in bytes and longest list, step by step.
const CUTS: [(usize, usize); 3] = [(512, 20), (128, 20), (64, 3)];

pub(super) fn line(envelope: &Envelope, header: &Header) -> Result<String, NotJson> {
    let raw: &RawValue = serde_json::from_slice(&envelope.payload)?;
    let stream = envelope.stream.to_string();
    let params = |truncated: bool| {
        let mut params = Params::new();
        match envelope.kind {
            Kind::Internal => params.add("name", &name(envelope)),
            Kind::Events | Kind::Findings | Kind::Signals => params.add("event_id", &envelope.id),
        }
        params.add("tenant", envelope.stream.tenant().as_str());
        params.add("stream", &stream);
        params.add("truncated", if truncated { "true" } else { "" });
        params.finish()
    };
    let start = Start {
        severity: 6,
        time: envelope.time.unwrap_or(envelope.fetched_at),
        msgid: match envelope.kind {
            Kind::Internal => "INTERNAL",
            Kind::Events | Kind::Findings | Kind::Signals => "EVENT",
        },
    };
    if header.message == SyslogFormat::Cef && envelope.kind == Kind::Internal {
        let text = cef::internal(envelope, raw, start.time);
        return Ok(start.put(header, "-", &text));
    }
    let whole = start.line(header, &params(false), raw.get());
    if whole.len() <= header.bytes_max {
        return Ok(whole);
    }
    let frame = start.line(header, &params(true), "").len();
    let mut value: Value = serde_json::from_str(raw.get())?;
    shorten(&mut value, header.bytes_max.saturating_sub(frame));
    Ok(start.line(header, &params(true), &value.to_string()))
}

fn shorten(value: &mut Value, bytes_max: usize) {
    let width = |value: &Value| ascii_json(&value.to_string()).len();
    for (text_max, list_max) in CUTS {
        cut(value, text_max, list_max);
        if width(value) <= bytes_max {
            return;
        }
    }
    while width(value) > bytes_max {
        let Some(members) = value.as_object_mut() else {
            *value = Value::Null;
            return;
        };
        let largest = members
            .iter()
            .max_by_key(|(name, value)| name.len() + width(value));
        let Some(name) = largest.map(|(name, _)| name.clone()) else {
            return;
        };
        members.remove(&name);
    }
}

/// Recursion ends with the value: its depth is bounded by the parser (128).
fn cut(value: &mut Value, text_max: usize, list_max: usize) {
    match value {
        Value::String(text) => {
            let short = cut_json(text, text_max).into_owned();
            *text = short;
        }
        Value::Array(list) => {
            list.truncate(list_max);
            for element in list {
                cut(element, text_max, list_max);
            }
        }
        Value::Object(members) => {
            for member in members.values_mut() {
                cut(member, text_max, list_max);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
