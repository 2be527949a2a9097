//! What became of findings: closing one, listing them, and how noisy each detection is. Pure but for
//! reading the store; a running process and a command at rest both use it.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use exfilwatch_model::verdict::{BY_BYTES_MAX, Judgement, REASON_BYTES_MAX, Statement, Verdict};
use exfilwatch_model::{FindingState, Severity, StreamId, TenantId};
use exfilwatch_state::{Commit, StateError, StateStore};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::pipeline::notice::Notice;

/// Most verdicts kept over all tenants; the oldest go first.
const VERDICTS_MAX: usize = 50_000;
/// Most findings listed, the latest first; the rest is counted.
const LISTED_MAX: usize = 5_000;
/// Fewest digits that name a finding.
pub const DIGITS_MIN: usize = 6;

/// Closes a finding.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Close {
    /// Its uid, or the first digits.
    pub uid: String,
    /// How it turned out.
    pub judgement: Judgement,
    /// Why.
    pub reason: String,
    /// Who says so.
    pub by: String,
}

/// A finding as the store remembers it, and what was said of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Whose it is.
    pub tenant: TenantId,
    /// The finding.
    pub uid: Uuid,
    /// Dotted name of the detection.
    pub detection: String,
    /// Whom or what it is about.
    pub entity: String,
    /// When it was last sent; `None` once the finding itself is forgotten.
    pub severity: Option<Severity>,
    /// Events.
    pub count: Option<u64>,
    /// Event time of the last.
    pub last_time: Option<DateTime<Utc>>,
    /// Whether it is to be looked at, and not a signal.
    pub alert: bool,
    /// What holds.
    pub verdict: Option<Verdict>,
    /// It has said more since it was closed.
    pub grown: bool,
}

/// Findings, the latest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// At most so many as are listed.
    pub lines: Vec<Line>,
    /// What is not listed.
    pub left_out: u64,
}

/// How a detection does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// Dotted name of the detection.
    pub detection: String,
    /// Findings to be looked at, of those that are remembered or closed.
    pub raised: u64,
    /// Of them, without a verdict.
    pub open: u64,
    /// Closed as what they say.
    pub true_positives: u64,
    /// Closed as nothing.
    pub false_positives: u64,
    /// Part of the closed ones that were something, 0 to 1; `None` while none is closed.
    pub precision: Option<f64>,
}

/// All findings that are remembered or closed, in no order.
fn lines(store: &dyn StateStore, now: DateTime<Utc>) -> Result<Vec<Line>, StateError> {
    let verdicts = store.verdicts()?.into_iter();
    let mut verdicts: HashMap<(TenantId, Uuid), Verdict> = verdicts
        .filter(|(_, verdict)| verdict.expires() > now)
        .map(|(tenant, verdict)| ((tenant, verdict.uid), verdict))
        .collect();
    let mut lines = Vec::new();
    for tenant in store.tenants_with_findings()? {
        for finding in store.findings(&tenant)? {
            let verdict = verdicts.remove(&(tenant.clone(), finding.uid));
            lines.push(Line {
                tenant: tenant.clone(),
                uid: finding.uid,
                detection: finding.detection,
                entity: finding.entity,
                severity: Some(finding.severity),
                count: Some(finding.count),
                last_time: Some(finding.last_time),
                alert: finding.alert,
                grown: verdict
                    .as_ref()
                    .is_some_and(|verdict| verdict.revision < finding.revision),
                verdict,
            });
        }
    }
    #[expect(
        clippy::iter_over_hash_type,
        reason = "the lines are sorted by who asks"
    )]
    for ((tenant, uid), verdict) in verdicts {
        lines.push(Line {
            tenant,
            uid,
            detection: verdict.detection.clone(),
            entity: verdict.entity.clone(),
            severity: None,
            count: None,
            last_time: None,
            alert: true,
            verdict: Some(verdict),
            grown: false,
        });
    }
    Ok(lines)
}

/// The findings, the latest first.
pub fn list(store: &dyn StateStore, now: DateTime<Utc>) -> Result<Listing, StateError> {
    let mut lines = lines(store, now)?;
    lines.sort_by(|a, b| {
        let latest = |line: &Line| {
            let closed = line.verdict.as_ref().map(|verdict| verdict.last.at);
            line.last_time.or(closed)
        };
        latest(b).cmp(&latest(a)).then_with(|| a.uid.cmp(&b.uid))
    });
    let left_out = lines.len().saturating_sub(LISTED_MAX) as u64;
    lines.truncate(LISTED_MAX);
    Ok(Listing { lines, left_out })
}

/// The noise table, by detection; of one tenant or of all.
pub fn noise(
    store: &dyn StateStore,
    tenant: Option<&TenantId>,
    now: DateTime<Utc>,
) -> Result<Vec<Noise>, StateError> {
    let mut table: BTreeMap<String, Noise> = BTreeMap::new();
    for line in lines(store, now)? {
        // A signal nobody judged asked for no attention.
        let counts = line.alert || line.verdict.is_some();
        if !counts || tenant.is_some_and(|tenant| *tenant != line.tenant) {
            continue;
        }
        let noise = table.entry(line.detection.clone()).or_default();
        noise.detection = line.detection;
        noise.raised += 1;
        match line.verdict.map(|verdict| verdict.last.judgement) {
            None => noise.open += 1,
            Some(Judgement::TruePositive) => noise.true_positives += 1,
            Some(Judgement::FalsePositive) => noise.false_positives += 1,
        }
    }
    for noise in table.values_mut() {
        let closed = noise.true_positives + noise.false_positives;
        #[expect(clippy::cast_precision_loss, reason = "counts of findings")]
        let precision = noise.true_positives as f64 / closed as f64;
        noise.precision = (closed > 0).then_some(precision);
    }
    Ok(table.into_values().collect())
}

/// What a closing writes: the verdict, the audit trail to the receivers, and what must go for it. The
/// inner error says what is wrong with the request.
pub fn close(
    store: &dyn StateStore,
    request: &Close,
    now: DateTime<Utc>,
) -> Result<Result<(Verdict, Commit), String>, StateError> {
    let statement = match statement(request, now) {
        Ok(statement) => statement,
        Err(why) => return Ok(Err(why)),
    };
    let (tenant, finding) = match meant(store, &request.uid)? {
        Ok(found) => found,
        Err(why) => return Ok(Err(why)),
    };
    let mut known = store.verdicts()?;
    let same = |of: &TenantId, verdict: &Verdict| *of == tenant && verdict.uid == finding.uid;
    let at = known.iter().position(|(of, verdict)| same(of, verdict));
    let previous = at.map(|at| known.swap_remove(at).1);
    let verdict = Verdict::of(&finding, previous, statement);
    let mut commit = Commit {
        forget_verdicts: to_forget(known, now),
        verdicts: vec![(tenant.clone(), verdict.clone())],
        ..Commit::default()
    };
    if let Ok(stream) = StreamId::new(tenant.clone(), "exfilwatch", "findings") {
        commit
            .frames
            .push(told(stream, &verdict, now).frame(&tenant));
    }
    Ok(Ok((verdict, commit)))
}

fn statement(request: &Close, now: DateTime<Utc>) -> Result<Statement, String> {
    for (what, text, bytes_max) in [
        ("reason", &request.reason, REASON_BYTES_MAX),
        ("name of who closes it", &request.by, BY_BYTES_MAX),
    ] {
        if text.trim().is_empty() {
            return Err(format!("the {what} is empty"));
        }
        if text.len() > bytes_max || text.chars().any(char::is_control) {
            return Err(format!(
                "the {what} must be one line of at most {bytes_max} bytes"
            ));
        }
    }
    Ok(Statement {
        judgement: request.judgement,
        reason: request.reason.trim().to_owned(),
        by: request.by.trim().to_owned(),
        at: now,
    })
}

/// The finding whose uid begins so.
fn meant(
    store: &dyn StateStore,
    uid: &str,
) -> Result<Result<(TenantId, FindingState), String>, StateError> {
    let uid = uid.trim().to_lowercase();
    if uid.len() < DIGITS_MIN {
        return Ok(Err(format!(
            "{uid:?} names no finding: write at least {DIGITS_MIN} digits of its uid"
        )));
    }
    let mut found = Vec::new();
    for tenant in store.tenants_with_findings()? {
        for finding in store.findings(&tenant)? {
            if finding.uid.hyphenated().to_string().starts_with(&uid) {
                found.push((tenant.clone(), finding));
            }
        }
    }
    let count = found.len();
    Ok(match (found.pop(), count) {
        (Some(one), 1) => Ok(one),
        (Some(_), _) => Err(format!("{count} findings begin with {uid:?}")),
        (None, _) => Err(format!(
            "no finding that is remembered begins with {uid:?}; they are kept for 14 days and more \
             after their last event was read"
        )),
    })
}

/// What is over, and the oldest where there would be too many.
fn to_forget(known: Vec<(TenantId, Verdict)>, now: DateTime<Utc>) -> Vec<(TenantId, Uuid)> {
    let (mut kept, over): (Vec<_>, Vec<_>) = known
        .into_iter()
        .partition(|(_, verdict)| verdict.expires() > now);
    kept.sort_by_key(|(_, verdict)| (verdict.last.at, verdict.uid));
    let too_many = (kept.len() + 1).saturating_sub(VERDICTS_MAX);
    if too_many > 0 {
        tracing::warn!(
            forgotten = too_many,
            "there are too many verdicts: the oldest are forgotten"
        );
    }
    let gone = over.into_iter().chain(kept.into_iter().take(too_many));
    gone.map(|(tenant, verdict)| (tenant, verdict.uid))
        .collect()
}

/// The audit trail, for the receivers.
fn told(stream: StreamId, verdict: &Verdict, at: DateTime<Utc>) -> Notice {
    let facts = json!({
        "finding_uid": verdict.uid, "detection": verdict.detection, "entity": verdict.entity,
        "revision": verdict.revision, "judgement": verdict.last.judgement,
        "reason": verdict.last.reason, "by": verdict.last.by,
        "before": verdict.earlier.last().map(|earlier| earlier.judgement),
    });
    Notice {
        stream,
        name: "finding.closed",
        at,
        facts,
        gap: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn verdict(number: u128, when: &str) -> (TenantId, Verdict) {
        let verdict = Verdict {
            uid: Uuid::from_u128(number),
            detection: "x".to_owned(),
            entity: "e".to_owned(),
            revision: 1,
            last: Statement {
                judgement: Judgement::TruePositive,
                reason: "r".to_owned(),
                by: "b".to_owned(),
                at: at(when),
            },
            earlier: Vec::new(),
        };
        (TenantId::new("contoso").unwrap(), verdict)
    }

    #[test]
    fn verdicts_are_forgotten_after_a_year_and_the_oldest_where_there_are_too_many() {
        let now = at("2026-05-08T12:00:00Z");
        let known = vec![
            verdict(1, "2025-05-08T11:59:59Z"),
            verdict(2, "2025-05-09T00:00:00Z"),
        ];
        let gone: Vec<_> = to_forget(known, now).into_iter().map(|one| one.1).collect();
        assert_eq!(gone, [Uuid::from_u128(1)]);
        let mut many: Vec<_> = (10..10 + VERDICTS_MAX as u128)
            .map(|number| verdict(number, "2026-05-08T00:00:00Z"))
            .collect();
        many.push(verdict(5, "2026-05-07T00:00:00Z"));
        let gone: Vec<_> = to_forget(many, now).into_iter().map(|one| one.1).collect();
        assert_eq!(gone, [Uuid::from_u128(5), Uuid::from_u128(10)]);
    }

    #[test]
    fn the_longest_verdict_fits_into_a_value_of_the_store() {
        let finding = FindingState {
            uid: Uuid::from_u128(1),
            detection: "d".repeat(200),
            entity: "\u{1}".repeat(200),
            revision: u32::MAX,
            count: 1,
            severity: Severity::High,
            alert: true,
            last_time: at("2026-05-08T12:00:00Z"),
            domains: Vec::new(),
            networks: Vec::new(),
            expires: at("2026-05-08T12:00:00Z"),
        };
        let mut last = None;
        for _ in 0..10 {
            let statement = Statement {
                judgement: Judgement::FalsePositive,
                reason: "\"".repeat(REASON_BYTES_MAX),
                by: "\"".repeat(BY_BYTES_MAX),
                at: at("2026-05-08T12:00:00.123456789Z"),
            };
            last = Some(Verdict::of(&finding, last, statement));
        }
        let last = last.unwrap();
        assert_eq!(last.earlier.len(), exfilwatch_model::verdict::EARLIER_MAX);
        let bytes = serde_json::to_vec(&last).unwrap().len();
        assert!(bytes > 3_000, "all of it is in there");
        let bytes_max = exfilwatch_state::VALUE_BYTES_MAX;
        assert!(bytes <= bytes_max, "{bytes}");
    }
}
