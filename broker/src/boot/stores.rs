//! The replicated stores of a node.

use super::StartError;
use crate::seen::CommitTimes;
use crate::services::{Ears, Heard, OwnRoutes};
use base_kv::{Durability, Host, KvConfig, Range, RangeSpec};
use base_kv_api::RangeClient;
use base_kv_api::balance::Command;
use base_rpc::Mesh;
use base_types::Clock;
use dist_worker::{DistCoproc, DistWorker};
use inbox_store::{InboxConfig, InboxCoproc, InboxStore};
use node_config::NodeConfig;
use retain_store::{RetainConfig, RetainCoproc, RetainStore};
use std::sync::Arc;
use telemetry::Metrics;
use tokio::sync::Notify;

/// The names of the stores.
pub(crate) const STORES: [&str; 3] = ["dist", "inbox", "retain"];

/// The stores, and what hears them.
pub(super) struct Stores {
    pub(super) host: Arc<Host>,
    pub(super) dist: DistWorker,
    /// Those that a publish looks at: routes and inboxes.
    pub(super) looked_at: [Arc<dyn RangeClient>; 2],
    pub(super) inbox: Arc<InboxStore>,
    pub(super) retain: RetainStore,
    pub(super) ears: Arc<Ears>,
    pub(super) heard: Heard,
    pub(super) routes_lost: Arc<Notify>,
    ranges: Vec<(&'static str, Range)>,
}

impl Stores {
    /// Opens what is on disk, and answers the other nodes from now on.
    pub(super) async fn open(
        config: &NodeConfig,
        mesh: Arc<dyn Mesh>,
        clock: &Arc<dyn Clock>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let run = mesh.me();
        // The largest message must fit into one command, with room for its receivers, and several into the queue.
        let command_bytes = config.tenant.max_packet_size() as usize + (2 << 20);
        let kv = KvConfig {
            command_bytes,
            queue_bytes: (8 << 20).max(4 * command_bytes),
            data_dir: config.data_dir.clone(),
            durability: match config.state_store.durability {
                node_config::Durability::Fsync => Durability::Fsync,
                node_config::Durability::Os => Durability::NoSync,
            },
            ..KvConfig::default()
        };
        let observer = Arc::new(CommitTimes(Arc::clone(metrics)));
        let host = Arc::new(Host::open_meshed(kv, mesh, Arc::clone(clock), observer)?);
        let ranges: Vec<_> = STORES.iter().map(|store| (*store, host.client(RangeSpec::whole(store)))).collect();
        let client = |store: usize| Arc::new(ranges[store].1.clone()) as Arc<dyn RangeClient>;

        let (coproc, index) = DistCoproc::new(run);
        host.register(RangeSpec::whole(STORES[0]), Box::new(coproc))?;
        let dist = DistWorker::new(client(0), index);
        let (own_routes, routes_lost) = OwnRoutes::new();
        dist.listen(own_routes);

        let (coproc, handle) = InboxCoproc::new(InboxConfig::new(run.node));
        let (ears, heard) = Ears::new();
        handle.listen(ears.clone());
        host.register(RangeSpec::whole(STORES[1]), Box::new(coproc))?;
        let inbox = InboxStore::start(client(1), handle, Arc::clone(clock));

        let (coproc, figures) = RetainCoproc::new();
        host.register(RangeSpec::whole(STORES[2]), Box::new(coproc))?;
        let retain = RetainStore::new(client(2), figures, Arc::clone(clock), RetainConfig::default());

        let looked_at = [client(0), client(1)];
        host.start().await?;
        Ok(Self { host, dist, looked_at, inbox, retain, ears, heard, routes_lost, ranges })
    }

    /// Makes what is not there: for a node that has nobody to agree with.
    pub(super) async fn make(&self) -> Result<(), StartError> {
        for (store, _) in &self.ranges {
            self.host.execute(store, Command::Bootstrap { id: 0 }).await?;
        }
        Ok(())
    }

    /// The ranges, by the names of their stores.
    pub(super) fn ranges(&self) -> Vec<(&'static str, Range)> {
        self.ranges.clone()
    }
}
