//! How far a job is, while it runs: a bar with the time that is left where a person looks, lines of
//! the log elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::pipeline::job::Progress;

/// Real time between two lines of the log.
const TELL_EVERY: Duration = Duration::from_secs(5);
const LOOK: &str = "{bar:30} {pos}/{len} slices · {msg} · {elapsed} gone, {eta} to go";

/// Shows progress on standard error.
#[derive(Debug)]
pub(crate) struct Bar {
    what: &'static str,
    drawn: Option<ProgressBar>,
    slices_done: usize,
    told: Option<Instant>,
}

impl Bar {
    pub(crate) fn new(what: &'static str) -> Self {
        let drawn = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            match ProgressStyle::with_template(LOOK) {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Self {
            what,
            drawn,
            slices_done: 0,
            told: None,
        }
    }

    pub(crate) fn show(&mut self, progress: &Progress) {
        let gaps: u64 = progress.finished.iter().map(|slice| slice.gaps).sum();
        let Some(bar) = &self.drawn else {
            if self.told.is_none_or(|told| told.elapsed() > TELL_EVERY) {
                self.told = Some(Instant::now());
                tracing::info!(
                    slices = format!("{}/{}", progress.slices_done, progress.slices),
                    records = progress.records,
                    seen_before = progress.seen_before,
                    gaps,
                    "{}",
                    self.what
                );
            }
            return;
        };
        if self.slices_done == 0 && progress.slices_done > 0 {
            // What an earlier run had finished says nothing of the time that is left.
            bar.set_length(progress.slices as u64);
            bar.set_position(progress.slices_done as u64);
            bar.reset_eta();
        }
        self.slices_done = progress.slices_done;
        bar.set_length(progress.slices as u64);
        bar.set_position(progress.slices_done as u64);
        bar.set_message(format!("{} records", progress.records));
    }

    pub(crate) fn end(&self) {
        if let Some(bar) = &self.drawn {
            bar.finish_and_clear();
        }
    }
}
