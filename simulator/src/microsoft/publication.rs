//! Blobs that are published by hand beside those of the world: with whatever is in them, under any
//! id, at any time. For what a service does rarely and a client must stand all the same.

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::Microsoft;
use crate::world::{CONTENT_TYPES, RETENTION_OFFICE365_MS};

/// A blob to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Alias of the tenant.
    pub tenant: String,
    /// Its content type.
    pub content_type: String,
    /// Opaque id; one without `$` is listed and refused as invalid when it is fetched.
    pub content_id: String,
    /// `contentCreated`.
    pub created: DateTime<Utc>,
    /// `contentExpiration`; seven days after `created` where none is given.
    pub expires: Option<DateTime<Utc>>,
    /// From when on it can be read (404 AF20050 before); `created` where none is given.
    pub ready: Option<DateTime<Utc>>,
    /// The body, as it is.
    pub body: Bytes,
}

impl Publication {
    /// A blob of these records, to be had at once and for seven days.
    pub fn new(
        (tenant, content_type): (&str, &str),
        content_id: &str,
        created: DateTime<Utc>,
        records: &[&str],
    ) -> Self {
        Self {
            tenant: tenant.to_owned(),
            content_type: content_type.to_owned(),
            content_id: content_id.to_owned(),
            created,
            expires: None,
            ready: None,
            body: Bytes::from(format!("[{}]", records.join(","))),
        }
    }
}

/// A blob that was published.
#[derive(Debug, Clone)]
pub(super) struct Published {
    pub(super) tenant: usize,
    pub(super) content_type: &'static str,
    pub(super) content_id: String,
    pub(super) created_ms: i64,
    pub(super) expires_ms: i64,
    pub(super) ready_ms: i64,
    pub(super) body: Bytes,
}

impl Microsoft {
    /// Publishes a blob. False where there is no such tenant or content type.
    pub fn publish(&self, blob: Publication) -> bool {
        let known = CONTENT_TYPES
            .iter()
            .find(|known| **known == blob.content_type);
        let (Some(tenant), Some(content_type)) = (self.number_of_alias(&blob.tenant), known) else {
            return false;
        };
        let created_ms = blob.created.timestamp_millis();
        let expires = blob.expires.map(|at| at.timestamp_millis());
        self.state().published.push(Published {
            tenant,
            content_type,
            content_id: blob.content_id,
            created_ms,
            expires_ms: expires.unwrap_or(created_ms + RETENTION_OFFICE365_MS),
            ready_ms: blob.ready.map_or(created_ms, |at| at.timestamp_millis()),
            body: blob.body,
        });
        true
    }
}
