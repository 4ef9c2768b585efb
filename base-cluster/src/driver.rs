use crate::cluster::{EvictError, Packets, Shared};
use crate::exchange::Exchange;
use crate::facts::NodeFacts;
use crate::links::Links;
use crate::member::{Joined, MemberState, Members};
use crate::net::{self, Datagrams};
use crate::problem::Problem;
use crate::seal::{PACKET, Refusal};
use crate::seeds::Resolved;
use crate::swim::Swim;
use base_types::wire::Reader;
use base_types::{Incarnation, NodeId, NodeIncarnation};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

/// What a handle asks of the driver.
pub(crate) enum Command {
    Leave(oneshot::Sender<()>),
    Evict(NodeId, oneshot::Sender<Result<(), EvictError>>),
}

/// Carries packets, time and wishes to the core, and shows what it says. One task.
pub(crate) struct Driver<S, L: ?Sized> {
    swim: Swim,
    socket: S,
    local: SocketAddr,
    links: Arc<L>,
    shared: Arc<Shared>,
    exchange: Arc<Exchange>,
    /// What the links were told.
    linked: BTreeMap<NodeId, (NodeIncarnation, SocketAddr)>,
    evicted: Vec<NodeIncarnation>,
    told: BTreeMap<String, Instant>,
    warned: BTreeMap<Refusal, Instant>,
}

/// The fact under which each node passes on what operators evicted.
const EVICTED: &str = "cluster.evicted";
/// The fact that tells a node's address to those who come too late to meet it.
const ADDRESS: &str = "cluster.address";
/// Packets that are taken before time is looked at again.
const BURST: usize = 64;
const TICK: Duration = Duration::from_millis(500);
const FAREWELLS: u32 = 3;
/// A dead node may be cut off only: calls to it are still tried for so long.
const DEAD_LINKED: Duration = Duration::from_secs(600);
const WARN_EVERY: Duration = Duration::from_secs(30);

impl<S: Datagrams, L: Links + ?Sized> Driver<S, L> {
    pub(crate) fn new(
        swim: Swim,
        socket: S,
        local: SocketAddr,
        links: Arc<L>,
        shared: Arc<Shared>,
        exchange: Arc<Exchange>,
    ) -> Self {
        Self {
            swim,
            socket,
            local,
            links,
            shared,
            exchange,
            linked: BTreeMap::new(),
            evicted: Vec::new(),
            told: BTreeMap::new(),
            warned: BTreeMap::new(),
        }
    }

    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>, seeds: Vec<String>, me: SocketAddr) {
        let (resolved, mut resolutions) = mpsc::channel(1);
        tokio::spawn(resolve(seeds, me, self.local, resolved, self.shared.joined.subscribe()));
        if let Err(error) = self.exchange.write(ADDRESS, Some(me.to_string().into())) {
            tracing::warn!(%error, "the address is not told");
        }
        let mut facts = self.exchange.facts();
        let mut answers = self.exchange.answers();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // One byte more than a packet may have, so that what was cut off is not taken for whole.
        let mut buffer = [0; PACKET + 1];
        loop {
            let next = self.swim.next();
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(next) => self.swim.on_time(Instant::now()),
                command = commands.recv() => match command {
                    Some(Command::Evict(node, done)) => _ = done.send(self.evict(node)),
                    Some(Command::Leave(done)) => {
                        self.leave().await;
                        // Nobody waits any more: that is his matter.
                        let _ = done.send(());
                        return;
                    }
                    None => return,
                },
                Some(seeds) = resolutions.recv() => self.swim.on_resolved(Instant::now(), seeds),
                Ok(()) = facts.changed() => self.on_facts(),
                Ok(()) = answers.changed() => {
                    for (node, answers) in &*answers.borrow_and_update() {
                        self.swim.set_rpc(*node, *answers);
                    }
                }
                _ = tick.tick() => self.on_tick(),
                // Last, so that a flood holds up nothing else.
                received = self.socket.recv_from(&mut buffer) => match received {
                    Ok((length, from)) => self.on_burst(&mut buffer, length, from),
                    Err(error) => {
                        tracing::debug!(%error, "receiving gossip");
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                },
            }
            self.send();
            self.show();
        }
    }

    fn on_burst(&mut self, buffer: &mut [u8], mut length: usize, mut from: SocketAddr) {
        for _ in 0..BURST {
            from.set_ip(from.ip().to_canonical());
            if let Some(packet) = buffer.get_mut(..length)
                && let Err(refusal) = self.swim.on_packet(Instant::now(), from, packet)
            {
                self.warn_of(refusal, from);
            }
            match self.socket.try_recv_from(buffer) {
                Ok(received) => (length, from) = received,
                Err(_) => return,
            }
        }
    }

    fn warn_of(&mut self, refusal: Refusal, from: SocketAddr) {
        let Some(what) = refusal.foreign() else { return };
        let now = Instant::now();
        let before = self.warned.get(&refusal);
        if before.is_none_or(|before| now.duration_since(*before) > WARN_EVERY) {
            self.warned.insert(refusal, now);
            tracing::warn!(%from, cause = refusal.name(), "a packet of {what} was refused; more of them are only counted for a while");
        }
    }

    /// What can't be sent now is lost, as packets are.
    fn send(&mut self) {
        for (to, packet) in self.swim.take_packets() {
            let to = match (to.ip(), self.local.is_ipv6()) {
                (IpAddr::V4(ip), true) => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
                _ => to,
            };
            if let Err(error) = self.socket.try_send_to(&packet, to) {
                tracing::debug!(%to, %error, "sending gossip");
            }
        }
    }

    fn show(&mut self) {
        if let Some(members) = self.swim.take_change() {
            self.link(&members);
            self.shared.members.send_replace(Arc::new(members));
            self.pass_on_evictions();
            self.show_joined();
        }
        for event in self.swim.take_events() {
            tracing::info!("{event}");
            // Nobody listens: fine.
            let _ = self.shared.events.send(event);
        }
    }

    fn show_joined(&mut self) {
        let now = Instant::now();
        let facts = self.exchange.facts();
        let facts = facts.borrow();
        let members = Arc::clone(&self.shared.members.borrow());
        let is_current =
            |facts: &NodeFacts| members.get(facts.run().node).is_some_and(|member| member.run == facts.run());
        let joined = self.swim.joined(|node| facts.of(node).is_some_and(is_current), now);
        self.shared.joined.send_if_modified(|before| {
            if *before != joined {
                tracing::info!("{joined}");
            }
            std::mem::replace(before, joined) != joined
        });
    }

    /// Tells the links who is where.
    fn link(&mut self, members: &Members) {
        let now = Instant::now();
        for member in members.nodes.values().filter(|member| member.run.node != members.me) {
            let node = member.run.node;
            let is_over = match member.state {
                MemberState::Alive | MemberState::Suspect => false,
                MemberState::Left(_) => true,
                MemberState::Dead(since) => now.saturating_duration_since(since) > DEAD_LINKED,
            };
            if is_over || member.addr.port() == 0 {
                if self.linked.remove(&node).is_some() {
                    self.links.forget_peer(node);
                }
            } else if self.linked.insert(node, (member.run, member.addr)) != Some((member.run, member.addr)) {
                self.links.set_peer(member.run, member.addr);
            }
        }
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        let members = Arc::clone(&self.shared.members.borrow());
        self.link(&members);
        self.show_joined();
        self.on_told();
        let mut problems = self.swim.problems(now);
        if let Some(by) = self.exchange.uncalled_by()
            && let Some(member) = members.get(members.me)
        {
            problems.push(Problem::NoCalls { advertised: member.addr, by });
        }
        self.told.retain(|_, when| now.duration_since(*when) < WARN_EVERY);
        for problem in &problems {
            let text = problem.to_string();
            if let Entry::Vacant(untold) = self.told.entry(text) {
                tracing::warn!("{}", untold.key());
                untold.insert(now);
            }
        }
        *self.shared.problems.lock() = problems;
        let counts = self.swim.counts();
        *self.shared.packets.lock() =
            Packets { sent: counts.sent, taken: counts.taken, refused: counts.refused.clone() };
    }

    /// Nodes of which only facts are left.
    fn on_told(&mut self) {
        let facts = self.exchange.facts();
        let facts = facts.borrow();
        let members = self.swim.members();
        let told = facts.iter().filter(|facts| members.get(facts.run().node).is_none());
        let address = |facts: &NodeFacts| std::str::from_utf8(facts.get(ADDRESS)?).ok()?.parse().ok();
        let told: Vec<_> = told.filter_map(|facts| Some((facts.run(), address(facts)?))).collect();
        self.swim.on_told(Instant::now(), &told);
    }

    fn evict(&mut self, node: NodeId) -> Result<(), EvictError> {
        let members = self.swim.members();
        if node == members.me {
            return Err(EvictError::Myself);
        }
        let run = members.get(node).ok_or(EvictError::Unknown(node))?.run;
        self.swim.on_evicted(Instant::now(), &[run]);
        Ok(())
    }

    fn pass_on_evictions(&mut self) {
        let evicted = self.swim.evictions();
        if evicted != self.evicted {
            let mut value = BytesMut::new();
            for run in &evicted {
                value.put_u64(run.node.0);
                value.put_u64(run.incarnation.0);
            }
            if let Err(error) = self.exchange.write(EVICTED, Some(value.freeze())) {
                tracing::warn!(%error, "evictions are not passed on");
            }
            self.evicted = evicted;
        }
    }

    fn on_facts(&mut self) {
        let facts = self.exchange.facts();
        let mut evicted = Vec::new();
        for told in facts.borrow().iter().filter_map(|facts| facts.get(EVICTED)) {
            let mut r = Reader::new(Bytes::clone(told));
            while let (Ok(node), Ok(incarnation)) = (r.u64(), r.u64()) {
                evicted.push(NodeIncarnation { node: NodeId(node), incarnation: Incarnation(incarnation) });
            }
        }
        self.swim.on_evicted(Instant::now(), &evicted);
        self.show_joined();
    }

    async fn leave(&mut self) {
        self.swim.leave(Instant::now());
        for _ in 0..FAREWELLS {
            self.send();
            self.show();
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.swim.farewell(Instant::now());
        }
        self.send();
    }
}

/// Resolves the seeds again and again: each second while they are looked for, each five seconds later on.
async fn resolve(
    names: Vec<String>,
    me: SocketAddr,
    local: SocketAddr,
    resolved: mpsc::Sender<Vec<Resolved>>,
    mut joined: watch::Receiver<Joined>,
) {
    let all_literal = names.iter().all(|name| name.parse::<SocketAddr>().is_ok());
    loop {
        let mut seeds = Vec::with_capacity(names.len());
        for name in &names {
            let found = tokio::time::timeout(Duration::from_secs(2), net::resolve(name)).await;
            let found = match found {
                Ok(Ok(found)) => Ok(found),
                Ok(Err(error)) => Err(format!("can't be resolved: {error}")),
                Err(_) => Err("can't be resolved within 2 s".into()),
            };
            let addresses = match found {
                Err(cause) => Err(cause),
                Ok(found) => {
                    let mut addresses = Vec::new();
                    for address in found.into_iter().filter(|address| address.is_ipv4() || local.is_ipv6()) {
                        addresses.push((address, is_mine(address, me, local).await));
                    }
                    Ok(addresses)
                }
            };
            seeds.push(Resolved { name: name.clone(), addresses });
        }
        if resolved.send(seeds).await.is_err() || all_literal {
            return;
        }
        let pause = if matches!(*joined.borrow_and_update(), Joined::Looking { .. }) { 1 } else { 5 };
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(pause)) => {}
            () = resolved.closed() => return,
        }
    }
}

async fn is_mine(address: SocketAddr, me: SocketAddr, local: SocketAddr) -> bool {
    address == me
        || address == local
        || local.ip().is_unspecified() && address.port() == local.port() && net::is_local(address.ip()).await
}
