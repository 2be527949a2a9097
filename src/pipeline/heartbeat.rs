//! Heartbeats: one item per stream every few minutes, so that the receiver can tell our silence
//! from the tenant's.

use chrono::{DateTime, Utc};
use exfilwatch_model::TenantId;
use serde_json::json;

use crate::pipeline::notice::Notice;
use crate::pipeline::watch::Shown;

/// The heartbeats of a tenant's streams.
pub fn of(shown: &Shown, tenant: &TenantId, now: DateTime<Utc>) -> Vec<Notice> {
    let own = shown
        .streams
        .iter()
        .filter(|(stream, _)| stream.tenant() == tenant);
    own.map(|(stream, health)| Notice {
        stream: stream.clone(),
        name: "collector.heartbeat",
        at: now,
        facts: json!({
            "lag_seconds": health.low_water.map(|at| (now - at).num_seconds().max(0)),
            "low_water": health.low_water,
            "complete_until": health.complete_until,
            "gap_open_seconds": health.gap_open_seconds,
            "gap_lost_seconds": health.gap_lost_seconds,
            "last_event": health.last_event,
            "last_success": health.last_success,
            "records": health.records,
            "duplicates": health.duplicates,
            "malformed": health.malformed,
            "records_late": health.records_late,
            "items_listed": health.items_listed,
            "items_fetched": health.items_fetched,
            "items_lost": health.items_lost,
            "open_items": health.open_items,
            "failures": health.failures,
            "waiting": health.waiting,
            "held": health.held,
        }),
        gap: None,
    })
    .collect()
}
