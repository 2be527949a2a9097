//! The audit log searched through Microsoft Graph: what is found is what the feed would have brought,
//! however the service pages, cuts and fails, and what cannot be found is said.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::TimeDelta;
use exfilwatch_connectors::options::{AuditSearch, Cloud, Office365Options, RecordIdentity};
use exfilwatch_connectors::{Archive, Connector, FetchError, PageStream};
use exfilwatch_model::{StreamId, Window, WorkItem};
use exfilwatch_simulator::microsoft::{AuditDataId, GraphHabits, ROLE_AUDIT_ALL};
use exfilwatch_simulator::world::Delivery;
use exfilwatch_simulator::{
    Endpoint, Fault, FaultRule, FaultScript, SimulatorOptions, WorldOptions,
};
use futures::StreamExt;
use support::{Caller, Stage, at};

const GENERAL: &str = "Audit.General";

fn world() -> WorldOptions {
    let from = at("2026-03-03T00:00:00Z");
    WorldOptions {
        records_per_day: 900,
        delivery: Delivery::prompt(),
        ..WorldOptions::new(9, from, from + TimeDelta::days(1))
    }
}

fn day() -> Window {
    Window::new(world().from, world().until).unwrap()
}

/// The day has passed, and everything is there.
fn stage() -> Stage {
    let mut options = SimulatorOptions {
        start: Some(world().until + TimeDelta::hours(2)),
        ..SimulatorOptions::default()
    };
    options.microsoft.subscribed = true;
    Stage::new(world(), options)
}

/// The same, eight days later: the feed no longer has it.
async fn old_stage(change: impl FnOnce(&mut GraphHabits)) -> Stage {
    let stage = stage();
    stage.simulator.microsoft().change_graph(change);
    stage.pass(TimeDelta::days(8)).await;
    stage
}

fn stream(connector: &dyn Connector, name: &str) -> StreamId {
    let mut streams = connector.streams().into_iter();
    streams.find(|stream| stream.name() == name).unwrap()
}

/// Identities as the seen index has them, by record id, and how often each came.
type Seen = BTreeMap<(String, u64), usize>;

/// Reads pages to their last one, or to an error.
async fn read(
    connector: &dyn Connector,
    mut pages: PageStream,
    seen: &mut Seen,
) -> Result<(), FetchError> {
    let mut last = false;
    while let Some(page) = pages.next().await {
        let page = page?;
        assert!(!last, "a page after the last");
        assert!(page.malformed.is_empty(), "{:?}", page.malformed);
        last = page.last;
        for record in &page.records {
            let head = connector.records().head(record).unwrap();
            let identity = (head.id_text(), head.fingerprint(&[3; 16]));
            *seen.entry(identity).or_default() += 1;
        }
    }
    assert!(last, "no last page");
    Ok(())
}

/// The smallest caller an archive can have: halves what is cut, submits again what is gone.
struct Searcher<'c> {
    connector: &'c dyn Connector,
    seen: Seen,
    gaps: Vec<Window>,
    submissions: usize,
    /// Whether what stays cut is searched part by part.
    by_part: bool,
}

impl<'c> Searcher<'c> {
    fn new(caller: &'c Caller) -> Self {
        Self {
            connector: &*caller.connector,
            seen: Seen::new(),
            gaps: Vec::new(),
            submissions: 0,
            by_part: true,
        }
    }

    fn archive(&self) -> &'c dyn Archive {
        self.connector.archive().unwrap()
    }

    async fn search(&mut self, stream: &StreamId, window: Window) -> WorkItem {
        self.submissions += 1;
        self.archive().search(stream, window).await.unwrap()
    }

    async fn span(&mut self, stream: &StreamId, span: Window) {
        let mut open = vec![span];
        while let Some(window) = open.pop() {
            let item = self.search(stream, window).await;
            let outcome = self.fetch(&item).await;
            match outcome {
                Ok(()) => {}
                Err(FetchError::Truncated { .. }) => match self.archive().limits().halves(window) {
                    Some(halves) => open.extend(halves),
                    None if self.by_part => self.by_part(stream, window).await,
                    None => self.gaps.push(window),
                },
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    async fn by_part(&mut self, stream: &StreamId, window: Window) {
        let parts = self.archive().parts(stream);
        let mut missing = parts.is_empty();
        for part in parts {
            self.submissions += 1;
            let item = self
                .archive()
                .search_part(stream, window, Some(&part))
                .await;
            match self.fetch(&item.unwrap()).await {
                Ok(()) => {}
                Err(FetchError::Truncated { .. }) => missing = true,
                Err(other) => panic!("{other:?}"),
            }
        }
        if missing {
            self.gaps.push(window);
        }
    }

    async fn fetch(&mut self, item: &WorkItem) -> Result<(), FetchError> {
        let pages = self.archive().fetch(item).await?;
        read(self.connector, pages, &mut self.seen).await
    }

    fn ids(&self) -> BTreeSet<String> {
        self.seen.keys().map(|(id, _)| id.clone()).collect()
    }
}

/// What the feed brings of the day.
async fn feed(stage: &Stage, options: Office365Options) -> Seen {
    let mut caller = stage.office365(options);
    caller.start(world().from);
    let mut seen = Seen::new();
    for stream in caller.connector.streams() {
        caller.list(&stream).await;
    }
    for item in caller.open.values() {
        let pages = caller.connector.fetch(item).await.unwrap();
        read(&*caller.connector, pages, &mut seen).await.unwrap();
    }
    seen
}

/// Ids of the sheet's records of a stream.
fn due(stage: &Stage, stream: &str) -> BTreeSet<String> {
    let stream = format!("office365/{stream}");
    let records = stage.simulator.sheet().records.iter();
    let own = records.filter(|record| *record.stream == *stream);
    own.map(|record| record.id.clone()).collect()
}

/// Searches the day for one stream, and expects all of it, once each.
async fn all_of(stage: &Stage, name: &str) -> usize {
    let caller = stage.office365(stage.office365_options());
    let mut searcher = Searcher::new(&caller);
    let stream = stream(searcher.connector, name);
    searcher.span(&stream, day()).await;
    let due = due(stage, name);
    assert!(due.len() > 30, "only {} records of {name}", due.len());
    assert_eq!(searcher.ids(), due);
    assert!(searcher.gaps.is_empty());
    searcher.submissions
}

fn faults(stage: &Stage, rules: Vec<FaultRule>) {
    stage.faults(FaultScript { seed: 1, rules });
}

#[tokio::test(start_paused = true)]
async fn a_span_eight_days_old_gives_the_identities_that_the_feed_gave() {
    let stage = stage();
    let feed = feed(&stage, stage.office365_options()).await;
    assert!(feed.len() > 300, "{}", feed.len());
    stage.pass(TimeDelta::days(8)).await;

    // The feed has nothing left, and says so; the archive gives the same records.
    let mut late = stage.office365(stage.office365_options());
    late.start(world().from);
    late.poll().await;
    assert!(
        late.seen.is_empty() && late.gaps.len() == 5,
        "{:?}",
        late.gaps
    );
    let mut searcher = Searcher::new(&late);
    for gap in &late.gaps {
        let span = Window::new(gap.window.from(), world().until).unwrap();
        searcher.span(&gap.stream, span).await;
    }
    let all = |seen: &Seen| seen.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(all(&searcher.seen), all(&feed));
    assert!(searcher.seen.values().all(|times| *times == 1));
    assert_eq!(searcher.submissions, 5);
}

#[tokio::test(start_paused = true)]
async fn general_is_what_no_other_stream_asks_for_and_no_service_filter_is_sent() {
    let stage = old_stage(|_| ()).await;
    for name in [GENERAL, "Audit.Exchange"] {
        all_of(&stage, name).await;
    }
    for body in stage.simulator.microsoft().audit_search_bodies() {
        let members: Vec<&String> = body.as_object().unwrap().keys().collect();
        assert!(
            !members.iter().any(|name| name.starts_with("service")),
            "{members:?}"
        );
        let general = body["displayName"].as_str().unwrap().contains(GENERAL);
        assert_eq!(general, body.get("recordTypeFilters").is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn auditquery_limit_exceeded_splits() {
    let stage = old_stage(|habits| habits.record_count_limit = 60).await;
    let submissions = all_of(&stage, "Audit.SharePoint").await;
    assert!(submissions > 5, "{submissions}");
    // Those known to be cut were not read.
    let pages = stage.simulator.faults().calls(Endpoint::AuditRecords);
    assert_eq!(pages, (submissions as u64).div_ceil(2));

    // As many as the service gives: there might be more, whatever it says of that.
    let exactly = due(&stage, "Audit.SharePoint").len();
    let stage = old_stage(|habits| habits.record_count_limit = exactly).await;
    assert_eq!(all_of(&stage, "Audit.SharePoint").await, 3);

    // A limit that no halving satisfies leaves gaps of not less than a quarter of an hour.
    let stage = old_stage(|habits| habits.record_count_limit = 1).await;
    let caller = stage.office365(stage.office365_options());
    let mut searcher = Searcher::new(&caller);
    let stream = stream(searcher.connector, "Audit.SharePoint");
    let hour = Window::new(at("2026-03-03T10:00:00Z"), at("2026-03-03T11:00:00Z")).unwrap();
    searcher.span(&stream, hour).await;
    assert!(!searcher.gaps.is_empty());
    assert!(
        searcher
            .gaps
            .iter()
            .all(|gap| gap.length() == TimeDelta::minutes(15))
    );
}

/// A quarter of an hour that stays cut is searched by record type; `Audit.General` cannot be, since
/// most of its types have no name in Graph.
#[tokio::test(start_paused = true)]
async fn what_stays_cut_below_a_quarter_of_an_hour_is_searched_by_record_type() {
    let hour = Window::new(at("2026-03-03T10:00:00Z"), at("2026-03-03T11:00:00Z")).unwrap();
    let mut found = Vec::new();
    for by_part in [false, true] {
        let stage = old_stage(|habits| habits.record_count_limit = 3).await;
        let caller = stage.office365(stage.office365_options());
        let mut searcher = Searcher::new(&caller);
        searcher.by_part = by_part;
        let sharepoint = stream(searcher.connector, "Audit.SharePoint");
        searcher.span(&sharepoint, hour).await;
        found.push((searcher.ids(), searcher.gaps.len()));
        let general = stream(searcher.connector, GENERAL);
        assert!(searcher.archive().parts(&general).is_empty());
    }
    let (whole, parts) = (&found[0], &found[1]);
    assert!(whole.1 > 0, "nothing stayed cut: the test proves nothing");
    assert!(parts.1 < whole.1, "{} gaps of {}", parts.1, whole.1);
    assert!(parts.0.is_superset(&whole.0) && parts.0.len() > whole.0.len());
}

#[tokio::test(start_paused = true)]
async fn auditquery_unstable_pages() {
    for (readings, counts) in [(1, true), (1, false), (2, true)] {
        let stage = old_stage(|habits| {
            habits.unstable_readings = readings;
            habits.counts = counts;
        })
        .await;
        assert_eq!(
            all_of(&stage, "Audit.Exchange").await,
            1,
            "{readings} {counts}"
        );
    }
    // Where the count fits and nothing comes twice, one reading is enough.
    let stage = old_stage(|habits| habits.top_max = 100).await;
    all_of(&stage, "Audit.Exchange").await;
    let once = stage.simulator.faults().calls(Endpoint::AuditRecords);
    let stage = old_stage(|habits| {
        habits.top_max = 100;
        habits.counts = false;
    })
    .await;
    all_of(&stage, "Audit.Exchange").await;
    let twice = stage.simulator.faults().calls(Endpoint::AuditRecords);
    assert!(twice > once, "{twice} {once}");
}

#[tokio::test(start_paused = true)]
async fn auditquery_truncated_json_and_failing_pages_restart_the_reading_and_not_the_search() {
    let breakages = [
        FaultRule::new(Endpoint::AuditRecords, Fault::Truncate { bytes: 5_000 }).calls(6, 7),
        FaultRule::new(Endpoint::AuditRecords, Fault::Outage).calls(6, 12),
        FaultRule::new(Endpoint::AuditRecords, Fault::Reset).calls(7, 11),
        FaultRule::new(Endpoint::AuditRecords, Fault::HtmlPage { status: 502 }).calls(1, 4),
        FaultRule::new(
            Endpoint::AuditRecords,
            Fault::Status {
                status: 400,
                body: r#"{"error":{"code":"BadRequest","message":"Skip token is expired."}}"#
                    .into(),
                headers: Vec::new(),
            },
        )
        .calls(7, 7),
    ];
    for rule in breakages {
        let name = format!("{rule:?}");
        let stage = old_stage(|habits| habits.top_max = 100).await;
        // The first four calls learn how small pages must be.
        faults(&stage, vec![rule]);
        assert_eq!(all_of(&stage, "Audit.Exchange").await, 1, "{name}");
        let asked = stage.transport.asked.lock().unwrap();
        let first = |url: &&String| url.contains("/records?") && !url.contains("$skiptoken");
        assert!(asked.iter().filter(first).count() > 5, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_that_never_comes_is_given_up_and_the_search_kept() {
    let stage = old_stage(|_| ()).await;
    let broken = Fault::Truncate { bytes: 700 };
    faults(&stage, vec![FaultRule::new(Endpoint::AuditRecords, broken)]);
    let caller = stage.office365(stage.office365_options());
    let mut searcher = Searcher::new(&caller);
    let stream = stream(searcher.connector, "Audit.Exchange");
    let item = searcher.search(&stream, day()).await;
    let error = searcher.fetch(&item).await.unwrap_err();
    assert!(matches!(error, FetchError::Retry { .. }), "{error:?}");
    let calls = stage.simulator.faults().calls(Endpoint::AuditRecords);
    assert!((5..10).contains(&calls), "{calls}");
    faults(&stage, Vec::new());
    searcher.fetch(&item).await.unwrap();
    assert_eq!(searcher.ids(), due(&stage, "Audit.Exchange"));
    assert_eq!(stage.simulator.microsoft().audit_searches(), 1);
}

#[tokio::test(start_paused = true)]
async fn graph_top_limit_halves_the_pages() {
    let stage = old_stage(|habits| habits.top_max = 50).await;
    assert_eq!(all_of(&stage, "Audit.Exchange").await, 1);
    let asked = stage.transport.asked.lock().unwrap();
    let tops = |top: &str| {
        asked
            .iter()
            .filter(|url| url.contains(&format!("$top={top}")))
            .count()
    };
    assert_eq!((tops("1000"), tops("500")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn short_page_with_next_link_is_not_the_end() {
    let stage = old_stage(|habits| {
        habits.top_max = 50;
        habits.short_page_every = 2;
    })
    .await;
    all_of(&stage, "Audit.Exchange").await;
}

#[tokio::test(start_paused = true)]
async fn nextlink_repeats_and_the_reading_begins_again_within_limits() {
    let looping = |readings| {
        move |habits: &mut GraphHabits| {
            habits.top_max = 50;
            habits.looping_readings = readings;
        }
    };
    let stage = old_stage(looping(1)).await;
    all_of(&stage, "Audit.Exchange").await;

    let stage = old_stage(looping(1_000)).await;
    let caller = stage.office365(stage.office365_options());
    let mut searcher = Searcher::new(&caller);
    let stream = stream(searcher.connector, "Audit.Exchange");
    let item = searcher.search(&stream, day()).await;
    let error = searcher.fetch(&item).await.unwrap_err();
    assert!(error.to_string().contains("came twice"), "{error}");
    assert!(matches!(error, FetchError::Retry { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_link_to_another_host_is_not_followed() {
    let evil = "https://graph.microsoft.com.evil.test";
    let stage = old_stage(|habits| {
        habits.top_max = 50;
        habits.link_origin = Some(evil.into());
    })
    .await;
    let caller = stage.office365(stage.office365_options());
    let mut searcher = Searcher::new(&caller);
    let stream = stream(searcher.connector, "Audit.Exchange");
    let item = searcher.search(&stream, day()).await;
    let error = searcher.fetch(&item).await.unwrap_err();
    assert!(
        error.to_string().contains("another scheme, host or port"),
        "{error}"
    );
    let asked = stage.transport.asked.lock().unwrap();
    assert!(asked.iter().all(|url| !url.contains("evil")));
}

#[tokio::test(start_paused = true)]
async fn graph_late_record_is_waited_for() {
    let stage = stage();
    stage
        .simulator
        .microsoft()
        .change_graph(|habits| habits.lag_seconds = 20 * 3_600);
    let caller = stage.office365(stage.office365_options());
    let mut searcher = Searcher::new(&caller);
    let stream = stream(searcher.connector, "Audit.Exchange");
    // Two hours after the day's end, a search would miss what comes late: it is not made.
    let error = searcher.archive().search(&stream, day()).await.unwrap_err();
    let FetchError::Retry {
        after: Some(after), ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert!(
        after > Duration::from_hours(21) && after <= Duration::from_hours(22),
        "{after:?}"
    );
    assert_eq!(stage.simulator.microsoft().audit_searches(), 0);
    stage.pass(TimeDelta::from_std(after).unwrap()).await;
    searcher.span(&stream, day()).await;
    assert_eq!(searcher.ids(), due(&stage, "Audit.Exchange"));
}

#[tokio::test(start_paused = true)]
async fn checkpoint_older_than_retention_is_a_loss_that_is_said() {
    let stage = stage();
    stage.pass(TimeDelta::days(181)).await;
    let caller = stage.office365(stage.office365_options());
    let archive = caller.connector.archive().unwrap();
    let stream = stream(&*caller.connector, "Audit.Exchange");
    let error = archive.search(&stream, day()).await.unwrap_err();
    assert!(matches!(error, FetchError::Gone { .. }), "{error:?}");
    assert_eq!(stage.simulator.microsoft().audit_searches(), 0);
    let now = stage.simulator.clock().now();
    let parts = archive
        .limits()
        .divide(Window::new(world().from, now).unwrap(), now);
    assert_eq!(parts.lost.unwrap().from(), world().from);
    let item = archive.search(&stream, parts.now.unwrap()).await;
    assert!(item.is_ok(), "{item:?}");
}

#[tokio::test(start_paused = true)]
async fn a_search_is_polled_with_growing_pauses_and_one_that_fails_is_submitted_anew() {
    let stage = old_stage(|habits| habits.running_seconds = 3 * 3_600).await;
    faults(
        &stage,
        vec![
            FaultRule::new(
                Endpoint::AuditSearch,
                Fault::Throttle {
                    retry_after_seconds: None,
                },
            )
            .calls(5, 8),
            FaultRule::new(Endpoint::AuditSearch, Fault::Outage).calls(12, 14),
        ],
    );
    assert_eq!(all_of(&stage, "Audit.Exchange").await, 1);
    let looks = stage.simulator.faults().calls(Endpoint::AuditSearch);
    assert!((60..120).contains(&looks), "{looks}");

    for ends_as in ["failed", "cancelled"] {
        let stage = old_stage(|habits| habits.ends_as = ends_as).await;
        let caller = stage.office365(stage.office365_options());
        let mut searcher = Searcher::new(&caller);
        let stream = stream(searcher.connector, "Audit.Exchange");
        let item = searcher.search(&stream, day()).await;
        let error = searcher.fetch(&item).await.unwrap_err();
        assert!(matches!(error, FetchError::Gone { .. }) && error.to_string().contains(ends_as));
        stage
            .simulator
            .microsoft()
            .change_graph(|habits| habits.ends_as = "succeeded");
        searcher.span(&stream, day()).await;
        assert_eq!(searcher.ids(), due(&stage, "Audit.Exchange"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_search_that_never_ends_is_gone_after_a_day() {
    let stage = old_stage(|habits| habits.running_seconds = 100 * 86_400).await;
    let caller = stage.office365(stage.office365_options());
    let mut searcher = Searcher::new(&caller);
    let stream = stream(searcher.connector, "Audit.Exchange");
    let item = searcher.search(&stream, day()).await;
    let error = searcher.fetch(&item).await.unwrap_err();
    assert!(matches!(error, FetchError::Gone { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_with_the_search_that_was_submitted() {
    let stage = old_stage(|habits| habits.running_seconds = 3_600).await;
    let stored = {
        let caller = stage.office365(stage.office365_options());
        let mut searcher = Searcher::new(&caller);
        let stream = stream(searcher.connector, "Audit.Exchange");
        let item = searcher.search(&stream, day()).await;
        // The process ends while it waits.
        let waiting = searcher.fetch(&item);
        assert!(
            tokio::time::timeout(Duration::from_secs(10), waiting)
                .await
                .is_err()
        );
        serde_json::to_string(&item).unwrap()
    };
    let caller = stage.office365(stage.office365_options());
    let mut searcher = Searcher::new(&caller);
    searcher
        .fetch(&serde_json::from_str(&stored).unwrap())
        .await
        .unwrap();
    assert_eq!(searcher.ids(), due(&stage, "Audit.Exchange"));
    assert_eq!(stage.simulator.microsoft().audit_searches(), 1);
}

#[tokio::test(start_paused = true)]
async fn submissions_over_the_limit_and_throttled_pages_wait_as_long_as_the_vendor_asks() {
    let stage = old_stage(|habits| habits.submissions_per_day = 1).await;
    let pages = Fault::Throttle {
        retry_after_seconds: Some(90),
    };
    faults(
        &stage,
        vec![FaultRule::new(Endpoint::AuditRecords, pages).calls(1, 2)],
    );
    let caller = stage.office365(stage.office365_options());
    let mut searcher = Searcher::new(&caller);
    let stream = stream(searcher.connector, "Audit.Exchange");
    let item = searcher.search(&stream, day()).await;
    let error = searcher.archive().search(&stream, day()).await.unwrap_err();
    let FetchError::Throttled { after, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(after, Some(Duration::from_mins(10)));
    let before = stage.simulator.clock().now();
    searcher.fetch(&item).await.unwrap();
    assert!(stage.simulator.clock().now() - before >= TimeDelta::seconds(330 + 180));
    assert_eq!(searcher.ids(), due(&stage, "Audit.Exchange"));
}

#[tokio::test(start_paused = true)]
async fn without_the_permission_for_all_of_a_stream_nothing_is_submitted_or_called_read() {
    let exchange = "AuditLogsQuery-Exchange.Read.All";
    let sharepoint = "AuditLogsQuery-SharePoint.Read.All";
    let onedrive = "AuditLogsQuery-OneDrive.Read.All";
    let cases: [(&[&str], &[&str]); 4] = [
        (&[], &[]),
        (&[exchange], &["Audit.Exchange"]),
        (&[sharepoint], &[]),
        (&[sharepoint, onedrive], &["Audit.SharePoint"]),
    ];
    for (roles, may) in cases {
        let stage = old_stage(|_| ()).await;
        stage.simulator.microsoft().set_graph_roles(roles);
        let caller = stage.office365(stage.office365_options());
        let archive = caller.connector.archive().unwrap();
        for stream in caller.connector.streams() {
            let checked = archive.check(&stream).await;
            assert_eq!(
                checked.is_ok(),
                may.contains(&stream.name()),
                "{roles:?} {stream}"
            );
            if let Err(error) = checked {
                let FetchError::Permission { what, help } = &error else {
                    panic!("{error:?}");
                };
                assert!(help.contains(ROLE_AUDIT_ALL) && what.contains(stream.name()));
                let refused = archive.search(&stream, day()).await.unwrap_err();
                assert!(matches!(refused, FetchError::Permission { .. }));
            }
        }
        assert_eq!(stage.simulator.microsoft().audit_searches(), 0);
        for name in may {
            all_of(&stage, name).await;
        }
    }
    // Taken away between submission and reading: what was found is not called whole.
    let stage = old_stage(|_| ()).await;
    let caller = stage.office365(stage.office365_options());
    let mut searcher = Searcher::new(&caller);
    let general = stream(searcher.connector, GENERAL);
    let item = searcher.search(&general, day()).await;
    stage.simulator.microsoft().set_graph_roles(&[exchange]);
    let restarted = stage.office365(stage.office365_options());
    let archive = restarted.connector.archive().unwrap();
    let refused = archive.fetch(&item).await.err().expect("a refusal");
    assert!(
        matches!(refused, FetchError::Permission { .. }),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cloud_without_the_search_says_so_and_another_version_can_be_set() {
    let stage = old_stage(|habits| habits.versions = &["beta"]).await;
    for (options, word) in [
        (
            Office365Options {
                cloud: Some(Cloud::GccHigh),
                ..stage.office365_options()
            },
            "gcc-high",
        ),
        (
            Office365Options {
                cloud: Some(Cloud::Dod),
                ..stage.office365_options()
            },
            "dod",
        ),
        (
            Office365Options {
                audit_search: Some(AuditSearch::Off),
                ..stage.office365_options()
            },
            "off",
        ),
    ] {
        let caller = stage.office365(options);
        let why = caller.connector.archive().expect_err("no archive");
        assert!(why.to_string().contains(word), "{why}");
    }
    let caller = stage.office365(stage.office365_options());
    let exchange = stream(&*caller.connector, "Audit.Exchange");
    let refused = caller
        .connector
        .archive()
        .unwrap()
        .search(&exchange, day())
        .await;
    let Err(FetchError::Hold { what, help }) = refused else {
        panic!("{refused:?}");
    };
    assert!(
        what.contains("auditLog") && help.contains("audit_search"),
        "{what}: {help}"
    );
    let caller = stage.office365(Office365Options {
        audit_search: Some(AuditSearch::Beta),
        ..stage.office365_options()
    });
    let mut searcher = Searcher::new(&caller);
    searcher.span(&exchange, day()).await;
    assert_eq!(searcher.ids(), due(&stage, "Audit.Exchange"));
}

#[tokio::test(start_paused = true)]
async fn a_record_without_its_id_is_known_by_the_id_around_it() {
    let own = old_stage(|_| ()).await;
    let without = old_stage(|habits| habits.audit_data_id = AuditDataId::Missing).await;
    let mut identities = Vec::new();
    for stage in [&own, &without] {
        let caller = stage.office365(stage.office365_options());
        let mut searcher = Searcher::new(&caller);
        let stream = stream(searcher.connector, "Audit.SharePoint");
        searcher.span(&stream, day()).await;
        identities.push(searcher.seen);
    }
    assert!(identities[0].len() > 100);
    assert_eq!(identities[0], identities[1]);
}

#[tokio::test(start_paused = true)]
async fn where_the_ids_of_feed_and_search_do_not_agree_records_are_known_by_their_content() {
    let stage = stage();
    let change = |habits: &mut GraphHabits| habits.audit_data_id = AuditDataId::Other;
    stage.simulator.microsoft().change_graph(change);
    let only = |record_identity| Office365Options {
        content_types: Some(vec!["Audit.SharePoint".into()]),
        record_identity: Some(record_identity),
        ..stage.office365_options()
    };
    let mut from_feed = Vec::new();
    for identity in [RecordIdentity::Id, RecordIdentity::Content] {
        from_feed.push(feed(&stage, only(identity)).await);
    }
    stage.pass(TimeDelta::days(2)).await;
    let mut from_search = Vec::new();
    for identity in [RecordIdentity::Id, RecordIdentity::Content] {
        let caller = stage.office365(only(identity));
        let mut searcher = Searcher::new(&caller);
        let stream = stream(searcher.connector, "Audit.SharePoint");
        searcher.span(&stream, day()).await;
        from_search.push(searcher.seen);
    }
    assert!(from_feed[0].len() > 100);
    let known = |at: usize| {
        from_search[at]
            .keys()
            .filter(|key| from_feed[at].contains_key(key))
            .count()
    };
    assert_eq!((known(0), known(1)), (0, from_feed[1].len()));
    assert_eq!(from_search[1], from_feed[1]);
}
