//! A simulator for clients that are not ours: `exfilwatch-simulator FOLDER`.
//!
//! It serves one day of one tenant over TLS, by the machine's clock, and writes the credentials and
//! the answer sheet into the folder. One line of JSON on standard output says where everything is.
//! It ends when its standard input ends, so that it cannot outlive whoever started it.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a program for the command line"
)]

use std::error::Error;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chrono::TimeDelta;
use exfilwatch_simulator::clock::real_now;
use exfilwatch_simulator::google::{SCOPE_ALERTS, SCOPE_AUDIT};
use exfilwatch_simulator::microsoft::{MicrosoftOptions, ROLE_AUDIT_ALL, ROLE_DOMAINS};
use exfilwatch_simulator::{Record, Running, Simulator, SimulatorOptions, World, WorldOptions};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// How long ago the simulated day ended: long enough for everything to be visible, so that what a
/// client sees does not depend on when it looks; short enough for nothing to have expired.
const ENDED: TimeDelta = TimeDelta::days(3);
const SEED: u64 = 5;
/// Few, so that a day has several pages.
const LISTING_PAGE_ITEMS: usize = 20;

/// Alerts in the Alert Center.
const ALERTS: usize = 7;

type Failure = Box<dyn Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: exfilwatch-simulator FOLDER (for credentials and the answer sheet)");
        return ExitCode::from(2);
    };
    match serve(&PathBuf::from(folder)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(why) = cause {
                eprintln!("  because: {why}");
                cause = why.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn serve(folder: &Path) -> Result<(), Failure> {
    let now = real_now();
    let until = now - ENDED;
    let world = World::invent(WorldOptions::new(SEED, until - TimeDelta::days(1), until));
    let options = SimulatorOptions {
        start: Some(now),
        rate: 1.0,
        microsoft: MicrosoftOptions {
            page_items: LISTING_PAGE_ITEMS,
            ..MicrosoftOptions::default()
        },
        https: true,
        ..SimulatorOptions::default()
    };
    let simulator = Simulator::new(world, options)?;
    let alerts = prepare(&simulator)?;
    let running = simulator.start().await?;
    std::fs::create_dir_all(folder)
        .map_err(|error| format!("creating {}: {error}", folder.display()))?;
    println!("{}", description(&running, folder, &alerts)?);
    tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await?;
    running.shutdown().await;
    Ok(())
}

/// What an administrator would do before, and some alerts; gives their ids.
fn prepare(simulator: &Simulator) -> Result<Vec<String>, Failure> {
    simulator
        .google()
        .set_delegated_scopes(&[SCOPE_AUDIT, SCOPE_ALERTS]);
    simulator
        .microsoft()
        .set_graph_roles(&[ROLE_AUDIT_ALL, ROLE_DOMAINS]);
    simulator.microsoft().change_graph(|habits| {
        (habits.queued_seconds, habits.running_seconds) = (1, 1);
    });
    let tenants = simulator.world().tenants();
    let tenant = tenants.first().ok_or("the world has no tenant")?;
    let warned = tenant.people.iter().cycle().take(ALERTS);
    let alerts = warned.map(|person| {
        let data = json!({
            "@type": "type.googleapis.com/google.apps.alertcenter.type.AccountWarning",
            "email": person.email,
            "loginDetails": { "ipAddress": "203.0.113.7" },
        });
        let (kind, source) = ("Suspicious login", "Google identity");
        let google = simulator.google();
        google
            .raise_alert(&tenant.alias, kind, source, data)
            .ok_or_else(|| Failure::from("an alert could not be raised"))
    });
    alerts.collect()
}

/// Writes the files, and says where they and the services are.
fn description(running: &Running, folder: &Path, alerts: &[String]) -> Result<Value, Failure> {
    let credentials = running.simulator.credentials();
    let (microsoft, google) = (&credentials.microsoft, &credentials.google);
    let tenant = running
        .simulator
        .world()
        .tenants()
        .first()
        .ok_or("the world has no tenant")?;
    let people: Vec<&str> = tenant.people.iter().map(|p| p.email.as_str()).collect();
    let admin = &tenant.admin().email;
    let file = |name: &str, content: &str| written(folder, name, content);
    let certificate_and_key = format!("{}{}", microsoft.certificate_pem, microsoft.private_key_pem);
    Ok(json!({
        "ca_file": file("ca.pem", &running.ca_pem)?,
        "sheet_file": sheet(running, folder)?,
        "tenant": tenant.alias,
        "domain": tenant.domain,
        "people": people,
        "admin": admin,
        "microsoft": {
            "url": running.microsoft_url,
            "tenant_id": tenant.tenant_id,
            "client_id": microsoft.client_id,
            "client_secret_file": file("client-secret", &microsoft.client_secret)?,
            "certificate_file": file("certificate.pem", &microsoft.certificate_pem)?,
            "private_key_file": file("private-key.pem", &microsoft.private_key_pem)?,
            "certificate_and_key_file": file("certificate-and-key.pem", &certificate_and_key)?,
        },
        "google": {
            "url": running.google_url,
            "alerts": alerts,
            "service_account_file": file("service-account.json", &running.service_account_json())?,
            "installed_client_id": google.installed_client_id,
            "installed_client_secret_file":
                file("installed-client-secret", &google.installed_client_secret)?,
            "refresh_token_file": file("refresh-token", &google.refresh_token(admin))?,
        },
    }))
}

/// The records of the answer sheet, one a line, in its order.
fn sheet(running: &Running, folder: &Path) -> Result<PathBuf, Failure> {
    let path = folder.join("sheet.ndjson");
    let mut file = BufWriter::new(private(&path)?);
    for record in &running.simulator.sheet().records {
        let Record { stream, id, .. } = record;
        let line = json!({
            "stream": **stream,
            "id": id,
            "event_ms": record.event_ms,
            "visible_from_ms": record.visible_from_ms,
            "listable_until_ms": record.listable_until_ms,
        });
        let body: &RawValue = serde_json::from_slice(&record.body)?;
        writeln!(file, "{{\"about\":{line},\"body\":{body}}}")?;
    }
    file.flush()?;
    Ok(path)
}

fn written(folder: &Path, name: &str, content: &str) -> Result<PathBuf, Failure> {
    let path = folder.join(name);
    private(&path)?.write_all(content.as_bytes())?;
    Ok(path)
}

/// A file that only its owner may read: programs refuse secrets that others may.
fn private(path: &Path) -> Result<std::fs::File, Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let described = |error: io::Error| format!("writing {}: {error}", path.display());
    Ok(options.open(path).map_err(described)?)
}
