//! What a receiver refused is sent again by its lane, or dropped.

use super::*;

async fn ask(pipeline: &Pipeline, ask: Ask) -> Result<Vec<again::Entry>, String> {
    let shared = pipeline.shared();
    let (entries, commit) = again::answer(&*shared.store, &ask, at()).unwrap()?;
    shared.committer.commit(commit).await.unwrap();
    shared.again.send_replace(());
    Ok(entries)
}

#[tokio::test]
async fn what_was_refused_is_sent_again_by_its_lane_or_dropped_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let other = Arc::new(Receiver::default());
    let receiver = Arc::new(Receiver {
        refuses: Mutex::new(Some("4")),
        ..Receiver::default()
    });
    let route = |name: &str, receiver: &Arc<Receiver>| Route {
        name: name.to_owned(),
        ..Route::all(receiver.clone(), vec![Kind::Events])
    };
    let routes = vec![route("all", &receiver), route("other", &other)];
    let pipeline = start_routes(open(folder.path(), Steps::default()), routes);
    records(&pipeline, "contoso", 0..20).await;
    let store = pipeline.shared().store.clone();
    eventually("refused", || store.quarantined().unwrap().len() == 2).await;
    let listed = ask(&pipeline, Ask::List).await.unwrap();
    let file = |entry: &again::Entry| {
        let name = entry.file.as_ref().unwrap();
        folder.path().join("quarantine").join(name)
    };
    assert!(listed.iter().all(|one| file(one).exists()), "{listed:?}");
    assert!(
        listed[0].origin.contains("test.receiver:all:events"),
        "{listed:?}"
    );

    let no_reason = ask(
        &pipeline,
        Ask::Drop {
            id: listed[0].id.clone(),
            reason: " ".into(),
        },
    );
    assert!(no_reason.await.unwrap_err().contains("reason"));
    let reason = "a test record".to_owned();
    ask(
        &pipeline,
        Ask::Drop {
            id: listed[0].id[..12].to_owned(),
            reason: reason.clone(),
        },
    )
    .await
    .unwrap();
    assert!(!file(&listed[0]).exists());

    // Still refused: it stays, with what the receiver says now.
    ask(&pipeline, Ask::Retry(None)).await.unwrap();
    let fate = |id: &str| {
        let all = store.quarantined().unwrap();
        all.into_iter().find(|one| one.id == id).unwrap().fate
    };
    eventually("refused again", || fate(&listed[1].id) == Fate::Kept).await;
    *receiver.refuses.lock().unwrap() = None;
    let id = listed[1].id.clone();
    ask(&pipeline, Ask::Retry(Some(id.clone()))).await.unwrap();
    eventually("delivered", || matches!(fate(&id), Fate::Delivered { .. })).await;
    eventually("its file is gone", || !file(&listed[1]).exists()).await;
    assert!(matches!(fate(&listed[0].id), Fate::Dropped { reason: said, .. } if said == reason));
    assert!(
        ask(&pipeline, Ask::Retry(Some(id.clone()))).await.is_err(),
        "it is over"
    );
    finish(pipeline).await;
    assert_eq!(
        taken_of(&receiver, "contoso").len(),
        19,
        "the dropped one is missing"
    );
    assert_eq!(
        taken_of(&other, "contoso").len(),
        20,
        "the other lane has all, each once"
    );
    let taken = receiver.taken.lock().unwrap();
    let sent = taken
        .iter()
        .find(|item| item.id.as_str() == listed[1].item.as_ref().unwrap());
    let same = other.taken.lock().unwrap();
    assert!(same.contains(sent.unwrap()), "the same bytes");
}

#[tokio::test]
async fn what_is_to_be_sent_again_is_so_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Arc::new(Receiver {
        refuses: Mutex::new(Some("4")),
        ..Receiver::default()
    });
    let route = || vec![Route::all(receiver.clone(), vec![Kind::Events])];
    let pipeline = start_routes(open(folder.path(), Steps::default()), route());
    records(&pipeline, "contoso", 0..10).await;
    let store = pipeline.shared().store.clone();
    eventually("refused", || store.quarantined().unwrap().len() == 1).await;
    drop(store);
    pipeline.stop().await;
    *receiver.refuses.lock().unwrap() = None;
    // Under another name there is no lane that would send it.
    let named = vec![Route {
        name: "named".to_owned(),
        ..Route::all(receiver.clone(), vec![Kind::Events])
    }];
    let pipeline = start_routes(open(folder.path(), Steps::default()), named);
    assert!(ask(&pipeline, Ask::Retry(None)).await.unwrap().is_empty());
    let store = pipeline.shared().store.clone();
    let id = store.quarantined().unwrap()[0].id.clone();
    drop(store);
    let why = ask(&pipeline, Ask::Retry(Some(id))).await.unwrap_err();
    assert!(why.contains("no longer configured"), "{why}");
    pipeline.stop().await;
    start_routes(open(folder.path(), Steps::default()), route())
        .stop()
        .await;
    let mut state = open(folder.path(), Steps::default());
    let (_, commit) = again::answer(&*state.store(), &Ask::Retry(None), at())
        .unwrap()
        .unwrap();
    state.commit_group(vec![commit]).unwrap();
    let pipeline = start_routes(state, route());
    eventually("delivered", || taken_of(&receiver, "contoso").len() == 10).await;
    pipeline.stop().await;
}

#[tokio::test]
async fn what_is_no_longer_one_object_in_its_file_is_not_sent() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Arc::new(Receiver {
        refuses: Mutex::new(Some("4")),
        ..Receiver::default()
    });
    let routes = vec![Route::all(receiver.clone(), vec![Kind::Events])];
    let pipeline = start_routes(open(folder.path(), Steps::default()), routes);
    records(&pipeline, "contoso", 0..10).await;
    let store = pipeline.shared().store.clone();
    let entry = || store.quarantined().unwrap().pop();
    eventually("refused", || entry().is_some()).await;
    let file = folder
        .path()
        .join("quarantine")
        .join(entry().unwrap().file.unwrap());
    std::fs::write(&file, r#"{"Id":"4"}},{"event":"x","index":"main"}"#).unwrap();
    *receiver.refuses.lock().unwrap() = None;
    ask(&pipeline, Ask::Retry(None)).await.unwrap();
    let says = || entry().unwrap().reason;
    eventually("kept", || says().contains("no JSON object")).await;
    assert_eq!(entry().unwrap().fate, Fate::Kept);
    drop(store);
    finish(pipeline).await;
    assert_eq!(taken_of(&receiver, "contoso").len(), 9);
}

/// A receiver that has refused every record whose number ends with 4, and what of it is in quarantine.
async fn refused(folder: &Path, numbers: std::ops::Range<u32>) -> (Arc<Receiver>, Pipeline) {
    let receiver = Arc::new(Receiver {
        refuses: Mutex::new(Some("4")),
        ..Receiver::default()
    });
    let route = Route::all(receiver.clone(), vec![Kind::Events]);
    let pipeline = start_routes(open(folder, Steps::default()), vec![route]);
    let refused = numbers.clone().filter(|number| number % 10 == 4).count();
    records(&pipeline, "contoso", numbers).await;
    let store = pipeline.shared().store.clone();
    eventually("refused", || store.quarantined().unwrap().len() == refused).await;
    *receiver.refuses.lock().unwrap() = None;
    (receiver, pipeline)
}

#[tokio::test]
async fn what_is_dropped_while_it_is_being_sent_again_stays_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let (receiver, pipeline) = refused(folder.path(), 0..20).await;
    let store = pipeline.shared().store.clone();
    let block = CancellationToken::new();
    *receiver.blocked.lock().unwrap() = Some(block.clone());
    let offered = receiver.offered.load(Ordering::SeqCst);
    let sent = ask(&pipeline, Ask::Retry(None)).await.unwrap();
    let under_way = || receiver.offered.load(Ordering::SeqCst) > offered;
    eventually("the first is being sent", under_way).await;
    let reason = "a test".to_owned();
    let id = sent[0].id.clone();
    ask(&pipeline, Ask::Drop { id, reason }).await.unwrap();
    *receiver.blocked.lock().unwrap() = None;
    block.cancel();
    // They are sent one by one: when the second is noted, so is the first.
    let fate = |number: usize| {
        let all = store.quarantined().unwrap();
        let mut of = all.into_iter().filter(|one| one.id == sent[number].id);
        of.next().unwrap().fate
    };
    eventually("the second is delivered", || {
        matches!(fate(1), Fate::Delivered { .. })
    })
    .await;
    assert!(matches!(fate(0), Fate::Dropped { .. }), "{:?}", fate(0));
    drop(store);
    finish(pipeline).await;
}

#[tokio::test]
async fn sending_again_that_panics_ends_the_process_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (receiver, pipeline) = refused(folder.path(), 0..10).await;
    receiver.panics.store(true, Ordering::SeqCst);
    ask(&pipeline, Ask::Retry(None)).await.unwrap();
    let shutdown = pipeline.shared().shutdown.clone();
    eventually("it ends", || shutdown.is_cancelled()).await;
    let why = pipeline.shared().watch.copy().fatal.unwrap();
    assert!(why.contains("sending out of quarantine"), "{why}");
    pipeline.stop().await;
}
