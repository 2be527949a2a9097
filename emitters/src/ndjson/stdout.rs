//! JSON lines on standard output, or on whatever writer the application gives.

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use exfilwatch_model::Envelope;

use super::{BATCH_MAX, line, refuse};
use crate::contract::{Delivered, EmitError, Emitter};

/// Bytes written at once.
const WRITE_BYTES: usize = 64 << 10;

/// JSON lines on a writer; a batch counts as delivered when it is flushed.
#[derive(Clone)]
pub struct Stdout {
    name: String,
    writer: Arc<Mutex<dyn Write + Send>>,
}

impl Stdout {
    /// `name` is `stdout.NAME`.
    pub fn new(name: &str, writer: impl Write + Send + 'static) -> Self {
        Self {
            name: name.to_owned(),
            writer: Arc::new(Mutex::new(writer)),
        }
    }
}

impl fmt::Debug for Stdout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stdout")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Emitter for Stdout {
    fn name(&self) -> &str {
        &self.name
    }

    fn batch_max(&self) -> (usize, usize) {
        BATCH_MAX
    }

    async fn emit(&self, batch: &[Envelope]) -> Result<Delivered, EmitError> {
        let mut delivered = Delivered::default();
        let mut lines = Vec::with_capacity(batch.len());
        for (index, envelope) in batch.iter().enumerate() {
            match line(envelope) {
                Ok(line) => lines.push(line),
                Err(error) => refuse(index, &error, &mut delivered),
            }
        }
        let writer = self.writer.clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            let mut writer = BufWriter::with_capacity(WRITE_BYTES, &mut *writer);
            for line in lines {
                writer.write_all(&line)?;
                writer.write_all(b"\n")?;
            }
            writer.flush()
        });
        match task.await {
            Ok(Ok(())) => Ok(delivered),
            Ok(Err(error)) => Err(failed(&error)),
            Err(error) => Err(EmitError::Retry {
                what: format!("writing to standard output: {error}"),
                after: None,
            }),
        }
    }
}

fn failed(error: &io::Error) -> EmitError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return EmitError::Hold {
            what: "standard output was closed by its reader".to_owned(),
            help: "start again with a reader that stays, or write to a file (emitter ndjson)"
                .to_owned(),
        };
    }
    EmitError::Retry {
        what: format!("writing to standard output: {error}"),
        after: None,
    }
}
