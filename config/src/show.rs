//! Effective values with their origins, for `config show`.

use std::fmt;

use serde::Serialize;
use serde_json::Value as Json;

use crate::origin::Origin;
use crate::tree::{Table, Value};

/// One effective value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// Its path, as a flag would set it.
    pub path: String,
    /// The value. Of a secret, only where it is found. Passwords in URLs are masked.
    pub value: Json,
    /// Where it was set.
    pub origin: Origin,
}

/// `path = value  # origin`.
impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} = {}  # {}",
            self.path,
            self.value,
            self.origin.brief()
        )
    }
}

/// Lists the values of a table that was read from `table`, below `path`. Members that are not set
/// and have no default are left out.
pub(crate) fn list(path: &str, values: &Json, table: &Table, shown: &mut Vec<Shown>) {
    walk(path, values, Some(table), &Origin::Default, shown);
}

fn walk(path: &str, value: &Json, table: Option<&Table>, origin: &Origin, shown: &mut Vec<Shown>) {
    match value {
        Json::Null => {}
        Json::Object(members) => {
            for (key, member) in members {
                let entry = table.and_then(|table| table.get(key));
                let inner = entry.and_then(|entry| entry.node.table());
                let origin = entry.map_or(origin, |entry| match &entry.node.value {
                    // A member that the table does not name was filled in by a default.
                    Value::Table(_) => &Origin::Default,
                    _ => &entry.node.origin,
                });
                walk(&joined(path, key), member, inner, origin, shown);
            }
        }
        _ => shown.push(Shown {
            path: path.to_owned(),
            value: masked(value),
            origin: origin.clone(),
        }),
    }
}

/// The path one step further, the step in quotes where a bare key of TOML may not hold it.
pub(crate) fn joined(path: &str, key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare {
        format!("{path}.{key}")
    } else {
        format!("{path}.{}", Json::from(key))
    }
}

/// Takes user name and password out of URLs.
fn masked(value: &Json) -> Json {
    match value {
        Json::String(text) => Json::from(masked_text(text)),
        Json::Array(items) => items.iter().map(masked).collect(),
        other => other.clone(),
    }
}

fn masked_text(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest
        .get(..authority_end)
        .and_then(|authority| authority.rfind('@'))
    {
        Some(at) => {
            let host = rest.get(at..).unwrap_or_default();
            format!("{scheme}://***{host}")
        }
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_masked() {
        for (text, shown) in [
            (
                "http://user:p@ss@proxy.example:3128/x@y",
                "http://***@proxy.example:3128/x@y",
            ),
            ("https://splunk.example:8088", "https://splunk.example:8088"),
            ("alice@contoso.example", "alice@contoso.example"),
        ] {
            assert_eq!(masked_text(text), shown);
        }
    }
}
