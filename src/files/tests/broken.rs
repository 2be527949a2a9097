//! What is broken is named, and what stands behind it is read.

use super::*;

#[test]
fn broken_csv_rows_are_malformed_and_the_next_row_is_read() {
    let quoted = o365(1).replace('"', "\"\"");
    let text = format!(
        "N,AuditData\n1,\n2\n3,\"{{\"\"Id\"\":\"\"cut\"\n4,\"{quoted}\"\n5,\"{{\"\"a\"\":1}}\"\n"
    );
    let read = read(text);
    assert_eq!(read.records.len(), 1);
    assert_eq!(
        read.reasons,
        [
            "the row's AuditData is empty",
            "the row has no AuditData column",
            "the row's AuditData is cut short",
            "neither an Office 365 nor a Google Workspace record",
        ]
    );
}

#[test]
fn an_unclosed_quote_ends_the_file_with_an_error_and_not_with_all_memory() {
    let quoted = o365(1).replace('"', "\"\"");
    let mut text = format!("N,AuditData\n1,\"{quoted}\"\n2,\"");
    text.push_str(&"x".repeat(5 * RECORD_BYTES_MAX));
    let read = read(text);
    assert_eq!(read.records.len(), 1);
    let Some(FileError::Read { source, .. }) = read.error else {
        panic!("{:?}", read.error)
    };
    assert!(
        source.to_string().contains("a quote may not be closed"),
        "{source}"
    );
}

/// Name, text, records in it, reasons of the malformed.
type Case<'a> = (&'a str, String, usize, &'a [&'a str]);

fn check(cases: &[Case]) {
    for (name, text, records, reasons) in cases {
        let read = read(text.as_str());
        assert!(read.error.is_none(), "{name}: {:?}", read.error);
        assert_eq!(read.records.len(), *records, "{name}");
        assert_eq!(read.reasons, *reasons, "{name}");
    }
}

#[test]
fn broken_lines_are_malformed_and_the_next_line_is_read() {
    let good = o365(1);
    let cut = good[..40].to_owned();
    let cases: &[Case] = &[
        (
            "cut",
            format!("{good}\n{cut}\n{good}\n"),
            2,
            &["the line is cut short"],
        ),
        (
            "cut first",
            format!("{cut}\n{good}\n{good}\n"),
            2,
            &["the line is cut short"],
        ),
        (
            "cut at a comma",
            format!("{{\"Id\":\"1\",\n{good}\n"),
            1,
            &["the line is cut short"],
        ),
        (
            "cut last",
            format!("{good}\n{cut}"),
            1,
            &["the line is cut short"],
        ),
        (
            "words",
            format!("{good}\nhello\n{good}\n"),
            2,
            &["the line is not a JSON object"],
        ),
        (
            "words first",
            format!("hello\n{good}\n"),
            1,
            &["the line is not a JSON object"],
        ),
        (
            "number",
            format!("{good}\n7\n{good}"),
            2,
            &["the line is not a JSON object"],
        ),
    ];
    check(cases);
}

#[test]
fn lines_of_something_else_are_malformed_and_the_next_line_is_read() {
    let good = o365(1);
    let cases: &[Case] = &[
        (
            "another product",
            format!("{good}\n{{\"eventName\":\"GetObject\"}}\n{good}"),
            2,
            &["neither an Office 365 nor a Google Workspace record"],
        ),
        (
            "no JSON",
            format!("{good}\n{{a}}\n{good}"),
            2,
            &["not valid JSON, or cut short"],
        ),
        (
            "array of numbers",
            format!("{good}\n[7,\"a,]\"]\n{good}"),
            2,
            &["not a JSON object", "not a JSON object"],
        ),
        (
            "array of arrays of arrays of arrays",
            format!("{good}\n[[[[{good}]]]]\n"),
            1,
            &["arrays inside arrays inside arrays hold no records"],
        ),
        (
            "unbalanced array",
            format!("{good}\n[{good},[]\n{good}"),
            3,
            &["the text ends inside an array of records: the file seems to be cut short"],
        ),
    ];
    check(cases);
}

#[test]
fn what_is_malformed_says_where_it_begins() {
    let good = o365(1);
    let text = format!("{good}\nodd one\n[{good},{{\"b\":2}}]\n");
    let read = read(text.as_str());
    let found = read.places.iter().map(|at| &text[*at..]);
    let begins = found.zip(["odd one\n", "{\"b\":2}"]);
    assert_eq!(read.places.len(), 2);
    for (found, begin) in begins {
        assert!(found.starts_with(begin), "{found}");
    }
}

#[test]
fn a_broken_element_of_an_array_does_not_stop_the_others() {
    let good = o365(1);
    let text = format!("[{good},null,7,\"x\",}},{{\"a\":\"cut\n{good},\n{good}]");
    let read = read(text);
    assert!(read.error.is_none(), "{:?}", read.error);
    assert_eq!(read.records.len(), 3);
    assert_eq!(read.reasons.len(), 5, "{:?}", read.reasons);
}

#[test]
fn a_record_that_is_too_large_is_malformed_and_the_next_is_read() {
    let good = o365(1);
    let large = format!(r#"{{"Id":"1","x":"{}"}}"#, "y".repeat(3 * RECORD_BYTES_MAX));
    let barely = format!(r#"{{"Id":"1","x":"{}"}}"#, "y".repeat(RECORD_BYTES_MAX));
    let unclosed = format!("{{\"Id\":\"1\",\"x\":[{}\n", "1,".repeat(RECORD_BYTES_MAX));
    let texts = [
        format!("{good}\n{large}\n{barely}\n{good}\n"),
        format!("[{good},{large},{barely},{good}]"),
        format!("[{good},{barely},\n{unclosed}{good}]"),
    ];
    for text in texts {
        let read = read(text);
        assert!(read.error.is_none(), "{:?}", read.error);
        assert_eq!(read.records.len(), 2);
        assert_eq!(read.reasons.len(), 2, "{:?}", read.reasons);
        assert!(
            read.reasons
                .iter()
                .all(|reason| reason.contains("larger than"))
        );
    }
}

#[test]
fn a_cut_gzip_gives_what_it_has_and_then_an_error_that_names_file_and_offset() {
    let text: String = (0..20_000).map(|number| o365(number) + "\n").collect();
    let whole = gzip(text.as_bytes());
    for cut in [whole.len() / 2, whole.len() - 1] {
        let read = read(&whole[..cut]);
        assert!(
            read.records.len() > 5_000,
            "{} records at {cut}",
            read.records.len()
        );
        assert_eq!(read.ends, 0);
        let Some(FileError::Read { name, offset, .. }) = read.error else {
            panic!("no error")
        };
        assert_eq!(name, "sample");
        let read_bytes: usize = read.records.iter().map(|(_, text)| text.len() + 1).sum();
        assert!(offset >= read_bytes as u64 && offset < read_bytes as u64 + 200);
    }
}

#[test]
fn cut_zstd_and_cut_arrays_end_with_an_error() {
    let lines: String = (0..2_000).map(|number| o365(number) + "\n").collect();
    let compressed = zstd::encode_all(lines.as_bytes(), 1).unwrap();
    let read_zstd = read(&compressed[..compressed.len() - 5]);
    assert!(
        matches!(read_zstd.error, Some(FileError::Read { .. })),
        "{:?}",
        read_zstd.error
    );

    let read_array = read(format!("[{},{}", o365(1), &o365(2)[..30]));
    assert_eq!(read_array.records.len(), 1);
    assert_eq!(read_array.reasons, ["the text ends inside the record"]);
    assert!(matches!(read_array.error, Some(FileError::Read { .. })));
}

#[test]
fn what_cannot_be_read_says_what_to_do() {
    let utf16: Vec<u8> = "{\"Id\""
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let marked = [b"\xff\xfe".as_slice(), &utf16].concat();
    let cases: &[(&[u8], &str)] = &[
        (&utf16, "iconv -f UTF-16"),
        (&marked, "iconv -f UTF-16"),
        (b"PK\x03\x04....", "unzip -p"),
        (b"\xfd7zXZ\0..", "xz -dc"),
        (b"BZh9....", "bzip2 -dc"),
        (b"hello\nworld\n", "neither JSON"),
        (b"a,b\n1,2\n", "an AuditData column"),
    ];
    for (bytes, want) in cases {
        let Some(FileError::Unsupported { name, reason }) = read(*bytes).error else {
            panic!("{want}: no error")
        };
        assert_eq!(name, "sample");
        assert!(reason.contains(want), "{reason}");
    }
}
