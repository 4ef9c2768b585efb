//! What all parts of a run share.

use crate::disk::NodeDisk;
use crate::history::History;
use crate::node::Node;
use crate::plant::Plant;
use base_kv_api::balance::ReplicaView;
use base_types::NodeIncarnation;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Arguments;
use std::future::Future;
use std::hash::{DefaultHasher, Hasher};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Work that is to be done on a node.
pub(crate) type Job = Box<dyn FnOnce(Rc<Node>) -> Pin<Box<dyn Future<Output = ()>>>>;
/// Where a node takes it.
pub(crate) type Desk = mpsc::UnboundedSender<Job>;

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// The cluster forms.
    Forming,
    /// Load and faults.
    Storm,
    /// Load, and everything works.
    Calm,
    /// Nothing new; what is queued is fetched.
    Drain,
    /// All devices are gone.
    Over,
}

/// What all parts of a run share.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) size: usize,
    pub(crate) plant: Option<Plant>,
    pub(crate) disks: Vec<NodeDisk>,
    pub(crate) wrong_clocks: Vec<Arc<AtomicI64>>,
    pub(crate) history: RefCell<History>,
    now: Cell<Duration>,
    phase: Cell<Phase>,
    well: Cell<bool>,
    seats: RefCell<Vec<Option<Desk>>>,
    views: RefCell<Vec<Vec<ReplicaView>>>,
    latest: RefCell<BTreeMap<(NodeIncarnation, &'static str), u64>>,
    trace: RefCell<Trace>,
}

struct Trace {
    hash: DefaultHasher,
    lines: VecDeque<String>,
    aloud: bool,
}

/// Lines that are kept for a report.
const LINES: usize = 2_000_000;

impl World {
    pub(crate) fn new(seed: u64, size: usize, plant: Option<Plant>, aloud: bool) -> std::io::Result<Rc<Self>> {
        let lies = plant == Some(Plant::SkipFsync);
        Ok(Rc::new(Self {
            seed,
            size,
            plant,
            disks: (0..size).map(|place| NodeDisk::new(place, lies)).collect::<Result<_, _>>()?,
            wrong_clocks: (0..size).map(|_| Arc::default()).collect(),
            history: RefCell::default(),
            now: Cell::new(Duration::ZERO),
            phase: Cell::new(Phase::Forming),
            well: Cell::new(false),
            seats: RefCell::new((0..size).map(|_| None).collect()),
            views: RefCell::default(),
            latest: RefCell::default(),
            // A hasher with fixed keys.
            trace: RefCell::new(Trace { hash: DefaultHasher::new(), lines: VecDeque::new(), aloud }),
        }))
    }

    /// Simulated time since the start, in steps.
    pub(crate) fn now(&self) -> Duration {
        self.now.get()
    }

    pub(crate) fn set_now(&self, now: Duration) {
        self.now.set(now);
        crate::clock::set_elapsed(now);
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// The faults are over, and every node is well.
    pub(crate) fn set_well(&self) {
        self.well.set(true);
        self.trace(format_args!("== all is well"));
    }

    pub(crate) fn is_well(&self) -> bool {
        self.well.get()
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.trace(format_args!("== {phase:?}"));
    }

    /// Something happened: part of what must be the same when the seed is run again.
    pub(crate) fn trace(&self, what: Arguments<'_>) {
        let line = format!("{:>9.3} {what}", self.now().as_secs_f64());
        let mut trace = self.trace.borrow_mut();
        for packet in crate::packets::take() {
            trace.hash.write(packet.as_bytes());
            if trace.lines.len() == LINES {
                trace.lines.pop_front();
            }
            trace.lines.push_back(packet);
        }
        trace.hash.write(line.as_bytes());
        if trace.aloud {
            println!("{line}");
        }
        if trace.lines.len() == LINES {
            trace.lines.pop_front();
        }
        trace.lines.push_back(line);
    }

    /// The hash of everything that was traced, and the end of it.
    pub(crate) fn told(&self) -> (u64, Vec<String>) {
        let trace = self.trace.borrow();
        (trace.hash.finish(), trace.lines.iter().cloned().collect())
    }

    /// A node is up.
    pub(crate) fn sit(&self, index: usize, desk: Desk) {
        self.seats.borrow_mut()[index] = Some(desk);
    }

    /// A node is down.
    pub(crate) fn stand_up(&self, index: usize) {
        self.seats.borrow_mut()[index] = None;
    }

    /// Nodes that are up.
    pub(crate) fn up(&self) -> Vec<usize> {
        let seats = self.seats.borrow();
        (0..self.size).filter(|index| seats[*index].is_some()).collect()
    }

    /// Does something on a node. `None` when the node is down, or dies before it is done.
    pub(crate) async fn on<F>(&self, index: usize, work: impl FnOnce(Rc<Node>) -> F + 'static) -> Option<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let desk = self.seats.borrow()[index].clone()?;
        let (done, waits) = oneshot::channel();
        let job: Job = Box::new(move |node| {
            Box::pin(async move {
                // Nobody waits any more: the device has gone elsewhere.
                let _ = done.send(work(node).await);
            })
        });
        desk.send(job).ok()?;
        drop(desk);
        waits.await.ok()
    }

    /// Has something done on a node; whether the node is up.
    pub(crate) fn put_on<F>(&self, index: usize, work: impl FnOnce(Rc<Node>) -> F + 'static) -> bool
    where
        F: Future<Output = ()> + 'static,
    {
        let Some(desk) = self.seats.borrow()[index].clone() else { return false };
        desk.send(Box::new(move |node| Box::pin(work(node)))).is_ok()
    }

    /// Keeps what a node tells of its replicas; the ticket for it, when it is news.
    pub(crate) fn put_views(&self, node: NodeIncarnation, store: &'static str, told: Vec<ReplicaView>) -> Option<u64> {
        let mut views = self.views.borrow_mut();
        let before = self.latest.borrow().get(&(node, store)).copied();
        if before.is_some_and(|ticket| views[ticket as usize] == told) {
            return None;
        }
        let ticket = views.len() as u64;
        views.push(told);
        self.latest.borrow_mut().insert((node, store), ticket);
        Some(ticket)
    }

    pub(crate) fn views(&self, ticket: u64) -> Option<Vec<ReplicaView>> {
        self.views.borrow().get(ticket as usize).cloned()
    }
}
