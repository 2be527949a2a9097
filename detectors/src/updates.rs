//! The finding table: which of the findings an engine gives are sent, and as what revision.
//!
//! Pure. A finding keeps its id and counts its revisions up; it is sent again only when there is
//! something to say, and it never goes back: a lower count after memory was lost is ignored.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::finding::REVISIONS_MAX;
use exfilwatch_model::{Finding, FindingState, UpdateReason, field};
use uuid::Uuid;

/// Quiet time after which going on is a new episode.
const QUIET: TimeDelta = TimeDelta::hours(2);
/// Most domains and networks remembered of a finding each.
const REMEMBERED_MAX: usize = 20;
/// Bytes of them each after which no more is remembered.
const REMEMBERED_BYTES_MAX: usize = 1_000;
/// Most characters of the entity that the state keeps.
const ENTITY_CHARS_MAX: usize = 200;

/// What the table says of a finding.
#[derive(Debug, Clone)]
pub struct Revision {
    /// To be stored with the commit.
    pub state: FindingState,
    /// To be put into the outbox, with revision and reason.
    pub send: Option<Finding>,
}

/// Takes in a finding as it stands now. `expires` is [`crate::RuleSet::expiry`] of it.
pub fn revise(
    previous: Option<&FindingState>,
    finding: Finding,
    expires: DateTime<Utc>,
) -> Revision {
    let Some(previous) = previous else {
        let state = state_of(&finding, expires, 1);
        return Revision {
            state,
            send: Some(finding),
        };
    };
    if let Some(reason) = reason(previous, &finding) {
        return sent(previous, finding, expires, reason);
    }
    let mut state = previous.clone();
    state.last_time = state.last_time.max(finding.last_time);
    state.expires = state.expires.max(expires);
    Revision { state, send: None }
}

/// The last word on a finding whose time is over ([`crate::Engine::close`]), from the state the
/// table has of it. It is sent only where it says more than what was sent before. The state may be
/// forgotten afterwards.
pub fn close(previous: &FindingState, finding: Finding) -> Option<Finding> {
    let is_more = finding.count > previous.count || is_worse(previous, &finding);
    is_more.then(|| numbered(finding, previous.revision, UpdateReason::Closed))
}

/// The last word on a finding that is over for a reason of its own: it is always said.
pub fn last_word(
    previous: Option<&FindingState>,
    finding: Finding,
    expires: DateTime<Utc>,
    reason: UpdateReason,
) -> Revision {
    match previous {
        Some(previous) => sent(previous, finding, expires, reason),
        // Its first word is no longer remembered.
        None => {
            let finding = numbered(finding, 1, reason);
            Revision {
                state: state_of(&finding, expires, finding.revision),
                send: Some(finding),
            }
        }
    }
}

/// The states whose time is over: to be forgotten once their last word is said. One that is over
/// at the very watermark waits for the next.
pub fn close_due<'a>(
    states: impl IntoIterator<Item = &'a FindingState>,
    watermark: DateTime<Utc>,
) -> Vec<Uuid> {
    let due = states.into_iter().filter(|state| state.expires < watermark);
    due.map(|state| state.uid).collect()
}

/// Why a finding is to be sent again, if it is.
fn reason(previous: &FindingState, finding: &Finding) -> Option<UpdateReason> {
    if is_worse(previous, finding) {
        return Some(UpdateReason::SeverityRaised);
    }
    if finding.count <= previous.count || previous.revision >= REVISIONS_MAX {
        return None;
    }
    if has_new(&previous.domains, &domains(finding)) {
        return Some(UpdateReason::NewExternalDomain);
    }
    if has_new(&previous.networks, &networks(finding)) {
        return Some(UpdateReason::NewSourceNetwork);
    }
    if finding.count >= previous.count.saturating_mul(2) {
        return Some(UpdateReason::CountDoubled);
    }
    let is_new_episode = finding.last_time - previous.last_time >= QUIET;
    is_new_episode.then_some(UpdateReason::NewEpisode)
}

/// A higher severity, or a signal that became a finding to be looked at.
fn is_worse(previous: &FindingState, finding: &Finding) -> bool {
    finding.severity > previous.severity || (finding.alert && !previous.alert)
}

/// Whether something is new. A full memory cannot tell, and says no.
fn has_new(known: &[String], now: &[String]) -> bool {
    !is_full(known) && now.iter().any(|value| !known.contains(value))
}

/// The state must fit into a value of the store, whatever names an attacker chose.
fn is_full(known: &[String]) -> bool {
    let bytes: usize = known.iter().map(String::len).sum();
    known.len() >= REMEMBERED_MAX || bytes >= REMEMBERED_BYTES_MAX
}

fn sent(
    previous: &FindingState,
    finding: Finding,
    expires: DateTime<Utc>,
    reason: UpdateReason,
) -> Revision {
    let mut finding = numbered(finding, previous.revision, reason);
    // What was sent is never taken back.
    finding.severity = finding.severity.max(previous.severity);
    // Unless somebody has agreed to it since.
    finding.alert |= previous.alert && finding.suppressed.is_none();
    let mut state = state_of(&finding, expires.max(previous.expires), finding.revision);
    state.count = state.count.max(previous.count);
    state.last_time = state.last_time.max(previous.last_time);
    state.domains = merged(&previous.domains, state.domains);
    state.networks = merged(&previous.networks, state.networks);
    Revision {
        state,
        send: Some(finding),
    }
}

fn numbered(mut finding: Finding, previous: u32, reason: UpdateReason) -> Finding {
    finding.revision = previous.saturating_add(1);
    finding.update_reason = Some(reason);
    finding
}

fn state_of(finding: &Finding, expires: DateTime<Utc>, revision: u32) -> FindingState {
    FindingState {
        uid: finding.uid,
        detection: finding.rule.detection.clone(),
        entity: finding.entity.chars().take(ENTITY_CHARS_MAX).collect(),
        revision,
        count: finding.count,
        severity: finding.severity,
        alert: finding.alert,
        last_time: finding.last_time,
        domains: merged(&[], domains(finding)),
        networks: merged(&[], networks(finding)),
        expires,
    }
}

fn merged(known: &[String], more: Vec<String>) -> Vec<String> {
    let mut all = known.to_vec();
    for value in more {
        if is_full(&all) {
            break;
        }
        if !all.contains(&value) {
            all.push(value);
        }
    }
    all
}

fn domains(finding: &Finding) -> Vec<String> {
    finding
        .values
        .get(field::EXTERNAL_DOMAIN)
        .cloned()
        .unwrap_or_default()
}

fn networks(finding: &Finding) -> Vec<String> {
    let addresses = finding
        .values
        .get(field::SOURCE_IP)
        .map_or(&[][..], Vec::as_slice);
    let mut networks: Vec<String> = addresses.iter().filter_map(|text| network(text)).collect();
    networks.sort();
    networks.dedup();
    networks
}

/// The network of an address: /24, or /48 of IPv6.
fn network(address: &str) -> Option<String> {
    Some(match address.parse::<IpAddr>().ok()?.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}::/48")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_grouped_by_network() {
        for (address, expected) in [
            ("203.0.113.9", Some("203.0.113.0/24")),
            ("::ffff:203.0.113.9", Some("203.0.113.0/24")),
            ("2001:db8:1:2::3", Some("2001:db8:1::/48")),
            ("unknown", None),
        ] {
            assert_eq!(network(address).as_deref(), expected, "{address}");
        }
    }
}
