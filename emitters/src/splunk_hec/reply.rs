//! What to do with each reply of a collector: one pure function over status and body.
//!
//! The number in the body decides before the HTTP status does; a proxy may answer without a
//! number. On codes 6, 12, 13 and 15 the events before `invalid-event-number` are indexed and none
//! from it on; on 7 it names the event after the bad one (Splunk 10.4.3 and Cloud 10.5, seen
//! 2026-09). So a batch is never sent again whole (the prefix would double) nor dropped (the rest
//! would be lost).

use serde::Deserialize;

/// What the emitter does next with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// All of it was taken.
    Taken {
        /// To be confirmed under this id, where the token has acknowledgements on.
        ack: Option<u64>,
        /// What of the receiver nears its capacity (24, 25).
        near: Option<Near>,
    },
    /// The first `taken` events were taken; deal with the next one as `rest` says, then go on
    /// after it.
    Prefix {
        /// Events before the bad one.
        taken: usize,
        /// The prefix is to be confirmed under this id.
        ack: Option<u64>,
        /// What to do with the bad one.
        rest: Rest,
    },
    /// Too large, or bad somewhere unknown: send each half by itself. A single event is dealt with as it says.
    Halve(Rest),
    /// Send again without compression.
    Uncompressed,
    /// Send again on a new channel; where the receiver saw none, with its name in the URL too.
    NewChannel {
        /// The header did not arrive.
        in_url: bool,
    },
    /// Send again over another connection, then hold: behind a balancer it may be one indexer that
    /// lacks the token.
    OtherConnection,
    /// Refuse every event of the request: the receiver sees nothing in it.
    RefuseAll,
    /// Send again after a back-off.
    Retry(Trouble),
    /// Keep and ask slowly; the sentence says what an operator should do.
    Hold(&'static str),
}

/// What of a receiver nears its capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Near {
    /// Its queue.
    Queue,
    /// The acknowledgements it keeps: ask for them at once.
    Acks,
}

/// Why a receiver takes nothing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Busy, full or failing.
    Busy,
    /// It keeps too many acknowledgements for the channel: ask for them, and use a second one.
    Acks,
    /// It shuts down: connect anew.
    Leaving,
}

/// What happens with the event at which the receiver stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// It is quarantined.
    Refuse,
    /// It is sent once more without `fields`, then quarantined.
    WithoutFields,
    /// Its index does not exist or is not open to the token: hold.
    HoldIndex,
    /// Nothing is wrong with it: the receiver was busy.
    Later,
}

#[derive(Debug, Default, Deserialize)]
struct Reply {
    code: Option<u64>,
    #[serde(rename = "invalid-event-number")]
    invalid_event_number: Option<usize>,
    #[serde(rename = "ackId")]
    ack: Option<u64>,
}

/// What to say where the token is refused.
pub(super) const TOKEN: &str = "check the HEC token and that it is enabled in Splunk (Settings > Data inputs > \
                     HTTP Event Collector)";
const NOT_HEC: &str = "check the URL: this address does not answer as a HEC does (usual port 8088, \
                       or 443 in Splunk Cloud)";
const UNKNOWN: &str = "the receiver gave a reason this version does not know: look at its documentation \
                       and at splunkd.log; sending goes on once it takes events again";
/// What to say where a body is refused as it is, uncompressed.
pub(super) const ENCODING: &str = "a proxy on the way takes no JSON bodies: let them pass";
/// What to say of a channel that stays unknown to the receiver.
pub(super) const CHANNEL: &str =
    "a proxy on the way removes the header X-Splunk-Request-Channel: let it pass";
/// Also what a lane is told that waits for an index.
pub(super) const INDEX: &str =
    "create the index in Splunk or allow it for the token, or change `index` in the configuration";

/// Judges the reply to a request.
pub fn decide(status: u16, body: &[u8]) -> Action {
    // A body that is no JSON came from something in between.
    let reply: Reply = serde_json::from_slice(body).unwrap_or_default();
    match reply.code {
        Some(code) => by_code(code, status, &reply),
        None => by_status(status),
    }
}

fn by_code(code: u64, status: u16, reply: &Reply) -> Action {
    let ack = reply.ack;
    let prefix = |rest| match reply.invalid_event_number {
        Some(taken) => Action::Prefix { taken, ack, rest },
        None => Action::Halve(rest),
    };
    match code {
        0 => Action::Taken { ack, near: None },
        24 => Action::Taken {
            ack,
            near: Some(Near::Queue),
        },
        25 => Action::Taken {
            ack,
            near: Some(Near::Acks),
        },
        4 => Action::OtherConnection,
        1..=3 | 16 | 21 | 22 => Action::Hold(TOKEN),
        5 => Action::RefuseAll,
        6 | 12 | 13 => prefix(Rest::Refuse),
        15 => prefix(Rest::WithoutFields),
        7 => match reply.invalid_event_number {
            Some(after) => Action::Prefix {
                taken: after.saturating_sub(1),
                ack,
                rest: Rest::HoldIndex,
            },
            None => Action::Halve(Rest::HoldIndex),
        },
        10 | 28 => Action::NewChannel { in_url: true },
        11 => Action::NewChannel { in_url: false },
        8 | 9 | 18..=20 | 26 => match reply.invalid_event_number {
            Some(taken) => Action::Prefix {
                taken,
                ack,
                rest: Rest::Later,
            },
            None => Action::Retry(Trouble::Busy),
        },
        23 => Action::Retry(Trouble::Leaving),
        27 => Action::Retry(Trouble::Acks),
        // Only /ack and /health say so; a send cannot.
        14 | 17 => Action::Hold(NOT_HEC),
        _ => match by_status(status) {
            Action::Hold(NOT_HEC) if !matches!(status, 404 | 405) => Action::Hold(UNKNOWN),
            action => action,
        },
    }
}

fn by_status(status: u16) -> Action {
    match status {
        413 => Action::Halve(Rest::Refuse),
        415 => Action::Uncompressed,
        408 | 425 | 429 | 500..=599 => Action::Retry(Trouble::Busy),
        401 | 403 => Action::Hold(TOKEN),
        // 200 without a code is not HEC's: a login page, a portal. It is no receipt.
        _ => Action::Hold(NOT_HEC),
    }
}

/// The words of the receiver, for messages: its `text`, or the start of what it said.
pub(super) fn words(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Text {
        text: String,
        code: Option<u64>,
    }
    /// Longest quotation, in characters.
    const WORDS_MAX: usize = 120;
    let clean = |text: &str| -> String {
        let visible = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        visible.take(WORDS_MAX).collect()
    };
    match serde_json::from_slice::<Text>(body) {
        Ok(Text {
            text,
            code: Some(code),
        }) => format!("code {code}, {}", clean(&text)),
        Ok(Text { text, code: None }) => clean(&text),
        Err(_) => clean(&String::from_utf8_lossy(body)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(status: u16, code: u64, invalid: Option<usize>) -> Action {
        let mut body = serde_json::json!({ "text": "x", "code": code });
        if let Some(invalid) = invalid {
            body["invalid-event-number"] = invalid.into();
        }
        decide(status, body.to_string().as_bytes())
    }

    /// Status, code, `invalid-event-number`.
    const TABLE: &[(u16, u64, Option<usize>)] = &[
        (200, 0, None),
        (403, 1, None),
        (401, 2, None),
        (401, 3, None),
        (403, 4, None),
        (400, 5, None),
        (400, 6, Some(2)),
        (400, 6, None),
        (400, 7, Some(2)),
        (400, 7, None),
        (500, 8, None),
        (503, 9, None),
        (503, 9, Some(1)),
        (400, 10, None),
        (400, 11, None),
        (400, 12, Some(0)),
        (400, 13, Some(1)),
        (400, 14, None),
        (400, 15, Some(1)),
        (400, 16, None),
        (200, 17, None),
        (503, 18, None),
        (503, 19, None),
        (503, 20, None),
        (400, 21, None),
        (400, 22, None),
        (503, 23, None),
        (200, 24, None),
        (200, 25, None),
        (429, 26, None),
        (429, 27, None),
        (400, 28, None),
        (400, 99, None),
        (503, 99, None),
        (413, 413, None),
        (404, 404, None),
    ];

    #[test]
    fn every_code_of_the_table_has_its_action() {
        let rows: Vec<String> = TABLE
            .iter()
            .map(|&(status, number, invalid)| {
                let invalid_text = invalid.map_or(String::new(), |i| format!(" at {i}"));
                let action = match code(status, number, invalid) {
                    Action::Hold(help) => {
                        format!("Hold: {}", help.split([':', ' ']).next().unwrap())
                    }
                    action => format!("{action:?}"),
                };
                format!("{number:>3} {status}{invalid_text:<5} {action}")
            })
            .collect();
        println!("{}", rows.join("\n"));
        insta::assert_snapshot!(rows.join("\n"), @r#"
      0 200      Taken { ack: None, near: None }
      1 403      Hold: check
      2 401      Hold: check
      3 401      Hold: check
      4 403      OtherConnection
      5 400      RefuseAll
      6 400 at 2 Prefix { taken: 2, ack: None, rest: Refuse }
      6 400      Halve(Refuse)
      7 400 at 2 Prefix { taken: 1, ack: None, rest: HoldIndex }
      7 400      Halve(HoldIndex)
      8 500      Retry(Busy)
      9 503      Retry(Busy)
      9 503 at 1 Prefix { taken: 1, ack: None, rest: Later }
     10 400      NewChannel { in_url: true }
     11 400      NewChannel { in_url: false }
     12 400 at 0 Prefix { taken: 0, ack: None, rest: Refuse }
     13 400 at 1 Prefix { taken: 1, ack: None, rest: Refuse }
     14 400      Hold: check
     15 400 at 1 Prefix { taken: 1, ack: None, rest: WithoutFields }
     16 400      Hold: check
     17 200      Hold: check
     18 503      Retry(Busy)
     19 503      Retry(Busy)
     20 503      Retry(Busy)
     21 400      Hold: check
     22 400      Hold: check
     23 503      Retry(Leaving)
     24 200      Taken { ack: None, near: Some(Queue) }
     25 200      Taken { ack: None, near: Some(Acks) }
     26 429      Retry(Busy)
     27 429      Retry(Acks)
     28 400      NewChannel { in_url: true }
     99 400      Hold: the
     99 503      Retry(Busy)
    413 413      Halve(Refuse)
    404 404      Hold: check
    "#);
    }

    #[test]
    fn a_reply_without_a_code_is_judged_by_its_status() {
        let html = b"<html>nope</html>";
        let token = Action::Hold(TOKEN);
        let not_hec = Action::Hold(NOT_HEC);
        for (status, action) in [
            (200, not_hec.clone()),
            (303, not_hec.clone()),
            (400, not_hec.clone()),
            (401, token.clone()),
            (403, token),
            (404, not_hec.clone()),
            (405, not_hec),
            (408, Action::Retry(Trouble::Busy)),
            (413, Action::Halve(Rest::Refuse)),
            (415, Action::Uncompressed),
            (429, Action::Retry(Trouble::Busy)),
            (502, Action::Retry(Trouble::Busy)),
            (504, Action::Retry(Trouble::Busy)),
        ] {
            assert_eq!(decide(status, html), action, "{status}");
            assert_eq!(decide(status, b""), action, "{status}, empty");
        }
    }

    #[test]
    fn an_ack_id_comes_along_also_for_a_prefix() {
        let body = br#"{"text":"x","code":6,"invalid-event-number":3,"ackId":7}"#;
        let prefix = Action::Prefix {
            taken: 3,
            ack: Some(7),
            rest: Rest::Refuse,
        };
        assert_eq!(decide(400, body), prefix);
        let taken = Action::Taken {
            ack: Some(0),
            near: None,
        };
        assert_eq!(
            decide(200, br#"{"text":"Success","code":0,"ackId":0}"#),
            taken
        );
    }

    #[test]
    fn the_receivers_words_are_quoted_without_control_characters() {
        assert_eq!(
            words(br#"{"text":"Invalid token","code":4}"#),
            "code 4, Invalid token"
        );
        assert_eq!(words(b"<html>\x1b[2J"), "<html> [2J");
        assert_eq!(words(&[b'x'; 500]).len(), 120);
    }
}
