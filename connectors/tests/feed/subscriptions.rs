//! Subscriptions: looked at first, started seldom, and what is said meanwhile.

use chrono::TimeDelta;
use exfilwatch_simulator::{Endpoint, Fault, FaultRule, SimulatorOptions};

use crate::scene::{
    TYPE, caller, calls, held, help, kind, minutes, no_fault, now, options, publish, script, seen,
    stage, stream, waits_for,
};
use crate::support::{Caller, Stage};

fn unsubscribed(options: &mut SimulatorOptions) {
    options.microsoft.subscribed = false;
}

fn starts(stage: &Stage) -> u64 {
    stage.simulator.microsoft().start_calls("contoso", TYPE)
}

/// Another process with the same store.
fn restarted(stage: &Stage, before: Caller) -> Caller {
    let mut caller = stage.office365(options(stage));
    caller.cursors = before.cursors;
    caller.open = before.open;
    caller.done = before.done;
    caller.gaps = before.gaps;
    caller.seen = before.seen;
    caller
}

#[tokio::test(start_paused = true)]
async fn fresh_subscription_reports_waiting() {
    let stage = stage(|options| {
        unsubscribed(options);
        options.microsoft.content_before_subscription = false;
        options.microsoft.first_content_after_seconds = 6 * 3_600;
    });
    let mut caller = caller(&stage);
    publish(&stage, "1$a", now() + minutes(400), &["a"]);
    caller.poll().await;
    let said = waits_for(&caller).expect("it waits");
    assert!(
        said.contains("12 hours") && said.contains("2026-03-04 06:00"),
        "{said}"
    );
    // The restart knows it, too; no content for half a day is worth another sentence.
    let mut caller = restarted(&stage, caller);
    stage.pass(minutes(300)).await;
    caller.poll().await;
    assert!(waits_for(&caller).is_some() && caller.seen.is_empty());
    stage.pass(minutes(200)).await;
    caller.poll().await;
    assert_eq!((waits_for(&caller), seen(&caller, &["a"])), (None, vec![1]));
    stage.pass(minutes(60)).await;
    caller.poll().await;
    assert_eq!(waits_for(&caller), None, "quiet is not new");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_without_any_content_for_half_a_day_says_so() {
    let stage = stage(|options| {
        unsubscribed(options);
        options.microsoft.content_before_subscription = false;
        options.microsoft.first_content_after_seconds = 90 * 86_400;
    });
    let mut caller = caller(&stage);
    caller.poll().await;
    stage.pass(TimeDelta::hours(13)).await;
    caller.poll().await;
    let said = waits_for(&caller).expect("it waits");
    assert!(said.contains("nothing has been published"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn restart_ten_times_one_start_call() {
    let stage = stage(unsubscribed);
    let mut caller = caller(&stage);
    for _ in 0..10 {
        caller.poll().await;
        assert!(caller.errors.is_empty(), "{:?}", caller.errors);
        caller = restarted(&stage, caller);
        stage.pass(minutes(1)).await;
    }
    assert_eq!(starts(&stage), 1);
}

#[tokio::test(start_paused = true)]
async fn restart_ten_times_one_start_call_though_it_was_refused() {
    let stage = stage(unsubscribed);
    let microsoft = stage.simulator.microsoft();
    microsoft.bar_subscription("contoso", TYPE, true);
    let mut caller = caller(&stage);
    for _ in 0..10 {
        caller.poll().await;
        assert!(held(&caller).is_some_and(|why| why.contains("disabled")));
        caller = restarted(&stage, caller);
        stage.pass(minutes(1)).await;
    }
    assert_eq!(starts(&stage), 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_may_have_worked_is_not_repeated() {
    let stage = stage(unsubscribed);
    let rule = FaultRule {
        path_contains: Some("/start".into()),
        ..FaultRule::new(Endpoint::Subscriptions, Fault::ResetAfter)
    };
    script(&stage, vec![rule]);
    let mut caller = caller(&stage);
    caller.poll().await;
    assert_eq!(kind(&caller.errors[0].1), "retry");
    caller.errors.clear();
    caller.poll().await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    assert!(held(&caller).is_none() && starts(&stage) == 1);
}

#[tokio::test(start_paused = true)]
async fn af20022_no_hot_loop() {
    // The content is refused whatever the list of subscriptions says.
    let stage = stage(|_| ());
    let rule = FaultRule::new(Endpoint::ContentList, Fault::activity("AF20022"));
    script(&stage, vec![rule]);
    let mut caller = caller(&stage);
    publish(&stage, "1$a", now() - minutes(20), &["a"]);
    for _ in 0..60 {
        caller.poll().await;
        stage.pass(minutes(1)).await;
    }
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    assert!(held(&caller).is_some_and(|why| why.contains("content is refused")));
    assert!(
        (2..=4).contains(&starts(&stage)),
        "{} starts in an hour",
        starts(&stage)
    );
    let asked = calls(&stage, "/activity/feed/").len();
    assert!(asked <= 60, "{asked} calls in an hour of refusals");
    no_fault(&stage);
    stage.pass(minutes(6)).await;
    caller.poll().await;
    assert_eq!((held(&caller), seen(&caller, &["a"])), (None, vec![1]));
}

#[tokio::test(start_paused = true)]
async fn af20023() {
    let stage = stage(|_| ());
    let microsoft = stage.simulator.microsoft();
    let mut caller = caller(&stage);
    caller.poll().await;
    microsoft.bar_subscription("contoso", TYPE, true);
    stage.pass(minutes(2)).await;
    let barred_at = stage.simulator.clock().now();
    let mut often = 0;
    for minute in 0..360 {
        caller.poll().await;
        let why = held(&caller).expect("held");
        assert!(
            why.contains("disabled") && why.contains("find out who"),
            "{why}"
        );
        if minute == 44 {
            often = starts(&stage);
        }
        stage.pass(minutes(1)).await;
    }
    assert_eq!(often, 3, "one start in a quarter of an hour at first");
    let all = starts(&stage);
    assert!(
        (8..=9).contains(&all),
        "{all} starts in six hours: not hourly"
    );
    assert!(caller.errors.is_empty() && caller.gaps.is_empty());
    // Let go, it comes back by itself, and says what may be missing.
    microsoft.bar_subscription("contoso", TYPE, false);
    stage.pass(minutes(61)).await;
    publish(
        &stage,
        "1$a",
        stage.simulator.clock().now() - minutes(2),
        &["a"],
    );
    caller.poll().await;
    assert_eq!((held(&caller), seen(&caller, &["a"])), (None, vec![1]));
    let [gap] = &caller.gaps[..] else {
        panic!("one gap: {:?}", caller.gaps)
    };
    assert!(gap.window.from() <= barred_at && gap.window.length() > TimeDelta::hours(6));
    assert!(gap.reason.contains("subscription was off"));
}

#[tokio::test(start_paused = true)]
async fn af20023_is_over_at_once_when_somebody_else_turns_it_on() {
    let stage = stage(|_| ());
    let microsoft = stage.simulator.microsoft();
    let mut caller = caller(&stage);
    caller.poll().await;
    microsoft.bar_subscription("contoso", TYPE, true);
    stage.pass(minutes(2)).await;
    caller.poll().await;
    assert!(held(&caller).is_some());
    microsoft.bar_subscription("contoso", TYPE, false);
    stage.pass(minutes(16)).await;
    self::caller(&stage).poll().await;
    let before = starts(&stage);
    stage.pass(minutes(6)).await;
    caller.poll().await;
    assert_eq!((held(&caller), starts(&stage)), (None, before));
    assert_eq!(caller.gaps.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn af20024() {
    // The list leaves out what is enabled; the start says so; the content comes.
    let stage = stage(|_| ());
    let rule = FaultRule {
        path_contains: Some("/list".into()),
        ..FaultRule::new(Endpoint::Subscriptions, crate::scene::status(200, "[]"))
    };
    script(&stage, vec![rule]);
    let mut caller = caller(&stage);
    publish(&stage, "1$a", now() - minutes(20), &["a"]);
    caller.poll().await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    assert_eq!((starts(&stage), seen(&caller, &["a"])), (1, vec![1]));
}

#[tokio::test(start_paused = true)]
async fn the_list_is_looked_at_at_the_start_and_every_six_hours() {
    let stage = stage(|_| ());
    let mut caller = caller(&stage);
    for _ in 0..26 {
        caller.poll().await;
        stage.pass(minutes(30)).await;
    }
    assert_eq!(calls(&stage, "subscriptions/list").len(), 3);
    let mut caller = restarted(&stage, caller);
    caller.poll().await;
    assert_eq!(calls(&stage, "subscriptions/list").len(), 4);
    assert_eq!(calls(&stage, "subscriptions/start").len(), 0);
    assert_eq!(calls(&stage, "subscriptions/stop").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_cannot_be_had_does_not_stop_a_stream_that_flows() {
    let stage = stage(|_| ());
    let mut caller = caller(&stage);
    caller.poll().await;
    let rule = FaultRule::new(Endpoint::Subscriptions, Fault::Outage);
    script(&stage, vec![rule]);
    stage.pass(TimeDelta::hours(7)).await;
    publish(&stage, "1$a", now() + minutes(60), &["a"]);
    caller.poll().await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    assert_eq!(seen(&caller, &["a"]), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_start_without_permission_is_not_repeated_before_its_time() {
    let stage = stage(unsubscribed);
    let rule = FaultRule {
        path_contains: Some("/start".into()),
        ..FaultRule::new(Endpoint::Subscriptions, Fault::activity("AF10001"))
    };
    script(&stage, vec![rule]);
    let mut caller = caller(&stage);
    for _ in 0..10 {
        caller.poll().await;
        stage.pass(minutes(1)).await;
    }
    let why = held(&caller).expect("held");
    assert!(why.contains("AF10001"), "{why}");
    assert!(caller.errors.iter().all(|(_, e)| help(e).is_empty()));
    let asked = calls(&stage, "subscriptions/start").len();
    assert!(asked <= 2, "{asked}: once, and once with a new token");
    assert!(caller.cursors.contains_key(&stream()));
}
