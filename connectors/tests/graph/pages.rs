//! Pages of an answer: links, limits, breaks, repeats.

use super::*;

#[tokio::test(start_paused = true)]
async fn auditquery_unstable_pages() {
    for (readings, counts) in [(1, true), (1, false), (2, true)] {
        let stage = old_stage(|habits| {
            habits.unstable_readings = readings;
            habits.counts = counts;
        })
        .await;
        assert_eq!(
            all_of(&stage, "Audit.Exchange").await,
            1,
            "{readings} {counts}"
        );
    }
    // Where the count fits and nothing comes twice, one reading is enough.
    let stage = old_stage(|habits| habits.top_max = 100).await;
    all_of(&stage, "Audit.Exchange").await;
    let once = stage.simulator.faults().calls(Endpoint::AuditRecords);
    let stage = old_stage(|habits| {
        habits.top_max = 100;
        habits.counts = false;
    })
    .await;
    all_of(&stage, "Audit.Exchange").await;
    let twice = stage.simulator.faults().calls(Endpoint::AuditRecords);
    assert!(twice > once, "{twice} {once}");
}

#[tokio::test(start_paused = true)]
async fn auditquery_truncated_json_and_failing_pages_restart_the_reading_and_not_the_search() {
    let breakages = [
        FaultRule::new(Endpoint::AuditRecords, Fault::Truncate { bytes: 5_000 }).calls(6, 7),
        FaultRule::new(Endpoint::AuditRecords, Fault::Outage).calls(6, 12),
        FaultRule::new(Endpoint::AuditRecords, Fault::Reset).calls(7, 11),
        FaultRule::new(Endpoint::AuditRecords, Fault::HtmlPage { status: 502 }).calls(1, 4),
        FaultRule::new(
            Endpoint::AuditRecords,
            Fault::Status {
                status: 400,
                body: r#"{"error":{"code":"BadRequest","message":"Skip token is expired."}}"#
                    .into(),
                headers: Vec::new(),
            },
        )
        .calls(7, 7),
    ];
    for rule in breakages {
        let name = format!("{rule:?}");
        let stage = old_stage(|habits| habits.top_max = 100).await;
        // The first four calls learn how small pages must be.
        faults(&stage, vec![rule]);
        assert_eq!(all_of(&stage, "Audit.Exchange").await, 1, "{name}");
        let asked = stage.transport.asked.lock().unwrap();
        let first = |url: &&String| url.contains("/records?") && !url.contains("$skiptoken");
        assert!(asked.iter().filter(first).count() > 5, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_that_never_comes_is_given_up_and_the_search_kept() {
    let stage = old_stage(|_| ()).await;
    let broken = Fault::Truncate { bytes: 700 };
    faults(&stage, vec![FaultRule::new(Endpoint::AuditRecords, broken)]);
    let caller = stage.office365(stage.office365_options());
    let mut searcher = Searcher::new(&caller);
    let stream = stream(searcher.connector, "Audit.Exchange");
    let item = searcher.search(&stream, day()).await;
    let error = searcher.fetch(&item).await.unwrap_err();
    assert!(matches!(error, FetchError::Retry { .. }), "{error:?}");
    let calls = stage.simulator.faults().calls(Endpoint::AuditRecords);
    assert!((5..10).contains(&calls), "{calls}");
    faults(&stage, Vec::new());
    searcher.fetch(&item).await.unwrap();
    assert_eq!(searcher.ids(), due(&stage, "Audit.Exchange"));
    assert_eq!(stage.simulator.microsoft().audit_searches(), 1);
}

#[tokio::test(start_paused = true)]
async fn graph_top_limit_halves_the_pages() {
    let stage = old_stage(|habits| habits.top_max = 50).await;
    assert_eq!(all_of(&stage, "Audit.Exchange").await, 1);
    let asked = stage.transport.asked.lock().unwrap();
    let tops = |top: &str| {
        asked
            .iter()
            .filter(|url| url.contains(&format!("$top={top}")))
            .count()
    };
    assert_eq!((tops("1000"), tops("500")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn short_page_with_next_link_is_not_the_end() {
    let stage = old_stage(|habits| {
        habits.top_max = 50;
        habits.short_page_every = 2;
    })
    .await;
    all_of(&stage, "Audit.Exchange").await;
}

#[tokio::test(start_paused = true)]
async fn nextlink_repeats_and_the_reading_begins_again_within_limits() {
    let looping = |readings| {
        move |habits: &mut GraphHabits| {
            habits.top_max = 50;
            habits.looping_readings = readings;
        }
    };
    let stage = old_stage(looping(1)).await;
    all_of(&stage, "Audit.Exchange").await;

    let stage = old_stage(looping(1_000)).await;
    let caller = stage.office365(stage.office365_options());
    let mut searcher = Searcher::new(&caller);
    let stream = stream(searcher.connector, "Audit.Exchange");
    let item = searcher.search(&stream, day()).await;
    let error = searcher.fetch(&item).await.unwrap_err();
    assert!(error.to_string().contains("came twice"), "{error}");
    assert!(matches!(error, FetchError::Retry { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_link_to_another_host_is_not_followed() {
    let evil = "https://graph.microsoft.com.evil.test";
    let stage = old_stage(|habits| {
        habits.top_max = 50;
        habits.link_origin = Some(evil.into());
    })
    .await;
    let caller = stage.office365(stage.office365_options());
    let mut searcher = Searcher::new(&caller);
    let stream = stream(searcher.connector, "Audit.Exchange");
    let item = searcher.search(&stream, day()).await;
    let error = searcher.fetch(&item).await.unwrap_err();
    assert!(
        error.to_string().contains("another scheme, host or port"),
        "{error}"
    );
    let asked = stage.transport.asked.lock().unwrap();
    assert!(asked.iter().all(|url| !url.contains("evil")));
}
