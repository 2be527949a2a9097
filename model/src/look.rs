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
            let parts = match look {
                Self::Open => continue,
                Self::All(parts) => parts,
                other => vec![other],
            };
            for part in parts {
                if !some.contains(&part) {
                    some.push(part);
                }
            }
        }
        match some.len() {
            0 => Self::Open,
            1 => some.remove(0),
            _ => Self::All(some),
        }
    }

    /// One of these. What is asked for in several of them is asked for once.
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
        let alone = some.clone();
        some.retain(|look| match look {
            Self::All(parts) => !parts.iter().any(|part| alone.contains(part)),
            _ => true,
        });
        let mut some = gathered(some);
        match some.len() {
            1 => some.remove(0),
            _ => Self::Any(some),
        }
    }
}

/// Puts alternatives that ask for one thing first, and then for others, behind that one thing.
fn gathered(looks: Vec<Look>) -> Vec<Look> {
    let first = |look: &Look| match look {
        Look::All(parts) => parts.first().cloned(),
        _ => None,
    };
    let mut gathered: Vec<(Option<Look>, Vec<Look>)> = Vec::new();
    for look in looks {
        let key = first(&look);
        let known = gathered
            .iter_mut()
            .find(|(known, _)| key.is_some() && *known == key);
        match known {
            Some((_, alike)) => alike.push(look),
            None => gathered.push((key, vec![look])),
        }
    }
    let rest = |look: Look| match look {
        Look::All(parts) => Look::all(parts.into_iter().skip(1)),
        other => other,
    };
    let behind = |(key, mut alike): (Option<Look>, Vec<Look>)| match key {
        Some(first) if alike.len() > 1 => {
            Look::all([first, Look::any(alike.into_iter().map(rest))])
        }
        _ => alike.remove(0),
    };
    gathered.into_iter().map(behind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it is met where these words, of one letter each, are found.
    fn is_met(look: &Look, found: &str) -> bool {
        match look {
            Look::Open => true,
            Look::Word(word) => found.contains(word.as_str()),
            Look::Number(..) | Look::Listed(_) => panic!("none is made here"),
            Look::All(parts) => parts.iter().all(|part| is_met(part, found)),
            Look::Any(parts) => parts.iter().any(|part| is_met(part, found)),
        }
    }

    #[test]
    fn put_together_in_another_way_a_look_is_met_by_the_same() {
        // Each pair of conjunctions of up to three of four words, and a third beside them.
        let words = |bits: u32| {
            "abcd"
                .chars()
                .filter(move |c| bits >> (*c as u32 - 97) & 1 == 1)
        };
        let all = |bits: u32| Look::all(words(bits).map(|c| Look::word(&c.to_string())));
        let holds = |bits: u32, found: u32| found & bits == bits;
        for (one, two, three) in (0..4_096).map(|n| (n & 15, n >> 4 & 15, n >> 8 & 15)) {
            let any = Look::any([all(one), all(two), all(three)]);
            let nested = Look::all([Look::any([all(one), all(two)]), all(three)]);
            for found in 0..16 {
                let text: String = words(found).collect();
                let either = holds(one, found) || holds(two, found);
                assert_eq!(
                    is_met(&any, &text),
                    either || holds(three, found),
                    "{any:?} {text}"
                );
                assert_eq!(
                    is_met(&nested, &text),
                    either && holds(three, found),
                    "{nested:?}"
                );
            }
        }
    }

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

    #[test]
    fn what_several_ask_for_is_asked_for_once() {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(Look::word);
        let both = |one: &Look, other: &Look| Look::all([one.clone(), other.clone()]);
        let either = |one: &Look, other: &Look| Look::any([one.clone(), other.clone()]);
        let part = both(&a, &b);
        assert_eq!(
            Look::any([part.clone(), a.clone(), c.clone()]),
            either(&a, &c)
        );
        let alike = Look::any([part, d.clone(), both(&a, &c)]);
        assert_eq!(alike, either(&Look::all([a.clone(), either(&b, &c)]), &d));
        assert_eq!(
            either(&both(&a, &b), &both(&c, &d)),
            Look::Any(vec![both(&a, &b), both(&c, &d)])
        );
        assert_eq!(
            Look::all([both(&a, &b), b, c.clone()]),
            Look::all([both(&a, &Look::word("b")), c])
        );
    }
}
