//! Streams that the vendor refuses are held: tried again slowly, and told of once.

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_connectors::{FetchError, Standing, Withheld};
use exfilwatch_model::StreamId;

use super::Session;
use crate::pipeline::notice::Notice;

/// Wait of a stream whose credentials or permission were refused.
const HOLD: TimeDelta = TimeDelta::minutes(15);

/// A stream that the vendor refuses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    /// Not fetched before this instant.
    pub(super) until: DateTime<Utc>,
    /// Found when fetching: then only a page shows that it works again, since some connectors list
    /// without asking the vendor.
    pub(super) by_fetch: bool,
    /// Nobody asked for it by name, and it is not given: nothing is wrong, and no lag is counted.
    pub(super) withheld: bool,
}

impl Session<'_> {
    /// The vendor answers a held stream again.
    pub(super) fn works_again(&mut self, stream: &StreamId) {
        match self.held.remove(stream) {
            // Nobody was told that it was left alone.
            None | Some(Hold { withheld: true, .. }) => return,
            Some(_) => {}
        }
        tracing::info!(%stream, "stream goes on");
        self.shared
            .watch
            .stream(stream, |health| health.held = None);
        self.ingest
            .stage_notice(&Notice::recovered(stream, self.shared.clock.now()));
    }

    /// The vendor did not answer as hoped. Held streams are told of once.
    pub(super) fn failed(&mut self, stream: &StreamId, error: &FetchError, by_fetch: bool) {
        self.shared
            .watch
            .stream(stream, |health| health.failures += 1);
        let (FetchError::Auth { what, help }
        | FetchError::Permission { what, help }
        | FetchError::AuditingDisabled { what, help }
        | FetchError::Hold { what, help }) = error
        else {
            tracing::warn!(%stream, %error, "will be tried again");
            return;
        };
        if matches!(error, FetchError::AuditingDisabled { .. }) {
            self.switched_off(stream, self.shared.clock.now(), what);
        }
        let hold = Hold {
            until: self.shared.clock.now() + HOLD,
            by_fetch,
            withheld: false,
        };
        self.hold(stream, (what, help), hold);
    }

    /// What a listing said of its stream.
    pub(super) fn stands(&mut self, stream: &StreamId, standing: Standing) {
        let waiting = match standing {
            Standing::Held { what, help } => {
                self.switched_off(stream, self.shared.clock.now(), &what);
                // Nothing new is published; what was listed before can be fetched all the same.
                let hold = Hold {
                    until: self.shared.clock.now(),
                    by_fetch: false,
                    withheld: false,
                };
                return self.hold(stream, (&what, &help), hold);
            }
            Standing::Withheld(withheld) => return self.withheld(stream, &withheld),
            Standing::Waiting { what } => Some(what),
            Standing::Flowing => None,
        };
        self.shared
            .watch
            .stream(stream, |health| health.waiting = waiting);
        if !self.held.get(stream).is_some_and(|hold| hold.by_fetch) {
            self.switched_on(stream);
            self.works_again(stream);
        }
    }

    /// Leaves a stream alone that is not given to us and that nobody asked for.
    fn withheld(&mut self, stream: &StreamId, withheld: &Withheld) {
        let hold = Hold {
            until: self.shared.clock.now(),
            by_fetch: false,
            withheld: true,
        };
        // It was read before, perhaps by a process before this one: that it is taken away is told.
        if self
            .shared
            .store
            .cursor(stream)
            .is_ok_and(|at| at.is_some())
        {
            let hold = Hold {
                withheld: false,
                ..hold
            };
            return self.hold(stream, (&withheld.what, &withheld.help), hold);
        }
        if self.held.insert(stream.clone(), hold).is_none() {
            tracing::info!(%stream, "{withheld}");
        }
        self.shared.watch.stream(stream, |health| {
            health.waiting = Some(withheld.to_string());
            health.held = None;
            health.low_water = None;
            health.complete_until = None;
        });
    }

    /// Whether a stream is left alone.
    pub(super) fn is_withheld(&self, stream: &StreamId) -> bool {
        self.held.get(stream).is_some_and(|hold| hold.withheld)
    }

    /// Holds a stream; the operator is told once.
    fn hold(&mut self, stream: &StreamId, (what, help): (&str, &str), hold: Hold) {
        let now = self.shared.clock.now();
        let before = self.held.insert(stream.clone(), hold);
        let news = before.is_none_or(|old| old.withheld);
        self.shared.watch.stream(stream, |health| {
            health.held = Some(format!("{what}: {help}"));
            health.waiting = None;
        });
        if news {
            tracing::error!(%stream, %what, %help, "stream held");
            self.ingest
                .stage_notice(&Notice::degraded(stream, now, what, help));
        }
    }
}
