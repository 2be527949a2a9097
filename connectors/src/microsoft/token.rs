//! Tokens of the Microsoft identity platform for an application: client secret or certificate.
//!
//! "OAuth 2.0 client credentials flow" and "Certificate credentials", Microsoft identity platform,
//! 2026-06. The secret or key is read for every request, so a rotated one is taken up; one that is
//! refused is read once more before the refusal is believed.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use oauth2::{AuthType, ClientId, ClientSecret, RequestTokenError, Scope, TokenUrl};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::aadsts::{self, Refused};
use crate::FetchError;
use crate::kernel::auth::{Token, TokenSource};
use crate::kernel::jwt::{Algorithm, SigningKey, thumbprints};
use crate::kernel::oauth::{OauthClient, exchange, understood};
use crate::kernel::secret::{Secret, SecretError, read_secret_file};
use crate::kernel::surroundings::BuildError;
use crate::kernel::wire::Wire;
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

/// What was read of it for one request.
enum Material {
    Secret(SecretString),
    Certificate {
        key: SecretString,
        certificate: Vec<u8>,
        style: AssertionStyle,
    },
}

impl Credential {
    /// Reads it once, so that what is missing is known at the start.
    pub(super) fn check(&self) -> Result<(), BuildError> {
        match self.read()? {
            Material::Secret(_) => Ok(()),
            Material::Certificate {
                key, certificate, ..
            } => usable(&key, &certificate).map(drop),
        }
    }

    fn read(&self) -> Result<Material, BuildError> {
        match self {
            Self::Secret(secret) => {
                let key = "client_secret";
                let read = secret.read();
                read.map(Material::Secret)
                    .map_err(|error| BuildError::Secret { key, error })
            }
            Self::Certificate(options) => {
                let secret = |error| BuildError::Secret {
                    key: "certificate",
                    error,
                };
                let key_file = options.key_file.as_ref().unwrap_or(&options.file);
                let key = read_secret_file(key_file).map_err(secret)?;
                // A certificate in a file of its own is no secret and may be readable.
                let certificate = std::fs::read(&options.file).map_err(|error| {
                    secret(SecretError::Unreadable {
                        path: options.file.clone(),
                        why: error.to_string(),
                    })
                })?;
                Ok(Material::Certificate {
                    key,
                    certificate,
                    style: options.assertion,
                })
            }
        }
    }
}

impl Material {
    /// Whether the other was read after it had been replaced.
    fn differs(&self, other: &Self) -> bool {
        let secrets = |a: &SecretString, b: &SecretString| a.expose_secret() != b.expose_secret();
        match (self, other) {
            (Self::Secret(a), Self::Secret(b)) => secrets(a, b),
            (
                Self::Certificate {
                    key: a,
                    certificate: x,
                    ..
                },
                Self::Certificate {
                    key: b,
                    certificate: y,
                    ..
                },
            ) => secrets(a, b) || x != y,
            _ => true,
        }
    }
}

/// Key and the two thumbprints (SHA-256, SHA-1) of the certificate.
fn usable(
    key: &SecretString,
    certificate: &[u8],
) -> Result<(SigningKey, (String, String)), BuildError> {
    let unusable = |error| BuildError::Key {
        key: "certificate",
        error,
    };
    let signing_key = SigningKey::from_pem(key).map_err(unusable)?;
    Ok((signing_key, thumbprints(certificate).map_err(unusable)?))
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
        let material = self.read()?;
        let mut refused = match self.ask(&material).await {
            Ok(token) => return Ok(token),
            Err(refused) => refused,
        };
        let clock_moved = (self.wire.skew() - skew).abs() > ASSERTION_EARLY;
        if refused.of_clock || (refused.of_credential && clock_moved) {
            // The refusal's own Date header has just told us the right time.
            refused = match self.ask(&material).await {
                Ok(token) => return Ok(token),
                Err(again) => again,
            };
        }
        // It may have been replaced just now: a rotation swaps the file and then the old one ends.
        if refused.of_credential
            && let Ok(newer) = self.credential.read()
            && newer.differs(&material)
        {
            tracing::info!("the application's credential was replaced; it is tried once more");
            return self.ask(&newer).await.map_err(|refused| refused.error);
        }
        Err(refused.error)
    }
}

impl MicrosoftTokens {
    fn read(&self) -> Result<Material, FetchError> {
        self.credential
            .read()
            .map_err(|e| unreadable(&e.to_string()))
    }

    async fn ask(&self, material: &Material) -> Result<Token, Refused> {
        let what = "token request to Microsoft";
        let endpoint = TokenUrl::new(self.endpoint.clone()).map_err(|e| FetchError::Auth {
            what: format!("{what}: {e}"),
            help: "put login_root right".to_owned(),
        })?;
        let client: OauthClient = oauth2::Client::new(ClientId::new(self.client_id.clone()));
        let mut client = client.set_auth_type(AuthType::RequestBody);
        let mut assertion: Option<SecretString> = None;
        match material {
            Material::Secret(secret) => {
                let secret = ClientSecret::new(secret.expose_secret().to_owned());
                client = client.set_client_secret(secret);
            }
            Material::Certificate {
                key,
                certificate,
                style,
            } => {
                let signed = self.assertion((key, certificate), *style);
                assertion = Some(signed.map_err(|e| unreadable(&e.to_string()))?);
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
            Err(RequestTokenError::ServerResponse(answer)) => {
                let words = answer.error_description().map_or("", String::as_str);
                Err(aadsts::refused(answer.error().as_ref(), words))
            }
            Err(error) => Err(understood(what, error, |error, words| {
                aadsts::refused(error, words).error
            })
            .into()),
        }
    }

    fn assertion(
        &self,
        (key, certificate): (&SecretString, &[u8]),
        style: AssertionStyle,
    ) -> Result<SecretString, BuildError> {
        let (key, (sha256, sha1)) = usable(key, certificate)?;
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
        let (algorithm, header) = match style {
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

impl From<FetchError> for Refused {
    fn from(error: FetchError) -> Self {
        Self {
            error,
            of_credential: false,
            of_clock: false,
        }
    }
}

fn unreadable(why: &str) -> FetchError {
    FetchError::Auth {
        what: format!("token request to Microsoft not made: {why}"),
        help: "put the application's credential in place; it is read again at the next try"
            .to_owned(),
    }
}
