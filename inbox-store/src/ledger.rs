use crate::corrupt;
use crate::schema::body::{self, BodyId};
use base_kv_api::{KvError, KvSpace};
use inbox_api::InboxStats;
use std::collections::BTreeMap;

/// How many reference counts are kept in memory too.
const REFS_CACHED: usize = 16 * 1024;

/// What all inboxes share: figures, and the reference counts of bodies.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) stats: InboxStats,
    /// This replica leads: it counts what happens, so that the sum over all nodes is right.
    pub(crate) leads: bool,
    /// What the tails of all inboxes weigh.
    pub(crate) cached_bytes: usize,
    /// A copy of what is on disk, for the newest bodies.
    refs: BTreeMap<BodyId, u64>,
}

impl Ledger {
    pub(crate) fn count(&mut self, count: impl FnOnce(&mut InboxStats)) {
        if self.leads {
            count(&mut self.stats);
        }
    }

    /// Sets how many entries refer to a body. At 0 it is gone.
    pub(crate) fn set_refs(&mut self, id: BodyId, refs: u64, space: &mut dyn KvSpace) {
        if refs == 0 {
            self.refs.remove(&id);
            space.delete(&body::refs_key(id));
            space.delete(&body::key(id));
            return;
        }
        space.put(&body::refs_key(id), &body::encode_refs(refs));
        self.refs.insert(id, refs);
        if self.refs.len() > REFS_CACHED {
            self.refs.pop_first();
        }
    }

    /// Takes `count` references away.
    pub(crate) fn release(&mut self, id: BodyId, count: u64, space: &mut dyn KvSpace) -> Result<(), KvError> {
        let refs = match self.refs.get(&id) {
            Some(&refs) => refs,
            None => match space.get(&body::refs_key(id))? {
                Some(value) => body::decode_refs(value).map_err(corrupt("read a reference count"))?,
                None => 0,
            },
        };
        self.set_refs(id, refs.saturating_sub(count), space);
        Ok(())
    }
}
