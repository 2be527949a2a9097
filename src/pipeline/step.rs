//! The step: the only function that reads the seen index, calls normalise and detect, and builds
//! a commit. Deterministic: time comes in with the input, never from a clock.
//!
//! It changes detector memory as it goes; that memory counts only once the commit is durable. On a
//! failed commit the owner throws the step away and builds it anew from the store.

mod lessons;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_connectors::RecordReader;
use exfilwatch_detectors::updates::{Revision, close, close_due, last_word, revise};
use exfilwatch_detectors::{Baseline, Counters, Engine, RuleSet};
use exfilwatch_model::finding::FindingState;
use exfilwatch_model::record::fingerprint_of_bytes;
use exfilwatch_model::{
    Envelope, Finding, JobId, Kind, Malformed, Mode, Page, Product, RawRecord, RecordHead,
    StreamId, TenantId, Window,
};
use exfilwatch_state::{
    Commit, Frame, Quarantined, SEEN_DAYS, SeenPlan, StateError, StateStore, WindowChange,
};
use uuid::Uuid;

use crate::pipeline::inventory;
use crate::pipeline::live_rules::LiveRules;
use crate::pipeline::memory::TenantMemory;
use crate::pipeline::notice::Notice;

pub use lessons::LESSONS_EACH;

/// Entries of the finding table are kept at least as long as the seen index remembers records.
pub(crate) const FINDINGS_KEPT: TimeDelta = TimeDelta::days(SEEN_DAYS.cast_signed());

/// How long a record may come after its time before windows stop waiting for it.
pub const LATENESS: TimeDelta = TimeDelta::hours(96);

/// The record readers of one tenant, by product.
#[derive(Debug, Clone)]
pub struct Readers {
    /// Office 365.
    pub m365: Arc<dyn RecordReader>,
    /// Google Workspace.
    pub google: Arc<dyn RecordReader>,
}

impl Readers {
    /// The reader of a product, shared.
    pub fn shared(&self, product: Product) -> Arc<dyn RecordReader> {
        match product {
            Product::M365 => self.m365.clone(),
            Product::GoogleWorkspace => self.google.clone(),
        }
    }

    /// The reader of a product.
    pub fn of(&self, product: Product) -> &dyn RecordReader {
        match product {
            Product::M365 => &*self.m365,
            Product::GoogleWorkspace => &*self.google,
        }
    }
}

/// What a step is given.
#[derive(Debug)]
pub enum Input<'a> {
    /// Records, with the product of each.
    Page(&'a Page, &'a [Product]),
    /// Records that an earlier process has delivered, of an input that begins again ([`Step::transient`]): they
    /// are shown to the detectors and that is all.
    Again(&'a Page, &'a [Product]),
    /// Time has passed: `now`, and the low-water before which everything has come, but for what is
    /// late (`None` where nothing can be said of it). Bounded inputs have no ticks: they forget
    /// nothing before their end.
    Tick(DateTime<Utc>, Option<DateTime<Utc>>),
    /// Something the collector has to say for itself.
    Notice(&'a Notice),
    /// A finding that no rule makes, about a stream itself; with `update_reason` its last word.
    Own(&'a StreamId, Box<Finding>),
    /// A part of what jobs have left for the live line of the past they have seen.
    Learn,
    /// What another job remembers, as if its events had been seen here; and when.
    Absorb(&'a [WindowChange], DateTime<Utc>),
    /// A bounded input is over: what was not yet worth an update is said now.
    End(DateTime<Utc>),
}

/// What a page held, for status and metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records in the page.
    pub records: u64,
    /// Of them, seen before and dropped (or, in a job, only detected).
    pub duplicates: u64,
    /// Of them, quarantined.
    pub malformed: u64,
    /// Latest event time.
    pub last_event: Option<DateTime<Utc>>,
}

/// What a step gives back: what is to be written, and what counts once it is.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be written.
    pub commit: Commit,
    /// To be entered in the seen index after the commit.
    pub seen: Option<SeenPlan>,
    /// Findings as they were put into the outbox.
    pub findings: Vec<Finding>,
    /// What the page held.
    pub counts: Counts,
}

/// Detection state of one tenant and one job.
#[derive(Debug)]
pub struct Step {
    tenant: TenantId,
    job: JobId,
    readers: Readers,
    rules: Arc<RuleSet>,
    engine: Engine,
    memory: TenantMemory,
    hash_key: [u8; 16],
    forwards_events: bool,
    purpose: Purpose,
    only_new: bool,
    transient: bool,
    inventory_wants: inventory::Wants,
    /// Findings whose events lie before this are marked `backfill`, live or not.
    live_since: DateTime<Utc>,
    /// Fingerprints taken in since the last flush: not yet in the seen index.
    staged: HashSet<u64>,
    /// Stream that a finding's last word is sent under.
    last_stream: Option<StreamId>,
}

/// What becomes of what a line reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Records and findings are delivered.
    Deliver,
    /// Records are shown to the detectors and that is all: none is delivered, quarantined or counts as
    /// seen.
    Detect,
    /// The same, and what the detectors find is told to nobody: they get to know the past, of the span
    /// alone, where there is one. What lies outside of it may be kept from them for a reason.
    Learn(Option<Window>),
}

impl Purpose {
    fn is_to_learn(self) -> bool {
        matches!(self, Self::Learn(_))
    }

    fn leaves_out(self, time: Option<DateTime<Utc>>) -> bool {
        let Self::Learn(Some(span)) = self else {
            return false;
        };
        time.is_some_and(|time| !span.holds(time))
    }
}

/// What a step is built from.
#[derive(Debug, Clone)]
pub struct StepConfig {
    /// The tenant's memory, shared by the live line and its jobs.
    pub memory: TenantMemory,
    /// Live, or a job.
    pub job: JobId,
    /// Readers with the tenant's domains.
    pub readers: Readers,
    /// The rules.
    pub rules: LiveRules,
    /// Whether any lane takes raw records; they stay out of the outbox otherwise.
    pub forwards_events: bool,
    /// What becomes of what is read.
    pub purpose: Purpose,
    /// See [`Step`].
    pub live_since: DateTime<Utc>,
}

impl Step {
    /// Builds the step from what the store holds.
    pub fn restore(config: StepConfig, store: &dyn StateStore) -> Result<Self, StateError> {
        let tenant = config.memory.tenant().clone();
        let rules = config.rules.get();
        let mut engine = Engine::new(rules.clone(), tenant.clone(), config.job.clone());
        let left = store.windows(&JobId::lessons(), &tenant)?;
        if config.job.is_live() {
            *config.memory.lessons() = left;
        } else {
            lessons::recall(&mut engine, &left);
        }
        for change in store.windows(&config.job, &tenant)? {
            let Some(value) = change.value else { continue };
            if let Err(error) = engine.restore(&change.detector, &change.key, &value) {
                tracing::warn!(%error, %tenant, "detector memory was left out");
            }
        }
        Ok(Self {
            tenant,
            job: config.job,
            readers: config.readers,
            rules,
            engine,
            memory: config.memory,
            hash_key: store.hash_key()?,
            forwards_events: config.forwards_events,
            purpose: config.purpose,
            only_new: false,
            transient: false,
            inventory_wants: inventory::Wants::default(),
            live_since: config.live_since,
            staged: HashSet::new(),
            last_stream: None,
        })
    }

    /// With `only_new`, records that were seen before are not detected again: a job that joins the live
    /// line, whose windows know them, need not hold them a second time.
    pub fn detecting(mut self, only_new: bool) -> Self {
        self.only_new = only_new;
        self
    }

    /// The memory of detectors is not written: an input that was interrupted is to be given again from its
    /// beginning. What can be read at any time need not be remembered for it.
    pub fn transient(mut self) -> Self {
        self.transient = true;
        self
    }

    /// The tenant.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// What was staged is in the seen index now.
    pub fn flushed(&mut self) {
        self.staged.clear();
    }

    fn is_known(&self, fingerprint: u64) -> bool {
        self.staged.contains(&fingerprint) || self.memory.seen().contains(fingerprint)
    }

    /// What the detectors measure events against.
    pub fn baselines(&self) -> Vec<Baseline> {
        self.engine.baselines()
    }

    /// What the detectors remember, and which bounds were hit.
    pub fn counters(&self) -> Counters {
        self.engine.counters()
    }

    /// Takes one input and says what is to be written.
    pub fn step(&mut self, input: &Input<'_>) -> Effects {
        let mut effects = Effects::default();
        match input {
            Input::Page(page, products) => {
                self.page(
                    page,
                    products,
                    self.purpose == Purpose::Deliver,
                    &mut effects,
                );
            }
            Input::Again(page, products) => self.page(page, products, false, &mut effects),
            Input::Tick(now, Some(low_water)) => {
                self.settle(*now, *low_water, &mut effects);
                self.forget(*now, *low_water - LATENESS, &mut effects);
            }
            Input::Tick(_, None) => {}
            Input::Absorb(windows, now) => self.absorb(windows, *now, &mut effects),
            Input::End(now) => {
                let end = DateTime::<Utc>::MAX_UTC;
                self.settle(*now, end, &mut effects);
                self.last_words(*now, end, &mut effects);
            }
            Input::Learn => self.learn(&mut effects.commit),
            Input::Own(stream, finding) => self.own(stream, finding, &mut effects),
            Input::Notice(notice) => {
                effects.commit.frames.push(notice.frame(&self.tenant));
                effects.commit.gaps.extend(notice.gap.clone());
            }
        }
        self.keep_detector_memory(&mut effects.commit);
        effects
    }

    fn absorb(&mut self, windows: &[WindowChange], now: DateTime<Utc>, out: &mut Effects) {
        for change in windows {
            let Some(value) = &change.value else { continue };
            if let Err(error) = self.engine.absorb(&change.detector, &change.key, value) {
                tracing::warn!(%error, tenant = %self.tenant, "memory of a job was left out");
            }
        }
        let stream = self.last_stream.clone();
        if let Some(stream) = stream.or_else(|| state_stream(&self.tenant)) {
            self.collect(&stream, now, out);
        }
    }

    fn page(&mut self, page: &Page, products: &[Product], delivers: bool, out: &mut Effects) {
        self.last_stream = Some(page.stream.clone());
        let mut events = Vec::new();
        let mut fresh = HashSet::new();
        for (record, product) in page.records.iter().zip(products) {
            out.counts.records += 1;
            let reader = self.readers.shared(*product);
            let head = match reader.head(record) {
                Ok(head) => head,
                Err(error) => {
                    let bytes = record.bytes().clone();
                    let reason = error.to_string();
                    let malformed = Malformed { bytes, reason };
                    out.counts.malformed += 1;
                    if delivers {
                        self.malformed(page, &malformed, &mut fresh, out);
                    }
                    continue;
                }
            };
            if self.purpose.leaves_out(head.time) {
                continue;
            }
            let fingerprint = head.fingerprint(&self.hash_key);
            let known = self.is_known(fingerprint) || !fresh.insert(fingerprint);
            out.counts.last_event = out.counts.last_event.max(head.time);
            self.memory
                .sightings()
                .note(&self.tenant, &head, page.fetched_at);
            if known {
                // Detected all the same: a job may have been the first to see it, and its windows
                // are not ours. An event that is counted already is not counted again.
                out.counts.duplicates += 1;
            } else if self.forwards_events && delivers {
                events.push(envelope(page, &head, record));
            }
            if !(known && self.only_new) {
                self.detect(&*reader, &head, record, page.fetched_at);
            }
        }
        out.counts.malformed += page.malformed.len() as u64;
        out.commit.windows.extend(self.memory.sightings().drain());
        if delivers {
            for malformed in &page.malformed {
                self.malformed(page, malformed, &mut fresh, out);
            }
            self.remember(fresh, page.fetched_at, out);
        }
        if !events.is_empty() {
            let tenant = self.tenant.clone();
            out.commit.frames.push(Frame {
                kind: Kind::Events,
                tenant,
                items: events,
            });
        }
        self.collect(&page.stream, page.fetched_at, out);
    }

    /// From now on these records were seen.
    fn remember(&mut self, fresh: HashSet<u64>, at: DateTime<Utc>, out: &mut Effects) {
        let mut new: Vec<u64> = fresh.into_iter().collect();
        new.sort_unstable();
        self.staged.extend(&new);
        let plan = self.memory.seen().plan(at.date_naive(), &new);
        plan.add_to(&mut out.commit);
        out.seen = Some(plan);
    }

    /// Shows a record to the detectors and to the inventory.
    fn detect(
        &mut self,
        reader: &dyn RecordReader,
        head: &RecordHead<'_>,
        record: &RawRecord,
        fetched_at: DateTime<Utc>,
    ) {
        let (product, operations) = (head.product, &head.operations);
        let wanted = (self.rules).wants_record(product, operations, record.bytes(), reader);
        let kept = self.inventory_wants.record(reader, record, head);
        // A head could be read, so the record is an object and normalise cannot refuse it.
        let events = match (wanted, kept) {
            (false, false) => return,
            (true, false) => {
                let fields = self.rules.fields(product, operations);
                reader.normalise_for(record, fetched_at, &fields)
            }
            (_, true) => reader.normalise(record, fetched_at),
        };
        let events = events.unwrap_or_default();
        if wanted {
            for event in &events {
                self.engine.observe(event);
            }
        }
        if kept {
            self.memory.inventory().fold(&events);
        }
    }

    fn collect(&mut self, stream: &StreamId, fetched_at: DateTime<Utc>, out: &mut Effects) {
        let found = self.engine.collect(fetched_at);
        if self.purpose.is_to_learn() {
            return;
        }
        for finding in found {
            let finding = self.in_its_mode(finding);
            // Jobs may come back to it as long as its records are remembered.
            let expires = self.rules.expiry(&finding).max(fetched_at + FINDINGS_KEPT);
            self.enter(stream, out, |table| {
                revise(table.get(&finding.uid), finding, expires)
            });
        }
    }

    /// A finding of the pipeline's own, entered like any other.
    fn own(&self, stream: &StreamId, finding: &Finding, out: &mut Effects) {
        let (finding, expires) = (finding.clone(), finding.fetched_at + FINDINGS_KEPT);
        self.enter(stream, out, |table| {
            let previous = table.get(&finding.uid);
            match finding.update_reason {
                Some(reason) => last_word(previous, finding, expires, reason),
                None => revise(previous, finding, expires),
            }
        });
    }

    /// Writes down what the finding table makes of a finding, and sends it where it says so.
    fn enter(
        &self,
        stream: &StreamId,
        out: &mut Effects,
        make: impl FnOnce(&HashMap<Uuid, FindingState>) -> Revision,
    ) {
        let mut table = self.memory.table();
        let revision = make(&table);
        if table.get(&revision.state.uid) != Some(&revision.state) {
            out.commit
                .findings
                .push((self.tenant.clone(), revision.state.clone()));
            table.insert(revision.state.uid, revision.state);
        }
        drop(table);
        if let Some(finding) = revision.send {
            self.deliver(stream, finding, out);
        }
    }

    /// What happened before the tenant was first polled is marked as backfill.
    fn in_its_mode(&self, mut finding: Finding) -> Finding {
        if finding.last_time < self.live_since {
            finding.mode = Mode::Backfill;
        }
        finding
    }

    fn deliver(&self, stream: &StreamId, finding: Finding, out: &mut Effects) {
        let Some(item) = finding_envelope(stream, &finding) else {
            return;
        };
        let tenant = self.tenant.clone();
        out.commit.frames.push(Frame {
            kind: item.kind,
            tenant,
            items: vec![item],
        });
        out.findings.push(finding);
    }

    /// Quarantines what is no record, once: it comes again as often as its page is read.
    fn malformed(
        &self,
        page: &Page,
        malformed: &Malformed,
        fresh: &mut HashSet<u64>,
        out: &mut Effects,
    ) {
        let fingerprint = fingerprint_of_bytes(&self.hash_key, &malformed.bytes);
        if self.is_known(fingerprint) || !fresh.insert(fingerprint) {
            return;
        }
        let entry = Quarantined::new(
            page.stream.clone(),
            page.item.clone(),
            malformed.reason.clone(),
            page.fetched_at,
            malformed.bytes.clone(),
        );
        let notice = Notice::malformed(&entry);
        out.commit.frames.push(notice.frame(&self.tenant));
        out.commit.quarantined.push(entry);
    }

    /// Says what is known of findings that nothing before `watermark` can still change, where it is
    /// more than was said.
    fn last_words(&self, now: DateTime<Utc>, watermark: DateTime<Utc>, out: &mut Effects) {
        if self.purpose.is_to_learn() {
            return;
        }
        for finding in self.engine.close(watermark, now) {
            let finding = self.in_its_mode(finding);
            let mut table = self.memory.table();
            let Some(previous) = table.get(&finding.uid) else {
                continue;
            };
            let Some(finding) = close(previous, finding) else {
                continue;
            };
            let state = FindingState {
                revision: finding.revision,
                count: finding.count,
                severity: finding.severity,
                alert: finding.alert,
                ..previous.clone()
            };
            out.commit
                .findings
                .push((self.tenant.clone(), state.clone()));
            table.insert(state.uid, state);
            drop(table);
            let stream = self
                .last_stream
                .clone()
                .or_else(|| state_stream(&self.tenant));
            if let Some(stream) = stream {
                self.deliver(&stream, finding, out);
            }
        }
    }

    /// What is measured against the past is told once its past has come.
    fn settle(&mut self, now: DateTime<Utc>, until: DateTime<Utc>, out: &mut Effects) {
        self.engine.settle(until);
        let stream = self
            .last_stream
            .clone()
            .or_else(|| state_stream(&self.tenant));
        if let Some(stream) = stream {
            self.collect(&stream, now, out);
        }
    }

    fn forget(&mut self, now: DateTime<Utc>, watermark: DateTime<Utc>, out: &mut Effects) {
        self.last_words(now, watermark, out);
        self.engine.evict(watermark);
        if self.purpose.is_to_learn() {
            return;
        }
        let mut table = self.memory.table();
        for uid in close_due(table.values(), watermark) {
            table.remove(&uid);
            out.commit.forget_findings.push((self.tenant.clone(), uid));
        }
    }

    fn keep_detector_memory(&mut self, commit: &mut Commit) {
        if self.transient {
            self.engine.drop_changes();
            return;
        }
        for (detector, change) in self.engine.drain_changes() {
            commit.windows.push(WindowChange {
                job: self.job.clone(),
                tenant: self.tenant.clone(),
                detector,
                key: change.key,
                value: change.value,
            });
        }
    }
}

/// A finding as it goes out.
pub(crate) fn finding_envelope(stream: &StreamId, finding: &Finding) -> Option<Envelope> {
    let payload = serde_json::to_vec(finding)
        .inspect_err(|error| {
            tracing::error!(%error, finding = %finding.uid, "a finding could not be written");
        })
        .ok()?;
    Some(Envelope {
        kind: if finding.alert {
            Kind::Findings
        } else {
            Kind::Signals
        },
        stream: stream.clone(),
        id: finding.uid.to_string(),
        time: Some(finding.trip_time),
        fetched_at: finding.fetched_at,
        payload: payload.into(),
    })
}

fn envelope(page: &Page, head: &RecordHead<'_>, record: &RawRecord) -> Envelope {
    Envelope {
        kind: Kind::Events,
        stream: page.stream.clone(),
        id: head.id_text(),
        time: head.time,
        fetched_at: page.fetched_at,
        payload: record.bytes().clone(),
    }
}

/// The stream of what is said before any page was read.
fn state_stream(tenant: &TenantId) -> Option<StreamId> {
    StreamId::new(tenant.clone(), "exfilwatch", "state").ok()
}
