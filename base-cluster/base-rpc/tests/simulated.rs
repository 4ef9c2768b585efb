//! The same code on a simulated network: `cargo test -p base-rpc --features turmoil --test simulated`.
#![cfg(feature = "turmoil")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is the finding")]

use base_rpc::{Lane, Listen, Mesh, Reach, Reply, Rpc, RpcConfig, Secret, Security, Service};
use base_types::{Incarnation, NodeId, NodeIncarnation};
use bytes::Bytes;
use parking_lot::Mutex;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

const PORT: u16 = 7000;
const B: NodeId = NodeId(2);

async fn node(node: u64) -> Arc<Rpc> {
    let me = NodeIncarnation { node: NodeId(node), incarnation: Incarnation(1) };
    let listen = Listen::Bind((Ipv4Addr::UNSPECIFIED, PORT).into());
    Rpc::start(RpcConfig::new(me, "sim", listen, Security::Secret(Secret::new("s")))).await.unwrap()
}

/// Two nodes call each other while the way between them is cut and mended; what happened when.
fn story(seed: u64) -> Vec<(Duration, String)> {
    let told: Arc<Mutex<Vec<(Duration, String)>>> = Arc::default();
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .simulation_duration(Duration::from_secs(60))
        .tick_duration(Duration::from_millis(1))
        .build();
    sim.host("b", || async {
        let b = node(2).await;
        b.serve(Service::ADMIN, Arc::new(|_: NodeIncarnation, body: Bytes, reply: Reply| reply.send(body)));
        std::future::pending().await
    });
    let tell = Arc::clone(&told);
    sim.client("a", async move {
        let a = node(1).await;
        a.set_peer(NodeIncarnation { node: B, incarnation: Incarnation(1) }, (turmoil::lookup("b"), PORT).into());
        let began = tokio::time::Instant::now();
        for i in 0u32..200 {
            match i {
                40 => turmoil::partition("a", "b"),
                120 => turmoil::repair("a", "b"),
                _ => {}
            }
            let body = Bytes::copy_from_slice(&i.to_be_bytes());
            let called = a.call(B, Lane::Data, Service::ADMIN, body.clone(), Duration::from_millis(200)).await;
            assert!(called.as_ref().map_or(true, |reply| *reply == body));
            let reach = matches!(a.peer(B).unwrap().reach, Reach::Reachable);
            tell.lock().push((began.elapsed(), format!("{i} {reach} {called:?}")));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    });
    sim.run().unwrap();
    std::mem::take(&mut *told.lock())
}

#[test]
fn a_partition_is_noticed_and_mended_and_the_same_seed_tells_the_same_story() {
    let first = story(7);
    let answered = |from: usize, to: usize| first[from..to].iter().filter(|(_, told)| told.contains("Ok(")).count();
    assert_eq!(answered(0, 40), 40);
    assert_eq!(answered(41, 120), 0);
    assert!(first[119].1.contains("false"), "{:?}", first[119]);
    assert!(answered(120, 200) > 40 && answered(190, 200) == 10, "{first:#?}");
    assert_eq!(first, story(7));
}
