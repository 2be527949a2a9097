//! What is known of a receiver by now, for all addresses and for the operator.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::contract::Count;

/// See the module.
#[derive(Debug)]
pub(super) struct Facts {
    /// `splunk_hec.NAME`, for messages.
    name: String,
    /// Bodies are compressed.
    gzip: AtomicBool,
    /// Acknowledgements were expected and are not given.
    without_ack: AtomicBool,
    ack_timeouts: AtomicU64,
    maybe_twice: AtomicU64,
}

impl Facts {
    pub(super) fn new(name: &str, gzip: bool) -> Self {
        Self {
            name: name.to_owned(),
            gzip: AtomicBool::new(gzip),
            without_ack: AtomicBool::new(false),
            ack_timeouts: AtomicU64::new(0),
            maybe_twice: AtomicU64::new(0),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn gzip(&self) -> bool {
        self.gzip.load(Ordering::Relaxed)
    }

    /// The receiver does not take compressed bodies.
    pub(super) fn no_gzip(&self) {
        if self.gzip.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                emitter = self.name,
                "the receiver takes no gzip: switched off"
            );
        }
    }

    /// The token has no acknowledgements, though they were expected. Said once.
    pub(super) fn acks_are_off(&self) {
        if !self.without_ack.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                emitter = self.name,
                "the token has no indexer acknowledgement: enable it in Splunk, or set ack = \
                 \"off\"; until then the reply to a send is the receipt"
            );
        }
    }

    pub(super) fn acks_work(&self) {
        if self.without_ack.swap(false, Ordering::Relaxed) {
            tracing::info!(emitter = self.name, "indexer acknowledgement is on again");
        }
    }

    /// No acknowledgement came in time.
    pub(super) fn ack_timed_out(&self) {
        self.ack_timeouts.fetch_add(1, Ordering::Relaxed);
    }

    /// So many events are sent again that may have arrived.
    pub(super) fn maybe_twice(&self, events: usize) {
        self.maybe_twice.fetch_add(events as u64, Ordering::Relaxed);
    }

    /// What an operator should know, though everything is delivered.
    pub(super) fn remark(&self) -> Option<String> {
        let without_ack = self.without_ack.load(Ordering::Relaxed);
        without_ack
            .then(|| "no indexer acknowledgement: the reply to a send is the receipt".to_owned())
    }

    /// For metrics.
    pub(super) fn counts(&self) -> [Count; 2] {
        [
            Count {
                name: "ack_timeouts",
                help: "Requests that were not acknowledged in time and went out again",
                value: self.ack_timeouts.load(Ordering::Relaxed),
            },
            Count {
                name: "maybe_twice",
                help: "Events sent again that may have arrived before",
                value: self.maybe_twice.load(Ordering::Relaxed),
            },
        ]
    }
}
