//! The flags of `init`, and the way from them to answers. No flag takes a secret.

use std::path::PathBuf;

use exfilwatch_connectors::options::Cloud;
use exfilwatch_model::{SecretSource, TenantId};
use uuid::Uuid;

use super::answers::{self, Access, Answers, Credential, Google, Office365, Receivers};
use super::interview::{Interview, Question};
use super::present::Present;
use super::receivers::ReceiverArgs;
use crate::cli::failure::{Code, Failure};

/// Arguments of `init`.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(after_help = "Examples:
  exfilwatch init
  exfilwatch init --yes --tenant contoso --tenant-id GUID --client-id GUID \\
      --client-secret-file secrets/office365 --stdout
  exfilwatch init --yes --tenant contoso --subject reader@contoso.example \\
      --service-account-file secrets/google.json --hec-url https://splunk.example:8088 \\
      --hec-token-env HEC_TOKEN
  exfilwatch init --yes --tenant contoso --tenant-id GUID --client-id GUID \\
      --certificate secrets/app.pem --shared-app --syslog soc.example:6514
  exfilwatch init --yes --tenant fabrikam --tenant-id GUID     one more tenant, same application")]
pub(crate) struct InitArgs {
    /// Asks nothing: every answer is a flag, or has its default.
    #[arg(long)]
    pub(super) yes: bool,
    /// Replaces files that are there.
    #[arg(long)]
    pub(super) force: bool,
    /// Shows the files and steps, and writes nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Name for the tenant, yours to choose.
    #[arg(long, value_name = "NAME", value_parser = answers::tenant)]
    pub(super) tenant: Option<TenantId>,
    /// One of the organisation's domains; may be repeated. Default: asked of the vendors.
    #[arg(long, value_name = "DOMAIN", value_parser = answers::domain)]
    pub(super) internal_domain: Vec<String>,
    #[command(flatten)]
    pub(super) microsoft: MicrosoftArgs,
    #[command(flatten)]
    pub(super) google: GoogleArgs,
    #[command(flatten)]
    pub(super) receiver: ReceiverArgs,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Office 365")]
pub(super) struct MicrosoftArgs {
    /// The directory (tenant) id in Entra.
    #[arg(long, value_name = "GUID", value_parser = answers::guid)]
    tenant_id: Option<Uuid>,
    /// commercial, gcc, gcc-high or dod.
    #[arg(long, value_name = "CLOUD", value_parser = answers::cloud)]
    cloud: Option<Cloud>,
    /// The application (client) id in Entra.
    #[arg(long, value_name = "GUID", value_parser = answers::guid)]
    client_id: Option<Uuid>,
    /// File that holds, or will hold, the client secret.
    #[arg(long, value_name = "FILE", value_parser = answers::path, group = "credential")]
    client_secret_file: Option<PathBuf>,
    /// Environment variable that holds the client secret.
    #[arg(long, value_name = "NAME", value_parser = answers::variable, group = "credential")]
    client_secret_env: Option<String>,
    /// PEM file with the application's certificate and, without --certificate-key, its private key.
    #[arg(long, value_name = "FILE", value_parser = answers::path, group = "credential")]
    certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    #[arg(long, value_name = "FILE", value_parser = answers::path, requires = "certificate")]
    certificate_key: Option<PathBuf>,
    /// Reads DLP records, too; they want the role ActivityFeed.ReadDlp.
    #[arg(long)]
    dlp: bool,
    /// One application for all tenants: it goes into the main file.
    #[arg(long)]
    shared_app: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Google Workspace")]
pub(super) struct GoogleArgs {
    /// The administrator on whose behalf the service account reads.
    #[arg(long, value_name = "ADDRESS", value_parser = answers::address)]
    subject: Option<String>,
    /// File that holds, or will hold, the service account's JSON key.
    #[arg(long, value_name = "FILE", value_parser = answers::path, group = "access")]
    service_account_file: Option<PathBuf>,
    /// Environment variable that holds the service account's JSON key.
    #[arg(long, value_name = "NAME", value_parser = answers::variable, group = "access")]
    service_account_env: Option<String>,
    /// Client id of an installed (desktop) application, in place of a service account.
    #[arg(long, value_name = "ID", value_parser = answers::text, group = "access")]
    oauth_client_id: Option<String>,
    /// File that holds the installed application's client secret.
    #[arg(long, value_name = "FILE", value_parser = answers::path, requires = "oauth_client_id")]
    oauth_client_secret_file: Option<PathBuf>,
    /// File for the refresh token.
    #[arg(long, value_name = "FILE", value_parser = answers::path, requires = "oauth_client_id")]
    refresh_token_file: Option<PathBuf>,
}

/// What becomes of the main file.
enum MainFile {
    /// It is there, and stays as it is.
    Stays,
    /// It is written with these receivers.
    New(Box<Receivers>),
}

impl InitArgs {
    /// All answers: flags first, then questions.
    pub(super) fn answers(
        &self,
        present: &Present,
        interview: &mut Interview<'_>,
    ) -> Result<Option<Answers>, Failure> {
        let tenant = interview.value(
            self.tenant.clone(),
            Question {
                flag: "--tenant NAME",
                text: "Short name for the organisation (a word, yours to choose)",
                default: None,
            },
            answers::tenant,
        )?;
        let office365 = self.microsoft.answers(present, interview)?;
        let google = self.google.answers(interview)?;
        if office365.is_none() && google.is_none() {
            let what = "a connector: --tenant-id GUID for Office 365, --subject ADDRESS and \
                        --service-account-file FILE for Google Workspace";
            if interview.asks() {
                let what =
                    "neither Office 365 nor Google Workspace is to be read: nothing to set up";
                return Err(Failure::new(Code::Usage, what).help("start again and choose one"));
            }
            if self.microsoft == MicrosoftArgs::default() && self.google == GoogleArgs::default() {
                interview.lacks(what);
            }
        }
        let given = (!self.internal_domain.is_empty()).then(|| self.internal_domain.clone());
        let internal_domains = interview.value(
            given,
            Question {
                flag: "--internal-domain DOMAIN",
                text: "The organisation's own domains (auto: ask the vendors)",
                default: Some("auto"),
            },
            answers::domains,
        )?;
        let main_file = self.main_file(present, interview)?;
        let (Some(tenant), Some(internal_domains), Some(main_file)) =
            (tenant, internal_domains, main_file)
        else {
            return Ok(None);
        };
        let receivers = match main_file {
            MainFile::Stays => None,
            MainFile::New(receivers) => Some(*receivers),
        };
        Ok(Some(Answers {
            tenant,
            internal_domains,
            office365,
            google,
            receivers,
        }))
    }

    fn main_file(
        &self,
        present: &Present,
        interview: &mut Interview<'_>,
    ) -> Result<Option<MainFile>, Failure> {
        let named = self.receiver != ReceiverArgs::default();
        if present.main.is_some() {
            if named && !self.force {
                let what = format!("{} is there already", present.path.display());
                return Err(Failure::new(Code::Usage, what).help(
                    "leave out the receivers to add a tenant beside it, edit it to change them, or \
                     write it anew with --force",
                ));
            }
            let anew = named
                || (self.force
                    && interview.yes(
                        Question {
                            flag: "--force",
                            text: "The main file is there already. Write it anew (y), or keep it \
                                   and add the tenant (n)",
                            default: Some("n"),
                        },
                        false,
                    )?);
            if !anew {
                return Ok(Some(MainFile::Stays));
            }
        }
        Ok(self
            .receiver
            .answers(interview)?
            .map(|receivers| MainFile::New(Box::new(receivers))))
    }
}

impl MicrosoftArgs {
    fn answers(
        &self,
        present: &Present,
        interview: &mut Interview<'_>,
    ) -> Result<Option<Office365>, Failure> {
        let wanted = *self != Self::default()
            || interview.yes(
                Question {
                    flag: "--tenant-id GUID",
                    text: "Read Office 365 (y/n)",
                    default: Some("y"),
                },
                false,
            )?;
        if !wanted {
            return Ok(None);
        }
        let cloud = interview.value(
            self.cloud,
            Question {
                flag: "--cloud CLOUD",
                text: "  Cloud: commercial, gcc, gcc-high or dod",
                default: Some("commercial"),
            },
            answers::cloud,
        )?;
        let tenant_id = interview.value(
            self.tenant_id,
            Question {
                flag: "--tenant-id GUID",
                text: "  Directory (tenant) id (Entra: Overview)",
                default: None,
            },
            answers::guid,
        )?;
        // An application that the main file's defaults name serves where none is given here.
        let theirs = present.shared_application() && self.client_id.is_none() && !self.credential();
        let (client_id, credential) = if theirs {
            (None, None)
        } else {
            let client_id = interview.value(
                self.client_id,
                Question {
                    flag: "--client-id GUID",
                    text: "  Application (client) id (Entra: App registrations)",
                    default: None,
                },
                answers::guid,
            )?;
            let credential = self.ask_credential(interview)?;
            let (Some(client_id), Some(credential)) = (client_id, credential) else {
                return Ok(None);
            };
            (Some(client_id), Some(credential))
        };
        let dlp = self.dlp
            || interview.yes(
                Question {
                    flag: "--dlp",
                    text: "  Read DLP records, which hold what was matched (y/n)",
                    default: Some("n"),
                },
                false,
            )?;
        let (Some(cloud), Some(tenant_id)) = (cloud, tenant_id) else {
            return Ok(None);
        };
        Ok(Some(Office365 {
            cloud,
            tenant_id,
            client_id,
            credential,
            dlp,
            shared_app: self.shared_app && !theirs,
        }))
    }

    fn credential(&self) -> bool {
        self.client_secret_file.is_some()
            || self.client_secret_env.is_some()
            || self.certificate.is_some()
    }

    fn ask_credential(&self, interview: &mut Interview<'_>) -> Result<Option<Credential>, Failure> {
        if let Some(file) = &self.certificate {
            return Ok(Some(Credential::Certificate {
                file: file.clone(),
                key_file: self.certificate_key.clone(),
            }));
        }
        let secret = source(
            self.client_secret_file.as_ref(),
            self.client_secret_env.as_ref(),
        );
        if let Some(source) = secret {
            return Ok(Some(Credential::Secret(source)));
        }
        if !interview.asks() {
            interview.lacks("--client-secret-file FILE or --certificate FILE");
            return Ok(None);
        }
        let certificate = interview.yes(
            Question {
                flag: "--certificate FILE",
                text: "  Sign in with a certificate (y, recommended) or a client secret (n)",
                default: Some("y"),
            },
            true,
        )?;
        if certificate {
            let file = interview.value(
                None,
                Question {
                    flag: "--certificate FILE",
                    text: "  PEM file with certificate and private key (may not be there yet)",
                    default: Some("secrets/office365.pem"),
                },
                answers::path,
            )?;
            let key_file = None;
            return Ok(file.map(|file| Credential::Certificate { file, key_file }));
        }
        let place = interview.value(
            None,
            Question {
                flag: "--client-secret-file FILE",
                text: "  File for the client secret (may not be there yet), or env:NAME",
                default: Some("secrets/office365"),
            },
            answers::secret_place,
        )?;
        Ok(place.map(Credential::Secret))
    }
}

impl GoogleArgs {
    fn answers(&self, interview: &mut Interview<'_>) -> Result<Option<Google>, Failure> {
        let wanted = *self != Self::default()
            || interview.yes(
                Question {
                    flag: "--subject ADDRESS",
                    text: "Read Google Workspace (y/n)",
                    default: Some("n"),
                },
                false,
            )?;
        if !wanted {
            return Ok(None);
        }
        let account = source(
            self.service_account_file.as_ref(),
            self.service_account_env.as_ref(),
        );
        let installed = self.oauth_client_id.is_some()
            || (account.is_none()
                && !interview.yes(
                    Question {
                        flag: "--service-account-file FILE",
                        text: "  Sign in with a service account (y, recommended) or as an \
                               administrator in the browser (n)",
                        default: Some("y"),
                    },
                    true,
                )?);
        if installed {
            return self.ask_installed(interview);
        }
        let account = interview.value(
            account,
            Question {
                flag: "--service-account-file FILE",
                text: "  File for the service account's JSON key (may not be there yet), or env:NAME",
                default: interview.asks().then_some("secrets/google.json"),
            },
            answers::secret_place,
        )?;
        let subject = interview.value(
            self.subject.clone(),
            Question {
                flag: "--subject ADDRESS",
                text: "  Administrator on whose behalf it reads (e-mail address)",
                default: None,
            },
            answers::address,
        )?;
        let (Some(account), Some(subject)) = (account, subject) else {
            return Ok(None);
        };
        Ok(Some(Google {
            subject: Some(subject),
            access: Access::ServiceAccount(account),
        }))
    }

    fn ask_installed(&self, interview: &mut Interview<'_>) -> Result<Option<Google>, Failure> {
        let client_id = interview.value(
            self.oauth_client_id.clone(),
            Question {
                flag: "--oauth-client-id ID",
                text: "  Client id of the desktop application",
                default: None,
            },
            answers::text,
        )?;
        let secret = interview.value(
            self.oauth_client_secret_file
                .clone()
                .map(SecretSource::File),
            Question {
                flag: "--oauth-client-secret-file FILE",
                text: "  File for its client secret, or env:NAME",
                default: Some("secrets/google-client"),
            },
            answers::secret_place,
        )?;
        let token = interview.value(
            self.refresh_token_file.clone(),
            Question {
                flag: "--refresh-token-file FILE",
                text: "  File for the refresh token",
                default: Some("secrets/google-token"),
            },
            answers::path,
        )?;
        let (Some(client_id), Some(client_secret), Some(token)) = (client_id, secret, token) else {
            return Ok(None);
        };
        Ok(Some(Google {
            subject: self.subject.clone(),
            access: Access::Installed {
                client_id,
                client_secret,
                token,
            },
        }))
    }
}

pub(super) fn source(file: Option<&PathBuf>, variable: Option<&String>) -> Option<SecretSource> {
    let file = file.map(|file| SecretSource::File(file.clone()));
    file.or_else(|| variable.map(|name| SecretSource::Env(name.clone())))
}
