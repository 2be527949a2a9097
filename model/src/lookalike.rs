//! Names that look like ours: letters swapped for others of the same shape, one letter more or
//! less, our name with something added.

/// Shortest name of ours in whose likeness one letter may differ, or that may stand within another.
const LONG: usize = 6;
/// Shortest name of ours that is compared at all.
const SHORT: usize = 4;
/// Longest name that is compared.
const MAX: usize = 64;

/// What stands for what: the shape a reader sees. Both sides are folded, so it may be coarse.
const SHAPES: &[(char, char)] = &[
    ('0', 'o'),
    ('1', 'l'),
    ('i', 'l'),
    ('5', 's'),
    ('а', 'a'),
    ('е', 'e'),
    ('о', 'o'),
    ('р', 'p'),
    ('с', 'c'),
    ('х', 'x'),
    ('у', 'y'),
    ('і', 'l'),
    ('ѕ', 's'),
    ('ο', 'o'),
    ('α', 'a'),
];

/// The label of a registrable domain that is its owner's name.
fn label(domain: &str) -> &str {
    domain.split('.').next().unwrap_or(domain)
}

/// A name as a reader in haste sees it.
fn folded(name: &str) -> String {
    let letters: String = name
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric())
        .map(|c| {
            SHAPES
                .iter()
                .find(|(from, _)| *from == c)
                .map_or(c, |(_, to)| *to)
        })
        .collect();
    letters.replace("rn", "m").replace("vv", "w")
}

/// Whether a registrable domain outside looks like one of ours.
pub(crate) fn domain_resembles(domain: &str, own: &[String]) -> bool {
    let name = label(domain);
    if name.len() > MAX {
        return false;
    }
    let seen = folded(name);
    names(own).any(|own| {
        let long = own.len() >= LONG;
        seen == own || long && (seen.contains(&own) || one_apart(&seen, &own))
    })
}

/// Whether what stands before the `@` of a free mailbox holds the name of one of our domains.
pub(crate) fn local_resembles(local: &str, own: &[String]) -> bool {
    if local.len() > MAX {
        return false;
    }
    let seen = folded(local);
    names(own).any(|own| own.len() >= LONG && seen.contains(&own))
}

fn names(own: &[String]) -> impl Iterator<Item = String> {
    own.iter()
        .map(|domain| folded(label(&crate::domains::registrable(domain))))
        .filter(|name| name.len() >= SHORT)
}

/// One letter more, less, or another, or two that changed places.
fn one_apart(one: &str, other: &str) -> bool {
    let one: Vec<char> = one.chars().collect();
    let other: Vec<char> = other.chars().collect();
    let before = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
    let after = |a: usize, b: usize| one.get(before + a..) == other.get(before + b..);
    match one.len().cmp(&other.len()) {
        std::cmp::Ordering::Less => after(0, 1),
        std::cmp::Ordering::Greater => after(1, 0),
        std::cmp::Ordering::Equal => {
            let swapped = one.get(before) == other.get(before + 1)
                && one.get(before + 1) == other.get(before);
            after(1, 1) || swapped && after(2, 2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Vec<String> {
        vec!["contoso-firm.example".into(), "it.acme.example".into()]
    }

    #[test]
    fn a_domain_that_reads_like_ours_is_told() {
        for (domain, expected) in [
            ("c0ntoso-firm.example", true),
            ("contoso-firrn.example", true),
            ("contosofirm.co", true),
            ("contoso-firm-mail.example", true),
            ("contos-firm.example", true),
            ("conotso-firm.example", true),
            ("сontoso-firm.example", true),
            ("acrne.example", true),
            ("acne.example", false),
            ("contoso.example", false),
            ("customer.example", false),
            ("", false),
        ] {
            assert_eq!(domain_resembles(domain, &own()), expected, "{domain}");
        }
        assert!(!domain_resembles(&"c".repeat(300), &own()));
        assert!(!domain_resembles("x.example", &[]));
    }

    #[test]
    fn a_free_mailbox_with_our_name_is_told() {
        assert!(local_resembles("it.contoso-firm", &own()));
        assert!(local_resembles("Cont0s0Firm1", &own()));
        assert!(
            !local_resembles("acme.helpdesk", &own()),
            "a short name is in many"
        );
        assert!(!local_resembles("bob", &own()));
    }
}
