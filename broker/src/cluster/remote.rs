//! Messages to and from live sessions of other nodes.
//!
//! A shard gathers what is for another node in a [`Parcel`] and sends it with its next flush: one message per node and wake-up, in order,
//! without an answer. Now and then a call asks whether all of it arrived: what is unanswered is bounded, and above the bound publishers
//! wait ([`Remote::is_congested`]). A node that does not answer costs its messages, counted, and never more than the deadline. A parcel with
//! something for a shared group is a call of its own: members that fail are tried elsewhere.

use super::parcel::{Aim, Opened, Parcel};
use crate::counters;
use crate::live::Target;
use crate::node::Node;
use crate::shard::Letter;
use arc_swap::ArcSwap;
use base_rpc::{Handler, Lane, Mesh, Reply, Service};
use base_types::wire::{Reader, put_varint};
use base_types::{Message, NodeId, NodeIncarnation, QoS, TenantId};
use bytes::{Bytes, BytesMut};
use inbox_api::InboxId;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tracing::{debug, warn};

/// How long messages for live sessions may take to another node.
const DEADLINE: Duration = Duration::from_secs(5);
/// Bytes that may be unanswered by one node before publishers wait.
const WAITING_HIGH: usize = 16 << 20;
/// So long after the first message a node is asked whether all arrived, or after so many bytes.
const ASK_AFTER: Duration = Duration::from_millis(20);
const ASK_BYTES: usize = 1 << 20;
/// A parcel of this size leaves at once.
pub(crate) const PARCEL_BYTES: usize = 1 << 20;
/// Nodes that are tried for a member of a shared group.
const TRIES: usize = 4;
/// For so long an answer waits for shards that have too much already.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The other nodes, as receivers of messages.
pub(crate) struct Remote {
    mesh: Option<Arc<dyn Mesh>>,
    alive: ArcSwap<HashMap<NodeId, Peer>>,
    node: OnceLock<Weak<Node>>,
}

#[derive(Clone, Debug)]
struct Peer {
    run: NodeIncarnation,
    account: Arc<Account>,
}

/// What a node has not confirmed.
#[derive(Debug, Default)]
struct Account {
    /// Bytes that are unanswered.
    waiting: AtomicUsize,
    /// What was sent since the node was asked last.
    unasked: Mutex<Unasked>,
    /// So much was sent that it should be asked at once.
    much: Notify,
}

#[derive(Debug, Default)]
struct Unasked {
    bytes: usize,
    messages: u64,
    /// Somebody is about to ask.
    asking: bool,
}

impl Remote {
    /// With a mesh it takes messages too, once [`Remote::connect`] was called.
    pub(crate) fn new(mesh: Option<Arc<dyn Mesh>>) -> Arc<Self> {
        let remote = Arc::new(Self { mesh, alive: ArcSwap::default(), node: OnceLock::new() });
        if let Some(mesh) = &remote.mesh {
            mesh.serve(Service::LIVE, Arc::new(Receiving(Arc::downgrade(&remote))));
        }
        remote
    }

    /// From now on messages of others are delivered here.
    pub(crate) fn connect(&self, node: &Arc<Node>) {
        // Set once, at start.
        drop(self.node.set(Arc::downgrade(node)));
    }

    /// Who is alive, the own node apart.
    pub(crate) fn set_alive(&self, runs: impl Iterator<Item = NodeIncarnation>) {
        let before = self.alive.load();
        let peer = |run: NodeIncarnation| match before.get(&run.node) {
            Some(peer) if peer.run == run => peer.clone(),
            _ => Peer { run, account: Arc::default() },
        };
        self.alive.store(Arc::new(runs.map(|run| (run.node, peer(run))).collect()));
    }

    /// Whether that run of a node takes messages.
    pub(crate) fn is_alive(&self, run: NodeIncarnation) -> bool {
        self.alive.load().get(&run.node).is_some_and(|peer| peer.run == run)
    }

    /// Who is alive, the own node apart.
    pub(crate) fn peers(&self) -> Vec<NodeId> {
        self.alive.load().keys().copied().collect()
    }

    /// Whether somebody has so much unanswered that publishers should wait.
    pub(crate) fn is_congested(&self) -> bool {
        self.alive.load().values().any(|peer| peer.account.waiting.load(Ordering::Relaxed) > WAITING_HIGH)
    }

    /// Sends what was gathered for a node; on the tokio runtime of the caller.
    pub(crate) fn send(&self, node: &Arc<Node>, to: NodeId, parcel: &mut Parcel) {
        let wants_answer = parcel.wants_answer();
        let (body, count) = parcel.take();
        if wants_answer {
            return self.call(node, to, body, count, SmallVec::new());
        }
        let (Some(mesh), Some(peer)) = (&self.mesh, self.alive.load().get(&to).cloned()) else {
            return node.metrics.node().dropped.add(counters::NODE_AWAY, u64::from(count));
        };
        let bytes = body.len();
        if let Err(error) = mesh.send(to, Lane::Data, Service::LIVE, body) {
            debug!(%to, %error, count, "messages did not reach the live sessions of a node");
            return node.metrics.node().dropped.add(counters::NODE_AWAY, u64::from(count));
        }
        peer.account.waiting.fetch_add(bytes, Ordering::Relaxed);
        let ask = {
            let mut unasked = peer.account.unasked.lock();
            unasked.bytes += bytes;
            unasked.messages += u64::from(count);
            if unasked.bytes > ASK_BYTES {
                peer.account.much.notify_one();
            }
            !std::mem::replace(&mut unasked.asking, true)
        };
        if ask {
            tokio::spawn(ask_until_settled(Arc::clone(mesh), Arc::clone(node), to, peer.account));
        }
    }

    /// Sends what needs an answer of its own. Nodes in `tried` had no member of its shared groups.
    fn call(&self, node: &Arc<Node>, to: NodeId, body: Bytes, count: u32, tried: SmallVec<[NodeId; TRIES]>) {
        let peer = self.alive.load().get(&to).cloned();
        let (Some(mesh), Some(peer)) = (&self.mesh, peer) else {
            let node = Arc::clone(node);
            tokio::spawn(async move { failed(&node, to, &body, None, tried) });
            return;
        };
        let bytes = body.len();
        peer.account.waiting.fetch_add(bytes, Ordering::Relaxed);
        let call = mesh.call(to, Lane::Data, Service::LIVE, body.clone(), DEADLINE);
        let node = Arc::clone(node);
        tokio::spawn(async move {
            let answered = call.await;
            peer.account.waiting.fetch_sub(bytes, Ordering::Relaxed);
            match answered {
                Ok(missed) if missed.is_empty() => {}
                Ok(missed) => failed(&node, to, &body, Some(missed), tried),
                Err(error) => {
                    debug!(%to, %error, count, "messages did not reach the live sessions of a node");
                    failed(&node, to, &body, None, tried);
                }
            }
        });
    }
}

/// Asks a node whether what was sent has arrived, until nothing is open.
async fn ask_until_settled(mesh: Arc<dyn Mesh>, node: Arc<Node>, to: NodeId, account: Arc<Account>) {
    loop {
        let _ = tokio::time::timeout(ASK_AFTER, account.much.notified()).await;
        let (bytes, messages) = {
            let mut unasked = account.unasked.lock();
            if unasked.bytes == 0 {
                unasked.asking = false;
                return;
            }
            (std::mem::take(&mut unasked.bytes), std::mem::take(&mut unasked.messages))
        };
        // Behind everything that was sent before, on the same lane.
        let answered = mesh.call(to, Lane::Data, Service::LIVE, Bytes::new(), DEADLINE).await;
        account.waiting.fetch_sub(bytes, Ordering::Relaxed);
        if let Err(error) = answered {
            debug!(%to, %error, messages, "messages may not have reached the live sessions of a node");
            node.metrics.node().dropped.add(counters::NODE_AWAY, messages);
        }
    }
}

/// Tries those that were for a shared group with another member; the others are lost, and counted.
fn failed(node: &Arc<Node>, to: NodeId, body: &Bytes, missed: Option<Bytes>, mut tried: SmallVec<[NodeId; TRIES]>) {
    let only = missed.map(|missed| {
        let mut r = Reader::new(missed);
        std::iter::from_fn(|| r.varint().ok()).collect::<Vec<_>>()
    });
    tried.push(to);
    let Ok(opened) = Opened::new(body.clone()) else { return };
    let mut lost = 0;
    for (at, record) in (0_u64..).zip(opened) {
        let Ok((tenant, aim, message)) = record else { break };
        if only.as_ref().is_some_and(|only| !only.contains(&at)) {
            continue;
        }
        match aim {
            Aim::Group(shared) if tried.len() < TRIES => {
                let message = Arc::new(message);
                if !node.deliver_to_group(&tenant, &shared, &message, &tried) {
                    lost += 1;
                }
            }
            _ => lost += 1,
        }
    }
    if lost > 0 {
        node.metrics.node().dropped.add(counters::NODE_AWAY, lost);
    }
}

impl Node {
    /// Sends one message to a node from outside of the shards.
    pub(crate) fn send_to_node(
        self: &Arc<Self>,
        to: NodeId,
        tenant: &TenantId,
        aim: &Aim,
        message: &Message,
        tried: &[NodeId],
    ) {
        let mut parcel = Parcel::default();
        parcel.push(tenant, aim, message);
        let (body, count) = parcel.take();
        self.remote.call(self, to, body, count, SmallVec::from_slice(tried));
    }
}

/// Takes what other nodes send.
struct Receiving(Weak<Remote>);

impl Handler for Receiving {
    fn handle(&self, from: NodeIncarnation, body: Bytes, reply: Reply) {
        let node = self.0.upgrade().and_then(|remote| remote.node.get().and_then(Weak::upgrade));
        // Not serving yet: refused.
        let Some(node) = node else { return };
        // An empty one only asks whether all before it arrived.
        let opened = if body.is_empty() { None } else { Some(Opened::new(body)) };
        let opened = match opened.transpose() {
            Ok(opened) => opened.into_iter().flatten(),
            Err(error) => {
                warn!(from = %from.node, %error, "messages of a node can't be read: is it of another version?");
                return;
            }
        };
        let mut letters: Vec<Vec<Letter>> = node.shards.iter().map(|_| Vec::new()).collect();
        let mut missed = BytesMut::new();
        let mut targets = Vec::new();
        {
            let live = node.live_read();
            for (at, record) in (0_u64..).zip(opened) {
                let (tenant, aim, message) = match record {
                    Ok(record) => record,
                    Err(error) => {
                        warn!(from = %from.node, %error, "messages of a node can't be read: is it of another version?");
                        break;
                    }
                };
                match aim {
                    Aim::Subscribers => {
                        live.matches(&tenant, &message.topic, message.qos, message.retain, None, &mut targets);
                    }
                    Aim::Group(shared) => {
                        let publisher = message.publisher.as_ref();
                        match live.pick(&tenant, &shared, message.qos, message.retain, publisher) {
                            Some(target) => targets.push(target),
                            None => put_varint(&mut missed, at),
                        }
                    }
                    Aim::Client { client, retain, identifiers } => {
                        let session = node.registry.find(&InboxId { tenant, client });
                        let target = |session| Target { session, qos: QoS::AtMostOnce, retain, identifiers };
                        match session.map(target) {
                            Some(target) => targets.push(target),
                            None => node.metrics.node().dropped.inc(counters::OFFLINE),
                        }
                    }
                }
                node.to_letters(&Arc::new(message), &mut targets, &mut letters);
            }
        }
        for (shard, letters) in node.shards.iter().zip(&mut letters) {
            shard.send_all(letters);
        }
        let missed = missed.freeze();
        if !node.shards.iter().any(crate::shard::ShardHandle::is_congested) {
            return reply.send(missed);
        }
        tokio::spawn(async move {
            let patience = tokio::time::Instant::now() + PATIENCE;
            while node.shards.iter().any(crate::shard::ShardHandle::is_congested)
                && tokio::time::Instant::now() < patience
            {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            reply.send(missed);
        });
    }
}
