//! Pseudonyms: a keyed hash of a value, for each tenant by a key of its own.
//!
//! Without the key a pseudonym says nothing; with it a guess can be tested, which is what the person who
//! may look somebody up does. Another key gives other pseudonyms.

use std::fmt;

use aws_lc_rs::hmac;
use exfilwatch_model::TenantId;
use exfilwatch_model::identity::normal_entity;
use secrecy::{ExposeSecret, SecretString};

/// Shortest key, in bytes as written.
const KEY_BYTES_MIN: usize = 32;
/// Bytes of the hash that stand in a pseudonym.
const HASH_BYTES: usize = 16;
/// How a pseudonym begins.
const PREFIX: &str = "h-";

/// The configured key.
pub(crate) struct Secret(hmac::Key);

/// The key of one tenant.
pub(super) struct TenantKey(hmac::Key);

impl Secret {
    pub(super) fn new(text: &SecretString) -> Result<Self, &'static str> {
        let bytes = text.expose_secret().as_bytes();
        if bytes.len() < KEY_BYTES_MIN {
            return Err("key: shorter than 32 characters: `openssl rand -base64 32` makes one");
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    pub(super) fn of_tenant(&self, tenant: &TenantId) -> TenantKey {
        let name = ["exfilwatch pseudonym v1", tenant.as_str()].join("\0");
        let key = hmac::sign(&self.0, name.as_bytes());
        TenantKey(hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl TenantKey {
    /// The pseudonym of a value, the same in any spelling of it.
    pub(super) fn pseudonym(&self, value: &str) -> String {
        let hash = hmac::sign(&self.0, normal_entity(value).as_bytes());
        let mut text = PREFIX.to_owned();
        for byte in hash.as_ref().iter().take(HASH_BYTES) {
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(secret: &str, tenant: &str) -> TenantKey {
        let secret = Secret::new(&SecretString::from(secret)).unwrap();
        secret.of_tenant(&TenantId::new(tenant).unwrap())
    }

    #[test]
    fn a_pseudonym_depends_on_key_tenant_and_value_and_never_changes() {
        let (one, two) = ("k".repeat(32), "l".repeat(32));
        let of = |key: TenantKey| key.pseudonym("alice@contoso.example");
        let known = of(key(&one, "contoso"));
        assert_eq!(known, "h-621fbdd5e607b1c02e0858128619296a");
        assert_eq!(
            known,
            key(&one, "contoso").pseudonym(" Alice@Contoso.Example")
        );
        assert_ne!(known, of(key(&two, "contoso")));
        assert_ne!(known, of(key(&one, "fabrikam")));
        assert_ne!(known, key(&one, "contoso").pseudonym("bob@contoso.example"));
    }

    #[test]
    fn a_short_key_is_refused_and_none_is_shown() {
        let error = Secret::new(&SecretString::from("short")).unwrap_err();
        assert!(!error.contains("short:"), "{error}");
        let secret = Secret::new(&SecretString::from("k".repeat(32))).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
