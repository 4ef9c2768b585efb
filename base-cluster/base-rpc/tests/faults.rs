//! Connections that break, peers that stop, and peers that come back.
#![cfg(not(feature = "turmoil"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is the finding")]

mod common;

use base_rpc::{CallError, Lane, Listen, Mesh, Reach, Reply, Rpc, Security, Service};
use base_types::NodeIncarnation;
use bytes::Bytes;
use common::{A, B, Collected, Proxy, SOON, any_port, config, echo, eventually, pair, run, secret, start};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Takes calls and answers none.
fn silent(mesh: &dyn Mesh) -> Arc<parking_lot::Mutex<Vec<Reply>>> {
    let kept: Arc<parking_lot::Mutex<Vec<Reply>>> = Arc::default();
    let keep = Arc::clone(&kept);
    mesh.serve(Service::ADMIN, Arc::new(move |_: NodeIncarnation, _: Bytes, reply: Reply| keep.lock().push(reply)));
    kept
}

fn reachable(a: &Rpc) -> bool {
    a.peer(B).is_some_and(|peer| peer.reach == Reach::Reachable)
}

#[tokio::test]
async fn a_call_is_lost_when_its_peer_stops_and_the_next_is_unreachable() {
    let (a, b) = pair(secret("s")).await;
    let kept = silent(&*b);
    let call = tokio::spawn(a.call(B, Lane::Data, Service::ADMIN, "x".into(), SOON));
    eventually("the peer has it", || !kept.lock().is_empty()).await;
    b.shutdown().await;
    assert_eq!(call.await.unwrap(), Err(CallError::Lost { to: B }));
    eventually("its node is found dead", || matches!(a.peer(B).unwrap().reach, Reach::Unreachable(_))).await;
    let began = Instant::now();
    let next = a.call(B, Lane::Data, Service::ADMIN, "x".into(), SOON).await;
    assert!(matches!(next, Err(CallError::Unreachable { to: B, .. })), "{next:?}");
    assert!(began.elapsed() < Duration::from_secs(1), "fails fast");
}

#[tokio::test]
async fn calls_to_where_nobody_listens_fail_fast_and_nothing_waits_for_ever() {
    let a = start(run(A, 1), Security::Plain).await;
    let nobody = base_rpc::net::TcpListener::bind(any_port()).await.unwrap().local_addr().unwrap();
    a.set_peer(run(B, 1), nobody);
    for lane in Lane::ALL {
        let began = Instant::now();
        let call = a.call(B, lane, Service::ADMIN, "x".into(), SOON).await;
        assert!(matches!(call, Err(CallError::Unreachable { to: B, .. })), "{call:?}");
        assert!(began.elapsed() < Duration::from_secs(3));
    }
}

#[tokio::test]
async fn a_new_run_of_a_peer_is_called_at_its_new_address_and_the_old_one_is_not_let_in_again() {
    let (a, b) = pair(secret("s")).await;
    echo(&*b);
    assert_eq!(a.call(B, Lane::Data, Service::ADMIN, "1".into(), SOON).await, Ok("1".into()));
    let again = start(run(B, 2), secret("s")).await;
    let seen = Collected::serve(&*again, Service::LIVE);
    a.set_peer(again.me(), again.local_addr());
    a.call(B, Lane::Data, Service::LIVE, Bytes::copy_from_slice(&[0, 0, 0, 5]), SOON).await.unwrap();
    assert_eq!(seen.numbers(), [5]);
    // What is told of the older run changes nothing.
    a.set_peer(b.me(), b.local_addr());
    assert_eq!(a.peer(B).unwrap().run, run(B, 2));
    echo(&*a);
    let old = b.call(A, Lane::Data, Service::ADMIN, "x".into(), SOON).await;
    assert!(matches!(&old, Err(CallError::Unreachable { .. } | CallError::Lost { .. })), "{old:?}");
    eventually(
        "the older run is told so",
        || matches!(b.peer(A).unwrap().reach, Reach::Unreachable(cause) if cause.contains("older run")),
    )
    .await;
}

#[tokio::test]
async fn a_peer_that_comes_back_at_its_address_is_called_again_without_being_told() {
    let (a, b) = pair(Security::Plain).await;
    echo(&*b);
    assert!(a.call(B, Lane::Data, Service::ADMIN, "1".into(), SOON).await.is_ok());
    let addr = b.local_addr();
    b.shutdown().await;
    drop(b);
    eventually("it is gone", || !reachable(&a)).await;
    let mut again = config(run(B, 2), Security::Plain);
    again.listen = Listen::Bind(addr);
    let b = Rpc::start(again).await.unwrap();
    echo(&*b);
    eventually("it is there", || reachable(&a)).await;
    assert_eq!(a.peer(B).unwrap().run, run(B, 2));
    assert_eq!(a.call(B, Lane::Data, Service::ADMIN, "2".into(), SOON).await, Ok("2".into()));
}

#[tokio::test]
async fn a_peer_that_says_hello_as_a_new_run_ends_the_calls_to_the_older_one() {
    let (a, b) = pair(secret("s")).await;
    let kept = silent(&*b);
    let call = tokio::spawn(a.call(B, Lane::Data, Service::ADMIN, "x".into(), SOON));
    eventually("the older run has it", || !kept.lock().is_empty()).await;
    let again = start(run(B, 2), secret("s")).await;
    again.set_peer(a.me(), a.local_addr());
    assert_eq!(call.await.unwrap(), Err(CallError::Lost { to: B }));
    assert_eq!(a.peer(B).unwrap().run, run(B, 2));
}

#[tokio::test]
async fn a_peer_that_goes_silent_is_noticed_and_calls_to_it_end() {
    let (a, b) = (start(run(A, 1), secret("s")).await, start(run(B, 1), secret("s")).await);
    echo(&*b);
    let way = Proxy::to(b.local_addr()).await;
    a.set_peer(b.me(), way.addr);
    eventually("it is pinged", || a.peer(B).unwrap().round_trip.is_some()).await;
    assert!(a.call(B, Lane::Data, Service::ADMIN, "x".into(), SOON).await.is_ok());
    way.freeze();
    let began = Instant::now();
    let call = a.call(B, Lane::Data, Service::ADMIN, "x".into(), SOON).await;
    assert_eq!(call, Err(CallError::Lost { to: B }), "the raft lane speaks for all");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(matches!(a.peer(B).unwrap().reach, Reach::Unreachable(_)));
    way.cut();
    way.thaw();
    eventually("it is reached again", || reachable(&a)).await;
    assert_eq!(a.call(B, Lane::Data, Service::ADMIN, "y".into(), SOON).await, Ok("y".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_and_at_most_once_hold_while_connections_break() {
    let (a, b) = (start(run(A, 1), Security::Plain).await, start(run(B, 1), Security::Plain).await);
    let seen = Collected::serve(&*b, Service::LIVE);
    let way = Proxy::to(b.local_addr()).await;
    a.set_peer(b.me(), way.addr);
    let (mut next, mut refused, mut cuts) = (0u32, 0, 0);
    let (mut sure, mut calls) = (Vec::new(), Vec::new());
    while cuts < 30 {
        for _ in 0..200 {
            let call = a.call(B, Lane::Data, Service::LIVE, Bytes::copy_from_slice(&next.to_be_bytes()), SOON);
            calls.push((next, tokio::spawn(call)));
            next += 1;
        }
        tokio::task::yield_now().await;
        way.cut();
        cuts += 1;
        for (number, call) in calls.drain(..) {
            match call.await.unwrap() {
                Ok(_) => sure.push(number),
                Err(error) if error.maybe_done() => {}
                Err(_) => refused += 1,
            }
        }
        eventually("it is reached again", || reachable(&a)).await;
    }
    let seen = seen.numbers();
    assert!(seen.is_sorted_by(|a, b| a < b), "in order, each once");
    assert!(sure.iter().all(|number| seen.binary_search(number).is_ok()), "what was answered was handled");
    assert!(seen.len() + refused <= next as usize, "what was not sent was not handled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_on_the_bulk_lane_do_not_delay_the_raft_lane() {
    let (a, b) = pair(secret("s")).await;
    echo(&*b);
    let body = Bytes::from(vec![7; 8 << 20]);
    let bulk = tokio::spawn({
        let (a, body) = (Arc::clone(&a), body.clone());
        async move {
            for _ in 0..6 {
                let reply = a.call(B, Lane::Bulk, Service::ADMIN, body.clone(), SOON).await.unwrap();
                assert!(reply == body);
            }
        }
    });
    let mut beats = 0;
    while !bulk.is_finished() {
        a.call(B, Lane::Raft, Service::ADMIN, "beat".into(), SOON).await.unwrap();
        assert!(reachable(&a), "pings are answered");
        beats += 1;
    }
    bulk.await.unwrap();
    // Behind bulk messages on one connection there would be one beat for each of them. Time is no measure: the machine may be busy.
    assert!(beats > 20, "{beats}");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_sent() {
    let (a, b) = pair(Security::Plain).await;
    echo(&*b);
    let call = a.call(B, Lane::Bulk, Service::ADMIN, vec![0; (16 << 20) + 1].into(), SOON).await;
    assert!(matches!(call, Err(CallError::Unreachable { to: B, .. })), "{call:?}");
    assert_eq!(a.call(B, Lane::Bulk, Service::ADMIN, vec![0; 16 << 20].into(), SOON).await.unwrap().len(), 16 << 20);
}

#[tokio::test]
async fn a_handler_that_panics_costs_its_connection_and_no_later_call() {
    let (a, b) = pair(Security::Plain).await;
    for node in [&a, &b] {
        node.serve(
            Service::ADMIN,
            Arc::new(|_: NodeIncarnation, body: Bytes, reply: Reply| {
                assert!(!body.is_empty(), "as it is meant to");
                reply.send(body);
            }),
        );
    }
    assert_eq!(a.call(B, Lane::Data, Service::ADMIN, Bytes::new(), SOON).await, Err(CallError::Lost { to: B }));
    assert!(a.call(A, Lane::Data, Service::ADMIN, Bytes::new(), SOON).await.is_err());
    assert_eq!(a.call(A, Lane::Data, Service::ADMIN, "x".into(), SOON).await, Ok("x".into()));
    let until = Instant::now() + SOON;
    while a.call(B, Lane::Data, Service::ADMIN, "x".into(), SOON).await != Ok("x".into()) {
        assert!(Instant::now() < until, "it is connected again");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_stopped_node_answers_nobody_and_calls_nobody() {
    let (a, b) = pair(secret("s")).await;
    echo(&*b);
    assert!(a.call(B, Lane::Raft, Service::ADMIN, "x".into(), SOON).await.is_ok());
    a.shutdown().await;
    for to in [A, B] {
        let call = a.call(to, Lane::Raft, Service::ADMIN, "x".into(), SOON).await;
        assert!(matches!(call, Err(CallError::Unreachable { .. })), "{call:?}");
    }
    assert_eq!(a.counters().connections_out, 0);
    eventually("the peer notices", || b.counters().connections_in == 0).await;
}

#[tokio::test]
async fn what_went_over_the_wire_is_counted() {
    let (a, b) = pair(Security::Plain).await;
    echo(&*b);
    a.call(B, Lane::Data, Service::ADMIN, vec![0; 1000].into(), SOON).await.unwrap();
    let (there, here) = (a.counters().lanes[Lane::Data.index()], b.counters().lanes[Lane::Data.index()]);
    assert!(
        there.frames_out >= 1 && there.frames_in >= 1 && there.bytes_out >= 1010 && there.bytes_in >= 1010,
        "{there:?}"
    );
    assert!(here.frames_out >= 1 && here.frames_in >= 1, "{here:?}");
    eventually("its node was pinged", || a.peer(B).unwrap().round_trip.is_some()).await;
}
