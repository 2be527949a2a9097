//! The inventory: not what happened but how things stand. Who forwards mail where, and which documents are
//! open to whom outside, as far as the records say.
//!
//! A *thing* is a mailbox or a document; what can be on or off of it is a *slot*: a rule, a grantee, the
//! thing as a whole. What a record says of a slot is folded in so that the latest event time wins: the
//! result is a function of the set of records, whatever their order and however often they come. What is
//! off is kept too, or an older record that comes late would switch it on again. Beyond its bound a room
//! lets go what nothing is known to be open of, then what was silent longest; that is counted.
//!
//! The step folds; the slots that changed are written in the commit that holds the page
//! ([`crate::pipeline::ingest`]). The poller and its jobs share one inventory.

mod forwarding;
mod list;
mod sharing;
mod slot;
mod things;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use exfilwatch_connectors::RecordReader;
use exfilwatch_model::{
    Claim, Event, Glance, JobId, Product, RawRecord, RecordHead, TenantId, field,
};
use exfilwatch_state::{StateError, StateStore, WindowChange};
use serde::{Deserialize, Serialize};

use slot::Said;
use things::{SlotKey, Things};

pub use list::{Asked, Line, Listing, list, list_of};

/// What is kept an account of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Room {
    /// Who forwards mail where.
    Forwarding,
    /// Which documents are open to whom outside.
    Sharing,
}

impl Room {
    const ALL: [Self; 2] = [Self::Forwarding, Self::Sharing];

    /// Most slots of a tenant.
    const fn slots_max(self) -> usize {
        match self {
            Self::Forwarding => 20_000,
            Self::Sharing => 50_000,
        }
    }

    /// Under which name it stands beside the detectors' memory.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Forwarding => "inventory.forwarding",
            Self::Sharing => "inventory.sharing",
        }
    }
}

/// Slots that were changed, or had to go.
type Changed = BTreeSet<(Room, SlotKey)>;

/// The inventory of one tenant. It knows what of it the store does not have, so that a commit that fails
/// loses nothing: it is written with the next one of whatever session.
#[derive(Debug)]
pub struct Inventory {
    rooms: BTreeMap<Room, Things>,
    changed: Changed,
    /// What a commit is under way with, or failed with.
    writing: Changed,
}

impl Default for Inventory {
    fn default() -> Self {
        let rooms = Room::ALL.map(|room| (room, Things::new(room)));
        Self {
            rooms: rooms.into(),
            changed: Changed::new(),
            writing: Changed::new(),
        }
    }
}

impl Inventory {
    /// Reads it from the store. What cannot be read is left out aloud.
    pub fn load(store: &dyn StateStore, tenant: &TenantId) -> Result<Self, StateError> {
        let mut inventory = Self::default();
        for entry in store.windows(&JobId::inventory(), tenant)? {
            let room = Room::ALL.into_iter().find(|r| r.as_str() == entry.detector);
            let things = room.and_then(|room| inventory.rooms.get_mut(&room));
            let value = entry.value.unwrap_or_default();
            if let Some(things) = things
                && let Err(error) = things.restore(&entry.key, &value)
            {
                tracing::warn!(%error, %tenant, room = entry.detector, "an entry of the inventory was left out");
            }
        }
        for things in inventory.rooms.values_mut() {
            things.restored();
        }
        Ok(inventory)
    }

    /// Takes in what the events of a record say that [`wants`] let through.
    pub fn fold(&mut self, events: &[Event]) {
        for said in events.iter().flat_map(said) {
            let room = said.room;
            if let Some(things) = self.rooms.get_mut(&room) {
                let keys = things.fold(said).into_iter();
                self.changed.extend(keys.map(|key| (room, key)));
            }
        }
    }

    /// Whether the store has all of it.
    pub fn is_written(&self) -> bool {
        self.changed.is_empty() && self.writing.is_empty()
    }

    /// What the store does not have of it: how the slots stand now. It is asked again for the same until
    /// [`Inventory::written`].
    pub fn to_write(&mut self, tenant: &TenantId) -> Vec<WindowChange> {
        self.writing.append(&mut self.changed);
        let one = |(room, key): &(Room, SlotKey)| WindowChange {
            job: JobId::inventory(),
            tenant: tenant.clone(),
            detector: room.as_str().to_owned(),
            key: key.bytes(),
            value: self.rooms.get(room).and_then(|things| things.value(key)),
        };
        self.writing.iter().map(one).collect()
    }

    /// The store has what [`Inventory::to_write`] gave last.
    pub fn written(&mut self) {
        self.writing.clear();
    }
}

fn said(event: &Event) -> Vec<Said> {
    let mut said = sharing::said(event);
    said.extend(forwarding::said(event));
    said
}

/// Tells of records whether they may say something of the inventory; cheap.
#[derive(Debug, Default)]
pub struct Wants {
    /// How forwarding shows in records of a cmdlet, of those met.
    cmdlets: HashMap<String, Glance>,
}

/// Most cmdlets that are remembered; their names come from outside.
const CMDLETS_MAX: usize = 256;

impl Wants {
    /// Whether this one may.
    pub fn record(
        &mut self,
        reader: &dyn RecordReader,
        record: &RawRecord,
        head: &RecordHead<'_>,
    ) -> bool {
        let actor = head.actor.as_deref();
        head.operations.iter().any(|operation| match head.product {
            Product::M365 => {
                let may_forward = || self.may_forward(reader, record, operation);
                forwarding::is_of_exchange(operation, may_forward)
                    || sharing::is_of_sharepoint(operation)
                    || sharing::is_access(head.product, operation) && sharing::is_guest(actor)
            }
            Product::GoogleWorkspace => {
                forwarding::is_of_google(operation)
                    || sharing::is_of_drive(operation)
                    || sharing::is_access(head.product, operation)
                        && actor.is_none_or(|actor| reader.is_outside(actor))
            }
        })
    }

    fn may_forward(
        &mut self,
        reader: &dyn RecordReader,
        record: &RawRecord,
        operation: &str,
    ) -> bool {
        if let Some(known) = self.cmdlets.get(operation) {
            return known.may_be(record.bytes(), reader);
        }
        let glance = Glance::new(&reader.look(operation, Claim::Has(field::FORWARD_PATH)));
        let may_be = glance.may_be(record.bytes(), reader);
        if self.cmdlets.len() < CMDLETS_MAX {
            self.cmdlets.insert(operation.to_owned(), glance);
        }
        may_be
    }
}

#[cfg(test)]
mod tests;
