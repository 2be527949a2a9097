//! `auth …`: what a person does once about a connector's credentials.

mod check;
mod login;
mod redirect;

use clap::Subcommand;
use exfilwatch_config::{Config, ConnectorConfig};

use crate::cli::Common;
use crate::cli::failure::{Code, Failure, Outcome};

/// What to do about the credentials.
#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// Asks for a token with each connector's credential, and says what it allows: what is missing,
    /// what is too much.
    Check(check::CheckArgs),
    /// Asks an administrator for access in a browser, and keeps the refresh token (Google
    /// Workspace with `refresh_token`).
    Login(login::LoginArgs),
    /// Takes that access back at Google, and removes the token.
    Logout(login::LogoutArgs),
}

/// Runs the command.
pub(crate) async fn run(command: AuthCommand, common: Common) -> Outcome {
    match command {
        AuthCommand::Check(args) => check::check(args, common).await,
        AuthCommand::Login(args) => login::login(args, common).await,
        AuthCommand::Logout(args) => login::logout(args, common).await,
    }
}

/// The connector of that name; an error lists those there are.
pub(crate) fn connector<'a>(
    config: &'a Config,
    name: &str,
) -> Result<&'a ConnectorConfig, Failure> {
    let (kind, name) = match name.split_once('/') {
        Some((kind, name)) => (Some(kind), name),
        None => (None, name),
    };
    let fits = |connector: &&ConnectorConfig| {
        connector.name == name && kind.is_none_or(|kind| connector.options.kind() == kind)
    };
    let found: Vec<&ConnectorConfig> = config.connectors.iter().filter(fits).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(unknown(config, name)),
        several => {
            let names: Vec<String> = several.iter().map(|one| full_name(one)).collect();
            let what = format!("{name} may be {}", names.join(" or "));
            Err(Failure::new(Code::Usage, what).help("give the kind too, as shown"))
        }
    }
}

fn full_name(connector: &ConnectorConfig) -> String {
    format!("{}/{}", connector.options.kind(), connector.name)
}

fn unknown(config: &Config, name: &str) -> Failure {
    let names: Vec<String> = config.connectors.iter().map(full_name).collect();
    let help = if names.is_empty() {
        "no connector is configured: add a [connectors.google_workspace.NAME] table".to_owned()
    } else {
        format!("configured are: {}", names.join(", "))
    };
    Failure::new(Code::Usage, format!("no connector is called {name:?}")).help(help)
}
