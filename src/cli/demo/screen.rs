//! The screen of the demo: an emitter like any other, that writes findings for people; and the running
//! line of streams, lag and delivered counts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use exfilwatch_emitters::{Delivered, EmitError, Emitter, Refusal};
use exfilwatch_model::{Envelope, Finding, Kind};

use crate::cli::output::{plain, print};
use crate::pipeline::watch::Shown;

/// Lines of the triage text that are shown.
const TRIAGE_LINES: usize = 7;

/// Findings and signals as they were delivered, for the comparison at the end.
pub(super) type Delivery = Arc<Mutex<Vec<Finding>>>;

/// Writes findings to standard output and keeps them, with the signals.
#[derive(Debug)]
pub(super) struct Screen {
    started: Instant,
    delivery: Delivery,
}

impl Screen {
    pub(super) fn new(started: Instant, delivery: Delivery) -> Self {
        Self { started, delivery }
    }

    fn keep(&self, finding: Finding) {
        self.delivery
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(finding);
    }
}

#[async_trait]
impl Emitter for Screen {
    fn name(&self) -> &'static str {
        "screen"
    }

    fn batch_max(&self) -> (usize, usize) {
        (16, 1 << 20)
    }

    async fn emit(&self, batch: &[Envelope]) -> Result<Delivered, EmitError> {
        let mut delivered = Delivered::default();
        for (index, item) in batch.iter().enumerate() {
            match serde_json::from_slice::<Finding>(&item.payload) {
                Ok(finding) if item.kind != Kind::Findings => self.keep(finding),
                Ok(finding) => {
                    let text = lines(&finding, self.started.elapsed().as_secs());
                    self.keep(finding);
                    print(&text).map_err(|failure| EmitError::Hold {
                        what: failure.message,
                        help: "keep standard output open".to_owned(),
                    })?;
                }
                Err(error) => {
                    delivered.refused.push(Refusal {
                        index,
                        reason: error.to_string(),
                    });
                }
            }
        }
        Ok(delivered)
    }
}

/// A finding in a few lines: what, who, to whom, why it fired, what to check.
fn lines(finding: &Finding, seconds: u64) -> String {
    let again = match finding.update_reason {
        Some(reason) => format!(" · revision {} ({})", finding.revision, reason.as_str()),
        None => String::new(),
    };
    let mut text = format!(
        "[{seconds:>3} s] {} {}{again}\n        {}\n",
        finding.severity.as_str().to_uppercase(),
        finding.rule.detection,
        plain(&finding.message),
    );
    // An update says what is new; what to check was said the first time.
    if finding.update_reason.is_none() {
        text.push_str(&format!("        why    {}\n", why(finding)));
        for line in finding
            .rule
            .triage
            .lines()
            .filter(|line| !line.trim().is_empty())
            .take(TRIAGE_LINES)
        {
            text.push_str(&format!("        {}\n", plain(line.trim_end())));
        }
    }
    text.push('\n');
    text
}

fn why(finding: &Finding) -> String {
    match (finding.threshold, finding.window_seconds) {
        (Some(threshold), Some(seconds)) => format!(
            "{} counted, at least {threshold} within {} h",
            finding.count,
            seconds / 3_600
        ),
        _ => {
            let matched = finding.matched.iter().take(6);
            let pairs = matched.map(|(name, value)| format!("{name}={}", plain(value)));
            pairs.collect::<Vec<_>>().join(", ")
        }
    }
}

/// The running line.
pub(super) fn line(shown: &Shown, now: DateTime<Utc>) -> String {
    // What was read once and is listed again, as it must be, is no news to who watches.
    let streams = shown.streams.values();
    let records: u64 = streams
        .map(|s| s.records.saturating_sub(s.duplicates))
        .sum();
    let lag = shown
        .streams
        .values()
        .filter_map(|stream| Some((now - stream.low_water?).num_minutes()));
    let lag = lag.max().unwrap_or(0);
    let delivered = |kind| -> u64 {
        shown
            .lanes
            .keys()
            .filter(|lane| lane.kind == kind && lane.emitter != "screen")
            .map(|lane| shown.lane_health(lane).delivered)
            .sum()
    };
    format!(
        "  ··  {} · {} streams, lag {lag} min (virtual) · {records} records read · delivered to Splunk: {} records, {} findings, {} signals\n\n",
        now.format("%H:%M"),
        shown.streams.len(),
        delivered(Kind::Events),
        delivered(Kind::Findings),
        delivered(Kind::Signals),
    )
}
