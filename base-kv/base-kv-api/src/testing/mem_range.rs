use super::MemSpace;
use crate::{ApplyCx, Coproc, KvError, KvRead, MutateError, MutateFuture, Overlay, RangeClient};
use async_trait::async_trait;
use base_types::{Clock, WallMs};
use bytes::Bytes;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};

/// A range with one replica, in memory, without Raft and without threads.
///
/// `mutate` applies before it returns, each command as an entry of its own; so a coprocessor must not call `mutate` itself. Between [`MemRange::hold`] and
/// [`MemRange::release`] commands wait, as they would for an fsync, and then share one entry.
#[derive(Clone)]
pub struct MemRange {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    space: RwLock<MemSpace>,
    machine: Mutex<Machine>,
}

struct Machine {
    coproc: Box<dyn Coproc>,
    index: u64,
    stamped: WallMs,
    held: bool,
    waiting: Vec<(Bytes, Slot)>,
    refusals: VecDeque<MutateError>,
}

type Reply = Result<Bytes, MutateError>;

#[derive(Clone, Default)]
pub(super) struct Slot(Arc<Mutex<(Option<Reply>, Option<Waker>)>>);

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    pub(super) fn fill(&self, reply: Reply) {
        let waker = {
            let mut slot = lock(&self.0);
            slot.0 = Some(reply);
            slot.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Future for Slot {
    type Output = Reply;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        let mut slot = lock(&self.0);
        match slot.0.take() {
            Some(reply) => Poll::Ready(reply),
            None => {
                slot.1 = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl MemRange {
    /// A range over no keys; the coprocessor is reset over them and leads.
    ///
    /// # Errors
    /// When the reset fails.
    pub fn new(coproc: impl Coproc, clock: Arc<dyn Clock>) -> Result<Self, KvError> {
        Self::over(MemSpace::default(), coproc, clock)
    }

    /// A range over keys that are there already: what a restart finds.
    ///
    /// # Errors
    /// When the reset fails.
    pub fn over(space: MemSpace, mut coproc: impl Coproc, clock: Arc<dyn Clock>) -> Result<Self, KvError> {
        coproc.reset(&space)?;
        coproc.on_leader(true);
        let machine = Machine {
            coproc: Box::new(coproc),
            index: 0,
            stamped: WallMs(0),
            held: false,
            waiting: Vec::new(),
            refusals: VecDeque::new(),
        };
        Ok(Self { shared: Arc::new(Shared { clock, space: RwLock::new(space), machine: Mutex::new(machine) }) })
    }

    /// A copy of the keys.
    #[must_use]
    pub fn space(&self) -> MemSpace {
        self.shared.space.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on commands wait for [`MemRange::release`].
    pub fn hold(&self) {
        lock(&self.shared.machine).held = true;
    }

    /// Applies what waits, as one entry, and no longer holds.
    pub fn release(&self) {
        let mut machine = lock(&self.shared.machine);
        machine.held = false;
        let waiting = std::mem::take(&mut machine.waiting);
        self.shared.apply(&mut machine, waiting);
    }

    /// How many commands wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.shared.machine).waiting.len()
    }

    /// The next `mutate` is answered so and not applied; several calls queue up.
    pub fn refuse_next(&self, with: MutateError) {
        lock(&self.shared.machine).refusals.push_back(with);
    }
}

impl Shared {
    fn apply(&self, machine: &mut Machine, commands: Vec<(Bytes, Slot)>) {
        if commands.is_empty() {
            return;
        }
        machine.index += 1;
        machine.stamped = machine.stamped.max(self.clock.wall());
        let mut replies = Vec::with_capacity(commands.len());
        let writes = {
            let space = self.space.read().unwrap_or_else(PoisonError::into_inner);
            let mut overlay = Overlay::new(&*space);
            for ((command, slot), position) in commands.into_iter().zip(0..) {
                let cx = ApplyCx { index: machine.index, position, stamped: machine.stamped };
                let reply = machine.coproc.mutate(&cx, &command, &mut overlay);
                replies.push((slot, reply.map_err(|e| MutateError::Stopped { cause: e.to_string() })));
            }
            overlay.into_writes()
        };
        self.space.write().unwrap_or_else(PoisonError::into_inner).write(&writes);
        machine.coproc.applied();
        for (slot, reply) in replies {
            slot.fill(reply);
        }
    }
}

#[async_trait]
impl RangeClient for MemRange {
    fn mutate(&self, _key: &[u8], command: Bytes) -> MutateFuture {
        let slot = Slot::default();
        let mut machine = lock(&self.shared.machine);
        if let Some(refusal) = machine.refusals.pop_front() {
            slot.fill(Err(refusal));
        } else if machine.held {
            machine.waiting.push((command, slot.clone()));
        } else {
            self.shared.apply(&mut machine, vec![(command, slot.clone())]);
        }
        Box::pin(slot)
    }

    fn read(&self, _key: &[u8], with: &mut dyn FnMut(&dyn KvRead) -> Result<(), KvError>) -> Result<(), KvError> {
        with(&*self.shared.space.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn linearize(&self, _key: &[u8]) -> Result<(), MutateError> {
        Ok(())
    }

    async fn ready(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::harness::tests::Counter;
    use base_types::ManualClock;

    fn range() -> MemRange {
        MemRange::new(Counter::default(), Arc::new(ManualClock::new(WallMs(7)))).unwrap()
    }

    fn now(mut future: MutateFuture) -> Option<Reply> {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(reply) => Some(reply),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_command_is_applied_at_once_and_seen_by_readers() {
        let range = range();
        assert_eq!(now(range.mutate(b"", Bytes::from_static(b"a"))), Some(Ok(Bytes::from_static(b"1"))));
        assert_eq!(now(range.mutate(b"", Bytes::from_static(b"a"))), Some(Ok(Bytes::from_static(b"2"))));
        let mut seen = None;
        range
            .read(b"", &mut |keys| {
                seen = keys.get(b"a")?;
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, Some(Bytes::from_static(b"2")));
    }

    #[test]
    fn a_held_command_has_no_reply_before_it_is_released() {
        let range = range();
        range.hold();
        let mut reply = range.mutate(b"", Bytes::from_static(b"a"));
        assert!(reply.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(range.waiting(), 1);
        range.release();
        assert_eq!(now(reply), Some(Ok(Bytes::from_static(b"1"))));
    }

    #[test]
    fn a_refused_command_is_not_applied() {
        let range = range();
        range.refuse_next(MutateError::NoLeader);
        assert_eq!(now(range.mutate(b"", Bytes::from_static(b"a"))), Some(Err(MutateError::NoLeader)));
        assert!(range.space().is_empty());
    }
}
