//! Searches: submitted, polled, split, refused, gone on with after a restart.

use super::*;

#[tokio::test(start_paused = true)]
async fn auditquery_limit_exceeded_splits() {
    let stage = old_stage(|habits| habits.record_count_limit = 60).await;
    let submissions = all_of(&stage, "Audit.SharePoint").await;
    assert!(submissions > 5, "{submissions}");
    // Those known to be cut were not read.
    let pages = stage.simulator.faults().calls(Endpoint::AuditRecords);
    assert_eq!(pages, (submissions as u64).div_ceil(2));

    // As many as the service gives: there might be more, whatever it says of that.
    let exactly = due(&stage, "Audit.SharePoint").len();
    let stage = old_stage(|habits| habits.record_count_limit = exactly).await;
    assert_eq!(all_of(&stage, "Audit.SharePoint").await, 3);

    // A limit that no halving satisfies leaves gaps of not less than a quarter of an hour.
    let stage = old_stage(|habits| habits.record_count_limit = 1).await;
    let caller = stage.office365(stage.office365_options());
    let mut searcher = Searcher::new(&caller);
    let stream = stream(searcher.connector, "Audit.SharePoint");
    let hour = Window::new(at("2026-03-03T10:00:00Z"), at("2026-03-03T11:00:00Z")).unwrap();
    searcher.span(&stream, hour).await;
    assert!(!searcher.gaps.is_empty());
    assert!(
        searcher
            .gaps
            .iter()
            .all(|gap| gap.length() == TimeDelta::minutes(15))
    );
}

/// A quarter of an hour that stays cut is searched by record type; `Audit.General` cannot be, since
/// most of its types have no name in Graph.
#[tokio::test(start_paused = true)]
async fn what_stays_cut_below_a_quarter_of_an_hour_is_searched_by_record_type() {
    let hour = Window::new(at("2026-03-03T10:00:00Z"), at("2026-03-03T11:00:00Z")).unwrap();
    let mut found = Vec::new();
    for by_part in [false, true] {
        let stage = old_stage(|habits| habits.record_count_limit = 3).await;
        let caller = stage.office365(stage.office365_options());
        let mut searcher = Searcher::new(&caller);
        searcher.by_part = by_part;
        let sharepoint = stream(searcher.connector, "Audit.SharePoint");
        searcher.span(&sharepoint, hour).await;
        found.push((searcher.ids(), searcher.gaps.len()));
        let general = stream(searcher.connector, GENERAL);
        assert!(searcher.archive().parts(&general).is_empty());
    }
    let (whole, parts) = (&found[0], &found[1]);
    assert!(whole.1 > 0, "nothing stayed cut: the test proves nothing");
    assert!(parts.1 < whole.1, "{} gaps of {}", parts.1, whole.1);
    assert!(parts.0.is_superset(&whole.0) && parts.0.len() > whole.0.len());
}

#[tokio::test(start_paused = true)]
async fn graph_late_record_is_waited_for() {
    let stage = stage();
    stage
        .simulator
        .microsoft()
        .change_graph(|habits| habits.lag_seconds = 20 * 3_600);
    let caller = stage.office365(stage.office365_options());
    let mut searcher = Searcher::new(&caller);
    let stream = stream(searcher.connector, "Audit.Exchange");
    // Two hours after the day's end, a search would miss what comes late: it is not made.
    let error = searcher.archive().search(&stream, day()).await.unwrap_err();
    let FetchError::Retry {
        after: Some(after), ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert!(
        after > Duration::from_hours(21) && after <= Duration::from_hours(22),
        "{after:?}"
    );
    assert_eq!(stage.simulator.microsoft().audit_searches(), 0);
    stage.pass(TimeDelta::from_std(after).unwrap()).await;
    searcher.span(&stream, day()).await;
    assert_eq!(searcher.ids(), due(&stage, "Audit.Exchange"));
}

#[tokio::test(start_paused = true)]
async fn checkpoint_older_than_retention_is_a_loss_that_is_said() {
    let stage = stage();
    stage.pass(TimeDelta::days(181)).await;
    let caller = stage.office365(stage.office365_options());
    let archive = caller.connector.archive().unwrap();
    let stream = stream(&*caller.connector, "Audit.Exchange");
    let error = archive.search(&stream, day()).await.unwrap_err();
    assert!(matches!(error, FetchError::Gone { .. }), "{error:?}");
    assert_eq!(stage.simulator.microsoft().audit_searches(), 0);
    let now = stage.simulator.clock().now();
    let parts = archive
        .limits()
        .divide(Window::new(world().from, now).unwrap(), now);
    assert_eq!(parts.lost.unwrap().from(), world().from);
    let item = archive.search(&stream, parts.now.unwrap()).await;
    assert!(item.is_ok(), "{item:?}");
}

#[tokio::test(start_paused = true)]
async fn a_search_is_polled_with_growing_pauses_and_one_that_fails_is_submitted_anew() {
    let stage = old_stage(|habits| habits.running_seconds = 3 * 3_600).await;
    faults(
        &stage,
        vec![
            FaultRule::new(
                Endpoint::AuditSearch,
                Fault::Throttle {
                    retry_after_seconds: None,
                },
            )
            .calls(5, 8),
            FaultRule::new(Endpoint::AuditSearch, Fault::Outage).calls(12, 14),
        ],
    );
    assert_eq!(all_of(&stage, "Audit.Exchange").await, 1);
    let looks = stage.simulator.faults().calls(Endpoint::AuditSearch);
    assert!((60..120).contains(&looks), "{looks}");

    for ends_as in ["failed", "cancelled"] {
        let stage = old_stage(|habits| habits.ends_as = ends_as).await;
        let caller = stage.office365(stage.office365_options());
        let mut searcher = Searcher::new(&caller);
        let stream = stream(searcher.connector, "Audit.Exchange");
        let item = searcher.search(&stream, day()).await;
        let error = searcher.fetch(&item).await.unwrap_err();
        assert!(matches!(error, FetchError::Gone { .. }) && error.to_string().contains(ends_as));
        stage
            .simulator
            .microsoft()
            .change_graph(|habits| habits.ends_as = "succeeded");
        searcher.span(&stream, day()).await;
        assert_eq!(searcher.ids(), due(&stage, "Audit.Exchange"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_search_that_never_ends_is_gone_after_a_day() {
    let stage = old_stage(|habits| habits.running_seconds = 100 * 86_400).await;
    let caller = stage.office365(stage.office365_options());
    let mut searcher = Searcher::new(&caller);
    let stream = stream(searcher.connector, "Audit.Exchange");
    let item = searcher.search(&stream, day()).await;
    let error = searcher.fetch(&item).await.unwrap_err();
    assert!(matches!(error, FetchError::Gone { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_with_the_search_that_was_submitted() {
    let stage = old_stage(|habits| habits.running_seconds = 3_600).await;
    let stored = {
        let caller = stage.office365(stage.office365_options());
        let mut searcher = Searcher::new(&caller);
        let stream = stream(searcher.connector, "Audit.Exchange");
        let item = searcher.search(&stream, day()).await;
        // The process ends while it waits.
        let waiting = searcher.fetch(&item);
        assert!(
            tokio::time::timeout(Duration::from_secs(10), waiting)
                .await
                .is_err()
        );
        serde_json::to_string(&item).unwrap()
    };
    let caller = stage.office365(stage.office365_options());
    let mut searcher = Searcher::new(&caller);
    searcher
        .fetch(&serde_json::from_str(&stored).unwrap())
        .await
        .unwrap();
    assert_eq!(searcher.ids(), due(&stage, "Audit.Exchange"));
    assert_eq!(stage.simulator.microsoft().audit_searches(), 1);
}

#[tokio::test(start_paused = true)]
async fn submissions_over_the_limit_and_throttled_pages_wait_as_long_as_the_vendor_asks() {
    let stage = old_stage(|habits| habits.submissions_per_day = 1).await;
    let pages = Fault::Throttle {
        retry_after_seconds: Some(90),
    };
    faults(
        &stage,
        vec![FaultRule::new(Endpoint::AuditRecords, pages).calls(1, 2)],
    );
    let caller = stage.office365(stage.office365_options());
    let mut searcher = Searcher::new(&caller);
    let stream = stream(searcher.connector, "Audit.Exchange");
    let item = searcher.search(&stream, day()).await;
    let error = searcher.archive().search(&stream, day()).await.unwrap_err();
    let FetchError::Throttled { after, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(after, Some(Duration::from_mins(10)));
    let before = stage.simulator.clock().now();
    searcher.fetch(&item).await.unwrap();
    assert!(stage.simulator.clock().now() - before >= TimeDelta::seconds(330 + 180));
    assert_eq!(searcher.ids(), due(&stage, "Audit.Exchange"));
}

#[tokio::test(start_paused = true)]
async fn without_the_permission_for_all_of_a_stream_nothing_is_submitted_or_called_read() {
    let exchange = "AuditLogsQuery-Exchange.Read.All";
    let sharepoint = "AuditLogsQuery-SharePoint.Read.All";
    let onedrive = "AuditLogsQuery-OneDrive.Read.All";
    let cases: [(&[&str], &[&str]); 4] = [
        (&[], &[]),
        (&[exchange], &["Audit.Exchange"]),
        (&[sharepoint], &[]),
        (&[sharepoint, onedrive], &["Audit.SharePoint"]),
    ];
    for (roles, may) in cases {
        let stage = old_stage(|_| ()).await;
        stage.simulator.microsoft().set_graph_roles(roles);
        let caller = stage.office365(stage.office365_options());
        let archive = caller.connector.archive().unwrap();
        for stream in caller.connector.streams() {
            let checked = archive.check(&stream).await;
            assert_eq!(
                checked.is_ok(),
                may.contains(&stream.name()),
                "{roles:?} {stream}"
            );
            if let Err(error) = checked {
                let FetchError::Permission { what, help } = &error else {
                    panic!("{error:?}");
                };
                assert!(help.contains(ROLE_AUDIT_ALL) && what.contains(stream.name()));
                let refused = archive.search(&stream, day()).await.unwrap_err();
                assert!(matches!(refused, FetchError::Permission { .. }));
            }
        }
        assert_eq!(stage.simulator.microsoft().audit_searches(), 0);
        for name in may {
            all_of(&stage, name).await;
        }
    }
    // Taken away between submission and reading: what was found is not called whole.
    let stage = old_stage(|_| ()).await;
    let caller = stage.office365(stage.office365_options());
    let mut searcher = Searcher::new(&caller);
    let general = stream(searcher.connector, GENERAL);
    let item = searcher.search(&general, day()).await;
    stage.simulator.microsoft().set_graph_roles(&[exchange]);
    let restarted = stage.office365(stage.office365_options());
    let archive = restarted.connector.archive().unwrap();
    let refused = archive.fetch(&item).await.err().expect("a refusal");
    assert!(
        matches!(refused, FetchError::Permission { .. }),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cloud_without_the_search_says_so_and_another_version_can_be_set() {
    let stage = old_stage(|habits| habits.versions = &["beta"]).await;
    for (options, word) in [
        (
            Office365Options {
                cloud: Some(Cloud::GccHigh),
                ..stage.office365_options()
            },
            "gcc-high",
        ),
        (
            Office365Options {
                cloud: Some(Cloud::Dod),
                ..stage.office365_options()
            },
            "dod",
        ),
        (
            Office365Options {
                audit_search: Some(AuditSearch::Off),
                ..stage.office365_options()
            },
            "off",
        ),
    ] {
        let caller = stage.office365(options);
        let why = caller.connector.archive().expect_err("no archive");
        assert!(why.to_string().contains(word), "{why}");
    }
    let caller = stage.office365(stage.office365_options());
    let exchange = stream(&*caller.connector, "Audit.Exchange");
    let refused = caller
        .connector
        .archive()
        .unwrap()
        .search(&exchange, day())
        .await;
    let Err(FetchError::Hold { what, help }) = refused else {
        panic!("{refused:?}");
    };
    assert!(
        what.contains("auditLog") && help.contains("audit_search"),
        "{what}: {help}"
    );
    let caller = stage.office365(Office365Options {
        audit_search: Some(AuditSearch::Beta),
        ..stage.office365_options()
    });
    let mut searcher = Searcher::new(&caller);
    searcher.span(&exchange, day()).await;
    assert_eq!(searcher.ids(), due(&stage, "Audit.Exchange"));
}
