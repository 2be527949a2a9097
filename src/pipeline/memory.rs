//! What a tenant's live line and its jobs remember together: the seen index, the finding table, the
//! inventory.
//! Follows the store: it changes after a commit, and is read anew after one that failed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::NaiveDate;
use exfilwatch_model::TenantId;
use exfilwatch_model::finding::FindingState;
use exfilwatch_state::{SeenBudget, SeenIndex, StateError, StateStore, WindowChange};
use uuid::Uuid;

use super::inventory::Inventory;
use super::sightings::Sightings;

/// Memory of one tenant. Clones are the same memory.
#[derive(Debug, Clone)]
pub struct TenantMemory {
    tenant: TenantId,
    budget: Arc<SeenBudget>,
    seen: Arc<Mutex<SeenIndex>>,
    table: Arc<Mutex<HashMap<Uuid, FindingState>>>,
    lessons: Arc<Mutex<Vec<WindowChange>>>,
    sightings: Arc<Mutex<Sightings>>,
    inventory: Arc<Mutex<Inventory>>,
    inventory_writer: Arc<tokio::sync::Mutex<()>>,
}

impl TenantMemory {
    /// Reads it from the store. `today` decides which days of the seen index are still held.
    pub fn load(
        store: &dyn StateStore,
        tenant: TenantId,
        today: NaiveDate,
        budget: Arc<SeenBudget>,
    ) -> Result<Self, StateError> {
        let seen = SeenIndex::load(store, &tenant, today, budget.clone())?;
        let inventory = Inventory::load(store, &tenant)?;
        let memory = Self {
            tenant,
            budget,
            seen: Arc::new(Mutex::new(seen)),
            table: Arc::default(),
            lessons: Arc::default(),
            sightings: Arc::default(),
            inventory: Arc::new(Mutex::new(inventory)),
            inventory_writer: Arc::default(),
        };
        memory.reload_table(store)?;
        Ok(memory)
    }

    /// Reads it anew, after a commit that failed.
    pub fn reload(&self, store: &dyn StateStore, today: NaiveDate) -> Result<(), StateError> {
        let seen = SeenIndex::load(store, &self.tenant, today, self.budget.clone())?;
        *self.seen() = seen;
        self.reload_table(store)
    }

    fn reload_table(&self, store: &dyn StateStore) -> Result<(), StateError> {
        let states = store.findings(&self.tenant)?;
        *self.table() = states.into_iter().map(|state| (state.uid, state)).collect();
        *self.sightings() = Sightings::load(store, &self.tenant)?;
        Ok(())
    }

    /// The tenant.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Fingerprints of committed records.
    pub fn seen(&self) -> MutexGuard<'_, SeenIndex> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What jobs have seen of the past and the live line has not yet taken in.
    pub fn lessons(&self) -> MutexGuard<'_, Vec<WindowChange>> {
        self.lessons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When each operation was last seen.
    pub fn sightings(&self) -> MutexGuard<'_, Sightings> {
        self.sightings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How things stand. Unlike the rest it is not read anew after a commit that failed: it keeps what it
    /// knows beyond the store, which is true in any case and written with the commit that comes instead.
    pub fn inventory(&self) -> MutexGuard<'_, Inventory> {
        self.inventory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Held from reading what is to be written of the inventory until it is: two lines' commits of one
    /// slot come into the store in that order.
    pub async fn inventory_writer(&self) -> tokio::sync::OwnedMutexGuard<()> {
        self.inventory_writer.clone().lock_owned().await
    }

    /// What was sent of each finding.
    pub fn table(&self) -> MutexGuard<'_, HashMap<Uuid, FindingState>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
