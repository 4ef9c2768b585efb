//! What every engine must do.

use super::{Engine, LogTuning, MemEngine, RocksEngine, RocksOptions, Sync};
use base_kv_api::{KvError, Visit};
use bytes::Bytes;
use std::path::Path;

fn rocks(path: &Path, tuning: LogTuning) -> RocksEngine {
    RocksEngine::open(path, &RocksOptions { memtable: 1 << 20, cache: 1 << 20, tuning }).unwrap()
}

/// Runs a test on both engines.
fn on_all(test: impl Fn(&dyn Engine, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    for tuning in [LogTuning::Log, LogTuning::Data] {
        let path = dir.path().join(if tuning == LogTuning::Log { "log" } else { "data" });
        test(&rocks(&path, tuning), dir.path());
    }
    test(&MemEngine::default(), dir.path());
}

fn put(engine: &dyn Engine, sync: Sync, pairs: &[(&str, &str)]) {
    engine.write(sync, &mut |batch| pairs.iter().for_each(|(k, v)| batch.put(k.as_bytes(), v.as_bytes()))).unwrap();
}

fn all(engine: &dyn Engine) -> Vec<String> {
    let mut found = Vec::new();
    engine
        .scan(b"".as_slice()..&[0xff], &mut |k, v| {
            found.push(format!("{}={}", String::from_utf8_lossy(k), String::from_utf8_lossy(v)));
            Visit::More
        })
        .unwrap();
    found
}

#[test]
fn a_batch_is_applied_in_its_order() {
    on_all(|engine, _| {
        put(engine, Sync::Never, &[("a", "1"), ("b", "1"), ("c", "1")]);
        engine
            .write(Sync::Never, &mut |batch| {
                batch.delete_range(b"a"..b"c");
                batch.put(b"b", b"2");
                batch.delete(b"c");
                batch.put(b"d", b"2");
            })
            .unwrap();
        assert_eq!(all(engine), ["b=2", "d=2"]);
        assert_eq!(engine.get(b"b").unwrap(), Some(Bytes::from_static(b"2")));
        assert_eq!(engine.get(b"a").unwrap(), None);
    });
}

#[test]
fn a_scan_keeps_to_its_bounds_and_stops_when_told() {
    on_all(|engine, _| {
        put(engine, Sync::Never, &[("a", ""), ("b", ""), ("ba", ""), ("c", "")]);
        let mut seen = Vec::new();
        engine
            .scan(b"b".as_slice()..b"c", &mut |k, _| {
                seen.push(k.to_vec());
                Visit::More
            })
            .unwrap();
        assert_eq!(seen, [b"b".to_vec(), b"ba".to_vec()]);
        let mut count = 0;
        engine
            .scan(b"a".as_slice()..b"z", &mut |_, _| {
                count += 1;
                Visit::Enough
            })
            .unwrap();
        assert_eq!(count, 1);
        engine.scan(b"c".as_slice()..b"a", &mut |_, _| panic!("nothing is between")).unwrap();
    });
}

#[test]
fn a_view_does_not_see_what_is_written_after_it() {
    on_all(|engine, _| {
        put(engine, Sync::Never, &[("a", "old")]);
        engine
            .view(&mut |view| {
                put(engine, Sync::Never, &[("a", "new"), ("b", "new")]);
                assert_eq!(view.get(b"a")?, Some(Bytes::from_static(b"old")));
                view.scan(b"b".as_slice()..b"z", &mut |_, _| panic!("written after"))
            })
            .unwrap();
        assert_eq!(all(engine), ["a=new", "b=new"]);
    });
}

#[test]
fn replacing_leaves_the_new_pairs_and_the_neighbours() {
    on_all(|engine, dir| {
        let staging = dir.join("staging");
        for round in ["1", "2"] {
            std::fs::create_dir_all(&staging).unwrap();
            put(engine, Sync::Never, &[("a", "kept"), ("ba", "old"), ("bz", "old"), ("c", "kept")]);
            engine.replace(b"b".as_slice()..b"c", &staging, &mut |sink| sink(b"bb", round.as_bytes())).unwrap();
            assert_eq!(all(engine), ["a=kept".to_owned(), format!("bb={round}"), "c=kept".to_owned()]);
            std::fs::remove_dir_all(&staging).unwrap();
        }
        std::fs::create_dir_all(&staging).unwrap();
        engine.replace(b"b".as_slice()..b"c", &staging, &mut |_| Ok(())).unwrap();
        assert_eq!(all(engine), ["a=kept", "c=kept"]);
        put(engine, Sync::Never, &[("b", "later")]);
        assert_eq!(all(engine), ["a=kept", "b=later", "c=kept"]);
        std::fs::remove_dir_all(&staging).unwrap();
        let failed = || KvError { doing: "test", cause: "planted".into() };
        std::fs::create_dir_all(&staging).unwrap();
        assert!(engine.replace(b"b".as_slice()..b"c", &staging, &mut |_| Err(failed())).is_err());
        assert_eq!(all(engine), ["a=kept", "b=later", "c=kept"]);
    });
}

#[test]
fn memory_loses_what_was_not_synced_and_nothing_else() {
    let engine = MemEngine::default();
    put(&engine, Sync::Now, &[("a", "synced")]);
    put(&engine, Sync::Os, &[("b", "lost")]);
    engine.crash();
    assert_eq!(all(&engine), ["a=synced"]);
    put(&engine, Sync::Never, &[("b", "flushed")]);
    engine.flush().unwrap();
    put(&engine, Sync::Never, &[("c", "lost")]);
    engine.crash();
    assert_eq!(all(&engine), ["a=synced", "b=flushed"]);
    engine.break_after(1);
    put(&engine, Sync::Now, &[("d", "last")]);
    assert!(engine.write(Sync::Now, &mut |batch| batch.put(b"e", b"")).is_err());
    assert_eq!(all(&engine), ["a=synced", "b=flushed", "d=last"]);
}

/// What a crash of the process does to RocksDB can't be had by dropping it: closing flushes. Copying the open directory is what
/// a kill leaves.
#[test]
fn rocksdb_keeps_synced_log_writes_and_flushed_data_over_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    for (tuning, expected) in [(LogTuning::Log, vec!["a=1", "b=1", "c=1"]), (LogTuning::Data, vec!["a=1"])] {
        let (live, dead) = (dir.path().join("live"), dir.path().join("dead"));
        let engine = rocks(&live, tuning);
        let sync = |s| if tuning == LogTuning::Data { Sync::Never } else { s };
        put(&engine, sync(Sync::Os), &[("a", "1")]);
        engine.flush().unwrap();
        put(&engine, sync(Sync::Now), &[("b", "1")]);
        put(&engine, sync(Sync::Now), &[("c", "1")]);
        std::fs::create_dir_all(&dead).unwrap();
        for entry in std::fs::read_dir(&live).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), dead.join(entry.file_name())).unwrap();
        }
        assert_eq!(all(&rocks(&dead, tuning)), expected);
        drop(engine);
        std::fs::remove_dir_all(&live).unwrap();
        std::fs::remove_dir_all(&dead).unwrap();
    }
}

#[test]
fn a_torn_end_of_the_log_is_cut_off_and_damage_before_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let written = |name: &str| {
        let path = dir.path().join(name);
        let live = dir.path().join("live");
        let engine = rocks(&live, LogTuning::Log);
        for n in 0..40 {
            put(&engine, Sync::Now, &[(&format!("k{n:02}"), &"v".repeat(2000))]);
        }
        std::fs::create_dir_all(&path).unwrap();
        let mut wal = None;
        for entry in std::fs::read_dir(&live).unwrap().map(Result::unwrap) {
            let to = path.join(entry.file_name());
            std::fs::copy(entry.path(), &to).unwrap();
            if to.extension().is_some_and(|e| e == "log") && entry.metadata().unwrap().len() > 0 {
                wal = Some(to);
            }
        }
        drop(engine);
        std::fs::remove_dir_all(&live).unwrap();
        (path, wal.unwrap())
    };
    let (path, wal) = written("torn");
    let length = std::fs::metadata(&wal).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&wal).unwrap().set_len(length - 500).unwrap();
    assert_eq!(all(&rocks(&path, LogTuning::Log)).len(), 39);

    let (path, wal) = written("flipped");
    let mut bytes = std::fs::read(&wal).unwrap();
    bytes[20_000] ^= 1;
    std::fs::write(&wal, bytes).unwrap();
    let opened = RocksEngine::open(&path, &RocksOptions { memtable: 1 << 20, cache: 1 << 20, tuning: LogTuning::Log });
    let error = opened.err().expect("damage in the middle is no torn end");
    assert!(error.to_string().contains("orruption"), "{error}");
}
