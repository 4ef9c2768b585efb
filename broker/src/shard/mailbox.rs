use crate::listener::Arrival;
use crate::live::{SessionRef, Target};
use base_types::Message;
use inbox_api::SessionVersion;
use mqtt_codec::ReasonCode;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, oneshot};

/// What reaches a shard from other threads. Every push is one short lock; the shard takes everything at once.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    letters: Mutex<Vec<Letter>>,
    arrived: Notify,
    /// Bytes of messages that wait, each counted once for each letter.
    bytes: AtomicUsize,
}

/// Above this many bytes in one mailbox, shards stop reading from publishers until it is taken (design P6: the behaviour is *wait*).
const BYTES_HIGH: usize = 32 << 20;

#[derive(Debug)]
pub(crate) enum Letter {
    /// A new connection.
    Arrival(Arrival),
    /// A message for sessions of this shard.
    Deliver { message: Arc<Message>, targets: SmallVec<[Target; 1]> },
    /// The inbox of a session has new entries.
    Queued(SessionRef),
    /// The inbox that was attached with this version belongs to somebody else now.
    Fenced(SessionRef, SessionVersion),
    /// End a session and tell when it is over.
    Kick { session: SessionRef, reason: ReasonCode, done: Option<oneshot::Sender<()>> },
    /// Users or rules have changed: who may no longer be connected leaves.
    AccessChanged,
    /// End all sessions.
    Shutdown { publish_wills: bool, reason: ReasonCode },
}

impl Mailbox {
    pub(crate) fn push(&self, letter: Letter) {
        if let Letter::Deliver { message, .. } = &letter {
            self.bytes.fetch_add(message.cost(), Ordering::Relaxed);
        }
        let mut letters = self.letters.lock();
        let was_empty = letters.is_empty();
        letters.push(letter);
        drop(letters);
        if was_empty {
            self.arrived.notify_one();
        }
    }

    /// Pushes all of `letters`, with one lock and one wake-up.
    pub(crate) fn push_all(&self, letters: &mut Vec<Letter>) {
        let bytes =
            letters.iter().map(|l| if let Letter::Deliver { message, .. } = l { message.cost() } else { 0 }).sum();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut queue = self.letters.lock();
        let was_empty = queue.is_empty();
        queue.append(letters);
        drop(queue);
        if was_empty {
            self.arrived.notify_one();
        }
    }

    /// Lets the shard look once more.
    pub(crate) fn wake(&self) {
        self.arrived.notify_one();
    }

    /// Whether senders should wait before they bring more.
    pub(crate) fn is_congested(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > BYTES_HIGH
    }

    /// Swaps what has arrived into `into`, which must be empty.
    pub(crate) fn take(&self, into: &mut Vec<Letter>) {
        std::mem::swap(&mut *self.letters.lock(), into);
        self.bytes.store(0, Ordering::Relaxed);
    }

    /// Waits until something has arrived since the last [`Mailbox::take`].
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }
}
