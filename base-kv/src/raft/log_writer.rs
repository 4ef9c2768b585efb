use super::Entry;
use super::codec::membership_bytes;
use super::keys::{Slot, entries_end, entry_key, entry_start, slot_span};
use crate::engine::{Batch, Engine, NO_SPACE_WAIT, Sync, is_no_space};
use crate::stats::KvObserver;
use base_kv_api::KvError;
use openraft::EntryPayload;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(feature = "sim"))]
use std::thread::JoinHandle;
use std::time::Instant;

/// The one thread that writes the log of all replicas of the node: it takes whatever waits, writes it as one batch with one
/// fsync, and only then tells everybody.
///
/// The first error is the last word: what failed to reach the disk is never tried again (a later fsync that succeeds would
/// prove nothing), and whatever comes after is refused with the same error. Only a full disk is waited for: nothing was written.
///
/// Its queue needs no bound of its own: each node has a few entries on their way to a range (`KvConfig::entries_in_flight`), a leader a
/// window of bytes to each follower, and a replica waits for each vote and truncation.
pub(crate) struct LogWriter {
    shared: Arc<Shared>,
    #[cfg(not(feature = "sim"))]
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What is written together; all of it or nothing.
pub(crate) enum Change {
    /// Entries of one replica.
    Append(Slot, Vec<Entry>),
    /// A key of a replica.
    Put([u8; 9], Vec<u8>),
    /// No longer a key of a replica.
    Delete([u8; 9]),
    /// The entries from this index on are gone.
    Truncate(Slot, u64),
    /// The entries up to this index are gone.
    Purge(Slot, u64),
    /// All that is known of a replica is gone.
    Forget(Slot),
}

type Done = Box<dyn FnOnce(Result<(), KvError>) + Send>;

struct Job {
    changes: Vec<Change>,
    bytes: usize,
    done: Done,
}

struct Shared {
    queue: Mutex<Queue>,
    #[cfg(not(feature = "sim"))]
    work: parking_lot::Condvar,
    #[cfg(feature = "sim")]
    work: tokio::sync::Notify,
    totals: Totals,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
    failed: Option<KvError>,
}

/// What was written since the start.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) syncs: AtomicU64,
    pub(crate) entries: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// What waits to be written, or is being written.
    pub(crate) waiting: AtomicU64,
}

/// Bytes of one batch.
const BATCH_BYTES: usize = 4 << 20;

impl LogWriter {
    #[cfg(not(feature = "sim"))]
    pub(crate) fn start(engine: Arc<dyn Engine>, sync: Sync, observer: Arc<dyn KvObserver>) -> std::io::Result<Self> {
        let shared =
            Arc::new(Shared { queue: Mutex::default(), work: parking_lot::Condvar::new(), totals: Totals::default() });
        let mine = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("kv-log".into()).spawn(move || run(&mine, &*engine, sync, &*observer))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// The same as a task, with time that passes while the disk syncs.
    #[cfg(feature = "sim")]
    pub(crate) fn start(engine: Arc<dyn Engine>, sync: Sync, observer: Arc<dyn KvObserver>) -> std::io::Result<Self> {
        let shared =
            Arc::new(Shared { queue: Mutex::default(), work: tokio::sync::Notify::new(), totals: Totals::default() });
        let mine = Arc::clone(&shared);
        tokio::spawn(async move {
            let mut jobs = Vec::new();
            loop {
                let bytes = gather(&mut mine.queue.lock(), &mut jobs);
                if jobs.is_empty() {
                    if mine.queue.lock().closed {
                        return;
                    }
                    mine.work.notified().await;
                    continue;
                }
                tokio::time::sleep(crate::sim::sync_takes()).await;
                write(&mine, &*engine, sync, &*observer, &mut jobs, bytes);
            }
        });
        Ok(Self { shared })
    }

    /// Queues changes; `done` is called on the writer's thread, or here when the writer no longer works.
    pub(crate) fn submit(&self, changes: Vec<Change>, done: impl FnOnce(Result<(), KvError>) + Send + 'static) {
        let bytes = changes.iter().map(Change::cost).sum();
        let refused = {
            let mut queue = self.shared.queue.lock();
            match &queue.failed {
                Some(error) => error.clone(),
                None if queue.closed => KvError { doing: "write the log", cause: "the node stops".into() },
                None => {
                    queue.jobs.push_back(Job { changes, bytes, done: Box::new(done) });
                    drop(queue);
                    self.shared.totals.waiting.fetch_add(1, Ordering::Relaxed);
                    self.shared.work.notify_one();
                    return;
                }
            }
        };
        done(Err(refused));
    }

    /// As [`LogWriter::submit`]; done when it is on disk.
    pub(crate) async fn write(&self, changes: Vec<Change>) -> Result<(), KvError> {
        let (tx, rx) = tokio::sync::oneshot::channel();
        self.submit(changes, move |result| {
            // Nobody waits any more: nothing to tell.
            let _ = tx.send(result);
        });
        rx.await.unwrap_or_else(|_| Err(KvError { doing: "write the log", cause: "the writer ended".into() }))
    }

    pub(crate) fn totals(&self) -> &Totals {
        &self.shared.totals
    }

    /// Why nothing is written any more.
    pub(crate) fn failure(&self) -> Option<String> {
        self.shared.queue.lock().failed.as_ref().map(ToString::to_string)
    }

    /// Writes what waits and ends the thread.
    pub(crate) fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.work.notify_one();
        #[cfg(not(feature = "sim"))]
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the log writer panicked");
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(not(feature = "sim"))]
fn run(shared: &Shared, engine: &dyn Engine, sync: Sync, observer: &dyn KvObserver) {
    let mut jobs = Vec::new();
    loop {
        let bytes = {
            let mut queue = shared.queue.lock();
            while queue.jobs.is_empty() {
                if queue.closed {
                    return;
                }
                shared.work.wait(&mut queue);
            }
            gather(&mut queue, &mut jobs)
        };
        write(shared, engine, sync, observer, &mut jobs, bytes);
    }
}

/// Takes what goes into one batch; answers its bytes.
fn gather(queue: &mut Queue, jobs: &mut Vec<Job>) -> usize {
    let mut bytes = 0;
    while let Some(job) = queue.jobs.pop_front() {
        bytes += job.bytes;
        jobs.push(job);
        if bytes >= BATCH_BYTES {
            break;
        }
    }
    bytes
}

/// Writes a batch and tells everybody.
fn write(
    shared: &Shared,
    engine: &dyn Engine,
    sync: Sync,
    observer: &dyn KvObserver,
    jobs: &mut Vec<Job>,
    bytes: usize,
) {
    let started = Instant::now();
    let mut entries = 0;
    let result = loop {
        let result = engine.write(sync, &mut |batch| {
            entries = jobs.iter().flat_map(|job| &job.changes).map(|change| change.fill(batch)).sum();
        });
        match result {
            Err(error) if is_no_space(&error) && !shared.queue.lock().closed => {
                tracing::error!("the log can't be written: the disk is full; waiting for space");
                std::thread::sleep(NO_SPACE_WAIT);
            }
            result => break result,
        }
    };
    match &result {
        Ok(()) => {
            shared.totals.syncs.fetch_add(1, Ordering::Relaxed);
            shared.totals.entries.fetch_add(entries, Ordering::Relaxed);
            shared.totals.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            observer.synced(started.elapsed(), entries, bytes as u64);
        }
        Err(error) => {
            tracing::error!(%error, "the log can't be written: all replicas of this node stop");
            let mut queue = shared.queue.lock();
            queue.failed = Some(error.clone());
            jobs.extend(queue.jobs.drain(..));
        }
    }
    shared.totals.waiting.fetch_sub(jobs.len() as u64, Ordering::Relaxed);
    for job in jobs.drain(..) {
        (job.done)(result.clone());
    }
}

pub(super) const BLANK: u8 = 0;
pub(super) const NORMAL: u8 = 1;
pub(super) const MEMBERSHIP: u8 = 2;

impl Change {
    fn cost(&self) -> usize {
        match self {
            Self::Append(_, entries) => entries.iter().map(entry_cost).sum(),
            _ => 32,
        }
    }

    /// Answers how many entries that were.
    fn fill(&self, batch: &mut dyn Batch) -> u64 {
        match self {
            Self::Append(slot, entries) => {
                for entry in entries {
                    let key = |kind| entry_key(*slot, &entry.log_id, kind);
                    match &entry.payload {
                        EntryPayload::Blank => batch.put(&key(BLANK), b""),
                        EntryPayload::Normal(proposal) => batch.put(&key(NORMAL), &proposal.0),
                        EntryPayload::Membership(m) => batch.put(&key(MEMBERSHIP), &membership_bytes(m)),
                    }
                }
                return entries.len() as u64;
            }
            Self::Put(key, value) => batch.put(key, value),
            Self::Delete(key) => batch.delete(key),
            Self::Truncate(slot, from) => batch.delete_range(&entry_start(*slot, *from)..&entries_end(*slot)),
            Self::Forget(slot) => {
                let span = slot_span(*slot);
                batch.delete_range(&span.start..&span.end);
            }
            Self::Purge(slot, upto) => batch.delete_range(&entry_start(*slot, 0)..&entry_start(*slot, upto + 1)),
        }
        0
    }
}

/// Bytes of an entry in the log, roughly.
pub(crate) fn entry_cost(entry: &Entry) -> usize {
    64 + match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.0.len(),
        _ => 0,
    }
}
