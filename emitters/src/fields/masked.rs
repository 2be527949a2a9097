//! An emitter whose findings have gone through a policy first.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use exfilwatch_model::diagnosis::Check;
use exfilwatch_model::{Envelope, Finding, Kind, TenantId};
use uuid::Uuid;

use super::mask::{Notice, Policy};
use crate::contract::{Count, Delivered, EmitError, Emitter, Kept};

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

    /// What may go out of an item; the same at every attempt. What is not what it should be becomes
    /// nothing, which every emitter refuses.
    fn masked(&self, envelope: &Envelope) -> Envelope {
        let (id, payload) = match envelope.kind {
            Kind::Findings | Kind::Signals => self.finding(envelope),
            Kind::Internal => self.notice(envelope),
            // Not configured with a policy; should it come to it, nothing is better than all.
            Kind::Events => None,
        }
        .unwrap_or_default();
        Envelope {
            id,
            payload,
            ..envelope.clone()
        }
    }

    fn finding(&self, envelope: &Envelope) -> Option<(String, Bytes)> {
        let finding: Finding = serde_json::from_slice(&envelope.payload).ok()?;
        let (tenant, uid) = (finding.tenant.clone(), finding.uid);
        let payload = serde_json::to_vec(&self.policy.apply(finding)).ok()?;
        Some((self.id(envelope, &tenant, uid), payload.into()))
    }

    fn notice(&self, envelope: &Envelope) -> Option<(String, Bytes)> {
        let notice: Notice = serde_json::from_slice(&envelope.payload).ok()?;
        let tenant = envelope.stream.tenant();
        let id = match notice.finding_uid {
            Some(uid) => self.id(envelope, tenant, uid),
            None => envelope.id.clone(),
        };
        let payload = serde_json::to_vec(&self.policy.apply_to_notice(tenant, notice)).ok()?;
        Some((id, payload.into()))
    }

    /// The item's id, which holds the finding's.
    fn id(&self, envelope: &Envelope, tenant: &TenantId, uid: Uuid) -> String {
        let sent = self.policy.sent_uid(tenant, uid);
        envelope.id.replace(&uid.to_string(), &sent.to_string())
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

    fn sent_id(&self, item: &Envelope) -> String {
        self.masked(item).id
    }

    fn remark(&self) -> Option<String> {
        self.inner.remark()
    }

    fn counts(&self) -> Vec<Count> {
        self.inner.counts()
    }

    fn kept(&self) -> Option<Kept> {
        self.inner.kept()
    }

    async fn diagnose(&self) -> Vec<Check> {
        self.inner.diagnose().await
    }
}
