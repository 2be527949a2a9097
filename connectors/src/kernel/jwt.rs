//! Signed assertions (RFC 7515, 7523), as both vendors' token endpoints take them.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// Smallest RSA key taken, in bits.
pub const KEY_BITS_MIN: usize = 2_048;

/// The signature algorithms in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
}

impl Algorithm {
    /// The name in the header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
        }
    }

    fn encoding(self) -> &'static dyn RsaEncoding {
        match self {
            Self::Rs256 => &RSA_PKCS1_SHA256,
            Self::Ps256 => &RSA_PSS_SHA256,
        }
    }
}

/// Why a key or certificate cannot be used. Never repeats what is in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No key where one should be.
    #[error("no unencrypted RSA private key in PEM form (PKCS#8 or PKCS#1) found")]
    NoKey,
    /// The key is too short.
    #[error("the RSA key has fewer than {KEY_BITS_MIN} bits")]
    Short,
    /// No certificate where one should be.
    #[error("no certificate in PEM form found")]
    NoCertificate,
    /// The crypto library failed.
    #[error("signing failed")]
    Signing,
}

/// An RSA private key.
#[derive(Debug)]
pub struct SigningKey(RsaKeyPair);

impl SigningKey {
    /// Reads the first private key of a PEM text.
    pub fn from_pem(pem: &SecretString) -> Result<Self, KeyError> {
        let key = PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes())
            .map_err(|_| KeyError::NoKey)?;
        let pair = match &key {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            _ => return Err(KeyError::NoKey),
        }
        .map_err(|_| KeyError::NoKey)?;
        if pair.public_modulus_len() * 8 < KEY_BITS_MIN {
            return Err(KeyError::Short);
        }
        Ok(Self(pair))
    }

    /// A compact JWT of header (without `alg` and `typ`, which are added) and claims.
    pub fn sign(
        &self,
        algorithm: Algorithm,
        mut header: Value,
        claims: &Value,
    ) -> Result<SecretString, KeyError> {
        if let Some(members) = header.as_object_mut() {
            members.insert("alg".to_owned(), algorithm.name().into());
            members.insert("typ".to_owned(), "JWT".into());
        }
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0
            .sign(
                algorithm.encoding(),
                &SystemRandom::new(),
                signed.as_bytes(),
                &mut signature,
            )
            .map_err(|_| KeyError::Signing)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)).into())
    }
}

/// The claims of a token that is a JWT. Nothing is verified: the token is not meant for us.
pub fn claims(token: &SecretString) -> Option<Value> {
    let mut parts = token.expose_secret().split('.');
    let claims = parts.nth(1)?;
    let bytes = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
    serde_json::from_slice::<Value>(&bytes)
        .ok()
        .filter(Value::is_object)
}

/// Thumbprints of the first certificate of a PEM text: SHA-256 and SHA-1, base64url.
pub fn thumbprints(pem: &[u8]) -> Result<(String, String), KeyError> {
    let certificate = CertificateDer::from_pem_slice(pem).map_err(|_| KeyError::NoCertificate)?;
    let encoded = |algorithm| URL_SAFE_NO_PAD.encode(digest(algorithm, &certificate));
    Ok((encoded(&SHA256), encoded(&SHA1_FOR_LEGACY_USE_ONLY)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{
        KeyPair, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
    };

    fn key_pem() -> SecretString {
        rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
            .unwrap()
            .serialize_pem()
            .into()
    }

    #[test]
    fn both_algorithms_sign_what_the_public_key_verifies() {
        let key = SigningKey::from_pem(&key_pem()).unwrap();
        let public = key.0.public_key().as_ref().to_vec();
        for algorithm in [Algorithm::Rs256, Algorithm::Ps256] {
            let header = serde_json::json!({"kid": "k1"});
            let token = key
                .sign(algorithm, header, &serde_json::json!({"iss": "me"}))
                .unwrap();
            let (signed, signature) = token.expose_secret().rsplit_once('.').unwrap();
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            let valid = match algorithm {
                Algorithm::Rs256 => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &public)
                    .verify(signed.as_bytes(), &signature),
                Algorithm::Ps256 => UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, &public)
                    .verify(signed.as_bytes(), &signature),
            };
            assert!(valid.is_ok(), "{algorithm:?}");
            let header = URL_SAFE_NO_PAD
                .decode(signed.split('.').next().unwrap())
                .unwrap();
            let header: Value = serde_json::from_slice(&header).unwrap();
            assert_eq!(header["alg"], algorithm.name());
            assert_eq!(header["kid"], "k1");
        }
    }

    #[test]
    fn the_claims_of_a_token_are_read_and_what_is_no_jwt_has_none() {
        let key = SigningKey::from_pem(&key_pem()).unwrap();
        let given = serde_json::json!({"roles": ["A.Read"]});
        let token = key
            .sign(Algorithm::Rs256, serde_json::json!({}), &given)
            .unwrap();
        assert_eq!(claims(&token), Some(given));
        for opaque in ["", "x", "a.b.c", "EwB4A8l6BAAU.."] {
            assert_eq!(claims(&opaque.into()), None, "{opaque}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_repeating_it() {
        for text in [
            "",
            "hunter2",
            "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n",
        ] {
            let error = SigningKey::from_pem(&text.into()).unwrap_err();
            assert_eq!(error, KeyError::NoKey);
        }
        assert_eq!(thumbprints(b"x"), Err(KeyError::NoCertificate));
    }
}
