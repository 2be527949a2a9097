//! `forward`: records from files, through the same two lines as polled ones.
//!
//! A file is known by the digest of its content: one that was forwarded whole is skipped. Records that were
//! delivered before, from whatever source, are detected again but not delivered again.
//!
//! What detectors remember is not written: an interrupted file is read again from its beginning, of what
//! was delivered of it only for them, and counts as forwarded once all files are at their end and the last
//! words on findings are written.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use exfilwatch_config::Config;
use exfilwatch_model::{Clock, JobId, Kind, Page, Product, StreamId, SystemClock, TenantId};
use exfilwatch_state::{Commit, FileMark};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::app;
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, Table, print, print_items};
use crate::cli::{Common, signals, sources};
use crate::files::{ContentDigest, FileBatch, Input};
use crate::pipeline::ingest::{Ingest, IngestError};
use crate::pipeline::own_domains;
use crate::pipeline::step::{Purpose, Readers, StepConfig};
use crate::pipeline::worker::Shared;
use crate::pipeline::{Parts, Pipeline};
use crate::tuning;

/// Name of the stream of records that come from files.
const STREAM: &str = "file";

/// Arguments of `forward`.
#[derive(Debug, clap::Args)]
pub(crate) struct ForwardArgs {
    /// Files with native records (NDJSON, JSON arrays, Reports API pages, Search-UnifiedAuditLog
    /// CSV; plain, gzip or zstd); `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Alias of the tenant the records belong to; its domains come from the configuration.
    #[arg(long, default_value = "default")]
    tenant: TenantId,
    /// A domain of the organisation besides the configured ones; may be repeated.
    #[arg(long, value_name = "DOMAIN")]
    internal_domain: Vec<String>,
    /// Reads files again that were forwarded before. What was delivered is not delivered again.
    #[arg(long)]
    again: bool,
    /// Seconds a receiver may stand still at the end before what is left stays in the outbox.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    patience: u64,
}

/// What was forwarded of a file.
#[derive(Debug, Default, Serialize)]
struct Account {
    /// As given.
    file: String,
    /// Records read.
    records: u64,
    /// Of them, delivered before.
    seen_before: u64,
    /// What was no record; in quarantine.
    malformed: u64,
    /// Forwarded before, so not read.
    skipped: bool,
    /// Read to its end, now or before.
    finished: bool,
}

/// Runs the command.
pub(crate) async fn run(args: ForwardArgs, common: Common) -> Outcome {
    let config = app::load_to_detect(&common, true)?;
    if config.emitters.is_empty() {
        return Err(Failure::new(
            Code::Usage,
            "no emitter is configured, so there is nowhere to forward to",
        )
        .help("add an [emitters.…] table; to see findings only, use exfilwatch replay"));
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let shutdown = CancellationToken::new();
    signals::cancel_on_signal(shutdown.clone());
    let state = app::open_state(&config, clock.now())?;
    let pipeline = Pipeline::start(Parts {
        state,
        routes: crate::routes::build(&config, &clock)?,
        clock,
        budget_bytes: config.state.outbox_bytes_max,
        shutdown: shutdown.clone(),
        drain: Duration::from_secs(config.run.shutdown_timeout_seconds),
    })
    .map_err(|error| app::state_failure(&error))?;
    let accounts = match forward(&args, &config, &pipeline).await {
        Ok(accounts) => accounts,
        Err(failure) => {
            pipeline.stop().await;
            return Err(failure);
        }
    };
    app::fatal(&pipeline)?;
    let finished = pipeline
        .finish(Duration::from_secs(args.patience), shutdown.clone())
        .await;
    tell(&accounts, common.output)?;
    signals::interrupted(&shutdown)?;
    finished.map_err(|lanes| app::undelivered(&lanes, &config.state.folder))
}

fn tell(accounts: &[Account], output: Output) -> Outcome {
    if output != Output::Table {
        return print_items(output, accounts, &Table::default());
    }
    let sum = |of: fn(&Account) -> u64| accounts.iter().map(of).sum::<u64>();
    print(&format!(
        "{} records, {} delivered before, {} malformed (in quarantine), {} files skipped (forwarded before)\n",
        sum(|file| file.records),
        sum(|file| file.seen_before),
        sum(|file| file.malformed),
        sum(|file| file.skipped.into()),
    ))
}

async fn forward(
    args: &ForwardArgs,
    config: &Config,
    pipeline: &Pipeline,
) -> Result<Vec<Account>, Failure> {
    let inputs: Vec<Input> = args
        .files
        .iter()
        .map(|file| Input::from_argument(file))
        .collect();
    let mut files = Vec::new();
    for input in &inputs {
        files.push((input, digest(input)?));
    }
    let job = job_of("forward", &files);
    let shared = pipeline.shared();
    let step = StepConfig {
        memory: app::memory(args.tenant.clone(), shared)?,
        job: job.clone(),
        readers: readers(&args.tenant, &args.internal_domain, config, shared)?,
        rules: tuning::rules_of(config, &app::rules(&config.detectors)?, &args.tenant)?.into(),
        forwards_events: pipeline.takes(Kind::Events),
        purpose: Purpose::Deliver,
        live_since: DateTime::UNIX_EPOCH,
    };
    let ingest = Ingest::restore(
        step,
        shared.store.clone(),
        shared.committer.clone(),
        shared.watch.clone(),
    )
    .map_err(|error| app::state_failure(&error))?;
    let mut line = Line {
        ingest: ingest.transient(),
        tenant: args.tenant.clone(),
        accounts: Vec::new(),
        read: Vec::new(),
        pipeline,
    };
    for (input, digest) in &files {
        if shared.shutdown.is_cancelled() {
            return Ok(line.accounts);
        }
        let account = line.file(input, digest.as_deref(), args.again).await?;
        line.accounts.push(account);
    }
    line.end().await?;
    // An older version wrote them.
    shared
        .store
        .forget_job_windows(&job)
        .map_err(|error| app::state_failure(&error))?;
    Ok(line.accounts)
}

/// Digest of a file's content; standard input can be read only once and has none.
pub(crate) fn digest(input: &Input) -> Result<Option<String>, Failure> {
    match input {
        Input::Stdin => Ok(None),
        Input::Path(path) => ContentDigest::of_file(path)
            .map(|digest| Some(digest.to_string()))
            .map_err(|error| sources::broken(&error)),
    }
}

/// One job for one set of contents, interrupted and begun again the same.
pub(crate) fn job_of(what: &str, files: &[(&Input, Option<String>)]) -> JobId {
    let digests: BTreeSet<_> = files
        .iter()
        .filter_map(|(_, digest)| digest.as_deref())
        .collect();
    let named = digests.into_iter().collect::<Vec<_>>().join(" ");
    let id = if named.is_empty() {
        uuid::Uuid::new_v4()
    } else {
        uuid::Uuid::new_v5(&exfilwatch_model::identity::NAMESPACE, named.as_bytes())
    };
    JobId::new(&format!("{what}-{id}")).unwrap_or_else(|_| JobId::live())
}

/// Readers for files of a tenant, with domains of the organisation besides the configured ones.
pub(crate) fn readers(
    tenant: &TenantId,
    internal: &[String],
    config: &Config,
    shared: &Shared,
) -> Result<Readers, Failure> {
    // Files are read without asking anybody: with "auto", what `run` was told last counts.
    let known = own_domains::remembered(&*shared.store, tenant)
        .map_err(|error| app::state_failure(&error))?;
    let configured = config.tenants.get(tenant);
    let mut domains = configured
        .map(|tenant| tenant.domains(&known))
        .unwrap_or_default();
    for domain in internal {
        domains = domains.with_internal(domain).into_owned();
    }
    let lists = config.lists.get(tenant).cloned();
    Ok(app::readers_of(
        domains.with_lists(lists.unwrap_or_default()),
    ))
}

struct Line<'a> {
    ingest: Ingest,
    tenant: TenantId,
    accounts: Vec<Account>,
    /// Files that are at their end.
    read: Vec<FileMark>,
    pipeline: &'a Pipeline,
}

impl Line<'_> {
    async fn file(
        &mut self,
        input: &Input,
        digest: Option<&str>,
        again: bool,
    ) -> Result<Account, Failure> {
        let mut account = Account {
            file: input.to_string(),
            ..Account::default()
        };
        let known = self.mark(digest)?;
        let given_twice = self.read.iter().any(|mark| Some(&*mark.digest) == digest);
        if given_twice || known.as_ref().is_some_and(|mark| mark.finished) && !again {
            account.skipped = true;
            account.finished = true;
            tracing::info!(file = %input, "forwarded before; skipped");
            return Ok(account);
        }
        let done = known
            .filter(|mark| !mark.finished)
            .map_or(0, |mark| mark.offset);
        let reader = sources::open(input)?;
        for batch in reader {
            let batch = batch.map_err(|error| sources::broken(&error))?;
            if self.pipeline.shared().shutdown.is_cancelled() {
                return Ok(account);
            }
            account.finished = batch.last;
            let mark = digest.map(|digest| FileMark {
                path: input.to_string(),
                digest: digest.to_owned(),
                offset: batch.offset,
                finished: false,
            });
            if batch.last {
                self.read.extend(mark.clone());
            }
            // Where the last batch holds no records, its offset is that of the one before.
            if batch.offset <= done && !(batch.last && batch.records.is_empty()) {
                self.again(batch, &mut account).await?;
            } else {
                self.wait_while_paused().await;
                self.batch(batch, mark, &mut account).await?;
            }
        }
        Ok(account)
    }

    /// The last words on findings; then the files are forwarded. Interrupted between the two, they are
    /// said of the same findings again, and so not sent.
    async fn end(&mut self) -> Outcome {
        let now = self.pipeline.shared().clock.now();
        let ended = async {
            self.ingest.end(now).await?;
            let files = std::mem::take(&mut self.read).into_iter();
            let finished = |mark| FileMark {
                finished: true,
                ..mark
            };
            self.ingest.stage_commit(Commit {
                files: files.map(finished).collect(),
                ..Commit::default()
            });
            self.ingest.flush(now).await
        };
        ended
            .await
            .map_err(|error| Failure::caused(Code::State, "writing what was found", &error))
    }

    fn mark(&self, digest: Option<&str>) -> Result<Option<FileMark>, Failure> {
        let Some(digest) = digest else {
            return Ok(None);
        };
        let store = &self.pipeline.shared().store;
        store
            .file(digest)
            .map_err(|error| app::state_failure(&error))
    }

    /// Shows a batch that was delivered before to the detectors.
    async fn again(&mut self, batch: FileBatch, account: &mut Account) -> Outcome {
        for (product, page) in pages(batch, &self.tenant, self.pipeline.shared().clock.now())? {
            let products = vec![product; page.records.len()];
            let counts = self
                .ingest
                .again(&page, &products)
                .await
                .map_err(|error| unwritten(&error))?;
            account.records += counts.records;
            account.seen_before += counts.records;
            account.malformed += counts.malformed;
        }
        Ok(())
    }

    /// Commits a batch: a page for each product in it, the file's mark with the last.
    async fn batch(
        &mut self,
        batch: FileBatch,
        mark: Option<FileMark>,
        account: &mut Account,
    ) -> Outcome {
        let pages = pages(batch, &self.tenant, self.pipeline.shared().clock.now())?;
        let last = pages.len() - 1;
        for (index, (product, page)) in pages.into_iter().enumerate() {
            let files = if index == last {
                mark.clone().into_iter().collect()
            } else {
                Vec::new()
            };
            let with = Commit {
                files,
                ..Commit::default()
            };
            let products = vec![product; page.records.len()];
            let counts = self
                .ingest
                .page(&page, &products, with)
                .await
                .map_err(|error| unwritten(&error))?;
            account.records += counts.records;
            account.seen_before += counts.duplicates;
            account.malformed += counts.malformed;
        }
        Ok(())
    }

    async fn wait_while_paused(&self) {
        let shared = self.pipeline.shared();
        let mut paused = shared.paused.clone();
        let open = paused.wait_for(|paused| !paused.holds(&self.tenant));
        tokio::select! {
            _ = open => {}
            () = shared.shutdown.cancelled() => {}
        }
    }
}

fn unwritten(error: &IngestError) -> Failure {
    Failure::caused(Code::State, "writing what was read", error)
        .help("nothing is lost: run the command again, it goes on where it was")
}

/// A page for each product in a batch; at least one, as what is malformed goes with the first.
pub(crate) fn pages(
    batch: FileBatch,
    tenant: &TenantId,
    fetched_at: DateTime<Utc>,
) -> Result<Vec<(Product, Page)>, Failure> {
    let (m365, google): (Vec<_>, Vec<_>) = batch
        .records
        .into_iter()
        .partition(|(product, _)| *product == Product::M365);
    let mut malformed = batch.malformed;
    let mut pages = Vec::new();
    for (product, connector, records) in [
        (Product::M365, "office365", m365),
        (Product::GoogleWorkspace, "google_workspace", google),
    ] {
        if records.is_empty() && (product == Product::M365 || !pages.is_empty()) {
            continue;
        }
        let stream = StreamId::new(tenant.clone(), connector, STREAM)
            .map_err(|error| Failure::caused(Code::Usage, "naming the stream", &error))?;
        let page = Page {
            stream,
            item: STREAM.to_owned(),
            records: records.into_iter().map(|(_, record)| record).collect(),
            malformed: std::mem::take(&mut malformed),
            fetched_at,
            last: true,
        };
        pages.push((product, page));
    }
    Ok(pages)
}
