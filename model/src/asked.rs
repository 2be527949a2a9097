//! What is asked of events before they are made, so that readers need not make what nobody looks at.

use std::collections::HashSet;

/// Something that an event must have for anybody to look at it.
#[derive(Debug, Clone, Copy)]
pub enum Claim<'a> {
    /// The field has a value.
    Has(&'a str),
    /// The field has a value that holds one of these words, in any case.
    Holds(&'a str, &'a [String]),
}

impl<'a> Claim<'a> {
    /// The field.
    pub fn field(self) -> &'a str {
        match self {
            Self::Has(field) | Self::Holds(field, _) => field,
        }
    }
}

/// Fields that somebody looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    all: bool,
    names: HashSet<String>,
    /// Beginnings of names, each up to a dot: `Parameters.*`.
    beginnings: Vec<String>,
    /// What the names begin with, up to their first dot.
    members: HashSet<String>,
}

impl FieldSet {
    /// All fields.
    pub fn all() -> Self {
        Self {
            all: true,
            ..Self::default()
        }
    }

    /// Fields by name; `x.*` stands for all that begin with `x.`.
    pub fn of<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        let mut set = Self::default();
        for name in names {
            let name: String = name.into();
            set.members.insert(member(&name).to_owned());
            match name.strip_suffix('*') {
                Some(beginning) if beginning.ends_with('.') => {
                    set.beginnings.push(beginning.to_owned());
                }
                _ => drop(set.names.insert(name)),
            }
        }
        set
    }

    /// Whether a field is one of them.
    pub fn has(&self, name: &str) -> bool {
        self.all
            || self.names.contains(name)
            || self.beginnings.iter().any(|b| name.starts_with(b.as_str()))
    }

    /// Whether a member of a record, or something in it, may be one of them.
    pub fn reaches(&self, name: &str) -> bool {
        self.all || self.members.contains(member(name))
    }
}

fn member(name: &str) -> &str {
    name.split_once('.').map_or(name, |(member, _)| member)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_it_names_and_what_begins_so() {
        let set = FieldSet::of(["ErrorNumber", "Data.an", "Parameters.*"]);
        for name in ["ErrorNumber", "Data.an", "Parameters.ForwardTo"] {
            assert!(set.has(name) && set.reaches(name), "{name}");
        }
        for name in ["Errors", "Data.f3u", "Parameters", "Data"] {
            assert!(!set.has(name), "{name}");
        }
        assert!(set.reaches("Data") && set.reaches("Parameters") && !set.reaches("Folders"));
        assert!(FieldSet::all().has("x") && FieldSet::all().reaches("x.y"));
        assert!(!FieldSet::default().has("x"));
    }
}
