//! Listings: windows, pages, links, and content that comes late, twice or in parts.

use chrono::TimeDelta;
use exfilwatch_connectors::options::Office365Options;
use exfilwatch_simulator::{Endpoint, Fault, FaultRule};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::scene::{
    caller, calls, fault, kind, minutes, no_fault, now, options, publish, script, seen, stage,
    stream,
};
use crate::support::{MICROSOFT, at};

#[tokio::test(start_paused = true)]
async fn late_blob_in_previous_window_is_fetched() {
    let stage = stage(|_| ());
    let mut caller = caller(&stage);
    caller.poll().await;
    // Four minutes late it is in the next poll, fifty minutes late in the hourly look back.
    publish(&stage, "1$a", now() - minutes(4), &["a"]);
    publish(&stage, "2$b", now() - minutes(50), &["b"]);
    stage.pass(minutes(1)).await;
    caller.poll().await;
    assert_eq!(seen(&caller, &["a", "b"]), [1, 0]);
    caller.relist(TimeDelta::hours(1)).await;
    assert_eq!(seen(&caller, &["a", "b"]), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn window_formats() {
    let stage = stage(|_| ());
    let mut caller = stage.office365(options(&stage));
    // Older than seven days: lifted to the clamp, said as a gap, no error.
    caller.start(now() - TimeDelta::days(9));
    caller.poll().await;
    caller.relist(TimeDelta::days(7)).await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    assert_eq!(caller.gaps.len(), 1);
    let listings = calls(&stage, "subscriptions/content");
    assert!(listings.len() > 50, "{}", listings.len());
    for url in listings {
        let parsed = url::Url::parse(&url).unwrap();
        let value = |name: &str| {
            let mut values = parsed.query_pairs().filter(|(key, _)| key == name);
            let (_, value) = values.next().unwrap_or_else(|| panic!("no {name}: {url}"));
            assert!(values.next().is_none(), "{name} twice: {url}");
            value.into_owned()
        };
        // Both ends always; seconds, no fraction, no zone, nothing to be escaped.
        let (start, end) = (value("startTime"), value("endTime"));
        for time in [&start, &end] {
            assert_eq!(time.len(), "2026-03-04T06:00:00".len(), "{url}");
        }
        assert!(!url.contains('+') && !url.contains('%'), "{url}");
        let (start, end) = (at(&format!("{start}Z")), at(&format!("{end}Z")));
        assert!(start < end && end - start <= TimeDelta::hours(24), "{url}");
        assert!(start >= now() - minutes(167 * 60 + 55), "{url}");
    }
}

#[tokio::test(start_paused = true)]
async fn clamp_is_exact_and_moves_with_the_clock() {
    let stage = stage(|_| ());
    let mut caller = caller(&stage);
    caller.poll().await;
    let covered = caller.cursors[&stream()].covered_until;
    stage.pass(TimeDelta::days(8)).await;
    let asked = calls(&stage, "subscriptions/content").len();
    caller.poll().await;
    let present = stage.simulator.clock().now();
    let first = calls(&stage, "subscriptions/content")[asked].clone();
    let lowest = present - minutes(167 * 60 + 55);
    assert!(
        first.contains(&lowest.format("startTime=%Y-%m-%dT%H:%M:%S").to_string()),
        "{first}"
    );
    let [gap] = &caller.gaps[..] else {
        panic!("one gap: {:?}", caller.gaps)
    };
    assert_eq!((gap.window.from(), gap.window.until()), (covered, lowest));
}

#[tokio::test(start_paused = true)]
async fn a_window_refused_as_too_old_is_cut_anew_before_it_is_an_error() {
    for code in ["AF20030", "AF20055"] {
        let stage = stage(|_| ());
        let mut caller = caller(&stage);
        publish(&stage, "1$a", now() - minutes(20), &["a"]);
        let rule = FaultRule::new(Endpoint::ContentList, Fault::activity(code));
        script(&stage, vec![rule.calls(1, 1)]);
        caller.poll().await;
        assert!(caller.errors.is_empty(), "{:?}", caller.errors);
        assert_eq!(seen(&caller, &["a"]), [1]);
    }
}

#[tokio::test(start_paused = true)]
async fn three_pages() {
    for empty_page_every in [0, 1] {
        let stage = stage(|options| {
            options.microsoft.page_items = 2;
            options.microsoft.empty_page_every = empty_page_every;
        });
        let mut caller = caller(&stage);
        let ids = ["a", "b", "c", "d", "e", "f"];
        for (number, id) in ids.iter().enumerate() {
            publish(
                &stage,
                &format!("{number}${id}"),
                now() - minutes(20),
                &[id],
            );
        }
        caller.poll().await;
        assert!(caller.errors.is_empty(), "{:?}", caller.errors);
        assert_eq!(
            seen(&caller, &ids),
            [1; 6],
            "empty pages: {empty_page_every}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn many_pages_many_blobs_all_delivered() {
    let stage = stage(|options| options.microsoft.page_items = 7);
    let mut caller = caller(&stage);
    let ids: Vec<String> = (0..300).map(|number| format!("r{number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    for (number, some) in ids.chunks(3).enumerate() {
        let created = now() - minutes(2 + i64::try_from(number % 50).unwrap());
        publish(&stage, &format!("{number}$x"), created, some);
    }
    caller.poll().await;
    assert_eq!(seen(&caller, &ids), [1; 300]);
    assert!(caller.open.is_empty() && caller.errors.is_empty());
}

#[tokio::test(start_paused = true)]
#[allow(non_snake_case)]
async fn two_blobs_same_contentCreated() {
    let stage = stage(|options| options.microsoft.page_items = 1);
    let mut caller = caller(&stage);
    publish(&stage, "1$a", now() - minutes(20), &["a"]);
    caller.poll().await;
    // The second of them turns up later.
    publish(&stage, "2$b", now() - minutes(20), &["b"]);
    caller.relist(TimeDelta::hours(1)).await;
    assert_eq!(seen(&caller, &["a", "b"]), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn page2_older_than_page1() {
    let stage = stage(|options| {
        options.microsoft.page_items = 1;
        options.microsoft.listing_shuffled = true;
    });
    let mut caller = caller(&stage);
    let ids = ["a", "b", "c", "d", "e", "f", "g"];
    for (number, id) in ids.iter().enumerate() {
        let created = now() - minutes(5 * i64::try_from(number).unwrap() + 2);
        publish(&stage, &format!("{number}${id}"), created, &[id]);
    }
    caller.poll().await;
    assert_eq!(seen(&caller, &ids), [1; 7]);
}

#[tokio::test(start_paused = true)]
async fn listing_shuffled() {
    let stage = stage(|options| {
        options.microsoft.page_items = 5;
        options.microsoft.listing_shuffled = true;
    });
    let mut caller = stage.office365(stage.office365_options());
    caller.start(now() - TimeDelta::days(2));
    caller.poll().await;
    let sheet = stage.simulator.sheet();
    let due = sheet
        .records
        .iter()
        .filter(|record| record.stream.starts_with("office365/"))
        .filter(|record| record.visible_from_ms < (now() - minutes(1)).timestamp_millis());
    let missing: Vec<&str> = due
        .map(|record| record.id.as_str())
        .filter(|id| !caller.seen.contains_key(*id))
        .collect();
    assert!(missing.is_empty() && caller.seen.len() > 50, "{missing:?}");
}

#[tokio::test(start_paused = true)]
async fn partial_blob_then_full_blob() {
    let stage = stage(|options| options.microsoft.partial_at_start = true);
    let mut caller = stage.office365(options(&stage));
    // A blob that was made at the very start of a window is listed with half of its records.
    publish(
        &stage,
        "1$abcd",
        at("2026-03-04T05:30:00Z"),
        &["a", "b", "c", "d"],
    );
    caller.start(at("2026-03-04T05:35:00Z"));
    caller.poll().await;
    assert_eq!(seen(&caller, &["a", "b", "c", "d"]), [0, 0, 1, 1]);
    caller.relist(TimeDelta::hours(1)).await;
    // The other half came; the pipeline drops what it has seen.
    assert_eq!(seen(&caller, &["a", "b", "c", "d"]), [1, 1, 2, 2]);
    // The same windows again list nothing new: their starts do not move with the minute.
    let fetched = calls(&stage, "/audit/").len();
    for _ in 0..10 {
        stage.pass(minutes(1)).await;
        caller.poll().await;
        caller.relist(TimeDelta::hours(1)).await;
    }
    assert_eq!(calls(&stage, "/audit/").len(), fetched);
}

#[tokio::test(start_paused = true)]
async fn requests_per_blob_eq_1() {
    let stage = stage(|_| ());
    let mut caller = stage.office365(stage.office365_options());
    caller.start(now() - TimeDelta::days(2));
    for _ in 0..12 {
        caller.poll().await;
        caller.relist(TimeDelta::hours(24)).await;
        stage.pass(minutes(1)).await;
    }
    let mut blobs = calls(&stage, "/audit/");
    let all = blobs.len();
    blobs.sort();
    blobs.dedup();
    assert_eq!(all, blobs.len(), "a blob was asked for twice");
    assert!(all > 20, "{all}");
}

#[tokio::test(start_paused = true)]
async fn the_publisher_stands_on_every_call() {
    let stage = stage(|options| {
        options.microsoft.page_items = 2;
        options.microsoft.subscribed = false;
    });
    let publisher = "7a3f1b52-0000-4000-8000-123456789abc";
    let mut caller = stage.office365(Office365Options {
        publisher_identifier: Some(publisher.into()),
        ..options(&stage)
    });
    caller.start(now() - minutes(60));
    for (number, id) in ["a", "b", "c", "d"].iter().enumerate() {
        publish(
            &stage,
            &format!("{number}${id}"),
            now() - minutes(20),
            &[id],
        );
    }
    caller.poll().await;
    caller.relist(TimeDelta::hours(1)).await;
    // A blob's link may hold a query of its own.
    let tenant = stage.office365_options().tenant_id.unwrap();
    let link = format!("{MICROSOFT}/api/v1.0/{tenant}/activity/feed/audit/0$a?version=2");
    let line = serde_json::json!([{
        "contentType": "Audit.General", "contentId": "9$z", "contentUri": link,
        "contentCreated": "2026-03-04T05:59:00.000Z",
        "contentExpiration": "2026-03-11T05:59:00.000Z",
    }]);
    fault(
        &stage,
        Endpoint::ContentList,
        crate::scene::status(200, &line.to_string()),
    );
    stage.pass(minutes(2)).await;
    caller.poll().await;
    let asked = calls(&stage, "/activity/feed/");
    for part in [
        "/list",
        "/start",
        "nextPage=",
        "/audit/0$a?Publ",
        "/audit/0$a?version=2&",
    ] {
        assert!(
            asked.iter().any(|url| url.contains(part)),
            "no call of {part}"
        );
    }
    for url in &asked {
        let count = url
            .matches(&format!("PublisherIdentifier={publisher}"))
            .count();
        assert_eq!(count, 1, "{url}");
    }
    assert_eq!(stage.simulator.microsoft().calls_without_publisher(), 0);
}

/// An answer with a link to the next page that is always the same.
fn looping() -> Fault {
    let next = format!(
        "{MICROSOFT}/api/v1/{{tenant}}/activity/feed/subscriptions/content?contentType=Audit.General&nextPage=201500000001"
    );
    Fault::Status {
        status: 200,
        body: "[]".into(),
        headers: vec![("NextPageUri".into(), next)],
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_comes_twice_ends_the_walk() {
    let stage = stage(|_| ());
    let mut caller = caller(&stage);
    publish(&stage, "1$a", now() - minutes(20), &["a"]);
    let tenant = stage.office365_options().tenant_id.unwrap();
    let Fault::Status {
        status,
        body,
        headers,
    } = looping()
    else {
        unreachable!()
    };
    let headers = headers
        .into_iter()
        .map(|(name, value)| (name, value.replace("{tenant}", &tenant)))
        .collect();
    fault(
        &stage,
        Endpoint::ContentList,
        Fault::Status {
            status,
            body,
            headers,
        },
    );
    let before = caller.cursors[&stream()].covered_until;
    caller.poll().await;
    let (_, error) = &caller.errors[0];
    assert!(
        kind(error) == "retry" && error.to_string().contains("came twice"),
        "{error}"
    );
    assert_eq!(calls(&stage, "subscriptions/content").len(), 2);
    assert_eq!(
        caller.cursors[&stream()].covered_until,
        before,
        "nothing is called listed"
    );
    no_fault(&stage);
    caller.poll().await;
    assert_eq!(seen(&caller, &["a"]), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_bad_next_page_begins_the_walk_again() {
    let stage = stage(|options| options.microsoft.page_items = 2);
    let mut caller = caller(&stage);
    let ids = ["a", "b", "c", "d", "e"];
    for (number, id) in ids.iter().enumerate() {
        publish(
            &stage,
            &format!("{number}${id}"),
            now() - minutes(20),
            &[id],
        );
    }
    let rule = FaultRule::new(Endpoint::ContentList, Fault::activity("AF20031"));
    script(&stage, vec![rule.calls(2, 2)]);
    caller.poll().await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    assert_eq!(seen(&caller, &ids), [1; 5]);
    assert!(calls(&stage, "nextPage=").len() >= 3);
}

#[tokio::test(start_paused = true)]
async fn crash_between_list_and_fetch() {
    let stage = stage(|_| ());
    let mut before = caller(&stage);
    publish(&stage, "1$a", now() - minutes(20), &["a"]);
    before.list(&stream()).await;
    assert!(!before.open.is_empty());
    // What the store keeps together: the cursor, and the items that it covers.
    let mut after = stage.office365(options(&stage));
    (after.cursors, after.open) = (before.cursors, before.open);
    publish(&stage, "2$b", now() - minutes(1), &["b"]);
    stage.pass(minutes(3)).await;
    after.poll().await;
    assert_eq!(seen(&after, &["a", "b"]), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn down_8_days_emits_gap() {
    let stage = stage(|_| ());
    let mut caller = caller(&stage);
    caller.poll().await;
    let covered = caller.cursors[&stream()].covered_until;
    publish(&stage, "1$a", now() + TimeDelta::hours(2), &["a"]);
    publish(&stage, "2$b", now() + TimeDelta::days(4), &["b"]);
    stage.pass(TimeDelta::days(8)).await;
    caller.poll().await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    assert_eq!(seen(&caller, &["a", "b"]), [0, 1]);
    let [gap] = &caller.gaps[..] else {
        panic!("one gap: {:?}", caller.gaps)
    };
    assert!(gap.window.from() == covered && gap.window.length() > TimeDelta::hours(24));
    assert!(gap.reason.contains("7 days"), "{}", gap.reason);
}

/// A server that writes its answers byte for byte, one a connection. They are made for its origin.
async fn byte_server(answers: impl FnOnce(&str) -> Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let answers = answers(&origin);
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4_096];
            while !request.windows(4).any(|four| four == b"\r\n\r\n") {
                let read = stream.read(&mut buffer).await.unwrap();
                request.extend_from_slice(&buffer[..read]);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    origin
}

fn answer(headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}"
    )
}

/// Rows 31 and 41: the header in any case, with others behind it, over a real connection.
async fn next_page_by(header: &str) {
    let mut stage = stage(|_| ());
    stage.surroundings.transport = None;
    let tenant = stage.office365_options().tenant_id.unwrap();
    let origin = byte_server(|origin| {
        let feed = format!("api/v1.0/{tenant}/activity/feed");
        let page = |id: &str| {
            serde_json::json!([{
                "contentType": "Audit.General", "contentId": id,
                "contentUri": format!("{origin}/{feed}/audit/{id}"),
                "contentCreated": "2026-03-04T05:58:00.000Z",
                "contentExpiration": "2026-03-11T05:58:00.000Z",
            }])
            .to_string()
        };
        let next = format!("{origin}/{feed}/subscriptions/content?nextPage=2015");
        let headers =
            format!("{header}: {next}\r\nX-AspNet-Version: 4.0.30319\r\nX-Powered-By: ASP.NET\r\n");
        vec![
            answer(
                "",
                r#"{"token_type":"Bearer","expires_in":3599,"access_token":"t"}"#,
            ),
            answer(
                "",
                r#"[{"contentType":"Audit.General","status":"enabled"}]"#,
            ),
            answer(&headers, &page("1$a")),
            answer("", &page("2$b")),
        ]
    })
    .await;
    let mut caller = stage.office365(Office365Options {
        api_root: origin.parse().ok(),
        login_root: origin.parse().ok(),
        ..options(&stage)
    });
    caller.start(now() - minutes(5));
    caller.list(&stream()).await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    let items = caller.open.values();
    let items: Vec<String> = items
        .map(|item| format!("{} {}", item.key, item.body))
        .collect();
    let path = format!("/api/v1.0/{tenant}/activity/feed/audit");
    assert_eq!(
        items,
        [format!("1$a {path}/1$a"), format!("2$b {path}/2$b")],
        "{header}"
    );
}

#[tokio::test]
async fn header_lower_case() {
    for header in ["nextpageuri", "NEXTPAGEURI", "NextPageUri", "NextPageUrl"] {
        next_page_by(header).await;
    }
}

#[tokio::test]
async fn header_followed_by_x_aspnet() {
    next_page_by("NextPageUri").await;
}
