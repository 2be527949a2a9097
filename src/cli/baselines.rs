//! What rules measure events against, as text: for `learn` and `status`.

use chrono::{DateTime, Utc};

use crate::cli::output::Table;
use crate::pipeline::baselines::Known;

/// One line of sums, and a table of those that have seen something: of all, or of those that still
/// learn.
pub(crate) fn text(known: &[Known], now: DateTime<Utc>, all: bool) -> String {
    if known.is_empty() {
        return String::new();
    }
    let learning = |one: &&Known| one.is_learning(now);
    let values: u64 = known.iter().map(|one| one.known).sum();
    let mut text = format!(
        "baselines: {} detections know {values} values of the past; {} still learn, of them {} have \
         seen nothing yet\n",
        known.len(),
        known.iter().filter(learning).count(),
        known.iter().filter(|one| one.since.is_none()).count(),
    );
    let mut table = Table::new(&["DETECTION", "TENANT", "KNOWN", "SINCE", "JUDGES FROM"]);
    let minute = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%MZ").to_string();
    let mut is_empty = true;
    for one in known.iter().filter(|one| all || learning(one)) {
        let (Some(since), Some(from)) = (one.since, one.judges_from) else {
            continue;
        };
        is_empty = false;
        table.row([
            one.detection.clone(),
            one.tenant.to_string(),
            one.known.to_string(),
            minute(since),
            minute(from),
        ]);
    }
    if !is_empty {
        text.push_str(&table.text());
    }
    text
}
