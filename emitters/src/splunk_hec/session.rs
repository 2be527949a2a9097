//! A channel at one address, with the connections, the cookies and the acknowledgements that belong to
//! it. They begin and end together: an acknowledgement is known only to the indexer to which the
//! cookie leads.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::ack::Acks;
use super::client::{Client, Place, Reply, Unanswered};
use super::facts::Facts;
use super::request::Body;
use crate::contract::EmitError;
use crate::cookies::Cookies;
use crate::error::BuildError;

/// Questions in a row where each may lead to another indexer.
const SCATTERED_ASKS: usize = 2;

/// See the module.
#[derive(Debug)]
pub(super) struct Session {
    client: Arc<Client>,
    http: reqwest::Client,
    cookies: Arc<Cookies>,
    channel: Uuid,
    /// The channel stands in the URL as well: on the way the header is lost.
    in_url: bool,
    asks: usize,
    pub(super) acks: Acks,
}

impl Session {
    pub(super) fn new(client: Arc<Client>, in_url: bool) -> Result<Self, BuildError> {
        let cookies = Arc::new(Cookies::default());
        let options = &client.deployment().options;
        let acks = Acks::new(
            Duration::from_secs(options.ack_timeout_seconds),
            Duration::from_secs(options.ack_poll_seconds_max),
        );
        Ok(Self {
            http: client.connections(&cookies)?,
            acks,
            client,
            cookies,
            channel: Uuid::new_v4(),
            in_url,
            asks: 1,
        })
    }

    /// Of a channel for one request only, whose questions may lead to another indexer each time.
    pub(super) fn of_one_request(client: Arc<Client>, in_url: bool) -> Result<Self, BuildError> {
        Ok(Self {
            asks: SCATTERED_ASKS,
            ..Self::new(client, in_url)?
        })
    }

    /// How often one round of questions asks.
    pub(super) fn asks(&self) -> usize {
        self.asks
    }

    pub(super) fn is_in_url(&self) -> bool {
        self.in_url
    }

    /// Sends events.
    pub(super) async fn send(&self, body: Body) -> Result<Reply, Unanswered> {
        let place = Place {
            channel: self.channel,
            in_url: self.in_url,
        };
        self.client.send(&self.http, body, place).await
    }

    /// Asks which of these ids are acknowledged.
    pub(super) async fn ask(&self, ids: &[u64]) -> Result<Reply, EmitError> {
        self.client.ask(&self.http, ids, self.channel).await
    }

    /// From now on cookies are sent: the receiver acknowledges. Without that they would only send
    /// everything to one indexer.
    pub(super) fn stick(&self) {
        self.cookies.send();
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.client.deployment().facts
    }
}
