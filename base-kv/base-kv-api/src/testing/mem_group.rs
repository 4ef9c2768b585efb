use super::MemSpace;
use super::mem_range::{Slot, lock};
use crate::{ApplyCx, Coproc, KvError, KvRead, MutateError, MutateFuture, Overlay, RangeClient};
use async_trait::async_trait;
use base_types::{Clock, WallMs};
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// A range with several replicas, in memory, without Raft: one log of committed commands, in which each replica has come as far as it was let.
///
/// A command is committed as soon as there is a leader, is applied at once by each replica that is not held, and is answered when the
/// replica of its node has applied it. The first replica leads at the start.
#[derive(Clone)]
pub struct MemGroup {
    shared: Arc<Shared>,
}

/// The range as the node of one replica sees it.
#[derive(Clone)]
pub struct MemReplica {
    shared: Arc<Shared>,
    node: usize,
}

struct Shared {
    clock: Arc<dyn Clock>,
    spaces: Vec<RwLock<MemSpace>>,
    group: Mutex<Group>,
}

struct Group {
    log: Vec<(WallMs, Bytes)>,
    leader: Option<usize>,
    replicas: Vec<Replica>,
}

struct Replica {
    coproc: Box<dyn Coproc>,
    applied: usize,
    held: bool,
    /// Who waits for the reply of an entry, or for its application alone.
    waiting: Vec<(usize, Slot)>,
}

impl MemGroup {
    /// A range over no keys, with a replica of each of these coprocessors.
    ///
    /// # Errors
    /// When a reset fails.
    pub fn new<C: Coproc>(coprocs: impl IntoIterator<Item = C>, clock: Arc<dyn Clock>) -> Result<Self, KvError> {
        let mut replicas = Vec::new();
        for mut coproc in coprocs {
            coproc.reset(&MemSpace::default())?;
            coproc.on_leader(replicas.is_empty());
            replicas.push(Replica { coproc: Box::new(coproc), applied: 0, held: false, waiting: Vec::new() });
        }
        let spaces = replicas.iter().map(|_| RwLock::default()).collect();
        let group = Mutex::new(Group { log: Vec::new(), leader: Some(0), replicas });
        Ok(Self { shared: Arc::new(Shared { clock, spaces, group }) })
    }

    /// The range as the node of this replica sees it.
    #[must_use]
    pub fn on(&self, node: usize) -> MemReplica {
        MemReplica { shared: Arc::clone(&self.shared), node }
    }

    /// Another replica leads, or none; it has applied all that was committed.
    pub fn lead(&self, leader: Option<usize>) {
        let mut group = lock(&self.shared.group);
        if let Some(old) = std::mem::replace(&mut group.leader, leader) {
            group.replicas[old].coproc.on_leader(false);
        }
        if let Some(new) = leader {
            self.shared.catch_up(&mut group, new);
            group.replicas[new].coproc.on_leader(true);
        }
    }

    /// From now on a replica lags.
    pub fn hold(&self, node: usize) {
        lock(&self.shared.group).replicas[node].held = true;
    }

    /// A replica applies what it lags, as one batch, and no longer lags.
    pub fn release(&self, node: usize) {
        let mut group = lock(&self.shared.group);
        group.replicas[node].held = false;
        self.shared.catch_up(&mut group, node);
    }

    /// A replica gets the keys of another in place of the entries that it lags, and no longer lags. What its node waits for stays unknown.
    ///
    /// # Errors
    /// When the reset fails.
    pub fn install(&self, node: usize, from: usize) -> Result<(), KvError> {
        let mut group = lock(&self.shared.group);
        let keys = self.shared.space(from);
        *self.shared.spaces[node].write().unwrap_or_else(PoisonError::into_inner) = keys.clone();
        let applied = group.replicas[from].applied;
        let replica = &mut group.replicas[node];
        (replica.applied, replica.held) = (applied, false);
        let result = replica.coproc.reset(&keys);
        for (_, slot) in replica.waiting.drain(..) {
            slot.fill(Err(MutateError::Unknown));
        }
        self.shared.catch_up(&mut group, node);
        result
    }

    /// A copy of the keys of a replica.
    #[must_use]
    pub fn space(&self, node: usize) -> MemSpace {
        self.shared.space(node)
    }
}

impl Shared {
    fn space(&self, node: usize) -> MemSpace {
        self.spaces[node].read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn catch_up(&self, group: &mut Group, node: usize) {
        let replica = &mut group.replicas[node];
        let (first, entries) = (replica.applied, &group.log[replica.applied..]);
        let mut replies = Vec::with_capacity(entries.len());
        let writes = {
            let space = self.spaces[node].read().unwrap_or_else(PoisonError::into_inner);
            let mut overlay = Overlay::new(&*space);
            for ((stamped, command), index) in entries.iter().zip(first as u64 + 1..) {
                let cx = ApplyCx { index, position: 0, stamped: *stamped };
                let reply = replica.coproc.mutate(&cx, command, &mut overlay);
                replies.push(reply.map_err(|error| MutateError::Stopped { cause: error.to_string() }));
            }
            overlay.into_writes()
        };
        self.spaces[node].write().unwrap_or_else(PoisonError::into_inner).write(&writes);
        replica.applied = group.log.len();
        if !replies.is_empty() {
            replica.coproc.applied();
        }
        for (index, slot) in replica.waiting.extract_if(.., |(index, _)| *index < first + replies.len()) {
            // Who waits for an entry of before waits for its application alone.
            slot.fill(index.checked_sub(first).map_or_else(|| Ok(Bytes::new()), |at| replies[at].clone()));
        }
    }
}

#[async_trait]
impl RangeClient for MemReplica {
    fn mutate(&self, _key: &[u8], command: Bytes) -> MutateFuture {
        let slot = Slot::default();
        let mut group = lock(&self.shared.group);
        if group.leader.is_none() {
            slot.fill(Err(MutateError::NoLeader));
            return Box::pin(slot);
        }
        let stamped = group.log.last().map_or(WallMs(0), |(last, _)| *last).max(self.shared.clock.wall());
        let index = group.log.len();
        group.log.push((stamped, command));
        group.replicas[self.node].waiting.push((index, slot.clone()));
        for node in 0..group.replicas.len() {
            if !group.replicas[node].held {
                self.shared.catch_up(&mut group, node);
            }
        }
        Box::pin(slot)
    }

    fn read(&self, _key: &[u8], with: &mut dyn FnMut(&dyn KvRead) -> Result<(), KvError>) -> Result<(), KvError> {
        with(&*self.shared.spaces[self.node].read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn linearize(&self, _key: &[u8]) -> Result<(), MutateError> {
        let slot = Slot::default();
        {
            let mut group = lock(&self.shared.group);
            if group.leader.is_none() {
                return Err(MutateError::NoLeader);
            }
            let last = group.log.len();
            let replica = &mut group.replicas[self.node];
            if replica.applied == last {
                return Ok(());
            }
            replica.waiting.push((last - 1, slot.clone()));
        }
        slot.await.map(drop)
    }

    async fn ready(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::harness::tests::Counter;
    use base_types::ManualClock;
    use std::task::{Context, Poll, Waker};

    fn group() -> MemGroup {
        MemGroup::new((0..3).map(|_| Counter::default()), Arc::new(ManualClock::new(WallMs(7)))).unwrap()
    }

    fn now<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        match std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_reply_waits_for_the_replica_of_its_node_and_for_no_other() {
        let group = group();
        group.hold(1);
        let mut here = group.on(0).mutate(b"", Bytes::from_static(b"a"));
        let mut there = group.on(1).mutate(b"", Bytes::from_static(b"a"));
        let linear = group.on(1);
        let mut linear = linear.linearize(b"");
        assert_eq!(now(&mut here), Some(Ok(Bytes::from_static(b"1"))));
        assert_eq!((now(&mut there), now(&mut linear)), (None, None));
        assert!(group.space(1).is_empty());
        group.release(1);
        assert_eq!(now(&mut there), Some(Ok(Bytes::from_static(b"2"))));
        assert_eq!(now(&mut linear), Some(Ok(())));
        assert_eq!(group.space(0), group.space(1));
    }

    #[test]
    fn without_a_leader_nothing_is_committed() {
        let group = group();
        group.lead(None);
        assert_eq!(now(&mut group.on(0).mutate(b"", Bytes::new())), Some(Err(MutateError::NoLeader)));
        group.lead(Some(2));
        assert_eq!(now(&mut group.on(0).mutate(b"", Bytes::new())), Some(Ok(Bytes::from_static(b"1"))));
    }

    #[test]
    fn a_replica_that_gets_a_snapshot_has_the_keys_and_no_replies() {
        let group = group();
        group.hold(1);
        let mut reply = group.on(1).mutate(b"", Bytes::from_static(b"a"));
        group.install(1, 0).unwrap();
        assert_eq!(now(&mut reply), Some(Err(MutateError::Unknown)));
        assert_eq!(group.space(0), group.space(1));
        assert_eq!(now(&mut group.on(1).mutate(b"", Bytes::from_static(b"a"))), Some(Ok(Bytes::from_static(b"2"))));
    }
}
