//! The HEC envelope around an event, up to the event.
//!
//! A closed set of keys: Splunk ignores what follows an unknown one and still answers 200. `time` is
//! written from integers, never through a float. Index, host, source and sourcetype come from the
//! configuration and from names checked by `model`, so nothing in a record can set them; `fields`
//! (indexed, they cost space) hold only ids.
//!
//! What the envelopes of a stream have in common is written once ([`Setting`]).

use std::ops::Range;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use exfilwatch_model::{Finding, StreamId};
use serde::Serialize;

use crate::options::SplunkHecOptions;

/// What the envelopes of a stream have in common, as text.
#[derive(Debug)]
pub(super) struct Setting {
    stream: StreamId,
    sourcetype: String,
    /// As configured.
    index: Option<String>,
    /// Host, source, sourcetype and index, each with a comma before it.
    names: Vec<u8>,
    /// The end of `fields`: where an item comes from.
    origin: Vec<u8>,
    /// The index, where it is one of the tenant's own.
    pub(super) tenants_index: Option<Arc<str>>,
}

/// Members of `fields`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fields<'a> {
    Finding(&'a Finding),
    /// The id of a record, and which of several events of the record this is.
    Record {
        event_id: &'a str,
        part: Option<usize>,
    },
    Internal {
        name: &'a str,
    },
}

impl Setting {
    /// For a sourcetype of a stream and an index, as configured.
    pub(super) fn new(
        stream: &StreamId,
        sourcetype: &str,
        index: Option<&str>,
        options: &SplunkHecOptions,
    ) -> Result<Self, serde_json::Error> {
        #[derive(Serialize)]
        struct Names<'a> {
            host: &'a str,
            source: &'a str,
            sourcetype: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            index: Option<&'a str>,
        }
        #[derive(Serialize)]
        struct Origin<'a> {
            tenant: &'a str,
            connector: &'a str,
            stream: &'a str,
        }
        let tenant = stream.tenant().as_str();
        let of_tenant = |text: &str| text.replace("{tenant}", tenant);
        let own_index = index.map(of_tenant);
        let mut names = serde_json::to_vec(&Names {
            host: &of_tenant(&options.host),
            source: &of_tenant(&options.source),
            sourcetype,
            index: own_index.as_deref(),
        })?;
        names.pop();
        let mut origin = serde_json::to_vec(&Origin {
            tenant,
            connector: stream.connector(),
            stream: stream.name(),
        })?;
        // Both go behind other members.
        for members in [&mut names, &mut origin] {
            if let Some(brace) = members.first_mut() {
                *brace = b',';
            }
        }
        let is_own = index.is_some_and(|index| index.contains("{tenant}"));
        Ok(Self {
            stream: stream.clone(),
            sourcetype: sourcetype.to_owned(),
            index: index.map(str::to_owned),
            names,
            origin,
            tenants_index: own_index.filter(|_| is_own).map(Arc::from),
        })
    }

    /// Whether it was made for these.
    pub(super) fn fits(&self, stream: &StreamId, sourcetype: &str, index: Option<&str>) -> bool {
        self.stream == *stream && self.sourcetype == sourcetype && self.index.as_deref() == index
    }

    /// Writes an envelope up to its event. Gives where its `fields` stand, with their comma.
    pub(super) fn write(
        &self,
        time: DateTime<Utc>,
        fields: Fields<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Range<usize>, serde_json::Error> {
        out.extend_from_slice(b"{\"time\":");
        write_seconds(time, out)?;
        out.extend_from_slice(&self.names);
        let start = out.len();
        out.extend_from_slice(b",\"fields\":");
        self.write_fields(fields, out)?;
        let end = out.len();
        out.extend_from_slice(b",\"event\":");
        Ok(start..end)
    }

    fn write_fields(&self, fields: Fields<'_>, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        #[derive(Serialize)]
        struct OfFinding<'a> {
            finding_uid: String,
            rule_id: String,
            severity: &'static str,
            tenant: &'a str,
        }
        let (key, id, part) = match fields {
            Fields::Finding(finding) => {
                let fields = OfFinding {
                    finding_uid: finding.uid.to_string(),
                    rule_id: finding.rule.id.to_string(),
                    severity: finding.severity.as_str(),
                    tenant: finding.tenant.as_str(),
                };
                return serde_json::to_writer(out, &fields);
            }
            Fields::Record { event_id, part } => ("{\"event_id\":", event_id, part),
            Fields::Internal { name } => ("{\"name\":", name, None),
        };
        out.extend_from_slice(key.as_bytes());
        serde_json::to_writer(&mut *out, id)?;
        if let Some(part) = part {
            out.extend_from_slice(b",\"part\":");
            serde_json::to_writer(&mut *out, &part)?;
        }
        out.extend_from_slice(&self.origin);
        Ok(())
    }
}

/// Seconds since the epoch with milliseconds, from integers.
fn write_seconds(time: DateTime<Utc>, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let millis = time.timestamp_millis();
    if millis < 0 {
        out.push(b'-');
    }
    let (seconds, millis) = (millis.unsigned_abs() / 1_000, millis.unsigned_abs() % 1_000);
    serde_json::to_writer(&mut *out, &seconds)?;
    out.push(b'.');
    // With a digit before it that keeps its zeros.
    let at = out.len();
    serde_json::to_writer(&mut *out, &(1_000 + millis))?;
    out.remove(at);
    Ok(())
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
            let mut text = Vec::new();
            write_seconds(time.parse().unwrap(), &mut text).unwrap();
            assert_eq!(String::from_utf8(text).unwrap(), written, "{time}");
        }
    }
}
