//! Each code of the Management Activity API ends in its decision, and the stream recovers by itself.

use exfilwatch_simulator::microsoft::ROLE_READ;
use exfilwatch_simulator::{Endpoint, Fault};
use futures::StreamExt;

use crate::scene::{
    caller, calls, fault, held, help, kind, minutes, no_fault, now, publish, seen, stage, status,
};

/// A listing is refused with this code; once it is not any more, the next poll goes on.
async fn listing_refused(code: &str, decision: &str, word: &str) {
    let stage = stage(|_| ());
    let mut caller = caller(&stage);
    publish(&stage, "1$a", now() - minutes(20), &["a"]);
    fault(&stage, Endpoint::ContentList, Fault::activity(code));
    caller.poll().await;
    assert_eq!(caller.errors.len(), 1, "{:?}", caller.errors);
    let (_, error) = &caller.errors[0];
    assert_eq!(kind(error), decision, "{error:?}");
    let told = format!("{error} {}", help(error));
    assert!(told.contains(code) && told.contains(word), "{told}");
    // A call that passes is made three times at most, any other once or, as a window, twice.
    assert!(calls(&stage, "subscriptions/content").len() <= 3);
    no_fault(&stage);
    caller.errors.clear();
    stage.pass(minutes(1)).await;
    caller.poll().await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    assert_eq!(seen(&caller, &["a"]), [1]);
}

/// A blob is refused with this code.
async fn blob_refused(code: &str, decision: &str) {
    let stage = stage(|_| ());
    let mut caller = caller(&stage);
    publish(&stage, "1$a", now() - minutes(20), &["a"]);
    caller.list(&crate::scene::stream()).await;
    let item = caller
        .open
        .values()
        .find(|item| item.key == "1$a")
        .unwrap()
        .clone();
    fault(&stage, Endpoint::Blob, Fault::activity(code));
    let Err(error) = caller.connector.fetch(&item).await else {
        panic!("{code} was taken for a success")
    };
    assert_eq!(kind(&error), decision, "{error:?}");
    assert!(error.to_string().contains(code), "{error}");
    no_fault(&stage);
    assert!(caller.connector.fetch(&item).await.is_ok());
}

macro_rules! codes {
    ($call:ident: $(fn $name:ident() = $($argument:literal),+;)*) => {$(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            $call($($argument),+).await;
        }
    )*};
}

codes! { listing_refused:
    fn af10001() = "AF10001", "permission", "ActivityFeed.Read";
    fn af20001() = "AF20001", "hold", "report it";
    fn af20002() = "AF20002", "hold", "report it";
    fn af20010() = "AF20010", "auth", "tenant_id";
    fn af20011() = "AF20011", "auditing", "tenant_id";
    fn af20012() = "AF20012", "auditing", "auditing on";
    fn af20013() = "AF20013", "auth", "GUID";
    fn af20020() = "AF20020", "hold", "content_types";
    fn af20030() = "AF20030", "retry", "";
    fn af20031() = "AF20031", "retry", "nextPage";
    fn af20055() = "AF20055", "retry", "";
    fn af50000() = "AF50000", "retry", "";
    fn af50005() = "AF50005", "retry", "";
    fn af50006() = "AF50006", "retry", "";
    fn tenant_does_not_exist() = "DataServiceException", "auditing", "UnifiedAuditLogIngestionEnabled";
}

codes! { blob_refused:
    fn af20050() = "AF20050", "retry";
    fn af20051() = "AF20051", "gone";
    fn af20052() = "AF20052", "poison";
    fn a_blob_refused_as_malformed_waits_alone() = "AF20001", "retry";
    fn a_blob_with_an_inner_error_is_tried_again() = "AF50000", "retry";
}

#[tokio::test(start_paused = true)]
async fn af429_pauses_with_403_and_with_429_and_is_no_missing_permission() {
    let single = "{'error':{'code':'AF429','message':'Too many requests. Method=GetBlob, \
                  PublisherId=00000000-0000-0000-0000-000000000000'}}";
    for throttled in [status(403, single), status(429, single), status(429, "")] {
        let stage = stage(|_| ());
        let mut caller = caller(&stage);
        publish(&stage, "1$a", now() - minutes(20), &["a"]);
        let rule = exfilwatch_simulator::FaultRule::new(Endpoint::ContentList, throttled);
        crate::scene::script(&stage, vec![rule.calls(1, 4)]);
        caller.poll().await;
        assert!(caller.errors.is_empty(), "{:?}", caller.errors);
        assert_eq!(seen(&caller, &["a"]), [1]);
        assert_eq!(stage.simulator.microsoft().tokens_issued(), 1);
    }
}

/// Row 66: a 401 in whatever shape renews the token once, then holds the stream.
async fn refused_with_401(body: &str) {
    let stage = stage(|_| ());
    let mut caller = caller(&stage);
    fault(&stage, Endpoint::ContentList, status(401, body));
    caller.poll().await;
    let (_, error) = &caller.errors[0];
    assert_eq!(kind(error), "permission", "{error:?}");
    assert!(help(error).contains("admin consent"));
    assert_eq!(stage.simulator.microsoft().tokens_issued(), 2);
    assert_eq!(calls(&stage, "subscriptions/content").len(), 2);
    no_fault(&stage);
    caller.errors.clear();
    caller.poll().await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
}

codes! { refused_with_401:
    fn status_401_message_shape() =
        r#"{"Message":"Authorization has been denied for this request."}"#;
    fn status_401_html() = "<html><body>Unauthorized</body></html>";
    fn status_401_empty() = "";
}

#[tokio::test(start_paused = true)]
async fn html_502_is_told_with_its_status_and_its_first_words_and_passes() {
    let page = format!(
        "<html><h1>502 Bad Gateway</h1>{}</html>",
        "x".repeat(50_000)
    );
    for endpoint in [Endpoint::ContentList, Endpoint::Blob] {
        let stage = stage(|_| ());
        let mut caller = caller(&stage);
        publish(&stage, "1$a", now() - minutes(20), &["a"]);
        fault(&stage, endpoint, status(502, &page));
        caller.poll().await;
        assert_eq!(seen(&caller, &["a"]), [0]);
        // A blob that fails waits by itself; a listing that fails is told.
        let told = caller.errors.iter().map(|(_, error)| {
            assert_eq!(kind(error), "retry", "{error:?}");
            error.to_string()
        });
        for told in told {
            let words = "status 502: <html><h1>502 Bad Gateway";
            assert!(told.contains(words) && told.len() < 500, "{told}");
        }
        assert_eq!(
            caller.errors.len(),
            usize::from(endpoint == Endpoint::ContentList)
        );
        no_fault(&stage);
        caller.errors.clear();
        stage.pass(minutes(5)).await;
        caller.poll().await;
        assert!(caller.errors.is_empty(), "{:?}", caller.errors);
        assert_eq!(seen(&caller, &["a"]), [1]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_token_is_renewed_without_a_word() {
    let stage = stage(|_| ());
    let mut caller = caller(&stage);
    publish(&stage, "1$a", now() - minutes(20), &["a"]);
    let once = exfilwatch_simulator::FaultRule::new(Endpoint::ContentList, status(401, ""));
    crate::scene::script(&stage, vec![once.calls(1, 1)]);
    caller.poll().await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
    assert_eq!(seen(&caller, &["a"]), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_permission_granted_later_is_found_though_the_token_is_older() {
    let stage = stage(|_| ());
    stage.simulator.microsoft().set_roles(&[]);
    let mut caller = caller(&stage);
    caller.poll().await;
    assert_eq!(kind(&caller.errors[0].1), "permission");
    stage.simulator.microsoft().set_roles(&[ROLE_READ]);
    caller.errors.clear();
    stage.pass(minutes(15)).await;
    caller.poll().await;
    assert!(caller.errors.is_empty(), "{:?}", caller.errors);
}

#[tokio::test(start_paused = true)]
async fn dlp_401_others_ok() {
    let stage = stage(|_| ());
    stage.simulator.microsoft().set_roles(&[ROLE_READ]);
    let mut caller = stage.office365(stage.office365_options());
    caller.start(now() - minutes(600));
    caller.poll().await;
    assert_eq!(caller.errors.len(), 1, "{:?}", caller.errors);
    let (stream, error) = &caller.errors[0];
    assert!(stream.ends_with("DLP.All") && kind(error) == "permission");
    assert!(help(error).contains("ActivityFeed.ReadDlp"));
    assert!(caller.seen.len() > 20, "{}", caller.seen.len());
}

#[tokio::test(start_paused = true)]
async fn auditing_off_then_on() {
    let stage = stage(|_| ());
    stage.simulator.microsoft().set_auditing("contoso", false);
    let mut caller = caller(&stage);
    publish(&stage, "1$a", now() - minutes(20), &["a"]);
    caller.poll().await;
    let (_, error) = &caller.errors[0];
    assert!(kind(error) == "auditing" && held(&caller).is_none());
    stage.simulator.microsoft().set_auditing("contoso", true);
    stage.pass(minutes(60)).await;
    caller.errors.clear();
    caller.poll().await;
    assert!(caller.errors.is_empty() && caller.gaps.is_empty());
    assert_eq!(seen(&caller, &["a"]), [1]);
}

#[tokio::test(start_paused = true)]
async fn error_object_instead_of_array() {
    let object = r#"{"error":{"code":"AF20055","message":"Start time and end time must both be specified"}}"#;
    for (body, word) in [
        (object, "AF20055"),
        (r#"{"type":"map"}"#, "not understood"),
        (
            "<!DOCTYPE html><title>Sign in to your account</title>",
            "login page",
        ),
    ] {
        for endpoint in [
            Endpoint::ContentList,
            Endpoint::Blob,
            Endpoint::Subscriptions,
        ] {
            let stage = stage(|_| ());
            let mut caller = caller(&stage);
            publish(&stage, "1$a", now() - minutes(20), &["a"]);
            fault(&stage, endpoint, status(200, body));
            caller.poll().await;
            let told: Vec<String> = caller.errors.iter().map(|(_, e)| e.to_string()).collect();
            let told = told.join(" ");
            if endpoint == Endpoint::Blob {
                assert!(caller.seen.is_empty() && !caller.open.is_empty(), "{body}");
            } else {
                assert!(told.contains(word), "{endpoint:?} {told}");
            }
            let calls = stage.simulator.faults().calls(endpoint);
            assert!(calls <= 60, "{calls} calls of {endpoint:?}: a hot loop");
            no_fault(&stage);
            stage.pass(minutes(2)).await;
            caller.poll().await;
            assert_eq!(seen(&caller, &["a"]), [1], "{endpoint:?} {body}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_blob_that_is_an_error_object_is_what_the_object_says() {
    let object = |code: &str| format!(r#"{{"error":{{"code":"{code}","message":"words"}}}}"#);
    for (body, decision) in [
        (object("AF20051"), "gone"),
        (object("AF20050"), "retry"),
        (object("AF429"), "throttled"),
        ("<html>AF20051</html>".to_owned(), "retry"),
    ] {
        let stage = stage(|_| ());
        publish(&stage, "1$a", now() - minutes(20), &["a"]);
        let mut caller = caller(&stage);
        caller.list(&crate::scene::stream()).await;
        let item = caller.open.values().find(|item| item.key == "1$a");
        let item = item.unwrap().clone();
        fault(&stage, Endpoint::Blob, status(200, &body));
        let mut pages = caller.connector.fetch(&item).await.unwrap();
        let error = pages.next().await.unwrap().unwrap_err();
        assert_eq!(kind(&error), decision, "{body}: {error}");
    }
}
