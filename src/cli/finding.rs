//! `finding`: what is remembered of findings, what became of them, and how noisy each detection is.
//! Asked of the running process, or of the store where none answers.

use clap::{Subcommand, ValueEnum};
use exfilwatch_model::verdict::{Judgement, Verdict};
use exfilwatch_model::{Clock, SystemClock, TenantId};

use crate::app;
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, Table, print, print_items};
use crate::cli::status::{asked, at_rest};
use crate::cli::{Common, environment};
use crate::pipeline::verdicts::{self, Close, Line, Listing, Noise};
use crate::serve::control::{self, Request};

/// What to do with findings.
#[derive(Debug, Subcommand)]
pub(crate) enum FindingCommand {
    /// The findings that are remembered or closed, the latest first.
    List {
        /// Only this tenant.
        #[arg(long)]
        tenant: Option<TenantId>,
        /// Only what nobody has closed.
        #[arg(long)]
        open: bool,
        /// Signals too (what does not ask for attention by itself).
        #[arg(long)]
        signals: bool,
    },
    /// Says how a finding turned out. It is kept for a year with who and when, told to the receivers,
    /// and counted in the noise table; closing it again replaces it and keeps what was said before.
    Close {
        /// The finding's uid, or its first digits.
        uid: String,
        /// How it turned out.
        #[arg(long = "as", value_enum)]
        judgement: As,
        /// Why, for whoever asks later.
        #[arg(long)]
        reason: String,
        /// Who says so. Default: the user who runs the command.
        #[arg(long, value_name = "WHO")]
        by: Option<String>,
    },
    /// For each detection: raised, closed as true or false, and the part that was something.
    Noise {
        /// Only this tenant.
        #[arg(long)]
        tenant: Option<TenantId>,
    },
}

/// How a finding turned out.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum As {
    /// It was what it says.
    TruePositive,
    /// It was nothing.
    FalsePositive,
}

/// Runs the command.
pub(crate) async fn run(command: FindingCommand, common: Common) -> Outcome {
    match command {
        FindingCommand::List {
            tenant,
            open,
            signals,
        } => {
            let mut listing = listing(&common).await?;
            listing.lines.retain(|line| {
                let wanted = tenant.as_ref().is_none_or(|tenant| *tenant == line.tenant);
                wanted && (line.alert || signals) && !(open && line.verdict.is_some())
            });
            if listing.left_out > 0 {
                tracing::warn!(left_out = listing.left_out, "there are older findings");
            }
            print_items(common.output, &listing.lines, &list_table(&listing.lines))
        }
        FindingCommand::Close {
            uid,
            judgement,
            reason,
            by,
        } => {
            let judgement = match judgement {
                As::TruePositive => Judgement::TruePositive,
                As::FalsePositive => Judgement::FalsePositive,
            };
            let by = by.unwrap_or_else(user);
            let request = Close {
                uid,
                judgement,
                reason,
                by,
            };
            let verdict = close(request, &common).await?;
            if common.output == Output::Table {
                return print(&format!(
                    "finding {} of {} is closed as {}\n",
                    verdict.uid,
                    verdict.detection,
                    verdict.last.judgement.as_str()
                ));
            }
            print_items(common.output, &[verdict], &Table::default())
        }
        FindingCommand::Noise { tenant } => {
            let config = app::load(&common, common.state.is_none())?;
            let request = Request::Noise(tenant.clone());
            let noise = match asked(control::ask(&config.state.folder, &request).await)? {
                Some(noise) => noise,
                None => at_rest(&config, |store, now| {
                    verdicts::noise(store, tenant.as_ref(), now)
                })?,
            };
            print_items(common.output, &noise, &noise_table(&noise))
        }
    }
}

async fn listing(common: &Common) -> Result<Listing, Failure> {
    let config = app::load(common, common.state.is_none())?;
    match asked(control::ask(&config.state.folder, &Request::Findings).await)? {
        Some(listing) => Ok(listing),
        None => at_rest(&config, verdicts::list),
    }
}

async fn close(request: Close, common: &Common) -> Result<Verdict, Failure> {
    let config = app::load(common, common.state.is_none())?;
    let folder = &config.state.folder;
    let asking = Request::Close(request.clone());
    let answer = control::ask::<Result<Verdict, String>>(folder, &asking).await;
    if let Some(answer) = asked(answer)? {
        return answer.map_err(refused);
    }
    // Says it where there is no state.
    at_rest(&config, |store, _| store.tenants_with_findings())?;
    let now = SystemClock.now();
    let mut state = app::open_state(&config, now)?;
    let store = state.store();
    let closed = verdicts::close(&*store, &request, now);
    drop(store);
    let closed = closed.map_err(|error| app::state_failure(&error))?;
    let (verdict, commit) = closed.map_err(refused)?;
    let written = state.commit_group(vec![commit]);
    written.map_err(|error| app::state_failure(&error))?;
    Ok(verdict)
}

fn refused(why: String) -> Failure {
    Failure::new(Code::Usage, why).help("exfilwatch finding list shows the uids")
}

/// Who runs the command: behind sudo, who called it.
fn user() -> String {
    let names = ["SUDO_USER", "USER", "LOGNAME"];
    let known = names.into_iter().filter_map(environment::variable);
    let mut known = known.filter(|name| !name.trim().is_empty());
    known.next().unwrap_or_else(|| "unknown".to_owned())
}

fn list_table(lines: &[Line]) -> Table {
    let mut table = Table::new(&[
        "UID",
        "LAST EVENT",
        "SEVERITY",
        "DETECTION",
        "ENTITY",
        "STATE",
    ]);
    for line in lines {
        let state = match &line.verdict {
            None if line.alert => "open".to_owned(),
            None => "signal".to_owned(),
            Some(verdict) => format!(
                "{} by {}{}",
                verdict.last.judgement.as_str(),
                verdict.last.by,
                if line.grown { ", has grown since" } else { "" }
            ),
        };
        table.row([
            line.uid.to_string(),
            line.last_time.map_or_else(
                || "-".to_owned(),
                |at| at.format("%Y-%m-%dT%H:%MZ").to_string(),
            ),
            line.severity
                .map_or_else(|| "-".to_owned(), |severity| severity.as_str().to_owned()),
            line.detection.clone(),
            line.entity.clone(),
            state,
        ]);
    }
    table
}

fn noise_table(noise: &[Noise]) -> Table {
    let mut table = Table::new(&["DETECTION", "RAISED", "OPEN", "TRUE", "FALSE", "PRECISION"]);
    for one in noise {
        table.row([
            one.detection.clone(),
            one.raised.to_string(),
            one.open.to_string(),
            one.true_positives.to_string(),
            one.false_positives.to_string(),
            one.precision
                .map_or_else(|| "-".to_owned(), |part| format!("{:.0} %", part * 100.0)),
        ]);
    }
    table
}
