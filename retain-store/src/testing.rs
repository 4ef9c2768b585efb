use crate::RetainCoproc;
use async_trait::async_trait;
use base_kv_api::{ApplyCx, Coproc, KvError, KvRead, KvSpace, MutateError, MutateFuture, RangeClient, Visit};
use base_types::{Clock, ManualClock, Message, QoS, TenantId, TopicName, WallMs};
use bytes::Bytes;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::ready;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Keys in memory that count how many of them a scan looks at.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Keys {
    map: BTreeMap<Vec<u8>, Bytes>,
    visited: Cell<usize>,
}

impl Keys {
    pub(crate) fn visited(&self) -> usize {
        self.visited.get()
    }
}

impl Keys {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Vec<u8>, &Bytes)> {
        self.map.iter()
    }
}

impl KvRead for Keys {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.map.get(key).cloned())
    }

    fn scan(&self, keys: Range<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), KvError> {
        for (key, value) in self.map.range(keys.start.to_vec()..keys.end.to_vec()) {
            self.visited.set(self.visited.get() + 1);
            if visit(key, value) == Visit::Enough {
                break;
            }
        }
        Ok(())
    }
}

impl KvSpace for Keys {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.map.insert(key.to_vec(), Bytes::copy_from_slice(value));
    }

    fn delete(&mut self, key: &[u8]) {
        self.map.remove(key);
    }

    fn delete_range(&mut self, keys: Range<&[u8]>) {
        self.map.retain(|key, _| !(keys.start..keys.end).contains(&key.as_slice()));
    }
}

/// A range of one replica in memory that applies at once.
pub(crate) struct Replica {
    clock: Arc<ManualClock>,
    state: Mutex<(RetainCoproc, Keys)>,
}

impl Replica {
    pub(crate) fn new(coproc: RetainCoproc, clock: Arc<ManualClock>) -> Self {
        Self { clock, state: Mutex::new((coproc, Keys::default())) }
    }
}

#[async_trait]
impl RangeClient for Replica {
    fn mutate(&self, _: &[u8], command: Bytes) -> MutateFuture {
        let (coproc, keys) = &mut *self.state.lock().unwrap();
        let cx = ApplyCx { index: 1, position: 0, stamped: self.clock.wall() };
        let reply = coproc.mutate(&cx, &command, keys).unwrap();
        coproc.applied();
        Box::pin(ready(Ok(reply)))
    }

    fn read(&self, _: &[u8], with: &mut dyn FnMut(&dyn KvRead) -> Result<(), KvError>) -> Result<(), KvError> {
        with(&self.state.lock().unwrap().1)
    }

    async fn linearize(&self, _: &[u8]) -> Result<(), MutateError> {
        Ok(())
    }

    async fn ready(&self) {}
}

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

pub(crate) fn message(topic: &str, payload: &str, expires_at: Option<u64>) -> Message {
    Message {
        topic: TopicName::new(topic).unwrap(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: QoS::AtLeastOnce,
        retain: true,
        properties: Bytes::new(),
        expires_at: expires_at.map(WallMs),
        publisher: None,
    }
}
