//! What every mesh promises, in memory and over TCP.
#![cfg(not(feature = "turmoil"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is the finding")]

mod common;

use base_rpc::{CallError, Lane, MemHub, Mesh, Reply, Security, Service};
use base_types::{NodeId, NodeIncarnation};
use bytes::Bytes;
use common::{A, B, Collected, SOON, eventually, pair, run, secret, tls};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

type Meshes = (Arc<dyn Mesh>, Arc<dyn Mesh>);

async fn meshes(which: &str) -> Meshes {
    let security = match which {
        "mem" => {
            let hub = MemHub::default();
            return (Arc::new(hub.enter(run(A, 1))), Arc::new(hub.enter(run(B, 1))));
        }
        "plain" => Security::Plain,
        "secret" => secret("s"),
        _ => tls("cluster"),
    };
    let (a, b) = pair(security).await;
    (a, b)
}

macro_rules! for_each_mesh {
    ($($(#[$doc:meta])* $name:ident($a:ident, $b:ident) $body:block)*) => {$(
        mod $name {
            use super::*;

            async fn holds(($a, $b): Meshes) $body

            #[tokio::test]
            async fn in_memory() {
                holds(meshes("mem").await).await;
            }

            #[tokio::test]
            async fn over_tcp() {
                holds(meshes("plain").await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_noise() {
                holds(meshes("secret").await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_tls() {
                holds(meshes("tls").await).await;
            }
        }
    )*};
}

for_each_mesh! {
    a_call_is_answered_by_who_was_meant(a, b) {
        b.serve(Service::ADMIN, Arc::new(|from: NodeIncarnation, body: Bytes, reply: Reply| {
            assert_eq!(from, run(A, 1));
            reply.send([&body[..], b"!"].concat().into());
        }));
        for lane in Lane::ALL {
            assert_eq!(a.call(B, lane, Service::ADMIN, "x".into(), SOON).await, Ok("x!".into()));
        }
        assert_eq!((a.me(), b.me()), (run(A, 1), run(B, 1)));
    }

    messages_of_a_lane_come_in_order_and_once(a, b) {
        const MANY: u32 = 20_000;
        let seen = Collected::serve(&*b, Service::LIVE);
        for i in 0..MANY {
            let body = || Bytes::copy_from_slice(&i.to_be_bytes());
            if i % 500 == 0 {
                // All before it have been handled: there is room again.
                assert_eq!(a.call(B, Lane::Data, Service::LIVE, body(), SOON).await, Ok(Bytes::new()));
            } else if i % 3 == 0 {
                drop(a.call(B, Lane::Data, Service::LIVE, body(), SOON));
            } else {
                a.send(B, Lane::Data, Service::LIVE, body()).unwrap();
            }
        }
        let last = MANY - 1;
        eventually("the last message comes", || seen.numbers().last() == Some(&last)).await;
        assert_eq!(seen.numbers(), (0..MANY).collect::<Vec<_>>());
    }

    a_call_that_nobody_answers_is_refused(a, b) {
        assert_eq!(a.call(B, Lane::Data, Service(99), Bytes::new(), SOON).await, Err(CallError::Refused { to: B }));
        b.serve(Service::ADMIN, Arc::new(|_: NodeIncarnation, _: Bytes, reply: Reply| drop(reply)));
        assert_eq!(a.call(B, Lane::Data, Service::ADMIN, Bytes::new(), SOON).await, Err(CallError::Refused { to: B }));
    }

    a_reply_that_is_late_is_timed_out_and_harms_no_other(a, b) {
        let kept: Arc<parking_lot::Mutex<Vec<Reply>>> = Arc::default();
        let keep = Arc::clone(&kept);
        b.serve(Service::ADMIN, Arc::new(move |_: NodeIncarnation, body: Bytes, reply: Reply| {
            if body.is_empty() { keep.lock().push(reply) } else { reply.send(body) }
        }));
        let short = Duration::from_millis(50);
        assert_eq!(a.call(B, Lane::Data, Service::ADMIN, Bytes::new(), short).await, Err(CallError::TimedOut { to: B }));
        kept.lock().drain(..).for_each(|reply| reply.send("late".into()));
        assert_eq!(a.call(B, Lane::Data, Service::ADMIN, "now".into(), SOON).await, Ok("now".into()));
    }

    a_node_that_is_not_there_is_unreachable_at_once(a, _b) {
        let call = a.call(NodeId(77), Lane::Raft, Service::ADMIN, Bytes::new(), SOON).await;
        assert!(matches!(call, Err(CallError::Unreachable { to: NodeId(77), .. })), "{call:?}");
        assert!(matches!(a.send(NodeId(77), Lane::Raft, Service::ADMIN, Bytes::new()), Err(CallError::Unreachable { .. })));
    }

    a_call_whose_future_is_dropped_is_sent_all_the_same(a, b) {
        let seen = Collected::serve(&*b, Service::LIVE);
        drop(a.call(B, Lane::Data, Service::LIVE, Bytes::copy_from_slice(&7u32.to_be_bytes()), SOON));
        eventually("it comes", || seen.numbers() == [7]).await;
    }

    a_node_can_call_itself_in_order(a, _b) {
        let seen = Collected::serve(&*a, Service::LIVE);
        for i in 0..100u32 {
            a.send(A, Lane::Data, Service::LIVE, Bytes::copy_from_slice(&i.to_be_bytes())).unwrap();
        }
        let last = a.call(A, Lane::Data, Service::LIVE, Bytes::copy_from_slice(&100u32.to_be_bytes()), SOON).await;
        assert_eq!(last, Ok(Bytes::new()));
        assert_eq!(seen.numbers(), (0..=100).collect::<Vec<_>>());
    }

    too_much_at_once_is_refused_as_busy_and_what_was_taken_arrives(a, b) {
        let (seen, gate) = (Collected::serve(&*b, Service::LIVE), Arc::new(AtomicBool::new(false)));
        let wait = Arc::clone(&gate);
        b.serve(Service::ADMIN, Arc::new(move |_: NodeIncarnation, _: Bytes, reply: Reply| {
            wait.store(true, Ordering::Relaxed);
            reply.send(Bytes::new());
        }));
        a.call(B, Lane::Data, Service::ADMIN, Bytes::new(), SOON).await.unwrap();
        // 8 KiB each: no socket buffer takes as many as are sent without a pause.
        let (mut taken, mut busy) = (0u32, false);
        while !busy && taken < 200_000 {
            let mut body = vec![0; 8192];
            body[..4].copy_from_slice(&taken.to_be_bytes());
            match a.send(B, Lane::Data, Service::LIVE, body.into()) {
                Ok(()) => taken += 1,
                Err(CallError::Busy { to: B }) => busy = true,
                Err(other) => panic!("{other}"),
            }
        }
        assert!(busy);
        eventually("all that was taken comes", || seen.numbers().len() == taken as usize).await;
        assert_eq!(seen.numbers(), (0..taken).collect::<Vec<_>>());
    }
}
