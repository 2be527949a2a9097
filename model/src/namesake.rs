//! Names before the `@` that are one person's: a private mailbox is called after its owner.

/// Shortest spelling of a name that says anything.
const SHORT: usize = 5;
/// Shortest part of a name, given or family, that is looked for within another.
const PART: usize = 3;
/// Longest name that is compared.
const MAX: usize = 64;
/// Mailboxes of functions: everybody has one.
const FUNCTIONS: &[&str] = &[
    "account",
    "accounts",
    "admin",
    "billing",
    "contact",
    "events",
    "finance",
    "hello",
    "helpdesk",
    "invoices",
    "kontakt",
    "marketing",
    "noreply",
    "office",
    "orders",
    "sales",
    "service",
    "support",
];

/// Whether two mailboxes bear one name: its parts in any order, or an initial and the other part.
/// Digits and what follows a `+` do not count.
pub(crate) fn are(one: &str, other: &str) -> bool {
    if one.len() > MAX || other.len() > MAX {
        return false;
    }
    let (one, other) = (parts(one), parts(other));
    holds_all(&other, &one) || holds_all(&one, &other) || {
        let others = spellings(&other);
        spellings(&one).iter().any(|name| others.contains(name))
    }
}

/// The words of a name, in small letters.
fn parts(local: &str) -> Vec<String> {
    let local = local.split('+').next().unwrap_or(local).to_lowercase();
    let words = local.split(|c: char| !c.is_alphanumeric());
    let letters = words.map(|word| word.chars().filter(|c| c.is_alphabetic()).collect());
    letters.filter(|word: &String| !word.is_empty()).collect()
}

/// Whether all parts of a name of two or more stand in another, wherever.
fn holds_all(name: &[String], parts: &[String]) -> bool {
    let whole = name.concat();
    parts.len() >= 2
        && parts.concat().chars().count() > SHORT
        && parts
            .iter()
            .all(|part| part.chars().count() >= PART && whole.contains(part.as_str()))
}

/// How a name of two parts is written as one word; a word alone is itself.
fn spellings(parts: &[String]) -> Vec<String> {
    let mut spellings = vec![parts.concat()];
    if let [first, .., last] = parts {
        for (one, other) in [(first, last), (last, first)] {
            let initial: String = one.chars().take(1).collect();
            spellings.push(format!("{one}{other}"));
            spellings.push(format!("{initial}{other}"));
            spellings.push(format!("{other}{initial}"));
        }
    }
    spellings.retain(|name| name.chars().count() >= SHORT && !FUNCTIONS.contains(&name.as_str()));
    spellings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_mailbox_of_the_same_name_is_told() {
        for (own, private) in [
            ("alice.smith", "alice.smith"),
            ("alice.smith", "smith_alice85"),
            ("alice.smith", "asmith1985"),
            ("alice.smith", "alicesmith.private"),
            ("alice.m.smith", "alice-smith"),
            ("asmith", "alice.smith"),
            ("a.smith", "alice.smith"),
            ("alice.smith", "smith.a"),
            ("alicesmith", "alice.smith+corp"),
            ("petra", "petra77"),
            ("jörg.müller", "jörgmüller"),
        ] {
            assert!(are(own, private), "{own} {private}");
        }
    }

    #[test]
    fn another_name_and_the_mailbox_of_a_function_are_not() {
        for (own, other) in [
            ("alice.smith", "bob.smith"),
            ("alice.smith", "alice"),
            ("alice.smith", "bobsmith"),
            ("alice.smith", "alice.jones"),
            ("support", "support"),
            ("info", "info"),
            ("li", "li"),
            ("a.b", "a.b"),
            ("", ""),
            ("123", "123"),
            ("alice", "malice"),
        ] {
            assert!(!are(own, other), "{own} {other}");
        }
        let long = "a".repeat(300);
        assert!(!are(&long, &long));
    }
}
