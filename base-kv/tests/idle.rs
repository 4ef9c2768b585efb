//! What a host with three ranges costs that nobody uses.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is the finding")]

use base_kv::{Host, KvConfig, RangeSpec};
use base_kv_api::{ApplyCx, Coproc, KvError, KvRead, KvSpace, RangeClient};
use base_types::{Incarnation, NodeId, NodeIncarnation, SystemClock};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

struct Nothing;

impl Coproc for Nothing {
    fn mutate(&mut self, _: &ApplyCx, _: &Bytes, _: &mut dyn KvSpace) -> Result<Bytes, KvError> {
        Ok(Bytes::new())
    }

    fn reset(&mut self, _: &dyn KvRead) -> Result<(), KvError> {
        Ok(())
    }
}

/// Anonymous resident memory in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_idle_ranges_cost_little_memory_and_hardly_any_cpu() {
    let dir = tempfile::tempdir().unwrap();
    let before = memory();
    let node = NodeIncarnation { node: NodeId(1), incarnation: Incarnation(1) };
    let config = KvConfig { data_dir: dir.path().to_owned(), min_free_bytes: 0, ..KvConfig::default() };
    let host = Host::open(config, node, Arc::new(SystemClock)).unwrap();
    let mut ranges = Vec::new();
    for store in ["dist", "inbox", "retain"] {
        let range = host.open_range(RangeSpec::whole(store), Box::new(Nothing)).await.unwrap();
        range.ready().await;
        ranges.push(range);
    }
    let used = memory() - before;
    println!("{used} KiB for a host with three ranges, engines say {} bytes", host.stats().memory_bytes);
    assert!(used < 16 << 10, "{used} KiB");
    let start = cpu();
    // The window of a measurement, not a wait for something.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let busy = cpu() - start;
    println!("{busy:?} of CPU in 2 s");
    assert!(busy < Duration::from_millis(200), "{busy:?} of CPU in 2 s");
    host.shutdown().await.unwrap();
}
