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

use super::{Hec, answer, query_pairs};
use crate::reply;

#[derive(Debug, Default)]
pub(super) struct Channels {
    channels: HashMap<String, Channel>,
}

#[derive(Debug, Default)]
struct Channel {
    next: u64,
    outstanding: BTreeMap<u64, Instant>,
}

impl Channels {
    /// The id for a body that was just indexed.
    pub(super) fn issue(&mut self, channel: &str) -> u64 {
        let channel = self.channels.entry(channel.to_owned()).or_default();
        let id = channel.next;
        channel.next += 1;
        channel.outstanding.insert(id, Instant::now());
        id
    }

    /// True once, after the delay; unknown, lost, read and pending ids are all false.
    fn take(&mut self, channel: &str, id: u64, after: Duration) -> bool {
        let Some(channel) = self.channels.get_mut(channel) else {
            return false;
        };
        let ready = channel
            .outstanding
            .get(&id)
            .is_some_and(|since| since.elapsed() >= after);
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
    let Ok(asked) = serde_json::from_slice::<Asked>(&body) else {
        return answer(6);
    };
    let (after, never) = (state.options.ack_after, state.options.ack_never);
    let states: Map<String, Value> = asked
        .acks
        .iter()
        .map(|id| {
            (
                id.to_string(),
                json!(!never && state.acks.take(&channel, *id, after)),
            )
        })
        .collect();
    reply::json(200, json!({ "acks": states }).to_string())
}
