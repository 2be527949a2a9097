//! An emitter of Splunk HEC for a collector on loopback.

use std::sync::Arc;

use exfilwatch_emitters::{Delivered, Environment, SplunkHec, SplunkHecOptions};
use exfilwatch_model::{Envelope, SystemClock};

use super::collector::Collector;
use super::office365;

pub(crate) fn options(url: &str) -> SplunkHecOptions {
    let json = serde_json::json!({
        "url": url,
        "token": { "env": "HEC_TOKEN" },
        "index": { "findings": "security", "events": "saas_{tenant}" },
        "ack_timeout_seconds": 10,
    });
    serde_json::from_value(json).unwrap()
}

pub(crate) fn emitter_with(options: &SplunkHecOptions) -> SplunkHec {
    let environment = Environment::new(|name| (name == "HEC_TOKEN").then(|| "t0ken".to_owned()));
    SplunkHec::new(
        "splunk_hec.main",
        options,
        &environment,
        Arc::new(SystemClock),
    )
    .unwrap()
}

pub(crate) fn emitter(collector: &Collector) -> SplunkHec {
    emitter_with(&options(&collector.url))
}

pub(crate) fn batch(ids: &[&str]) -> Vec<Envelope> {
    ids.iter().map(|id| office365(id)).collect()
}

pub(crate) fn refused(delivered: &Delivered) -> Vec<usize> {
    delivered
        .refused
        .iter()
        .map(|refusal| refusal.index)
        .collect()
}
