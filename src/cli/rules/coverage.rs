//! `rules coverage --tenant X`: for each rule, when what it looks at was last seen in that tenant's logs. A
//! rule whose operations never come is as good as none: a licence, a setting or a policy is missing.

use chrono::{DateTime, NaiveDate, Utc};
use exfilwatch_detectors::{DetectorsOptions, Interest, Pack, Rule, RuleSet};
use exfilwatch_model::{Clock, Product, SystemClock, TenantId};
use serde::Serialize;

use crate::app;
use crate::cli::Common;
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, Table, print, print_items};
use crate::cli::status::{asked, at_rest};
use crate::pipeline::sightings::{self, Sighting};
use crate::serve::control::{self, Request};

/// A rule whose operations were not seen for so long is worth a look.
const DAYS: i64 = 30;

/// Whose logs.
#[derive(Debug, clap::Args)]
pub(crate) struct CoverageArgs {
    /// The tenant, as the configuration calls it.
    #[arg(long)]
    tenant: TenantId,
}

/// Whether a rule has anything to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Its operations were seen within the last days.
    Seen,
    /// They were seen, but long ago.
    Old,
    /// They were never seen.
    Never,
}

/// A rule and what it had to look at.
#[derive(Debug, Serialize)]
struct Line {
    detection: String,
    state: State,
    last_seen: Option<NaiveDate>,
    /// The operation that was seen last.
    operation: Option<String>,
    /// What the rule looks at; empty for all operations.
    operations: Vec<String>,
    /// Where to look when nothing comes.
    look_at: Option<&'static str>,
}

/// Asks the running process, or reads the store where none answers.
pub(super) async fn coverage(args: CoverageArgs, common: Common) -> Outcome {
    let config = app::load(&common, common.state.is_none())?;
    let request = Request::Sightings(args.tenant.clone());
    let seen: Vec<Sighting> = match asked(control::ask(&config.state.folder, &request).await)? {
        Some(seen) => seen,
        None => at_rest(&config, |store, _| sightings::list(store, &args.tenant))?,
    };
    if seen.is_empty() {
        let what = format!("no record of tenant {} was seen yet", args.tenant);
        return Err(Failure::new(Code::Usage, what)
            .help("exfilwatch status shows whether its streams are read, doctor why not"));
    }
    let rules = app::rules(&DetectorsOptions {
        packs: Pack::ALL.to_vec(),
        ..config.detectors.clone()
    })?;
    let lines = lines(&rules, &seen, SystemClock.now());
    let mut table = Table::new(&["DETECTION", "LAST SEEN", "OPERATION", "LOOK AT"]);
    for line in &lines {
        let last = match (line.state, line.last_seen) {
            (State::Never, _) | (_, None) => format!("never in {DAYS} days"),
            (_, Some(day)) => day.to_string(),
        };
        let operation = line.operation.clone().unwrap_or_default();
        let look_at = line.look_at.unwrap_or_default().to_owned();
        table.row([line.detection.clone(), last, operation, look_at]);
    }
    print_items(common.output, &lines, &table)?;
    if common.output == Output::Table {
        let lacking = lines
            .iter()
            .filter(|line| line.state != State::Seen)
            .count();
        print(&format!(
            "{} detections, {lacking} of them saw none of their operations in {DAYS} days. \
             Rare acts are no fault: look where a whole service is missing.\n",
            lines.len()
        ))?;
    }
    Ok(())
}

/// The rules, those that have nothing to look at first.
fn lines(rules: &RuleSet, seen: &[Sighting], now: DateTime<Utc>) -> Vec<Line> {
    let looking = rules
        .rules()
        .iter()
        .filter(|rule| !rule.interests.is_empty());
    let mut lines: Vec<Line> = looking.map(|rule| line(rule, seen, now)).collect();
    lines.sort_by(|a, b| (a.last_seen, &a.detection).cmp(&(b.last_seen, &b.detection)));
    lines
}

fn line(rule: &Rule, seen: &[Sighting], now: DateTime<Utc>) -> Line {
    let of_rule = seen.iter().filter(|one| {
        let wants = |interest: &Interest| interest.wants(one.product, &one.operation);
        rule.interests.iter().any(wants)
    });
    let last = of_rule.max_by_key(|one| one.day);
    let state = match last {
        None => State::Never,
        Some(last) if (now.date_naive() - last.day).num_days() > DAYS => State::Old,
        Some(_) => State::Seen,
    };
    let operations = rule.interests.iter().flat_map(|one| one.operations.clone());
    Line {
        detection: rule.facts.detection.clone(),
        state,
        last_seen: last.map(|one| one.day),
        operation: last.map(|one| one.operation.clone()),
        operations: operations.collect(),
        look_at: (state != State::Seen).then(|| look_at(rule)),
    }
}

/// The setting that decides whether such records come.
fn look_at(rule: &Rule) -> &'static str {
    let service = rule.service.as_deref().unwrap_or_default();
    let names = |part: &str| {
        let mut all = rule.interests.iter().flat_map(|one| &one.operations);
        all.any(|name| name.contains(part))
    };
    match (rule.facts.product, service) {
        (Product::M365, _) if names("MailItemsAccessed") || names("SearchQuery") => {
            "Audit (Premium) licence of the mailboxes; Set-Mailbox -AuditOwner"
        }
        (Product::M365, "exchange" | "mail") => {
            "stream Audit.Exchange; Get-AdminAuditLogConfig; Get-OrganizationConfig AuditDisabled"
        }
        (Product::M365, "sharepoint" | "onedrive") => "stream Audit.SharePoint; its subscription",
        (Product::M365, "entra" | "azure_ad" | "auditlogs") => {
            "stream Audit.AzureActiveDirectory; its subscription"
        }
        (Product::M365, "dlp") => "stream DLP.All; a DLP policy, and ActivityFeed.ReadDlp",
        (Product::M365, "compliance" | "threat_management" | "threat_detection") => {
            "stream Audit.General; eDiscovery and alert policies in Purview"
        }
        (Product::M365, _) => "stream Audit.General; its subscription and the licence",
        (Product::GoogleWorkspace, "drive") => {
            "application drive; the edition has Drive audit events (Business Standard and above)"
        }
        (Product::GoogleWorkspace, "vault") => "application vault; Vault licences",
        (Product::GoogleWorkspace, "rules") => "application rules; a DLP rule in the Admin console",
        (Product::GoogleWorkspace, _) => {
            "the application among the connector's applications; its events in the edition"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_when_what_it_looks_at_was_last_seen() {
        let rules = app::rules(&DetectorsOptions::default()).unwrap();
        let sighting = |operation: &str, day: &str| Sighting {
            product: Product::M365,
            operation: operation.to_owned(),
            day: day.parse().unwrap(),
        };
        let seen = [
            sighting("Set-Mailbox", "2026-05-03"),
            sighting("New-InboxRule", "2026-05-01"),
            sighting("AdminMailAccess", "2026-03-01"),
        ];
        let lines = lines(&rules, &seen, "2026-05-04T00:00:00Z".parse().unwrap());
        let of = |name: &str| lines.iter().find(|line| line.detection == name).unwrap();
        let forwarding = of("o365.mail.forwarding_external");
        assert_eq!(forwarding.state, State::Seen);
        assert_eq!(forwarding.operation.as_deref(), Some("Set-Mailbox"));
        assert_eq!(forwarding.look_at, None);
        let access = of("o365.mail.admin_mail_access");
        assert_eq!(access.state, State::Old);
        assert_eq!(access.last_seen, Some("2026-03-01".parse().unwrap()));
        let drive = of("gws.drive.external_share");
        assert_eq!((drive.state, drive.last_seen), (State::Never, None));
        assert!(drive.look_at.unwrap().contains("drive"));
    }
}
