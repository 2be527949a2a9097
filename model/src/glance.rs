//! The look at a record's text that tells whether it need be read at all, prepared once for each
//! operation and made for every record.

use std::cell::OnceCell;
use std::fmt::{self, Debug};
use std::sync::LazyLock;

use aho_corasick::packed;
use memchr::memmem::Finder;

use crate::look::{Look, Sight};

/// Words whose finding is remembered while a record is looked at; of more each is looked for again.
const REMEMBERED: usize = 128;

/// As many words, and more, of which one is asked for are looked for together.
const TOGETHER: usize = 3;

/// A [`Look`], prepared.
pub struct Glance {
    condition: Condition,
    /// Each word once, in lower case.
    words: Vec<Finder<'static>>,
}

#[derive(Debug)]
enum Condition {
    Open,
    Word(usize),
    OneOf(Words),
    Number(Box<Finder<'static>>, Vec<u64>),
    Listed(String),
    All(Vec<Condition>),
    Any(Vec<Condition>),
}

impl Glance {
    /// Prepares a look.
    pub fn new(look: &Look) -> Self {
        let mut words = Vec::new();
        Self {
            condition: prepared(look, &mut words),
            words: words
                .iter()
                .map(|word| Finder::new(word).into_owned())
                .collect(),
        }
    }

    /// Whether the record with this text may be what is looked for.
    pub fn may_be(&self, text: &[u8], sight: &dyn Sight) -> bool {
        let mut seen = Seen {
            words: &self.words,
            text,
            lower: OnceCell::new(),
            known: 0,
            found: 0,
        };
        self.condition.is_met(sight, &mut |part| seen.holds(part))
            || (HIDING.are_in(text) && self.condition.is_met(sight, &mut |_| true))
    }
}

impl Debug for Glance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} words", self.condition, self.words.len())
    }
}

fn prepared(look: &Look, words: &mut Vec<String>) -> Condition {
    match look {
        Look::Open => Condition::Open,
        Look::Word(word) => {
            let known = words.iter().position(|known| known == word);
            Condition::Word(known.unwrap_or_else(|| {
                words.push(word.clone());
                words.len() - 1
            }))
        }
        Look::Number(member, numbers) => {
            let name = format!("{member}\"");
            Condition::Number(Box::new(Finder::new(&name).into_owned()), numbers.clone())
        }
        Look::Listed(field) => Condition::Listed(field.clone()),
        Look::All(looks) => Condition::All(looks.iter().map(|one| prepared(one, words)).collect()),
        Look::Any(looks) => {
            let (alike, others): (Vec<&Look>, Vec<&Look>) =
                looks.iter().partition(|one| matches!(one, Look::Word(_)));
            if alike.len() < TOGETHER {
                return Condition::Any(looks.iter().map(|one| prepared(one, words)).collect());
            }
            let alike = alike.into_iter().filter_map(|one| match one {
                Look::Word(word) => Some(word.as_bytes()),
                _ => None,
            });
            let one_of = Condition::OneOf(Words::new(alike));
            let others = others.into_iter().map(|one| prepared(one, words));
            Condition::Any(std::iter::once(one_of).chain(others).collect())
        }
    }
}

impl Condition {
    /// `holds` says of a word or a number whether the text holds it.
    fn is_met(&self, sight: &dyn Sight, holds: &mut dyn FnMut(&Self) -> bool) -> bool {
        match self {
            Self::Open => true,
            Self::Word(_) | Self::OneOf(_) | Self::Number(..) => holds(self),
            Self::Listed(field) => sight.may_say(field),
            Self::All(parts) => parts.iter().all(|part| part.is_met(sight, holds)),
            Self::Any(parts) => parts.iter().any(|part| part.is_met(sight, holds)),
        }
    }
}

/// What was found in one text.
struct Seen<'a> {
    words: &'a [Finder<'static>],
    text: &'a [u8],
    /// The text in lower case, made when a word is looked for.
    lower: OnceCell<Vec<u8>>,
    /// One bit for each word that was looked for, and one for each that was found.
    known: u128,
    found: u128,
}

impl Seen<'_> {
    fn holds(&mut self, part: &Condition) -> bool {
        match part {
            Condition::Word(word) => self.has(*word),
            Condition::OneOf(words) => words.are_in(self.lower()),
            Condition::Number(member, numbers) => may_be_one_of(self.text, member, numbers),
            Condition::Open | Condition::Listed(_) | Condition::All(_) | Condition::Any(_) => true,
        }
    }

    fn lower(&self) -> &[u8] {
        self.lower.get_or_init(|| self.text.to_ascii_lowercase())
    }

    fn has(&mut self, word: usize) -> bool {
        let bit = if word < REMEMBERED { 1_u128 << word } else { 0 };
        if self.known & bit != 0 {
            return self.found & bit != 0;
        }
        let finder = self.words.get(word);
        let is_found = finder.is_none_or(|finder| finder.find(self.lower()).is_some());
        self.known |= bit;
        if is_found {
            self.found |= bit;
        }
        is_found
    }
}

/// Whether a member's value, wherever it stands, is one of these numbers or no number.
fn may_be_one_of(text: &[u8], member: &Finder<'_>, numbers: &[u64]) -> bool {
    let length = member.needle().len();
    let is_one = |at: usize| {
        let rest = text.get(at + length..).unwrap_or_default();
        let from = rest.iter().position(u8::is_ascii_digit);
        let digits = rest.get(from.unwrap_or(rest.len())..).unwrap_or_default();
        let until = digits.iter().position(|byte| !byte.is_ascii_digit());
        let number = digits.get(..until.unwrap_or(digits.len()));
        let number = std::str::from_utf8(number.unwrap_or_default()).unwrap_or_default();
        // What is no number is not ruled out.
        number
            .parse()
            .map_or(true, |number: u64| numbers.contains(&number))
    };
    member.find_iter(text).any(is_one)
}

/// Several words of which one is looked for, in one pass where the processor can.
#[derive(Debug)]
struct Words {
    packed: Option<packed::Searcher>,
    each: Vec<Finder<'static>>,
}

impl Words {
    fn new<'a>(words: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        Self {
            packed: packed::Searcher::new(words.clone()),
            each: words.map(|word| Finder::new(word).into_owned()).collect(),
        }
    }

    fn are_in(&self, text: &[u8]) -> bool {
        match &self.packed {
            Some(packed) => packed.find(text).is_some(),
            None => self.each.iter().any(|word| word.find(text).is_some()),
        }
    }
}

/// What may stand for a letter, so that a word need not stand there as it is: an escape, or one of the
/// three characters that are an ASCII letter in another case (U+0130, U+017F and the Kelvin sign).
static HIDING: LazyLock<Words> = LazyLock::new(|| {
    let texts = ["\\u", "\u{130}", "\u{17F}", "\u{212A}"];
    Words::new(texts.iter().map(|text| text.as_bytes()))
});

#[cfg(test)]
mod tests {
    use super::*;

    struct Lists;

    impl Sight for Lists {
        fn may_say(&self, field: &str) -> bool {
            field == "listed"
        }
    }

    fn may_be(look: &Look, text: &str) -> bool {
        Glance::new(look).may_be(text.as_bytes(), &Lists)
    }

    #[test]
    fn a_word_is_found_in_any_case_and_place() {
        for (text, found) in [
            ("ForwardTo", true),
            (r#"{"x":"FORWARDTO"}"#, true),
            ("w forwardto", true),
            ("forward to", false),
            ("forwardt", false),
            ("", false),
        ] {
            assert_eq!(may_be(&Look::word("ForwardTo"), text), found, "{text}");
        }
        assert!(may_be(&Look::Open, "") && !may_be(&Look::any([]), "x"));
    }

    #[test]
    fn a_number_is_told_where_it_stands_and_what_is_none_is_not_ruled_out() {
        let look = Look::Number("RecordType", vec![8, 50]);
        for (text, found) in [
            (r#"{"RecordType":8}"#, true),
            (r#"{"RecordType" : "08","x":1}"#, true),
            (r#"{"RecordType":81}"#, false),
            (r#"{"RecordType":18,"y":{"RecordType":50}}"#, true),
            (r#"{"Record":8}"#, false),
            (r#"{"RecordType":null}"#, true),
            (r#"{"Record\u0054ype":81}"#, true),
        ] {
            assert_eq!(may_be(&look, text), found, "{text}");
        }
    }

    #[test]
    fn an_escape_may_hide_a_word_and_hides_nothing_else() {
        let look = Look::all([Look::word("ForwardTo"), Look::word("smtp")]);
        assert!(may_be(&look, r"Forward\u0054o"));
        assert!(may_be(&look, "\u{17F}mtp"));
        assert!(!may_be(&look, r"forwardto a\/b\n"));
        let listed = |field: &str| Look::all([Look::word("x"), Look::Listed(field.to_owned())]);
        assert!(may_be(&listed("listed"), r"\u0078"));
        assert!(!may_be(&listed("other"), r"\u0078"));
    }

    #[test]
    fn more_words_than_are_remembered_are_found_all_the_same() {
        let words: Vec<String> = (0..REMEMBERED + 9)
            .map(|i| format!("word{i:03}x"))
            .collect();
        let look = Look::words(&words);
        let last = words.last().unwrap();
        assert!(may_be(&look, last) && !may_be(&look, "word"));
    }
}
