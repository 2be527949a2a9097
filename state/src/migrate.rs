//! From the format of an older version to this one's, in one batch: killed in the middle, the next
//! start finds the old store and does it again.
//!
//! Format 3 has verdicts on findings beside what format 2 has; an older version would leave them out of an
//! export. Format 2 keeps gaps by id; format 1 kept them by their start, so that of two that began at the
//! same instant one was lost.

use exfilwatch_model::Gap;
use serde_json::Value;

use crate::contract::StateError;
use crate::layout::{self, FORMAT_VERSION, Family, Key};
use crate::prepare::Preparation;
use crate::store::Store;
use crate::table::Table;

/// Brings a store of format `found` up to [`FORMAT_VERSION`].
pub(crate) fn to_current<T: Table>(store: &Store<T>, found: u32) -> Result<(), StateError> {
    if found >= FORMAT_VERSION {
        return Ok(());
    }
    let mut preparation = Preparation::new(store.table());
    let mut old = Vec::new();
    let by_start = found < 2;
    store.each(&Key::of(Family::Gap), |key, body| {
        if !by_start {
            return Ok(());
        }
        let (new, value) = gap_entry(layout::from_json(key, body)?)?;
        old.push((key.to_vec(), new, value));
        Ok(())
    })?;
    for (key, new, value) in old {
        preparation.remove_at(key);
        preparation.put(Family::Gap, new, value)?;
    }
    preparation.put_json(Family::Meta, layout::meta("format"), &FORMAT_VERSION)?;
    store.table().write(preparation.finish()?)
}

/// A gap of any format at the key it has now.
pub(crate) fn gap_entry(value: Value) -> Result<(Key, Vec<u8>), String> {
    let read: Result<Gap, _> = serde_json::from_value(value);
    let gap = read.map_err(|error| format!("a gap does not read: {error}"))?;
    let gap = gap.with_id();
    let body = serde_json::to_vec(&gap).map_err(|error| error.to_string())?;
    Ok((layout::gap(&gap.stream, &gap.id), body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::StateStore;
    use crate::memory_store::MemoryStore;

    #[test]
    fn gaps_of_the_first_format_stand_at_their_new_keys_afterwards() {
        let store = MemoryStore::new([7; 16]).unwrap();
        let mut preparation = Preparation::new(store.table());
        for (tenant, from) in [
            ("contoso", "2026-05-01T00:00:00.000000000Z"),
            ("fabrikam", "2026-05-02T00:00:00.000000000Z"),
        ] {
            let key = Key::of(Family::Gap)
                .part(tenant.as_bytes())
                .part(b"office365")
                .part(b"Audit.Exchange")
                .part(from.as_bytes());
            let value = serde_json::json!({
                "stream": format!("{tenant}/office365/Audit.Exchange"),
                "window": { "from": from, "until": "2026-05-03T00:00:00Z" },
                "state": "open", "reason": "an outage", "found_at": "2026-05-03T00:00:00Z",
            });
            preparation.put_json(Family::Gap, key, &value).unwrap();
        }
        preparation
            .put_json(Family::Meta, layout::meta("format"), &1)
            .unwrap();
        store.table().write(preparation.finish().unwrap()).unwrap();

        to_current(&store, 1).unwrap();
        assert_eq!(store.format().unwrap(), Some(FORMAT_VERSION));
        let gaps = store.gaps().unwrap();
        assert_eq!(gaps.len(), 2);
        for gap in &gaps {
            let at_its_key: Option<Gap> = store.read(&layout::gap(&gap.stream, &gap.id)).unwrap();
            assert_eq!(at_its_key.as_ref(), Some(gap));
        }
        to_current(&store, FORMAT_VERSION).unwrap();
        assert_eq!(store.gaps().unwrap(), gaps, "done once");
    }
}
