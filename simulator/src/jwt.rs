//! JWTs of the token endpoints: assertions are taken apart and their signatures verified.
//!
//! Written on aws-lc-rs alone, so that every refusal can be told from every other. Access tokens
//! the simulator issues only look like JWTs: nobody but the simulator reads them.

use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// An assertion, taken apart but not believed yet.
#[derive(Debug)]
pub(crate) struct Assertion<'t> {
    pub(crate) header: Value,
    pub(crate) claims: Value,
    signed: &'t str,
    signature: Vec<u8>,
}

impl<'t> Assertion<'t> {
    /// Takes a compact JWT apart; `None` where it is none.
    pub(crate) fn parse(token: &'t str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
        Some(Self {
            header: decode(header)?,
            claims: decode(claims)?,
            signed,
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    /// A string of the header.
    pub(crate) fn header_text(&self, name: &str) -> &str {
        self.header
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// A string of the claims.
    pub(crate) fn claim(&self, name: &str) -> &str {
        self.claims
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// A time of the claims, Unix seconds; some libraries write fractions.
    pub(crate) fn seconds(&self, name: &str) -> Option<i64> {
        let claim = self.claims.get(name)?;
        #[allow(clippy::cast_possible_truncation)] // Saturates; no time is that far away.
        let whole = |seconds: f64| seconds as i64;
        claim.as_i64().or_else(|| claim.as_f64().map(whole))
    }

    /// Whether the signature is the key's (PKCS#1 public key, DER); RS256 and PS256 only.
    pub(crate) fn is_signed_by(&self, public_key_der: &[u8]) -> bool {
        let algorithm: &'static dyn aws_lc_rs::signature::VerificationAlgorithm =
            match self.header_text("alg") {
                "RS256" => &RSA_PKCS1_2048_8192_SHA256,
                "PS256" => &RSA_PSS_2048_8192_SHA256,
                _ => return false,
            };
        UnparsedPublicKey::new(algorithm, public_key_der)
            .verify(self.signed.as_bytes(), &self.signature)
            .is_ok()
    }
}

/// A token in the form of a JWT, with a signature nobody can check.
pub(crate) fn unsigned(claims: &Value, nonce: u64) -> String {
    let header = json!({ "typ": "JWT", "alg": "RS256", "kid": "simulator" });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signature = URL_SAFE_NO_PAD.encode(nonce.to_be_bytes());
    format!("{}.{}.{signature}", part(&header), part(claims))
}

/// Base64url without padding.
pub(crate) fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
