//! Judges the detections by the labels of `../shared/samples`: real and real-shaped records, each
//! with the names that must and must not be raised for it. Skipped, with a printed reason, where
//! the samples are absent.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use exfilwatch_connectors::RecordReader;
use exfilwatch_connectors::records::{GoogleRecords, Microsoft365Records};
use exfilwatch_detectors::tuning::{ExceptionOptions, OneOrMore, Tuning};
use exfilwatch_detectors::{DetectorsOptions, Engine, Pack, RuleSet};
use exfilwatch_model::{Domains, Finding, JobId, RawRecord, TenantId};
use serde::Deserialize;

/// Sample files, and whether they are office365's.
const SAMPLES: [(&str, bool); 4] = [
    ("gws/invictus", false),
    ("gws/panther", false),
    ("o365/panther", true),
    ("o365/ual-2021-spring", true),
];

/// Detections that the labels are known to judge: fewer means that something is no longer read.
const JUDGED: [&str; 5] = [
    "gws.drive.external_share",
    "gws.drive.visibility_changed_external",
    "gws.mail.forwarding_external",
    "o365.mail.forwarding_external",
    "o365.mail.transport_rule_forwarding",
];

/// Shares that are agreed, in the words of the labels.
#[derive(Deserialize)]
struct ShareException {
    title: String,
    from: Vec<String>,
    to: Vec<String>,
}

#[derive(Deserialize)]
struct Label {
    id: String,
    /// The detection it is about.
    #[serde(default)]
    detection: String,
    test: String,
    expect: Vec<String>,
    #[serde(default)]
    expect_absent: Vec<String>,
    #[serde(default)]
    alert_group: Option<String>,
    /// How many records it takes; above one a single record only counts towards it.
    #[serde(default)]
    threshold: Option<u32>,
    #[serde(default)]
    config: serde_json::Map<String, serde_json::Value>,
}

impl Label {
    fn list(&self, name: &str) -> Vec<String> {
        let list = self.config.get(name).cloned().unwrap_or_default();
        serde_json::from_value(list).unwrap_or_default()
    }

    /// Domains that hold for the case; those allowed count as the tenant's own.
    fn domains(&self) -> Vec<String> {
        [self.list("internal_domains"), self.list("allowed_domains")].concat()
    }

    fn only_counts(&self) -> bool {
        self.threshold.is_some_and(|threshold| threshold > 1)
    }

    /// What is agreed in the case, as our exceptions say it.
    fn exceptions(&self) -> Vec<ExceptionOptions> {
        let shares = self.config.get("share_exceptions").cloned();
        let shares: Vec<ShareException> =
            serde_json::from_value(shares.unwrap_or_default()).unwrap_or_default();
        let mut all: Vec<Vec<(&str, Vec<String>)>> = Vec::new();
        for share in shares {
            let title = vec![share.title];
            all.push(vec![
                ("object_name", title),
                ("actor", share.from),
                ("target", share.to),
            ]);
        }
        for (name, field) in [("allowed_users", "target"), ("allowed_paths", "object")] {
            let values = self.list(name);
            if !values.is_empty() {
                all.push(vec![(field, values)]);
            }
        }
        // A guest is outside whatever the domain.
        let guests = self.list("allowed_domains").into_iter();
        let guests: Vec<String> = guests.map(|domain| format!("*@{domain}")).collect();
        if !all.is_empty() && !guests.is_empty() {
            all.push(vec![("target", guests)]);
        }
        let exception = |(number, fields): (usize, Vec<(&str, Vec<String>)>)| ExceptionOptions {
            name: format!("agreed-{number}"),
            detection: self.detection.clone(),
            fields: fields
                .into_iter()
                .map(|(field, values)| (field.to_owned(), OneOrMore::More(values)))
                .collect(),
            owner: "label".to_owned(),
            reason: "the label says so".to_owned(),
            until: "2099-12-31".to_owned(),
        };
        all.into_iter().enumerate().map(exception).collect()
    }
}

#[derive(Default)]
struct Judgement {
    right: BTreeMap<String, usize>,
    wrong: Vec<String>,
    not_judged: Vec<String>,
}

fn samples() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/samples");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: {} is absent", folder.display());
    None
}

fn lines(folder: &Path, name: &str) -> Vec<String> {
    let plain = folder.join(format!("{name}.ndjson"));
    let text = if plain.is_file() {
        std::fs::read_to_string(plain).unwrap()
    } else {
        let packed = std::fs::File::open(folder.join(format!("{name}.ndjson.gz"))).unwrap();
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(packed)
            .read_to_string(&mut text)
            .unwrap();
        text
    };
    text.lines().map(str::to_owned).collect()
}

fn labels(folder: &Path, name: &str) -> Vec<Label> {
    lines(folder, &format!("{name}.labels"))
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{name}: {error}")))
        .collect()
}

fn reader(is_office365: bool, domains: &[String]) -> Box<dyn RecordReader> {
    let domains = Arc::new(Domains::new(domains, &[]));
    if is_office365 {
        Box::new(Microsoft365Records::new(domains))
    } else {
        Box::new(GoogleRecords::new(domains))
    }
}

/// The final findings of records, by the way of the pipeline: look, normalise what is wanted,
/// detect.
fn findings<'a>(
    rules: &Arc<RuleSet>,
    reader: &dyn RecordReader,
    records: impl Iterator<Item = &'a String>,
) -> Vec<Finding> {
    let tenant = TenantId::new("default").unwrap();
    let mut engine = Engine::new(Arc::clone(rules), tenant, JobId::new("labels").unwrap());
    for line in records {
        let record = RawRecord::new(line.clone().into());
        let operations: Vec<Cow<'_, str>> = reader.operations(&record).unwrap();
        if engine.wants(reader.product(), &operations) {
            for event in reader.normalise(&record, DateTime::UNIX_EPOCH).unwrap() {
                engine.observe(&event);
            }
        }
    }
    engine.settle(DateTime::<Utc>::MAX_UTC);
    engine.collect(DateTime::UNIX_EPOCH)
}

fn judge(
    label: &Label,
    known: &BTreeSet<String>,
    findings: &[Finding],
    file: &str,
    judgement: &mut Judgement,
) {
    let raised: BTreeSet<&str> = findings
        .iter()
        .filter(|finding| finding.suppressed.is_none() && finding.event_ids.contains(&label.id))
        .map(|finding| finding.rule.detection.as_str())
        .collect();
    let expected = label.expect.iter().map(|name| (name, true));
    let absent = label.expect_absent.iter().map(|name| (name, false));
    for (name, expected) in expected
        .chain(absent)
        .filter(|(name, _)| known.contains(*name))
    {
        if raised.contains(name.as_str()) == expected {
            *judgement.right.entry(name.clone()).or_default() += 1;
            continue;
        }
        let verb = if expected { "not raised" } else { "raised" };
        let told = format!("{file}, \"{}\" ({}): {name} {verb}", label.test, label.id);
        if expected && label.only_counts() {
            let why = format!("{told}; the record only counts towards it");
            judgement.not_judged.push(why);
            continue;
        }
        judgement.wrong.push(told);
    }
}

/// Records of one alert group make one finding of a detection.
fn judge_groups(
    labels: &[&Label],
    known: &BTreeSet<String>,
    findings: &[Finding],
    judgement: &mut Judgement,
) {
    let mut groups: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for label in labels.iter().filter(|label| !label.only_counts()) {
        for name in label.expect.iter().filter(|name| known.contains(*name)) {
            let group = label.alert_group.as_deref().unwrap_or(&label.id);
            groups.entry((name, group)).or_default().push(&label.id);
        }
    }
    for ((name, group), ids) in groups {
        let of_group = findings.iter().filter(|finding| {
            finding.rule.detection == name
                && finding
                    .event_ids
                    .iter()
                    .any(|id| ids.contains(&id.as_str()))
        });
        let count = of_group.count();
        if count != 1 {
            judgement
                .wrong
                .push(format!("{name}: {count} findings for the group {group}"));
        }
    }
}

#[test]
fn the_labelled_records_raise_what_they_must_and_nothing_they_must_not() {
    let Some(folder) = samples() else { return };
    let rules = RuleSet::load(&DetectorsOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let rules = Arc::new(rules);
    let known: BTreeSet<String> = rules
        .rules()
        .iter()
        .map(|rule| rule.facts.detection.clone())
        .collect();
    let mut judgement = Judgement::default();
    let mut excepted = 0;
    for (file, is_office365) in SAMPLES {
        let records = lines(&folder, file);
        let labels = labels(&folder, file);
        // Cases of one file have settings of their own.
        let mut by_setting: BTreeMap<(Vec<String>, String), Vec<&Label>> = BTreeMap::new();
        for label in &labels {
            let agreed = serde_json::to_string(&label.exceptions()).unwrap();
            let setting = (label.domains(), agreed);
            by_setting.entry(setting).or_default().push(label);
        }
        for ((domains, _), labels) in by_setting {
            let reader = reader(is_office365, &domains);
            let exceptions = labels.first().map(|label| label.exceptions());
            excepted += exceptions.as_ref().map_or(0, Vec::len);
            let tuning = Tuning {
                packs: Pack::ALL.to_vec(),
                exceptions: exceptions.unwrap_or_default(),
                ..Tuning::default()
            };
            let tuned = Arc::new(rules.tuned(&tuning, &[]).unwrap());
            let findings = findings(&tuned, reader.as_ref(), records.iter());
            for label in &labels {
                judge(label, &known, &findings, file, &mut judgement);
            }
            judge_groups(&labels, &known, &findings, &mut judgement);
        }
    }
    for (name, count) in &judgement.right {
        println!("judged by labels: {name}, {count} right");
    }
    for name in known
        .iter()
        .filter(|name| !judgement.right.contains_key(*name))
    {
        println!("judged only by rule cases and scripted attacks: {name}");
    }
    for told in &judgement.not_judged {
        println!("not judged: {told}");
    }
    assert!(excepted > 0, "no label names what is agreed");
    assert!(judgement.wrong.is_empty(), "{}", judgement.wrong.join("\n"));
    for name in JUDGED {
        assert!(judgement.right.contains_key(name), "no label judged {name}");
    }
}

#[test]
fn the_real_logs_give_the_same_findings_in_any_order_and_when_read_twice() {
    let Some(folder) = samples() else { return };
    let rules = RuleSet::load(&DetectorsOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let rules = Arc::new(rules);
    for (file, is_office365, domain) in [
        ("gws/invictus", false, "cloud-response.com"),
        ("o365/ual-2021-spring", true, "dutchmasterz.onmicrosoft.com"),
    ] {
        let records = lines(&folder, file);
        let reader = reader(is_office365, &[domain.to_owned()]);
        let told = |findings: Vec<Finding>| {
            let mut told: Vec<_> = findings
                .into_iter()
                .map(|f| {
                    (
                        f.uid,
                        f.rule.detection.clone(),
                        f.count,
                        f.severity,
                        f.alert,
                        f.event_ids,
                    )
                })
                .collect();
            told.sort();
            told
        };
        let forward = told(findings(&rules, reader.as_ref(), records.iter()));
        let backward = told(findings(&rules, reader.as_ref(), records.iter().rev()));
        let twice = told(findings(
            &rules,
            reader.as_ref(),
            records.iter().chain(&records),
        ));
        assert_eq!(forward, backward, "{file}");
        assert_eq!(forward, twice, "{file}");
        for (_, detection, count, severity, alert, _) in &forward {
            println!(
                "{file}: {detection}, {count} events, {}, alert {alert}",
                severity.as_str()
            );
        }
        assert!(!forward.is_empty(), "{file}");
    }
}
