//! Tokens of the Microsoft identity platform for an application: client secret or certificate.
//!
//! "OAuth 2.0 client credentials flow" and "Certificate credentials", Microsoft identity platform,
//! 2026-06. The secret or key is read for every request, so a rotated one is taken up.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use oauth2::{AuthType, ClientId, ClientSecret, Scope, TokenUrl};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::FetchError;
use crate::kernel::auth::{Token, TokenSource};
use crate::kernel::jwt::{Algorithm, SigningKey, thumbprints};
use crate::kernel::oauth::{OauthClient, exchange, understood};
use crate::kernel::secret::{Secret, read_secret_file};
use crate::kernel::surroundings::BuildError;
use crate::kernel::wire::Wire;
use crate::kernel::words::shown;
use crate::options::{AssertionStyle, CertificateOptions};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// An assertion holds from so long before now …
const ASSERTION_EARLY: TimeDelta = TimeDelta::seconds(60);
/// … for so long.
const ASSERTION_LIFE: TimeDelta = TimeDelta::minutes(10);

/// How the application shows who it is.
#[derive(Debug)]
pub(super) enum Credential {
    /// A client secret.
    Secret(Secret),
    /// A certificate's key signs an assertion.
    Certificate(CertificateOptions),
}

impl Credential {
    /// Reads it once, so that what is missing is known at the start.
    pub(super) fn check(&self) -> Result<(), BuildError> {
        match self {
            Self::Secret(secret) => {
                let key = "client_secret";
                secret
                    .read()
                    .map_err(|error| BuildError::Secret { key, error })?;
            }
            Self::Certificate(options) => {
                read_certificate(options)?;
            }
        }
        Ok(())
    }
}

/// Key and the two thumbprints of the certificate.
fn read_certificate(
    options: &CertificateOptions,
) -> Result<(SigningKey, (String, String)), BuildError> {
    let key = "certificate";
    let secret = |error| BuildError::Secret { key, error };
    let unusable = |error| BuildError::Key { key, error };
    let key_file = options.key_file.as_ref().unwrap_or(&options.file);
    let signing_key =
        SigningKey::from_pem(&read_secret_file(key_file).map_err(secret)?).map_err(unusable)?;
    // A certificate in a file of its own is no secret and may be readable.
    let pem = std::fs::read(&options.file).map_err(|error| {
        secret(crate::kernel::secret::SecretError::Unreadable {
            path: options.file.clone(),
            why: error.to_string(),
        })
    })?;
    Ok((signing_key, thumbprints(&pem).map_err(unusable)?))
}

/// Asks for tokens.
#[derive(Debug)]
pub(super) struct MicrosoftTokens {
    /// To the login host, or through whatever carries it.
    pub(super) wire: Arc<Wire>,
    /// The tenant's token endpoint, version 2.
    pub(super) endpoint: String,
    /// The application.
    pub(super) client_id: String,
    /// Its credential.
    pub(super) credential: Credential,
    /// The API's origin in this cloud; the token is for it and no other.
    pub(super) audience: String,
}

#[async_trait]
impl TokenSource for MicrosoftTokens {
    fn now(&self) -> DateTime<Utc> {
        self.wire.now()
    }

    async fn request(&self) -> Result<Token, FetchError> {
        let skew = self.wire.skew();
        match self.ask().await {
            // The refusal's own Date header has just told us the right time.
            Err(error) if (self.wire.skew() - skew).abs() > ASSERTION_EARLY => match error {
                FetchError::Auth { .. } => self.ask().await,
                other => Err(other),
            },
            outcome => outcome,
        }
    }
}

impl MicrosoftTokens {
    async fn ask(&self) -> Result<Token, FetchError> {
        let what = "token request to Microsoft";
        let endpoint = TokenUrl::new(self.endpoint.clone()).map_err(|e| FetchError::Auth {
            what: format!("{what}: {e}"),
            help: "put login_root right".to_owned(),
        })?;
        let client: OauthClient = oauth2::Client::new(ClientId::new(self.client_id.clone()));
        let mut client = client.set_auth_type(AuthType::RequestBody);
        let mut assertion: Option<SecretString> = None;
        match &self.credential {
            Credential::Secret(secret) => {
                let secret = secret.read().map_err(|e| unreadable(&e.to_string()))?;
                let secret = ClientSecret::new(secret.expose_secret().to_owned());
                client = client.set_client_secret(secret);
            }
            Credential::Certificate(options) => {
                assertion = Some(
                    self.assertion(options)
                        .map_err(|e| unreadable(&e.to_string()))?,
                );
            }
        }
        let client = client.set_token_uri(endpoint);
        let mut request = client
            .exchange_client_credentials()
            .add_scope(Scope::new(format!("{}/.default", self.audience)));
        if let Some(assertion) = &assertion {
            request = request
                .add_extra_param("client_assertion_type", ASSERTION_TYPE)
                .add_extra_param("client_assertion", assertion.expose_secret());
        }
        let send = |request| exchange(self.wire.clone(), request);
        match request.request_async(&send).await {
            Ok(answer) => Ok(answer.into_token(&self.wire)),
            Err(error) => Err(understood(what, error, refused)),
        }
    }

    fn assertion(&self, options: &CertificateOptions) -> Result<SecretString, BuildError> {
        let (key, (sha256, sha1)) = read_certificate(options)?;
        let start = self.wire.now() - ASSERTION_EARLY;
        let claims = json!({
            "aud": self.endpoint,
            "iss": self.client_id,
            "sub": self.client_id,
            "jti": uuid::Uuid::new_v4().to_string(),
            "nbf": start.timestamp(),
            "iat": start.timestamp(),
            "exp": (start + ASSERTION_LIFE).timestamp(),
        });
        let (algorithm, header) = match options.assertion {
            AssertionStyle::Ps256 => (Algorithm::Ps256, json!({ "x5t#S256": sha256 })),
            AssertionStyle::Rs256 => (Algorithm::Rs256, json!({ "x5t": sha1 })),
        };
        key.sign(algorithm, header, &claims)
            .map_err(|error| BuildError::Key {
                key: "certificate",
                error,
            })
    }
}

fn unreadable(why: &str) -> FetchError {
    FetchError::Auth {
        what: format!("token request to Microsoft not made: {why}"),
        help: "put the application's credential in place; it is read again at the next try"
            .to_owned(),
    }
}

/// What a refusal of the token endpoint means, by the number in its words.
fn refused(error: &str, words: &str) -> FetchError {
    let number = aadsts(words);
    let what = format!(
        "Microsoft refused a token: {error}: {}{}",
        shown(words.lines().next().unwrap_or_default()),
        trace_id(words)
    );
    let help = match number {
        Some(7_000_215) => "client_secret is wrong: use the secret's value, not its id",
        Some(7_000_222) => "the client secret has expired: make a new one and replace the file",
        Some(700_016) => {
            "client_id is not known in this tenant: check client_id and tenant_id, and give admin consent"
        }
        Some(90_002) => "tenant_id names no tenant of this cloud: check tenant_id and cloud",
        Some(700_027) => "upload the certificate to the application, or use the one uploaded",
        Some(700_024) => "this machine's clock is wrong: set it by NTP",
        Some(65_001) => "an administrator must give consent to the application in this tenant",
        Some(900_382) => "cloud does not fit the tenant: set cloud to the tenant's own",
        Some(50_196 | 90_033) => return FetchError::Retry { what, after: None },
        _ if matches!(error, "temporarily_unavailable" | "server_error") => {
            return FetchError::Retry { what, after: None };
        }
        _ => {
            "check tenant_id, client_id, cloud and the credential against the application's registration"
        }
    };
    FetchError::Auth {
        what,
        help: help.to_owned(),
    }
}

fn aadsts(words: &str) -> Option<u32> {
    let (_, rest) = words.split_once("AADSTS")?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest.split_at(end).0.parse().ok()
}

/// Microsoft's support asks for it; it stands in a later line of the words.
fn trace_id(words: &str) -> String {
    let found = words
        .lines()
        .skip(1)
        .find_map(|line| line.trim().strip_prefix("Trace ID:"));
    found.map_or_else(String::new, |id| format!(" (Trace ID: {})", shown(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_number_says_what_to_do() {
        for (number, word) in [
            (7_000_215, "secret"),
            (7_000_222, "expired"),
            (700_016, "client_id"),
            (90_002, "tenant_id"),
            (700_027, "certificate"),
            (700_024, "clock"),
            (65_001, "consent"),
            (900_382, "cloud"),
            (123_456, "registration"),
        ] {
            let words = format!("AADSTS{number}: Some words.\r\nTrace ID: abc-1\r\nTimestamp: x");
            let FetchError::Auth { what, help } = refused("invalid_client", &words) else {
                panic!("{number} is not a matter of credentials");
            };
            assert!(help.contains(word), "{number}: {help}");
            assert!(
                what.contains(&number.to_string()) && what.contains("(Trace ID: abc-1)"),
                "{what}"
            );
        }
        for number in [50_196, 90_033] {
            let error = refused("invalid_request", &format!("AADSTS{number}: x"));
            assert!(matches!(error, FetchError::Retry { .. }), "{number}");
        }
    }
}
