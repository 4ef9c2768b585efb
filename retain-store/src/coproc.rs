use crate::command::{Command, Reply};
use crate::schema::{self, KeyKind};
use base_kv_api::{ApplyCx, Coproc, KvError, KvRead, KvSpace, RangeId, Visit};
use base_types::{Message, WallMs};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The retained messages as a state machine.
#[derive(Debug, Default)]
pub struct RetainCoproc {
    /// Topics by what their keys begin with: one entry for each tenant that has any.
    topics: HashMap<Box<[u8]>, u64>,
    total: usize,
    figures: Arc<RetainFigures>,
}

/// What a replica tells its node.
#[derive(Debug, Default)]
pub struct RetainFigures {
    topics: AtomicUsize,
    leads: AtomicBool,
}

impl RetainFigures {
    /// How many topics have a retained message.
    #[must_use]
    pub fn topics(&self) -> usize {
        self.topics.load(Ordering::Relaxed)
    }

    /// Whether the replica leads.
    pub(crate) fn leads(&self) -> bool {
        self.leads.load(Ordering::Acquire)
    }
}

impl RetainCoproc {
    /// The state machine of a replica, and the figures that it keeps.
    #[must_use]
    pub fn new() -> (Self, Arc<RetainFigures>) {
        let coproc = Self::default();
        let figures = Arc::clone(&coproc.figures);
        (coproc, figures)
    }

    fn set(
        &mut self,
        key: &[u8],
        topics_max: Option<u64>,
        message: &Message,
        encoded: &[u8],
        space: &mut dyn KvSpace,
    ) -> Result<Reply, KvError> {
        let tenant = &key[..schema::tenant_prefix_len(key)];
        match space.get(key)? {
            Some(old) => forget_expiry(key, old, space)?,
            None => match self.topics.get_mut(tenant) {
                Some(&mut topics) if topics_max.is_some_and(|max| topics >= max) => return Ok(Reply::TooMany),
                None if topics_max == Some(0) => return Ok(Reply::TooMany),
                topics => {
                    self.total += 1;
                    match topics {
                        Some(topics) => *topics += 1,
                        None => drop(self.topics.insert(tenant.into(), 1)),
                    }
                }
            },
        }
        space.put(key, encoded);
        if let Some(at) = message.expires_at {
            space.put(&schema::expiry_key(at, key), &[]);
        }
        Ok(Reply::Done)
    }

    fn clear(&mut self, key: &[u8], space: &mut dyn KvSpace) -> Result<(), KvError> {
        if let Some(old) = space.get(key)? {
            forget_expiry(key, old, space)?;
            space.delete(key);
            self.total -= 1;
            let tenant = &key[..schema::tenant_prefix_len(key)];
            if let Some(topics) = self.topics.get_mut(tenant) {
                *topics -= 1;
                if *topics == 0 {
                    self.topics.remove(tenant);
                }
            }
        }
        Ok(())
    }

    fn purge(&mut self, now: WallMs, max: u64, space: &mut dyn KvSpace) -> Result<u64, KvError> {
        let mut keys = Vec::new();
        let expired = schema::expired(now);
        if max > 0 {
            space.scan(&expired.start..&expired.end, &mut |key, _| {
                keys.push(schema::expiring(key).to_vec());
                if (keys.len() as u64) < max { Visit::More } else { Visit::Enough }
            })?;
        }
        for key in &keys {
            self.clear(key, space)?;
        }
        Ok(keys.len() as u64)
    }
}

impl Coproc for RetainCoproc {
    fn mutate(&mut self, cx: &ApplyCx, command: &Bytes, space: &mut dyn KvSpace) -> Result<Bytes, KvError> {
        let reply = match Command::decode(command) {
            Err(_) => Reply::NotUnderstood,
            Ok(Command::Set { topics_max, tenant, message, encoded }) => {
                let key = schema::retained_key(&tenant, message.topic.as_str());
                self.set(&key, topics_max, &message, &encoded, space)?
            }
            Ok(Command::Adopt { tenant, message, encoded }) => {
                let key = schema::retained_key(&tenant, message.topic.as_str());
                match space.get(&key)? {
                    Some(_) => Reply::Done,
                    // The limit is for what is new.
                    None => self.set(&key, None, &message, &encoded, space)?,
                }
            }
            Ok(Command::Clear { tenant, topic }) => {
                self.clear(&schema::retained_key(&tenant, topic.as_str()), space)?;
                Reply::Done
            }
            Ok(Command::Purge { max }) => Reply::Purged(self.purge(cx.stamped, max, space)?),
        };
        Ok(reply.encode())
    }

    fn applied(&mut self) {
        self.figures.topics.store(self.total, Ordering::Relaxed);
    }

    fn reset(&mut self, keys: &dyn KvRead) -> Result<(), KvError> {
        self.topics.clear();
        self.total = 0;
        let all = schema::keys(KeyKind::Retained);
        keys.scan(&all.start..&all.end, &mut |key, _| {
            self.total += 1;
            let tenant = &key[..schema::tenant_prefix_len(key)];
            match self.topics.get_mut(tenant) {
                Some(topics) => *topics += 1,
                None => drop(self.topics.insert(tenant.into(), 1)),
            }
            Visit::More
        })?;
        self.applied();
        Ok(())
    }

    fn on_leader(&mut self, leads: bool) {
        self.figures.leads.store(leads, Ordering::Release);
    }

    /// A message whose topic has none here. Which of two was set last nobody knows: that of the lineage that goes on stays.
    fn adopt(
        &self,
        _: RangeId,
        keys: &dyn KvRead,
        after: &[u8],
        each: &mut dyn FnMut(&[u8], Bytes) -> Visit,
    ) -> Result<(), KvError> {
        let all = schema::keys(KeyKind::Retained);
        let start = if after.is_empty() { all.start.to_vec() } else { [after, &[0]].concat() };
        keys.scan(&start..&all.end, &mut |key, value| {
            let tenant = key.get(2..schema::tenant_prefix_len(key)).unwrap_or_default();
            each(key, Command::encode_adopt(tenant, value))
        })
    }
}

/// Removes the key that says when `old` expires, if it does.
fn forget_expiry(key: &[u8], old: Bytes, space: &mut dyn KvSpace) -> Result<(), KvError> {
    // What stands in the range was written by us: if it can't be read, the replica must stop.
    let old = Message::decode(old)
        .map_err(|cause| KvError { doing: "read a stored retained message", cause: cause.to_string() })?;
    if let Some(at) = old.expires_at {
        space.delete(&schema::expiry_key(at, key));
    }
    Ok(())
}

#[cfg(test)]
#[path = "coproc_test.rs"]
mod coproc_test;
