//! The routes of this node's live sessions: one for each filter that somebody here subscribed to.
//!
//! Changes are queued while the table of live subscriptions is locked, so their order is the table's, and made in rounds: while one
//! round commits, the next gathers. What waits is bounded by the SUBSCRIBEs and UNSUBSCRIBEs that wait
//! for it, and by the sessions that ended since the round began.

use base_types::{NodeIncarnation, SubscriptionFilter, TenantId};
use dist_api::{DistError, DistService, Receiver, Route};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

/// Queues changes of this node's routes.
#[derive(Clone, Debug, Default)]
pub(crate) struct RouteKeeper {
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    changes: Mutex<Vec<Change>>,
    arrived: Notify,
}

#[derive(Debug)]
struct Change {
    tenant: TenantId,
    add: Vec<SubscriptionFilter>,
    remove: Vec<SubscriptionFilter>,
    done: Option<oneshot::Sender<Result<(), DistError>>>,
}

/// The outcome of a change, once it is committed.
pub(crate) type Changed = oneshot::Receiver<Result<(), DistError>>;

impl RouteKeeper {
    /// Queues routes to add; also without any, the answer comes after everything that was queued before has been committed.
    pub(crate) fn add(&self, tenant: &TenantId, add: Vec<SubscriptionFilter>) -> Changed {
        let (done, changed) = oneshot::channel();
        self.push(Change { tenant: tenant.clone(), add, remove: Vec::new(), done: Some(done) });
        changed
    }

    /// Queues routes to remove.
    pub(crate) fn remove(&self, tenant: &TenantId, remove: Vec<SubscriptionFilter>) -> Changed {
        let (done, changed) = oneshot::channel();
        self.push(Change { tenant: tenant.clone(), add: Vec::new(), remove, done: Some(done) });
        changed
    }

    fn push(&self, change: Change) {
        self.queue.changes.lock().push(change);
        self.queue.arrived.notify_one();
    }

    /// Makes the changes until told to stop.
    pub(crate) async fn run(self, dist: Arc<dyn DistService>, run: NodeIncarnation, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.queue.arrived.notified() => {}
            }
            let changes = std::mem::take(&mut *self.queue.changes.lock());
            let mut last: HashMap<(TenantId, SubscriptionFilter), bool> = HashMap::new();
            let mut waiting = Vec::new();
            for change in changes {
                for (filters, added) in [(change.add, true), (change.remove, false)] {
                    for filter in filters {
                        last.insert((change.tenant.clone(), filter), added);
                    }
                }
                waiting.extend(change.done);
            }
            let (mut add, mut remove) = (Vec::new(), Vec::new());
            for ((tenant, filter), added) in last {
                let route = Route { tenant, filter, receiver: Receiver::Node(run) };
                if added { add.push(route) } else { remove.push(route) }
            }
            let mut result = Ok(());
            if !add.is_empty() {
                result = dist.add(add).await;
            }
            if !remove.is_empty() {
                result = result.and(dist.remove(remove).await);
            }
            for done in waiting {
                // Whoever waited may have gone; the change stands.
                drop(done.send(result.clone()));
            }
        }
    }
}
