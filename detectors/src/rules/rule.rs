//! A rule, checked and compiled.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use exfilwatch_model::{Event, RuleFacts, Severity, field};

use super::schema::{Case, Equivalents, Pack};
use super::template::Template;
use super::tuned::Tuned;
use crate::contract::Interest;
use crate::engine::sigma::Matcher;

/// What a rule's `alert` says.
#[derive(Debug, Clone)]
pub enum Alert {
    /// Always or never.
    Fixed(bool),
    /// When any event of the finding matches.
    When(Arc<Matcher>),
}

/// A `raise` or `lower`.
#[derive(Debug, Clone)]
pub(crate) struct Shift {
    pub(crate) level: Severity,
    pub(crate) when: Arc<Matcher>,
}

/// What a window counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counted {
    /// Events.
    Events,
    /// Distinct tuples of the values of these fields.
    Values(Vec<String>),
    /// Distinct bases that matched, in any order (`temporal`).
    Bases,
    /// Bases that matched one after the other, in the order in which the rule names them
    /// (`temporal_ordered`). Events at one instant may stand in either order: office365 gives
    /// whole seconds.
    Chain,
}

/// A base rule of a window: an event that it matches counts.
#[derive(Debug, Clone)]
pub struct WindowBase {
    /// Its name or id, as the window's `rules` writes it.
    pub name: String,
    /// The rule.
    pub matcher: Arc<Matcher>,
    /// Its fields whose values make the key, in the order of the window's `group_by`.
    pub key: Vec<String>,
}

/// Least number of distinct values of a further field in the same window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Also {
    /// The field.
    pub field: String,
    /// How many.
    pub least: u64,
}

/// Most bases of a window: which of them an event matched is kept in a word.
pub(crate) const BASES_MAX: usize = 64;

/// A condition of a window rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// Length of the trailing window, in milliseconds.
    pub span_ms: i64,
    /// Least number of events or values.
    pub threshold: u64,
    /// Severity reached.
    pub level: Severity,
    /// What the number must be above, besides.
    pub above: Option<Above>,
}

/// More than the key had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Above {
    /// Of what.
    pub usual: Usual,
    /// So many days before the window's last.
    pub days: u32,
    /// Nothing is said until the detector has seen so much time, in milliseconds.
    pub learn_ms: i64,
}

/// What is usual for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usual {
    /// So many times its greatest day.
    Greatest {
        /// See above.
        times: u32,
    },
    /// The mean of its days, and so many standard deviations more.
    Deviations {
        /// See above.
        times: u32,
    },
}

/// An event counts only when it is the first of its values in some days.
#[derive(Debug, Clone)]
pub struct FirstSeen {
    /// Fields that make the value.
    pub fields: Vec<String>,
    /// So many days before the event.
    pub days: u32,
    /// Nothing is said until the detector has seen so much time, in milliseconds.
    pub learn_ms: i64,
    /// For so long after the first event of a value it is still new, in milliseconds.
    pub fresh_ms: i64,
    /// Which of the events are told; the others only make their values known. All where `None`.
    pub told: Option<Arc<Matcher>>,
}

/// What sort of rule it is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Looks at one event at a time.
    Single {
        /// The rule itself.
        matcher: Arc<Matcher>,
        /// Fields whose values make one finding; none: each record is one.
        fields: Vec<String>,
        /// Length of the aligned period, in milliseconds.
        period_ms: Option<i64>,
        /// Whether only what is new counts.
        first_seen: Option<FirstSeen>,
    },
    /// Counts events in trailing windows.
    Window {
        /// The base rules; an event of any of them counts.
        bases: Vec<WindowBase>,
        /// What the parts of the key are called: fields, or aliases of fields.
        group_by: Vec<String>,
        /// What is counted.
        counted: Counted,
        /// What a window must hold besides.
        also: Vec<Also>,
        /// The conditions, highest level first.
        tiers: Vec<Tier>,
        /// Length of the aligned period of a finding, in milliseconds.
        period_ms: i64,
    },
    /// Listens to the findings of the other rules about one person.
    Incident {
        /// Least sum of risk within a span, highest level first.
        tiers: Vec<Tier>,
        /// Length of the aligned period of a finding, in milliseconds.
        period_ms: i64,
    },
}

/// The fields that are kept of each event, so that a finding can be built again after a restart.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    fields: Vec<String>,
    places: HashMap<String, usize>,
    /// Changes when what is kept, or what the flags mean, changes.
    pub(crate) fingerprint: u32,
}

impl Layout {
    pub(crate) fn new(fields: Vec<String>, fingerprint: u32) -> Self {
        let places = fields.iter().cloned().zip(0..).collect();
        Self {
            fields,
            places,
            fingerprint,
        }
    }

    pub(crate) fn fields(&self) -> &[String] {
        &self.fields
    }

    pub(crate) fn place(&self, field: &str) -> Option<usize> {
        self.places.get(field).copied()
    }
}

/// A rule that raises findings.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What its findings say of it.
    pub facts: Arc<RuleFacts>,
    /// Its file, as found.
    pub file: String,
    /// `status` of Sigma.
    pub status: Option<String>,
    /// `service` of the log source. For the reader: a rule that depends on it names the field.
    pub service: Option<String>,
    /// Severity before `raise` and `lower`.
    pub level: Severity,
    /// 0 to 100.
    pub risk: u8,
    /// What the entity is.
    pub entity_type: String,
    /// Field whose value is the entity.
    pub entity: String,
    /// Finding or signal.
    pub alert: Alert,
    /// What it is about.
    pub pack: Pack,
    /// What a tenant has made of it.
    pub(crate) tuned: Tuned,
    /// The number that its own condition asks for, where it counts something that can be asked for
    /// otherwise.
    pub(crate) own_threshold: Option<u64>,
    /// What sort of rule it is.
    pub kind: Kind,
    /// Which events it wants: one entry, or one for each base of a window.
    pub interests: Vec<Interest>,
    /// Its cases.
    pub tests: Arc<[Case]>,
    /// Whether the file bears our keys; a stock Sigma rule does not.
    pub is_own: bool,
    pub(crate) raise: Vec<Shift>,
    pub(crate) lower: Vec<Shift>,
    pub(crate) incident: Vec<String>,
    /// Detections whose findings about the same record are signals beside this one's.
    pub(crate) supersedes: Vec<String>,
    pub(crate) message: Template,
    pub(crate) distinct: Vec<String>,
    /// What other collections have for the same act.
    pub(crate) equivalents: Option<Equivalents>,
    /// Fields that selections of the rule name.
    pub(crate) matched: Vec<String>,
    pub(crate) layout: Layout,
}

/// Most lines of `raise` and `lower` each: their outcome is kept in 16 bits.
pub(crate) const SHIFTS_MAX: usize = 15;

impl Rule {
    /// Outcome of `alert`, `raise` and `lower` for one event, as bits that are kept with it:
    /// bit 0 `alert`, 1 to 15 `raise`, 16 to 30 `lower`, 31 whether the tenant allows what it is about.
    /// They say nothing of the tenant's tuning of the rule, which may change while they are kept.
    pub(crate) fn flags(&self, event: &Event) -> u32 {
        let mut flags = match &self.alert {
            Alert::Fixed(alert) => u32::from(*alert),
            Alert::When(matcher) => u32::from(matcher.matches(event)),
        };
        for (bit, shift) in (1..16).zip(&self.raise) {
            flags |= u32::from(shift.when.matches(event)) << bit;
        }
        for (bit, shift) in (16..31).zip(&self.lower) {
            flags |= u32::from(shift.when.matches(event)) << bit;
        }
        flags | u32::from(event.is(field::IS_ALLOWED)) << 31
    }

    /// For how long the rule only learns at first, in milliseconds; `None` where it measures nothing
    /// against the past.
    pub(crate) fn learns_ms(&self) -> Option<i64> {
        match &self.kind {
            Kind::Single { first_seen, .. } => first_seen.as_ref().map(|first| first.learn_ms),
            Kind::Window { tiers, .. } => {
                let above = tiers.iter().filter_map(|tier| tier.above);
                above.map(|above| above.learn_ms).max()
            }
            Kind::Incident { .. } => None,
        }
    }

    /// Whether a rule that sees no events alerts, before exceptions.
    pub(crate) fn alerts_by_itself(&self) -> bool {
        !self.tuned.is_quiet && !matches!(self.alert, Alert::Fixed(false))
    }

    /// Severity of a finding whose events have these flags: `any` is their union, `all` their
    /// intersection.
    pub(crate) fn severity(&self, level: Severity, any: u32, all: u32) -> Severity {
        if let Some(severity) = self.tuned.severity {
            return severity;
        }
        let raised = (1..16)
            .zip(&self.raise)
            .filter(|(bit, _)| any >> bit & 1 == 1);
        if let Some(highest) = raised.map(|(_, shift)| shift.level).max() {
            return highest.max(level);
        }
        let lowered = (16..31)
            .zip(&self.lower)
            .filter(|(bit, _)| all >> bit & 1 == 1);
        let lowest = lowered.map(|(_, shift)| shift.level).min();
        match lowest {
            Some(lowest) => lowest.min(level),
            None if all >> 31 == 1 => level.lower(),
            None => level,
        }
    }

    /// Fields of an event that it looks at; `None` where it searches through all.
    pub(crate) fn fields(&self) -> Option<BTreeSet<String>> {
        let mut fields: BTreeSet<String> = self.kept_fields().into_iter().collect();
        let mut matchers: Vec<&Arc<Matcher>> = self.raise.iter().map(|shift| &shift.when).collect();
        matchers.extend(self.lower.iter().map(|shift| &shift.when));
        match &self.alert {
            Alert::When(matcher) => matchers.push(matcher),
            Alert::Fixed(_) => {}
        }
        match &self.kind {
            Kind::Single {
                matcher,
                first_seen,
                ..
            } => {
                let told = first_seen.as_ref().and_then(|new| new.told.as_ref());
                matchers.extend(std::iter::once(matcher).chain(told));
            }
            Kind::Window { bases, .. } => matchers.extend(bases.iter().map(|base| &base.matcher)),
            Kind::Incident { .. } => {}
        }
        for matcher in matchers {
            fields.extend(matcher.fields()?);
        }
        Some(fields)
    }

    /// Fields kept of each event, most important first: what the finding is made of.
    pub(crate) fn kept_fields(&self) -> Vec<String> {
        let own = match &self.kind {
            Kind::Incident { .. } => Vec::new(),
            Kind::Single {
                fields, first_seen, ..
            } => {
                let new = first_seen.iter().flat_map(|new| new.fields.clone());
                fields.iter().cloned().chain(new).collect()
            }
            Kind::Window {
                bases,
                counted,
                also,
                ..
            } => {
                let mut fields: Vec<String> =
                    bases.iter().flat_map(|base| base.key.clone()).collect();
                fields.extend(also.iter().map(|also| also.field.clone()));
                if let Counted::Values(values) = counted {
                    fields.extend(values.iter().cloned());
                }
                fields
            }
        };
        let always = [
            field::ACTOR,
            field::OPERATION,
            field::SERVICE,
            field::SOURCE_IP,
            field::EXTERNAL_DOMAIN,
            field::TARGET,
            field::MAILBOX,
            field::OBJECT_NAME,
        ];
        let all = std::iter::once(self.entity.clone())
            .chain(own)
            .chain(always.map(str::to_owned))
            .chain(self.message.fields().map(str::to_owned))
            .chain(self.distinct.iter().cloned())
            .chain(self.incident.iter().cloned())
            .chain([field::OBJECT.to_owned(), field::URL.to_owned()])
            .chain(self.matched.iter().cloned());
        let mut kept: Vec<String> = Vec::new();
        for field in all {
            if !kept.contains(&field) {
                kept.push(field);
            }
        }
        kept
    }
}
