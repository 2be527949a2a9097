//! Texts written as what they differ in from others, and numbers in as few bytes as they need.
//!
//! Entries of one key are much alike: the same person, service, folder. So a text is written as a part
//! between the start and the end that it shares with another; texts that are the same are only counted;
//! ids in hexadecimal take half their length.

use uuid::Uuid;

use super::entry::{put_text, take_text};

/// First byte of texts that are the same as the other's; the rest of it says how many more follow.
const SAME: u8 = 0x80;
/// A text of its own: length, bytes.
const PLAIN: u8 = 0;
/// Length of the common start, length of the common end, then what lies between as [`PLAIN`].
const BETWEEN: u8 = 1;
/// A UUID with hyphens: 16 bytes.
const HYPHENATED: u8 = 2;
/// 32 hexadecimal digits: 16 bytes.
const SIMPLE: u8 = 3;

/// Writes a number, seven bits a byte.
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Reads a number of [`put_number`].
pub(super) fn take_number(rest: &mut &[u8]) -> Option<u64> {
    // Most are of one byte.
    if let [byte @ 0..=0x7f, after @ ..] = rest {
        let number = u64::from(*byte);
        *rest = after;
        return Some(number);
    }
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Writes a number that may be below zero.
pub(super) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_number(
        out,
        (number.cast_unsigned() << 1) ^ (number >> 63).cast_unsigned(),
    );
}

/// Reads a number of [`put_signed`].
pub(super) fn take_signed(rest: &mut &[u8]) -> Option<i64> {
    let number = take_number(rest)?;
    Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
}

/// Writes packed texts against other packed texts. The first stands for itself, so that it can be
/// looked for.
pub(super) fn put_texts(out: &mut Vec<u8>, mut texts: &[u8], mut others: &[u8]) {
    let mut same = 0;
    let mut is_first = true;
    while let Some(text) = take_text(&mut texts) {
        let other = take_text(&mut others).unwrap_or_default();
        if text == other {
            same += 1;
        }
        if same > 0 && (text != other || is_first || same == SAME) {
            out.push(SAME | (same - 1));
            same = 0;
        }
        if text != other {
            put_other(out, text, other);
        }
        is_first = false;
    }
    if same > 0 {
        out.push(SAME | (same - 1));
    }
}

/// Writes the first of packed texts as [`put_texts`] does.
pub(super) fn put_first(out: &mut Vec<u8>, mut texts: &[u8], mut others: &[u8]) {
    let text = take_text(&mut texts).unwrap_or_default();
    let other = take_text(&mut others).unwrap_or_default();
    if text == other {
        out.push(SAME);
    } else {
        put_other(out, text, other);
    }
}

fn put_other(out: &mut Vec<u8>, text: &[u8], other: &[u8]) {
    const UUID_BYTES: usize = 16;
    let start = text.iter().zip(other).take_while(|(a, b)| a == b).count();
    let (left, other_left) = (text.len() - start, other.len() - start);
    let back = text.iter().rev().zip(other.iter().rev());
    let end = back
        .take(left.min(other_left))
        .take_while(|(a, b)| a == b)
        .count();
    let between = text
        .get(start..text.len() - end)
        .filter(|_| start + end > 2);
    let least = between.map_or(text.len(), |between| between.len() + 2);
    if least > UUID_BYTES
        && let Some((form, uuid)) = uuid(text)
    {
        out.push(form);
        out.extend_from_slice(uuid.as_bytes());
        return;
    }
    out.push(if between.is_some() { BETWEEN } else { PLAIN });
    if between.is_some() {
        put_number(out, start as u64);
        put_number(out, end as u64);
    }
    let own = between.unwrap_or(text);
    put_number(out, own.len() as u64);
    out.extend_from_slice(own);
}

/// The form of a text that is a UUID and nothing else.
fn uuid(text: &[u8]) -> Option<(u8, Uuid)> {
    let form = match text.len() {
        36 => HYPHENATED,
        32 => SIMPLE,
        _ => return None,
    };
    let uuid = Uuid::try_parse_ascii(text).ok()?;
    let mut again = [0; 36];
    // Not where upper case would be lost.
    (written(form, uuid, &mut again) == text).then_some((form, uuid))
}

fn written(form: u8, uuid: Uuid, buffer: &mut [u8; 36]) -> &[u8] {
    match form {
        HYPHENATED => uuid.as_hyphenated().encode_lower(buffer).as_bytes(),
        _ => uuid.as_simple().encode_lower(buffer).as_bytes(),
    }
}

/// Reads what [`put_texts`] wrote, packed again. `None` for bytes that it did not write.
pub(super) fn texts(mut rest: &[u8], mut others: &[u8]) -> Option<Vec<u8>> {
    let mut texts = Vec::with_capacity(others.len() + 32);
    while !rest.is_empty() {
        read(&mut rest, &mut others, &mut texts)?;
    }
    Some(texts)
}

/// Reads only the first of them, packed.
pub(super) fn first_text(mut rest: &[u8], mut others: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(64);
    read(&mut rest, &mut others, &mut text)?;
    Some(text)
}

/// Reads one text, or several that are the same.
fn read(rest: &mut &[u8], others: &mut &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (&form, after) = rest.split_first()?;
    *rest = after;
    if form & SAME != 0 {
        for _ in 0..=form & !SAME {
            put_text(out, take_text(others).unwrap_or_default());
        }
        return Some(());
    }
    let other = take_text(others).unwrap_or_default();
    match form {
        PLAIN => put_text(out, take_bytes(rest)?),
        BETWEEN => {
            let start = usize::try_from(take_number(rest)?).ok()?;
            let end = usize::try_from(take_number(rest)?).ok()?;
            let (start, end) = (
                other.get(..start)?,
                other.get(other.len().checked_sub(end)?..)?,
            );
            let between = take_bytes(rest)?;
            let length = u16::try_from(start.len() + between.len() + end.len()).ok()?;
            out.extend_from_slice(&length.to_le_bytes());
            for part in [start, between, end] {
                out.extend_from_slice(part);
            }
        }
        HYPHENATED | SIMPLE => {
            let (uuid, after) = rest.split_first_chunk::<16>()?;
            *rest = after;
            put_text(out, written(form, Uuid::from_bytes(*uuid), &mut [0; 36]));
        }
        _ => return None,
    }
    Some(())
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_number(rest)?).ok()?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packed(all: &[String]) -> Vec<u8> {
        let mut packed = Vec::new();
        for text in all {
            put_text(&mut packed, text.as_bytes());
        }
        packed
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ab]{0,6}".boxed(),
            "https://x/(a|bb)/[0-9]{1,3}.docx".boxed(),
            "ä?(€|𝄞)ü?".boxed(),
            "[0-9a-f]{32}".boxed(),
            "[0-9a-fA-F]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}".boxed(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_was_written_is_read_whatever_it_was_written_against(
            one in prop::collection::vec(text(), 1..6),
            other in prop::collection::vec(text(), 0..6),
        ) {
            let (one, other) = (packed(&one), packed(&other));
            let mut bytes = Vec::new();
            put_texts(&mut bytes, &one, &other);
            prop_assert_eq!(texts(&bytes, &other), Some(one.clone()));
            let mut first = Vec::new();
            put_first(&mut first, &one, &other);
            prop_assert!(bytes.starts_with(&first));
            let begins = first_text(&bytes, &other);
            prop_assert!(begins.is_some_and(|text| one.starts_with(&text)));
        }

        #[test]
        fn numbers_come_back(number: u64, small in 0..300_u64) {
            for number in [number, small] {
                let mut bytes = Vec::new();
                put_number(&mut bytes, number);
                prop_assert_eq!(take_number(&mut &bytes[..]), Some(number));
                bytes.clear();
                put_signed(&mut bytes, number.cast_signed());
                prop_assert_eq!(take_signed(&mut &bytes[..]), Some(number.cast_signed()));
            }
        }

        #[test]
        fn bytes_that_nobody_wrote_are_no_harm(bytes: Vec<u8>, other in prop::collection::vec(text(), 0..6)) {
            let _read = texts(&bytes, &packed(&other));
        }
    }

    #[test]
    fn what_is_alike_takes_little() {
        let texts = |id: &str, object: &str| {
            packed(&[
                id.to_owned(),
                "alice@corp.example".to_owned(),
                object.to_owned(),
                String::new(),
            ])
        };
        let other = texts(
            "3f0e0a52-21f9-4d4f-9d3c-1d0b3cf3a001",
            "https://corp.example/Documents/a.docx",
        );
        let one = texts(
            "90aa63ee-7f0c-4b3e-8f4f-4f5a16f2c9d7",
            "https://corp.example/Documents/b.docx",
        );
        let mut bytes = Vec::new();
        put_texts(&mut bytes, &one, &other);
        // 17 of the id, 1 of the person, 5 of the object, 1 of the empty one.
        assert_eq!((one.len(), bytes.len()), (99, 24));
    }
}
