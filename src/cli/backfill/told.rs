//! What a backfill prints: the plan before the work, the account after it.

use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, Table, print};
use crate::pipeline::job::plan::Plan;
use crate::pipeline::job::{JobEnd, JobKind, Progress, SliceAccount};

/// Prints the plan. As JSON it is a part of the one document at the end, so it is printed now only
/// where nothing follows.
pub(super) fn plan(plans: &[Plan], output: Output, nothing_follows: bool) -> Outcome {
    match output {
        Output::Table => print(&table_of_plan(plans)),
        Output::Ndjson => {
            for line in plans.iter().flat_map(lines_of_plan) {
                print(&format!("{line}\n"))?;
            }
            Ok(())
        }
        Output::Json if nothing_follows => document(&json!({ "plan": plans })),
        Output::Json => {
            for line in plans.iter().flat_map(lines_of_plan) {
                tracing::info!(%line, "plan");
            }
            Ok(())
        }
    }
}

fn lines_of_plan(plan: &Plan) -> Vec<Value> {
    let line = |stream: &_| {
        let mut line = typed("plan", stream);
        line["wanted"] = json!(plan.wanted);
        line["read"] = json!(plan.read);
        line["beside_live"] = json!(plan.beside_live);
        line
    };
    plan.streams.iter().map(line).collect()
}

fn table_of_plan(plans: &[Plan]) -> String {
    let mut table = Table::new(&[
        "STREAM",
        "RECORDS",
        "REQUESTS",
        "MINUTES",
        "A MINUTE",
        "KNOWN FROM",
    ]);
    let number = |n: Option<u64>| n.map_or_else(|| "unknown".to_owned(), |n| format!("~{n}"));
    let mut notes = String::new();
    for plan in plans {
        notes.push_str(&format!(
            "range {} to {}; read from {} to {}, so that windows at its edges are whole\n",
            plan.wanted.from().to_rfc3339(),
            plan.wanted.until().to_rfc3339(),
            plan.read.from().to_rfc3339(),
            plan.read.until().to_rfc3339(),
        ));
        if plan.beside_live {
            notes.push_str("a poller is at work beside it and keeps half of each quota\n");
        }
        for stream in &plan.streams {
            let rate = stream.requests_per_minute;
            table.row([
                stream.stream.to_string(),
                number(stream.records),
                number(stream.requests),
                number(stream.minutes),
                rate.map_or_else(|| "unknown".to_owned(), |rate| rate.to_string()),
                stream.basis.clone(),
            ]);
            if let Some(outside) = stream.outside {
                let archive = stream.archive.as_deref().unwrap_or("not to be had");
                notes.push_str(&format!(
                    "{}: {} to {} is no longer listed: {archive}\n",
                    stream.stream,
                    outside.from().to_rfc3339(),
                    outside.until().to_rfc3339(),
                ));
            }
        }
    }
    format!("{}{notes}\n", table.text())
}

/// Prints slices as they are finished, where lines are wanted.
pub(super) fn slices(slices: &[SliceAccount], output: Output) -> Outcome {
    if output == Output::Ndjson {
        for slice in slices {
            print(&format!("{}\n", typed("slice", slice)))?;
        }
    }
    Ok(())
}

/// Prints the account.
pub(super) fn account(
    plans: &[Plan],
    all_slices: &[SliceAccount],
    done: &Progress,
    output: Output,
) -> Outcome {
    let mut end = json!({
        "end": done.end, "records": done.records, "seen_before": done.seen_before,
        "gaps": done.gaps(), "slices_done": done.slices_done, "slices": done.slices,
    });
    if !done.learned.is_empty() {
        end["learned"] = json!(done.learned);
    }
    match output {
        Output::Table => print(&format!(
            "{}{} records read, {} of them seen before, {} gaps\n",
            table_of_streams(done),
            done.records,
            done.seen_before,
            done.gaps()
        )),
        Output::Ndjson => {
            for stream in &done.streams {
                print(&format!("{}\n", typed("stream", stream)))?;
            }
            print(&format!("{}\n", typed("end", &end)))
        }
        Output::Json => {
            let mut whole = end;
            whole["plan"] = json!(plans);
            whole["streams"] = json!(done.streams);
            whole["slices_read"] = json!(all_slices);
            document(&whole)
        }
    }
}

fn table_of_streams(done: &Progress) -> String {
    let mut table = Table::new(&[
        "STREAM",
        "SLICES",
        "RECORDS",
        "SEEN BEFORE",
        "MALFORMED",
        "GAPS",
        "",
    ]);
    for stream in &done.streams {
        let before = match stream.slices_done_before {
            0 => String::new(),
            n => format!("{n} slices by an earlier run"),
        };
        table.row([
            stream.stream.to_string(),
            format!("{}/{}", stream.slices_done, stream.slices),
            stream.records.to_string(),
            stream.seen_before.to_string(),
            stream.malformed.to_string(),
            stream.gaps.to_string(),
            stream.refused.clone().unwrap_or(before),
        ]);
    }
    table.text()
}

fn typed(kind: &str, value: &impl Serialize) -> Value {
    let mut typed = json!({ "type": kind });
    if let (Value::Object(typed), Ok(Value::Object(members))) =
        (&mut typed, serde_json::to_value(value))
    {
        typed.extend(members);
    }
    typed
}

fn document(value: &Value) -> Outcome {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::caused(Code::State, "writing JSON", &error))?;
    print(&format!("{text}\n"))
}

/// The end as the command's own.
pub(super) fn outcome(done: &Progress, kind: JobKind) -> Outcome {
    let again = "run the command again: it goes on at its first unfinished slice";
    let failed = match &done.end {
        Some(JobEnd::Done) => None,
        Some(JobEnd::Interrupted) => {
            Some(Failure::new(Code::Interrupted, "interrupted").help(again))
        }
        Some(JobEnd::Refused(why)) => Some(Failure::new(Code::Auth, why).help(again)),
        Some(JobEnd::State(why)) => Some(Failure::new(Code::State, why).help(again)),
        Some(JobEnd::Usage(why)) => Some(Failure::new(Code::Usage, why)),
        Some(JobEnd::NoTenant) => Some(
            Failure::new(Code::Usage, "none of the tenants that run is meant")
                .help("exfilwatch config check says which tenants are left out, and why"),
        ),
        None => Some(
            Failure::new(Code::State, "the running process ended before the job did").help(again),
        ),
    };
    if let Some(failure) = failed {
        return Err(failure);
    }
    match done.gaps() {
        0 => Ok(()),
        // The ledger of gaps is about what was delivered.
        gaps if kind != JobKind::Backfill => Err(Failure::new(
            Code::Gap,
            format!("{gaps} spans could not be read"),
        )
        .help("the log above says which and why")),
        gaps => Err(Failure::new(Code::Gap, format!("{gaps} gaps are left"))
            .help("exfilwatch gaps lists them with their reasons")),
    }
}
