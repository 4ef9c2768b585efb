use super::codec::{log_id, log_id_bytes, membership, vote, vote_bytes};
use super::keys::{COMMITTED, PURGED, Slot, VOTE, entries_end, entry_start, parse_entry_key, slot_key};
use super::log_writer::{BLANK, Change, LogWriter, MEMBERSHIP, NORMAL, entry_cost};
use super::{Entry, LogId, Proposal, Types, Vote, io_error};
use crate::engine::Engine;
use base_kv_api::{KvError, Visit};
use base_types::wire::WireError;
use bytes::Bytes;
use futures_util::stream;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The log of one replica, in the log of the node; also its reader.
#[derive(Clone)]
pub(crate) struct LogStore {
    log: Arc<Log>,
}

struct Log {
    slot: Slot,
    engine: Arc<dyn Engine>,
    data: Arc<dyn Engine>,
    writer: Arc<LogWriter>,
    progress: Arc<Progress>,
    state: Mutex<State>,
}

struct State {
    vote: Option<Vote>,
    committed: Option<LogId>,
    committed_written: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// The end of the log: all that is not yet written or not yet applied.
    tail: VecDeque<Entry>,
}

/// How far a replica is, each as index + 1; 0 is "nothing".
#[derive(Default)]
pub(crate) struct Progress {
    /// The log is on disk up to here.
    pub(crate) written: AtomicU64,
    /// The data holds this in memory …
    pub(crate) applied: AtomicU64,
    /// … and this on disk. The log is purged no further.
    pub(crate) flushed: AtomicU64,
}

/// Entries that are read from disk at once.
const CHUNK: u64 = 64;
/// Bytes of entries that are sent at once, and one entry more.
const APPEND_BYTES: usize = 1 << 20;

fn next(id: Option<&LogId>) -> u64 {
    id.map_or(0, |id| id.index + 1)
}

fn corrupt(what: &'static str) -> impl Fn(WireError) -> KvError {
    move |error| KvError { doing: what, cause: format!("damaged: {error}") }
}

impl LogStore {
    pub(crate) fn open(
        slot: Slot,
        engine: Arc<dyn Engine>,
        data: Arc<dyn Engine>,
        writer: Arc<LogWriter>,
        progress: Arc<Progress>,
    ) -> Result<Self, KvError> {
        let read_id = |kind, what| -> Result<Option<LogId>, KvError> {
            let bytes = engine.get(&slot_key(slot, kind))?;
            Ok(bytes.map(|bytes| log_id(bytes).map_err(corrupt(what))).transpose()?.flatten())
        };
        let purged = read_id(PURGED, "read the purged log id")?;
        let committed = read_id(COMMITTED, "read the committed log id")?;
        let vote = engine.get(&slot_key(slot, VOTE))?.map(|b| vote(b).map_err(corrupt("read the vote"))).transpose()?;
        let mut last = purged;
        let mut hole = None;
        engine.scan(&entry_start(slot, next(purged.as_ref()))..&entries_end(slot), &mut |key, _| {
            match parse_entry_key(key) {
                Some((id, _)) if id.index == next(last.as_ref()) || last.is_none() => last = Some(id),
                Some((id, _)) => hole = Some(id.index),
                None => hole = Some(next(last.as_ref())),
            }
            if hole.is_some() { Visit::Enough } else { Visit::More }
        })?;
        if let Some(index) = hole {
            let cause = format!("damaged: entry {index} does not follow entry {}", next(last.as_ref()));
            return Err(KvError { doing: "open the log", cause });
        }
        progress.written.store(next(last.as_ref()), Ordering::Release);
        let state = State { vote, committed, committed_written: committed, purged, last, tail: VecDeque::new() };
        Ok(Self { log: Arc::new(Log { slot, engine, data, writer, progress, state: Mutex::new(state) }) })
    }

    /// Entries `[start, end)` as far as they exist.
    fn entries(&self, start: u64, end: u64) -> Result<Vec<Entry>, KvError> {
        let (start, from_tail) = {
            let state = self.log.state.lock();
            let start = start.max(next(state.purged.as_ref()));
            let end = end.min(next(state.last.as_ref()));
            if start >= end {
                return Ok(Vec::new());
            }
            let first = state.tail.front().map_or(end, |entry| entry.log_id.index);
            let tail = state.tail.iter().skip(usize::try_from(start.saturating_sub(first)).unwrap_or(usize::MAX));
            let tail: Vec<Entry> = tail.take_while(|entry| entry.log_id.index < end).cloned().collect();
            let disk_end = first.min(end);
            if start >= disk_end {
                return Ok(tail);
            }
            (start..disk_end, tail)
        };
        let mut entries = Vec::new();
        let mut damage = None;
        let slot = self.log.slot;
        self.log.engine.scan(&entry_start(slot, start.start)..&entry_start(slot, start.end), &mut |key, value| {
            match read_entry(key, value) {
                Ok(entry) => entries.push(entry),
                Err(error) => damage = Some(error),
            }
            if damage.is_some() { Visit::Enough } else { Visit::More }
        })?;
        if let Some(error) = damage {
            return Err(corrupt("read a log entry")(error));
        }
        entries.extend(from_tail);
        Ok(entries)
    }

    fn bounds(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let start = match range.start_bound() {
            Bound::Included(&n) => n,
            Bound::Excluded(&n) => n + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&n) => n + 1,
            Bound::Excluded(&n) => n,
            Bound::Unbounded => u64::MAX,
        };
        (start, end)
    }
}

fn read_entry(key: &[u8], value: &[u8]) -> Result<Entry, WireError> {
    let (log_id, kind) = parse_entry_key(key).ok_or(WireError::Truncated)?;
    let payload = match kind {
        BLANK => EntryPayload::Blank,
        NORMAL => EntryPayload::Normal(Proposal(Bytes::copy_from_slice(value))),
        MEMBERSHIP => EntryPayload::Membership(membership(Bytes::copy_from_slice(value))?),
        other => return Err(WireError::Invalid { what: "the kind of a log entry", value: u64::from(other) }),
    };
    Ok(Entry { log_id, payload })
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = self.bounds(&range);
        self.entries(start, end).map_err(io_error)
    }

    // What one append carries: bounded by bytes.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let mut entries = self.entries(start, end.min(start.saturating_add(CHUNK))).map_err(io_error)?;
        let mut bytes = 0;
        let fits = entries.iter().take_while(|entry| {
            let fits = bytes < APPEND_BYTES;
            bytes += entry_cost(entry);
            fits
        });
        let fits = fits.count();
        entries.truncate(fits);
        Ok(entries)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.log.state.lock().vote)
    }

    // A replay after a crash reads the whole log: in pieces.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl futures_util::Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        use futures_util::StreamExt;
        let (start, end) = self.bounds(&range);
        let chunks = stream::unfold((self.clone(), start), move |(reader, start)| async move {
            if start >= end {
                return None;
            }
            let chunk = match reader.entries(start, end.min(start.saturating_add(CHUNK))) {
                Ok(entries) if entries.is_empty() => return None,
                // What is applied comes from here: a replica that skipped an entry would be another one than the rest.
                Ok(entries) if entries.first().is_some_and(|entry| entry.log_id.index != start) => {
                    let error = KvError { doing: "read the log", cause: format!("entry {start} is missing") };
                    return Some((vec![Err(io_error(error))], (reader, end)));
                }
                Ok(entries) => entries,
                Err(error) => return Some((vec![Err(io_error(error))], (reader, end))),
            };
            let after = chunk.last().map_or(end, |entry| entry.log_id.index + 1);
            Some((chunk.into_iter().map(Ok).collect::<Vec<_>>(), (reader, after)))
        });
        Box::pin(chunks.flat_map(stream::iter))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let state = self.log.state.lock();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        #[cfg(feature = "sim")]
        if crate::sim::forgets_votes() {
            self.log.state.lock().vote = Some(*vote);
            return Ok(());
        }
        let change = Change::Put(slot_key(self.log.slot, VOTE), vote_bytes(vote));
        self.log.writer.write(vec![change]).await.map_err(io_error)?;
        self.log.state.lock().vote = Some(*vote);
        Ok(())
    }

    // Only a hint for the next start: it travels with the next entries.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.log.state.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let state = self.log.state.lock();
        // A torn log may end before what was known to be committed.
        Ok(state.committed.min(state.last))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let log = Arc::clone(&self.log);
        let written = next(entries.last().map(|entry| &entry.log_id));
        let mut changes = Vec::with_capacity(2);
        {
            let mut state = log.state.lock();
            let settled =
                log.progress.applied.load(Ordering::Acquire).min(log.progress.written.load(Ordering::Acquire));
            while state.tail.front().is_some_and(|entry| entry.log_id.index < settled) {
                state.tail.pop_front();
            }
            state.tail.extend(entries.iter().cloned());
            if let Some(last) = entries.last() {
                state.last = Some(last.log_id);
            }
            if state.committed != state.committed_written {
                state.committed_written = state.committed;
                let bytes = log_id_bytes(state.committed.as_ref());
                changes.push(Change::Put(slot_key(log.slot, COMMITTED), bytes));
            }
        }
        changes.push(Change::Append(log.slot, entries));
        let progress = Arc::clone(&log.progress);
        log.writer.submit(changes, move |result| {
            if result.is_ok() {
                progress.written.fetch_max(written, Ordering::AcqRel);
            }
            callback.io_completed(result.map_err(io_error));
        });
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = next(last.as_ref());
        self.log.writer.write(vec![Change::Truncate(self.log.slot, from)]).await.map_err(io_error)?;
        let mut state = self.log.state.lock();
        while state.tail.back().is_some_and(|entry| entry.log_id.index >= from) {
            state.tail.pop_back();
        }
        if next(state.last.as_ref()) > from {
            state.last = last;
        }
        self.log.progress.written.fetch_min(from, Ordering::AcqRel);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let gone = next(Some(&upto));
        // What the log forgets the data must hold, on disk.
        if self.log.progress.flushed.load(Ordering::Acquire) < gone {
            let data = Arc::clone(&self.log.data);
            crate::off_thread::off_thread(move || data.flush()).await.map_err(io_error)?.map_err(io_error)?;
        }
        {
            let mut state = self.log.state.lock();
            if state.purged >= Some(upto) {
                return Ok(());
            }
            state.purged = Some(upto);
            state.last = state.last.max(Some(upto));
            while state.tail.front().is_some_and(|entry| entry.log_id.index < gone) {
                state.tail.pop_front();
            }
        }
        let marker = Change::Put(slot_key(self.log.slot, PURGED), log_id_bytes(Some(&upto)));
        // Nobody waits: a purge that a crash undoes is done again.
        self.log.writer.submit(vec![marker, Change::Purge(self.log.slot, upto.index)], |_| {});
        Ok(())
    }
}
