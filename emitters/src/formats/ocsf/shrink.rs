//! Leaving parts out where a receiver limits the size, in one order for all formats.
//!
//! Actor, target, address, outside domain and uid are never left out: they are the first
//! observables, and those stay.

use std::borrow::Cow;

use super::document::Document;
use crate::formats::text::cut_json;

/// Event ids kept when the list is shortened.
const EVENT_IDS_KEPT: usize = 20;
/// Observables kept when the list is shortened: actor, address, target, domain.
const OBSERVABLES_KEPT: usize = 4;
/// Bytes of a text kept when it is shortened.
const TEXT_BYTES_KEPT: usize = 256;

/// What is left out, step by step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `related_events`, which repeat event ids, and event ids beyond the first 20.
    EventIds,
    /// The records quoted in the evidence.
    Records,
    /// Distinct values by field.
    Values,
    /// Triage, references, false positives, description.
    Advice,
    /// Evidence as a whole.
    Evidence,
    /// Resources, and observables beyond the four that say who, from where, to whom.
    Resources,
    /// Matched fields and the remaining event ids.
    Matched,
    /// Long texts are cut.
    Texts,
}

impl Part {
    /// The order in which parts are left out.
    pub const ORDER: [Self; 8] = [
        Self::EventIds,
        Self::Records,
        Self::Values,
        Self::Advice,
        Self::Evidence,
        Self::Resources,
        Self::Matched,
        Self::Texts,
    ];
}

impl Document<'_> {
    /// Leaves a part out and marks the document as truncated.
    pub fn leave_out(&mut self, part: Part) {
        let ours = &mut self.unmapped.exfilwatch;
        ours.truncated = true;
        match part {
            Part::Records => {
                for data in self.evidences.iter_mut().filter_map(|e| e.data.as_mut()) {
                    data.record = None;
                }
            }
            Part::EventIds => {
                ours.event_ids = ours
                    .event_ids
                    .get(..EVENT_IDS_KEPT)
                    .unwrap_or(ours.event_ids);
                self.finding_info.related_events.clear();
            }
            Part::Values => ours.values = None,
            Part::Advice => {
                ours.false_positives = &[];
                self.remediation = None;
                self.finding_info.desc = None;
            }
            Part::Evidence => self.evidences.clear(),
            Part::Resources => {
                self.resources.clear();
                self.observables.truncate(OBSERVABLES_KEPT);
            }
            Part::Matched => {
                ours.matched = None;
                ours.event_ids = &[];
            }
            Part::Texts => {
                let cut = |text: &mut Cow<'_, str>| {
                    if let Cow::Owned(short) = cut_json(text, TEXT_BYTES_KEPT) {
                        *text = Cow::Owned(short);
                    }
                };
                cut(&mut self.message);
                cut(&mut self.finding_info.title);
                let flat = [&mut ours.target, &mut ours.external_domain];
                flat.into_iter().flatten().for_each(cut);
                cut(&mut ours.entity);
                self.observables.iter_mut().for_each(|o| cut(&mut o.value));
            }
        }
    }
}
