//! The simulator as a whole: routers to call in process, and servers on loopback.
//!
//! Every router is wrapped alike: the fault script first, then the virtual clock's Date. Over
//! loopback a cut connection is really cut; in process its body fails.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use chrono::{DateTime, Utc};
use http::HeaderValue;
use http::header::{DATE, HOST};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::clock::VirtualClock;
use crate::credentials::Credentials;
use crate::fault::{self, FaultInjector, FaultScript};
use crate::google::{Google, GoogleOptions};
use crate::hec::{Hec, HecOptions};
use crate::microsoft::{Microsoft, MicrosoftOptions};
use crate::reply::{self, CutConnection};
use crate::sheet::Sheet;
use crate::syslog::{Syslog, SyslogAddresses};
use crate::tls::Tls;
use crate::world::World;

/// Why a simulator could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulatorError {
    /// A port could not be had.
    #[error("listen on loopback for {1}")]
    Bind(#[source] io::Error, &'static str),
    /// A key or certificate could not be made.
    #[error("make keys and certificates")]
    Certificate(#[from] rcgen::Error),
    /// TLS could not be set up.
    #[error("set up TLS")]
    Tls(#[from] rustls::Error),
}

/// Everything but the world itself.
#[derive(Debug, Clone, Default)]
pub struct SimulatorOptions {
    /// Virtual time at the start; the world's end where it is not given.
    pub start: Option<DateTime<Utc>>,
    /// Virtual seconds per real second; 0 stands for a stopped clock.
    pub rate: f64,
    /// Habits of Microsoft.
    pub microsoft: MicrosoftOptions,
    /// Habits of Google.
    pub google: GoogleOptions,
    /// Set-up of the collector.
    pub hec: HecOptions,
    /// The fault script.
    pub faults: FaultScript,
    /// Ports for Microsoft, Google and HEC; 0 takes any.
    pub ports: [u16; 3],
    /// Whether these three are served over TLS.
    pub https: bool,
    /// Credentials of an earlier simulator, so that a client need not be told new ones; fresh ones
    /// where none are given.
    pub credentials: Option<Credentials>,
}

/// The simulated services, not yet listening.
#[derive(Debug, Clone)]
pub struct Simulator {
    world: Arc<World>,
    clock: VirtualClock,
    credentials: Credentials,
    microsoft: Microsoft,
    google: Google,
    hec: Hec,
    syslog: Syslog,
    faults: FaultInjector,
    ports: [u16; 3],
    https: bool,
}

impl Simulator {
    /// Services for a world. Keys and secrets are made here, unless the options bring them.
    pub fn new(world: World, options: SimulatorOptions) -> Result<Self, SimulatorError> {
        let start = options.start.unwrap_or(world.options().until);
        let clock = if options.rate > 0.0 {
            VirtualClock::running(start, options.rate)
        } else {
            VirtualClock::stopped(start)
        };
        let world = Arc::new(world);
        let credentials = match options.credentials {
            Some(credentials) => credentials,
            None => Credentials::generate()?,
        };
        let app = credentials.microsoft.clone();
        let microsoft = Microsoft::new(world.clone(), clock.clone(), options.microsoft, app);
        let app = credentials.google.clone();
        let google = Google::new(world.clone(), clock.clone(), options.google, app);
        let hec = Hec::new(options.hec, credentials.hec_token.clone());
        let faults = FaultInjector::new(options.faults, clock.clone());
        let (syslog, ports) = (Syslog::default(), options.ports);
        Ok(Self {
            world,
            clock,
            credentials,
            microsoft,
            google,
            hec,
            syslog,
            faults,
            ports,
            https: options.https,
        })
    }

    /// The routes of Microsoft (login and Management Activity API).
    pub fn microsoft_router(&self) -> Router {
        self.wrap(self.microsoft.router())
    }

    /// The routes of Google (token endpoint and Reports API).
    pub fn google_router(&self) -> Router {
        self.wrap(self.google.router())
    }

    /// The routes of the HTTP event collector.
    pub fn hec_router(&self) -> Router {
        self.wrap(self.hec.router())
    }

    fn wrap(&self, router: Router) -> Router {
        let (faults, clock) = (self.faults.clone(), self.clock.clone());
        router
            .layer(middleware::from_fn(move |request: Request, next: Next| {
                fault::apply(faults.clone(), request, next)
            }))
            .layer(middleware::from_fn(move |request: Request, next: Next| {
                stamp(clock.clone(), request, next)
            }))
    }

    /// The world.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The answer sheet.
    pub fn sheet(&self) -> &Sheet {
        self.world.sheet()
    }

    /// The clock all services run by.
    pub fn clock(&self) -> &VirtualClock {
        &self.clock
    }

    /// The credentials a client needs.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Microsoft, to change what an administrator could.
    pub fn microsoft(&self) -> &Microsoft {
        &self.microsoft
    }

    /// Google, to change what an administrator could.
    pub fn google(&self) -> &Google {
        &self.google
    }

    /// The collector, and what it indexed.
    pub fn hec(&self) -> &Hec {
        &self.hec
    }

    /// The syslog receiver, and what it got.
    pub fn syslog(&self) -> &Syslog {
        &self.syslog
    }

    /// The fault script at work: replace it, ask for call counts.
    pub fn faults(&self) -> &FaultInjector {
        &self.faults
    }

    /// Listens on 127.0.0.1 until [`Running::shutdown`] is called or the value is dropped.
    pub async fn start(self) -> Result<Running, SimulatorError> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let services = [
            ("Microsoft", self.microsoft_router()),
            ("Google", self.google_router()),
            ("HEC", self.hec_router()),
        ];
        let tls = Tls::generate()?;
        let acceptor = self.https.then(|| tls.acceptor.clone());
        let scheme = if self.https { "https" } else { "http" };
        let mut urls = Vec::new();
        for ((name, router), port) in services.into_iter().zip(self.ports) {
            let service = Service {
                name,
                router,
                tls: acceptor.clone(),
            };
            let address = serve(service, port, (&tasks, &stop)).await?;
            urls.push(format!("{scheme}://{address}"));
        }
        let mut urls = urls.into_iter();
        let mut url = || urls.next().unwrap_or_default();
        let (microsoft_url, google_url, hec_url) = (url(), url(), url());
        let ca_pem = tls.ca_pem.clone();
        let syslog = self.syslog.serve(tls, &tasks, &stop).await?;
        let guard = stop.drop_guard();
        Ok(Running {
            simulator: self,
            microsoft_url,
            google_url,
            hec_url,
            ca_pem,
            syslog,
            tasks,
            guard,
        })
    }
}

/// A simulator that listens on loopback.
#[derive(Debug)]
pub struct Running {
    /// The services behind the addresses.
    pub simulator: Simulator,
    /// Origin of Microsoft's login and API, without a last slash.
    pub microsoft_url: String,
    /// Origin of Google's token endpoint (`/token`) and API.
    pub google_url: String,
    /// Origin of the collector.
    pub hec_url: String,
    /// The authority that signed the certificate of whatever is served over TLS, PEM.
    pub ca_pem: String,
    /// Where syslog is received.
    pub syslog: SyslogAddresses,
    tasks: TaskTracker,
    guard: tokio_util::sync::DropGuard,
}

impl Running {
    /// The key file of the service account, with this server's token endpoint in it.
    pub fn service_account_json(&self) -> String {
        let token_uri = format!("{}/token", self.google_url);
        self.simulator
            .credentials
            .google
            .service_account_json(&token_uri)
    }

    /// Stops all servers and waits until their connections are closed.
    pub async fn shutdown(self) -> Simulator {
        drop(self.guard);
        self.tasks.close();
        self.tasks.wait().await;
        self.simulator
    }
}

/// Adds the host a caller in process may leave out, and the Date of the virtual clock.
async fn stamp(clock: VirtualClock, mut request: Request, next: Next) -> Response {
    let host = request
        .uri()
        .authority()
        .map(|authority| authority.as_str().to_owned());
    if let (false, Some(host)) = (request.headers().contains_key(HOST), host)
        && let Ok(value) = HeaderValue::from_str(&host)
    {
        request.headers_mut().insert(HOST, value);
    }
    let scheme = request.uri().scheme_str().map(str::to_owned);
    if let Some(Ok(scheme)) = scheme.as_deref().map(HeaderValue::from_str) {
        request.headers_mut().insert(reply::FORWARDED_PROTO, scheme);
    }
    let mut response = next.run(request).await;
    let date = clock.now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    if let Ok(value) = HeaderValue::from_str(&date) {
        response.headers_mut().insert(DATE, value);
    }
    response
}

/// A service that listens.
#[derive(Clone)]
struct Service {
    name: &'static str,
    router: Router,
    tls: Option<TlsAcceptor>,
}

async fn serve(
    service: Service,
    port: u16,
    (tasks, stop): (&TaskTracker, &CancellationToken),
) -> Result<SocketAddr, SimulatorError> {
    let bind = |error| SimulatorError::Bind(error, service.name);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(bind)?;
    let address = listener.local_addr().map_err(bind)?;
    let (tracker, stop) = (tasks.clone(), stop.clone());
    tasks.spawn(async move {
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let Ok((stream, _)) = accepted else { continue };
            let (service, stop) = (service.clone(), stop.clone());
            tracker.spawn(async move {
                let name = service.name;
                if let Some(Err(error)) = stop.run_until_cancelled(service.converse(stream)).await {
                    tracing::debug!(%error, service = name, "connection ended");
                }
            });
        }
    });
    Ok(address)
}

impl Service {
    /// Serves one connection to its end.
    async fn converse(self, stream: TcpStream) -> Result<(), Box<dyn Error + Send + Sync>> {
        match &self.tls {
            None => self.answer_all(stream, "http").await?,
            Some(tls) => {
                let stream = tls.accept(stream).await?;
                self.answer_all(stream, "https").await?;
            }
        }
        Ok(())
    }

    async fn answer_all(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        scheme: &'static str,
    ) -> Result<(), hyper::Error> {
        let answer =
            hyper::service::service_fn(move |request| answer(self.router.clone(), request, scheme));
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), answer)
            .await
    }
}

/// Runs the router, which learns the scheme from a header, as behind any TLS gateway. A reply marked
/// as cut becomes an error, which makes hyper drop the connection.
async fn answer(
    router: Router,
    request: hyper::Request<hyper::body::Incoming>,
    scheme: &'static str,
) -> Result<Response, io::Error> {
    let mut request = request.map(axum::body::Body::new);
    request
        .headers_mut()
        .insert(reply::FORWARDED_PROTO, HeaderValue::from_static(scheme));
    let response: Result<Response, Infallible> = router.oneshot(request).await;
    match response {
        Ok(response) if response.extensions().get::<CutConnection>().is_some() => Err(
            io::Error::new(io::ErrorKind::ConnectionReset, "cut by the script"),
        ),
        Ok(response) => Ok(response),
        Err(never) => match never {},
    }
}
