//! A node dies, and nothing that was acknowledged goes with it. `make lab` plays the same longer, and many other faults.

use hermod_tests::hermod;
use hermod_tests::lab::{Cast, Cluster, ClusterSetup, Load, Net};
use std::io;
use std::time::Duration;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);

/// What a debug build carries.
const CAST: Cast = Cast {
    publishers: 6,
    rate: 10.0,
    topics: 4,
    payload: 64,
    sessions: 12,
    members: 3,
    live: 1,
    retained: 10,
    subscriptions: 10,
    churn: 10.0,
    wills: 2,
    duels: 0,
    returning: (0, 0),
    patience: 3_000,
};

#[test]
fn nothing_acknowledged_is_lost_when_a_leader_is_killed() -> io::Result<()> {
    let (net, scratch) = (Net::loopback(3), TempDir::new()?);
    let setup = ClusterSetup {
        program: hermod()?,
        nodes: 3,
        voters: 3,
        disks: false,
        replace_after: None,
        arguments: Vec::new(),
    };
    let mut cluster = Cluster::start(&net, setup, scratch.path(), LIMIT)?;
    let mut load = Load::start(cluster.addresses(), CAST, 1, 1, LIMIT)?;
    load.play(Duration::from_secs(2))?;
    let victim = cluster.leader("inbox").ok_or_else(|| io::Error::other("nobody leads"))?;
    load.fault();
    cluster.kill(victim)?;
    assert!(load.play_until_served(LIMIT)?.is_some(), "publishers are not served while node {} is dead", victim + 1);
    load.fault();
    cluster.launch(victim)?;
    let whole = load.play_until(LIMIT, || Ok(cluster.ailment().is_none()))?;
    assert!(whole.is_some(), "{:?}", cluster.ailment());
    let findings = load.finish(LIMIT)?;
    assert_eq!(findings.violations(), 0, "{findings}");
    assert!(findings.acknowledged > 100, "{findings}");
    Ok(())
}
