//! What does queueing cost beside the disk? A range in memory, 256-byte payloads, 100 commands in one entry.
//!
//! `cargo bench -p inbox-store`. "coproc" is the time inside the coprocessor, its writes included; "all" is that plus making the
//! commands, reading the replies, and the range in memory. "bytes" are those of keys and values that were put.

#![allow(clippy::unwrap_used, reason = "a bench that fails may say so")]

use base_kv_api::testing::MemRange;
use base_kv_api::{ApplyCx, Coproc, KvError, KvRead, KvSpace, Visit};
use base_types::{ClientId, Incarnation, Message, NodeId, NodeIncarnation, QoS, SystemClock, TenantId, TopicName};
use bytes::Bytes;
use inbox_api::{
    Attach, Commit, Detach, FullPolicy, InboxId, InboxReceiver, InboxService, Insert, Origin, QueueLimits,
    SessionVersion, WillFate,
};
use inbox_store::{InboxConfig, InboxCoproc, InboxStore};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const BATCH: usize = 100;

#[derive(Default)]
struct Figures {
    bytes: AtomicU64,
    keys: AtomicU64,
    nanos: AtomicU64,
}

/// Counts what a coprocessor writes, and its time.
struct Measured(InboxCoproc, Arc<Figures>);

struct CountedSpace<'a>(&'a mut dyn KvSpace, &'a Figures);

impl KvRead for CountedSpace<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.0.get(key)
    }

    fn scan(&self, keys: Range<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), KvError> {
        self.0.scan(keys, visit)
    }
}

impl KvSpace for CountedSpace<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.1.bytes.fetch_add((key.len() + value.len()) as u64, Relaxed);
        self.1.keys.fetch_add(1, Relaxed);
        self.0.put(key, value);
    }

    fn delete(&mut self, key: &[u8]) {
        self.0.delete(key);
    }

    fn delete_range(&mut self, keys: Range<&[u8]>) {
        self.0.delete_range(keys);
    }
}

impl Coproc for Measured {
    fn mutate(&mut self, cx: &ApplyCx, command: &Bytes, space: &mut dyn KvSpace) -> Result<Bytes, KvError> {
        let start = Instant::now();
        let reply = self.0.mutate(cx, command, &mut CountedSpace(space, &self.1));
        self.1.nanos.fetch_add(start.elapsed().as_nanos() as u64, Relaxed);
        reply
    }

    fn applied(&mut self) {
        self.0.applied();
    }

    fn reset(&mut self, keys: &dyn KvRead) -> Result<(), KvError> {
        self.0.reset(keys)
    }

    fn on_leader(&mut self, leads: bool) {
        self.0.on_leader(leads);
    }
}

struct World {
    range: MemRange,
    store: Arc<InboxStore>,
    figures: Arc<Figures>,
    versions: Vec<SessionVersion>,
}

fn inbox(n: usize) -> InboxId {
    InboxId { tenant: TenantId::default(), client: ClientId::new(format!("client-{n:06}")).unwrap() }
}

async fn world(inboxes: usize, attached: bool) -> World {
    let run = NodeIncarnation { node: NodeId(1), incarnation: Incarnation(1) };
    let figures = Arc::new(Figures::default());
    let (coproc, handle) = InboxCoproc::new(InboxConfig::new(run.node));
    let range = MemRange::new(Measured(coproc, figures.clone()), Arc::new(SystemClock)).unwrap();
    let store = InboxStore::start(Arc::new(range.clone()), handle, Arc::new(SystemClock));
    let mut versions = Vec::new();
    for n in 0..inboxes {
        let limits = QueueLimits { messages: u64::MAX, bytes: u64::MAX, when_full: FullPolicy::DropOldest };
        let attach = Attach {
            inbox: inbox(n),
            clean_start: false,
            expiry_secs: u32::MAX,
            owner: "".into(),
            node: run,
            will: None,
            limits,
        };
        let version = store.attach(attach).await.unwrap().version.unwrap();
        if !attached {
            let detach = Detach { inbox: inbox(n), version, expiry_secs: None, will: WillFate::Discard };
            store.detach(detach).await.unwrap();
        }
        versions.push(version);
    }
    for figure in [&figures.bytes, &figures.keys, &figures.nanos] {
        figure.store(0, Relaxed);
    }
    World { range, store, figures, versions }
}

impl World {
    fn insert(&self, receivers: impl Iterator<Item = usize>) -> Insert {
        let receiver = |n: usize| InboxReceiver {
            client: inbox(n).client,
            incarnation: self.versions[n].incarnation,
            qos: QoS::AtLeastOnce,
            retain: false,
            subscription_identifiers: Vec::new(),
        };
        let message = Message {
            topic: TopicName::new("devices/000042/state").unwrap(),
            payload: Bytes::from_static(&[7; 256]),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Bytes::new(),
            expires_at: None,
            publisher: Some(inbox(0).client),
        };
        let receivers = receivers.map(receiver).collect();
        Insert { tenant: TenantId::default(), message: Arc::new(message), receivers, origin: Origin::None }
    }

    fn report(&self, what: &str, count: u64, took: Duration) {
        let per = |figure: &AtomicU64| figure.load(Relaxed) as f64 / count as f64;
        println!(
            "{what:<44} {:>9.0}/s  all {:>6.0} ns  coproc {:>6.0} ns  {:>7.1} bytes  {:.2} keys",
            count as f64 / took.as_secs_f64(),
            took.as_nanos() as f64 / count as f64,
            per(&self.figures.nanos),
            per(&self.figures.bytes),
            per(&self.figures.keys),
        );
    }
}

async fn offline() {
    let world = world(100, false).await;
    let inserts: Vec<_> = (0..100).map(|n| world.insert(std::iter::once(n))).collect();
    let (rounds, start) = (2000, Instant::now());
    for _ in 0..rounds {
        world.range.hold();
        let replies: Vec<_> = inserts.iter().map(|insert| world.store.insert(insert.clone())).collect();
        world.range.release();
        for reply in replies {
            reply.await.unwrap();
        }
    }
    world.report("100 publishers -> 100 offline inboxes", rounds * 100, start.elapsed());
}

async fn fan_out() {
    let world = world(1000, false).await;
    let insert = world.insert(0..1000);
    let (rounds, start) = (200, Instant::now());
    for _ in 0..rounds {
        world.store.insert(insert.clone()).await.unwrap();
    }
    world.report("1 message -> 1000 offline inboxes, each", rounds * 1000, start.elapsed());
}

async fn live() {
    let world = world(100, true).await;
    let inserts: Vec<_> = (0..100).map(|n| world.insert(std::iter::once(n))).collect();
    let (rounds, start) = (100, Instant::now());
    for round in 0..rounds {
        // Ten messages for each, fetched and acknowledged together: a window of ten.
        for _ in 0..10 {
            world.range.hold();
            for insert in &inserts {
                drop(world.store.insert(insert.clone()));
            }
            world.range.release();
        }
        world.range.hold();
        for (n, version) in world.versions.iter().enumerate() {
            let entries = world.store.fetch(&inbox(n), *version, round * 10 + 1, BATCH, 1 << 20).unwrap();
            assert_eq!(entries.len(), 10);
            let done: Vec<_> = entries.iter().map(|entry| entry.seq).collect();
            let commit = Commit { sent_upto: done.last().map(|seq| seq + 1), done, ..Commit::default() };
            drop(world.store.commit(&inbox(n), *version, commit));
        }
        world.range.release();
    }
    world.report("100 live inboxes: queue, fetch, acknowledge", rounds * 1000, start.elapsed());
    assert_eq!(world.store.stats().queued_messages, 0);
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        offline().await;
        fan_out().await;
        live().await;
    });
}
