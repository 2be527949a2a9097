//! Broken main files: each fault is reported at its own line, with a sentence that says what to do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use exfilwatch_config::{ConfigError, FILE_BYTES_MAX, Sources, load};

/// Ids that have the right form.
const GUID: &str = "01234567-89ab-cdef-0123-456789abcdef";

/// A secret that must never be repeated.
const CANARY: &str = "hunter2-canary-secret";

fn load_text(text: &str) -> Result<exfilwatch_config::Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("exfilwatch.toml");
    fs::write(&file, text).unwrap();
    load(&Sources {
        file: Some(file),
        ..Sources::default()
    })
}

/// Every problem as `line:column: what (help)`.
fn problems(text: &str) -> Vec<String> {
    let text = text.replace("GUID", GUID).replace("CANARY", CANARY);
    let error = load_text(&text).expect_err(&text);
    assert!(!error.to_string().contains(CANARY), "{error}");
    assert!(!format!("{error:?}").contains(CANARY));
    let lines = error.problems.iter().map(ToString::to_string);
    lines
        .map(|line| {
            let (_, place) = line.split_once("exfilwatch.toml:").unwrap();
            place.to_owned()
        })
        .collect()
}

/// A working connector, for cases about something else.
const CONTOSO: &str = r#"[tenants.contoso]
internal_domains = ["contoso.example"]
[connectors.office365.contoso]
tenant = "contoso"
tenant_id = "GUID"
client_id = "GUID"
client_secret = { env = "APP_SECRET" }
"#;

/// Cases: what it is about, the text after seven lines of [`CONTOSO`], and the one problem.
const AFTER_CONTOSO: &[(&str, &str, &str)] = &[
    (
        "an unclosed bracket",
        "[serve\nlisten = 1\n",
        "8:7: not valid TOML: ",
    ),
    (
        "a key without value",
        "[serve]\nlisten =\n",
        "9:9: not valid TOML: ",
    ),
    (
        "a key set twice",
        "[run]\nfirst_read_days = 1\nfirst_read_days = 2\n",
        "10:1: not valid TOML: duplicate key",
    ),
    (
        "an integer of more than 64 bits",
        "[run]\nfirst_read_days = 99999999999999999999\n",
        "9:19: this integer is too big",
    ),
    (
        "a misspelt section",
        "[sreve]\nlisten = \"127.0.0.1:1\"\n",
        "8:2: unknown section `sreve` (did you mean `serve`?)",
    ),
    (
        "an unknown section",
        "[zzz]\n",
        "8:2: unknown section `zzz` (known here: `defaults`, `tenants`, ",
    ),
    (
        "a misspelt key of a single table",
        "[serve]\nlissten = \"127.0.0.1:1\"\n",
        "9:1: unknown key `lissten` in [serve] (did you mean `listen`?)",
    ),
    (
        "an address that others can reach",
        "[serve]\nlisten = \"0.0.0.0:9464\"\n",
        "9:10: `listen`: only loopback addresses are served without password, as in 127.0.0.1:9464",
    ),
    (
        "an address without port",
        "[serve]\nlisten = \"localhost\"\n",
        "9:10: `listen`: expected address and port, as in 127.0.0.1:9464",
    ),
    (
        "a number in words",
        "[run]\nfirst_read_days = \"seven\"\n",
        "9:19: `first_read_days`: expected a whole number, 0 or more, found a string",
    ),
    (
        "a number out of range",
        "[run]\nfirst_read_days = 181\n",
        "9:19: 181 is out of range, expected a number from 0 to 180",
    ),
    (
        "a negative number",
        "[run]\nheartbeat_interval_seconds = -1\n",
        "9:30: -1 is out of range, expected a number from 10 to 86400",
    ),
    (
        "an outbox too small to work",
        "[state]\noutbox_bytes_max = 1000\n",
        "9:20: 1000 is out of range, expected a number of 16777216 or more",
    ),
    (
        "a string where true or false is meant",
        "[detectors]\nenabled = \"yes\"\n",
        "9:11: `enabled`: expected true or false, found a string",
    ),
    (
        "a number in a list of names",
        "[detectors]\ndisabled = [\"a\", 2]\n",
        "9:18: `disabled.1`: expected a string, found integer `2`",
    ),
    (
        "a date",
        "[state]\nfolder = 2026-01-01\n",
        "9:10: `folder`: no date is expected here; text stands in quotes",
    ),
    (
        "a misspelt kind of connector",
        "[connectors.ofice365.x]\ntenant = \"contoso\"\n",
        "8:13: unknown kind `ofice365` in [connectors] (did you mean `office365`?)",
    ),
    (
        "an unknown kind of emitter",
        "[emitters.kafka.x]\n",
        "8:11: unknown kind `kafka` in [emitters] (known here: `splunk_hec`, `syslog`, `ndjson`, `stdout`, `archive`, `webhook`)",
    ),
    (
        "an unknown kind of defaults",
        "[defaults.office]\n",
        "8:11: unknown kind `office` in [defaults] (known here: `office365`, ",
    ),
    (
        "an emitter without name",
        "[emitters.stdout]\nsend = [\"findings\"]\n",
        "9:1: `emitters.stdout.send` must be a table, found a list (members stand below a name: [emitters.stdout.NAME])",
    ),
    (
        "a name that cannot be used in keys",
        "[emitters.stdout.\"a b\"]\n",
        "8:18: name \"a b\" may only hold letters, digits, '.', '_', '-' and ':'",
    ),
    (
        "a misspelt kind of item",
        "[emitters.stdout.x]\nsend = [\"findings\", \"finding\"]\n",
        "9:21: `send.1`: unknown value `finding` (did you mean `findings`?)",
    ),
    (
        "an emitter without what it must have",
        "[emitters.syslog.x]\naddress = \"syslog.example:6514\"\n",
        "8:18: `transport` is missing in [emitters.syslog.x]",
    ),
    (
        "a URL that is none",
        "[emitters.splunk_hec.x]\nurl = \"splunk.example\"\ntoken = { env = \"T\" }\n",
        "9:7: `url`: relative URL without a base: \"…\"",
    ),
    (
        "a token written down",
        "[emitters.splunk_hec.x]\nurl = \"https://s.example\"\ntoken = \"CANARY\"\n",
        "10:9: a secret is written here (a secret never stands in the configuration: name where it is found, { file = \"…\" } or { env = \"…\" })",
    ),
    (
        "a token written down in the place of its variable",
        "[emitters.splunk_hec.x]\nurl = \"https://s.example\"\ntoken = { env = \"CANARY\" }\n",
        "10:17: `env` must be the name of an environment variable (",
    ),
    (
        "a token under another key",
        "[emitters.splunk_hec.x]\nurl = \"https://s.example\"\ntoken = { value = \"CANARY\" }\n",
        "10:11: unknown key `value` (a secret never stands in the configuration",
    ),
    (
        "a token in two places",
        "[emitters.splunk_hec.x]\nurl = \"https://s.example\"\ntoken = { env = \"T\", file = \"t\" }\n",
        "10:9: a secret must be named in exactly one way (",
    ),
    (
        "a secret in place of a word",
        "[emitters.syslog.x]\naddress = \"s.example:1\"\ntransport = \"CANARY\"\n",
        "10:13: `transport`: unknown value (known here: `udp`, `tcp`, `tls`, `relp`, `relp_tls`)",
    ),
    (
        "a secret in place of a number",
        "[run]\nfirst_read_days = \"CANARY\"\n",
        "9:19: `first_read_days`: expected a whole number, 0 or more, found a string",
    ),
    (
        "a secret in place of a URL",
        "[emitters.splunk_hec.x]\nurl = \"CANARY\"\ntoken = { env = \"T\" }\n",
        "9:7: `url`: relative URL without a base: \"…\"",
    ),
    (
        "a secret in place of an alias",
        "[connectors.google_workspace.g]\ntenant = \"CANARY!\"\nsubject = \"a@b.example\"\nservice_account = { file = \"k\" }\n",
        "9:10: `tenant`: name \"…\" may only hold letters",
    ),
    (
        "a list where a table is meant",
        "[emitters.splunk_hec.x]\nurl = \"https://s.example\"\ntoken = { env = \"T\" }\nindex = [\"a\"]\n",
        "11:9: `index`: ",
    ),
    (
        "two emitters with one name",
        "[emitters.stdout.x]\n[emitters.ndjson.x]\npath = \"x\"\n",
        "8:18: [emitters.stdout.x] has the same name as [emitters.ndjson.x] at ",
    ),
    (
        "two emitters that write one file",
        "[emitters.ndjson.x]\npath = \"x\"\n[emitters.ndjson.y]\npath = \"x\"\n",
        "10:18: [emitters.ndjson.y] writes the same place as [emitters.ndjson.x] at ",
    ),
    (
        "two connectors of a kind for one tenant",
        "[connectors.office365.other]\ntenant = \"contoso\"\ntenant_id = \"GUID\"\nclient_id = \"GUID\"\nclient_secret = { env = \"S\" }\n",
        "9:10: [connectors.office365.other] reads the same tenant as [connectors.office365.contoso] at ",
    ),
    (
        "a connector of a tenant that is not there",
        "[connectors.google_workspace.g]\ntenant = \"contosso\"\nsubject = \"a@b.example\"\nservice_account = { file = \"k\" }\n",
        "9:10: there is no tenant `contosso` (did you mean `contoso`?)",
    ),
    (
        "a connector without tenant",
        "[connectors.google_workspace.g]\nsubject = \"a@b.example\"\nservice_account = { file = \"k\" }\n",
        "8:30: `tenant` is missing in [connectors.google_workspace.g] (name a table of [tenants]: tenant = \"…\")",
    ),
    (
        "a service account without the administrator it reads for",
        "[connectors.google_workspace.g]\ntenant = \"contoso\"\nservice_account = { file = \"k\" }\n",
        "8:30: `subject` is missing in [connectors.google_workspace.g] (the administrator for whom",
    ),
    (
        "a subject that is no address",
        "[connectors.google_workspace.g]\ntenant = \"contoso\"\nsubject = \"admin\"\nservice_account = { file = \"k\" }\n",
        "10:11: `subject` must be the e-mail address of an administrator",
    ),
    (
        "a Google connector without credentials",
        "[connectors.google_workspace.g]\ntenant = \"contoso\"\nsubject = \"a@b.example\"\n",
        "8:30: `service_account` or `refresh_token` is missing in [connectors.google_workspace.g] (for example service_account = { file = \"…\" })",
    ),
    (
        "a refresh token written down",
        "[connectors.google_workspace.g]\ntenant = \"contoso\"\n[connectors.google_workspace.g.refresh_token]\nclient_id = \"x\"\nclient_secret = { env = \"S\" }\ntoken = \"CANARY\"\n",
        "13:9: a secret is written here (",
    ),
    (
        "a tenant with an unknown key",
        "[tenants.other]\ninternal_domain = [\"other.example\"]\n",
        "9:1: unknown key `internal_domain` in [tenants.other] (did you mean `internal_domains`?)",
    ),
    (
        "a domain that is a pattern",
        "[tenants.other]\ninternal_domains = [\"other.example\", \"*.other.example\"]\n",
        "9:38: `*.other.example` holds a `*` (what is below a domain belongs to it anyway: leave out `*.`)",
    ),
    (
        "a domain that is a URL",
        "[tenants.other]\ninternal_domains = [\"https://other.example\"]\n",
        "9:21: `https://other.example` is not a domain (only the part after the @, as in contoso.example)",
    ),
    (
        "a domain that everyone is below",
        "[tenants.other]\ninternal_domains = [\"co.uk\"]\n",
        "9:21: `co.uk` is a public suffix (",
    ),
    (
        "a word other than auto",
        "[tenants.other]\ninternal_domains = \"automatic\"\n",
        "9:20: `internal_domains`: expected a list of domains, or \"auto\"",
    ),
    (
        "a number among the domains",
        "[tenants.other]\ninternal_domains = [\"a.example\",\n  7]\n",
        "10:3: `internal_domains.1`: expected a string, found integer `7`",
    ),
    (
        "a tenant that is a value",
        "[tenants]\nother = \"other.example\"\n",
        "9:1: `tenants.other` must be a table, found a string (members stand below a name: [tenants.NAME])",
    ),
    (
        "a fault in the defaults, reported once",
        "[defaults.office365]\ncloud = \"gov\"\n",
        "9:9: `cloud`: unknown value (known here: `commercial`, `gcc`, `gcc-high`, `dod`)",
    ),
    (
        "a misspelt key of the defaults",
        "[defaults.splunk_hec]\ngzipp = true\n",
        "9:1: unknown key `gzipp` in [defaults.splunk_hec] (did you mean `gzip`?)",
    ),
];

#[test]
fn each_fault_has_its_line_and_sentence() {
    for (about, text, expected) in AFTER_CONTOSO {
        let found = problems(&format!("{CONTOSO}{text}"));
        assert_eq!(found.len(), 1, "{about}: {found:#?}");
        let what = found.first().unwrap();
        assert!(
            what.starts_with(expected),
            "{about}:\n got {what}\nwant {expected}"
        );
    }
}

/// Cases about the members of an office365 connector: which line of [`CONTOSO`] is changed to what.
const IN_CONTOSO: &[(&str, &str, &str, &str)] = &[
    (
        "a misspelt key",
        "tenant_id =",
        "tenantid =",
        "5:1: unknown key `tenantid` in [connectors.office365.contoso] (did you mean `tenant_id`?)",
    ),
    (
        "a tenant id that is a domain",
        "tenant_id = \"GUID\"",
        "tenant_id = \"contoso.onmicrosoft.com\"",
        "5:13: `tenant_id` must be a GUID, as in 01234567-89ab-cdef-0123-456789abcdef (the directory (tenant) id on",
    ),
    (
        "a client id with a digit too few",
        "client_id = \"GUID\"",
        "client_id = \"1234567-89ab-cdef-0123-456789abcdef\"",
        "6:13: `client_id` must be a GUID",
    ),
    (
        "no client id",
        "client_id = \"GUID\"",
        "",
        "3:23: `client_id` is missing in [connectors.office365.contoso] (the application (client) id on",
    ),
    (
        "a client secret written down",
        "client_secret = { env = \"APP_SECRET\" }",
        "client_secret = \"CANARY\"",
        "7:17: a secret is written here (a secret never stands in the configuration",
    ),
    (
        "neither certificate nor secret",
        "client_secret = { env = \"APP_SECRET\" }",
        "",
        "3:23: `certificate` or `client_secret` is missing in [connectors.office365.contoso] (for example certificate = { file = \"…\" })",
    ),
    (
        "both certificate and secret",
        "tenant = \"contoso\"\n",
        "tenant = \"contoso\"\ncertificate = { file = \"x.pem\" }\n",
        "8:17: `certificate` and `client_secret` exclude each other (remove one of them)",
    ),
    (
        "a certificate without file",
        "client_secret = { env = \"APP_SECRET\" }",
        "certificate = { key_file = \"x.key\" }",
        "7:15: `file` is missing in `certificate`",
    ),
    (
        "a cloud with a slip",
        "tenant = \"contoso\"",
        "tenant = \"contoso\"\ncloud = \"gcc_hihg\"",
        "5:9: `cloud`: unknown value `gcc_hihg` (did you mean `gcc-high`?)",
    ),
    (
        "a tenant that is a number",
        "tenant = \"contoso\"",
        "tenant = 7",
        "4:10: `tenant`: ",
    ),
];

#[test]
fn each_fault_of_a_connector_has_its_line_and_sentence() {
    for (about, before, after, expected) in IN_CONTOSO {
        let found = problems(&CONTOSO.replacen(before, after, 1));
        let what = found.first().unwrap();
        assert!(
            what.starts_with(expected),
            "{about}:\n got {what}\nwant {expected}"
        );
        assert_eq!(found.len(), 1, "{about}: {found:#?}");
    }
}

/// Cases: an emitter's kind, its options from line 2 on, and the one problem.
const EMITTERS: &[(&str, &str, &str)] = &[
    (
        "splunk_hec",
        "url = \"ftp://s.example\"\ntoken = { env = \"T\" }\n",
        "2:7: `url`: scheme ftp is not https or http",
    ),
    (
        "splunk_hec",
        "url = \"https://s.example\"\ntoken = { env = \"T\" }\nmore_urls = [\"https://u:CANARY@s.example\"]\n",
        "4:13: `more_urls`: user and password have no place in it",
    ),
    (
        "splunk_hec",
        "url = \"http://169.254.169.254\"\ntoken = { env = \"T\" }\n",
        "2:7: `url`: the address is",
    ),
    (
        "splunk_hec",
        "url = \"https://s.example\"\ntoken = { env = \"T\" }\npin_sha256 = [\"x\"]\n",
        "4:14: `pin_sha256`: \"x\" is no SHA-256",
    ),
    (
        "splunk_hec",
        "url = \"https://s.example\"\ntoken = { env = \"T\" }\ninsecure_skip_verify = true\nca_file = \"ca.pem\"\n",
        "4:24: `insecure_skip_verify`: it makes ca_file and pin_sha256 useless",
    ),
    (
        "splunk_hec",
        "url = \"https://s.example\"\ntoken = { env = \"T\" }\ncertificate_file = \"c.pem\"\n",
        "4:20: `certificate_file, key_file`: write both or neither",
    ),
    (
        "splunk_hec",
        "url = \"https://s.example\"\ntoken = { env = \"T\" }\nfields = { actor = \"hash\" }\n",
        "4:10: `fields`: it needs a key",
    ),
    (
        "syslog",
        "address = \"s.example\"\ntransport = \"tcp\"\n",
        "2:11: `address`: write host:port",
    ),
    (
        "syslog",
        "address = \"s.example:1\"\ntransport = \"tcp\"\nformat = \"cef\"\nsend = [\"events\"]\n",
        "4:10: `format`: raw records",
    ),
    (
        "webhook",
        "format = \"slack\"\n",
        "1:19: `url`: write url, or url_secret",
    ),
    (
        "webhook",
        "url = \"https://s.example\"\n",
        "1:19: `secret`: format = \"standard\" signs",
    ),
    (
        "webhook",
        "url_secret = { env = \"U\" }\nformat = \"teams\"\nsend = [\"internal\"]\n",
        "4:8: `send`: Slack and Teams take",
    ),
];

#[test]
fn what_no_emitter_could_be_built_of_is_told_before_one_is() {
    for (kind, options, expected) in EMITTERS {
        let problems = problems(&format!("[emitters.{kind}.x]\n{options}"));
        let [problem] = &problems[..] else {
            panic!("{options}: {problems:?}");
        };
        assert!(problem.starts_with(expected), "{options}: {problem}");
    }
}

#[test]
fn all_faults_are_reported_in_one_run() {
    let text = r#"[tenants.contoso]
internal_domain = []
partners = ["a b"]

[connectors.office365.one]
tenant = "contoso"
tenantid = "x"
cloud = "moon"
client_secret = "CANARY"
poll_interval_seconds = "often"

[emitters.splunk_hec.main]
sned = ["findings"]
batch_events_max = 0

[run]
first_read_days = 1000
pause = 1
"#;
    insta::assert_snapshot!(problems(text).join("\n"), @r#"
    2:1: unknown key `internal_domain` in [tenants.contoso] (did you mean `internal_domains`?)
    7:1: unknown key `tenantid` in [connectors.office365.one] (did you mean `tenant_id`?)
    8:9: `cloud`: unknown value (known here: `commercial`, `gcc`, `gcc-high`, `dod`)
    9:17: a secret is written here (a secret never stands in the configuration: name where it is found, { file = "…" } or { env = "…" })
    10:25: `poll_interval_seconds`: expected a whole number, 0 or more, found a string
    12:22: `token` is missing in [emitters.splunk_hec.main]
    12:22: `url` is missing in [emitters.splunk_hec.main]
    13:1: unknown key `sned` in [emitters.splunk_hec.main] (did you mean `send`?)
    14:20: 0 is out of range, expected a number from 1 to 100000
    17:19: 1000 is out of range, expected a number from 0 to 180
    18:1: unknown key `pause` in [run] (known here: `first_read_days`, `heartbeat_interval_seconds`, `silence_hours_min`, `silence_hours`, `gap_warning_hours`, `shutdown_timeout_seconds`)
    "#);
}

#[test]
fn all_syntax_errors_are_reported_in_one_run() {
    let text = "[run\nfirst_read_days = \n\n[state]\nfolder = \"x\n";
    insta::assert_snapshot!(problems(text).join("\n"), @r#"
    1:5: not valid TOML: unclosed table, expected `]`
    5:12: not valid TOML: invalid basic string, expected `"`
    "#);
}

#[test]
fn columns_count_characters_and_lines_may_end_in_crlf_behind_a_byte_order_mark() {
    let text = "\u{feff}# grüße\r\n[tenants.t]\r\ninternal_domains = [\"bücher.example\", 7]\r\n";
    let found = problems(text);
    assert_eq!(
        found,
        ["3:39: `internal_domains.1`: expected a string, found integer `7`"]
    );
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("exfilwatch.toml");
    let sources = Sources {
        file: Some(path.clone()),
        ..Sources::default()
    };
    let error = load(&sources).unwrap_err().to_string();
    assert!(
        error.contains("exfilwatch.toml:1:1: the file cannot be opened: "),
        "{error}"
    );

    let big = "#".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1);
    fs::write(&path, big).unwrap();
    let error = load(&sources).unwrap_err().to_string();
    assert!(
        error.ends_with("the file is larger than 1048576 bytes"),
        "{error}"
    );

    fs::write(&path, b"# \xff\n").unwrap();
    let error = load(&sources).unwrap_err().to_string();
    assert!(
        error.ends_with("the file is not UTF-8 text at byte 2"),
        "{error}"
    );
}

#[test]
fn include_says_what_it_cannot_find() {
    for (include, expected) in [
        (
            r#""tenants.d/*.toml""#,
            "1:11: `include` must be a list of file names, found a string",
        ),
        (r#"["missing.d/*.toml"]"#, "1:12: the folder "),
        (r#"["missing.toml"]"#, "1:12: there is no file "),
        (
            r#"["*/x.toml"]"#,
            "1:12: `*` may only stand in the last part of the name",
        ),
        ("[7]", "1:12: expected a file name, found an integer"),
    ] {
        let found = problems(&format!("include = {include}\n"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found.first().unwrap().starts_with(expected), "{found:?}");
    }
}

#[test]
fn text_nested_without_end_is_an_error_and_no_crash() {
    for text in [
        format!("run = {}", "[".repeat(100_000)),
        format!("run = {}", "{a=".repeat(100_000)),
        format!("run.{} = 1", vec!["a"; 100_000].join(".")),
        format!("[run.{}]", vec!["a"; 100_000].join(".")),
        format!("[[run.{}]]", vec!["a"; 100_000].join(".")),
    ] {
        let error = load_text(&text).unwrap_err();
        assert!(!error.problems.is_empty());
    }
}

#[test]
fn cut_and_damaged_files_are_errors_or_read_and_never_a_crash() {
    let text = include_str!("../examples/small-firm.toml");
    for (cut, _) in text.char_indices().step_by(9) {
        let (before, after) = text.split_at(cut);
        let damaged = format!("{before}\"{after}");
        for text in [before, &damaged] {
            match load_text(text) {
                Ok(config) => assert!(config.connectors.len() <= 2),
                Err(error) => assert!(!error.problems.is_empty()),
            }
        }
    }
}
