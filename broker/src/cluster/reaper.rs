//! What a dead run leaves behind: routes to its live sessions, and inboxes that count as connected. The leader of each store clears it away.

use crate::node::Node;
use base_cluster::Cluster;
use base_types::NodeIncarnation;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// Changes that were on their way when a run died may come in later: it is looked again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// A node of which membership knows nothing at all, so long after the start, is gone: it was there before all of this did.
const UNHEARD_OF: Duration = Duration::from_secs(300);

/// Runs until told to stop.
pub(crate) async fn run(node: Arc<Node>, cluster: Cluster, stop: CancellationToken) {
    let start = Instant::now();
    let mut members = cluster.members();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = members.changed() => if changed.is_err() { return },
            () = sleep(LOOK_AGAIN) => {}
        }
        let now = members.borrow_and_update().clone();
        let gone = |run: &NodeIncarnation| {
            *run != node.run && (now.is_gone(*run) || (now.get(run.node).is_none() && start.elapsed() > UNHEARD_OF))
        };
        if node.dist.leads() {
            for (run, routes) in node.dist.runs().into_iter().filter(|(run, _)| gone(run)) {
                match node.dist.forget_run(run).await {
                    Ok(_) => info!(node = %run.node, routes, "removed the routes of a node that is gone"),
                    Err(error) => debug!(node = %run.node, %error, "routes of a node that is gone remain for now"),
                }
            }
        }
        if node.inbox.leads() {
            for (run, sessions) in node.inbox.holders().into_iter().filter(|(run, _)| gone(run)) {
                match node.inbox.detach_node(run).await {
                    Ok(_) => info!(node = %run.node, sessions, "sessions of a node that is gone count as disconnected"),
                    Err(error) => {
                        debug!(node = %run.node, %error, "sessions of a node that is gone still count as connected")
                    }
                }
            }
        }
    }
}
