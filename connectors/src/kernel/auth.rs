//! Access tokens: asked for once, kept until shortly before they end, renewed once on a 401.

use std::fmt::Debug;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

use crate::FetchError;

/// A token is renewed so long before its end.
pub const RENEW_BEFORE: TimeDelta = TimeDelta::minutes(5);
/// A refusal is remembered so long, so that the streams of a tenant do not ask one after another.
pub const REFUSAL_KEPT: TimeDelta = TimeDelta::seconds(30);

/// An access token.
#[derive(Clone)]
pub struct Token {
    /// What goes into `Authorization: Bearer`.
    pub value: SecretString,
    /// When it ends, by the vendor's clock.
    pub ends_at: DateTime<Utc>,
    /// The scopes granted, separated by blanks, where the endpoint names them.
    pub scope: Option<String>,
}

impl Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token(ends at {})", self.ends_at)
    }
}

/// Where tokens come from.
#[async_trait]
pub trait TokenSource: Send + Sync + Debug {
    /// The vendor's time, against which tokens end.
    fn now(&self) -> DateTime<Utc>;

    /// Asks for a new token.
    async fn request(&self) -> Result<Token, FetchError>;
}

/// The one token of a connector. Callers who need a new one at the same time share one request.
#[derive(Debug)]
pub struct TokenCache {
    source: Box<dyn TokenSource>,
    // Held while a token is asked for: that is what makes the request single-flight. A caller who
    // is cancelled meanwhile lets go of it, and the next one asks.
    slot: Mutex<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    token: Option<Token>,
    refused: Option<(DateTime<Utc>, FetchError)>,
}

impl TokenCache {
    /// Empty; the first call asks.
    pub fn new(source: Box<dyn TokenSource>) -> Self {
        Self {
            source,
            slot: Mutex::default(),
        }
    }

    /// A token that is good for some minutes yet.
    pub async fn token(&self) -> Result<SecretString, FetchError> {
        let mut slot = self.slot.lock().await;
        match &slot.token {
            Some(token) if self.source.now() < token.ends_at - RENEW_BEFORE => {
                Ok(token.value.clone())
            }
            _ => self.fill(&mut slot).await,
        }
    }

    /// As [`TokenCache::token`], with what is known of it.
    pub async fn inspect(&self) -> Result<Token, FetchError> {
        self.token().await?;
        let slot = self.slot.lock().await;
        slot.token.clone().ok_or_else(|| FetchError::Retry {
            what: "the token was dropped meanwhile".to_owned(),
            after: None,
        })
    }

    /// A token other than `stale`, which the vendor has refused.
    pub async fn renewed(&self, stale: &SecretString) -> Result<SecretString, FetchError> {
        let mut slot = self.slot.lock().await;
        match &slot.token {
            Some(token) if token.value.expose_secret() != stale.expose_secret() => {
                Ok(token.value.clone())
            }
            _ => self.fill(&mut slot).await,
        }
    }

    async fn fill(&self, slot: &mut Slot) -> Result<SecretString, FetchError> {
        if let Some((at, refusal)) = &slot.refused
            && (self.source.now() - *at).abs() < REFUSAL_KEPT
        {
            return Err(refusal.clone());
        }
        match self.source.request().await {
            Ok(token) => {
                let value = token.value.clone();
                *slot = Slot {
                    token: Some(token),
                    refused: None,
                };
                Ok(value)
            }
            Err(error) => {
                if matches!(error, FetchError::Auth { .. }) {
                    slot.refused = Some((self.source.now(), error.clone()));
                }
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
    use std::time::Duration;

    #[derive(Debug, Default, Clone)]
    struct Counting {
        asked: Arc<AtomicU32>,
        seconds: Arc<AtomicI64>,
        refuse: bool,
    }

    #[async_trait]
    impl TokenSource for Counting {
        fn now(&self) -> DateTime<Utc> {
            DateTime::UNIX_EPOCH + TimeDelta::seconds(self.seconds.load(Ordering::Relaxed))
        }

        async fn request(&self) -> Result<Token, FetchError> {
            let count = self.asked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
            if self.refuse {
                return Err(FetchError::Auth {
                    what: "refused".into(),
                    help: "look".into(),
                });
            }
            Ok(Token {
                value: format!("token {count}").into(),
                ends_at: self.now() + TimeDelta::hours(1),
                scope: None,
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_callers_share_one_request_until_shortly_before_the_end() {
        let source = Counting::default();
        let cache = TokenCache::new(Box::new(source.clone()));
        let all = futures::future::join_all((0..20).map(|_| cache.token())).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(source.asked.load(Ordering::Relaxed), 1);
        source.seconds.store(54 * 60, Ordering::Relaxed);
        cache.token().await.unwrap();
        assert_eq!(source.asked.load(Ordering::Relaxed), 1);
        source.seconds.store(56 * 60, Ordering::Relaxed);
        cache.token().await.unwrap();
        assert_eq!(source.asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn callers_with_the_same_stale_token_renew_it_once() {
        let source = Counting::default();
        let cache = TokenCache::new(Box::new(source.clone()));
        let stale = cache.token().await.unwrap();
        let all = futures::future::join_all((0..5).map(|_| cache.renewed(&stale))).await;
        assert!(
            all.iter()
                .all(|t| t.as_ref().unwrap().expose_secret() == "token 1")
        );
        assert_eq!(source.asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_remembered_for_a_while_and_then_asked_again() {
        let source = Counting {
            refuse: true,
            ..Counting::default()
        };
        let cache = TokenCache::new(Box::new(source.clone()));
        for _ in 0..5 {
            assert!(matches!(cache.token().await, Err(FetchError::Auth { .. })));
        }
        assert_eq!(source.asked.load(Ordering::Relaxed), 1);
        source.seconds.store(31, Ordering::Relaxed);
        assert!(cache.token().await.is_err());
        assert_eq!(source.asked.load(Ordering::Relaxed), 2);
    }
}
