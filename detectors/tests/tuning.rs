//! What a tenant says of the rules: modes, thresholds, severities, allow-lists, exceptions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{Share, at, essence, rules, shares};
use exfilwatch_detectors::tuning::{
    AllowOptions, ExceptionOptions, OneOrMore, RuleMode, RuleTuning, TenantDetectors, Tuning,
    allowed,
};
use exfilwatch_detectors::updates::revise;
use exfilwatch_detectors::{DetectorsOptions, Engine, Pack, RuleSet};
use exfilwatch_model::{Event, Finding, JobId, Severity, Suppression, TenantId};

const NOW: &str = "2026-05-02T00:00:00Z";

fn tuning(change: impl FnOnce(&mut TenantDetectors)) -> Tuning {
    let mut own = TenantDetectors::default();
    change(&mut own);
    Tuning::new(&DetectorsOptions::default(), Some(&own))
}

fn tuned(tuning: &Tuning) -> Arc<RuleSet> {
    Arc::new(rules().tuned(tuning, &[]).unwrap())
}

fn engine(rules: &Arc<RuleSet>) -> Engine {
    let tenant = TenantId::new("corp").unwrap();
    Engine::new(Arc::clone(rules), tenant, JobId::live())
}

fn found(rules: &Arc<RuleSet>, events: &[Event]) -> Vec<Finding> {
    let mut engine = engine(rules);
    for event in events {
        engine.observe(event);
    }
    engine.collect(at(NOW))
}

fn of(findings: &[Finding], detection: &str) -> Option<Finding> {
    let named = findings.iter().find(|one| one.rule.detection == detection);
    named.cloned()
}

fn rule(name: &str, change: RuleTuning) -> Tuning {
    tuning(|own| own.rules = BTreeMap::from([(name.to_owned(), change)]))
}

fn mode(mode: RuleMode) -> RuleTuning {
    RuleTuning {
        mode: Some(mode),
        ..RuleTuning::default()
    }
}

fn threshold(number: u64) -> RuleTuning {
    RuleTuning {
        threshold: Some(number),
        ..RuleTuning::default()
    }
}

fn burst_of(count: usize) -> Vec<Event> {
    let targets: Vec<String> = (0..count).map(|i| format!("t{i}@x.example")).collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    shares("b", "2026-05-01T10:00:00Z", 60, &targets)
}

fn exception(fields: &[(&str, &str)], until: &str) -> ExceptionOptions {
    let value =
        |(name, value): &(&str, &str)| ((*name).to_owned(), OneOrMore::One((*value).to_owned()));
    ExceptionOptions {
        name: "agreed".into(),
        detection: "test.burst".into(),
        fields: fields.iter().map(value).collect(),
        owner: "ann".into(),
        reason: "asked for".into(),
        until: until.into(),
    }
}

fn excepted(exception: ExceptionOptions) -> Tuning {
    tuning(|own| own.exceptions = vec![exception])
}

#[test]
fn a_rule_in_shadow_is_found_and_counted_and_does_not_alert() {
    let events = burst_of(3);
    let plain = of(&found(&rules(), &events), "test.burst").unwrap();
    assert!(plain.alert && plain.suppressed.is_none());
    let shadow = tuned(&rule("test.b*", mode(RuleMode::Shadow)));
    let shadow = of(&found(&shadow, &events), "test.burst").unwrap();
    assert!(!shadow.alert);
    assert_eq!(shadow.suppressed, Some(Suppression::Shadow));
    assert_eq!(shadow.uid, plain.uid);
    let off = tuned(&rule("test.burst", mode(RuleMode::Off)));
    assert!(of(&found(&off, &events), "test.burst").is_none());
}

#[test]
fn a_rule_may_alert_although_its_pack_does_not() {
    let quiet = |change: RuleTuning| {
        tuning(|own| {
            own.packs = Some(vec![Pack::Posture]);
            own.rules.insert("test.burst".into(), change);
        })
    };
    let events = burst_of(3);
    let alert = |tuning: &Tuning| of(&found(&tuned(tuning), &events), "test.burst").unwrap();
    let plain = alert(&quiet(RuleTuning::default()));
    assert!(
        !plain.alert && plain.suppressed.is_none(),
        "it is a signal as such"
    );
    assert!(alert(&quiet(mode(RuleMode::Alert))).alert);
}

#[test]
fn the_name_itself_goes_before_patterns_and_the_tenant_before_all() {
    let mut all = DetectorsOptions::default();
    all.rules.insert("test.burst".into(), mode(RuleMode::Off));
    all.rules.insert("test.*".into(), threshold(9));
    let of_all = Tuning::new(&all, None);
    assert_eq!(of_all.of("test.burst").mode, Some(RuleMode::Off));
    assert_eq!(of_all.of("test.burst").threshold, Some(9));
    let mut own = TenantDetectors::default();
    own.rules.insert("*".into(), mode(RuleMode::Shadow));
    own.rules.insert("test.burst*".into(), threshold(7));
    own.rules.insert("test.*".into(), threshold(8));
    let both = Tuning::new(&all, Some(&own)).of("Test.Burst");
    assert_eq!(both.mode, Some(RuleMode::Shadow));
    assert_eq!(both.threshold, Some(7));
    own.disabled = vec!["test.*".into()];
    assert!(
        Tuning::new(&all, Some(&own)).runs("test.burst"),
        "a mode is said, too"
    );
    own.rules.clear();
    all.rules.insert("*".into(), mode(RuleMode::Alert));
    all.rules.insert("test.burst".into(), mode(RuleMode::Alert));
    let of_all = Tuning::new(&all, Some(&own));
    assert!(
        !of_all.runs("test.burst"),
        "what the tenant says goes before what is said of all"
    );
    assert!(of_all.runs("other.x"));
    let alone = Tuning::new(&DetectorsOptions::default(), Some(&own));
    assert!(!alone.runs("test.x") && alone.runs("other.x"));
}

#[test]
fn a_changed_threshold_keeps_what_the_window_remembers() {
    let events = burst_of(4);
    let mut before = engine(&tuned(&rule("test.burst", threshold(5))));
    for event in &events[..3] {
        before.observe(event);
    }
    assert!(of(&before.collect(at(NOW)), "test.burst").is_none());
    let memory = before.drain_changes();
    let mut after = engine(&tuned(&rule("test.burst", threshold(4))));
    for (detector, change) in &memory {
        let value = change.value.as_deref().unwrap();
        after.restore(detector, &change.key, value).unwrap();
    }
    after.observe(&events[3]);
    let burst = of(&after.collect(at(NOW)), "test.burst").unwrap();
    assert_eq!((burst.count, burst.threshold), (4, Some(3)));
    assert_eq!(after.counters().outdated_entries, 0);
}

#[test]
fn further_tiers_keep_their_ratio_to_the_threshold() {
    use exfilwatch_detectors::Kind;
    let tiers = |rules: &RuleSet| {
        let rule = rules
            .rules()
            .iter()
            .find(|r| r.facts.detection == "test.burst");
        match &rule.unwrap().kind {
            Kind::Window { tiers, .. } => tiers.iter().map(|t| t.threshold).collect(),
            _ => Vec::new(),
        }
    };
    let plain = tiers(&rules());
    assert!(plain.len() > 1 && plain.contains(&4), "{plain:?}");
    let twice: Vec<u64> = plain.iter().map(|number| number * 2).collect();
    assert_eq!(tiers(&tuned(&rule("test.burst", threshold(8)))), twice);
}

#[test]
fn a_severity_that_is_set_is_the_severity() {
    let low = RuleTuning {
        severity: Some(Severity::Low),
        ..RuleTuning::default()
    };
    let rules = tuned(&rule("test.burst", low));
    for count in [3, 12] {
        let burst = of(&found(&rules, &burst_of(count)), "test.burst").unwrap();
        assert_eq!(burst.severity, Severity::Low, "{count}");
    }
}

#[test]
fn what_is_allowed_is_a_step_less_severe_and_not_silent() {
    let mark = |events: &mut Vec<Event>, count: usize| {
        events
            .iter_mut()
            .take(count)
            .for_each(|event| event.set("is_allowed", true));
    };
    let mut events = burst_of(3);
    let plain = of(&found(&rules(), &events), "test.burst").unwrap();
    mark(&mut events, 2);
    let some = of(&found(&rules(), &events), "test.burst").unwrap();
    assert_eq!(some.severity, plain.severity, "not all of it is allowed");
    mark(&mut events, 3);
    let all = of(&found(&rules(), &events), "test.burst").unwrap();
    assert_eq!(all.severity, plain.severity.lower());
    assert!(all.alert);
}

#[test]
fn an_exception_makes_a_signal_of_what_it_covers_whole_and_only_until_its_last_day() {
    let plain = of(&found(&rules(), &burst_of(3)), "test.burst").unwrap();
    let fields = [("actor", "Alice@corp.example"), ("target", "t*@x.example")];
    for (until, holds) in [("2026-05-01", true), ("2026-04-30", false)] {
        let rules = tuned(&excepted(exception(&fields, until)));
        let burst = of(&found(&rules, &burst_of(3)), "test.burst").unwrap();
        assert_eq!(burst.uid, plain.uid);
        assert_eq!(burst.alert, !holds, "{until}");
        let by = holds.then(|| Suppression::Exception("agreed".into()));
        assert_eq!(burst.suppressed, by, "{until}");
    }
    let rules = tuned(&excepted(exception(&fields, "2026-06-01")));
    let mut events = burst_of(3);
    events.push(
        Share::new("z", "2026-05-01T10:10:00Z")
            .to("eve@x.example", 0)
            .event(),
    );
    let burst = of(&found(&rules, &events), "test.burst").unwrap();
    assert!(
        burst.alert && burst.suppressed.is_none(),
        "eve is not agreed"
    );
    let mut back = events.clone();
    back.reverse();
    let (one, other) = (found(&rules, &events), found(&rules, &back));
    assert_eq!(essence(&one), essence(&other), "in any order");
}

#[test]
fn an_exception_does_not_hold_for_what_was_cut_when_it_was_remembered() {
    // Padding pushes what an exception must not cover out of what is kept of a field.
    let long = format!("t{}@x.example", "a".repeat(600));
    let rules = tuned(&excepted(exception(&[("target", "t*")], "2026-06-01")));
    let short = shares(
        "b",
        "2026-05-01T10:00:00Z",
        60,
        &["t1@x.example", "t2@x.example", "t3@x.example"],
    );
    assert!(!of(&found(&rules, &short), "test.burst").unwrap().alert);
    let padded = shares(
        "b",
        "2026-05-01T10:00:00Z",
        60,
        &["t1@x.example", "t2@x.example", &long],
    );
    assert!(of(&found(&rules, &padded), "test.burst").unwrap().alert);
}

#[test]
fn an_exception_holds_for_updates_of_what_has_alerted_before() {
    let events = burst_of(6);
    let first = of(&found(&rules(), &events[..3]), "test.burst").unwrap();
    let state = revise(None, first, at(NOW)).state;
    let rules = tuned(&excepted(exception(&[("target", "*")], "2026-06-01")));
    let now = of(&found(&rules, &events), "test.burst").unwrap();
    let next = revise(Some(&state), now, at(NOW));
    let sent = next.send.unwrap();
    assert!(!sent.alert && sent.revision == 2, "{sent:?}");
    let lapsed = of(&found(&common::rules(), &events), "test.burst").unwrap();
    let again = revise(Some(&next.state), lapsed, at(NOW)).send.unwrap();
    assert!(again.alert, "it lapsed");
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_reason() {
    let fields = [("actor", "x")];
    let good = exception(&fields, "2026-06-01");
    let with = |change: fn(&mut ExceptionOptions)| {
        let mut one = good.clone();
        change(&mut one);
        excepted(one)
    };
    for (tuning, expected) in [
        (
            rule("test.nothing", mode(RuleMode::Off)),
            "no rule is called `test.nothing`",
        ),
        (rule("test.share", threshold(3)), "has no threshold"),
        (rule("test.burst", threshold(0)), "always met"),
        (with(|one| one.until = "soon".into()), "`until` is no date"),
        (with(|one| one.owner = " ".into()), "`owner` is empty"),
        (with(|one| one.reason = String::new()), "`reason` is empty"),
        (with(|one| one.fields.clear()), "names no field"),
        (
            with(|one| one.detection = "test.nothing".into()),
            "no rule is called",
        ),
        (
            excepted(exception(&[("colour", "x")], "2026-06-01")),
            "keeps no field `colour`",
        ),
        (
            tuning(|own| own.exceptions = vec![good.clone(), good.clone()]),
            "another has the same name",
        ),
    ] {
        let problems = rules().tuned(&tuning, &[]).unwrap_err().join("\n");
        assert!(problems.contains(expected), "{expected}: {problems}");
    }
    assert!(
        rules()
            .tuned(&rule("x.audit.gap", mode(RuleMode::Off)), &["x.audit.gap"])
            .is_ok()
    );
}

#[test]
fn allow_lists_of_all_and_of_the_tenant_are_joined_and_checked() {
    let list = |domain: &str, address: &str| AllowOptions {
        domains: vec![domain.into()],
        addresses: vec![address.into()],
        ..AllowOptions::default()
    };
    let both = allowed(&list("@A.example", "10.0.0.0/8"), &list("b.example", "::1"));
    assert_eq!(both.domains, ["a.example", "b.example"]);
    assert_eq!(both.networks.len(), 2);
    for (bad, says) in [
        (
            list("a.example", "10.0.0.0/99"),
            "\"10.0.0.0/99\" is no address",
        ),
        (list("*.a.example", "::1"), "\"*.a.example\" is no domain"),
        (list("ann@a.example", "::1"), "is no domain"),
        (list("example", "::1"), "is no domain"),
        (list("", "::1"), "is no domain"),
    ] {
        let faults = bad.faults();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].1.contains(says), "{faults:?}");
    }
    assert_eq!(list(".A.example", "10.0.0.0/8").faults(), []);
}
