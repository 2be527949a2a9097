//! A small look at a tenant's records, for telling an operator which domains are in them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_connectors::{Connector, FetchError};
use exfilwatch_model::{Domains, Page, PartyClass, Window};
use futures::StreamExt;

/// How far the look goes back.
const SPAN: TimeDelta = TimeDelta::days(1);
/// Streams looked at of a connector, items of a stream, pages of an item.
const STREAMS_MAX: usize = 5;
const ITEMS_MAX: usize = 4;
const PAGES_MAX: usize = 2;
/// Longest look at one stream.
const WAIT: Duration = Duration::from_secs(20);

/// How many records name a user of each domain as the one who acted, most often first. Providers
/// where anyone can have a mailbox, guests and service accounts are left out.
pub async fn actor_domains(
    connectors: &[Arc<dyn Connector>],
    now: DateTime<Utc>,
) -> Vec<(String, usize)> {
    let mut counts = BTreeMap::new();
    for connector in connectors {
        for stream in connector.streams().iter().take(STREAMS_MAX) {
            let look = look(&**connector, stream, now, &mut counts);
            match tokio::time::timeout(WAIT, look).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::info!(%stream, %error, "no sample of its records"),
                Err(_) => tracing::info!(%stream, "no sample of its records in time"),
            }
        }
    }
    let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts
}

async fn look(
    connector: &dyn Connector,
    stream: &exfilwatch_model::StreamId,
    now: DateTime<Utc>,
    counts: &mut BTreeMap<String, usize>,
) -> Result<(), FetchError> {
    let Some(window) = Window::new(now - SPAN, now) else {
        return Ok(());
    };
    let cursor = connector.first_cursor(stream, window);
    let listing = connector.list(stream, &cursor).await?;
    // The latest are the likeliest to be there.
    for item in listing.items.iter().rev().take(ITEMS_MAX) {
        let mut pages = connector.fetch(item).await?.take(PAGES_MAX);
        while let Some(page) = pages.next().await {
            count(connector, &page?, counts);
        }
    }
    Ok(())
}

fn count(connector: &dyn Connector, page: &Page, counts: &mut BTreeMap<String, usize>) {
    let nothing_known = Domains::default();
    for record in &page.records {
        let Ok(head) = connector.records().head(record) else {
            continue;
        };
        let actor = head.actor.as_deref().unwrap_or_default();
        let party = nothing_known.party(actor);
        if party.class == PartyClass::ForeignTenant
            && let Some(domain) = party.domain
        {
            *counts.entry(domain).or_default() += 1;
        }
    }
}
