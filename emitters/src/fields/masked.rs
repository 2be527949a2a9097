//! An emitter whose findings have gone through a policy first.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use exfilwatch_model::diagnosis::Check;
use exfilwatch_model::{Envelope, Finding, Kind};

use super::mask::Policy;
use crate::contract::{Delivered, EmitError, Emitter, Kept};

/// See the module.
#[derive(Debug)]
pub(crate) struct Masked {
    inner: Arc<dyn Emitter>,
    policy: Policy,
}

impl Masked {
    pub(crate) fn new(inner: Arc<dyn Emitter>, policy: Policy) -> Self {
        Self { inner, policy }
    }

    /// What may go out of an item; the same at every attempt.
    fn masked(&self, envelope: &Envelope) -> Envelope {
        let payload = match envelope.kind {
            Kind::Findings | Kind::Signals => self.finding(&envelope.payload),
            // About ourselves: no words of a record stand in it.
            Kind::Internal => envelope.payload.clone(),
            // Not configured with a policy; should it come to it, nothing is better than all.
            Kind::Events => Bytes::new(),
        };
        Envelope {
            payload,
            ..envelope.clone()
        }
    }

    /// What is no finding becomes nothing, which every emitter refuses.
    fn finding(&self, payload: &[u8]) -> Bytes {
        serde_json::from_slice(payload)
            .and_then(|finding: Finding| serde_json::to_vec(&self.policy.apply(finding)))
            .unwrap_or_default()
            .into()
    }
}

#[async_trait]
impl Emitter for Masked {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn batch_max(&self) -> (usize, usize) {
        self.inner.batch_max()
    }

    async fn emit(&self, batch: &[Envelope]) -> Result<Delivered, EmitError> {
        self.emit_telling(batch, &|| ()).await
    }

    async fn emit_telling(
        &self,
        batch: &[Envelope],
        sent: &(dyn Fn() + Sync),
    ) -> Result<Delivered, EmitError> {
        let masked: Vec<Envelope> = batch.iter().map(|item| self.masked(item)).collect();
        self.inner.emit_telling(&masked, sent).await
    }

    fn remark(&self) -> Option<String> {
        self.inner.remark()
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        self.inner.counts()
    }

    fn kept(&self) -> Option<Kept> {
        self.inner.kept()
    }

    async fn diagnose(&self) -> Vec<Check> {
        self.inner.diagnose().await
    }
}
