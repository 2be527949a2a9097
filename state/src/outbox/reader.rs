//! Readers of the outbox: from a position up to the published end, one kind, some tenants.
//!
//! A reader holds one frame in memory at most. Bodies of frames it does not want are not read. What
//! cannot be read is reported as [`Damage`] and passed over, never silently.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use exfilwatch_model::{Envelope, Kind, Patterns, TenantId};

use super::frame::{self, Head};
use super::walk::{Damage, FrameWalk};
use crate::commit::Position;
use crate::contract::StateError;

/// Frames looked at in one call; then the reader returns what it has.
const FRAMES_PER_CALL_MAX: usize = 4_096;

/// Which frames a lane wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// What it carries.
    pub kind: Kind,
    /// Whose items.
    pub tenants: Tenants,
}

/// Whose items a lane takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tenants {
    /// Those that all lists take.
    Matching {
        /// The lists; none takes every tenant.
        lists: Vec<Patterns>,
        /// Tenants with a lane of their own: all of their frames, or those below a position.
        except: BTreeMap<TenantId, Option<Position>>,
    },
    /// One tenant's.
    One(TenantId),
}

impl Tenants {
    /// Every tenant's.
    pub fn all() -> Self {
        Self::Matching {
            lists: Vec::new(),
            except: BTreeMap::new(),
        }
    }

    /// Whether it takes a frame of the tenant that begins at a position.
    fn take(&self, tenant: &TenantId, at: Position) -> bool {
        match self {
            Self::One(one) => one == tenant,
            Self::Matching { lists, except } => {
                let parted = match except.get(tenant) {
                    None => false,
                    Some(None) => true,
                    Some(Some(until)) => at < *until,
                };
                !parted && lists.iter().all(|list| list.take(tenant.as_str()))
            }
        }
    }
}

impl Filter {
    /// Whether some frame of this kind and tenant may be wanted, wherever it is.
    pub(crate) fn may_want(&self, kind: Kind, tenant: &TenantId) -> bool {
        self.kind == kind
            && match &self.tenants {
                Tenants::One(one) => one == tenant,
                Tenants::Matching { lists, .. } => {
                    let mut lists = lists.iter();
                    self.is_of_all(tenant) || lists.all(|list| list.take(tenant.as_str()))
                }
            }
    }

    fn wants(&self, at: Position, head: &Head) -> bool {
        let tenant = &head.tenant;
        self.kind == head.kind && (self.is_of_all(tenant) || self.tenants.take(tenant, at))
    }

    /// What is told of ourselves and is about no tenant goes to whoever is told of ourselves, whatever the
    /// lists.
    fn is_of_all(&self, tenant: &TenantId) -> bool {
        self.kind == Kind::Internal
            && tenant.as_str() == TenantId::NONE
            && matches!(self.tenants, Tenants::Matching { .. })
    }
}

/// An item that waits for delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The item.
    pub envelope: Envelope,
    /// Where the next one begins: the lane's mark once this item and all before it are confirmed.
    pub after: Position,
}

/// What a call of [`OutboxReader::read`] gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Items, in order.
    pub items: Vec<Pending>,
    /// How far the reader has come, frames of others included. When nothing is in flight the
    /// lane's mark may go there; below the end means that there is more to read.
    pub next: Position,
    /// What was passed over.
    pub damage: Vec<Damage>,
}

/// One lane's view of the outbox.
#[derive(Debug)]
pub struct OutboxReader {
    folder: PathBuf,
    walk: FrameWalk,
    filter: Filter,
    current: Option<Current>,
    position: Position,
}

/// The frame that is being handed out.
#[derive(Debug)]
struct Current {
    head: Head,
    rest: Bytes,
    at: Position,
    next_frame: Position,
}

impl OutboxReader {
    /// A reader of the outbox in `folder` that begins at `from`.
    pub fn new(folder: &Path, from: Position, filter: Filter) -> Self {
        Self {
            folder: folder.to_owned(),
            walk: FrameWalk::new(folder, from),
            filter,
            current: None,
            position: from,
        }
    }

    /// Goes back to `to`. After an error of [`OutboxReader::read`] the reader may have passed items
    /// that it did not give; going back to where the call began reads them again.
    pub fn rewind(&mut self, to: Position) {
        self.walk = FrameWalk::new(&self.folder, to);
        self.current = None;
        self.position = to;
    }

    /// Leaves out a tenant's frames from now on: all, or those below `until`; also what is left of one in
    /// hand. Of a reader of one tenant it changes nothing.
    pub fn leave_out(&mut self, tenant: TenantId, until: Option<Position>) {
        if let Tenants::Matching { except, .. } = &mut self.filter.tenants {
            let in_hand = self
                .current
                .take_if(|current| current.head.tenant == tenant);
            if let Some(current) = in_hand {
                self.position = current.next_frame;
            }
            except.insert(tenant, until);
        }
    }

    /// Takes a tenant's frames again that were left out.
    pub fn take_again(&mut self, tenant: &TenantId) {
        if let Tenants::Matching { except, .. } = &mut self.filter.tenants {
            except.remove(tenant);
        }
    }

    /// What it reads.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Where the next item begins.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Reads on, up to `end` (a published one), until it has `items_max` items or `bytes_max`
    /// bytes of payload. Blocks on the disk only.
    pub fn read(
        &mut self,
        end: Position,
        items_max: usize,
        bytes_max: usize,
    ) -> Result<Delivery, StateError> {
        let mut delivery = Delivery::default();
        let mut bytes = 0;
        for _ in 0..FRAMES_PER_CALL_MAX {
            while delivery.items.len() < items_max.max(1) && bytes < bytes_max.max(1) {
                let Some(pending) = self.next_of_current(&mut delivery.damage) else {
                    break;
                };
                bytes += pending.envelope.payload.len();
                delivery.items.push(pending);
            }
            if self.current.is_some() || !self.next_frame(end, &mut delivery.damage)? {
                break;
            }
        }
        delivery.next = self.position;
        Ok(delivery)
    }

    /// The next item of the current frame; `None` when the frame is used up.
    fn next_of_current(&mut self, damage: &mut Vec<Damage>) -> Option<Pending> {
        let current = self.current.as_mut()?;
        let at = current.at;
        let Some(envelope) = frame::decode_item(&current.head, &mut current.rest) else {
            damage.push(Damage {
                from: at,
                until: current.next_frame,
                reason: "an item of a frame does not read".to_owned(),
            });
            self.position = current.next_frame;
            self.current = None;
            return None;
        };
        current.at.item = at.item.saturating_add(1);
        let after = if current.rest.is_empty() {
            current.next_frame
        } else {
            current.at
        };
        if current.rest.is_empty() {
            self.current = None;
        }
        self.position = after;
        Some(Pending { envelope, after })
    }

    /// Goes to the next frame. False at the end.
    fn next_frame(&mut self, end: Position, damage: &mut Vec<Damage>) -> Result<bool, StateError> {
        let skip = self.position.item;
        let Some((at, head)) = self.walk.next(end, damage)? else {
            self.position = self.walk.position();
            return Ok(false);
        };
        let next_frame = self.walk.position();
        self.position = next_frame;
        if head.is_filler() || !self.filter.wants(at, &head) {
            return Ok(true);
        }
        let Some(mut rest) = self.walk.body(at, &head)? else {
            damage.push(Damage {
                from: at,
                until: next_frame,
                reason: format!("{} items of a frame are damaged", head.items),
            });
            return Ok(true);
        };
        // A mark inside the frame: the items before it are confirmed.
        let mut item = 0;
        while item < skip && frame::skip_item(&mut rest).is_some() {
            item += 1;
        }
        if !rest.is_empty() {
            let at = Position { item, ..at };
            self.position = at;
            self.current = Some(Current {
                head,
                rest,
                at,
                next_frame,
            });
        }
        Ok(true)
    }
}
