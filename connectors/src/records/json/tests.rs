use std::fmt::Write;

use proptest::prelude::*;
use serde_json::Map;

use super::digest::unescaped;
use super::scan::DEPTH_MAX;
use super::*;

fn check(text: &[u8]) -> bool {
    members(text).all(|part| part.is_ok())
}

#[test]
fn members_come_as_raw_slices() {
    let text = br#" { "a" : [1, {"b":"}"}] , "c\u0064":"x\"y", "e":-1.5e3,"f":null } "#;
    let parts: Vec<_> = members(text).map(Result::unwrap).collect();
    let raw = |at: usize| std::str::from_utf8(parts[at].1).unwrap();
    assert_eq!(raw(0), r#"[1, {"b":"}"}]"#);
    assert_eq!(super::text(parts[1].0).unwrap(), "cd");
    assert_eq!(super::text(parts[1].1).unwrap(), "x\"y");
    assert_eq!(raw(2), "-1.5e3");
    assert_eq!(parts.len(), 4);
}

#[test]
fn nesting_is_bounded_and_what_is_taken_can_be_read_in_full() {
    let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(check(nested(DEPTH_MAX - 1).as_bytes()));
    assert!(serde_json::from_str::<Value>(&nested(DEPTH_MAX - 1)).is_ok());
    assert!(!check(nested(DEPTH_MAX + 1).as_bytes()));
    assert!(!check(nested(1_000_000).as_bytes()));
}

#[test]
fn half_a_surrogate_pair_costs_one_character_and_not_the_record() {
    let text = br#"{"title":"a\ud800b \ud83d\ude00 \\ud800","n":1e999}"#;
    let parts: Vec<_> = members(text).map(Result::unwrap).collect();
    assert_eq!(value(parts[0].1), "a\u{fffd}b \u{1f600} \\ud800");
    assert_eq!(value(parts[1].1), "1e999");
}

#[test]
fn the_digest_of_a_record_does_not_depend_on_the_order_of_members() {
    let sum = |text: &[u8]| {
        members(text)
            .map(Result::unwrap)
            .fold(0_u64, |sum, (key, raw)| sum.wrapping_add(digest(key, raw)))
    };
    assert_eq!(sum(br#"{"a":1,"b":2}"#), sum(br#"{"b":2, "a":1}"#));
    assert_ne!(sum(br#"{"a":1,"b":2}"#), sum(br#"{"a":2,"b":1}"#));
}

#[test]
fn a_digest_looks_through_escapes_and_not_through_what_they_mean() {
    let sum = |raw: &[u8]| Digester::of(raw).member(b"\"k\"", raw);
    let same: [&[&[u8]]; 4] = [
        &[br#""a/<b""#, br#""a\/\u003cb""#, br#""a/\u003Cb""#],
        &[br#""x\ny""#, br#""x\u000ay""#, br#""x\u000Ay""#],
        &["\"\u{1f600}é\"".as_bytes(), br#""\ud83d\uDE00\u00e9""#],
        &[br#"["\"","\\"]"#, br#"["\u0022","\u005c"]"#],
    ];
    for spellings in same {
        for spelling in spellings {
            assert_eq!(
                sum(spelling),
                sum(spellings[0]),
                "{}",
                spelling.escape_ascii()
            );
        }
    }
    let different: [&[u8]; 7] = [
        br#""a""#,
        br#""\\u0061""#,
        br#""\"""#,
        br#""\\""#,
        br#""\ud800""#,
        br#""\ud801""#,
        br#""\n""#,
    ];
    for (at, one) in different.iter().enumerate() {
        for other in &different[at + 1..] {
            assert_ne!(sum(one), sum(other));
        }
    }
    assert!(is_annotation(b"@odata.type") && is_annotation(b"Size@odata.type"));
    assert!(!is_annotation(b"Id") && !is_annotation(b"a@b"));
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Eighths, since not every digit of a float survives the way to text and back.
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn every_object_is_taken_and_every_member_given(value in json()) {
        let text = serde_json::to_vec_pretty(&value).unwrap();
        match value {
            Value::Object(map) => {
                let read: Map<_, _> = members(&text)
                    .map(Result::unwrap)
                    .map(|(key, raw)| (super::text(key).unwrap().into_owned(), super::value(raw)))
                    .collect();
                prop_assert_eq!(read, map);
            }
            _ => prop_assert!(!check(&text)),
        }
    }

    #[test]
    fn what_is_unescaped_means_the_same(text in any::<String>()) {
        let plain = serde_json::to_string(&text).unwrap();
        let mut escaped = String::from("\"");
        for c in text.chars() {
            match c {
                ' '..='~' if c != '"' && c != '\\' => escaped.push(c),
                _ => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(escaped, "\\u{unit:04X}").unwrap();
                    }
                }
            }
        }
        escaped.push('"');
        let out = unescaped(escaped.as_bytes());
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        prop_assert_eq!(&*out, &*unescaped(plain.as_bytes()));
    }

    /// The scan and `serde_json` agree on what is JSON, on texts that nearly are.
    #[test]
    fn a_damaged_text_is_refused_exactly_where_serde_refuses_it(
        value in json(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut text = serde_json::to_vec(&serde_json::json!({"a": value})).unwrap();
        let at = at.index(text.len());
        text[at] = byte;
        if std::str::from_utf8(&text).is_ok() {
            let object = text.trim_ascii_start().starts_with(b"{");
            let serde = serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(check(&text), object && serde);
        }
    }
}
