use super::*;
use crate::DistCoproc;
use crate::testing::{OWN, inbox_route, node_route, run, topic};
use base_kv_api::testing::MemRange;
use base_types::{ManualClock, WallMs};

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

#[tokio::test]
async fn a_sweep_removes_the_routes_of_dead_inboxes() {
    let (worker, range) = worker();
    let mut routes: Vec<_> = (0..3_000)
        .map(|i| inbox_route("t", &format!("a/{}", i / 3), ["c", "d", "e"][i % 3], 1 + i as u64 % 3))
        .collect();
    routes.push(node_route("t", "a", run(2, 1)));
    worker.add(routes).await.unwrap();
    let removed = worker.sweep(&|_, client, incarnation| client.as_str() != "d" && incarnation != 3).await;
    assert_eq!(removed, Ok(2_000));
    assert_eq!((worker.route_count(), range.space().len()), (1_001, 1_001));
    assert_eq!(clients(&worker, "a/999"), ["c"]);
}
