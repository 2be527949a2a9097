//! Names with `*`: `New-InboxRule`, `*Export*`. Compared without case.

/// A name or a pattern, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// What stands between the stars, in order.
    parts: Vec<String>,
}

impl Pattern {
    /// Takes a name or pattern in any case.
    pub(crate) fn new(text: &str) -> Self {
        Self {
            parts: text.to_lowercase().split('*').map(str::to_owned).collect(),
        }
    }

    /// The name, when there is no star in it.
    pub(crate) fn exact(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [name] => Some(name),
            _ => None,
        }
    }

    /// Whether every name matches.
    pub(crate) fn is_all(&self) -> bool {
        self.parts.len() > 1 && self.parts.iter().all(String::is_empty)
    }

    /// Whether a name, already in lower case, matches.
    pub(crate) fn matches(&self, lower: &str) -> bool {
        let (Some((first, rest)), Some(last)) = (self.parts.split_first(), self.parts.last())
        else {
            return false;
        };
        if rest.is_empty() {
            return lower == first;
        }
        let Some(mut left) = lower.strip_prefix(first.as_str()) else {
            return false;
        };
        for part in rest.iter().take(rest.len() - 1) {
            match left.split_once(part.as_str()) {
                Some((_, after)) => left = after,
                None => return false,
            }
        }
        left.ends_with(last.as_str())
    }
}

/// Calls `look` with the name in lower case; short ASCII names, which is all vendors use, are
/// turned on the stack, since this runs for every record.
pub(crate) fn with_lower<T>(name: &str, look: impl FnOnce(&str) -> T) -> T {
    let mut buffer = [0_u8; 96];
    if name.is_ascii()
        && let Some(lower) = buffer.get_mut(..name.len())
    {
        lower.copy_from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        if let Ok(lower) = std::str::from_utf8(lower) {
            return look(lower);
        }
    }
    look(&name.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, matches) in [
            ("New-InboxRule", "new-inboxrule", true),
            ("New-InboxRule", "new-inboxrule2", false),
            ("*Export*", "searchexported", true),
            ("*Export*", "export", true),
            ("*Export*", "search", false),
            ("Set-*", "set-mailbox", true),
            ("Set-*", "reset-x", false),
            ("*Rule", "new-inboxrule", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("*", "anything", true),
            ("*", "", true),
        ] {
            assert_eq!(
                Pattern::new(pattern).matches(name),
                matches,
                "{pattern} {name}"
            );
        }
        assert!(Pattern::new("**").is_all() && !Pattern::new("").is_all());
    }
}
