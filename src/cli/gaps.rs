//! `gaps`: what is missing of each stream, and what has been complete; `gaps acknowledge`: an
//! operator takes note of what is lost. Asked of the running process, or of the store where none
//! answers.

use clap::Subcommand;
use exfilwatch_model::{Clock, Gap, SystemClock, TenantId};

use crate::app;
use crate::cli::Common;
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Table, print, print_items};
use crate::cli::status::{asked, at_rest};
use crate::pipeline::ledger::{self, Interval, IntervalState};
use crate::serve::control::{self, Request};

/// Arguments of `gaps`.
#[derive(Debug, clap::Args)]
pub(crate) struct GapsArgs {
    /// Only this tenant.
    #[arg(long, global = true)]
    tenant: Option<TenantId>,
    /// Also what is complete, and what is too young to be.
    #[arg(long)]
    all: bool,
    #[command(subcommand)]
    command: Option<GapsCommand>,
}

/// What to do with a gap.
#[derive(Debug, Subcommand)]
enum GapsCommand {
    /// Takes note of a gap that cannot be filled: it stays in the ledger as lost, with the reason,
    /// and no longer makes `status` and `gaps` end with exit code 7.
    Acknowledge {
        /// Id of the gap, or its first digits.
        id: String,
        /// Why it is acceptable, for whoever asks later.
        #[arg(long)]
        reason: String,
    },
}

/// Runs the command. Ends with exit code 7 while a gap is open, or lost and not acknowledged.
pub(crate) async fn run(args: GapsArgs, common: Common) -> Outcome {
    if let Some(GapsCommand::Acknowledge { id, reason }) = &args.command {
        return acknowledge(id, reason, &common).await;
    }
    let config = app::load(&common, common.state.is_none())?;
    let folder = &config.state.folder;
    let asking = control::ask::<Vec<Interval>>(folder, &Request::Gaps);
    let mut intervals = match asked(asking.await)? {
        Some(intervals) => intervals,
        None => at_rest(&config, ledger::all_intervals)?,
    };
    intervals.retain(|one| {
        let wanted = args
            .tenant
            .as_ref()
            .is_none_or(|tenant| tenant == one.stream.tenant());
        wanted && (args.all || one.is_gap())
    });
    print_items(common.output, &intervals, &table(&intervals))?;
    failure(&intervals).map_or(Ok(()), Err)
}

/// Intervals for people.
pub(crate) fn table(intervals: &[Interval]) -> Table {
    let mut table = Table::new(&["ID", "STREAM", "FROM", "UNTIL", "STATE", "REASON"]);
    for one in intervals {
        let id = match &one.gaps[..] {
            [] => "-".to_owned(),
            [id] => id.clone(),
            [id, rest @ ..] => format!("{id} +{}", rest.len()),
        };
        table.row([
            id,
            one.stream.to_string(),
            one.from.to_rfc3339(),
            one.until.to_rfc3339(),
            state(one),
            reason(one),
        ]);
    }
    table
}

fn state(one: &Interval) -> String {
    match one.state {
        IntervalState::Complete => "complete".to_owned(),
        IntervalState::Open if one.settling => "open (settling)".to_owned(),
        IntervalState::Open => "open".to_owned(),
        IntervalState::Filled => {
            let records = one.records.map(|records| format!(" ({records} records)"));
            format!("filled{}", records.unwrap_or_default())
        }
        IntervalState::Lost if one.acknowledged => "lost (acknowledged)".to_owned(),
        IntervalState::Lost => "lost".to_owned(),
    }
}

fn reason(one: &Interval) -> String {
    let mut reason = one.reasons.join("; ");
    if one.reasons_more > 0 {
        reason.push_str(&format!("; and {} more", one.reasons_more));
    }
    reason
}

/// What is due, as a failure: exit code 7.
pub(crate) fn failure(intervals: &[Interval]) -> Option<Failure> {
    let count = |state| {
        let due = intervals
            .iter()
            .filter(|one| one.state == state && one.is_due());
        due.count()
    };
    let (open, lost) = (count(IntervalState::Open), count(IntervalState::Lost));
    if open + lost == 0 {
        return None;
    }
    let help = if lost == 0 {
        "exfilwatch gaps lists them; exfilwatch backfill over the time reads it again"
    } else {
        "exfilwatch gaps lists them; exfilwatch backfill over the time reads it again; what cannot \
         be had: exfilwatch gaps acknowledge ID --reason \"…\""
    };
    let what = format!("{open} gaps are not filled, {lost} are lost and not acknowledged");
    Some(Failure::new(Code::Gap, what).help(help))
}

async fn acknowledge(id: &str, reason: &str, common: &Common) -> Outcome {
    let config = app::load(common, common.state.is_none())?;
    let folder = &config.state.folder;
    let request = Request::Acknowledge {
        id: id.to_owned(),
        reason: reason.to_owned(),
    };
    let gap = match control::ask::<Result<Gap, String>>(folder, &request).await {
        Ok(Some(answer)) => answer.map_err(refused)?,
        Ok(None) => {
            let now = SystemClock.now();
            let mut state = app::open_state(&config, now)?;
            let known = state.store();
            let known = exfilwatch_state::StateStore::gaps(&*known);
            let known = known.map_err(|error| app::state_failure(&error))?;
            let gap = ledger::acknowledge(&known, id, reason, now).map_err(refused)?;
            let commit = ledger::acknowledged(&gap, now);
            let written = state.commit_group(vec![commit]);
            written.map_err(|error| app::state_failure(&error))?;
            gap
        }
        Err(error) => return asked::<()>(Err(error)).map(drop),
    };
    print(&format!(
        "gap {} of {} is acknowledged\n",
        gap.id, gap.stream
    ))
}

fn refused(why: String) -> Failure {
    Failure::new(Code::Usage, why).help("exfilwatch gaps shows the ids")
}
