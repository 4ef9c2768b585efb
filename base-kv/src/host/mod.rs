//! The node's side: which replicas live here, how they are made and ended, and what peers may ask of them.

mod beat;
mod execute;
mod record;
mod retire;
mod service;

pub use execute::ExecuteError;

use crate::config::{Durability, KvConfig};
use crate::engine::{Engine, LogTuning, RocksEngine, RocksOptions, Sync};
use crate::home::{Home, OpenError};
use crate::raft::{Change, Heartbeats, LogWriter, Meshed, RECORD, Slot, global_key, slot_key};
use crate::random::random;
use crate::range::{Client, Range, RangeSpec, Replica, Shared};
use crate::space::{Probe, Space};
use crate::stats::{HostStats, KvObserver};
use base_kv_api::balance::ReplicaView;
use base_kv_api::{Coproc, KvError, RangeId, ReplicaId};
use base_rpc::Mesh;
use base_types::wire::Reader;
use base_types::{Clock, NodeId, NodeIncarnation};
use parking_lot::{Mutex, RwLock};
use record::{Record, State, damaged, read_records};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// The key-value store of a node: its disk, its log writer, and the replicas that live on it.
pub struct Host {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    shared: Shared,
    /// Which slots are taken, and whose they are. Whoever makes or ends a replica holds it.
    slots: tokio::sync::Mutex<Slots>,
    /// Those that run, by their slots.
    replicas: RwLock<BTreeMap<u64, Arc<Replica>>>,
    clients: Mutex<BTreeMap<RangeSpec, Arc<Client>>>,
    /// Those that could not be started, by their slots, and why.
    broken: Mutex<BTreeMap<u64, (Record, String)>>,
    beat: Mutex<Option<AbortHandle>>,
}

struct Slots {
    next: u64,
    records: Vec<Record>,
    closed: bool,
}

// Keys of slot 0: the life of the disk, the next slot, and how often it was opened.
const STORE: u8 = 1;
const NEXT: u8 = 2;
const RUNS: u8 = 3;

/// What a host stands on.
pub(crate) struct Ground {
    pub(crate) log: Arc<dyn Engine>,
    pub(crate) data: Arc<dyn Engine>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) observer: Arc<dyn KvObserver>,
    pub(crate) space: Space,
    pub(crate) home: Option<Home>,
    pub(crate) mesh: Option<Arc<dyn Mesh>>,
}

impl Host {
    /// Opens the store of a node that is alone, or makes it.
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
        Self::on_disk(config, node.node, clock, observer, None)
    }

    /// Opens the store of a node of a cluster, or makes it. Then [`Host::register`] what its stores are, and [`Host::start`].
    ///
    /// # Errors
    /// As [`Host::open`].
    pub fn open_meshed(
        config: KvConfig,
        mesh: Arc<dyn Mesh>,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn KvObserver>,
    ) -> Result<Self, OpenError> {
        Self::on_disk(config, mesh.me().node, clock, observer, Some(mesh))
    }

    fn on_disk(
        config: KvConfig,
        node: NodeId,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn KvObserver>,
        mesh: Option<Arc<dyn Mesh>>,
    ) -> Result<Self, OpenError> {
        let home = Some(Home::open(&config.data_dir, node)?);
        let log = RocksOptions { memtable: 16 << 20, cache: 1 << 20, tuning: LogTuning::Log };
        let data = RocksOptions { memtable: config.memtable_bytes, cache: config.cache_bytes, tuning: LogTuning::Data };
        let log = Arc::new(RocksEngine::open(&config.data_dir.join("log"), &log)?);
        let data = Arc::new(RocksEngine::open(&config.data_dir.join("ranges"), &data)?);
        let space = Space::new(Probe::Disk(config.data_dir.clone()), config.min_free_bytes);
        Self::over(config, node, Ground { log, data, clock, observer, space, home, mesh })
    }

    pub(crate) fn over(config: KvConfig, node: NodeId, ground: Ground) -> Result<Self, OpenError> {
        let Ground { log, data, clock, observer, space, home, mesh } = ground;
        sweep(&config.data_dir.join("staging"))?;
        let number = |key| -> Result<Option<u64>, KvError> {
            log.get(&global_key(key))?.map(|bytes| Reader::new(bytes).u64()).transpose().map_err(damaged)
        };
        let store = match number(STORE)? {
            Some(store) => store,
            None => random()?,
        };
        let run = number(RUNS)?.unwrap_or(0) + 1;
        log.write(Sync::Now, &mut |batch| {
            batch.put(&global_key(STORE), &store.to_be_bytes());
            batch.put(&global_key(RUNS), &run.to_be_bytes());
        })?;
        let records = read_records(&*log, store)?;
        let next = records.iter().map(|record| record.counter + 1).max().unwrap_or(1).max(number(NEXT)?.unwrap_or(1));
        let sync = match config.durability {
            Durability::Fsync => Sync::Now,
            Durability::NoSync => Sync::Os,
        };
        let started = LogWriter::start(Arc::clone(&log), sync, Arc::clone(&observer));
        let path = config.data_dir.clone();
        let writer = Arc::new(started.map_err(|source| OpenError::Io { doing: "start a thread for", path, source })?);
        let append_deadline = config.election.1 * 2;
        let meshed = mesh.map(|mesh| Arc::new(Meshed { mesh, heartbeats: Heartbeats::default(), append_deadline }));
        let shared = Shared {
            config: Arc::new(config),
            node,
            store,
            life: run << 32,
            log,
            data,
            writer,
            clock,
            observer,
            space: Arc::new(space),
            meshed,
            changes: watch::Sender::new(0),
            _home: home.map(Arc::new),
        };
        let inner = Inner {
            shared,
            slots: tokio::sync::Mutex::new(Slots { next, records, closed: false }),
            replicas: RwLock::default(),
            clients: Mutex::default(),
            broken: Mutex::default(),
            beat: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Says what lives in a range on this node: the coprocessor that is lent to whichever replica of it is here. Once per range, before
    /// [`Host::start`], on the tokio runtime that will drive it.
    ///
    /// # Errors
    /// When the range has one already.
    pub fn register(&self, spec: RangeSpec, coproc: Box<dyn Coproc>) -> Result<(), OpenError> {
        if self.inner.client(spec).register(Arc::new(Mutex::new(coproc))) {
            Ok(())
        } else {
            Err(refused(spec, "it is open already"))
        }
    }

    /// Starts the replicas that are on the disk, and begins to answer peers; on the tokio runtime of the caller. A replica that is damaged
    /// is left alone and told as a fault: the others of its group can replace it.
    ///
    /// # Errors
    /// When the engine fails.
    pub async fn start(&self) -> Result<(), OpenError> {
        self.inner.open_known().await?;
        self.inner.beat();
        service::serve(&self.inner);
        Ok(())
    }

    /// The way to a range, whether there is a replica of it here or not. On the tokio runtime that will drive it.
    #[must_use]
    pub fn client(&self, spec: RangeSpec) -> Range {
        Range { client: self.inner.client(spec) }
    }

    /// Starts the replica of a range, on the tokio runtime of the caller; a range that is new begins with this replica as its only voter.
    /// Commands may be sent at once; wait for `ready` before reading.
    ///
    /// # Errors
    /// When the range is open already, the host is shut down, or the engine fails.
    pub async fn open_range(&self, spec: RangeSpec, coproc: Box<dyn Coproc>) -> Result<Range, OpenError> {
        self.register(spec, coproc)?;
        self.inner.bootstrap(spec).await?;
        self.inner.beat();
        Ok(self.client(spec))
    }

    /// What this node has of a store's ranges.
    #[must_use]
    pub fn replicas(&self, store: &str) -> Vec<ReplicaView> {
        let replicas = self.inner.replicas.read();
        let running = replicas.values().filter(|replica| replica.store == store).map(|replica| replica.view());
        let broken = self.inner.broken.lock();
        let broken = broken.values().filter(|(record, _)| record.store == store);
        running.chain(broken.map(|(record, fault)| record.broken(self.inner.shared.store, fault))).collect()
    }

    /// Ticks when the role, leader, membership or fault of a replica changed, or a replica came or went.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.shared.changes.subscribe()
    }

    /// How everything is doing.
    #[must_use]
    pub fn stats(&self) -> HostStats {
        let shared = &self.inner.shared;
        let totals = shared.writer.totals();
        let clients: Vec<_> = self.inner.clients.lock().values().cloned().collect();
        HostStats {
            syncs: totals.syncs.load(Ordering::Relaxed),
            entries: totals.entries.load(Ordering::Relaxed),
            bytes: totals.bytes.load(Ordering::Relaxed),
            disk_full: shared.space.full(shared.clock.now()),
            free_bytes: shared.space.free(),
            memory_bytes: shared.log.memory() + shared.data.memory(),
            failure: shared.writer.failure(),
            ranges: clients.into_iter().filter_map(|client| Range { client }.stats()).collect(),
        }
    }

    /// Stops all replicas and writes everything down. Commands that wait are answered [`base_kv_api::MutateError::Stopped`]. A
    /// second call does nothing. The directory is free for the next once this and all its [`Range`]s are dropped.
    ///
    /// # Errors
    /// When the last flush failed; what was acknowledged is in the log all the same.
    pub async fn shutdown(&self) -> Result<(), KvError> {
        const WHY: &str = "the node stops";
        let mut slots = self.inner.slots.lock().await;
        if std::mem::replace(&mut slots.closed, true) {
            return Ok(());
        }
        if let Some(beat) = self.inner.beat.lock().take() {
            beat.abort();
        }
        let running = std::mem::take(&mut *self.inner.replicas.write());
        for replica in running.values() {
            replica.stop(WHY).await;
        }
        self.inner.clients.lock().values().for_each(|client| client.close(WHY));
        let Shared { log, data, writer, .. } = self.inner.shared.clone();
        let flushed = crate::off_thread::off_thread(move || {
            writer.close();
            log.flush().and(data.flush())
        });
        let flushed = flushed.await.map_err(|e| KvError { doing: "shut down", cause: e.to_string() });
        flushed?
    }
}

fn refused(spec: RangeSpec, why: &'static str) -> OpenError {
    OpenError::Range { store: spec.store, range: spec.id, why }
}

/// Removes what was on its way when the process ended; what is being installed stays.
fn sweep(staging: &Path) -> Result<(), OpenError> {
    let io = |doing| move |source| OpenError::Io { doing, path: staging.to_owned(), source };
    std::fs::create_dir_all(staging).map_err(io("make"))?;
    for entry in std::fs::read_dir(staging).map_err(io("read"))? {
        let path = entry.map_err(io("read"))?.path();
        if path.extension().is_some_and(|kind| kind == "incoming" || kind == "outgoing") {
            std::fs::remove_file(path).map_err(io("clean"))?;
        }
    }
    Ok(())
}

impl Inner {
    fn client(&self, spec: RangeSpec) -> Arc<Client> {
        let mut clients = self.clients.lock();
        Arc::clone(clients.entry(spec).or_insert_with(|| Client::start(&self.shared, spec)))
    }

    /// The client of a range that was registered.
    fn registered(&self, store: &str, id: u64) -> Option<Arc<Client>> {
        let clients = self.clients.lock();
        let client = clients.values().find(|client| client.spec.store == store && client.spec.id == id);
        client.filter(|client| client.coproc().is_some()).cloned()
    }

    async fn open_known(&self) -> Result<(), OpenError> {
        let mut slots = self.slots.lock().await;
        let known = slots.records.clone();
        for record in known {
            if record.state == State::Retired {
                self.forget(&mut slots, record.counter).await?;
            } else if record.is_live()
                && let Some(client) = self.registered(&record.store, record.range.id)
                && client.replica().is_none()
                && let Err(error) = self.open(&client, &record).await
            {
                let Record { store, range, .. } = &record;
                tracing::error!(store, %range, %error, "a replica can't be started; it is left alone");
                self.broken.lock().insert(record.counter, (record, error.to_string()));
            }
        }
        Ok(())
    }

    /// Makes the first replica of a range, unless there is one here.
    async fn bootstrap(&self, spec: RangeSpec) -> Result<(), OpenError> {
        let mut slots = self.slots.lock().await;
        if slots.closed {
            return Err(refused(spec, "the host was shut down"));
        }
        let client = self.registered(spec.store, spec.id);
        let client = client.ok_or_else(|| refused(spec, "nobody said what lives in it"))?;
        if client.replica().is_some() {
            return Ok(());
        }
        let known = slots.records.iter().find(|r| r.is_live() && r.store == spec.store && r.range.id == spec.id);
        let record = match known {
            Some(record) => record.clone(),
            None => {
                let range = RangeId { id: spec.id, lineage: random()?, epoch: 1 };
                self.write_down(&mut slots, spec.store, range, State::Founded).await?
            }
        };
        self.open(&client, &record).await?;
        Ok(())
    }

    /// Gives a new replica its name, for good.
    async fn write_down(
        &self,
        slots: &mut Slots,
        store: &str,
        range: RangeId,
        state: State,
    ) -> Result<Record, KvError> {
        let record = Record { counter: slots.next, store: store.to_owned(), range, state };
        // On disk before the name is used: it is never given away twice.
        let next = (record.counter + 1).to_be_bytes().to_vec();
        let changes = vec![
            Change::Put(slot_key(Slot(record.counter), RECORD), record.encode()),
            Change::Put(global_key(NEXT), next),
        ];
        self.shared.writer.write(changes).await?;
        slots.next += 1;
        slots.records.push(record.clone());
        Ok(record)
    }

    /// Starts the replica of a record.
    async fn open(&self, client: &Arc<Client>, record: &Record) -> Result<Arc<Replica>, KvError> {
        let Some(coproc) = client.coproc() else {
            return Err(KvError { doing: "open a range", cause: "nobody said what lives in it".into() });
        };
        let id = ReplicaId { store: self.shared.store, counter: record.counter };
        let fresh = record.state == State::Founded;
        let (store, settle) = (client.spec.store, client.settle());
        let replica = Replica::start(&self.shared, store, record.range, id, coproc, settle, fresh).await?;
        self.replicas.write().insert(record.counter, Arc::clone(&replica));
        client.put(Some(Arc::clone(&replica)));
        Ok(replica)
    }
}
