//! The files that ship: default.toml, the examples, the schema. They must agree with the options.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use exfilwatch_config::{Config, RunOptions, ServeOptions, Sources, StateOptions};
use exfilwatch_config::{default_toml, load, schema};
use exfilwatch_detectors::DetectorsOptions;
use exfilwatch_emitters::options::{
    NdjsonOptions, SplunkHecOptions, StdoutOptions, SyslogOptions, WebhookOptions,
};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

fn example(name: &str) -> Config {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(name);
    load(&Sources {
        file: Some(file),
        ..Sources::default()
    })
    .unwrap_or_else(|error| panic!("{error}"))
}

fn defaults() -> Json {
    toml::from_str(default_toml()).unwrap()
}

#[test]
fn the_examples_are_right() {
    let firm = example("small-firm.toml");
    assert_eq!(
        (
            firm.tenants.len(),
            firm.connectors.len(),
            firm.emitters.len()
        ),
        (1, 2, 1)
    );
    assert!(firm.warnings.is_empty(), "{:?}", firm.warnings);
    let provider = example("provider/exfilwatch.toml");
    assert_eq!(provider.tenants.len(), 2);
    assert_eq!((provider.connectors.len(), provider.emitters.len()), (3, 3));
    assert!(provider.warnings.is_empty() && provider.disabled.is_empty());
}

#[test]
fn the_built_in_file_can_be_used_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("exfilwatch.toml");
    std::fs::write(&file, default_toml()).unwrap();
    let config = load(&Sources {
        file: Some(file),
        ..Sources::default()
    })
    .unwrap();
    assert!(config.detectors.enabled);
}

/// The text with every commented setting and table made real.
fn uncommented() -> String {
    let setting = |line: &str| {
        let line = line.strip_prefix("# ")?;
        let (key, value) = line.split_once(" = ").unwrap_or((line, "["));
        let is_key = key
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        let is_value = value.starts_with(['"', '[', '{']) || value.parse::<u64>().is_ok();
        ((is_key && is_value) || line.starts_with('[')).then(|| line.to_owned())
    };
    default_toml()
        .lines()
        .map(|line| setting(line).unwrap_or_else(|| line.to_owned()) + "\n")
        .collect()
}

#[test]
fn every_setting_stands_in_the_built_in_file() {
    let text = uncommented();
    let document: Json = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let schema = schema();
    let properties = |pointer: &str| {
        let found = schema.pointer(pointer).and_then(Json::as_object);
        found.unwrap_or_else(|| panic!("{pointer}")).keys()
    };
    for (table, pointer) in [
        ("", "/properties"),
        (
            "/tenants/contoso",
            "/properties/tenants/additionalProperties/properties",
        ),
        ("/detectors", "/properties/detectors/properties"),
        ("/state", "/properties/state/properties"),
        ("/serve", "/properties/serve/properties"),
        ("/run", "/properties/run/properties"),
        ("/connectors", "/properties/connectors/properties"),
        ("/defaults", "/properties/defaults/properties"),
        (
            "/defaults/office365",
            "/properties/defaults/properties/office365/properties",
        ),
        (
            "/defaults/google_workspace",
            "/properties/defaults/properties/google_workspace/properties",
        ),
        (
            "/defaults/splunk_hec",
            "/properties/defaults/properties/splunk_hec/properties",
        ),
        (
            "/defaults/syslog",
            "/properties/defaults/properties/syslog/properties",
        ),
        (
            "/defaults/ndjson",
            "/properties/defaults/properties/ndjson/properties",
        ),
        (
            "/defaults/stdout",
            "/properties/defaults/properties/stdout/properties",
        ),
        (
            "/defaults/webhook",
            "/properties/defaults/properties/webhook/properties",
        ),
    ] {
        for key in properties(pointer) {
            // The same for all kinds: they stand there once.
            let path = match &key[..] {
                "filter" | "routes" => format!("/emitters/splunk_hec/main/{key}"),
                key => format!("{table}/{key}"),
            };
            assert!(
                document.pointer(&path).is_some(),
                "{path} is not in default.toml"
            );
        }
    }
}

#[test]
fn the_schema_names_every_key_of_the_built_in_file_and_no_other_is_allowed() {
    fn walk(root: &Json, schema: &Json, document: &Json, path: &str) {
        let choices = schema.get("anyOf").and_then(Json::as_array);
        let mut choices = choices.into_iter().flatten().chain([schema]);
        let reference = choices.find_map(|one| one.get("$ref").and_then(Json::as_str));
        let schema = match reference {
            Some(reference) => root
                .pointer(reference.strip_prefix('#').unwrap())
                .unwrap_or_else(|| panic!("{reference}")),
            None => schema,
        };
        let Some(members) = document.as_object() else {
            return;
        };
        if let Some(variants) = schema.get("oneOf").and_then(Json::as_array) {
            let fits = |variant: &&Json| {
                members
                    .keys()
                    .all(|key| variant.pointer(&format!("/properties/{key}")).is_some())
            };
            assert!(variants.iter().any(|variant| fits(&variant)), "{path}");
            return;
        }
        for (key, member) in members {
            let path = format!("{path}/{key}");
            let inner = schema
                .get("properties")
                .and_then(|all| all.get(key))
                .or_else(|| {
                    schema
                        .get("additionalProperties")
                        .filter(|rest| rest.is_object())
                })
                .unwrap_or_else(|| panic!("{path} is not in the schema"));
            walk(root, inner, member, &path);
        }
    }
    let schema = schema();
    let document: Json = toml::from_str(&uncommented()).unwrap();
    walk(&schema, &schema, &document, "");
    let closed =
        "/properties/connectors/properties/office365/additionalProperties/additionalProperties";
    assert_eq!(schema.pointer(closed), Some(&Json::Bool(false)));
}

fn agrees<T: DeserializeOwned + PartialEq + std::fmt::Debug>(defaults: &Json, least: &str) {
    let built_in: Json = toml::from_str(least).unwrap();
    let mut layered = defaults.clone();
    let members = layered.as_object_mut().unwrap();
    members.extend(built_in.as_object().unwrap().clone());
    let built_in: T = serde_json::from_value(built_in).unwrap();
    let layered: T = serde_json::from_value(layered).unwrap();
    assert_eq!(layered, built_in);
}

#[test]
fn the_built_in_file_says_what_the_options_do_by_themselves() {
    let all = defaults();
    let of = |pointer: &str| all.pointer(pointer).unwrap();
    agrees::<DetectorsOptions>(of("/detectors"), "");
    agrees::<StateOptions>(of("/state"), "");
    agrees::<ServeOptions>(of("/serve"), "");
    agrees::<RunOptions>(of("/run"), "");
    let hec = "url = \"https://s.example\"\ntoken = { env = \"T\" }";
    agrees::<SplunkHecOptions>(of("/defaults/splunk_hec"), hec);
    let syslog = "address = \"s.example:1\"\ntransport = \"udp\"";
    agrees::<SyslogOptions>(of("/defaults/syslog"), syslog);
    agrees::<NdjsonOptions>(of("/defaults/ndjson"), "path = \"x\"");
    agrees::<StdoutOptions>(of("/defaults/stdout"), "");
    agrees::<WebhookOptions>(of("/defaults/webhook"), "url = \"https://h.example\"");
}
