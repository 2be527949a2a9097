//! What the text of a record holds where an event of it is to meet a claim, without reading it.
//!
//! What is looked for may stand anywhere in the record; what is not found stands nowhere in it.

use exfilwatch_model::{Claim, Look};

/// Whether a field is the vendor's own, in its spelling. Ours are all small and hold no dot.
pub(super) fn is_vendors(name: &str) -> bool {
    name.bytes()
        .any(|byte| byte == b'.' || byte.is_ascii_uppercase())
}

/// For a claim on one of the vendor's own fields: their names, between the dots, and their values stand in
/// the record as they are.
pub(super) fn look(claim: Claim<'_>) -> Look {
    let longest = claim.field().split('.').max_by_key(|part| part.len());
    let name = longest.map_or(Look::Open, Look::word);
    Look::all([name, look_for_words(claim)])
}

/// For the words that a claim names.
pub(super) fn look_for_words(claim: Claim<'_>) -> Look {
    let Claim::Holds(name, words) = claim else {
        return Look::Open;
    };
    // A switch without a value is true, which stands nowhere.
    let is_of_true = |word: &String| "true".contains(&word.to_ascii_lowercase());
    if name.starts_with("Parameters.") && words.iter().any(is_of_true) {
        return Look::Open;
    }
    Look::words(words)
}

/// For the record's type.
pub(super) fn look_for_type(claim: Claim<'_>) -> Look {
    let Claim::Holds(_, types) = claim else {
        return Look::Open;
    };
    let numbers: Result<Vec<u64>, _> = types.iter().map(|claimed| claimed.parse()).collect();
    numbers.map_or(Look::Open, |numbers| Look::Number("RecordType", numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_the_vendors_is_looked_for_by_its_longest_part_and_its_words() {
        let words = ["axios".to_owned(), "node-fetch".to_owned()];
        let expected = Look::all([Look::word("UserAgent"), Look::words(&words)]);
        assert_eq!(look(Claim::Holds("Data.UserAgent", &words)), expected);
        assert_eq!(look(Claim::Has("Data.UserAgent")), Look::word("UserAgent"));
        let switches = ["axios".to_owned(), "True".to_owned()];
        let switch = look(Claim::Holds("Parameters.Force", &switches));
        assert_eq!(switch, Look::word("Parameters"));
        let other = look(Claim::Holds("Parameters.Force", &words));
        assert_eq!(
            other,
            Look::all([Look::word("Parameters"), Look::words(&words)])
        );
    }

    #[test]
    fn a_type_is_looked_for_as_a_number() {
        let types = |types: &[&str]| types.iter().map(|&t| t.to_owned()).collect::<Vec<_>>();
        let look = |types: &[String]| look_for_type(Claim::Holds("record_type", types));
        assert_eq!(
            look(&types(&["8", "50"])),
            Look::Number("RecordType", vec![8, 50])
        );
        assert_eq!(look(&types(&["8", "x"])), Look::Open);
        assert_eq!(look_for_type(Claim::Has("record_type")), Look::Open);
    }
}
