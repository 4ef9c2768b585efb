//! A host on a real disk.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is the finding")]

use base_kv::{Host, KvConfig, OpenError, Range, RangeSpec, Role};
use base_kv_api::{ApplyCx, Coproc, KvError, KvRead, KvSpace, MutateError, RangeClient, Visit};
use base_types::{Incarnation, NodeId, NodeIncarnation, SystemClock};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Counts how often each key was named, and answers the count. `!` is an engine that fails.
#[derive(Default)]
struct Counter {
    total: u64,
    published: Arc<AtomicU64>,
}

impl Coproc for Counter {
    fn mutate(&mut self, _: &ApplyCx, command: &Bytes, space: &mut dyn KvSpace) -> Result<Bytes, KvError> {
        if &command[..] == b"!" {
            return Err(KvError { doing: "test", cause: "planted".into() });
        }
        let count = space.get(command)?.map_or(0, |v| u64::from_be_bytes(v[..].try_into().unwrap())) + 1;
        space.put(command, &count.to_be_bytes());
        self.total += 1;
        Ok(count.to_string().into())
    }

    fn applied(&mut self) {
        self.published.store(self.total, Ordering::SeqCst);
    }

    fn reset(&mut self, keys: &dyn KvRead) -> Result<(), KvError> {
        self.total = 0;
        keys.scan(b""..&[0xff; 9], &mut |_, v| {
            self.total += u64::from_be_bytes(v.try_into().unwrap());
            Visit::More
        })?;
        self.published.store(self.total, Ordering::SeqCst);
        Ok(())
    }
}

fn config(dir: &Path) -> KvConfig {
    KvConfig { data_dir: dir.to_owned(), min_free_bytes: 0, ..KvConfig::default() }
}

fn node(incarnation: u64) -> NodeIncarnation {
    NodeIncarnation { node: NodeId(7), incarnation: Incarnation(incarnation) }
}

fn open(config: KvConfig) -> Host {
    Host::open(config, node(1), Arc::new(SystemClock)).unwrap()
}

async fn counter(host: &Host, store: &'static str) -> (Range, Arc<AtomicU64>) {
    let coproc = Counter::default();
    let published = Arc::clone(&coproc.published);
    let range = host.open_range(RangeSpec::whole(store), Box::new(coproc)).await.unwrap();
    (range, published)
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("within the deadline")
}

fn value(range: &Range, key: &[u8]) -> Option<u64> {
    let mut found = None;
    range
        .read(b"", &mut |keys| {
            found = keys.get(key)?.map(|v| u64::from_be_bytes(v[..].try_into().unwrap()));
            Ok(())
        })
        .unwrap();
    found
}

/// Waits until nothing of an earlier host holds the directory.
async fn reopen(config: KvConfig) -> Host {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match Host::open(config.clone(), node(2), Arc::new(SystemClock)) {
            Ok(host) => return host,
            Err(OpenError::InUse { .. }) if Instant::now() < deadline => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_ranges_are_ready_within_a_second_and_keep_what_they_answered() {
    let dir = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let host = open(config(dir.path()));
    let mut ranges = Vec::new();
    for store in ["dist", "inbox", "retain"] {
        ranges.push(counter(&host, store).await.0);
    }
    for range in &ranges {
        soon(range.ready()).await;
    }
    let took = started.elapsed();
    for (range, times) in ranges.iter().zip(1..) {
        for n in 1..=times {
            assert_eq!(soon(range.mutate(b"", Bytes::from_static(b"k"))).await.unwrap(), n.to_string());
        }
    }
    let stats = host.stats();
    assert!(stats.ranges.iter().all(|r| r.role == Role::Leader && r.unready.is_none()), "{stats:?}");
    assert!(stats.syncs > 0 && stats.failure.is_none());
    assert!(took < Duration::from_secs(1), "{took:?}");
    soon(host.shutdown()).await.unwrap();
    let refused = soon(ranges[0].mutate(b"", Bytes::from_static(b"k"))).await;
    assert!(matches!(refused, Err(MutateError::Stopped { .. })), "{refused:?}");
    let names: Vec<_> = ranges.iter().map(Range::replica_id).collect();
    drop((ranges, host));

    let host = reopen(config(dir.path())).await;
    for ((store, times), name) in ["dist", "inbox", "retain"].into_iter().zip(1..).zip(names) {
        let (range, published) = counter(&host, store).await;
        soon(range.ready()).await;
        assert_eq!(range.replica_id(), name);
        assert_eq!(value(&range, b"k"), Some(times));
        assert_eq!(published.load(Ordering::SeqCst), times);
    }
    soon(host.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_commands_share_an_fsync_and_are_applied_in_the_order_of_the_calls() {
    let dir = tempfile::tempdir().unwrap();
    let host = open(config(dir.path()));
    let (range, published) = counter(&host, "inbox").await;
    soon(range.ready()).await;
    let before = host.stats().syncs;
    let replies: Vec<_> = (0..10_000).map(|_| range.mutate(b"", Bytes::from_static(b"k"))).collect();
    for (reply, n) in replies.into_iter().zip(1u64..) {
        assert_eq!(soon(reply).await.unwrap(), n.to_string());
    }
    assert_eq!(published.load(Ordering::SeqCst), 10_000);
    let syncs = host.stats().syncs - before;
    assert!(syncs < 1_000, "{syncs} fsyncs for 10,000 commands");
    soon(range.linearize(b"")).await.unwrap();
    soon(host.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_coprocessor_stops_its_replica_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let host = open(config(dir.path()));
    let (range, _) = counter(&host, "inbox").await;
    let (other, _) = counter(&host, "dist").await;
    assert_eq!(soon(range.mutate(b"", Bytes::from_static(b"!"))).await, Err(MutateError::Unknown));
    let deadline = Instant::now() + Duration::from_secs(10);
    while range.stats().unwrap().role != Role::Stopped && Instant::now() < deadline {
        tokio::task::yield_now().await;
    }
    let unready = range.stats().unwrap().unready.unwrap();
    assert!(unready.contains("planted"), "{unready}");
    loop {
        match soon(range.mutate(b"", Bytes::from_static(b"k"))).await {
            Err(MutateError::Stopped { cause }) => break assert!(cause.contains("planted"), "{cause}"),
            // Raft has ended, and who watches it has not yet said so.
            Err(MutateError::Unknown) if Instant::now() < deadline => tokio::task::yield_now().await,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(soon(other.mutate(b"", Bytes::from_static(b"k"))).await.unwrap(), "1");
    soon(host.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_is_open_once_and_a_directory_has_one_user() {
    let dir = tempfile::tempdir().unwrap();
    let host = open(config(dir.path()));
    let (range, _) = counter(&host, "inbox").await;
    let again = host.open_range(RangeSpec::whole("inbox"), Box::new(Counter::default())).await;
    assert!(matches!(again.err(), Some(OpenError::Range { .. })));
    let second = Host::open(config(dir.path()), node(2), Arc::new(SystemClock));
    assert!(matches!(second.err(), Some(OpenError::InUse { .. })));
    drop(range);
    soon(host.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_purged_and_a_restart_finds_all() {
    let dir = tempfile::tempdir().unwrap();
    let small = || KvConfig { log_entries: 20, ..config(dir.path()) };
    let host = open(small());
    let (range, _) = counter(&host, "inbox").await;
    for n in 1..=200 {
        assert_eq!(soon(range.mutate(b"", Bytes::from_static(b"k"))).await.unwrap(), n.to_string());
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while range.stats().unwrap().purged_index < 150 && Instant::now() < deadline {
        tokio::task::yield_now().await;
    }
    let stats = range.stats().unwrap();
    assert!(stats.purged_index >= 150 && stats.applied_index >= 200, "{stats:?}");
    soon(host.shutdown()).await.unwrap();
    drop((range, host));
    let host = reopen(small()).await;
    let (range, _) = counter(&host, "inbox").await;
    assert_eq!(soon(range.mutate(b"", Bytes::from_static(b"k"))).await.unwrap(), "201");
    soon(host.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_without_reserve_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let host = open(KvConfig { min_free_bytes: u64::MAX, ..config(dir.path()) });
    let (range, _) = counter(&host, "inbox").await;
    soon(range.ready()).await;
    let refused = soon(range.mutate(b"", Bytes::from_static(b"k"))).await;
    assert!(matches!(refused, Err(MutateError::NoSpace { .. })), "{refused:?}");
    assert!(host.stats().disk_full && range.stats().unwrap().unready.is_some());
    soon(host.shutdown()).await.unwrap();
}
