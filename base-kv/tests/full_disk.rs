//! A file system that really is full. Needs the right to mount; says so and passes where that is missing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is the finding")]

use base_kv::{Host, KvConfig, RangeSpec};
use base_kv_api::{ApplyCx, Coproc, KvError, KvRead, KvSpace, MutateError, RangeClient, Visit};
use base_types::{Incarnation, NodeId, NodeIncarnation, SystemClock};
use bytes::Bytes;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Keeps every command under its log position.
struct Keep;

impl Coproc for Keep {
    fn mutate(&mut self, cx: &ApplyCx, command: &Bytes, space: &mut dyn KvSpace) -> Result<Bytes, KvError> {
        space.put(&[cx.index.to_be_bytes(), u64::from(cx.position).to_be_bytes()].concat(), command);
        Ok(Bytes::new())
    }

    fn reset(&mut self, _: &dyn KvRead) -> Result<(), KvError> {
        Ok(())
    }
}

struct Small(tempfile::TempDir);

impl Small {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(dir.path());
        mount.output().is_ok_and(|out| out.status.success()).then_some(Self(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

/// Takes all that is left.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    while file.write_all(&[0; 64 << 10]).is_ok() {}
    while file.write_all(&[0; 512]).is_ok() {}
}

fn count(range: &base_kv::Range) -> usize {
    let mut count = 0;
    range
        .read(b"", &mut |keys| {
            keys.scan(b""..&[0xff; 17], &mut |_, _| {
                count += 1;
                Visit::More
            })
        })
        .unwrap();
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_file_system_stops_acknowledgements_and_nothing_else() {
    let Some(small) = Small::mount("96m") else {
        eprintln!("skipped: no right to mount a file system");
        return;
    };
    let dir = small.0.path();
    let junk = dir.join("junk");
    std::fs::write(&junk, vec![0; 40 << 20]).unwrap();
    let config = KvConfig {
        data_dir: dir.join("data"),
        min_free_bytes: 24 << 20,
        memtable_bytes: 2 << 20,
        log_bytes: 4 << 20,
        ..KvConfig::default()
    };
    let node = NodeIncarnation { node: NodeId(1), incarnation: Incarnation(1) };
    let host = Host::open(config.clone(), node, Arc::new(SystemClock)).unwrap();
    let range = host.open_range(RangeSpec::whole("inbox"), Box::new(Keep)).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    // Does not compress.
    let mut seed = 1u64;
    let mut command = || {
        let bytes = (0..512).flat_map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed.to_be_bytes()
        });
        bytes.collect::<Bytes>()
    };
    let mut answered = 0;
    loop {
        assert!(Instant::now() < deadline, "{answered} answered and not full");
        match range.mutate(b"", command()).await {
            Ok(_) => answered += 1,
            Err(MutateError::NoSpace { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(answered > 100);
    // Somebody else takes the reserve too. Reads go on, nothing is acknowledged, nothing breaks.
    let more = dir.join("more");
    fill(&more);
    for _ in 0..10 {
        assert!(matches!(range.mutate(b"", command()).await, Err(MutateError::NoSpace { .. })));
        assert_eq!(count(&range), answered);
    }
    std::fs::remove_file(&more).unwrap();
    std::fs::remove_file(&junk).unwrap();
    let freed = Instant::now();
    while range.mutate(b"", command()).await.is_err() {
        assert!(freed.elapsed() < Duration::from_secs(10), "{:?}", host.stats());
        tokio::task::yield_now().await;
    }
    assert_eq!(count(&range), answered + 1);
    tokio::time::timeout(Duration::from_secs(20), host.shutdown()).await.unwrap().unwrap();
    drop((range, host));

    let host = loop {
        match Host::open(config.clone(), node, Arc::new(SystemClock)) {
            Ok(host) => break host,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::task::yield_now().await;
    };
    let range = host.open_range(RangeSpec::whole("inbox"), Box::new(Keep)).await.unwrap();
    range.ready().await;
    assert_eq!(count(&range), answered + 1);
    host.shutdown().await.unwrap();
}
