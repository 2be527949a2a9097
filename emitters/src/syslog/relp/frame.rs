//! Frames of RELP: `TXNR SP COMMAND SP LENGTH [SP DATA] LF`.

/// Transaction numbers run from 1 to this and then begin again.
pub(super) const TXNR_MAX: u32 = 999_999_999;
/// Most digits of a number.
const DIGITS_MAX: usize = 9;
/// Longest name of a command.
const COMMAND_BYTES_MAX: usize = 32;
/// Most data in a frame that a receiver sends: an answer is a line, an offer some lines.
const DATA_BYTES_MAX: usize = 128 << 10;

/// One frame from the receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    /// The transaction it belongs to; 0 for a hint that belongs to none.
    pub(super) txnr: u32,
    pub(super) command: String,
    pub(super) data: Vec<u8>,
}

/// Bytes that are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what the receiver says is not RELP: {0}")]
pub(super) struct NotRelp(pub(super) &'static str);

/// Appends a frame.
pub(super) fn encode(txnr: u32, command: &str, data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{txnr} {command} {}", data.len()).as_bytes());
    if !data.is_empty() {
        out.push(b' ');
        out.extend_from_slice(data);
    }
    out.push(b'\n');
}

/// The first frame, and how many bytes it takes; `None` when it is not there whole.
pub(super) fn decode(bytes: &[u8]) -> Result<Option<(Frame, usize)>, NotRelp> {
    let mut rest = bytes;
    let Some(txnr) = number(&mut rest, b" ")? else {
        return Ok(None);
    };
    let Some(command) = word(&mut rest, COMMAND_BYTES_MAX, b" ")? else {
        return Ok(None);
    };
    if !command.iter().all(u8::is_ascii_alphanumeric) {
        return Err(NotRelp("a command is letters and digits"));
    }
    let command = String::from_utf8_lossy(command).into_owned();
    let Some(length) = number(&mut rest, b" \n")? else {
        return Ok(None);
    };
    let length = length as usize;
    if length > DATA_BYTES_MAX {
        return Err(NotRelp("a frame is too long"));
    }
    let data = if length == 0 {
        // A blank may follow the zero.
        rest = rest.strip_prefix(b" ").unwrap_or(rest);
        Vec::new()
    } else {
        let Some(after_blank) = rest.get(1..) else {
            return Ok(None);
        };
        if !rest.starts_with(b" ") {
            return Err(NotRelp("no blank before the data"));
        }
        let Some((data, after)) = after_blank.split_at_checked(length) else {
            return Ok(None);
        };
        rest = after;
        data.to_vec()
    };
    match rest.split_first() {
        None => Ok(None),
        Some((b'\n', after)) => {
            let frame = Frame {
                txnr,
                command,
                data,
            };
            Ok(Some((frame, bytes.len() - after.len())))
        }
        Some(_) => Err(NotRelp("a frame does not end with a line feed")),
    }
}

/// Takes bytes up to one of `ends`; a blank is taken too, unless the length follows it.
fn word<'a>(
    rest: &mut &'a [u8],
    bytes_max: usize,
    ends: &[u8],
) -> Result<Option<&'a [u8]>, NotRelp> {
    let bytes = *rest;
    let Some(at) = bytes.iter().position(|byte| ends.contains(byte)) else {
        return if bytes.len() > bytes_max {
            Err(NotRelp("a field of a frame's head is too long"))
        } else {
            Ok(None)
        };
    };
    if at == 0 || at > bytes_max {
        return Err(NotRelp("a field of a frame's head is empty or too long"));
    }
    let (found, after) = bytes.split_at(at);
    *rest = if ends.len() == 1 {
        after.get(1..).unwrap_or_default()
    } else {
        after
    };
    Ok(Some(found))
}

fn number(rest: &mut &[u8], ends: &[u8]) -> Result<Option<u32>, NotRelp> {
    let Some(digits) = word(rest, DIGITS_MAX, ends)? else {
        return Ok(None);
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(NotRelp("a number is digits"));
    }
    let number = digits.iter().fold(0, |number: u32, digit| {
        number * 10 + u32::from(digit - b'0')
    });
    Ok(Some(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(txnr: u32, command: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(txnr, command, data, &mut bytes);
        bytes
    }

    #[test]
    fn frames_look_as_the_protocol_says() {
        assert_eq!(
            encoded(1, "syslog", "é\nb".as_bytes()),
            "1 syslog 4 é\nb\n".as_bytes()
        );
        assert_eq!(encoded(7, "close", b""), b"7 close 0\n");
        let (frame, taken) = decode(b"12 rsp 6 200 OK\n13").unwrap().unwrap();
        assert_eq!((frame.txnr, frame.command.as_str()), (12, "rsp"));
        assert_eq!((frame.data.as_slice(), taken), (&b"200 OK"[..], 16));
        for empty in [&b"0 serverclose 0\n"[..], b"0 serverclose 0 \n"] {
            let (frame, taken) = decode(empty).unwrap().unwrap();
            assert_eq!(
                (frame.command.as_str(), taken),
                ("serverclose", empty.len())
            );
        }
    }

    #[test]
    fn what_is_no_frame_is_said_before_it_fills_memory() {
        for bad in [
            "HTTP/1.1 400 Bad Request\r\n",
            "1234567890 rsp 0\n",
            "1 rsp 6 200 OKx",
            "1 rsp 999999999 x",
            "1 rsp 3xx\n",
            " rsp 0\n",
            "1  0\n",
            "1 r-p 0\n",
            "x rsp 0\n",
            "1 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "11111111111111",
        ] {
            assert!(decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_frame_reads_back_and_its_beginning_waits_for_the_rest(
            txnr in 0..=TXNR_MAX, command in "[a-z]{1,32}",
            data in proptest::collection::vec(any::<u8>(), 0..300), cut in any::<prop::sample::Index>(),
        ) {
            let bytes = encoded(txnr, &command, &data);
            let cut = cut.index(bytes.len());
            prop_assert_eq!(decode(&bytes[..cut]).unwrap(), None);
            let mut more = bytes.clone();
            more.extend_from_slice(b"next");
            let frame = Frame { txnr, command, data };
            prop_assert_eq!(decode(&more).unwrap(), Some((frame, bytes.len())));
        }

        #[test]
        fn no_bytes_panic_or_wait_for_ever(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(Some((_, taken))) = decode(&bytes) {
                prop_assert!(taken > 0 && taken <= bytes.len());
            }
        }
    }
}
