//! The members of a record, each read when somebody asks for it: of most records few are needed.

use std::borrow::Cow;
use std::cell::OnceCell;

use serde_json::Value;

use super::flatten;
use super::json::{self, Broken, Raw};

/// The members of one record, by name. Of a name that repeats the last one counts.
#[derive(Debug)]
pub(crate) struct Members<'a>(Vec<Member<'a>>);

#[derive(Debug)]
struct Member<'a> {
    name: Cow<'a, str>,
    raw: Raw<'a>,
    value: OnceCell<Value>,
}

impl Member<'_> {
    fn value(&self) -> &Value {
        self.value.get_or_init(|| json::value(self.raw))
    }
}

impl<'a> Members<'a> {
    /// The members of a text, which is checked to its end.
    pub(crate) fn of(text: Raw<'a>) -> Result<Self, Broken> {
        let mut all: Vec<Member<'a>> = Vec::with_capacity(32);
        for part in json::members(text) {
            let (key, raw) = part?;
            if let Some(name) = json::text(key) {
                let value = OnceCell::new();
                all.push(Member { name, raw, value });
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        // `dedup_by` keeps the earlier of two, into which the later goes.
        all.dedup_by(|later, earlier| {
            let same = later.name == earlier.name;
            if same {
                earlier.raw = later.raw;
            }
            same
        });
        Ok(Self(all))
    }

    fn member(&self, name: &str) -> Option<&Member<'a>> {
        let place = self.0.binary_search_by(|member| (*member.name).cmp(name));
        self.0.get(place.ok()?)
    }

    /// A member as it stands there.
    pub(crate) fn raw(&self, name: &str) -> Option<Raw<'a>> {
        self.member(name).map(|member| member.raw)
    }

    /// A member, read.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.member(name).map(Member::value)
    }

    /// A member as text, without blanks around it; `None` when absent, null or empty. As
    /// [`flatten::member_text`].
    pub(crate) fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        let member = self.member(name)?;
        let text = match member.raw {
            [b'"', ..] => json::text(member.raw)?,
            _ => Cow::Owned(flatten::text(member.value())?),
        };
        let trimmed = match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
            Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
        };
        (!trimmed.is_empty()).then_some(trimmed)
    }

    /// Those whose names are asked for, by name.
    pub(crate) fn asked(
        &self,
        is_asked: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = (&str, &Value)> {
        self.0
            .iter()
            .filter(move |member| is_asked(&member.name))
            .map(|member| (&*member.name, member.value()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_those_of_the_whole_text_read_at_once() {
        for text in [
            r#"{"b":1,"a":" x ","a":"y","\u0063":[ "one" ],"d":{"e":null},"f":1e2,"g":true,"h":null,"i":"","j":"\u00e9\/"}"#,
            "{}",
        ] {
            let members = Members::of(text.as_bytes()).unwrap();
            let whole: serde_json::Map<String, Value> = serde_json::from_str(text).unwrap();
            let read: Vec<(&str, &Value)> = members.asked(|_| true).collect();
            let expected: Vec<(&str, &Value)> = whole
                .iter()
                .map(|(name, value)| (name.as_str(), value))
                .collect();
            assert_eq!(read, expected);
            for name in whole.keys() {
                let text = members.text(name).map(Cow::into_owned);
                assert_eq!(text, flatten::member_text(&whole, name), "{name}");
            }
        }
        let half = Members::of(br#"{"a":"\ud800","b":1}"#).unwrap();
        assert_eq!(half.get("a"), Some(&Value::from("\u{fffd}")));
        assert_eq!(half.get("b"), Some(&Value::from(1)));
        assert!(Members::of(b"[1]").is_err() && Members::of(br#"{"a":1"#).is_err());
    }
}
