//! `events`: what somebody did around a time, out of the archive.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::PathBuf;

use bytes::Bytes;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use exfilwatch_config::Config;
use exfilwatch_emitters::EmitterOptions;
use exfilwatch_emitters::archive::{ArchiveError, Archived, Search, Searched};
use exfilwatch_model::{Clock, RawRecord, StreamId, SystemClock, TenantId, Window, field};
use serde_json::value::RawValue;

use crate::app::{self, readers};
use crate::cli::Common;
use crate::cli::backfill::{parse_age, parse_time};
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, Table, print, print_items};
use crate::pipeline::filter::product_of;
use crate::pipeline::step::Readers;

/// Arguments of `events`.
#[derive(Debug, clap::Args)]
pub(crate) struct EventsArgs {
    /// Who acted: address, name or id as the vendor writes it, in any case. Without, everybody.
    #[arg(long, value_name = "WHO")]
    actor: Option<String>,
    /// The middle of the time looked at: 2026-05-01T09:00:00Z, a date, or an age such as 2h.
    #[arg(long, value_name = "TIME")]
    around: String,
    /// How far before and after: 30m, 1h, 2d.
    #[arg(long, default_value = "1h", value_name = "AGE")]
    within: String,
    /// Only this tenant.
    #[arg(long)]
    tenant: Option<TenantId>,
    /// Searches this folder and not the configured archives.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Most records shown, the earliest first.
    #[arg(long, default_value_t = 1_000, value_name = "COUNT")]
    limit: usize,
}

/// The records that were found, by time; no more than asked for.
#[derive(Debug)]
struct Hits {
    limit: usize,
    left_out: u64,
    by_time: BTreeSet<(DateTime<Utc>, StreamId, Bytes)>,
}

impl Hits {
    fn add(&mut self, time: DateTime<Utc>, stream: StreamId, record: Bytes) {
        self.by_time.insert((time, stream, record));
        if self.by_time.len() > self.limit {
            self.by_time.pop_last();
            self.left_out += 1;
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &EventsArgs, common: &Common) -> Outcome {
    let window = window(args, SystemClock.now())?;
    let archives = archives(args, common)?;
    let readers = readers::<&str>(&[], &[]);
    let mut hits = Hits {
        limit: args.limit,
        left_out: 0,
        by_time: BTreeSet::new(),
    };
    let search = Search {
        actor: args.actor.as_deref(),
        window,
        tenant: args.tenant.as_ref(),
        stream: None,
    };
    for archive in &archives {
        let searched = search.run(archive, &mut |found| {
            let time = time_of(&readers, &found);
            if window.from() <= time && time < window.until() {
                hits.add(time, found.stream, found.record);
            }
            true
        });
        tell(&searched.map_err(|error| failure(&error))?, window);
    }
    if hits.left_out > 0 {
        tracing::warn!(
            left_out = hits.left_out,
            shown = args.limit,
            "there are more records; a larger --limit or a shorter --within shows them"
        );
    }
    show(&hits, &readers, common.output)
}

fn window(args: &EventsArgs, now: DateTime<Utc>) -> Result<Window, Failure> {
    let middle = parse_time("--around", &args.around, now)?;
    let within = parse_age(&args.within).filter(|within| *within > TimeDelta::zero());
    let wrong = || {
        let what = format!("--within {:?} is no length of time", args.within);
        Failure::new(Code::Usage, what).help("write 30m, 1h or 2d")
    };
    let within = within.ok_or_else(wrong)?;
    let from = middle.checked_sub_signed(within).ok_or_else(wrong)?;
    // What happened at the last instant belongs to it.
    let until = middle
        .checked_add_signed(within + TimeDelta::milliseconds(1))
        .ok_or_else(wrong)?;
    Window::new(from, until).ok_or_else(wrong)
}

fn archives(args: &EventsArgs, common: &Common) -> Result<Vec<PathBuf>, Failure> {
    if let Some(folder) = &args.folder {
        return Ok(vec![folder.clone()]);
    }
    let config = app::load(common, true)?;
    let folders = configured(&config);
    if folders.is_empty() {
        return Err(Failure::new(
            Code::Usage,
            "no archive is configured, so there are no records to search",
        )
        .help(
            "add [emitters.archive.main] with folder = \"archive\"; it fills while exfilwatch run is \
             up, and exfilwatch backfill brings what was before. --folder DIR searches one elsewhere",
        ));
    }
    Ok(folders)
}

/// The folders of the configured archives.
pub(crate) fn configured(config: &Config) -> Vec<PathBuf> {
    let folder = |emitter: &exfilwatch_config::EmitterConfig| match &emitter.options {
        EmitterOptions::Archive(options) => Some(options.folder.clone()),
        _ => None,
    };
    config.emitters.iter().filter_map(folder).collect()
}

/// An archive that could not be searched, as a failed command.
pub(crate) fn failure(error: &ArchiveError) -> Failure {
    match error {
        ArchiveError::None(folder) => Failure::new(
            Code::Usage,
            format!("there is no archive in {}", folder.display()),
        )
        .help("it is made with the first records that exfilwatch run or backfill delivers"),
        error => Failure::caused(Code::State, "the archive cannot be searched", error)
            .help("check permissions and the disk"),
    }
}

/// When a record happened, as the archive sees it.
pub(crate) fn time_of(readers: &Readers, found: &Archived) -> DateTime<Utc> {
    let record = RawRecord::new(found.record.clone());
    let head = readers.of(product_of(&found.stream)).head(&record);
    let time = head.ok().and_then(|head| head.time);
    let in_its_hour =
        |time: &DateTime<Utc>| time.duration_trunc(TimeDelta::hours(1)).ok() == Some(found.hour);
    time.filter(in_its_hour).unwrap_or(found.hour)
}

/// What the search could not see.
pub(crate) fn tell(searched: &Searched, window: Window) {
    let removed = &searched.removed;
    if let Some(until) = removed.until.filter(|until| *until > window.from()) {
        tracing::warn!(%until, files = removed.files, "the archive's limits have removed hours up to this time");
    }
    if searched.damaged > 0 {
        tracing::error!(
            blocks = searched.damaged,
            "parts of the archive are damaged and were left out"
        );
    }
    tracing::debug!(?searched, "archive searched");
}

fn show(hits: &Hits, readers: &Readers, output: Output) -> Outcome {
    let records = hits.by_time.iter();
    match output {
        Output::Table => print(&table(records, readers).text()),
        // The vendor's records as they are: what reads an export reads this.
        Output::Ndjson => {
            let mut text = Vec::new();
            for (_, _, record) in records {
                text.extend_from_slice(record);
                text.push(b'\n');
            }
            print(&String::from_utf8_lossy(&text))
        }
        Output::Json => {
            let raw = |record: &Bytes| serde_json::from_slice::<Box<RawValue>>(record);
            let raw: Result<Vec<_>, _> = records.map(|(_, _, record)| raw(record)).collect();
            let raw =
                raw.map_err(|error| Failure::caused(Code::State, "reading a record", &error))?;
            print_items(output, &raw, &Table::default())
        }
    }
}

fn table<'a>(
    records: impl Iterator<Item = &'a (DateTime<Utc>, StreamId, Bytes)>,
    readers: &Readers,
) -> Table {
    let mut table = Table::new(&["TIME", "ACTOR", "OPERATION", "WHAT", "FROM", "STREAM"]);
    for (time, stream, record) in records {
        let record = RawRecord::new(record.clone());
        let events = readers.of(product_of(stream)).normalise(&record, *time);
        for event in events.unwrap_or_default() {
            let text = |names: &[&str]| {
                let found = names.iter().find_map(|name| event.text(name));
                found.map_or_else(|| "-".to_owned(), Cow::into_owned)
            };
            table.row([
                time.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
                text(&[field::ACTOR]),
                text(&[field::OPERATION]),
                text(&[
                    field::FORWARD_TO,
                    field::OBJECT_NAME,
                    field::OBJECT,
                    field::TARGET,
                    field::MAILBOX,
                ]),
                text(&[field::SOURCE_IP]),
                stream.to_string(),
            ]);
        }
    }
    table
}
