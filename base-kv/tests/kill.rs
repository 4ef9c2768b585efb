//! A process that is killed while it acknowledges.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is the finding")]

use base_kv::{Host, KvConfig, Range, RangeSpec};
use base_kv_api::{ApplyCx, Coproc, KvError, KvRead, KvSpace, RangeClient};
use base_types::{Incarnation, NodeId, NodeIncarnation, SystemClock};
use bytes::Bytes;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const DIRECTORY: &str = "BASE_KV_KILL_TEST_DIRECTORY";

/// Keeps the number that it was told last, and refuses one that does not follow it.
struct Sequence;

impl Coproc for Sequence {
    fn mutate(&mut self, _: &ApplyCx, command: &Bytes, space: &mut dyn KvSpace) -> Result<Bytes, KvError> {
        let last = number(&space.get(b"last")?.unwrap_or_default());
        if number(command) == last + 1 {
            space.put(b"last", command);
        }
        Ok(Bytes::copy_from_slice(&last.to_be_bytes()))
    }

    fn reset(&mut self, _: &dyn KvRead) -> Result<(), KvError> {
        Ok(())
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_be_bytes)
}

async fn open(dir: &Path) -> (Host, Range, u64) {
    let config = KvConfig { data_dir: dir.to_owned(), log_entries: 50, min_free_bytes: 0, ..KvConfig::default() };
    let node = NodeIncarnation { node: NodeId(1), incarnation: Incarnation(1) };
    let host = Host::open(config, node, Arc::new(SystemClock)).unwrap();
    let range = host.open_range(RangeSpec::whole("inbox"), Box::new(Sequence)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), range.ready()).await.unwrap();
    let mut last = 0;
    range
        .read(b"", &mut |keys| {
            last = number(&keys.get(b"last")?.unwrap_or_default());
            Ok(())
        })
        .unwrap();
    (host, range, last)
}

/// The process that is killed: not a test of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the test below"]
async fn acknowledge_until_killed() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let (_host, range, mut last) = open(Path::new(&dir)).await;
    println!("\nfound {last}");
    loop {
        let replies: Vec<_> =
            (1..=8).map(|n| range.mutate(b"", Bytes::copy_from_slice(&(last + n).to_be_bytes()))).collect();
        for reply in replies {
            assert_eq!(number(&reply.await.unwrap()), last);
            last += 1;
            println!("answered {last}");
        }
        std::io::stdout().flush().unwrap();
    }
}

#[test]
fn a_killed_process_finds_everything_that_it_answered() {
    let dir = tempfile::tempdir().unwrap();
    let mut answered = 0;
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["acknowledge_until_killed", "--exact", "--ignored", "--nocapture"])
            .env(DIRECTORY, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut seen = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
            if let Some(found) = line.strip_prefix("found ").and_then(|n| n.parse::<u64>().ok()) {
                assert!(found >= answered, "round {round}: {found} is there, {answered} was answered");
            }
            if let Some(n) = line.strip_prefix("answered ").and_then(|n| n.parse().ok()) {
                answered = n;
                seen += 1;
            }
            if seen == 40 * (round + 1) {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= 40 * (round + 1), "round {round}: the process ended by itself after {seen} answers");
    }
}
