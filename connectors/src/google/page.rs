//! A page of activities or alerts, taken apart without reading them.

use bytes::Bytes;
use exfilwatch_model::{Malformed, RawRecord};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::kernel::split::{Element, Splitter};

/// Longest page token followed, in bytes.
pub(super) const TOKEN_BYTES_MAX: usize = 4 << 10;

/// Items and the token of the next page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ApiPage {
    /// The activities, slices of the body.
    pub(super) elements: Vec<Element>,
    /// `nextPageToken`, if there is one.
    pub(super) next: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape<'a> {
    #[serde(borrow, default, alias = "alerts")]
    items: Vec<&'a RawValue>,
    #[serde(default)]
    next_page_token: Option<String>,
}

/// Reads the body. `member` holds the elements and may be absent. `None` where it is no page.
pub(super) fn read(body: &Bytes, member: &str) -> Option<ApiPage> {
    // serde would take an array for the struct.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    match serde_json::from_slice::<Shape<'_>>(body) {
        Ok(shape) => Some(ApiPage {
            elements: shape
                .items
                .into_iter()
                .map(|item| element(body.slice_ref(item.get().as_bytes())))
                .collect(),
            next: shape.next_page_token.filter(|token| !token.is_empty()),
        }),
        // One activity that is no JSON must not cost the others of its page.
        Err(_) => read_around(body, member),
    }
}

fn element(bytes: Bytes) -> Element {
    if bytes.len() > exfilwatch_model::record::RECORD_BYTES_MAX {
        return Element::Malformed(Malformed {
            bytes: bytes.slice(..exfilwatch_model::record::RECORD_BYTES_MAX),
            reason: "the record is larger than 4 MiB".to_owned(),
        });
    }
    if bytes.first() == Some(&b'{') {
        Element::Record(RawRecord::new(bytes))
    } else {
        Element::Malformed(Malformed {
            bytes,
            reason: "not a JSON object".to_owned(),
        })
    }
}

/// Takes the array of elements by its outline, and reads the page without it.
fn read_around(body: &Bytes, member: &str) -> Option<ApiPage> {
    let name = format!("\"{member}\"");
    let at = memchr::memmem::find(body, name.as_bytes())?;
    let after_name = body.get(at + name.len()..)?;
    let colon = after_name.iter().position(|b| !b.is_ascii_whitespace())?;
    if after_name.get(colon) != Some(&b':') {
        return None;
    }
    let array = body.slice(at + name.len() + colon + 1..);
    let mut splitter = Splitter::default();
    let mut elements = Vec::new();
    let taken = splitter.push(&array, &mut elements).ok()?;
    if !splitter.ended() {
        return None;
    }
    let mut rest = body.get(..at)?.to_vec();
    rest.extend_from_slice(b"\"items\":[]");
    rest.extend_from_slice(array.get(taken..)?);
    let shape: Shape<'_> = serde_json::from_slice(&rest).ok()?;
    Some(ApiPage {
        elements,
        next: shape.next_page_token.filter(|token| !token.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<(Vec<String>, Option<String>)> {
        let show = |element: &Element| match element {
            Element::Record(record) => String::from_utf8_lossy(record.bytes()).into_owned(),
            Element::Malformed(bad) => format!("!{}", String::from_utf8_lossy(&bad.bytes)),
        };
        let page = read(&Bytes::copy_from_slice(text.as_bytes()), "items")?;
        Some((page.elements.iter().map(show).collect(), page.next))
    }

    #[test]
    fn activities_come_out_byte_for_byte_and_bad_ones_alone_are_marked() {
        let cases: &[(&str, &[&str], Option<&str>)] = &[
            (r#"{"kind":"k"}"#, &[], None),
            (r#"{"items":[],"nextPageToken":"t"}"#, &[], Some("t")),
            (
                r#"{"items":[{"a": 1},{"b":2} ],"nextPageToken":""}"#,
                &[r#"{"a": 1}"#, r#"{"b":2}"#],
                None,
            ),
            (
                r#"{"nextPageToken":"t","items":[{"a":1},7,{"b":2}]}"#,
                &[r#"{"a":1}"#, "!7", r#"{"b":2}"#],
                Some("t"),
            ),
            (
                r#"{"items":[{"a":[},{"b":2}],"nextPageToken":"t"}"#,
                &[r#"!{"a":[}"#, r#"{"b":2}"#],
                Some("t"),
            ),
            (
                r#"{"items" : [{"a":nonsense},{"b":2}],"nextPageToken":"t"}"#,
                &[r#"{"a":nonsense}"#, r#"{"b":2}"#],
                Some("t"),
            ),
        ];
        for (text, items, next) in cases {
            let (got, token) = shown(text).unwrap();
            assert_eq!(
                (&got[..], token.as_deref()),
                (
                    &items.iter().map(ToString::to_string).collect::<Vec<_>>()[..],
                    *next
                ),
                "{text}"
            );
        }
    }

    #[test]
    fn alerts_are_taken_apart_as_activities_are() {
        for (text, count) in [
            (r#"{"alerts":[{"alertId":"a"},{"alertId":"b"}]}"#, 2),
            (
                r#"{"alerts":[{"alertId":nonsense},{"alertId":"b"}],"nextPageToken":"t"}"#,
                2,
            ),
            ("{}", 0),
        ] {
            let page = read(&Bytes::from_static(text.as_bytes()), "alerts").unwrap();
            assert_eq!(page.elements.len(), count, "{text}");
        }
    }

    #[test]
    fn what_is_no_whole_page_is_none_and_not_an_empty_one() {
        for text in [
            "",
            "[]",
            "<html>",
            r#"{"items":[{"a":1}"#,
            r#"{"items":[{"a":1}]"#,
            r#"{"items":{}}"#,
        ] {
            assert_eq!(shown(text), None, "{text}");
        }
    }
}
