use crate::{KvError, KvRead, KvSpace, RangeId, Visit};
use base_types::WallMs;
use bytes::Bytes;

/// What an apply may know beside its input and its keys: things that are the same on every replica.
#[derive(Clone, Copy, Debug)]
pub struct ApplyCx {
    /// The index of the log entry.
    pub index: u64,
    /// Where in the entry the command stands: one entry carries many.
    pub position: u32,
    /// The wall clock of the leader when it proposed; part of the entry, never goes back within a range.
    pub stamped: WallMs,
}

/// A state machine that lives in a range.
///
/// `mutate` is deterministic: no clock, no randomness, no hash-map order, no environment. It may keep in-memory indexes that are
/// derived from the keys; `reset` rebuilds them.
pub trait Coproc: Send + 'static {
    /// Applies one committed command and answers it.
    ///
    /// A command that makes no sense (unknown version, bad bytes) is answered with an error reply that the store's own
    /// wire format defines; it is the same on every replica.
    ///
    /// # Errors
    /// Only when the engine failed: the replica then stops.
    fn mutate(&mut self, cx: &ApplyCx, command: &Bytes, space: &mut dyn KvSpace) -> Result<Bytes, KvError>;

    /// Called once after the writes of a batch of `mutate` calls have become visible to readers, before their replies leave.
    /// Here indexes that readers share are published, and listeners on this node are told (new messages in an inbox …).
    fn applied(&mut self) {}

    /// Rebuilds what is derived from the keys: at start, and after a snapshot replaced them all.
    ///
    /// # Errors
    /// Only when the engine failed.
    fn reset(&mut self, keys: &dyn KvRead) -> Result<(), KvError>;

    /// This replica began or ceased to lead. What a lost leader owed (due wills, expiry) is found again here from the keys.
    fn on_leader(&mut self, leads: bool) {
        let _ = leads;
    }

    /// The commands that bring what the keys of another lineage of this store hold into this one: two halves of a cluster each made the
    /// range, and `from`, with `keys`, gives way. In an order in which they are to be proposed, one after the other; none is large.
    ///
    /// Each comes with a place, to be given as `after` to go on behind it when `each` said that it was enough: `b""` at the start. A command
    /// that is proposed again, or all of them, change nothing that they did not change the first time. Whatever a store does not know how
    /// to bring is left out; without this method, that is all.
    ///
    /// # Errors
    /// When the keys can't be read.
    fn adopt(
        &self,
        from: RangeId,
        keys: &dyn KvRead,
        after: &[u8],
        each: &mut dyn FnMut(&[u8], Bytes) -> Visit,
    ) -> Result<(), KvError> {
        let _ = (from, keys, after, each);
        Ok(())
    }
}
