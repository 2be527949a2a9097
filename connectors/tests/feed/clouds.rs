//! The four clouds: hosts, audiences, and the URLs to the letter.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use exfilwatch_connectors::kernel::transport::{BodyStream, Transport, TransportError};
use exfilwatch_connectors::microsoft::Office365;
use exfilwatch_connectors::microsoft::cloud::{CLOUDS, graph_root, hosts};
use exfilwatch_connectors::options::{Cloud, Office365Options};
use exfilwatch_connectors::records::microsoft::Microsoft365Records;
use exfilwatch_model::Domains;
use futures::StreamExt;
use tower::ServiceExt;

use crate::scene::{help, kind, minutes, now, options, publish, seen, stage};
use crate::support::Stage;

/// The simulator behind every host there is.
#[derive(Debug)]
struct Internet {
    router: Router,
    asked: Mutex<Vec<(String, String)>>,
}

#[async_trait]
impl Transport for Internet {
    async fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<BodyStream>, TransportError> {
        let body = String::from_utf8_lossy(request.body()).into_owned();
        let asked = (request.uri().to_string(), body);
        self.asked.lock().unwrap().push(asked);
        let request = request.map(Body::from);
        let response = self.router.clone().oneshot(request).await.unwrap();
        Ok(response.map(|body| {
            let pieces = body.into_data_stream();
            let text = |error: axum::Error| TransportError(error.to_string());
            pieces.map(move |piece| piece.map_err(text)).boxed()
        }))
    }
}

/// The simulated service as that of a cloud, at the cloud's own addresses.
fn cloud_stage(cloud: Cloud, page_items: usize) -> (Stage, Arc<Internet>) {
    let mut stage = stage(|options| {
        options.microsoft.roots = vec![hosts(cloud).api.to_owned()];
        options.microsoft.page_items = page_items;
        options.microsoft.subscribed = false;
    });
    let internet = Arc::new(Internet {
        router: stage.simulator.microsoft_router(),
        asked: Mutex::default(),
    });
    stage.surroundings.transport = Some(internet.clone());
    (stage, internet)
}

fn own_hosts(stage: &Stage, cloud: Cloud) -> Office365Options {
    Office365Options {
        cloud: Some(cloud),
        api_root: None,
        login_root: None,
        ..options(stage)
    }
}

#[tokio::test(start_paused = true)]
async fn cloud_matrix() {
    for tenants_own in CLOUDS {
        for configured in CLOUDS {
            let (stage, internet) = cloud_stage(tenants_own, 100);
            let mut caller = stage.office365(own_hosts(&stage, configured));
            caller.start(now() - minutes(60));
            publish(&stage, "1$a", now() - minutes(20), &["a"]);
            caller.poll().await;
            let own = hosts(configured);
            for (url, _) in internet.asked.lock().unwrap().iter() {
                let path = url.strip_prefix(own.api).or(url.strip_prefix(own.login));
                assert!(path.is_some_and(|path| path.starts_with('/')), "{url}");
            }
            if tenants_own == configured {
                assert!(
                    caller.errors.is_empty(),
                    "{configured:?} {:?}",
                    caller.errors
                );
                assert_eq!(seen(&caller, &["a"]), [1], "{configured:?}");
            } else {
                let (_, error) = &caller.errors[0];
                assert_eq!(kind(error), "auth", "{tenants_own:?} {configured:?}");
                assert!(error.to_string().contains("AADSTS900382"), "{error}");
                assert!(help(error).contains("set cloud"));
            }
        }
    }
    let graph: Vec<&str> = CLOUDS.into_iter().map(graph_root).collect();
    assert_eq!(
        graph,
        [
            "https://graph.microsoft.com",
            "https://graph.microsoft.com",
            "https://graph.microsoft.us",
            "https://dod-graph.microsoft.us",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn url_golden() {
    for (cloud, api, login) in [
        (
            Cloud::Commercial,
            "https://manage.office.com",
            "https://login.microsoftonline.com",
        ),
        (
            Cloud::Gcc,
            "https://manage-gcc.office.com",
            "https://login.microsoftonline.com",
        ),
        (
            Cloud::GccHigh,
            "https://manage.office365.us",
            "https://login.microsoftonline.us",
        ),
        (
            Cloud::Dod,
            "https://manage.protection.apps.mil",
            "https://login.microsoftonline.us",
        ),
    ] {
        let (stage, internet) = cloud_stage(cloud, 1);
        let options = own_hosts(&stage, cloud);
        let tenant = options.tenant_id.clone().unwrap();
        let client_id = options.client_id.clone().unwrap();
        let mut caller = stage.office365(options);
        caller.start(now() - minutes(2));
        publish(&stage, "1$a", now() - minutes(3), &["a"]);
        publish(&stage, "2$b", now() - minutes(2), &["b"]);
        caller.poll().await;
        assert_eq!(seen(&caller, &["a", "b"]), [1, 1]);
        let publisher = format!("PublisherIdentifier={tenant}");
        let feed = format!("{api}/api/v1.0/{tenant}/activity/feed");
        let window =
            "contentType=Audit.General&startTime=2026-03-04T05:50:00&endTime=2026-03-04T05:59:00";
        let expected = [
            format!("{login}/{tenant}/oauth2/v2.0/token"),
            format!("{feed}/subscriptions/list?{publisher}"),
            format!("{feed}/subscriptions/start?contentType=Audit.General&{publisher}"),
            format!("{feed}/subscriptions/content?{window}&{publisher}"),
            format!(
                "{api}/api/v1/{tenant}/activity/feed/subscriptions/content?{window}&nextPage=201500000001&{publisher}"
            ),
            format!("{feed}/audit/1$a?{publisher}"),
            format!("{feed}/audit/2$b?{publisher}"),
        ];
        let asked = internet.asked.lock().unwrap();
        let urls: Vec<&str> = asked.iter().map(|(url, _)| url.as_str()).collect();
        assert_eq!(urls, expected, "{cloud:?}");
        assert!(urls.iter().all(|url| !url.contains(&client_id)));
        let scope = format!(
            "scope={}",
            url::form_urlencoded::byte_serialize(format!("{api}/.default").as_bytes())
                .collect::<String>()
        );
        assert!(asked[0].1.contains(&scope), "{cloud:?}");
    }
}

#[tokio::test]
async fn config_bad_guid() {
    let stage = stage(|_| ());
    let good = options(&stage);
    let domain = || Some("contoso.example".to_owned());
    for (bad, key) in [
        (
            Office365Options {
                tenant_id: domain(),
                ..good.clone()
            },
            "tenant_id",
        ),
        (
            Office365Options {
                client_id: domain(),
                ..good.clone()
            },
            "client_id",
        ),
        (
            Office365Options {
                publisher_identifier: domain(),
                ..good.clone()
            },
            "publisher_identifier",
        ),
    ] {
        let reader = Arc::new(Microsoft365Records::new(Arc::new(Domains::new::<&str>(
            &[],
            &[],
        ))));
        let built = Office365::new(&bad, reader, &stage.surroundings);
        let error = built.expect_err(key).to_string();
        assert!(error.contains(key) && error.contains("GUID"), "{error}");
    }
    assert!(stage.transport.asked.lock().unwrap().is_empty());
}
