//! Rules that count in trailing windows of event time.
//!
//! A key is satisfied at an event when its trailing window `(t - span, t]` holds enough events or
//! values, or events of enough base rules, in any order or in theirs. One finding for each rule, key and
//! period: of all events that lie in a satisfied window
//! that ends within the period. So it is a function of the set of events.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use exfilwatch_model::{Event, Finding};

use super::baseline::{DAY_MS, KIND_ORIGIN, day_of};
use super::entry::{Entry, EntryId, SEPARATOR, Values, hash_of, key_of};
use super::finding::{Material, Scope};
use super::further::{Further, Held};
use super::history::{self, Before, Earlier, History, KIND_COUNT, KIND_OPEN};
use super::ledger::{HOP_MS, Ledger};
use super::period;
use super::quotes::Quotes;
use super::series::Moment;
use super::shown::Shown;
use super::single::{cut, interests, is_late};
use super::trailing::{self, Trailing, Window};
use crate::contract::{BadState, Baseline, Counters, Detector, Interest, StateChange};
use crate::rules::{Above, Also, Counted, Kind, Rule, RuleSet, Tier, WindowBase};

/// A window rule at work for one tenant and job.
#[derive(Debug)]
pub(crate) struct Windows {
    rules: Arc<RuleSet>,
    place: usize,
    id: String,
    scope: Scope,
    ledger: Ledger,
    quotes: Quotes,
    dirty: Dirty,
    history: History,
    /// Everything before it has come. Not stored: told again soon after a restart.
    settled_ms: i64,
}

/// Keys and the periods that a new event touches.
#[derive(Debug, Default)]
struct Dirty(BTreeMap<String, BTreeSet<i64>>);

impl Dirty {
    fn add(&mut self, key: &str, numbers: impl IntoIterator<Item = i64>) {
        if let Some(known) = self.0.get_mut(key) {
            known.extend(numbers);
        } else {
            self.0.insert(key.to_owned(), numbers.into_iter().collect());
        }
    }
}

/// The parts of a window rule.
struct Parts<'a> {
    rule: &'a Rule,
    bases: &'a [WindowBase],
    group_by: &'a [String],
    counted: &'a Counted,
    also: &'a [Also],
    tiers: &'a [Tier],
    period_ms: i64,
}

fn parts(rule: &Rule) -> Option<Parts<'_>> {
    match &rule.kind {
        Kind::Window {
            bases,
            group_by,
            counted,
            also,
            tiers,
            period_ms,
        } => Some(Parts {
            rule,
            bases,
            group_by,
            counted,
            also,
            tiers,
            period_ms: *period_ms,
        }),
        Kind::Single { .. } | Kind::Incident { .. } => None,
    }
}

impl Windows {
    pub(crate) fn new(rules: Arc<RuleSet>, place: usize, scope: Scope) -> Self {
        let rule = rules.at(place);
        Self {
            id: rule
                .map(|rule| rule.facts.id.to_string())
                .unwrap_or_default(),
            ledger: Ledger::new(rule.map_or(0, |rule| rule.layout.fingerprint)),
            rules,
            place,
            scope,
            quotes: Quotes::default(),
            dirty: Dirty::default(),
            history: History::default(),
            settled_ms: i64::MIN,
        }
    }

    /// The finding of a key in a period, if a condition is met.
    fn finding(
        &self,
        parts: &Parts<'_>,
        (key, number): (&str, i64),
        fetched_at: DateTime<Utc>,
    ) -> Option<Finding> {
        let from_ms = period::start_ms(number, parts.period_ms);
        let reach_ms = period::longest_span_ms(parts.rule);
        let since_ms = from_ms.saturating_sub(reach_ms);
        let until_ms = from_ms.saturating_add(parts.period_ms);
        let moments = self.ledger.moments(key, since_ms, until_ms);
        let is_dense = |tier: &Tier| {
            let needed = trailing::needed(parts.counted, tier);
            trailing::is_dense(&moments, needed, tier.span_ms, from_ms)
        };
        if !parts.tiers.iter().any(is_dense) {
            return None;
        }
        let past = Past::new(self, parts, key, from_ms);
        let further = Further::new(parts.rule, parts.also, || {
            self.ledger.entries(key, since_ms, until_ms)
        });
        let met = sweep(parts, &moments, from_ms, past.as_ref(), &further)?;
        // Only now are the entries unpacked: few windows are satisfied.
        let mut covered = met.covered.iter();
        let mut entries = self.ledger.entries(key, since_ms, until_ms);
        entries.retain(|_| covered.next().is_some_and(|covered| *covered));
        let trip = met.covered.get(..met.trip)?;
        let trip = trip.iter().filter(|covered| **covered).count();
        let entity = parts
            .group_by
            .iter()
            .position(|name| *name == parts.rule.entity)?;
        let mut values: Vec<&str> = key.split(SEPARATOR).collect();
        let uid_entity = if entity < values.len() {
            values.remove(entity)
        } else {
            key
        };
        let number = number.to_string();
        values.push(&number);
        Material {
            rule: parts.rule,
            scope: &self.scope,
            quotes: &self.quotes,
            entries: &entries,
            trip,
            level: met.tier.level,
            tier: Some(met.tier),
            uid_entity,
            uid_scope: &values.join(&SEPARATOR.to_string()),
            fetched_at,
        }
        .finding()
    }
}

/// What windows of a key are measured against, where the rule does so.
struct Past<'a> {
    history: &'a History,
    ledger: &'a Ledger,
    settled_ms: i64,
    key: &'a str,
    counted: &'a Counted,
    /// Span of the days that count.
    span_ms: (i64, i64),
    at_hand: OnceCell<AtHand>,
}

/// What is at hand of the days that count. Few windows are large enough to be measured against it.
struct AtHand {
    /// By time.
    moments: Vec<Moment>,
    /// Counts of days that are still open.
    recent: BTreeMap<i64, u32>,
}

impl<'a> Past<'a> {
    /// `from_ms` is the start of the period that is looked at.
    fn new(windows: &'a Windows, parts: &Parts<'a>, key: &'a str, from_ms: i64) -> Option<Self> {
        let days = days_kept(parts.tiers)?;
        let earliest = from_ms.saturating_sub(days * DAY_MS);
        let until = from_ms.saturating_add(parts.period_ms);
        Some(Self {
            history: &windows.history,
            ledger: &windows.ledger,
            settled_ms: windows.settled_ms,
            key,
            counted: parts.counted,
            span_ms: (earliest, until),
            at_hand: OnceCell::new(),
        })
    }

    fn at_hand(&self) -> &AtHand {
        self.at_hand.get_or_init(|| {
            let (earliest, until) = self.span_ms;
            let moments = self.ledger.moments(self.key, earliest, until);
            let mut recent = history::by_day(self.counted, &moments);
            // Of a day that is a number already only a part may be at hand.
            recent.retain(|day, _| self.history.open_from().is_none_or(|open| *day >= open));
            AtHand { moments, recent }
        })
    }

    fn earlier(&self) -> Earlier<'_> {
        Earlier::new(self.counted, &self.at_hand().moments)
    }

    /// Whether a window that ends at an instant holds more than usual. `before` says what lies before
    /// it.
    fn is_above(
        &self,
        above: &Above,
        time_ms: i64,
        size: u64,
        before: impl FnOnce() -> Before,
    ) -> bool {
        let limit = |day| {
            let (key, recent) = (hash_of(self.key), &self.at_hand().recent);
            self.history.limit(above, key, day, recent, before())
        };
        time_ms < self.settled_ms
            && self.history.origin.is_learned(above.learn_ms, time_ms)
            && limit(day_of(time_ms)).is_some_and(|limit| size > limit)
    }
}

/// Where the conditions of a rule are met.
#[derive(Debug, PartialEq, Eq)]
struct Met {
    /// For each event, whether it lies in a satisfied window.
    covered: Vec<bool>,
    /// Place of the first event at which a condition is met.
    trip: usize,
    /// The highest tier.
    tier: Tier,
}

/// No window of a key that has fewer entries meets a condition.
fn entries_needed(parts: &Parts<'_>) -> usize {
    let thresholds = parts
        .tiers
        .iter()
        .map(|tier| trailing::needed(parts.counted, tier));
    thresholds.min().unwrap_or(0)
}

/// Evaluates all tiers for windows that end at or after `from_ms`. Moments are sorted by time.
fn sweep(
    parts: &Parts<'_>,
    moments: &[Moment],
    from_ms: i64,
    past: Option<&Past<'_>>,
    further: &Further<'_>,
) -> Option<Met> {
    // +1 where a satisfied window starts, -1 behind its end.
    let mut edges = vec![0_i32; moments.len() + 1];
    let mut trip: Option<usize> = None;
    let mut highest: Option<Tier> = None;
    for tier in parts.tiers {
        let mut earlier = None;
        let mut held = Held::of(further);
        let mut windows = Trailing::new(parts.counted, parts.bases, moments, tier.span_ms);
        while let Some(Window { start, end, size }) = windows.next() {
            let place = end.saturating_sub(1);
            let Some(last) = moments.get(place) else {
                break;
            };
            let is_above = |above: &Above| {
                past.is_some_and(|past| {
                    let before = || {
                        let earlier = earlier.get_or_insert_with(|| past.earlier());
                        earlier.until(last.time_ms.saturating_sub(tier.span_ms))
                    };
                    past.is_above(above, last.time_ms, size, before)
                })
            };
            if last.time_ms < from_ms
                || size < tier.threshold
                || !tier.above.as_ref().is_none_or(is_above)
                || !held.is_enough(start, end)
            {
                continue;
            }
            if let Some(edge) = edges.get_mut(start) {
                *edge += 1;
            }
            if let Some(edge) = edges.get_mut(end) {
                *edge -= 1;
            }
            trip = Some(trip.map_or(place, |known| known.min(place)));
            // Tiers lie highest first.
            highest.get_or_insert(*tier);
        }
    }
    let mut depth = 0;
    let covered = edges.iter().take(moments.len()).map(|edge| {
        depth += edge;
        depth > 0
    });
    Some(Met {
        covered: covered.collect(),
        trip: trip?,
        tier: highest?,
    })
}

/// Numbers of the periods in which windows end that hold an event of this time: they end between its
/// time and one span later.
fn touched(rule: &Rule, period_ms: i64, time_ms: i64) -> std::ops::RangeInclusive<i64> {
    let until_ms = time_ms.saturating_add(period::longest_span_ms(rule) - 1);
    period::number(time_ms, period_ms)..=period::number(until_ms, period_ms)
}

/// Numbers of the periods that some hops lie in.
fn periods(hops: &[i64], period_ms: i64) -> BTreeSet<i64> {
    let last = |hop_ms: i64| period::number(hop_ms.saturating_add(HOP_MS - 1), period_ms);
    hops.iter()
        .flat_map(|&hop_ms| period::number(hop_ms, period_ms)..=last(hop_ms))
        .collect()
}

/// Values of some fields; `None` where the event lacks one.
fn whole(event: &Event, fields: &[String]) -> Option<String> {
    let values = Values::of(event, fields);
    (values.empty == 0).then_some(values.text)
}

/// Under which keys an event counts, and as what, by key. Without a key, or without the value that is
/// counted, there is nothing to count.
fn counts(event: &Event, bases: &[WindowBase], counted: &Counted) -> Vec<(String, u64)> {
    let mut counts: Vec<(String, u64)> = Vec::new();
    for (place, base) in bases.iter().enumerate() {
        if !base.matcher.matches(event) {
            continue;
        }
        let Some(key) = whole(event, &base.key).map(key_of) else {
            continue;
        };
        match counts.iter_mut().find(|(known, _)| *known == key) {
            Some((_, matched)) => *matched |= 1 << place,
            None => counts.push((key, 1 << place)),
        }
    }
    counts.sort_unstable();
    let value = match counted {
        Counted::Bases | Counted::Chain => return counts,
        Counted::Events => Some(0),
        Counted::Values(_) if counts.is_empty() => None,
        Counted::Values(fields) => whole(event, fields).map(|values| hash_of(&values)),
    };
    let Some(value) = value else {
        return Vec::new();
    };
    for (_, counted) in &mut counts {
        *counted = value;
    }
    counts
}

impl Detector for Windows {
    fn id(&self) -> &str {
        &self.id
    }

    fn wants(&self) -> Vec<Interest> {
        interests(&self.rules, self.place)
    }

    fn observe(&mut self, shown: &Shown<'_>) {
        let event = shown.event;
        let Some(rule) = self.rules.at(self.place) else {
            return;
        };
        let Kind::Window {
            bases,
            counted,
            tiers,
            period_ms,
            ..
        } = &rule.kind
        else {
            return;
        };
        let counts = counts(event, bases, counted);
        if counts.is_empty() {
            return;
        }
        let time_ms = event.time.timestamp_millis();
        if is_late(rule, &self.ledger, time_ms) {
            self.ledger.count_late();
            return;
        }
        if days_kept(tiers).is_some() {
            self.history.origin.note(time_ms);
        }
        self.quotes.put(shown);
        for (key, value) in counts {
            let entry = Entry::new(event, &rule.layout, value, rule.flags(event));
            if self.ledger.insert(&key, EntryId::new(&key, event), &entry) {
                self.dirty.add(&key, touched(rule, *period_ms, time_ms));
            }
        }
    }

    fn settle(&mut self, until: DateTime<Utc>) {
        let until_ms = until.timestamp_millis();
        let Some(parts) = self.rules.at(self.place).and_then(parts) else {
            return;
        };
        if until_ms <= self.settled_ms || days_kept(parts.tiers).is_none() {
            return;
        }
        for (key, hops) in self.ledger.touched(self.settled_ms, until_ms) {
            self.dirty.add(key, periods(&hops, parts.period_ms));
        }
        self.settled_ms = until_ms;
    }

    fn collect(&mut self, fetched_at: DateTime<Utc>, out: &mut Vec<Finding>) {
        let dirty = std::mem::take(&mut self.dirty);
        let Some(parts) = self.rules.at(self.place).and_then(parts) else {
            return;
        };
        let open = self
            .ledger
            .watermark_ms()
            .map(|at| period::number(at, parts.period_ms));
        let least = entries_needed(&parts);
        for (key, numbers) in &dirty.0 {
            if !self.ledger.holds(key, least) {
                continue;
            }
            for number in numbers {
                // A period that is over was told whole; part of its entries may be gone.
                if open.is_none_or(|open| *number >= open) {
                    out.extend(self.finding(&parts, (key, *number), fetched_at));
                }
            }
        }
        self.quotes.close_page();
    }

    fn close(&self, watermark: DateTime<Utc>, fetched_at: DateTime<Utc>, out: &mut Vec<Finding>) {
        let Some(parts) = self.rules.at(self.place).and_then(parts) else {
            return;
        };
        let first_open = period::number(watermark.timestamp_millis(), parts.period_ms);
        let done = self
            .ledger
            .watermark_ms()
            .map(|at| period::number(at, parts.period_ms));
        let from_ms = done.map_or(i64::MIN, |done| period::start_ms(done, parts.period_ms));
        let touched = self
            .ledger
            .touched(from_ms, period::start_ms(first_open, parts.period_ms));
        let is_due = |number: &i64| *number < first_open && done.is_none_or(|done| *number >= done);
        let mut due = BTreeSet::new();
        for (key, hops) in touched {
            let numbers = periods(&hops, parts.period_ms).into_iter();
            due.extend(numbers.filter(is_due).map(|number| (key, number)));
        }
        out.extend(
            due.iter()
                .filter_map(|(key, n)| self.finding(&parts, (key, *n), fetched_at)),
        );
    }

    fn evict(&mut self, watermark: DateTime<Utc>) {
        let Some(rule) = self.rules.at(self.place) else {
            return;
        };
        let watermark_ms = watermark.timestamp_millis();
        let keep_from_ms = period::keep_from_ms(rule, watermark_ms);
        if let Some(parts) = parts(rule)
            && let Some(days) = days_kept(parts.tiers)
        {
            let today = day_of(watermark_ms);
            note_days(&self.ledger, &mut self.history, parts.counted, today);
            self.history
                .evict_before(day_of(keep_from_ms).saturating_sub(days));
        }
        self.ledger.evict(watermark_ms, keep_from_ms);
    }

    fn drain_changes(&mut self) -> Vec<StateChange> {
        let mut changes = self.ledger.drain();
        self.history.drain(&mut changes);
        changes
    }

    fn drop_changes(&mut self) {
        self.ledger.drop_changes();
        self.history.drop_changes();
    }

    fn past(&self, out: &mut Vec<StateChange>) {
        let Some(parts) = self.rules.at(self.place).and_then(parts) else {
            return;
        };
        if days_kept(parts.tiers).is_some() {
            self.history.past(out);
            for (key, day, count) in open_days(&self.ledger, &self.history, parts.counted, i64::MAX)
            {
                out.push(history::stored((day, key), Some(count)));
            }
        }
    }

    fn baseline(&self) -> Option<Baseline> {
        let rule = self.rules.at(self.place)?;
        rule.learns_ms()?;
        let keys = self.history.keys(self.ledger.keys().map(hash_of));
        self.history.origin.baseline(rule, keys)
    }

    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), BadState> {
        let restored = match key {
            [KIND_COUNT, day @ ..] => self.history.restore_count(day, value).ok_or_else(cut),
            [KIND_OPEN] => self.history.restore_open(value).ok_or_else(cut),
            [KIND_ORIGIN] => self.history.origin.restore(value).ok_or_else(cut),
            _ => self.ledger.restore(key, value),
        };
        restored.map_err(|reason| BadState {
            detector: self.id.clone(),
            reason,
        })
    }

    fn absorb(&mut self, key: &[u8], value: &[u8]) -> Result<(), BadState> {
        let bad = |reason| BadState {
            detector: self.id.clone(),
            reason,
        };
        let foreign = self.ledger.foreign(key, value).map_err(bad)?;
        let rules = Arc::clone(&self.rules);
        let parts = rules.at(self.place).and_then(parts);
        let (Some((key, id, entry)), Some(parts)) = (foreign, parts) else {
            return Ok(());
        };
        if !is_late(parts.rule, &self.ledger, id.time_ms) && self.ledger.insert(&key, id, &entry) {
            let touched = touched(parts.rule, parts.period_ms, id.time_ms);
            self.dirty.add(&key, touched);
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.ledger.bytes()
    }

    fn shed(&mut self) -> bool {
        self.ledger.shed()
    }

    fn counters(&self) -> Counters {
        let mut counters = self.ledger.counters();
        counters.shed_entries += self.history.shed;
        counters
    }
}

/// How many past days the rule measures against; `None` where it does not.
fn days_kept(tiers: &[Tier]) -> Option<i64> {
    let above = tiers.iter().filter_map(|tier| tier.above);
    above.map(|above| i64::from(above.days)).max()
}

/// Turns the days before `today` into numbers, before their entries go.
fn note_days(ledger: &Ledger, history: &mut History, counted: &Counted, today: i64) {
    if history.open_from().is_some_and(|open| open >= today) {
        return;
    }
    for (key, day, count) in open_days(ledger, history, counted, today) {
        history.note(day, key, count);
    }
    history.close_before(today);
}

/// Hash of the key, day and count of all days before `until_day` that are not numbers yet.
fn open_days(
    ledger: &Ledger,
    history: &History,
    counted: &Counted,
    until_day: i64,
) -> Vec<(u64, i64, u32)> {
    let from_ms = history
        .open_from()
        .map_or(i64::MIN, |day| day.saturating_mul(DAY_MS));
    let until_ms = until_day.saturating_mul(DAY_MS);
    let of_key = |(key, _): (&str, Vec<i64>)| {
        let hash = hash_of(key);
        let days = history::by_day(counted, &ledger.moments(key, from_ms, until_ms));
        days.into_iter().map(move |(day, count)| (hash, day, count))
    };
    let mut days: Vec<_> = ledger.touched(from_ms, until_ms).flat_map(of_key).collect();
    days.sort_unstable();
    days
}
