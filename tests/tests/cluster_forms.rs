//! Nodes that were started become one cluster: in any order, with any of the seeds alive.

use hermod_tests::lab::{Cluster, ClusterSetup, Net};
use hermod_tests::{hermod, wait_until};
use std::io;
use std::time::Duration;
use tempfile::TempDir;

/// Ten seconds are the goal; a debug build on a busy machine gets more.
const LIMIT: Duration = Duration::from_secs(60);

fn setup(nodes: usize) -> io::Result<ClusterSetup> {
    Ok(ClusterSetup {
        program: hermod()?,
        nodes,
        voters: nodes,
        disks: false,
        replace_after: None,
        arguments: Vec::new(),
    })
}

#[test]
fn three_nodes_started_at_once_are_one_cluster() -> io::Result<()> {
    let (net, scratch) = (Net::loopback(3), TempDir::new()?);
    Cluster::start(&net, setup(3)?, scratch.path(), LIMIT).map(drop)
}

#[test]
fn nodes_started_one_after_the_other_are_one_cluster() -> io::Result<()> {
    let (net, scratch) = (Net::loopback(3), TempDir::new()?);
    let mut cluster = Cluster::prepare(&net, setup(3)?, scratch.path())?;
    for node in [2, 0, 1] {
        cluster.launch(node)?;
        // Whatever it does alone, it does before the next one comes.
        wait_until("it answers", LIMIT, || Ok(cluster.get(node, "/health").is_ok()))?;
    }
    cluster.wait_whole(LIMIT).map(drop)
}

#[test]
fn two_of_the_three_are_a_cluster_while_the_first_seed_is_missing() -> io::Result<()> {
    let (net, scratch) = (Net::loopback(3), TempDir::new()?);
    let mut cluster = Cluster::prepare(&net, setup(3)?, scratch.path())?;
    cluster.launch(1)?;
    cluster.launch(2)?;
    cluster.wait_whole(LIMIT)?;
    cluster.launch(0)?;
    cluster.wait_whole(LIMIT).map(drop)
}

#[test]
fn a_node_that_is_killed_comes_back_as_the_same() -> io::Result<()> {
    let (net, scratch) = (Net::loopback(3), TempDir::new()?);
    let mut cluster = Cluster::start(&net, setup(3)?, scratch.path(), LIMIT)?;
    cluster.kill(1)?;
    cluster.launch(1)?;
    cluster.wait_whole(LIMIT).map(drop)
}
