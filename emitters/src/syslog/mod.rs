//! Syslog by RFC 5424 over UDP, TCP and TLS.
//!
//! TCP and TLS use octet counting (RFC 6587), so no content can start a second line. Syslog has no
//! receipt: a batch counts as delivered when the kernel took it and the receiver had not closed the
//! connection. What was written shortly before a broken connection goes out again on the next one;
//! what a receiver loses in its own crash is lost. UDP confirms nothing at all.

mod link;
mod stream;

use std::time::Duration;

use async_trait::async_trait;
use exfilwatch_model::Envelope;
use tokio::sync::Mutex;
use tokio::time::timeout;

use self::link::Link;
pub(crate) use self::link::host_and_port;

use crate::contract::{Delivered, EmitError, Emitter, Refusal};
use crate::error::BuildError;
use crate::formats::syslog5424::{Header, line};
use crate::options::SyslogOptions;

/// Most lines and bytes of payload in a batch.
const BATCH_MAX: (usize, usize) = (1_000, 1 << 20);

/// A syslog receiver; see the module.
#[derive(Debug)]
pub struct Syslog {
    name: String,
    options: SyslogOptions,
    /// Lines go out one batch after the other.
    link: Mutex<Link>,
}

impl Syslog {
    /// `name` is `syslog.NAME`. Connects with the first batch.
    pub fn new(name: &str, options: &SyslogOptions) -> Result<Self, BuildError> {
        let within = (2_048..=65_000).contains(&options.message_bytes_max);
        if !within {
            let reason = format!(
                "{} is not between 2048 and 65000",
                options.message_bytes_max
            );
            return Err(BuildError::option(name, "message_bytes_max", &reason));
        }
        Ok(Self {
            link: Mutex::new(Link::new(name, options)?),
            name: name.to_owned(),
            options: options.clone(),
        })
    }

    fn header(&self, tenant: &str) -> Header {
        let filled = |text: &str| text.replace("{tenant}", tenant);
        Header {
            facility: self.options.facility.number(),
            hostname: filled(&self.options.hostname),
            app_name: filled(&self.options.app_name),
            bytes_max: self.options.message_bytes_max,
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
        let limit = Duration::from_secs(self.options.write_timeout_seconds);
        let mut link = self.link.lock().await;
        match timeout(limit, link.write(&lines)).await {
            Ok(Ok(())) => Ok(delivered),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                // A line may have gone out in part: the connection cannot be used any further.
                link.close();
                Err(EmitError::Retry {
                    what: format!("{}: nothing taken within {limit:?}", self.options.address),
                    after: None,
                })
            }
        }
    }
}
