use base_rpc::{Mesh, Rpc};
use base_types::{NodeId, NodeIncarnation};
use std::net::SocketAddr;

/// A [`Mesh`] that is told where the nodes are.
pub trait Links: Mesh {
    /// A run of a node is reached there. It takes the place of whatever was known of the node.
    fn set_peer(&self, run: NodeIncarnation, addr: SocketAddr);

    /// The node is gone for good: no calls to it any more. A node that may only be cut off is not forgotten.
    fn forget_peer(&self, node: NodeId);
}

impl Links for Rpc {
    fn set_peer(&self, run: NodeIncarnation, addr: SocketAddr) {
        self.set_peer(run, addr);
    }

    fn forget_peer(&self, node: NodeId) {
        self.forget_peer(node);
    }
}
