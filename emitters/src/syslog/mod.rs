//! Syslog by RFC 5424 over UDP, TCP, TLS and RELP.
//!
//! TCP and TLS use octet counting (RFC 6587), so no content can start a second line. They have no
//! receipt: a batch counts as delivered when the kernel took it and the receiver had not closed the
//! connection. What was written shortly before a broken connection goes out again on the next one;
//! what a receiver loses in its own crash is lost. UDP confirms nothing at all. RELP confirms every
//! line (`relp`).

mod dial;
mod link;
mod relp;
mod stream;

use std::time::Duration;

use async_trait::async_trait;
use exfilwatch_model::diagnosis::Check;
use exfilwatch_model::{Envelope, Kind};
use tokio::sync::Mutex;
use tokio::time::timeout;

use self::dial::Dialer;
pub(crate) use self::dial::host_and_port;
use self::link::Link;
use self::relp::Relp;

use crate::contract::{Delivered, EmitError, Emitter, Refusal};
use crate::error::BuildError;
use crate::formats::syslog5424::{Header, line};
use crate::options::{SyslogFormat, SyslogOptions, SyslogTransport};

/// Most lines and bytes of payload in a batch.
const BATCH_MAX: (usize, usize) = (1_000, 1 << 20);

/// A syslog receiver; see the module.
#[derive(Debug)]
pub struct Syslog {
    name: String,
    options: SyslogOptions,
    way: Way,
}

/// What is wrong with the options by themselves.
pub(crate) fn check(name: &str, options: &SyslogOptions) -> Result<(), BuildError> {
    if !(2_048..=65_000).contains(&options.message_bytes_max) {
        let reason = format!(
            "{} is not between 2048 and 65000",
            options.message_bytes_max
        );
        return Err(BuildError::option(name, "message_bytes_max", &reason));
    }
    if options.format == SyslogFormat::Cef && options.send.contains(&Kind::Events) {
        let reason = "raw records (\"events\") have no CEF form: send them in an emitter with \
                      format = \"json\"";
        return Err(BuildError::option(name, "format", &reason));
    }
    dial::check(name, options)
}

/// How lines go out; one batch after the other.
#[derive(Debug)]
enum Way {
    /// Nobody confirms them.
    Link(Mutex<Link>),
    /// The receiver confirms each.
    Relp(Relp),
}

impl Syslog {
    /// `name` is `syslog.NAME`. Connects with the first batch.
    pub fn new(name: &str, options: &SyslogOptions) -> Result<Self, BuildError> {
        check(name, options)?;
        let dialer = Dialer::new(name, options)?;
        let limit = Duration::from_secs(options.write_timeout_seconds);
        let way = match options.transport {
            SyslogTransport::Udp => Way::Link(Mutex::new(Link::new(dialer, true))),
            SyslogTransport::Tcp | SyslogTransport::Tls => {
                Way::Link(Mutex::new(Link::new(dialer, false)))
            }
            SyslogTransport::Relp | SyslogTransport::RelpTls => Way::Relp(Relp::new(dialer, limit)),
        };
        Ok(Self {
            name: name.to_owned(),
            options: options.clone(),
            way,
        })
    }

    fn header(&self, tenant: &str) -> Header {
        let filled = |text: &str| text.replace("{tenant}", tenant);
        Header {
            facility: self.options.facility.number(),
            hostname: filled(&self.options.hostname),
            app_name: filled(&self.options.app_name),
            bytes_max: self.options.message_bytes_max,
            message: self.options.format,
        }
    }
}

#[async_trait]
impl Emitter for Syslog {
    fn name(&self) -> &str {
        &self.name
    }

    fn batch_max(&self) -> (usize, usize) {
        BATCH_MAX
    }

    async fn emit(&self, batch: &[Envelope]) -> Result<Delivered, EmitError> {
        let mut lines = Vec::with_capacity(batch.len());
        let mut delivered = Delivered::default();
        for (index, envelope) in batch.iter().enumerate() {
            match line(envelope, &self.header(envelope.stream.tenant().as_str())) {
                Ok(line) => lines.push(line),
                Err(error) => delivered.refused.push(Refusal {
                    index,
                    reason: error.to_string(),
                }),
            }
        }
        match &self.way {
            Way::Link(link) => self.write(link, &lines).await?,
            Way::Relp(relp) => relp.deliver(batch, &lines).await?,
        }
        Ok(delivered)
    }

    async fn diagnose(&self) -> Vec<Check> {
        match &self.way {
            Way::Link(_) => Vec::new(),
            Way::Relp(relp) => vec![relp.diagnose().await],
        }
    }
}

impl Syslog {
    async fn write(&self, link: &Mutex<Link>, lines: &[String]) -> Result<(), EmitError> {
        let limit = Duration::from_secs(self.options.write_timeout_seconds);
        let mut link = link.lock().await;
        let written = timeout(limit, link.write(lines)).await;
        written.unwrap_or_else(|_| {
            // A line may have gone out in part: the connection cannot be used any further.
            link.close();
            Err(EmitError::Retry {
                what: format!("{}: nothing taken within {limit:?}", self.options.address),
                after: None,
            })
        })
    }
}
