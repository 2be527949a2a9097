//! Layers: what wins, where it came from, and that one bad tenant file stays alone.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use exfilwatch_config::{
    Config, ConfigError, ConnectorOptions, INCLUDED_FILES_MAX, InternalDomains, Sources, load,
};
use exfilwatch_emitters::options::EmitterOptions;
use exfilwatch_model::{SecretSource, TenantId};
use tempfile::TempDir;

const GUID: &str = "01234567-89ab-cdef-0123-456789abcdef";

const MAIN: &str = r#"include = ["tenants.d/*.toml"]

[defaults.office365]
client_id = "GUID"
certificate = { file = "app.pem" }
poll_interval_seconds = 120

[emitters.stdout.main]
"#;

fn tenant(name: &str) -> String {
    format!(
        "[tenants.{name}]\ninternal_domains = [\"{name}.example\"]\n\
         [connectors.office365.{name}]\ntenant = \"{name}\"\ntenant_id = \"GUID\"\n"
    )
}

/// Writes `files` (the first is the main file) and loads them.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tenants.d")).unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text.replace("GUID", GUID)).unwrap();
    }
    folder
}

fn load_with(
    folder: &Path,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Config, ConfigError> {
    let owned = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
    load(&Sources {
        file: Some(folder.join("main.toml")),
        environment: environment.iter().map(owned).collect::<BTreeMap<_, _>>(),
        flags: flags.iter().map(owned).collect(),
    })
}

/// Lines with the folder cut out of the paths.
fn plain<T: ToString>(folder: &Path, items: &[T]) -> String {
    let prefix = format!("{}/", folder.display());
    let lines = items
        .iter()
        .map(|item| item.to_string().replace(&prefix, ""));
    lines.collect::<Vec<_>>().join("\n")
}

fn aliases(config: &Config) -> Vec<&str> {
    config.tenants.keys().map(TenantId::as_str).collect()
}

#[test]
fn without_a_file_only_defaults_environment_and_flags_count() {
    let config = load(&Sources::default()).unwrap();
    assert!(config.tenants.is_empty() && config.connectors.is_empty());
    assert_eq!(config.state.folder, Path::new("exfilwatch-state"));
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let text = "[run]\nfirst_read_days = 1\n[state]\nfolder = \"kept\"\n[serve]\nlisten = \"127.0.0.1:1\"\n";
    let folder = folder(&[("main.toml", text)]);
    let config = load_with(
        folder.path(),
        &[
            ("EXFILWATCH__run__first_read_days", "2"),
            ("EXFILWATCH__run__heartbeat_interval_seconds", "20"),
            (
                "EXFILWATCH__emitters__stdout__main__send",
                "[\"findings\", \"signals\"]",
            ),
            ("HOME", "/root"),
        ],
        &[("run.first_read_days", "3"), ("detectors.enabled", "false")],
    )
    .unwrap();
    insta::assert_snapshot!(plain(folder.path(), config.show()), @r#"
    detectors.disabled = []  # default
    detectors.enabled = false  # flag
    detectors.packs = ["exfil"]  # default
    emitters.stdout.main.send = ["findings","signals"]  # env EXFILWATCH__emitters__stdout__main__send
    run.first_read_days = 3  # flag
    run.gap_warning_hours = 24  # default
    run.heartbeat_interval_seconds = 20  # env EXFILWATCH__run__heartbeat_interval_seconds
    run.shutdown_timeout_seconds = 30  # default
    run.silence_hours_min = 24  # default
    serve.finding_wait_seconds_max = 300  # default
    serve.listen = "127.0.0.1:1"  # main.toml:6
    state.folder = "kept"  # main.toml:4
    state.outbox_bytes_max = 10737418240  # default
    "#);
}

#[test]
fn defaults_of_a_kind_lie_below_each_connector_and_its_own_way_of_signing_in_displaces_theirs() {
    let own = tenant("b") + "client_secret = { env = \"B_SECRET\" }\npoll_interval_seconds = 30\n";
    let files = [
        ("main.toml", MAIN),
        ("tenants.d/a.toml", &tenant("a")),
        ("tenants.d/b.toml", &own),
    ];
    let folder = folder(&files);
    let config = load_with(folder.path(), &[], &[]).unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let [a, b] = config.connectors.as_slice() else {
        panic!("{:?}", config.connectors)
    };
    let (ConnectorOptions::Office365(a), ConnectorOptions::Office365(b)) = (&a.options, &b.options)
    else {
        panic!("{config:?}")
    };
    let certificate = a.certificate.as_ref().unwrap();
    assert_eq!(certificate.file, folder.path().join("app.pem"));
    assert_eq!(a.client_secret, None);
    assert_eq!(b.certificate, None);
    let secret = serde_json::to_value(&b.client_secret).unwrap();
    assert_eq!(secret, serde_json::json!({ "env": "B_SECRET" }));
    assert_eq!(b.client_id.as_deref(), Some(GUID));
    let intervals: Vec<Duration> = config
        .connectors
        .iter()
        .map(|connector| connector.options.poll_interval())
        .collect();
    assert_eq!(intervals, [Duration::from_mins(2), Duration::from_secs(30)]);
    insta::assert_snapshot!(plain(folder.path(), config.show()), @r#"
    connectors.office365.a.audit_search = "v1.0"  # default
    connectors.office365.a.blob_bytes_max = 268435456  # default
    connectors.office365.a.certificate.assertion = "ps256"  # default
    connectors.office365.a.certificate.file = "app.pem"  # main.toml:5
    connectors.office365.a.client_id = "01234567-89ab-cdef-0123-456789abcdef"  # main.toml:4
    connectors.office365.a.cloud = "commercial"  # default
    connectors.office365.a.fetch_concurrency = 4  # default
    connectors.office365.a.poll_interval_seconds = 120  # main.toml:6
    connectors.office365.a.record_identity = "id"  # default
    connectors.office365.a.requests_per_minute = 1000  # default
    connectors.office365.a.tenant = "a"  # tenants.d/a.toml:4
    connectors.office365.a.tenant_id = "01234567-89ab-cdef-0123-456789abcdef"  # tenants.d/a.toml:5
    connectors.office365.b.audit_search = "v1.0"  # default
    connectors.office365.b.blob_bytes_max = 268435456  # default
    connectors.office365.b.client_id = "01234567-89ab-cdef-0123-456789abcdef"  # main.toml:4
    connectors.office365.b.client_secret.env = "B_SECRET"  # tenants.d/b.toml:6
    connectors.office365.b.cloud = "commercial"  # default
    connectors.office365.b.fetch_concurrency = 4  # default
    connectors.office365.b.poll_interval_seconds = 30  # tenants.d/b.toml:7
    connectors.office365.b.record_identity = "id"  # default
    connectors.office365.b.requests_per_minute = 1000  # default
    connectors.office365.b.tenant = "b"  # tenants.d/b.toml:4
    connectors.office365.b.tenant_id = "01234567-89ab-cdef-0123-456789abcdef"  # tenants.d/b.toml:5
    detectors.disabled = []  # default
    detectors.enabled = true  # default
    detectors.packs = ["exfil"]  # default
    emitters.stdout.main.send = ["findings"]  # default
    run.first_read_days = 7  # default
    run.gap_warning_hours = 24  # default
    run.heartbeat_interval_seconds = 300  # default
    run.shutdown_timeout_seconds = 30  # default
    run.silence_hours_min = 24  # default
    serve.finding_wait_seconds_max = 300  # default
    state.folder = "exfilwatch-state"  # default
    state.outbox_bytes_max = 10737418240  # default
    tenants.a.internal_domains = ["a.example"]  # tenants.d/a.toml:2
    tenants.a.lists.leaver_days = 30  # default
    tenants.a.partners = []  # default
    tenants.b.internal_domains = ["b.example"]  # tenants.d/b.toml:2
    tenants.b.lists.leaver_days = 30  # default
    tenants.b.partners = []  # default
    "#);
}

#[test]
fn one_bad_tenant_file_disables_its_tenant_only() {
    let misspelt = tenant("misspelt").replace("tenant_id", "tenantid");
    let orphan = tenant("orphan").replace("tenant = \"orphan\"", "tenant = \"nobody\"");
    let stray = format!("{}[state]\nfolder = \"elsewhere\"\n", tenant("stray"));
    let again = tenant("good").replace(
        "[connectors.office365.good]",
        "[connectors.office365.again]",
    );
    let files = [
        ("main.toml", MAIN),
        ("tenants.d/good.toml", &*tenant("good")),
        ("tenants.d/misspelt.toml", &*misspelt),
        ("tenants.d/orphan.toml", &*orphan),
        ("tenants.d/stray.toml", &*stray),
        ("tenants.d/twice.toml", &*again),
        ("tenants.d/.hidden.toml", "]"),
        ("tenants.d/readme.txt", "]"),
    ];
    let folder = folder(&files);
    let config = load_with(folder.path(), &[], &[]).unwrap();
    assert_eq!(aliases(&config), ["good"]);
    assert_eq!(config.connectors.len(), 1);
    assert_ne!(config.state.folder, Path::new("elsewhere"));
    let tenants: Vec<_> = config
        .disabled
        .iter()
        .map(|file| file.tenants.clone())
        .collect();
    assert_eq!(
        tenants,
        [vec!["misspelt"], vec!["orphan"], vec!["stray"], vec![]]
    );
    let problems: Vec<_> = config
        .disabled
        .iter()
        .flat_map(|file| &file.problems)
        .collect();
    insta::assert_snapshot!(plain(folder.path(), &problems), @r#"
    tenants.d/misspelt.toml:5:1: unknown key `tenantid` in [connectors.office365.misspelt] (did you mean `tenant_id`?)
    tenants.d/orphan.toml:4:10: there is no tenant `nobody` (known here: `good`, `misspelt`, `orphan`, `stray`)
    tenants.d/stray.toml:6:2: `state` may not stand in an included file (only [tenants.…] and [connectors.…]; the rest belongs in the main file)
    tenants.d/twice.toml:1:10: [tenants.good] is there already, at tenants.d/good.toml:1:10 (give it another name)
    "#);
    let shown = plain(folder.path(), config.show());
    assert!(!shown.contains("misspelt"), "{shown}");
}

#[test]
fn a_tenant_file_with_a_syntax_error_takes_along_what_names_its_tenant() {
    let main = format!(
        "{MAIN}[connectors.google_workspace.a]\ntenant = \"a\"\nsubject = \"x@a.example\"\n\
         service_account = {{ file = \"k\" }}\n"
    );
    let broken = tenant("a") + "cloud = \n";
    let files = [
        ("main.toml", &*main),
        ("tenants.d/a.toml", &*broken),
        ("tenants.d/b.toml", &*tenant("b")),
    ];
    let folder = folder(&files);
    let config = load_with(folder.path(), &[], &[]).unwrap();
    assert_eq!(aliases(&config), ["b"]);
    assert_eq!(config.disabled.len(), 1);
    insta::assert_snapshot!(plain(folder.path(), &config.warnings), @"main.toml:9:30: [connectors.google_workspace.a] is left out with its tenant `a`");
}

#[test]
fn a_tenant_file_that_is_not_text_leaves_the_others_running() {
    let files = [("main.toml", MAIN), ("tenants.d/b.toml", &*tenant("b"))];
    let folder = folder(&files);
    fs::write(folder.path().join("tenants.d/a.toml"), b"\xff").unwrap();
    let config = load_with(folder.path(), &[], &[]).unwrap();
    assert_eq!(aliases(&config), ["b"]);
    let problem = config.disabled.first().unwrap().problems.first().unwrap();
    assert_eq!(problem.what, "the file is not UTF-8 text at byte 0");
}

#[test]
fn what_is_wrong_in_the_main_file_or_around_it_stops_all_and_lists_the_bad_files_too() {
    let files = [
        ("main.toml", MAIN),
        (
            "tenants.d/a.toml",
            &*tenant("a").replace("tenant_id", "tenantid"),
        ),
    ];
    let folder = folder(&files);
    let error = load_with(
        folder.path(),
        &[
            ("EXFILWATCH__serve__listten", "127.0.0.1:1"),
            ("EXFILWATCH__state__folder__x", "1"),
            ("EXFILWATCH__include", "[]"),
            ("EXFILWATCH__emitters__splunk_hec__x__token", "hunter2"),
        ],
        &[("run.first_read_days", "many"), ("no path!", "1")],
    )
    .unwrap_err();
    assert!(!error.to_string().contains("hunter2"));
    insta::assert_snapshot!(plain(folder.path(), &error.problems), @r#"
    tenants.d/a.toml:5:1: unknown key `tenantid` in [connectors.office365.a] (did you mean `tenant_id`?)
    env EXFILWATCH__emitters__splunk_hec__x__token: `url` is missing in [emitters.splunk_hec.x]
    env EXFILWATCH__emitters__splunk_hec__x__token: a secret is written here (a secret never stands in the configuration: name where it is found, { file = "…" } or { env = "…" })
    env EXFILWATCH__include: `include` can only be set in the main file
    env EXFILWATCH__serve__listten: unknown key `listten` in [serve] (did you mean `listen`?)
    env EXFILWATCH__state__folder__x: `folder` is a single value, so nothing can be set below it
    flag no path!: not a path of the configuration (for example serve.listen)
    flag run.first_read_days: `first_read_days`: expected a whole number, 0 or more, found a string
    "#);
}

#[test]
fn a_path_of_many_parts_is_refused() {
    let folder = folder(&[("main.toml", "[emitters.stdout.main]\n")]);
    let name = format!("EXFILWATCH__{}", vec!["a"; 20_000].join("__"));
    let error = load_with(folder.path(), &[(&name, "1")], &[]).unwrap_err();
    let what = error.problems.first().unwrap().what.as_str();
    assert_eq!(what, "a path has at most 16 parts");
}

#[test]
fn flags_and_environment_reach_into_tenants_with_dots_and_into_secrets() {
    let text = "[tenants.\"a.b\"]\n[emitters.splunk_hec.main]\nurl = \"https://s.example\"\n";
    let folder = folder(&[("main.toml", text)]);
    let config = load_with(
        folder.path(),
        &[(
            "EXFILWATCH__emitters__splunk_hec__main__token",
            "{ env = \"HEC\" }",
        )],
        &[("tenants.\"a.b\".internal_domains", "[\"ab.example\"]")],
    )
    .unwrap();
    let tenant = config.tenants.values().next().unwrap();
    assert_eq!(
        tenant.internal_domains,
        InternalDomains::List(vec!["ab.example".into()])
    );
    assert!(tenant.domains(&[]).is_internal_domain("x.ab.example"));
    let EmitterOptions::SplunkHec(hec) = &config.emitters.first().unwrap().options else {
        panic!("{:?}", config.emitters)
    };
    assert_eq!(hec.token, SecretSource::Env("HEC".into()));
    let shown = plain(folder.path(), config.show());
    assert!(
        shown.contains("tenants.\"a.b\".internal_domains = [\"ab.example\"]  # flag"),
        "{shown}"
    );
    assert!(
        shown.contains(
            "main.token.env = \"HEC\"  # env EXFILWATCH__emitters__splunk_hec__main__token"
        ),
        "{shown}"
    );
}

#[test]
fn what_is_allowed_but_hardly_meant_is_a_warning() {
    let text = r#"[tenants.auto]
internal_domains = "auto"
[tenants.none]
[tenants.free]
internal_domains = ["gmail.com"]
"#;
    let folder = folder(&[("main.toml", text)]);
    let config = load_with(folder.path(), &[], &[]).unwrap();
    insta::assert_snapshot!(plain(folder.path(), &config.warnings), @r#"
    main.toml:1:1: no emitter is configured, so that nothing is delivered (add a table such as [emitters.splunk_hec.main] or [emitters.stdout.main])
    main.toml:1:10: no connector reads [tenants.auto]
    main.toml:3:10: no connector reads [tenants.none]
    main.toml:3:10: no internal domain is known in [tenants.none] (list the organisation's domains: internal_domains = ["contoso.example"], or ask the vendors for them: "auto")
    main.toml:4:10: no connector reads [tenants.free]
    main.toml:5:20: everyone with a mailbox at gmail.com counts as internal
    "#);
    let off = load_with(folder.path(), &[], &[("detectors.enabled", "false")]).unwrap();
    assert_eq!(off.warnings.len(), 4, "{:?}", off.warnings);
}

#[test]
fn domains_are_listed_or_asked_for_or_both() {
    let known = ["told.example".to_owned()];
    for (written, asks, listed, told) in [
        ("[\"listed.example\"]", false, true, false),
        ("\"auto\"", true, false, true),
        ("[\"auto\", \"listed.example\"]", true, true, true),
    ] {
        let text = format!("[tenants.contoso]\ninternal_domains = {written}\n");
        let folder = folder(&[("main.toml", &text)]);
        let config = load_with(folder.path(), &[], &[]).unwrap();
        let tenant = config.tenants.values().next().unwrap();
        assert_eq!(tenant.asks_for_domains(), asks, "{written}");
        let domains = tenant.domains(&known);
        assert_eq!(
            domains.is_internal_domain("listed.example"),
            listed,
            "{written}"
        );
        assert_eq!(
            domains.is_internal_domain("told.example"),
            told,
            "{written}"
        );
        assert!(!domains.is_internal_domain("auto"), "{written}");
    }
    let text = "[tenants.contoso]\npartners = [\"auto\"]\n";
    let folder = folder(&[("main.toml", text)]);
    assert!(
        load_with(folder.path(), &[], &[]).is_err(),
        "partners are never asked for"
    );
}

#[test]
fn more_files_than_the_limit_are_refused_before_any_is_read() {
    let folder = folder(&[("main.toml", MAIN)]);
    for number in 0..=INCLUDED_FILES_MAX {
        fs::write(folder.path().join(format!("tenants.d/{number}.toml")), "]").unwrap();
    }
    let error = load_with(folder.path(), &[], &[]).unwrap_err();
    assert_eq!(
        plain(folder.path(), &error.problems),
        "main.toml:1:12: more than 10000 files are included"
    );
}

#[test]
fn a_thousand_tenants_in_files_of_their_own_are_read_and_one_of_them_is_bad() {
    let folder = folder(&[("main.toml", MAIN)]);
    for number in 0..1_000 {
        let name = format!("t{number:04}");
        let text = tenant(&name).replace("GUID", if number == 500 { "none" } else { GUID });
        fs::write(folder.path().join(format!("tenants.d/{name}.toml")), text).unwrap();
    }
    let config = load_with(folder.path(), &[], &[]).unwrap();
    assert_eq!((config.tenants.len(), config.connectors.len()), (999, 999));
    let disabled: Vec<_> = config
        .disabled
        .iter()
        .map(|file| file.tenants.clone())
        .collect();
    assert_eq!(disabled, [["t0500"]]);
}
