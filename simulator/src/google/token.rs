//! The token endpoint: assertions of a service account with delegation, refresh tokens, and codes of
//! the consent page.

use std::collections::{BTreeSet, HashMap};

use axum::extract::State;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use super::{Google, SCOPE_AUDIT, Token, errors};
use crate::jwt::Assertion;
use crate::reply;

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const PUBLIC_ENDPOINT: &str = "https://oauth2.googleapis.com/token";
/// How far the clocks may differ, seconds: Google is strict.
const SKEW_SECONDS: i64 = 60;
/// Longest life of an assertion, seconds.
const ASSERTION_SECONDS_MAX: i64 = 3_600;

pub(super) async fn token(
    State(service): State<Google>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let form: HashMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    let outcome = match form.get("grant_type").map(String::as_str) {
        Some(JWT_BEARER) => service.by_assertion(&form, &headers),
        Some("refresh_token") => service.by_refresh_token(&form),
        Some("authorization_code") => service.by_code(&form),
        _ => Err(errors::token(
            "unsupported_grant_type",
            "Invalid grant_type",
        )),
    };
    outcome.unwrap_or_else(|refusal| refusal)
}

impl Google {
    fn by_assertion(
        &self,
        form: &HashMap<String, String>,
        headers: &HeaderMap,
    ) -> Result<Response, Response> {
        let grant = |text: &str| errors::token("invalid_grant", text);
        let text = form.get("assertion").map_or("", String::as_str);
        let assertion = Assertion::parse(text).ok_or_else(|| grant("Invalid JWT"))?;
        let app = &self.inner.app;
        if assertion.claim("iss") != app.client_email {
            return Err(grant("Invalid grant: account not found"));
        }
        if assertion.header_text("alg") != "RS256" || !assertion.is_signed_by(&app.public_key_der) {
            return Err(grant("Invalid JWT Signature."));
        }
        let host = reply::host(headers);
        let audience = assertion.claim("aud");
        let own = [
            format!("http://{host}/token"),
            format!("https://{host}/token"),
        ];
        if audience != PUBLIC_ENDPOINT && !own.iter().any(|own| own == audience) {
            return Err(grant(
                "Invalid JWT: Failed audience check. The right audience is https://oauth2.googleapis.com/token",
            ));
        }
        self.check_times(&assertion)?;
        let subject = assertion.claim("sub").to_owned();
        let scopes: BTreeSet<String> = assertion
            .claim("scope")
            .split_whitespace()
            .map(ToOwned::to_owned)
            .collect();
        let delegated = self.state().delegated.clone();
        // One scope that is not delegated fails them all.
        if subject.is_empty() || scopes.is_empty() || !scopes.is_subset(&delegated) {
            let text = "Client is unauthorized to retrieve access tokens using this method, or \
                        client not authorized for any of the scopes requested.";
            return Err(errors::token("unauthorized_client", text));
        }
        let Some((tenant, _)) = self.membership(&subject) else {
            return Err(grant("Invalid email or User ID"));
        };
        Ok(self.issue(tenant, subject, scopes, true))
    }

    fn check_times(&self, assertion: &Assertion<'_>) -> Result<(), Response> {
        let now = self.inner.clock.now_ms().div_euclid(1000);
        let skew = SKEW_SECONDS;
        let text = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable \
                    timeframe. Check your iat and exp values in the JWT claim.";
        match (assertion.seconds("iat"), assertion.seconds("exp")) {
            (Some(issued), Some(expires))
                if issued <= now + skew
                    && expires > now - skew
                    && expires > issued
                    && expires - issued <= ASSERTION_SECONDS_MAX =>
            {
                Ok(())
            }
            _ => Err(errors::token("invalid_grant", text)),
        }
    }

    fn by_refresh_token(&self, form: &HashMap<String, String>) -> Result<Response, Response> {
        self.check_installed_client(form)?;
        let app = &self.inner.app;
        let dead = || errors::token("invalid_grant", "Token has been expired or revoked.");
        let text = form.get("refresh_token").map_or("", String::as_str);
        let (subject, scopes) = match self.live_refresh(text) {
            Some(refresh) => (refresh.subject, refresh.scopes),
            // One that an administrator brought along from before.
            None => text
                .strip_prefix(&app.refresh_prefix)
                .and_then(|rest| rest.strip_prefix('.'))
                .and_then(|coded| URL_SAFE_NO_PAD.decode(coded).ok())
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .map(|subject| (subject, BTreeSet::from([SCOPE_AUDIT.to_owned()])))
                .ok_or_else(dead)?,
        };
        let known = self.membership(&subject);
        let revoked = self.state().revoked.contains(&subject);
        match known {
            Some((tenant, _)) if !revoked => Ok(self.issue(tenant, subject, scopes, false)),
            _ => Err(dead()),
        }
    }

    fn issue(
        &self,
        tenant: usize,
        subject: String,
        scopes: BTreeSet<String>,
        delegated: bool,
    ) -> Response {
        let body = self.issue_token(tenant, subject, scopes, delegated);
        reply::json(200, body.to_string())
    }

    /// Makes an access token; gives the endpoint's answer.
    pub(super) fn issue_token(
        &self,
        tenant: usize,
        subject: String,
        scopes: BTreeSet<String>,
        delegated: bool,
    ) -> Value {
        let lifetime = self.inner.options.token_lifetime_seconds;
        let expires_ms = self.inner.clock.now_ms() + lifetime * 1000;
        let mut state = self.state();
        state.tokens_issued += 1;
        let text = format!("ya29.sim{:08}", state.tokens_issued);
        let scope: Vec<&str> = scopes.iter().map(String::as_str).collect();
        let body = json!({
            "access_token": text,
            "expires_in": lifetime,
            "scope": scope.join(" "),
            "token_type": "Bearer",
        });
        let token = Token {
            tenant,
            subject,
            scopes,
            expires_ms,
            delegated,
        };
        state.tokens.insert(text, token);
        body
    }
}
