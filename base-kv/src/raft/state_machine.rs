use super::codec::Applied;
use super::image::read_image;
use super::keys::{INSTALLING, Slot, applied_key, data_key, data_span, slot_key, slot_span};
use super::log_store::Progress;
use super::log_writer::{Change, LogWriter, entry_cost};
use super::proposers::{Last, Verdict};
use super::{Image, LogId, Origin, Snapshot, SnapshotMeta, StoredMembership, Types, io_error};
use crate::engine::{Engine, NO_SPACE_WAIT, Sync, is_no_space};
use base_kv_api::{ApplyCx, Coproc, KvError, KvRead, Overlay, Visit, Writes};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use parking_lot::Mutex;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::{Notify, watch};

/// The coprocessor of a range on this node: lent to the replica that lives here, and to the one that takes its place.
pub(crate) type SharedCoproc = Arc<Mutex<Box<dyn Coproc>>>;

/// Who waits for what this node proposed: told as its own replica applies it.
pub(crate) trait Settle: Send + core::marker::Sync + 'static {
    /// The proposer.
    fn proposer(&self) -> u64;

    /// Entries of the proposer, in the order of the log; their effects are visible.
    fn settled(&self, entries: Vec<(Origin, Outcome)>);

    /// A snapshot took the place of entries: `last` of the proposer is applied, and its replies are not known here.
    fn skipped(&self, last: Last);
}

/// How an entry of this node's proposer ended.
pub(crate) enum Outcome {
    /// Applied now.
    Applied(Vec<Bytes>),
    /// Not applied, now.
    Refused(Verdict),
}

/// The data of a replica and the coprocessor that lives on it.
pub(crate) struct Machine {
    slot: Slot,
    data: Arc<dyn Engine>,
    log: Arc<dyn Engine>,
    coproc: SharedCoproc,
    settle: Arc<dyn Settle>,
    /// The index up to which is applied, plus 1.
    reached: watch::Sender<u64>,
    applied: Mutex<Applied>,
    progress: Arc<Progress>,
    staging: PathBuf,
    /// Entries and bytes that were applied since the last flush; when they exceed their limits, `purge_due` is told.
    since_flush: [AtomicU64; 2],
    limits: [u64; 2],
    purge_due: Notify,
    /// Held while data and coprocessor change.
    changing: tokio::sync::Mutex<()>,
    closed: AtomicBool,
}

/// What openraft drives.
pub(crate) struct StateMachine {
    machine: Arc<Machine>,
    writer: Arc<LogWriter>,
    /// A snapshot was built or installed in this run.
    has_snapshot: bool,
}

/// The keys of one replica, without the slot that stands in front of each.
pub(crate) struct Keys<'a> {
    slot: Slot,
    all: &'a dyn KvRead,
}

impl Keys<'_> {
    /// Visits all pairs in key order.
    pub(crate) fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), KvError> {
        let span = data_span(self.slot);
        self.all.scan(&span.start..&span.end, &mut |key, value| visit(&key[9..], value))
    }
}

impl KvRead for Keys<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let mut full = Vec::with_capacity(9 + key.len());
        data_key(self.slot, key, &mut full);
        self.all.get(&full)
    }

    fn scan(&self, keys: Range<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), KvError> {
        let (mut start, mut end) = (Vec::with_capacity(64), Vec::with_capacity(64));
        data_key(self.slot, keys.start, &mut start);
        data_key(self.slot, keys.end, &mut end);
        self.all.scan(&start..&end, &mut |key, value| visit(&key[9..], value))
    }
}

/// The engine as it is now: for the only one who writes.
struct Now<'a>(&'a dyn Engine);

impl KvRead for Now<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.0.get(key)
    }

    fn scan(&self, keys: Range<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), KvError> {
        self.0.scan(keys, visit)
    }
}

type Pending = (super::Entry, Option<ApplyResponder<Types>>);

/// What a batch of entries does, once written.
struct Prepared {
    writes: Writes,
    applied: Applied,
    responders: Vec<ApplyResponder<Types>>,
    settled: Vec<(Origin, Outcome)>,
    count: u64,
    bytes: u64,
}

/// Bytes of entries that are applied as one batch.
const BATCH_BYTES: usize = 4 << 20;

fn damaged(error: impl std::fmt::Display) -> KvError {
    KvError { doing: "apply", cause: error.to_string() }
}

impl Machine {
    /// Takes up the data of a slot; a snapshot whose installation was cut off is installed first.
    #[expect(clippy::too_many_arguments, reason = "all that a replica stands on")]
    pub(crate) fn open(
        slot: Slot,
        log: Arc<dyn Engine>,
        data: Arc<dyn Engine>,
        coproc: SharedCoproc,
        settle: Arc<dyn Settle>,
        progress: Arc<Progress>,
        staging: PathBuf,
        limits: [u64; 2],
    ) -> Result<Self, KvError> {
        let machine = Self {
            slot,
            data,
            log,
            coproc,
            settle,
            reached: watch::Sender::new(0),
            applied: Mutex::default(),
            progress,
            staging,
            since_flush: [AtomicU64::new(0), AtomicU64::new(0)],
            limits,
            purge_due: Notify::new(),
            changing: tokio::sync::Mutex::default(),
            closed: AtomicBool::new(false),
        };
        if machine.log.get(&slot_key(slot, INSTALLING))?.is_some() {
            tracing::warn!(slot = slot.0, "a crash cut off the installation of a snapshot; it is done again");
            machine.install()?;
            machine.log.write(Sync::Now, &mut |batch| batch.delete(&slot_key(slot, INSTALLING)))?;
        }
        machine.load()?;
        // What is found at the start is on disk: nothing else survived.
        machine.progress.flushed.store(machine.progress.applied.load(Ordering::Acquire), Ordering::Release);
        Ok(machine)
    }

    fn load(&self) -> Result<(), KvError> {
        let bytes = self.data.get(&applied_key(self.slot))?;
        let applied = bytes.map(Applied::decode).transpose().map_err(damaged)?.unwrap_or_default();
        self.coproc.lock().reset(&Keys { slot: self.slot, all: &Now(&*self.data) })?;
        let reached = applied.log_id.map_or(0, |id| id.index + 1);
        self.progress.applied.store(reached, Ordering::Release);
        if let Some(last) = applied.proposers.last(self.settle.proposer()) {
            self.settle.skipped(last);
        }
        *self.applied.lock() = applied;
        self.reached.send_replace(reached);
        Ok(())
    }

    /// Returns when everything up to an index is applied.
    pub(crate) async fn reached(&self, index: u64) {
        // The sender lives as long as `self`.
        let _ = self.reached.subscribe().wait_for(|reached| *reached > index).await;
    }

    /// The membership that is applied, hence committed.
    pub(crate) fn membership(&self) -> StoredMembership {
        self.applied.lock().membership.clone()
    }

    /// Reads the keys of the store at one moment.
    pub(crate) fn read(&self, with: &mut dyn FnMut(&dyn KvRead) -> Result<(), KvError>) -> Result<(), KvError> {
        self.data.view(&mut |all| with(&Keys { slot: self.slot, all }))
    }

    /// As [`Machine::read`], and how far that moment is.
    pub(crate) fn view(&self, with: &mut dyn FnMut(&Applied, &Keys<'_>) -> Result<(), KvError>) -> Result<(), KvError> {
        self.data.view(&mut |all| {
            let applied = all.get(&applied_key(self.slot))?;
            let applied = applied.map(Applied::decode).transpose().map_err(damaged)?.unwrap_or_default();
            with(&applied, &Keys { slot: self.slot, all })
        })
    }

    /// The coprocessor is told whether this replica leads.
    pub(crate) fn on_leader(&self, leads: bool) {
        self.coproc.lock().on_leader(leads);
    }

    /// Returns when so much was applied that the data should be flushed and the log purged.
    pub(crate) async fn purge_due(&self) {
        while !self.is_purge_due() {
            self.purge_due.notified().await;
        }
    }

    fn is_purge_due(&self) -> bool {
        self.since_flush.iter().zip(self.limits).any(|(since, limit)| since.load(Ordering::Relaxed) >= limit)
    }

    /// Nothing changes data or coprocessor any more once this returned: they are another replica's. Raft's own tasks may linger.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        drop(self.changing.lock().await);
    }

    async fn change(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, io::Error> {
        let changing = self.changing.lock().await;
        if self.closed.load(Ordering::Acquire) {
            return Err(io_error("the replica was stopped"));
        }
        Ok(changing)
    }

    async fn apply(&self, entries: Vec<Pending>) -> Result<(), io::Error> {
        let _changing = self.change().await?;
        let batch = self.prepare(entries).map_err(io_error)?;
        loop {
            match self.commit(&batch) {
                Ok(()) => break,
                Err(error) if is_no_space(&error) && !self.closed.load(Ordering::Acquire) => {
                    tokio::time::sleep(NO_SPACE_WAIT).await;
                }
                Err(error) => return Err(io_error(error)),
            }
        }
        self.publish(batch);
        Ok(())
    }

    /// Lets the coprocessor mutate, over what is there; nothing is visible yet.
    fn prepare(&self, entries: Vec<Pending>) -> Result<Prepared, KvError> {
        let mut applied = self.applied.lock().clone();
        let mut coproc = self.coproc.lock();
        let now = Now(&*self.data);
        let keys = Keys { slot: self.slot, all: &now };
        let mut overlay = Overlay::new(&keys);
        let (mut responders, mut settled) = (Vec::with_capacity(entries.len()), Vec::new());
        let me = self.settle.proposer();
        let (count, mut bytes) = (entries.len() as u64, 0);
        for (entry, responder) in entries {
            bytes += entry_cost(&entry) as u64;
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Membership(members) => {
                    applied.membership = StoredMembership::new(Some(entry.log_id), members);
                }
                EntryPayload::Normal(proposal) => {
                    applied.stamped = applied.stamped.max(proposal.stamped().map_err(damaged)?);
                    let origin = proposal.origin().map_err(damaged)?;
                    let verdict =
                        origin.map_or(Verdict::Apply, |origin| applied.proposers.admit(&origin, applied.stamped));
                    let mine = origin.filter(|origin| origin.proposer == me);
                    let mut replies = Vec::new();
                    if verdict == Verdict::Apply {
                        for (command, position) in proposal.commands().map_err(damaged)?.zip(0..) {
                            let command = command.map_err(damaged)?;
                            let cx = ApplyCx { index: entry.log_id.index, position, stamped: applied.stamped };
                            let reply = coproc.mutate(&cx, &command, &mut overlay)?;
                            if mine.is_some() {
                                replies.push(reply);
                            }
                        }
                    }
                    if let Some(origin) = mine {
                        let outcome = match verdict {
                            Verdict::Apply => Outcome::Applied(replies),
                            verdict => Outcome::Refused(verdict),
                        };
                        settled.push((origin, outcome));
                    }
                }
            }
            applied.log_id = Some(entry.log_id);
            responders.extend(responder);
        }
        let writes = overlay.into_writes();
        Ok(Prepared { writes, applied, responders, settled, count, bytes })
    }

    /// Writes, whole or not at all.
    fn commit(&self, batch: &Prepared) -> Result<(), KvError> {
        let (mut key, mut end) = (Vec::with_capacity(128), Vec::with_capacity(128));
        let state = batch.applied.encode();
        self.data.write(Sync::Never, &mut |out| {
            for (from, to) in batch.writes.deleted_ranges() {
                data_key(self.slot, from, &mut key);
                data_key(self.slot, to, &mut end);
                out.delete_range(&key..&end);
            }
            for (own, value) in batch.writes.keys() {
                data_key(self.slot, own, &mut key);
                match value {
                    Some(value) => out.put(&key, value),
                    None => out.delete(&key),
                }
            }
            out.put(&applied_key(self.slot), &state);
        })
    }

    /// Tells the coprocessor that its writes are visible, then everybody who waits.
    fn publish(&self, batch: Prepared) {
        let reached = batch.applied.log_id.map_or(0, |id| id.index + 1);
        self.progress.applied.store(reached, Ordering::Release);
        *self.applied.lock() = batch.applied;
        self.coproc.lock().applied();
        if !batch.settled.is_empty() {
            self.settle.settled(batch.settled);
        }
        self.reached.send_replace(reached);
        for responder in batch.responders {
            responder.send(());
        }
        for (since, more) in self.since_flush.iter().zip([batch.count, batch.bytes]) {
            since.fetch_add(more, Ordering::Relaxed);
        }
        if self.is_purge_due() {
            self.purge_due.notify_one();
        }
    }

    /// Makes durable what is applied now.
    fn flush(&self) -> Result<Applied, KvError> {
        let applied = self.applied.lock().clone();
        self.since_flush.iter().for_each(|since| since.store(0, Ordering::Relaxed));
        self.data.flush()?;
        self.progress.flushed.fetch_max(applied.log_id.map_or(0, |id| id.index + 1), Ordering::AcqRel);
        Ok(applied)
    }

    fn image_path(&self) -> PathBuf {
        self.staging.join(format!("{}.snapshot", self.slot.0))
    }

    /// Replaces all keys by those of the file at [`Machine::image_path`]. Repeatable.
    fn install(&self) -> Result<(), KvError> {
        let path = self.image_path();
        let applied = read_image(&path, &mut |_, _| Ok(()))?;
        let staging = self.staging.join(self.slot.0.to_string());
        let io = |error: io::Error| KvError { doing: "stage a snapshot", cause: error.to_string() };
        std::fs::create_dir_all(&staging).map_err(io)?;
        let span = slot_span(self.slot);
        self.data.replace(&span.start..&span.end, &staging, &mut |sink| {
            sink(&applied_key(self.slot), &applied.encode())?;
            let mut full = Vec::new();
            read_image(&path, &mut |key, value| {
                data_key(self.slot, key, &mut full);
                sink(&full, value)
            })?;
            Ok(())
        })?;
        std::fs::remove_dir_all(&staging).map_err(io)
    }
}

impl StateMachine {
    pub(crate) fn new(machine: Arc<Machine>, writer: Arc<LogWriter>) -> Self {
        Self { machine, writer, has_snapshot: false }
    }

    fn snapshot(&self, applied: Applied) -> Snapshot {
        Snapshot {
            meta: SnapshotMeta { last_log_id: applied.log_id, last_membership: applied.membership },
            snapshot: Image::Live(Arc::clone(&self.machine)),
        }
    }
}

/// "Builds" a snapshot: flushes the data, so that the log can be purged up to what was applied.
pub(crate) struct Builder(StateMachine);

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Image;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        loop {
            let machine = Arc::clone(&self.0.machine);
            match crate::off_thread::off_thread(move || machine.flush()).await.map_err(io_error)? {
                Ok(applied) => return Ok(self.0.snapshot(applied)),
                Err(error) if is_no_space(&error) => tokio::time::sleep(NO_SPACE_WAIT).await,
                Err(error) => return Err(io_error(error)),
            }
        }
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = Image;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.machine.applied.lock();
        Ok((applied.log_id, applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(next) = entries.next().await {
            let pending = next?;
            bytes += entry_cost(&pending.0);
            batch.push(pending);
            if bytes >= BATCH_BYTES {
                bytes = 0;
                self.machine.apply(std::mem::take(&mut batch)).await?;
            }
        }
        if batch.is_empty() { Ok(()) } else { self.machine.apply(batch).await }
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Builder> {
        self.has_snapshot = true;
        Some(Builder(Self::new(Arc::clone(&self.machine), Arc::clone(&self.writer))))
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.has_snapshot = true;
        Builder(Self::new(Arc::clone(&self.machine), Arc::clone(&self.writer)))
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMeta, image: Image) -> Result<(), io::Error> {
        let marker = slot_key(self.machine.slot, INSTALLING);
        let machine = Arc::clone(&self.machine);
        let staged = crate::off_thread::off_thread(move || {
            let path = machine.image_path();
            image.write_to(&path)?;
            read_image(&path, &mut |_, _| Ok(())).map(|_| ())
        });
        staged.await.map_err(io_error)?.map_err(io_error)?;
        self.writer.write(vec![Change::Put(marker, Vec::new())]).await.map_err(io_error)?;
        let machine = Arc::clone(&self.machine);
        let changing = self.machine.change().await?;
        let installed = crate::off_thread::off_thread(move || {
            machine.install()?;
            machine.load()?;
            let applied = machine.progress.applied.load(Ordering::Acquire);
            machine.progress.flushed.fetch_max(applied, Ordering::AcqRel);
            Ok::<_, KvError>(())
        });
        installed.await.map_err(io_error)?.map_err(io_error)?;
        drop(changing);
        self.writer.write(vec![Change::Delete(marker)]).await.map_err(io_error)?;
        self.has_snapshot = true;
        std::fs::remove_file(self.machine.image_path())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let applied = self.machine.applied.lock().clone();
        Ok(self.has_snapshot.then(|| self.snapshot(applied)))
    }
}
