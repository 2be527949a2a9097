//! Tokens of Google: a service account that acts for an administrator, or a refresh token.
//!
//! "Using OAuth 2.0 for server to server applications" and "… for installed applications", Google
//! Identity, 2026-04. The token endpoint is pinned to `*.googleapis.com`: a key file made by
//! someone else could send the assertion anywhere.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use oauth2::{AuthType, ClientId, ClientSecret, RefreshToken, TokenUrl};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::FetchError;
use crate::kernel::auth::{Token, TokenSource};
use crate::kernel::jwt::{Algorithm, SigningKey};
use crate::kernel::oauth::{OauthClient, exchange, post_form, understood};
use crate::kernel::secret::Secret;
use crate::kernel::url_guard::on_loopback;
use crate::kernel::wire::Wire;
use crate::kernel::words::shown;

/// The scope of the audit logs. A token is asked for with one scope only: one that was not delegated
/// would fail all.
pub(super) const SCOPE: &str = "https://www.googleapis.com/auth/admin.reports.audit.readonly";
/// The scope of the Alert Center, in a token of its own for the same reason.
pub(super) const SCOPE_ALERTS: &str = "https://www.googleapis.com/auth/apps.alerts";
/// The token endpoint of refresh tokens.
pub(crate) const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const ASSERTION_LIFE: TimeDelta = TimeDelta::minutes(55);
/// Google's tolerance for clocks is small: a larger step of ours is worth a second try.
const SKEW_STEP: TimeDelta = TimeDelta::seconds(30);

/// A service account's JSON key, as far as we need it.
#[derive(Debug, Deserialize)]
pub(super) struct ServiceAccount {
    /// Who signs.
    pub(super) client_email: String,
    /// The project whose quota is used.
    #[serde(default)]
    pub(super) project_id: String,
    #[serde(default)]
    private_key_id: String,
    private_key: SecretString,
    #[serde(default)]
    token_uri: String,
}

/// A key that went through one shell or template too many has its line breaks escaped twice.
fn unescaped(pem: &SecretString) -> SecretString {
    pem.expose_secret().replace("\\n", "\n").into()
}

/// Why a key file cannot be used. Does not repeat what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct BadKeyFile(pub String);

impl ServiceAccount {
    /// Reads the key, and checks that its private key can sign.
    pub(super) fn read(secret: &Secret) -> Result<(Self, SigningKey), BadKeyFile> {
        let text = secret.read().map_err(|e| BadKeyFile(e.to_string()))?;
        // serde's own words could repeat a part of the file.
        let account: Self = serde_json::from_str(text.expose_secret())
            .map_err(|_| BadKeyFile("not the JSON key of a service account".to_owned()))?;
        let key = SigningKey::from_pem(&unescaped(&account.private_key))
            .map_err(|e| BadKeyFile(format!("private_key: {e}")))?;
        Ok((account, key))
    }

    /// Where the assertion goes: the override, or the file's own endpoint if it is Google's.
    pub(super) fn endpoint(&self, given: Option<&Url>) -> Result<Url, BadKeyFile> {
        if let Some(url) = given {
            return checked_override(url);
        }
        let text = if self.token_uri.is_empty() {
            TOKEN_URI
        } else {
            &self.token_uri
        };
        let url = Url::parse(text).map_err(|_| BadKeyFile("token_uri is no URL".to_owned()))?;
        let plain = url.username().is_empty() && url.password().is_none() && url.port().is_none();
        let host = url.host_str().unwrap_or_default();
        if url.scheme() == "https" && plain && host.ends_with(".googleapis.com") {
            Ok(url)
        } else {
            Err(BadKeyFile(format!(
                "token_uri points to {}, which is not Google's: get the key file anew",
                shown(host)
            )))
        }
    }
}

/// An override is the operator's word: https anywhere, http on this machine.
pub(super) fn checked_override(url: &Url) -> Result<Url, BadKeyFile> {
    if url.scheme() == "https" || (url.scheme() == "http" && on_loopback(url)) {
        Ok(url.clone())
    } else {
        Err(BadKeyFile("token_uri must be https".to_owned()))
    }
}

/// How access is shown.
#[derive(Debug, Clone)]
pub(super) enum Grant {
    /// A service account acts for an administrator.
    ServiceAccount {
        /// The JSON key.
        key: Secret,
        /// The administrator's address.
        subject: String,
    },
    /// An administrator's refresh token.
    RefreshToken {
        /// The OAuth client.
        client_id: String,
        /// Its secret.
        client_secret: Secret,
        /// The refresh token.
        token: Secret,
    },
}

/// Asks for tokens.
#[derive(Debug)]
pub(super) struct GoogleTokens {
    /// To the token endpoint.
    pub(super) wire: Arc<Wire>,
    /// How access is shown.
    pub(super) grant: Grant,
    /// What a service account asks for; a refresh token has what was consented to.
    pub(super) scope: &'static str,
    /// An override of the token endpoint.
    pub(super) token_uri: Option<Url>,
}

#[async_trait]
impl TokenSource for GoogleTokens {
    fn now(&self) -> DateTime<Utc> {
        self.wire.now()
    }

    async fn request(&self) -> Result<Token, FetchError> {
        let skew = self.wire.skew();
        match self.ask().await {
            // The refusal's own Date header has just told us the right time.
            Err(error) if (self.wire.skew() - skew).abs() > SKEW_STEP => match error {
                FetchError::Auth { .. } => self.ask().await,
                other => Err(other),
            },
            outcome => outcome,
        }
    }
}

const WHAT: &str = "token request to Google";

impl GoogleTokens {
    async fn ask(&self) -> Result<Token, FetchError> {
        match &self.grant {
            Grant::ServiceAccount { key, subject } => {
                let (account, signing_key) = ServiceAccount::read(key).map_err(|e| not_made(&e))?;
                let endpoint = account
                    .endpoint(self.token_uri.as_ref())
                    .map_err(|e| not_made(&e))?;
                let assertion = self.assertion(&account, &signing_key, subject, &endpoint)?;
                let form = [
                    ("grant_type", GRANT_TYPE),
                    ("assertion", assertion.expose_secret()),
                ];
                post_form(&self.wire, endpoint.as_str(), &form)
                    .await
                    .map(|answer| answer.into_token(&self.wire))
                    .map_err(|e| {
                        understood(WHAT, e, |code, words| {
                            refused(code, words, Some(self.scope))
                        })
                    })
            }
            Grant::RefreshToken {
                client_id,
                client_secret,
                token,
            } => self.refresh(client_id, client_secret, token).await,
        }
    }

    fn assertion(
        &self,
        account: &ServiceAccount,
        key: &SigningKey,
        subject: &str,
        endpoint: &Url,
    ) -> Result<SecretString, FetchError> {
        let now = self.wire.now();
        let claims = json!({
            "iss": account.client_email,
            "scope": self.scope,
            "aud": endpoint.as_str(),
            "sub": subject,
            "iat": now.timestamp(),
            "exp": (now + ASSERTION_LIFE).timestamp(),
        });
        let header = json!({ "kid": account.private_key_id });
        key.sign(Algorithm::Rs256, header, &claims)
            .map_err(|e| not_made(&BadKeyFile(e.to_string())))
    }

    async fn refresh(
        &self,
        client_id: &str,
        client_secret: &Secret,
        token: &Secret,
    ) -> Result<Token, FetchError> {
        let read = |secret: &Secret| {
            let text = secret
                .read()
                .map_err(|e| not_made(&BadKeyFile(e.to_string())))?;
            Ok::<_, FetchError>(text.expose_secret().to_owned())
        };
        let endpoint = match &self.token_uri {
            Some(url) => checked_override(url).map_err(|e| not_made(&e))?.to_string(),
            None => TOKEN_URI.to_owned(),
        };
        let endpoint = TokenUrl::new(endpoint).map_err(|e| not_made(&BadKeyFile(e.to_string())))?;
        let client: OauthClient = oauth2::Client::new(ClientId::new(client_id.to_owned()));
        let client = client
            .set_auth_type(AuthType::RequestBody)
            .set_client_secret(ClientSecret::new(read(client_secret)?))
            .set_token_uri(endpoint);
        let token = RefreshToken::new(read(token)?);
        let send = |request| exchange(self.wire.clone(), request);
        let answer = client
            .exchange_refresh_token(&token)
            .request_async(&send)
            .await;
        answer
            .map(|answer| answer.into_token(&self.wire))
            .map_err(|e| understood(WHAT, e, |code, words| refused(code, words, None)))
    }
}

fn not_made(why: &BadKeyFile) -> FetchError {
    FetchError::Auth {
        what: format!("{WHAT} not made: {why}"),
        help: "put the credential in place; it is read again at the next try".to_owned(),
    }
}

/// What a refused token means. `scope` is what a service account asked for; `None` stands for a
/// token that came by a login.
pub(super) fn refused(code: &str, words: &str, scope: Option<&str>) -> FetchError {
    let what = format!("Google refused a token: {code}: {}", shown(words));
    let help = match (code, scope) {
        ("unauthorized_client", Some(scope)) => format!(
            "in the Admin console, under API controls, delegate the scope {scope} to the service \
             account's client id (it may take 24 hours)"
        ),
        ("invalid_grant", Some(_)) => invalid_assertion(words).to_owned(),
        ("invalid_grant" | "unauthorized_client", None) => {
            "the refresh token is dead: sign in again with exfilwatch auth login CONNECTOR"
                .to_owned()
        }
        ("invalid_client", _) => "client_id or client_secret is wrong".to_owned(),
        ("temporarily_unavailable" | "server_error" | "internal_failure", _) => {
            return FetchError::Retry { what, after: None };
        }
        _ => "check the credential and the subject".to_owned(),
    };
    FetchError::Auth { what, help }
}

/// One code stands for everything that can be wrong with an assertion; the words tell.
fn invalid_assertion(words: &str) -> &'static str {
    let lower = words.to_ascii_lowercase();
    if lower.contains("timeframe") || lower.contains("iat") {
        "set this machine's clock by NTP: the assertion's times are refused although they were \
         corrected by Google's own"
    } else if lower.contains("signature") || lower.contains("account not found") {
        "the key was deleted or is of another service account: make a new one and put it in place"
    } else if lower.contains("email or user id") {
        "subject is no user of this customer, or is suspended: name an active administrator"
    } else {
        "check that subject is an active administrator, and that this machine's clock is right"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(token_uri: &str) -> ServiceAccount {
        let text = json!({
            "client_email": "a@p.iam.gserviceaccount.com", "private_key": "x", "token_uri": token_uri,
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn the_assertion_goes_to_google_or_to_the_operators_override_only() {
        for good in ["", TOKEN_URI, "https://www.googleapis.com/oauth2/v4/token"] {
            assert!(account(good).endpoint(None).is_ok(), "{good}");
        }
        for bad in [
            "https://evil.test/token",
            "https://oauth2.googleapis.com.evil.test/token",
            "https://oauth2.googleapis.com@evil.test/token",
            "https://evilgoogleapis.com/token",
            "http://oauth2.googleapis.com/token",
            "https://oauth2.googleapis.com:8443/token",
            "nonsense",
        ] {
            assert!(account(bad).endpoint(None).is_err(), "{bad}");
        }
        let simulator: Url = "http://127.0.0.1:9/token".parse().unwrap();
        assert_eq!(
            account("https://evil.test/").endpoint(Some(&simulator)),
            Ok(simulator)
        );
        let plain: Url = "http://evil.test/token".parse().unwrap();
        assert!(account("").endpoint(Some(&plain)).is_err());
    }

    #[test]
    fn a_key_signs_whether_its_line_breaks_were_escaped_once_or_twice() {
        let pair =
            rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
        let pem = pair.unwrap().serialize_pem();
        for written in [pem.clone(), pem.replace('\n', "\\n")] {
            assert!(SigningKey::from_pem(&unescaped(&written.into())).is_ok());
        }
    }

    #[test]
    fn a_refused_grant_says_what_to_do() {
        let skew = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a \
                    reasonable timeframe. Check your iat and exp values in the JWT claim.";
        for (code, words, scope, word) in [
            ("unauthorized_client", "", Some(SCOPE), SCOPE),
            ("unauthorized_client", "", Some(SCOPE_ALERTS), SCOPE_ALERTS),
            ("invalid_grant", skew, Some(SCOPE), "clock"),
            (
                "invalid_grant",
                "Invalid email or User ID",
                Some(SCOPE),
                "subject",
            ),
            (
                "invalid_grant",
                "Invalid JWT Signature.",
                Some(SCOPE),
                "key",
            ),
            ("invalid_grant", "Bad Request", Some(SCOPE), "subject"),
            (
                "invalid_grant",
                "Token has been expired or revoked.",
                None,
                "auth login",
            ),
            ("invalid_client", "", None, "client_secret"),
        ] {
            let FetchError::Auth { help, .. } = refused(code, words, scope) else {
                panic!("{code}");
            };
            assert!(help.contains(word), "{code}: {help}");
        }
    }
}
