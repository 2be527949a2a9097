//! The bridge between the oauth2 crate and our wire, and what both vendors' token endpoints share.
//!
//! Answers are read leniently (`expires_in` comes as number and as text). What a token endpoint
//! sent is never shown when it was a success or could not be understood: it might be a token.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::TimeDelta;
use http::{Request, StatusCode};
use oauth2::basic::{
    BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse,
    BasicTokenType,
};
use oauth2::{
    AccessToken, HttpRequest, HttpResponse, RefreshToken, RequestTokenError, Scope,
    StandardRevocableToken, TokenResponse,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize};

use super::auth::Token;
use super::body::{Body, SMALL_BODY_BYTES_MAX};
use super::retry::retry_after;
use super::wire::Wire;
use super::words::shown_bytes;
use crate::FetchError;

/// Longest life of a token that is believed, in seconds.
const LIFE_SECONDS_MAX: u64 = 24 * 3_600;
/// Life where the endpoint names none, in seconds.
const LIFE_SECONDS_DEFAULT: u64 = 3_600;

/// An oauth2 client that reads [`TokenAnswer`]s.
pub type OauthClient = oauth2::Client<
    BasicErrorResponse,
    TokenAnswer,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
>;

/// The error of a token request.
pub type TokenError = RequestTokenError<ExchangeError, BasicErrorResponse>;

/// A token endpoint's success.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenAnswer {
    access_token: AccessToken,
    #[serde(skip, default = "bearer")]
    token_type: BasicTokenType,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<RefreshToken>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

fn bearer() -> BasicTokenType {
    BasicTokenType::Bearer
}

/// Version 1 of Microsoft's endpoint writes the number as text.
fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
    }
    Ok(match Option::<Either>::deserialize(from)? {
        Some(Either::Number(seconds)) => Some(seconds),
        Some(Either::Text(text)) => text.trim().parse().ok(),
        None => None,
    })
}

impl TokenResponse for TokenAnswer {
    type TokenType = BasicTokenType;

    fn access_token(&self) -> &AccessToken {
        &self.access_token
    }
    fn token_type(&self) -> &BasicTokenType {
        &self.token_type
    }
    fn expires_in(&self) -> Option<Duration> {
        self.expires_in.map(Duration::from_secs)
    }
    fn refresh_token(&self) -> Option<&RefreshToken> {
        self.refresh_token.as_ref()
    }
    fn scopes(&self) -> Option<&Vec<Scope>> {
        None
    }
}

impl TokenAnswer {
    /// The token, ending by the wire's clock.
    pub fn into_token(self, wire: &Wire) -> Token {
        let life = self.expires_in.unwrap_or(LIFE_SECONDS_DEFAULT);
        let life = i64::try_from(life.min(LIFE_SECONDS_MAX)).unwrap_or(0);
        Token {
            value: SecretString::from(self.access_token.into_secret()),
            ends_at: wire.now() + TimeDelta::seconds(life),
            scope: self.scope,
        }
    }
}

/// A token request that brought no OAuth answer. All of these pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct ExchangeError {
    what: String,
    after: Option<Duration>,
}

/// Members of a token request's form that nobody may see.
const SECRET_MEMBERS: [&str; 6] = [
    "client_secret",
    "client_assertion",
    "assertion",
    "refresh_token",
    "code",
    "code_verifier",
];
/// Shorter ones would be found in any text.
const HIDDEN_BYTES_MIN: usize = 6;

/// The secrets of a form that was sent, in each spelling in which an endpoint (or a proxy before it)
/// may repeat them.
struct Sent(Vec<SecretString>);

impl Sent {
    fn of(form: &[u8]) -> Self {
        let mut spellings = Vec::new();
        for (_, value) in url::form_urlencoded::parse(form)
            .filter(|(name, _)| SECRET_MEMBERS.contains(&name.as_ref()))
            .filter(|(_, value)| value.len() >= HIDDEN_BYTES_MIN)
        {
            let coded: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
            let quoted = serde_json::Value::from(value.as_ref()).to_string();
            let quoted = quoted.trim_matches('"').to_owned();
            let slashed = quoted.replace('/', "\\/");
            let plain = value.into_owned();
            spellings.extend([plain, coded, quoted, slashed].map(SecretString::from));
        }
        Self(spellings)
    }

    /// The text without any of them.
    fn hidden_in(&self, body: &Bytes) -> Bytes {
        if self.0.is_empty() {
            return body.clone();
        }
        let mut text = String::from_utf8_lossy(body).into_owned();
        for secret in &self.0 {
            text = text.replace(secret.expose_secret(), "[secret]");
        }
        text.into()
    }
}

/// Sends one token request. Throttling, server errors and pages of proxies end here, before the
/// oauth2 crate tries to read them.
pub async fn exchange(
    wire: Arc<Wire>,
    request: HttpRequest,
) -> Result<HttpResponse, ExchangeError> {
    let lost = |what: String| ExchangeError { what, after: None };
    let sent = Sent::of(request.body());
    let response = wire
        .send(request.map(Bytes::from))
        .await
        .map_err(|e| lost(e.0))?;
    let status = response.status();
    let headers = response.headers().clone();
    let body = match Body::new(response, SMALL_BODY_BYTES_MAX) {
        Ok(body) => body.read_all().await,
        Err(error) => Err(error),
    }
    .map_err(|e| lost(e.to_string()))?;
    // Only what is no success is ever shown.
    let body = if status.is_success() {
        body
    } else {
        sent.hidden_in(&body)
    };
    if status == StatusCode::TOO_MANY_REQUESTS || !(status.is_success() || status.is_client_error())
    {
        return Err(ExchangeError {
            what: format!("status {}: {}", status.as_u16(), shown_bytes(&body)),
            after: retry_after(&headers, wire.now()),
        });
    }
    if !status.is_success() && body.trim_ascii_start().first() != Some(&b'{') {
        return Err(lost(format!(
            "status {}: {}",
            status.as_u16(),
            shown_bytes(&body)
        )));
    }
    let mut answer = http::Response::builder().status(status);
    if let Some(kept) = answer.headers_mut() {
        *kept = headers;
    }
    answer.body(body.to_vec()).map_err(|e| lost(e.to_string()))
}

/// Sends a form to a token endpoint; for grants the oauth2 crate does not know.
pub async fn post_form(
    wire: &Arc<Wire>,
    token_uri: &str,
    form: &[(&str, &str)],
) -> Result<TokenAnswer, TokenError> {
    let body = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish();
    let request = Request::post(token_uri)
        .header(http::header::ACCEPT, "application/json")
        .header(
            http::header::CONTENT_TYPE,
            "application/x-www-form-urlencoded",
        )
        .body(body.into_bytes())
        .map_err(|e| RequestTokenError::Other(e.to_string()))?;
    let response = exchange(wire.clone(), request).await?;
    if response.status().is_success() {
        serde_json::from_slice(response.body())
            .map_err(|_| RequestTokenError::Other("the answer holds no token".to_owned()))
    } else {
        Err(serde_json::from_slice(response.body()).map_or_else(
            |_| RequestTokenError::Other("the answer was not understood".to_owned()),
            RequestTokenError::ServerResponse,
        ))
    }
}

/// What a failed token request means. `refused` reads the vendor's error code and its words.
pub fn understood(
    what: &str,
    error: TokenError,
    refused: impl FnOnce(&str, &str) -> FetchError,
) -> FetchError {
    match error {
        RequestTokenError::ServerResponse(answer) => {
            let words = answer.error_description().map_or("", String::as_str);
            refused(answer.error().as_ref(), words)
        }
        RequestTokenError::Request(error) => FetchError::Retry {
            what: format!("{what}: {}", error.what),
            after: error.after,
        },
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => FetchError::Retry {
            what: format!("{what}: the answer was not understood"),
            after: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_not_shown_when_it_is_repeated_in_any_spelling() {
        let sent =
            Sent::of(b"grant_type=client_credentials&client_secret=s3cr%7Eet%2Fw%22rd&code=x");
        let repeated =
            r#"{"a":"s3cr~et\/w\"rd","b":"client_secret=s3cr%7Eet%2Fw%22rd","c":"x"} s3cr~et/w"rd"#;
        let shown = sent.hidden_in(&Bytes::from_static(repeated.as_bytes()));
        let expected = r#"{"a":"[secret]","b":"client_secret=[secret]","c":"x"} [secret]"#;
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_life_is_read_as_number_and_as_text() {
        for (text, life) in [
            (r#"{"access_token":"t","expires_in":3599}"#, Some(3_599)),
            (
                r#"{"access_token":"t","token_type":"bearer","expires_in":"3599"}"#,
                Some(3_599),
            ),
            (r#"{"access_token":"t","expires_in":"soon"}"#, None),
            (r#"{"access_token":"t","expires_in":null}"#, None),
            (r#"{"access_token":"t"}"#, None),
        ] {
            let answer: TokenAnswer = serde_json::from_str(text).unwrap();
            assert_eq!(answer.expires_in, life, "{text}");
            assert!(!format!("{answer:?}").contains("\"t\""));
        }
        assert!(serde_json::from_str::<TokenAnswer>(r#"{"expires_in":1}"#).is_err());
    }
}
