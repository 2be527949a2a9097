//! A signed webhook (Standard Webhooks), and messages for Slack and a Teams workflow.
//!
//! One request per item. It counts as delivered when the receiver answered with a status of success.
//! A resend has the same id (`webhook-id`) and the same body; only the time of the attempt and with it
//! the signature differ. The URL may itself be the secret (Slack, Teams): of it only scheme, host and
//! port are ever shown.

mod body;
mod signature;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::hmac;
use exfilwatch_model::diagnosis::{Cause, Check};
use exfilwatch_model::{Clock, Envelope, Kind};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use secrecy::ExposeSecret;
use url::Url;
use uuid::Uuid;

use self::body::body;
use self::signature::{key, signature};
use crate::contract::{Delivered, EmitError, Emitter, Refusal};
use crate::environment::Environment;
use crate::error::BuildError;
use crate::http_client::{
    Connector, Settings, allowed, bounded, is_loopback, retry_after, unanswered,
};
use crate::options::{WebhookFormat, WebhookOptions};
use crate::progress::{Fate, Progress};

/// Most items and bytes of payload in a batch; each is a request.
const BATCH_MAX: (usize, usize) = (50, 1 << 20);
/// Longest answer read.
const REPLY_BYTES_MAX: usize = 4 << 10;
/// Longest piece of a receiver's words that is shown.
const WORDS_CHARS_MAX: usize = 200;
/// Shorter parts of a URL would be found in any text.
const HIDDEN_BYTES_MIN: usize = 6;
/// Namespace of the ids of items that have none of their own.
const ID_NAMESPACE: Uuid = Uuid::from_u128(0x6d1d_4a57_0c7b_4b0e_9c53_8a5c_21f3_77e0);

/// A webhook; see the module.
pub struct Webhook {
    name: String,
    format: WebhookFormat,
    url: Url,
    /// The part of the URL that is shown.
    place: String,
    key: Option<hmac::Key>,
    http: reqwest::Client,
    clock: Arc<dyn Clock>,
    /// What was taken of batches that failed.
    progress: Progress,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook")
            .field("name", &self.name)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Webhook {
    /// `name` is `webhook.NAME`. Reads the secrets; connects with the first item.
    pub fn new(
        name: &str,
        options: &WebhookOptions,
        environment: &Environment,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BuildError> {
        check(name, options)?;
        let url = url(name, options, environment)?;
        let place = url.origin().ascii_serialization();
        if url.scheme() == "http" && !is_loopback(&url) {
            tracing::warn!(emitter = name, "findings travel unencrypted: use https");
        }
        let key = match &options.secret {
            None => None,
            Some(source) => {
                let secret = environment.secret(source);
                let secret = secret.map_err(|source| BuildError::Secret {
                    emitter: name.to_owned(),
                    member: "secret",
                    source,
                })?;
                Some(key(&secret).map_err(|why| BuildError::option(name, "secret", &why))?)
            }
        };
        let settings = Settings {
            connect_timeout: Duration::from_secs(options.connect_timeout_seconds),
            request_timeout: Duration::from_secs(options.request_timeout_seconds),
            trust: options.trust(),
            proxy: options.proxy.as_ref(),
        };
        Ok(Self {
            name: name.to_owned(),
            format: options.format,
            url,
            place,
            key,
            http: Connector::new(name, &settings)?.client(None)?,
            clock,
            progress: Progress::default(),
        })
    }

    /// Sends one item. `Ok(Some(…))` is a refusal for good.
    async fn send(&self, envelope: &Envelope) -> Result<Option<String>, EmitError> {
        let body = match body(envelope, self.format) {
            Ok(body) => body,
            Err(error) => return Ok(Some(format!("not the JSON it should be: {error}"))),
        };
        let headers = self.headers(&id(envelope), &body);
        let request = self.http.post(self.url.clone()).headers(headers).body(body);
        let response = request.send().await.map_err(|error| self.failed(error))?;
        let wait = retry_after(response.headers(), self.clock.now());
        let status = response.status().as_u16();
        if (200..300).contains(&status) {
            return Ok(None);
        }
        let said = bounded(response, REPLY_BYTES_MAX).await.unwrap_or_default();
        let what = format!(
            "POST {}: status {status}{}",
            self.place,
            words(&said, &self.url)
        );
        match verdict(status) {
            Verdict::Refused => Ok(Some(what)),
            Verdict::Again => Err(EmitError::Retry { what, after: wait }),
            Verdict::Held(help) => Err(EmitError::Hold {
                what,
                help: help.to_owned(),
            }),
        }
    }

    fn headers(&self, id: &str, body: &[u8]) -> HeaderMap {
        let timestamp = self.clock.now().timestamp();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut add = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        add("webhook-id", id.to_owned());
        add("webhook-timestamp", timestamp.to_string());
        if let Some(key) = &self.key {
            add("webhook-signature", signature(key, id, timestamp, body));
        }
        headers
    }

    /// A request without an answer. The error names the URL, which may be a secret.
    fn failed(&self, error: reqwest::Error) -> EmitError {
        unanswered(&format!("POST {}", self.place), &error.without_url())
    }
}

#[async_trait]
impl Emitter for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    fn batch_max(&self) -> (usize, usize) {
        BATCH_MAX
    }

    async fn emit(&self, batch: &[Envelope]) -> Result<Delivered, EmitError> {
        let recalled = self.progress.recall(batch, batch.len());
        let mut fates = recalled.unwrap_or_else(|| vec![Fate::Open; batch.len()]);
        let mut delivered = Delivered::default();
        for (index, (envelope, fate)) in batch.iter().zip(fates.iter_mut()).enumerate() {
            if *fate == Fate::Taken {
                continue;
            }
            match self.send(envelope).await {
                Ok(None) => *fate = Fate::Taken,
                Ok(Some(reason)) => delivered.refused.push(Refusal { index, reason }),
                Err(error) => {
                    // A refusal before this one is told when the batch is sent again.
                    self.progress.keep(batch, fates);
                    return Err(error);
                }
            }
        }
        Ok(delivered)
    }

    /// Asks for the head only, which delivers nothing anywhere.
    async fn diagnose(&self) -> Vec<Check> {
        const CHECK: &str = "receiver_webhook";
        let asked = self.http.request(Method::HEAD, self.url.clone());
        vec![match asked.send().await {
            Ok(answer) => Check::ok(
                CHECK,
                format!(
                    "{} answers (HEAD: status {}); whether it takes findings only one shows",
                    self.place,
                    answer.status().as_u16()
                ),
            ),
            Err(error) => Check::failed(
                CHECK,
                Cause::ReceiverUnreachable,
                self.failed(error).to_string(),
            ),
        }]
    }
}

/// What a status that is no success asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Send again later.
    Again,
    /// This item will never be taken.
    Refused,
    /// Nothing will be taken until somebody does this.
    Held(&'static str),
}

fn verdict(status: u16) -> Verdict {
    match status {
        400 | 413 | 415 | 422 => Verdict::Refused,
        300..400 => Verdict::Held("redirects are not followed: set url to where it leads"),
        401 | 403 => Verdict::Held("check the URL and the secret at the receiver"),
        404 | 405 | 410 => Verdict::Held("the receiver no longer has this webhook: make a new one"),
        408 | 425 | 429 | 500.. => Verdict::Again,
        _ => Verdict::Held("look at the receiver's log"),
    }
}

/// The same for every attempt at the same item, and without a dot: the signature joins by dots.
fn id(envelope: &Envelope) -> String {
    let mut name = format!("{}\0{}\0", envelope.stream, envelope.id).into_bytes();
    name.extend_from_slice(&envelope.payload);
    format!("msg_{}", Uuid::new_v5(&ID_NAMESPACE, &name).simple())
}

/// What the receiver said, on one line; without the path it was asked by, should it repeat that.
fn words(body: &[u8], url: &Url) -> String {
    let mut text = String::from_utf8_lossy(body).into_owned();
    for part in [Some(url.path()), url.query()].into_iter().flatten() {
        if part.len() >= HIDDEN_BYTES_MIN {
            text = text.replace(part, "[url]");
        }
    }
    // A page may repeat parts of it, written in another way.
    let mut parts: Vec<String> = url
        .path_segments()
        .into_iter()
        .flatten()
        .map(str::to_owned)
        .collect();
    let query = url
        .query()
        .into_iter()
        .flat_map(|query| query.split(['&', '=']));
    parts.extend(query.map(str::to_owned));
    parts.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
    parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
    for part in parts.iter().filter(|part| part.len() >= HIDDEN_BYTES_MIN) {
        text = text.replace(part.as_str(), "[url]");
    }
    let shown: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(WORDS_CHARS_MAX)
        .collect();
    if shown.is_empty() {
        shown
    } else {
        format!(" ({shown})")
    }
}

/// What is wrong with the options by themselves.
pub(crate) fn check(name: &str, options: &WebhookOptions) -> Result<(), BuildError> {
    let wrong = |member: &str, reason: &str| Err(BuildError::option(name, member, &reason));
    match (&options.url, &options.url_secret) {
        (Some(url), None) => {
            allowed(url).map_err(|why| BuildError::option(name, "url", &why))?;
        }
        (None, Some(_)) => {}
        (Some(_), Some(_)) | (None, None) => {
            return wrong(
                "url",
                "write url, or url_secret where the URL is itself a secret",
            );
        }
    }
    let is_standard = options.format == WebhookFormat::Standard;
    if is_standard && options.secret.is_none() {
        return wrong(
            "secret",
            "format = \"standard\" signs what it sends: name a secret",
        );
    }
    let others = |kind: &Kind| matches!(kind, Kind::Events | Kind::Internal);
    if !is_standard && options.send.iter().any(others) {
        return wrong(
            "send",
            "Slack and Teams take findings and signals; for others use format = \"standard\"",
        );
    }
    options.trust().check(name)
}

/// The configured URL, which may stand in a secret.
fn url(name: &str, options: &WebhookOptions, environment: &Environment) -> Result<Url, BuildError> {
    let Some(source) = &options.url_secret else {
        let missing = || BuildError::option(name, "url", &"it is missing");
        return options.url.clone().ok_or_else(missing);
    };
    let text = environment.secret(source);
    let text = text.map_err(|source| BuildError::Secret {
        emitter: name.to_owned(),
        member: "url_secret",
        source,
    })?;
    // The parser's words do not quote the text.
    let unusable = |why: &dyn std::fmt::Display| BuildError::option(name, "url_secret", why);
    let url = Url::parse(text.expose_secret()).map_err(|error| unusable(&error))?;
    allowed(&url).map_err(|why| unusable(&why))?;
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_verdict() {
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            assert_eq!(verdict(status), Verdict::Again, "{status}");
        }
        for status in [400, 413, 415, 422] {
            assert_eq!(verdict(status), Verdict::Refused, "{status}");
        }
        for status in [301, 307, 401, 402, 403, 404, 405, 410, 451] {
            assert!(matches!(verdict(status), Verdict::Held(_)), "{status}");
        }
    }
}
