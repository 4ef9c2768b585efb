//! Whole nodes in one process: packets on a network of this file, calls on a [`MemHub`], time that jumps.

use super::*;
use crate::member::{Member, MemberState};
use crate::options::Secret;
use base_rpc::{CallError, CallFuture, Handler, Lane, Listen, MemHub, MemMesh, Mesh, Rpc, RpcConfig, Security};
use base_types::Incarnation;
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

type Packet = (Vec<u8>, SocketAddr);

/// All nodes, and what is between them.
#[derive(Clone, Default)]
struct World(Arc<WorldInner>);

#[derive(Default)]
struct WorldInner {
    sockets: Mutex<BTreeMap<SocketAddr, mpsc::Sender<Packet>>>,
    /// From, to; for packets.
    cut: Mutex<BTreeSet<(SocketAddr, SocketAddr)>>,
    /// From, to; for calls from one, while answers still go through.
    refused: Mutex<BTreeSet<(NodeId, NodeId)>>,
    hub: MemHub,
    /// Calls about facts on the bulk lane.
    calls: AtomicUsize,
}

struct MemSocket {
    world: World,
    addr: SocketAddr,
    receiver: tokio::sync::Mutex<mpsc::Receiver<Packet>>,
}

struct MemLinks {
    world: World,
    mesh: MemMesh,
    peers: Mutex<BTreeMap<NodeId, (NodeIncarnation, SocketAddr)>>,
}

/// A node and how the test looks at it.
struct Node<L = MemLinks> {
    cluster: Cluster,
    links: Arc<L>,
}

fn at(node: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node as u8], 7000))
}

fn run(node: u64, incarnation: u64) -> NodeIncarnation {
    NodeIncarnation { node: NodeId(node), incarnation: Incarnation(incarnation) }
}

impl World {
    async fn boot(&self, node: u64, incarnation: u64, seeds: &[u64]) -> Node {
        let (sender, receiver) = mpsc::channel(1024);
        self.0.sockets.lock().insert(at(node), sender);
        let socket = MemSocket { world: self.clone(), addr: at(node), receiver: receiver.into() };
        let me = run(node, incarnation);
        let links = Arc::new(MemLinks { world: self.clone(), mesh: self.0.hub.enter(me), peers: Mutex::default() });
        let options = ClusterOptions {
            me,
            env: "test".into(),
            advertise: None,
            seeds: seeds.iter().map(|seed| at(*seed).to_string()).collect(),
            secrets: vec![Secret::new("s3cret")],
            seed: Some(7),
        };
        let cluster = Cluster::start(options, Arc::clone(&links), socket).await.unwrap();
        Node { cluster, links }
    }

    /// Nodes `1..=n`, joined.
    async fn cluster(&self, n: u64) -> Vec<Node> {
        let seeds: Vec<_> = (1..=n).collect();
        let mut nodes = Vec::new();
        for node in 1..=n {
            nodes.push(self.boot(node, 1, &seeds).await);
        }
        for node in &nodes {
            node.until(10, "joined", |node| *node.cluster.joined().borrow() == Joined::Majority).await;
            node.until(10, "all live", |node| node.live().len() as u64 == n).await;
        }
        nodes
    }

    fn cut(&self, a: u64, b: u64) {
        self.0.cut.lock().extend([(at(a), at(b)), (at(b), at(a))]);
        self.0.hub.cut(NodeId(a), NodeId(b));
        self.0.hub.cut(NodeId(b), NodeId(a));
    }

    fn heal(&self) {
        self.0.cut.lock().clear();
        self.0.hub.heal();
    }

    /// A crash.
    fn kill(&self, node: Node) {
        self.0.hub.leave(node.cluster.me().node);
        self.0.sockets.lock().remove(&node.cluster.advertised());
    }
}

impl<L> Node<L> {
    async fn until(&self, seconds: u64, what: &str, is_so: impl Fn(&Self) -> bool) -> Duration {
        let start = Instant::now();
        while !is_so(self) {
            let waited = start.elapsed();
            assert!(waited < Duration::from_secs(seconds), "{what}: {:?}", self.cluster.members().borrow());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        start.elapsed()
    }

    fn live(&self) -> BTreeSet<u64> {
        let members = self.cluster.members();
        let members = members.borrow();
        members.nodes.values().filter(|member| member.state.is_live()).map(|member| member.run.node.0).collect()
    }

    fn member(&self, node: u64) -> Option<Member> {
        self.cluster.members().borrow().get(NodeId(node)).cloned()
    }

    fn state(&self, node: u64) -> Option<MemberState> {
        self.member(node).map(|member| member.state)
    }

    fn fact(&self, node: u64, key: &str) -> Option<Bytes> {
        self.cluster.facts().borrow().get(NodeId(node), key).cloned()
    }
}

impl Datagrams for MemSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let Some((packet, from)) = self.receiver.lock().await.recv().await else { return std::future::pending().await };
        buffer[..packet.len()].copy_from_slice(&packet);
        Ok((packet.len(), from))
    }

    fn try_recv_from(&self, _buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn try_send_to(&self, packet: &[u8], to: SocketAddr) -> io::Result<()> {
        let world = &self.world.0;
        if !world.cut.lock().contains(&(self.addr, to))
            && let Some(socket) = world.sockets.lock().get(&to)
        {
            let _ = socket.try_send((packet.to_vec(), self.addr));
        }
        Ok(())
    }
}

impl Mesh for MemLinks {
    fn me(&self) -> NodeIncarnation {
        self.mesh.me()
    }

    fn call(&self, to: NodeId, lane: Lane, service: Service, body: Bytes, deadline: Duration) -> CallFuture {
        let is_known = self.peers.lock().contains_key(&to);
        if !is_known || self.world.0.refused.lock().contains(&(self.me().node, to)) {
            let error = CallError::Unreachable { to, cause: "test".into() };
            return Box::pin(std::future::ready(Err(error)));
        }
        if lane == Lane::Bulk {
            self.world.0.calls.fetch_add(1, Ordering::Relaxed);
        }
        self.mesh.call(to, lane, service, body, deadline)
    }

    fn send(&self, to: NodeId, lane: Lane, service: Service, body: Bytes) -> Result<(), CallError> {
        self.mesh.send(to, lane, service, body)
    }

    fn serve(&self, service: Service, handler: Arc<dyn Handler>) {
        self.mesh.serve(service, handler);
    }
}

impl Links for MemLinks {
    fn set_peer(&self, run: NodeIncarnation, addr: SocketAddr) {
        self.peers.lock().insert(run.node, (run, addr));
    }

    fn forget_peer(&self, node: NodeId) {
        self.peers.lock().remove(&node);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_node_publishes_is_known_to_all_at_once_and_to_who_comes_later() {
    let world = World::default();
    let nodes = world.cluster(3).await;
    nodes[0].cluster.publish("roles", "a").unwrap();
    for node in &nodes {
        let time = node.until(1, "the fact", |node| node.fact(1, "roles").as_deref() == Some(b"a")).await;
        assert!(time < Duration::from_millis(200), "{time:?}");
    }
    nodes[0].cluster.publish("roles", "b").unwrap();
    nodes[0].cluster.publish("load", vec![7; 1 << 20]).unwrap();
    nodes[0].cluster.publish("more", vec![8; 1 << 20]).unwrap();
    let late = world.boot(4, 1, &[2]).await;
    late.until(5, "all of it", |late| {
        late.fact(1, "roles").as_deref() == Some(b"b") && late.fact(1, "more").is_some_and(|fact| fact.len() == 1 << 20)
    })
    .await;
    nodes[0].cluster.retract("load");
    late.until(1, "taken back", |late| late.fact(1, "load").is_none()).await;
    assert_eq!(nodes[0].cluster.publish("x", vec![0; (1 << 20) + 1]), Err(FactError::TooLarge((1 << 20) + 1)));
    assert_eq!(nodes[0].cluster.publish("", "x"), Err(FactError::Key(0)));
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_changes_is_told_in_few_calls() {
    let world = World::default();
    let nodes = world.cluster(2).await;
    let before = world.0.calls.load(Ordering::Relaxed);
    for change in 0..1000u32 {
        nodes[0].cluster.publish("load", change.to_be_bytes().to_vec()).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    nodes[1].until(1, "the last one", |node| node.fact(1, "load").as_deref() == Some(&999u32.to_be_bytes())).await;
    let calls = world.0.calls.load(Ordering::Relaxed) - before;
    assert!(calls <= 30, "{calls} in a second, the comparisons included");
}

#[tokio::test(start_paused = true)]
async fn facts_get_to_the_other_side_when_a_partition_heals() {
    let world = World::default();
    let nodes = world.cluster(4).await;
    for (a, b) in [(1, 3), (1, 4), (2, 3), (2, 4)] {
        world.cut(a, b);
    }
    nodes[0].until(6, "the halves part", |node| node.live() == [1, 2].into()).await;
    nodes[2].until(6, "the halves part", |node| node.live() == [3, 4].into()).await;
    assert!(matches!(*nodes[0].cluster.joined().borrow(), Joined::Looking { .. }));
    nodes[0].cluster.publish("side", "left").unwrap();
    nodes[3].cluster.publish("side", "right").unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(nodes[2].fact(1, "side"), None);
    world.heal();
    for node in &nodes {
        let both = |node: &Node| node.fact(1, "side").is_some() && node.fact(4, "side").is_some();
        node.until(15, "whole", |node| node.live().len() == 4 && both(node)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_fact_gets_around_a_link_that_is_cut() {
    let world = World::default();
    let nodes = world.cluster(3).await;
    world.cut(1, 3);
    nodes[0].cluster.publish("k", "v").unwrap();
    nodes[2].until(5, "through node 2", |node| node.fact(1, "k").is_some()).await;
    let down = |node: &Node| node.member(1).is_some_and(|member| member.rpc == Some(false) && member.state.is_live());
    nodes[2].until(10, "alive, but it can't be called", down).await;
    world.heal();
    nodes[2].until(10, "it can", |node| node.member(1).is_some_and(|member| member.rpc == Some(true))).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_a_new_run_and_a_good_bye() {
    let world = World::default();
    let mut nodes = world.cluster(3).await;
    nodes[0].until(5, "calls go", |node| node.member(3).is_some_and(|member| member.rpc == Some(true))).await;
    let mut events = nodes[0].cluster.events();
    let third = nodes.pop().unwrap();
    third.cluster.publish("k", "old").unwrap();
    nodes[0].until(1, "told", |node| node.fact(3, "k").is_some()).await;
    world.kill(third);
    let time = nodes[0].until(5, "dead", |node| matches!(node.state(3), Some(MemberState::Dead(_)))).await;
    println!("dead after {time:?}");
    assert!(nodes[0].fact(3, "k").is_some(), "the facts of the dead are kept for a while");
    assert!(nodes[0].links.peers.lock().contains_key(&NodeId(3)), "and who may only be cut off is still called");
    let third = world.boot(3, 2, &[1, 2]).await;
    nodes[0].until(5, "back", |node| node.live().contains(&3) && node.fact(3, "k").is_none()).await;
    assert_eq!(nodes[0].links.peers.lock()[&NodeId(3)], (run(3, 2), at(3)));
    third.cluster.leave().await;
    for node in &nodes {
        let time = node.until(1, "left", |node| matches!(node.state(3), Some(MemberState::Left(_)))).await;
        assert_eq!(time, Duration::ZERO, "known when leave() returns");
        assert!(!node.links.peers.lock().contains_key(&NodeId(3)));
    }
    assert!(matches!(third.state(3), Some(MemberState::Left(_))));
    let seen: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    use MemberEvent::{Dead, Left, Up};
    assert_eq!(seen, [Dead(run(3, 1)), Up(run(3, 2)), Left(run(3, 2))]);
}

#[tokio::test(start_paused = true)]
async fn facts_of_the_dead_are_dropped_after_ten_minutes_and_stay_away() {
    let world = World::default();
    let mut nodes = world.cluster(4).await;
    for (node, key) in nodes.iter().zip(["1", "2", "3", "4"]) {
        node.cluster.publish("k", key).unwrap();
    }
    nodes[0].until(1, "told", |node| node.fact(4, "k").is_some()).await;
    world.kill(nodes.pop().unwrap());
    nodes[0].until(5, "dead", |node| !node.live().contains(&4)).await;
    // Who comes now never met it, and is told that there was one.
    let late = world.boot(5, 1, &[1]).await;
    late.until(5, "told of the dead", |node| node.fact(4, "k").is_some()).await;
    late.until(15, "as dead", |node| matches!(node.state(4), Some(MemberState::Dead(_)))).await;
    tokio::time::sleep(Duration::from_secs(570)).await;
    assert!(nodes[0].fact(4, "k").is_some());
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert!(nodes.iter().chain([&late]).all(|node| node.fact(4, "k").is_none()));
    assert!(nodes[0].fact(3, "k").is_some());
    let back = world.boot(4, 2, &[1]).await;
    back.cluster.publish("k", "new").unwrap();
    late.until(5, "the new run's", |node| node.fact(4, "k").is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn an_eviction_holds_everywhere_also_for_who_comes_later() {
    let world = World::default();
    let nodes = world.cluster(4).await;
    assert_eq!(nodes[0].cluster.evict(NodeId(99)).await, Err(EvictError::Unknown(NodeId(99))));
    assert_eq!(nodes[0].cluster.evict(NodeId(1)).await, Err(EvictError::Myself));
    nodes[0].cluster.evict(NodeId(4)).await.unwrap();
    for node in &nodes {
        node.until(5, "dead", |node| matches!(node.state(4), Some(MemberState::Dead(_)))).await;
    }
    nodes[3].until(2, "it knows why", |node| node.cluster.problems() == [Problem::Evicted]).await;
    // Not the one who ordered it.
    let late = world.boot(5, 1, &[2, 4]).await;
    late.until(5, "in", |node| node.live() == [1, 2, 3, 5].into()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(late.live(), [1, 2, 3, 5].into());
    let mut nodes = nodes;
    world.kill(nodes.pop().unwrap());
    let again = world.boot(4, 2, &[1, 2]).await;
    for node in nodes.iter().chain([&late, &again]) {
        node.until(10, "back", |node| node.live().len() == 5).await;
    }
    assert_eq!(again.cluster.problems(), []);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_nobody_can_call_says_so() {
    let world = World::default();
    let nodes = world.cluster(3).await;
    world.0.refused.lock().extend([(NodeId(1), NodeId(3)), (NodeId(2), NodeId(3))]);
    let no_calls = |node: &Node| matches!(node.cluster.problems()[..], [Problem::NoCalls { .. }]);
    nodes[2].until(5, "it says so", no_calls).await;
    assert_eq!(nodes[0].cluster.problems(), []);
    world.0.refused.lock().remove(&(NodeId(1), NodeId(3)));
    nodes[2].until(5, "one is enough", |node| node.cluster.problems().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn five_nodes_join_though_the_first_seed_is_dead() {
    let world = World::default();
    let mut nodes = Vec::new();
    let start = Instant::now();
    for node in [5, 3, 2, 4] {
        nodes.push(world.boot(node, 1, &[1, 2, 3]).await);
    }
    for node in &nodes {
        node.until(10, "joined", |node| *node.cluster.joined().borrow() == Joined::Majority).await;
        node.until(10, "all", |node| node.live() == [2, 3, 4, 5].into()).await;
    }
    println!("joined after {:?}", start.elapsed());
    // And without any seed, it says so and goes on.
    let lonely = world.boot(9, 1, &[77]).await;
    lonely.until(6, "it says so", |node| matches!(node.cluster.problems()[..], [Problem::NoSeed { .. }])).await;
}

#[tokio::test]
async fn nodes_on_real_sockets_meet_and_miss_each_other() {
    let mut nodes: Vec<Node<Rpc>> = Vec::new();
    let mut seeds = Vec::new();
    for node in 1..=3 {
        // One number for UDP and TCP.
        let socket = base_rpc::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        let security = Security::Secret(base_rpc::Secret::new("s3cret"));
        let links = Rpc::start(RpcConfig::new(run(node, 1), "test", Listen::Bind(addr), security)).await.unwrap();
        seeds.push(format!("localhost:{}", addr.port()));
        let options = ClusterOptions {
            me: run(node, 1),
            env: "test".into(),
            advertise: None,
            seeds: seeds.clone(),
            secrets: vec![Secret::new("s3cret")],
            seed: None,
        };
        let cluster = Cluster::start(options, Arc::clone(&links), socket).await.unwrap();
        nodes.push(Node { cluster, links });
    }
    for node in &nodes {
        let time = node.until(10, "all", |node| node.live() == [1, 2, 3].into()).await;
        println!("joined after {time:?}");
    }
    nodes[1].until(10, "joined", |node| *node.cluster.joined().borrow() == Joined::Majority).await;
    assert_eq!(*nodes[0].cluster.joined().borrow(), Joined::Alone, "its only seed is itself, under a name");
    nodes[0].cluster.publish("k", vec![7; 1 << 20]).unwrap();
    let time = nodes[2].until(2, "the fact", |node| node.fact(1, "k").is_some()).await;
    println!("a fact of 1 MiB after {time:?}");
    let can =
        |node: &Node<Rpc>| [1, 3].iter().all(|peer| node.member(*peer).is_some_and(|peer| peer.rpc == Some(true)));
    nodes[1].until(5, "calls go", can).await;
    nodes.remove(0).links.shutdown().await;
    let time = nodes[0].until(5, "dead", |node| matches!(node.state(1), Some(MemberState::Dead(_)))).await;
    println!("dead after {time:?}");
    nodes[1].cluster.leave().await;
    nodes[0].until(1, "left", |node| matches!(node.state(3), Some(MemberState::Left(_)))).await;
    assert!(nodes[0].cluster.packets().taken > 0);
}

#[tokio::test]
async fn a_socket_on_all_addresses_advertises_the_one_that_leads_to_the_seeds() {
    let world = World::default();
    let links =
        Arc::new(MemLinks { world: world.clone(), mesh: world.0.hub.enter(run(1, 1)), peers: Mutex::default() });
    let options = |seeds: &[&str], host: Option<&str>| ClusterOptions {
        me: run(1, 1),
        env: "test".into(),
        advertise: host.map(|host| Advertise { host: host.into(), port: 0 }),
        seeds: seeds.iter().map(|seed| (*seed).to_owned()).collect(),
        secrets: vec![],
        seed: None,
    };
    let start = async |options| {
        let socket = base_rpc::net::UdpSocket::bind("0.0.0.0:0").await.unwrap();
        Cluster::start(options, Arc::clone(&links), socket).await
    };
    let error = start(options(&[], None)).await.unwrap_err();
    assert!(matches!(error, StartError::NoAddress { .. }) && error.to_string().contains("clusterConfig.host"));
    let cluster = start(options(&["127.0.0.1:9"], None)).await.unwrap();
    assert!(cluster.advertised().ip().is_loopback() && cluster.advertised().port() != 0);
    let cluster = start(options(&[], Some("127.0.0.2"))).await.unwrap();
    assert_eq!(cluster.advertised().ip().to_string(), "127.0.0.2");
    assert_eq!(*cluster.joined().borrow(), Joined::Alone);
}
