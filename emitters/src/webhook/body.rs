//! What a webhook is sent: an event of Standard Webhooks, a Slack message, an Adaptive Card for a
//! Teams workflow.
//!
//! What a record says stands in Slack and Teams only where no markup is read (`plain_text`, `TextRun`):
//! a file name cannot call a channel or show a link.

use std::borrow::Cow;

use chrono::SecondsFormat;
use exfilwatch_model::{Envelope, Finding, Kind, Severity, UpdateReason};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::formats::ocsf::{Document, Part};
use crate::formats::text::{cut_chars, invisible};
use crate::options::WebhookFormat;

/// Longest header of a Slack message.
const SLACK_HEADER_CHARS_MAX: usize = 150;
/// Longest value in a message.
const VALUE_CHARS_MAX: usize = 300;
/// Longest sentence in a message.
const MESSAGE_CHARS_MAX: usize = 512;
/// Largest event: receivers of webhooks commonly stop at 256 KiB.
const EVENT_BYTES_MAX: usize = 200_000;

/// The body for an item.
pub(super) fn body(
    envelope: &Envelope,
    format: WebhookFormat,
) -> Result<Vec<u8>, serde_json::Error> {
    match envelope.kind {
        Kind::Findings | Kind::Signals => {
            let finding: Finding = serde_json::from_slice(&envelope.payload)?;
            match format {
                WebhookFormat::Standard => finding_event(envelope, &finding),
                WebhookFormat::Slack => serde_json::to_vec(&slack(&finding)),
                WebhookFormat::Teams => serde_json::to_vec(&teams(&finding)),
            }
        }
        Kind::Events | Kind::Internal => {
            let data: &RawValue = serde_json::from_slice(&envelope.payload)?;
            let kind = match envelope.kind {
                Kind::Internal => "exfilwatch.internal",
                Kind::Events | Kind::Findings | Kind::Signals => "exfilwatch.event",
            };
            event(envelope, kind, data)
        }
    }
}

/// An event as the standard has it.
#[derive(Debug, Serialize)]
struct Event<'a, T> {
    #[serde(rename = "type")]
    kind: &'a str,
    timestamp: String,
    data: &'a T,
}

fn event<T: Serialize + ?Sized>(
    envelope: &Envelope,
    kind: &str,
    data: &T,
) -> Result<Vec<u8>, serde_json::Error> {
    let time = envelope.time.unwrap_or(envelope.fetched_at);
    serde_json::to_vec(&Event {
        kind,
        timestamp: time.to_rfc3339_opts(SecondsFormat::Millis, true),
        data: &data,
    })
}

fn finding_event(envelope: &Envelope, finding: &Finding) -> Result<Vec<u8>, serde_json::Error> {
    let what = match (finding.update_reason, finding.revision) {
        (Some(UpdateReason::Closed), _) => "closed",
        (None, 0..=1) => "created",
        (Some(_) | None, _) => "updated",
    };
    let noun = match envelope.kind {
        Kind::Signals => "signal",
        Kind::Findings | Kind::Events | Kind::Internal => "finding",
    };
    let kind = format!("exfilwatch.{noun}.{what}");
    let mut document = Document::new(finding);
    let mut bytes = event(envelope, &kind, &document)?;
    for part in Part::ORDER {
        if bytes.len() <= EVENT_BYTES_MAX {
            break;
        }
        document.leave_out(part);
        bytes = event(envelope, &kind, &document)?;
    }
    Ok(bytes)
}

/// Label and value of what a person wants to know first.
fn facts(finding: &Finding) -> Vec<(&'static str, String)> {
    let shown = |text: &Option<String>| text.as_deref().map(visible);
    let techniques = finding.rule.techniques.join(", ");
    let mut facts = vec![("Severity", finding.severity.as_str().to_owned())];
    for (label, value) in [
        ("Who", shown(&finding.user)),
        ("From", shown(&finding.src)),
        ("To", shown(&finding.target)),
        ("Outside domain", shown(&finding.external_domain)),
    ] {
        facts.extend(value.map(|value| (label, value)));
    }
    facts.push(("Tenant", finding.tenant.as_str().to_owned()));
    facts.push(("Events", finding.count.to_string()));
    let span = [finding.first_time, finding.last_time];
    let [first, last] = span.map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true));
    facts.push((
        "When",
        if first == last {
            first
        } else {
            format!("{first} to {last}")
        },
    ));
    if !techniques.is_empty() {
        facts.push(("ATT&CK", visible(&techniques)));
    }
    facts.push(("Detection", visible(&finding.rule.detection)));
    facts.push((
        "Finding",
        format!("{} revision {}", finding.uid, finding.revision),
    ));
    facts
}

/// Hidden characters as text, and cut.
fn visible(text: &str) -> String {
    let shown: Cow<'_, str> = if text.chars().any(invisible) {
        let mut shown = String::new();
        for c in text.chars() {
            if invisible(c) {
                shown.extend(c.escape_unicode());
            } else {
                shown.push(c);
            }
        }
        shown.into()
    } else {
        text.into()
    };
    cut_chars(&shown, VALUE_CHARS_MAX).into_owned()
}

fn title(finding: &Finding) -> String {
    let mark = match finding.severity {
        Severity::Critical | Severity::High => "\u{1f534}",
        Severity::Medium => "\u{1f7e0}",
        Severity::Low | Severity::Informational => "\u{1f535}",
    };
    format!("{mark} {}", visible(&finding.rule.title))
}

fn message(finding: &Finding) -> String {
    cut_chars(&visible_long(&finding.message), MESSAGE_CHARS_MAX).into_owned()
}

fn visible_long(text: &str) -> String {
    let blank = |c: char| if invisible(c) { ' ' } else { c };
    text.chars().map(blank).collect()
}

fn slack(finding: &Finding) -> Value {
    let plain = |text: &str| json!({ "type": "plain_text", "text": text, "emoji": false });
    let mut lines = String::new();
    for (label, value) in facts(finding) {
        lines.push_str(&format!("{label}: {value}\n"));
    }
    let title = title(finding);
    // The text of the notification is read as markup.
    let notice = title
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    json!({
        "text": notice,
        "blocks": [
            { "type": "header", "text": plain(&cut_chars(&title, SLACK_HEADER_CHARS_MAX)) },
            { "type": "section", "text": plain(&message(finding)) },
            { "type": "section", "text": plain(lines.trim_end()) },
        ],
    })
}

fn teams(finding: &Finding) -> Value {
    let run = |text: &str| json!({ "type": "TextRun", "text": text });
    let bold = |text: &str| json!({ "type": "TextRun", "text": text, "weight": "Bolder" });
    let block = |inlines: Vec<Value>| json!({ "type": "RichTextBlock", "inlines": inlines });
    let mut body = vec![
        block(vec![json!({
            "type": "TextRun", "text": title(finding), "weight": "Bolder", "size": "Large",
        })]),
        block(vec![run(&message(finding))]),
    ];
    for (label, value) in facts(finding) {
        body.push(block(vec![bold(&format!("{label}: ")), run(&value)]));
    }
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "msteams": { "width": "Full" },
                "body": body,
            },
        }],
    })
}
