//! From blob to pages, while it streams.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use exfilwatch_model::{Clock, Malformed, Page, WorkItem};
use futures::{StreamExt, stream};
use http::Response;

use super::answer::instead;
use crate::kernel::body::{Body, SMALL_BODY_BYTES_MAX};
use crate::kernel::client::{broken, unread};
use crate::kernel::pages::PageMaker;
use crate::kernel::split::{Element, Splitter};
use crate::kernel::transport::BodyStream;
use crate::{FetchError, PageStream};

/// Most bytes kept of what stands behind the end of the array.
const TRAILING_BYTES_MAX: usize = 64 << 10;

struct Reading {
    body: Option<Body>,
    splitter: Splitter,
    maker: PageMaker,
    ready: VecDeque<Page>,
    trailing: Vec<u8>,
    begun: bool,
    clock: Arc<dyn Clock>,
    what: String,
}

/// The pages of a blob. Ends with an error, and no last page, where the blob is not whole.
pub(super) fn pages(
    response: Response<BodyStream>,
    item: &WorkItem,
    (what, bytes_max): (String, usize),
    clock: Arc<dyn Clock>,
) -> Result<PageStream, FetchError> {
    let body = Body::new(response, bytes_max).map_err(|e| unread(&what, &e))?;
    let reading = Reading {
        body: Some(body),
        splitter: Splitter::default(),
        maker: PageMaker::new(item.stream.clone(), item.key.clone()),
        ready: VecDeque::new(),
        trailing: Vec::new(),
        begun: false,
        clock,
        what,
    };
    Ok(stream::try_unfold(reading, |mut reading| async move {
        Ok(reading.next().await?.map(|page| (page, reading)))
    })
    .boxed())
}

/// Whether a body that begins so is an object or a page instead.
fn is_no_array(piece: &[u8]) -> bool {
    let text = piece.strip_prefix(b"\xef\xbb\xbf").unwrap_or(piece);
    matches!(text.trim_ascii_start().first(), Some(b'{' | b'<' | b'"'))
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Page>, FetchError> {
        while self.ready.is_empty() {
            let Some(body) = &mut self.body else {
                return Ok(None);
            };
            match body.next().await.map_err(|e| unread(&self.what, &e))? {
                Some(piece) if !self.begun && is_no_array(&piece) => {
                    return Err(self.other(piece).await);
                }
                Some(piece) => {
                    self.begun = true;
                    self.take(&piece)?;
                }
                None => self.end()?,
            }
        }
        Ok(self.ready.pop_front())
    }

    /// What stands in place of the records, read as an answer.
    async fn other(&mut self, first: Bytes) -> FetchError {
        let mut bytes = first.to_vec();
        while let Some(body) = &mut self.body
            && bytes.len() < SMALL_BODY_BYTES_MAX
            && let Ok(Some(piece)) = body.next().await
        {
            bytes.extend_from_slice(&piece);
        }
        instead(&self.what, &bytes).error
    }

    fn take(&mut self, piece: &Bytes) -> Result<(), FetchError> {
        let mut elements = Vec::new();
        let taken = self
            .splitter
            .push(piece, &mut elements)
            .map_err(|e| broken(&self.what, &e.to_string()))?;
        self.add(elements);
        let rest = piece.get(taken..).unwrap_or_default();
        let room = TRAILING_BYTES_MAX.saturating_sub(self.trailing.len());
        self.trailing
            .extend_from_slice(rest.get(..room).unwrap_or(rest));
        Ok(())
    }

    fn end(&mut self) -> Result<(), FetchError> {
        self.body = None;
        let mut elements = Vec::new();
        std::mem::take(&mut self.splitter)
            .finish(&mut elements)
            .map_err(|e| broken(&self.what, &e.to_string()))?;
        if !self.trailing.trim_ascii().is_empty() {
            elements.push(Element::Malformed(Malformed {
                bytes: std::mem::take(&mut self.trailing).into(),
                reason: "bytes after the end of the array".to_owned(),
            }));
        }
        self.add(elements);
        let last = self.maker.cut(self.clock.now(), true);
        self.ready.push_back(last);
        Ok(())
    }

    fn add(&mut self, elements: Vec<Element>) {
        let now = self.clock.now();
        let maker = &mut self.maker;
        self.ready
            .extend(elements.into_iter().filter_map(|e| maker.add(e, now)));
    }
}
