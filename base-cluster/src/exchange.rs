//! Facts on their way between nodes, and whether nodes answer calls at all.
//!
//! What a node writes it pushes to each live peer, with one call in flight per peer, so that what piles up meanwhile goes together. Each second, and
//! with each peer that comes up, knowledge is compared both ways; that repairs whatever was missed, through third nodes too.

use crate::facts::{Delta, FactBook, FactError, Facts, Have, put_list};
use crate::links::Links;
use crate::member::{MemberState, Members};
use base_rpc::{CallError, Lane, Reply, Service};
use base_types::wire::{Reader, WireError};
use base_types::{NodeId, NodeIncarnation};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior};

/// What the handler of calls, the task and the handle share.
pub(crate) struct Exchange {
    me: NodeIncarnation,
    book: Mutex<FactBook>,
    facts: watch::Sender<Arc<Facts>>,
    written: Notify,
    /// Who answers calls.
    answers: watch::Sender<BTreeMap<NodeId, bool>>,
    /// Who of them can call this node.
    called_by: Mutex<BTreeMap<NodeId, bool>>,
}

const FORMAT: u8 = 1;
/// What I have; the answer is what you have, and what I lack.
const COMPARE: u8 = 0;
/// What you lack; the answer is how far you are now.
const TELL: u8 = 1;
/// Are you there? The answer is whether you can call me, too.
const PING: u8 = 2;

const EVERY: Duration = Duration::from_secs(1);
/// Changes of so long go together.
const GATHER: Duration = Duration::from_millis(50);
const DEADLINE: Duration = Duration::from_secs(5);
const PING_DEADLINE: Duration = Duration::from_secs(2);
/// Pings in a row that have to fail.
const FAILURES: u32 = 2;
/// Facts of nodes that are gone.
const KEPT: Duration = Duration::from_secs(600);
/// Rounds of one comparison, when there is more than fits into a message.
const ROUNDS: usize = 64;

impl Exchange {
    pub(crate) fn new(me: NodeIncarnation) -> Self {
        let book = FactBook::new(me);
        Self {
            me,
            facts: watch::Sender::new(Arc::new(book.facts().clone())),
            book: Mutex::new(book),
            written: Notify::new(),
            answers: watch::Sender::default(),
            called_by: Mutex::default(),
        }
    }

    pub(crate) fn facts(&self) -> watch::Receiver<Arc<Facts>> {
        self.facts.subscribe()
    }

    pub(crate) fn answers(&self) -> watch::Receiver<BTreeMap<NodeId, bool>> {
        self.answers.subscribe()
    }

    pub(crate) fn write(&self, key: &str, value: Option<Bytes>) -> Result<(), FactError> {
        if self.change(|book| book.write(key, value).map_or_else(|error| (false, Err(error)), |news| (news, Ok(()))))? {
            self.written.notify_one();
        }
        Ok(())
    }

    /// Changes the book, and shows it if there is news.
    fn change<E>(&self, act: impl FnOnce(&mut FactBook) -> (bool, Result<(), E>)) -> Result<bool, E> {
        let mut book = self.book.lock();
        let (news, result) = act(&mut book);
        if news {
            // Under the lock: the newest is shown last.
            self.facts.send_replace(Arc::new(book.facts().clone()));
        }
        result.map(|()| news)
    }

    fn learn(&self, deltas: Vec<Delta>) {
        let _: Result<_, std::convert::Infallible> = self.change(|book| (book.learn(deltas), Ok(())));
    }

    /// A live peer that says no other can call this node either, unless some peer can.
    pub(crate) fn uncalled_by(&self) -> Option<NodeId> {
        let called_by = self.called_by.lock();
        if called_by.values().any(|can| *can) { None } else { called_by.keys().next().copied() }
    }

    /// Answers a call.
    pub(crate) fn handle(&self, from: NodeIncarnation, body: Bytes, reply: Reply) {
        match self.answer(from, body) {
            Ok(answer) => reply.send(answer),
            Err(error) => tracing::warn!(from = %from.node, %error, "facts that can't be read"),
        }
    }

    fn answer(&self, from: NodeIncarnation, body: Bytes) -> Result<Bytes, WireError> {
        let (tag, mut r) = open(body)?;
        match tag {
            COMPARE => {
                let theirs = Have::get_list(&mut r)?;
                let book = self.book.lock();
                let (mine, lacking) = (book.digest(), book.lacking(&theirs));
                drop(book);
                let mut out = begin(COMPARE);
                put_list(&mine, &mut out, Have::put);
                put_list(&lacking, &mut out, Delta::put);
                Ok(out.freeze())
            }
            TELL => {
                let deltas = Delta::get_list(&mut r)?;
                let about: Vec<_> = deltas.iter().map(Delta::node).collect();
                self.learn(deltas);
                let mut out = begin(TELL);
                put_list(&self.book.lock().digest_of(&about), &mut out, Have::put);
                Ok(out.freeze())
            }
            PING => {
                let mut out = begin(PING);
                out.put_u8(self.answers.borrow().get(&from.node).map_or(0, |can| if *can { 1 } else { 2 }));
                Ok(out.freeze())
            }
            tag => Err(WireError::Invalid { what: "message about facts", value: u64::from(tag) }),
        }
    }
}

fn begin(tag: u8) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_slice(&[FORMAT, tag]);
    out
}

fn open(body: Bytes) -> Result<(u8, Reader), WireError> {
    let mut r = Reader::new(body);
    match r.u8()? {
        FORMAT => Ok((r.u8()?, r)),
        format => Err(WireError::UnknownFormat(format)),
    }
}

/// What a call to a peer came to.
enum Done {
    /// He has this node's facts up to there, if he said so.
    Told(NodeIncarnation, Option<u64>),
    Compared,
    Pinged(NodeIncarnation, Option<u8>),
}

/// A live peer, as the task sees it.
struct Peer {
    run: NodeIncarnation,
    /// How far he has this node's facts.
    has: Option<u64>,
    telling: bool,
    pinging: bool,
    failures: u32,
    met: Instant,
}

/// Keeps the facts of the nodes in line until the members' sender is gone.
pub(crate) struct Task<L: ?Sized> {
    exchange: Arc<Exchange>,
    links: Arc<L>,
    members: watch::Receiver<Arc<Members>>,
    rng: SmallRng,
    peers: BTreeMap<NodeId, Peer>,
    calls: FuturesUnordered<BoxFuture<'static, Done>>,
    comparing: u32,
    /// Since when the owner of some facts is no member.
    strangers: BTreeMap<NodeId, Instant>,
}

impl<L: Links + ?Sized> Task<L> {
    pub(crate) fn new(
        exchange: Arc<Exchange>,
        links: Arc<L>,
        members: watch::Receiver<Arc<Members>>,
        rng: SmallRng,
    ) -> Self {
        let calls = FuturesUnordered::new();
        Self { exchange, links, members, rng, peers: BTreeMap::new(), calls, comparing: 0, strangers: BTreeMap::new() }
    }

    pub(crate) async fn run(mut self) {
        let exchange = Arc::clone(&self.exchange);
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tell_at = None;
        loop {
            tokio::select! {
                // In the same order under each seed.
                biased;
                changed = self.members.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.on_members();
                }
                () = exchange.written.notified() => {
                    tell_at.get_or_insert_with(|| Instant::now() + GATHER);
                }
                () = tokio::time::sleep_until(tell_at.unwrap_or_else(Instant::now)), if tell_at.is_some() => {
                    tell_at = None;
                    self.tell_all();
                }
                _ = every.tick() => self.on_tick(),
                Some(done) = self.calls.next() => self.on_done(done),
            }
        }
    }

    fn on_members(&mut self) {
        let members = Arc::clone(&self.members.borrow_and_update());
        // Who is out himself leaves the others alone.
        let am_live = members.get(members.me).is_some_and(|me| me.state.is_live());
        let live: BTreeSet<_> = members.live_peers().map(|member| member.run).filter(|_| am_live).collect();
        let gone: Vec<_> = self.peers.values().map(|peer| peer.run).filter(|run| !live.contains(run)).collect();
        for run in gone {
            self.peers.remove(&run.node);
            self.exchange.answers.send_if_modified(|answers| answers.remove(&run.node).is_some());
            self.exchange.called_by.lock().remove(&run.node);
        }
        for run in live {
            if self.peers.contains_key(&run.node) {
                continue;
            }
            self.exchange.book.lock().remember(run);
            self.peers.insert(
                run.node,
                Peer { run, has: None, telling: false, pinging: false, failures: 0, met: Instant::now() },
            );
            self.tell(run.node);
            self.compare(run.node);
            self.ping(run.node);
        }
    }

    fn on_tick(&mut self) {
        if let Some(peer) = self.peers.keys().choose(&mut self.rng).copied()
            && self.comparing < 4
        {
            self.compare(peer);
        }
        for peer in self.peers.keys().copied().collect::<Vec<_>>() {
            self.ping(peer);
        }
        self.tell_all();
        self.forget();
    }

    fn tell_all(&mut self) {
        for peer in self.peers.keys().copied().collect::<Vec<_>>() {
            self.tell(peer);
        }
    }

    /// Tells a peer what he lacks of this node's own facts.
    fn tell(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node).filter(|peer| !peer.telling) else { return };
        let run = peer.run;
        let lacking = self.exchange.book.lock().own_since(peer.has);
        if lacking.is_empty() {
            return;
        }
        peer.telling = true;
        let mut body = begin(TELL);
        put_list(&lacking, &mut body, Delta::put);
        let call = self.links.call(node, Lane::Bulk, Service::FACTS, body.freeze(), DEADLINE);
        let me = self.exchange.me;
        self.calls.push(Box::pin(async move {
            let has =
                answer(call.await, Have::get_list).and_then(|haves| haves.into_iter().find(|have| have.run == me));
            Done::Told(run, has.map(|have| have.upto))
        }));
    }

    /// Compares all knowledge with a peer's, and repairs both.
    fn compare(&mut self, node: NodeId) {
        self.comparing += 1;
        let (exchange, links) = (Arc::clone(&self.exchange), Arc::clone(&self.links));
        self.calls.push(Box::pin(async move {
            for _ in 0..ROUNDS {
                let mut body = begin(COMPARE);
                put_list(&exchange.book.lock().digest(), &mut body, Have::put);
                let call = links.call(node, Lane::Bulk, Service::FACTS, body.freeze(), DEADLINE).await;
                let both = answer(call, |r| Ok((Have::get_list(r)?, Delta::get_list(r)?)));
                let Some((theirs, deltas)) = both else { break };
                let got = !deltas.is_empty();
                exchange.learn(deltas);
                let lacking = exchange.book.lock().lacking(&theirs);
                if !lacking.is_empty() {
                    let mut body = begin(TELL);
                    put_list(&lacking, &mut body, Delta::put);
                    let call = links.call(node, Lane::Bulk, Service::FACTS, body.freeze(), DEADLINE).await;
                    if call.is_err() {
                        break;
                    }
                } else if !got {
                    break;
                }
            }
            Done::Compared
        }));
    }

    fn ping(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node).filter(|peer| !peer.pinging) else { return };
        peer.pinging = true;
        let run = peer.run;
        let call = self.links.call(node, Lane::Raft, Service::FACTS, begin(PING).freeze(), PING_DEADLINE);
        self.calls.push(Box::pin(async move { Done::Pinged(run, answer(call.await, Reader::u8)) }));
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Compared => self.comparing -= 1,
            Done::Told(run, has) => {
                let Some(peer) = self.peers.get_mut(&run.node).filter(|peer| peer.run == run) else { return };
                peer.telling = false;
                // Without an answer he is told again with the next tick.
                if has.is_some() {
                    peer.has = has;
                    self.tell(run.node);
                }
            }
            Done::Pinged(run, answer) => {
                let Some(peer) = self.peers.get_mut(&run.node).filter(|peer| peer.run == run) else { return };
                peer.pinging = false;
                peer.failures = if answer.is_some() { 0 } else { peer.failures.saturating_add(1) };
                let is_first = !self.exchange.answers.borrow().contains_key(&run.node);
                let answers = match answer {
                    Some(_) => true,
                    // Who has never answered is given up sooner: it may be an address that leads nowhere.
                    None if peer.failures >= FAILURES || is_first && peer.met.elapsed() >= PING_DEADLINE => false,
                    None => return,
                };
                self.exchange.answers.send_if_modified(|all| all.insert(run.node, answers) != Some(answers));
                let mut called_by = self.exchange.called_by.lock();
                match answer {
                    Some(1) => _ = called_by.insert(run.node, true),
                    Some(2) => _ = called_by.insert(run.node, false),
                    _ => _ = called_by.remove(&run.node),
                }
            }
        }
    }

    fn forget(&mut self) {
        let now = Instant::now();
        let members = Arc::clone(&self.members.borrow());
        let strangers = &mut self.strangers;
        strangers.retain(|node, _| members.get(*node).is_none());
        let _: Result<_, std::convert::Infallible> = self.exchange.change(|book| {
            let news = book.forget(|run| {
                let since = match members.get(run.node).map(|member| member.state) {
                    Some(MemberState::Alive | MemberState::Suspect) => return false,
                    Some(MemberState::Dead(since) | MemberState::Left(since)) => since,
                    None => *strangers.entry(run.node).or_insert(now),
                };
                now.saturating_duration_since(since) > KEPT
            });
            (news, Ok(()))
        });
    }
}

/// Reads the answer to a call, if there is one.
fn answer<T>(call: Result<Bytes, CallError>, read: impl FnOnce(&mut Reader) -> Result<T, WireError>) -> Option<T> {
    let read = open(call.ok()?).and_then(|(_tag, mut r)| read(&mut r));
    read.inspect_err(|error| tracing::warn!(%error, "facts that can't be read")).ok()
}
