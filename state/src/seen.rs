//! The seen index in memory: which records were committed before, by fingerprint.
//!
//! Each tenant's worker has its own, so nothing is shared but the budget. It follows the store:
//! [`SeenIndex::plan`] says what to commit, [`SeenIndex::remember`] takes it in after the commit.
//! When the budget is full the tenant's oldest days are forgotten early, and if that is not enough
//! fingerprints are not remembered: both may cost duplicates, and both are counted.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::{Days, NaiveDate};
use exfilwatch_model::TenantId;

use crate::commit::{Commit, SEEN_CHUNK_MAX, SeenChunk};
use crate::contract::{StateError, StateStore};

/// Fingerprints held by a process. A set of that many fits into 2^22 places of nine bytes: 38 MB.
pub const SEEN_ENTRIES_MAX: usize = 3_500_000;
/// Days after arrival that a fingerprint is remembered.
pub const SEEN_DAYS: u64 = 14;

/// Fingerprints are keyed hashes already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }
}

type Fingerprints = HashSet<u64, BuildHasherDefault<AsItIs>>;

/// How many fingerprints the process may hold, shared by the indexes of all tenants.
#[derive(Debug)]
pub struct SeenBudget {
    entries_max: usize,
    held: AtomicUsize,
    not_remembered: AtomicUsize,
    forgotten_early: AtomicUsize,
}

impl SeenBudget {
    /// A budget of so many fingerprints ([`SEEN_ENTRIES_MAX`] by default).
    pub fn new(entries_max: usize) -> Arc<Self> {
        Arc::new(Self {
            entries_max,
            held: AtomicUsize::new(0),
            not_remembered: AtomicUsize::new(0),
            forgotten_early: AtomicUsize::new(0),
        })
    }

    /// Fingerprints held now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Fingerprints that found no room: their records may be delivered twice.
    pub fn not_remembered(&self) -> usize {
        self.not_remembered.load(Ordering::Relaxed)
    }

    /// Fingerprints dropped before their [`SEEN_DAYS`] were over, to make room.
    pub fn forgotten_early(&self) -> usize {
        self.forgotten_early.load(Ordering::Relaxed)
    }

    fn free(&self) -> usize {
        self.entries_max.saturating_sub(self.held())
    }
}

/// What to commit about some fingerprints, and then to remember.
#[derive(Debug)]
#[must_use = "commit it, then remember it"]
pub struct SeenPlan {
    tenant: TenantId,
    day: NaiveDate,
    fingerprints: Vec<u64>,
    /// Days before this one are not held any more.
    from: NaiveDate,
    /// Whether the store holds older days.
    forget: bool,
    no_room: usize,
}

impl SeenPlan {
    /// Adds the plan to a commit.
    pub fn add_to(&self, commit: &mut Commit) {
        let chunks = self.fingerprints.chunks(SEEN_CHUNK_MAX);
        commit.seen.extend(chunks.map(|part| SeenChunk {
            tenant: self.tenant.clone(),
            day: self.day,
            fingerprints: part.to_vec(),
        }));
        if self.forget {
            commit
                .forget_seen_before
                .push((self.tenant.clone(), self.from));
        }
    }
}

/// The fingerprints of one tenant, by day of arrival.
#[derive(Debug)]
pub struct SeenIndex {
    tenant: TenantId,
    budget: Arc<SeenBudget>,
    days: BTreeMap<NaiveDate, Fingerprints>,
    /// Oldest day in the store, held here or not.
    stored_from: Option<NaiveDate>,
    /// Days before this one are not held.
    from: NaiveDate,
}

impl SeenIndex {
    /// Reads a tenant's fingerprints of the last [`SEEN_DAYS`] from the store; when there is not
    /// room for all, the oldest days are left out.
    pub fn load(
        store: &dyn StateStore,
        tenant: &TenantId,
        today: NaiveDate,
        budget: Arc<SeenBudget>,
    ) -> Result<Self, StateError> {
        let mut index = Self {
            tenant: tenant.clone(),
            budget,
            days: BTreeMap::new(),
            stored_from: None,
            from: expiry(today),
        };
        let mut oldest = None;
        store.each_seen(tenant, &mut |day, fingerprints| {
            oldest.get_or_insert(day);
            if day >= index.from {
                let plan = index.plan_as_of(today.min(day), day, fingerprints);
                index.remember(plan);
            }
        })?;
        // Nothing of the store is forgotten yet, whatever was left out here.
        index.stored_from = oldest;
        Ok(index)
    }

    /// Whether a record with this fingerprint was committed before.
    pub fn contains(&self, fingerprint: u64) -> bool {
        // Most that come again come soon.
        self.days
            .values()
            .rev()
            .any(|day| day.contains(&fingerprint))
    }

    /// Fingerprints held.
    pub fn len(&self) -> usize {
        self.days.values().map(HashSet::len).sum()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.days.is_empty()
    }

    /// What to commit so that these are remembered as of `day` (the page's `fetched_at`) and what
    /// is too old is not. Changes nothing here. May be called with none, to forget.
    pub fn plan(&self, day: NaiveDate, fingerprints: &[u64]) -> SeenPlan {
        self.plan_as_of(day, day, fingerprints)
    }

    /// As [`SeenIndex::plan`], where what is too old is told by another day than that of arrival.
    fn plan_as_of(&self, now: NaiveDate, day: NaiveDate, fingerprints: &[u64]) -> SeenPlan {
        let oldest = expiry(now);
        // A clock that ran ahead and was put back must not make us forget what comes now.
        let known = if self.from > now { oldest } else { self.from };
        let mut from = known.max(oldest);
        let mut room = self.budget.free() + self.held_before(from);
        for (held_day, held) in self.days.range(from..day) {
            if room >= fingerprints.len() {
                break;
            }
            room += held.len();
            from = after(*held_day);
        }
        let taken = fingerprints.len().min(room);
        SeenPlan {
            tenant: self.tenant.clone(),
            day,
            fingerprints: fingerprints.iter().take(taken).copied().collect(),
            from,
            forget: self.stored_from.is_some_and(|stored| stored < from),
            no_room: fingerprints.len() - taken,
        }
    }

    /// Takes a plan in whose commit returned Ok. After a failed commit the index is loaded anew.
    pub fn remember(&mut self, plan: SeenPlan) {
        let expired = expiry(plan.day);
        while let Some((day, held)) = self.days.pop_first() {
            if day >= plan.from {
                self.days.insert(day, held);
                break;
            }
            self.budget.held.fetch_sub(held.len(), Ordering::Relaxed);
            if day >= expired {
                let early = &self.budget.forgotten_early;
                early.fetch_add(held.len(), Ordering::Relaxed);
            }
        }
        self.from = plan.from;
        if plan.forget {
            self.stored_from = self.days.keys().next().copied();
        }
        let no_room = &self.budget.not_remembered;
        no_room.fetch_add(plan.no_room, Ordering::Relaxed);
        if plan.fingerprints.is_empty() {
            return;
        }
        let stored_from = self.stored_from.get_or_insert(plan.day);
        *stored_from = plan.day.min(*stored_from);
        let today = self.days.entry(plan.day).or_default();
        let before = today.len();
        today.extend(plan.fingerprints);
        let added = today.len() - before;
        self.budget.held.fetch_add(added, Ordering::Relaxed);
    }

    fn held_before(&self, day: NaiveDate) -> usize {
        self.days.range(..day).map(|(_, held)| held.len()).sum()
    }
}

impl Drop for SeenIndex {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.len(), Ordering::Relaxed);
    }
}

/// First day that is still remembered on `today`.
fn expiry(today: NaiveDate) -> NaiveDate {
    today
        .checked_sub_days(Days::new(SEEN_DAYS))
        .unwrap_or(NaiveDate::MIN)
}

fn after(day: NaiveDate) -> NaiveDate {
    day.succ_opt().unwrap_or(NaiveDate::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Position;
    use crate::memory_store::MemoryStore;

    fn day(number: u32) -> NaiveDate {
        NaiveDate::from_ymd_opt(2026, 5, number).unwrap()
    }

    fn load(store: &MemoryStore, today: NaiveDate, budget: &Arc<SeenBudget>) -> SeenIndex {
        let tenant = TenantId::new("contoso").unwrap();
        SeenIndex::load(store, &tenant, today, Arc::clone(budget)).unwrap()
    }

    fn take_in(store: &MemoryStore, index: &mut SeenIndex, on: NaiveDate, fingerprints: &[u64]) {
        let plan = index.plan(on, fingerprints);
        let mut commit = Commit::default();
        plan.add_to(&mut commit);
        store.apply(&[commit], Position::default()).unwrap();
        index.remember(plan);
    }

    fn days_in_store(store: &MemoryStore) -> Vec<NaiveDate> {
        let tenant = TenantId::new("contoso").unwrap();
        let mut days: Vec<_> = store
            .seen(&tenant)
            .unwrap()
            .into_iter()
            .map(|s| s.0)
            .collect();
        days.dedup();
        days
    }

    #[test]
    fn a_clock_that_ran_ahead_and_was_put_back_is_no_panic_and_forgets_nothing_new() {
        let store = MemoryStore::new([0; 16]).unwrap();
        let budget = SeenBudget::new(10_000);
        let ahead = NaiveDate::from_ymd_opt(2026, 11, 24).unwrap();
        let mut index = load(&store, ahead, &budget);
        take_in(&store, &mut index, ahead, &[1, 2]);
        take_in(&store, &mut index, day(4), &[3]);
        take_in(&store, &mut index, day(5), &[4]);
        assert!([1, 2, 3, 4].iter().all(|f| index.contains(*f)));
        drop(index);
        let index = load(&store, day(5), &budget);
        assert!([1, 2, 3, 4].iter().all(|f| index.contains(*f)));
    }

    #[test]
    fn what_was_committed_is_known_after_a_restart() {
        let store = MemoryStore::new([0; 16]).unwrap();
        let budget = SeenBudget::new(10_000);
        let mut index = load(&store, day(1), &budget);
        let fingerprints: Vec<u64> = (0..1300).map(|n| n * 0x9E37_79B9).collect();
        take_in(&store, &mut index, day(1), &fingerprints);
        assert_eq!(budget.held(), 1300);
        drop(index);
        assert_eq!(budget.held(), 0);
        let index = load(&store, day(2), &budget);
        assert!(fingerprints.iter().all(|f| index.contains(*f)));
        assert!(!index.contains(7));
        assert_eq!(index.len(), 1300);
    }

    #[test]
    fn a_plan_alone_changes_nothing() {
        let store = MemoryStore::new([0; 16]).unwrap();
        let budget = SeenBudget::new(100);
        let index = load(&store, day(1), &budget);
        let plan = index.plan(day(1), &[1]);
        assert!(!index.contains(1));
        drop(plan);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn days_are_forgotten_after_a_fortnight_in_memory_and_store() {
        let store = MemoryStore::new([0; 16]).unwrap();
        let budget = SeenBudget::new(100);
        let mut index = load(&store, day(1), &budget);
        take_in(&store, &mut index, day(1), &[1]);
        take_in(&store, &mut index, day(2), &[2]);
        take_in(&store, &mut index, day(15), &[15]);
        assert!(index.contains(1));
        take_in(&store, &mut index, day(16), &[]);
        assert!(!index.contains(1));
        assert!(index.contains(2) && index.contains(15));
        assert_eq!(days_in_store(&store), [day(2), day(15)]);
        assert_eq!(budget.forgotten_early(), 0);
        assert_eq!(budget.held(), 2);
    }

    #[test]
    fn a_full_budget_costs_the_oldest_days_and_is_counted() {
        let store = MemoryStore::new([0; 16]).unwrap();
        let budget = SeenBudget::new(5);
        let mut index = load(&store, day(1), &budget);
        take_in(&store, &mut index, day(1), &[1, 2]);
        take_in(&store, &mut index, day(2), &[3, 4]);
        take_in(&store, &mut index, day(3), &[5, 6, 7]);
        assert!(!index.contains(1) && index.contains(3) && index.contains(7));
        assert_eq!((budget.forgotten_early(), budget.not_remembered()), (2, 0));
        assert_eq!(days_in_store(&store), [day(2), day(3)]);
        take_in(&store, &mut index, day(3), &[8, 9, 10, 11, 12]);
        assert_eq!(budget.held(), 5);
        assert_eq!((budget.forgotten_early(), budget.not_remembered()), (4, 3));
        assert_eq!(days_in_store(&store), [day(3)]);
    }

    #[test]
    fn one_tenant_does_not_push_out_another() {
        let store = MemoryStore::new([0; 16]).unwrap();
        let budget = SeenBudget::new(3);
        let mut quiet = load(&store, day(1), &budget);
        take_in(&store, &mut quiet, day(1), &[1, 2]);
        let other = TenantId::new("fabrikam").unwrap();
        let mut loud = SeenIndex::load(&store, &other, day(1), Arc::clone(&budget)).unwrap();
        take_in(&store, &mut loud, day(2), &[3, 4, 5]);
        assert!(quiet.contains(1) && quiet.contains(2));
        assert_eq!((loud.len(), budget.not_remembered()), (1, 2));
    }

    #[test]
    fn what_does_not_fit_at_start_leaves_the_store_with_the_next_commit() {
        let store = MemoryStore::new([0; 16]).unwrap();
        let mut index = load(&store, day(1), &SeenBudget::new(100));
        for number in 1..=4 {
            take_in(&store, &mut index, day(number), &[u64::from(number)]);
        }
        let budget = SeenBudget::new(2);
        let mut index = load(&store, day(4), &budget);
        assert!(!index.contains(2) && index.contains(3) && index.contains(4));
        take_in(&store, &mut index, day(4), &[]);
        assert_eq!(days_in_store(&store), [day(3), day(4)]);
    }
}
