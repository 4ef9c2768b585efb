//! Whole nodes, calls included, on a simulated network: `cargo test -p base-cluster --features turmoil --test simulated`.
#![cfg(feature = "turmoil")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is the finding")]

use base_cluster::{Advertise, Cluster, ClusterOptions, Joined, MemberEvent, Secret};
use base_rpc::net::UdpSocket;
use base_rpc::{Listen, Rpc, RpcConfig, Security};
use base_types::{Incarnation, NodeId, NodeIncarnation};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const PORT: u16 = 7000;
const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];

type Told = Arc<Mutex<Vec<(u64, Duration, MemberEvent)>>>;
type Nodes = Arc<Mutex<BTreeMap<u64, Cluster>>>;

/// A host: joins, tells its name, and writes down what it sees of the others.
async fn node(id: u64, incarnation: u64, began: Instant, told: Told, nodes: Nodes) -> turmoil::Result {
    let me = NodeIncarnation { node: NodeId(id), incarnation: Incarnation(incarnation) };
    let any = (Ipv4Addr::UNSPECIFIED, PORT);
    let security = Security::Secret(base_rpc::Secret::new("s"));
    let links = Rpc::start(RpcConfig::new(me, "sim", Listen::Bind(any.into()), security)).await?;
    let options = ClusterOptions {
        me,
        env: "sim".into(),
        advertise: Some(Advertise { host: format!("n{id}"), port: 0 }),
        seeds: NODES.iter().map(|name| format!("{name}:{PORT}")).collect(),
        secrets: vec![Secret::new("s")],
        seed: Some(id),
    };
    let cluster = Cluster::start(options, links, UdpSocket::bind(any).await?).await?;
    cluster.publish("name", format!("n{id}.{incarnation}"))?;
    let mut events = cluster.events();
    nodes.lock().insert(id, cluster);
    while let Ok(event) = events.recv().await {
        told.lock().push((id, began.elapsed(), event));
    }
    Ok(())
}

/// Every node sees all four, and knows the name of each.
fn is_whole(nodes: &Nodes) -> bool {
    let nodes = nodes.lock();
    nodes.values().all(|cluster| {
        let (members, facts) = (cluster.members(), cluster.facts());
        let (members, facts) = (members.borrow(), facts.borrow());
        let whole = |member: &base_cluster::Member| {
            let name = format!("n{}.{}", member.run.node.0, member.run.incarnation.0);
            member.state.is_live() && facts.get(member.run.node, "name").is_some_and(|told| *told == name)
        };
        nodes.len() == 4 && members.nodes.values().filter(|member| whole(member)).count() == 4
    })
}

async fn until(seconds: u64, what: &str, is_so: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(seconds), "not within {seconds} s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    start.elapsed()
}

/// Four nodes join, are cut in halves, mended, and one crashes and comes back. Who saw what, when; and how much of that was before the crash.
fn story(seed: u64) -> (Vec<(u64, Duration, MemberEvent)>, usize) {
    let (told, nodes) = (Told::default(), Nodes::default());
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .simulation_duration(Duration::from_secs(300))
        .tick_duration(Duration::from_millis(1))
        .build();
    let starts: Arc<Mutex<BTreeMap<u64, u64>>> = Arc::default();
    for (id, name) in (1..).zip(NODES) {
        let (told, nodes, starts) = (Arc::clone(&told), Arc::clone(&nodes), Arc::clone(&starts));
        sim.host(name, move || {
            let incarnation = *starts.lock().entry(id).and_modify(|starts| *starts += 1).or_insert(1);
            node(id, incarnation, Instant::now(), Arc::clone(&told), Arc::clone(&nodes))
        });
    }
    let seen = Arc::clone(&nodes);
    sim.client("test", async move {
        let nodes = seen;
        let time = until(10, "joined", || is_whole(&nodes)).await;
        println!("joined after {time:?}");
        let joined = nodes.lock()[&1].joined();
        assert_eq!(*joined.borrow(), Joined::Majority);
        let halves = ["n1", "n2"].into_iter().flat_map(|a| [(a, "n3"), (a, "n4")]);
        halves.clone().for_each(|(a, b)| turmoil::partition(a, b));
        let parted = || nodes.lock().values().all(|node| node.members().borrow().live_peers().count() == 1);
        until(6, "parted", parted).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        halves.for_each(|(a, b)| turmoil::repair(a, b));
        let time = until(15, "whole again", || is_whole(&nodes)).await;
        println!("whole again after {time:?}");
        Ok(())
    });
    sim.run().unwrap();
    let before = told.lock().len();
    nodes.lock().remove(&2);
    sim.crash("n2");
    let until_dead = |sim: &mut turmoil::Sim<'_>, is_so: &dyn Fn() -> bool| {
        let start = sim.elapsed();
        while !is_so() {
            assert!(sim.elapsed() - start < Duration::from_secs(10));
            sim.step().unwrap();
        }
        sim.elapsed() - start
    };
    let dead = || nodes.lock().values().all(|node| node.members().borrow().live_peers().count() == 2);
    let time = until_dead(&mut sim, &dead);
    println!("dead after {time:?}");
    assert!(time < Duration::from_secs(5));
    sim.bounce("n2");
    let time = until_dead(&mut sim, &|| is_whole(&nodes));
    println!("back after {time:?}");
    nodes.lock().clear();
    drop(sim);
    (std::mem::take(&mut *told.lock()), before)
}

#[test]
fn four_nodes_live_through_a_partition_and_a_crash_and_the_same_seed_tells_the_same_partition() {
    let (first, before) = story(7);
    let of_two: Vec<_> = first
        .iter()
        .filter(|(viewer, _, _)| *viewer == 1)
        .map(|(_, _, event)| *event)
        .filter(|event| matches!(event, MemberEvent::Up(run) | MemberEvent::Dead(run) if run.node == NodeId(2)))
        .collect();
    let run = |incarnation| NodeIncarnation { node: NodeId(2), incarnation: Incarnation(incarnation) };
    assert_eq!(of_two, [MemberEvent::Up(run(1)), MemberEvent::Dead(run(1)), MemberEvent::Up(run(2))]);
    // From the crash on two runs within one process differ by milliseconds; not found yet why. Up to there they must not.
    let (second, _) = story(7);
    let parting = first[..before].iter().zip(&second).find(|(one, other)| one != other);
    assert!(before > 20 && parting.is_none(), "{parting:?}");
}
