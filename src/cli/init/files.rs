//! The configuration files as text.
//!
//! Two files for everybody: the main file (receivers, and what all tenants share) and one for the
//! tenant. A firm with one tenant has a folder more than it needs; a provider adds the next tenant
//! without touching a file that works, and a mistake in one disables that tenant only.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use exfilwatch_model::SecretSource;

use super::answers::{
    Access, Answers, Credential, Google, Office365, Receivers, cloud_name, transport_name,
};
use super::present::{Present, TENANTS_FOLDER};

/// A file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// The files, the main one last: it is what makes the others count.
pub(super) fn files(answers: &Answers, present: &Present) -> Vec<NewFile> {
    let mut files = vec![NewFile {
        path: present.tenant_file(&answers.tenant),
        text: tenant_file(answers, present),
    }];
    if let Some(receivers) = &answers.receivers {
        files.push(NewFile {
            path: present.path.clone(),
            text: main_file(answers, receivers, present),
        });
    }
    files
}

fn main_file(answers: &Answers, receivers: &Receivers, present: &Present) -> String {
    let mut out = String::new();
    out += "# exfilwatch: where findings go, and what all tenants share. Written by `exfilwatch init`.\n\
            #\n\
            # What is not set here has its built-in value: `exfilwatch config show` lists all values and\n\
            # where each comes from, `exfilwatch config schema` every key. After a change:\n\
            # `exfilwatch config check`. Relative paths are meant from this file's folder. Secrets never\n\
            # stand here, only where they are found: { file = \"…\" } (mode 0600) or { env = \"…\" }.\n\n";
    out += "# A file for each tenant; a mistake in one disables that tenant only. One more:\n\
            # exfilwatch init --tenant NAME\n";
    line(
        &mut out,
        &format!("include = [\"{TENANTS_FOLDER}/*.toml\"]\n"),
    );
    let shared = answers
        .office365
        .as_ref()
        .filter(|office365| office365.shared_app);
    if let Some(office365) = shared {
        out += "# The application of all tenants, registered once and consented to in each.\n";
        line(&mut out, "[defaults.office365]");
        application(&mut out, office365, present, 0);
        out.push('\n');
    }
    out += "# Receivers. `send` names what each gets: findings, signals (findings not meant to be looked at\n\
            # one by one), internal (heartbeats, gaps), events (raw records).\n";
    emitters(&mut out, receivers, present);
    out += "[state]\n\
            # Checkpoints, what was seen, and what is not delivered yet. Keep it on a local disk.\n\
            folder = \"exfilwatch-state\"\n\n\
            [serve]\n\
            # /healthz, /readyz and /metrics, on loopback only.\n\
            # listen = \"127.0.0.1:9464\"\n\n\
            [run]\n\
            # Days that are read back when a stream is seen for the first time.\n\
            # first_read_days = 7\n";
    out
}

fn emitters(out: &mut String, receivers: &Receivers, present: &Present) {
    let send = |first: &[&str]| {
        let mut kinds = first.to_vec();
        if receivers.events {
            kinds.push("events");
        }
        let quoted: Vec<String> = kinds.iter().map(|kind| quoted(kind)).collect();
        format!("send = [{}]", quoted.join(", "))
    };
    if let Some(splunk) = &receivers.splunk {
        line(out, "[emitters.splunk_hec.main]");
        let url = splunk.url.as_str().trim_end_matches('/');
        line(out, &format!("url = {}", quoted(url)));
        line(
            out,
            &format!("token = {}", source(&splunk.token, present, 0)),
        );
        line(out, &send(&["findings", "internal"]));
        ca_file(out, splunk.ca_file.as_deref(), present);
        out.push_str(
            "# Without an index the token's default one is used; {tenant} is the tenant's name.\n\
             # index = { findings = \"security\", events = \"saas_{tenant}\" }\n\n",
        );
    }
    if let Some(syslog) = &receivers.syslog {
        line(out, "[emitters.syslog.syslog]");
        line(out, &format!("address = {}", quoted(&syslog.address)));
        let transport = transport_name(syslog.transport);
        line(out, &format!("transport = {}", quoted(transport)));
        line(out, &send(&["findings"]));
        ca_file(out, syslog.ca_file.as_deref(), present);
        out.push('\n');
    }
    if let Some(path) = &receivers.ndjson {
        line(out, "[emitters.ndjson.files]");
        let path = present.written(path, 0);
        line(out, &format!("path = {}", quoted(&path.to_string_lossy())));
        line(out, &send(&["findings"]));
        out.push('\n');
    }
    if receivers.stdout {
        line(out, "[emitters.stdout.console]");
        line(out, &send(&["findings"]));
        out.push('\n');
    }
}

fn ca_file(out: &mut String, file: Option<&Path>, present: &Present) {
    match file {
        Some(file) => {
            let file = present.written(file, 0);
            line(
                out,
                &format!("ca_file = {}", quoted(&file.to_string_lossy())),
            );
        }
        None => *out += "# A certificate authority of your own, PEM:\n# ca_file = \"ca.pem\"\n",
    }
}

fn tenant_file(answers: &Answers, present: &Present) -> String {
    let tenant = &answers.tenant;
    let key = key(tenant.as_str());
    let mut out =
        format!("# The tenant {tenant}. Written by `exfilwatch init`.\n\n[tenants.{key}]\n");
    out += "# The organisation's own domains, which tell inside from outside; what is below one belongs to\n\
            # it. \"auto\" asks Microsoft Graph (Domain.Read.All) and Google (admin.directory.domain.readonly).\n";
    if answers.internal_domains.is_empty() {
        out += "internal_domains = \"auto\"\n";
    } else {
        let list: Vec<String> = answers.internal_domains.iter().map(|d| quoted(d)).collect();
        line(
            &mut out,
            &format!("internal_domains = [{}]", list.join(", ")),
        );
    }
    out += "# Domains of partners: outside, but marked as known.\n# partners = [\"partner.example\"]\n";
    if let Some(office365) = &answers.office365 {
        line(&mut out, &format!("\n[connectors.office365.{key}]"));
        line(&mut out, &format!("tenant = {}", quoted(tenant.as_str())));
        connector_office365(&mut out, office365, present);
    }
    if let Some(google) = &answers.google {
        line(&mut out, &format!("\n[connectors.google_workspace.{key}]"));
        line(&mut out, &format!("tenant = {}", quoted(tenant.as_str())));
        connector_google(&mut out, google, present);
    }
    out
}

fn connector_office365(out: &mut String, office365: &Office365, present: &Present) {
    line(
        out,
        &format!("cloud = {}", quoted(cloud_name(office365.cloud))),
    );
    line(out, &format!("tenant_id = \"{}\"", office365.tenant_id));
    if office365.shared_app || office365.client_id.is_none() {
        out.push_str("# The application stands in [defaults.office365] of the main file.\n");
    } else {
        application(out, office365, present, 1);
    }
    if office365.dlp {
        out.push_str("# All five content types; DLP.All wants the role ActivityFeed.ReadDlp.\n");
    } else {
        out.push_str(
            "# DLP.All is left out: it wants the role ActivityFeed.ReadDlp, and holds what was matched.\n\
             content_types = [\"Audit.AzureActiveDirectory\", \"Audit.Exchange\", \"Audit.SharePoint\", \"Audit.General\"]\n",
        );
    }
}

fn application(out: &mut String, office365: &Office365, present: &Present, below: usize) {
    if let Some(client_id) = office365.client_id {
        line(out, &format!("client_id = \"{client_id}\""));
    }
    match &office365.credential {
        Some(Credential::Secret(secret)) => {
            let secret = source(secret, present, below);
            line(out, &format!("client_secret = {secret}"));
        }
        Some(Credential::Certificate { file, key_file }) => {
            let written = |path: &Path| quoted(&present.written(path, below).to_string_lossy());
            let key = key_file
                .as_ref()
                .map(|key| format!(", key_file = {}", written(key)))
                .unwrap_or_default();
            line(
                out,
                &format!("certificate = {{ file = {}{key} }}", written(file)),
            );
        }
        None => {}
    }
}

fn connector_google(out: &mut String, google: &Google, present: &Present) {
    if let Some(subject) = &google.subject {
        out.push_str("# The administrator on whose behalf is read.\n");
        line(out, &format!("subject = {}", quoted(subject)));
    }
    match &google.access {
        Access::ServiceAccount(key) => {
            line(
                out,
                &format!("service_account = {}", source(key, present, 1)),
            );
        }
        Access::Installed {
            client_id,
            client_secret,
            token,
        } => {
            let token = SecretSource::File(token.clone());
            line(
                out,
                &format!(
                    "refresh_token = {{ client_id = {}, client_secret = {}, token = {} }}",
                    quoted(client_id),
                    source(client_secret, present, 1),
                    source(&token, present, 1)
                ),
            );
        }
    }
    out.push_str(
        "# Applications to read; without this line the nine that detections need.\n\
         # applications = [\"drive\", \"admin\", \"login\", \"token\"]\n",
    );
}

fn source(secret: &SecretSource, present: &Present, below: usize) -> String {
    match secret {
        SecretSource::File(path) => {
            let path = present.written(path, below);
            format!("{{ file = {} }}", quoted(&path.to_string_lossy()))
        }
        SecretSource::Env(name) => format!("{{ env = {} }}", quoted(name)),
    }
}

fn line(out: &mut String, text: &str) {
    // Writing to a String cannot fail.
    writeln!(out, "{text}").unwrap_or_default();
}

/// A basic string of TOML. Answers hold no control characters.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A key of TOML: bare where it may be.
fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.chars().all(bare) {
        name.to_owned()
    } else {
        quoted(name)
    }
}
