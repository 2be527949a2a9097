//! What happens to gaps: they are noted, filled, lost, acknowledged. Pure: each function says what is
//! to be written.

use std::cmp::Reverse;

use chrono::{DateTime, Utc};
use exfilwatch_model::gap::{Acknowledged, Filled};
use exfilwatch_model::{Gap, GapCause, GapState, StreamId, Window};
use exfilwatch_state::Commit;

use crate::pipeline::notice::Notice;

/// Most gaps kept of a stream. Beyond them a new one is joined to its nearest neighbour of the same
/// kind: the interval grows, nothing is forgotten.
const GAPS_PER_STREAM_MAX: usize = 200;
/// Longest reason of an acknowledgement, in characters.
const ACKNOWLEDGEMENT_CHARS_MAX: usize = 500;

/// What is to be written of the gaps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// New or changed.
    pub put: Vec<Gap>,
    /// Gone, since they were joined to others.
    pub forget: Vec<(StreamId, String)>,
}

impl Changes {
    /// As a part of a commit.
    pub fn commit(self) -> Commit {
        Commit {
            gaps: self.put,
            forget_gaps: self.forget,
            ..Commit::default()
        }
    }
}

/// Notes a gap. `known` are the gaps as they are, and follow.
pub fn note(known: &mut Vec<Gap>, gap: Gap) -> Changes {
    let of_stream = || known.iter().filter(|other| other.stream == gap.stream);
    let is_known = of_stream().any(|other| other.id == gap.id);
    let changes = if is_known || of_stream().count() < GAPS_PER_STREAM_MAX {
        Changes {
            put: vec![gap],
            forget: Vec::new(),
        }
    } else {
        joined(known, gap)
    };
    follow(known, &changes);
    changes
}

fn follow(known: &mut Vec<Gap>, changes: &Changes) {
    known.retain(|gap| {
        let key = (gap.stream.clone(), gap.id.clone());
        !changes.forget.contains(&key) && !changes.put.iter().any(|put| put.id == gap.id)
    });
    known.extend(changes.put.iter().cloned());
}

/// The gap joined to its nearest neighbour of the same kind; alone where it has none.
fn joined(known: &[Gap], gap: Gap) -> Changes {
    let alike = known.iter().filter(|other| {
        other.stream == gap.stream
            && (other.state, other.cause) == (gap.state, gap.cause)
            && other.acknowledged.is_none()
    });
    let distance = |other: &&Gap| (other.window.from() - gap.window.from()).abs();
    let Some(nearest) = alike.min_by_key(distance) else {
        return Changes {
            put: vec![gap],
            forget: Vec::new(),
        };
    };
    let from = nearest.window.from().min(gap.window.from());
    let until = nearest.window.until().max(gap.window.until());
    let joined = Gap {
        window: Window::new(from, until).unwrap_or(nearest.window),
        parts: nearest.parts.saturating_add(gap.parts),
        expires: nearest.expires.into_iter().chain(gap.expires).min(),
        ..nearest.clone()
    };
    Changes {
        put: vec![joined],
        forget: Vec::new(),
    }
}

/// Open gaps of a stream, as far as they lie in `window`, are filled; what lies outside stays open.
pub fn fill(known: &[Gap], stream: &StreamId, window: Window, filled: &Filled) -> Changes {
    let mut changes = Changes::default();
    let open = known
        .iter()
        .filter(|gap| gap.stream == *stream && gap.state == GapState::Open);
    for gap in open {
        let inside = Window::new(
            gap.window.from().max(window.from()),
            gap.window.until().min(window.until()),
        );
        let Some(inside) = inside else { continue };
        let mut rest = [
            Window::new(gap.window.from(), inside.from()),
            Window::new(inside.until(), gap.window.until()),
        ]
        .into_iter()
        .flatten();
        // What stays open keeps the id; the whole gap keeps it when nothing stays open.
        let id = match rest.next() {
            Some(window) => {
                changes.put.push(Gap {
                    window,
                    ..gap.clone()
                });
                String::new()
            }
            None => gap.id.clone(),
        };
        changes.put.extend(rest.map(|window| part(gap, window)));
        let closed = Gap {
            id,
            window: inside,
            state: GapState::Filled,
            filled: Some(filled.clone()),
            ..gap.clone()
        };
        changes.put.push(closed.with_id());
    }
    changes
}

fn part(gap: &Gap, window: Window) -> Gap {
    let part = Gap {
        id: String::new(),
        window,
        ..gap.clone()
    };
    part.with_id()
}

/// An open gap that nobody can fill any more.
pub fn lose(gap: &Gap, reason: &str) -> Gap {
    Gap {
        state: GapState::Lost,
        reason: reason
            .chars()
            .take(exfilwatch_model::gap::REASON_CHARS_MAX)
            .collect(),
        ..gap.clone()
    }
}

/// The gap whose id begins with `id` (at least four digits), acknowledged: one that was open is given
/// up with it. An error says what is wrong with the id.
pub fn acknowledge(
    known: &[Gap],
    id: &str,
    reason: &str,
    at: DateTime<Utc>,
) -> Result<Gap, String> {
    let meant: Vec<&Gap> = known
        .iter()
        .filter(|gap| id.len() >= 4 && gap.id.starts_with(id))
        .collect();
    let gap = match meant[..] {
        [gap] => gap,
        [] => return Err(format!("there is no gap {id:?}")),
        _ => return Err(format!("{} gaps begin with {id:?}", meant.len())),
    };
    if gap.state == GapState::Filled {
        return Err(format!("gap {} is filled: nothing is missing", gap.id));
    }
    let reason: String = reason.chars().take(ACKNOWLEDGEMENT_CHARS_MAX).collect();
    Ok(Gap {
        state: GapState::Lost,
        acknowledged: Some(Acknowledged { at, reason }),
        ..gap.clone()
    })
}

/// A gap that was acknowledged, as it is written and told to the receivers.
pub fn acknowledged(gap: &Gap, now: DateTime<Utc>) -> Commit {
    let mut notice = Notice::gap(gap.clone());
    notice.at = now;
    Commit {
        frames: vec![notice.frame(gap.stream.tenant())],
        gaps: vec![gap.clone()],
        ..Commit::default()
    }
}

/// Open gaps that somebody else than the poller must fill, the one that expires first at the front;
/// of equal ones the newest.
pub fn worth_filling(known: &[Gap], now: DateTime<Utc>) -> Vec<Gap> {
    let mut open: Vec<Gap> = known
        .iter()
        .filter(|gap| gap.state == GapState::Open)
        // The poller reads this one again by itself.
        .filter(|gap| gap.cause != GapCause::StoreLost)
        .filter(|gap| gap.expires.is_none_or(|at| at > now))
        .cloned()
        .collect();
    open.sort_by_key(|gap| {
        (
            gap.expires.is_none(),
            gap.expires,
            Reverse(gap.window.from()),
        )
    });
    open
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use exfilwatch_model::JobId;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hours)
    }

    fn window(from: i64, until: i64) -> Window {
        Window::new(at(from), at(until)).unwrap()
    }

    fn stream() -> StreamId {
        "contoso/office365/Audit.Exchange".parse().unwrap()
    }

    fn gap(from: i64, until: i64, state: GapState) -> Gap {
        let found = (state, GapCause::NotFetched);
        Gap::new(stream(), window(from, until), found, "blob", at(until))
    }

    fn filled() -> Filled {
        Filled {
            at: at(100),
            by: JobId::new("fill-1").unwrap(),
            records: Some(7),
        }
    }

    #[test]
    fn a_gap_that_is_read_whole_is_filled_and_keeps_its_id() {
        let known = [gap(2, 4, GapState::Open), gap(2, 4, GapState::Lost)];
        let changes = fill(&known, &stream(), window(0, 10), &filled());
        assert_eq!(changes.put.len(), 1, "what is lost stays lost");
        let put = &changes.put[0];
        assert_eq!(
            (put.id.as_str(), put.state),
            (known[0].id.as_str(), GapState::Filled)
        );
        assert_eq!(put.filled.as_ref().unwrap().records, Some(7));
        let other = "contoso/office365/DLP.All".parse().unwrap();
        assert_eq!(
            fill(&known, &other, window(0, 10), &filled()),
            Changes::default()
        );
    }

    #[test]
    fn what_lies_outside_of_what_was_read_stays_open() {
        let known = [gap(0, 10, GapState::Open)];
        let changes = fill(&known, &stream(), window(3, 5), &filled());
        let mut parts: Vec<_> = changes
            .put
            .iter()
            .map(|gap| (gap.window, gap.state))
            .collect();
        parts.sort_by_key(|(window, _)| *window);
        assert_eq!(
            parts,
            [
                (window(0, 3), GapState::Open),
                (window(3, 5), GapState::Filled),
                (window(5, 10), GapState::Open),
            ]
        );
        let mut ids: Vec<&str> = changes.put.iter().map(|gap| gap.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 3);
        assert!(
            ids.contains(&known[0].id.as_str()),
            "the old entry is replaced"
        );
    }

    #[test]
    fn beyond_the_limit_a_gap_is_joined_to_its_neighbour_and_nothing_is_forgotten() {
        let mut known = Vec::new();
        for hour in 0..1_000 {
            note(&mut known, gap(hour, hour + 1, GapState::Lost));
        }
        assert_eq!(known.len(), GAPS_PER_STREAM_MAX);
        assert_eq!(known.iter().map(|gap| gap.parts).sum::<u32>(), 1_000);
        for hour in 0..1_000 {
            assert!(known.iter().any(|gap| gap.window.holds(at(hour))), "{hour}");
        }
        let open = gap(500, 501, GapState::Open);
        note(&mut known, open.clone());
        assert!(known.contains(&open), "never joined to one of another kind");
    }

    #[test]
    fn an_acknowledged_gap_is_lost_with_the_reason_and_no_longer_due() {
        let known = [gap(0, 1, GapState::Open), gap(5, 6, GapState::Filled)];
        let id = &known[0].id[..6];
        let done = acknowledge(&known, id, "a test tenant", at(9)).unwrap();
        assert_eq!((done.state, done.is_due()), (GapState::Lost, false));
        assert!(acknowledge(&known, "0", "", at(9)).is_err());
        assert!(acknowledge(&known, "ffffffffffff", "", at(9)).is_err());
        assert!(acknowledge(&known, &known[1].id, "", at(9)).is_err());
    }

    #[test]
    fn what_expires_first_is_filled_first_and_what_the_poller_reads_again_is_left_to_it() {
        let with = |from, expires| Gap {
            expires,
            ..gap(from, from + 1, GapState::Open)
        };
        let again = Gap {
            cause: GapCause::StoreLost,
            ..gap(40, 41, GapState::Open)
        };
        let known = [
            with(1, None),
            with(2, Some(at(90))),
            with(3, Some(at(80))),
            again,
            with(4, Some(at(5))),
        ];
        let order = worth_filling(&known, at(10))
            .into_iter()
            .map(|gap| gap.window.from());
        assert_eq!(order.collect::<Vec<_>>(), [at(3), at(2), at(1)]);
    }
}
