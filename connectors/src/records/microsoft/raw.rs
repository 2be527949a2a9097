//! A look at the text of a record without reading it, to rule out what it cannot hold.
//!
//! What is found may stand anywhere in the record; what is not found stands nowhere in it.

use exfilwatch_model::Claim;
use memchr::{memchr2_iter, memchr3_iter, memmem};

/// Characters by how seldom they stand in records: a name is looked for by its rarest.
const RARE_FIRST: &[u8] = b"jqzwkvxypgmubhflcdsnroiate9876543210=@:_.- ";

/// Whether a field is the vendor's own, in its spelling. Ours are all small and hold no dot.
pub(super) fn is_vendors(name: &str) -> bool {
    name.bytes()
        .any(|byte| byte == b'.' || byte.is_ascii_uppercase())
}

/// Whether an event of the record may meet a claim on one of the vendor's own fields: their names,
/// between the dots, and their values stand in the record as they are.
pub(super) fn may_meet(text: &[u8], claim: Claim<'_>) -> bool {
    let longest = claim.field().split('.').max_by_key(|part| part.len());
    let is_named = longest.is_none_or(|part| names(text, part));
    let may_hold = match claim {
        // A switch without a value is true, which stands nowhere.
        Claim::Holds(name, _) if name.starts_with("Parameters.") => true,
        Claim::Has(_) => true,
        Claim::Holds(_, words) => words.iter().any(|word| names(text, word)),
    };
    (is_named && may_hold) || may_hide_letters(text)
}

/// Whether the record's type may be one of those claimed.
pub(super) fn may_be_of_type(text: &[u8], claim: Claim<'_>) -> bool {
    const MEMBER: &[u8] = b"RecordType\"";
    let Claim::Holds(_, types) = claim else {
        return true;
    };
    let is_claimed = |at: usize| {
        let rest = text.get(at + MEMBER.len()..).unwrap_or_default();
        let is_digit = |byte: &u8| byte.is_ascii_digit();
        let from = rest.iter().position(is_digit).unwrap_or(rest.len());
        let digits = rest.get(from..).unwrap_or_default();
        let length = digits.iter().position(|byte| !is_digit(byte));
        let number = digits
            .get(..length.unwrap_or(digits.len()))
            .unwrap_or_default();
        let number = std::str::from_utf8(number).unwrap_or_default();
        let is_same = |claimed: &String| match (claimed.parse::<u64>(), number.parse::<u64>()) {
            (Ok(claimed), Ok(number)) => claimed == number,
            // What is no number is not ruled out.
            (_, _) => true,
        };
        types.iter().any(is_same)
    };
    memmem::find_iter(text, MEMBER).any(is_claimed) || may_hide_letters(text)
}

/// Whether the text holds the name (ASCII letters and digits and `=@:_.-`, blanks), in any case.
pub(super) fn names(text: &[u8], name: &str) -> bool {
    let name = name.as_bytes();
    let rarest = RARE_FIRST
        .iter()
        .find_map(|rare| name.iter().position(|byte| byte.eq_ignore_ascii_case(rare)));
    let Some((before, letter)) = rarest.and_then(|at| Some((at, name.get(at)?))) else {
        return true;
    };
    memchr2_iter(
        letter.to_ascii_lowercase(),
        letter.to_ascii_uppercase(),
        text,
    )
    .any(|at| {
        at.checked_sub(before)
            .and_then(|start| text.get(start..start + name.len()))
            .is_some_and(|found| found.eq_ignore_ascii_case(name))
    })
}

/// Whether a letter may be written as an escape, or as one of the three characters that are an ASCII
/// letter in another case (U+0130, U+017F and the Kelvin sign), so that a name need not stand there as
/// it is.
pub(super) fn may_hide_letters(text: &[u8]) -> bool {
    const LONG_S: &[u8] = "\u{17F}".as_bytes();
    let mut hiding = memchr3_iter(b'\\', 0xC4, 0xE2, text);
    let is_hiding = hiding.any(|at| {
        text.get(at..).is_some_and(|rest| {
            rest.starts_with(b"\\u")
                || rest.starts_with(b"\xC4\xB0")
                || rest.starts_with(b"\xE2\x84\xAA")
        })
    });
    is_hiding || memmem::find(text, LONG_S).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_in_any_case_and_place() {
        for (text, found) in [
            ("ForwardTo", true),
            (r#"{"x":"FORWARDTO"}"#, true),
            ("w forwardto", true),
            ("forward to", false),
            ("ward", false),
            ("forwardt", false),
            ("", false),
        ] {
            assert_eq!(names(text.as_bytes(), "ForwardTo"), found, "{text}");
        }
        assert!(names(b"___", ""), "nothing to look for is not ruled out");
    }

    #[test]
    fn a_type_is_told_by_its_number() {
        let types = ["8".to_owned(), "50".to_owned()];
        let claim = Claim::Holds("record_type", &types);
        for (text, may_be) in [
            (r#"{"RecordType":8}"#, true),
            (r#"{"RecordType" : "08","x":1}"#, true),
            (r#"{"RecordType":81}"#, false),
            (r#"{"RecordType":18,"y":{"RecordType":50}}"#, true),
            (r#"{"Record":8}"#, false),
            (r#"{"RecordType":null}"#, true),
        ] {
            assert_eq!(may_be_of_type(text.as_bytes(), claim), may_be, "{text}");
        }
    }

    #[test]
    fn an_escape_may_hide_a_letter() {
        assert!(may_hide_letters(br"Forward\u0054o"));
        assert!(may_hide_letters("\u{17F}et-mailbox".as_bytes()));
        assert!(!may_hide_letters(br"a\/b\n"));
    }
}
