//! A tenant whose items a receiver does not take has a lane of its own until it does.

use super::*;

fn lane_names(pipeline: &Pipeline) -> Vec<String> {
    let shown = pipeline.shared().watch.copy();
    shown.lanes.keys().map(|lane| lane.route.clone()).collect()
}

fn holding(tenants: &[&str]) -> (Arc<Receiver>, Vec<Route>) {
    let receiver = Arc::new(Receiver {
        holds: Mutex::new(tenants.iter().map(|name| (*name).to_owned()).collect()),
        ..Receiver::default()
    });
    let route = Route::all(receiver.clone(), vec![Kind::Events]);
    (receiver, vec![route])
}

#[tokio::test]
async fn a_tenant_whose_index_is_missing_is_parted_and_the_others_flow_until_it_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (receiver, routes) = holding(&["fabrikam"]);
    let pipeline = start_routes(open(folder.path(), Steps::default()), routes);
    for round in 0..4 {
        for tenant in ["fabrikam", "contoso"] {
            records(&pipeline, tenant, round * 10..round * 10 + 10).await;
        }
    }
    eventually("contoso flows", || {
        taken_of(&receiver, "contoso").len() == 40
    })
    .await;
    assert_eq!(taken_of(&receiver, "fabrikam"), [""; 0]);
    assert_eq!(lane_names(&pipeline), ["all", "all@fabrikam"]);
    let shown = pipeline.shared().watch.copy();
    for lane in shown.lanes.keys() {
        let held = shown.lane_health(lane).held;
        assert_eq!(held.is_some(), lane.route == "all@fabrikam", "{held:?}");
    }
    receiver.holds.lock().unwrap().clear();
    eventually("fabrikam goes back", || lane_names(&pipeline) == ["all"]).await;
    for tenant in ["fabrikam", "contoso"] {
        records(&pipeline, tenant, 40..50).await;
    }
    let store = pipeline.shared().store.clone();
    finish(pipeline).await;
    for tenant in ["fabrikam", "contoso"] {
        let taken = taken_of(&receiver, tenant);
        let distinct: BTreeSet<_> = taken.iter().collect();
        assert_eq!(
            (taken.len(), distinct.len()),
            (50, 50),
            "{tenant}: each once"
        );
    }
    let marks = store.lanes().unwrap();
    let parted = marks.iter().find(|mark| mark.lane.route == "all@fabrikam");
    assert!(parted.unwrap().retired, "its segments are given back");
}

#[tokio::test]
async fn a_tenant_stays_parted_over_a_restart_and_nothing_of_it_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (receiver, routes) = holding(&["fabrikam"]);
    let pipeline = start_routes(open(folder.path(), Steps::default()), routes.clone());
    for tenant in ["fabrikam", "contoso"] {
        records(&pipeline, tenant, 0..10).await;
    }
    eventually("contoso flows", || {
        taken_of(&receiver, "contoso").len() == 10
    })
    .await;
    pipeline.stop().await;
    let pipeline = start_routes(open(folder.path(), Steps::default()), routes);
    assert_eq!(lane_names(&pipeline), ["all", "all@fabrikam"]);
    for tenant in ["fabrikam", "contoso"] {
        records(&pipeline, tenant, 10..20).await;
    }
    eventually("contoso flows", || {
        taken_of(&receiver, "contoso").len() == 20
    })
    .await;
    assert_eq!(taken_of(&receiver, "fabrikam"), [""; 0]);
    receiver.holds.lock().unwrap().clear();
    finish(pipeline).await;
    assert_eq!(taken_of(&receiver, "fabrikam").len(), 20);
    assert_eq!(taken_of(&receiver, "contoso").len(), 20, "none twice");
}

#[tokio::test]
async fn a_parted_tenant_follows_its_route_to_a_new_name() {
    let folder = tempfile::tempdir().unwrap();
    let (receiver, all) = holding(&["fabrikam"]);
    let pipeline = start_routes(open(folder.path(), Steps::default()), all);
    for tenant in ["fabrikam", "contoso"] {
        records(&pipeline, tenant, 0..10).await;
    }
    eventually("contoso flows", || {
        taken_of(&receiver, "contoso").len() == 10
    })
    .await;
    pipeline.stop().await;
    let named = [
        ("ours", serde_json::json!({ "tenants": ["contoso"] })),
        ("theirs", serde_json::json!({ "tenants": ["!contoso"] })),
    ];
    let named = routes(&receiver, &named);
    let pipeline = start_routes(open(folder.path(), Steps::default()), named);
    assert!(lane_names(&pipeline).contains(&"theirs@fabrikam".to_owned()));
    let marks = pipeline.shared().store.lanes().unwrap();
    let old = marks.iter().find(|mark| mark.lane.route == "all@fabrikam");
    assert!(old.unwrap().retired);
    receiver.holds.lock().unwrap().clear();
    finish(pipeline).await;
    assert_eq!(taken_of(&receiver, "fabrikam").len(), 10);
    assert_eq!(taken_of(&receiver, "contoso").len(), 10);
}

/// Names of the lanes of records.
fn record_lanes(pipeline: &Pipeline) -> Vec<String> {
    let shown = pipeline.shared().watch.copy();
    let lanes = shown.lanes.keys().filter(|lane| lane.kind == Kind::Events);
    lanes.map(|lane| lane.route.clone()).collect()
}

#[tokio::test]
async fn a_tenant_parted_from_two_routes_is_parted_once_from_the_one_that_follows_them() {
    let folder = tempfile::tempdir().unwrap();
    let (receiver, all) = holding(&["fabrikam"]);
    let everything = || serde_json::json!({});
    let two = routes(&receiver, &[("a", everything()), ("b", everything())]);
    let pipeline = start_routes(open(folder.path(), Steps::default()), two);
    records(&pipeline, "fabrikam", 0..10).await;
    eventually("parted from both", || {
        let lanes = record_lanes(&pipeline);
        ["a@fabrikam", "b@fabrikam"].map(|lane| lanes.contains(&lane.to_owned())) == [true; 2]
    })
    .await;
    pipeline.stop().await;
    let pipeline = start_routes(open(folder.path(), Steps::default()), all);
    assert_eq!(record_lanes(&pipeline), ["all", "all@fabrikam"]);
    receiver.holds.lock().unwrap().clear();
    finish(pipeline).await;
    assert_eq!(taken_of(&receiver, "fabrikam").len(), 10, "each once");
}

#[tokio::test]
async fn a_new_route_beside_another_has_none_of_what_that_one_waits_with() {
    let folder = tempfile::tempdir().unwrap();
    let (receiver, all) = holding(&["fabrikam"]);
    let pipeline = start_routes(open(folder.path(), Steps::default()), all);
    records(&pipeline, "fabrikam", 0..10).await;
    eventually("parted", || record_lanes(&pipeline).len() == 2).await;
    pipeline.stop().await;
    let everything = || serde_json::json!({});
    let two = routes(&receiver, &[("all", everything()), ("new", everything())]);
    let pipeline = start_routes(open(folder.path(), Steps::default()), two);
    assert_eq!(record_lanes(&pipeline), ["all", "all@fabrikam", "new"]);
    receiver.holds.lock().unwrap().clear();
    finish(pipeline).await;
    assert_eq!(taken_of(&receiver, "fabrikam").len(), 10, "each once");
}

#[tokio::test]
async fn more_held_tenants_than_may_be_parted_hold_the_lane_and_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let tenants: Vec<String> = (0..PARTED_MAX + 3).map(|n| format!("t{n}")).collect();
    let names: Vec<&str> = tenants.iter().map(String::as_str).collect();
    let (receiver, routes) = holding(&names);
    let pipeline = start_routes(open(folder.path(), Steps::default()), routes);
    for tenant in &tenants {
        records(&pipeline, tenant, 0..2).await;
    }
    records(&pipeline, "contoso", 0..2).await;
    eventually("as many as there is room for", || {
        lane_names(&pipeline).len() == PARTED_MAX + 1
    })
    .await;
    let shown = pipeline.shared().watch.copy();
    let whole = shown
        .lanes
        .keys()
        .find(|lane| lane.route == "all")
        .unwrap()
        .clone();
    eventually("the lane is held", || {
        pipeline
            .shared()
            .watch
            .copy()
            .lane_health(&whole)
            .held
            .is_some()
    })
    .await;
    // One whose items are taken again cannot go back to a lane that is held: it goes on in its own, each time
    // that it has asked.
    let parted = lane_names(&pipeline).into_iter();
    let parted = parted.filter_map(|lane| Some(lane.split_once('@')?.1.to_owned()));
    let healed = parted.into_iter().next().unwrap();
    receiver.holds.lock().unwrap().remove(&healed);
    for round in 1..=3 {
        eventually("its own lane delivers", || {
            taken_of(&receiver, &healed).len() == 2 * round
        })
        .await;
        let from = u32::try_from(2 * round).unwrap();
        records(&pipeline, &healed, from..from + 2).await;
    }
    receiver.holds.lock().unwrap().clear();
    finish(pipeline).await;
    for tenant in tenants.iter().map(String::as_str).chain(["contoso"]) {
        let all = if tenant == healed { 8 } else { 2 };
        assert_eq!(taken_of(&receiver, tenant).len(), all, "{tenant}");
    }
}
