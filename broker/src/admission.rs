//! How many sessions a tenant may have.

use crate::node::Node;
use inbox_api::InboxId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A new session that fits into the limit of its tenant; counted until it is dropped, when the store counts it.
#[derive(Debug)]
pub(crate) struct Admission(Option<Arc<AtomicU64>>);

/// The tenant has as many sessions as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManySessions;

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(admitted) = &self.0 {
            admitted.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Node {
    /// Whether a session may be attached; one that nobody keeps, and one that is kept already, always may.
    pub(crate) fn admit_session(&self, id: &InboxId, kept: bool) -> Result<Admission, TooManySessions> {
        let max = self.settings.max_sessions_per_tenant;
        if max == 0 || !kept || self.inbox.incarnation(id).is_some() {
            return Ok(Admission(None));
        }
        // Those of other tenants that are on their way count too: near its limit a tenant may be refused too early. Only nodes
        // that admit at the same moment exceed it, by as many as they are.
        let before = self.admitted.fetch_add(1, Ordering::Relaxed);
        let admission = Admission(Some(Arc::clone(&self.admitted)));
        if self.inbox.count_of(&id.tenant).saturating_add(before) >= max { Err(TooManySessions) } else { Ok(admission) }
    }
}
