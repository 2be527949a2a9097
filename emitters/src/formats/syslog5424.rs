//! One item as one RFC 5424 line: structured data with the flat keys and JSON as MSG, or CEF as MSG.
//!
//! The line is printable: no byte below 0x20 and no DEL whatever a record says, so it is one frame
//! in any framing. MSG is ASCII-only JSON without a byte order mark (rsyslog would keep the mark
//! in the message). A line over the limit is shortened in the order of [`Part::ORDER`] and marked;
//! actor, address, target, outside domain and uid stand in the structured data and always stay.
//! The structured-data id uses the enterprise number that IANA keeps for documentation.

mod raw;

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat, Utc};
use exfilwatch_model::{Envelope, Finding, Kind, Mode, Severity};
use serde::Serialize;
use uuid::Uuid;

use super::cef;
use super::ocsf::{Document, Part};
use super::text::{ascii_json, cut_json, push_cut, push_visible};
use crate::options::SyslogFormat;

/// Longest value in the structured data, in bytes as written; a cut is marked.
const PARAM_BYTES_MAX: usize = 128;
/// Longest text of the shortest MSG, in bytes as written.
const TEXT_BYTES_MAX: usize = 256;
/// RFC 5424 section 6: longest HOSTNAME, APP-NAME.
const HOSTNAME_MAX: usize = 255;
/// See [`HOSTNAME_MAX`].
const APP_NAME_MAX: usize = 48;

/// What is the same for all lines of an emitter.
#[derive(Debug, Clone)]
pub struct Header {
    /// Facility number.
    pub facility: u8,
    /// HOSTNAME; other than printable ASCII becomes `_`.
    pub hostname: String,
    /// APP-NAME; other than printable ASCII becomes `_`.
    pub app_name: String,
    /// Largest line, at least 2,048 bytes.
    pub bytes_max: usize,
    /// What stands as MSG.
    pub message: SyslogFormat,
}

/// What cannot become a line, with the reason.
#[derive(Debug, thiserror::Error)]
#[error("the item is not the JSON it should be: {0}")]
pub struct NotJson(#[from] serde_json::Error);

/// The line of an item, without any framing.
pub fn line(envelope: &Envelope, header: &Header) -> Result<String, NotJson> {
    match envelope.kind {
        Kind::Findings | Kind::Signals => {
            let finding: Finding = serde_json::from_slice(&envelope.payload)?;
            finding_line(&finding, envelope.kind, header)
        }
        Kind::Events | Kind::Internal => raw::line(envelope, header),
    }
}

/// RFC 5424 severity: critical 2, high 3, medium 4, low 5, informational 6.
fn severity_number(severity: Severity) -> u8 {
    match severity {
        Severity::Critical => 2,
        Severity::High => 3,
        Severity::Medium => 4,
        Severity::Low => 5,
        Severity::Informational => 6,
    }
}

fn finding_line(finding: &Finding, kind: Kind, header: &Header) -> Result<String, NotJson> {
    let time = match finding.mode {
        Mode::Live => finding.fetched_at,
        Mode::Backfill => finding.trip_time,
    };
    let (uid, rule_id) = (finding.uid.to_string(), finding.rule.id.to_string());
    let revision = finding.revision.to_string();
    let optional = |text: &'_ Option<String>| text.clone().unwrap_or_default();
    let params = |truncated: bool| {
        let mut params = Params::new();
        params.add("finding_uid", &uid);
        params.add("rule_id", &rule_id);
        params.add("detection", &finding.rule.detection);
        params.add("severity", finding.severity.as_str());
        params.add("tenant", finding.tenant.as_str());
        params.add("revision", &revision);
        params.add("user", &optional(&finding.user));
        params.add("src", &optional(&finding.src));
        params.add("target", &optional(&finding.target));
        params.add("external_domain", &optional(&finding.external_domain));
        params.add("truncated", if truncated { "true" } else { "" });
        params.finish()
    };
    let start = Start {
        severity: severity_number(finding.severity),
        time,
        msgid: match kind {
            Kind::Signals => "SIGNAL",
            Kind::Findings | Kind::Events | Kind::Internal => "FINDING",
        },
    };
    if header.message == SyslogFormat::Cef {
        let frame = start.put(header, "-", "").len();
        let room = header.bytes_max.saturating_sub(frame);
        return Ok(start.put(header, "-", &cef::finding(finding, time, room)));
    }
    let mut document = Document::new(finding);
    let whole = start.line(header, &params(false), &serde_json::to_string(&document)?);
    if whole.len() <= header.bytes_max {
        return Ok(whole);
    }
    for part in Part::ORDER {
        document.leave_out(part);
        let shorter = start.line(header, &params(true), &serde_json::to_string(&document)?);
        if shorter.len() <= header.bytes_max {
            return Ok(shorter);
        }
    }
    let shortest = serde_json::to_string(&Shortest::new(finding))?;
    Ok(start.line(header, &params(true), &shortest))
}

/// What is left when nothing else fits.
#[derive(Debug, Serialize)]
struct Shortest<'a> {
    class_uid: u16,
    severity_id: u8,
    message: Cow<'a, str>,
    finding_info: ShortestInfo<'a>,
}

#[derive(Debug, Serialize)]
struct ShortestInfo<'a> {
    uid: Uuid,
    title: Cow<'a, str>,
}

impl<'a> Shortest<'a> {
    fn new(finding: &'a Finding) -> Self {
        Self {
            class_uid: 2004,
            severity_id: finding.severity.ocsf_id(),
            message: cut_json(&finding.message, TEXT_BYTES_MAX),
            finding_info: ShortestInfo {
                uid: finding.uid,
                title: cut_json(&finding.rule.title, TEXT_BYTES_MAX),
            },
        }
    }
}

/// What differs between the kinds in front of the structured data.
#[derive(Debug, Clone, Copy)]
struct Start {
    severity: u8,
    time: DateTime<Utc>,
    msgid: &'static str,
}

impl Start {
    /// Puts a line of JSON together; it is made ASCII here and nowhere else.
    fn line(&self, header: &Header, structured: &str, json: &str) -> String {
        self.put(header, structured, &ascii_json(json))
    }

    /// Puts a line together.
    fn put(&self, header: &Header, structured: &str, message: &str) -> String {
        format!(
            "<{}>1 {} {} {} - {} {structured} {message}",
            u16::from(header.facility) * 8 + u16::from(self.severity),
            self.time.to_rfc3339_opts(SecondsFormat::Millis, true),
            header_field(&header.hostname, HOSTNAME_MAX),
            header_field(&header.app_name, APP_NAME_MAX),
            self.msgid,
        )
    }
}

/// Printable ASCII without blanks, `-` when nothing is left.
fn header_field(text: &str, chars_max: usize) -> String {
    let field: String = text
        .chars()
        .take(chars_max)
        .map(|c| if c.is_ascii_graphic() { c } else { '_' })
        .collect();
    if field.is_empty() {
        "-".to_owned()
    } else {
        field
    }
}

/// The structured data of a line. Empty values are left out.
struct Params(String);

impl Params {
    fn new() -> Self {
        Self("[exfilwatch@32473".to_owned())
    }

    fn add(&mut self, name: &'static str, value: &str) {
        if value.is_empty() {
            return;
        }
        self.0.push(' ');
        self.0.push_str(name);
        self.0.push_str("=\"");
        push_cut(value, PARAM_BYTES_MAX, escape, &mut self.0);
        self.0.push('"');
    }

    fn finish(mut self) -> String {
        self.0.push(']');
        self.0
    }
}

/// `"`, `\` and `]` as the standard says.
fn escape(c: char, text: &mut String) {
    match c {
        '"' | '\\' | ']' => text.extend(['\\', c]),
        c => push_visible(c, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::text::invisible;
    use proptest::prelude::*;

    /// Undoes the escapes of RFC 5424 section 6.3.3.
    fn unescaped(written: &str) -> String {
        let mut text = String::new();
        let mut chars = written.chars();
        while let Some(c) = chars.next() {
            text.push(if c == '\\' { chars.next().unwrap() } else { c });
        }
        text
    }

    proptest! {
        #[test]
        fn a_parameter_reads_back_as_it_was_with_hidden_characters_shown(text in any::<String>()) {
            let mut params = Params::new();
            params.add("user", &text);
            let data = params.finish();
            prop_assert!(!data.chars().any(invisible));
            if text.is_empty() {
                prop_assert_eq!(data, "[exfilwatch@32473]");
            } else {
                let written = data.strip_prefix("[exfilwatch@32473 user=\"").unwrap();
                let written = written.strip_suffix("\"]").unwrap();
                prop_assert!(written.len() <= PARAM_BYTES_MAX);
                let mut shown = String::new();
                text.chars().for_each(|c| escape(c, &mut shown));
                let begin = written.strip_suffix('…').unwrap_or(written);
                prop_assert!(unescaped(&shown).starts_with(&unescaped(begin)));
                prop_assert!(written == shown || written.ends_with('…'));
            }
        }
    }

    #[test]
    fn hidden_characters_are_shown_and_quotes_escaped() {
        let mut params = Params::new();
        params.add("user", "a\n\"]\\\u{202e}ü");
        assert_eq!(
            params.finish(),
            r#"[exfilwatch@32473 user="a\\u000a\"\]\\\\u202eü"]"#
        );
    }

    #[test]
    fn header_fields_are_printable_and_short() {
        assert_eq!(header_field("a b\nü", 255), "a_b__");
        assert_eq!(header_field("", 255), "-");
        assert_eq!(
            header_field(&"x".repeat(100), APP_NAME_MAX).len(),
            APP_NAME_MAX
        );
    }
}
