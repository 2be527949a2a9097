//! The consent of an administrator for an installed application, asked for once.
//!
//! "OAuth 2.0 for iOS & Desktop Apps", Google Identity (2026-04): PKCE with S256, a loopback
//! redirect, `state`; `access_type=offline` and `prompt=consent`, without which a second consent
//! brings no refresh token. What is got is kept in the file that the connector reads. Who shows the
//! URL and receives the redirect is the caller's business.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use exfilwatch_model::SecretSource;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, PkceCodeChallenge,
    PkceCodeVerifier, RedirectUrl, Scope, TokenResponse, TokenUrl,
};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::token::{SCOPE, TOKEN_URI, checked_override, refused};
use crate::FetchError;
use crate::kernel::oauth::{OauthClient, exchange, understood};
use crate::kernel::secret::{KeepError, Secret, check_secret_place, keep_secret_file};
use crate::kernel::surroundings::{BuildError, Surroundings, http_settings, invalid};
use crate::kernel::url_guard::on_loopback;
use crate::kernel::wire::Wire;
use crate::kernel::words::{shown, shown_bytes};
use crate::options::GoogleWorkspaceOptions;

/// Google's consent page.
pub const AUTH_URI: &str = "https://accounts.google.com/o/oauth2/v2/auth";
/// Longest redirect that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 8 << 10;

/// Why there is no consent, by what the person must do.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// The answer belongs to another consent, or is none: wait for the right one.
    #[error("{0}")]
    NotThis(&'static str),
    /// The person or Google said no.
    #[error("the consent was not given: {0}")]
    Declined(String),
    /// The code could not be exchanged.
    #[error(transparent)]
    Vendor(#[from] FetchError),
    /// The refresh token cannot be kept.
    #[error(transparent)]
    Keep(#[from] KeepError),
}

/// Asks for the consent, and takes it back.
#[derive(Debug)]
pub struct Login {
    wire: Arc<Wire>,
    client_id: String,
    client_secret: Secret,
    auth_uri: Url,
    token_uri: Url,
    subject: Option<String>,
    token: Secret,
    file: PathBuf,
}

/// A consent that is being asked for.
pub struct Consent {
    /// What the administrator opens in a browser. Holds no secret.
    pub url: Url,
    redirect: RedirectUrl,
    state: CsrfToken,
    verifier: PkceCodeVerifier,
}

impl fmt::Debug for Consent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consent").finish_non_exhaustive()
    }
}

impl Login {
    /// Checks the options, the secret and the place where the token is to be kept. Sends nothing.
    pub fn new(
        options: &GoogleWorkspaceOptions,
        surroundings: &Surroundings,
    ) -> Result<Self, BuildError> {
        let Some(refresh) = &options.refresh_token else {
            return Err(BuildError::Missing {
                key: "refresh_token",
                help: "refresh_token = { client_id = \"…\", client_secret = { file = \"…\" }, \
                       token = { file = \"…\" } }; a service account needs no login",
            });
        };
        let SecretSource::File(file) = &refresh.token else {
            let why = "a login keeps the token in a file: token = { file = \"…\" }";
            return Err(invalid("refresh_token.token", "{ env = … }", why));
        };
        let client_secret = surroundings.secret(&refresh.client_secret);
        client_secret.read().map_err(|error| BuildError::Secret {
            key: "refresh_token.client_secret",
            error,
        })?;
        let endpoint = |key, given: Option<&Url>, own: &str| match given {
            Some(url) => checked_override(url)
                .map_err(|_| invalid(key, url.host_str().unwrap_or(""), "must be https")),
            None => Url::parse(own).map_err(|error| invalid(key, own, error.to_string())),
        };
        let token_uri = endpoint("token_uri", options.token_uri.as_ref(), TOKEN_URI)?;
        let settings = http_settings(
            options.proxy.as_ref(),
            options.ca_file.as_ref(),
            on_loopback(&token_uri),
        );
        let transport = surroundings.transport(&settings)?;
        Ok(Self {
            wire: Arc::new(Wire::new(transport, surroundings.clock.clone())),
            client_id: refresh.client_id.clone(),
            client_secret,
            auth_uri: endpoint("auth_uri", options.auth_uri.as_ref(), AUTH_URI)?,
            token_uri,
            subject: options.subject.clone(),
            token: surroundings.secret(&refresh.token),
            file: file.clone(),
        })
    }

    /// The file that holds the refresh token.
    pub fn file(&self) -> &PathBuf {
        &self.file
    }

    /// Begins: `redirect` is where the caller listens (`http://127.0.0.1:PORT`). Refuses when the
    /// token could not be kept afterwards.
    pub fn begin(&self, redirect: &str) -> Result<Consent, LoginError> {
        check_secret_place(&self.file)?;
        let unusable = |what: &str| {
            LoginError::Vendor(FetchError::Poison {
                what: format!("{what} cannot be used as a URL"),
            })
        };
        let redirect =
            RedirectUrl::new(redirect.to_owned()).map_err(|_| unusable("the redirect"))?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let client: OauthClient = oauth2::Client::new(ClientId::new(self.client_id.clone()));
        let client = client
            .set_auth_uri(AuthUrl::from_url(self.auth_uri.clone()))
            .set_redirect_uri(redirect.clone());
        let mut request = client
            .authorize_url(CsrfToken::new_random)
            .add_scope(Scope::new(SCOPE.to_owned()))
            .set_pkce_challenge(challenge)
            .add_extra_param("access_type", "offline")
            .add_extra_param("prompt", "consent");
        if let Some(subject) = &self.subject {
            request = request.add_extra_param("login_hint", subject);
        }
        let (url, state) = request.url();
        Ok(Consent {
            url,
            redirect,
            state,
            verifier,
        })
    }

    /// Reads the redirect that came back (its URL, or path and query), exchanges the code and keeps
    /// the refresh token. [`LoginError::NotThis`] leaves the consent as it is, to wait on.
    pub async fn finish(&self, consent: &Consent, answer: &str) -> Result<(), LoginError> {
        let code = code_of(consent, answer)?;
        let verifier = PkceCodeVerifier::new(consent.verifier.secret().clone());
        let secret = self.client_secret.read().map_err(|error| {
            LoginError::Vendor(FetchError::Auth {
                what: format!("the login was not finished: {error}"),
                help: "put the client secret in place and log in again".to_owned(),
            })
        })?;
        let client: OauthClient = oauth2::Client::new(ClientId::new(self.client_id.clone()));
        let client = client
            .set_auth_type(AuthType::RequestBody)
            .set_client_secret(ClientSecret::new(secret.expose_secret().to_owned()))
            .set_token_uri(TokenUrl::from_url(self.token_uri.clone()))
            .set_redirect_uri(consent.redirect.clone());
        let send = |request| exchange(self.wire.clone(), request);
        let answer = client
            .exchange_code(AuthorizationCode::new(code))
            .set_pkce_verifier(verifier)
            .request_async(&send)
            .await
            .map_err(|error| {
                let what = "exchange of the code at Google";
                understood(what, error, |code, words| refused(code, words, None))
            })?;
        let Some(token) = answer.refresh_token() else {
            return Err(LoginError::Vendor(FetchError::Auth {
                what: "Google gave an access token but no refresh token".to_owned(),
                help: "remove the application's access at myaccount.google.com/permissions and \
                       log in again"
                    .to_owned(),
            }));
        };
        let token = SecretString::from(token.secret().clone());
        keep_secret_file(&self.file, &token, rand::random())?;
        Ok(())
    }

    /// Takes the consent back at Google and removes the file. A token that Google no longer knows
    /// counts as taken back.
    pub async fn revoke(&self) -> Result<(), LoginError> {
        let failed = |what: String| LoginError::Vendor(FetchError::Retry { what, after: None });
        let token = self.token.read().map_err(|error| {
            LoginError::Vendor(FetchError::Auth {
                what: format!("nothing to take back: {error}"),
                help: "exfilwatch auth login makes a token".to_owned(),
            })
        })?;
        let mut url = self.token_uri.clone();
        url.set_path("/revoke");
        let body = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("token", token.expose_secret())
            .finish();
        let request = Request::post(url.as_str())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body.into_bytes())
            .map_err(|error| failed(format!("revocation at Google: {error}")))?;
        let response = exchange(self.wire.clone(), request)
            .await
            .map_err(|error| failed(format!("revocation at Google: {error}")))?;
        let unknown = memchr::memmem::find(response.body(), b"invalid_token").is_some();
        if !(response.status().is_success()
            || response.status() == StatusCode::BAD_REQUEST && unknown)
        {
            let words = shown_bytes(response.body());
            let status = response.status().as_u16();
            return Err(failed(format!(
                "revocation at Google: status {status}: {words}"
            )));
        }
        std::fs::remove_file(&self.file).map_err(|error| {
            LoginError::Keep(KeepError::Unwritable {
                path: self.file.clone(),
                why: error.to_string(),
            })
        })
    }
}

/// The code of a redirect that belongs to this consent.
fn code_of(consent: &Consent, answer: &str) -> Result<String, LoginError> {
    let answer = answer.trim();
    if answer.is_empty() || answer.len() > ANSWER_BYTES_MAX {
        return Err(LoginError::NotThis("this is no redirect of a login"));
    }
    let query = answer.split_once('?').map_or(answer, |(_, query)| query);
    let query = query.split('#').next().unwrap_or_default();
    let (mut code, mut state, mut error) = (None, None, None);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "code" => code = Some(value.into_owned()),
            "state" => state = Some(value.into_owned()),
            "error" => error = Some(value.into_owned()),
            _ => {}
        }
    }
    // Before anything else: what was not asked for by us is not listened to.
    match state {
        Some(state) if state == *consent.state.secret() => {}
        Some(_) => return Err(LoginError::NotThis("this redirect is of another login")),
        None => return Err(LoginError::NotThis("this is no redirect of a login")),
    }
    match (code, error) {
        (_, Some(error)) => Err(LoginError::Declined(shown(&error))),
        (Some(code), None) if !code.is_empty() => Ok(code),
        _ => Err(LoginError::NotThis("this redirect holds no code")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consent() -> Consent {
        let (_, verifier) = PkceCodeChallenge::new_random_sha256();
        Consent {
            url: AUTH_URI.parse().unwrap(),
            redirect: RedirectUrl::new("http://127.0.0.1:9".into()).unwrap(),
            state: CsrfToken::new("s1".into()),
            verifier,
        }
    }

    #[test]
    fn only_a_redirect_with_our_state_is_listened_to() {
        let consent = consent();
        for (answer, code) in [
            ("http://127.0.0.1:9/?state=s1&code=4%2F0A&scope=x", "4/0A"),
            ("/?code=c&state=s1", "c"),
            ("  code=c&state=s1#frag \n", "c"),
        ] {
            assert_eq!(code_of(&consent, answer).unwrap(), code);
        }
        for answer in [
            "",
            "hello",
            "/favicon.ico",
            "/?code=c",
            "/?code=c&state=s2",
            "/?error=access_denied&state=s2",
            "/?state=s1",
            "/?state=s1&code=",
        ] {
            let refused = code_of(&consent, answer).unwrap_err();
            assert!(matches!(refused, LoginError::NotThis(_)), "{answer}");
        }
        let declined = code_of(&consent, "/?error=access_denied&state=s1").unwrap_err();
        assert!(matches!(declined, LoginError::Declined(words) if words == "access_denied"));
        assert_eq!(format!("{consent:?}"), "Consent { .. }");
    }
}
