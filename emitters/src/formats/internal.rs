//! Items about ourselves: what they are called. Their ids hold stream and time as well, so that each has its own; a
//! receiver searches and groups by the name.

use std::borrow::Cow;

use exfilwatch_model::Envelope;
use serde::Deserialize;

/// `collector.heartbeat`, `finding.closed`, …; the id of an item that does not say.
pub(crate) fn name(envelope: &Envelope) -> Cow<'_, str> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow, rename = "type")]
        name: Option<Cow<'a, str>>,
    }
    let named = serde_json::from_slice::<Named<'_>>(&envelope.payload);
    let name = named.ok().and_then(|named| named.name);
    name.unwrap_or(Cow::Borrowed(&envelope.id))
}
