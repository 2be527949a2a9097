//! The HEC events of a batch: their envelopes in one buffer, the events where they lie already.
//!
//! An office365 record is not even looked at: it goes as it is ([`Envelope::payload`] says why it may), and
//! its bytes are copied once, when a request is laid out (`request`).

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use exfilwatch_model::{Envelope, Finding, Kind, Mode};
use serde_json::value::RawValue;

use super::envelope::{Fields, Setting};
use super::records::shape;
use crate::formats::internal::name;
use crate::formats::{risk, splunk};
use crate::options::SplunkHecOptions;

/// Sourcetype of findings and signals.
const FINDING: &str = "exfilwatch:finding";
/// Sourcetype of risk events.
const RISK: &str = "exfilwatch:risk";
/// Sourcetype of our own state.
const INTERNAL: &str = "exfilwatch:internal";
/// Room for the envelope of an event; most need less.
const HEAD_BYTES: usize = 320;

/// One HEC event, ready to be laid into a request.
#[derive(Debug)]
pub(super) struct Piece {
    /// Index of the item in the batch.
    pub(super) item: usize,
    /// Its index, where that is one of its tenant's own.
    pub(super) tenants_index: Option<Arc<str>>,
    /// Where its envelope stands, up to the event.
    head: Range<usize>,
    /// Where `fields` stand in it, with their comma.
    fields: Range<usize>,
    /// One valid JSON value.
    event: Bytes,
}

impl Piece {
    /// Bytes that it takes in a request.
    pub(super) fn length(&self) -> usize {
        self.head.len() + self.event.len() + 1
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    pub(super) pieces: Vec<Piece>,
    heads: Vec<u8>,
}

impl Encoded {
    /// The text of a piece, in parts; without `fields` for a server that cannot take them.
    pub(super) fn parts(&self, at: usize, with_fields: bool) -> [&[u8]; 4] {
        let Some(piece) = self.pieces.get(at) else {
            return Default::default();
        };
        let head = |range| self.heads.get::<Range<usize>>(range).unwrap_or_default();
        let Range { start, end } = piece.head;
        let (first, second) = if with_fields {
            (start..end, end..end)
        } else {
            (start..piece.fields.start, piece.fields.end..end)
        };
        [head(first), head(second), &piece.event, b"}"]
    }
}

/// Makes HEC events of items.
#[derive(Debug)]
pub(super) struct Encoder<'a> {
    options: &'a SplunkHecOptions,
    encoded: Encoded,
    /// Of the last event: the next one is mostly of the same stream.
    setting: Option<Setting>,
    /// The events of the record in hand.
    events: Vec<Bytes>,
}

/// What an envelope says of its event.
struct Said<'a> {
    time: DateTime<Utc>,
    sourcetype: &'a str,
    index: Option<&'a str>,
    fields: Fields<'a>,
}

impl<'a> Encoder<'a> {
    /// For a batch of so many items.
    pub(super) fn new(options: &'a SplunkHecOptions, items: usize) -> Self {
        Self {
            options,
            encoded: Encoded {
                pieces: Vec::with_capacity(items),
                heads: Vec::with_capacity(items * HEAD_BYTES),
            },
            setting: None,
            events: Vec::new(),
        }
    }

    /// What has been made.
    pub(super) fn finish(self) -> Encoded {
        self.encoded
    }

    /// Adds the events of one item; the error says why it can never be one.
    pub(super) fn add(&mut self, item: usize, envelope: &Envelope) -> Result<(), String> {
        let (pieces, heads) = (self.encoded.pieces.len(), self.encoded.heads.len());
        let added = match self.encode(item, envelope) {
            Ok(()) => self.within_bounds(pieces),
            Err(error) => Err(format!("not the JSON it should be: {error}")),
        };
        if added.is_err() {
            self.encoded.pieces.truncate(pieces);
            self.encoded.heads.truncate(heads);
        }
        added
    }

    fn within_bounds(&self, from: usize) -> Result<(), String> {
        let new = self.encoded.pieces.get(from..).unwrap_or_default();
        let largest = new.iter().map(Piece::length).max().unwrap_or(0);
        let max = self.options.event_bytes_max;
        if largest > max {
            return Err(format!(
                "event of {largest} bytes, event_bytes_max is {max}"
            ));
        }
        Ok(())
    }

    fn encode(&mut self, item: usize, envelope: &Envelope) -> Result<(), serde_json::Error> {
        match envelope.kind {
            Kind::Findings | Kind::Signals => self.finding(item, envelope),
            Kind::Internal => self.internal(item, envelope),
            Kind::Events => self.record(item, envelope),
        }
    }

    fn finding(&mut self, item: usize, envelope: &Envelope) -> Result<(), serde_json::Error> {
        let finding: Finding = serde_json::from_slice(&envelope.payload)?;
        let said = |sourcetype, index| Said {
            time: match finding.mode {
                Mode::Live => finding.fetched_at,
                Mode::Backfill => finding.trip_time,
            },
            sourcetype,
            index,
            fields: Fields::Finding(&finding),
        };
        let options = self.options;
        let index = index_of(envelope.kind, options);
        let event = splunk::event(&finding)?;
        self.piece((item, envelope), &said(FINDING, index), event.into())?;
        if let (Some(index), Some(event)) = (&options.index.risk, risk::event(&finding)?) {
            self.piece((item, envelope), &said(RISK, Some(index)), event.into())?;
        }
        Ok(())
    }

    fn internal(&mut self, item: usize, envelope: &Envelope) -> Result<(), serde_json::Error> {
        let event: &RawValue = serde_json::from_slice(&envelope.payload)?;
        let event = envelope.payload.slice_ref(event.get().as_bytes());
        let said = Said {
            time: envelope.time.unwrap_or(envelope.fetched_at),
            sourcetype: INTERNAL,
            index: index_of(envelope.kind, self.options),
            fields: Fields::Internal {
                name: &name(envelope),
            },
        };
        self.piece((item, envelope), &said, event)
    }

    fn record(&mut self, item: usize, envelope: &Envelope) -> Result<(), serde_json::Error> {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let sourcetype: Cow<'static, str> = shape(envelope, self.options.shape, &mut events)?;
        let parts = events.len();
        for (part, event) in events.drain(..).enumerate() {
            let said = Said {
                time: envelope.time.unwrap_or(envelope.fetched_at),
                sourcetype: &sourcetype,
                index: index_of(envelope.kind, self.options),
                fields: Fields::Record {
                    event_id: &envelope.id,
                    part: (parts > 1).then_some(part),
                },
            };
            self.piece((item, envelope), &said, event)?;
        }
        self.events = events;
        Ok(())
    }

    /// `event` must be one valid JSON value: it is laid in as it is.
    fn piece(
        &mut self,
        (item, envelope): (usize, &Envelope),
        said: &Said<'_>,
        event: Bytes,
    ) -> Result<(), serde_json::Error> {
        let (stream, sourcetype, index) = (&envelope.stream, said.sourcetype, said.index);
        let known = self.setting.take();
        let setting = match known.filter(|known| known.fits(stream, sourcetype, index)) {
            Some(known) => known,
            None => Setting::new(stream, sourcetype, index, self.options)?,
        };
        let setting = self.setting.insert(setting);
        let heads = &mut self.encoded.heads;
        let start = heads.len();
        let fields = setting.write(said.time, said.fields, heads)?;
        self.encoded.pieces.push(Piece {
            item,
            tenants_index: setting.tenants_index.clone(),
            head: start..heads.len(),
            fields,
            event,
        });
        Ok(())
    }
}

fn index_of(kind: Kind, options: &SplunkHecOptions) -> Option<&str> {
    let index = &options.index;
    match kind {
        Kind::Findings => index.findings.as_deref(),
        Kind::Signals => index.signals.as_deref().or(index.findings.as_deref()),
        Kind::Internal => index.internal.as_deref(),
        Kind::Events => index.events.as_deref(),
    }
}
