//! The metrics page, in OpenMetrics text. Labels hold configured names only, never what came from a
//! record.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use exfilwatch_model::{StreamId, TenantId};
use exfilwatch_state::{LaneId, Quarantined};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::pipeline::watch::Shown;
use crate::tuning::Standing;

/// Media type of the page.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabels {
    tenant: String,
    connector: String,
    stream: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaneLabels {
    emitter: String,
    route: String,
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EmitterLabels {
    emitter: String,
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabels {
    tenant: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FindingLabels {
    detection: String,
    severity: String,
    alert: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BoundLabels {
    tenant: String,
    bound: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SuppressedLabels {
    tenant: String,
    by: String,
    detection: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ExceptionLabels {
    tenant: String,
    exception: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TaskLabels {
    task: String,
}

type Counter = prometheus_client::metrics::counter::Counter;

struct Page {
    registry: Registry,
}

impl Page {
    fn counters<L>(&mut self, name: &str, help: &str, values: impl Iterator<Item = (L, u64)>)
    where
        L: Clone + Eq + std::hash::Hash + EncodeLabelSet + std::fmt::Debug + Send + Sync + 'static,
    {
        let family = Family::<L, Counter>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.registry.register(name, help, family);
    }

    fn gauges<L>(&mut self, name: &str, help: &str, values: impl Iterator<Item = (L, i64)>)
    where
        L: Clone + Eq + std::hash::Hash + EncodeLabelSet + std::fmt::Debug + Send + Sync + 'static,
    {
        let family = Family::<L, Gauge>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        self.registry.register(name, help, family);
    }
}

/// The page as text; without what waits in quarantine where the store does not tell that.
pub fn text(shown: &Shown, quarantined: Option<&[Quarantined]>, now: DateTime<Utc>) -> String {
    let mut page = Page {
        registry: Registry::with_prefix("exfilwatch"),
    };
    streams(&mut page, shown, now);
    lanes(&mut page, shown, now);
    if let Some(entries) = quarantined {
        quarantine(&mut page, shown, entries);
    }
    emitters(&mut page, shown);
    detectors(&mut page, shown);
    let findings = shown
        .findings
        .iter()
        .map(|((detection, severity, alert), count)| {
            let labels = FindingLabels {
                detection: detection.clone(),
                severity: severity.as_str().to_owned(),
                alert: alert.to_string(),
            };
            (labels, *count)
        });
    page.counters(
        "findings",
        "Findings put into the outbox, revisions too",
        findings,
    );
    let restarts = shown.restarts.iter().map(|(task, count)| {
        let task = (*task).to_owned();
        (TaskLabels { task }, *count)
    });
    let help = "Tasks of the process that panicked and were started again";
    page.counters("task_restarts", help, restarts);
    tuning(&mut page, shown, now);
    page.registry.register(
        "paused",
        "Fetching is paused by the outbox budget, for the tenants of lanes far behind or for all",
        {
            let gauge = Gauge::<i64>::default();
            gauge.set(i64::from(shown.paused));
            gauge
        },
    );
    page.registry
        .register("build", "Always 1", ConstCounter::new(1_u64));
    let mut text = String::new();
    match encode(&mut text, &page.registry) {
        Ok(()) => text,
        Err(error) => format!("# the metrics could not be written: {error}\n"),
    }
}

/// What tenants have said of the rules, and what came of it.
fn tuning(page: &mut Page, shown: &Shown, now: DateTime<Utc>) {
    let suppressed = shown
        .suppressed
        .iter()
        .map(|((tenant, by, detection), count)| {
            let labels = SuppressedLabels {
                tenant: tenant.to_string(),
                by: by.to_string(),
                detection: detection.clone(),
            };
            (labels, *count)
        });
    let help = "Findings kept from alerting by shadow mode or an exception, revisions too";
    page.counters("findings_suppressed", help, suppressed);
    let labels = |one: &Standing| ExceptionLabels {
        tenant: one.tenant.clone(),
        exception: one.name.clone(),
    };
    let left = shown
        .exceptions
        .iter()
        .map(|one| (labels(one), one.days_left(now)));
    let reloads = &shown.reloads;
    let outcomes =
        [("used", reloads.used), ("refused", reloads.refused)].map(|(outcome, count)| {
            let outcome = outcome.to_owned();
            (ReloadLabels { outcome }, count)
        });
    let help = "Readings of the configuration at SIGHUP, by whether it could be used";
    page.counters("reloads", help, outcomes.into_iter());
    let refused = Gauge::<i64>::default();
    refused.set(i64::from(reloads.why.is_some()));
    let help = "1 while the last reading of the configuration could not be used";
    page.registry.register("reload_refused", help, refused);
    let help = "Days until an exception lapses; below zero it has";
    page.gauges("exception_days_left", help, left);
}

/// Bounds that were hit: above zero, findings may depend on the order of arrival, or a record may be
/// delivered twice.
fn detectors(page: &mut Page, shown: &Shown) {
    let bounds = shown.detectors.iter().flat_map(|(tenant, counters)| {
        let label = |bound: &str| BoundLabels {
            tenant: tenant.to_string(),
            bound: bound.to_owned(),
        };
        [
            (label("late_events"), counters.late_events),
            (label("capped_entries"), counters.capped_entries),
            (label("shed_entries"), counters.shed_entries),
            (label("outdated_entries"), counters.outdated_entries),
        ]
    });
    page.counters(
        "detector_bounds_hit",
        "Events and entries that a bound left out",
        bounds,
    );
    let not_remembered = Gauge::<i64>::default();
    not_remembered.set(i64::try_from(shown.seen_not_remembered).unwrap_or(i64::MAX));
    let help = "Fingerprints that found no room in the seen index";
    page.registry
        .register("seen_not_remembered", help, not_remembered);
}

fn streams(page: &mut Page, shown: &Shown, now: DateTime<Utc>) {
    let labelled = || {
        shown.streams.iter().map(|(stream, health)| {
            let labels = StreamLabels {
                tenant: stream.tenant().to_string(),
                connector: stream.connector().to_owned(),
                stream: stream.name().to_owned(),
            };
            (labels, health)
        })
    };
    page.counters(
        "records",
        "Records read",
        labelled().map(|(l, h)| (l, h.records)),
    );
    let duplicates = labelled().map(|(l, h)| (l, h.duplicates));
    page.counters("records_duplicate", "Records seen before", duplicates);
    let malformed = labelled().map(|(l, h)| (l, h.malformed));
    page.counters(
        "records_malformed",
        "Records put into quarantine",
        malformed,
    );
    let late = labelled().map(|(l, h)| (l, h.records_late));
    page.counters(
        "records_late",
        "Records that only a reconciliation found",
        late,
    );
    let failures = labelled().map(|(l, h)| (l, h.failures));
    page.counters(
        "stream_failures",
        "Listings and fetches that failed",
        failures,
    );
    let lag = labelled().filter_map(|(l, h)| Some((l, (now - h.low_water?).num_seconds())));
    page.gauges("stream_lag_seconds", "Age of the low-water", lag);
    let open = labelled().map(|(l, h)| (l, i64::try_from(h.open_items).unwrap_or(i64::MAX)));
    page.gauges("stream_open_items", "Items of work that wait", open);
    let open = labelled().map(|(l, h)| (l, h.gap_open_seconds));
    page.gauges("gap_seconds", "Length of gaps that are not filled", open);
    let lost = labelled().map(|(l, h)| (l, h.gap_lost_seconds));
    let help = "Length of gaps that cannot be filled and that nobody has acknowledged";
    page.gauges("gap_lost_seconds", help, lost);
    let incomplete =
        labelled().filter_map(|(l, h)| Some((l, (now - h.complete_until?).num_seconds())));
    let help = "Age of the instant before which everything is complete or a gap";
    page.gauges("stream_incomplete_seconds", help, incomplete);
    let held = labelled().map(|(l, h)| (l, i64::from(h.held.is_some())));
    page.gauges("stream_held", "1 while the vendor refuses the stream", held);
}

fn lanes(page: &mut Page, shown: &Shown, now: DateTime<Utc>) {
    let labelled = || {
        shown
            .lanes
            .keys()
            .map(|lane| (lane_labels(lane), shown.lane_health(lane)))
    };
    page.counters(
        "lane_delivered",
        "Items confirmed",
        labelled().map(|(l, h)| (l, h.delivered)),
    );
    page.counters(
        "lane_retries",
        "Tries that failed",
        labelled().map(|(l, h)| (l, h.retries)),
    );
    page.counters(
        "lane_excluded",
        "Items that the lane's filter left out",
        labelled().map(|(l, h)| (l, h.excluded)),
    );
    let refused = labelled().map(|(l, h)| (l, h.quarantined));
    page.counters("lane_quarantined", "Items refused for good", refused);
    let held = labelled().map(|(l, h)| (l, i64::from(h.held.is_some())));
    page.gauges("lane_held", "1 while the receiver refuses the lane", held);
    let behind = labelled().map(|(l, h)| (l, i64::try_from(h.behind_bytes).unwrap_or(i64::MAX)));
    let help = "Bytes of the outbox between the lane's mark and the end, those of others included";
    page.gauges("lane_behind_bytes", help, behind);
    let flying = labelled().map(|(l, h)| (l, i64::try_from(h.in_flight).unwrap_or(i64::MAX)));
    page.gauges("lane_in_flight_batches", "Batches on their way", flying);
    let oldest = labelled().map(|(l, h)| (l, h.oldest.map_or(0, |at| (now - at).num_seconds())));
    let kept = || labelled().filter_map(|(labels, health)| Some((labels, health.kept?)));
    let bytes = kept().map(|(l, kept)| (l, i64::try_from(kept.bytes).unwrap_or(i64::MAX)));
    page.gauges("archive_bytes", "Bytes that the archive holds", bytes);
    let files = kept().map(|(l, kept)| (l, kept.files_removed));
    let help = "Files that the archive's limits have removed since it was begun";
    page.counters("archive_files_removed", help, files);
    let removed = kept().map(|(l, kept)| (l, kept.bytes_removed));
    page.counters("archive_bytes_removed", "Bytes of those files", removed);
    let too_old = kept().map(|(l, kept)| (l, kept.items_too_old));
    let help =
        "Records that were older than the archive keeps when they came, and were not written";
    page.counters("archive_records_too_old", help, too_old);
    page.gauges(
        "lane_oldest_seconds",
        "Age of the oldest item that waits",
        oldest,
    );
}

fn lane_labels(lane: &LaneId) -> LaneLabels {
    LaneLabels {
        emitter: lane.emitter.clone(),
        route: lane.route.clone(),
        kind: lane.kind.as_str().to_owned(),
    }
}

/// What waits for somebody to look at it: what receivers refused, and what could not be read.
fn quarantine(page: &mut Page, shown: &Shown, entries: &[Quarantined]) {
    let lanes = shown.lanes.keys().map(|lane| (lane_labels(lane), 0));
    let mut refused: HashMap<LaneLabels, i64> = lanes.collect();
    let tenants = shown.streams.keys().map(StreamId::tenant);
    let tenant = |tenant: &TenantId| TenantLabels {
        tenant: tenant.to_string(),
    };
    let mut unreadable: HashMap<TenantLabels, i64> = tenants.map(|of| (tenant(of), 0)).collect();
    for entry in entries.iter().filter(|entry| !entry.fate.is_over()) {
        let count = match &entry.item {
            Some(item) => refused.entry(lane_labels(&item.lane)).or_default(),
            None => unreadable.entry(tenant(entry.stream.tenant())).or_default(),
        };
        *count += 1;
    }
    let help =
        "Items that the lane's receiver refused and that wait in quarantine (exfilwatch dlq)";
    page.gauges("quarantine_items", help, refused.into_iter());
    let help = "Records, and stretches of the outbox, that could not be read and lie in quarantine";
    page.gauges("quarantine_unreadable", help, unreadable.into_iter());
}

/// What emitters count themselves. A route may have two, which count together.
fn emitters(page: &mut Page, shown: &Shown) {
    let mut counts: BTreeMap<(&str, &str), Vec<(EmitterLabels, u64)>> = BTreeMap::new();
    for (emitter, route, one) in &shown.emitters {
        let labels = || EmitterLabels {
            emitter: emitter.clone(),
            route: route.clone(),
        };
        for count in one.upgrade().iter().flat_map(|one| one.counts()) {
            let of_name = counts.entry((count.name, count.help)).or_default();
            of_name.push((labels(), count.value));
        }
    }
    for ((name, help), values) in counts {
        page.counters(&format!("emitter_{name}"), help, values.into_iter());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use exfilwatch_emitters::{Count, Delivered, EmitError, Emitter};
    use exfilwatch_model::{Envelope, Kind};
    use exfilwatch_state::Fate;

    use super::*;
    use crate::pipeline::watch::Watch;

    #[test]
    fn the_page_counts_days_to_the_end_of_exceptions_and_refused_readings() {
        let watch = Watch::default();
        watch.exceptions(vec![Standing {
            tenant: "contoso".into(),
            name: "agreed".into(),
            detection: "x.*".into(),
            owner: "ann".into(),
            until: chrono::NaiveDate::from_ymd_opt(1970, 1, 4).unwrap(),
        }]);
        for (days, left) in [(0, 3), (3, 0), (5, -2)] {
            let now = DateTime::UNIX_EPOCH + chrono::TimeDelta::days(days);
            let page = text(&watch.copy(), Some(&[]), now);
            let labels = r#"{tenant="contoso",exception="agreed"}"#;
            let line = format!("exfilwatch_exception_days_left{labels} {left}\n");
            assert!(page.contains(&line), "{page}");
            assert!(page.contains("exfilwatch_reload_refused 0\n"), "{page}");
        }
        watch.reloaded(DateTime::UNIX_EPOCH, Some("broken".into()));
        let page = text(&watch.copy(), Some(&[]), DateTime::UNIX_EPOCH);
        assert!(page.contains("exfilwatch_reload_refused 1\n"), "{page}");
        watch.reloaded(DateTime::UNIX_EPOCH, None);
        let page = text(&watch.copy(), Some(&[]), DateTime::UNIX_EPOCH);
        assert!(page.contains("exfilwatch_reload_refused 0\n"), "{page}");
        let counted = r#"exfilwatch_reloads_total{outcome="refused"} 1"#;
        assert!(page.contains(counted), "{page}");
    }

    #[test]
    fn the_page_counts_what_the_archive_holds_and_its_limits_took_out() {
        let watch = Watch::default();
        let lane = |emitter: &str| exfilwatch_state::LaneId {
            emitter: emitter.into(),
            route: "all".into(),
            kind: exfilwatch_model::Kind::Events,
        };
        watch.lane(&lane("stdout.main"));
        let health = watch.lane(&lane("archive.main"));
        health.lock().unwrap().kept = Some(exfilwatch_emitters::Kept {
            bytes: 7,
            files_removed: 2,
            bytes_removed: 5,
            items_too_old: 3,
        });
        let page = text(&watch.copy(), Some(&[]), DateTime::UNIX_EPOCH);
        let labels = r#"{emitter="archive.main",route="all",kind="events"}"#;
        for line in [
            format!("exfilwatch_archive_bytes{labels} 7\n"),
            format!("exfilwatch_archive_files_removed_total{labels} 2\n"),
            format!("exfilwatch_archive_bytes_removed_total{labels} 5\n"),
            format!("exfilwatch_archive_records_too_old_total{labels} 3\n"),
        ] {
            assert!(page.contains(&line), "{page}");
        }
        assert!(
            !page.contains("exfilwatch_archive_bytes{emitter=\"stdout"),
            "{page}"
        );
    }

    /// Counts to seven.
    #[derive(Debug)]
    struct Counting;

    #[async_trait::async_trait]
    impl Emitter for Counting {
        fn name(&self) -> &'static str {
            "splunk_hec.main"
        }

        fn batch_max(&self) -> (usize, usize) {
            (1, 1)
        }

        async fn emit(&self, _batch: &[Envelope]) -> Result<Delivered, EmitError> {
            unreachable!("nothing is sent")
        }

        fn counts(&self) -> Vec<Count> {
            vec![Count {
                name: "maybe_twice",
                help: "Repeats",
                value: 7,
            }]
        }
    }

    #[test]
    fn the_page_counts_what_lies_in_quarantine_and_what_emitters_count() {
        let watch = Watch::default();
        let lane = LaneId {
            emitter: "splunk_hec.main".into(),
            route: "all".into(),
            kind: Kind::Events,
        };
        watch.lane(&lane);
        // Records and findings have a connection each.
        let both: [Arc<dyn Emitter>; 2] = [Arc::new(Counting), Arc::new(Counting)];
        for one in &both {
            watch.emitter("all", one);
        }
        let now = DateTime::UNIX_EPOCH;
        let item = Envelope {
            kind: Kind::Events,
            stream: "contoso/office365/Audit.Exchange".parse().unwrap(),
            id: "a".into(),
            time: None,
            fetched_at: now,
            payload: bytes::Bytes::from_static(b"{}"),
        };
        let refused = || Quarantined::refused(lane.clone(), &item, "no".into(), now);
        let stream = item.stream.clone();
        let unreadable = Quarantined::new(
            stream,
            "blob".into(),
            "no".into(),
            now,
            [].as_slice().into(),
        );
        let dropped = Quarantined {
            fate: Fate::Dropped {
                at: now,
                reason: "a test".into(),
            },
            ..refused()
        };
        let entries = [refused(), refused(), unreadable, dropped];
        let page = text(&watch.copy(), Some(&entries), now);
        let labels = r#"{emitter="splunk_hec.main",route="all",kind="events"}"#;
        let route = r#"{emitter="splunk_hec.main",route="all"}"#;
        for line in [
            format!("exfilwatch_quarantine_items{labels} 2\n"),
            "exfilwatch_quarantine_unreadable{tenant=\"contoso\"} 1\n".to_owned(),
            format!("exfilwatch_emitter_maybe_twice_total{route} 14\n"),
            "# HELP exfilwatch_emitter_maybe_twice Repeats.\n".to_owned(),
        ] {
            assert!(page.contains(&line), "{line}{page}");
        }
        let none = format!("exfilwatch_quarantine_items{labels} 0\n");
        assert!(text(&watch.copy(), Some(&[]), now).contains(&none));
        let untold = text(&watch.copy(), None, now);
        assert!(!untold.contains("quarantine_items") && untold.contains("lane_quarantined"));
        drop(both);
        let page = text(&watch.copy(), Some(&[]), now);
        assert!(!page.contains("maybe_twice"), "they are let go of: {page}");
    }

    #[test]
    fn the_page_names_streams_with_their_lag() {
        let watch = Watch::default();
        let stream = "contoso/office365/Audit.Exchange".parse().unwrap();
        watch.stream(&stream, |health| {
            health.records = 3;
            health.low_water = Some(DateTime::UNIX_EPOCH);
            health.gap_open_seconds = 7;
            health.records_late = 2;
        });
        let now = DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(90);
        let page = text(&watch.copy(), Some(&[]), now);
        let labels = r#"{tenant="contoso",connector="office365",stream="Audit.Exchange"}"#;
        assert!(
            page.contains(&format!("exfilwatch_records_total{labels} 3")),
            "{page}"
        );
        assert!(
            page.contains(&format!("exfilwatch_stream_lag_seconds{labels} 90")),
            "{page}"
        );
        for line in [
            format!("exfilwatch_gap_seconds{labels} 7"),
            format!("exfilwatch_gap_lost_seconds{labels} 0"),
            format!("exfilwatch_records_late_total{labels} 2"),
        ] {
            assert!(page.contains(&line), "{page}");
        }
        assert!(page.ends_with("# EOF\n"));
    }
}
