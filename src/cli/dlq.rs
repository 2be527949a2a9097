//! `dlq`: what receivers refused for good and what could not be read as a record: look at it, send it again
//! by its lane, or drop it. Asked of the running process, or of the store where none answers.

use clap::Subcommand;
use exfilwatch_model::{Clock, SystemClock, TenantId};
use exfilwatch_state::{Fate, quarantined_bytes};

use crate::app;
use crate::cli::Common;
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, Table, plain, print, print_items};
use crate::cli::status::asked;
use crate::pipeline::again::{self, Ask, Entry, SHOWN_BYTES_MAX};
use crate::serve::control::{self, Request};

/// What to do with the quarantine.
#[derive(Debug, Subcommand)]
pub(crate) enum DlqCommand {
    /// What is kept, and why.
    List {
        /// Only this tenant.
        #[arg(long)]
        tenant: Option<TenantId>,
        /// Also what was delivered after all, or dropped.
        #[arg(long)]
        all: bool,
    },
    /// One entry with its bytes.
    Show {
        /// Its id, or the first digits.
        id: String,
    },
    /// Has refused items sent again by the lanes that they were refused in, as the same bytes.
    Retry {
        /// The entry's id, or the first digits.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<String>,
        /// All that receivers refused.
        #[arg(long)]
        all: bool,
    },
    /// Gives an entry up: its bytes are removed, that it was and why stays noted.
    Drop {
        /// Its id, or the first digits.
        id: String,
        /// Why it is not needed, for whoever asks later.
        #[arg(long)]
        reason: String,
    },
}

/// Runs the command.
pub(crate) async fn run(command: DlqCommand, common: Common) -> Outcome {
    match command {
        DlqCommand::List { tenant, all } => {
            let mut entries = ask(&Ask::List, &common).await?;
            entries.retain(|one| {
                let wanted = tenant
                    .as_ref()
                    .is_none_or(|tenant| tenant == one.stream.tenant());
                wanted && (all || !one.fate.is_over())
            });
            print_items(common.output, &entries, &table(&entries))
        }
        DlqCommand::Show { id } => show(&id, &common).await,
        DlqCommand::Retry { id, .. } => {
            let entries = ask(&Ask::Retry(id), &common).await?;
            print_items(common.output, &entries, &table(&entries))
        }
        DlqCommand::Drop { id, reason } => {
            let entries = ask(&Ask::Drop { id, reason }, &common).await?;
            print_items(common.output, &entries, &table(&entries))
        }
    }
}

/// Asks the running process, or the store.
async fn ask(ask: &Ask, common: &Common) -> Result<Vec<Entry>, Failure> {
    let config = app::load(common, common.state.is_none())?;
    let folder = &config.state.folder;
    let request = Request::Dlq(ask.clone());
    let asking = control::ask::<Result<Vec<Entry>, String>>(folder, &request);
    if let Some(answer) = asked(asking.await)? {
        return answer.map_err(refused);
    }
    if !folder.exists() {
        let what = format!("there is no state folder {}", folder.display());
        return Err(Failure::new(Code::State, what)
            .help("has `exfilwatch run` been started with this configuration?"));
    }
    let now = SystemClock.now();
    let mut state = app::open_state(&config, now)?;
    let failed = |error| app::state_failure(&error);
    let (entries, commit) = again::answer(&*state.store(), ask, now)
        .map_err(failed)?
        .map_err(refused)?;
    state.commit_group(vec![commit]).map_err(failed)?;
    Ok(entries)
}

fn refused(why: String) -> Failure {
    Failure::new(Code::Usage, why).help("exfilwatch dlq list shows the ids")
}

fn table(entries: &[Entry]) -> Table {
    let mut table = Table::new(&["ID", "SINCE", "STREAM", "ORIGIN", "STATE", "REASON"]);
    for one in entries {
        table.row([
            one.id.clone(),
            one.at.format("%Y-%m-%dT%H:%MZ").to_string(),
            one.stream.to_string(),
            one.origin.clone(),
            state(one),
            one.reason.clone(),
        ]);
    }
    table
}

fn state(entry: &Entry) -> String {
    match (&entry.fate, entry.file.is_some()) {
        (Fate::Kept, false) => "kept without its bytes".to_owned(),
        (Fate::Kept, true) if entry.item.is_none() => "not readable".to_owned(),
        (Fate::Kept, true) => "refused".to_owned(),
        (Fate::Again { .. }, _) => "to be sent again".to_owned(),
        (Fate::Delivered { .. }, _) => "delivered".to_owned(),
        (Fate::Dropped { reason, .. }, _) => format!("dropped: {reason}"),
    }
}

async fn show(id: &str, common: &Common) -> Outcome {
    let entries = ask(&Ask::List, common).await?;
    let mut found = entries.iter().filter(|one| one.id.starts_with(id));
    let (Some(entry), None) = (found.next(), found.next()) else {
        return Err(refused(format!(
            "no entry, or more than one, has the id {id:?}"
        )));
    };
    if common.output != Output::Table {
        return print_items(
            common.output,
            std::slice::from_ref(entry),
            &Table::default(),
        );
    }
    let config = app::load(common, common.state.is_none())?;
    let bytes = bytes(&config.state.folder, entry)?;
    let bytes = match &bytes {
        None => "(its bytes are not kept)".to_owned(),
        Some(bytes) => {
            let shown = bytes.get(..SHOWN_BYTES_MAX).unwrap_or(bytes);
            plain(&String::from_utf8_lossy(shown))
        }
    };
    print(&format!(
        "{}\n{bytes}\n",
        table(std::slice::from_ref(entry)).text()
    ))
}

fn bytes(folder: &std::path::Path, entry: &Entry) -> Result<Option<bytes::Bytes>, Failure> {
    let Some(file) = &entry.file else {
        return Ok(None);
    };
    quarantined_bytes(folder, file).map_err(|error| app::state_failure(&error))
}
