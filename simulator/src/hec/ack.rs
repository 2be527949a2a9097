//! Acknowledgements: ids count from 0 per channel, a status is gone once it was read as true.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::journal::Journal;
use super::{Hec, answer, decoded, query_pairs};
use crate::reply;

#[derive(Debug, Default)]
pub(super) struct Channels {
    channels: HashMap<String, Channel>,
}

#[derive(Debug)]
struct Channel {
    next: u64,
    outstanding: BTreeMap<u64, Sent>,
    used: Instant,
}

impl Default for Channel {
    fn default() -> Self {
        Self {
            next: 0,
            outstanding: BTreeMap::new(),
            used: Instant::now(),
        }
    }
}

/// What an id stands for.
#[derive(Debug)]
struct Sent {
    since: Instant,
    /// Its number in the journal; 0 without one.
    body: u64,
}

/// When an acknowledgement comes true.
#[derive(Debug, Clone, Copy)]
struct Safety {
    after: Duration,
    /// The last body of the journal that is on disk.
    written: u64,
    never: bool,
}

impl Sent {
    fn is_safe(&self, when: Safety) -> bool {
        !when.never && self.since.elapsed() >= when.after && self.body <= when.written
    }
}

impl Channels {
    /// A call on the channel; after too long without one its acknowledgements are gone.
    pub(super) fn touch(&mut self, channel: &str, idle_max: Duration) {
        if let Some(channel) = self.channels.get_mut(channel) {
            if channel.used.elapsed() > idle_max {
                channel.outstanding.clear();
            }
            channel.used = Instant::now();
        }
    }

    /// How many are kept for the channel.
    pub(super) fn outstanding(&self, channel: &str) -> usize {
        self.channels
            .get(channel)
            .map_or(0, |channel| channel.outstanding.len())
    }

    /// The id for a body that was just indexed.
    pub(super) fn issue(&mut self, channel: &str, body: u64) -> u64 {
        let channel = self.channels.entry(channel.to_owned()).or_default();
        let id = channel.next;
        channel.next += 1;
        let since = Instant::now();
        channel.outstanding.insert(id, Sent { since, body });
        id
    }

    /// True once, when it is safe; unknown, lost, read and pending ids are all false.
    fn take(&mut self, channel: &str, id: u64, when: Safety) -> bool {
        let Some(channel) = self.channels.get_mut(channel) else {
            return false;
        };
        let ready = channel
            .outstanding
            .get(&id)
            .is_some_and(|sent| sent.is_safe(when));
        if ready {
            channel.outstanding.remove(&id);
        }
        ready
    }
}

#[derive(Debug, Deserialize)]
struct Asked {
    acks: Vec<u64>,
}

/// `POST /services/collector/ack`.
pub(super) async fn query(
    State(hec): State<Hec>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let query = query_pairs(query);
    let mut state = hec.state();
    if let Err(refusal) = state.check_token(&headers, &query) {
        return refusal;
    }
    if !state.options.use_ack {
        return answer(14);
    }
    let channel = match state.channel(&headers, &query) {
        Ok(Some(channel)) => channel,
        Ok(None) => return answer(10),
        Err(refusal) => return refusal,
    };
    // Some senders compress the question, and Splunk reads it; it answers 400 to one that only says so.
    let body = match decoded(&headers, body, &state.options) {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let Ok(asked) = serde_json::from_slice::<Asked>(&body) else {
        return answer(6);
    };
    let idle_max = state.options.ack_idle_max;
    state.acks.touch(&channel, idle_max);
    let when = Safety {
        after: state.options.ack_after,
        written: state.journal.as_ref().map_or(0, Journal::written),
        never: state.options.ack_never,
    };
    let mut taken = |id: u64| json!(state.acks.take(&channel, id, when));
    let states: Map<String, Value> = asked
        .acks
        .into_iter()
        .map(|id| (id.to_string(), taken(id)))
        .collect();
    reply::json(200, json!({ "acks": states }).to_string())
}
