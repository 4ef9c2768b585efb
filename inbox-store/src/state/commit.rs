use super::State;
use crate::inbox::{Inbox, Released};
use crate::reply;
use crate::schema::{inbound, released};
use base_kv_api::{KvError, KvSpace};
use bytes::Bytes;
use inbox_api::{Commit, SessionVersion};

impl State {
    pub(super) fn commit(
        &mut self,
        version: SessionVersion,
        mark: u64,
        commit: &Commit,
        space: &mut dyn KvSpace,
    ) -> Result<Bytes, KvError> {
        let owned = |inbox: &&mut Box<Inbox>| inbox.record.version == version && inbox.record.is_attached();
        let Some(inbox) = self.inboxes.get_mut(&version.incarnation).filter(owned) else { return Ok(reply::fenced()) };
        let ledger = &mut self.ledger;
        let mut moved = false;
        for &seq in &commit.done {
            if inbox.remove(seq, ledger, space)? {
                ledger.count(|stats| stats.done += 1);
                moved = true;
            } else if let Some(at) = inbox.released.iter().position(|released| released.seq == seq) {
                inbox.released.remove(at);
                space.delete(&released::key(version.incarnation, seq));
            }
        }
        for &seq in &commit.received {
            if inbox.remove(seq, ledger, space)? {
                ledger.count(|stats| stats.done += 1);
                let order = inbox.released.back().map_or(0, |last| last.order + 1);
                inbox.released.push_back(Released { order, seq });
                space.put(&released::key(version.incarnation, seq), &released::encode(order));
                moved = true;
            }
        }
        if let Some(upto) = commit.sent_upto
            && mark > inbox.queue.mark
        {
            (inbox.queue.sent_upto, inbox.queue.mark) = (upto, mark);
            moved = true;
        }
        for &id in &commit.released_inbound {
            if inbox.inbound.remove(&id) {
                space.delete(&inbound::key(version.incarnation, id));
            }
        }
        if moved {
            inbox.save_cursor(space);
        }
        Ok(reply::done())
    }
}
