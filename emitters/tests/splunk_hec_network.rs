//! Splunk HEC through TLS and through a proxy.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::collector::Collector;
use common::hec::{batch, emitter_with, options};
use common::tls::{Front, Setup};
use exfilwatch_emitters::{EmitError, Emitter};

#[tokio::test]
async fn tls_trusts_the_given_authority_and_no_other_name() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::scripted(vec![]).await;
    let front = Front::start(&collector, folder.path(), &Setup::default()).await;
    let mut trusted = options(&format!("https://localhost:{}", front.port));
    trusted.ca_file = Some(front.ca_file.clone());
    emitter_with(&trusted).emit(&batch(&["a"])).await.unwrap();
    assert_eq!(collector.calls().len(), 1);

    let mut unknown = trusted.clone();
    unknown.ca_file = None;
    let mut wrong_name = options(&format!("https://127.0.0.1:{}", front.port));
    wrong_name.ca_file = Some(front.ca_file.clone());
    for (name, options) in [("unknown authority", unknown), ("wrong name", wrong_name)] {
        let error = emitter_with(&options)
            .emit(&batch(&["b"]))
            .await
            .unwrap_err();
        let said = matches!(&error, EmitError::Hold { help, .. } if help.contains("ca_file"));
        assert!(said, "{name}: {error:?}");
    }
    assert_eq!(collector.calls().len(), 1);
}

#[tokio::test]
async fn a_proxy_gets_the_calls_and_resolves_the_name() {
    let proxy = Collector::scripted(vec![]).await;
    let mut options = options("http://hec.invalid:8088");
    options.proxy = Some(proxy.url.parse().unwrap());
    emitter_with(&options).emit(&batch(&["a"])).await.unwrap();
    let calls = proxy.calls();
    assert_eq!(
        calls[0].path,
        "http://hec.invalid:8088/services/collector/event"
    );
}
