//! What the nodes of a cluster see of the inboxes: each has a replica, and any of them may lag.

use super::store_test::{Listener, Told, eventually, settle};
use crate::testing::{START, attach, inbox, insert, to, will};
use crate::{InboxConfig, InboxCoproc, InboxHandle, InboxStore};
use base_kv_api::testing::MemGroup;
use base_types::{Incarnation, ManualClock, NodeId, NodeIncarnation, SubscriptionFilter};
use bytestring::ByteString;
use inbox_api::{
    Attach, AttachError, Commit, Detach, InboxError, InboxService, Insert, InsertOutcome, Origin, SessionVersion,
    WillFate,
};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

const NODES: usize = 3;

/// Three nodes; the first one leads.
struct Cluster {
    group: MemGroup,
    clock: Arc<ManualClock>,
    nodes: Vec<Member>,
}

struct Member {
    store: Arc<InboxStore>,
    handle: InboxHandle,
    listener: Arc<Listener>,
}

fn run(node: usize) -> NodeIncarnation {
    NodeIncarnation { node: NodeId(node as u64 + 1), incarnation: Incarnation(5) }
}

fn on(node: usize, attach: Attach) -> Attach {
    Attach { node: run(node), ..attach }
}

fn filters(texts: &[&'static str]) -> Vec<(SubscriptionFilter, base_types::SubscriptionOptions)> {
    let parse = |text: &&'static str| SubscriptionFilter::parse(&ByteString::from_static(text)).unwrap();
    texts.iter().map(|text| (parse(text), Default::default())).collect()
}

impl Cluster {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let (coprocs, handles): (Vec<_>, Vec<_>) =
            (0..NODES).map(|node| InboxCoproc::new(InboxConfig::new(run(node).node))).unzip();
        let group = MemGroup::new(coprocs, clock.clone()).unwrap();
        let member = |(node, handle): (usize, InboxHandle)| {
            let store = InboxStore::start(Arc::new(group.on(node)), handle.clone(), clock.clone());
            let listener = Arc::new(Listener::default());
            store.listen(listener.clone());
            Member { store, handle, listener }
        };
        let nodes = handles.into_iter().enumerate().map(member).collect();
        Self { group, clock, nodes }
    }

    fn store(&self, node: usize) -> &Arc<InboxStore> {
        &self.nodes[node].store
    }

    async fn attach(&self, node: usize, attach: Attach) -> SessionVersion {
        self.store(node).attach(on(node, attach)).await.unwrap().version.unwrap()
    }

    async fn detach(&self, node: usize, name: &str, version: SessionVersion) {
        let detach = Detach { inbox: inbox(name), version, expiry_secs: None, will: WillFate::Publish };
        self.store(node).detach(detach).await.unwrap();
    }

    async fn queue(&self, node: usize, name: &str, version: SessionVersion) {
        let outcomes = self.store(node).insert(insert(b"1", vec![to(name, version.incarnation)])).await;
        assert_eq!(outcomes, Ok(vec![InsertOutcome::Stored]));
    }

    fn told(&self, node: usize) -> Vec<Told> {
        std::mem::take(&mut *self.nodes[node].listener.0.lock())
    }

    /// What each node was told.
    fn all_told(&self) -> [Vec<Told>; NODES] {
        std::array::from_fn(|node| self.told(node))
    }

    async fn next_told(&self, node: usize) -> Told {
        eventually(|| {
            let mut told = self.nodes[node].listener.0.lock();
            (!told.is_empty()).then(|| told.remove(0))
        })
        .await
    }

    fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.nodes.iter().for_each(|node| node.store.wake());
    }

    /// All replicas hold the same keys, and each knows what a new one would read from them.
    fn check(&self) {
        for (node, member) in self.nodes.iter().enumerate() {
            assert_eq!(self.group.space(node), self.group.space(0), "the keys of node {node}");
            let state = member.handle.shared.state.lock();
            let mut rebuilt = crate::state::State::new(state.config().clone());
            rebuilt.reset(&self.group.space(node)).unwrap();
            assert_eq!(rebuilt.digest(), state.digest(), "the state of node {node}");
        }
    }
}

#[tokio::test]
async fn a_session_that_keeps_nothing_ends_one_of_which_its_node_has_not_heard() {
    let cluster = Cluster::new();
    cluster.group.hold(1);
    let old = cluster.attach(0, attach("c", 100)).await;
    cluster.detach(0, "c", old).await;
    assert_eq!(cluster.store(1).incarnation(&inbox("c")), None);

    let store = cluster.store(1).clone();
    let attaching = tokio::spawn(async move { store.attach(on(1, attach("c", 0))).await });
    settle().await;
    assert!(!attaching.is_finished(), "answered from a view that lags");
    cluster.group.release(1);
    // Without clean start the session that lives goes on.
    let attached = attaching.await.unwrap().unwrap();
    assert!(attached.session_present);

    let version = attached.version.unwrap();
    cluster.detach(1, "c", version).await;
    let old = cluster.attach(0, attach("c", 100)).await;
    cluster.detach(0, "c", old).await;
    let clean = Attach { clean_start: true, ..attach("c", 0) };
    assert_eq!(cluster.store(2).attach(on(2, clean)).await.unwrap().version, None);
    for node in 0..NODES {
        assert_eq!(cluster.store(node).incarnation(&inbox("c")), None);
    }
    cluster.check();
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_no_session_is_attached_and_that_is_told_in_time() {
    let cluster = Cluster::new();
    cluster.group.lead(None);
    for expiry_secs in [0, 100] {
        let start = tokio::time::Instant::now();
        let refused = cluster.store(1).attach(on(1, attach("c", expiry_secs))).await;
        assert!(matches!(refused, Err(AttachError::Inbox(InboxError::Unavailable { .. }))), "{refused:?}");
        assert!(start.elapsed() <= Duration::from_secs(5));
    }
    cluster.group.lead(Some(2));
    assert!(cluster.store(1).attach(on(1, attach("c", 0))).await.unwrap().version.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_stands_still_is_not_waited_for_for_ever() {
    let cluster = Cluster::new();
    cluster.group.hold(1);
    cluster.attach(0, attach("other", 100)).await;
    let refused = cluster.store(1).attach(on(1, attach("c", 0))).await;
    assert!(matches!(refused, Err(AttachError::Inbox(InboxError::Unavailable { .. }))), "{refused:?}");
}

#[tokio::test]
async fn the_sessions_of_a_node_that_died_are_detached_by_another_once() {
    let cluster = Cluster::new();
    let with_will = |name: &str, delay| Attach { will: Some(will(delay)), ..attach(name, 100) };
    let dead = cluster.attach(2, with_will("dead", 10)).await;
    let earlier = NodeIncarnation { incarnation: Incarnation(4), ..run(2) };
    let earlier = Attach { node: earlier, ..with_will("earlier", 10) };
    cluster.store(2).attach(earlier).await.unwrap();
    let alive = cluster.attach(1, with_will("alive", 0)).await;
    assert_eq!(cluster.store(0).holders().iter().map(|(_, count)| count).sum::<u64>(), 3);

    assert_eq!(cluster.store(0).detach_node(run(2)).await, Ok(2));
    assert_eq!(cluster.store(1).detach_node(run(2)).await, Ok(0));
    for node in 0..NODES {
        assert_eq!(cluster.store(node).holders(), [(run(1), 1)]);
        assert!(cluster.store(node).owns(alive) && !cluster.store(node).owns(dead));
    }
    // It lives after all: its connections learn of it.
    let [leader, other, taken_for_dead] = cluster.all_told();
    assert_eq!((leader, other), (vec![], vec![]));
    assert!(taken_for_dead.contains(&Told::Fenced(inbox("dead"), dead)), "{taken_for_dead:?}");
    let commit = Commit { sent_upto: Some(1), ..Commit::default() };
    assert_eq!(cluster.store(2).commit(&inbox("dead"), dead, commit).await, Err(InboxError::Fenced));

    cluster.pass(Duration::from_millis(10_001));
    let told = [cluster.next_told(0).await, cluster.next_told(0).await];
    assert!(told.contains(&Told::Will(inbox("dead"), dead)), "{told:?}");
    settle().await;
    assert_eq!(cluster.all_told(), [const { Vec::new() }; NODES]);
    // The client comes back to another node.
    let attached = cluster.store(1).attach(on(1, attach("dead", 100))).await.unwrap();
    assert!(attached.session_present);
    cluster.check();
}

#[tokio::test]
async fn very_many_sessions_of_a_node_that_died_are_detached_in_pages() {
    let cluster = Cluster::new();
    for n in 0..700 {
        cluster.attach(n % 2, attach(&format!("c{n}"), 100)).await;
    }
    assert_eq!(cluster.store(2).detach_node(run(1)).await, Ok(350));
    assert_eq!(cluster.store(0).holders(), [(run(0), 350)]);
    cluster.check();
}

#[tokio::test]
async fn a_due_will_is_told_to_the_leader_alone_and_to_later_ones_until_it_is_settled() {
    let cluster = Cluster::new();
    let version = cluster.attach(1, Attach { will: Some(will(10)), ..attach("c", 100) }).await;
    cluster.detach(1, "c", version).await;
    cluster.pass(Duration::from_millis(10_001));
    let due = Told::Will(inbox("c"), version);
    assert_eq!(cluster.next_told(0).await, due);

    cluster.group.lead(Some(1));
    assert_eq!(cluster.next_told(1).await, due);
    let settles = |node: usize| {
        let origin = Origin::Will { inbox: inbox("c"), version };
        cluster.store(node).insert(Insert { origin, ..insert(b"will", Vec::new()) })
    };
    // Both publish: one of them fires.
    assert_eq!(settles(0).await, Ok(vec![]));
    assert_eq!(settles(1).await, Ok(vec![InsertOutcome::Repeated]));

    cluster.group.lead(Some(2));
    cluster.pass(Duration::from_secs(60));
    settle().await;
    assert_eq!(cluster.all_told(), [const { Vec::new() }; NODES]);
    cluster.check();
}

#[tokio::test]
async fn a_will_without_delay_is_found_by_the_next_leader_when_the_first_died_before_it_was_settled() {
    let cluster = Cluster::new();
    let version = cluster.attach(1, Attach { will: Some(will(0)), ..attach("c", 100) }).await;
    assert_eq!(cluster.store(0).detach_node(run(1)).await, Ok(1));
    assert_eq!(cluster.told(0), [Told::Will(inbox("c"), version)]);
    cluster.group.lead(Some(2));
    assert_eq!(cluster.next_told(2).await, Told::Will(inbox("c"), version));
}

#[tokio::test]
async fn a_session_that_ended_is_told_to_leaders_until_its_routes_are_gone() {
    let cluster = Cluster::new();
    let version = cluster.attach(1, attach("c", 10)).await;
    cluster.store(1).subscribe(&inbox("c"), version, filters(&["b", "a/#"])).await.unwrap();
    cluster.detach(1, "c", version).await;
    cluster.pass(Duration::from_secs(10));
    let filters = filters(&["b", "a/#"]).into_iter().map(|(filter, _)| filter).collect();
    let ended = Told::Ended(inbox("c"), version.incarnation, filters);
    assert_eq!(cluster.next_told(0).await, ended);
    cluster.group.lead(Some(1));
    assert_eq!(cluster.next_told(1).await, ended);
    cluster.pass(Duration::from_secs(6));
    assert_eq!(cluster.next_told(1).await, ended);
    assert_eq!(cluster.store(2).stats().ended, 1);

    cluster.store(1).settle_ended(vec![version.incarnation, 77]).await.unwrap();
    cluster.store(1).settle_ended(vec![version.incarnation]).await.unwrap();
    cluster.group.lead(Some(2));
    cluster.pass(Duration::from_secs(6));
    settle().await;
    assert_eq!(cluster.all_told(), [const { Vec::new() }; NODES]);
    // The counter of inboxes is all.
    assert_eq!(cluster.group.space(2).len(), 1);
    cluster.check();
}

#[tokio::test]
async fn only_the_node_of_the_connection_is_told_of_messages_and_keeps_them_in_memory() {
    let cluster = Cluster::new();
    let version = cluster.attach(2, attach("c", 100)).await;
    cluster.queue(0, "c", version).await;
    cluster.queue(1, "c", version).await;
    assert_eq!(cluster.all_told(), [vec![], vec![], vec![Told::Queued(inbox("c"), version)]]);
    for node in 0..NODES {
        let stats = cluster.store(node).stats();
        assert_eq!((stats.inboxes, stats.attached, stats.queued_messages), (1, 1, 2));
        assert_eq!((stats.attached_here, stats.cached_bytes > 0), if node == 2 { (1, true) } else { (0, false) });
        // Counted once in the cluster.
        assert_eq!((stats.leads, stats.stored), if node == 0 { (true, 2) } else { (false, 0) });
    }
    assert_eq!(cluster.store(2).fetch(&inbox("c"), version, 1, 10, 1000).unwrap().len(), 2);
    cluster.check();
}

#[tokio::test]
async fn a_takeover_on_another_node_fences_the_older_connection_whose_node_lags() {
    let cluster = Cluster::new();
    let old = cluster.attach(1, attach("c", 100)).await;
    cluster.queue(0, "c", old).await;
    cluster.told(1);
    cluster.group.hold(1);
    let new = cluster.attach(2, attach("c", 100)).await;
    // Until its replica applies the takeover it may send again what is queued, and change nothing.
    assert_eq!(cluster.store(1).fetch(&inbox("c"), old, 1, 10, 1000).unwrap().len(), 1);
    let store = cluster.store(1).clone();
    let done = Commit { done: vec![1], ..Commit::default() };
    let refused = tokio::spawn(async move { store.commit(&inbox("c"), old, done).await });
    settle().await;
    cluster.group.release(1);
    assert_eq!(refused.await.unwrap(), Err(InboxError::Fenced));
    assert_eq!(cluster.told(1), [Told::Fenced(inbox("c"), old)]);
    assert_eq!(cluster.store(1).fetch(&inbox("c"), old, 1, 10, 1000), Err(InboxError::Fenced));
    assert_eq!(cluster.store(2).fetch(&inbox("c"), new, 1, 10, 1000).unwrap().len(), 1);
    cluster.check();
}

#[tokio::test]
async fn a_node_that_gets_a_snapshot_learns_what_the_entries_would_have_told() {
    let cluster = Cluster::new();
    let (stays, taken, died, quiet) = (
        cluster.attach(1, attach("stays", 100)).await,
        cluster.attach(1, attach("taken", 100)).await,
        cluster.attach(1, attach("gone", 100)).await,
        cluster.attach(1, attach("quiet", 100)).await,
    );
    cluster.group.hold(1);
    cluster.queue(0, "stays", stays).await;
    cluster.attach(2, attach("taken", 100)).await;
    cluster.attach(0, Attach { clean_start: true, ..attach("gone", 100) }).await;
    assert_eq!(cluster.told(1), []);
    cluster.group.install(1, 0).unwrap();

    let mut told = cluster.told(1);
    told.sort_by_key(|told| format!("{told:?}"));
    let want =
        [Told::Fenced(inbox("gone"), died), Told::Fenced(inbox("taken"), taken), Told::Queued(inbox("stays"), stays)];
    assert_eq!(told, want);
    assert_eq!(cluster.store(1).fetch(&inbox("stays"), stays, 1, 10, 1000).unwrap().len(), 1);
    assert!(cluster.store(1).owns(quiet));
    cluster.check();
}

#[tokio::test]
async fn a_life_of_which_a_node_has_not_heard_may_live_and_one_that_ended_never() {
    let cluster = Cluster::new();
    let old = cluster.attach(0, attach("c", 100)).await;
    cluster.group.hold(1);
    let new = cluster.attach(0, Attach { clean_start: true, ..attach("c", 100) }).await;
    let lives = |node: usize, version: SessionVersion| cluster.store(node).may_live(&inbox("c"), version.incarnation);
    assert_eq!((lives(0, old), lives(0, new)), (false, true));
    assert_eq!((lives(1, old), lives(1, new)), (true, true));
    cluster.group.release(1);
    assert_eq!((lives(1, old), lives(1, new)), (false, true));
    assert!(!cluster.store(1).may_live(&inbox("d"), new.incarnation));
}

#[tokio::test]
async fn counts_go_on_after_a_snapshot() {
    let cluster = Cluster::new();
    let version = cluster.attach(0, attach("c", 100)).await;
    cluster.queue(0, "c", version).await;
    cluster.group.lead(Some(1));
    cluster.group.install(0, 1).unwrap();
    cluster.queue(0, "c", version).await;
    let stats: Vec<_> = (0..NODES).map(|node| cluster.store(node).stats().stored).collect();
    assert_eq!(stats, [1, 1, 0]);
}

#[tokio::test]
async fn what_is_subscribed_is_read_in_pages() {
    let cluster = Cluster::new();
    let mut want = Vec::new();
    for name in ["a", "b", "c"] {
        let version = cluster.attach(1, attach(name, 100)).await;
        cluster.store(1).subscribe(&inbox(name), version, filters(&["x", "y/+"])).await.unwrap();
        let subscribed = filters(&["x", "y/+"]);
        want.extend(subscribed.into_iter().map(|(filter, o)| (inbox(name), version.incarnation, filter, o)));
        if name == "b" {
            // One that ended is not there, though its subscriptions are until its routes are gone.
            cluster.attach(0, Attach { clean_start: true, ..attach(name, 100) }).await;
            want.truncate(2);
        }
    }
    for max in [1, 2, 3, 100] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = cluster.store(2).subscriptions(after, max).unwrap();
            found.extend(page.subscriptions);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, want, "in pages of {max}");
    }
}

#[tokio::test]
async fn two_lineages_allot_other_lives() {
    let [one, other] = [Cluster::new(), Cluster::new()];
    one.clock.advance(Duration::from_secs(1_800_000_000));
    other.clock.advance(Duration::from_millis(1_800_000_000_001));
    let mut lives: Vec<_> = Vec::new();
    for name in ["a", "b", "c"] {
        lives.push(one.attach(0, attach(name, 100)).await.incarnation);
        lives.push(other.attach(0, attach(name, 100)).await.incarnation);
    }
    lives.sort_unstable();
    lives.dedup();
    assert_eq!(lives.len(), 6);
    one.check();
}

#[derive(Clone, Debug)]
enum Op {
    Attach { node: usize, client: usize, clean_start: bool, will: bool, keeps: bool },
    Detach { client: usize },
    Queue { node: usize, client: usize },
    Done { client: usize },
    Dies { node: usize },
    Hold { node: usize },
    Release { node: usize },
    Install { node: usize },
    Lead { node: usize },
    Pass { secs: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let (node, client) = (|| 0..NODES, || 0..3usize);
    prop_oneof![
        4 => (node(), client(), any::<[bool; 3]>())
            .prop_map(|(node, client, [clean_start, will, keeps])| Op::Attach { node, client, clean_start, will, keeps }),
        2 => client().prop_map(|client| Op::Detach { client }),
        6 => (node(), client()).prop_map(|(node, client)| Op::Queue { node, client }),
        3 => client().prop_map(|client| Op::Done { client }),
        1 => node().prop_map(|node| Op::Dies { node }),
        2 => node().prop_map(|node| Op::Hold { node }),
        1 => node().prop_map(|node| Op::Release { node }),
        1 => node().prop_map(|node| Op::Install { node }),
        1 => node().prop_map(|node| Op::Lead { node }),
        1 => (1u64..20).prop_map(|secs| Op::Pass { secs }),
    ]
}

async fn play(ops: Vec<Op>) {
    let cluster = Cluster::new();
    // Who is attached where; calls to a node that lags are not waited for.
    let mut held: [Option<(usize, SessionVersion)>; 3] = [None; 3];
    let names = ["a", "b", "c"];
    let soon = Duration::from_millis(1);
    for op in ops {
        match op {
            Op::Attach { node, client, clean_start, will: has_will, keeps } => {
                let attach = Attach {
                    clean_start,
                    will: has_will.then(|| will(3)),
                    ..attach(names[client], if keeps { 10 } else { 0 })
                };
                let attached = tokio::time::timeout(soon, cluster.store(node).attach(on(node, attach))).await;
                held[client] = attached.ok().and_then(|a| Some((node, a.ok()?.version?)));
                if let Some((node, version)) = held[client] {
                    let inbox = inbox(names[client]);
                    let subscribe = cluster.store(node).subscribe(&inbox, version, filters(&["f"]));
                    drop(tokio::time::timeout(soon, subscribe).await);
                }
            }
            Op::Detach { client } => {
                if let Some((node, version)) = held[client].take() {
                    let detach =
                        Detach { inbox: inbox(names[client]), version, expiry_secs: None, will: WillFate::Publish };
                    drop(tokio::time::timeout(soon, cluster.store(node).detach(detach)).await);
                }
            }
            Op::Queue { node, client } => {
                if let Some((_, version)) = held[client] {
                    let insert = insert(b"x", vec![to(names[client], version.incarnation)]);
                    drop(tokio::time::timeout(soon, cluster.store(node).insert(insert)).await);
                }
            }
            Op::Done { client } => {
                if let Some((node, version)) = held[client] {
                    let entries = cluster.store(node).fetch(&inbox(names[client]), version, 1, 2, 1000);
                    let done = entries.unwrap_or_default().iter().map(|entry| entry.seq).collect();
                    let commit = Commit { done, ..Commit::default() };
                    drop(
                        tokio::time::timeout(soon, cluster.store(node).commit(&inbox(names[client]), version, commit))
                            .await,
                    );
                }
            }
            Op::Dies { node } => {
                drop(tokio::time::timeout(soon, cluster.store((node + 1) % NODES).detach_node(run(node))).await);
            }
            Op::Hold { node } => cluster.group.hold(node),
            Op::Release { node } => cluster.group.release(node),
            Op::Install { node } => cluster.group.install(node, (node + 1) % NODES).unwrap(),
            Op::Lead { node } => cluster.group.lead(Some(node)),
            Op::Pass { secs } => cluster.pass(Duration::from_secs(secs)),
        }
        settle().await;
    }
    (0..NODES).for_each(|node| cluster.group.release(node));
    settle().await;
    (0..NODES).for_each(|node| cluster.group.release(node));
    cluster.check();
    let here: u64 = (0..NODES).map(|node| cluster.store(node).stats().attached_here).sum();
    assert_eq!(here, cluster.store(0).stats().attached);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn replicas_that_lag_lead_and_get_snapshots_come_to_the_same(ops in prop::collection::vec(op(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(play(ops));
    }
}
