//! Where batches begin and end.

use super::*;

#[test]
fn an_empty_file_has_one_last_batch_without_records() {
    for bytes in [b"".as_slice(), b" \r\n\n", b"[]", b"[ ]\n", &gzip(b"")] {
        let read = read(bytes);
        assert!(read.error.is_none(), "{:?}", read.error);
        assert_eq!(
            (read.records.len(), read.reasons.len(), read.ends),
            (0, 0, 1)
        );
    }
}

#[test]
fn batches_keep_their_limits_and_only_the_final_one_is_last() {
    let text: String = (0..10).map(|number| o365(number) + "\n").collect();
    let record_bytes = o365(0).len();
    let cases = [
        (3, usize::MAX, vec![3, 3, 3, 1]),
        (5, usize::MAX, vec![5, 5]),
        (100, record_bytes * 4, vec![4, 4, 2]),
        (100, 1, vec![1; 10]),
    ];
    for (records_max, bytes_max, want) in cases {
        let reader = open(
            text.as_bytes(),
            BatchLimits {
                records_max,
                bytes_max,
            },
        )
        .unwrap();
        let batches: Vec<FileBatch> = reader.map(Result::unwrap).collect();
        let sizes: Vec<usize> = batches.iter().map(|batch| batch.records.len()).collect();
        assert_eq!(sizes, want);
        let last: Vec<bool> = batches.iter().map(|batch| batch.last).collect();
        assert_eq!(last.iter().position(|last| *last), Some(batches.len() - 1));
        assert_eq!(
            batches.last().map(|batch| batch.offset),
            Some(text.len() as u64)
        );
    }
}

#[test]
fn a_page_on_one_line_is_cut_into_batches_too() {
    let items: Vec<String> = (0..10).map(google).collect();
    let text = format!(
        "{}\n{{\"items\":[{}]}}\n{}\n",
        google(20),
        items.join(","),
        google(21)
    );
    let read = read_with(
        text,
        BatchLimits {
            records_max: 4,
            bytes_max: usize::MAX,
        },
    );
    assert_eq!((read.records.len(), read.ends), (12, 1));
}

#[test]
fn no_two_batches_end_at_the_same_offset() {
    let good = o365(1);
    let text = format!("{good}\n{{\"items\":[{good}\n{good}");
    let limits = BatchLimits {
        records_max: 1,
        bytes_max: usize::MAX,
    };
    let batches: Vec<FileBatch> = open(text, limits).unwrap().map(Result::unwrap).collect();
    let counts: Vec<(usize, usize)> = batches
        .iter()
        .map(|batch| (batch.records.len(), batch.malformed.len()))
        .collect();
    assert_eq!(counts, [(1, 0), (1, 1), (1, 0)]);
    assert!(batches.is_sorted_by(|one, next| one.offset < next.offset));
}
