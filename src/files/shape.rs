//! What a JSON value is, told by the names of its top-level members and no more.
//!
//! Stops at the first member that decides: for a record that is one of the first few, so the rest
//! of it is not looked at. Names are compared as they stand (no vendor escapes them).

use std::ops::Range;

use exfilwatch_model::Product;

use super::scanner::Scanner;

/// `kind` of a Reports API page.
const PAGE_KIND: &[u8] = b"admin#reports#activities";

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// A native record.
    Record(Product),
    /// An object with `items`: the index behind the bracket that opens them.
    Page { items: usize },
    /// A page of the Reports API that has no items.
    EmptyPage,
    /// A row of Search-UnifiedAuditLog as JSON: where the string `AuditData` stands.
    Export(Range<usize>),
    /// An array.
    Array,
    /// An object of something else.
    Neither,
    /// No object and no array.
    Scalar,
    /// The value is cut before any member decided.
    Incomplete,
    /// Not JSON.
    Broken,
}

/// Tells what the value is that begins at the first byte.
pub(super) fn shape(bytes: &[u8]) -> Shape {
    match bytes.first() {
        Some(b'{') => object(bytes),
        Some(b'[') => Shape::Array,
        _ => Shape::Scalar,
    }
}

fn object(bytes: &[u8]) -> Shape {
    let mut members = Members { bytes, at: 1 };
    let (mut page, mut record_type, mut audit_data) = (false, false, None);
    loop {
        let (name, value) = match members.next_name() {
            Step::Member(name, value) => (name, value),
            Step::Incomplete => return Shape::Incomplete,
            Step::Broken => return Shape::Broken,
            Step::End => break,
        };
        let first = bytes.get(value).copied();
        match (name, first) {
            (b"Operation" | b"CreationTime" | b"Id", Some(b'"')) => {
                return Shape::Record(Product::M365);
            }
            (b"id", Some(b'{')) => match has_member(&bytes[value..], b"applicationName") {
                Some(true) => return Shape::Record(Product::GoogleWorkspace),
                Some(false) => {}
                None => return Shape::Incomplete,
            },
            (b"alertId", Some(b'"')) => return Shape::Record(Product::GoogleWorkspace),
            (b"items", Some(b'[')) => return Shape::Page { items: value + 1 },
            _ => {}
        }
        let Some(end) = members.skip_value(value) else {
            return Shape::Incomplete;
        };
        match name {
            b"kind" => page = bytes[value + 1..end].starts_with(PAGE_KIND),
            b"RecordType" => record_type = true,
            b"AuditData" if first == Some(b'"') => audit_data = Some(value..end),
            _ => {}
        }
    }
    match audit_data {
        Some(range) => Shape::Export(range),
        None if record_type => Shape::Record(Product::M365),
        None if page => Shape::EmptyPage,
        None => Shape::Neither,
    }
}

/// Whether the object has the member; `None` where it is cut before that is known.
fn has_member(object: &[u8], wanted: &[u8]) -> Option<bool> {
    let mut members = Members {
        bytes: object,
        at: 1,
    };
    loop {
        match members.next_name() {
            Step::Member(name, _) if name == wanted => return Some(true),
            Step::Member(_, value) => members.skip_value(value).map(drop)?,
            Step::End | Step::Broken => return Some(false),
            Step::Incomplete => return None,
        }
    }
}

/// Walks over the members of an object.
struct Members<'a> {
    bytes: &'a [u8],
    at: usize,
}

enum Step<'a> {
    /// Name, and index of the value's first byte.
    Member(&'a [u8], usize),
    End,
    Incomplete,
    Broken,
}

impl<'a> Members<'a> {
    fn next_name(&mut self) -> Step<'a> {
        self.blanks(b",");
        match self.bytes.get(self.at) {
            Some(b'"') => {}
            Some(b'}') => return Step::End,
            Some(_) => return Step::Broken,
            None => return Step::Incomplete,
        }
        let start = self.at + 1;
        let Some(end) = string_end(self.bytes, self.at) else {
            return Step::Incomplete;
        };
        self.at = end;
        self.blanks(b"");
        match self.bytes.get(self.at) {
            Some(b':') => self.at += 1,
            Some(_) => return Step::Broken,
            None => return Step::Incomplete,
        }
        self.blanks(b"");
        if self.at >= self.bytes.len() {
            return Step::Incomplete;
        }
        Step::Member(&self.bytes[start..end - 1], self.at)
    }

    /// Moves behind the value; its end, or `None` where it is cut.
    fn skip_value(&mut self, value: usize) -> Option<usize> {
        let rest = self.bytes.get(value..)?;
        let length = match rest.first()? {
            b'"' => string_end(self.bytes, value)? - value,
            b'{' | b'[' => Scanner::outside().close(rest)?,
            _ => Scanner::outside().scalar(rest)?,
        };
        self.at = value + length;
        Some(self.at)
    }

    fn blanks(&mut self, more: &[u8]) {
        while let Some(byte) = self.bytes.get(self.at) {
            if !byte.is_ascii_whitespace() && !more.contains(byte) {
                return;
            }
            self.at += 1;
        }
    }
}

/// Index behind the closing quote of the string that opens at `open`.
fn string_end(bytes: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)? + 1;
        if bytes[at - 1] == b'"' {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_told_by_its_members() {
        let m365 = Shape::Record(Product::M365);
        let google = Shape::Record(Product::GoogleWorkspace);
        let cases = [
            (
                r#"{"CreationTime":"2021-01-01T00:00:00","x":"#,
                m365.clone(),
            ),
            (r#"{ "a" : {"Id":"no"} , "Id" : "1" }"#, m365.clone()),
            (r#"{"RecordType":1}"#, m365),
            (
                r#"{"kind":"admin#reports#activity","id":{"time":"x","applicationName":"drive"}}"#,
                google.clone(),
            ),
            (
                r#"{"a\"b":[1,{"id":2}],"id":{"applicationName":"drive"}}"#,
                google,
            ),
            (r#"{"id":{"time":"x"}}"#, Shape::Neither),
            (r#"{"id":"applicationName"}"#, Shape::Neither),
            (r#"{"Id":7,"operation":"x"}"#, Shape::Neither),
            ("{}", Shape::Neither),
            (
                r#"{"kind":"admin#reports#activities","items":[{}"#,
                Shape::Page { items: 44 },
            ),
            (
                r#"{"kind":"admin#reports#activities","etag":"e"}"#,
                Shape::EmptyPage,
            ),
            (
                r#"{"RecordType":1,"AuditData":"{}"}"#,
                Shape::Export(28..32),
            ),
            ("[1]", Shape::Array),
            ("7", Shape::Scalar),
            ("", Shape::Scalar),
            (r#"{"a":1"#, Shape::Incomplete),
            (r#"{"a"#, Shape::Incomplete),
            (r#"{"id":{"time":"#, Shape::Incomplete),
            (r"{a:1}", Shape::Broken),
            (r#"{"a" 1}"#, Shape::Broken),
        ];
        for (text, want) in cases {
            assert_eq!(shape(text.as_bytes()), want, "{text}");
        }
    }
}
