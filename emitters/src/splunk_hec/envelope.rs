//! The HEC envelope around each event.
//!
//! A closed struct: Splunk ignores what follows an unknown key and still answers 200. `time` is
//! written from integers, never through a float. Index, host, source and sourcetype come from the
//! configuration and from names checked by `model`, so nothing in a record can set them; `fields`
//! (indexed, they cost space) hold only ids.

use std::borrow::Cow;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use exfilwatch_model::{Envelope, Finding, Kind, Mode};
use serde::Serialize;
use serde_json::value::RawValue;

use super::records::shape;
use crate::formats::{risk, splunk};
use crate::options::SplunkHecOptions;

/// Sourcetype of findings and signals.
const FINDING: &str = "exfilwatch:finding";
/// Sourcetype of risk events.
const RISK: &str = "exfilwatch:risk";
/// Sourcetype of our own state.
const INTERNAL: &str = "exfilwatch:internal";

/// One HEC event, ready to be laid into a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Index of the item in the batch.
    pub(super) item: usize,
    /// Its index, where that is one of its tenant's own.
    pub(super) tenants_index: Option<String>,
    /// Envelope and event.
    pub(super) bytes: Bytes,
    /// The same without `fields`, for a server that cannot take them.
    without_fields: Fields,
}

/// Where `fields` stands in the bytes of a piece, with its comma.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fields {
    start: usize,
    end: usize,
}

impl Piece {
    /// The piece as it is sent when the server refused its `fields`.
    pub(super) fn plain(&self) -> Bytes {
        let Fields { start, end } = self.without_fields;
        let head = self.bytes.get(..start).unwrap_or_default();
        let tail = self.bytes.get(end..).unwrap_or_default();
        [head, tail].concat().into()
    }
}

#[derive(Debug, Serialize)]
struct Head<'a> {
    time: &'a RawValue,
    host: &'a str,
    source: &'a str,
    sourcetype: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<&'a str>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Indexed<'a> {
    Finding {
        finding_uid: String,
        rule_id: String,
        severity: &'static str,
        tenant: &'a str,
    },
    Record {
        event_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        part: Option<usize>,
        tenant: &'a str,
        connector: &'a str,
        stream: &'a str,
    },
    Internal {
        name: &'a str,
        tenant: &'a str,
        connector: &'a str,
        stream: &'a str,
    },
}

/// The HEC events of one item; the error says why it can never be one.
pub(super) fn pieces(
    item: usize,
    envelope: &Envelope,
    options: &SplunkHecOptions,
) -> Result<Vec<Piece>, serde_json::Error> {
    let frame = Frame {
        item,
        envelope,
        options,
        index: index_of(envelope.kind, options),
    };
    let stream = &envelope.stream;
    let tenant = stream.tenant().as_str();
    match envelope.kind {
        Kind::Findings | Kind::Signals => {
            let finding: Finding = serde_json::from_slice(&envelope.payload)?;
            let time = match finding.mode {
                Mode::Live => finding.fetched_at,
                Mode::Backfill => finding.trip_time,
            };
            let fields = Indexed::Finding {
                finding_uid: finding.uid.to_string(),
                rule_id: finding.rule.id.to_string(),
                severity: finding.severity.as_str(),
                tenant: finding.tenant.as_str(),
            };
            let event = splunk::event(&finding)?;
            let mut pieces = vec![frame.piece(time, FINDING, &fields, &event)?];
            if let (Some(index), Some(event)) = (&options.index.risk, risk::event(&finding)?) {
                let risks = Frame {
                    index: Some(index),
                    ..frame
                };
                pieces.push(risks.piece(time, RISK, &fields, &event)?);
            }
            Ok(pieces)
        }
        Kind::Internal => {
            let event: &RawValue = serde_json::from_slice(&envelope.payload)?;
            let fields = Indexed::Internal {
                name: &envelope.id,
                tenant,
                connector: stream.connector(),
                stream: stream.name(),
            };
            let time = envelope.time.unwrap_or(envelope.fetched_at);
            Ok(vec![frame.piece(time, INTERNAL, &fields, event.get())?])
        }
        Kind::Events => {
            let time = envelope.time.unwrap_or(envelope.fetched_at);
            let shaped = shape(&envelope.payload, stream.name(), options.shape)?;
            let parts = shaped.events.len();
            let piece = |(part, event): (usize, &Cow<'_, str>)| {
                let fields = Indexed::Record {
                    event_id: &envelope.id,
                    part: (parts > 1).then_some(part),
                    tenant,
                    connector: stream.connector(),
                    stream: stream.name(),
                };
                frame.piece(time, &shaped.sourcetype, &fields, event)
            };
            shaped.events.iter().enumerate().map(piece).collect()
        }
    }
}

struct Frame<'a> {
    item: usize,
    envelope: &'a Envelope,
    options: &'a SplunkHecOptions,
    index: Option<&'a str>,
}

impl Frame<'_> {
    /// `event` must be one valid JSON value: it is spliced in as it is.
    fn piece(
        &self,
        time: DateTime<Utc>,
        sourcetype: &str,
        fields: &Indexed<'_>,
        event: &str,
    ) -> Result<Piece, serde_json::Error> {
        let tenant = self.envelope.stream.tenant().as_str();
        let index = self.index.map(|index| index.replace("{tenant}", tenant));
        let time = RawValue::from_string(epoch_seconds(time))?;
        let mut bytes = serde_json::to_vec(&Head {
            time: &time,
            host: &self.options.host.replace("{tenant}", tenant),
            source: &self.options.source.replace("{tenant}", tenant),
            sourcetype,
            index: index.as_deref(),
        })?;
        bytes.pop();
        let start = bytes.len();
        bytes.extend_from_slice(b",\"fields\":");
        serde_json::to_writer(&mut bytes, fields)?;
        let end = bytes.len();
        bytes.extend_from_slice(b",\"event\":");
        bytes.extend_from_slice(event.as_bytes());
        bytes.push(b'}');
        let of_tenant = self.index.is_some_and(|index| index.contains("{tenant}"));
        Ok(Piece {
            item: self.item,
            tenants_index: index.filter(|_| of_tenant),
            bytes: bytes.into(),
            without_fields: Fields { start, end },
        })
    }
}

fn index_of(kind: Kind, options: &SplunkHecOptions) -> Option<&str> {
    let index = &options.index;
    match kind {
        Kind::Findings => index.findings.as_deref(),
        Kind::Signals => index.signals.as_deref().or(index.findings.as_deref()),
        Kind::Internal => index.internal.as_deref(),
        Kind::Events => index.events.as_deref(),
    }
}

/// Seconds since the epoch with milliseconds, from integers.
fn epoch_seconds(time: DateTime<Utc>) -> String {
    let millis = time.timestamp_millis();
    let sign = if millis < 0 { "-" } else { "" };
    let millis = millis.unsigned_abs();
    format!("{sign}{}.{:03}", millis / 1_000, millis % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_written_from_integers() {
        for (time, written) in [
            ("2026-11-24T02:16:00.123Z", "1795486560.123"),
            ("2026-11-24T02:16:00.123999Z", "1795486560.123"),
            ("2026-11-24T02:16:00Z", "1795486560.000"),
            ("1969-12-31T23:59:58.750Z", "-1.250"),
            ("1970-01-01T00:00:00Z", "0.000"),
        ] {
            assert_eq!(epoch_seconds(time.parse().unwrap()), written, "{time}");
        }
    }
}
