//! The seam between the pipeline and a vendor: the traits, and errors by what the caller must do.

use std::borrow::Cow;
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::diagnosis::Check;
use exfilwatch_model::{
    Cursor, Event, FieldSet, Gap, Page, Product, RawRecord, RecordHead, Sight, StreamId, Window,
    WorkItem,
};
use futures::stream::BoxStream;

use crate::archive::{Archive, NoArchive};

/// Pages of one item, in order. The last one has [`Page::last`] set; a stream that ends with an
/// error or without such a page leaves the item in the work list.
pub type PageStream = BoxStream<'static, Result<Page, FetchError>>;

/// What one listing found.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Items to be stored in the work list. May repeat items that are known or done.
    pub items: Vec<WorkItem>,
    /// The cursor that covers them; stored in the same commit as the items.
    pub cursor: Cursor,
    /// Spans that the vendor no longer lists.
    pub gaps: Vec<Gap>,
    /// Whether `list` should be called again at once: the cursor is not yet at the present.
    pub more: bool,
    /// How the stream stands with the vendor, which may be otherwise than well though the listing
    /// worked and its cursor is to be kept.
    pub standing: Standing,
}

/// How a stream stands with the vendor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Standing {
    /// Content comes.
    #[default]
    Flowing,
    /// Content may not come yet, and that is as it should be.
    Waiting {
        /// What is waited for, since when, and how long it may take.
        what: String,
    },
    /// The vendor gives nothing: hold this stream only, tell the operator. The connector itself
    /// paces what it asks meanwhile, so `list` is called as usual.
    Held {
        /// What the vendor does.
        what: String,
        /// What to do, one sentence.
        help: String,
    },
    /// A stream that nobody asked for by name is not given to us. Nothing is wrong: it is told, and
    /// asked for again; neither lag nor a gap is counted.
    Withheld(Withheld),
}

/// Why a stream that nobody asked for by name is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld {
    /// What the vendor says.
    pub what: String,
    /// What to do where it is wanted, one sentence.
    pub help: String,
}

impl std::fmt::Display for Withheld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "not read: {}; where it is wanted: {}",
            self.what, self.help
        )
    }
}

/// Why listing or fetching did not work, by what the caller must do.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Try again after a back-off; `after` is the vendor's wish.
    #[error("{what}")]
    Retry {
        /// What was tried, on what, why it failed.
        what: String,
        /// `Retry-After`, capped.
        after: Option<Duration>,
    },
    /// The quota is used up: pause the quota key, do not count an attempt.
    #[error("{what}")]
    Throttled {
        /// What was tried and the vendor's words.
        what: String,
        /// `Retry-After`, capped.
        after: Option<Duration>,
    },
    /// Credentials were refused: hold what depends on them, try slowly, tell the operator.
    #[error("{what}")]
    Auth {
        /// The vendor's code and words.
        what: String,
        /// What to do, one sentence.
        help: String,
    },
    /// A permission is missing: hold this stream only, try slowly, tell the operator.
    #[error("{what}")]
    Permission {
        /// The vendor's code and words.
        what: String,
        /// What to do, one sentence.
        help: String,
    },
    /// The vendor says auditing is off, or not yet set up: hold the tenant, try hourly.
    #[error("{what}")]
    AuditingDisabled {
        /// The vendor's words.
        what: String,
        /// What to do, one sentence.
        help: String,
    },
    /// This request is refused for a reason that is neither credential nor permission (a content
    /// type that does not exist, a parameter that is not understood): hold this stream only, try
    /// slowly, tell the operator.
    #[error("{what}")]
    Hold {
        /// The vendor's code and words.
        what: String,
        /// What to do, one sentence.
        help: String,
    },
    /// The vendor no longer has the item: note the loss, drop the item.
    #[error("{what}")]
    Gone {
        /// What is gone and when it expired.
        what: String,
    },
    /// A search of an archive does not give all there is, or not reliably: halve its span and search
    /// again ([`crate::Archive`]). Comes from nothing else.
    #[error("{what}")]
    Truncated {
        /// What was searched, and how the answer was seen to be cut.
        what: String,
    },
    /// The item can never be fetched as it is (hostile URL, over the size limit): quarantine it.
    #[error("{what}")]
    Poison {
        /// What is wrong with it.
        what: String,
    },
}

impl FetchError {
    /// What the operator can do, where that is known.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Auth { help, .. }
            | Self::Permission { help, .. }
            | Self::AuditingDisabled { help, .. }
            | Self::Hold { help, .. } => Some(help),
            Self::Retry { .. }
            | Self::Throttled { .. }
            | Self::Gone { .. }
            | Self::Poison { .. }
            | Self::Truncated { .. } => None,
        }
    }
}

/// A record that could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NormaliseError {
    /// Not a JSON object: quarantine it.
    #[error("not a JSON object: {0}")]
    NotAnObject(String),
}

/// Reads records of one product. Pure: the same record gives the same answer for ever.
pub trait RecordReader: Sight + Send + Sync + Debug {
    /// The product whose records these are.
    fn product(&self) -> Product;

    /// The operations in a record, by the cheapest look that finds them. Does not validate the
    /// record. For filtering where nothing is forwarded.
    fn operations<'a>(&self, record: &'a RawRecord) -> Result<Vec<Cow<'a, str>>, NormaliseError>;

    /// Whether an actor, as a head has it, is known to be outside the tenant; cheap. False where that
    /// cannot be told.
    fn is_outside(&self, _actor: &str) -> bool {
        false
    }

    /// Identity, time, operations, actor and digest. Validates the whole record.
    fn head<'a>(&self, record: &'a RawRecord) -> Result<RecordHead<'a>, NormaliseError>;

    /// The events of a record. Only for records that a detector wants. Missing or odd members
    /// never make it fail. `fetched_at` stands in for an event time that is absent.
    fn normalise(
        &self,
        record: &RawRecord,
        fetched_at: DateTime<Utc>,
    ) -> Result<Vec<Event>, NormaliseError> {
        self.normalise_for(record, fetched_at, &FieldSet::all())
    }

    /// The same events, of whose fields only the asked ones are looked at: of the vendor's own
    /// fields others may be missing.
    fn normalise_for(
        &self,
        record: &RawRecord,
        fetched_at: DateTime<Utc>,
        asked: &FieldSet,
    ) -> Result<Vec<Event>, NormaliseError>;
}

/// How much [`Connector::diagnose`] looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The token and what it allows.
    Access,
    /// The service as well.
    Service,
}

/// Over which span, and how often, a stream is listed again for what came late. The hot span is
/// listed again at each poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Span before the cursor that every poll lists again.
    pub hot: TimeDelta,
    /// Longer span that is listed again every [`Schedule::overlap_every`].
    pub overlap: TimeDelta,
    /// See [`Schedule::overlap`].
    pub overlap_every: TimeDelta,
    /// Longest span, listed again every [`Schedule::retention_every`].
    pub retention: TimeDelta,
    /// See [`Schedule::retention`].
    pub retention_every: TimeDelta,
}

impl Schedule {
    /// Availability windows of office365: 5 minutes, 1 hour each 15 minutes, the retention daily.
    pub const OFFICE365: Self = Self {
        hot: TimeDelta::minutes(5),
        overlap: TimeDelta::hours(1),
        overlap_every: TimeDelta::minutes(15),
        retention: TimeDelta::minutes(167 * 60 + 55),
        retention_every: TimeDelta::days(1),
    };
}

/// What reading a past range of a stream takes, for plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Requests a minute that the quota key allows.
    pub requests_per_minute: u32,
    /// How far back the vendor gives records.
    pub reach: TimeDelta,
    /// Span that one listing request covers; `None` where listing asks the vendor nothing.
    pub listing_span: Option<TimeDelta>,
    /// Most records that one request brings; `None` where an item is one request.
    pub page_records: Option<u64>,
}

/// A vendor's audit log. Implementations keep no durable state and may be called again after any
/// failure: the store decides what is done.
#[async_trait]
pub trait Connector: Send + Sync + Debug {
    /// The kind, as in the configuration (`office365`).
    fn kind(&self) -> &'static str;

    /// The streams this connector was configured for.
    fn streams(&self) -> Vec<StreamId>;

    /// Requests of streams with the same key share one quota.
    fn quota_key(&self) -> String;

    /// How often what is listed again. Google's connector gives its applications' overlaps.
    fn schedule(&self, _stream: &StreamId) -> Schedule {
        Schedule::OFFICE365
    }

    /// What reading a past range of a stream takes; `None` where that is not known.
    fn cost(&self, _stream: &StreamId) -> Option<Cost> {
        None
    }

    /// How long the vendor keeps what it lists.
    fn kept(&self, _stream: &StreamId) -> TimeDelta {
        TimeDelta::days(7)
    }

    /// How long after an instant the listing of it may still change, on the axis of the listing. A
    /// span counts as complete only when it was listed again after that.
    fn settle(&self, _stream: &StreamId) -> TimeDelta {
        TimeDelta::days(1)
    }

    /// How long to wait between two polls of a stream.
    fn poll_interval(&self) -> Duration {
        Duration::from_mins(1)
    }

    /// How many items of this connector are fetched at the same time, over all its streams.
    fn fetch_concurrency(&self) -> usize {
        4
    }

    /// The cursor from which `list` covers `window` (until now where `window` ends later).
    fn first_cursor(&self, stream: &StreamId, window: Window) -> Cursor;

    /// Finds work: items and the cursor that covers them. Idempotent. `cursor` comes from the
    /// store or from [`Connector::first_cursor`]. A wrong implementation that moves the cursor
    /// past items it did not return loses them.
    async fn list(&self, stream: &StreamId, cursor: &Cursor) -> Result<Listing, FetchError>;

    /// Looks again over a span that is already listed, for what came late. Items that are known or
    /// done may come again; the caller drops them.
    async fn relist(&self, stream: &StreamId, window: Window) -> Result<Vec<WorkItem>, FetchError>;

    /// Turns one item into pages. Idempotent.
    async fn fetch(&self, item: &WorkItem) -> Result<PageStream, FetchError>;

    /// Why a stream that nobody asked for by name is not read; jobs leave it out then. `None` also
    /// where that cannot be said now.
    async fn withheld(&self, _stream: &StreamId) -> Option<Withheld> {
        None
    }

    /// What the vendor keeps beyond what [`Connector::list`] gives, for gaps and for what is older;
    /// or why there is no such thing.
    fn archive(&self) -> Result<&dyn Archive, NoArchive> {
        Err(NoArchive(format!(
            "{} keeps nothing beyond what is listed",
            self.kind()
        )))
    }

    /// Looks at what may be wrong between us and the vendor, for `auth check` and `doctor`: first
    /// whether a token is to be had and what it allows, then, if asked for, what the service gives.
    /// Changes nothing at the vendor, keeps nothing, waits for no quota. The subject of the checks
    /// is left to the caller.
    async fn diagnose(&self, _depth: Depth) -> Vec<Check> {
        Vec::new()
    }

    /// Reads this connector's records.
    fn records(&self) -> &dyn RecordReader;
}
