use super::*;
use crate::DistCoproc;
use crate::testing::{OWN, command_as_before, inbox_route, node_route, owned, run, topic};
use base_kv_api::testing::{MemGroup, MemRange};
use base_types::{ManualClock, WallMs};
use std::sync::atomic::{AtomicUsize, Ordering};

fn worker() -> (DistWorker, MemRange) {
    let (coproc, index) = DistCoproc::new(OWN);
    let range = MemRange::new(coproc, Arc::new(ManualClock::new(WallMs(0)))).unwrap();
    (DistWorker::new(Arc::new(range.clone()), index), range)
}

fn clients(worker: &DistWorker, name: &str) -> Vec<String> {
    let mut found = Matches::default();
    worker.matches(&TenantId::new("t").unwrap(), &topic(name), &mut found);
    let mut clients: Vec<_> = found.inboxes.iter().map(|inbox| inbox.client.to_string()).collect();
    clients.sort();
    clients
}

#[tokio::test]
async fn what_was_added_matches_when_the_call_returns() {
    let (worker, _) = worker();
    worker.add(vec![inbox_route("t", "a/+", "c", 1), inbox_route("t", "a/b", "d", 1)]).await.unwrap();
    assert_eq!(clients(&worker, "a/b"), ["c", "d"]);
    worker.remove(vec![inbox_route("t", "a/+", "c", 1)]).await.unwrap();
    assert_eq!(clients(&worker, "a/b"), ["d"]);
    assert_eq!(worker.route_count(), 1);
}

#[tokio::test]
async fn many_routes_in_one_call_are_all_added() {
    let (worker, _) = worker();
    let routes = (0..20_000).map(|i| inbox_route("t", &format!("a/{i}"), "c", 1)).collect();
    worker.add(routes).await.unwrap();
    assert_eq!(worker.route_count(), 20_000);
    assert_eq!(clients(&worker, "a/19999"), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn a_range_that_is_busy_or_without_leader_for_a_while_is_waited_for() {
    let (worker, range) = worker();
    for refusal in [MutateError::Busy { waiting: 9 }, MutateError::NoLeader, MutateError::Unknown] {
        range.refuse_next(refusal);
    }
    worker.add(vec![inbox_route("t", "a", "c", 1)]).await.unwrap();
    assert_eq!(clients(&worker, "a"), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn a_range_that_stays_without_leader_is_given_up_after_five_seconds() {
    let (worker, range) = worker();
    (0..1000).for_each(|_| range.refuse_next(MutateError::NoLeader));
    let start = Instant::now();
    let refused = worker.add(vec![inbox_route("t", "a", "c", 1)]).await;
    assert!(matches!(refused, Err(DistError::Unavailable { .. })), "{refused:?}");
    assert!(start.elapsed() > DEADLINE - BACKOFF_MAX && start.elapsed() <= DEADLINE);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_told_when_it_was_never_cleared_up() {
    let (worker, range) = worker();
    range.refuse_next(MutateError::Unknown);
    (0..1000).for_each(|_| range.refuse_next(MutateError::NoLeader));
    assert_eq!(worker.add(vec![inbox_route("t", "a", "c", 1)]).await, Err(DistError::Unknown));
}

#[tokio::test]
async fn a_range_that_stopped_is_not_tried_again() {
    let (worker, range) = worker();
    range.refuse_next(MutateError::Stopped { cause: "disk".to_owned() });
    let refused = worker.add(vec![inbox_route("t", "a", "c", 1)]).await;
    assert!(matches!(refused, Err(DistError::Unavailable { cause }) if cause.contains("disk")));
}

#[tokio::test]
async fn routes_of_earlier_runs_are_forgotten_and_no_others() {
    let (worker, range) = worker();
    let mut routes: Vec<_> = (0..3_000).map(|i| node_route("t", &format!("a/{i}"), run(OWN.node.0, 1))).collect();
    routes.extend([
        node_route("t", "$share/g/a/1", run(OWN.node.0, 2)),
        node_route("u", "a/1", OWN),
        node_route("t", "$share/g/a/1", OWN),
        node_route("t", "a/1", run(2, 1)),
        inbox_route("t", "a/1", "c", 1),
    ]);
    worker.add(routes).await.unwrap();
    worker.forget_runs_before(OWN).await.unwrap();
    assert_eq!((worker.route_count(), range.space().len()), (4, 4));
    let mut found = Matches::default();
    worker.matches(&TenantId::new("t").unwrap(), &topic("a/1"), &mut found);
    assert_eq!((found.nodes, found.inboxes.len()), (vec![run(2, 1)], 1));
    assert_eq!(*found.groups[0].nodes, [OWN]);
}

/// Counts how often routes were lost.
#[derive(Default)]
struct Losses(AtomicUsize);

impl DistListener for Losses {
    fn own_routes_lost(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Losses {
    fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

struct Cluster {
    group: MemGroup,
    workers: Vec<DistWorker>,
    losses: Vec<Arc<Losses>>,
}

/// Three nodes in their third run; the first one leads.
fn cluster() -> Cluster {
    let (coprocs, indexes): (Vec<_>, Vec<_>) = (0..3).map(|node| DistCoproc::new(run(node, 3))).unzip();
    let group = MemGroup::new(coprocs, Arc::new(ManualClock::new(WallMs(0)))).unwrap();
    let worker = |(node, index)| DistWorker::new(Arc::new(group.on(node)), index);
    let workers: Vec<_> = indexes.into_iter().enumerate().map(worker).collect();
    let losses: Vec<_> = workers.iter().map(|_| Arc::new(Losses::default())).collect();
    workers.iter().zip(&losses).for_each(|(worker, losses)| worker.listen(losses.clone()));
    Cluster { group, workers, losses }
}

impl Cluster {
    fn lost(&self) -> Vec<usize> {
        self.losses.iter().map(|losses| losses.take()).collect()
    }

    fn nodes(&self, node: usize, name: &str) -> Vec<NodeIncarnation> {
        let mut found = Matches::default();
        self.workers[node].matches(&TenantId::new("t").unwrap(), &topic(name), &mut found);
        found.nodes
    }
}

#[tokio::test]
async fn each_node_matches_the_others_and_not_itself() {
    let cluster = cluster();
    for (node, worker) in cluster.workers.iter().enumerate() {
        worker.add(vec![node_route("t", "a", run(node as u64, 3))]).await.unwrap();
    }
    assert_eq!(cluster.nodes(1, "a"), [run(0, 3), run(2, 3)]);
}

#[tokio::test]
async fn the_routes_of_a_run_that_died_are_forgotten_everywhere_and_it_is_told_when_it_lives() {
    let cluster = cluster();
    let [first, other, dead] = [0, 1, 2].map(|node| run(node, 3));
    let mut routes: Vec<_> = (0..3_000).map(|i| node_route("t", &format!("a/{i}"), dead)).collect();
    routes.extend([
        node_route("t", "a/1", run(2, 2)),
        node_route("t", "$share/g/a/1", dead),
        node_route("t", "a/1", other),
        inbox_route("t", "a/1", "c", 1),
    ]);
    cluster.workers[2].add(routes.clone()).await.unwrap();
    assert_eq!(cluster.workers[0].runs(), [(other, 1), (run(2, 2), 1), (dead, 3_001)]);
    assert_eq!(cluster.nodes(0, "a/1"), [other, run(2, 2), dead]);

    assert_eq!(cluster.workers[0].forget_run(dead).await, Ok(3_002));
    assert_eq!(cluster.workers[1].forget_run(dead).await, Ok(0));
    for worker in &cluster.workers {
        assert_eq!((worker.runs(), worker.route_count()), (vec![(other, 1)], 2));
    }
    let lost = cluster.lost();
    assert!(lost[..2] == [0, 0] && lost[2] > 0, "{lost:?}");
    // It adds them again, and removes them in its own time without being told.
    cluster.workers[2].add(routes.clone()).await.unwrap();
    assert_eq!(cluster.nodes(0, "a/2"), [dead]);
    cluster.workers[2].remove(routes).await.unwrap();
    assert_eq!(cluster.lost(), [0, 0, 0]);
    assert_eq!(cluster.workers[0].forget_run(first).await, Ok(0));
}

#[tokio::test]
async fn a_later_run_than_the_one_that_is_known_keeps_its_routes() {
    let cluster = cluster();
    cluster.workers[2].add(vec![node_route("t", "a", run(2, 3)), node_route("t", "a", run(2, 2))]).await.unwrap();
    cluster.workers[0].forget_run(run(2, 1)).await.unwrap();
    cluster.workers[0].forget_runs_before(run(2, 2)).await.unwrap();
    assert_eq!(cluster.nodes(0, "a"), [run(2, 2), run(2, 3)]);
    cluster.workers[0].forget_runs_before(run(2, 3)).await.unwrap();
    assert_eq!(cluster.nodes(0, "a"), [run(2, 3)]);
    assert_eq!(cluster.lost(), [0, 0, 0]);
}

#[tokio::test]
async fn a_node_that_gets_a_snapshot_asserts_its_routes_again() {
    let cluster = cluster();
    cluster.workers[2].add(vec![node_route("t", "a", run(2, 3))]).await.unwrap();
    cluster.group.hold(2);
    cluster.workers[0].forget_run(run(2, 3)).await.unwrap();
    assert_eq!(cluster.lost(), [0, 0, 0]);
    cluster.group.install(2, 0).unwrap();
    assert_eq!(cluster.lost(), [0, 0, 1]);
    assert_eq!((cluster.workers[2].runs(), cluster.workers[2].route_count()), (vec![], 0));
}

#[tokio::test]
async fn what_a_node_that_lags_has_not_seen_is_forgotten_too() {
    let cluster = cluster();
    cluster.group.hold(1);
    cluster.workers[2].add(vec![node_route("t", "a", run(2, 3))]).await.unwrap();
    let worker = cluster.workers[1].clone();
    let forgotten = tokio::spawn(async move { worker.forget_run(run(2, 3)).await });
    tokio::task::yield_now().await;
    cluster.group.release(1);
    assert_eq!(forgotten.await.unwrap(), Ok(1));
    assert_eq!(cluster.nodes(0, "a"), []);
    cluster.group.lead(Some(1));
    assert_eq!(cluster.workers.iter().map(DistService::leads).collect::<Vec<_>>(), [false, true, false]);
}

#[tokio::test]
async fn what_is_missing_is_added_and_nothing_else_is_proposed() {
    let (worker, range) = worker();
    let routes: Vec<_> = (1..4).map(|life| inbox_route("t", &format!("a/{life}"), "c", life)).collect();
    worker.add(routes[..1].to_vec()).await.unwrap();
    worker.add(vec![inbox_route("t", "a/2", "c", 1)]).await.unwrap();
    assert_eq!(worker.ensure(routes.clone()).await, Ok(2));
    assert_eq!(worker.route_count(), 3);
    range.refuse_next(MutateError::Stopped { cause: "nothing is proposed".to_owned() });
    assert_eq!(worker.ensure(routes).await, Ok(0));
}

#[tokio::test]
async fn what_an_owner_set_is_not_missing_and_is_removed_by_any_owner() {
    let (worker, range) = worker();
    let route = |attach| owned(inbox_route("t", "a", "c", 1), attach);
    worker.add(vec![route(5)]).await.unwrap();
    assert_eq!(worker.ensure(vec![route(0)]).await, Ok(0));
    worker.remove(vec![route(4)]).await.unwrap();
    assert_eq!(clients(&worker, "a"), ["c"]);
    worker.remove(vec![route(0).of_any_owner()]).await.unwrap();
    assert!(range.space().is_empty());

    // One from before ownerships.
    range.mutate(b"\x01", command_as_before(Op::Add, &[route(0)])).await.unwrap();
    assert_eq!(worker.ensure(vec![route(0)]).await, Ok(0));
}

#[tokio::test]
async fn a_sweep_removes_the_routes_of_dead_inboxes() {
    let (worker, range) = worker();
    let mut routes: Vec<_> = (0..3_000)
        .map(|i| owned(inbox_route("t", &format!("a/{}", i / 3), ["c", "d", "e"][i % 3], 1 + i as u64 % 3), i as u64))
        .collect();
    routes.push(node_route("t", "a", run(2, 1)));
    worker.add(routes).await.unwrap();
    let removed = worker.sweep(&|_, client, incarnation| client.as_str() != "d" && incarnation != 3).await;
    assert_eq!(removed, Ok(2_000));
    assert_eq!((worker.route_count(), range.space().len()), (1_001, 1_001));
    assert_eq!(clients(&worker, "a/999"), ["c"]);
}
