//! What a node shows of itself: figures that are asked for at each scrape, and whether it is ready.

use crate::boot::STORES;
use crate::cluster::Status;
use crate::node::Node;
use base_kv::{Host, KvObserver, Role};
use std::sync::Arc;
use std::time::Duration;
use telemetry::{Metrics, Readiness, Reason, Samples, Store, table};

/// Sees that a scrape asks the node for what nobody counts.
pub(crate) fn on_scrape(node: &Arc<Node>, host: &Arc<Host>, status: Option<Arc<Status>>) {
    // The metrics are part of the node: without weak references neither would ever be dropped.
    let refs = (Arc::downgrade(node), Arc::downgrade(host));
    node.metrics.on_scrape(move |out| {
        if let (Some(node), Some(host)) = (refs.0.upgrade(), refs.1.upgrade()) {
            read(&node, out);
            node.disk.read(out);
            read_host(&host, out);
            if let Some(status) = &status {
                status.read(out);
            }
        }
    });
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
fn read_host(host: &Host, out: &mut Samples) {
    let stats = host.stats();
    out.add(&table::DISK_FREE, &[], stats.free_bytes as f64);
    out.add(&table::DISK_WRITABLE, &[], f64::from(u8::from(!stats.disk_full && stats.failure.is_none())));
    out.add(&table::LOG_SYNCS, &[], stats.syncs as f64);
    out.add(&table::LOG_ENTRIES, &[], stats.entries as f64);
    out.add(&table::LOG_BYTES, &[], stats.bytes as f64);
    out.add(&table::ENGINE_MEMORY, &[], stats.memory_bytes as f64);
    for range in stats.ranges {
        let id = range.range.to_string();
        let labels = [range.store, id.as_str()];
        out.add(&table::RANGE_LEADER, &labels, f64::from(u8::from(range.role == Role::Leader)));
        out.add(&table::RANGE_TERM, &labels, range.term as f64);
        out.add(&table::RANGE_LAST_INDEX, &labels, range.last_index as f64);
        out.add(&table::RANGE_COMMITTED_INDEX, &labels, range.committed_index as f64);
        out.add(&table::RANGE_APPLIED_INDEX, &labels, range.applied_index as f64);
        out.add(&table::RANGE_PURGED_INDEX, &labels, range.purged_index as f64);
        out.add(&table::RANGE_VOTERS, &labels, range.voters as f64);
        out.add(&table::RANGE_WAITING, &labels, range.waiting_commands as f64);
        out.add(&table::RANGE_WAITING_BYTES, &labels, range.waiting_bytes as f64);
        out.add(&table::RANGE_READY, &labels, f64::from(u8::from(range.unready.is_none())));
    }
}

/// Puts what the log and the ranges took into the histograms.
pub(crate) struct CommitTimes(pub(crate) Arc<Metrics>);

impl KvObserver for CommitTimes {
    fn synced(&self, took: Duration, _: u64, _: u64) {
        self.0.node().log_fsync.observe(took);
    }

    fn committed(&self, store: &'static str, took: Duration, _: u64) {
        let store = match store {
            "dist" => Store::Dist,
            "inbox" => Store::Inbox,
            _ => Store::Retain,
        };
        self.0.node().commit[store].observe(took);
    }
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
fn read(node: &Node, out: &mut Samples) {
    let inboxes = node.inbox.stats();
    out.add(&table::SESSIONS, &["connected"], inboxes.attached_here as f64);
    // Every node knows of all inboxes, and one tells: the sum over the nodes is right.
    let of_leader = |leads: bool, value: u64| if leads { value as f64 } else { 0.0 };
    let disconnected = inboxes.inboxes.saturating_sub(inboxes.attached);
    out.add(&table::SESSIONS, &["disconnected"], of_leader(inboxes.leads, disconnected));
    out.add(&table::QUEUED_MESSAGES, &[], of_leader(inboxes.leads, inboxes.queued_messages));
    out.add(&table::QUEUED_BYTES, &[], of_leader(inboxes.leads, inboxes.queued_bytes));
    for (cause, count) in [
        ("queue_full_oldest", inboxes.dropped_oldest),
        ("queue_full_newest", inboxes.dropped_newest),
        ("queue_full_rejected", inboxes.rejected),
        ("expired", inboxes.expired),
        ("session_ended", inboxes.discarded),
    ] {
        out.add(&table::DROPPED, &[cause], count as f64);
    }
    out.add(&table::SUBSCRIPTIONS, &[], node.live_read().subscription_count() as f64);
    out.add(&table::ROUTES, &[], of_leader(node.dist.leads(), node.dist.route_count() as u64));
    out.add(&table::RETAINED_MESSAGES, &[], of_leader(node.retain.leads(), node.retain.topic_count() as u64));
}

/// Whether the node serves.
pub(crate) struct Ready {
    pub(crate) node: Arc<Node>,
    pub(crate) host: Arc<Host>,
    /// In a cluster.
    pub(crate) status: Option<Arc<Status>>,
}

impl Readiness for Ready {
    fn not_ready(&self) -> Vec<Reason> {
        let stats = self.host.stats();
        let mut reasons = self.unhealthy();
        if stats.disk_full {
            let why = format!(
                "the disk of the data directory has {} bytes free: nothing durable is accepted until there is more; \
                 connected clients go on with QoS 0 and with what is queued for them",
                stats.free_bytes
            );
            reasons.push(Reason { what: "disk".to_owned(), why });
        }
        if let Some(status) = &self.status {
            reasons.extend(status.keeps_from_serving());
        }
        for store in STORES {
            let mut replicas = stats.ranges.iter().filter(|range| range.store == store).peekable();
            let what = || format!("store {store}");
            if replicas.peek().is_none() {
                let why =
                    "this node has no replica of it yet: the nodes agree on who makes it, or it is on its way here";
                reasons.push(Reason { what: what(), why: why.to_owned() });
            }
            reasons.extend(replicas.filter_map(|r| r.unready.clone()).map(|why| Reason { what: what(), why }));
        }
        if self.node.is_congested() {
            let why =
                "more messages wait for their commit than the node lets in; publishers wait until there are fewer";
            reasons.push(Reason { what: "commits".to_owned(), why: why.to_owned() });
        }
        reasons
    }

    fn warnings(&self) -> Vec<Reason> {
        self.node.disk.warning().into_iter().collect()
    }

    fn unhealthy(&self) -> Vec<Reason> {
        let failure = self.host.stats().failure;
        failure.into_iter().map(|why| Reason { what: "log".to_owned(), why }).collect()
    }
}
