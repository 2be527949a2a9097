//! What of the indexed events is on disk, for a collector that is a process of its own and may be
//! killed.
//!
//! What was taken waits in memory, as in an indexer's queue, until the writer puts it into the file
//! and syncs that; only then do its acknowledgements come true. A kill before that loses it, although
//! the sender was answered with 200.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::Indexed;

/// The way to the file.
#[derive(Debug)]
pub(super) struct Journal {
    queue: Sender<(u64, Vec<u8>)>,
    /// Bodies given to the queue.
    taken: u64,
    /// Bodies on disk.
    written: Arc<AtomicU64>,
}

/// One event as a line of the file.
#[derive(Debug, Serialize)]
struct Line<'e> {
    time: Option<&'e str>,
    host: Option<&'e str>,
    source: Option<&'e str>,
    sourcetype: Option<&'e str>,
    index: Option<&'e str>,
    fields: Option<&'e Value>,
    /// The event as it stood in the body, as text, so that it stays byte for byte.
    event: String,
}

impl Journal {
    /// Appends to a file, without the line that an earlier process did not finish. What comes within
    /// a slice of time is written and synced together.
    pub(super) fn open(path: &Path, slice: Duration) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        let mut file = options.open(path)?;
        cut_torn_line(&mut file)?;
        let (queue, bodies) = channel();
        let written = Arc::new(AtomicU64::new(0));
        let progress = written.clone();
        thread::spawn(move || {
            if let Err(error) = write_all(&mut file, &bodies, slice, &progress) {
                tracing::error!(%error, "the journal cannot be written: nothing is acknowledged");
            }
        });
        Ok(Self {
            queue,
            taken: 0,
            written,
        })
    }

    /// Queues the events of a body; the number it is known by.
    pub(super) fn take(&mut self, events: &[Indexed]) -> u64 {
        self.taken += 1;
        let mut lines = Vec::new();
        for event in events {
            let line = Line {
                time: event.time.as_deref(),
                host: event.host.as_deref(),
                source: event.source.as_deref(),
                sourcetype: event.sourcetype.as_deref(),
                index: event.index.as_deref(),
                fields: event.fields.as_ref(),
                event: String::from_utf8_lossy(&event.event).into_owned(),
            };
            if serde_json::to_writer(&mut lines, &line).is_ok() {
                lines.push(b'\n');
            }
        }
        if self.queue.send((self.taken, lines)).is_err() {
            tracing::debug!("the writer of the journal is gone: nothing more is acknowledged");
        }
        self.taken
    }

    /// Bodies up to this number are on disk.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }
}

/// Until nobody can send any more.
fn write_all(
    file: &mut File,
    bodies: &Receiver<(u64, Vec<u8>)>,
    slice: Duration,
    written: &AtomicU64,
) -> io::Result<()> {
    while let Ok((mut number, mut lines)) = bodies.recv() {
        thread::sleep(slice);
        for (later, more) in bodies.try_iter() {
            number = later;
            lines.extend(more);
        }
        file.write_all(&lines)?;
        file.sync_data()?;
        written.store(number, Ordering::Release);
    }
    Ok(())
}

fn cut_torn_line(file: &mut File) -> io::Result<()> {
    let mut content = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut content)?;
    let whole = content.iter().rposition(|byte| *byte == b'\n');
    file.set_len(whole.map_or(0, |at| at as u64 + 1))
}
