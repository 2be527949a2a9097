//! Jobs over a past range by the built binary: killed and begun again, with detectors only, beside a
//! poller, for gaps and for the days before the first start.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch::pipeline::job::plan::Plan;
use exfilwatch::pipeline::job::{JobEnd, JobKind, JobRequest, Progress, RANGE_MAX};
use exfilwatch::serve::control::{Caller, Request};
use exfilwatch_model::Window;
use exfilwatch_simulator::{
    Delivery, Endpoint, Fault, FaultRule, FaultScript, SimulatorOptions, WorldOptions,
};
use serde_json::Value;

use crate::scene::{Process, REQUESTS, Scene, until};

const START: &str = "2026-05-04T00:00:00Z";

fn start() -> DateTime<Utc> {
    START.parse().unwrap()
}

/// Some days of office life, all of it in the past.
async fn scene(days: i64, records_per_day: u32, faults: FaultScript) -> Scene {
    let end = start() + TimeDelta::days(days);
    let world = WorldOptions {
        records_per_day: records_per_day as _,
        delivery: Delivery::prompt(),
        ..WorldOptions::new(31, start(), end)
    };
    let options = SimulatorOptions {
        start: Some(end + TimeDelta::hours(2)),
        rate: 60.0,
        faults,
        ..SimulatorOptions::default()
    };
    Scene::new(world, options).await
}

fn text(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    format!("{out}{}", String::from_utf8_lossy(&output.stderr))
}

/// The document of `--output json`.
fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

/// Findings at the receiver: id, and the highest revision.
fn findings(scene: &Scene) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let content = std::fs::read_to_string(scene.path("findings.ndjson")).unwrap_or_default();
    for line in content.lines() {
        let document: Value = serde_json::from_str(line).unwrap();
        let uid = document["finding_info"]["uid"].as_str().unwrap().to_owned();
        let revision = document["unmapped"]["exfilwatch"]["revision"].as_u64();
        let known: &mut u64 = found.entry(uid).or_default();
        *known = revision.unwrap_or_default().max(*known);
    }
    found
}

fn records_at_receiver(scene: &Scene) -> usize {
    let hec = scene.services.simulator.hec();
    hec.look(|recorded| recorded.record_ids().len())
}

/// Over all that there is.
fn backfill<'a>(clock: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["backfill", "--since", START, "--virtual-clock", clock];
    arguments.extend(more);
    arguments
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_that_was_killed_goes_on_at_its_first_unfinished_slice() {
    let slow = Fault::Delay { milliseconds: 15 };
    let faults = FaultScript {
        seed: 1,
        rules: vec![
            FaultRule::new(Endpoint::Blob, slow.clone()),
            FaultRule::new(Endpoint::Activities, slow),
        ],
    };
    let scene = scene(4, 600, faults).await;
    let clock = scene.virtual_clock();
    let arguments = backfill(&clock, &["--output", "ndjson"]);
    let mut command = scene.command(&arguments);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut process = Process(child.unwrap());
    let lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
    // Killed after some slices with records in them, in the middle of the next.
    let killed = tokio::task::spawn_blocking(move || {
        let mut read = 0;
        for line in lines {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if line["type"] == "slice" && line["records"].as_u64() > Some(0) {
                read += 1;
            }
            assert_ne!(line["type"], "end", "it was over before it could be killed");
            if read == 3 {
                process.kill();
                return read;
            }
        }
        panic!("it ended after {read} slices with records");
    });
    assert_eq!(killed.await.unwrap(), 3);
    assert!(!scene.missing().is_empty(), "it was killed in the middle");

    let again = scene.output(&backfill(&clock, &["--output", "json"])).await;
    assert_eq!(again.status.code(), Some(0), "{}", text(&again));
    assert!(scene.missing().is_empty(), "{}", scene.report());
    let account = document(&again);
    assert_eq!(account["end"], "done");
    let streams = account["streams"].as_array().unwrap();
    let sum = |key: &str| -> u64 { streams.iter().map(|s| s[key].as_u64().unwrap()).sum() };
    let before = sum("slices_done_before");
    assert!(before >= 3, "{before} slices were finished before the kill");
    assert_eq!(sum("slices_done"), sum("slices"));
    let read = account["slices_read"].as_array().unwrap().len() as u64;
    assert_eq!(before + read, sum("slices"), "no slice is read twice");
    assert!(sum("records") >= scene.services.simulator.sheet().records.len() as u64);
    // What was in flight to the receiver at the kill may come twice, and no more.
    let twice = scene
        .services
        .simulator
        .hec()
        .look(exfilwatch_simulator::hec::Recorded::duplicates);
    let all = records_at_receiver(&scene) as u64;
    assert!(twice * 4 < all, "{twice} of {all} records came twice");
    scene.services.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn detect_only_finds_the_same_under_the_same_ids_and_delivers_no_record() {
    let scene = scene(2, 600, FaultScript::default()).await;
    let clock = scene.virtual_clock();
    let whole = scene.output(&backfill(&clock, &[])).await;
    assert_eq!(whole.status.code(), Some(0), "{}", text(&whole));
    let wanted = findings(&scene);
    assert!(wanted.len() > 20, "{} findings prove little", wanted.len());
    let delivered = records_at_receiver(&scene);

    // Over what is known already: nothing new is said.
    let lines = || std::fs::read_to_string(scene.path("findings.ndjson")).unwrap_or_default();
    let before = lines();
    let again = scene
        .output(&backfill(&clock, &["--detect-only", "--output", "json"]))
        .await;
    assert_eq!(again.status.code(), Some(0), "{}", text(&again));
    assert!(document(&again)["records"].as_u64() > Some(0));
    assert_eq!(lines(), before, "the finding table is shared");
    assert_eq!(records_at_receiver(&scene), delivered);

    // Without any memory: the same ids, no record, and none counts as seen.
    std::fs::remove_file(scene.path("findings.ndjson")).unwrap();
    std::fs::remove_dir_all(scene.path("state")).unwrap();
    scene.services.simulator.hec().clear();
    let fresh = scene.output(&backfill(&clock, &["--detect-only"])).await;
    assert_eq!(fresh.status.code(), Some(0), "{}", text(&fresh));
    let ids = |of: &BTreeMap<String, u64>| of.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(ids(&findings(&scene)), ids(&wanted));
    assert_eq!(records_at_receiver(&scene), 0, "no record is delivered");
    let modes: BTreeSet<String> = lines()
        .lines()
        .map(|line| {
            let document: Value = serde_json::from_str(line).unwrap();
            document["unmapped"]["exfilwatch"]["mode"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(modes, BTreeSet::from(["backfill".to_owned()]));
    // The time of a finding in Splunk is that of the events, not of the reading.
    let times: Vec<f64> = scene.services.simulator.hec().look(|recorded| {
        let findings = recorded.events.iter().filter(|e| e.finding_uid.is_some());
        findings
            .map(|e| e.time.as_ref().unwrap().parse().unwrap())
            .collect()
    });
    let end = (start() + TimeDelta::days(2)).timestamp();
    #[allow(clippy::cast_precision_loss)]
    let end = end as f64;
    assert!(
        !times.is_empty() && times.iter().all(|time| *time <= end),
        "{times:?}"
    );
    let delivering = scene.output(&backfill(&clock, &[])).await;
    assert_eq!(delivering.status.code(), Some(0), "{}", text(&delivering));
    assert!(
        scene.missing().is_empty(),
        "what was only looked at is delivered later"
    );
    scene.services.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_for_one_rule_finds_what_that_rule_finds_and_an_unknown_one_is_refused() {
    let scene = scene(1, 600, FaultScript::default()).await;
    let clock = scene.virtual_clock();
    let one = ["--detect-only", "--rule", "o365.mail.*"];
    let output = scene.output(&backfill(&clock, &one)).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let found = scene.delivered();
    assert!(!found.is_empty());
    let others: Vec<_> = found
        .values()
        .filter(|finding| !finding.detection.starts_with("o365.mail."))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    let unknown = ["--detect-only", "--rule", "no.such.rule"];
    let output = scene.output(&backfill(&clock, &unknown)).await;
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("rules list"), "{}", text(&output));
    scene.services.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plan_names_what_it_will_take_and_what_is_outside_retention_and_changes_nothing() {
    let scene = scene(2, 600, FaultScript::default()).await;
    let clock = scene.virtual_clock();
    let arguments = [
        "backfill",
        "--since",
        "30d",
        "--dry-run",
        "--output",
        "json",
        "--virtual-clock",
        &clock,
    ];
    let output = scene.output(&arguments).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(!scene.path("state").exists(), "a plan opens no state");
    assert_eq!(records_at_receiver(&scene), 0);
    let document = document(&output);
    let streams = document["plan"][0]["streams"].as_array().unwrap();
    let stream = |name: &str| {
        let found = streams
            .iter()
            .find(|s| s["stream"].as_str().unwrap().ends_with(name));
        found.unwrap_or_else(|| panic!("no {name} in {streams:#?}"))
    };
    let drive = stream("google_workspace/drive");
    assert!(drive["outside"].is_null(), "Google keeps 180 days: {drive}");
    assert!(
        drive["requests"].as_u64().unwrap() >= 30 * 24,
        "an hour a request: {drive}"
    );
    assert_eq!(drive["requests_per_minute"], REQUESTS);
    assert_eq!(
        drive["minutes"].as_u64().unwrap(),
        drive["requests"]
            .as_u64()
            .unwrap()
            .div_ceil(u64::from(REQUESTS))
    );
    let exchange = stream("office365/Audit.Exchange");
    let outside = &exchange["outside"];
    let from: DateTime<Utc> = outside["from"].as_str().unwrap().parse().unwrap();
    let end: DateTime<Utc> = outside["until"].as_str().unwrap().parse().unwrap();
    assert_eq!(
        (end - from).num_days(),
        23,
        "of 30 days 7 are listed: {exchange}"
    );
    assert!(!exchange["archive"].as_str().unwrap().is_empty());
    scene.services.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_and_names_that_cannot_be_meant_end_with_code_2_and_say_what_to_write() {
    let scene = scene(1, 100, FaultScript::default()).await;
    let clock = scene.virtual_clock();
    let cases: [(&[&str], &str); 6] = [
        (&["--since", "2027-01-01"], "in the future"),
        (&["--since", "2d", "--until", "3d"], "is not after"),
        (&["--since", "2026-05-04T00:00:00"], "no zone"),
        (
            &["--since", "2d", "--tenant", "nobody"],
            "there is no tenant nobody",
        ),
        (
            &["--since", "2d", "--stream", "nothing"],
            "there is no stream nothing",
        ),
        (&["--since", "2d", "--rule", "x"], "--detect-only"),
    ];
    for (arguments, says) in cases {
        let mut all = vec!["backfill", "--virtual-clock", &clock];
        all.extend(arguments);
        let output = scene.output(&all).await;
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            text(&output)
        );
        assert!(
            text(&output).contains(says),
            "{arguments:?}: {}",
            text(&output)
        );
    }
    scene.services.shutdown().await;
}

/// The feed gives 7 days; what is older comes from the archive, and an archive that may not be
/// searched leaves a gap that says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_longer_listed_comes_from_the_archive_or_is_a_gap() {
    let scene = scene(11, 60, FaultScript::default()).await;
    let clock = scene.virtual_clock();
    let one = ["--stream", "office365/Audit.Exchange", "--output", "json"];
    scene.services.simulator.microsoft().set_graph_roles(&[]);
    let refused = scene.output(&backfill(&clock, &one)).await;
    assert_eq!(refused.status.code(), Some(7), "{}", text(&refused));
    assert_eq!(document(&refused)["gaps"], 1);
    let gaps = scene.output(&["gaps"]).await;
    assert_eq!(gaps.status.code(), Some(7), "{}", text(&gaps));
    assert!(text(&gaps).contains("Audit.Exchange"), "{}", text(&gaps));

    let all = ["AuditLogsQuery.Read.All"];
    scene.services.simulator.microsoft().set_graph_roles(&all);
    let whole = scene.output(&backfill(&clock, &one)).await;
    assert_eq!(whole.status.code(), Some(0), "{}", text(&whole));
    let account = document(&whole);
    let slices = account["slices_read"].as_array().unwrap();
    let searched = slices.iter().filter(|s| s["source"] == "archive");
    let found: u64 = searched.map(|s| s["records"].as_u64().unwrap()).sum();
    assert!(found > 0, "{account:#}");
    let missing = scene.missing();
    let sheet = scene.services.simulator.sheet();
    let exchange = sheet
        .records
        .iter()
        .filter(|r| r.stream.ends_with("Audit.Exchange"));
    let missing: Vec<_> = exchange.filter(|r| missing.contains(&r.id)).collect();
    assert!(missing.is_empty(), "{} records are missing", missing.len());
    let gaps = scene.output(&["gaps", "--output", "json"]).await;
    assert!(text(&gaps).contains("\"backfill-"), "{}", text(&gaps));
    scene.services.shutdown().await;
}

/// The first start reads a week back: the live line at once, the days before by a job, and what is
/// found is what a replay of all of it finds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_start_reads_a_week_back_as_a_job_and_finds_what_reading_it_whole_finds() {
    let scene = scene(4, 300, FaultScript::default()).await;
    let clock = scene.virtual_clock();
    let whole = scene.output(&backfill(&clock, &[])).await;
    assert_eq!(whole.status.code(), Some(0), "{}", text(&whole));
    let wanted: BTreeSet<String> = findings(&scene).into_keys().collect();
    assert!(wanted.len() > 20, "{} findings prove little", wanted.len());
    std::fs::remove_file(scene.path("findings.ndjson")).unwrap();
    std::fs::remove_dir_all(scene.path("state")).unwrap();
    scene.services.simulator.hec().clear();

    let good = std::fs::read_to_string(scene.path("exfilwatch.toml")).unwrap();
    scene.write(
        "exfilwatch.toml",
        &good.replace("first_read_days = 1", "first_read_days = 5"),
    );
    let process = scene.start();
    until(
        "every record",
        || scene.missing().is_empty(),
        || scene.report(),
    )
    .await;
    let found = || findings(&scene).into_keys().collect::<BTreeSet<_>>();
    let describe = || {
        format!(
            "{:#?}\n{}",
            wanted.symmetric_difference(&found()),
            scene.log()
        )
    };
    until("every finding", || found() == wanted, describe).await;
    let log = scene.log();
    assert!(log.contains("read by a job"), "{log}");
    until(
        "the job's end",
        || scene.log().contains("the job is done"),
        || scene.log(),
    )
    .await;
    assert_eq!(found(), wanted, "{}", describe());
    assert_eq!(process.terminate().await, Some(0));
    scene.services.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forward_gives_an_account_of_each_file() {
    let scene = scene(1, 200, FaultScript::default()).await;
    let sheet = scene.services.simulator.sheet();
    let mut lines: Vec<u8> = Vec::new();
    for record in &sheet.records {
        lines.extend_from_slice(&record.body);
        lines.push(b'\n');
    }
    lines.extend_from_slice(b"no record\n");
    std::fs::write(scene.path("a.ndjson"), lines).unwrap();
    let file = scene.path("a.ndjson").display().to_string();
    let arguments = ["forward", "--tenant", "contoso", "--output", "json", &file];
    let first = document(&scene.output(&arguments).await);
    let second = document(&scene.output(&arguments).await);
    assert_eq!(first[0]["file"], file.as_str());
    assert_eq!(first[0]["records"], sheet.records.len());
    assert_eq!(first[0]["malformed"], 1);
    assert_eq!(
        (&first[0]["skipped"], &first[0]["finished"]),
        (&false.into(), &true.into())
    );
    assert_eq!(
        (&second[0]["skipped"], &second[0]["records"]),
        (&true.into(), &0.into())
    );
    scene.services.shutdown().await;
}

/// Blobs that could not be fetched are gaps; `run` reads them again by itself, the live line being
/// long past them, and says which job filled them with how much.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_gaps_that_are_still_listed_are_filled_by_the_poller_itself() {
    let scene = scene(3, 80, FaultScript::default()).await;
    let gone = Fault::Status {
        status: 404,
        body: String::new(),
        headers: Vec::new(),
    };
    scene.services.simulator.faults().replace(FaultScript {
        seed: 1,
        rules: vec![FaultRule::new(Endpoint::Blob, gone)],
    });
    let clock = scene.virtual_clock();
    let until_ = (start() + TimeDelta::hours(40)).to_rfc3339();
    let one = ["--stream", "Audit.Exchange", "--until", &until_];
    let output = scene.output(&backfill(&clock, &one)).await;
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));
    let gaps = scene.output(&["gaps", "--output", "json"]).await;
    assert_eq!(gaps.status.code(), Some(7), "{}", text(&gaps));

    let sheet = scene.services.simulator.sheet();
    let old = (start() + TimeDelta::hours(40)).timestamp_millis();
    let behind_the_gaps: BTreeSet<&str> = sheet
        .records
        .iter()
        .filter(|r| r.stream.ends_with("Audit.Exchange") && r.visible_from_ms < old)
        .map(|r| r.id.as_str())
        .collect();
    assert!(behind_the_gaps.len() > 5, "{behind_the_gaps:?}");
    let missing = || {
        let missing = scene.missing();
        let missing = missing
            .iter()
            .filter(|id| behind_the_gaps.contains(id.as_str()));
        missing.count()
    };
    assert_eq!(missing(), behind_the_gaps.len(), "nothing of them came");
    scene
        .services
        .simulator
        .faults()
        .replace(FaultScript::default());
    let process = scene.start();
    until("what the gaps held", || missing() == 0, || scene.report()).await;
    let filled = |intervals: &Value| {
        let all = intervals.as_array().unwrap().iter();
        let ours = all.filter(|i| i["reasons"].to_string().contains("could not be fetched"));
        ours.map(|i| {
            let by = i["filled_by"][0].as_str().unwrap_or_default();
            (
                by.starts_with("gap-"),
                i["records"].as_u64().unwrap_or_default(),
            )
        })
        .collect::<Vec<_>>()
    };
    let mut intervals = Vec::new();
    for _ in 0..600 {
        let gaps = scene.output(&["gaps", "--output", "json"]).await;
        intervals = filled(&document(&gaps));
        if intervals.iter().all(|(by_job, _)| *by_job) {
            break;
        }
    }
    assert!(intervals.len() > 5, "{intervals:?}");
    assert!(intervals.iter().all(|(by_job, _)| *by_job), "{intervals:?}");
    let recovered: u64 = intervals.iter().map(|(_, records)| records).sum();
    assert!(
        recovered >= behind_the_gaps.len() as u64,
        "{recovered} records"
    );
    assert_eq!(process.terminate().await, Some(0));
    scene.services.shutdown().await;
}

/// Searches of an archive are few: one that was submitted before a kill is gone on with, not submitted
/// again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_that_were_submitted_before_a_kill_are_read_and_not_submitted_again() {
    let scene = scene(11, 60, FaultScript::default()).await;
    let microsoft = scene.services.simulator.microsoft();
    // Half an hour at sixty times the speed: half a minute, long enough to be killed in.
    microsoft.change_graph(|habits| habits.running_seconds = 1_800);
    let clock = scene.virtual_clock();
    let one = ["--stream", "office365/Audit.Exchange", "--output", "json"];
    let arguments = backfill(&clock, &one);
    let log = std::fs::File::create(scene.path("backfill.log")).unwrap();
    let mut command = scene.command(&arguments);
    let child = command.stdout(Stdio::null()).stderr(log).spawn();
    let process = Process(child.unwrap());
    let said = || std::fs::read_to_string(scene.path("backfill.log")).unwrap_or_default();
    // Four days and the day at the edge are searched, all of them at the same time.
    until("the searches", || microsoft.audit_searches() >= 5, said).await;
    // Its fifth search is stored with a commit that follows the answer at once: one search at most may
    // have been cut off in between.
    process.kill();
    let submitted = microsoft.audit_searches();
    microsoft.change_graph(|habits| habits.running_seconds = 1);
    let again = scene.output(&arguments).await;
    assert_eq!(again.status.code(), Some(0), "{}", text(&again));
    let account = document(&again);
    let slices = account["slices_read"].as_array().unwrap();
    let searched = slices.iter().filter(|s| s["source"] == "archive").count();
    let all = microsoft.audit_searches();
    assert!(
        searched >= submitted,
        "{searched} slices of {submitted} searches"
    );
    assert!(all <= searched + 1, "{all} searches for {searched} slices");
    scene.services.shutdown().await;
}

/// A job that is asked for over the control socket.
fn asked(days: i64) -> JobRequest {
    let until = start() + TimeDelta::days(2);
    JobRequest {
        kind: JobKind::Backfill,
        window: Window::new(until - TimeDelta::days(days), until).unwrap(),
        asked: format!("{days}d"),
        tenant: None,
        streams: Vec::new(),
        rules: Vec::new(),
        gap: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_process_refuses_a_range_beyond_ten_years_and_a_fifth_job() {
    // So slow that none of them ends meanwhile.
    let slow = Fault::Delay {
        milliseconds: 3_000,
    };
    let rules = [Endpoint::Blob, Endpoint::Activities, Endpoint::ContentList];
    let faults = FaultScript {
        seed: 1,
        rules: rules.map(|end| FaultRule::new(end, slow.clone())).into(),
    };
    let scene = scene(2, 600, faults).await;
    let process = scene.start();
    let state = scene.path("state");
    let socket = state.join("control.sock");
    until("the control socket", || socket.exists(), || scene.report()).await;

    let days = RANGE_MAX.num_days();
    let mut told = Vec::new();
    for request in [
        Request::Plan(asked(days + 1)),
        Request::Backfill(asked(days + 1)),
    ] {
        let mut caller = Caller::ask(&state, &request).await.unwrap().unwrap();
        let answer = match request {
            Request::Plan(_) => caller.next::<Vec<Plan>>().await.map(drop),
            _ => caller.next::<Progress>().await.map(drop),
        };
        told.push(answer.unwrap_err().to_string());
    }
    for told in told {
        assert!(
            told.contains(&format!("a range of {} days", days + 1)),
            "{told}"
        );
        assert!(told.contains("name a later start"), "{told}");
    }

    let mut callers = Vec::new();
    for days in 1..=5 {
        let request = Request::Backfill(asked(days));
        callers.push(Caller::ask(&state, &request).await.unwrap().unwrap());
    }
    // Four are taken, and the first of them is at work; it is not said which is the fifth.
    let answers = callers.iter_mut().map(|caller| {
        Box::pin(async move {
            loop {
                let progress = caller.next::<Progress>().await.unwrap().unwrap();
                if let Some(end) = progress.end {
                    return end;
                }
            }
        })
    });
    let (end, _, others) = futures::future::select_all(answers).await;
    let JobEnd::Usage(why) = end else {
        panic!("{end:?}: none was refused")
    };
    assert!(
        why.contains("4 jobs that were asked for have not ended"),
        "{why}"
    );
    assert_eq!(others.len(), 4);
    drop(others);
    process.kill();
    scene.services.shutdown().await;
}
