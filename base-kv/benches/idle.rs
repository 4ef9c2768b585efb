//! What ranges cost that nobody uses: three nodes of one process, all of them voters of every range.
//!
//! `cargo bench -p base-kv --bench idle [-- RANGES [SECONDS]]`: default 100 ranges, 10 s.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is the finding")]

mod cluster;

use base_kv::Host;
use base_kv_api::{ApplyCx, Coproc, KvError, KvRead, KvSpace};
use bytes::Bytes;
use cluster::STORE;
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

fn leaders(hosts: &[Host]) -> Vec<u64> {
    let leader = |host: &Host| host.replicas(STORE).iter().filter(|view| view.leader == Some(view.replica)).count();
    hosts.iter().map(|host| leader(host) as u64).collect()
}

fn main() {
    let args: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let (ranges, seconds) = (args.first().copied().unwrap_or(100), args.get(1).copied().unwrap_or(10));
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("idle-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let before = memory();
        let hosts = cluster::open(&dir, ranges, || Box::new(Nothing)).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let kib = (memory() - before) as f64 / 3.0 / ranges.max(1) as f64;
        let (busy, spread) = (cpu(), leaders(&hosts));
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let share = (cpu() - busy).as_secs_f64() / seconds as f64 / 3.0 * 100.0;
        println!("{ranges} ranges with 3 voters, led {spread:?}: {share:.2} % of a core and {kib:.0} KiB per replica, per node");
        assert_eq!(leaders(&hosts), spread, "nobody had a reason to change the leader");
        for host in hosts {
            host.shutdown().await.unwrap();
        }
    });
    std::fs::remove_dir_all(&dir).unwrap();
}
