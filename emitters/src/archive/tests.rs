use std::fs;
use std::io::Read;

use exfilwatch_model::{Kind, TenantId, Window};

use super::*;

#[derive(Debug)]
struct At(DateTime<Utc>);

#[async_trait]
impl Clock for At {
    fn now(&self) -> DateTime<Utc> {
        self.0
    }
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// An archive on a clock of its own.
fn archive(folder: &Path, days_max: u32, bytes_max: u64) -> Archive {
    let options = ArchiveOptions {
        folder: folder.join("archive"),
        days_max,
        bytes_max,
        filter: crate::FilterOptions::default(),
        routes: crate::Routes::default(),
    };
    let clock = Arc::new(At(at("2026-05-08T12:00:00Z")));
    Archive::new("archive.main", &options, clock).unwrap()
}

fn record(stream: &str, actor: &str, time: &str, note: &str) -> Envelope {
    let record = serde_json::json!({ "UserId": actor, "CreationTime": time, "Note": note });
    Envelope {
        kind: Kind::Events,
        stream: stream.parse().unwrap(),
        id: note.to_owned(),
        time: Some(at(time)),
        fetched_at: at("2026-05-08T12:00:00Z"),
        payload: record.to_string().into(),
    }
}

const EXCHANGE: &str = "contoso/office365/Audit.Exchange";

fn file(folder: &Path, hour: &str) -> PathBuf {
    let name = format!("archive/{EXCHANGE}/{hour}.ndjson.zst");
    folder.join(name)
}

/// The notes of what a search finds, and what it went through.
fn search(folder: &Path, actor: Option<&str>, tenant: Option<&str>) -> (Vec<String>, Searched) {
    let tenant = tenant.map(|tenant| TenantId::new(tenant).unwrap());
    let search = Search {
        actor,
        window: Window::new(at("2026-05-08T09:00:00Z"), at("2026-05-08T11:00:00Z")).unwrap(),
        tenant: tenant.as_ref(),
        stream: None,
    };
    let mut notes = Vec::new();
    let searched = search.run(&folder.join("archive"), &mut |found| {
        let record: serde_json::Value = serde_json::from_slice(&found.record).unwrap();
        notes.push(record["Note"].as_str().unwrap().to_owned());
        true
    });
    (notes, searched.unwrap())
}

#[tokio::test]
async fn what_was_archived_is_found_by_actor_and_hour_and_blocks_of_others_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let archive = archive(folder.path(), 30, 1 << 30);
    for batch in [
        vec![
            record(
                EXCHANGE,
                "Alice@contoso.example",
                "2026-05-08T09:10:00Z",
                "a",
            ),
            record(
                EXCHANGE,
                "alice@contoso.example",
                "2026-05-08T08:59:59Z",
                "before",
            ),
        ],
        vec![record(
            EXCHANGE,
            "bob@contoso.example",
            "2026-05-08T09:20:00Z",
            "b",
        )],
        vec![record(
            "fabrikam/office365/DLP.All",
            "alice@contoso.example",
            "2026-05-08T10:30:00Z",
            "f",
        )],
    ] {
        assert_eq!(archive.emit(&batch).await.unwrap(), Delivered::default());
    }
    let (notes, searched) = search(folder.path(), Some(" ALICE@contoso.example"), None);
    assert_eq!(notes, ["a", "f"]);
    assert_eq!(
        (searched.files, searched.blocks, searched.blocks_read),
        (2, 3, 2)
    );
    assert_eq!(search(folder.path(), None, Some("contoso")).0, ["a", "b"]);
    assert!(
        search(folder.path(), Some("carol@contoso.example"), None)
            .0
            .is_empty()
    );

    let mut lines = String::new();
    let file = fs::File::open(file(folder.path(), "2026-05-08T09")).unwrap();
    let mut decoder = zstd::Decoder::new(file).unwrap();
    decoder.read_to_string(&mut lines).unwrap();
    assert_eq!(lines.lines().count(), 2, "any zstd reads it");
}

#[tokio::test]
async fn wherever_a_crash_cut_the_file_confirmed_records_stay_and_the_next_batch_follows_them() {
    let folder = tempfile::tempdir().unwrap();
    let first = record(
        EXCHANGE,
        "alice@contoso.example",
        "2026-05-08T09:10:00Z",
        "first",
    );
    let torn = record(
        EXCHANGE,
        "alice@contoso.example",
        "2026-05-08T09:11:00Z",
        "torn",
    );
    let next = record(
        EXCHANGE,
        "alice@contoso.example",
        "2026-05-08T09:12:00Z",
        "next",
    );
    let path = file(folder.path(), "2026-05-08T09");
    archive(folder.path(), 30, 1 << 30)
        .emit(&[first])
        .await
        .unwrap();
    let confirmed = fs::metadata(&path).unwrap().len();
    archive(folder.path(), 30, 1 << 30)
        .emit(&[torn])
        .await
        .unwrap();
    let whole = fs::read(&path).unwrap();
    let length = whole.len();
    for cut in usize::try_from(confirmed).unwrap()..length {
        fs::write(&path, &whole[..cut]).unwrap();
        assert_eq!(
            search(folder.path(), None, None).0,
            ["first"],
            "cut at {cut}"
        );
        let anew = archive(folder.path(), 30, 1 << 30);
        anew.emit(std::slice::from_ref(&next)).await.unwrap();
        let (notes, searched) = search(folder.path(), None, None);
        assert_eq!(notes, ["first", "next"], "cut at {cut}");
        assert_eq!(searched.damaged, 0, "cut at {cut}");
    }
    // A power cut may keep the length and lose the content.
    let mut zeros = whole.clone();
    zeros[length - 20..].fill(0);
    fs::write(&path, &zeros).unwrap();
    archive(folder.path(), 30, 1 << 30)
        .emit(&[next])
        .await
        .unwrap();
    assert_eq!(search(folder.path(), None, None).0, ["first", "next"]);
}

#[tokio::test]
async fn damage_in_the_middle_costs_that_block_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "2026-05-08T09");
    let mut ends = Vec::new();
    let one = archive(folder.path(), 30, 1 << 30);
    for note in ["a", "b", "c"] {
        let record = record(
            EXCHANGE,
            "alice@contoso.example",
            "2026-05-08T09:10:00Z",
            note,
        );
        one.emit(&[record]).await.unwrap();
        ends.push(usize::try_from(fs::metadata(&path).unwrap().len()).unwrap());
    }
    for at in [ends[0] + 2, ends[0] + 20, ends[1] - 3] {
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 0xFF;
        fs::write(&path, &bytes).unwrap();
        let (notes, searched) = search(folder.path(), None, None);
        assert_eq!(
            (notes, searched.damaged),
            (vec!["a".to_owned(), "c".to_owned()], 1),
            "at {at}"
        );
        let anew = archive(folder.path(), 30, 1 << 30);
        let record = record(
            EXCHANGE,
            "alice@contoso.example",
            "2026-05-08T09:10:00Z",
            "c",
        );
        anew.emit(&[record]).await.unwrap();
        assert_eq!(
            search(folder.path(), None, None).0,
            ["a", "c"],
            "a resend is one record"
        );
        bytes[at] ^= 0xFF;
        fs::write(&path, &bytes).unwrap();
    }
}

#[tokio::test]
async fn the_oldest_hours_go_when_there_are_too_many_days_or_bytes_and_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let noise = |seed: u32| -> String {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'a' + u8::try_from((state >> 16) % 26).unwrap())
        };
        (0..4_000).map(|_| next()).collect()
    };
    let one = archive(folder.path(), 2, 10_000);
    for (hour, seed) in (0..10).zip(1..) {
        let time = format!("2026-05-08T{hour:02}:30:00Z");
        one.emit(&[record(EXCHANGE, "a@contoso.example", &time, &noise(seed))])
            .await
            .unwrap();
    }
    let kept = place::files(&folder.path().join("archive"), |_, _| true).unwrap();
    let bytes: u64 = kept.iter().map(|file| file.bytes).sum();
    assert!(
        bytes <= 10_000 && kept.len() >= 2,
        "{bytes} in {}",
        kept.len()
    );
    assert_eq!(
        kept.last().unwrap().place.hour(),
        at("2026-05-08T09:00:00Z")
    );
    let removed = Removed::read(&folder.path().join("archive")).unwrap();
    assert_eq!(removed.files, 10 - kept.len() as u64);
    assert_eq!(removed.until, Some(kept[0].place.hour()));
    assert_eq!(removed.records_too_old, 0);

    let old = record(EXCHANGE, "a@contoso.example", "2026-05-06T10:30:00Z", "old");
    one.emit(&[old]).await.unwrap();
    assert!(!file(folder.path(), "2026-05-06T10").exists());
    let removed = Removed::read(&folder.path().join("archive")).unwrap();
    assert_eq!(removed.records_too_old, 1);
    let told = one.kept().unwrap();
    assert_eq!((told.bytes, told.items_too_old), (bytes, 1));
    assert_eq!(
        (told.files_removed, told.bytes_removed),
        (removed.files, removed.bytes)
    );

    // Fewer days are allowed than before: what is over goes with the next batch.
    let one = archive(folder.path(), 1, 1 << 30);
    let yesterday = file(folder.path(), "2026-05-07T11");
    fs::write(&yesterday, b"").unwrap();
    one.emit(&[record(
        EXCHANGE,
        "a@contoso.example",
        "2026-05-08T11:30:00Z",
        "new",
    )])
    .await
    .unwrap();
    assert!(!yesterday.exists());
}

#[tokio::test]
async fn a_date_far_ahead_does_not_make_a_file_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let one = archive(folder.path(), 2, 1 << 30);
    one.emit(&[record(
        EXCHANGE,
        "a@contoso.example",
        "2999-01-01T00:00:00Z",
        "lie",
    )])
    .await
    .unwrap();
    let kept = place::files(&folder.path().join("archive"), |_, _| true).unwrap();
    assert_eq!(kept[0].place.hour(), at("2026-05-08T12:00:00Z"));
}

#[test]
fn a_block_with_too_many_actors_is_read_for_every_search() {
    let mut block = Block::default();
    for number in 0..3_000 {
        let line = format!("{{\"UserId\":\"user{number}@contoso.example\"}}");
        block.push(line.as_bytes(), at("2026-05-08T09:10:00Z"));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "2026-05-08T09");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, block.encode().unwrap()).unwrap();
    let mut opened = fs::File::open(&path).unwrap();
    let found = block::Blocks::new(&mut opened)
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!((found.head.records, found.head.actors), (3_000, None));
    let mut count = 0;
    let search = Search {
        actor: Some("user2999@contoso.example"),
        window: Window::new(at("2026-05-08T09:00:00Z"), at("2026-05-08T11:00:00Z")).unwrap(),
        tenant: None,
        stream: None,
    };
    search
        .run(&folder.path().join("archive"), &mut |_| {
            count += 1;
            true
        })
        .unwrap();
    assert_eq!(count, 1);
}

#[tokio::test]
async fn a_block_whose_names_are_long_in_json_is_read_and_survives_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let hostile: Vec<Envelope> = (0..1_900)
        .map(|number| {
            let actor = format!("{number:04}{}", "\u{1}".repeat(300));
            record(EXCHANGE, &actor, "2026-05-08T09:10:00Z", "hostile")
        })
        .chain([record(EXCHANGE, "alice", "2026-05-08T09:11:00Z", "hers")])
        .collect();
    archive(folder.path(), 30, 1 << 30)
        .emit(&hostile)
        .await
        .unwrap();
    let later = [record(EXCHANGE, "bob", "2026-05-08T09:12:00Z", "his")];
    archive(folder.path(), 30, 1 << 30)
        .emit(&later)
        .await
        .unwrap();
    assert_eq!(search(folder.path(), Some("alice"), None).0, ["hers"]);
    assert_eq!(search(folder.path(), Some("bob"), None).0, ["his"]);
}

#[tokio::test]
async fn a_record_whose_actor_cannot_be_read_is_shown_to_every_search() {
    let folder = tempfile::tempdir().unwrap();
    let mut odd = record(EXCHANGE, "alice", "2026-05-08T09:10:00Z", "odd");
    odd.payload = r#"{"UserId":"alice","actor":"text","Note":"odd"}"#.into();
    archive(folder.path(), 30, 1 << 30)
        .emit(&[odd])
        .await
        .unwrap();
    assert_eq!(search(folder.path(), Some("alice"), None).0, ["odd"]);
}

#[tokio::test]
async fn what_a_batch_that_failed_had_written_is_not_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let archive = archive(folder.path(), 30, 1 << 30);
    // The folder of the second stream is a file: its block cannot be written.
    let blocked = folder.path().join("archive/contoso/office365/DLP.All");
    fs::create_dir_all(blocked.parent().unwrap()).unwrap();
    fs::write(&blocked, "").unwrap();
    let batch = [
        record(EXCHANGE, "alice", "2026-05-08T09:10:00Z", "first"),
        record(
            "contoso/office365/DLP.All",
            "alice",
            "2026-05-08T09:10:00Z",
            "second",
        ),
    ];
    for _ in 0..3 {
        archive.emit(&batch).await.unwrap_err();
    }
    fs::remove_file(&blocked).unwrap();
    archive.emit(&batch).await.unwrap();
    let mut opened = fs::File::open(file(folder.path(), "2026-05-08T09")).unwrap();
    let mut blocks = block::Blocks::new(&mut opened).unwrap();
    let mut records = 0;
    while let Some(found) = blocks.next().unwrap() {
        records += found.head.records;
    }
    assert_eq!(records, 1);
    let mut found = search(folder.path(), Some("alice"), None).0;
    found.sort();
    assert_eq!(found, ["first", "second"]);
}

#[tokio::test]
async fn two_archives_of_one_folder_lose_nothing_of_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (
        archive(folder.path(), 30, 1 << 30),
        archive(folder.path(), 30, 1 << 30),
    );
    let of = |who: &str, number: usize| {
        [record(
            EXCHANGE,
            who,
            "2026-05-08T09:10:00Z",
            &format!("{who} {number}"),
        )]
    };
    for number in 0..20 {
        let (first, second) = (of("one", number), of("other", number));
        let (a, b) = tokio::join!(one.emit(&first), other.emit(&second));
        a.unwrap();
        b.unwrap();
    }
    assert_eq!(search(folder.path(), None, None).0.len(), 40);
}
