//! `replay --compare`: what would have fired under the rules and the configuration as they are, against
//! what would have under new ones, by detection and actor.
//!
//! Both sides see the same records, once: files that are named, or the archive. A finding has the same id
//! on both sides, so one that is gone and another that came are not mistaken for no change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_config::Config;
use exfilwatch_detectors::RuleSet;
use exfilwatch_emitters::archive::Search;
use exfilwatch_model::{Clock, Domains, Product, RawRecord, SystemClock, TenantId, Window};
use serde::Serialize;
use uuid::Uuid;

use super::ReplayArgs;
use crate::app;
use crate::cli::backfill::parse_time;
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, Table, print, print_items};
use crate::cli::trial::{Found, Trial};
use crate::cli::{Common, environment, events, sources};
use crate::files::Input;
use crate::pipeline::filter::product_of;
use crate::pipeline::step::Readers;
use crate::tuning;

/// Records after which what was found is taken up.
const COLLECT_EVERY: u64 = 4_000;

/// One side of the comparison.
struct Side {
    config: Config,
    rules: Arc<RuleSet>,
}

/// Both sides at work on one tenant.
struct Pair {
    old: Trial,
    new: Trial,
    records: u64,
}

/// A line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Line {
    tenant: TenantId,
    detection: String,
    /// Whom the findings are about.
    actor: String,
    /// Findings under the old rules.
    old: u64,
    /// Findings under the new ones.
    new: u64,
    /// New less old.
    difference: i64,
    /// Findings that the new rules no longer make.
    gone: u64,
    /// Findings that only the new rules make.
    added: u64,
}

/// Runs the comparison.
pub(super) fn run(args: &ReplayArgs, common: &Common) -> Outcome {
    let now = SystemClock.now();
    let old = side(&old_common(args, common), None)?;
    let new = side(common, args.rules.clone())?;
    let since = args
        .since
        .as_deref()
        .map(|since| parse_time("--since", since, now))
        .transpose()?;
    let mut compare = Compare {
        args,
        old,
        new,
        now,
        since,
        pairs: BTreeMap::new(),
    };
    if args.files.is_empty() {
        compare.archives()?;
    } else {
        compare.files()?;
    }
    let lines = compare.lines();
    let (old, new) = lines
        .iter()
        .fold((0, 0), |sum, line| (sum.0 + line.old, sum.1 + line.new));
    match common.output {
        Output::Table => {
            print(&table(&lines).text())?;
            print(&format!(
                "\n{old} findings as it is, {new} with the new rules\n"
            ))
        }
        Output::Json | Output::Ndjson => print_items(common.output, &lines, &Table::default()),
    }
}

/// Where the old side's configuration is: named, or where it always is.
fn old_common(args: &ReplayArgs, common: &Common) -> Common {
    let usual = || {
        let set = environment::variable("EXFILWATCH_CONFIG");
        set.map_or_else(|| PathBuf::from("exfilwatch.toml"), PathBuf::from)
    };
    Common {
        config: args.old_config.clone().unwrap_or_else(usual),
        // What is set on the command line is part of what is tried.
        set: Vec::new(),
        ..common.clone()
    }
}

fn side(common: &Common, rules: Option<PathBuf>) -> Result<Side, Failure> {
    let mut config = app::load_to_detect(common, false)?;
    if rules.is_some() {
        config.detectors.rules_dir = rules;
    }
    let rules = app::rules(&config.detectors)?;
    Ok(Side { config, rules })
}

impl Side {
    fn trial(
        &self,
        tenant: &TenantId,
        args: &ReplayArgs,
        now: DateTime<Utc>,
    ) -> Result<Trial, Failure> {
        let rules = tuning::rules_of(&self.config, &self.rules, tenant)?;
        let readers = self.readers(tenant, args);
        Trial::new(tenant.clone(), rules, readers, now)
            .map_err(|error| Failure::caused(Code::Usage, "replay", &error))
    }

    /// Readers that know what is configured of the tenant and named on the command line; nobody is
    /// asked.
    fn readers(&self, tenant: &TenantId, args: &ReplayArgs) -> Readers {
        let mut domains = match self.config.tenants.get(tenant) {
            Some(options) => options.domains(&[]),
            None => Domains::new::<String>(&[], &args.partner_domain),
        };
        for domain in &args.internal_domain {
            domains = domains.with_internal(domain).into_owned();
        }
        let lists = self.config.lists.get(tenant).cloned();
        app::readers_of(domains.with_lists(lists.unwrap_or_default()))
    }
}

struct Compare<'a> {
    args: &'a ReplayArgs,
    old: Side,
    new: Side,
    now: DateTime<Utc>,
    since: Option<DateTime<Utc>>,
    pairs: BTreeMap<TenantId, Pair>,
}

impl Compare<'_> {
    fn files(&mut self) -> Outcome {
        let tenant = self.args.tenant()?;
        let files = self.args.files.clone();
        let looking = self.since.map(|since| since - self.longest());
        let clock = app::readers::<&str>(&[], &[]);
        for argument in &files {
            for batch in sources::open(&Input::from_argument(argument))? {
                let batch = batch.map_err(|error| sources::broken(&error))?;
                for (product, record) in &batch.records {
                    let is_old = looking.is_some_and(|from| {
                        let head = clock.of(*product).head(record);
                        head.is_ok_and(|head| head.time.is_some_and(|time| time < from))
                    });
                    if !is_old {
                        self.observe(&tenant, *product, record)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads the archive from as long before as the longest window is wide.
    fn archives(&mut self) -> Outcome {
        let mut folders = events::configured(&self.old.config);
        if folders.is_empty() {
            folders = events::configured(&self.new.config);
        }
        let Some(since) = self.since else {
            return Err(Failure::new(
                Code::Usage,
                "neither files nor a time are named",
            )
            .help("exfilwatch replay --compare --rules NEW --since 30d reads the archive; or name files of records"));
        };
        if folders.is_empty() {
            return Err(Failure::new(
                Code::Usage,
                "no archive is configured, so there are no records to try the rules on",
            )
            .help(
                "name files of records, or add [emitters.archive.main] with folder = \"archive\"",
            ));
        }
        let from = since - self.longest();
        let window = Window::new(from, self.now + TimeDelta::hours(1));
        let window =
            window.ok_or_else(|| Failure::new(Code::Usage, "--since lies in the future"))?;
        let wanted = self.args.tenant.clone();
        let search = Search {
            actor: None,
            window,
            tenant: wanted.as_ref(),
            stream: None,
        };
        for folder in folders {
            let mut outcome = Ok(());
            let searched = search.run(&folder, &mut |found| {
                let product = product_of(&found.stream);
                let record = RawRecord::new(found.record);
                outcome = self.observe(found.stream.tenant(), product, &record);
                outcome.is_ok()
            });
            outcome?;
            events::tell(&searched.map_err(|error| events::failure(&error))?, window);
        }
        Ok(())
    }

    fn longest(&self) -> TimeDelta {
        let (old, new) = (&self.old.rules, &self.new.rules);
        old.longest_window().max(new.longest_window())
    }

    fn observe(&mut self, tenant: &TenantId, product: Product, record: &RawRecord) -> Outcome {
        if !self.pairs.contains_key(tenant) {
            let pair = Pair {
                old: self.old.trial(tenant, self.args, self.now)?,
                new: self.new.trial(tenant, self.args, self.now)?,
                records: 0,
            };
            self.pairs.insert(tenant.clone(), pair);
        }
        let Some(pair) = self.pairs.get_mut(tenant) else {
            return Ok(());
        };
        pair.records += 1;
        pair.old.observe(product, record);
        pair.new.observe(product, record);
        if pair.records.is_multiple_of(COLLECT_EVERY) {
            pair.old.collect();
            pair.new.collect();
        }
        Ok(())
    }

    fn lines(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        for (tenant, pair) in std::mem::take(&mut self.pairs) {
            tracing::info!(%tenant, records = pair.records, "compared");
            let old = self.by_actor(pair.old.finish());
            let new = self.by_actor(pair.new.finish());
            let keys: BTreeSet<_> = old.keys().chain(new.keys()).cloned().collect();
            let none = BTreeSet::new();
            for key in keys {
                let old = old.get(&key).unwrap_or(&none);
                let new = new.get(&key).unwrap_or(&none);
                let (detection, actor) = key;
                lines.push(line(tenant.clone(), detection, actor, (old, new)));
            }
        }
        lines
    }

    /// The findings that count, by detection and whom they are about.
    fn by_actor(&self, findings: Found) -> BTreeMap<(String, String), BTreeSet<Uuid>> {
        let mut all: BTreeMap<_, BTreeSet<Uuid>> = BTreeMap::new();
        for finding in findings {
            let is_meant = self.since.is_none_or(|since| finding.trip_time >= since);
            if is_meant && (finding.alert || self.args.signals) {
                let actor = finding.user.unwrap_or(finding.entity);
                let key = (finding.rule.detection.clone(), actor);
                all.entry(key).or_default().insert(finding.uid);
            }
        }
        all
    }
}

fn line(
    tenant: TenantId,
    detection: String,
    actor: String,
    (old, new): (&BTreeSet<Uuid>, &BTreeSet<Uuid>),
) -> Line {
    let signed = |set: &BTreeSet<Uuid>| i64::try_from(set.len()).unwrap_or(i64::MAX);
    Line {
        tenant,
        detection,
        actor,
        old: old.len() as u64,
        new: new.len() as u64,
        difference: signed(new) - signed(old),
        gone: old.difference(new).count() as u64,
        added: new.difference(old).count() as u64,
    }
}

fn table(lines: &[Line]) -> Table {
    let mut table = Table::new(&[
        "TENANT",
        "DETECTION",
        "ACTOR",
        "OLD",
        "NEW",
        "DIFFERENCE",
        "GONE",
        "ADDED",
    ]);
    for line in lines {
        table.row([
            line.tenant.to_string(),
            line.detection.clone(),
            line.actor.clone(),
            line.old.to_string(),
            line.new.to_string(),
            format!("{:+}", line.difference),
            line.gone.to_string(),
            line.added.to_string(),
        ]);
    }
    table
}
