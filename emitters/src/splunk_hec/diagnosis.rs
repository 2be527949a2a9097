//! What a collector would refuse: the token, an index, acknowledgements. Nothing is indexed.
//!
//! An index is asked for with an event whose time is no time: no Splunk indexes such an event, and
//! one that checks the index first says so (code 7). A refusal of the index is thus certain, its
//! absence is not a promise, and the words say that.

use std::collections::BTreeSet;

use exfilwatch_model::Kind;
use exfilwatch_model::diagnosis::{Cause, Check};
use serde::Deserialize;

use super::client::Reply;
use super::reply::words;
use super::request::Body;
use super::session::Session;
use crate::contract::EmitError;
use crate::options::{Ack, SplunkHecOptions};

const TOKEN: &str = "receiver_token";
const INDEX: &str = "receiver_index";
const ACK: &str = "receiver_ack";

#[derive(Debug, Default, Deserialize)]
struct Code {
    code: Option<u64>,
    acks: Option<serde_json::Value>,
}

/// See [`crate::Emitter::diagnose`].
pub(super) async fn look(session: &Session, options: &SplunkHecOptions) -> Vec<Check> {
    let answer = match session.ask(&[0]).await {
        Ok(reply) => reply,
        Err(error) => {
            return vec![
                unanswered(&error),
                Check::skipped(INDEX, "the receiver gave no answer"),
                Check::skipped(ACK, "the receiver gave no answer"),
            ];
        }
    };
    let token = token(&answer);
    if token.stops() {
        return vec![
            token,
            Check::skipped(INDEX, "the token is not taken"),
            Check::skipped(ACK, "the token is not taken"),
        ];
    }
    let mut checks = vec![token];
    for index in indexes(options) {
        checks.push(index_taken(session, &index).await);
    }
    checks.push(acks(&answer, options.ack));
    checks
}

fn unanswered(error: &EmitError) -> Check {
    let what = error.to_string();
    match error {
        EmitError::Hold { help, .. } => {
            Check::failed(TOKEN, Cause::ReceiverUnreachable, what).fix(help.clone())
        }
        EmitError::Retry { .. } => Check::failed(TOKEN, Cause::ReceiverUnreachable, what),
    }
}

fn code(reply: &Reply) -> Code {
    serde_json::from_slice(&reply.body).unwrap_or_default()
}

/// The question for acknowledgements is answered by every collector, and needs a good token.
fn token(reply: &Reply) -> Check {
    let said = format!("status {}: {}", reply.status, words(&reply.body));
    let answer = code(reply);
    if answer.acks.is_some() {
        return Check::ok(TOKEN, "the token is taken");
    }
    match (answer.code, reply.status) {
        (Some(14), _) => Check::ok(TOKEN, "the token is taken"),
        (Some(1..=4 | 16 | 21 | 22), _) | (None, 401 | 403) => {
            Check::failed(TOKEN, Cause::HecTokenWrong, said)
        }
        (Some(8 | 9 | 18..=20 | 23 | 26 | 27), _) | (None, 429 | 503) => {
            Check::warning(TOKEN, Cause::HecBusy, said)
        }
        (Some(_), _) => Check::ok(TOKEN, format!("not refused ({said})")),
        (None, _) => Check::failed(TOKEN, Cause::NotAHec, said),
    }
}

fn acks(reply: &Reply, wanted: Ack) -> Check {
    let offered = code(reply).acks.is_some();
    match (offered, wanted) {
        (true, Ack::Off) => Check::ok(ACK, "offered, but ack = \"off\""),
        (true, Ack::Auto | Ack::On) => Check::ok(ACK, "indexer acknowledgement is on"),
        (false, Ack::On) => Check::failed(
            ACK,
            Cause::HecAckUnavailable,
            format!("the token offers none: {}", words(&reply.body)),
        ),
        (false, Ack::Auto | Ack::Off) => Check::ok(
            ACK,
            "no indexer acknowledgement: HEC's reply is the receipt",
        ),
    }
    .fact("ack", offered)
}

/// The indexes that what is sent goes to; those with `{tenant}` are many and not known here.
fn indexes(options: &SplunkHecOptions) -> BTreeSet<String> {
    let of = |kind: &Kind| {
        let index = &options.index;
        match kind {
            Kind::Findings => index.findings.clone(),
            Kind::Signals => index.signals.clone().or_else(|| index.findings.clone()),
            Kind::Internal => index.internal.clone(),
            Kind::Events => index.events.clone(),
        }
    };
    let risk = options.index.risk.clone();
    let named = options.send.iter().filter_map(of).chain(risk);
    named.filter(|index| !index.contains('{')).collect()
}

async fn index_taken(session: &Session, index: &str) -> Check {
    let event =
        serde_json::json!({ "index": index, "time": "doctor", "event": "exfilwatch doctor" });
    let check = match session.send(Body::Text(event.to_string())).await {
        Err(unanswered) => {
            let what = format!("{index}: {}", unanswered.error);
            Check::warning(INDEX, Cause::HecBusy, what)
        }
        Ok(reply) => match code(&reply).code {
            Some(7) => Check::failed(
                INDEX,
                Cause::HecIndexRefused,
                format!("index {index}: {}", words(&reply.body)),
            ),
            _ => Check::ok(
                INDEX,
                format!("index {index} is not refused (nothing was written to prove it)"),
            ),
        },
    };
    check.fact("index", index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            status,
            body: body.into(),
            retry_after: None,
        }
    }

    #[test]
    fn answers_to_the_question_for_acknowledgements_tell_of_the_token() {
        for (status, body, cause) in [
            (200, r#"{"acks":{"0":false}}"#, None),
            (400, r#"{"text":"ACK is disabled","code":14}"#, None),
            (400, r#"{"text":"Invalid data channel","code":11}"#, None),
            (
                403,
                r#"{"text":"Invalid token","code":4}"#,
                Some(Cause::HecTokenWrong),
            ),
            (
                403,
                r#"{"text":"Token disabled","code":1}"#,
                Some(Cause::HecTokenWrong),
            ),
            (403, "", Some(Cause::HecTokenWrong)),
            (
                503,
                r#"{"text":"Server is busy","code":9}"#,
                Some(Cause::HecBusy),
            ),
            (303, "<html>", Some(Cause::NotAHec)),
            (200, "<html>Splunk", Some(Cause::NotAHec)),
        ] {
            assert_eq!(token(&reply(status, body)).cause, cause, "{status} {body}");
        }
    }

    #[test]
    fn an_acknowledgement_that_is_wanted_and_not_there_is_a_failure() {
        let without = reply(400, r#"{"text":"ACK is disabled","code":14}"#);
        let with = reply(200, r#"{"acks":{"0":false}}"#);
        for (answer, wanted, cause) in [
            (&with, Ack::On, None),
            (&without, Ack::On, Some(Cause::HecAckUnavailable)),
            (&without, Ack::Auto, None),
        ] {
            assert_eq!(acks(answer, wanted).cause, cause);
        }
    }
}
