//! The vocabulary of exfilwatch: the types every other crate speaks.
//!
//! Nothing here does I/O and nothing is async. A word means one thing in the whole project
//! (docs/ARCHITECTURE.md, "Words"): a *record* is the vendor's, raw and untouched; an *event* is
//! ours, flat; a *finding* is what a detector says about events.
#![warn(missing_docs)]

pub mod asked;
pub mod clock;
pub mod delivery;
pub mod diagnosis;
pub mod domains;
pub mod event;
pub mod finding;
pub mod gap;
mod glance;
pub mod identity;
pub mod lists;
pub mod live_domains;
mod look;
mod lookalike;
pub mod names;
mod namesake;
pub mod network;
pub mod pattern;
mod provenance;
pub mod record;
pub mod secret;
pub mod verdict;
pub mod work;

pub use asked::{Claim, FieldSet};
pub use clock::{Clock, RatedClock, SystemClock, Window};
pub use delivery::{Envelope, Kind};
pub use domains::{Domains, Party, PartyClass};
pub use event::{Event, Value, field};
pub use finding::{
    Evidence, Finding, FindingState, Mode, RuleFacts, Severity, Suppression, UpdateReason,
};
pub use gap::{Gap, GapCause, GapState};
pub use glance::Glance;
pub use identity::finding_uid;
pub use lists::{Lists, Person, Place, Places};
pub use live_domains::LiveDomains;
pub use look::{Look, Sight};
pub use names::{JobId, NameError, Product, StreamId, TenantId};
pub use pattern::{Pattern, Patterns};
pub use provenance::{MessagePart, Provenance};
pub use record::{Malformed, Page, RawRecord, RecordHead};
pub use secret::SecretSource;
pub use verdict::{Judgement, Verdict};
pub use work::{Cursor, WorkItem};
