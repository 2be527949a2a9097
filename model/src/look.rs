//! What is looked for in the text of a record before it is read: much cheaper, and of most records
//! enough.

use crate::asked::Claim;

/// What is known of records before they are read, by the reader of their product.
pub trait Sight {
    /// How a claim on an event shows in the text of a record with this operation. The same for all tenants:
    /// it is asked for once. What cannot be told so is left open.
    fn look(&self, _operation: &str, _claim: Claim<'_>) -> Look {
        Look::Open
    }

    /// Whether the tenant's lists may say a field.
    fn may_say(&self, _field: &str) -> bool {
        true
    }
}

/// What the text of a record must hold for an event of it to meet a [`Claim`]. It may ask for less
/// than the claim does, never for more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// The text says nothing of it.
    Open,
    /// This word, in any case.
    Word(String),
    /// A member of this name, anywhere, with one of these whole numbers or with what is no number.
    Number(&'static str, Vec<u64>),
    /// The tenant's lists may say this field: asked for each record, since lists change.
    Listed(String),
    /// All of these.
    All(Vec<Look>),
    /// One of these.
    Any(Vec<Look>),
}

impl Look {
    /// For a word. Open where records may write it otherwise: what is no ASCII letter, digit, blank or one
    /// of `=@:_.-` may be escaped.
    pub fn word(word: &str) -> Self {
        let is_written_so = |byte: u8| byte.is_ascii_alphanumeric() || b"=@:_.- ".contains(&byte);
        if word.is_empty() || !word.bytes().all(is_written_so) {
            return Self::Open;
        }
        Self::Word(word.to_ascii_lowercase())
    }

    /// For one of several words.
    pub fn words<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> Self {
        Self::any(words.into_iter().map(|word| Self::word(word.as_ref())))
    }

    /// All of these.
    pub fn all(looks: impl IntoIterator<Item = Self>) -> Self {
        let mut some: Vec<Self> = Vec::new();
        for look in looks {
            if look != Self::Open && !some.contains(&look) {
                some.push(look);
            }
        }
        match some.len() {
            0 => Self::Open,
            1 => some.remove(0),
            _ => Self::All(some),
        }
    }

    /// One of these.
    pub fn any(looks: impl IntoIterator<Item = Self>) -> Self {
        let mut some: Vec<Self> = Vec::new();
        for look in looks {
            let parts = match look {
                Self::Open => return Self::Open,
                Self::Any(parts) => parts,
                other => vec![other],
            };
            for part in parts {
                if !some.contains(&part) {
                    some.push(part);
                }
            }
        }
        match some.len() {
            1 => some.remove(0),
            _ => Self::Any(some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_for_nothing_more_is_left_out() {
        let word = |word: &str| Look::word(word);
        assert_eq!(word("Forward-To"), Look::Word("forward-to".to_owned()));
        for open in ["", "a/b", "ü", "a\"b"] {
            assert_eq!(word(open), Look::Open, "{open}");
        }
        assert_eq!(Look::all([word("a"), Look::Open, word("A")]), word("a"));
        assert_eq!(Look::all([]), Look::Open);
        assert_eq!(Look::any([word("a"), Look::Open]), Look::Open);
        let both = Look::Any(vec![word("a"), word("b")]);
        assert_eq!(Look::any([word("a"), both.clone(), word("b")]), both);
        assert_eq!(Look::any([]), Look::Any(Vec::new()), "nothing meets it");
    }
}
