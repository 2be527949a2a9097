//! Routes: who gets what, and where they go on under another name.

use super::*;

#[tokio::test]
async fn each_route_takes_what_its_filter_says_and_counts_what_it_leaves_out() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Arc::new(Receiver::default()), Arc::new(Receiver::default()));
    let mut all = routes(
        &first,
        &[(
            "ours",
            serde_json::json!({ "tenants": ["contoso"], "exclude": ["MailItems*"] }),
        )],
    );
    all.extend(routes(
        &second,
        &[(
            "theirs",
            serde_json::json!({ "tenants": ["!contoso"], "severity_min": "critical" }),
        )],
    ));
    let pipeline = start_routes(open(folder.path(), Steps::default()), all);
    for tenant in ["contoso", "fabrikam"] {
        let mut ingest = ingest(&pipeline, tenant);
        take_page(&mut ingest, page(tenant, 0..3)).await;
        take_page(&mut ingest, page_of(tenant, "MailItemsAccessed", 3..7)).await;
    }
    let watch = pipeline.shared().watch.clone();
    let store = pipeline.shared().store.clone();
    finish(pipeline).await;
    assert_eq!(store.quarantined().unwrap(), []);
    assert_eq!(
        first.ids(Kind::Events).len(),
        3,
        "of contoso, less those left out"
    );
    assert_eq!(second.ids(Kind::Events).len(), 7, "of fabrikam");
    assert!(!first.ids(Kind::Findings).is_empty());
    assert_eq!(second.ids(Kind::Findings), [""; 0], "none is critical");
    let shown = watch.copy();
    let marks = store.lanes().unwrap();
    for (route, kind, excluded) in [
        ("ours", Kind::Events, 4),
        ("ours", Kind::Findings, 0),
        ("theirs", Kind::Events, 0),
        (
            "theirs",
            Kind::Findings,
            first.ids(Kind::Findings).len() as u64,
        ),
    ] {
        let mark = marks
            .iter()
            .find(|mark| mark.lane.route == route && mark.lane.kind == kind)
            .unwrap();
        let counted = (mark.excluded, shown.lane_health(&mark.lane).excluded);
        assert_eq!(counted, (excluded, excluded), "{route} {kind:?}");
    }
}

#[tokio::test]
async fn routes_that_are_named_anew_go_on_where_the_one_route_was() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Arc::new(Receiver {
        failures_left: AtomicUsize::new(usize::MAX),
        ..Receiver::default()
    });
    let whole = Route::all(receiver.clone(), vec![Kind::Events]);
    let pipeline = start_routes(open(folder.path(), Steps::default()), vec![whole]);
    for tenant in ["contoso", "fabrikam"] {
        records(&pipeline, tenant, 0..3).await;
    }
    pipeline.stop().await;
    assert_eq!(receiver.ids(Kind::Events), [""; 0]);
    receiver.failures_left.store(0, Ordering::SeqCst);
    let parted = routes(
        &receiver,
        &[
            ("ours", serde_json::json!({ "tenants": ["contoso"] })),
            ("rest", serde_json::json!({ "tenants": ["!contoso"] })),
        ],
    );
    let pipeline = start_routes(open(folder.path(), Steps::default()), parted);
    let store = pipeline.shared().store.clone();
    finish(pipeline).await;
    assert_eq!(receiver.ids(Kind::Events).len(), 6, "none is left behind");
    let marks = store.lanes().unwrap();
    let retired: Vec<_> = marks.iter().filter(|mark| mark.retired).collect();
    assert_eq!((retired.len(), &retired[0].lane.route[..]), (1, "all"));
}
