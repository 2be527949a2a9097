//! `replay`: detectors only, over files. Prints the final findings; keeps and sends nothing.

mod compare;

use std::path::PathBuf;
use std::sync::Arc;

use exfilwatch_detectors::{DetectorsOptions, RuleSet};
use exfilwatch_emitters::formats::ocsf::Document;
use exfilwatch_model::{Clock, Finding, SystemClock, TenantId};

use crate::app::{self, readers};
use crate::cli::Common;
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, Table, plain, print, print_lines, unwritten};
use crate::cli::sources;
use crate::cli::trial::{Found, Totals, Trial};
use crate::files::Input;
use crate::pipeline::step::Readers;

/// Arguments of `replay`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    /// Files with native records (NDJSON, JSON arrays, Reports API pages, Search-UnifiedAuditLog
    /// CSV; plain, gzip or zstd); `-` is standard input.
    #[arg(required_unless_present = "compare", value_name = "FILE")]
    files: Vec<String>,
    /// A domain of the organisation; may be repeated. Without any, the actor's own counts.
    #[arg(long, value_name = "DOMAIN")]
    internal_domain: Vec<String>,
    /// A partner's domain; may be repeated.
    #[arg(long, value_name = "DOMAIN")]
    partner_domain: Vec<String>,
    /// Alias of the tenant the records belong to. Default: default; of the archive, all.
    #[arg(long)]
    tenant: Option<TenantId>,
    /// Rule files beside the built-in ones; a rule with the same id replaces ours.
    #[arg(long, value_name = "DIR")]
    rules: Option<PathBuf>,
    /// Only these detections, each an id, a name or a pattern (`o365.mail.*`; stock Sigma rules are
    /// `sigma.*`); may be repeated.
    #[arg(long, value_name = "NAME", conflicts_with = "compare")]
    only: Vec<String>,
    /// Shows signals too (detections that do not ask for attention by themselves).
    #[arg(long)]
    signals: bool,
    /// Compares what would have fired: under the configuration as it is, against that of --config with
    /// --rules and --set. Over the files, or over the archive.
    #[arg(long)]
    compare: bool,
    /// Compares from here on: a time, a date, or an age such as 30d. What windows need before is read.
    #[arg(long, requires = "compare", value_name = "TIME")]
    since: Option<String>,
    /// The configuration as it is. Default: exfilwatch.toml, or what EXFILWATCH_CONFIG names.
    #[arg(long, requires = "compare", value_name = "FILE")]
    old_config: Option<PathBuf>,
    /// Ends with exit code 1 when there are findings.
    #[arg(long)]
    fail_on_findings: bool,
}

impl ReplayArgs {
    fn tenant(&self) -> Result<TenantId, Failure> {
        match &self.tenant {
            Some(tenant) => Ok(tenant.clone()),
            None => TenantId::new("default")
                .map_err(|error| Failure::caused(Code::Usage, "naming the tenant", &error)),
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &ReplayArgs, common: &Common) -> Outcome {
    if args.compare {
        return compare::run(args, common);
    }
    let options = DetectorsOptions {
        rules_dir: args.rules.clone(),
        ..DetectorsOptions::default()
    };
    let rules = only(app::rules_for(&options, &args.only)?, &args.only)?;
    let readers = readers(&args.internal_domain, &args.partner_domain);
    let (mut findings, totals) = replay(args, rules, readers)?;
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
    let is_failed = args.fail_on_findings && findings.iter().any(|finding| finding.alert);
    let count = findings.len();
    // The process ends with this command: its memory is given back at once, and not finding by finding.
    std::mem::forget(findings);
    if is_failed {
        return Err(Failure::new(Code::Findings, format!("{count} findings")));
    }
    Ok(())
}

/// The rules that are named; without a name, all.
fn only(rules: Arc<RuleSet>, names: &[String]) -> Result<Arc<RuleSet>, Failure> {
    if names.is_empty() {
        return Ok(rules);
    }
    let only = rules.only(names).map_err(|name| {
        Failure::new(
            Code::Usage,
            format!("--only {name}: no detection is called that"),
        )
        .help("exfilwatch rules list names them all; with --rules DIR, those of DIR too")
    })?;
    Ok(Arc::new(only))
}

fn replay(
    args: &ReplayArgs,
    rules: Arc<RuleSet>,
    readers: Readers,
) -> Result<(Found, Totals), Failure> {
    let trial = Trial::new(args.tenant()?, rules, readers, SystemClock.now());
    let mut trial = trial.map_err(|error| Failure::caused(Code::Usage, "replay", &error))?;
    for argument in &args.files {
        let input = Input::from_argument(argument);
        for batch in sources::open(&input)? {
            let batch = batch.map_err(|error| sources::broken(&error))?;
            trial.totals.malformed += batch.malformed.len() as u64;
            for malformed in &batch.malformed {
                tracing::warn!(file = %input, reason = %malformed.reason, "left out");
            }
            for (product, record) in &batch.records {
                trial.observe(*product, record);
            }
            trial.collect();
        }
    }
    let (totals, counters) = (trial.totals, trial.counters());
    if counters.shed_entries + counters.capped_entries > 0 {
        tracing::warn!(
            remembered = counters.entries,
            shed = counters.shed_entries,
            capped = counters.capped_entries,
            "some windows held too many events: the oldest, or the latest of an hour, were let go, and \
             findings may be missing"
        );
    }
    Ok((trial.finish(), totals))
}

fn show(findings: &[Box<Finding>], output: Output) -> Outcome {
    let documents = findings.iter().map(|finding| Document::new(finding));
    match output {
        Output::Ndjson => print_lines(documents),
        Output::Json => {
            let all = serde_json::to_string(&documents.collect::<Vec<_>>());
            print(&(all.map_err(|error| unwritten(&error))? + "\n"))
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
