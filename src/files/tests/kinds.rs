//! Every kind of text, every compression.

use super::*;

/// Name, text, and how often both records stand in it.
fn texts(m365: &str, workspace: &str) -> Vec<(&'static str, String, usize)> {
    let page = format!(
        r#"{{"kind":"admin#reports#activities","etag":"e","items":[{m365},{workspace}],"nextPageToken":"]}}"}}"#
    );
    let late_page =
        format!(r#"{{"etag":"e","items":[{m365},{workspace}],"kind":"admin#reports#activities"}}"#);
    let empty_page = r#"{"kind":"admin#reports#activities","etag":"e"}"#;
    let array = format!("[{m365},{workspace}]");
    vec![
        ("lines", format!("{m365}\n{workspace}\n"), 1),
        ("lines, no line end", format!("{m365}\n{workspace}"), 1),
        (
            "lines with CRLF and blanks",
            format!("\r\n {m365}\r\n\r\n{workspace}\r\n"),
            1,
        ),
        (
            "byte order marks",
            format!("\u{feff}{m365}\n\u{feff}{workspace}\n"),
            1,
        ),
        (
            "values on one line",
            format!("{m365} {workspace}{m365},{workspace}"),
            2,
        ),
        (
            "pretty values",
            format!("{}\n{}\n", pretty(m365), pretty(workspace)),
            1,
        ),
        ("array", array.clone(), 1),
        ("pretty array", pretty(&array), 1),
        (
            "array, a record a line",
            format!("[\n{m365},\n{workspace}\n]\n"),
            1,
        ),
        (
            "arrays one after another",
            format!("{array}{array}\n{array}"),
            3,
        ),
        ("array of pages", format!("[{page},{page}]"), 2),
        ("page", page.clone(), 1),
        ("pretty page", pretty(&page), 1),
        ("page with late kind", late_page.clone(), 1),
        (
            "pages a line",
            format!("{page}\n{empty_page}\n{late_page}\n"),
            2,
        ),
        (
            "pretty pages",
            format!("{}\n{}\n", pretty(&page), pretty(&late_page)),
            2,
        ),
        ("empty page first", format!("{empty_page}\n{page}"), 1),
        (
            "pages between lines",
            format!("{m365}\n{page}\n{workspace}\n"),
            2,
        ),
        (
            "arrays between lines",
            format!("{m365}\n[{workspace},{page}]\n"),
            2,
        ),
    ]
}

#[test]
fn every_kind_of_text_gives_the_same_records() {
    let (m365, workspace) = (o365(1), google(2));
    for (name, text, times) in texts(&m365, &workspace) {
        let compressed = zstd::encode_all(text.as_bytes(), 1).unwrap();
        let packed = gzip(text.as_bytes());
        for (kind, bytes) in [
            ("plain", text.into_bytes()),
            ("gzip", packed),
            ("zstd", compressed),
        ] {
            let content = read(bytes);
            let name = format!("{name}, {kind}");
            assert!(content.error.is_none(), "{name}: {:?}", content.error);
            assert_eq!(content.reasons, Vec::<String>::new(), "{name}");
            assert_eq!(content.ends, 1, "{name}");
            let of = |wanted: Product, text: &str| {
                content
                    .records
                    .iter()
                    .filter(|(product, record)| *product == wanted && value(record) == value(text))
                    .count()
            };
            let counts = (
                of(Product::M365, &m365),
                of(Product::GoogleWorkspace, &workspace),
            );
            assert_eq!(counts, (times, times), "{name}");
            assert_eq!(content.records.len(), 2 * times, "{name}");
        }
    }
}

#[test]
fn records_keep_their_bytes_and_their_order() {
    let records: Vec<String> = (0..30).map(o365).collect();
    let read = read(records.join("\n"));
    assert_eq!(
        read.records
            .into_iter()
            .map(|(_, text)| text)
            .collect::<Vec<_>>(),
        records
    );
}

#[test]
fn csv_rows_give_their_audit_data() {
    let record = o365(1).replace("a\\/b", "line\\u000aend");
    let quoted = record.replace('"', "\"\"");
    let cases = [
        (
            "plain",
            format!("CreationDate,UserIds,AuditData\n1,\"a,b\nc\",\"{quoted}\"\n"),
            1,
        ),
        (
            "Export-Csv",
            format!(
                "\u{feff}#TYPE Deserialized.X\r\n\"RunspaceId\",\"AuditData\",\"N\"\r\n\"1\",\"{quoted}\",\"2\"\r\n"
            ),
            1,
        ),
        (
            "semicolons",
            format!("sep=;\r\nRunspaceId;auditdata\r\n1;\"{quoted}\"\r\n2;\"{quoted}\""),
            2,
        ),
        ("no rows", "RecordId,AuditData\n".to_owned(), 0),
        ("header only", "RecordId,AuditData".to_owned(), 0),
    ];
    for (name, text, count) in cases {
        let read = read(text);
        assert!(read.error.is_none(), "{name}: {:?}", read.error);
        assert_eq!(
            read.records,
            vec![(Product::M365, record.clone()); count],
            "{name}"
        );
        assert_eq!((read.reasons.len(), read.ends), (0, 1), "{name}");
    }
}

#[test]
fn rows_that_convertto_json_wrote_give_their_audit_data() {
    let row = serde_json::json!({"RecordType": 1, "Operations": "x", "AuditData": o365(1)});
    let bad = serde_json::json!({"RecordType": 1, "AuditData": "{\"cut"});
    let read = read(format!("[{row},{bad}]"));
    assert_eq!(read.records, vec![(Product::M365, o365(1))]);
    assert_eq!(read.reasons, ["AuditData is no Office 365 record"]);
}

#[test]
fn members_of_a_gzip_are_read_one_after_another() {
    let bytes = [
        gzip(format!("{}\n", o365(1)).as_bytes()),
        gzip(o365(2).as_bytes()),
    ]
    .concat();
    assert_eq!(read(bytes).records.len(), 2);
}

#[test]
fn files_are_opened_by_path_and_told_apart_by_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.dat");
    std::fs::write(&path, o365(1)).unwrap();
    let digest = ContentDigest::of_file(&path).unwrap();
    assert_eq!(digest.to_string().len(), 64);
    assert_eq!(digest, ContentDigest::of_file(&path).unwrap());
    let input = Input::from_argument(path.to_str().unwrap());
    let batch = FileReader::open(&input, BatchLimits::default())
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!((batch.records.len(), batch.last), (1, true));
    std::fs::write(&path, o365(2)).unwrap();
    assert_ne!(digest, ContentDigest::of_file(&path).unwrap());

    let absent = Input::Path(folder.path().join("absent"));
    let error = FileReader::open(&absent, BatchLimits::default()).unwrap_err();
    assert!(matches!(error, FileError::Open { .. }));
    assert!(error.to_string().contains("absent"));
    assert!(matches!(
        ContentDigest::of_file(folder.path()),
        Err(FileError::Read { .. })
    ));
    assert_eq!(Input::from_argument("-"), Input::Stdin);
}

#[test]
fn every_sample_record_is_read() {
    let samples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/samples");
    let files = [
        ("o365/ual-2021-spring.ndjson.gz", Product::M365, 1_982),
        ("o365/panther.ndjson", Product::M365, 12),
        ("gws/invictus.ndjson", Product::GoogleWorkspace, 325),
        ("gws/panther.ndjson", Product::GoogleWorkspace, 104),
    ];
    for (name, product, count) in files {
        let path = samples.join(name);
        if !path.exists() {
            println!("skipped: no sample {name} beside the project");
            continue;
        }
        let read = read(std::fs::read(path).unwrap());
        assert_eq!(read.reasons, Vec::<String>::new(), "{name}");
        assert_eq!(read.records.len(), count, "{name}");
        assert!(
            read.records.iter().all(|(told, _)| *told == product),
            "{name}"
        );
    }
}
