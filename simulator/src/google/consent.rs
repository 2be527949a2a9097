//! The consent page of installed applications, the exchange of its codes, and revocation.
//!
//! "OAuth 2.0 for iOS & Desktop Apps", Google Identity (2026-04): a loopback redirect on any port,
//! PKCE, codes that work once, a refresh token only for `access_type=offline` and, after the first
//! consent, only with `prompt=consent`. The simulated administrator is signed in and agrees at once.

use std::collections::{BTreeSet, HashMap};

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::{RawQuery, State};
use axum::response::Response;
use bytes::Bytes;
use http::HeaderValue;
use http::header::LOCATION;
use serde_json::json;
use url::Url;

use super::{Google, errors};
use crate::jwt::base64url;
use crate::reply;

/// Life of a code, milliseconds.
const CODE_MS: i64 = 600_000;
/// Life of a refresh token while the consent screen is in testing, milliseconds.
const TESTING_MS: i64 = 7 * 86_400_000;
/// A refresh token not used for so long is dead, milliseconds.
const UNUSED_MS: i64 = 180 * 86_400_000;
/// Live refresh tokens of an account and client; the oldest goes when there are more.
const REFRESH_TOKENS_MAX: usize = 100;

/// A code that was given out and not yet redeemed.
#[derive(Debug, Clone)]
pub(super) struct Code {
    subject: String,
    redirect: String,
    challenge: Option<(String, bool)>,
    scopes: BTreeSet<String>,
    with_refresh_token: bool,
    expires_ms: i64,
}

/// A refresh token that was given out.
#[derive(Debug, Clone)]
pub(super) struct Refresh {
    pub(super) subject: String,
    pub(super) scopes: BTreeSet<String>,
    number: u64,
    issued_ms: i64,
    used_ms: i64,
}

/// What the signed-in person does with the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Person {
    /// Presses "Allow".
    #[default]
    Agrees,
    /// Presses "Cancel".
    Declines,
}

fn pairs(text: &[u8]) -> HashMap<String, String> {
    url::form_urlencoded::parse(text).into_owned().collect()
}

pub(super) async fn page(State(service): State<Google>, RawQuery(query): RawQuery) -> Response {
    let query = pairs(query.unwrap_or_default().as_bytes());
    service.consent(&query).unwrap_or_else(|refusal| refusal)
}

pub(super) async fn revoke(State(service): State<Google>, body: Bytes) -> Response {
    let form = pairs(&body);
    let token = form.get("token").map_or("", String::as_str);
    if service.revoke_token(token) {
        reply::json(200, "{}")
    } else {
        errors::token("invalid_token", "Token expired or revoked")
    }
}

/// Google shows its own page for a mistake of the application; nothing goes to the redirect.
fn error_page(code: &str, words: &str) -> Response {
    let page = format!("<html><body><h1>Error 400: {code}</h1><p>{words}</p></body></html>");
    reply::with_type(400, "text/html; charset=utf-8", page.into())
}

/// A desktop client may be sent back to loopback only, on any port.
fn loopback(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let own = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
    (url.scheme() == "http" && own).then_some(url)
}

impl Google {
    fn consent(&self, query: &HashMap<String, String>) -> Result<Response, Response> {
        let field = |name: &str| query.get(name).map_or("", String::as_str);
        if field("client_id") != self.inner.app.installed_client_id {
            return Err(error_page(
                "invalid_client",
                "The OAuth client was not found.",
            ));
        }
        let mut back = loopback(field("redirect_uri"))
            .ok_or_else(|| error_page("redirect_uri_mismatch", "The redirect is not allowed."))?;
        if field("response_type") != "code" {
            let words = "Required parameter is missing or wrong: response_type";
            return Err(error_page("invalid_request", words));
        }
        let scopes: BTreeSet<String> = field("scope")
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        if scopes.is_empty() {
            let words = "Missing required parameter: scope";
            return Err(error_page("invalid_request", words));
        }
        let challenge = match (field("code_challenge"), field("code_challenge_method")) {
            ("", _) => None,
            (challenge, "S256") => Some((challenge.to_owned(), true)),
            (challenge, "" | "plain") => Some((challenge.to_owned(), false)),
            _ => {
                let words = "Invalid parameter value for code_challenge_method";
                return Err(error_page("invalid_request", words));
            }
        };
        let mut state = self.state();
        if state.person == Person::Declines {
            back.query_pairs_mut().append_pair("error", "access_denied");
        } else {
            let subject = match field("login_hint") {
                "" => state.signed_in.clone().unwrap_or_default(),
                hint => hint.to_owned(),
            };
            let first = state.consented.insert(subject.clone());
            state.secrets_made += 1;
            let text = format!("4/0Asim{:08}", state.secrets_made);
            let scope = scopes.iter().cloned().collect::<Vec<_>>().join(" ");
            let code = Code {
                subject,
                redirect: field("redirect_uri").to_owned(),
                challenge,
                scopes,
                with_refresh_token: field("access_type") == "offline"
                    && (first || field("prompt") == "consent"),
                expires_ms: self.inner.clock.now_ms() + CODE_MS,
            };
            state.codes.insert(text.clone(), code);
            back.query_pairs_mut()
                .append_pair("code", &text)
                .append_pair("scope", &scope);
        }
        if let Some(text) = query.get("state") {
            back.query_pairs_mut().append_pair("state", text);
        }
        drop(state);
        let mut response = reply::json(302, "");
        let place = HeaderValue::from_str(back.as_str())
            .map_err(|_| error_page("invalid_request", "The redirect cannot be used."))?;
        response.headers_mut().insert(LOCATION, place);
        Ok(response)
    }

    /// Redeems a code: once, with the verifier of its challenge, for the same redirect.
    pub(super) fn by_code(&self, form: &HashMap<String, String>) -> Result<Response, Response> {
        self.check_installed_client(form)?;
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        let grant = |words: &str| errors::token("invalid_grant", words);
        let now = self.inner.clock.now_ms();
        // A code is used up by the first try, whatever comes of it.
        let code = self
            .state()
            .codes
            .remove(field("code"))
            .filter(|code| code.expires_ms > now)
            .ok_or_else(|| grant("Bad Request"))?;
        if code.redirect != field("redirect_uri") {
            return Err(errors::token("redirect_uri_mismatch", "Bad Request"));
        }
        if let Some((challenge, hashed)) = &code.challenge {
            let verifier = field("code_verifier");
            if verifier.is_empty() {
                return Err(grant("Missing code verifier."));
            }
            let shown = if *hashed {
                base64url(digest(&SHA256, verifier.as_bytes()).as_ref())
            } else {
                verifier.to_owned()
            };
            if shown != *challenge {
                return Err(grant("Invalid code verifier."));
            }
        }
        let tenant = self
            .membership(&code.subject)
            .map(|(tenant, _)| tenant)
            .ok_or_else(|| grant("Account has been deleted"))?;
        let mut answer = self.issue_token(tenant, code.subject.clone(), code.scopes.clone(), false);
        if code.with_refresh_token {
            answer["refresh_token"] = json!(self.new_refresh_token(&code));
            if self.inner.options.consent_in_testing {
                answer["refresh_token_expires_in"] = json!(TESTING_MS / 1_000 - 1);
            }
        }
        Ok(reply::json(200, answer.to_string()))
    }

    fn new_refresh_token(&self, code: &Code) -> String {
        let now = self.inner.clock.now_ms();
        let mut state = self.state();
        state.secrets_made += 1;
        let number = state.secrets_made;
        let text = format!("1//0sim{number:08}");
        let refresh = Refresh {
            subject: code.subject.clone(),
            scopes: code.scopes.clone(),
            number,
            issued_ms: now,
            used_ms: now,
        };
        state.refresh.insert(text.clone(), refresh);
        let same = |refresh: &&Refresh| refresh.subject == code.subject;
        while state.refresh.values().filter(same).count() > REFRESH_TOKENS_MAX {
            let oldest = state
                .refresh
                .iter()
                .filter(|(_, refresh)| same(refresh))
                .min_by_key(|(_, refresh)| refresh.number)
                .map(|(text, _)| text.clone());
            if let Some(text) = oldest {
                state.refresh.remove(&text);
            }
        }
        text
    }

    /// A refresh token that is alive; using it keeps it so.
    pub(super) fn live_refresh(&self, text: &str) -> Option<Refresh> {
        let now = self.inner.clock.now_ms();
        let testing = self.inner.options.consent_in_testing;
        let mut state = self.state();
        let refresh = state.refresh.get_mut(text)?;
        let too_old = testing && now - refresh.issued_ms >= TESTING_MS;
        if too_old || now - refresh.used_ms >= UNUSED_MS {
            return None;
        }
        refresh.used_ms = now;
        Some(refresh.clone())
    }

    fn revoke_token(&self, token: &str) -> bool {
        let mut state = self.state();
        let subject = match state.refresh.remove(token) {
            Some(refresh) => refresh.subject,
            None => match state.tokens.remove(token) {
                Some(token) => token.subject,
                None => return false,
            },
        };
        // The consent goes, and with it what was got by it.
        state.consented.remove(&subject);
        state.tokens.retain(|_, token| token.subject != subject);
        true
    }

    /// Client id and secret of the installed application.
    pub(super) fn check_installed_client(
        &self,
        form: &HashMap<String, String>,
    ) -> Result<(), Response> {
        let app = &self.inner.app;
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        if field("client_id") == app.installed_client_id
            && field("client_secret") == app.installed_client_secret
        {
            return Ok(());
        }
        let words = "The provided client secret is invalid.";
        Err(errors::token("invalid_client", words))
    }
}
