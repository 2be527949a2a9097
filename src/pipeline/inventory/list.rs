//! The inventory as it is asked for: from what is committed, be the process running or not.

use std::cmp::Reverse;

use chrono::{DateTime, Utc};
use exfilwatch_model::{JobId, TenantId, field};
use exfilwatch_state::{StateError, StateStore};
use serde::{Deserialize, Serialize};

use super::slot::{Destination, Slot, WHOLE};
use super::things::Thing;
use super::{Inventory, Room, forwarding, sharing};

/// Most lines of an answer; the rest is counted.
const LINES_MAX: usize = 5_000;

/// Something that stands open, or forwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Whose it is.
    pub tenant: TenantId,
    /// The mailbox or document.
    pub of: String,
    /// `smtp_address`, `inbox_rule`, `transport_rule`, …; of a document `grant` or `visibility`.
    pub via: String,
    /// Name of the rule; of a document its title.
    pub name: Option<String>,
    /// Where mail goes, or whom a document is open to.
    pub to: Vec<Destination>,
    /// There are more destinations than these.
    pub more: bool,
    /// What kind of outside a grantee is: `anyone`, `guest`, `free_mail`, …
    pub class: Option<String>,
    /// The role that was granted.
    pub role: Option<String>,
    /// The document's owner.
    pub owner: Option<String>,
    /// When the last record set it.
    pub since: DateTime<Utc>,
    /// Who did that.
    pub by: Option<String>,
    /// By what operation.
    pub operation: Option<String>,
    /// The record that says so.
    pub record_id: String,
    /// The hour in which somebody outside was last seen to open the document.
    pub last_access: Option<DateTime<Utc>>,
    /// Who that was.
    pub last_access_by: Option<String>,
    /// Why it may be over all the same.
    pub doubt: Option<String>,
}

impl Line {
    /// Whether somebody has to do with it: as owner, by having set it, or at its other end.
    fn is_about(&self, who: &str) -> bool {
        let named = [Some(&self.of), self.by.as_ref(), self.owner.as_ref()];
        let ends = self.to.iter().map(|to| &to.address);
        let mut all = named.into_iter().flatten().chain(ends);
        all.any(|name| name.eq_ignore_ascii_case(who))
    }

    /// What is most exposed first: mail that goes outside, links for anyone.
    fn exposure(&self) -> u8 {
        let directions = || self.to.iter().map(|to| to.direction.as_str());
        match self.class.as_deref() {
            Some("anyone") => 0,
            _ if directions().any(|direction| direction == "external") => 1,
            _ if directions().any(|direction| direction == "internal") => 3,
            _ => 2,
        }
    }
}

/// Lines, the most exposed first and of those the latest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// At most so many as are shown.
    pub lines: Vec<Line>,
    /// What is not shown.
    pub left_out: u64,
    /// Open entries that had to go because there were too many, since the beginning.
    pub evicted: u64,
}

/// What is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Asked {
    /// Of what.
    pub room: Room,
    /// Of whom; `None` for all.
    pub tenant: Option<TenantId>,
    /// Only what this person owns, has set, or is given.
    pub actor: Option<String>,
    /// At most so many lines.
    pub limit: usize,
}

/// The inventory by the store.
pub fn list(store: &dyn StateStore, asked: &Asked) -> Result<Listing, StateError> {
    let mut listing = Listing::default();
    for tenant in store.tenants_with_memory(&JobId::inventory())? {
        if asked.tenant.as_ref().is_none_or(|wanted| *wanted == tenant) {
            let inventory = Inventory::load(store, &tenant)?;
            listing.add(&tenant, &inventory, asked);
        }
    }
    Ok(listing.cut(asked))
}

/// One tenant's inventory that is in no store.
pub fn list_of(tenant: &TenantId, inventory: &Inventory, asked: &Asked) -> Listing {
    let mut listing = Listing::default();
    listing.add(tenant, inventory, asked);
    listing.cut(asked)
}

impl Listing {
    fn add(&mut self, tenant: &TenantId, inventory: &Inventory, asked: &Asked) {
        let Some(things) = inventory.rooms.get(&asked.room) else {
            return;
        };
        self.evicted += things.evicted;
        for thing in things.iter() {
            let lines: Vec<Line> = match asked.room {
                Room::Forwarding => forwarding::open(thing)
                    .map(|slot| forwarding_line(tenant, thing, slot))
                    .collect(),
                Room::Sharing => sharing::open(thing)
                    .map(|slot| sharing_line(tenant, thing, slot))
                    .collect(),
            };
            let wanted = |line: &Line| asked.actor.as_ref().is_none_or(|who| line.is_about(who));
            self.lines.extend(lines.into_iter().filter(wanted));
        }
    }

    fn cut(mut self, asked: &Asked) -> Self {
        self.lines.sort_by_cached_key(|line| {
            let place = (line.of.clone(), line.via.clone(), line.to.clone());
            (line.exposure(), Reverse(line.since), place)
        });
        let limit = asked.limit.min(LINES_MAX);
        self.left_out = self.lines.len().saturating_sub(limit) as u64;
        self.lines.truncate(limit);
        self
    }
}

/// `by` is what the record said by which it came into force.
fn line(tenant: &TenantId, slot: &Slot, by: &Slot) -> Line {
    let fact = |name: &str| by.facts.get(name).cloned();
    Line {
        tenant: tenant.clone(),
        of: slot.id.of.clone(),
        via: slot.id.via.clone(),
        name: None,
        to: slot.to.iter().cloned().collect(),
        more: slot.more,
        class: fact(field::EXTERNAL_CLASS),
        role: fact(field::ROLE),
        owner: fact(field::OWNER),
        since: by.switched.time,
        by: fact(field::ACTOR),
        operation: fact(field::OPERATION),
        record_id: by.switched.record.clone(),
        last_access: None,
        last_access_by: None,
        doubt: None,
    }
}

fn forwarding_line(tenant: &TenantId, thing: &Thing, slot: &Slot) -> Line {
    let name = Some(slot.id.name.clone()).filter(|name| !name.is_empty());
    Line {
        name,
        doubt: forwarding::doubt(thing, slot),
        ..line(tenant, slot, forwarding::last(thing, slot))
    }
}

fn sharing_line(tenant: &TenantId, thing: &Thing, slot: &Slot) -> Line {
    let fact = |name: &str| slot.facts.get(name).cloned();
    let is_whole = slot.id.via == WHOLE;
    let to = if is_whole {
        fact(field::VISIBILITY)
    } else {
        fact(field::TARGET)
    };
    let access = thing.slot(sharing::ACCESS, "");
    let line = line(tenant, slot, slot);
    Line {
        via: if is_whole {
            field::VISIBILITY
        } else {
            sharing::GRANT
        }
        .to_owned(),
        name: fact(field::OBJECT_NAME),
        to: to
            .map(|address| Destination {
                direction: "external".to_owned(),
                address,
            })
            .into_iter()
            .collect(),
        last_access: access.map(|access| access.switched.time),
        last_access_by: access.and_then(|access| access.facts.get(field::ACTOR).cloned()),
        doubt: is_whole.then(|| "with whom was not seen, only that it is".to_owned()),
        ..line
    }
}
