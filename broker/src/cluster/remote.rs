//! Messages to and from live sessions of other nodes.
//!
//! A shard gathers what is for another node in a [`Parcel`] and sends it with its next flush: one call per node and wake-up, in order. The
//! answer is the credit: what is unanswered is bounded, and above the bound publishers wait ([`Remote::is_congested`]). A node that does not answer
//! costs its messages, counted, and never more than the deadline; members of shared groups are tried elsewhere.

use super::parcel::{Aim, Opened, Parcel};
use crate::counters;
use crate::live::Target;
use crate::node::Node;
use crate::shard::Letter;
use arc_swap::ArcSwap;
use base_rpc::{CallError, Handler, Lane, Mesh, Reply, Service};
use base_types::wire::{Reader, put_varint};
use base_types::{Message, NodeId, NodeIncarnation, QoS, TenantId};
use bytes::{Bytes, BytesMut};
use inbox_api::InboxId;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tracing::{debug, warn};

/// How long messages for live sessions may take to another node.
const DEADLINE: Duration = Duration::from_secs(5);
/// Bytes that may be unanswered by one node before publishers wait.
const WAITING_HIGH: usize = 16 << 20;
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
    /// Bytes that are unanswered.
    waiting: Arc<AtomicUsize>,
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
            _ => Peer { run, waiting: Arc::default() },
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
        self.alive.load().values().any(|peer| peer.waiting.load(Ordering::Relaxed) > WAITING_HIGH)
    }

    /// Sends what was gathered for a node; on the tokio runtime of the caller.
    pub(crate) fn send(&self, node: &Arc<Node>, to: NodeId, parcel: &mut Parcel) {
        let (body, count) = parcel.take();
        self.send_body(node, to, body, count, SmallVec::new());
    }

    fn send_body(&self, node: &Arc<Node>, to: NodeId, body: Bytes, count: u32, tried: SmallVec<[NodeId; TRIES]>) {
        let peer = self.alive.load().get(&to).cloned();
        let (Some(mesh), Some(peer)) = (&self.mesh, peer) else {
            let node = Arc::clone(node);
            tokio::spawn(async move { failed(&node, to, &body, None, tried) });
            return;
        };
        let bytes = body.len();
        peer.waiting.fetch_add(bytes, Ordering::Relaxed);
        let call = mesh.call(to, Lane::Data, Service::LIVE, body.clone(), DEADLINE);
        let node = Arc::clone(node);
        tokio::spawn(async move {
            let answered = call.await;
            peer.waiting.fetch_sub(bytes, Ordering::Relaxed);
            match answered {
                Ok(missed) if missed.is_empty() => {}
                Ok(missed) => failed(&node, to, &body, Some(missed), tried),
                Err(error) => {
                    debug!(%to, %error, count, "messages did not reach the live sessions of a node");
                    // Done perhaps: a member elsewhere would get it twice, which only QoS 1 allows; `failed` looks.
                    failed(&node, to, &body, None, tried);
                    if matches!(error, CallError::Busy { .. }) {
                        warn!(%to, count, "too much waits for a node; messages for its live sessions were dropped");
                    }
                }
            }
        });
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
        self.remote.send_body(self, to, body, count, SmallVec::from_slice(tried));
    }
}

/// Takes what other nodes send.
struct Receiving(Weak<Remote>);

impl Handler for Receiving {
    fn handle(&self, from: NodeIncarnation, body: Bytes, reply: Reply) {
        let node = self.0.upgrade().and_then(|remote| remote.node.get().and_then(Weak::upgrade));
        // Not serving yet: refused.
        let Some(node) = node else { return };
        let Ok(opened) = Opened::new(body) else { return };
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
