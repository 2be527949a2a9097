//! Reconciliation by hand: all streams are told to list a span again, and their accounts are
//! gathered. The same pass as the daily one, by the same sessions.

use std::time::Duration;

use chrono::{DateTime, Utc};
use exfilwatch_model::{StreamId, TenantId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::pipeline::ledger::Account;
use crate::pipeline::watch::Watch;

/// How often the accounts are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconcileRequest {
    /// Only this tenant; all where `None`.
    pub tenant: Option<TenantId>,
    /// From when on; where `None` all that the daily pass lists again.
    pub since: Option<DateTime<Utc>>,
}

/// The last request that was made, with its number; 0 is none.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// Number of the order.
    pub number: u64,
    /// What is asked for.
    pub request: ReconcileRequest,
}

impl Order {
    /// Whether a stream is meant that has carried out orders up to `done`.
    pub(crate) fn is_for(&self, stream: &StreamId, done: u64) -> bool {
        let tenant = self.request.tenant.as_ref();
        self.number > done && tenant.is_none_or(|tenant| tenant == stream.tenant())
    }
}

/// Where requests are made.
#[derive(Debug, Clone)]
pub struct Reconciler {
    orders: watch::Sender<Order>,
    watch: Watch,
}

impl Reconciler {
    /// Over the streams that `watch` shows.
    pub fn new(watch: Watch) -> Self {
        Self {
            orders: watch::Sender::default(),
            watch,
        }
    }

    /// The listing tasks' side.
    pub(crate) fn orders(&self) -> watch::Receiver<Order> {
        self.orders.subscribe()
    }

    /// Has the streams list again, and waits until each has an account that is settled: everything
    /// is fetched, given up, or has failed several times.
    pub async fn reconcile(&self, request: ReconcileRequest, streams: &[StreamId]) -> Vec<Account> {
        let mut number = 0;
        self.orders.send_modify(|order| {
            order.number += 1;
            order.request = request.clone();
            number = order.number;
        });
        let meant = |stream: &&StreamId| {
            let tenant = request.tenant.as_ref();
            tenant.is_none_or(|tenant| tenant == stream.tenant())
        };
        let streams: Vec<_> = streams.iter().filter(meant).collect();
        loop {
            let shown = self.watch.copy();
            let account = |stream: &&StreamId| {
                let account = shown.streams.get(*stream)?.reconciled.clone()?;
                // A later order takes the place of an earlier one.
                let ours = account.order.is_some_and(|order| order >= number);
                (ours && account.is_settled()).then_some(account)
            };
            let accounts: Vec<Account> = streams.iter().filter_map(account).collect();
            if accounts.len() == streams.len() {
                return accounts;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
