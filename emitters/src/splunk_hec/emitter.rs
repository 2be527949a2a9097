//! The emitter: what the lanes and the rest of the program see of a collector.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use exfilwatch_model::diagnosis::Check;
use exfilwatch_model::{Clock, Envelope};

use super::batch::Batch;
use super::client::base_url;
use super::deployment::Deployment;
use super::diagnosis;
use super::encoded::Encoder;
use super::endpoints::addresses;
use super::line::Line;
use super::reply::INDEX;
use crate::contract::{Count, Delivered, EmitError, Emitter, HeldItem, Refusal};
use crate::environment::Environment;
use crate::error::BuildError;
use crate::http_client::is_loopback;
use crate::options::SplunkHecOptions;
use crate::progress::{Fate, Progress};

/// Splunk HTTP Event Collector; see the module.
#[derive(Debug)]
pub struct SplunkHec {
    deployment: Arc<Deployment>,
    line: Line,
    progress: Progress,
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
        warn_of_the_way(name, options);
        let deployment = Arc::new(Deployment::new(name, options, environment, clock)?);
        Ok(Self {
            line: Line::new(&deployment)?,
            progress: Progress::default(),
            deployment,
        })
    }

    fn encode(&self, batch: &[Envelope]) -> Batch<'_> {
        let mut encoder = Encoder::new(&self.deployment.options, batch.len());
        let mut refused = BTreeMap::new();
        for (item, envelope) in batch.iter().enumerate() {
            if let Err(why) = encoder.add(item, envelope) {
                refused.insert(item, why);
            }
        }
        let encoded = encoder.finish();
        let pieces = encoded.pieces.len();
        let recalled = self.progress.recall(batch, pieces);
        let fates = recalled.unwrap_or_else(|| vec![Fate::Open; pieces]);
        Batch::new(encoded, fates, refused, self.batch_max())
    }
}

#[async_trait]
impl Emitter for SplunkHec {
    fn name(&self) -> &str {
        self.deployment.facts.name()
    }

    fn batch_max(&self) -> (usize, usize) {
        let options = &self.deployment.options;
        (options.batch_events_max, options.batch_bytes_max)
    }

    async fn emit(&self, batch: &[Envelope]) -> Result<Delivered, EmitError> {
        self.emit_telling(batch, &|| ()).await
    }

    async fn emit_telling(
        &self,
        batch: &[Envelope],
        sent: &(dyn Fn() + Sync),
    ) -> Result<Delivered, EmitError> {
        let mut on_its_way = self.encode(batch);
        let outcome = self.line.deliver(&mut on_its_way, sent).await;
        if let Err(error) = outcome {
            self.progress.keep(batch, on_its_way.fates);
            return Err(error);
        }
        let refused = on_its_way.refused.into_iter();
        let held = on_its_way.held.into_iter().map(|(index, what)| HeldItem {
            index,
            what: format!("the receiver does not take {what}"),
            help: INDEX.to_owned(),
        });
        Ok(Delivered {
            held: held.collect(),
            refused: refused
                .map(|(index, reason)| Refusal { index, reason })
                .collect(),
        })
    }

    fn remark(&self) -> Option<String> {
        self.deployment.facts.remark()
    }

    fn counts(&self) -> Vec<Count> {
        self.deployment.facts.counts().into()
    }

    async fn diagnose(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        for endpoint in self.line.endpoints.all() {
            checks.extend(diagnosis::look(&endpoint.session(), &self.deployment.options).await);
        }
        checks
    }
}

/// What an operator should be told at every start.
fn warn_of_the_way(emitter: &str, options: &SplunkHecOptions) {
    let mut urls = std::iter::once(&options.url).chain(&options.more_urls);
    if urls.any(|url| url.scheme() == "http" && !is_loopback(url)) {
        tracing::warn!(emitter, "the HEC token travels unencrypted: use https");
    }
    if options.insecure_skip_verify {
        tracing::warn!(
            emitter,
            "insecure_skip_verify: the receiver's certificate is not looked at, so whoever is on the \
             way can read the token and the events; set pin_sha256 instead (exfilwatch doctor shows it)"
        );
    }
}

/// Addresses, bounds and trust, so that nothing further needs to check them.
pub(crate) fn check(name: &str, options: &SplunkHecOptions) -> Result<(), BuildError> {
    let within = |member, value: u64, min: u64, max: u64| {
        if (min..=max).contains(&value) {
            Ok(())
        } else {
            let reason = format!("{value} is not between {min} and {max}");
            Err(BuildError::option(name, member, &reason))
        }
    };
    for (member, url) in addresses(options) {
        base_url(url).map_err(|why| BuildError::option(name, member, &why))?;
    }
    options.trust().check(name)?;
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
