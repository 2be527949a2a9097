//! `learn --since` over a vendor that publishes by the hour, two streams: what it leaves for the live line
//! is a function of the past alone, not of what failed meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use exfilwatch::app;
use exfilwatch::pipeline::alarm::{AlarmOptions, Alarms};
use exfilwatch::pipeline::filter::ItemFilter;
use exfilwatch::pipeline::job::{
    self, JobError, JobKind, JobRequest, KeptArchive, Reports, keeper,
};
use exfilwatch::pipeline::ledger::{self, SilenceOptions};
use exfilwatch::pipeline::memory::TenantMemory;
use exfilwatch::pipeline::step::{Purpose, StepConfig};
use exfilwatch::pipeline::worker::{WorkerConfig, run_tenant};
use exfilwatch::pipeline::{Parts, Pipeline, Route};
use exfilwatch_connectors::{Connector, FetchError, Listing, PageStream, RecordReader, Standing};
use exfilwatch_detectors::{DetectorsOptions, RuleSet};
use exfilwatch_emitters::archive::Archive;
use exfilwatch_emitters::{ArchiveOptions, ROUTE_ALL};
use exfilwatch_model::{
    Clock, Cursor, JobId, Kind, Page, RawRecord, StreamId, TenantId, Window, WorkItem,
};
use exfilwatch_state::{LaneId, Options, State, WindowChange};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// What is published at an hour happened so long before.
const LATE: TimeDelta = TimeDelta::hours(3);

fn start() -> DateTime<Utc> {
    "2026-05-04T00:00:00Z".parse().unwrap()
}

fn day(number: i64) -> DateTime<Utc> {
    start() + TimeDelta::days(number)
}

/// Moved by the test only; waiting takes a moment.
#[derive(Debug)]
struct TestClock(Mutex<DateTime<Utc>>);

impl Clock for TestClock {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap()
    }

    fn real(&self, _wait: Duration) -> Duration {
        Duration::from_millis(5)
    }
}

/// Publishes by the hour from [`start`] on, more on some days than on others.
#[derive(Debug)]
struct Vendor {
    clock: Arc<TestClock>,
    reader: Arc<dyn RecordReader>,
    refuses: Mutex<BTreeSet<StreamId>>,
    fetched: Mutex<BTreeSet<String>>,
}

fn mail() -> StreamId {
    "contoso/office365/Audit.Exchange".parse().unwrap()
}

fn files() -> StreamId {
    "contoso/office365/Audit.SharePoint".parse().unwrap()
}

fn record(stream: &StreamId, hour: DateTime<Utc>, number: u32) -> RawRecord {
    let at = (hour - LATE).format("%Y-%m-%dT%H:%M:%S").to_string();
    let id = format!("{}-{at}-{number}", stream.name());
    let record = if *stream == mail() {
        json!({
            "CreationTime": at, "Id": id, "Operation": "HardDelete", "RecordType": 3, "UserType": 0,
            "ResultStatus": "Succeeded", "Workload": "Exchange", "LogonType": 0,
            "UserId": "alice@corp.example", "MailboxOwnerUPN": "alice@corp.example",
            "AffectedItems": [{ "Id": "i", "InternetMessageId": id }],
        })
    } else {
        json!({
            "CreationTime": at, "Id": id, "Operation": "FileDownloaded", "RecordType": 6,
            "Workload": "SharePoint", "UserId": "app@sharepoint", "UserType": 0, "ItemType": "File",
            "ObjectId": format!("https://corp.sharepoint.com/{id}"), "EventSource": "SharePoint",
            "ApplicationId": "11111111-2222-3333-4444-555555555555",
        })
    };
    RawRecord::new(Bytes::from(record.to_string()))
}

#[async_trait]
impl Connector for Vendor {
    fn kind(&self) -> &'static str {
        "office365"
    }

    fn streams(&self) -> Vec<StreamId> {
        vec![files(), mail()]
    }

    fn quota_key(&self) -> String {
        "office365/test".to_owned()
    }

    fn first_cursor(&self, _stream: &StreamId, window: Window) -> Cursor {
        Cursor {
            covered_until: window.from(),
            state: String::new(),
        }
    }

    async fn list(&self, stream: &StreamId, cursor: &Cursor) -> Result<Listing, FetchError> {
        if self.refuses.lock().unwrap().contains(stream) {
            return Err(FetchError::Permission {
                what: "403".to_owned(),
                help: "grant it".to_owned(),
            });
        }
        let (from, now) = (cursor.covered_until, self.clock.now());
        let until = now.min(from + TimeDelta::days(1)).max(from);
        let window = Window::new(from, until);
        Ok(Listing {
            items: match window {
                Some(window) => self.relist(stream, window).await?,
                None => Vec::new(),
            },
            cursor: Cursor {
                covered_until: until,
                state: String::new(),
            },
            gaps: Vec::new(),
            more: until < now,
            standing: Standing::Flowing,
        })
    }

    async fn relist(&self, stream: &StreamId, window: Window) -> Result<Vec<WorkItem>, FetchError> {
        let mut hour = window.from().duration_trunc(TimeDelta::hours(1)).unwrap();
        let mut items = Vec::new();
        while hour < window.until() {
            if hour >= window.from().max(start()) {
                items.push(WorkItem {
                    stream: stream.clone(),
                    key: format!("{hour}"),
                    body: String::new(),
                    from: hour,
                    expires: Some(hour + TimeDelta::days(7)),
                    attempts: 0,
                    next_try: None,
                    last_error: None,
                });
            }
            hour += TimeDelta::hours(1);
        }
        Ok(items)
    }

    async fn fetch(&self, item: &WorkItem) -> Result<PageStream, FetchError> {
        let name = format!("{} {}", item.stream, item.key);
        self.fetched.lock().unwrap().insert(name);
        let days = u32::try_from((item.from - start()).num_days()).unwrap();
        let page = Page {
            stream: item.stream.clone(),
            item: item.key.clone(),
            records: (0..=days % 3)
                .map(|number| record(&item.stream, item.from, number))
                .collect(),
            malformed: Vec::new(),
            fetched_at: self.clock.now(),
            last: true,
        };
        Ok(Box::pin(futures::stream::iter([Ok(page)])))
    }

    fn records(&self) -> &dyn RecordReader {
        &*self.reader
    }
}

/// A rule of each stream that measures days against days.
static RULES: LazyLock<Arc<RuleSet>> = LazyLock::new(|| {
    let names = [
        "o365.mail.harddelete_volume",
        "o365.sharepoint.exfil_download",
    ];
    let all = app::rules(&DetectorsOptions::default()).unwrap();
    Arc::new(all.those_of(&names.map(str::to_owned)).learning())
});

/// A state of its own, at a time.
struct Place {
    clock: Arc<TestClock>,
    vendor: Arc<Vendor>,
    pipeline: Pipeline,
    folder: tempfile::TempDir,
}

impl Place {
    fn at(now: DateTime<Utc>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock(Mutex::new(now)));
        let vendor = Arc::new(Vendor {
            clock: clock.clone(),
            reader: app::readers(&["corp.example"], &[]).m365,
            refuses: Mutex::default(),
            fetched: Mutex::default(),
        });
        Self {
            pipeline: pipeline(folder.path(), &clock, "as ever"),
            clock,
            vendor,
            folder,
        }
    }

    /// The next process, whose archive takes what it takes on terms.
    async fn restart(self, terms: &str) -> Self {
        self.pipeline.stop().await;
        Self {
            pipeline: pipeline(self.folder.path(), &self.clock, terms),
            ..self
        }
    }

    /// Polls and lists again day by day until a time.
    async fn poll_until(&self, end: DateTime<Utc>) {
        let config = self.worker();
        let shared = self.pipeline.shared().clone();
        let places = Arc::new(Semaphore::new(keeper::AT_ONCE));
        let daily = keeper::reconcile_daily(config.clone(), shared.clone(), places);
        let tasks = [
            tokio::spawn(daily),
            tokio::spawn(run_tenant(config, shared.clone())),
        ];
        while self.clock.now() < end {
            self.pass(TimeDelta::hours(6));
            let hours = (self.clock.now() - start()).num_hours();
            let has_all = || {
                let fetched = self.vendor.fetched.lock().unwrap();
                fetched.len() >= 2 * usize::try_from(hours).unwrap()
            };
            eventually("all is fetched", has_all).await;
            let complete = self.clock.now() - TimeDelta::days(6);
            let is_complete = || {
                // Time has to pass for it to be seen.
                self.pass(TimeDelta::seconds(30));
                let ledgers = ledger::read(&*shared.store).unwrap();
                let is_behind = |stream: &StreamId| {
                    let known = ledgers.get(stream).map(|known| known.complete_until);
                    known.is_none_or(|until| until < complete)
                };
                complete < start() || !is_behind(&mail()) && !is_behind(&files())
            };
            eventually("it is known to be complete", is_complete).await;
        }
        for task in tasks {
            task.abort();
        }
        assert_eq!(shared.store.gaps().unwrap(), []);
    }

    fn pass(&self, time: TimeDelta) {
        *self.clock.0.lock().unwrap() += time;
    }

    fn worker(&self) -> WorkerConfig {
        let shared = self.pipeline.shared();
        let (tenant, today) = (tenant(), self.clock.now().date_naive());
        let budget = shared.seen_budget.clone();
        WorkerConfig {
            connectors: vec![self.vendor.clone()],
            step: StepConfig {
                memory: TenantMemory::load(&*shared.store, tenant, today, budget).unwrap(),
                job: JobId::live(),
                readers: app::readers(&["corp.example"], &[]),
                rules: RULES.clone().into(),
                forwards_events: true,
                purpose: Purpose::Deliver,
                live_since: day(-100),
            },
            alarms: Alarms::new(
                AlarmOptions {
                    silence: SilenceOptions::default(),
                    gap_warning: TimeDelta::hours(24),
                },
                false,
            ),
            heartbeat: TimeDelta::minutes(5),
            first_run: TimeDelta::days(1),
            archives: vec![KeptArchive {
                folder: self.folder.path().join("archive"),
                lane: LaneId {
                    emitter: ARCHIVE.to_owned(),
                    route: ROUTE_ALL.to_owned(),
                    kind: Kind::Events,
                },
                filter: ItemFilter::default(),
            }],
        }
    }

    /// Learns what was asked for in the same words each time.
    async fn learn(&self, window: Window) -> Result<(), JobError> {
        let request = JobRequest {
            kind: JobKind::Learn,
            window,
            asked: "as ever".to_owned(),
            tenant: None,
            streams: Vec::new(),
            rules: Vec::new(),
            gap: None,
        };
        let (worker, mut reports) = (self.worker(), Reports::to_nobody());
        job::run(&request, &worker, self.pipeline.shared(), &mut reports).await
    }

    /// What lies there for the live line.
    fn lessons(&self) -> Vec<WindowChange> {
        let store = &self.pipeline.shared().store;
        let mut lessons = store.windows(&JobId::lessons(), &tenant()).unwrap();
        lessons.sort_by(|a, b| (&a.detector, &a.key).cmp(&(&b.detector, &b.key)));
        lessons
    }
}

const ARCHIVE: &str = "archive.kept";

/// With an archive.
fn pipeline(folder: &Path, clock: &Arc<TestClock>, terms: &str) -> Pipeline {
    let options = json!({ "folder": folder.join("archive"), "days_max": 3_650 });
    let options: ArchiveOptions = serde_json::from_value(options).unwrap();
    let archive = Archive::new(ARCHIVE, &options, clock.clone()).unwrap();
    let of_state = Options {
        sync: false,
        ..Options::default()
    };
    let route = Route {
        terms: terms.to_owned(),
        ..Route::all(Arc::new(archive), vec![Kind::Events])
    };
    let state = State::open(&folder.join("state"), clock.now(), of_state).unwrap();
    let parts = Parts {
        state: state.state,
        routes: vec![route],
        clock: clock.clone(),
        budget_bytes: u64::MAX,
        shutdown: CancellationToken::new(),
        drain: Duration::from_secs(5),
    };
    Pipeline::start(parts).unwrap()
}

async fn eventually(what: &str, is: impl Fn() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < Duration::from_secs(60), "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn tenant() -> TenantId {
    TenantId::new("contoso").unwrap()
}

fn window(from: i64, until: i64) -> Window {
    Window::new(day(from), day(until)).unwrap()
}

#[tokio::test]
async fn a_stream_that_is_refused_at_first_is_learned_as_if_it_had_not_been() {
    let plain = Place::at(day(12));
    plain.learn(window(0, 12)).await.unwrap();
    let lessons = plain.lessons();
    assert!(lessons.len() >= 20, "{} lessons", lessons.len());

    let place = Place::at(day(12));
    place.vendor.refuses.lock().unwrap().insert(files());
    let refused = place.learn(window(0, 12)).await.unwrap_err();
    assert!(matches!(refused, JobError::Refused(_)), "{refused}");
    assert_eq!(place.lessons(), [], "it is not done");
    place.vendor.refuses.lock().unwrap().clear();
    place.learn(window(0, 12)).await.unwrap();
    assert_eq!(place.lessons(), lessons);
}

#[tokio::test]
async fn asked_again_later_in_the_same_words_it_is_learned_up_to_then() {
    let plain = Place::at(day(9) + TimeDelta::hours(7));
    let later = Window::new(day(2), day(9) + TimeDelta::hours(7)).unwrap();
    plain
        .learn(Window::new(start(), later.until()).unwrap())
        .await
        .unwrap();

    let place = Place::at(day(6) + TimeDelta::hours(5));
    place.vendor.refuses.lock().unwrap().insert(files());
    let first = Window::new(start(), day(6) + TimeDelta::hours(5)).unwrap();
    place.learn(first).await.unwrap_err();
    place.vendor.refuses.lock().unwrap().clear();
    place.pass(TimeDelta::hours(3 * 24 + 2));
    place.learn(later).await.unwrap();
    assert_eq!(
        place.lessons(),
        plain.lessons(),
        "the first span, and what has come since"
    );
    let jobs = || place.pipeline.shared().store.jobs().unwrap();
    let names = || jobs().into_iter().map(|job| job.job.to_string());
    assert_eq!(names().filter(|name| name.starts_with("learn")).count(), 0);

    // A month later none of what was left unfinished is meant.
    place.vendor.refuses.lock().unwrap().insert(files());
    place.learn(window(10, 11)).await.unwrap_err();
    place.vendor.refuses.lock().unwrap().clear();
    place.pass(TimeDelta::days(30));
    let asked = || std::mem::take(&mut *place.vendor.fetched.lock().unwrap()).len();
    asked();
    place.learn(window(30, 32)).await.unwrap();
    assert_eq!(asked(), 2 * 24 * 3);
    assert_eq!(names().filter(|name| name.starts_with("learn")).count(), 0);
}

#[tokio::test]
async fn nothing_is_learned_of_what_lies_outside_of_the_span_asked_for() {
    let before = Place::at(day(8));
    before.learn(window(0, 8)).await.unwrap();
    let whole = before.lessons();

    // What happened before the end and was published after it belongs to it.
    let place = Place::at(day(12));
    place.learn(window(0, 8)).await.unwrap();
    let counted: usize = place.lessons().len();
    assert_eq!(counted, whole.len(), "no day more");
    let of = |place: &Place| place.vendor.fetched.lock().unwrap().len();
    assert!(of(&place) > of(&before), "what came late is read");
    assert_ne!(place.lessons(), whole, "and counts");
}

#[tokio::test]
async fn what_an_archive_was_given_whole_is_learned_from_there_and_the_vendor_is_not_asked() {
    let plain = Place::at(day(16));
    plain.learn(window(2, 9)).await.unwrap();
    let learned = plain.lessons();

    let place = Place::at(start());
    place.poll_until(day(16)).await;
    let asked = |place: &Place| std::mem::take(&mut *place.vendor.fetched.lock().unwrap()).len();
    asked(&place);
    let place = place.restart("as ever").await;
    place.learn(window(2, 9)).await.unwrap();
    assert_eq!(asked(&place), 2 * 24, "for what may have come late");
    assert_eq!(place.lessons(), learned);

    // Not yet known to be complete.
    place.learn(window(2, 16)).await.unwrap();
    let days = asked(&place) / 2 / 24;
    assert!((4..=6).contains(&days), "{days} days");

    // Who knows what it left out before.
    let learned = place.lessons();
    let place = place.restart("other terms").await;
    place.learn(window(2, 9)).await.unwrap();
    assert_eq!(asked(&place), 2 * 24 * 8);
    assert_eq!(place.lessons(), learned);
}
