//! On which day each operation was last seen in a tenant: what says that a rule has nothing to look at.
//!
//! A small table in the store, beside the memory of the detectors: one entry an operation, written at
//! most once for each day of event time, and bounded.

use std::collections::HashMap;

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use exfilwatch_model::{JobId, Product, RecordHead, TenantId};
use exfilwatch_state::{StateError, StateStore, WindowChange};
use serde::{Deserialize, Serialize};

/// Most operations that are remembered of a tenant; beyond, the one not seen for longest goes.
const OPERATIONS_MAX: usize = 4_000;
/// Longest name of an operation that is remembered.
const NAME_BYTES_MAX: usize = 200;
/// The part of a key that stands where others have their detector.
const PART: &str = "operations";

/// An operation and the last day on which it was seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sighting {
    /// Whose log.
    pub product: Product,
    /// As the vendor writes it.
    pub operation: String,
    /// The day of the latest record, by event time.
    pub day: NaiveDate,
}

/// What a tenant's operations were last seen on. Follows the store: it is read anew after a commit
/// that failed.
#[derive(Debug, Default)]
pub struct Sightings {
    days: HashMap<(Product, String), NaiveDate>,
    changed: Vec<WindowChange>,
}

impl Sightings {
    /// Reads it from the store.
    pub fn load(store: &dyn StateStore, tenant: &TenantId) -> Result<Self, StateError> {
        let sightings = list(store, tenant)?.into_iter();
        Ok(Self {
            days: sightings
                .map(|one| ((one.product, one.operation), one.day))
                .collect(),
            changed: Vec::new(),
        })
    }

    /// Takes note of a record. A time to come counts as now: clocks lie.
    pub fn note(&mut self, tenant: &TenantId, head: &RecordHead<'_>, fetched_at: DateTime<Utc>) {
        let day = head
            .time
            .map_or(fetched_at, |time| time.min(fetched_at))
            .date_naive();
        for operation in &head.operations {
            if operation.is_empty() || operation.len() > NAME_BYTES_MAX {
                continue;
            }
            let key = (head.product, operation.to_string());
            if self.days.get(&key).is_some_and(|known| *known >= day) {
                continue;
            }
            if self.days.len() >= OPERATIONS_MAX && !self.days.contains_key(&key) {
                self.let_oldest_go(tenant);
            }
            self.changed.push(change(tenant, &key, Some(day)));
            self.days.insert(key, day);
        }
    }

    fn let_oldest_go(&mut self, tenant: &TenantId) {
        let oldest = self.days.iter().min_by_key(|(key, day)| (**day, *key));
        if let Some((key, _)) = oldest.map(|(key, day)| (key.clone(), *day)) {
            self.changed.push(change(tenant, &key, None));
            self.days.remove(&key);
        }
    }

    /// What is to be written.
    pub fn drain(&mut self) -> Vec<WindowChange> {
        std::mem::take(&mut self.changed)
    }
}

fn change(
    tenant: &TenantId,
    (product, operation): &(Product, String),
    day: Option<NaiveDate>,
) -> WindowChange {
    WindowChange {
        job: JobId::sightings(),
        tenant: tenant.clone(),
        detector: PART.to_owned(),
        key: format!("{}/{operation}", product.as_str()).into_bytes(),
        value: day.map(|day| day.num_days_from_ce().to_be_bytes().to_vec()),
    }
}

/// What the store has of a tenant, in order. What cannot be read is left out.
pub fn list(store: &dyn StateStore, tenant: &TenantId) -> Result<Vec<Sighting>, StateError> {
    let entries = store.windows(&JobId::sightings(), tenant)?;
    let mut sightings: Vec<Sighting> = entries.iter().filter_map(sighting).collect();
    sightings.sort();
    Ok(sightings)
}

fn sighting(entry: &WindowChange) -> Option<Sighting> {
    let key = std::str::from_utf8(&entry.key).ok()?;
    let (product, operation) = key.split_once('/')?;
    let product = [Product::M365, Product::GoogleWorkspace]
        .into_iter()
        .find(|known| known.as_str() == product)?;
    let bytes: [u8; 4] = entry.value.as_deref()?.try_into().ok()?;
    Some(Sighting {
        product,
        operation: operation.to_owned(),
        day: NaiveDate::from_num_days_from_ce_opt(i32::from_be_bytes(bytes))?,
    })
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use exfilwatch_state::{Commit, MemoryStore, Position};

    use super::*;

    fn head(operation: &str, time: &str) -> RecordHead<'static> {
        RecordHead {
            product: Product::M365,
            id: None,
            time: Some(time.parse().unwrap()),
            operations: vec![Cow::Owned(operation.to_owned())],
            actor: None,
            digest: 0,
        }
    }

    fn now() -> DateTime<Utc> {
        "2026-05-04T12:00:00Z".parse().unwrap()
    }

    fn tenant() -> TenantId {
        TenantId::new("corp").unwrap()
    }

    #[test]
    fn an_operation_is_written_once_a_day_and_keeps_its_latest() {
        let mut sightings = Sightings::default();
        let mut written = |operation, time| {
            sightings.note(&tenant(), &head(operation, time), now());
            sightings.drain().len()
        };
        assert_eq!(written("Set-Mailbox", "2026-05-03T08:00:00Z"), 1);
        assert_eq!(written("Set-Mailbox", "2026-05-03T09:00:00Z"), 0);
        assert_eq!(written("Set-Mailbox", "2026-05-01T09:00:00Z"), 0, "earlier");
        assert_eq!(written("Set-Mailbox", "2026-05-04T09:00:00Z"), 1);
        assert_eq!(
            written("Set-Mailbox", "2031-01-01T00:00:00Z"),
            0,
            "a time to come"
        );
        assert_eq!(written("", "2026-05-04T09:00:00Z"), 0);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let store = MemoryStore::new([1; 16]).unwrap();
        let mut sightings = Sightings::default();
        sightings.note(
            &tenant(),
            &head("Set-Mailbox", "2026-05-03T08:00:00Z"),
            now(),
        );
        let windows = sightings.drain();
        let commit = Commit {
            windows,
            ..Commit::default()
        };
        store.apply(&[commit], Position::default()).unwrap();
        let listed = list(&store, &tenant()).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].day.to_string(), "2026-05-03");
        let mut again = Sightings::load(&store, &tenant()).unwrap();
        again.note(
            &tenant(),
            &head("Set-Mailbox", "2026-05-03T09:00:00Z"),
            now(),
        );
        assert!(again.drain().is_empty());
    }

    #[test]
    fn the_table_is_bounded_and_the_one_not_seen_for_longest_goes() {
        let mut sightings = Sightings::default();
        sightings.note(&tenant(), &head("Oldest", "2026-05-01T08:00:00Z"), now());
        for number in 1..OPERATIONS_MAX {
            let name = format!("Operation{number}");
            sightings.note(&tenant(), &head(&name, "2026-05-02T08:00:00Z"), now());
        }
        drop(sightings.drain());
        sightings.note(&tenant(), &head("OneMore", "2026-05-03T08:00:00Z"), now());
        let changed = sightings.drain();
        assert_eq!(sightings.days.len(), OPERATIONS_MAX);
        assert_eq!(changed.len(), 2);
        assert_eq!(changed[0].key, b"m365/Oldest");
        assert_eq!(changed[0].value, None);
    }
}
