//! Pseudonyms: a keyed hash of a value, for each tenant by a key of its own. And the ids under which
//! findings go out: the true one is a plain hash of whom the finding is about, which everybody could compute
//! who has a list of the staff.
//!
//! Without the key a pseudonym or an id says nothing; with it a guess can be tested, which is what the
//! person who may look somebody up does. Another key gives others.

use std::fmt;

use aws_lc_rs::hmac;
use exfilwatch_model::TenantId;
use exfilwatch_model::identity::normal_entity;
use secrecy::{ExposeSecret, SecretString};
use uuid::{Builder, Uuid, Variant, Version};

/// Shortest key, in bytes as written.
const KEY_BYTES_MIN: usize = 32;
/// Bytes of the hash that stand in a pseudonym.
const HASH_BYTES: usize = 16;
/// How a pseudonym begins.
const PREFIX: &str = "h-";

/// The configured key.
pub(crate) struct Secret(hmac::Key);

/// The keys of one tenant.
pub(super) struct TenantKey {
    pseudonyms: hmac::Key,
    ids: hmac::Key,
}

impl Secret {
    pub(super) fn new(text: &SecretString) -> Result<Self, &'static str> {
        let bytes = text.expose_secret().as_bytes();
        if bytes.len() < KEY_BYTES_MIN {
            return Err("key: shorter than 32 characters: `openssl rand -base64 32` makes one");
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    pub(super) fn of_tenant(&self, tenant: &TenantId) -> TenantKey {
        let of = |purpose: &str| {
            let name = [purpose, tenant.as_str()].join("\0");
            let key = hmac::sign(&self.0, name.as_bytes());
            hmac::Key::new(hmac::HMAC_SHA256, key.as_ref())
        };
        TenantKey {
            pseudonyms: of("exfilwatch pseudonym v1"),
            ids: of("exfilwatch finding id v1"),
        }
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
        let hash = hmac::sign(&self.pseudonyms, normal_entity(value).as_bytes());
        let mut text = PREFIX.to_owned();
        for byte in hash.as_ref().iter().take(HASH_BYTES) {
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }

    /// The id under which a finding goes out.
    pub(super) fn id(&self, uid: Uuid) -> Uuid {
        let hash = hmac::sign(&self.ids, uid.as_bytes());
        let mut bytes = [0; 16];
        for (byte, hashed) in bytes.iter_mut().zip(hash.as_ref()) {
            *byte = *hashed;
        }
        let id = Builder::from_bytes(bytes).with_version(Version::Custom);
        id.with_variant(Variant::RFC4122).into_uuid()
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
    fn an_id_depends_on_key_tenant_and_finding_and_never_changes() {
        let (one, two) = ("k".repeat(32), "l".repeat(32));
        let uid = Uuid::from_u128(7);
        let known = key(&one, "contoso").id(uid);
        assert_eq!(known.to_string(), "67ed00f4-f64b-8a42-9afd-6424421f5c38");
        assert_ne!(known, key(&two, "contoso").id(uid));
        assert_ne!(known, key(&one, "fabrikam").id(uid));
        assert_ne!(known, key(&one, "contoso").id(Uuid::from_u128(8)));
    }

    #[test]
    fn a_short_key_is_refused_and_none_is_shown() {
        let error = Secret::new(&SecretString::from("short")).unwrap_err();
        assert!(!error.contains("short:"), "{error}");
        let secret = Secret::new(&SecretString::from("k".repeat(32))).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
