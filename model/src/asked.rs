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
    /// What leads to a name: its parts up to each of its dots, and itself.
    paths: HashSet<Vec<u8>>,
    /// The marks of these: most members of a record bear none of them.
    marks: u64,
}

/// A bit by which most names are told apart without looking them up.
fn mark(name: &[u8]) -> u64 {
    let ends = name.first().zip(name.last());
    let sum = ends.map_or(0, |(first, last)| {
        usize::from(*first) * 5 + usize::from(*last)
    });
    1 << ((sum + name.len() * 11) % 64)
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
            let dots = name.match_indices('.').map(|(at, _)| at);
            for path in dots.chain([name.len()]).filter_map(|end| name.get(..end)) {
                set.marks |= mark(path.as_bytes());
                set.paths.insert(path.into());
            }
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
        self.all || self.names.contains(name) || self.begins(name.as_bytes())
    }

    /// Whether what lies at a path in a record may be one of them, or hold one.
    pub fn reaches(&self, path: &[u8]) -> bool {
        let is_one = || self.marks & mark(path) != 0 && self.paths.contains(path);
        self.all || is_one() || self.begins(path)
    }

    fn begins(&self, name: &[u8]) -> bool {
        let mut beginnings = self.beginnings.iter();
        beginnings.any(|beginning| name.starts_with(beginning.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_it_names_and_what_begins_so() {
        let set = FieldSet::of(["ErrorNumber", "Data.an", "Parameters.*"]);
        for name in ["ErrorNumber", "Data.an", "Parameters.ForwardTo"] {
            assert!(set.has(name) && set.reaches(name.as_bytes()), "{name}");
        }
        for name in ["Errors", "Data.f3u", "Parameters", "Data"] {
            assert!(!set.has(name), "{name}");
        }
        assert!(set.reaches(b"Data") && set.reaches(b"Parameters") && !set.reaches(b"Folders"));
        let deep = FieldSet::of(["A.B.C.D", "A.E.*"]);
        for (path, reaches) in [
            ("A", true),
            ("A.B", true),
            ("A.B.C", true),
            ("A.B.D", false),
            ("A.B.", false),
            ("A.E.F.G", true),
            ("B", false),
        ] {
            assert_eq!(deep.reaches(path.as_bytes()), reaches, "{path}");
        }
        assert!(FieldSet::all().has("x") && FieldSet::all().reaches(b"x.y"));
        assert!(!FieldSet::default().has("x"));
    }
}
