//! openraft's own suite on our log store and state machine, on both engines; and crashes at every write.

use super::{Change, Gathering, Image, LogStore, LogWriter, Machine, Progress, Slot, StateMachine, Types};
use super::{Entry, LeaderId, LogId, Membership, Vote};
use super::{Last, Origin, Outcome, Settle};
use crate::engine::{Engine, LogTuning, MemEngine, RocksEngine, RocksOptions, Sync};
use base_kv_api::ReplicaId;
use base_kv_api::{ApplyCx, Coproc, KvError, KvRead, KvSpace, Visit};
use base_types::WallMs;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use openraft::storage::{IOFlushed, RaftLogStorage, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, RaftLogReader, RaftSnapshotBuilder, StorageError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// Puts its commands under themselves, with their stamp.
struct Keep;

impl Coproc for Keep {
    fn mutate(&mut self, cx: &ApplyCx, command: &Bytes, space: &mut dyn KvSpace) -> Result<Bytes, KvError> {
        space.put(command, &cx.stamped.0.to_be_bytes());
        Ok(command.clone())
    }

    fn reset(&mut self, _: &dyn KvRead) -> Result<(), KvError> {
        Ok(())
    }
}

/// Proposes nothing.
struct Nobody;

impl Settle for Nobody {
    fn proposer(&self) -> u64 {
        0
    }

    fn settled(&self, _: Vec<(Origin, Outcome)>) {}

    fn skipped(&self, _: Last) {}
}

fn open(
    log: Arc<dyn Engine>,
    data: Arc<dyn Engine>,
    staging: PathBuf,
) -> Result<(LogStore, StateMachine, Arc<Machine>), KvError> {
    let slot = Slot(1);
    let progress = Arc::new(Progress::default());
    let writer = Arc::new(LogWriter::start(Arc::clone(&log), Sync::Now, Arc::new(())).unwrap());
    let machine = Machine::open(
        slot,
        Arc::clone(&log),
        Arc::clone(&data),
        Arc::new(parking_lot::Mutex::new(Box::new(Keep))),
        Arc::new(Nobody),
        Arc::clone(&progress),
        staging,
        [u64::MAX; 2],
    )?;
    let machine = Arc::new(machine);
    let store = LogStore::open(slot, log, data, Arc::clone(&writer), progress)?;
    Ok((store, StateMachine::new(Arc::clone(&machine), writer), machine))
}

struct InMemory;

impl StoreBuilder<Types, LogStore, StateMachine, TempDir> for InMemory {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let (log, data) = (Arc::new(MemEngine::default()), Arc::new(MemEngine::default()));
        let (store, machine, _) = open(log, data, dir.path().to_owned()).unwrap();
        Ok((dir, store, machine))
    }
}

struct OnRocks;

fn rocks(path: &Path, tuning: LogTuning) -> Arc<RocksEngine> {
    Arc::new(RocksEngine::open(path, &RocksOptions { memtable: 1 << 20, cache: 1 << 20, tuning }).unwrap())
}

impl StoreBuilder<Types, LogStore, StateMachine, TempDir> for OnRocks {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let log = rocks(&dir.path().join("log"), LogTuning::Log);
        let data = rocks(&dir.path().join("data"), LogTuning::Data);
        let (store, machine, _) = open(log, data, dir.path().to_owned()).unwrap();
        Ok((dir, store, machine))
    }
}

#[tokio::test]
async fn openrafts_suite_passes_in_memory() {
    Suite::test_all(InMemory).await.unwrap();
}

#[tokio::test]
async fn openrafts_suite_passes_on_rocksdb() {
    Suite::test_all(OnRocks).await.unwrap();
}

fn me() -> ReplicaId {
    ReplicaId { store: 9, counter: 1 }
}

fn id(index: u64) -> LogId {
    LogId::new(LeaderId { term: 1, node_id: me() }, index)
}

fn entry(index: u64, commands: &[&str]) -> Entry {
    let mut gathering = Gathering::new(0);
    commands.iter().for_each(|command| _ = gathering.push(command.as_bytes()));
    let origin = Origin { proposer: 1, life: index + 1, seq: 1 };
    // Stamps that go back now and then, as after a change of leaders.
    Entry { log_id: id(index), payload: EntryPayload::Normal(gathering.finish(WallMs(100 - index % 3), &origin)) }
}

fn membership(index: u64) -> Entry {
    let members = Membership::new(vec![BTreeSet::from([me()])], BTreeMap::from([(me(), super::Host::default())]));
    Entry { log_id: id(index), payload: EntryPayload::Membership(members.unwrap()) }
}

async fn append(store: &mut LogStore, entries: Vec<Entry>) -> Result<(), std::io::Error> {
    let (tx, rx) = Types::oneshot();
    store.append(entries, IOFlushed::signal(tx)).await?;
    rx.await.unwrap_or_else(|_| Err(std::io::Error::other("dropped")))
}

async fn apply(machine: &mut StateMachine, entries: Vec<Entry>) -> Result<(), std::io::Error> {
    machine.apply(stream::iter(entries.into_iter().map(|entry| Ok((entry, None))))).await
}

fn keys(machine: &Machine) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    machine
        .view(&mut |_, keys| {
            keys.each(&mut |key, value| {
                let stamp = u64::from_be_bytes(value.try_into().unwrap());
                found.insert(String::from_utf8(key.to_vec()).unwrap(), stamp);
                Visit::More
            })
        })
        .unwrap();
    found
}

#[tokio::test]
async fn stamps_never_go_back() {
    let dir = tempfile::tempdir().unwrap();
    let (_, mut sm, machine) =
        open(Arc::new(MemEngine::default()), Arc::new(MemEngine::default()), dir.path().to_owned()).unwrap();
    apply(&mut sm, vec![entry(3, &["first"]), entry(4, &["back"])]).await.unwrap();
    apply(&mut sm, vec![entry(5, &["further"])]).await.unwrap();
    assert_eq!(keys(&machine).values().copied().collect::<Vec<_>>(), [100, 100, 100]);
}

/// A life of a replica: appends, applies, a flush with purge, more appends. Answers what was acknowledged: entries whose
/// append had returned, and the vote.
async fn live(log: Arc<dyn Engine>, data: Arc<dyn Engine>, dir: &Path) -> (Option<Vote>, u64) {
    let mut acknowledged = (None, 0);
    let _ = async {
        let (mut store, mut sm, _) = open(log, data, dir.to_owned()).map_err(super::io_error)?;
        let vote = Vote { leader_id: LeaderId { term: 1, node_id: me() }, committed: true };
        store.save_vote(&vote).await?;
        acknowledged.0 = Some(vote);
        let mut index = 0;
        for round in 0..4 {
            let mut entries = if round == 0 { vec![membership(0)] } else { vec![] };
            for n in 0..3 {
                let at = index + entries.len() as u64;
                entries.push(entry(at, &[&format!("{round}.{n}.a"), &format!("{round}.{n}.b")]));
            }
            index += entries.len() as u64;
            append(&mut store, entries.clone()).await?;
            acknowledged.1 = index;
            store.save_committed(Some(id(index - 1))).await?;
            apply(&mut sm, entries).await?;
            if round == 1 {
                let snapshot = sm.try_create_snapshot_builder(true).await.unwrap().build_snapshot().await?;
                store.purge(snapshot.meta.last_log_id.unwrap()).await?;
            }
        }
        Ok::<_, std::io::Error>(())
    }
    .await;
    acknowledged
}

#[tokio::test]
async fn a_crash_at_every_write_loses_nothing_that_was_acknowledged() {
    let reference = {
        let dir = tempfile::tempdir().unwrap();
        let data = Arc::new(MemEngine::default());
        let log = Arc::new(MemEngine::default());
        assert_eq!(live(Arc::<MemEngine>::clone(&log), Arc::<MemEngine>::clone(&data), dir.path()).await.1, 13);
        let writes = (log.writes(), data.writes());
        let machine = open(log, data, dir.path().to_owned()).unwrap().2;
        (writes, keys(&machine))
    };
    assert_eq!(reference.1.len(), 24);
    let breaks = (0..=reference.0.0).map(|n| (n, u64::MAX)).chain((0..=reference.0.1).map(|n| (u64::MAX, n)));
    for (log_breaks, data_breaks) in breaks {
        let dir = tempfile::tempdir().unwrap();
        let (log, data) = (Arc::new(MemEngine::default()), Arc::new(MemEngine::default()));
        log.break_after(log_breaks);
        data.break_after(data_breaks);
        let (vote, count) = live(Arc::<MemEngine>::clone(&log), Arc::<MemEngine>::clone(&data), dir.path()).await;
        log.crash();
        data.crash();

        let (mut store, mut sm, machine) = open(log, data, dir.path().to_owned()).unwrap();
        let what = format!("broken after {log_breaks} writes of the log, {data_breaks} of the data");
        assert_eq!(store.read_vote().await.unwrap(), vote, "{what}");
        let state = store.get_log_state().await.unwrap();
        let last = state.last_log_id.map_or(0, |id| id.index + 1);
        assert!(last >= count, "{what}: {last} of {count} entries");
        let (applied, _) = sm.applied_state().await.unwrap();
        assert!(applied >= state.last_purged_log_id, "{what}: purged beyond what is on disk");
        let from = applied.map_or(0, |id| id.index + 1);
        let entries: Vec<Entry> = store.entries_stream(from..last).await.map(Result::unwrap).collect().await;
        assert_eq!(entries.len() as u64, last - from, "{what}");
        apply(&mut sm, entries).await.unwrap();
        let commands = reference.1.iter().take(usize::try_from(count.saturating_sub(1)).unwrap() * 2);
        let found = keys(&machine);
        for (key, stamp) in commands {
            assert_eq!(found.get(key), Some(stamp), "{what}: {key}");
        }
    }
}

#[tokio::test]
async fn a_snapshot_is_installed_whole_or_not_at_all_wherever_a_crash_comes() {
    let dir = tempfile::tempdir().unwrap();
    let mem = || Arc::new(MemEngine::default());
    let (_, mut from, _) = open(mem(), mem(), dir.path().join("from")).unwrap();
    apply(&mut from, vec![membership(0), entry(1, &["new.a", "new.b"]), entry(2, &["new.c"])]).await.unwrap();
    let snapshot = from.try_create_snapshot_builder(true).await.unwrap().build_snapshot().await.unwrap();
    let file = dir.path().join("sent");
    snapshot.snapshot.write_to(&file).unwrap();

    for breaks in 0.. {
        let staging = dir.path().join(format!("to-{breaks}"));
        std::fs::create_dir(&staging).unwrap();
        let (log, data) = (mem(), mem());
        let (_, mut to, _) = open(log.clone(), data.clone(), staging.clone()).unwrap();
        apply(&mut to, vec![membership(0), entry(1, &["old.a", "old.b"])]).await.unwrap();
        data.flush().unwrap();
        log.break_after(breaks);
        data.break_after(breaks);
        let installed = to.install_snapshot(&snapshot.meta, Image::File(file.clone())).await.is_ok();
        drop(to);
        log.crash();
        data.crash();
        let (_, mut to, machine) = open(log, data, staging).unwrap();
        let found: Vec<String> = keys(&machine).into_keys().collect();
        let (applied, _) = to.applied_state().await.unwrap();
        match applied.map(|id| id.index) {
            Some(1) => assert!(!installed && found == ["old.a", "old.b"], "{breaks}: {found:?}"),
            Some(2) => assert_eq!(found, ["new.a", "new.b", "new.c"], "{breaks}"),
            other => panic!("{breaks}: applied {other:?}"),
        }
        if installed {
            assert!(breaks > 3, "it can't have been done in {breaks} writes");
            break;
        }
    }
}

#[tokio::test]
async fn a_damaged_snapshot_is_refused_before_anything_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let mem = || Arc::new(MemEngine::default());
    let (_, mut from, _) = open(mem(), mem(), dir.path().join("from")).unwrap();
    apply(&mut from, vec![entry(1, &["new.a", "new.b"])]).await.unwrap();
    let snapshot = from.try_create_snapshot_builder(true).await.unwrap().build_snapshot().await.unwrap();
    let file = dir.path().join("sent");
    snapshot.snapshot.write_to(&file).unwrap();
    let whole = std::fs::read(&file).unwrap();
    for at in 0..whole.len() {
        let staging = dir.path().join(format!("to-{at}"));
        std::fs::create_dir(&staging).unwrap();
        let mut bytes = whole.clone();
        // A flipped bit, and a file that ends here.
        for cut in [false, true] {
            bytes[at] ^= 0x10;
            std::fs::write(&file, if cut { &whole[..at] } else { &bytes[..] }).unwrap();
            let (log, data) = (mem(), mem());
            let (_, mut to, machine) = open(log, data, staging.clone()).unwrap();
            apply(&mut to, vec![entry(1, &["old"])]).await.unwrap();
            assert!(to.install_snapshot(&snapshot.meta, Image::File(file.clone())).await.is_err(), "{at} {cut}");
            assert_eq!(keys(&machine).into_keys().collect::<Vec<_>>(), ["old"]);
        }
    }
}

#[tokio::test]
async fn the_first_error_of_the_log_is_the_last_word() {
    let engine = Arc::new(MemEngine::default());
    let writer = LogWriter::start(Arc::<MemEngine>::clone(&engine), Sync::Now, Arc::new(())).unwrap();
    let change = || vec![Change::Put(super::slot_key(Slot(1), 1), vec![1])];
    writer.write(change()).await.unwrap();
    engine.break_after(0);
    assert!(writer.write(change()).await.is_err());
    // The disk works again: what failed may be half there, so nothing is written any more.
    engine.crash();
    assert!(writer.write(change()).await.is_err());
    assert!(writer.failure().unwrap().contains("input/output error"));
    assert_eq!(writer.totals().syncs.load(std::sync::atomic::Ordering::Relaxed), 1);
}
