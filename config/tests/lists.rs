//! The lists of a tenant: read with the configuration, and wrong with it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;

use exfilwatch_config::{Config, ConfigError, Sources, load};
use exfilwatch_model::{PartyClass, TenantId};

const TENANT: &str = r#"internal_domains = ["contoso.example"]
[tenants.contoso.lists]
people_file = "people.csv"
partners_file = "partners.csv"
free_mail_file = "free.csv"
leaver_days = 14
[connectors.office365.contoso]
tenant = "contoso"
tenant_id = "01234567-89ab-cdef-0123-456789abcdef"
client_id = "01234567-89ab-cdef-0123-456789abcdef"
client_secret = { env = "APP_SECRET" }
"#;

const GOOD: [(&str, &str); 3] = [
    (
        "people.csv",
        "address,vip,leaver_date,phone\nalice@contoso.example,yes,2026-06-30,1\n",
    ),
    ("partners.csv", "domain\npartner.example\n"),
    ("free.csv", "post.example\n"),
];

fn load_in(folder: &Path, main: &str, files: &[(&str, &str)]) -> Result<Config, ConfigError> {
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
    let file = folder.join("main.toml");
    fs::write(&file, main).unwrap();
    load(&Sources {
        file: Some(file),
        ..Sources::default()
    })
}

#[test]
fn the_lists_of_a_tenant_are_read_from_beside_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let main = format!("[tenants.contoso]\n{TENANT}");
    let config = load_in(folder.path(), &main, &GOOD).unwrap();
    let tenant = TenantId::new("contoso").unwrap();
    let lists = config.lists.get(&tenant).unwrap();
    assert!(lists.person("alice@contoso.example").unwrap().vip);
    assert_eq!(lists.leaver_days, 14);
    let domains = config.tenants.get(&tenant).unwrap().domains(&[]);
    let domains = domains.with_lists(lists.clone());
    let class = |address: &str| domains.party(address).class;
    assert_eq!(class("x@eu.partner.example"), PartyClass::Partner);
    assert_eq!(class("x@post.example"), PartyClass::FreeMail);
    assert_eq!(class("x@else.example"), PartyClass::ForeignTenant);
    let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    let unused = warnings
        .iter()
        .any(|told| told.contains("nothing is made of: phone"));
    assert!(unused, "{warnings:?}");
}

#[test]
fn a_list_that_cannot_be_understood_is_told_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let main = format!("[tenants.contoso]\n{TENANT}");
    let bad = [
        GOOD[1],
        GOOD[2],
        ("people.csv", "address,leaver_date\na@c.example,soon\n"),
    ];
    let error = load_in(folder.path(), &main, &bad).unwrap_err().to_string();
    assert!(error.contains("main.toml:3:"), "{error}");
    assert!(
        error.contains("people.csv, line 2: \"soon\" is no date"),
        "{error}"
    );
    for (text, what) in [
        (
            "address,name,leaver_date\na@c.example,\"Ann,\nb@c.example,Ben,2026-06-01\n",
            "people.csv, line 2: a cell goes over several lines",
        ),
        (
            "address,leaver_date\na@c.example,Sales,2026-06-01\n",
            "people.csv, line 2: there are 3 cells under 2 column names",
        ),
    ] {
        let bad = [GOOD[1], GOOD[2], ("people.csv", text)];
        let error = load_in(folder.path(), &main, &bad).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
    fs::remove_file(folder.path().join("partners.csv")).unwrap();
    let error = load_in(folder.path(), &main, &[GOOD[0]])
        .unwrap_err()
        .to_string();
    assert!(error.contains("partners.csv cannot be opened"), "{error}");
}

#[test]
fn a_bad_list_leaves_out_its_own_tenant_only() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("contoso.toml"),
        format!("[tenants.contoso]\n{TENANT}"),
    )
    .unwrap();
    let other = TENANT
        .replace("contoso", "fabrikam")
        .replace("people.csv", "none.csv");
    fs::write(
        folder.path().join("fabrikam.toml"),
        format!("[tenants.fabrikam]\n{other}"),
    )
    .unwrap();
    let main = "include = [\"contoso.toml\", \"fabrikam.toml\"]\n";
    let config = load_in(folder.path(), main, &GOOD).unwrap();
    let names: Vec<&str> = config.tenants.keys().map(TenantId::as_str).collect();
    assert_eq!(names, ["contoso"]);
    assert_eq!(config.lists.len(), 1);
    let told = config.disabled.first().unwrap().problems.first().unwrap();
    assert!(
        told.to_string().contains("none.csv cannot be opened"),
        "{told}"
    );
}

#[test]
fn what_is_wrong_in_an_allow_list_is_told_where_it_stands_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    for (all, own, place, says) in [
        ("*.a.example", "b.example", "main.toml:2", "allow.domains"),
        ("a.example", "ann@b.example", "main.toml:", "allow.domains"),
    ] {
        let main = format!(
            "[detectors]\nallow = {{ domains = [\"{all}\"] }}\n[tenants.contoso]\n{TENANT}\n\
             [tenants.contoso.detectors]\nallow = {{ domains = [\"{own}\"] }}\n"
        );
        let told = load_in(folder.path(), &main, &GOOD)
            .unwrap_err()
            .to_string();
        assert_eq!(told.lines().count(), 1, "told once: {told}");
        assert!(told.contains(place) && told.contains(says), "{told}");
        assert!(!told.contains("allow.addresses"), "{told}");
    }
}
