//! A record of a search, unwrapped: what the feed would have brought.
//!
//! `auditData` is the record as the audit log has it, and its bytes are handed on as they are. Its
//! identity is its `Id`, as in the feed. Graph may add annotations (`@odata.type`), write members in
//! another order and escape other characters; the digest of a head looks through all three
//! (`crate::records::microsoft`). A record whose members do differ is another version of the same
//! record, and delivered as such: for one, `DLP.All` brings sensitive values in the feed only.
//!
//! Where `auditData` has no `Id`, Graph's own `id` of the record, which is the same in all samples,
//! is put in its place: without it, the record could not be told from what the feed brought. Where the
//! ids of feed and search should not agree at all, `record_identity = "content"` tells records apart by
//! what is in them.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use exfilwatch_model::{Malformed, RawRecord};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::kernel::split::Element;
use crate::records::json;

/// A record of Graph.
#[derive(Debug, Deserialize)]
struct Outer<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(rename = "auditLogRecordType", borrow, default)]
    record_type: Option<&'a RawValue>,
    #[serde(rename = "auditData", borrow, default)]
    data: Option<&'a RawValue>,
}

/// What was in a record of Graph.
#[derive(Debug)]
pub(super) struct Unwrapped {
    /// The record, or why there is none.
    pub(super) element: Element,
    /// Graph's name of the record type.
    pub(super) record_type: Option<String>,
    /// Tells records of one search apart; does not depend on the order of members.
    pub(super) digest: u64,
}

/// Unwraps an element of a page. `page` is the body it lies in.
pub(super) fn unwrapped(page: &Bytes, element: &RawValue) -> Unwrapped {
    let outer: Option<Outer<'_>> = serde_json::from_str(element.get()).ok();
    let record_type = outer
        .as_ref()
        .and_then(|outer| outer.record_type)
        .and_then(|raw| json::text(raw.get().as_bytes()).map(Cow::into_owned));
    let data = outer.as_ref().and_then(|outer| {
        let id = outer
            .id
            .filter(|id| id.get().starts_with('"') && id.get().len() > 2);
        record(page, outer.data?, id)
    });
    let (element, digest) = data.unwrap_or_else(|| {
        let bytes = page.slice_ref(element.get().as_bytes());
        let digest = json::digest(b"", &bytes);
        let reason = "a record of the audit-log search without auditData".to_owned();
        (Element::Malformed(Malformed { bytes, reason }), digest)
    });
    Unwrapped {
        element,
        record_type,
        digest,
    }
}

/// The record in `auditData`; `None` where there is none.
fn record(page: &Bytes, data: &RawValue, id: Option<&RawValue>) -> Option<(Element, u64)> {
    let text = data.get();
    let bytes = match text.as_bytes().first()? {
        b'{' => page.slice_ref(text.as_bytes()),
        // Search-UnifiedAuditLog gives it as text; a client in between might, too.
        b'"' => Bytes::from(json::text(text.as_bytes())?.into_owned()),
        _ => return None,
    };
    let digester = json::Digester::of(&bytes);
    let mut digest = 0_u64;
    let mut named = false;
    let mut members = 0_usize;
    for part in json::members(&bytes) {
        // Not an object after all: the reader says so, and it is quarantined.
        let (key, raw) = part.ok()?;
        digest = digest.wrapping_add(digester.member(key, raw));
        let name = json::name(key);
        members += usize::from(!json::is_annotation(&name));
        named |= *name == *b"Id" && json::scalar(raw).is_some_and(|id| !id.is_empty());
    }
    if members == 0 {
        return None;
    }
    let bytes = match id {
        Some(id) if !named => with_id(&bytes, id),
        _ => bytes,
    };
    Some((Element::Record(RawRecord::new(bytes)), digest))
}

/// The object with an `Id` in front.
fn with_id(object: &Bytes, id: &RawValue) -> Bytes {
    let start = object
        .iter()
        .position(|byte| *byte == b'{')
        .map_or(0, |at| at + 1);
    let mut bytes = BytesMut::with_capacity(object.len() + id.get().len() + 8);
    bytes.put_slice(b"{\"Id\":");
    bytes.put_slice(id.get().as_bytes());
    bytes.put_u8(b',');
    bytes.put_slice(object.get(start..).unwrap_or_default());
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use exfilwatch_model::{Domains, RecordHead};

    use super::*;
    use crate::RecordReader;
    use crate::records::microsoft::Microsoft365Records;

    const FEED: &str = r#"{"CreationTime":"2026-05-01T09:00:00","Id":"a-1","Operation":"FileDownloaded","UserId":"a@b.example","ObjectId":"https:\/\/b.example\/x\u003cy","Size":3}"#;

    fn element(text: &str) -> Unwrapped {
        let page = Bytes::from(format!("[{text}]"));
        let elements: Vec<&RawValue> = serde_json::from_slice(&page).unwrap();
        unwrapped(&page, elements[0])
    }

    fn fingerprint(record: &RawRecord) -> u64 {
        let reader = Microsoft365Records::new(Arc::new(Domains::default()));
        let head: RecordHead<'_> = reader.head(record).unwrap();
        head.fingerprint(&[7; 16])
    }

    fn taken(text: &str) -> RawRecord {
        match element(text).element {
            Element::Record(record) => record,
            Element::Malformed(bad) => panic!("{}", bad.reason),
        }
    }

    #[test]
    fn the_feeds_record_is_recognised_in_graphs() {
        let feed = fingerprint(&RawRecord::new(FEED.into()));
        let same = [
            // As it is; another order and an annotation; other escapes; no Id; as text.
            format!(r#"{{"id":"a-1","auditData":{FEED}}}"#),
            r##"{"id":"a-1","auditData":{"@odata.type":"#microsoft.graph.security.defaultAuditData","Id":"a-1","UserId":"a@b.example","Operation":"FileDownloaded","CreationTime":"2026-05-01T09:00:00","Size":3,"ObjectId":"https:\/\/b.example\/x\u003cy"}}"##.to_owned(),
            r#"{"id":"a-1","auditData":{"CreationTime":"2026-05-01T09:00:00","Id":"a-1","Operation":"FileDownloaded","UserId":"a\u0040b.example","ObjectId":"https://b.example/x\u003Cy","Size":3}}"#.to_owned(),
            r#"{"id":"a-1","auditData":{"CreationTime":"2026-05-01T09:00:00","Operation":"FileDownloaded","UserId":"a@b.example","ObjectId":"https://b.example/x<y","Size":3}}"#.to_owned(),
            serde_json::json!({"id": "a-1", "auditData": FEED}).to_string(),
        ];
        for text in &same {
            assert_eq!(fingerprint(&taken(text)), feed, "{text}");
        }
        for text in [
            format!(r#"{{"id":"a-1","auditData":{}}}"#, FEED.replace(":3", ":4")),
            format!(
                r#"{{"id":"a-2","auditData":{}}}"#,
                FEED.replace("a-1", "a-2")
            ),
        ] {
            assert_ne!(fingerprint(&taken(&text)), feed, "{text}");
        }
    }

    #[test]
    fn the_bytes_are_the_vendors_own() {
        let record = taken(&format!(
            r#"{{"auditLogRecordType":"sharePoint","auditData":{FEED}}}"#
        ));
        assert_eq!(&record.bytes()[..], FEED.as_bytes());
    }

    #[test]
    fn what_holds_no_record_is_malformed_and_kept() {
        for text in [
            r#"{"id":"a-1"}"#,
            r#"{"id":"a-1","auditData":null}"#,
            r##"{"id":"a-1","auditData":{"@odata.type":"#microsoft.graph.security.auditData"}}"##,
            r#"{"id":"a-1","auditData":{}}"#,
            r#"{"id":"a-1","auditData":"no json"}"#,
            "17",
            "null",
        ] {
            match element(text).element {
                Element::Malformed(bad) => assert_eq!(&bad.bytes[..], text.as_bytes()),
                Element::Record(_) => panic!("{text}"),
            }
        }
    }
}
