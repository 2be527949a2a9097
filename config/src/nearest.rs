//! The known name that a misspelt one was probably meant to be.

/// Longest name compared, in characters; longer ones are no slip of the finger.
const NAME_CHARS_MAX: usize = 64;

/// Most known names listed.
const NAMES_LISTED_MAX: usize = 24;

/// The known name nearest to `name`, when it is near enough to be a slip. Case and `-` for `_`
/// cost nothing.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = plain(name);
    if plain.len() > NAME_CHARS_MAX {
        return None;
    }
    let allowed = (plain.len() / 3).max(1);
    known
        .iter()
        .map(|candidate| (distance(&plain, &self::plain(candidate)), *candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// "did you mean `x`?", or the list of known names.
pub(crate) fn suggestion(name: &str, known: &[&str]) -> String {
    if let Some(near) = nearest(name, known) {
        return format!("did you mean `{near}`?");
    }
    let listed = known.iter().take(NAMES_LISTED_MAX);
    let listed: Vec<String> = listed.map(|known| format!("`{known}`")).collect();
    let more = match known.len().saturating_sub(NAMES_LISTED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("known here: {}{more}", listed.join(", "))
}

fn plain(name: &str) -> Vec<char> {
    name.chars()
        .map(|c| {
            if c == '-' {
                '_'
            } else {
                c.to_ascii_lowercase()
            }
        })
        .collect()
}

/// Edits (insert, delete, replace, swap of neighbours) from one to the other.
fn distance(from: &[char], to: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (row, a) in from.iter().enumerate() {
        let mut line = vec![row + 1];
        for (column, b) in to.iter().enumerate() {
            let replaced = last[column] + usize::from(a != b);
            let mut edits = replaced.min(last[column + 1] + 1).min(line[column] + 1);
            let swapped =
                row > 0 && column > 0 && *a == to[column - 1] && from[row - 1] == *b && a != b;
            if swapped {
                edits = edits.min(before[column - 1] + 1);
            }
            line.push(edits);
        }
        before = std::mem::replace(&mut last, line);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let known = ["tenant", "tenant_id", "client_id", "cloud"];
        for (written, meant) in [
            ("tenent", Some("tenant")),
            ("tenant-id", Some("tenant_id")),
            ("TENANT_ID", Some("tenant_id")),
            ("tennat", Some("tenant")),
            ("clinet_id", Some("client_id")),
            ("cluod", Some("cloud")),
            ("password", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, &known), meant, "{written}");
        }
    }

    #[test]
    fn without_a_near_name_the_known_ones_are_listed_up_to_a_limit() {
        let many: Vec<String> = (0..30).map(|number| format!("name{number:02}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let text = suggestion("zzzzzz", &many);
        assert!(text.ends_with("`name23` and 6 more"), "{text}");
        assert_eq!(
            suggestion("zzzzzz", &["a1", "b2"]),
            "known here: `a1`, `b2`"
        );
    }
}
