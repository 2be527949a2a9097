//! When a record can be got: blobs of Office 365 (late, doubled, shuffled), the lag of Google.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::TimeDelta;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::book::Draft;
use super::options::Delivery;
use super::people::Tenant;
use super::{CONTENT_TYPES, World};
use crate::sheet::Record;

/// Blobs live for seven days.
pub(crate) const RETENTION_OFFICE365_MS: i64 = 7 * 86_400_000;
/// The Reports API reaches back 180 days.
pub(crate) const RETENTION_GOOGLE_MS: i64 = 180 * 86_400_000;

/// A content blob of the Management Activity API.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    /// Opaque content id, with `$` in it as Microsoft's have.
    pub(crate) content_id: String,
    /// The `contentCreated` values it is listed under: one, or two for a blob listed twice.
    pub(crate) listed_ms: Vec<i64>,
    /// From when on it can be read (404 before), Unix milliseconds.
    pub(crate) ready_ms: i64,
    /// Numbers of its records in the sheet.
    pub(crate) records: Vec<usize>,
}

impl Blob {
    /// When it was first listed.
    pub(crate) fn created_ms(&self) -> i64 {
        self.listed_ms.first().copied().unwrap_or_default()
    }

    /// When it can no longer be read.
    pub(crate) fn expires_ms(&self) -> i64 {
        self.created_ms() + RETENTION_OFFICE365_MS
    }
}

/// Writes the drafts of one tenant into the sheet and decides how they are delivered.
pub(crate) fn deliver(
    world: &mut World,
    (number, tenant): (usize, &Tenant),
    mut drafts: Vec<Draft>,
    rng: &mut StdRng,
) {
    drafts.sort_by(|a, b| (&a.stream, a.event_ms, &a.id).cmp(&(&b.stream, b.event_ms, &b.id)));
    let alias: Arc<str> = Arc::from(tenant.alias.as_str());
    let habits = world.options().delivery.clone();
    let mut by_stream: BTreeMap<Arc<str>, Vec<usize>> = BTreeMap::new();
    for draft in drafts {
        let index = world.sheet().records.len();
        by_stream
            .entry(draft.stream.clone())
            .or_default()
            .push(index);
        world.sheet_mut().records.push(Record {
            tenant: alias.clone(),
            stream: draft.stream,
            id: draft.id,
            body: draft.body,
            event_ms: draft.event_ms,
            visible_from_ms: i64::MAX,
            listable_until_ms: i64::MIN,
            elements: draft.elements,
        });
    }
    for (stream, indexes) in by_stream {
        if let Some(name) = stream.strip_prefix("office365/") {
            let Some(content_type) = CONTENT_TYPES.iter().find(|known| **known == name) else {
                continue;
            };
            let blobs = blobs_of(world, content_type, &indexes, &habits, rng);
            world.blobs.insert((number, content_type), blobs);
        } else if let Some(application) = stream.strip_prefix("google_workspace/") {
            let application = application.to_owned();
            google_lag(world, &indexes, &habits, rng);
            let mut newest_first = indexes;
            newest_first.reverse();
            world.activities.insert((number, application), newest_first);
        }
    }
}

fn between((least, most): (TimeDelta, TimeDelta), rng: &mut StdRng) -> i64 {
    let (least, most) = (least.num_milliseconds(), most.num_milliseconds());
    rng.random_range(least..=most.max(least))
}

fn blobs_of(
    world: &mut World,
    content_type: &str,
    indexes: &[usize],
    habits: &Delivery,
    rng: &mut StdRng,
) -> Vec<Blob> {
    let hour = TimeDelta::hours(1);
    let mut arrivals: Vec<(i64, usize)> = Vec::with_capacity(indexes.len());
    for &index in indexes {
        let Some(record) = world.sheet().records.get(index) else {
            continue;
        };
        let event_ms = record.event_ms;
        let mut arrival = event_ms + between(habits.blob_delay, rng);
        if rng.random_bool(habits.late_share) {
            arrival = event_ms + between((hour, habits.late_max.max(hour)), rng);
        }
        arrivals.push((arrival, index));
        if rng.random_bool(habits.twice_share) {
            arrivals.push((arrival + between((hour, TimeDelta::days(5)), rng), index));
        }
    }
    arrivals.sort_unstable();
    let width = habits.blob_width.num_milliseconds().max(1);
    let mut blobs: Vec<Blob> = Vec::new();
    let mut slot = i64::MIN;
    for (arrival, index) in arrivals {
        let same_slot = arrival.div_euclid(width) == slot;
        match blobs.last_mut() {
            Some(blob) if same_slot && blob.records.len() < habits.blob_records_max => {
                blob.records.push(index);
            }
            _ => {
                slot = arrival.div_euclid(width);
                let offset = i64::try_from(blobs.len() % 997).unwrap_or_default();
                let created = (slot + 1) * width + offset;
                blobs.push(new_blob(content_type, created, index, habits, rng));
            }
        }
    }
    for blob in &mut blobs {
        if habits.shuffled {
            blob.records.shuffle(rng);
        }
        note_visibility(world, blob);
    }
    blobs
}

fn new_blob(
    content_type: &str,
    created: i64,
    first: usize,
    habits: &Delivery,
    rng: &mut StdRng,
) -> Blob {
    let stamp = chrono::DateTime::from_timestamp_millis(created).unwrap_or_default();
    let day = stamp.format("%Y%m%d%H%M%S");
    let tail: u32 = rng.random();
    let feed = content_type.to_lowercase().replace('.', "_");
    let mut listed_ms = vec![created];
    if rng.random_bool(habits.relisted_share) {
        listed_ms.push(created + between((TimeDelta::minutes(2), TimeDelta::hours(6)), rng));
    }
    let unready = rng.random_bool(habits.unready_share);
    let ready_ms = created
        + if unready {
            habits.unready.num_milliseconds()
        } else {
            0
        };
    Blob {
        content_id: format!("{day}{tail:010}${day}{:09}${feed}$emea0036", created % 1000),
        listed_ms,
        ready_ms,
        records: vec![first],
    }
}

fn note_visibility(world: &mut World, blob: &Blob) {
    let (visible, until) = (blob.ready_ms.max(blob.created_ms()), blob.expires_ms());
    for &index in &blob.records {
        if let Some(record) = world.sheet_mut().records.get_mut(index) {
            record.visible_from_ms = record.visible_from_ms.min(visible);
            record.listable_until_ms = record.listable_until_ms.max(until);
        }
    }
}

fn google_lag(world: &mut World, indexes: &[usize], habits: &Delivery, rng: &mut StdRng) {
    for &index in indexes {
        let mut lag = between(habits.google_lag, rng);
        if rng.random_bool(habits.google_late_share) {
            lag = between((habits.google_lag.1, habits.google_late_max), rng);
        }
        if let Some(record) = world.sheet_mut().records.get_mut(index) {
            record.visible_from_ms = record.event_ms + lag;
            record.listable_until_ms = record.event_ms + RETENTION_GOOGLE_MS;
        }
    }
}
