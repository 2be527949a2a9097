//! The emitter: sends the requests of a batch, does what each reply asks for, waits for receipts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use exfilwatch_model::diagnosis::Check;
use exfilwatch_model::{Clock, Envelope};
use tokio::sync::Semaphore;

use super::ack::Lost;
use super::batch::{Batch, hold, retry};
use super::diagnosis;
use super::endpoints::{Endpoint, Endpoints};
use super::envelope::{Piece, pieces};
use super::reply::{Action, CHANNEL, decide};
use super::request::{body, runs};
use crate::contract::{Delivered, EmitError, Emitter, Refusal};
use crate::environment::Environment;
use crate::error::BuildError;
use crate::options::{Ack, SplunkHecOptions};
use crate::progress::{Fate, Progress};

/// Most requests sent and not yet acknowledged.
const OUTSTANDING_MAX: usize = 1_000;
/// Most times a batch goes to a new channel before an operator is asked.
const CHANNELS_MAX: u32 = 3;
/// Pause after a batch when the receiver nears its capacity.
const SLOW_DOWN: Duration = Duration::from_secs(2);

/// Splunk HTTP Event Collector; see the module.
#[derive(Debug)]
pub struct SplunkHec {
    name: String,
    options: SplunkHecOptions,
    endpoints: Endpoints,
    outstanding: Semaphore,
    progress: Progress,
    gzip: AtomicBool,
    warned_no_ack: AtomicBool,
}

impl SplunkHec {
    /// `name` is `splunk_hec.NAME`. Reads the token; makes no call. The clock is only for dates in
    /// `Retry-After`: waiting for acknowledgements goes by real time, as the receiver does.
    pub fn new(
        name: &str,
        options: &SplunkHecOptions,
        environment: &Environment,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BuildError> {
        check(name, options)?;
        Ok(Self {
            name: name.to_owned(),
            endpoints: Endpoints::new(name, options, environment, clock)?,
            outstanding: Semaphore::new(OUTSTANDING_MAX),
            progress: Progress::default(),
            gzip: AtomicBool::new(options.gzip),
            warned_no_ack: AtomicBool::new(false),
            options: options.clone(),
        })
    }

    fn encode(&self, batch: &[Envelope]) -> Batch<'_> {
        let mut all = Vec::with_capacity(batch.len());
        let mut refused = BTreeMap::new();
        for (item, envelope) in batch.iter().enumerate() {
            match pieces(item, envelope, &self.options) {
                Ok(pieces) => {
                    let largest = pieces.iter().map(|piece| piece.bytes.len()).max();
                    let largest = largest.unwrap_or(0);
                    if largest > self.options.event_bytes_max {
                        let max = self.options.event_bytes_max;
                        let why = format!("event of {largest} bytes, event_bytes_max is {max}");
                        refused.insert(item, why);
                    } else {
                        all.extend(pieces);
                    }
                }
                Err(error) => {
                    refused.insert(item, format!("not the JSON it should be: {error}"));
                }
            }
        }
        let recalled = self.progress.recall(batch, all.len());
        let fates = recalled.unwrap_or_else(|| vec![Fate::Open; all.len()]);
        let queue = self.runs(&all, &fates);
        Batch {
            pieces: all,
            fates,
            plain: BTreeSet::new(),
            refused,
            pending: vec![],
            queue,
            slow_down: false,
            channels: 0,
        }
    }

    fn runs(&self, pieces: &[Piece], fates: &[Fate]) -> VecDeque<Vec<usize>> {
        let open: Vec<(usize, usize)> = pieces
            .iter()
            .zip(fates)
            .enumerate()
            .filter(|(_, (_, fate))| **fate == Fate::Open)
            .map(|(at, (piece, _))| (at, piece.bytes.len()))
            .collect();
        let sizes: Vec<usize> = open.iter().map(|(_, size)| *size).collect();
        let limits = (self.options.batch_events_max, self.options.batch_bytes_max);
        runs(&sizes, limits.0, limits.1)
            .into_iter()
            .filter_map(|run| open.get(run))
            .map(|run| run.iter().map(|(at, _)| *at).collect())
            .collect()
    }

    /// Sends everything in the queue. Each round takes pieces out of it, halves a run, or is one of
    /// a counted few.
    async fn send_all<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        batch: &mut Batch<'a>,
    ) -> Result<(), EmitError> {
        while let Some(run) = batch.queue.pop_front() {
            let channel = endpoint.acks.channel();
            let gzip = self.gzip.load(Ordering::Relaxed);
            let events: Vec<_> = run.iter().filter_map(|at| batch.event(*at)).collect();
            let reply = endpoint
                .client
                .send(body(events.iter(), gzip), channel)
                .await?;
            let note = |batch: &mut Batch<'a>, ack, taken: &[usize]| {
                self.note_taken(batch, (endpoint, channel), ack, taken)
            };
            match decide(reply.status, &reply.body) {
                Action::Taken { ack, slow_down } => {
                    batch.slow_down |= slow_down;
                    note(batch, ack, &run)?;
                }
                Action::Prefix { taken, ack, rest } => match run.split_at_checked(taken) {
                    Some((prefix, [bad, suffix @ ..])) => {
                        if !prefix.is_empty() {
                            note(batch, ack, prefix)?;
                        }
                        batch.deal_with(*bad, suffix, rest, &reply)?;
                    }
                    // It names an event that was not sent: its numbers mean nothing.
                    Some((_, [])) | None => batch.halve(run, &reply),
                },
                Action::Halve => batch.halve(run, &reply),
                Action::Uncompressed if gzip => {
                    tracing::warn!(
                        emitter = self.name,
                        "the receiver takes no gzip: switched off"
                    );
                    self.gzip.store(false, Ordering::Relaxed);
                    batch.queue.push_front(run);
                }
                Action::NewChannel => {
                    endpoint.acks.give_up(channel);
                    batch.channels += 1;
                    if batch.channels > CHANNELS_MAX {
                        return Err(hold(&reply, CHANNEL));
                    }
                    batch.queue.push_front(run);
                }
                Action::RefuseAll | Action::Uncompressed => batch.refuse_all(&run, &reply),
                Action::Retry => return Err(retry(&reply)),
                Action::Hold(help) => {
                    self.endpoints.forget_token();
                    return Err(hold(&reply, help));
                }
            }
        }
        Ok(())
    }

    /// Pieces the reply says are taken: for good, or once acknowledged.
    fn note_taken<'a>(
        &'a self,
        batch: &mut Batch<'a>,
        (endpoint, channel): (&'a Endpoint, uuid::Uuid),
        ack: Option<u64>,
        taken: &[usize],
    ) -> Result<(), EmitError> {
        let waits = match (self.options.ack, ack) {
            (Ack::Off, _) | (Ack::Auto, None) => None,
            (Ack::On, None) => {
                if !self.warned_no_ack.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        emitter = self.name,
                        "ack = \"on\", but the token has no indexer acknowledgement: enable it in \
                         Splunk; until then the reply to a send is the receipt"
                    );
                }
                None
            }
            (Ack::Auto | Ack::On, Some(id)) => endpoint.acks.register(channel, id).map_err(lost)?,
        };
        match waits {
            Some(pending) => batch.pending.push((pending, taken.to_vec())),
            None => batch.mark(taken),
        }
        Ok(())
    }

    async fn await_acks(
        &self,
        endpoint: &Endpoint,
        batch: &mut Batch<'_>,
    ) -> Result<(), EmitError> {
        let mut outcome = Ok(());
        for (pending, pieces) in std::mem::take(&mut batch.pending) {
            match endpoint.acks.wait(&pending, &endpoint.client).await {
                Ok(()) => batch.mark(&pieces),
                Err(why) => outcome = Err(lost(why)),
            }
        }
        outcome
    }
}

#[async_trait]
impl Emitter for SplunkHec {
    fn name(&self) -> &str {
        &self.name
    }

    fn batch_max(&self) -> (usize, usize) {
        (self.options.batch_events_max, self.options.batch_bytes_max)
    }

    async fn emit(&self, batch: &[Envelope]) -> Result<Delivered, EmitError> {
        let closed = |_| EmitError::Retry {
            what: "the emitter is shutting down".to_owned(),
            after: None,
        };
        let _slot = self.outstanding.acquire().await.map_err(closed)?;
        let mut on_its_way = self.encode(batch);
        let endpoint = self.endpoints.next();
        let sent = self.send_all(endpoint, &mut on_its_way).await;
        // Also after a failure: what is confirmed is not sent again.
        let acknowledged = self.await_acks(endpoint, &mut on_its_way).await;
        if let Err(error) = sent.and(acknowledged) {
            if matches!(error, EmitError::Retry { .. }) {
                endpoint.rest();
            }
            self.progress.keep(batch, on_its_way.fates);
            return Err(error);
        }
        let refused = on_its_way.refused.into_iter();
        Ok(Delivered {
            refused: refused
                .map(|(index, reason)| Refusal { index, reason })
                .collect(),
            slow_down: on_its_way.slow_down.then_some(SLOW_DOWN),
        })
    }

    async fn diagnose(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        for endpoint in self.endpoints.all() {
            checks.extend(diagnosis::look(&endpoint.client, &self.options).await);
        }
        checks
    }
}

fn lost(why: Lost) -> EmitError {
    let what = match why {
        Lost::TimedOut => "no acknowledgement in time: the batch goes out again on a new channel",
        Lost::Channel => {
            "another indexer answers on this channel: the batch goes out again on a new one"
        }
    };
    EmitError::Retry {
        what: what.to_owned(),
        after: None,
    }
}

/// Bounds of the options, so that nothing further needs to check them.
fn check(name: &str, options: &SplunkHecOptions) -> Result<(), BuildError> {
    let within = |member, value: u64, min: u64, max: u64| {
        if (min..=max).contains(&value) {
            Ok(())
        } else {
            let reason = format!("{value} is not between {min} and {max}");
            Err(BuildError::option(name, member, &reason))
        }
    };
    within("ack_timeout_seconds", options.ack_timeout_seconds, 1, 600)?;
    within("ack_poll_seconds_max", options.ack_poll_seconds_max, 1, 300)?;
    within(
        "connect_timeout_seconds",
        options.connect_timeout_seconds,
        1,
        300,
    )?;
    within(
        "request_timeout_seconds",
        options.request_timeout_seconds,
        1,
        600,
    )?;
    within(
        "batch_events_max",
        options.batch_events_max as u64,
        1,
        100_000,
    )?;
    within(
        "batch_bytes_max",
        options.batch_bytes_max as u64,
        10_000,
        800_000_000,
    )?;
    within(
        "event_bytes_max",
        options.event_bytes_max as u64,
        10_000,
        800_000_000,
    )
}
