use super::SessionRef;
use crate::cluster::{Claim as Told, Stamp};
use bytestring::ByteString;
use inbox_api::InboxId;
use parking_lot::RwLock;
use std::collections::HashMap;

/// Which live session a client id belongs to: one at a time (design P4).
#[derive(Debug, Default)]
pub(crate) struct Registry {
    sessions: RwLock<HashMap<InboxId, Claim>>,
}

#[derive(Debug)]
struct Claim {
    session: SessionRef,
    /// The verified user; empty for anonymous.
    user: ByteString,
    /// Orders it among the claims of all nodes.
    stamp: Stamp,
}

/// The client id is in use by somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OtherUser;

impl Registry {
    /// Makes `session` the one of this client and tells which one was it before. Only its own user takes a session over
    /// (faults.md T16).
    pub(crate) fn claim(
        &self,
        id: InboxId,
        session: SessionRef,
        user: &ByteString,
        stamp: Stamp,
    ) -> Result<Option<SessionRef>, OtherUser> {
        let mut sessions = self.sessions.write();
        if sessions.get(&id).is_some_and(|claim| claim.user != *user) {
            return Err(OtherUser);
        }
        let before = sessions.insert(id, Claim { session, user: user.clone(), stamp });
        Ok(before.map(|claim| claim.session).filter(|before| *before != session))
    }

    /// Ends the claim of `session`, unless another one has taken over already.
    pub(crate) fn release(&self, id: &InboxId, session: SessionRef) {
        let mut sessions = self.sessions.write();
        if sessions.get(id).is_some_and(|claim| claim.session == session) {
            sessions.remove(id);
        }
    }

    /// The live session of a client, and what the other nodes are told of it.
    pub(crate) fn look(&self, id: &InboxId) -> Option<(SessionRef, Told)> {
        let sessions = self.sessions.read();
        let claim = sessions.get(id)?;
        Some((claim.session, Told { id: id.clone(), user: claim.user.clone(), stamp: claim.stamp }))
    }

    /// All claims of this node, as other nodes are told of them.
    pub(crate) fn claims(&self) -> Vec<Told> {
        let sessions = self.sessions.read();
        let told =
            |(id, claim): (&InboxId, &Claim)| Told { id: id.clone(), user: claim.user.clone(), stamp: claim.stamp };
        sessions.iter().map(told).collect()
    }

    /// The live session of a client.
    pub(crate) fn find(&self, id: &InboxId) -> Option<SessionRef> {
        self.sessions.read().get(id).map(|claim| claim.session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base_types::{ClientId, TenantId};

    #[test]
    fn a_session_is_taken_over_by_its_own_user_only() {
        let registry = Registry::default();
        let id = InboxId { tenant: TenantId::default(), client: ClientId::new("c").unwrap() };
        let session = |slot| SessionRef { shard: 0, slot, generation: 1 };
        let (ann, bob) = (ByteString::from_static("ann"), ByteString::from_static("bob"));
        assert_eq!(registry.claim(id.clone(), session(1), &ann, Stamp(1)), Ok(None));
        assert_eq!(registry.claim(id.clone(), session(2), &bob, Stamp(1)), Err(OtherUser));
        assert_eq!(registry.claim(id.clone(), session(3), &ann, Stamp(1)), Ok(Some(session(1))));
        registry.release(&id, session(1));
        assert_eq!(registry.find(&id), Some(session(3)), "a late release of the old session changes nothing");
        registry.release(&id, session(3));
        assert_eq!(registry.claim(id, session(4), &bob, Stamp(1)), Ok(None));
    }
}
