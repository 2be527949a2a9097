//! `status`: asked of the running process, or read from the store where none answers.

use std::path::Path;

use exfilwatch_config::Config;
use exfilwatch_model::{Clock, SystemClock};

use crate::app;
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, Table, plain, print, print_items};
use crate::cli::{Common, baselines, gaps};
use crate::pipeline::baselines as known;
use crate::pipeline::report::Report;
use crate::serve::control::{self, Request};

/// Runs `status`. Ends with exit code 7 while a gap is open, or lost and not acknowledged.
pub(crate) async fn status(common: Common) -> Outcome {
    let report = match app::load(&common, common.state.is_none()) {
        Ok(config) => {
            let folder = &config.state.folder;
            match asked(control::ask(folder, &Request::Status).await)? {
                Some(report) => report,
                None => report_at_rest(&config)?,
            }
        }
        // A running process says how it is whatever has become of the configuration since.
        Err(failure) => answer_of(common.state.as_deref()).await.ok_or(failure)?,
    };
    show(&report, common.output)?;
    gaps::failure(&report.due).map_or(Ok(()), Err)
}

/// From the store; what is known of the past, by the rules as they are configured.
fn report_at_rest(config: &Config) -> Result<Report, Failure> {
    let rules = app::rules(&config.detectors)?;
    at_rest(config, |store, now| {
        let mut report = Report::at_rest(store, now)?;
        for tenant in config.tenants.keys() {
            report
                .baselines
                .extend(known::at_rest(store, tenant, &rules)?);
        }
        Ok(report)
    })
}

/// What a process that runs with a state folder says of itself.
async fn answer_of(folder: Option<&Path>) -> Option<Report> {
    let answer = control::ask(folder?, &Request::Status).await;
    answer.ok().flatten()
}

/// The answer of the running process, if one answered.
pub(crate) fn asked<T>(answer: std::io::Result<T>) -> Result<T, Failure> {
    answer.map_err(|error| {
        Failure::caused(
            Code::State,
            "asking the running process over its control socket",
            &error,
        )
    })
}

/// Reads the store of a process that is not running.
pub(crate) fn at_rest<T>(
    config: &Config,
    read: impl FnOnce(
        &dyn exfilwatch_state::StateStore,
        chrono::DateTime<chrono::Utc>,
    ) -> Result<T, exfilwatch_state::StateError>,
) -> Result<T, Failure> {
    let folder = &config.state.folder;
    if !folder.exists() {
        let what = format!("there is no state folder {}", folder.display());
        return Err(Failure::new(Code::State, what)
            .help("has `exfilwatch run` been started with this configuration?"));
    }
    let now = SystemClock.now();
    let state = app::open_state(config, now)?;
    read(&*state.store(), now).map_err(|error| app::state_failure(&error))
}

fn show(report: &Report, output: Output) -> Outcome {
    if output != Output::Table {
        return print_items(output, std::slice::from_ref(report), &Table::default());
    }
    let mut streams = Table::new(&[
        "STREAM",
        "LAG s",
        "COMPLETE UNTIL",
        "RECORDS",
        "SEEN BEFORE",
        "OPEN",
        "STATE",
    ]);
    for line in &report.streams {
        streams.row([
            line.stream.clone(),
            line.lag_seconds
                .map_or_else(|| "-".into(), |lag| lag.to_string()),
            line.complete_until
                .map_or_else(|| "-".into(), |at| at.format("%Y-%m-%dT%H:%MZ").to_string()),
            line.records.to_string(),
            line.duplicates.to_string(),
            line.open_items.to_string(),
            line.held
                .clone()
                .or_else(|| line.waiting.clone())
                .or_else(|| line.hint.clone())
                .unwrap_or_else(|| "ok".into()),
        ]);
    }
    let lanes = lanes(report);
    let running = if report.running {
        "running"
    } else {
        "not running (from the store)"
    };
    let due = if report.due.is_empty() {
        String::new()
    } else {
        format!("\n{}", gaps::table(&report.due).text())
    };
    let tuning = tuning(report);
    let baselines = match baselines::text(&report.baselines, report.at, false) {
        text if text.is_empty() => text,
        text => format!("\n{text}"),
    };
    print(&format!(
        "exfilwatch {} · {running}{}\n\n{}\n{}\ngaps: {} open, {} lost, {} acknowledged, {} filled · quarantine: {}\n{}{tuning}{baselines}",
        report.version,
        if report.paused {
            " · PAUSED for the tenants whose receivers do not keep up"
        } else {
            ""
        },
        streams.text(),
        lanes.text(),
        report.gaps_open,
        report.gaps_lost,
        report.gaps_acknowledged,
        report.gaps_filled,
        report.quarantined,
        due
    ))
}

fn lanes(report: &Report) -> Table {
    let mut lanes = Table::new(&[
        "LANE",
        "DELIVERED",
        "RETRIES",
        "EXCLUDED",
        "QUARANTINED",
        "BEHIND bytes",
        "OLDEST s",
        "STATE",
    ]);
    for line in &report.lanes {
        lanes.row([
            line.lane.clone(),
            line.delivered.to_string(),
            line.retries.to_string(),
            line.excluded.to_string(),
            line.quarantined.to_string(),
            line.behind_bytes.to_string(),
            line.oldest_seconds
                .map_or_else(|| "-".into(), |age| age.to_string()),
            line.held
                .clone()
                .or_else(|| line.remark.clone())
                .unwrap_or_else(|| "ok".into()),
        ]);
    }
    lanes
}

/// Exceptions, and what was kept from alerting.
fn tuning(report: &Report) -> String {
    let mut text = String::new();
    if let (Some(why), Some(at)) = (&report.reloads.why, report.reloads.last) {
        let at = at.format("%Y-%m-%dT%H:%MZ");
        text = format!(
            "\nCONFIGURATION REFUSED at {at}, what held before still holds: {}\n",
            plain(why)
        );
    }
    if !report.exceptions.is_empty() {
        let mut table = Table::new(&[
            "EXCEPTION",
            "TENANT",
            "DETECTION",
            "OWNER",
            "UNTIL",
            "FINDINGS",
        ]);
        for line in &report.exceptions {
            let lapsed = if line.days_left < 0 { " (lapsed)" } else { "" };
            table.row([
                line.standing.name.clone(),
                line.standing.tenant.clone(),
                line.standing.detection.clone(),
                line.standing.owner.clone(),
                format!("{}{lapsed}", line.standing.until),
                line.findings.to_string(),
            ]);
        }
        text.push_str(&format!("\n{}", table.text()));
    }
    let shadow: Vec<_> = report
        .suppressed
        .iter()
        .filter(|line| line.by == "shadow")
        .collect();
    if !shadow.is_empty() {
        let mut table = Table::new(&["SHADOW", "TENANT", "FINDINGS"]);
        for line in shadow {
            table.row([
                line.detection.clone(),
                line.tenant.clone(),
                line.findings.to_string(),
            ]);
        }
        text.push_str(&format!("\n{}", table.text()));
    }
    text
}
