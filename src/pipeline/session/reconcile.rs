//! The session's side of a reconciliation: an account is opened by a pass over the retention, or over a
//! span that was asked for, and follows its items to their end.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use exfilwatch_model::{StreamId, Window, WorkItem};
use exfilwatch_state::StateError;

use super::Session;
use crate::pipeline::ledger::{Account, Open};
use crate::pipeline::step::Counts;
use crate::pipeline::worklist::{ItemKey, key_of};

impl Session<'_> {
    /// Number of the last order whose account of the stream is settled.
    pub(super) fn order_done(&self, stream: &StreamId) -> u64 {
        let shown = self.shared.watch.copy();
        let account = shown
            .streams
            .get(stream)
            .and_then(|health| health.reconciled.clone())
            .filter(Account::is_settled);
        account.and_then(|account| account.order).unwrap_or(0)
    }

    /// A span was listed again: what is missing of it?
    pub(super) fn open_account(
        &mut self,
        (stream, order): (&StreamId, Option<u64>),
        (window, began): (Window, DateTime<Utc>),
        items: &[WorkItem],
    ) -> Result<(), StateError> {
        let Some(connector) = self.by_stream.get(stream) else {
            return Ok(());
        };
        let overlap = connector.schedule(stream).overlap;
        let mut listed = BTreeSet::new();
        let mut missing = BTreeSet::new();
        for item in items {
            let is_open = self.work.holds(&key_of(item));
            if is_open || !self.shared.store.is_known(stream, &item.key)? {
                missing.insert(item.key.clone());
            }
            listed.insert(&item.key);
        }
        let (who, when) = ((stream, order), (window, began));
        let open = Open::new(who, when, listed.len(), missing, overlap);
        let account = open.account();
        self.show_account(stream, &account);
        if account.ended.is_some() {
            self.close_account(stream, account);
        } else {
            self.accounts.insert(stream.clone(), open);
        }
        Ok(())
    }

    /// The stream could not be listed, which was asked for by hand.
    pub(super) fn not_reconciled(&self, stream: &StreamId, order: Option<u64>, error: &str) {
        if let Some(order) = order {
            let now = self.shared.clock.now();
            let account = Account::failed(stream, order, now, error.to_owned());
            self.show_account(stream, &account);
        }
    }

    /// A page is staged.
    pub(super) fn reconciled_page(&mut self, (stream, key): &ItemKey, counts: Counts) {
        let listed_at = self
            .work
            .item(&(stream.clone(), key.clone()))
            .map(|item| item.from);
        let (Some(open), Some(listed_at)) = (self.accounts.get_mut(stream), listed_at) else {
            return;
        };
        let new = counts.records.saturating_sub(counts.duplicates);
        let late = open.page(key, listed_at, counts.records, new);
        if late > 0 {
            self.shared
                .watch
                .stream(stream, |health| health.records_late += late);
        }
    }

    /// An item failed.
    pub(super) fn tried_item(&mut self, item: &WorkItem) {
        if let Some(open) = self.accounts.get_mut(&item.stream) {
            open.tried(&item.key, item.attempts);
            let account = open.account();
            self.show_account(&item.stream, &account);
        }
    }

    /// An item is finished; with the last one the account is closed and kept in the ledger.
    pub(super) fn reconciled_item(&mut self, (stream, key): &ItemKey, is_lost: bool) {
        let now = self.shared.clock.now();
        let Some(open) = self.accounts.get_mut(stream) else {
            return;
        };
        let is_over = open.finished(key, is_lost, now);
        let account = open.account();
        self.show_account(stream, &account);
        if is_over {
            self.close_account(stream, account);
        }
    }

    /// The vendor refuses the stream.
    pub(super) fn refused_account(&mut self, stream: &StreamId, what: &str) {
        if let Some(open) = self.accounts.get_mut(stream) {
            open.refused(what);
            let account = open.account();
            self.show_account(stream, &account);
        }
    }

    fn close_account(&mut self, stream: &StreamId, account: Account) {
        tracing::info!(
            %stream, from = %account.from, listed = account.listed, fetched = account.fetched,
            records_new = account.records_new, lost = account.lost, "reconciled"
        );
        self.accounts.remove(stream);
        if let Some(known) = self.ledgers.get_mut(stream) {
            known.reconciled = Some(account);
            self.store_ledger(stream);
        }
    }

    fn show_account(&self, stream: &StreamId, account: &Account) {
        self.shared
            .watch
            .stream(stream, |health| health.reconciled = Some(account.clone()));
    }
}
