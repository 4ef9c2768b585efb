//! Durable commands per second through one range, next to one fsync per command on the same disk; then through one with three voters on
//! that disk, from the node that leads and from one that does not.
//!
//! `cargo bench -p base-kv --bench propose [-- DIRECTORY [SECONDS]]`: the directory decides which disk; default `target`, 2 s a line.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is the finding")]

mod cluster;

use base_kv::{Host, KvConfig, Range, RangeSpec};
use base_kv_api::{ApplyCx, Coproc, KvError, KvRead, KvSpace, RangeClient};
use base_types::{Incarnation, NodeId, NodeIncarnation, SystemClock};
use bytes::Bytes;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SIZE: usize = 256;

/// Appends each command to a queue of keys and forgets the one 10,000 before, as an inbox does.
#[derive(Default)]
struct Appends(u64);

impl Coproc for Appends {
    fn mutate(&mut self, _: &ApplyCx, command: &Bytes, space: &mut dyn KvSpace) -> Result<Bytes, KvError> {
        space.put(&self.0.to_be_bytes(), command);
        if let Some(old) = self.0.checked_sub(10_000) {
            space.delete(&old.to_be_bytes());
        }
        self.0 += 1;
        Ok(Bytes::new())
    }

    fn reset(&mut self, _: &dyn KvRead) -> Result<(), KvError> {
        Ok(())
    }
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn one_fsync_each(dir: &Path, length: Duration) -> f64 {
    let mut file = std::fs::File::create(dir.join("plain")).unwrap();
    let (started, mut count) = (Instant::now(), 0u32);
    while started.elapsed() < length {
        file.write_all(&[7; SIZE]).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    f64::from(count) / started.elapsed().as_secs_f64()
}

async fn publishers(host: &Host, range: &Range, count: usize, window: usize, length: Duration) -> (f64, f64, f64, f64) {
    let done = Arc::new(AtomicU64::new(0));
    let (syncs, busy, started) = (host.stats().syncs, cpu(), Instant::now());
    // As a broker has it: a few tasks, each with many publishers.
    let tasks: Vec<_> = (0..count.min(2))
        .map(|task| {
            let (range, done) = (range.clone(), Arc::clone(&done));
            let mine = count / count.min(2) * window;
            tokio::spawn(async move {
                use futures_util::StreamExt;
                let command = Bytes::from(vec![task as u8; SIZE]);
                let mut waiting: futures_util::stream::FuturesUnordered<_> =
                    (0..mine).map(|_| range.mutate(b"", command.clone())).collect();
                while let Some(reply) = waiting.next().await {
                    reply.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                    if started.elapsed() < length {
                        waiting.push(range.mutate(b"", command.clone()));
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let (done, took) = (done.load(Ordering::Relaxed) as f64, started.elapsed().as_secs_f64());
    let syncs = (host.stats().syncs - syncs) as f64;
    let busy = (cpu() - busy).as_secs_f64();
    (done / took, done / syncs, busy * 1e6 / done, took * 1e3 / syncs)
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let base = args.first().map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let length = Duration::from_secs_f64(args.get(1).map_or(2.0, |s| s.parse().unwrap()));
    let dir = base.join(format!("propose-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let plain = one_fsync_each(&dir, length);
    println!("{SIZE}-byte commands, {}", dir.display());
    println!("{:<34} {:>10} {:>8} {:>8} {:>9} {:>9}", "", "commands/s", "ratio", "per sync", "us CPU", "ms/sync");
    println!("{:<34} {plain:>10.0} {:>8.1} {:>8.1}", "plain file, one fsync each", 1.0, 1.0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let config = KvConfig { data_dir: dir.join("data"), ..KvConfig::default() };
        let node = NodeIncarnation { node: NodeId(1), incarnation: Incarnation(1) };
        let host = Host::open(config, node, Arc::new(SystemClock)).unwrap();
        let range = host.open_range(RangeSpec::whole("inbox"), Box::new(Appends::default())).await.unwrap();
        range.ready().await;
        for (count, window) in [(1, 1), (100, 1), (100, 10), (1000, 10), (1000, 30)] {
            let (rate, per_sync, us, ms) = publishers(&host, &range, count, window, length).await;
            let name = format!("{count} publishers, window {window}");
            println!("{name:<34} {rate:>10.0} {:>8.1} {per_sync:>8.1} {us:>9.2} {ms:>9.3}", rate / plain);
        }
        host.shutdown().await.unwrap();
        let hosts = cluster::open(&dir, 1, || Box::new(Appends::default())).await;
        for (from, host) in ["the leader", "a follower"].into_iter().zip(&hosts) {
            let range = host.client(RangeSpec::whole(cluster::STORE));
            range.ready().await;
            for (count, window) in [(1, 1), (100, 1), (100, 10), (1000, 10)] {
                let (rate, per_sync, us, ms) = publishers(host, &range, count, window, length).await;
                let name = format!("3 voters, from {from}: {count} × {window}");
                println!("{name:<34} {rate:>10.0} {:>8.1} {per_sync:>8.1} {us:>9.2} {ms:>9.3}", rate / plain);
            }
        }
        for host in hosts {
            host.shutdown().await.unwrap();
        }
    });
    std::fs::remove_dir_all(&dir).unwrap();
}
