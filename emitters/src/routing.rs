//! What of everything goes to a receiver, and by which routes.
//!
//! Every emitter has these members, whatever its kind. Patterns are names in which `*` stands for any
//! text; one that begins with `!` leaves out what it names.

use std::collections::BTreeMap;

use exfilwatch_model::{Kind, Severity};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::BuildError;
use crate::options::{EmitterOptions, IndexOptions};

/// The route of an emitter that names none.
pub const ROUTE_ALL: &str = "all";
/// Longest name of a route, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The routes of an emitter, by name.
pub type Routes = BTreeMap<String, RouteOptions>;

/// What goes to a receiver. An empty list takes all; what is left out is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FilterOptions {
    /// Tenants, by alias or pattern. Of everything.
    #[serde(skip_serializing_if = "is_default")]
    pub tenants: Vec<String>,
    /// Findings and signals: the least severity.
    #[serde(skip_serializing_if = "is_default")]
    pub severity_min: Option<Severity>,
    /// Findings and signals: detections, by name or pattern.
    #[serde(skip_serializing_if = "is_default")]
    pub detectors: Vec<String>,
    /// Records: streams, as `connector/name` (`office365/Audit.Exchange`, `google_workspace/*`).
    #[serde(skip_serializing_if = "is_default")]
    pub streams: Vec<String>,
    /// Records: operations that are sent. A record with several is sent for one of them.
    #[serde(skip_serializing_if = "is_default")]
    pub include: Vec<String>,
    /// Records: operations that are not sent. A record with several stays out when all are named.
    #[serde(skip_serializing_if = "is_default")]
    pub exclude: Vec<String>,
}

/// A way to the receiver of an emitter, with a lane for each kind: what it takes, and what is different
/// for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteOptions {
    /// What goes this way, of what the emitter's own filter lets through.
    #[serde(skip_serializing_if = "is_default")]
    pub filter: FilterOptions,
    /// What to send, in place of what the emitter says.
    #[serde(skip_serializing_if = "is_default")]
    pub send: Option<Vec<Kind>>,
    /// Splunk: index by kind, where it is not the emitter's.
    #[serde(skip_serializing_if = "is_default")]
    pub index: Option<IndexOptions>,
}

/// What says nothing is not shown.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl IndexOptions {
    /// These, and what they leave open as the others have it.
    fn over(&self, others: &Self) -> Self {
        let over = |own: &Option<String>, other: &Option<String>| own.clone().or(other.clone());
        Self {
            findings: over(&self.findings, &others.findings),
            signals: over(&self.signals, &others.signals),
            internal: over(&self.internal, &others.internal),
            events: over(&self.events, &others.events),
            risk: over(&self.risk, &others.risk),
        }
    }
}

impl EmitterOptions {
    /// What goes to it by any of its routes.
    pub fn filter(&self) -> &FilterOptions {
        match self {
            Self::SplunkHec(options) => &options.filter,
            Self::Syslog(options) => &options.filter,
            Self::Ndjson(options) => &options.filter,
            Self::Stdout(options) => &options.filter,
            Self::Archive(options) => &options.filter,
            Self::Webhook(options) => &options.filter,
        }
    }

    /// Its routes; one that takes all where none is configured.
    pub fn routes(&self) -> Routes {
        let routes = match self {
            Self::SplunkHec(options) => &options.routes,
            Self::Syslog(options) => &options.routes,
            Self::Ndjson(options) => &options.routes,
            Self::Stdout(options) => &options.routes,
            Self::Archive(options) => &options.routes,
            Self::Webhook(options) => &options.routes,
        };
        if routes.is_empty() {
            return Routes::from([(ROUTE_ALL.to_owned(), RouteOptions::default())]);
        }
        routes.clone()
    }

    /// Whether findings need an emitter of their own, so as not to wait behind records for a connection, an
    /// acknowledgement or a place among what is sent. Files have none of these.
    pub fn mixes_kinds(&self) -> bool {
        match self {
            Self::SplunkHec(_) | Self::Syslog(_) | Self::Webhook(_) => true,
            Self::Ndjson(_) | Self::Stdout(_) | Self::Archive(_) => false,
        }
    }

    /// The options as they are for one of its routes. `emitter` is for messages.
    pub fn on_route(
        &self,
        emitter: &str,
        name: &str,
        route: &RouteOptions,
    ) -> Result<Self, BuildError> {
        let wrong = |member: &str, reason: &str| {
            let member = format!("routes.{name}{member}");
            Err(BuildError::option(emitter, &member, &reason))
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(plain) {
            return wrong(
                "",
                "a route's name has 1 to 64 letters, digits, '_' and '-'",
            );
        }
        let mut options = self.clone();
        if let Some(index) = &route.index {
            let Self::SplunkHec(splunk) = &mut options else {
                return wrong(".index", "only splunk_hec has indexes");
            };
            splunk.index = index.over(&splunk.index);
        }
        if let Some(send) = &route.send {
            let sends = match &mut options {
                Self::SplunkHec(options) => &mut options.send,
                Self::Syslog(options) => &mut options.send,
                Self::Ndjson(options) => &mut options.send,
                Self::Stdout(options) => &mut options.send,
                Self::Webhook(options) => &mut options.send,
                Self::Archive(_) => return wrong(".send", "an archive takes records only"),
            };
            sends.clone_from(send);
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::read;

    fn options(kind: &str, table: serde_json::Value) -> EmitterOptions {
        read(kind, table).unwrap()
    }

    #[test]
    fn without_routes_there_is_one_that_takes_all() {
        let emitter = options("stdout", serde_json::json!({}));
        let routes = emitter.routes();
        assert_eq!(routes.keys().collect::<Vec<_>>(), ["all"]);
        let same = emitter.on_route("stdout.x", "all", &routes["all"]).unwrap();
        assert_eq!(same, emitter);
    }

    #[test]
    fn a_route_changes_index_and_kinds_and_nothing_else() {
        let table = serde_json::json!({
            "url": "https://splunk.example:8088",
            "token": { "env": "T" },
            "index": { "findings": "security" },
            "routes": { "eu": { "index": { "events": "eu_{tenant}" }, "send": ["events"] } },
        });
        let emitter = options("splunk_hec", table);
        let routes = emitter.routes();
        let eu = emitter.on_route("splunk_hec.main", "eu", &routes["eu"]);
        let EmitterOptions::SplunkHec(eu) = eu.unwrap() else {
            panic!("another kind");
        };
        assert_eq!(eu.index.events.as_deref(), Some("eu_{tenant}"));
        assert_eq!(eu.index.findings.as_deref(), Some("security"));
        assert_eq!(eu.send, [Kind::Events]);
    }

    #[test]
    fn what_a_route_cannot_have_is_said_with_its_place() {
        let table = serde_json::json!({
            "path": "x.ndjson",
            "routes": { "eu": { "index": { "events": "eu" } }, "a/b": {} },
        });
        let emitter = options("ndjson", table);
        for (name, route) in &emitter.routes() {
            let error = emitter.on_route("ndjson.x", name, route).unwrap_err();
            let place = format!("ndjson.x: routes.{name}");
            assert!(error.to_string().starts_with(&place), "{error}");
        }
    }
}
