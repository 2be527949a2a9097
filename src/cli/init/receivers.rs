//! The flags that say where findings go, and the questions in their place.

use std::path::PathBuf;

use exfilwatch_emitters::options::SyslogTransport;
use url::Url;

use super::answers::{self, Receivers, Splunk, Syslog};
use super::args::source;
use super::interview::{Interview, Question};
use crate::cli::failure::Failure;

/// Kinds of receivers, as they are asked for.
const KINDS: [&str; 4] = ["splunk", "syslog", "file", "stdout"];

#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Receivers")]
pub(super) struct ReceiverArgs {
    /// Splunk HTTP Event Collector.
    #[arg(long, value_name = "URL", value_parser = answers::url)]
    hec_url: Option<Url>,
    /// File that holds the HEC token.
    #[arg(long, value_name = "FILE", value_parser = answers::path, group = "hec_token", requires = "hec_url")]
    hec_token_file: Option<PathBuf>,
    /// Environment variable that holds the HEC token.
    #[arg(long, value_name = "NAME", value_parser = answers::variable, group = "hec_token", requires = "hec_url")]
    hec_token_env: Option<String>,
    /// PEM file with the authority that signed Splunk's certificate.
    #[arg(long, value_name = "FILE", value_parser = answers::path, requires = "hec_url")]
    hec_ca_file: Option<PathBuf>,
    /// Syslog receiver, host and port.
    #[arg(long, value_name = "ADDRESS", value_parser = answers::host_and_port)]
    syslog: Option<String>,
    /// tls, relp_tls, relp, tcp or udp.
    #[arg(long, value_name = "HOW", value_parser = answers::transport, requires = "syslog")]
    syslog_transport: Option<SyslogTransport>,
    /// PEM file with the authority that signed the syslog receiver's certificate.
    #[arg(long, value_name = "FILE", value_parser = answers::path, requires = "syslog")]
    syslog_ca_file: Option<PathBuf>,
    /// File of JSON lines; `{tenant}` and `{kind}` in its name give a file for each.
    #[arg(long, value_name = "FILE", value_parser = answers::path)]
    ndjson: Option<PathBuf>,
    /// Standard output.
    #[arg(long)]
    stdout: bool,
    /// Forwards raw records besides findings.
    #[arg(long)]
    events: bool,
}

impl ReceiverArgs {
    pub(super) fn answers(
        &self,
        interview: &mut Interview<'_>,
    ) -> Result<Option<Receivers>, Failure> {
        let named =
            self.hec_url.is_some() || self.syslog.is_some() || self.ndjson.is_some() || self.stdout;
        let mut kinds: Vec<String> = Vec::new();
        if !named {
            let chosen = interview.value(
                None,
                Question {
                    flag: "a receiver (--hec-url URL, --syslog ADDRESS, --ndjson FILE or --stdout)",
                    text: "Findings go to splunk, syslog, file or stdout (several with commas)",
                    default: None,
                },
                chosen_kinds,
            )?;
            let Some(chosen) = chosen else {
                return Ok(None);
            };
            kinds = chosen;
        }
        let wants = |kind: &str| kinds.iter().any(|chosen| chosen == kind);
        let mut receivers = Receivers {
            stdout: self.stdout || wants("stdout"),
            ..Receivers::default()
        };
        if self.hec_url.is_some() || wants("splunk") {
            receivers.splunk = self.ask_splunk(interview)?;
        }
        if self.syslog.is_some() || wants("syslog") {
            receivers.syslog = self.ask_syslog(interview)?;
        }
        if self.ndjson.is_some() || wants("file") {
            receivers.ndjson = interview.value(
                self.ndjson.clone(),
                Question {
                    flag: "--ndjson FILE",
                    text: "  File of JSON lines",
                    default: Some("out/{tenant}-{kind}.ndjson"),
                },
                answers::path,
            )?;
        }
        receivers.events = self.events
            || interview.yes(
                Question {
                    flag: "--events",
                    text: "Forward the raw records, too (y/n)",
                    default: Some("n"),
                },
                false,
            )?;
        Ok(Some(receivers))
    }

    fn ask_splunk(&self, interview: &mut Interview<'_>) -> Result<Option<Splunk>, Failure> {
        let url = interview.value(
            self.hec_url.clone(),
            Question {
                flag: "--hec-url URL",
                text: "  URL of the HTTP Event Collector (https://host:8088)",
                default: None,
            },
            answers::url,
        )?;
        let token = interview.value(
            source(self.hec_token_file.as_ref(), self.hec_token_env.as_ref()),
            Question {
                flag: "--hec-token-file FILE or --hec-token-env NAME",
                text: "  File for the HEC token (may not be there yet), or env:NAME",
                default: interview.asks().then_some("secrets/hec-token"),
            },
            answers::secret_place,
        )?;
        let ca_file = self.hec_ca_file.clone();
        let both = url.zip(token);
        Ok(both.map(|(url, token)| Splunk {
            url,
            token,
            ca_file,
        }))
    }

    fn ask_syslog(&self, interview: &mut Interview<'_>) -> Result<Option<Syslog>, Failure> {
        let address = interview.value(
            self.syslog.clone(),
            Question {
                flag: "--syslog ADDRESS",
                text: "  Syslog receiver (host:port)",
                default: None,
            },
            answers::host_and_port,
        )?;
        let transport = interview.value(
            self.syslog_transport,
            Question {
                flag: "--syslog-transport HOW",
                text: "  Transport: tls, relp_tls, relp, tcp or udp",
                default: Some("tls"),
            },
            answers::transport,
        )?;
        let ca_file = self.syslog_ca_file.clone();
        let both = address.zip(transport);
        Ok(both.map(|(address, transport)| Syslog {
            address,
            transport,
            ca_file,
        }))
    }
}

fn chosen_kinds(given: &str) -> Result<Vec<String>, String> {
    let given = answers::text(given)?.to_lowercase();
    let kinds: Vec<String> = given
        .split([',', ' '])
        .filter(|kind| !kind.is_empty())
        .map(str::to_owned)
        .collect();
    match kinds.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
        Some(unknown) => Err(format!("{unknown} is none of {}", KINDS.join(", "))),
        None => Ok(kinds),
    }
}
