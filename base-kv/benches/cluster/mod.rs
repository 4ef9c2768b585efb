//! Three nodes of one process, with disks of their own, that are all voters of every range.

use base_kv::{Host, KvConfig, RangeSpec};
use base_kv_api::balance::{Command, ReplicaView};
use base_kv_api::{Coproc, RangeClient};
use base_rpc::MemHub;
use base_types::{Incarnation, NodeId, NodeIncarnation, SystemClock};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const STORE: &str = "inbox";

/// Opens the nodes; range `n` is made on, and led by, node `n % 3`.
pub(crate) async fn open(dir: &Path, ranges: u64, coproc: impl Fn() -> Box<dyn Coproc>) -> Vec<Host> {
    let hub = MemHub::default();
    let mut hosts = Vec::new();
    for node in 1..=3 {
        let mesh = hub.enter(NodeIncarnation { node: NodeId(node), incarnation: Incarnation(1) });
        let config = KvConfig { data_dir: dir.join(node.to_string()), ..KvConfig::default() };
        let host = Host::open_meshed(config, Arc::new(mesh), Arc::new(SystemClock), Arc::new(())).unwrap();
        (0..ranges).for_each(|id| host.register(RangeSpec { store: STORE, id }, coproc()).unwrap());
        host.start().await.unwrap();
        hosts.push(host);
    }
    for id in 0..ranges {
        grow(&hosts, id).await;
    }
    hosts
}

fn view(host: &Host, id: u64) -> ReplicaView {
    host.replicas(STORE).into_iter().find(|view| view.range.id == id).unwrap()
}

async fn grow(hosts: &[Host], id: u64) {
    let first = &hosts[id as usize % hosts.len()];
    first.execute(STORE, Command::Bootstrap { id }).await.unwrap();
    first.client(RangeSpec { store: STORE, id }).ready().await;
    loop {
        let view = view(first, id);
        let (range, config) = (view.range, view.config);
        let there = |node: u64| view.learners.values().chain(view.voters.values()).any(|at| at.0 == node);
        let command = if let Some(node) = (1..=hosts.len() as u64).find(|node| !there(*node)) {
            Command::AddLearner { range, config, node: NodeId(node) }
        } else if !view.learners.is_empty() {
            let voters = view.voters.keys().chain(view.learners.keys()).copied().collect();
            Command::ChangeVoters { range, config, voters }
        } else {
            return;
        };
        // A learner that has not caught up yet is asked again.
        if first.execute(STORE, command).await.is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
