use crate::config::{Durability, KvConfig};
use crate::engine::{Engine, LogTuning, RocksEngine, RocksOptions, Sync};
use crate::home::{Home, OpenError};
use crate::id::{RangeId, ReplicaId};
use crate::raft::{Change, LogWriter, RECORD, Slot, global_key, slot_key};
use crate::range::{Range, RangeSpec, Replica, Shared};
use crate::space::{Probe, Space};
use crate::stats::{HostStats, KvObserver};
use base_kv_api::{Coproc, KvError, Visit};
use base_types::wire::{Reader, WireError, put_prefixed};
use base_types::{Clock, NodeId, NodeIncarnation};
use bytes::{BufMut, Bytes};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// The key-value store of a node: its disk, its log writer, and the replicas that live on it.
pub struct Host {
    shared: Shared,
    store: u64,
    /// Which slots are taken, and whose they are; open ones have their replica.
    slots: tokio::sync::Mutex<Slots>,
    running: Mutex<Vec<Arc<Replica>>>,
}

struct Slots {
    next: u64,
    records: Vec<Record>,
    closed: bool,
}

/// What a replica is, as written down when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    counter: u64,
    store: String,
    range: RangeId,
    open: bool,
}

// Keys of slot 0.
const STORE: u8 = 1;
const FORMAT: u8 = 1;

impl Record {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        out.put_u64(self.range.epoch);
        out.put_u64(self.range.id);
        put_prefixed(&mut out, self.store.as_bytes());
        out
    }

    fn decode(counter: u64, bytes: Bytes) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            FORMAT => {}
            other => return Err(WireError::UnknownFormat(other)),
        }
        let range = RangeId { epoch: crate::raft::fixed_u64(&mut r)?, id: crate::raft::fixed_u64(&mut r)? };
        let store = r.text("name of a store")?.to_string();
        r.finish().map(|()| Self { counter, store, range, open: false })
    }
}

fn damaged(error: WireError) -> KvError {
    KvError { doing: "read what the replicas are", cause: error.to_string() }
}

impl Host {
    /// Opens the store of a node, or makes it.
    ///
    /// Blocks for as long as the engine replays its write-ahead log; call it before serving.
    ///
    /// # Errors
    /// When the directory is in use, of another format or another node's (nothing is touched then), or damaged.
    pub fn open(config: KvConfig, node: NodeIncarnation, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Self::open_observed(config, node, clock, Arc::new(()))
    }

    /// As [`Host::open`], with somebody who watches.
    ///
    /// # Errors
    /// As [`Host::open`].
    pub fn open_observed(
        config: KvConfig,
        node: NodeIncarnation,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn KvObserver>,
    ) -> Result<Self, OpenError> {
        let home = Home::open(&config.data_dir, node.node)?;
        let staging = config.data_dir.join("staging");
        std::fs::create_dir_all(&staging).map_err(|source| OpenError::Io {
            doing: "make",
            path: staging.clone(),
            source,
        })?;
        let log = RocksOptions { memtable: 16 << 20, cache: 1 << 20, tuning: LogTuning::Log };
        let data = RocksOptions { memtable: config.memtable_bytes, cache: config.cache_bytes, tuning: LogTuning::Data };
        let log = Arc::new(RocksEngine::open(&config.data_dir.join("log"), &log)?);
        let data = Arc::new(RocksEngine::open(&config.data_dir.join("ranges"), &data)?);
        let space = Space::new(Probe::Disk(config.data_dir.clone()), config.min_free_bytes);
        Self::over(config, node.node, log, data, clock, observer, space, Some(home))
    }

    #[expect(clippy::too_many_arguments, reason = "the one place where all parts meet; tests bring engines in memory")]
    pub(crate) fn over(
        config: KvConfig,
        node: NodeId,
        log: Arc<dyn Engine>,
        data: Arc<dyn Engine>,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn KvObserver>,
        space: Space,
        home: Option<Home>,
    ) -> Result<Self, OpenError> {
        let store = match log.get(&global_key(STORE))? {
            Some(bytes) => crate::raft::fixed_u64(&mut Reader::new(bytes)).map_err(damaged)?,
            None => {
                let drawn =
                    getrandom::u64().map_err(|e| KvError { doing: "draw a random id", cause: e.to_string() })?;
                log.write(Sync::Now, &mut |batch| batch.put(&global_key(STORE), &drawn.to_be_bytes()))?;
                drawn
            }
        };
        let records = read_records(&*log)?;
        let sync = match config.durability {
            Durability::Fsync => Sync::Now,
            Durability::NoSync => Sync::Os,
        };
        let started = LogWriter::start(Arc::clone(&log), sync, Arc::clone(&observer));
        let path = config.data_dir.clone();
        let writer = Arc::new(started.map_err(|source| OpenError::Io { doing: "start a thread for", path, source })?);
        let next = records.iter().map(|record| record.counter).max().unwrap_or(0) + 1;
        let config = Arc::new(config);
        let (space, home) = (Arc::new(space), home.map(Arc::new));
        let shared = Shared { config, node, log, data, writer, clock, observer, space, _home: home };
        let slots = tokio::sync::Mutex::new(Slots { next, records, closed: false });
        Ok(Self { shared, store, slots, running: Mutex::default() })
    }

    /// Starts the replica of a range, on the tokio runtime of the caller (multi-thread); a range that is new begins with this
    /// replica as its only voter. Commands may be sent at once; wait for `ready` before reading.
    ///
    /// # Errors
    /// When the range is open already, the host is shut down, or the engine fails.
    pub async fn open_range(&self, spec: RangeSpec, coproc: Box<dyn Coproc>) -> Result<Range, OpenError> {
        let refused = |why| OpenError::Range { store: spec.store, range: spec.id, why };
        let mut slots = self.slots.lock().await;
        if slots.closed {
            return Err(refused("the host was shut down"));
        }
        let known = slots.records.iter().position(|r| r.store == spec.store && r.range.id == spec.id);
        let at = match known {
            Some(at) if slots.records[at].open => return Err(refused("it is open already")),
            Some(at) => at,
            None => {
                let range = RangeId { epoch: 1, id: spec.id };
                let record = Record { counter: slots.next, store: spec.store.to_owned(), range, open: false };
                // On disk before the name is used: it is never given away twice.
                let change = Change::Put(slot_key(Slot(record.counter), RECORD), record.encode());
                self.shared.writer.write(vec![change]).await?;
                slots.next += 1;
                slots.records.push(record);
                slots.records.len() - 1
            }
        };
        let record = &mut slots.records[at];
        let id = ReplicaId { store: self.store, counter: record.counter };
        let range = Replica::start(&self.shared, spec, record.range, id, coproc).await?;
        record.open = true;
        self.running.lock().push(Arc::clone(&range.replica));
        Ok(range)
    }

    /// How everything is doing.
    #[must_use]
    pub fn stats(&self) -> HostStats {
        let totals = self.shared.writer.totals();
        let replicas = self.running.lock().clone();
        HostStats {
            syncs: totals.syncs.load(Ordering::Relaxed),
            entries: totals.entries.load(Ordering::Relaxed),
            bytes: totals.bytes.load(Ordering::Relaxed),
            disk_full: self.shared.space.full(Instant::now()),
            free_bytes: self.shared.space.free(),
            memory_bytes: self.shared.log.memory() + self.shared.data.memory(),
            failure: self.shared.writer.failure(),
            ranges: replicas.iter().map(|replica| replica.stats()).collect(),
        }
    }

    /// Stops all replicas and writes everything down. Commands that wait are answered [`base_kv_api::MutateError::Stopped`]. A
    /// second call does nothing. The directory is free for the next once this and all its [`Range`]s are dropped.
    ///
    /// # Errors
    /// When the last flush failed; what was acknowledged is in the log all the same.
    pub async fn shutdown(&self) -> Result<(), KvError> {
        let mut slots = self.slots.lock().await;
        if std::mem::replace(&mut slots.closed, true) {
            return Ok(());
        }
        let running = std::mem::take(&mut *self.running.lock());
        for replica in &running {
            replica.stop("the node stops").await;
        }
        let Shared { log, data, writer, .. } = self.shared.clone();
        let flushed = tokio::task::spawn_blocking(move || {
            writer.close();
            log.flush().and(data.flush())
        });
        let flushed = flushed.await.map_err(|e| KvError { doing: "shut down", cause: e.to_string() });
        flushed?
    }
}

fn read_records(log: &dyn Engine) -> Result<Vec<Record>, KvError> {
    let mut records = Vec::new();
    let mut broken = None;
    let mut slot = 1;
    // One seek per slot: between the records lie the logs.
    loop {
        let mut found = None;
        log.scan(&slot_key(Slot(slot), 0)..&[0xff; 9], &mut |key, _| {
            found = key.get(..8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
            Visit::Enough
        })?;
        let Some(counter) = found else { break };
        if let Some(bytes) = log.get(&slot_key(Slot(counter), RECORD))? {
            match Record::decode(counter, bytes) {
                Ok(record) => records.push(record),
                Err(error) => broken = Some(error),
            }
        }
        slot = counter + 1;
    }
    match broken {
        Some(error) => Err(damaged(error)),
        None => Ok(records),
    }
}
