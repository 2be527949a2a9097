//! Small things the tests are made of.

use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDate, Utc};
use exfilwatch_model::finding::{FindingState, Severity};
use exfilwatch_model::verdict::{Judgement, Statement, Verdict};
use exfilwatch_model::{Cursor, Envelope, Kind, StreamId, TenantId, WorkItem};
use exfilwatch_state::{
    Commit, Filter, Frame, LaneId, LaneMark, Opened, Options, Position, SeenChunk, State, Tenants,
};
use uuid::Uuid;

pub(crate) fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

pub(crate) fn now() -> DateTime<Utc> {
    at("2026-05-04T10:00:00Z")
}

pub(crate) fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

pub(crate) fn stream(tenant: &str) -> StreamId {
    format!("{tenant}/office365/Audit.Exchange")
        .parse()
        .unwrap()
}

pub(crate) fn cursor(minute: u32) -> Cursor {
    Cursor {
        covered_until: now() + chrono::TimeDelta::minutes(i64::from(minute)),
        state: format!("{{\"page\":{minute}}}"),
    }
}

pub(crate) fn item(tenant: &str, key: &str) -> WorkItem {
    WorkItem {
        stream: stream(tenant),
        key: key.to_owned(),
        body: "/api/v1.0/x".to_owned(),
        from: at("2026-05-04T08:00:00Z"),
        expires: Some(at("2026-05-11T08:00:00Z")),
        attempts: 2,
        next_try: None,
        last_error: Some("the server said 503".to_owned()),
    }
}

pub(crate) fn finding(number: u128) -> FindingState {
    FindingState {
        uid: Uuid::from_u128(number),
        detection: "o365.mail.forwarding_external".to_owned(),
        entity: "user@contoso.example".to_owned(),
        revision: 1,
        count: 3,
        severity: Severity::High,
        alert: true,
        last_time: now(),
        domains: vec!["evil.example".to_owned()],
        networks: vec![],
        expires: at("2026-05-09T00:00:00Z"),
    }
}

pub(crate) fn verdict(number: u128) -> Verdict {
    let statement = Statement {
        judgement: Judgement::FalsePositive,
        reason: "a test".to_owned(),
        by: "analyst".to_owned(),
        at: now(),
    };
    Verdict::of(&finding(number), None, statement)
}

pub(crate) fn chunk(tenant_name: &str, on: &str, fingerprints: &[u64]) -> SeenChunk {
    SeenChunk {
        tenant: tenant(tenant_name),
        day: day(on),
        fingerprints: fingerprints.to_vec(),
    }
}

pub(crate) fn lane(kind: Kind) -> LaneId {
    LaneId {
        emitter: "splunk_hec.main".to_owned(),
        route: "all".to_owned(),
        kind,
    }
}

pub(crate) fn mark(kind: Kind, position: Position) -> LaneMark {
    LaneMark {
        lane: lane(kind),
        position,
        delivered: 7,
        excluded: 0,
        retired: false,
        unbroken: None,
    }
}

pub(crate) fn envelope(kind: Kind, tenant: &str, id: &str, payload: &[u8]) -> Envelope {
    Envelope {
        kind,
        stream: stream(tenant),
        id: id.to_owned(),
        time: Some(at("2026-05-04T09:58:01.123456789Z")),
        fetched_at: now(),
        payload: bytes::Bytes::copy_from_slice(payload),
    }
}

pub(crate) fn frame(kind: Kind, tenant_name: &str, ids: &[&str]) -> Frame {
    Frame {
        kind,
        tenant: tenant(tenant_name),
        items: ids
            .iter()
            .map(|id| {
                envelope(
                    kind,
                    tenant_name,
                    id,
                    format!(r#"{{"item":"{id}"}}"#).as_bytes(),
                )
            })
            .collect(),
    }
}

pub(crate) fn all_of(kind: Kind) -> Filter {
    Filter {
        kind,
        tenants: Tenants::all(),
    }
}

/// A commit with records of a page and the cursor behind it.
pub(crate) fn page(number: u32, ids: &[&str]) -> Commit {
    Commit {
        frames: vec![frame(Kind::Events, "contoso", ids)],
        cursors: vec![(stream("contoso"), cursor(number))],
        seen: vec![chunk("contoso", "2026-05-04", &[u64::from(number)])],
        ..Commit::default()
    }
}

pub(crate) fn open_with(folder: &Path, options: Options) -> Opened {
    State::open(folder, now(), options).unwrap()
}

pub(crate) fn open(folder: &Path) -> State {
    let opened = open_with(folder, Options::default());
    assert_eq!(opened.rebuilt, None);
    assert_eq!(opened.outbox_damage, None);
    opened.state
}

/// Ids of the items of a kind in the outbox, read in small bites.
pub(crate) fn ids(state: &State, kind: Kind) -> Vec<String> {
    ids_from(state, kind, Position::default())
}

pub(crate) fn ids_from(state: &State, kind: Kind, from: Position) -> Vec<String> {
    let mut reader = state.reader(from, all_of(kind));
    let mut ids = vec![];
    loop {
        let delivery = reader.read(state.outbox_end(), 2, 1 << 20).unwrap();
        assert_eq!(delivery.damage, vec![]);
        ids.extend(delivery.items.into_iter().map(|i| i.envelope.id));
        if delivery.next >= state.outbox_end() {
            return ids;
        }
    }
}

pub(crate) fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(folder.join("outbox"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "seg"))
        .collect();
    paths.sort();
    paths
}
