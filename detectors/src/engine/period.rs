//! Aligned periods of event time, and how long a rule must remember.

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::Finding;

use super::baseline::{DAY_MS, day_of};
use crate::rules::{Kind, Rule};

/// How long a finding without a period stays open after its last event, in milliseconds.
const IDLE_MS: i64 = 7 * 86_400_000;

/// Number of the period that holds an instant. Aligned to the epoch, so that two runs agree.
pub(crate) fn number(time_ms: i64, period_ms: i64) -> i64 {
    time_ms.div_euclid(period_ms)
}

/// First instant of a period.
pub(crate) fn start_ms(number: i64, period_ms: i64) -> i64 {
    number.saturating_mul(period_ms)
}

/// Longest trailing window of a rule; 0 for a rule that looks at one event at a time.
pub(crate) fn longest_span_ms(rule: &Rule) -> i64 {
    match &rule.kind {
        Kind::Single { .. } => 0,
        Kind::Window { tiers, .. } | Kind::Incident { tiers, .. } => {
            tiers.iter().map(|tier| tier.span_ms).max().unwrap_or(0)
        }
    }
}

/// Findings before this instant are final once no event before `watermark_ms` can come.
pub(crate) fn final_before_ms(rule: &Rule, watermark_ms: i64) -> i64 {
    match &rule.kind {
        Kind::Single { fields, .. } if fields.is_empty() => watermark_ms,
        Kind::Single {
            period_ms: None, ..
        } => watermark_ms.saturating_sub(IDLE_MS),
        Kind::Single {
            period_ms: Some(period_ms),
            ..
        }
        | Kind::Window { period_ms, .. }
        | Kind::Incident { period_ms, .. } => {
            start_ms(number(watermark_ms, *period_ms), *period_ms)
        }
    }
}

/// Entries before this instant are needed no more: they can lie in no window that ends in an
/// open period.
pub(crate) fn keep_from_ms(rule: &Rule, watermark_ms: i64) -> i64 {
    let from_ms = final_before_ms(rule, watermark_ms).saturating_sub(longest_span_ms(rule));
    if is_measured(rule) {
        // Of the day on which a window starts, what lies before its start is its past.
        start_ms(day_of(from_ms), DAY_MS)
    } else {
        from_ms
    }
}

/// Whether windows of the rule are measured against their past.
fn is_measured(rule: &Rule) -> bool {
    matches!(&rule.kind, Kind::Window { tiers, .. } if tiers.iter().any(|tier| tier.above.is_some()))
}

/// When a finding is over: events later than this no longer belong to it.
pub(crate) fn expiry(rule: &Rule, finding: &Finding) -> DateTime<Utc> {
    let (time, period_ms) = match &rule.kind {
        Kind::Single { fields, .. } if fields.is_empty() => return finding.last_time,
        Kind::Single {
            period_ms: None, ..
        } => {
            return finding
                .last_time
                .checked_add_signed(TimeDelta::milliseconds(IDLE_MS))
                .unwrap_or(finding.last_time);
        }
        Kind::Single {
            period_ms: Some(period_ms),
            ..
        } => (finding.first_time, *period_ms),
        Kind::Window { period_ms, .. } | Kind::Incident { period_ms, .. } => {
            (finding.trip_time, *period_ms)
        }
    };
    let end_ms = start_ms(number(time.timestamp_millis(), period_ms) + 1, period_ms);
    DateTime::from_timestamp_millis(end_ms).unwrap_or(time)
}
