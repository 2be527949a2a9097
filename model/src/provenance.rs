//! Which fields of its events the texts of a finding were taken from.
//!
//! A sentence quotes people, addresses and file names. Where a receiver may not have them, they must be
//! found in it again: not by looking for what resembles them, but because it is known which part of the
//! sentence came from which field.

use serde::{Deserialize, Serialize};

/// Longest message of a finding, in characters.
const MESSAGE_CHARS_MAX: usize = 600;
/// What a message says of a field that no event has.
const NOTHING: &str = "(unknown)";

/// The fields behind the texts of a finding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The pieces of [`crate::Finding::message`].
    pub message: Vec<MessagePart>,
    /// The field that [`crate::Finding::target`] is the value of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The field that [`crate::Finding::entity`] is the value of; none for what is no record's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessagePart {
    /// Words of the rule, and numbers.
    Text(String),
    /// Values of a field.
    Values {
        /// Its name.
        field: String,
        /// The first ones.
        shown: Vec<String>,
        /// How many more there are.
        #[serde(default, skip_serializing_if = "is_zero")]
        more: usize,
    },
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde calls"
)]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Provenance {
    /// The sentence.
    pub fn message(&self) -> String {
        let mut message = String::new();
        for part in &self.message {
            match part {
                MessagePart::Text(text) => message.push_str(text),
                MessagePart::Values { shown, more, .. } => {
                    if shown.is_empty() {
                        message.push_str(NOTHING);
                    }
                    message.push_str(&shown.join(", "));
                    if *more > 0 {
                        message.push_str(&format!(" and {more} more"));
                    }
                }
            }
        }
        message.chars().take(MESSAGE_CHARS_MAX).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_put_together_from_words_and_values() {
        let values = |field: &str, shown: &[&str], more| MessagePart::Values {
            field: field.to_owned(),
            shown: shown.iter().map(ToString::to_string).collect(),
            more,
        };
        let provenance = Provenance {
            message: vec![
                values("actor", &["alice"], 0),
                MessagePart::Text(" shared ".to_owned()),
                values("object_name", &["a", "b", "c"], 2),
                MessagePart::Text(" with ".to_owned()),
                values("target", &[], 0),
            ],
            ..Provenance::default()
        };
        let sentence = "alice shared a, b, c and 2 more with (unknown)";
        assert_eq!(provenance.message(), sentence);
        let json = serde_json::to_string(&provenance).unwrap();
        assert_eq!(
            serde_json::from_str::<Provenance>(&json).unwrap(),
            provenance
        );
    }
}
