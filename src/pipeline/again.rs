//! What receivers refused, and what becomes of it: sent again by its lane, as the same bytes and beside
//! what flows, or dropped with a reason. Either is noted in the store and told to the receivers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use exfilwatch_emitters::Emitter;
use exfilwatch_model::{Clock, Envelope, StreamId};
use exfilwatch_state::{
    Commit, Fate, LaneId, LaneMark, Quarantined, StateError, StateStore, quarantined_bytes,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;

use crate::pipeline::committer::{Committer, chain};
use crate::pipeline::notice::Notice;

/// Wait before what a receiver still does not take is sent once more.
const AGAIN_EVERY: Duration = Duration::from_secs(30);
/// Longest payload that is shown of an entry.
pub const SHOWN_BYTES_MAX: usize = 64 << 10;

/// What can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// What there is.
    List,
    /// To send it again: one by its id or the first digits, or all that can be.
    Retry(Option<String>),
    /// To drop it.
    Drop {
        /// Id, or its first digits.
        id: String,
        /// Why.
        reason: String,
    },
}

/// An entry, for people and programs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// Its id.
    pub id: String,
    /// Where it comes from.
    pub stream: StreamId,
    /// Lane or work item it was found in.
    pub origin: String,
    /// Id of the item, where a receiver refused it.
    pub item: Option<String>,
    /// Why it is here.
    pub reason: String,
    /// Since when.
    pub at: DateTime<Utc>,
    /// What becomes of it.
    pub fate: Fate,
    /// File of its bytes, where they are kept.
    pub file: Option<String>,
}

impl From<&Quarantined> for Entry {
    fn from(entry: &Quarantined) -> Self {
        Self {
            id: entry.id.clone(),
            stream: entry.stream.clone(),
            origin: entry.origin.clone(),
            item: entry.item.as_ref().map(|item| item.id.clone()),
            reason: entry.reason.clone(),
            at: entry.at,
            fate: entry.fate.clone(),
            file: entry.file.clone(),
        }
    }
}

/// What is asked, answered: the entries concerned as they are then, and what is to be written. The inner
/// error says why it cannot be.
pub fn answer(
    store: &dyn StateStore,
    ask: &Ask,
    now: DateTime<Utc>,
) -> Result<Result<(Vec<Entry>, Commit), String>, StateError> {
    let all = store.quarantined()?;
    let lanes = store.lanes()?;
    let decided = match ask {
        Ask::List => {
            let entries = all.iter().map(Entry::from).collect();
            return Ok(Ok((entries, Commit::default())));
        }
        Ask::Retry(None) => Ok(all
            .iter()
            .filter(|one| can_go_again(one, &lanes).is_ok())
            .collect()),
        Ask::Retry(Some(id)) => {
            one_of(&all, id).and_then(|one| can_go_again(one, &lanes).map(|()| vec![one]))
        }
        Ask::Drop { reason, .. } if reason.trim().is_empty() => {
            Err("a reason is needed, for whoever asks later".to_owned())
        }
        Ask::Drop { id, .. } => one_of(&all, id).map(|one| vec![one]),
    };
    let decided: Vec<&Quarantined> = match decided {
        Ok(decided) => decided,
        Err(why) => return Ok(Err(why)),
    };
    let mut commit = Commit::default();
    for entry in decided {
        let (name, fate) = match ask {
            Ask::Drop { reason, .. } => {
                let reason = reason.trim().to_owned();
                ("quarantine.dropped", Fate::Dropped { at: now, reason })
            }
            Ask::List | Ask::Retry(_) => ("quarantine.retried", Fate::Again { at: now }),
        };
        let entry = Quarantined {
            fate,
            ..entry.clone()
        };
        commit
            .frames
            .push(told(name, &entry, now).frame(entry.stream.tenant()));
        commit.quarantined.push(entry);
    }
    let entries = commit.quarantined.iter().map(Entry::from).collect();
    Ok(Ok((entries, commit)))
}

fn told(name: &'static str, entry: &Quarantined, at: DateTime<Utc>) -> Notice {
    let facts = json!({
        "quarantine_id": entry.id, "origin": entry.origin, "reason": entry.reason,
        "item": entry.item.as_ref().map(|item| &item.id), "fate": entry.fate,
    });
    Notice {
        stream: entry.stream.clone(),
        name,
        at,
        facts,
        gap: None,
    }
}

fn one_of<'a>(all: &'a [Quarantined], id: &str) -> Result<&'a Quarantined, String> {
    let mut found = all
        .iter()
        .filter(|one| one.id.starts_with(id) && !one.fate.is_over());
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => Err(format!("several entries begin with {id:?}")),
        (None, _) => Err(format!("nothing that is kept has the id {id:?}")),
    }
}

fn can_go_again(entry: &Quarantined, lanes: &[LaneMark]) -> Result<(), String> {
    if entry.fate.is_over() {
        return Err("it is no longer kept".to_owned());
    }
    let Some(item) = &entry.item else {
        return Err(format!(
            "{} was not refused by a receiver: it could not be read, and is no item to be sent",
            entry.id
        ));
    };
    let mut lanes = lanes.iter().filter(|mark| !mark.retired);
    if !lanes.any(|mark| mark.lane == item.lane) {
        let LaneId { emitter, route, .. } = &item.lane;
        return Err(format!(
            "{}: its route {route} of {emitter} is no longer configured: configure it again, or drop the entry",
            entry.id
        ));
    }
    if entry.file.is_none() {
        return Err(format!("{}: its bytes were not kept", entry.id));
    }
    Ok(())
}

/// Sends a lane's entries again that somebody asked for.
#[derive(Debug)]
pub(crate) struct SendAgain {
    pub(crate) lane: LaneId,
    pub(crate) emitter: Arc<dyn Emitter>,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) committer: Committer,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) state_folder: PathBuf,
    /// Told when somebody has asked.
    pub(crate) asked: watch::Receiver<()>,
}

impl SendAgain {
    /// Sends what is asked for, and what was before the process began, one by one.
    pub(crate) async fn serve(mut self) {
        loop {
            let left = match self.waiting() {
                Ok(entries) => self.send_all(entries).await,
                Err(error) => {
                    tracing::error!(error = %chain(&error), "the quarantine cannot be read");
                    true
                }
            };
            let again = self.clock.real(AGAIN_EVERY);
            tokio::select! {
                changed = self.asked.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(again), if left => {}
            }
        }
    }

    fn waiting(&self) -> Result<Vec<Quarantined>, StateError> {
        let mut entries = self.store.quarantined()?;
        entries.retain(|entry| {
            let is_ours = entry
                .item
                .as_ref()
                .is_some_and(|item| item.lane == self.lane);
            is_ours && matches!(entry.fate, Fate::Again { .. })
        });
        Ok(entries)
    }

    fn still_waits(&self, entry: &Quarantined) -> Result<bool, StateError> {
        let mut waiting = self.waiting()?.into_iter();
        Ok(waiting.any(|one| one.id == entry.id))
    }

    /// Whether some are left to be sent.
    async fn send_all(&self, entries: Vec<Quarantined>) -> bool {
        let mut left = false;
        for entry in entries {
            left |= !self.send(entry).await;
        }
        left
    }

    async fn send(&self, entry: Quarantined) -> bool {
        let Some(item) = read(&self.state_folder, &entry) else {
            let why = "its bytes are not there".to_owned();
            return self.note(entry, Fate::Kept, Some(why)).await;
        };
        // Emitters rely on it, and a file can be written to by others.
        if !item.is_whole() {
            let why = "what its file holds is no JSON object".to_owned();
            return self.note(entry, Fate::Kept, Some(why)).await;
        }
        let outcome = self.emitter.emit(&[item]).await;
        let now = self.clock.now();
        match outcome {
            Ok(delivered) if delivered.held.is_empty() => {
                match delivered.refused.into_iter().next() {
                    None => self.note(entry, Fate::Delivered { at: now }, None).await,
                    Some(refusal) => self.note(entry, Fate::Kept, Some(refusal.reason)).await,
                }
            }
            Ok(_) => false,
            Err(error) => {
                tracing::warn!(lane = %self.lane.emitter, id = %entry.id, %error, "will be sent again");
                false
            }
        }
    }

    async fn note(&self, entry: Quarantined, fate: Fate, reason: Option<String>) -> bool {
        match self.still_waits(&entry) {
            Ok(true) => {}
            // Somebody has dropped it meanwhile: that stands.
            Ok(false) => return true,
            Err(error) => {
                tracing::error!(error = %chain(&error), "the quarantine cannot be read");
                return false;
            }
        }
        tracing::info!(lane = %self.lane.emitter, id = %entry.id, ?fate, "sent again out of quarantine");
        let commit = Commit {
            quarantined: vec![Quarantined {
                fate,
                reason: reason.unwrap_or_else(|| entry.reason.clone()),
                ..entry
            }],
            ..Commit::default()
        };
        self.committer.commit(commit).await.is_ok()
    }
}

fn read(state_folder: &Path, entry: &Quarantined) -> Option<Envelope> {
    let bytes: Option<Bytes> = quarantined_bytes(state_folder, entry.file.as_ref()?).ok()?;
    entry.envelope(bytes?)
}
