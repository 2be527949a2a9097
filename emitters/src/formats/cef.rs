//! A finding, or an internal item, in ArcSight's Common Event Format (CEF:0).
//!
//! The text is one line of visible characters whatever a record says: a pipe or a backslash cannot
//! end a header field, an equals sign cannot start a key, and line breaks and hidden characters are
//! written as text. It keeps its limit: event ids go first, then the message is cut; actor,
//! address, target, outside domain and uid always stand.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use exfilwatch_model::{Envelope, Finding, Mode, Severity, UpdateReason};
use serde_json::value::RawValue;

use super::attack;
use super::internal::name;
use super::text::{ascii_json, push_cut, push_visible};

/// Longest value that says who, whence, to whom, in bytes as written.
const IDENTITY_BYTES_MAX: usize = 128;
/// Longest field of the header, in bytes as written.
const HEADER_BYTES_MAX: usize = 128;
/// Longest `msg`: the dictionary allows 1,023 characters.
const MESSAGE_BYTES_MAX: usize = 1_000;
/// Longest `msg` where the whole does not fit.
const MESSAGE_BYTES_KEPT: usize = 256;
/// Longest list of event ids.
const EVENT_IDS_BYTES_MAX: usize = 1_000;
/// Most techniques named.
const TECHNIQUES_MAX: usize = 10;

/// The text of a finding, at most `bytes_max` bytes (of which it needs 1,700 at least). `time` is
/// that of the finding's line.
pub fn finding(finding: &Finding, time: DateTime<Utc>, bytes_max: usize) -> String {
    let whole = written(finding, time, Size::Whole);
    if whole.len() <= bytes_max {
        return whole;
    }
    let without_events = written(finding, time, Size::NoEvents);
    if without_events.len() <= bytes_max {
        return without_events;
    }
    written(finding, time, Size::Shortest)
}

/// The text of an item about ourselves (a heartbeat, a gap).
pub(super) fn internal(envelope: &Envelope, json: &RawValue, time: DateTime<Utc>) -> String {
    let name = name(envelope);
    let mut text = header(&name, &name, 1);
    let mut extension = Extension(&mut text);
    extension.number("rt", time.timestamp_millis());
    extension.labelled("cs1", "tenant", envelope.stream.tenant().as_str());
    extension.labelled("cs2", "stream", &envelope.stream.to_string());
    extension.add("msg", &ascii_json(json.get()), MESSAGE_BYTES_MAX);
    text
}

/// How much is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Whole,
    NoEvents,
    Shortest,
}

fn written(finding: &Finding, time: DateTime<Utc>, size: Size) -> String {
    let rule = &finding.rule;
    let mut text = header(&rule.detection, &rule.title, severity(finding.severity));
    let mut extension = Extension(&mut text);
    extension.add("externalId", &finding.uid.to_string(), IDENTITY_BYTES_MAX);
    extension.number("rt", time.timestamp_millis());
    extension.number("start", finding.first_time.timestamp_millis());
    extension.number("end", finding.last_time.timestamp_millis());
    extension.identity("suser", finding.user.as_deref());
    extension.source(finding.src.as_deref());
    extension.identity("duser", finding.target.as_deref());
    let domain = finding.external_domain.as_deref();
    extension.identity("destinationDnsDomain", domain);
    extension.number("cnt", finding.count);
    extension.add("act", "observed", IDENTITY_BYTES_MAX);
    let tactic = rule.tactics.iter().find_map(|id| attack::tactic(id));
    extension.identity("cat", tactic);
    let app = format!("{}:{}", rule.product.as_str(), finding.stream);
    extension.identity("app", Some(&app));
    extension.labelled("cs1", "tenant", finding.tenant.as_str());
    let techniques = rule.techniques.get(..TECHNIQUES_MAX);
    let techniques = techniques.unwrap_or(&rule.techniques).join(",");
    extension.labelled("cs2", "attack", &techniques);
    extension.labelled("cs3", "ruleId", &rule.id.to_string());
    let mode = match finding.mode {
        Mode::Live => "live",
        Mode::Backfill => "backfill",
    };
    extension.labelled("cs4", "mode", mode);
    extension.number_labelled("cn1", "riskScore", finding.risk_score);
    extension.number_labelled("cn2", "revision", finding.revision);
    let reason = finding.update_reason.map(UpdateReason::as_str);
    extension.identity("reason", reason);
    if size == Size::Whole {
        let ids = finding.event_ids.join(",");
        if !ids.is_empty() {
            extension.add("cs5Label", "eventIds", IDENTITY_BYTES_MAX);
            extension.add("cs5", &ids, EVENT_IDS_BYTES_MAX);
        }
    } else {
        extension.labelled("cs5", "truncated", "true");
    }
    let message_max = match size {
        Size::Whole | Size::NoEvents => MESSAGE_BYTES_MAX,
        Size::Shortest => MESSAGE_BYTES_KEPT,
    };
    extension.add("msg", &finding.message, message_max);
    text
}

/// 0 to 10, as CEF counts.
fn severity(severity: Severity) -> u8 {
    match severity {
        Severity::Informational => 1,
        Severity::Low => 3,
        Severity::Medium => 5,
        Severity::High => 8,
        Severity::Critical => 10,
    }
}

fn header(class: &str, name: &str, severity: u8) -> String {
    let mut text = "CEF:0|exfilwatch|exfilwatch|".to_owned();
    text.push_str(env!("CARGO_PKG_VERSION"));
    for field in [class, name] {
        text.push('|');
        push_cut(field, HEADER_BYTES_MAX, header_escape, &mut text);
    }
    text.push('|');
    text.push_str(&severity.to_string());
    text.push('|');
    text
}

/// The part of `key=value` pairs. Empty values are left out.
struct Extension<'a>(&'a mut String);

impl Extension<'_> {
    fn add(&mut self, key: &str, value: &str, bytes_max: usize) {
        if value.is_empty() {
            return;
        }
        if !self.0.ends_with('|') {
            self.0.push(' ');
        }
        self.0.push_str(key);
        self.0.push('=');
        push_cut(value, bytes_max, extension_escape, self.0);
    }

    fn identity(&mut self, key: &str, value: Option<&str>) {
        self.add(key, value.unwrap_or_default(), IDENTITY_BYTES_MAX);
    }

    fn number(&mut self, key: &str, value: impl Into<i128>) {
        self.add(key, &value.into().to_string(), IDENTITY_BYTES_MAX);
    }

    /// One of the custom fields, which have a name of their own beside them.
    fn labelled(&mut self, key: &str, label: &str, value: &str) {
        if !value.is_empty() {
            self.add(&format!("{key}Label"), label, IDENTITY_BYTES_MAX);
            self.add(key, value, IDENTITY_BYTES_MAX);
        }
    }

    fn number_labelled(&mut self, key: &str, label: &str, value: impl Into<i128>) {
        self.labelled(key, label, &value.into().to_string());
    }

    /// `src` holds IPv4 addresses only; what is none has fields of its own.
    fn source(&mut self, source: Option<&str>) {
        let source = source.unwrap_or_default();
        match source.parse() {
            Ok(IpAddr::V4(_)) => self.add("src", source, IDENTITY_BYTES_MAX),
            Ok(IpAddr::V6(_)) => self.labelled("c6a2", "Source IPv6 Address", source),
            Err(_) => self.labelled("cs6", "source", source),
        }
    }
}

fn header_escape(c: char, text: &mut String) {
    match c {
        '\\' | '|' => text.extend(['\\', c]),
        c => push_visible(c, text),
    }
}

fn extension_escape(c: char, text: &mut String) {
    match c {
        '\\' | '=' => text.extend(['\\', c]),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        c => push_visible(c, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_equals_signs_backslashes_and_breaks_are_escaped_where_they_mean_something() {
        let mut text = String::new();
        push_cut("a|b\\c=d\ne", 100, header_escape, &mut text);
        assert_eq!(text, r"a\|b\\c=d\\u000ae");
        text.clear();
        push_cut("a|b\\c=d\r\ne\u{202e}", 100, extension_escape, &mut text);
        assert_eq!(text, r"a|b\\c\=d\r\ne\\u202e");
    }
}
