use crate::mesh::{CallError, CallFuture, Handler, Lane, Mesh, Reply, Service};
use base_types::{NodeId, NodeIncarnation};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Nodes of one process that can call each other, and the links between them, which a test cuts and mends.
#[derive(Clone, Debug, Default)]
pub struct MemHub(Arc<Mutex<Links>>);

#[derive(Default)]
struct Links {
    nodes: BTreeMap<NodeId, Arc<Node>>,
    /// From, to.
    cut: BTreeSet<(NodeId, NodeId)>,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("cut", &self.cut).finish_non_exhaustive()
    }
}

struct Node {
    run: NodeIncarnation,
    handlers: Mutex<BTreeMap<Service, Arc<dyn Handler>>>,
    lanes: BTreeMap<Lane, mpsc::Sender<Letter>>,
}

struct Letter {
    from: NodeIncarnation,
    service: Service,
    body: Bytes,
    reply: Reply,
}

/// One node's view of a [`MemHub`].
#[derive(Clone)]
pub struct MemMesh {
    hub: MemHub,
    node: Arc<Node>,
}

/// Messages that may wait on one lane.
const WAITING: usize = 4096;

impl MemHub {
    /// A run of a node enters, on the tokio runtime of the caller. An earlier run of it is no longer called.
    #[must_use]
    pub fn enter(&self, run: NodeIncarnation) -> MemMesh {
        let mut lanes = BTreeMap::new();
        let mut receivers = Vec::new();
        for lane in Lane::ALL {
            let (sender, receiver) = mpsc::channel::<Letter>(WAITING);
            lanes.insert(lane, sender);
            receivers.push(receiver);
        }
        let node = Arc::new(Node { run, handlers: Mutex::default(), lanes });
        for mut receiver in receivers {
            let node = Arc::downgrade(&node);
            tokio::spawn(async move {
                while let Some(letter) = receiver.recv().await {
                    let Some(node) = node.upgrade() else { return };
                    let handler = node.handlers.lock().get(&letter.service).cloned();
                    if let Some(handler) = handler {
                        handler.handle(letter.from, letter.body, letter.reply);
                    }
                }
            });
        }
        self.0.lock().nodes.insert(run.node, Arc::clone(&node));
        MemMesh { hub: self.clone(), node }
    }

    /// A node is gone: nobody can call it.
    pub fn leave(&self, node: NodeId) {
        self.0.lock().nodes.remove(&node);
    }

    /// Nothing goes from one to the other any more, replies neither.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.0.lock().cut.insert((from, to));
    }

    /// All links are whole again.
    pub fn heal(&self) {
        self.0.lock().cut.clear();
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.0.lock().cut.contains(&(from, to))
    }

    fn reach(&self, from: NodeId, to: NodeId) -> Result<Arc<Node>, CallError> {
        let links = self.0.lock();
        let node = links.nodes.get(&to).filter(|_| !links.cut.contains(&(from, to)));
        node.cloned().ok_or_else(|| CallError::Unreachable { to, cause: "the link is cut".into() })
    }
}

impl MemMesh {
    fn post(&self, to: NodeId, lane: Lane, service: Service, body: Bytes, reply: Reply) -> Result<(), CallError> {
        let peer = self.hub.reach(self.node.run.node, to)?;
        let letter = Letter { from: self.node.run, service, body, reply };
        let Some(lane) = peer.lanes.get(&lane) else { return Err(CallError::Refused { to }) };
        lane.try_send(letter).map_err(|error| {
            let mut letter = error.into_inner();
            letter.reply.0 = None;
            CallError::Busy { to }
        })
    }
}

impl Mesh for MemMesh {
    fn me(&self) -> NodeIncarnation {
        self.node.run
    }

    fn call(&self, to: NodeId, lane: Lane, service: Service, body: Bytes, deadline: Duration) -> CallFuture {
        let (sender, receiver) = oneshot::channel();
        if let Err(error) = self.post(to, lane, service, body, Reply(Some(Box::new(sender)))) {
            return Box::pin(std::future::ready(Err(error)));
        }
        let (hub, me) = (self.hub.clone(), self.node.run.node);
        Box::pin(async move {
            let answered = tokio::time::timeout(deadline, receiver).await;
            if hub.is_cut(to, me) {
                return Err(CallError::TimedOut { to });
            }
            match answered {
                Ok(Ok(Some(body))) => Ok(body),
                Ok(Ok(None)) => Err(CallError::Refused { to }),
                Ok(Err(_)) => Err(CallError::Lost { to }),
                Err(_) => Err(CallError::TimedOut { to }),
            }
        })
    }

    fn send(&self, to: NodeId, lane: Lane, service: Service, body: Bytes) -> Result<(), CallError> {
        self.post(to, lane, service, body, Reply::nobody())
    }

    fn serve(&self, service: Service, handler: Arc<dyn Handler>) {
        self.node.handlers.lock().insert(service, handler);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base_types::Incarnation;

    fn run(node: u64) -> NodeIncarnation {
        NodeIncarnation { node: NodeId(node), incarnation: Incarnation(1) }
    }

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_call_is_answered_and_a_cut_link_is_not_crossed() {
        let hub = MemHub::default();
        let (a, b) = (hub.enter(run(1)), hub.enter(run(2)));
        b.serve(
            Service::ADMIN,
            Arc::new(|from: NodeIncarnation, body: Bytes, reply: Reply| {
                assert_eq!(from, run(1));
                if !body.is_empty() {
                    reply.send(body);
                }
            }),
        );
        let call = |text: &'static str| a.call(NodeId(2), Lane::Data, Service::ADMIN, text.into(), SOON);
        assert_eq!(call("x").await, Ok("x".into()));
        assert_eq!(call("").await, Err(CallError::Refused { to: NodeId(2) }));
        hub.cut(NodeId(1), NodeId(2));
        assert!(matches!(call("x").await, Err(CallError::Unreachable { .. })));
        hub.heal();
        hub.cut(NodeId(2), NodeId(1));
        assert_eq!(call("x").await, Err(CallError::TimedOut { to: NodeId(2) }));
        hub.heal();
        assert_eq!(call("x").await, Ok("x".into()));
    }
}
