use super::attach::REMOVED_AT_ONCE;
use super::{State, Timer};
use crate::corrupt;
use crate::reply;
use crate::schema::{KeyKind, all_below, doomed, ended, entry};
use base_kv_api::{ApplyCx, KvError, KvSpace, Visit};
use base_types::WallMs;
use bytes::Bytes;
use inbox_api::{SessionVersion, WillFate};

impl State {
    /// Ends the inboxes whose time has come; whoever attached meanwhile goes on.
    pub(super) fn expire(
        &mut self,
        cx: &ApplyCx,
        incarnations: &[u64],
        space: &mut dyn KvSpace,
    ) -> Result<Bytes, KvError> {
        for &incarnation in incarnations {
            let at = self.inboxes.get(&incarnation).and_then(|inbox| inbox.record.expires_at());
            if at.is_some_and(|at| at <= cx.stamped) {
                self.end(cx, incarnation, WillFate::Publish, space)?;
            }
        }
        Ok(reply::done())
    }

    /// Removes entries that expired before they were sent: the session of this version never saw them. By now they may lie below the
    /// mark of what may be sent, which is set ahead.
    pub(super) fn discard(
        &mut self,
        cx: &ApplyCx,
        version: SessionVersion,
        seqs: &[u64],
        space: &mut dyn KvSpace,
    ) -> Result<Bytes, KvError> {
        let incarnation = version.incarnation;
        let Some(inbox) = self.inboxes.get_mut(&incarnation) else { return Ok(reply::done()) };
        let unseen = inbox.version() == version && inbox.record.is_attached();
        let mut removed = false;
        for &seq in seqs {
            // What was sent must be sent again, expired or not, until it is acknowledged [MQTT-4.4.0-1].
            if (seq < inbox.queue.sent_upto && !unseen) || !inbox.seqs.contains(seq) {
                continue;
            }
            let Some(value) = space.get(&entry::key(incarnation, seq))? else { continue };
            let (head, _) = entry::decode(value).map_err(corrupt("read a queued entry"))?;
            if head.expires_at.is_some_and(|at| at <= cx.stamped) {
                inbox.remove(seq, &mut self.ledger, space)?;
                self.ledger.count(|stats| stats.expired += 1);
                removed = true;
            }
        }
        if removed {
            inbox.save_cursor(space);
        }
        // A fetch gives up after many expired ones: what is behind them is told anew.
        if inbox.queue.messages > 0 && inbox.record.is_attached() {
            self.dirty.push(incarnation);
        }
        Ok(reply::done())
    }

    /// No route leads to these inboxes any more: their subscriptions go.
    pub(super) fn settle_ended(&mut self, incarnations: &[u64], space: &mut dyn KvSpace) -> Result<Bytes, KvError> {
        for &incarnation in incarnations {
            let Some(ended) = self.ended.remove(&incarnation) else { continue };
            self.timers.remove(&(ended.tell_at, Timer::Ended(incarnation)));
            space.delete(&ended::key(incarnation));
            let below = all_below(KeyKind::Subscription, incarnation);
            if ended.subscriptions > REMOVED_AT_ONCE {
                space.delete_range(&below.start..&below.end);
                continue;
            }
            let mut keys = Vec::new();
            space.scan(&below.start..&below.end, &mut |key, _| {
                keys.push(key.to_vec());
                Visit::More
            })?;
            keys.iter().for_each(|key| space.delete(key));
        }
        Ok(reply::done())
    }

    /// Removes the next entries of an inbox that ended, and the bodies that nobody else refers to.
    pub(super) fn sweep(&mut self, incarnation: u64, max: u64, space: &mut dyn KvSpace) -> Result<Bytes, KvError> {
        let Some(&from) = self.doomed.get(&incarnation) else { return Ok(reply::done()) };
        let (start, end) = (entry::key(incarnation, from), all_below(KeyKind::Entry, incarnation).end);
        let max = usize::try_from(max).unwrap_or(usize::MAX).max(1);
        let (mut found, mut failed) = (Vec::new(), None);
        space.scan(&start..&end, &mut |key, value| {
            match (entry::decode_key(key), entry::decode_account(value)) {
                (Some((_, seq)), Ok((_, body))) => found.push((seq, body)),
                (_, Err(error)) => failed = Some(error),
                (None, _) => {}
            }
            if found.len() >= max || failed.is_some() { Visit::Enough } else { Visit::More }
        })?;
        if let Some(error) = failed {
            return Err(corrupt("read a queued entry")(error));
        }
        for &(seq, body) in &found {
            space.delete(&entry::key(incarnation, seq));
            if let Some(body) = body {
                self.ledger.release(body, 1, space)?;
            }
        }
        match found.last() {
            Some(&(last, _)) if found.len() >= max => {
                space.put(&doomed::key(incarnation), &doomed::encode(last + 1));
                self.doomed.insert(incarnation, last + 1);
            }
            _ => {
                space.delete(&doomed::key(incarnation));
                self.doomed.remove(&incarnation);
                self.timers.remove(&(WallMs(0), Timer::Sweep(incarnation)));
            }
        }
        Ok(reply::done())
    }
}
