use std::fs;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clap::{CommandFactory, Parser};
use exfilwatch_config::{Config, ConnectorOptions, InternalDomains, Sources};
use exfilwatch_emitters::options::EmitterOptions;

use super::*;
use crate::cli::{Args, Command};

const TENANT_ID: &str = "01234567-89ab-cdef-0123-456789abcdef";
const CLIENT_ID: &str = "fedcba98-7654-3210-fedc-ba9876543210";

fn parse(folder: &Path, flags: &[&str]) -> (InitArgs, Common) {
    let config = folder.join("exfilwatch.toml");
    let mut all = vec!["exfilwatch", "init", "--config", config.to_str().unwrap()];
    all.extend(flags);
    let args = Args::try_parse_from(&all).unwrap_or_else(|error| panic!("{all:?}: {error}"));
    match args.command {
        Command::Init(init) => (*init, args.common),
        other => panic!("{other:?}"),
    }
}

/// Runs with flags alone, and gives what is to be done.
fn with_flags(folder: &Path, flags: &[&str]) -> Result<Vec<Section>, Failure> {
    let (args, common) = parse(folder, flags);
    let (files, sections) = prepare(&args, &common, Asking::Nobody)?;
    place::place(&files, args.force)?;
    Ok(sections)
}

/// Runs with typed answers; gives what was shown besides.
fn with_answers(
    folder: &Path,
    flags: &[&str],
    typed: &str,
) -> (Result<Vec<Section>, Failure>, String) {
    let (args, common) = parse(folder, flags);
    let mut shown = Vec::new();
    let asking = Asking::Terminal {
        input: &mut Cursor::new(typed.as_bytes()),
        output: &mut shown,
    };
    let outcome = prepare(&args, &common, asking).and_then(|(files, sections)| {
        place::place(&files, args.force)?;
        Ok(sections)
    });
    (outcome, String::from_utf8(shown).unwrap())
}

fn load(folder: &Path) -> Config {
    let sources = Sources {
        file: Some(folder.join("exfilwatch.toml")),
        ..Sources::default()
    };
    let config = exfilwatch_config::load(&sources).unwrap();
    assert!(config.disabled.is_empty(), "{:?}", config.disabled);
    config
}

fn text_of(folder: &Path) -> (String, String) {
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    (read("exfilwatch.toml"), read("tenants.d/contoso.toml"))
}

const MICROSOFT: [&str; 4] = ["--tenant-id", TENANT_ID, "--client-id", CLIENT_ID];

const OFFICE365: [&str; 4] = [
    "--client-secret-file secrets/o365",
    "--client-secret-env O365_SECRET --cloud gcc-high",
    "--certificate app.pem --dlp",
    "--certificate a.crt --certificate-key a.key --shared-app",
];
const GOOGLE: [&str; 3] = [
    "--subject a@contoso.example --service-account-file k.json",
    "--subject a@contoso.example --service-account-env KEY",
    "--oauth-client-id 1-x.apps.googleusercontent.com --oauth-client-secret-file s",
];
const RECEIVERS: [(&str, &[&str]); 5] = [
    (
        "--hec-url https://splunk.example:8088 --hec-token-env T",
        &["splunk_hec"],
    ),
    (
        "--hec-url https://s.example:8088 --hec-token-file t --hec-ca-file c.pem --events",
        &["splunk_hec"],
    ),
    (
        "--syslog soc.example:6514 --syslog-transport udp",
        &["syslog"],
    ),
    (
        "--ndjson out/{tenant}.ndjson --stdout",
        &["ndjson", "stdout"],
    ),
    ("--stdout", &["stdout"]),
];

#[test]
fn what_is_written_is_accepted_for_each_combination() {
    let mut count = 0;
    for microsoft in OFFICE365.into_iter().chain([""]) {
        for google in GOOGLE.into_iter().chain([""]) {
            for (receiver, kinds) in RECEIVERS {
                if microsoft.is_empty() && google.is_empty() {
                    continue;
                }
                let folder = tempfile::tempdir().unwrap();
                let mut flags = vec!["--yes", "--tenant", "contoso"];
                if !microsoft.is_empty() {
                    flags.extend(MICROSOFT);
                }
                for more in [microsoft, google, receiver] {
                    flags.extend(more.split_whitespace());
                }
                with_flags(folder.path(), &flags).unwrap_or_else(|f| panic!("{flags:?}: {f}"));
                let config = load(folder.path());
                let connectors = [microsoft, google].iter().filter(|c| !c.is_empty()).count();
                assert_eq!(config.connectors.len(), connectors, "{flags:?}");
                let made: Vec<&str> = config.emitters.iter().map(|e| e.options.kind()).collect();
                assert_eq!(made, kinds, "{flags:?}");
                count += 1;
            }
        }
    }
    assert_eq!(count, 95);
}

#[test]
fn answers_reach_the_keys_they_are_meant_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (secret, token) = (path("secrets/o365"), path("token"));
    let mut flags = vec![
        "--yes",
        "--tenant",
        "con.toso",
        "--internal-domain",
        "contoso.example",
    ];
    flags.extend(MICROSOFT);
    flags.extend([
        "--cloud",
        "dod",
        "--client-secret-file",
        &secret,
        "--events",
    ]);
    flags.extend([
        "--subject",
        "a@contoso.example",
        "--service-account-file",
        "/keys/g.json",
    ]);
    flags.extend([
        "--hec-url",
        "https://splunk.example:8088/",
        "--hec-token-file",
        &token,
    ]);
    with_flags(folder.path(), &flags).unwrap();
    let config = load(folder.path());
    let (alias, tenant) = config.tenants.first_key_value().unwrap();
    assert_eq!(alias.as_str(), "con.toso");
    assert_eq!(
        tenant.internal_domains,
        InternalDomains::List(vec!["contoso.example".into()])
    );
    for connector in &config.connectors {
        match &connector.options {
            ConnectorOptions::Office365(options) => {
                assert_eq!(options.tenant_id.as_deref(), Some(TENANT_ID));
                assert_eq!(options.client_id.as_deref(), Some(CLIENT_ID));
                assert_eq!(serde_json::to_value(options.cloud).unwrap(), "dod");
                let shown = format!("{:?}", options.client_secret);
                // Written relative to the tenant's file, read as the file that was named.
                assert!(shown.contains("tenants.d/../secrets/o365"), "{shown}");
                assert_eq!(options.content_types.as_ref().unwrap().len(), 4);
            }
            ConnectorOptions::GoogleWorkspace(options) => {
                assert_eq!(options.subject.as_deref(), Some("a@contoso.example"));
                assert!(format!("{:?}", options.service_account).contains("\"/keys/g.json\""));
            }
        }
    }
    let EmitterOptions::SplunkHec(splunk) = &config.emitters[0].options else {
        panic!("{:?}", config.emitters);
    };
    assert_eq!(splunk.url.as_str(), "https://splunk.example:8088/");
    assert!(format!("{:?}", splunk.send).contains("Events"));
    assert!(format!("{:?}", splunk.token).contains(&token));
}

#[test]
fn questions_and_flags_give_the_same_files() {
    let asked = tempfile::tempdir().unwrap();
    // A wrong answer is explained and asked for again.
    let typed = format!(
        "contoso\ny\nmoon\ngcc\nnot a guid\n{TENANT_ID}\n{CLIENT_ID}\nn\nenv:O365_SECRET\ny\n\
         y\ny\nenv:GOOGLE_KEY\nnobody\na@contoso.example\ncontoso.example, contoso.net\n\
         pigeon\nsplunk,syslog,file\nhttps://splunk.example:8088\nenv:HEC_TOKEN\n\
         soc.example:6514\n\nout.ndjson\ny\n"
    );
    let (outcome, shown) = with_answers(asked.path(), &[], &typed);
    outcome.unwrap_or_else(|failure| panic!("{failure}\n{shown}"));
    for complaint in [
        "expected commercial, gcc, gcc-high or dod",
        "expected a GUID",
        "expected an e-mail address",
        "pigeon is none of splunk, syslog, file, stdout",
    ] {
        assert!(shown.contains(complaint), "{complaint}:\n{shown}");
    }
    let flagged = tempfile::tempdir().unwrap();
    let mut flags = vec!["--yes", "--tenant", "contoso", "--cloud", "gcc"];
    flags.extend(MICROSOFT);
    flags.extend(["--client-secret-env", "O365_SECRET", "--dlp"]);
    flags.extend([
        "--subject",
        "a@contoso.example",
        "--service-account-env",
        "GOOGLE_KEY",
    ]);
    flags.extend([
        "--internal-domain",
        "contoso.example",
        "--internal-domain",
        "contoso.net",
    ]);
    flags.extend([
        "--hec-url",
        "https://splunk.example:8088",
        "--hec-token-env",
        "HEC_TOKEN",
    ]);
    flags.extend([
        "--syslog",
        "soc.example:6514",
        "--ndjson",
        "out.ndjson",
        "--events",
    ]);
    with_flags(flagged.path(), &flags).unwrap();
    assert_eq!(text_of(asked.path()), text_of(flagged.path()));
}

#[test]
fn empty_answers_take_the_defaults_and_flags_answer_their_questions() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--tenant", "contoso", "--stdout"];
    let typed = format!("\n\n{TENANT_ID}\n{CLIENT_ID}\n\n\n\n\n\n\n");
    let (outcome, shown) = with_answers(folder.path(), &flags, &typed);
    outcome.unwrap_or_else(|failure| panic!("{failure}\n{shown}"));
    assert!(!shown.contains("Short name"), "{shown}");
    let (main, tenant) = text_of(folder.path());
    assert!(tenant.contains("internal_domains = \"auto\""), "{tenant}");
    assert!(tenant.contains("certificate = { file = "), "{tenant}");
    assert!(!tenant.contains("google_workspace"), "{tenant}");
    assert!(main.contains("[emitters.stdout.console]"), "{main}");
}

#[test]
fn an_input_that_ends_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (outcome, _) = with_answers(folder.path(), &[], "contoso\ny\n");
    let failure = outcome.unwrap_err();
    assert_eq!(failure.code, Code::Usage);
    assert!(failure.message.contains("nothing was written"), "{failure}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn without_questions_everything_that_is_missing_is_named_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let failure = with_flags(folder.path(), &["--yes", "--cloud", "gcc"]).unwrap_err();
    assert_eq!(failure.code, Code::Usage);
    for flag in [
        "--tenant NAME",
        "--tenant-id GUID",
        "--client-id GUID",
        "--client-secret-file FILE",
        "--hec-url URL",
    ] {
        assert!(failure.message.contains(flag), "{flag}: {failure}");
    }
    let failure = with_flags(folder.path(), &["--yes", "--tenant", "a", "--stdout"]).unwrap_err();
    assert!(failure.message.contains("a connector"), "{failure}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn files_are_the_owners_alone_and_never_replaced_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let mut flags = vec![
        "--yes",
        "--tenant",
        "contoso",
        "--certificate",
        "a.pem",
        "--stdout",
    ];
    flags.extend(MICROSOFT);
    with_flags(folder.path(), &flags).unwrap();
    let mode = |name: &str| {
        let metadata = fs::metadata(folder.path().join(name)).unwrap();
        metadata.permissions().mode() & 0o7777
    };
    assert_eq!(mode("exfilwatch.toml"), 0o600);
    assert_eq!(mode("tenants.d/contoso.toml"), 0o600);
    assert_eq!(mode("tenants.d"), 0o700);

    let before = text_of(folder.path());
    // The main file stays, so receivers would be lost silently.
    let failure = with_flags(folder.path(), &flags).unwrap_err();
    assert!(failure.message.contains("is there already"), "{failure}");
    // Without receivers it is one more tenant, whose file is there.
    let mut again = vec!["--yes", "--tenant", "contoso", "--certificate", "b.pem"];
    again.extend(MICROSOFT);
    let failure = with_flags(folder.path(), &again).unwrap_err();
    assert!(
        failure.message.contains("contoso.toml is there already"),
        "{failure}"
    );
    assert_eq!(text_of(folder.path()), before);

    again.push("--force");
    with_flags(folder.path(), &again).unwrap();
    let after = text_of(folder.path());
    assert_eq!(after.0, before.0, "the main file has no part in this");
    assert_ne!(after.1, before.1);
    assert_eq!(mode("tenants.d/contoso.toml"), 0o600);
    let left = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 2, "nothing is left beside");
}

#[test]
fn the_next_tenant_is_added_beside_and_uses_the_shared_application() {
    let folder = tempfile::tempdir().unwrap();
    let mut flags = vec![
        "--yes",
        "--tenant",
        "contoso",
        "--certificate",
        "a.pem",
        "--stdout",
    ];
    flags.extend(MICROSOFT);
    flags.push("--shared-app");
    with_flags(folder.path(), &flags).unwrap();
    let main = text_of(folder.path()).0;
    let other = "89abcdef-0123-4567-89ab-cdef01234567";
    let flags = ["--yes", "--tenant", "fabrikam", "--tenant-id", other];
    let sections = with_flags(folder.path(), &flags).unwrap();
    assert_eq!(text_of(folder.path()).0, main);
    let config = load(folder.path());
    assert_eq!(config.tenants.len(), 2);
    for connector in &config.connectors {
        let ConnectorOptions::Office365(options) = &connector.options else {
            panic!("{connector:?}");
        };
        assert_eq!(options.client_id.as_deref(), Some(CLIENT_ID));
        assert!(options.certificate.is_some());
    }
    // What is left to do is the consent, with the shared application's id.
    let consent = format!("/{other}/adminconsent?client_id={CLIENT_ID}");
    assert!(sections[0].steps[0].contains(&consent), "{sections:?}");
}

#[test]
fn a_main_file_that_would_not_read_the_tenant_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("exfilwatch.toml"),
        "[emitters.stdout.a]\n",
    )
    .unwrap();
    let mut flags = vec!["--yes", "--tenant", "contoso", "--certificate", "a.pem"];
    flags.extend(MICROSOFT);
    let failure = with_flags(folder.path(), &flags).unwrap_err();
    assert!(failure.message.contains("does not include"), "{failure}");
    assert!(
        failure
            .help
            .unwrap()
            .contains("include = [\"tenants.d/*.toml\"]")
    );
    assert!(!folder.path().join("tenants.d").exists());
}

#[test]
fn what_the_configuration_refuses_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut flags = vec![
        "--yes",
        "--tenant",
        "contoso",
        "--certificate",
        "a.pem",
        "--stdout",
    ];
    flags.extend(MICROSOFT);
    flags.extend(["--internal-domain", "co.uk"]);
    let failure = with_flags(folder.path(), &flags).unwrap_err();
    assert!(failure.message.contains("public suffix"), "{failure}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn steps_name_roles_consent_scopes_and_the_next_command() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("google.json");
    fs::write(
        &key,
        r#"{"client_id": "103456789012345678901", "type": "service_account"}"#,
    )
    .unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let mut flags = vec!["--yes", "--tenant", "contoso", "--stdout", "--dlp"];
    flags.extend(MICROSOFT);
    flags.extend(["--certificate", "secrets of mine/app.pem"]);
    flags.extend(["--subject", "a@contoso.example", "--service-account-file"]);
    flags.push(key.to_str().unwrap());
    let sections = with_flags(folder.path(), &flags).unwrap();
    let (args, _) = parse(folder.path(), &flags);
    let shown = text(&args, &[], &sections);
    for part in [
        "ActivityFeed.Read\n",
        "ActivityFeed.ReadDlp",
        "AuditLogsQuery.Read.All",
        "Domain.Read.All",
        &format!(
            "https://login.microsoftonline.com/{TENANT_ID}/adminconsent?client_id={CLIENT_ID}"
        ),
        "-keyout 'secrets of mine/app.pem' -out 'secrets of mine/app.pem'",
        "Set-AdminAuditLogConfig -UnifiedAuditLogIngestionEnabled $true",
        "gcloud services enable admin.googleapis.com",
        "Client ID: 103456789012345678901",
        "https://www.googleapis.com/auth/admin.reports.audit.readonly",
        "https://www.googleapis.com/auth/admin.directory.domain.readonly",
        "24 hours",
        "a@contoso.example",
        "exfilwatch doctor",
    ] {
        assert!(shown.contains(part), "{part}:\n{shown}");
    }
    // The government clouds have other hosts, and no audit-log query.
    let other = tempfile::tempdir().unwrap();
    let mut flags = vec![
        "--yes", "--tenant", "contoso", "--stdout", "--cloud", "gcc-high",
    ];
    flags.extend(MICROSOFT);
    flags.extend(["--client-secret-env", "S"]);
    let sections = with_flags(other.path(), &flags).unwrap();
    let shown = text(&args, &[], &sections);
    assert!(
        shown.contains("https://login.microsoftonline.us/"),
        "{shown}"
    );
    assert!(shown.contains("O365USGovGCCHigh"), "{shown}");
    assert!(!shown.contains("AuditLogsQuery"), "{shown}");
    assert!(!shown.contains("ReadDlp"), "{shown}");
}

#[test]
fn a_dry_run_shows_the_files_and_writes_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut flags = vec!["--yes", "--tenant", "contoso", "--stdout", "--dry-run"];
    flags.extend(MICROSOFT);
    flags.extend(["--client-secret-env", "S"]);
    let (args, common) = parse(folder.path(), &flags);
    let (files, sections) = prepare(&args, &common, Asking::Nobody).unwrap();
    let shown = text(&args, &files, &sections);
    assert!(shown.contains("[connectors.office365.contoso]"), "{shown}");
    let json = report(&args, Output::Json, &files, &sections).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["written"], false);
    assert!(
        json["files"][0]["text"]
            .as_str()
            .unwrap()
            .contains("tenant_id")
    );
    carry_out(&args, &common, Asking::Nobody).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn no_flag_takes_a_secret() {
    let command = Args::command();
    let init = command.find_subcommand("init").unwrap();
    let about_secrets = ["secret", "token", "key", "password", "account"];
    for flag in init.get_arguments().filter_map(|flag| flag.get_long()) {
        if about_secrets.iter().any(|word| flag.contains(word)) {
            let place = flag.ends_with("-file") || flag.ends_with("-env");
            assert!(place || flag == "certificate-key", "--{flag}");
        }
    }
    // A secret given for the name of a variable is refused, unless it looks like one.
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("x.toml");
    let given = [
        "exfilwatch",
        "init",
        "-c",
        config.to_str().unwrap(),
        "--client-secret-env",
        "8Q~x",
    ];
    assert!(Args::try_parse_from(given).is_err());
}
