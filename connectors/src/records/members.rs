//! The members of a record, or of an object in it, as raw slices: of most records few are ever read.

use std::borrow::Cow;

use super::flatten;
use super::json::{self, Broken, Raw};

/// The members of an object, in the order of the text. Of a name that repeats the last one counts.
#[derive(Debug)]
pub(crate) struct Members<'a>(Vec<Member<'a>>);

/// A member: its name, and its value as it stands there.
pub(crate) type Member<'a> = (Cow<'a, [u8]>, Raw<'a>);

/// About how many bytes a member takes.
const MEMBER_BYTES: usize = 40;

impl<'a> Members<'a> {
    /// The members of a text, which is checked to its end.
    pub(crate) fn of(text: Raw<'a>) -> Result<Self, Broken> {
        let mut all = Vec::with_capacity((text.len() / MEMBER_BYTES).clamp(4, 40));
        for part in json::members(text) {
            let (key, raw) = part?;
            all.push((json::name(key), raw));
        }
        Ok(Self(all))
    }

    /// A member as it stands there.
    pub(crate) fn raw(&self, name: &str) -> Option<Raw<'a>> {
        let mut last_first = self.0.iter().rev();
        let found = last_first.find(|(known, _)| **known == *name.as_bytes());
        found.map(|(_, raw)| *raw)
    }

    /// The members of a member that is an object.
    pub(crate) fn object(&self, name: &str) -> Option<Self> {
        Self::of(self.raw(name)?).ok()
    }

    /// A member as text, without blanks around it; `None` when absent, null or empty.
    pub(crate) fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        let trimmed = match flatten::text(self.raw(name)?)? {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
            Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
        };
        (!trimmed.is_empty()).then_some(trimmed)
    }

    /// Those whose names are asked for, each once, by name.
    pub(crate) fn asked(&self, is_asked: impl Fn(&[u8]) -> bool) -> Vec<&Member<'a>> {
        let mut asked: Vec<_> = self.0.iter().filter(|(name, _)| is_asked(name)).collect();
        asked.sort_by(|a, b| a.0.cmp(&b.0));
        // `dedup_by` keeps the earlier of two, into which the later goes.
        asked.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                *earlier = *later;
            }
            same
        });
        asked
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn members_are_those_of_the_whole_text_read_at_once() {
        for text in [
            r#"{"b":1,"a":" x ","a":"y","\u0063":[ "one" ],"d":{"e":null},"f":1e2,"g":true,"h":null,"i":"","j":"\u00e9\/"}"#,
            "{}",
        ] {
            let members = Members::of(text.as_bytes()).unwrap();
            let whole: serde_json::Map<String, Value> = serde_json::from_str(text).unwrap();
            let asked = members.asked(|_| true).into_iter();
            let read: Vec<(&[u8], Value)> = asked
                .map(|(name, raw)| (&**name, json::value(raw)))
                .collect();
            let expected: Vec<(&[u8], Value)> = whole
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.clone()))
                .collect();
            assert_eq!(read, expected);
            for (name, raw) in read {
                let name = std::str::from_utf8(name).unwrap();
                assert_eq!(members.raw(name).map(json::value), Some(raw), "{name}");
            }
        }
        assert!(Members::of(b"[1]").is_err() && Members::of(br#"{"a":1"#).is_err());
    }

    #[test]
    fn a_member_as_text_is_a_scalar_or_a_list_of_one_without_blanks_around_it() {
        let record =
            br#"{"a":" x ","b":["y"],"c":[1,2],"d":"\t\u00e9\n","e":" ","f":null,"g":1.50,"h":{}}"#;
        let members = Members::of(record).unwrap();
        for (name, expected) in [
            ("a", Some("x")),
            ("b", Some("y")),
            ("c", None),
            ("d", Some("é")),
            ("e", None),
            ("f", None),
            ("g", Some("1.5")),
            ("h", None),
            ("i", None),
        ] {
            assert_eq!(members.text(name).as_deref(), expected, "{name}");
        }
    }
}
