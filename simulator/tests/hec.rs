//! The collector's rules: tokens, reply codes, the prefix rule, gzip, acknowledgement.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::Write;
use std::time::Duration;

use axum::body::Body;
use exfilwatch_simulator::hec::{Condition, HecOptions, Keep, Poison};
use exfilwatch_simulator::{Endpoint, Fault, FaultRule, FaultScript, Simulator, SimulatorOptions};
use http::Request;
use serde_json::{Value, json};
use support::{Reply, post, send, simulator};

const CHANNEL: &str = "5d6f2a4e-58a3-4f0b-9c3e-0d2f6b7a8c91";
const EVENT: &str = "/services/collector/event";

fn with(hec: HecOptions) -> Simulator {
    simulator(SimulatorOptions {
        hec,
        ..SimulatorOptions::default()
    })
}

fn plain() -> HecOptions {
    HecOptions {
        use_ack: false,
        ..HecOptions::default()
    }
}

async fn send_events(simulator: &Simulator, body: &str) -> Reply {
    let token = format!("Splunk {}", simulator.credentials().hec_token);
    let headers = [
        ("authorization", token.as_str()),
        ("x-splunk-request-channel", CHANNEL),
    ];
    post(
        &simulator.hec_router(),
        EVENT,
        &headers,
        body.as_bytes().to_vec(),
    )
    .await
}

#[tokio::test]
async fn the_prefix_rule_holds_for_every_code() {
    let good = r#"{"event":{"Id":"a"}} {"time":"1795486560.123","event":"b"}"#;
    for (name, bad, code, number, indexed) in [
        ("good", "", 0, None, 2),
        ("not JSON", "{oops", 6, Some(2), 2),
        ("not an object", "7", 6, Some(2), 2),
        ("no event", r#"{"time":1}"#, 12, Some(2), 2),
        ("null event", r#"{"event":null}"#, 13, Some(2), 2),
        ("blank event", r#"{"event":""}"#, 13, Some(2), 2),
        (
            "nested fields",
            r#"{"event":1,"fields":{"a":{"b":1}}}"#,
            15,
            Some(2),
            2,
        ),
        (
            "other index",
            r#"{"event":1,"index":"secret"}"#,
            7,
            Some(3),
            2,
        ),
        (
            "fields without event",
            r#"{"fields":{"a":"b"}}"#,
            0,
            None,
            3,
        ),
        (
            "array of strings in fields",
            r#"{"event":1,"fields":{"a":["b","c"]}}"#,
            0,
            None,
            4,
        ),
    ] {
        let indexes = ["main".to_owned()].into();
        let simulator = with(HecOptions { indexes, ..plain() });
        let body = format!(
            "{good}\n{bad}{}",
            if bad.is_empty() {
                ""
            } else {
                r#"{"event":"after"}"#
            }
        );
        let reply = send_events(&simulator, &body).await.json();
        assert_eq!(reply["code"], code, "{name}: {reply}");
        assert_eq!(
            reply.get("invalid-event-number"),
            number.map(Value::from).as_ref(),
            "{name}"
        );
        assert_eq!(
            simulator
                .hec()
                .look(exfilwatch_simulator::hec::Recorded::count),
            indexed,
            "{name}"
        );
    }
}

#[tokio::test]
async fn an_unknown_envelope_member_is_answered_with_200_and_swallows_the_rest() {
    let simulator = with(plain());
    let alone = send_events(&simulator, r#"{"event":1,"severity":"high"}"#)
        .await
        .json();
    assert_eq!(alone["code"], 5);
    let several = r#"{"event":1,"severity":"high"}{"event":2}{"event":3}"#;
    assert_eq!(send_events(&simulator, several).await.json()["code"], 0);
    assert_eq!(simulator.hec().recorded().count(), 1);
}

#[tokio::test]
async fn tokens_are_checked_before_anything_else() {
    let simulator = with(plain());
    let router = simulator.hec_router();
    let good = format!("Splunk {}", simulator.credentials().hec_token);
    let body = || br#"{"event":1}"#.to_vec();
    for (headers, path, code, status) in [
        (vec![], EVENT, 2, 401),
        (vec![("authorization", "Bearer x")], EVENT, 3, 401),
        (vec![("authorization", "Splunk x")], EVENT, 4, 403),
        (vec![], "/services/collector?token=x", 16, 400),
        (
            vec![("authorization", good.as_str())],
            "/services/collector",
            0,
            200,
        ),
        (
            vec![("authorization", good.as_str())],
            "/services/collector/event/1.0",
            0,
            200,
        ),
    ] {
        let reply = post(&router, path, &headers, body()).await;
        assert_eq!(
            (reply.json()["code"].as_u64(), reply.status.as_u16()),
            (Some(code), status)
        );
    }
    simulator.hec().disable_token(true);
    let reply = send_events(&simulator, r#"{"event":1}"#).await;
    assert_eq!(
        (reply.json()["code"].as_u64(), reply.status.as_u16()),
        (Some(1), 403)
    );
    simulator.hec().disable_token(false);
    simulator.hec().set_token("rotated");
    assert_eq!(
        send_events(&simulator, r#"{"event":1}"#).await.json()["code"],
        4
    );
}

#[tokio::test]
async fn health_and_options_need_no_token() {
    let simulator = with(plain());
    let router = simulator.hec_router();
    let ask = async |authorization: Option<&str>| {
        let mut request = Request::get("/services/collector/health/1.0");
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let reply = send(&router, request.body(Body::empty()).unwrap()).await;
        (
            reply.status.as_u16(),
            reply.json()["code"].as_u64().unwrap(),
        )
    };
    assert_eq!(ask(None).await, (200, 17));
    assert_eq!(ask(Some("Splunk wrong")).await, (400, 21));
    let request = Request::options(EVENT).body(Body::empty()).unwrap();
    assert_eq!(send(&router, request).await.status, 200);
}

#[tokio::test]
async fn sizes_and_encodings_are_held_to_their_limits() {
    let simulator = with(HecOptions {
        content_bytes_max: 200,
        event_bytes_max: 100,
        ..plain()
    });
    let long = |length: usize| format!(r#"{{"event":"{}"}}"#, "x".repeat(length));
    let reply = send_events(&simulator, &long(120)).await.json();
    assert_eq!(
        (&reply["code"], &reply["invalid-event-number"]),
        (&json!(6), &json!(0))
    );
    assert_eq!(send_events(&simulator, &long(300)).await.status, 413);
    assert_eq!(send_events(&simulator, " \n ").await.json()["code"], 5);
    let token = format!("Splunk {}", simulator.credentials().hec_token);
    let pack = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let router = simulator.hec_router();
    for (encoding, body, status) in [
        ("gzip", pack(&long(20)), 200),
        ("gzip", pack(&long(3000)), 413),
        ("gzip", long(20).into_bytes(), 400),
        ("deflate", long(20).into_bytes(), 415),
    ] {
        let headers = [
            ("authorization", token.as_str()),
            ("content-encoding", encoding),
        ];
        assert_eq!(
            post(&router, EVENT, &headers, body).await.status.as_u16(),
            status,
            "{encoding}"
        );
    }
    assert_eq!(simulator.hec().recorded().count(), 1);
}

async fn acks(simulator: &Simulator, channel: &str, ids: &[u64]) -> Value {
    let token = format!("Splunk {}", simulator.credentials().hec_token);
    let path = format!("/services/collector/ack?channel={channel}");
    let body = json!({ "acks": ids }).to_string().into_bytes();
    post(
        &simulator.hec_router(),
        &path,
        &[("authorization", &token)],
        body,
    )
    .await
    .json()
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_count_per_channel_and_are_true_once() {
    let simulator = with(HecOptions::default());
    let event = r#"{"event":1}"#;
    assert_eq!(send_events(&simulator, event).await.json()["ackId"], 0);
    assert_eq!(send_events(&simulator, event).await.json()["ackId"], 1);
    let partly = send_events(&simulator, r#"{"event":1}{"event":""}"#)
        .await
        .json();
    assert_eq!(
        (&partly["code"], &partly["ackId"]),
        (&json!(13), &json!(2)),
        "prefix has an id"
    );
    assert_eq!(
        acks(&simulator, CHANNEL, &[0, 1]).await,
        json!({"acks": {"0": false, "1": false}})
    );
    tokio::time::advance(Duration::from_millis(60)).await;
    let other = "00000000-58a3-4f0b-9c3e-0d2f6b7a8c91";
    assert_eq!(
        acks(&simulator, other, &[0]).await,
        json!({"acks": {"0": false}})
    );
    assert_eq!(
        acks(&simulator, CHANNEL, &[0, 9]).await,
        json!({"acks": {"0": true, "9": false}})
    );
    assert_eq!(
        acks(&simulator, CHANNEL, &[0]).await,
        json!({"acks": {"0": false}})
    );
    simulator.hec().restart();
    assert_eq!(
        acks(&simulator, CHANNEL, &[1]).await,
        json!({"acks": {"1": false}})
    );
    assert_eq!(
        send_events(&simulator, event).await.json()["ackId"],
        0,
        "ids begin again"
    );
}

#[tokio::test]
async fn channels_are_needed_for_acknowledgement_and_must_be_guids() {
    let simulator = with(HecOptions::default());
    let router = simulator.hec_router();
    let token = format!("Splunk {}", simulator.credentials().hec_token);
    let body = || br#"{"event":1}"#.to_vec();
    let without = post(&router, EVENT, &[("authorization", &token)], body())
        .await
        .json();
    assert_eq!(without["code"], 10);
    let path = format!("{EVENT}?channel=me");
    assert_eq!(
        post(&router, &path, &[("authorization", &token)], body())
            .await
            .json()["code"],
        11
    );
    simulator.hec().configure(|options| options.use_ack = false);
    let reply = send_events(&simulator, r#"{"event":1}"#).await.json();
    assert!(reply.get("ackId").is_none());
    assert_eq!(acks(&simulator, CHANNEL, &[0]).await["code"], 14);
}

#[tokio::test]
async fn the_question_for_acknowledgements_may_be_compressed() {
    let simulator = with(HecOptions {
        ack_after: Duration::ZERO,
        ..HecOptions::default()
    });
    send_events(&simulator, r#"{"event":1}"#).await;
    let question = br#"{"acks":[0]}"#;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(question).unwrap();
    let token = format!("Splunk {}", simulator.credentials().hec_token);
    let headers = [
        ("authorization", token.as_str()),
        ("x-splunk-request-channel", CHANNEL),
        ("content-encoding", "gzip"),
    ];
    let router = simulator.hec_router();
    let ack = "/services/collector/ack";
    let only_said = post(&router, ack, &headers, question.to_vec()).await;
    assert_eq!(
        (only_said.status, &only_said.json()["code"]),
        (http::StatusCode::BAD_REQUEST, &json!(6))
    );
    let packed = post(&router, ack, &headers, encoder.finish().unwrap()).await;
    assert_eq!(packed.json(), json!({"acks": {"0": true}}));
}

#[tokio::test]
async fn what_is_acknowledged_is_on_disk_and_a_torn_line_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    std::fs::write(&path, "{\"event\":\"of before\"}\n{\"event\":\"to").unwrap();
    let simulator = with(HecOptions::default());
    simulator.hec().write_to(&path).unwrap();
    let lines = || {
        let text = std::fs::read_to_string(&path).unwrap();
        let parsed = text.lines().map(|line| serde_json::from_str(line).unwrap());
        parsed.collect::<Vec<Value>>()
    };
    assert_eq!(lines().len(), 1);
    let sent = r#"{"time":"1.5","fields":{"f":"v"},"event":{"a": 1,"b":"ü\n"}}"#;
    assert_eq!(send_events(&simulator, sent).await.json()["ackId"], 0);
    while acks(&simulator, CHANNEL, &[0]).await["acks"]["0"] == false {
        tokio::task::yield_now().await;
    }
    let lines = lines();
    assert_eq!(lines.len(), 2, "acknowledged, so it is there");
    assert_eq!(lines[1]["event"], r#"{"a": 1,"b":"ü\n"}"#);
    assert_eq!(
        (&lines[1]["time"], &lines[1]["fields"]["f"]),
        (&json!("1.5"), &json!("v"))
    );
}

#[tokio::test]
async fn what_is_indexed_is_recorded_byte_for_byte_with_ids() {
    let simulator = with(plain());
    let office = r#"{"sourcetype":"o365:management:activity","host":"contoso.example","time":1795486560,"event":{"Id":"x-1","B":2,  "a\/b":1}}"#;
    let google = r#"{"sourcetype":"gws:reports:drive","event":{"id":{"time":"t","uniqueQualifier":"-7","applicationName":"drive"},"event":{"name":"view"}}}"#;
    let finding = r#"{"sourcetype":"exfilwatch:finding","event":{"finding_uid":"u-1","ocsf":{"unmapped":{"exfilwatch":{"detection":"gws.drive.external_share","tenant":"contoso","event_ids":["t/-7/drive"]}}}}}"#;
    send_events(&simulator, &format!("{office}{google}{finding}{office}")).await;
    let recorded = simulator.hec().recorded();
    assert_eq!(
        recorded.record_ids().into_iter().collect::<Vec<_>>(),
        ["t/-7/drive", "x-1"]
    );
    assert_eq!(recorded.duplicates(), 1);
    assert_eq!(
        &recorded.events[0].event[..],
        br#"{"Id":"x-1","B":2,  "a\/b":1}"#
    );
    assert_eq!(recorded.events[0].time.as_deref(), Some("1795486560"));
    let seen = recorded.seen_findings();
    assert_eq!((seen[0].uid.as_str(), seen[0].event_ids.len()), ("u-1", 1));
    let ids_only = with(HecOptions {
        keep: Keep::Ids,
        ..plain()
    });
    send_events(&ids_only, &format!("{office}{finding}")).await;
    assert_eq!(
        ids_only.hec().recorded().events.len(),
        1,
        "only the finding's body is kept"
    );
    assert_eq!(ids_only.hec().recorded().count(), 2);
}

#[tokio::test]
async fn missing_records_are_told_by_the_sheet() {
    let simulator = with(plain());
    let sheet = simulator.sheet().clone();
    let all: Vec<String> = sheet
        .records
        .iter()
        .flat_map(|record| {
            let body: Value = serde_json::from_slice(&record.body).unwrap();
            let events: Vec<Value> = match body.get("events").and_then(Value::as_array) {
                None => vec![body],
                Some(elements) => elements
                    .iter()
                    .map(|element| json!({ "id": body["id"], "etag": body["etag"], "event": element }))
                    .collect(),
            };
            events.into_iter().map(|event| json!({ "event": event }).to_string())
        })
        .collect();
    send_events(&simulator, &all[1..].concat()).await;
    assert_eq!(
        simulator
            .hec()
            .look(|recorded| recorded.missing(&sheet))
            .len(),
        1
    );
    send_events(&simulator, &all[0]).await;
    assert_eq!(
        simulator.hec().look(|recorded| recorded.missing(&sheet)),
        Vec::<String>::new()
    );
    assert_eq!(
        simulator.hec().look(|recorded| recorded.unknown(&sheet)),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn the_raw_endpoint_takes_lines() {
    let simulator = with(plain());
    let token = format!("Splunk {}", simulator.credentials().hec_token);
    let path = "/services/collector/raw?sourcetype=syslog";
    post(
        &simulator.hec_router(),
        path,
        &[("authorization", &token)],
        b"one\ntwo\n".to_vec(),
    )
    .await;
    assert_eq!(simulator.hec().recorded().by_sourcetype["syslog"], 2);
}

#[tokio::test]
async fn a_fault_may_refuse_first_or_swallow_the_answer() {
    let faults = FaultScript {
        seed: 1,
        rules: vec![
            FaultRule::new(
                Endpoint::HecEvent,
                Fault::Throttle {
                    retry_after_seconds: Some(3),
                },
            )
            .calls(1, 1),
            FaultRule::new(Endpoint::HecEvent, Fault::HtmlPage { status: 502 }).calls(1, 1),
        ],
    };
    let simulator = simulator(SimulatorOptions {
        hec: plain(),
        faults,
        ..Default::default()
    });
    let busy = send_events(&simulator, r#"{"event":1}"#).await;
    assert_eq!(
        (
            busy.json()["code"].as_u64(),
            busy.headers["retry-after"].as_bytes()
        ),
        (Some(9), &b"3"[..])
    );
    let page = send_events(&simulator, r#"{"event":1}"#).await;
    assert_eq!(page.status, 502);
    assert!(page.text().starts_with("<html>"));
    assert_eq!(
        send_events(&simulator, r#"{"event":1}"#).await.json()["code"],
        0
    );
    assert_eq!(simulator.hec().recorded().count(), 1);
}

#[tokio::test]
async fn a_condition_answers_one_body_and_takes_what_it_says() {
    let simulator = with(HecOptions::default());
    let busy = Condition {
        retry_after_seconds: Some(5),
        ..Condition::refusing(26)
    };
    let conditions = [busy, Condition::taking_first(1, 9), Condition::taking(24)];
    simulator.hec().answer_next(conditions);
    let mut seen = Vec::new();
    for _ in 0..4 {
        let reply = send_events(&simulator, r#"{"event":"a"}{"event":"b"}"#).await;
        let (status, body) = (reply.status.as_u16(), reply.json());
        let number = body["invalid-event-number"].as_u64();
        let count = simulator.hec().recorded().count();
        let ack = body["ackId"].as_u64();
        seen.push((status, body["code"].as_u64().unwrap(), number, ack, count));
        let wait = reply.headers.get("retry-after");
        assert_eq!(wait.is_some(), status == 429);
    }
    let expected = [
        (429, 26, None, None, 0),
        (503, 9, Some(1), Some(0), 1),
        (200, 24, None, Some(1), 3),
        (200, 0, None, Some(2), 5),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn poison_is_refused_wherever_it_stands_and_for_fifteen_only_with_fields() {
    for (code, number) in [(6, 1), (7, 2), (12, 1), (13, 1), (15, 1)] {
        let poison = vec![Poison {
            contains: "bad".to_owned(),
            code,
        }];
        let simulator = with(HecOptions { poison, ..plain() });
        let body = r#"{"event":"a"}{"event":"bad","fields":{"x":"y"}}{"event":"c"}"#;
        let reply = send_events(&simulator, body).await.json();
        assert_eq!(reply["code"], code);
        assert_eq!(reply["invalid-event-number"], number);
        assert_eq!(simulator.hec().recorded().count(), 1);
        let stripped = send_events(&simulator, r#"{"event":"bad"}"#).await.json();
        assert_eq!(stripped["code"], if code == 15 { 0 } else { code });
    }
}

#[tokio::test]
async fn a_channel_holds_so_many_acknowledgements_and_is_named_by_a_cookie() {
    let simulator = with(HecOptions {
        acks_max: 1,
        ack_after: Duration::ZERO,
        channel_cookie: Some("HECCHANNEL".to_owned()),
        ..HecOptions::default()
    });
    let first = send_events(&simulator, r#"{"event":1}"#).await;
    let cookie = format!("HECCHANNEL={CHANNEL}; path=/");
    assert_eq!(first.headers["set-cookie"], cookie);
    let second = send_events(&simulator, r#"{"event":2}"#).await;
    assert_eq!(
        (second.status.as_u16(), second.json()["code"].clone()),
        (429, json!(27))
    );
    assert_eq!(simulator.hec().recorded().count(), 1);
    assert_eq!(acks(&simulator, CHANNEL, &[0]).await["acks"]["0"], true);
    assert_eq!(
        send_events(&simulator, r#"{"event":2}"#).await.json()["code"],
        0
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_channel_loses_its_acknowledgements() {
    let simulator = with(HecOptions::default());
    send_events(&simulator, r#"{"event":1}"#).await;
    tokio::time::advance(Duration::from_secs(601)).await;
    assert_eq!(acks(&simulator, CHANNEL, &[0]).await["acks"]["0"], false);
    send_events(&simulator, r#"{"event":2}"#).await;
    tokio::time::advance(Duration::from_secs(599)).await;
    assert_eq!(acks(&simulator, CHANNEL, &[1]).await["acks"]["1"], true);
}
