//! The `message` of a rule: text with `{field}`, `{field|another}`, `{count}`, `{count:field}`,
//! `{threshold}` and `{window}`.

/// A piece of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// As it stands.
    Text(String),
    /// The distinct values of the first of these fields that an event has: the first three, and how
    /// many more.
    Field(Vec<String>),
    /// Number of events.
    Count,
    /// Number of distinct values of a field.
    CountOf(String),
    /// Threshold of the tier reached.
    Threshold,
    /// Length of the window of the tier reached.
    Window,
}

impl Piece {
    fn fields(&self) -> &[String] {
        match self {
            Self::Field(names) => names,
            Self::CountOf(name) => std::slice::from_ref(name),
            Self::Text(_) | Self::Count | Self::Threshold | Self::Window => &[],
        }
    }
}

/// A message taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Template(pub(crate) Vec<Piece>);

impl Template {
    /// Takes a message apart; says what is wrong with its braces.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, after)) = after.split_once('}') else {
                return Err("a brace `{` is not closed".to_owned());
            };
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Self::piece(name)?);
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    fn piece(name: &str) -> Result<Piece, String> {
        Ok(match name {
            "" => return Err("braces `{}` are empty".to_owned()),
            _ if name.contains(|c: char| c == '{' || c.is_whitespace()) => {
                return Err(format!("{name:?} is no field name"));
            }
            "count" => Piece::Count,
            "threshold" => Piece::Threshold,
            "window" => Piece::Window,
            _ => match name.strip_prefix("count:") {
                Some(field) => Piece::CountOf(field.to_owned()),
                None if name.split('|').any(str::is_empty) => {
                    return Err(format!("{name:?} lacks a field name beside `|`"));
                }
                None => Piece::Field(name.split('|').map(str::to_owned).collect()),
            },
        })
    }

    /// Fields it names.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(Piece::fields).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_apart_at_its_braces() {
        let template = Template::new("{actor} shared {count:object} files").unwrap();
        assert_eq!(template.fields().collect::<Vec<_>>(), ["actor", "object"]);
        assert_eq!(template.0.len(), 4);
        let template = Template::new("to {target|object}").unwrap();
        assert_eq!(template.fields().collect::<Vec<_>>(), ["target", "object"]);
        assert!(Template::new("{actor").is_err());
        assert!(Template::new("{target|}").is_err());
        assert!(Template::new("{}").is_err());
    }
}
