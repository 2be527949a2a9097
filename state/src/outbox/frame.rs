//! The bytes of a frame, both ways. Pure: no files here.
//!
//! Header: `XWF1`, length of the body, CRC32C of the body, number of items (each u32, little
//! endian), kind (u8), length of the tenant (u8), two zeros, CRC32C of the header and tenant; the
//! tenant; the body. Item: u32 length of what follows, lengths of connector and name (u8 each) and
//! id (u16), flag whether there is a time (u8), time and `fetched_at` (i64 seconds, u32
//! nanoseconds), connector, name, id, payload. A frame without items stands where others were that nobody
//! needs: its body is no bytes of anybody's.

use bytes::{Buf, Bytes};
use chrono::{DateTime, Utc};
use exfilwatch_model::{Envelope, Kind, StreamId, TenantId};

use super::ITEM_BYTES_MAX;
use crate::contract::StateError;

pub(crate) const HEADER_BYTES: usize = 24;
/// Header and the longest tenant: what is read to decide whether a frame is wanted.
pub(crate) const HEAD_BYTES_MAX: usize = HEADER_BYTES + u8::MAX as usize;
/// Largest body taken: a target-sized one and the item that closed it.
const BODY_BYTES_MAX: usize = super::FRAME_BYTES_TARGET + ITEM_BYTES_MAX + (1 << 10);
const MAGIC: &[u8; 4] = b"XWF1";
const ITEM_FIXED_BYTES: usize = 4 + 1 + 1 + 2 + 1 + 12 + 12;

/// What stands in front of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) tenant: TenantId,
    pub(crate) items: u32,
    pub(crate) body_bytes: usize,
    body_crc: u32,
}

impl Head {
    /// Bytes of the whole frame.
    pub(crate) fn frame_bytes(&self) -> u64 {
        (HEADER_BYTES + self.tenant.as_str().len() + self.body_bytes) as u64
    }

    /// Bytes in front of the body.
    pub(crate) fn head_bytes(&self) -> u64 {
        (HEADER_BYTES + self.tenant.as_str().len()) as u64
    }

    /// Whether it stands where others were: its body is not to be read.
    pub(crate) fn is_filler(&self) -> bool {
        self.items == 0
    }

    /// Whether the body is the one this header was written for.
    pub(crate) fn fits(&self, body: &[u8]) -> bool {
        body.len() == self.body_bytes && crc32c::crc32c(body) == self.body_crc
    }

    /// Reads header and tenant from the start of the bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let (checked, crc) = header.split_last_chunk::<4>()?;
        let mut fields = checked.strip_prefix(MAGIC)?;
        let body_bytes = fields.get_u32_le() as usize;
        let body_crc = fields.get_u32_le();
        let items = fields.get_u32_le();
        let kind = kind_of(fields.get_u8())?;
        let tenant = rest.get(..usize::from(fields.get_u8()))?;
        let expected = crc32c::crc32c_append(crc32c::crc32c(checked), tenant);
        if expected != u32::from_le_bytes(*crc) || body_bytes > BODY_BYTES_MAX {
            return None;
        }
        Some(Self {
            kind,
            tenant: TenantId::new(std::str::from_utf8(tenant).ok()?).ok()?,
            items,
            body_bytes,
            body_crc,
        })
    }
}

/// Appends a frame with the items to `out`.
pub(crate) fn encode(
    kind: Kind,
    tenant: &TenantId,
    items: &[Envelope],
    out: &mut Vec<u8>,
) -> Result<(), StateError> {
    let start = out.len();
    let tenant = tenant.as_str().as_bytes();
    let body_at = start + HEADER_BYTES + tenant.len();
    out.resize(start + HEADER_BYTES, 0);
    out.extend_from_slice(tenant);
    for item in items {
        encode_item(item, out)?;
    }
    let body = out.get(body_at..).unwrap_or_default();
    let numbers = [
        size(body.len(), "frame")?,
        crc32c::crc32c(body),
        size(items.len(), "frame")?,
    ];
    let header = header(numbers, kind, tenant);
    if let Some(space) = out.get_mut(start..start + HEADER_BYTES) {
        space.copy_from_slice(&header);
    }
    Ok(())
}

fn header(numbers: [u32; 3], kind: Kind, tenant: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(MAGIC);
    for number in numbers {
        header.extend_from_slice(&number.to_le_bytes());
    }
    let tenant_bytes = u8::try_from(tenant.len()).unwrap_or(u8::MAX);
    header.extend_from_slice(&[kind_code(kind), tenant_bytes, 0, 0]);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header), tenant);
    header.extend_from_slice(&crc.to_le_bytes());
    header
}

/// The head of a frame without items that takes the place of others, as much of these bytes as one may; and how
/// much that is. What is left is nothing, or has room for another: any frame with an item is larger than
/// this head.
pub(crate) fn filler(bytes: u64) -> (Vec<u8>, u64) {
    let tenant = TenantId::NONE.as_bytes();
    let head = (HEADER_BYTES + tenant.len()) as u64;
    let most = head + BODY_BYTES_MAX as u64;
    let taken = if bytes <= most {
        bytes
    } else {
        most.min(bytes - head)
    };
    let body = u32::try_from(taken.saturating_sub(head)).unwrap_or(u32::MAX);
    let mut bytes = header([body, 0, 0], Kind::Internal, tenant);
    bytes.extend_from_slice(tenant);
    (bytes, taken)
}

/// Bytes an item takes in a body.
pub(crate) fn item_bytes(item: &Envelope) -> usize {
    ITEM_FIXED_BYTES
        + item.stream.connector().len()
        + item.stream.name().len()
        + item.id.len()
        + item.payload.len()
}

fn encode_item(item: &Envelope, out: &mut Vec<u8>) -> Result<(), StateError> {
    let bytes = item_bytes(item);
    if bytes > ITEM_BYTES_MAX {
        return Err(too_large("item of the outbox", bytes, ITEM_BYTES_MAX));
    }
    let id_bytes = u16::try_from(item.id.len())
        .map_err(|_| too_large("id of an item", item.id.len(), usize::from(u16::MAX)))?;
    let name_bytes = |name: &str| u8::try_from(name.len()).unwrap_or(u8::MAX);
    out.extend_from_slice(&size(bytes - 4, "item")?.to_le_bytes());
    out.push(name_bytes(item.stream.connector()));
    out.push(name_bytes(item.stream.name()));
    out.extend_from_slice(&id_bytes.to_le_bytes());
    out.push(u8::from(item.time.is_some()));
    for time in [item.time.unwrap_or_default(), item.fetched_at] {
        out.extend_from_slice(&time.timestamp().to_le_bytes());
        out.extend_from_slice(&time.timestamp_subsec_nanos().to_le_bytes());
    }
    out.extend_from_slice(item.stream.connector().as_bytes());
    out.extend_from_slice(item.stream.name().as_bytes());
    out.extend_from_slice(item.id.as_bytes());
    out.extend_from_slice(&item.payload);
    Ok(())
}

/// Takes the next item off the body; its payload shares the body's memory. `None` when the bytes
/// are not an item, which a good CRC rules out.
pub(crate) fn decode_item(head: &Head, body: &mut Bytes) -> Option<Envelope> {
    let mut item = skip_item(body)?;
    if item.len() < ITEM_FIXED_BYTES - 4 {
        return None;
    }
    let connector = usize::from(item.get_u8());
    let name = usize::from(item.get_u8());
    let id = usize::from(item.get_u16_le());
    let has_time = item.get_u8() != 0;
    let time = decode_time(&mut item)?;
    let fetched_at = decode_time(&mut item)?;
    if item.len() < connector + name + id {
        return None;
    }
    let connector = item.split_to(connector);
    let name = item.split_to(name);
    let id = item.split_to(id);
    let text = |bytes: &Bytes| std::str::from_utf8(bytes).ok().map(str::to_owned);
    Some(Envelope {
        kind: head.kind,
        stream: StreamId::new(head.tenant.clone(), &text(&connector)?, &text(&name)?).ok()?,
        id: text(&id)?,
        time: has_time.then_some(time),
        fetched_at,
        payload: item,
    })
}

/// Takes the next item off the body without looking into it.
pub(crate) fn skip_item(body: &mut Bytes) -> Option<Bytes> {
    if body.len() < 4 {
        return None;
    }
    let bytes = body.get_u32_le() as usize;
    (bytes <= body.len()).then(|| body.split_to(bytes))
}

fn decode_time(item: &mut Bytes) -> Option<DateTime<Utc>> {
    let seconds = item.get_i64_le();
    DateTime::from_timestamp(seconds, item.get_u32_le())
}

fn kind_code(kind: Kind) -> u8 {
    match kind {
        Kind::Events => 1,
        Kind::Findings => 2,
        Kind::Signals => 3,
        Kind::Internal => 4,
    }
}

fn kind_of(code: u8) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind_code(*kind) == code)
}

fn size(number: usize, what: &str) -> Result<u32, StateError> {
    u32::try_from(number).map_err(|_| too_large(what, number, u32::MAX as usize))
}

fn too_large(what: &str, bytes: usize, bytes_max: usize) -> StateError {
    StateError::TooLarge {
        what: what.to_owned(),
        bytes,
        bytes_max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn envelope() -> impl Strategy<Value = Envelope> {
        (
            "[a-z]{1,8}",
            "\\PC{0,40}",
            any::<Option<i32>>(),
            prop::collection::vec(any::<u8>(), 0..300),
        )
            .prop_map(|(name, id, time, payload)| Envelope {
                kind: Kind::Events,
                stream: format!("contoso/office365/{name}").parse().unwrap(),
                id,
                time: time.and_then(|s| DateTime::from_timestamp(i64::from(s), 7)),
                fetched_at: DateTime::from_timestamp(1_700_000_000, 999_999_999).unwrap(),
                payload: payload.into(),
            })
    }

    proptest! {
        #[test]
        fn a_frame_gives_its_items_back(items in prop::collection::vec(envelope(), 0..8)) {
            let tenant = TenantId::new("contoso").unwrap();
            let mut bytes = vec![];
            encode(Kind::Events, &tenant, &items, &mut bytes).unwrap();
            let head = Head::decode(&bytes).unwrap();
            prop_assert_eq!(head.frame_bytes(), bytes.len() as u64);
            let mut body = Bytes::from(bytes).split_off(usize::try_from(head.head_bytes()).unwrap());
            prop_assert!(head.fits(&body));
            let mut read = vec![];
            while !body.is_empty() {
                read.push(decode_item(&head, &mut body).unwrap());
            }
            prop_assert_eq!(read, items);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let tenant = TenantId::new("t").unwrap();
            let mut good = vec![];
            encode(Kind::Internal, &tenant, &[], &mut good).unwrap();
            let head = Head::decode(&good).unwrap();
            prop_assert!(Head::decode(&bytes).is_none());
            let mut body = Bytes::from(bytes);
            while decode_item(&head, &mut body).is_some() {}
        }
    }

    #[test]
    fn fillers_take_the_place_of_any_frames_to_the_byte() {
        let least = (HEADER_BYTES + TenantId::NONE.len()) as u64;
        let most = BODY_BYTES_MAX as u64 + least;
        for bytes in [least, least + 1, most, most + 1, most + least, 3 * most + 1] {
            let mut left = bytes;
            while left > 0 {
                let (head, taken) = filler(left);
                let head = Head::decode(&head).unwrap();
                assert!(head.is_filler());
                assert_eq!(head.frame_bytes(), taken, "{bytes}, {left} left");
                left -= taken;
            }
        }
    }

    #[test]
    fn an_item_larger_than_allowed_is_refused() {
        let item = Envelope {
            kind: Kind::Events,
            stream: "t/c/n".parse().unwrap(),
            id: String::new(),
            time: None,
            fetched_at: DateTime::UNIX_EPOCH,
            payload: vec![0; ITEM_BYTES_MAX].into(),
        };
        let refused = encode(
            Kind::Events,
            item.stream.tenant(),
            std::slice::from_ref(&item),
            &mut vec![],
        );
        assert!(matches!(refused, Err(StateError::TooLarge { .. })));
    }
}
