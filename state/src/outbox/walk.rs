//! The walk over frames: headers first, from segment to segment, up to a published end.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use exfilwatch_model::Envelope;

use super::frame::{self, Head};
use super::segment::{self, Found, START, Segment};
use crate::commit::{Frame, Position};
use crate::contract::StateError;

/// A stretch of the outbox that could not be read: to be entered into the ledger as a loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// First byte that could not be read.
    pub from: Position,
    /// Where reading goes on.
    pub until: Position,
    /// What is wrong.
    pub reason: String,
}

/// Walks over frame headers, from segment to segment.
#[derive(Debug)]
pub(crate) struct FrameWalk {
    folder: PathBuf,
    segment: Option<Segment>,
    position: Position,
}

impl FrameWalk {
    pub(crate) fn new(folder: &Path, from: Position) -> Self {
        Self {
            folder: folder.to_owned(),
            segment: None,
            position: Position { item: 0, ..from },
        }
    }

    /// Where the next frame begins.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// The next frame below `end`, and where it is.
    pub(crate) fn next(
        &mut self,
        end: Position,
        damage: &mut Vec<Damage>,
    ) -> Result<Option<(Position, Head)>, StateError> {
        while self.position < end {
            if !self.open_segment(end, damage)? {
                continue;
            }
            let Some(segment) = &self.segment else {
                continue;
            };
            let at = self.position;
            match segment.head(at.offset)? {
                Found::Frame(head) => {
                    self.position.offset += head.frame_bytes();
                    return Ok(Some((at, head)));
                }
                Found::End if at.segment < end.segment => self.next_segment(end, None, damage)?,
                Found::End => self.next_segment(end, Some("the segment ends too early"), damage)?,
                Found::Damaged => {
                    // A mark that was set between two frames which are there no more.
                    if let Some(offset) = segment.end_of_filler_over(at.offset)? {
                        (self.position.offset, self.position.item) = (offset, 0);
                        continue;
                    }
                    self.next_segment(end, Some("the header of a frame is damaged"), damage)?;
                }
            }
        }
        Ok(None)
    }

    /// The body of a frame that [`FrameWalk::next`] gave last.
    pub(crate) fn body(&self, at: Position, head: &Head) -> Result<Option<Bytes>, StateError> {
        match &self.segment {
            Some(segment) if segment.number == at.segment => segment.body(at.offset, head),
            _ => Ok(None),
        }
    }

    /// Opens the segment of the position. False when it had to go on to another one.
    fn open_segment(
        &mut self,
        end: Position,
        damage: &mut Vec<Damage>,
    ) -> Result<bool, StateError> {
        let open = self.segment.as_ref().map(|segment| segment.number);
        if open == Some(self.position.segment) {
            return Ok(true);
        }
        if self.position.segment == 0 {
            // The beginning of everything: the first segment there is.
            self.next_segment(end, None, damage)?;
            return Ok(false);
        }
        match Segment::open(&self.folder, self.position.segment)? {
            None => {
                self.next_segment(end, Some("the segment is not there"), damage)?;
                Ok(false)
            }
            Some(segment) if !segment.has_preamble()? => {
                self.next_segment(end, Some("the file is not a segment"), damage)?;
                Ok(false)
            }
            Some(segment) => {
                self.segment = Some(segment);
                self.position.offset = self.position.offset.max(START);
                Ok(true)
            }
        }
    }

    /// Goes on to the next segment there is, or to the end. With a reason the stretch is damage.
    fn next_segment(
        &mut self,
        end: Position,
        reason: Option<&str>,
        damage: &mut Vec<Damage>,
    ) -> Result<(), StateError> {
        let from = self.position;
        let next = segment::list(&self.folder)?
            .into_iter()
            .map(|(number, _)| number)
            .find(|number| *number > from.segment && *number <= end.segment);
        self.position = next.map_or(end, |segment| Position {
            segment,
            offset: START,
            item: 0,
        });
        self.segment = None;
        let skipped = from.segment > 0 && self.position.segment > from.segment + 1;
        if let Some(reason) = reason.or(skipped.then_some("segments are not there")) {
            damage.push(Damage {
                from,
                until: self.position,
                reason: reason.to_owned(),
            });
        }
        Ok(())
    }

    /// The next frame that is whole, and where it is. For looking at everything.
    pub(crate) fn next_whole(
        &mut self,
        end: Position,
        damage: &mut Vec<Damage>,
    ) -> Result<Option<(Position, Frame)>, StateError> {
        while let Some((at, head)) = self.next(end, damage)? {
            if head.is_filler() {
                continue;
            }
            let items = self.body(at, &head)?.and_then(|body| items(&head, body));
            match items {
                Some(items) => {
                    let frame = Frame {
                        kind: head.kind,
                        tenant: head.tenant,
                        items,
                    };
                    return Ok(Some((at, frame)));
                }
                None => damage.push(Damage {
                    from: at,
                    until: self.position,
                    reason: format!("{} items of a frame are damaged", head.items),
                }),
            }
        }
        Ok(None)
    }
}

/// All items of a body; `None` when they are not as many as the header says.
fn items(head: &Head, mut body: Bytes) -> Option<Vec<Envelope>> {
    let mut items = Vec::new();
    while !body.is_empty() {
        items.push(frame::decode_item(head, &mut body)?);
    }
    (items.len() == head.items as usize).then_some(items)
}
