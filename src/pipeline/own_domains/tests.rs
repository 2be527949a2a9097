use std::sync::Mutex;

use async_trait::async_trait;
use exfilwatch_connectors::FetchError;
use exfilwatch_emitters::{Delivered, EmitError, Emitter};
use exfilwatch_model::{Envelope, Kind, SystemClock};
use exfilwatch_state::{Options, State};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::pipeline::{Parts, Pipeline, Route};

type Answer = Result<Vec<String>, FetchError>;

/// A vendor that says what it is told to say.
#[derive(Debug)]
struct Vendor(&'static str, Mutex<Answer>);

#[async_trait]
impl OwnDomains for Vendor {
    fn kind(&self) -> &'static str {
        self.0
    }

    async fn own_domains(&self) -> Answer {
        self.1.lock().unwrap().clone()
    }
}

fn vendor(kind: &'static str, answer: Answer) -> Arc<Vendor> {
    Arc::new(Vendor(kind, Mutex::new(answer)))
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn refused() -> FetchError {
    FetchError::Permission {
        what: "list of the tenant's domains: status 403".into(),
        help: "grant Domain.Read.All".into(),
    }
}

#[derive(Debug, Default)]
struct Receiver(Mutex<Vec<String>>);

#[async_trait]
impl Emitter for Receiver {
    fn name(&self) -> &'static str {
        "test.receiver"
    }

    fn batch_max(&self) -> (usize, usize) {
        (100, 1 << 20)
    }

    async fn emit(&self, batch: &[Envelope]) -> Result<Delivered, EmitError> {
        let mut taken = self.0.lock().unwrap();
        let texts = batch
            .iter()
            .map(|item| String::from_utf8_lossy(&item.payload).into_owned());
        taken.extend(texts);
        Ok(Delivered::default())
    }
}

struct House {
    pipeline: Pipeline,
    receiver: Arc<Receiver>,
}

fn house(folder: &std::path::Path) -> House {
    let clock: Arc<dyn exfilwatch_model::Clock> = Arc::new(SystemClock);
    let options = Options {
        sync: false,
        ..Options::default()
    };
    let state = State::open(folder, clock.now(), options).unwrap().state;
    let receiver = Arc::new(Receiver::default());
    let pipeline = Pipeline::start(Parts {
        state,
        routes: vec![Route::all(receiver.clone(), vec![Kind::Internal])],
        clock,
        budget_bytes: 1 << 30,
        shutdown: CancellationToken::new(),
        drain: Duration::from_secs(5),
    })
    .unwrap();
    House { pipeline, receiver }
}

fn domains(house: &House, listed: &[&str], sources: Vec<Arc<dyn OwnDomains>>) -> TenantDomains {
    TenantDomains::restore(
        TenantId::new("contoso").unwrap(),
        Configured {
            listed: listed.iter().map(|name| (*name).to_owned()).collect(),
            ..Configured::default()
        },
        sources,
        &*house.pipeline.shared().store,
    )
    .unwrap()
}

#[tokio::test]
async fn what_was_told_last_is_kept_over_a_restart_while_the_vendor_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let house = house(folder.path());
    let shared = house.pipeline.shared().clone();
    let graph = vendor(
        "office365",
        Ok(names(&["contoso.example", "contoso.onmicrosoft.com"])),
    );
    let own = domains(&house, &[], vec![graph.clone()]);
    assert!(own.unknown() && own.asks());
    assert_eq!(own.ask(&shared).await, []);
    assert!(
        own.live()
            .get()
            .is_internal_domain("contoso.onmicrosoft.com")
    );

    // As a process that starts again, and is refused.
    *graph.1.lock().unwrap() = Err(refused());
    let again = domains(&house, &[], vec![graph.clone()]);
    assert!(again.live().get().is_internal_domain("contoso.example"));
    let unsaid = again.ask(&shared).await;
    assert_eq!(unsaid.len(), 1);
    assert!(
        unsaid[0].why.contains("grant Domain.Read.All"),
        "{unsaid:?}"
    );
    assert!(again.live().get().is_internal_domain("contoso.example"));
    // An empty list is no answer either.
    *graph.1.lock().unwrap() = Ok(names(&[]));
    assert_eq!(again.ask(&shared).await.len(), 1);
    assert!(!again.unknown());
    house.pipeline.stop().await;
}

#[tokio::test]
async fn what_is_listed_stands_and_each_vendor_adds_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let house = house(folder.path());
    let shared = house.pipeline.shared().clone();
    let graph = vendor("office365", Ok(names(&["contoso.onmicrosoft.com"])));
    let google = vendor("google_workspace", Err(refused()));
    let own = domains(&house, &["listed.example"], vec![graph, google.clone()]);
    assert!(!own.unknown());
    own.ask(&shared).await;
    let told = |name: &str| own.live().get().is_internal_domain(name);
    assert!(told("listed.example") && told("contoso.onmicrosoft.com"));
    *google.1.lock().unwrap() = Ok(names(&["contoso.example"]));
    own.ask(&shared).await;
    assert!(told("listed.example") && told("contoso.onmicrosoft.com") && told("contoso.example"));
    house.pipeline.stop().await;
}

#[tokio::test]
async fn a_change_is_told_to_the_receivers_once() {
    let folder = tempfile::tempdir().unwrap();
    let house = house(folder.path());
    let shared = house.pipeline.shared().clone();
    let graph = vendor("office365", Ok(names(&["a.example", "b.example"])));
    let own = domains(&house, &[], vec![graph.clone()]);
    own.ask(&shared).await;
    own.ask(&shared).await;
    *graph.1.lock().unwrap() = Ok(names(&["b.example", "c.example"]));
    own.ask(&shared).await;
    assert!(!own.live().get().is_internal_domain("a.example"));
    let receiver = house.receiver.clone();
    house
        .pipeline
        .finish(Duration::from_secs(10), CancellationToken::new())
        .await
        .unwrap();
    let taken = receiver.0.lock().unwrap().clone();
    let told: Vec<&String> = taken
        .iter()
        .filter(|t| t.contains("collector.domains"))
        .collect();
    assert_eq!(told.len(), 2, "{taken:?}");
    assert!(told[1].contains(r#""added":["c.example"]"#), "{told:?}");
    assert!(told[1].contains(r#""removed":["a.example"]"#), "{told:?}");
}

#[tokio::test]
async fn many_domains_are_kept_in_small_entries_and_fewer_leave_none_behind() {
    let folder = tempfile::tempdir().unwrap();
    let house = house(folder.path());
    let shared = house.pipeline.shared().clone();
    let mut many: Vec<String> = (0..900)
        .map(|n| format!("department-{n:04}.contoso.example"))
        .collect();
    let graph = vendor("office365", Ok(many.clone()));
    domains(&house, &[], vec![graph.clone()]).ask(&shared).await;
    let tenant = TenantId::new("contoso").unwrap();
    let kept = |shared: &Shared| remembered(&*shared.store, &tenant).unwrap();
    assert_eq!(kept(&shared), many);
    many.truncate(3);
    *graph.1.lock().unwrap() = Ok(many.clone());
    domains(&house, &[], vec![graph]).ask(&shared).await;
    assert_eq!(kept(&shared), many);
    // Of another tenant, whose alias begins alike, nothing is known.
    let other = TenantId::new("cont").unwrap();
    assert!(remembered(&*shared.store, &other).unwrap().is_empty());
    house.pipeline.stop().await;
}

#[tokio::test]
async fn who_waits_for_a_domain_goes_on_when_one_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let house = house(folder.path());
    let shared = house.pipeline.shared().clone();
    let graph = vendor("office365", Err(refused()));
    let own = domains(&house, &[], vec![graph.clone()]);
    let waiting = own.clone();
    let waits = tokio::spawn(async move { waiting.known().await });
    own.ask(&shared).await;
    assert!(!waits.is_finished());
    *graph.1.lock().unwrap() = Ok(names(&["contoso.example"]));
    own.ask(&shared).await;
    tokio::time::timeout(Duration::from_secs(10), waits)
        .await
        .unwrap()
        .unwrap();
    house.pipeline.stop().await;
}
