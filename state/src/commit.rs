//! What is written together: the parts of a commit, and the positions of the outbox.

use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use exfilwatch_model::finding::FindingState;
use exfilwatch_model::{Cursor, Envelope, Gap, JobId, Kind, StreamId, TenantId, Verdict, WorkItem};
use serde::{Deserialize, Serialize};

/// Largest value of the store, in bytes: larger ones are never given back by sled, and above
/// 128 KiB it never syncs them.
pub const VALUE_BYTES_MAX: usize = 4 << 10;
/// Fingerprints in one seen chunk: 512 x 8 bytes = 4 KiB.
pub const SEEN_CHUNK_MAX: usize = 512;

/// A place in the outbox. Ordered as the outbox is.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    /// Number of the segment file.
    pub segment: u64,
    /// Byte offset of the frame in it.
    pub offset: u64,
    /// Item within the frame.
    pub item: u32,
}

/// Items of one kind and tenant that are appended to the outbox as one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the items are.
    pub kind: Kind,
    /// Whose they are.
    pub tenant: TenantId,
    /// The items, all of `kind` and `tenant`.
    pub items: Vec<Envelope>,
}

/// A lane: one emitter, one route, one kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LaneId {
    /// `kind.name` of the emitter (`splunk_hec.main`).
    pub emitter: String,
    /// Tenant or index the lane is for; `all` when it takes every tenant.
    pub route: String,
    /// What it carries.
    pub kind: Kind,
}

/// How far a lane has delivered: everything before `position` is confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneMark {
    /// The lane.
    pub lane: LaneId,
    /// First item not yet confirmed.
    pub position: Position,
    /// Items confirmed so far, for `status`.
    pub delivered: u64,
    /// Items that its filter left out so far, for `status`.
    #[serde(default)]
    pub excluded: u64,
    /// Gone from the configuration: kept for the record, holds no segments.
    pub retired: bool,
    /// Since when it has missed nothing of what it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unbroken: Option<Unbroken>,
}

/// Since when a lane has confirmed, or still holds, everything that it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unbroken {
    /// Since when it is so: since the lane began, or a stretch of the outbox was lost to it.
    pub since: DateTime<Utc>,
    /// What it takes, and where to, in words that are compared.
    pub terms: String,
}

/// An item of work that is finished; kept until the vendor no longer lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoneItem {
    /// The stream.
    pub stream: StreamId,
    /// Key of the item.
    pub key: String,
    /// When the entry may be forgotten.
    pub forget_after: DateTime<Utc>,
    /// It could not be had, and is not tried any more.
    pub given_up: bool,
}

/// Fingerprints of records that were committed, by day of arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenChunk {
    /// The tenant.
    pub tenant: TenantId,
    /// Day of arrival (`fetched_at`), for forgetting.
    pub day: NaiveDate,
    /// At most [`SEEN_CHUNK_MAX`].
    pub fingerprints: Vec<u64>,
}

/// A change of a detector's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowChange {
    /// Live, or a job.
    pub job: JobId,
    /// The tenant.
    pub tenant: TenantId,
    /// Id of the detector.
    pub detector: String,
    /// Key within the detector, at most 512 bytes.
    pub key: Vec<u8>,
    /// New value, at most [`VALUE_BYTES_MAX`]; `None` removes it.
    pub value: Option<Vec<u8>>,
}

/// How complete a stream is: everything before `at` is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    /// Live, or a job.
    pub job: JobId,
    /// The stream.
    pub stream: StreamId,
    /// Committed low-water.
    pub at: DateTime<Utc>,
}

/// What was not taken as a record. The bytes go to a file of ours, the entry to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Content-derived: the same bytes of the same stream again are the same entry.
    pub id: String,
    /// Where it comes from.
    pub stream: StreamId,
    /// Work item or lane it was found in.
    pub origin: String,
    /// Why, in one sentence.
    pub reason: String,
    /// When.
    pub at: DateTime<Utc>,
    /// The bytes. Empty when read back from the store (they are in `file`).
    pub bytes: Bytes,
    /// File name under `quarantine/`; set by the store.
    pub file: Option<String>,
    /// What it was on its way as, where a receiver refused it.
    pub item: Option<RefusedItem>,
    /// What became of it.
    pub fate: Fate,
}

/// With its bytes all that is needed to send an item again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedItem {
    /// The lane whose receiver refused it.
    pub lane: LaneId,
    /// Id of the item.
    pub id: String,
    /// Event time.
    pub time: Option<DateTime<Utc>>,
    /// When it was fetched.
    pub fetched_at: DateTime<Utc>,
}

/// What becomes of something in quarantine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Fate {
    /// It is kept until somebody decides.
    #[default]
    Kept,
    /// Its lane is to send it again.
    Again {
        /// Since when.
        at: DateTime<Utc>,
    },
    /// The receiver has taken it after all. Its bytes are no longer kept.
    Delivered {
        /// When.
        at: DateTime<Utc>,
    },
    /// Somebody decided that it is not needed. Its bytes are no longer kept.
    Dropped {
        /// When.
        at: DateTime<Utc>,
        /// Why.
        reason: String,
    },
}

impl Fate {
    /// Whether its bytes are no longer needed.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Kept | Self::Again { .. } => false,
            Self::Delivered { .. } | Self::Dropped { .. } => true,
        }
    }
}

/// When a subscription was last started (office365: one start per 15 minutes).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// The stream.
    pub stream: StreamId,
    /// Last start call.
    pub started_at: DateTime<Utc>,
}

/// A job and how far it is. `state` is the pipeline's own JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobState {
    /// The job.
    pub job: JobId,
    /// What it is to do and what is done, as JSON text of at most 3 KiB.
    pub state: String,
    /// Whether it is over.
    pub finished: bool,
}

/// A file that was forwarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMark {
    /// Name as given, for people.
    pub path: String,
    /// Digest of its content; the key.
    pub digest: String,
    /// Bytes of it that are committed.
    pub offset: u64,
    /// Whether all of it is.
    pub finished: bool,
}

/// What is written together. A group of commits is atomic as a whole: outbox frames, cursor, work
/// list, seen index, windows and findings of a page stand or fall as one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Commit {
    /// Items for the outbox.
    pub frames: Vec<Frame>,
    /// Listing cursors.
    pub cursors: Vec<(StreamId, Cursor)>,
    /// Items of work: new, or with another try noted.
    pub work: Vec<WorkItem>,
    /// Items that are finished: removed from the work list.
    pub done: Vec<DoneItem>,
    /// Fingerprints of the records in `frames`.
    pub seen: Vec<SeenChunk>,
    /// Days of the seen index to forget: everything of the tenant before the day.
    pub forget_seen_before: Vec<(TenantId, NaiveDate)>,
    /// Detector memory.
    pub windows: Vec<WindowChange>,
    /// Watermarks.
    pub watermarks: Vec<Watermark>,
    /// The finding table: new or updated entries.
    pub findings: Vec<(TenantId, FindingState)>,
    /// Entries of the finding table to forget.
    pub forget_findings: Vec<(TenantId, uuid::Uuid)>,
    /// What was said of findings.
    pub verdicts: Vec<(TenantId, Verdict)>,
    /// Verdicts to forget.
    pub forget_verdicts: Vec<(TenantId, uuid::Uuid)>,
    /// Gaps: new or changed, by their id.
    pub gaps: Vec<Gap>,
    /// Gaps that were joined to others, by stream and id; removed before `gaps` are entered.
    pub forget_gaps: Vec<(StreamId, String)>,
    /// What was not taken as a record.
    pub quarantined: Vec<Quarantined>,
    /// Subscription starts.
    pub subscriptions: Vec<Subscription>,
    /// Jobs.
    pub jobs: Vec<JobState>,
    /// Files.
    pub files: Vec<FileMark>,
    /// Marks of lanes.
    pub lanes: Vec<LaneMark>,
    /// Whether this commit tells of what opening found lost ([`crate::Opened::untold`]).
    pub told: bool,
}

impl Commit {
    /// Adds all of another commit, so that both stand or fall together.
    pub fn join(&mut self, other: Self) {
        self.frames.extend(other.frames);
        self.cursors.extend(other.cursors);
        self.work.extend(other.work);
        self.done.extend(other.done);
        self.seen.extend(other.seen);
        self.forget_seen_before.extend(other.forget_seen_before);
        self.windows.extend(other.windows);
        self.watermarks.extend(other.watermarks);
        self.findings.extend(other.findings);
        self.forget_findings.extend(other.forget_findings);
        self.verdicts.extend(other.verdicts);
        self.forget_verdicts.extend(other.forget_verdicts);
        self.gaps.extend(other.gaps);
        self.forget_gaps.extend(other.forget_gaps);
        self.quarantined.extend(other.quarantined);
        self.subscriptions.extend(other.subscriptions);
        self.jobs.extend(other.jobs);
        self.files.extend(other.files);
        self.lanes.extend(other.lanes);
        self.told |= other.told;
    }
}

impl Quarantined {
    /// An entry with its content-derived id: the same bytes of the same stream are the same entry.
    pub fn new(
        stream: StreamId,
        origin: String,
        reason: String,
        at: DateTime<Utc>,
        bytes: Bytes,
    ) -> Self {
        let mut name = stream.to_string().into_bytes();
        name.push(0);
        name.extend_from_slice(&bytes);
        if bytes.is_empty() {
            name.extend_from_slice(reason.as_bytes());
        }
        let id = uuid::Uuid::new_v5(&exfilwatch_model::identity::NAMESPACE, &name).to_string();
        Self {
            id,
            stream,
            origin,
            reason,
            at,
            bytes,
            file: None,
            item: None,
            fate: Fate::Kept,
        }
    }

    /// An item that the receiver of a lane refused: for each lane an entry of its own.
    pub fn refused(lane: LaneId, item: &Envelope, reason: String, at: DateTime<Utc>) -> Self {
        let origin = format!("{}:{}:{}", lane.emitter, lane.route, lane.kind.as_str());
        let name = format!("{origin}\0{}\0{}\0", item.stream, item.id);
        let name = [name.as_bytes(), &item.payload].concat();
        let id = uuid::Uuid::new_v5(&exfilwatch_model::identity::NAMESPACE, &name).to_string();
        let refused = RefusedItem {
            lane,
            id: item.id.clone(),
            time: item.time,
            fetched_at: item.fetched_at,
        };
        Self {
            id,
            item: Some(refused),
            ..Self::new(
                item.stream.clone(),
                origin,
                reason,
                at,
                item.payload.clone(),
            )
        }
    }

    /// The item as it was, where it is one and its bytes are at hand.
    pub fn envelope(&self, payload: Bytes) -> Option<Envelope> {
        let item = self.item.as_ref()?;
        Some(Envelope {
            kind: item.lane.kind,
            stream: self.stream.clone(),
            id: item.id.clone(),
            time: item.time,
            fetched_at: item.fetched_at,
            payload,
        })
    }
}
