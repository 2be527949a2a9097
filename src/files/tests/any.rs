//! Any content at all.

use proptest::prelude::*;

use super::*;

fn member() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i32>().prop_map(Into::into),
        "[\\PC\"\\\\{}\\[\\],:\n]{0,12}".prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map("[a-z\"\\\\{}]{0,4}", inner, 0..4).prop_map(|members| {
                members
                    .into_iter()
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_array_is_taken_apart_as_a_parser_would(
        members in prop::collection::vec(member(), 0..12),
        as_pretty in any::<bool>(),
        step in 1_usize..64,
    ) {
        let records: Vec<serde_json::Value> = members
            .into_iter()
            .map(|member| serde_json::json!({"Data": member, "Id": "1"}))
            .collect();
        let text = if as_pretty {
            serde_json::to_string_pretty(&records)?
        } else {
            serde_json::to_string(&records)?
        };
        let want: Vec<&serde_json::value::RawValue> = serde_json::from_str(&text)?;
        let reader = Dribble { bytes: io::Cursor::new(text.clone().into_bytes()), step };
        let reader = FileReader::from_reader("any", Box::new(reader), BatchLimits::default())?;
        let mut got = Vec::new();
        for batch in reader {
            let batch = batch?;
            prop_assert!(batch.malformed.is_empty(), "{:?}", batch.malformed);
            got.extend(batch.records.into_iter().map(|(_, record)| record.bytes().clone()));
        }
        prop_assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            prop_assert_eq!(got, want.get().as_bytes());
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic_or_run_on(
        bytes in prop::collection::vec(
            prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:\\\n aI".to_vec())], 0..300),
        front in prop::sample::select(vec!["", "{", "[", "[{", "{\"items\":[", "{\"Id\":\"1\"}\n", "AuditData\n\""]),
    ) {
        let text = [front.as_bytes(), &bytes].concat();
        let length = text.len();
        if let Ok(reader) = open(text, BatchLimits { records_max: 3, bytes_max: 40 }) {
            let (mut batches, mut offset) = (0, 0);
            for batch in reader.take(length + 2) {
                batches += 1;
                let Ok(batch) = batch else { continue };
                prop_assert!(batch.offset > offset || batch.last);
                prop_assert!((offset..=length as u64).contains(&batch.offset));
                offset = batch.offset;
            }
            prop_assert!(batches <= length + 1);
        }
    }
}
