//! The event endpoint: objects laid end to end, indexed one by one until one is wrong.
//!
//! The prefix rule: on 6, 12, 13 and 15 the objects before the one named are indexed and none from
//! it on; on 7 the number names the object after the bad one. An unknown member of the envelope is
//! answered with 200, yet nothing behind that object is indexed; alone in a body it gives code 5.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use bytes::Bytes;
use http::header::{RETRY_AFTER, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{
    Hec, HecOptions, Indexed, Poison, ServiceState, Takes, answer, answer_with, decoded,
    query_pairs,
};

const ENVELOPE: [&str; 7] = [
    "time",
    "host",
    "source",
    "sourcetype",
    "index",
    "fields",
    "event",
];

/// How taking a body ended.
struct Taken {
    events: Vec<Indexed>,
    /// Code and number of the object at fault.
    fault: Option<(u16, Option<usize>)>,
}

/// `POST /services/collector/event`.
pub(super) async fn take(
    State(hec): State<Hec>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let query = query_pairs(query);
    let mut state = hec.state();
    let body = match state.open(&headers, &query, body) {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let channel = match state.channel(&headers, &query) {
        Ok(channel) => channel,
        Err(refusal) => return refusal,
    };
    if let Err(refusal) = state.has_room(channel.as_deref()) {
        return refusal;
    }
    let taken = read_objects(&body, &state.options);
    state.finish(channel.as_deref(), taken)
}

/// `POST /services/collector/raw`: each line is an event.
pub(super) async fn take_raw(
    State(hec): State<Hec>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let query = query_pairs(query);
    let mut state = hec.state();
    let body = match state.open(&headers, &query, body) {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let channel = match state.channel(&headers, &query) {
        Ok(channel) => channel,
        Err(refusal) => return refusal,
    };
    let named = |name: &str| {
        query
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, v)| v.clone())
    };
    let events = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.trim_ascii().is_empty())
        .map(|line| Indexed {
            sourcetype: named("sourcetype"),
            source: named("source"),
            host: named("host"),
            index: named("index"),
            ..Indexed::of_event(line)
        })
        .collect();
    state.finish(
        channel.as_deref(),
        Taken {
            events,
            fault: None,
        },
    )
}

impl ServiceState {
    /// Token, size and encoding; gives the decoded body.
    fn open(
        &self,
        headers: &HeaderMap,
        query: &[(String, String)],
        body: Bytes,
    ) -> Result<Bytes, Response> {
        self.check_token(headers, query)?;
        let body = decoded(headers, body, &self.options)?;
        if body.trim_ascii().is_empty() {
            return Err(answer(5));
        }
        Ok(body)
    }

    /// Code 27 where the channel has as many acknowledgements as it may.
    fn has_room(&mut self, channel: Option<&str>) -> Result<(), Response> {
        let Some(channel) = channel.filter(|_| self.options.use_ack) else {
            return Ok(());
        };
        self.acks.touch(channel, self.options.ack_idle_max);
        if self.acks.outstanding(channel) >= self.options.acks_max {
            return Err(answer(27));
        }
        Ok(())
    }

    /// Records what was taken and answers; a prefix gets an ackId as well. A condition comes first.
    fn finish(&mut self, channel: Option<&str>, mut taken: Taken) -> Response {
        if self.options.whole_bodies
            && let Some((_, number)) = &mut taken.fault
        {
            *number = None;
            taken.events.clear();
        }
        let mut retry_after = None;
        if let Some(condition) = self.conditions.pop_front() {
            retry_after = condition.retry_after_seconds;
            match condition.takes {
                Takes::Nothing => {
                    taken.events.clear();
                    taken.fault = Some((condition.code, None));
                }
                Takes::First(events) if events <= taken.events.len() => {
                    taken.events.truncate(events);
                    taken.fault = Some((condition.code, Some(events)));
                }
                Takes::Everything if taken.fault.is_none() => {
                    taken.fault = Some((condition.code, None));
                }
                // It is at fault itself before that.
                Takes::First(_) | Takes::Everything => {}
            }
        }
        self.recorded.requests += 1;
        let indexed = !taken.events.is_empty();
        let body = self
            .journal
            .as_mut()
            .map_or(0, |journal| journal.take(&taken.events));
        for event in taken.events {
            self.recorded.add(event);
        }
        let ack_id = match channel {
            Some(channel) if self.options.use_ack && (indexed || taken.fault.is_none()) => {
                Some(self.acks.issue(channel, body))
            }
            _ => None,
        };
        let (code, number) = taken.fault.unwrap_or((0, None));
        if !matches!(code, 0 | 24 | 25) {
            self.recorded.refused += 1;
        }
        let mut response = answer_with(code, number, ack_id);
        let cookie = self.options.channel_cookie.as_ref().zip(channel);
        let cookie = cookie.map(|(name, channel)| format!("{name}={channel}; path=/"));
        let retry_after = retry_after.map(|seconds| seconds.to_string());
        for (name, value) in [(SET_COOKIE, cookie), (RETRY_AFTER, retry_after)] {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// Splits a body into objects and takes them until one is wrong.
fn read_objects(body: &[u8], options: &HecOptions) -> Taken {
    let mut taken = Taken {
        events: Vec::new(),
        fault: None,
    };
    let mut objects = serde_json::Deserializer::from_slice(body).into_iter::<Box<RawValue>>();
    let mut number = 0;
    while let Some(object) = objects.next() {
        let Ok(object) = object else {
            taken.fault = Some((6, Some(number)));
            return taken;
        };
        // An array of envelopes is taken by newer versions as if its elements stood end to end.
        let elements = match serde_json::from_str::<Vec<Box<RawValue>>>(object.get()) {
            Ok(elements) => elements,
            Err(_) => vec![object],
        };
        for element in elements {
            let last = body
                .get(objects.byte_offset()..)
                .is_none_or(|rest| rest.trim_ascii().is_empty());
            match take_object(&element, options) {
                Ok(Some(event)) => taken.events.push(event),
                Ok(None) => {}
                Err(Refusal::UnknownMember(_)) if number == 0 && last => {
                    taken.fault = Some((5, None));
                    return taken;
                }
                Err(Refusal::UnknownMember(event)) => {
                    taken.events.extend(event.map(|event| *event));
                    return taken;
                }
                Err(Refusal::Code(7)) => {
                    taken.fault = Some((7, Some(number + 1)));
                    return taken;
                }
                Err(Refusal::Code(code)) => {
                    taken.fault = Some((code, Some(number)));
                    return taken;
                }
            }
            number += 1;
        }
    }
    if number == 0 {
        taken.fault = Some((5, None));
    }
    taken
}

enum Refusal {
    Code(u16),
    UnknownMember(Option<Box<Indexed>>),
}

/// One envelope; `None` where Splunk skips it silently.
fn take_object(object: &RawValue, options: &HecOptions) -> Result<Option<Indexed>, Refusal> {
    if object.get().len() > options.event_bytes_max {
        return Err(Refusal::Code(6));
    }
    let envelope: Map<String, Value> =
        serde_json::from_str(object.get()).map_err(|_| Refusal::Code(6))?;
    let raw: RawEnvelope<'_> = serde_json::from_str(object.get()).map_err(|_| Refusal::Code(6))?;
    match envelope.get("event") {
        None if envelope.contains_key("fields") => return Ok(None),
        None => return Err(Refusal::Code(12)),
        Some(Value::Null) => return Err(Refusal::Code(13)),
        Some(Value::String(text)) if text.trim().is_empty() => return Err(Refusal::Code(13)),
        Some(_) => {}
    }
    let Some(event) = raw.event else {
        return Err(Refusal::Code(12));
    };
    let has_fields = envelope
        .get("fields")
        .is_some_and(|fields| !fields.is_null());
    let hurts = |poison: &&Poison| {
        object.get().contains(&poison.contains) && (poison.code != 15 || has_fields)
    };
    if let Some(poison) = options.poison.iter().find(hurts) {
        return Err(Refusal::Code(poison.code));
    }
    if !fields_are_flat(envelope.get("fields")) {
        return Err(Refusal::Code(15));
    }
    let text = |name: &str| {
        envelope
            .get(name)
            .and_then(Value::as_str)
            .map(ToOwned::to_owned)
    };
    let index = text("index");
    let allowed = &options.indexes;
    if !allowed.is_empty() && index.as_ref().is_some_and(|index| !allowed.contains(index)) {
        return Err(Refusal::Code(7));
    }
    let time = match envelope.get("time") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.trim().parse::<f64>().is_ok() => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(_) => return Err(Refusal::Code(6)),
    };
    let indexed = Indexed {
        sourcetype: text("sourcetype"),
        source: text("source"),
        host: text("host"),
        index,
        time,
        fields: envelope
            .get("fields")
            .filter(|value| !value.is_null())
            .cloned(),
        ..Indexed::of_event(event.get().as_bytes())
    };
    if envelope
        .keys()
        .any(|name| !ENVELOPE.contains(&name.as_str()))
    {
        return Err(Refusal::UnknownMember(Some(Box::new(indexed))));
    }
    Ok(Some(indexed))
}

/// The event as it stands in the body, byte for byte.
#[derive(serde::Deserialize)]
struct RawEnvelope<'b> {
    #[serde(borrow, default)]
    event: Option<&'b RawValue>,
}

fn fields_are_flat(fields: Option<&Value>) -> bool {
    let scalar = |value: &Value| !value.is_object() && !value.is_array();
    match fields {
        None | Some(Value::Null) => true,
        Some(Value::Object(members)) => members.values().all(|value| match value {
            Value::Array(elements) => elements.iter().all(scalar),
            other => scalar(other),
        }),
        Some(_) => false,
    }
}
