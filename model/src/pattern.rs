//! Names with `*`: `New-InboxRule`, `*Export*`. Compared without case.

/// A name or a pattern, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// What stands between the stars, in order.
    parts: Vec<String>,
}

impl Pattern {
    /// Takes a name or pattern in any case.
    pub fn new(text: &str) -> Self {
        Self {
            parts: text.to_lowercase().split('*').map(str::to_owned).collect(),
        }
    }

    /// The name, when there is no star in it.
    pub fn exact(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [name] => Some(name),
            _ => None,
        }
    }

    /// Whether every name matches.
    pub fn is_all(&self) -> bool {
        self.parts.len() > 1 && self.parts.iter().all(String::is_empty)
    }

    /// Whether a name, already in lower case, matches.
    pub fn matches(&self, lower: &str) -> bool {
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

/// A list of patterns that says what is taken: what one of them names, unless one that begins with `!`
/// names it too. A list without names, or with names to leave out only, takes all the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns {
    taken: Vec<Pattern>,
    left_out: Vec<Pattern>,
}

impl Patterns {
    /// Takes names and patterns as they are configured.
    pub fn new<S: AsRef<str>>(texts: &[S]) -> Self {
        let mut patterns = Self::default();
        for text in texts.iter().map(AsRef::as_ref) {
            match text.strip_prefix('!') {
                Some(text) => patterns.left_out.push(Pattern::new(text)),
                None => patterns.taken.push(Pattern::new(text)),
            }
        }
        patterns
    }

    /// Whether it says nothing: all is taken.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.left_out.is_empty()
    }

    /// Whether the name is taken.
    pub fn take(&self, name: &str) -> bool {
        let named = |patterns: &[Pattern], name: &str| patterns.iter().any(|one| one.matches(name));
        self.is_empty()
            || with_lower(name, |name| {
                (self.taken.is_empty() || named(&self.taken, name)) && !named(&self.left_out, name)
            })
    }
}

/// Calls `look` with the name in lower case; short ASCII names, which is all vendors use, are
/// turned on the stack, since this runs for every record.
pub fn with_lower<T>(name: &str, look: impl FnOnce(&str) -> T) -> T {
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

    #[test]
    fn a_list_takes_what_it_names_less_what_it_leaves_out() {
        for (list, name, taken) in [
            (&[][..], "contoso", true),
            (&["Contoso"], "contoso", true),
            (&["contoso"], "fabrikam", false),
            (&["!contoso"], "fabrikam", true),
            (&["!contoso"], "Contoso", false),
            (&["eu-*", "!eu-test"], "eu-1", true),
            (&["eu-*", "!eu-test"], "eu-test", false),
            (&["eu-*", "!eu-test"], "us-1", false),
        ] {
            assert_eq!(Patterns::new(list).take(name), taken, "{list:?} {name}");
        }
    }
}
