//! `finding`: what is remembered of findings, what became of them, and how noisy each detection is.
//! Asked of the running process, or of the store where none answers.

use clap::{Subcommand, ValueEnum};
use exfilwatch_config::Config;
use exfilwatch_emitters::fields::{Policy, policy};
use exfilwatch_model::verdict::{Judgement, Verdict};
use exfilwatch_model::{Clock, Kind, SystemClock, TenantId};
use uuid::Uuid;

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
        /// Only the one with this uid, or whose uid begins so; also as an emitter with a policy of fields
        /// sent it.
        #[arg(long)]
        uid: Option<String>,
    },
    /// Says how a finding turned out. It is kept for a year with who and when, told to the receivers,
    /// and counted in the noise table; closing it again replaces it and keeps what was said before.
    Close {
        /// The finding's uid, or its first digits; also as an emitter with a policy of fields sent it.
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
            uid,
        } => {
            let config = app::load(&common, common.state.is_none())?;
            let mut listing = listing(&config).await?;
            if let Some(uid) = &uid {
                let sent = SentUids::of(&config);
                listing
                    .lines
                    .retain(|line| begins(&line.uid, uid) || sent.begins(line, uid));
            }
            listing.lines.retain(|line| {
                let wanted = tenant.as_ref().is_none_or(|tenant| *tenant == line.tenant);
                let wanted = wanted && (line.alert || signals || uid.is_some());
                wanted && !(open && line.verdict.is_some())
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

async fn listing(config: &Config) -> Result<Listing, Failure> {
    match asked(control::ask(&config.state.folder, &Request::Findings).await)? {
        Some(listing) => Ok(listing),
        None => at_rest(config, verdicts::list),
    }
}

/// Whether a uid begins so.
fn begins(known: &Uuid, uid: &str) -> bool {
    let uid = uid.trim().to_lowercase();
    known.hyphenated().to_string().starts_with(&uid)
}

/// The uids under which emitters with a policy of fields send findings.
struct SentUids(Vec<Policy>);

impl SentUids {
    fn of(config: &Config) -> Self {
        let environment = exfilwatch_emitters::Environment::new(environment::variable);
        let mut policies = Vec::new();
        for emitter in &config.emitters {
            let name = format!("{}.{}", emitter.options.kind(), emitter.name);
            let Some(fields) = emitter.options.fields() else {
                continue;
            };
            match policy(&name, fields, &[Kind::Findings], &environment) {
                Ok(policy) => policies.extend(policy),
                Err(error) => {
                    tracing::warn!(%error, "which findings it sent under which uid cannot be told");
                }
            }
        }
        Self(policies)
    }

    /// Whether the finding's uid began so at some emitter.
    fn begins(&self, line: &Line, uid: &str) -> bool {
        let mut sent = self
            .0
            .iter()
            .map(|policy| policy.sent_uid(&line.tenant, line.uid));
        sent.any(|sent| begins(&sent, uid))
    }
}

/// The finding's own uid where the one given is that of an emitter, and of one finding only.
async fn own_uid(uid: String, config: &Config) -> Result<String, Failure> {
    let sent = SentUids::of(config);
    if sent.0.is_empty() || uid.trim().len() < verdicts::DIGITS_MIN {
        return Ok(uid);
    }
    let lines = listing(config).await?.lines;
    if lines.iter().any(|line| begins(&line.uid, &uid)) {
        return Ok(uid);
    }
    let mut meant = lines.iter().filter(|line| sent.begins(line, &uid));
    match (meant.next(), meant.next()) {
        (Some(line), None) => Ok(line.uid.to_string()),
        (Some(_), Some(_)) | (None, _) => Ok(uid),
    }
}

async fn close(mut request: Close, common: &Common) -> Result<Verdict, Failure> {
    let config = app::load(common, common.state.is_none())?;
    request.uid = own_uid(request.uid, &config).await?;
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
