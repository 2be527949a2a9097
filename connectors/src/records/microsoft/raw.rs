//! A look at the text of a record without reading it, to rule out what it cannot hold.
//!
//! What is found may stand anywhere in the record; what is not found stands nowhere in it.

use memchr::{memchr2_iter, memmem};

/// Letters by how seldom they stand in records: a name is looked for by its rarest.
const RARE_FIRST: &[u8] = b"jqzwkvxypgmubhflcdsnroiate";

/// Whether the text holds the name (ASCII letters and `_`), in any case.
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

/// Whether a letter may be written as an escape, so that a name need not stand there as it is.
pub(super) fn may_hide_letters(text: &[u8]) -> bool {
    memmem::find(text, b"\\u").is_some()
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
    fn an_escape_may_hide_a_letter() {
        assert!(may_hide_letters(br"Forward\u0054o"));
        assert!(!may_hide_letters(br"a\/b\n"));
    }
}
