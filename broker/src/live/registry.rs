use super::SessionRef;
use inbox_api::InboxId;
use parking_lot::RwLock;
use std::collections::HashMap;

/// Which live session a client id belongs to: one at a time (design P4).
#[derive(Debug, Default)]
pub(crate) struct Registry {
    sessions: RwLock<HashMap<InboxId, SessionRef>>,
}

impl Registry {
    /// Makes `session` the one of this client and tells which one was it before.
    pub(crate) fn claim(&self, id: InboxId, session: SessionRef) -> Option<SessionRef> {
        self.sessions.write().insert(id, session).filter(|before| *before != session)
    }

    /// Ends the claim of `session`, unless another one has taken over already.
    pub(crate) fn release(&self, id: &InboxId, session: SessionRef) {
        let mut sessions = self.sessions.write();
        if sessions.get(id) == Some(&session) {
            sessions.remove(id);
        }
    }

    /// The live session of a client.
    pub(crate) fn find(&self, id: &InboxId) -> Option<SessionRef> {
        self.sessions.read().get(id).copied()
    }
}
