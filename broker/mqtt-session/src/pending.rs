//! Operations whose answers are due. What kind an answer is for stands in its event; numbers are of their own for each kind.

use crate::OpId;
use base_types::PacketId;
use inbox_api::Commit;
use mqtt_codec::ReasonCode;

/// More than so many open SUBSCRIBEs and UNSUBSCRIBEs make the session ask for a pause.
const SUBSCRIBES_MAX: usize = 32;

/// A SUBSCRIBE or UNSUBSCRIBE on its way.
#[derive(Debug)]
pub(crate) struct PendingSubscribe {
    pub(crate) op: OpId,
    pub(crate) packet_id: PacketId,
    /// One for each filter; `None` where the outcome is due.
    pub(crate) codes: Vec<Option<ReasonCode>>,
}

/// The SUBSCRIBEs and UNSUBSCRIBEs on their way: mostly none or one.
#[derive(Debug, Default)]
pub(crate) struct PendingSubscribes {
    next: u64,
    open: Vec<PendingSubscribe>,
}

impl PendingSubscribes {
    pub(crate) fn push(&mut self, packet_id: PacketId, codes: Vec<Option<ReasonCode>>) -> OpId {
        let op = OpId(self.next);
        self.next += 1;
        self.open.push(PendingSubscribe { op, packet_id, codes });
        op
    }

    pub(crate) fn take(&mut self, op: OpId) -> Option<PendingSubscribe> {
        let index = self.open.iter().position(|pending| pending.op == op)?;
        Some(self.open.remove(index))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.open.len() >= SUBSCRIBES_MAX
    }
}

/// A commit on its way, and what leaves when it is done.
#[derive(Debug)]
pub(crate) struct PendingCommit {
    pub(crate) op: OpId,
    /// PUBREL.
    pub(crate) received: Vec<u64>,
    /// PUBCOMP.
    pub(crate) released_inbound: Vec<PacketId>,
    /// PUBLISH.
    pub(crate) sent_upto: Option<u64>,
}

/// The commits of a session with an inbox.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    next: u64,
    /// What happened since the last one left.
    pub(crate) gathered: Commit,
    open: Vec<PendingCommit>,
}

impl Commits {
    /// The gathered commit, to be sent now; with an operation when something waits for it.
    pub(crate) fn leave(&mut self) -> Option<(Option<OpId>, Commit)> {
        if self.gathered.is_empty() {
            return None;
        }
        let commit = std::mem::take(&mut self.gathered);
        let awaited = !commit.received.is_empty() || !commit.released_inbound.is_empty() || commit.sent_upto.is_some();
        let op = awaited.then(|| {
            let op = OpId(self.next);
            self.next += 1;
            self.open.push(PendingCommit {
                op,
                received: commit.received.clone(),
                released_inbound: commit.released_inbound.clone(),
                sent_upto: commit.sent_upto,
            });
            op
        });
        Some((op, commit))
    }

    pub(crate) fn take(&mut self, op: OpId) -> Option<PendingCommit> {
        let index = self.open.iter().position(|pending| pending.op == op)?;
        Some(self.open.remove(index))
    }

    /// Whether the release of an inbound id is on its way.
    pub(crate) fn releases(&self, id: PacketId) -> bool {
        self.gathered.released_inbound.contains(&id) || self.open.iter().any(|open| open.released_inbound.contains(&id))
    }
}
