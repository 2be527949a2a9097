//! What depends on what. The rooms of the house (docs/ARCHITECTURE.md) depend on each other in one
//! direction only, and what comes from outside keeps to deny.toml: bans, licences, sources.
//!
//! Asks `cargo metadata` for our crates and `cargo tree` for the rest (which leaves out what no
//! feature turns on). Packages of other systems are looked at where they have been fetched, as
//! .ci/run does, else those of this system.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Our crates, and those of ours each may depend on. `xtask` and the root may use all.
const ROOMS: &[(&str, &[&str])] = &[
    ("exfilwatch-model", &[]),
    ("exfilwatch-simulator", &[]),
    ("exfilwatch-connectors", &["exfilwatch-model"]),
    ("exfilwatch-detectors", &["exfilwatch-model"]),
    ("exfilwatch-emitters", &["exfilwatch-model"]),
    ("exfilwatch-state", &["exfilwatch-model"]),
    (
        "exfilwatch-config",
        &[
            "exfilwatch-connectors",
            "exfilwatch-detectors",
            "exfilwatch-emitters",
            "exfilwatch-model",
            "exfilwatch-state",
        ],
    ),
];
/// What the tests of a room may use besides: the other side of its wire, and what they share.
const ROOMS_OF_TESTS: &[&str] = &["exfilwatch-model", "exfilwatch-simulator"];

/// What a cargo command prints, without the network; `None` where it fails.
fn cargo(arguments: &[&str]) -> Option<String> {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .arg("--offline")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    output
        .status
        .success()
        .then(|| String::from_utf8(output.stdout).unwrap())
}

/// A package that is built.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    licence: String,
}

/// What the arguments say is built, of every system or of this one.
fn built(arguments: &[&str]) -> BTreeSet<Package> {
    let tree = |more: &[&str]| {
        let fixed = ["tree", "--prefix", "none", "--format", "{p}\t{l}"];
        cargo(&[fixed.as_slice(), arguments, more].concat())
    };
    let lines = tree(&["--target", "all"]).unwrap_or_else(|| {
        println!("packages of other systems are not fetched: looking at those of this one");
        tree(&[]).expect("cargo tree answers")
    });
    let packages: BTreeSet<Package> = lines.lines().filter_map(package).collect();
    assert!(
        packages.len() > 100,
        "only {} packages found",
        packages.len()
    );
    packages
}

/// A line of the tree: `name v1.2.3 (where)`, tab, licence.
fn package(line: &str) -> Option<Package> {
    let (package, licence) = line.split_once('\t')?;
    let mut words = package.split(' ');
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    Some(Package {
        name: name.to_owned(),
        version: version.to_owned(),
        licence: licence.trim_end_matches(" (*)").to_owned(),
    })
}

/// What leads into the product.
fn shipped() -> BTreeSet<Package> {
    built(&["--package", "exfilwatch", "--edges", "normal,build"])
}

fn deny() -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

#[test]
fn the_rooms_depend_on_each_other_in_one_direction_only() {
    let metadata = cargo(&["metadata", "--format-version", "1", "--no-deps"]).unwrap();
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let packages = list(&metadata, "packages");
    let ours: BTreeSet<&str> = packages
        .iter()
        .map(|package| text(package, "name"))
        .collect();
    let rooms: BTreeMap<&str, &[&str]> = ROOMS.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in packages {
        let name = text(package, "name");
        let is_free = matches!(name, "exfilwatch" | "xtask");
        let Some(allowed) = rooms.get(name).copied().or(is_free.then_some(&[])) else {
            wrong.push(format!("{name} is not in the list of rooms"));
            continue;
        };
        for dependency in list(package, "dependencies") {
            let wanted = text(dependency, "name");
            let of_tests = text(dependency, "kind") == "dev";
            let is_allowed = allowed.contains(&wanted)
                || (of_tests && ROOMS_OF_TESTS.contains(&wanted))
                || (is_free && wanted != "xtask");
            if ours.contains(wanted) && !is_allowed {
                wrong.push(format!("{name} depends on {wanted}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(
        ROOMS.iter().all(|(room, _)| ours.contains(room)),
        "a room of the list is gone"
    );
}

/// A line of the ban list: the name, and the version below which it holds (`name:<0.13`).
fn ban(line: &toml::Value) -> (&str, Option<(u64, u64)>) {
    let written = line
        .get("crate")
        .and_then(toml::Value::as_str)
        .expect("a crate");
    match written.split_once(":<") {
        None => (written, None),
        Some((name, version)) => (name, Some(major_and_minor(version))),
    }
}

fn major_and_minor(version: &str) -> (u64, u64) {
    let mut parts = version
        .split('.')
        .map(|part| part.parse().expect("a version number"));
    (parts.next().unwrap(), parts.next().unwrap())
}

fn banned(name: &str, version: &str, bans: &[toml::Value]) -> bool {
    bans.iter().map(ban).any(|(banned, below)| {
        banned == name && below.is_none_or(|below| major_and_minor(version) < below)
    })
}

#[test]
fn nothing_banned_is_built_into_the_product() {
    let deny = deny();
    let bans = deny["bans"]["deny"].as_array().unwrap();
    let mut found = shipped();
    found.retain(|package| banned(&package.name, &package.version, bans));
    assert_eq!(
        found,
        BTreeSet::new(),
        "cargo tree -i NAME says who brings it"
    );

    for (name, version, want) in [
        ("ring", "0.17.14", true),
        ("openssl-sys", "0.9.1", true),
        ("openssl-probe", "0.2.2", false),
        ("reqwest", "0.12.28", true),
        ("reqwest", "0.13.0", false),
    ] {
        assert_eq!(banned(name, version, bans), want, "{name} {version}");
    }
}

#[test]
fn one_version_of_the_crates_that_must_not_come_twice() {
    let shipped = shipped();
    for once in ["reqwest", "rustls", "tokio", "aws-lc-rs", "serde_json"] {
        let versions: Vec<&Package> = shipped.iter().filter(|p| p.name == once).collect();
        assert_eq!(versions.len(), 1, "{once}: {versions:?}");
    }
}

#[test]
fn every_package_comes_from_an_allowed_source() {
    let deny = deny();
    let allowed = names(&deny["sources"]["allow-registry"]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    let lock: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    for package in lock["package"].as_array().unwrap() {
        // A package without a source is one of ours.
        let Some(source) = package.get("source").and_then(toml::Value::as_str) else {
            continue;
        };
        let registry = source.strip_prefix("registry+").unwrap_or_default();
        assert!(
            allowed.iter().any(|allowed| allowed == registry),
            "{package}"
        );
    }
}

fn names(value: &toml::Value) -> Vec<String> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn every_licence_is_an_allowed_one() {
    let deny = deny();
    let exceptions = deny["licenses"]["exceptions"].as_array().unwrap();
    let mut wrong = built(&["--workspace", "--edges", "all"]);
    wrong.retain(|package| {
        let mut allowed = names(&deny["licenses"]["allow"]);
        for exception in exceptions {
            if exception["crate"].as_str() == Some(&package.name) {
                allowed.extend(names(&exception["allow"]));
            }
        }
        !licence_is_met(&package.licence, &allowed)
    });
    assert_eq!(wrong, BTreeSet::new());
}

/// Whether an SPDX expression can be met with the licences given.
fn licence_is_met(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let mut words: Vec<&str> = spaced.split_whitespace().rev().collect();
    any_of(&mut words, allowed) && words.is_empty()
}

fn any_of(words: &mut Vec<&str>, allowed: &[String]) -> bool {
    let mut met = all_of(words, allowed);
    while words.last() == Some(&"OR") {
        words.pop();
        met |= all_of(words, allowed);
    }
    met
}

fn all_of(words: &mut Vec<&str>, allowed: &[String]) -> bool {
    let mut met = one(words, allowed);
    while words.last() == Some(&"AND") {
        words.pop();
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut Vec<&str>, allowed: &[String]) -> bool {
    match words.pop() {
        None => false,
        Some("(") => {
            let met = any_of(words, allowed);
            words.pop() == Some(")") && met
        }
        Some(name) if words.last() == Some(&"WITH") => {
            words.pop();
            let whole = format!("{name} WITH {}", words.pop().unwrap_or_default());
            allowed.contains(&whole)
        }
        Some(name) => allowed.iter().any(|allowed| allowed == name),
    }
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH X"].map(str::to_owned);
    let cases = [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("ISC AND (GPL-3.0 OR MIT)", true),
        ("(GPL-3.0 AND MIT) OR ISC", true),
        ("MIT OR GPL-3.0 AND GPL-2.0", true),
        ("Apache-2.0 WITH X", true),
        ("Apache-2.0", false),
        ("", false),
        ("(MIT", false),
    ];
    for (expression, want) in cases {
        assert_eq!(licence_is_met(expression, &allowed), want, "{expression}");
    }
}
