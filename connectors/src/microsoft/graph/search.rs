//! The audit-log query of Microsoft Graph as an archive: submitted, waited for, and read.
//!
//! "auditLogQuery resource type", Microsoft Graph, 2026-09. A search is submitted once and named in its
//! work item; it is then polled with a growing pause. It can have `succeeded` and yet be cut
//! (`isRecordCountLimitExceeded`). Which records a search asks for is in `streams`, how its pages are
//! read in `reading`. A token with too few permissions brings a part of the records without a
//! word, so its roles are looked at before anything is submitted or read.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, DurationRound, SecondsFormat, TimeDelta, Utc};
use exfilwatch_model::{StreamId, Window, WorkItem};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::reading::{self, Counts};
use super::streams::{READ_ALL, filter, missing_permission};
use super::{Graph, Question, grant};
use crate::kernel::client::broken;
use crate::kernel::surroundings::{BuildError, Surroundings};
use crate::kernel::words::{shown, shown_bytes};
use crate::options::{AuditSearch, Cloud, Office365Options};
use crate::{Archive, ArchiveLimits, FetchError, NoArchive, PageStream};

/// What the service allows, with room for the searches of administrators: 200 submissions in 24
/// hours, 50 at the same time, a million records each; 180 days without a better licence.
pub const LIMITS: ArchiveLimits = ArchiveLimits {
    reach: TimeDelta::days(180),
    lag: TimeDelta::days(1),
    slice: TimeDelta::days(1),
    slice_shortest: TimeDelta::minutes(15),
    submissions_per_day: 150,
    parallel: 5,
};

/// A search that has not ended after so long never will.
const LIFE: TimeDelta = TimeDelta::days(1);
/// Time passes between cutting a span at the reach and searching it.
const REACH_TOLERANCE: TimeDelta = TimeDelta::minutes(10);
/// First pause between two looks at a search; doubled each time …
const POLL_FIRST: Duration = Duration::from_secs(10);
/// … up to this.
const POLL_LONGEST: Duration = Duration::from_mins(2);
/// Looks in a row that may fail.
const FAILED_LOOKS_MAX: u32 = 10;
/// Longest id of a search.
const ID_BYTES_MAX: usize = 128;

/// What a work item says of its search.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Query {
    /// Graph's id.
    id: String,
    /// The span searched.
    window: Window,
    /// When it was submitted, by the vendor's clock.
    submitted: DateTime<Utc>,
}

/// Searches the audit log of one tenant.
#[derive(Debug)]
pub struct AuditLogSearch {
    graph: Arc<Graph>,
    /// Path of the collection of searches.
    queries: String,
}

/// What Graph says of a search.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default, rename = "status")]
    word: String,
    #[serde(default)]
    approximate_returned_record_count: Option<u64>,
    #[serde(default)]
    is_record_count_limit_exceeded: Option<bool>,
    #[serde(default)]
    record_count_limit: Option<u64>,
}

impl AuditLogSearch {
    /// The archive of a tenant, or why there is none. Sends nothing.
    pub fn build(
        options: &Office365Options,
        surroundings: &Surroundings,
    ) -> Result<Result<Self, NoArchive>, BuildError> {
        let none = |why: &str| Ok(Err(NoArchive(why.to_owned())));
        match options.cloud.unwrap_or_default() {
            Cloud::Commercial | Cloud::Gcc => {}
            Cloud::GccHigh | Cloud::Dod => {
                return none(
                    "Microsoft Graph has no audit-log search in the clouds gcc-high and dod: what \
                     is older than 7 days cannot be read, and gaps cannot be filled",
                );
            }
        }
        let version = match options.audit_search.unwrap_or_default() {
            AuditSearch::V1 => "v1.0",
            AuditSearch::Beta => "beta",
            AuditSearch::Off => return none("audit_search is \"off\""),
        };
        Ok(Ok(Self {
            graph: Arc::new(Graph::new(options, surroundings)?),
            queries: format!("/{version}/security/auditLog/queries"),
        }))
    }

    /// What its application may do in Graph; `None` where the token does not tell.
    pub(in crate::microsoft) async fn roles(&self) -> Result<Option<Vec<String>>, FetchError> {
        self.graph.roles().await
    }

    fn now(&self) -> DateTime<Utc> {
        self.graph.client().wire().now()
    }

    /// Waits until the search has ended well.
    async fn ended(&self, query: &Query, what: &str) -> Result<Counts, FetchError> {
        let path = format!("{}/{}", self.queries, query.id);
        let mut pause = POLL_FIRST;
        let mut failed = 0;
        loop {
            match self.look(&path, what).await {
                Ok(status) => {
                    failed = 0;
                    if let Some(counts) = concluded(&status, what)? {
                        return Ok(counts);
                    }
                }
                Err(FetchError::Retry { .. } | FetchError::Throttled { .. })
                    if failed < FAILED_LOOKS_MAX =>
                {
                    failed += 1;
                }
                Err(error) => return Err(error),
            }
            if self.now() - query.submitted > LIFE {
                return Err(FetchError::Gone {
                    what: format!("{what}: not ended a day after it was submitted"),
                });
            }
            let clock = self.graph.client().wire().clock();
            tokio::time::sleep(clock.real(pause)).await;
            pause = (pause * 2).min(POLL_LONGEST);
        }
    }

    async fn look(&self, path: &str, what: &str) -> Result<Status, FetchError> {
        let question = Question {
            path,
            what,
            permission: READ_ALL,
        };
        let body = self.graph.get(question).await?;
        serde_json::from_slice(&body)
            .map_err(|_| broken(what, &format!("not understood: {}", shown_bytes(&body))))
    }
}

/// What a look at a search says: how much there is to read, or `None` while it runs.
fn concluded(status: &Status, what: &str) -> Result<Option<Counts>, FetchError> {
    match status.word.to_ascii_lowercase().as_str() {
        "succeeded" if status.is_record_count_limit_exceeded == Some(true) => {
            Err(FetchError::Truncated {
                what: format!(
                    "{what}: it found more records than the service gives ({})",
                    status.record_count_limit.unwrap_or(reading::RECORDS_MAX)
                ),
            })
        }
        "succeeded" => Ok(Some(Counts {
            approximately: status.approximate_returned_record_count,
            limit: status.record_count_limit.filter(|limit| *limit > 0),
        })),
        ended @ ("failed" | "cancelled") => Err(FetchError::Gone {
            what: format!("{what}: it {ended}"),
        }),
        // Not started, running, or a word that this reference does not know yet.
        _ => Ok(None),
    }
}

#[async_trait]
impl Archive for AuditLogSearch {
    fn limits(&self) -> ArchiveLimits {
        LIMITS
    }

    fn quota_key(&self) -> String {
        self.graph.quota_key().to_owned()
    }

    async fn check(&self, stream: &StreamId) -> Result<(), FetchError> {
        let missing = match self.graph.roles().await? {
            Some(roles) => missing_permission(stream.name(), &roles),
            None => Some(format!(
                "{READ_ALL} (the token does not show what it may do)"
            )),
        };
        missing.map_or(Ok(()), |missing| {
            Err(FetchError::Permission {
                what: format!(
                    "search of the audit log for {}: the token lacks {missing}; the answer would \
                     be a part of the records",
                    stream.name()
                ),
                help: grant(READ_ALL),
            })
        })
    }

    fn parts(&self, stream: &StreamId) -> Vec<String> {
        match filter(stream.name()) {
            // One record type is the least that can be asked for.
            [] | [_] => Vec::new(),
            types => types.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    async fn search_part(
        &self,
        stream: &StreamId,
        window: Window,
        part: Option<&str>,
    ) -> Result<WorkItem, FetchError> {
        let (from, until) = (second_down(window.from()), second_up(window.until()));
        let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
        let span = format!("from {} to {}", time(from), time(until));
        let name = match part {
            Some(part) => format!("{} ({part})", stream.name()),
            None => stream.name().to_owned(),
        };
        let what = format!("search of the audit log for {name} {span}");
        in_reach(window, self.now(), &what)?;
        self.check(stream).await?;
        let mut body = json!({
            "@odata.type": "#microsoft.graph.security.auditLogQuery",
            "displayName": format!("exfilwatch {name} {span}"),
            "filterStartDateTime": time(from),
            "filterEndDateTime": time(until),
        });
        let record_types: Vec<&str> = match part {
            Some(part) => vec![part],
            None => filter(stream.name()).to_vec(),
        };
        if let (false, Some(members)) = (record_types.is_empty(), body.as_object_mut()) {
            members.insert("recordTypeFilters".to_owned(), json!(record_types));
        }
        let question = Question {
            path: &self.queries,
            what: &what,
            permission: READ_ALL,
        };
        let answer = self
            .graph
            .post(question, &Bytes::from(body.to_string()))
            .await?;
        let id = id_of(&answer).ok_or_else(|| {
            broken(
                &what,
                &format!("submitted, but without an id: {}", shown_bytes(&answer)),
            )
        })?;
        let query = Query {
            id: id.clone(),
            window,
            submitted: self.now(),
        };
        Ok(WorkItem {
            stream: stream.clone(),
            key: format!("search/{id}"),
            body: serde_json::to_string(&query).map_err(|e| broken(&what, &e.to_string()))?,
            from: window.from(),
            expires: None,
            attempts: 0,
            next_try: None,
            last_error: None,
        })
    }

    async fn fetch(&self, item: &WorkItem) -> Result<PageStream, FetchError> {
        let query: Query = serde_json::from_str(&item.body).map_err(|e| FetchError::Poison {
            what: format!(
                "search {}: its work item is not understood: {e}",
                shown(&item.key)
            ),
        })?;
        let what = format!(
            "search {} of the audit log for {}",
            shown(&query.id),
            item.stream.name()
        );
        if !is_id(&query.id) {
            return Err(FetchError::Poison {
                what: format!("{what}: this is no id of a search"),
            });
        }
        self.check(&item.stream).await?;
        let counts = self.ended(&query, &what).await?;
        let records = format!("{}/{}/records", self.queries, query.id);
        Ok(reading::pages(
            self.graph.clone(),
            item,
            &records,
            counts,
            what,
        ))
    }
}

/// Whether the archive has the whole span.
fn in_reach(window: Window, now: DateTime<Utc>, what: &str) -> Result<(), FetchError> {
    if window.from() < now - LIMITS.reach - REACH_TOLERANCE {
        return Err(FetchError::Gone {
            what: format!(
                "{what}: older than the {} days the log is kept",
                LIMITS.reach.num_days()
            ),
        });
    }
    let settled = window.until() + LIMITS.lag;
    if settled > now {
        return Err(FetchError::Retry {
            what: format!("{what}: records of a span may come up to a day after its end"),
            after: (settled - now).to_std().ok(),
        });
    }
    Ok(())
}

fn id_of(answer: &Bytes) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
    let id = answer.get("id")?.as_str()?;
    is_id(id).then(|| id.to_owned())
}

/// It becomes a part of a path.
fn is_id(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !text.is_empty() && text.len() <= ID_BYTES_MAX && text.bytes().all(plain)
}

fn second_down(at: DateTime<Utc>) -> DateTime<Utc> {
    at.duration_trunc(TimeDelta::seconds(1)).unwrap_or(at)
}

/// The service compares whole seconds, and refuses an end that is not after its start.
fn second_up(at: DateTime<Utc>) -> DateTime<Utc> {
    let down = second_down(at);
    if down < at {
        down + TimeDelta::seconds(1)
    } else {
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_status_means_wait_read_halve_or_submit_again() {
        let concluded = |text: &str| concluded(&serde_json::from_str(text).unwrap(), "search x");
        for running in ["notStarted", "running", "unknownFutureValue", "", "queued"] {
            let text = format!(r#"{{"status":"{running}"}}"#);
            assert!(concluded(&text).unwrap().is_none(), "{running}");
        }
        for ended in ["failed", "cancelled"] {
            let text = format!(r#"{{"status":"{ended}"}}"#);
            assert!(
                matches!(concluded(&text), Err(FetchError::Gone { .. })),
                "{ended}"
            );
        }
        let cut = r#"{"status":"succeeded","isRecordCountLimitExceeded":true,"recordCountLimit":1000000}"#;
        assert!(matches!(concluded(cut), Err(FetchError::Truncated { .. })));
        let whole = r#"{"status":"Succeeded","isRecordCountLimitExceeded":false,"approximateReturnedRecordCount":7,"recordCountLimit":null}"#;
        let counts = concluded(whole).unwrap().unwrap();
        assert_eq!((counts.approximately, counts.limit), (Some(7), None));
    }

    #[test]
    fn a_span_outside_the_reach_is_not_searched() {
        let now = at("2026-07-01T00:00:00Z");
        let check = |from: &str, until: &str| {
            in_reach(Window::new(at(from), at(until)).unwrap(), now, "search")
        };
        assert!(check("2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z").is_ok());
        let old = check("2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z");
        assert!(matches!(old, Err(FetchError::Gone { .. })));
        let young = check("2026-06-30T00:00:00Z", "2026-06-30T06:00:00Z");
        let Err(FetchError::Retry { after, .. }) = young else {
            panic!("{young:?}");
        };
        assert_eq!(after, Some(Duration::from_hours(6)));
    }

    #[test]
    fn ids_and_seconds_are_fit_for_a_path_and_a_filter() {
        for bad in ["", "a/b", "a?b", "..", "a b", &"x".repeat(129)] {
            assert!(!is_id(bad), "{bad}");
        }
        assert!(is_id("168ec429-084b-a489-90d8-504a87846305"));
        let half = at("2026-05-01T00:00:00.5Z");
        assert_eq!(second_down(half), at("2026-05-01T00:00:00Z"));
        assert_eq!(second_up(half), at("2026-05-01T00:00:01Z"));
        assert_eq!(
            second_up(at("2026-05-01T00:00:00Z")),
            at("2026-05-01T00:00:00Z")
        );
    }
}
