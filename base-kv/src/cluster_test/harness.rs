use crate::engine::{Engine, MemEngine, Sync};
use crate::host::Ground;
use crate::raft::wire::kind;
use crate::raft::{Slot, entry_start};
use crate::space::{Probe, Space};
use crate::stats::RangeStats;
use crate::{ExecuteError, Host, KvConfig, Range, RangeSpec, Role};
use base_kv_api::balance::{Command, ReplicaView};
use base_kv_api::{ApplyCx, Coproc, KvError, KvRead, KvSpace, RangeClient, Visit};
use base_rpc::{CallFuture, Handler, Lane, MemHub, MemMesh, Mesh, Service};
use base_types::{Incarnation, NodeId, NodeIncarnation, SystemClock};
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(super) const SOON: Duration = Duration::from_secs(40);
pub(super) const DEADLINE: Duration = Duration::from_secs(4);

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

/// What becomes of a command on its way to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// It does not come there, and nobody says so.
    Unheard,
    /// It comes there; nobody hears the answer.
    Unanswered,
    /// It does not come there; the answer is that it was committed.
    SaidToBeDone,
}

/// A mesh that loses some commands.
struct Lossy {
    mesh: MemMesh,
    losses: Arc<Mutex<Option<(Loss, u64)>>>,
}

impl Mesh for Lossy {
    fn me(&self) -> NodeIncarnation {
        self.mesh.me()
    }

    fn call(&self, to: NodeId, lane: Lane, service: Service, body: Bytes, deadline: Duration) -> CallFuture {
        let is_command = service == Service::RANGE && body.get(1) == Some(&kind::PROPOSE);
        let lost = self.losses.lock().as_mut().filter(|(_, left)| is_command && *left > 0).map(|(loss, left)| {
            *left -= 1;
            *loss
        });
        match lost {
            Some(Loss::Unheard) => Box::pin(std::future::pending()),
            Some(Loss::SaidToBeDone) => Box::pin(std::future::ready(Ok(crate::raft::wire::done(0).freeze()))),
            Some(Loss::Unanswered) => {
                drop(self.mesh.call(to, lane, service, body, deadline));
                Box::pin(std::future::pending())
            }
            None => self.mesh.call(to, lane, service, body, deadline),
        }
    }

    fn send(&self, to: NodeId, lane: Lane, service: Service, body: Bytes) -> Result<(), base_rpc::CallError> {
        self.mesh.send(to, lane, service, body)
    }

    fn serve(&self, service: Service, handler: Arc<dyn Handler>) {
        self.mesh.serve(service, handler);
    }
}

struct Disk {
    log: Arc<MemEngine>,
    data: Arc<MemEngine>,
    free: Arc<AtomicU64>,
    losses: Arc<Mutex<Option<(Loss, u64)>>>,
    dir: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let free = Arc::new(AtomicU64::new(1000));
        Self {
            log: Arc::default(),
            data: Arc::default(),
            free,
            losses: Arc::default(),
            dir: tempfile::tempdir().unwrap(),
        }
    }
}

pub(super) struct Cluster {
    pub(super) hub: MemHub,
    disks: Vec<Disk>,
    pub(super) up: Vec<Option<(Host, Range)>>,
    runs: u64,
    deadline: Duration,
}

/// What a range holds here; nothing while there is no replica.
pub(super) fn journal(range: &Range) -> Option<Vec<u64>> {
    let mut found = Vec::new();
    let read = range.read(b"", &mut |keys| {
        found.clear();
        keys.scan(b""..&[0xff; 12], &mut |_, v| {
            found.push(u64::from_be_bytes(v.try_into().unwrap()));
            Visit::More
        })
    });
    read.ok().map(|()| found)
}

pub(super) fn command(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("within the deadline")
}

pub(super) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Cluster {
    /// Nodes without a replica.
    pub(super) async fn of(count: usize) -> Self {
        Self::with_deadline(count, DEADLINE).await
    }

    pub(super) async fn with_deadline(count: usize, deadline: Duration) -> Self {
        let disks = (0..count).map(|_| Disk::new()).collect();
        let up = (0..count).map(|_| None).collect();
        let mut cluster = Self { hub: MemHub::default(), disks, up, runs: 0, deadline };
        for node in 0..count {
            cluster.start(node).await;
        }
        cluster
    }

    pub(super) fn config(&self, node: usize) -> KvConfig {
        let data_dir = self.disks[node].dir.path().to_owned();
        KvConfig { data_dir, log_entries: 20, deadline: self.deadline, ..KvConfig::default() }
    }

    pub(super) async fn start(&mut self, node: usize) {
        self.runs += 1;
        let run = NodeIncarnation { node: NodeId(node as u64 + 1), incarnation: Incarnation(self.runs) };
        let disk = &self.disks[node];
        let mesh = Arc::new(Lossy { mesh: self.hub.enter(run), losses: Arc::clone(&disk.losses) });
        let (log, data): (Arc<dyn Engine>, Arc<dyn Engine>) = (disk.log.clone(), disk.data.clone());
        let space = Space::new(Probe::Said(Arc::clone(&disk.free)), 100);
        let (clock, observer) = (Arc::new(SystemClock), Arc::new(()));
        let ground = Ground { log, data, clock, observer, space, home: None, mesh: Some(mesh) };
        let host = Host::over(self.config(node), run.node, ground).unwrap();
        host.register(RangeSpec::whole("inbox"), Box::new(Journal)).unwrap();
        host.start().await.unwrap();
        let range = host.client(RangeSpec::whole("inbox"));
        self.up[node] = Some((host, range));
    }

    /// The process ends; what it gave to the operating system stays. Range data has no log of its own: what was not flushed is gone.
    pub(super) async fn kill(&mut self, node: usize) {
        self.hub.leave(NodeId(node as u64 + 1));
        // What is on its way when a process dies is not written afterwards.
        self.disks[node].log.break_after(0);
        self.disks[node].data.break_after(0);
        let (host, _) = self.up[node].take().unwrap();
        soon(host.shutdown()).await.ok();
        self.disks[node].log.mend();
        self.disks[node].data.crash();
    }

    /// As [`Cluster::kill`], and what was not synced is gone.
    pub(super) async fn crash(&mut self, node: usize) {
        self.kill(node).await;
        self.disks[node].log.crash();
    }

    /// A new disk.
    pub(super) fn wipe(&mut self, node: usize) {
        assert!(self.up[node].is_none());
        self.disks[node] = Disk::new();
    }

    pub(super) fn node(&self, node: usize) -> &Host {
        &self.up[node].as_ref().unwrap().0
    }

    pub(super) fn range(&self, node: usize) -> &Range {
        &self.up[node].as_ref().unwrap().1
    }

    pub(super) fn is_up(&self, node: usize) -> bool {
        self.up[node].is_some()
    }

    pub(super) fn stats(&self, node: usize) -> Option<RangeStats> {
        self.range(node).stats()
    }

    pub(super) fn view(&self, node: usize) -> ReplicaView {
        self.node(node).replicas("inbox").remove(0)
    }

    pub(super) async fn execute(&self, node: usize, command: Command) -> Result<(), ExecuteError> {
        soon(self.node(node).execute("inbox", command)).await
    }

    pub(super) async fn bootstrap(&self) {
        self.execute(0, Command::Bootstrap { id: 0 }).await.unwrap();
        soon(self.range(0).ready()).await;
    }

    /// Who leads, with a majority: waits for it.
    pub(super) async fn leader(&self) -> usize {
        let deadline = Instant::now() + SOON;
        loop {
            for node in (0..self.up.len()).filter(|node| self.is_up(*node)) {
                let view = self.node(node).replicas("inbox").pop();
                if view.is_some_and(|view| view.role == Role::Leader) && self.stats(node).unwrap().unready.is_none() {
                    return node;
                }
            }
            assert!(Instant::now() < deadline, "no leader");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Brings the range to all nodes that are up, all of them voters: what balancers do.
    pub(super) async fn grow(&mut self) {
        if (0..self.up.len()).all(|node| !self.is_up(node) || self.node(node).replicas("inbox").is_empty()) {
            self.bootstrap().await;
        }
        let wanted: Vec<usize> = (0..self.up.len()).filter(|node| self.is_up(*node)).collect();
        let deadline = Instant::now() + SOON;
        loop {
            assert!(Instant::now() < deadline, "it does not grow");
            let leader = self.leader().await;
            let view = self.view(leader);
            let members: Vec<u64> = view.voters.values().chain(view.learners.values()).map(|node| node.0).collect();
            let missing = wanted.iter().map(|node| *node as u64 + 1).find(|node| !members.contains(node));
            let outcome = if let Some(node) = missing {
                let (range, config) = (view.range, view.config);
                self.execute(leader, Command::AddLearner { range, config, node: NodeId(node) }).await
            } else if !view.learners.is_empty() {
                let voters = view.voters.keys().chain(view.learners.keys()).copied().collect();
                self.execute(leader, Command::ChangeVoters { range: view.range, config: view.config, voters }).await
            } else if view.changing {
                Ok(())
            } else {
                return;
            };
            if let Err(error) = outcome {
                println!("{error}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Takes one entry out of the middle of a node's log.
    pub(super) fn damage(&self, node: usize, index: u64) {
        let (start, end) = (entry_start(Slot(1), index), entry_start(Slot(1), index + 1));
        self.disks[node].log.write(Sync::Now, &mut |batch| batch.delete_range(&start..&end)).unwrap();
    }

    /// The log of a node can't be written any more.
    pub(super) fn break_disk(&self, node: usize) {
        self.disks[node].log.break_after(0);
    }

    /// The log of a node stands still, or goes on.
    pub(super) fn freeze(&self, node: usize, frozen: bool) {
        self.disks[node].log.freeze(frozen);
    }

    /// Bytes that a node's disk has free, of which 100 are the reserve.
    pub(super) fn leave_free(&self, node: usize, bytes: u64) {
        self.disks[node].free.store(bytes, Ordering::Relaxed);
    }

    /// So many of the next commands that a node forwards are lost.
    pub(super) fn lose(&self, node: usize, loss: Loss, commands: u64) {
        *self.disks[node].losses.lock() = Some((loss, commands));
    }

    /// Nobody reaches this node, it reaches nobody.
    pub(super) fn isolate(&self, node: usize) {
        for other in (0..self.up.len()).filter(|other| *other != node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    pub(super) fn cut(&self, from: usize, to: usize) {
        self.hub.cut(NodeId(from as u64 + 1), NodeId(to as u64 + 1));
    }

    pub(super) fn journal(&self, node: usize) -> Vec<u64> {
        journal(self.range(node)).unwrap()
    }

    /// All that are up hold the same, in the same order.
    pub(super) async fn assert_alike(&self) {
        let nodes: Vec<usize> = (0..self.up.len()).filter(|node| self.is_up(*node)).collect();
        for node in &nodes {
            let deadline = Instant::now() + SOON;
            while let Err(error) = self.range(*node).linearize(b"").await {
                assert!(Instant::now() < deadline, "{error}");
            }
        }
        let first = self.journal(nodes[0]);
        for node in nodes {
            let found = self.journal(node);
            let differs = found.iter().zip(&first).position(|(a, b)| a != b);
            assert!(differs.is_none() && found.len() == first.len(), "node {node} differs from {differs:?} on");
        }
    }

    pub(super) async fn shutdown(self) {
        for (host, _) in self.up.into_iter().flatten() {
            soon(host.shutdown()).await.unwrap();
        }
    }
}
