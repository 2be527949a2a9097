//! Cuts a JSON array into its elements while it streams, without reading what is in them.
//!
//! An element that lies in one piece of the body is a slice of that piece. What is no JSON object
//! by its outline (a number, a string, brackets that do not match, too long) comes out as
//! malformed and the rest goes on; whether an object is valid inside is the reader's question.

use bytes::{Bytes, BytesMut};
use exfilwatch_model::record::RECORD_BYTES_MAX;
use exfilwatch_model::{Malformed, RawRecord};

/// One element of the array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Element {
    /// An object by its outline.
    Record(RawRecord),
    /// Something else.
    Malformed(Malformed),
}

/// The body is no whole array.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// It does not begin as an array.
    #[error("the body is not a JSON array: {0}")]
    NotAnArray(String),
    /// It ends before the array does.
    #[error("the body ends in the middle of the array")]
    CutShort,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Before,
    Between,
    Inside,
    After,
}

/// Where the splitter stands in the current element.
#[derive(Debug, Default)]
struct Outline {
    /// Open brackets, outermost first.
    open: Vec<u8>,
    in_string: bool,
    escaped: bool,
    /// The first bracket was `{`.
    object: bool,
    /// The outermost bracket has closed: nothing but white space may follow.
    closed: bool,
    fault: Option<&'static str>,
}

/// The splitter. Feed it pieces in order; then [`Splitter::finish`].
#[derive(Debug)]
pub struct Splitter {
    place: Place,
    outline: Outline,
    /// The start of an element whose end is in a later piece, cut to [`RECORD_BYTES_MAX`].
    held: BytesMut,
    /// Bytes of the current element in earlier pieces, also those not held.
    held_length: usize,
}

const TOO_LONG: &str = "the record is larger than 4 MiB";
const NOT_AN_OBJECT: &str = "not a JSON object";
const BRACKETS: &str = "brackets do not match";
const TRAILING: &str = "something stands after the object";

impl Default for Splitter {
    fn default() -> Self {
        Self {
            place: Place::Before,
            outline: Outline::default(),
            held: BytesMut::new(),
            held_length: 0,
        }
    }
}

impl Splitter {
    /// Takes the next piece and adds the elements that end in it. Returns how many bytes were
    /// taken: fewer than the piece has only when the array ends in it.
    pub fn push(&mut self, piece: &Bytes, out: &mut Vec<Element>) -> Result<usize, SplitError> {
        let mut at = 0;
        let mut start = 0;
        while let Some(&byte) = piece.get(at) {
            match self.place {
                Place::Before => match byte {
                    b'[' => {
                        self.place = Place::Between;
                        at += 1;
                    }
                    // White space, or the parts of a byte order mark.
                    b' ' | b'\t' | b'\r' | b'\n' | 0xef | 0xbb | 0xbf => at += 1,
                    _ => {
                        let rest = piece.get(at..).unwrap_or_default();
                        return Err(SplitError::NotAnArray(super::words::shown_bytes(rest)));
                    }
                },
                Place::Between => match byte {
                    b']' => {
                        self.place = Place::After;
                        return Ok(at + 1);
                    }
                    b',' | b' ' | b'\t' | b'\r' | b'\n' => at += 1,
                    _ => {
                        self.place = Place::Inside;
                        start = at;
                    }
                },
                Place::Inside => {
                    at = self.outline.advance(piece, at);
                    if let Some(&end) = piece.get(at) {
                        out.push(self.take_element(&piece.slice(start..at)));
                        at += 1;
                        self.place = Place::Between;
                        if end == b']' {
                            self.place = Place::After;
                            return Ok(at);
                        }
                    }
                }
                Place::After => return Ok(at),
            }
        }
        if self.place == Place::Inside {
            self.hold(&piece.slice(start..));
        }
        Ok(piece.len())
    }

    /// Whether the array has ended.
    pub fn ended(&self) -> bool {
        self.place == Place::After
    }

    /// The body has ended. An element that never closed, in a body that does end as an array
    /// should, comes out as malformed: trying again would bring the same bytes.
    pub fn finish(mut self, out: &mut Vec<Element>) -> Result<(), SplitError> {
        match self.place {
            Place::After => Ok(()),
            Place::Inside
                if self.outline.fault.is_some() && self.held.trim_ascii_end().ends_with(b"]") =>
            {
                out.push(self.take_element(&Bytes::new()));
                Ok(())
            }
            Place::Before | Place::Between | Place::Inside => Err(SplitError::CutShort),
        }
    }

    fn hold(&mut self, part: &Bytes) {
        self.held_length += part.len();
        let room = RECORD_BYTES_MAX.saturating_sub(self.held.len());
        self.held
            .extend_from_slice(part.get(..room).unwrap_or(part));
    }

    fn take_element(&mut self, tail: &Bytes) -> Element {
        let bytes = if self.held_length == 0 {
            self.held_length = tail.len();
            tail.slice(..tail.len().min(RECORD_BYTES_MAX))
        } else {
            self.hold(tail);
            std::mem::take(&mut self.held).freeze()
        };
        let length = std::mem::take(&mut self.held_length);
        let outline = std::mem::take(&mut self.outline);
        let bytes = bytes.slice(..bytes.trim_ascii_end().len());
        let fault = match outline.fault {
            _ if length > RECORD_BYTES_MAX => Some(TOO_LONG),
            Some(fault) => Some(fault),
            None if !outline.object => Some(NOT_AN_OBJECT),
            None => None,
        };
        match fault {
            None => Element::Record(RawRecord::new(bytes)),
            Some(reason) => Element::Malformed(Malformed {
                bytes,
                reason: reason.to_owned(),
            }),
        }
    }
}

impl Outline {
    /// Goes on to the `,` or `]` that ends the element, or to the end of the piece.
    fn advance(&mut self, piece: &[u8], mut at: usize) -> usize {
        while let Some(&byte) = piece.get(at) {
            if self.in_string {
                at = self.leave_string(piece, at);
                continue;
            }
            match byte {
                b',' | b']' if self.open.is_empty() => return at,
                b'"' => {
                    self.note_content();
                    self.in_string = true;
                }
                b'{' | b'[' => {
                    self.note_content();
                    if self.open.is_empty() && !self.closed {
                        self.object = byte == b'{';
                    }
                    self.open.push(byte);
                }
                b'}' => self.close(b'{'),
                b']' => self.close(b'['),
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ => self.note_content(),
            }
            at += 1;
        }
        at
    }

    fn leave_string(&mut self, piece: &[u8], mut at: usize) -> usize {
        if std::mem::take(&mut self.escaped) {
            return at + 1;
        }
        let rest = piece.get(at..).unwrap_or_default();
        match memchr::memchr2(b'"', b'\\', rest) {
            None => piece.len(),
            Some(found) => {
                at += found;
                if piece.get(at) == Some(&b'"') {
                    self.in_string = false;
                } else {
                    self.escaped = true;
                }
                at + 1
            }
        }
    }

    fn note_content(&mut self) {
        if self.closed {
            self.fault = Some(TRAILING);
        }
    }

    /// Closes up to the nearest bracket of that kind, so that one unclosed bracket inside a record
    /// does not swallow the records after it.
    fn close(&mut self, opening: u8) {
        if self.open.last() != Some(&opening) {
            self.fault = Some(BRACKETS);
        }
        if let Some(depth) = self.open.iter().rposition(|&open| open == opening) {
            self.open.truncate(depth);
        }
        self.closed |= self.open.is_empty();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Splits the text cut into pieces of `step` bytes; malformed elements are marked by `!`.
    fn split(text: &[u8], step: usize) -> Result<Vec<String>, SplitError> {
        let mut splitter = Splitter::default();
        let mut out = Vec::new();
        for piece in text.chunks(step.max(1)) {
            splitter.push(&Bytes::copy_from_slice(piece), &mut out)?;
        }
        splitter.finish(&mut out)?;
        Ok(out.iter().map(show).collect())
    }

    fn show(element: &Element) -> String {
        match element {
            Element::Record(record) => String::from_utf8_lossy(record.bytes()).into_owned(),
            Element::Malformed(bad) => format!("!{}", String::from_utf8_lossy(&bad.bytes)),
        }
    }

    #[test]
    fn elements_come_out_byte_for_byte_and_bad_ones_do_not_take_others_along() {
        let cases: &[(&str, &[&str])] = &[
            ("[]", &[]),
            (" \n[ ]\r\n", &[]),
            ("\u{feff}[{}]", &["{}"]),
            (
                r#"[{"a":"},{]\""} , {"b":[1,{"c":{}}]}]"#,
                &[r#"{"a":"},{]\""}"#, r#"{"b":[1,{"c":{}}]}"#],
            ),
            (
                r#"[{"a":1},42,"x,y",null,[1,2],{"b":2}]"#,
                &[
                    r#"{"a":1}"#,
                    "!42",
                    r#"!"x,y""#,
                    "!null",
                    "![1,2]",
                    r#"{"b":2}"#,
                ],
            ),
            (r#"[{"a":[},{"b":2}]"#, &[r#"!{"a":[}"#, r#"{"b":2}"#]),
            (r#"[{"a":1} x,{"b":2}]"#, &[r#"!{"a":1} x"#, r#"{"b":2}"#]),
            (r#"[{"a":1}{"b":2}]"#, &[r#"!{"a":1}{"b":2}"#]),
            (r#"[{"a":1},,{"b":2},]"#, &[r#"{"a":1}"#, r#"{"b":2}"#]),
            (r#"[{"a":1]}, {"b":2}]"#, &[r#"!{"a":1]}"#, r#"{"b":2}"#]),
            (
                r#"[{"a":1},{"b":2],{"c":3}]"#,
                &[r#"{"a":1}"#, r#"!{"b":2],{"c":3}]"#],
            ),
        ];
        for (text, expected) in cases {
            for step in 1..=text.len() {
                assert_eq!(
                    &split(text.as_bytes(), step).unwrap(),
                    expected,
                    "{text} by {step}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_whole_array_is_an_error_and_not_an_empty_one() {
        for text in ["", "  ", "[", r#"[{"a":1}"#, r#"[{"a":1},"#, r#"[{"a":"x"#] {
            assert_eq!(
                split(text.as_bytes(), 3),
                Err(SplitError::CutShort),
                "{text}"
            );
        }
        for text in [r#"{"error":{"code":"AF50000"}}"#, "<html>", "null"] {
            let error = split(text.as_bytes(), 100).unwrap_err();
            assert!(matches!(error, SplitError::NotAnArray(_)), "{text}");
        }
    }

    #[test]
    fn an_oversized_record_is_cut_and_its_neighbours_live() {
        let long = format!(
            r#"[{{"a":1}},{{"x":"{}"}},{{"b":2}}]"#,
            "y".repeat(RECORD_BYTES_MAX + 10)
        );
        for step in [100_000, long.len()] {
            let mut splitter = Splitter::default();
            let mut out = Vec::new();
            for piece in long.as_bytes().chunks(step) {
                splitter
                    .push(&Bytes::copy_from_slice(piece), &mut out)
                    .unwrap();
            }
            splitter.finish(&mut out).unwrap();
            let [
                Element::Record(_),
                Element::Malformed(bad),
                Element::Record(_),
            ] = &out[..]
            else {
                panic!("wrong elements");
            };
            assert_eq!(bad.bytes.len(), RECORD_BYTES_MAX);
            assert_eq!(bad.reason, TOO_LONG);
        }
    }

    proptest! {
        #[test]
        fn any_valid_array_of_objects_survives_any_cut(
            texts in proptest::collection::vec("\\PC{0,12}", 0..6),
            step in 1_usize..40,
        ) {
            let records: Vec<String> = texts
                .iter()
                .map(|text| serde_json::json!({"k": text, "n": [text, {"d": 1}]}).to_string())
                .collect();
            let array = format!("[{}]", records.join(", "));
            prop_assert_eq!(split(array.as_bytes(), step).unwrap(), records);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1_usize..20) {
            let mut array = b"[".to_vec();
            array.extend(bytes);
            // Any outcome is fine as long as there is one.
            let outcome = split(&array, step);
            prop_assert!(outcome.is_ok() || outcome.is_err());
        }
    }
}
