//! Whose record it is, and that the feed and the search know it by the same id.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_span_eight_days_old_gives_the_identities_that_the_feed_gave() {
    let stage = stage();
    let feed = feed(&stage, stage.office365_options()).await;
    assert!(feed.len() > 300, "{}", feed.len());
    stage.pass(TimeDelta::days(8)).await;

    // The feed has nothing left, and says so; the archive gives the same records.
    let mut late = stage.office365(stage.office365_options());
    late.start(world().from);
    late.poll().await;
    assert!(
        late.seen.is_empty() && late.gaps.len() == 5,
        "{:?}",
        late.gaps
    );
    let mut searcher = Searcher::new(&late);
    for gap in &late.gaps {
        let span = Window::new(gap.window.from(), world().until).unwrap();
        searcher.span(&gap.stream, span).await;
    }
    let all = |seen: &Seen| seen.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(all(&searcher.seen), all(&feed));
    assert!(searcher.seen.values().all(|times| *times == 1));
    assert_eq!(searcher.submissions, 5);
}

#[tokio::test(start_paused = true)]
async fn general_is_what_no_other_stream_asks_for_and_no_service_filter_is_sent() {
    let stage = old_stage(|_| ()).await;
    for name in [GENERAL, "Audit.Exchange"] {
        all_of(&stage, name).await;
    }
    for body in stage.simulator.microsoft().audit_search_bodies() {
        let members: Vec<&String> = body.as_object().unwrap().keys().collect();
        assert!(
            !members.iter().any(|name| name.starts_with("service")),
            "{members:?}"
        );
        let general = body["displayName"].as_str().unwrap().contains(GENERAL);
        assert_eq!(general, body.get("recordTypeFilters").is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_without_its_id_is_known_by_the_id_around_it() {
    let own = old_stage(|_| ()).await;
    let without = old_stage(|habits| habits.audit_data_id = AuditDataId::Missing).await;
    let mut identities = Vec::new();
    for stage in [&own, &without] {
        let caller = stage.office365(stage.office365_options());
        let mut searcher = Searcher::new(&caller);
        let stream = stream(searcher.connector, "Audit.SharePoint");
        searcher.span(&stream, day()).await;
        identities.push(searcher.seen);
    }
    assert!(identities[0].len() > 100);
    assert_eq!(identities[0], identities[1]);
}

#[tokio::test(start_paused = true)]
async fn where_the_ids_of_feed_and_search_do_not_agree_records_are_known_by_their_content() {
    let stage = stage();
    let change = |habits: &mut GraphHabits| habits.audit_data_id = AuditDataId::Other;
    stage.simulator.microsoft().change_graph(change);
    let only = |record_identity| Office365Options {
        content_types: Some(vec!["Audit.SharePoint".into()]),
        record_identity: Some(record_identity),
        ..stage.office365_options()
    };
    let mut from_feed = Vec::new();
    for identity in [RecordIdentity::Id, RecordIdentity::Content] {
        from_feed.push(feed(&stage, only(identity)).await);
    }
    stage.pass(TimeDelta::days(2)).await;
    let mut from_search = Vec::new();
    for identity in [RecordIdentity::Id, RecordIdentity::Content] {
        let caller = stage.office365(only(identity));
        let mut searcher = Searcher::new(&caller);
        let stream = stream(searcher.connector, "Audit.SharePoint");
        searcher.span(&stream, day()).await;
        from_search.push(searcher.seen);
    }
    assert!(from_feed[0].len() > 100);
    let known = |at: usize| {
        from_search[at]
            .keys()
            .filter(|key| from_feed[at].contains_key(key))
            .count()
    };
    assert_eq!((known(0), known(1)), (0, from_feed[1].len()));
    assert_eq!(from_search[1], from_feed[1]);
}
