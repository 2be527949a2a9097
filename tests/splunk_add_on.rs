//! The Splunk add-on names only what the emitter sends: its files are read as Splunk reads them, and every field
//! that they take is looked for in a finding, a risk event and a heartbeat as they leave.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use exfilwatch::pipeline::notice::Notice;
use exfilwatch_emitters::SyslogFormat;
use exfilwatch_emitters::formats::syslog5424::{Header, line};

type Conf = BTreeMap<String, BTreeMap<String, String>>;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("packaging/splunk/TA-exfilwatch/default")
}

/// Splunk's `.conf`: stanzas, `key = value`, `#` begins a line of comment.
fn read(name: &str) -> Conf {
    let text = std::fs::read_to_string(folder().join(name)).unwrap();
    let mut conf = Conf::new();
    let mut stanza = String::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            name.strip_suffix(']').expect(line).clone_into(&mut stanza);
            assert!(
                conf.insert(stanza.clone(), BTreeMap::new()).is_none(),
                "twice: {line}"
            );
            continue;
        }
        let (key, value) = line.split_once('=').expect(line);
        let of = conf.get_mut(&stanza).expect("a key before any stanza");
        let old = of.insert(key.trim().to_owned(), value.trim().to_owned());
        assert!(old.is_none(), "twice in [{stanza}]: {key}");
    }
    conf
}

/// The flat keys of a finding, as the emitter's own source lists them.
fn sent(source: &str) -> BTreeSet<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("emitters/src/formats")
        .join(source);
    let text = std::fs::read_to_string(path).unwrap();
    let start = text.find("#[derive(Debug, Serialize)]\nstruct").unwrap();
    let body = text[start..].split("\n}\n").next().unwrap();
    let field = |line: &str| {
        let (name, _) = line.trim().split_once(": ")?;
        name.bytes()
            .all(|b| b.is_ascii_lowercase() || b == b'_')
            .then(|| name.to_owned())
    };
    body.lines().filter_map(field).collect()
}

#[test]
fn aliases_and_searches_take_fields_that_are_sent() {
    let finding = sent("splunk.rs");
    assert!(
        finding.contains("finding_uid") && finding.contains("update_reason"),
        "{finding:?}"
    );
    let props = read("props.conf");
    for (key, value) in &props["exfilwatch:finding"] {
        if let (true, Some((from, _))) = (key.starts_with("FIELDALIAS"), value.split_once(" AS ")) {
            let from = from.trim_matches('"').trim_end_matches("{}");
            assert!(finding.contains(from), "{key}: {from} is not sent");
        }
        for from in value.split("mvindex(").skip(1) {
            let from = from.split(',').next().unwrap();
            assert!(finding.contains(from), "{key}: {from} is not sent");
        }
    }
    let searches = read("savedsearches.conf");
    let table = &searches["exfilwatch - new alerts"]["search"];
    let fields = table.rsplit_once("| table ").unwrap().1;
    for field in fields.split_whitespace().filter(|field| *field != "_time") {
        assert!(finding.contains(field), "{field} is not sent");
    }
    for field in searches["exfilwatch - new alerts"]["alert.suppress.fields"].split(',') {
        assert!(finding.contains(field), "{field} is not sent");
    }
    let risk = &searches["exfilwatch - findings to risk"]["search"];
    let renamed = risk
        .split("rename ")
        .nth(1)
        .unwrap()
        .split('|')
        .next()
        .unwrap();
    for pair in renamed.split(',') {
        let from = pair.split(" AS ").next().unwrap().trim();
        assert!(finding.contains(from), "{from} is not sent");
    }
}

#[test]
fn what_is_tagged_exists_and_what_is_scheduled_is_off_and_by_index_time() {
    let types = read("eventtypes.conf");
    for stanza in read("tags.conf").keys() {
        let name = stanza.strip_prefix("eventtype=").expect(stanza);
        assert!(types.contains_key(name), "{name}");
    }
    let macros = read("macros.conf");
    for (name, search) in read("savedsearches.conf") {
        assert_eq!(search["disabled"], "1", "{name}");
        let text = &search["search"];
        let by_index_time =
            search.contains_key("dispatch.index_earliest") || text.contains("_indextime");
        assert!(by_index_time, "{name}");
        for used in text.split('`').skip(1).step_by(2) {
            assert!(macros.contains_key(used), "{name}: {used}");
        }
    }
}

/// By the name that it has in JSON (`type`), or by the indexed field (`name`), where only that is there.
#[test]
fn our_own_items_are_searched_by_the_names_they_go_out_under() {
    let stream = "contoso/office365/Audit.Exchange".parse().unwrap();
    let at = "2026-11-24T02:16:00Z".parse().unwrap();
    let notice = Notice::degraded(&stream, at, "x", "y");
    let item = &notice.frame(stream.tenant()).items[0];
    let json: serde_json::Value = serde_json::from_slice(&item.payload).unwrap();
    assert_eq!(json["type"], "collector.degraded");
    let header = Header {
        facility: 16,
        hostname: "h".to_owned(),
        app_name: "a".to_owned(),
        bytes_max: 8_192,
        message: SyslogFormat::Json,
    };
    let line = line(item, &header).unwrap();
    assert!(line.contains(" name=\"collector.degraded\" "), "{line}");

    let words = |text: &str| -> Vec<String> {
        let parts = text.split([' ', '(', ')']);
        parts
            .filter(|part| part.contains("=collector."))
            .map(str::to_owned)
            .collect()
    };
    let mut searched = Vec::new();
    for conf in [read("eventtypes.conf"), read("savedsearches.conf")] {
        for search in conf.values().map(|of| &of["search"]) {
            let field = if search.contains("tstats") {
                "name="
            } else {
                "type="
            };
            for word in words(search) {
                searched.push(word.strip_prefix(field).expect(search).to_owned());
            }
        }
    }
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/pipeline");
    let told: String = ["notice.rs", "heartbeat.rs"]
        .map(|file| std::fs::read_to_string(source.join(file)).unwrap_or_default())
        .concat();
    assert!(searched.len() >= 5, "{searched:?}");
    for name in searched {
        assert!(
            told.contains(&format!("\"{name}\"")),
            "{name} is never sent"
        );
    }
}

#[test]
fn it_is_of_the_same_version_as_the_program() {
    assert_eq!(
        read("app.conf")["launcher"]["version"],
        env!("CARGO_PKG_VERSION")
    );
}
