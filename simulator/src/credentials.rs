//! The secrets of the simulated services, made at start: an app, a service account, a HEC token.
//!
//! They are random and guard nothing real. The caller writes them to files where a program under
//! test wants files.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256, PublicKeyData, RsaKeySize};
use serde_json::json;
use uuid::Uuid;

use crate::jwt::base64url;

/// The app registration at Microsoft; the same app in every tenant.
#[derive(Debug, Clone)]
pub struct MicrosoftApp {
    /// Client id (a GUID).
    pub client_id: String,
    /// Client secret.
    pub client_secret: String,
    /// The registered certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PKCS#8 PEM.
    pub private_key_pem: String,
    pub(crate) public_key_der: Vec<u8>,
    pub(crate) thumbprint_sha256: String,
    pub(crate) thumbprint_sha1: String,
}

/// The service account at Google, and an installed app with a refresh token.
#[derive(Debug, Clone)]
pub struct GoogleApp {
    /// Address of the service account.
    pub client_email: String,
    /// Its numeric client id, as delegation in the admin console names it.
    pub client_id: String,
    /// Id of its project.
    pub project_id: String,
    /// Id of its key.
    pub private_key_id: String,
    /// Its private key, PKCS#8 PEM.
    pub private_key_pem: String,
    /// Client id of the installed app.
    pub installed_client_id: String,
    /// Client secret of the installed app.
    pub installed_client_secret: String,
    /// Prefix of the refresh tokens; see [`GoogleApp::refresh_token`].
    pub(crate) refresh_prefix: String,
    pub(crate) public_key_der: Vec<u8>,
}

impl GoogleApp {
    /// The key file of the service account, as the console lets one download it.
    pub fn service_account_json(&self, token_uri: &str) -> String {
        let file = json!({
            "type": "service_account",
            "project_id": self.project_id,
            "private_key_id": self.private_key_id,
            "private_key": self.private_key_pem,
            "client_email": self.client_email,
            "client_id": self.client_id,
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": token_uri,
            "universe_domain": "googleapis.com",
        });
        format!("{file:#}")
    }

    /// The refresh token an administrator got for the installed app.
    pub fn refresh_token(&self, subject: &str) -> String {
        format!("{}.{}", self.refresh_prefix, base64url(subject.as_bytes()))
    }
}

/// All credentials of a simulator.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Microsoft.
    pub microsoft: MicrosoftApp,
    /// Google.
    pub google: GoogleApp,
    /// Token of the HTTP event collector.
    pub hec_token: String,
}

impl Credentials {
    /// Makes fresh keys, certificates and secrets.
    pub fn generate() -> Result<Self, rcgen::Error> {
        Ok(Self {
            microsoft: microsoft_app()?,
            google: google_app()?,
            hec_token: Uuid::new_v4().to_string(),
        })
    }
}

fn rsa_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)
}

fn microsoft_app() -> Result<MicrosoftApp, rcgen::Error> {
    let key = rsa_key()?;
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters
        .distinguished_name
        .push(DnType::CommonName, "audit-reader");
    let certificate = parameters.self_signed(&key)?;
    let sha256 = digest(&SHA256, certificate.der());
    let sha1 = digest(&SHA1_FOR_LEGACY_USE_ONLY, certificate.der());
    Ok(MicrosoftApp {
        client_id: Uuid::new_v4().to_string(),
        client_secret: format!("sim~{}", Uuid::new_v4().simple()),
        certificate_pem: certificate.pem(),
        private_key_pem: key.serialize_pem(),
        public_key_der: key.der_bytes().to_vec(),
        thumbprint_sha256: base64url(sha256.as_ref()),
        thumbprint_sha1: base64url(sha1.as_ref()),
    })
}

fn google_app() -> Result<GoogleApp, rcgen::Error> {
    let key = rsa_key()?;
    Ok(GoogleApp {
        client_email: "audit-reader@sim-project.iam.gserviceaccount.com".into(),
        client_id: "104729000000000000123".into(),
        project_id: "sim-project".into(),
        private_key_id: Uuid::new_v4().simple().to_string(),
        private_key_pem: key.serialize_pem(),
        installed_client_id: "104729-installed.apps.googleusercontent.com".into(),
        installed_client_secret: format!("GOCSPX-{}", Uuid::new_v4().simple()),
        refresh_prefix: format!("1//sim{}", Uuid::new_v4().simple()),
        public_key_der: key.der_bytes().to_vec(),
    })
}
