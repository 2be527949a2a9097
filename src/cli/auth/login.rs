//! `auth login` and `auth logout`: the consent of an administrator for an installed application.
//!
//! The URL goes to standard output; the answer comes back by the redirect to this machine, or is
//! pasted where the browser runs on another. Whichever comes first counts.

use std::sync::Arc;
use std::time::Duration;

use exfilwatch_config::{ConnectorConfig, ConnectorOptions};
use exfilwatch_connectors::FetchError;
use exfilwatch_connectors::google::login::{Consent, Login, LoginError};
use exfilwatch_connectors::kernel::surroundings::Surroundings;
use exfilwatch_model::SystemClock;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::redirect::{Answered, Redirect};
use crate::app;
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, print};
use crate::cli::{Common, environment};

/// Longest line that is taken from standard input, in bytes.
const PASTED_BYTES_MAX: usize = 8 << 10;

/// Whose access to ask for.
#[derive(Debug, clap::Args)]
pub(crate) struct LoginArgs {
    /// Name of the connector, as in `[connectors.google_workspace.NAME]`.
    connector: String,
    /// Port of 127.0.0.1 to which the browser comes back; any free one by default.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Seconds to wait for the administrator.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
}

/// Whose access to take back.
#[derive(Debug, clap::Args)]
pub(crate) struct LogoutArgs {
    /// Name of the connector, as in `[connectors.google_workspace.NAME]`.
    connector: String,
}

/// What is printed, one object a line where programs read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Said<'a> {
    /// What to open.
    Open { url: &'a str, redirect: &'a str },
    /// Where the token now is.
    Kept { connector: &'a str, file: String },
    /// Access and token are gone.
    TakenBack { connector: &'a str, file: String },
}

impl Said<'_> {
    fn say(&self, output: Output) -> Outcome {
        if output != Output::Table {
            let line = serde_json::to_string(self)
                .map_err(|error| Failure::caused(Code::Receiver, "writing the answer", &error))?;
            return print(&format!("{line}\n"));
        }
        print(&match self {
            Self::Open { url, .. } => format!(
                "Open this address in a browser, signed in as an administrator:\n\n{url}\n\n\
                 Where the browser runs on another machine it will say that it cannot reach \
                 127.0.0.1:\ncopy the address it then shows, and paste it here.\n"
            ),
            Self::Kept { connector, file } => {
                format!("Access for {connector} is granted; the token is kept in {file}.\n")
            }
            Self::TakenBack { connector, file } => {
                format!("Access for {connector} is taken back; {file} is removed.\n")
            }
        })
    }
}

/// Runs `auth login`.
pub(crate) async fn login(args: LoginArgs, common: Common) -> Outcome {
    let config = app::load(&common, true)?;
    let connector = super::connector(&config, &args.connector)?;
    let login = Arc::new(login_of(connector)?);
    let mut redirect = Redirect::listen(args.port)
        .await
        .map_err(|error| Failure::caused(Code::Usage, "listening on 127.0.0.1", &error))?;
    let consent = login.begin(&redirect.url).map_err(|error| failed(&error))?;
    let open = Said::Open {
        url: consent.url.as_str(),
        redirect: &redirect.url,
    };
    open.say(common.output)?;
    let wait = Duration::from_secs(args.timeout.max(1));
    tokio::time::timeout(wait, answered(&login, &consent, &mut redirect))
        .await
        .unwrap_or_else(|_| {
            let what = format!(
                "no answer from the browser within {} seconds",
                wait.as_secs()
            );
            Err(Failure::new(Code::Auth, what).help("run it again; --timeout gives more time"))
        })?;
    let kept = Said::Kept {
        connector: &connector.name,
        file: login.file().display().to_string(),
    };
    kept.say(common.output)
}

/// Takes answers until one belongs to this consent.
async fn answered(login: &Login, consent: &Consent, redirect: &mut Redirect) -> Outcome {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut pasting = true;
    loop {
        let (answer, reply) = tokio::select! {
            Some(Answered { query, reply }) = redirect.next() => (query, Some(reply)),
            line = lines.next_line(), if pasting => match line {
                Ok(Some(line)) if line.trim().is_empty() => continue,
                Ok(Some(line)) if line.len() <= PASTED_BYTES_MAX => (line, None),
                Ok(Some(_)) => continue,
                // Nobody is at the keyboard: the redirect alone is waited for.
                Ok(None) | Err(_) => {
                    pasting = false;
                    continue;
                }
            },
        };
        let outcome = login.finish(consent, &answer).await;
        if let Some(reply) = reply {
            // The browser may have gone; what counts is the outcome.
            reply
                .send(outcome.as_ref().err().map(ToString::to_string))
                .unwrap_or_default();
        }
        match outcome {
            Ok(()) => {
                redirect.said().await;
                return Ok(());
            }
            Err(LoginError::NotThis(why)) => tracing::warn!("{why}; still waiting"),
            Err(error) => {
                redirect.said().await;
                return Err(failed(&error));
            }
        }
    }
}

/// Runs `auth logout`.
pub(crate) async fn logout(args: LogoutArgs, common: Common) -> Outcome {
    let config = app::load(&common, true)?;
    let connector = super::connector(&config, &args.connector)?;
    let login = login_of(connector)?;
    login.revoke().await.map_err(|error| failed(&error))?;
    let gone = Said::TakenBack {
        connector: &connector.name,
        file: login.file().display().to_string(),
    };
    gone.say(common.output)
}

fn login_of(connector: &ConnectorConfig) -> Result<Login, Failure> {
    let ConnectorOptions::GoogleWorkspace(options) = &connector.options else {
        let what = format!(
            "{} signs in with its client secret or certificate",
            connector.name
        );
        return Err(Failure::new(Code::Usage, what).help("nobody needs to log in for it"));
    };
    let surroundings = Surroundings::new(Arc::new(SystemClock), Arc::new(environment::variable));
    Login::new(options, &surroundings).map_err(|error| {
        let what = format!("{}: connector {}", connector.origin, connector.name);
        Failure::caused(Code::Usage, what, &error)
    })
}

fn failed(error: &LoginError) -> Failure {
    match error {
        LoginError::Vendor(FetchError::Auth { what, help }) => {
            Failure::new(Code::Auth, what).help(help)
        }
        LoginError::Vendor(error) => {
            Failure::new(Code::Vendor, error).help("it may pass: run it again in a while")
        }
        LoginError::Declined(_) => Failure::new(Code::Auth, error)
            .help("run it again, and sign in as an administrator who may read the audit logs"),
        LoginError::Keep(_) => Failure::new(Code::State, error),
        _ => Failure::new(Code::Usage, error),
    }
}
