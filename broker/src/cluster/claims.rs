//! One live connection for each client id in the whole cluster (design P4).
//!
//! Who connects is told to all nodes; a node that has an older connection of the client ends it, one that has a newer one answers, and the
//! connection that was told ends. What is older is decided by a stamp that never goes back and exceeds every stamp seen, so a wrong
//! wall clock does not matter. The version of an inbox fences persistent sessions anyway; this reaches those too that keep nothing, and makes
//! it quick. When a node comes (back), it is told all clients of this one: what a partition let happen ends then.

use crate::live::SessionRef;
use crate::node::Node;
use crate::shard::Letter;
use base_rpc::{Handler, Lane, Mesh, Reply, Service};
use base_types::wire::{Reader, WireError, put_prefixed, put_varint};
use base_types::{ClientId, NodeId, NodeIncarnation, TenantId, WallMs};
use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use inbox_api::InboxId;
use mqtt_codec::ReasonCode;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::debug;

const FORMAT: u8 = 1;
/// Claims in one message.
const AT_ONCE: usize = 1024;
/// Claims that wait to be told. More are not told: the fence of inboxes and the next meeting of the nodes find them.
const WAITING: usize = 256 * 1024;

/// When a client was claimed: larger is newer, everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(pub(crate) u64);

/// A client, and since when this node has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) id: InboxId,
    pub(crate) user: ByteString,
    pub(crate) stamp: Stamp,
}

/// Tells the other nodes who connected here, and hears it from them.
pub(crate) struct Claims {
    mesh: Option<Arc<dyn Mesh>>,
    newest: AtomicU64,
    untold: Mutex<Vec<Claim>>,
    arrived: Notify,
    node: OnceLock<Weak<Node>>,
}

impl Claims {
    /// With a mesh it hears others, once [`Claims::connect`] was called.
    pub(crate) fn new(mesh: Option<Arc<dyn Mesh>>) -> Arc<Self> {
        let claims = Arc::new(Self {
            mesh,
            newest: AtomicU64::new(0),
            untold: Mutex::default(),
            arrived: Notify::new(),
            node: OnceLock::new(),
        });
        if let Some(mesh) = &claims.mesh {
            mesh.serve(Service::CLAIMS, Arc::new(Hearing(Arc::downgrade(&claims))));
        }
        claims
    }

    /// From now on claims of others are looked at.
    pub(crate) fn connect(&self, node: &Arc<Node>) {
        // Set once, at start.
        drop(self.node.set(Arc::downgrade(node)));
    }

    /// A stamp that is newer than all that this node has given or seen.
    pub(crate) fn stamp(&self, wall: WallMs) -> Stamp {
        let newer = |newest: u64| Some(wall.0.max(newest + 1));
        let before = self.newest.fetch_update(Ordering::AcqRel, Ordering::Acquire, newer).unwrap_or_default();
        Stamp(wall.0.max(before + 1))
    }

    /// Tells all nodes of a claim, soon.
    pub(crate) fn tell(&self, claim: Claim) {
        if self.mesh.is_none() {
            return;
        }
        let mut untold = self.untold.lock();
        if untold.len() < WAITING {
            untold.push(claim);
        }
        drop(untold);
        self.arrived.notify_one();
    }

    /// Tells what is to be told, until told to stop.
    pub(crate) async fn run(self: Arc<Self>, node: Arc<Node>, stop: CancellationToken) {
        let Some(mesh) = self.mesh.clone() else { return };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.arrived.notified() => {}
            }
            let untold = std::mem::take(&mut *self.untold.lock());
            let peers = node.remote.peers();
            for claims in untold.chunks(AT_ONCE) {
                let body = encode(claims);
                for peer in &peers {
                    tell(&*mesh, *peer, body.clone());
                }
            }
        }
    }

    /// Tells a node that has come all clients of this one.
    pub(crate) fn meet(&self, node: &Node, peer: NodeId) {
        let Some(mesh) = &self.mesh else { return };
        for claims in node.registry.claims().chunks(AT_ONCE) {
            tell(&**mesh, peer, encode(claims));
        }
    }

    /// Looks at what another node has; answers with what is newer here.
    fn hear(&self, node: &Node, from: NodeId, claims: Vec<Claim>) {
        let mut newer = Vec::new();
        for told in claims {
            self.newest.fetch_max(told.stamp.0, Ordering::AcqRel);
            let Some((session, own)) = node.registry.look(&told.id) else { continue };
            match verdict((own.stamp, node.run.node, &own.user), (told.stamp, from, &told.user)) {
                Verdict::OwnEnds => end(node, session),
                Verdict::OwnStays => newer.push(own),
            }
        }
        if let Some(mesh) = self.mesh.as_ref().filter(|_| !newer.is_empty()) {
            tell(&**mesh, from, encode(&newer));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    OwnEnds,
    OwnStays,
}

/// The newer of two connections of a user stays; between two users the older one does: nobody is pushed out by a stranger who uses his client id
/// (faults.md T16). Both nodes come to the same verdict.
fn verdict(own: (Stamp, NodeId, &ByteString), told: (Stamp, NodeId, &ByteString)) -> Verdict {
    let own_is_newer = (own.0, own.1) > (told.0, told.1);
    let same_user = own.2 == told.2;
    if own_is_newer == same_user { Verdict::OwnStays } else { Verdict::OwnEnds }
}

fn end(node: &Node, session: SessionRef) {
    if let Some(shard) = node.shards.get(usize::from(session.shard)) {
        shard.send(Letter::Kick { session, reason: ReasonCode::SessionTakenOver, done: None });
    }
}

fn tell(mesh: &dyn Mesh, to: NodeId, body: Bytes) {
    if let Err(error) = mesh.send(to, Lane::Data, Service::CLAIMS, body) {
        debug!(%to, %error, "a node was not told who connected here");
    }
}

fn encode(claims: &[Claim]) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + claims.len() * 48);
    out.put_u8(FORMAT);
    for claim in claims {
        put_prefixed(&mut out, claim.id.tenant.as_str().as_bytes());
        put_prefixed(&mut out, claim.id.client.as_str().as_bytes());
        put_prefixed(&mut out, claim.user.as_bytes());
        put_varint(&mut out, claim.stamp.0);
    }
    out.freeze()
}

fn decode(body: Bytes) -> Result<Vec<Claim>, WireError> {
    let mut r = Reader::new(body);
    match r.u8()? {
        FORMAT => {}
        other => return Err(WireError::UnknownFormat(other)),
    }
    let mut claims = Vec::new();
    while !r.is_empty() {
        let tenant = TenantId::new(r.text("tenant")?).map_err(|_| WireError::Text("tenant"))?;
        let client = ClientId::new(r.text("client id")?).map_err(|_| WireError::Text("client id"))?;
        let user = r.text("user")?;
        claims.push(Claim { id: InboxId { tenant, client }, user, stamp: Stamp(r.varint()?) });
    }
    Ok(claims)
}

/// Takes what other nodes tell.
struct Hearing(Weak<Claims>);

impl Handler for Hearing {
    fn handle(&self, from: NodeIncarnation, body: Bytes, reply: Reply) {
        drop(reply);
        let Some(claims) = self.0.upgrade() else { return };
        let Some(node) = claims.node.get().and_then(Weak::upgrade) else { return };
        match decode(body) {
            Ok(told) => claims.hear(&node, from.node, told),
            Err(error) => debug!(from = %from.node, %error, "what a node told of its clients can't be read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_nodes_come_to_the_same_verdict() {
        let (ann, bob) = (ByteString::from_static("ann"), ByteString::from_static("bob"));
        let users = [&ann, &bob];
        for stamps in [(1, 2), (2, 1), (5, 5)] {
            for (a_user, b_user) in users.iter().flat_map(|a| users.iter().map(move |b| (*a, *b))) {
                let a = (Stamp(stamps.0), NodeId(1), a_user);
                let b = (Stamp(stamps.1), NodeId(2), b_user);
                let stays = [verdict(a, b), verdict(b, a)].map(|v| v == Verdict::OwnStays);
                assert!(stays[0] != stays[1], "one stays, one ends");
                let a_is_newer = (a.0, a.1) > (b.0, b.1);
                assert_eq!(stays[0], a_is_newer == (a_user == b_user));
            }
        }
    }

    #[test]
    fn a_stamp_exceeds_all_that_were_seen_whatever_the_clock_says() {
        let claims = Claims::new(None);
        let first = claims.stamp(WallMs(1_000));
        claims.newest.fetch_max(5_000, Ordering::AcqRel);
        let second = claims.stamp(WallMs(1_001));
        let third = claims.stamp(WallMs(9_000));
        assert!(first < second && Stamp(5_000) < second && second < third);
        assert_eq!(third, Stamp(9_000));
    }

    #[test]
    fn claims_survive_the_wire_and_garbage_is_refused() {
        let id = InboxId { tenant: TenantId::default(), client: ClientId::new("c").unwrap() };
        let claims = vec![
            Claim { id: id.clone(), user: ByteString::from_static("ann"), stamp: Stamp(7) },
            Claim { id, user: ByteString::new(), stamp: Stamp(u64::MAX) },
        ];
        let body = encode(&claims);
        assert_eq!(decode(body.clone()), Ok(claims));
        assert!(decode(body.slice(..body.len() - 1)).is_err());
        assert!(decode(Bytes::from_static(&[9])).is_err());
    }
}
