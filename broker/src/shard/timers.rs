use crate::live::SessionRef;
use base_types::Clock;
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;
use tokio::sync::Notify;

/// The deadlines of a shard. Entries are hints: whoever is called looks whether its deadline has really come, and moved deadlines
/// are found late instead of being moved here with every packet.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: RefCell<BinaryHeap<Hint>>,
    earlier: Notify,
}

/// A moment, and the session to call then; without one, only the loop. The earliest is the greatest.
type Hint = Reverse<(Instant, Option<SessionRef>)>;

impl Timers {
    /// Calls the session, or only the loop, at `at`.
    pub(crate) fn set(&self, at: Instant, session: Option<SessionRef>) {
        let mut heap = self.heap.borrow_mut();
        let first = heap.peek().is_none_or(|Reverse((first, _))| at < *first);
        heap.push(Reverse((at, session)));
        drop(heap);
        if first {
            self.earlier.notify_one();
        }
    }

    /// Waits until something is due.
    pub(crate) async fn wait(&self, clock: &dyn Clock) {
        loop {
            let next = self.heap.borrow().peek().map(|Reverse((at, _))| *at);
            match next {
                Some(at) if at <= clock.now() => return,
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at.into()) => return,
                    () = self.earlier.notified() => {}
                },
                None => self.earlier.notified().await,
            }
        }
    }

    /// Takes a session that is due.
    pub(crate) fn due(&self, now: Instant) -> Option<SessionRef> {
        let mut heap = self.heap.borrow_mut();
        while let Some(Reverse((at, _))) = heap.peek() {
            if *at > now {
                return None;
            }
            if let Some(Reverse((_, Some(session)))) = heap.pop() {
                return Some(session);
            }
        }
        None
    }
}
