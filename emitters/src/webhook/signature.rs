//! Signatures as Standard Webhooks has them: `v1,` and the HMAC-SHA256 of `id.timestamp.body`.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// Shortest and longest key, in bytes, as the standard says.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Reads a secret (`whsec_` and base64). The error never quotes it.
pub(super) fn key(secret: &SecretString) -> Result<hmac::Key, &'static str> {
    let text = secret.expose_secret().strip_prefix(PREFIX);
    let text = text.ok_or("it does not begin with whsec_")?;
    let bytes = STANDARD
        .decode(text)
        .map_err(|_| "what follows whsec_ is not base64")?;
    if !KEY_BYTES.contains(&bytes.len()) {
        return Err("its key is not of 24 to 64 bytes: whsec_$(openssl rand -base64 32) makes one");
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

/// The value of `webhook-signature`.
pub(super) fn signature(key: &hmac::Key, id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(format!("{id}.{timestamp}.").as_bytes());
    context.update(body);
    format!("v1,{}", STANDARD.encode(context.sign()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the standard's own test suite.
    #[test]
    fn the_example_of_the_standard() {
        let secret = SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let key = key(&secret).unwrap();
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn a_secret_that_is_none_is_refused_without_being_shown() {
        for bad in ["abc", "whsec_***", "whsec_c2hvcnQ=", ""] {
            let error = key(&SecretString::from(bad)).unwrap_err();
            assert!(bad.is_empty() || !error.contains(bad), "{error}");
        }
    }
}
