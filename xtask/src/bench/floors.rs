//! The floors: the least that reading a file of records costs, by how much of each record is read.

use std::borrow::Cow;
use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Bytes read at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// How much of each record is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Floor {
    /// Where the record ends, and no more.
    Lines,
    /// One member, lazily.
    Operation,
    /// The members that matter, borrowed; nested ones are left raw.
    Typed,
    /// Everything, as a tree.
    Value,
}

impl Floor {
    /// All, from the cheapest.
    pub(crate) const ALL: [Self; 4] = [Self::Lines, Self::Operation, Self::Typed, Self::Value];

    /// The name in the table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Lines => "floor: line split",
            Self::Operation => "floor: lazy `Operation` (sonic-rs)",
            Self::Typed => "floor: typed parse (Cow, RawValue)",
            Self::Value => "floor: `serde_json::Value`",
        }
    }
}

/// Members of an Office 365 record, as a typed reader takes them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[expect(
    dead_code,
    reason = "the members are read only for what reading them costs"
)]
struct Typed<'a> {
    #[serde(borrow)]
    creation_time: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    operation: Cow<'a, str>,
    record_type: u32,
    #[serde(borrow)]
    workload: Cow<'a, str>,
    #[serde(borrow)]
    user_id: Cow<'a, str>,
    #[serde(borrow)]
    object_id: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "ClientIP")]
    client_ip: Option<Cow<'a, str>>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
    #[serde(borrow)]
    operation_properties: Option<&'a RawValue>,
}

/// Reads the file that far; the number of records.
pub(crate) fn run(floor: Floor, file: &Path) -> Result<usize> {
    let mut count = 0;
    let mut operation_bytes = 0;
    each_line(file, |line| {
        count += 1;
        match floor {
            Floor::Lines => {
                black_box(line);
            }
            Floor::Operation => {
                operation_bytes += sonic_rs::get(line, ["Operation"])?.as_raw_str().len();
            }
            Floor::Typed => {
                black_box(serde_json::from_str::<Typed>(std::str::from_utf8(line)?)?);
            }
            Floor::Value => {
                black_box(serde_json::from_slice::<serde_json::Value>(line)?);
            }
        }
        Ok(())
    })?;
    ensure!(
        floor != Floor::Operation || operation_bytes > count,
        "no operations were read"
    );
    Ok(count)
}

pub(super) fn each_line(file: &Path, mut read: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut reader = File::open(file).with_context(|| format!("opening {}", file.display()))?;
    let mut block = Vec::with_capacity(2 * BLOCK_BYTES);
    loop {
        let count = (&mut reader)
            .take(BLOCK_BYTES as u64)
            .read_to_end(&mut block)?;
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &block) {
            read(&block[start..end])?;
            start = end + 1;
        }
        block.drain(..start);
        if count == 0 {
            ensure!(block.is_empty(), "the file ends inside a line");
            return Ok(());
        }
    }
}
