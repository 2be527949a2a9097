//! `replay`: detectors only, over files. Prints the final findings; keeps and sends nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use exfilwatch_connectors::RecordReader;
use exfilwatch_detectors::{DetectorsOptions, Engine, RuleSet};
use exfilwatch_emitters::formats::ocsf::Document;
use exfilwatch_model::{Clock, Finding, JobId, RawRecord, SystemClock, TenantId};

use uuid::Uuid;

use crate::app::{self, readers};
use crate::cli::Common;
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, Table, plain, print};
use crate::cli::sources;
use crate::files::Input;
use crate::pipeline::step::Readers;

/// Arguments of `replay`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    /// Files with native records (NDJSON, JSON arrays, Reports API pages, Search-UnifiedAuditLog
    /// CSV; plain, gzip or zstd); `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// A domain of the organisation; may be repeated. Without any, the actor's own counts.
    #[arg(long, value_name = "DOMAIN")]
    internal_domain: Vec<String>,
    /// A partner's domain; may be repeated.
    #[arg(long, value_name = "DOMAIN")]
    partner_domain: Vec<String>,
    /// Alias of the tenant the records belong to.
    #[arg(long, default_value = "default")]
    tenant: TenantId,
    /// Rule files beside the built-in ones; a rule with the same id replaces ours.
    #[arg(long, value_name = "DIR")]
    rules: Option<PathBuf>,
    /// Shows signals too (detections that do not ask for attention by themselves).
    #[arg(long)]
    signals: bool,
    /// Ends with exit code 1 when there are findings.
    #[arg(long)]
    fail_on_findings: bool,
}

/// What was read, for the closing line.
#[derive(Debug, Default)]
struct Totals {
    records: u64,
    wanted: u64,
    malformed: u64,
}

/// Runs the command.
pub(crate) fn run(args: &ReplayArgs, common: &Common) -> Outcome {
    let options = DetectorsOptions {
        rules_dir: args.rules.clone(),
        ..DetectorsOptions::default()
    };
    let rules = app::rules(&options)?;
    let readers = readers(&args.internal_domain, &args.partner_domain);
    let (mut findings, totals) = replay(args, &rules, &readers)?;
    if !args.signals && common.output == Output::Table {
        findings.retain(|finding| finding.alert);
    }
    show(&findings, common.output)?;
    tracing::info!(
        records = totals.records,
        wanted = totals.wanted,
        malformed = totals.malformed,
        findings = findings.len(),
        "replay done"
    );
    if args.fail_on_findings && findings.iter().any(|finding| finding.alert) {
        return Err(Failure::new(
            Code::Findings,
            format!("{} findings", findings.len()),
        ));
    }
    Ok(())
}

fn replay(
    args: &ReplayArgs,
    rules: &Arc<RuleSet>,
    readers: &Readers,
) -> Result<(Vec<Finding>, Totals), Failure> {
    let job = JobId::new("replay").map_err(|e| Failure::caused(Code::Usage, "replay", &e))?;
    let mut engine = Engine::new(rules.clone(), args.tenant.clone(), job);
    let mut totals = Totals::default();
    // The last word on each finding; collected batch by batch, so that evidence is at hand.
    let mut findings: BTreeMap<Uuid, Finding> = BTreeMap::new();
    let now = SystemClock.now();
    for argument in &args.files {
        let input = Input::from_argument(argument);
        for batch in sources::open(&input)? {
            let batch = batch.map_err(|error| sources::broken(&error))?;
            totals.malformed += batch.malformed.len() as u64;
            for malformed in &batch.malformed {
                tracing::warn!(file = %input, reason = %malformed.reason, "left out");
            }
            for (product, record) in &batch.records {
                totals.records += 1;
                observe(
                    &mut engine,
                    rules,
                    readers.of(*product),
                    record,
                    now,
                    &mut totals,
                );
            }
            findings.extend(
                engine
                    .collect(now)
                    .into_iter()
                    .map(|finding| (finding.uid, finding)),
            );
        }
    }
    engine.settle(DateTime::<Utc>::MAX_UTC);
    let settled = engine.collect(now);
    findings.extend(settled.into_iter().map(|finding| (finding.uid, finding)));
    let mut findings: Vec<Finding> = findings.into_values().collect();
    findings.sort_by(|a, b| {
        let key = |f: &Finding| (f.trip_time, f.rule.detection.clone(), f.uid);
        key(a).cmp(&key(b))
    });
    Ok((findings, totals))
}

fn observe(
    engine: &mut Engine,
    rules: &RuleSet,
    reader: &dyn RecordReader,
    record: &RawRecord,
    now: DateTime<Utc>,
    totals: &mut Totals,
) {
    let wanted = reader.operations(record).is_ok_and(|operations| {
        rules.wants_fields(reader.product(), &operations, |operation, field| {
            reader.may_have(record, operation, field)
        })
    });
    if !wanted {
        return;
    }
    match reader.normalise(record, now) {
        Ok(events) => {
            totals.wanted += 1;
            for event in &events {
                engine.observe(event);
            }
        }
        Err(error) => {
            totals.malformed += 1;
            tracing::warn!(%error, "a record was left out");
        }
    }
}

fn show(findings: &[Finding], output: Output) -> Outcome {
    match output {
        Output::Ndjson => {
            for finding in findings {
                print(&(document(finding)?.to_string() + "\n"))?;
            }
            Ok(())
        }
        Output::Json => {
            let all: Result<Vec<_>, _> = findings.iter().map(document).collect();
            print(&(serde_json::Value::Array(all?).to_string() + "\n"))
        }
        Output::Table => {
            let mut table = Table::new(&["TIME", "SEVERITY", "DETECTION", "WHAT"]);
            for finding in findings {
                table.row([
                    finding.trip_time.format("%Y-%m-%d %H:%M:%S").to_string(),
                    finding.severity.as_str().to_owned(),
                    finding.rule.detection.clone(),
                    plain(&finding.message),
                ]);
            }
            print(&table.text())
        }
    }
}

fn document(finding: &Finding) -> Result<serde_json::Value, Failure> {
    serde_json::to_value(Document::new(finding))
        .map_err(|error| Failure::caused(Code::State, "writing a finding", &error))
}
