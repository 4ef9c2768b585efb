//! A host on engines in memory: power cuts, broken and full disks.

use crate::engine::{Engine, MemEngine};
use crate::host::Ground;
use crate::space::{Probe, Space};
use crate::{Host, KvConfig, Range, RangeSpec, Role};
use base_kv_api::{ApplyCx, Coproc, KvError, KvRead, KvSpace, MutateError, RangeClient, Visit};
use base_types::{NodeId, SystemClock};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Keeps its commands in the order in which they came.
struct Journal;

impl Coproc for Journal {
    fn mutate(&mut self, cx: &ApplyCx, command: &Bytes, space: &mut dyn KvSpace) -> Result<Bytes, KvError> {
        let mut key = cx.index.to_be_bytes().to_vec();
        key.extend_from_slice(&cx.position.to_be_bytes());
        space.put(&key, command);
        Ok(command.clone())
    }

    fn reset(&mut self, _: &dyn KvRead) -> Result<(), KvError> {
        Ok(())
    }
}

struct Disk {
    log: Arc<MemEngine>,
    data: Arc<MemEngine>,
    free: Arc<AtomicU64>,
    dir: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        Self {
            log: Arc::default(),
            data: Arc::default(),
            free: Arc::new(AtomicU64::new(1000)),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    async fn open(&self) -> (Host, Range) {
        let host = self.host(self.dir.path()).unwrap();
        let range = host.open_range(RangeSpec::whole("inbox"), Box::new(Journal)).await.unwrap();
        (host, range)
    }

    fn host(&self, dir: &Path) -> Result<Host, crate::OpenError> {
        let config = KvConfig { data_dir: dir.to_owned(), log_entries: 5, ..KvConfig::default() };
        let (log, data): (Arc<dyn Engine>, Arc<dyn Engine>) = (self.log.clone(), self.data.clone());
        let space = Space::new(Probe::Said(Arc::clone(&self.free)), 100);
        let (clock, observer) = (Arc::new(SystemClock), Arc::new(()));
        Host::over(config, NodeId(1), Ground { log, data, clock, observer, space, home: None, mesh: None })
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("within the deadline")
}

fn journal(range: &Range) -> Vec<u64> {
    let mut found = Vec::new();
    range
        .read(b"", &mut |keys| {
            keys.scan(b""..&[0xff; 12], &mut |_, v| {
                found.push(u64::from_be_bytes(v.try_into().unwrap()));
                Visit::More
            })
        })
        .unwrap();
    found
}

fn command(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_at_any_write_loses_nothing_that_was_answered_and_keeps_the_order() {
    let mut cut_short = 0;
    for (log_breaks, data_breaks) in (4..40).step_by(3).flat_map(|n| [(n, u64::MAX), (u64::MAX, n)]) {
        let disk = Disk::new();
        let (host, range) = disk.open().await;
        soon(range.ready()).await;
        disk.log.break_after(log_breaks);
        disk.data.break_after(data_breaks);
        let mut answered = Vec::new();
        for round in 0..20 {
            let replies: Vec<_> = (0..5).map(|n| range.mutate(b"", command(round * 5 + n))).collect();
            for (reply, n) in replies.into_iter().zip(0..) {
                if soon(reply).await.is_ok() {
                    answered.push(round * 5 + n);
                }
            }
        }
        cut_short += usize::from(answered.len() < 100);
        soon(host.shutdown()).await.ok();
        drop((host, range));
        disk.log.crash();
        disk.data.crash();

        let (host, range) = disk.open().await;
        soon(range.ready()).await;
        let found = journal(&range);
        let what = format!("log broke after {log_breaks}, data after {data_breaks}");
        assert!(answered.iter().all(|n| found.binary_search(n).is_ok()), "{what}: {answered:?} in {found:?}");
        assert!(found.is_sorted(), "{what}: {found:?}");
        assert_eq!(soon(range.mutate(b"", command(1000))).await, Ok(command(1000)), "{what}");
        soon(host.shutdown()).await.unwrap();
    }
    assert!(cut_short > 10, "only {cut_short} cuts hit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_disk_stops_the_replica_within_a_second_and_it_says_why() {
    let disk = Disk::new();
    let (host, range) = disk.open().await;
    soon(range.ready()).await;
    disk.log.break_after(0);
    let started = Instant::now();
    assert_eq!(soon(range.mutate(b"", command(1))).await, Err(MutateError::Unknown));
    loop {
        let stats = range.stats().unwrap();
        if stats.role == Role::Stopped {
            break assert!(stats.unready.is_some_and(|why| why.contains("input/output error")));
        }
        assert!(started.elapsed() < Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    assert!(host.stats().failure.is_some_and(|why| why.contains("input/output error")));
    // Waiting for what will never come is no option either.
    assert!(soon(range.linearize(b"")).await.is_err());
    soon(host.shutdown()).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_says_so_and_goes_on_once_there_is_space() {
    let disk = Disk::new();
    let (host, range) = disk.open().await;
    assert_eq!(soon(range.mutate(b"", command(1))).await, Ok(command(1)));
    disk.free.store(99, Ordering::Relaxed);
    let deadline = Instant::now() + Duration::from_secs(10);
    let refused = loop {
        match soon(range.mutate(b"", command(2))).await {
            Err(error) => break error,
            Ok(_) => assert!(Instant::now() < deadline),
        }
    };
    assert_eq!(refused, MutateError::NoSpace { free: 99, needed: 100 });
    assert!(refused.is_retryable() && host.stats().disk_full);
    assert!(range.stats().unwrap().unready.is_some_and(|why| why.contains("disk is full")));
    assert!(!journal(&range).is_empty(), "reading goes on");
    // What makes room may use half of the reserve.
    assert_eq!(soon(range.mutate_from_reserve(b"", command(4))).await, Ok(command(4)));
    disk.free.store(49, Ordering::Relaxed);
    let refused = loop {
        match soon(range.mutate_from_reserve(b"", command(5))).await {
            Err(error) => break error,
            Ok(_) => assert!(Instant::now() < deadline),
        }
    };
    assert_eq!(refused, MutateError::NoSpace { free: 49, needed: 50 });
    disk.free.store(1000, Ordering::Relaxed);
    while soon(range.mutate(b"", command(3))).await.is_err() {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    assert!(range.stats().unwrap().unready.is_none());
    soon(host.shutdown()).await.unwrap();
}

/// The reserve was not enough: somebody else took the last byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_without_a_byte_delays_what_is_on_its_way_and_nothing_breaks() {
    for fill in [|disk: &Disk| disk.log.fill_up(true), |disk: &Disk| disk.data.fill_up(true)] {
        let disk = Disk::new();
        let (host, range) = disk.open().await;
        soon(range.ready()).await;
        fill(&disk);
        let replies: Vec<_> = (0..20).map(|n| range.mutate(b"", command(n))).collect();
        let all = futures_util::future::join_all(replies);
        tokio::pin!(all);
        let early = tokio::time::timeout(Duration::from_millis(300), &mut all).await;
        assert!(early.is_err(), "answered without a byte of space: {early:?}");
        disk.log.fill_up(false);
        disk.data.fill_up(false);
        assert!(soon(all).await.iter().all(Result::is_ok));
        assert_eq!(journal(&range), (0..20).collect::<Vec<_>>());
        assert!(range.stats().unwrap().unready.is_none());
        soon(host.shutdown()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_replica_never_gets_the_name_of_an_old_one() {
    let disk = Disk::new();
    let (host, range) = disk.open().await;
    let first = range.replica_id().unwrap();
    let second = host.open_range(RangeSpec::whole("dist"), Box::new(Journal)).await.unwrap().replica_id().unwrap();
    assert_ne!(first, second);
    soon(host.shutdown()).await.unwrap();
    drop((host, range));
    let (host, range) = disk.open().await;
    assert_eq!(range.replica_id().unwrap(), first, "the same data, the same name");
    let third = host.open_range(RangeSpec::whole("retain"), Box::new(Journal)).await.unwrap().replica_id().unwrap();
    assert!(third.counter > second.counter);
    soon(host.shutdown()).await.unwrap();
    // A wiped disk is another disk.
    let (host, range) = Disk::new().open().await;
    assert_ne!(range.replica_id().unwrap().store, first.store);
    soon(host.shutdown()).await.unwrap();
}
