//! What is to be done at the vendors, step by step, filled in with the answers.
//!
//! "Get started with Office 365 Management APIs", "Grant tenant-wide admin consent" (Microsoft,
//! 2026-06); "Control API access with domain-wide delegation", "Perform Google Workspace
//! domain-wide delegation of authority" (Google, 2026-04).

use std::path::Path;

use exfilwatch_connectors::kernel::secret::read_secret_file;
use exfilwatch_connectors::microsoft::cloud;
use exfilwatch_connectors::options::Cloud;
use exfilwatch_model::SecretSource;
use secrecy::ExposeSecret;
use serde::Serialize;

use super::answers::{Access, Answers, Credential, Google, Office365, Receivers};
use super::present::Present;

/// The service principal of "Office 365 Management APIs", the same in every tenant.
const MANAGEMENT_APIS: &str = "c5393580-f805-4401-95e8-94b7a6ef2fc2";
/// Scopes of a service account's delegation; only the first is needed.
const SCOPES: [(&str, &str); 3] = [
    (
        "https://www.googleapis.com/auth/admin.reports.audit.readonly",
        "needed: the audit logs",
    ),
    (
        "https://www.googleapis.com/auth/admin.directory.domain.readonly",
        "optional: internal_domains = \"auto\"",
    ),
    (
        "https://www.googleapis.com/auth/apps.alerts",
        "optional: the Alert Center",
    ),
];

/// Steps that belong together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Section {
    pub(super) title: String,
    /// One step each; a step may have lines.
    pub(super) steps: Vec<String>,
}

/// All that is to be done, in order.
pub(super) fn sections(answers: &Answers, present: &Present) -> Vec<Section> {
    let mut sections = Vec::new();
    if let Some(office365) = &answers.office365 {
        sections.push(entra(office365, present));
        sections.push(auditing(office365.cloud));
    }
    if let Some(google) = &answers.google {
        sections.push(match &google.access {
            Access::ServiceAccount(key) => service_account(google, key),
            Access::Installed { client_id, .. } => installed(client_id, answers),
        });
    }
    if let Some(section) = answers.receivers.as_ref().and_then(receiver_secrets) {
        sections.push(section);
    }
    sections.push(next(present));
    sections
}

/// The portal of a cloud's administrators.
fn portal(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::Commercial | Cloud::Gcc => "https://entra.microsoft.com",
        Cloud::GccHigh | Cloud::Dod => "https://entra.microsoft.us",
    }
}

/// Whether the audit-log query of Microsoft Graph is offered there.
fn has_audit_query(cloud: Cloud) -> bool {
    matches!(cloud, Cloud::Commercial | Cloud::Gcc)
}

fn entra(office365: &Office365, present: &Present) -> Section {
    let client_id = office365.client_id.or(present.client_id);
    let shown = client_id.map_or_else(|| "CLIENT_ID".to_owned(), |id| id.to_string());
    let several = office365.shared_app || office365.client_id.is_none();
    let mut steps = Vec::new();
    if office365.client_id.is_some() {
        let kind = if several {
            "\"Accounts in any organizational directory\"; Redirect URI: Web, https://localhost \
             (the page of consent wants one to return to)"
        } else {
            "\"Accounts in this organizational directory only\"; no redirect URI"
        };
        steps.push(format!(
            "{}: App registrations, New registration. Name exfilwatch; {kind}.\n\
             Its Overview must show the ids that were given: application (client) id {shown}{}",
            portal(office365.cloud),
            if several {
                String::new()
            } else {
                format!(",\ndirectory (tenant) id {}", office365.tenant_id)
            }
        ));
        steps.push(roles(office365));
        if let Some(credential) = &office365.credential {
            steps.push(credential_step(credential));
        }
    }
    steps.push(format!(
        "Consent, as an administrator of this tenant:\n\
         {}/{}/adminconsent?client_id={shown}\n\
         (in the tenant of the application also by \"Grant admin consent\" on the page API permissions).\n\
         For some minutes afterwards tokens may still lack the roles.",
        cloud::login_root(office365.cloud),
        office365.tenant_id
    ));
    Section {
        title: "Microsoft Entra: the application".to_owned(),
        steps,
    }
}

fn roles(office365: &Office365) -> String {
    let mut text = "API permissions, Add a permission, APIs my organization uses, \"Office 365 \
                    Management APIs\",\nApplication permissions (not delegated ones):\n  \
                    ActivityFeed.Read"
        .to_owned();
    if office365.dlp {
        text += "\n  ActivityFeed.ReadDlp";
    }
    text += "\nOptional, \"Microsoft Graph\", Application permissions:";
    if has_audit_query(office365.cloud) {
        text += "\n  AuditLogsQuery.Read.All   fills gaps, and reads back beyond 7 days";
    }
    text += "\n  Domain.Read.All           internal_domains = \"auto\"\n\
             Nothing else: a role more is a risk more, and doctor warns of it.\n\
             Where the list lacks \"Office 365 Management APIs\", PowerShell adds it:\n  \
             Connect-MgGraph -Scopes Application.ReadWrite.All\n  \
             New-MgServicePrincipal -AppId ";
    text + MANAGEMENT_APIS
}

fn credential_step(credential: &Credential) -> String {
    match credential {
        Credential::Secret(place) => format!(
            "Certificates & secrets, Client secrets, New client secret; copy its Value (not its Secret ID).\n{}",
            put_secret(place)
        ),
        Credential::Certificate { file, key_file } => certificate_step(file, key_file.as_deref()),
    }
}

fn certificate_step(file: &Path, key_file: Option<&Path>) -> String {
    let there = file.exists();
    let mut text = String::new();
    let public = match key_file {
        Some(_) => file.to_path_buf(),
        None => file.with_extension("crt"),
    };
    if !there {
        text += &format!(
            "Make a certificate; only this machine has its key:\n{}  (umask 077; openssl req -x509 \
             -newkey rsa:3072 -sha256 -days 365 -nodes -subj /CN=exfilwatch \\\n      -keyout {} -out {})\n",
            folder_of(file),
            argument(key_file.unwrap_or(file)),
            argument(file)
        );
    }
    if key_file.is_none() {
        text += &format!(
            "{}  openssl x509 -in {} -out {}\n",
            if there {
                "The certificate without its key, for uploading:\n"
            } else {
                ""
            },
            argument(file),
            argument(&public)
        );
    }
    text + &format!(
        "Certificates & secrets, Certificates, Upload certificate: {}.\n\
         Note when it ends; a new one may be uploaded beside it and the file replaced at any time.",
        public.display()
    )
}

/// Where a secret goes, without it ever standing on a command line.
fn put_secret(place: &SecretSource) -> String {
    match place {
        SecretSource::Env(name) => {
            format!("Put it into the environment variable {name} of the process.")
        }
        SecretSource::File(path) if path.exists() => {
            format!(
                "It belongs into {}, which is there (mode 0600).",
                path.display()
            )
        }
        SecretSource::File(path) => format!(
            "Put it into {} (paste, Enter, Ctrl-D):\n{}  (umask 077; cat > {})",
            path.display(),
            folder_of(path),
            argument(path)
        ),
    }
}

/// The line that makes a path's folder, where it is not there.
fn folder_of(path: &Path) -> String {
    match path.parent() {
        Some(folder) if folder != Path::new("") && !folder.exists() => {
            format!("  mkdir -p -m 700 {}\n", argument(folder))
        }
        _ => String::new(),
    }
}

/// A path as a word of the shell.
fn argument(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@".contains(c);
    if text.chars().all(plain) && !text.starts_with('-') {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

fn auditing(cloud: Cloud) -> Section {
    let environment = match cloud {
        Cloud::Commercial | Cloud::Gcc => "",
        Cloud::GccHigh => " -ExchangeEnvironmentName O365USGovGCCHigh",
        Cloud::Dod => " -ExchangeEnvironmentName O365USGovDoD",
    };
    Section {
        title: "Microsoft Purview: auditing is on".to_owned(),
        steps: vec![format!(
            "PowerShell with ExchangeOnlineManagement, as an Exchange administrator:\n  \
             Connect-ExchangeOnline{environment}\n  \
             Get-AdminAuditLogConfig | Format-List UnifiedAuditLogIngestionEnabled\n\
             If it says False:\n  \
             Set-AdminAuditLogConfig -UnifiedAuditLogIngestionEnabled $true\n\
             It takes effect within an hour; the first records may take 12 hours."
        )],
    }
}

fn service_account(google: &Google, key: &SecretSource) -> Section {
    let number = key_number(key);
    let client = number.as_deref().unwrap_or("the number shown as Unique ID");
    let subject = google.subject.as_deref().unwrap_or("the administrator");
    let scopes: Vec<String> = SCOPES
        .iter()
        .map(|(scope, why)| format!("  {scope}   ({why})"))
        .collect();
    let all: Vec<&str> = SCOPES.iter().map(|(scope, _)| *scope).collect();
    Section {
        title: "Google: service account and delegation".to_owned(),
        steps: vec![
            "https://console.cloud.google.com: make or choose a project, and enable in it the API\n\
             \"Admin SDK API\":  gcloud services enable admin.googleapis.com\n\
             (and alertcenter.googleapis.com for the Alert Center)"
                .to_owned(),
            format!(
                "IAM & Admin, Service Accounts, Create service account; it needs no role. Keys, Add key, JSON.\n{}",
                put_secret(key)
            ),
            format!(
                "https://admin.google.com, as a super administrator: Security, Access and data control,\n\
                 API controls, Manage domain-wide delegation, Add new.\n\
                 Client ID: {client}\n\
                 OAuth scopes, exactly:\n{}\n\
                 In one line, all three:\n  {}\n\
                 A scope that is not delegated fails only what needs it. It can take up to 24 hours.",
                scopes.join("\n"),
                all.join(",")
            ),
            administrator(subject),
        ],
    }
}

fn administrator(who: &str) -> String {
    format!(
        "https://admin.google.com: Account, Admin roles, Create new role with the privilege Reports\n\
         (optional: Admin API privileges, Domain management; Alert Center, View access).\n\
         Give it to {who}, an account for this purpose only, which has signed in once\n\
         and accepted the terms of service."
    )
}

/// The numeric id of the service account, where its key is there already.
fn key_number(key: &SecretSource) -> Option<String> {
    let SecretSource::File(path) = key else {
        return None;
    };
    let text = read_secret_file(path).ok()?;
    let key: serde_json::Value = serde_json::from_str(text.expose_secret()).ok()?;
    let number = key.get("client_id")?.as_str()?;
    let digits = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
    digits.then(|| number.to_owned())
}

fn installed(client_id: &str, answers: &Answers) -> Section {
    let secret = answers
        .google
        .as_ref()
        .and_then(|google| match &google.access {
            Access::Installed { client_secret, .. } => Some(put_secret(client_secret)),
            Access::ServiceAccount(_) => None,
        });
    Section {
        title: "Google: an administrator signs in".to_owned(),
        steps: vec![
            "https://console.cloud.google.com: make or choose a project, and enable in it the API\n\
             \"Admin SDK API\":  gcloud services enable admin.googleapis.com"
                .to_owned(),
            "Google Auth Platform, Audience: Internal. (External and \"Testing\" ends every refresh token\n\
             after 7 days.)"
                .to_owned(),
            format!(
                "Clients, Create client, Desktop app; its client id must be {client_id}.\n{}",
                secret.unwrap_or_default()
            ),
            administrator("the administrator who will sign in"),
            format!(
                "exfilwatch auth login {}\n\
                 A login opens the audit logs only: list internal_domains, unless Office 365 tells them.",
                answers.tenant
            ),
        ],
    }
}

fn receiver_secrets(receivers: &Receivers) -> Option<Section> {
    let splunk = receivers.splunk.as_ref()?;
    Some(Section {
        title: "Splunk: the token".to_owned(),
        steps: vec![format!(
            "Settings, Data inputs, HTTP Event Collector, New Token; allow it the indexes you name.\n\
             Indexer acknowledgement is worth it where the product offers it.\n{}",
            put_secret(&splunk.token)
        )],
    })
}

fn next(present: &Present) -> Section {
    let config = if present.path == Path::new("exfilwatch.toml") {
        String::new()
    } else {
        format!(" --config {}", argument(&present.path))
    };
    Section {
        title: "Then".to_owned(),
        steps: vec![
            format!("exfilwatch config check{config}"),
            format!(
                "exfilwatch doctor{config}     names what is still missing, and how to mend it"
            ),
            format!("exfilwatch run{config}"),
        ],
    }
}
