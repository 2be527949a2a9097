//! What opening the state found to be lost, told to each tenant in the same breath: as an item about
//! ourselves, and as a finding, since detections did not see, or may not have told, what was in it.

use chrono::{DateTime, Utc};
use exfilwatch_detectors::updates::revise;
use exfilwatch_model::{Kind, Product, StreamId, TenantId};
use exfilwatch_state::{Commit, Frame, Untold};
use serde_json::{Value, json};

use crate::pipeline::alarm::{Alarm, Raised, Reason};
use crate::pipeline::notice::Notice;
use crate::pipeline::step::{FINDINGS_KEPT, finding_envelope};

/// One loss, in both forms.
struct Loss {
    notice: &'static str,
    facts: Value,
    reason: Reason,
    message: String,
}

/// What is to be told of a state that was opened, in commits for one group: one of them says that it
/// is told. Findings only for tenants of which `raises` says so.
pub fn announcements(
    untold: &Untold,
    tenants: &[(TenantId, Product)],
    raises: &dyn Fn(&TenantId) -> bool,
    now: DateTime<Utc>,
) -> Vec<Commit> {
    let mut commits = Vec::new();
    for loss in losses(untold) {
        for (tenant, product) in tenants {
            let Ok(stream) = StreamId::new(tenant.clone(), "exfilwatch", "state") else {
                continue;
            };
            let notice = Notice {
                stream: stream.clone(),
                name: loss.notice,
                at: now,
                facts: loss.facts.clone(),
                gap: None,
            };
            let mut commit = Commit {
                frames: vec![notice.frame(tenant)],
                told: true,
                ..Commit::default()
            };
            if raises(tenant) {
                commit.join(finding(&loss, &stream, *product, now));
            }
            commits.push(commit);
        }
    }
    commits
}

fn losses(untold: &Untold) -> Vec<Loss> {
    let mut losses = Vec::new();
    if let Some(lost) = &untold.store {
        let streams = lost.streams;
        losses.push(Loss {
            notice: "collector.rebuilt",
            facts: json!({
                "reason": lost.reason, "restarts": streams,
                "help": "duplicates may follow, losses not",
            }),
            reason: Reason::Rebuilt,
            message: format!(
                "the state of exfilwatch was lost ({}) and is made anew: {streams} streams are read \
                 again from where they were; what detections remembered from before is gone",
                lost.reason
            ),
        });
    }
    if let Some(reason) = &untold.outbox {
        losses.push(Loss {
            notice: "collector.loss",
            facts: json!({
                "reason": reason,
                "help": "compare what the receivers hold with `exfilwatch backfill`",
            }),
            reason: Reason::ItemsLost,
            message: format!(
                "items that waited for delivery are lost ({reason}): findings and records of the last \
                 hours may be missing at the receivers"
            ),
        });
    }
    losses
}

fn finding(loss: &Loss, stream: &StreamId, product: Product, now: DateTime<Utc>) -> Commit {
    let raised = Raised {
        reason: loss.reason,
        since: now,
    };
    let alarm = Alarm {
        stream,
        product,
        raised: &raised,
        message: loss.message.clone(),
        matched: [].into(),
    };
    let made = revise(None, alarm.finding(now), now + FINDINGS_KEPT);
    let tenant = stream.tenant();
    let items = made.send.as_ref();
    let items = items.and_then(|finding| finding_envelope(stream, finding));
    Commit {
        frames: items
            .into_iter()
            .map(|item| Frame {
                kind: Kind::Findings,
                tenant: tenant.clone(),
                items: vec![item],
            })
            .collect(),
        findings: vec![(tenant.clone(), made.state)],
        ..Commit::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exfilwatch_state::{Options, State};

    #[test]
    fn a_lost_store_is_told_to_each_tenant_and_is_a_finding_unless_that_is_switched_off() {
        let folder = tempfile::tempdir().unwrap();
        let now = DateTime::UNIX_EPOCH;
        let open = || State::open(folder.path(), now, Options::default()).unwrap();
        let tenants = ["contoso", "fabrikam"];
        let tenants = tenants.map(|name| (TenantId::new(name).unwrap(), Product::M365));
        let mut opened = open();
        assert_eq!(announcements(&opened.untold, &tenants, &|_| true, now), []);
        let cursor = exfilwatch_model::Cursor {
            covered_until: now,
            state: String::new(),
        };
        let stream = "contoso/office365/Audit.Exchange".parse().unwrap();
        let commit = Commit {
            cursors: vec![(stream, cursor)],
            ..Commit::default()
        };
        opened.state.commit_group(vec![commit]).unwrap();
        opened.state.write_mirror(now).unwrap();
        drop(opened);
        let db = folder.path().join("store/db");
        let length = std::fs::metadata(&db).unwrap().len();
        std::fs::write(&db, vec![0xaa; usize::try_from(length).unwrap()]).unwrap();
        let opened = open();
        let kinds = |raises| {
            let told = announcements(&opened.untold, &tenants, &|_| raises, now);
            let frames = told.iter().flat_map(|commit| &commit.frames);
            frames.map(|frame| frame.kind).collect::<Vec<_>>()
        };
        let both = [Kind::Internal, Kind::Findings];
        assert_eq!(kinds(true), [both, both].concat());
        assert_eq!(kinds(false), [Kind::Internal, Kind::Internal]);
        let untold = opened.untold.clone();
        drop(opened);
        let mut opened = open();
        assert_eq!(
            (&opened.untold, opened.rebuilt),
            (&untold, None),
            "a process that ended before it told is no excuse"
        );
        let told = announcements(&untold, &tenants, &|_| true, now);
        let found: serde_json::Value =
            serde_json::from_slice(&told[0].frames[1].items[0].payload).unwrap();
        assert_eq!(found["rule"]["detection"], "x.audit.gap");
        assert_eq!(found["matched"]["reason"], "rebuilt");
        assert_eq!(told[0].findings.len(), 1, "it stands in the finding table");
        opened.state.commit_group(told).unwrap();
        drop(opened.state);
        assert_eq!(open().untold, Untold::default(), "it is told once");
    }
}
