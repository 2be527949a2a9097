//! Who acted, as the index knows it: every name a record has for its actor, in lower case. One
//! function serves writing and searching, so that what is searched for is what was written down.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::Deserialize;

/// The members that name an actor; of Office 365 the first two, of Google the third.
#[derive(Debug, Deserialize)]
struct Named<'a> {
    #[serde(borrow, default, rename = "UserId")]
    user_id: Member<'a>,
    #[serde(borrow, default, rename = "UserKey")]
    user_key: Member<'a>,
    #[serde(borrow, default)]
    actor: Actor<'a>,
}

#[derive(Debug, Default, Deserialize)]
struct Actor<'a> {
    #[serde(borrow, default)]
    email: Member<'a>,
    #[serde(borrow, default, rename = "profileId")]
    profile_id: Member<'a>,
    #[serde(borrow, default)]
    key: Member<'a>,
}

/// A member that should be text; whatever else it is names nobody.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Member<'a> {
    Name(#[serde(borrow)] Cow<'a, str>),
    Other(serde::de::IgnoredAny),
    #[default]
    None,
}

/// The names of a record's actor; `None` where the record cannot be read this way: then nobody can say
/// whose it is, and a search must show it.
pub(super) fn of(record: &[u8]) -> Option<BTreeSet<String>> {
    let named = serde_json::from_slice::<Named<'_>>(record).ok()?;
    let texts = [
        named.user_id,
        named.user_key,
        named.actor.email,
        named.actor.profile_id,
        named.actor.key,
    ];
    let names = texts.iter().filter_map(|text| match text {
        Member::Name(text) => Some(folded(text)),
        Member::Other(_) | Member::None => None,
    });
    Some(names.filter(|name| !name.is_empty()).collect())
}

/// A name as it stands in the index.
pub(super) fn folded(name: &str) -> String {
    name.trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_actor_is_found_in_lower_case() {
        for (record, expected) in [
            (
                r#"{"UserId":" Alice@Contoso.example","UserKey":"1003","Id":"x"}"#,
                vec!["1003", "alice@contoso.example"],
            ),
            (
                r#"{"actor":{"email":"bob@x.example","profileId":"77","callerType":"USER"}}"#,
                vec!["77", "bob@x.example"],
            ),
            (r#"{"UserId":null,"UserKey":7}"#, vec![]),
            (r#"{"UserId":"","actor":{}}"#, vec![]),
        ] {
            let found: Vec<_> = of(record.as_bytes()).unwrap().into_iter().collect();
            assert_eq!(found, expected, "{record}");
        }
        for record in [
            r#"{"UserId":"a","actor":"b"}"#,
            r#"{"UserId":"a","UserId":"b"}"#,
        ] {
            assert_eq!(of(record.as_bytes()), None, "{record}");
        }
    }
}
