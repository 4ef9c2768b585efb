//! Who does not belong to the cluster is refused, counted, and harms nobody.
#![cfg(not(feature = "turmoil"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is the finding")]

mod common;

use base_rpc::net::TcpStream;
use base_rpc::{
    AddrCallError, CallError, Lane, Mesh, Reach, RefusedBecause, Reply, Rpc, Secret, Security, Service, Timing,
};
use base_types::NodeIncarnation;
use bytes::Bytes;
use common::{A, Authority, B, Collected, SOON, config, echo, eventually, pair, run, secret, start, tls};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// `a` knows where `b` is, and is not let in.
async fn refused(a: &Rpc, b: &Rpc, because: RefusedBecause, says: &str) {
    echo(b);
    a.set_peer(b.me(), b.local_addr());
    eventually("both count it", || {
        a.counters().refused(because) > 0
            && (b.counters().refused(because) > 0 || because == RefusedBecause::Certificate)
    })
    .await;
    match a.call(b.me().node, Lane::Data, Service::ADMIN, "x".into(), SOON).await {
        Err(CallError::Unreachable { cause, .. }) => assert!(cause.contains(says), "{cause}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(a.peer(b.me().node).unwrap().reach, Reach::Unreachable(cause) if cause.contains(says)));
    let known = a.call_addr(b.local_addr(), Lane::Bulk, Service::FACTS, Bytes::new(), SOON).await;
    assert!(matches!(&known, Err(AddrCallError::Unreachable { cause, .. }) if cause.contains(says)), "{known:?}");
    assert_eq!((a.counters().connections_out, b.counters().connections_in), (0, 0));
}

#[tokio::test]
async fn another_secret_is_refused_by_name() {
    let (a, b) = (start(run(A, 1), secret("one")).await, start(run(B, 1), secret("two")).await);
    refused(&a, &b, RefusedBecause::Secret, "another secret").await;
}

#[tokio::test]
async fn a_secret_is_changed_while_the_cluster_runs() {
    let both = Security::Secret(Secret::new("new").also("old"));
    let (a, b) = pair(secret("old")).await;
    echo(&*b);
    b.set_security(both.clone());
    let call = || a.call_addr(b.local_addr(), Lane::Data, Service::ADMIN, "x".into(), SOON);
    assert!(call().await.is_ok(), "the old one is let in");
    a.set_security(both);
    assert!(call().await.is_ok(), "and the new one");
    b.set_security(secret("new"));
    assert!(call().await.is_ok());
    a.set_security(secret("old"));
    assert!(matches!(call().await, Err(AddrCallError::Unreachable { .. })), "no longer");
    assert_eq!(a.call(B, Lane::Raft, Service::ADMIN, "x".into(), SOON).await, Ok("x".into()), "what stands stays");
}

#[tokio::test]
async fn another_env_is_refused_by_name_whatever_the_security() {
    for security in [Security::Plain, secret("s"), tls("cluster")] {
        let mut other = config(run(A, 1), security.clone());
        other.env = "other".into();
        let (a, b) = (Rpc::start(other).await.unwrap(), start(run(B, 1), security).await);
        refused(&a, &b, RefusedBecause::Env, "another env 'test'").await;
    }
}

#[tokio::test]
async fn another_security_is_refused_by_name() {
    let all = [(Security::Plain, "plain"), (secret("s"), "a secret"), (tls("cluster"), "TLS")];
    for (i, (ours, _)) in all.iter().enumerate() {
        for (_, (theirs, name)) in all.iter().enumerate().filter(|(j, _)| *j != i) {
            let (a, b) = (start(run(A, 1), ours.clone()).await, start(run(B, 1), theirs.clone()).await);
            refused(&a, &b, RefusedBecause::Mode, name).await;
        }
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_or_for_another_name_is_refused() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for stranger in [theirs.tls("cluster", "cluster"), ours.tls("client", "cluster")] {
        let (a, b) = (start(run(A, 1), stranger).await, start(run(B, 1), ours.tls("cluster", "cluster")).await);
        refused(&a, &b, RefusedBecause::Certificate, "certificate").await;
        refused(&b, &a, RefusedBecause::Certificate, "certificate").await;
    }
}

#[tokio::test]
async fn another_version_is_refused_by_name() {
    let b = start(run(B, 1), Security::Plain).await;
    let mut tcp = TcpStream::connect(b.local_addr()).await.unwrap();
    tcp.write_all(b"HRMD\x00\x02\x00\x00").await.unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"HRMD\x00\x01\x00\x01", "it says its own version");
    eventually("it is counted", || b.counters().refused(RefusedBecause::Version) == 1).await;
}

#[tokio::test]
async fn an_address_that_leads_to_another_node_or_an_older_run_is_not_used() {
    let (a, b) = (start(run(A, 1), secret("s")).await, start(run(B, 1), secret("s")).await);
    refused_as(&a, &b, run(base_types::NodeId(9), 1), "another node").await;
    refused_as(&a, &b, run(B, 2), "older run").await;
}

async fn refused_as(a: &Rpc, b: &Rpc, told: NodeIncarnation, says: &str) {
    a.set_peer(told, b.local_addr());
    eventually(
        "it is unreachable",
        || matches!(a.peer(told.node).unwrap().reach, Reach::Unreachable(cause) if cause.contains(says)),
    )
    .await;
    a.forget_peer(told.node);
}

#[tokio::test]
async fn a_node_finds_itself_behind_an_address() {
    let a = start(run(A, 1), secret("s")).await;
    let addr = a.local_addr();
    let itself = a.call_addr(addr, Lane::Bulk, Service::FACTS, Bytes::new(), SOON).await;
    assert_eq!(itself, Err(AddrCallError::Itself { addr }));
}

#[tokio::test]
async fn one_who_says_nothing_is_dropped_and_many_of_them_keep_nobody_out() {
    let mut patient = config(run(B, 1), secret("s"));
    patient.timing = Timing { prove: Duration::from_millis(300), ..patient.timing };
    patient.bounds.unproven = 16;
    let (a, b) = (start(run(A, 1), secret("s")).await, Rpc::start(patient).await.unwrap());
    echo(&*b);
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(TcpStream::connect(b.local_addr()).await.unwrap());
    }
    let (from, reply) = a.call_addr(b.local_addr(), Lane::Data, Service::ADMIN, "x".into(), SOON).await.unwrap();
    assert_eq!((from, &reply[..]), (b.me(), &b"x"[..]));
    eventually("the rest is too slow", || b.counters().refused(RefusedBecause::Slow) >= 10).await;
    assert!(b.counters().refused(RefusedBecause::TooMany) >= 80);
    for mut tcp in idle {
        assert!(!matches!(tcp.read(&mut [0; 8]).await, Ok(1..)), "closed");
    }
}

/// What a plain node says first, as run `incarnation` of node 77, to node 2, on its first connection.
fn plain_hello(incarnation: u64) -> Vec<u8> {
    plain_hello_of(incarnation, 1)
}

fn plain_hello_of(incarnation: u64, connection: u64) -> Vec<u8> {
    let mut hello = b"\x04test".to_vec();
    hello.extend_from_slice(&77u64.to_be_bytes());
    hello.extend_from_slice(&incarnation.to_be_bytes());
    hello.push(1);
    hello.extend_from_slice(&2u64.to_be_bytes());
    hello.push(1);
    hello.extend_from_slice(&connection.to_be_bytes());
    let mut all = b"HRMD\x00\x01\x00\x00".to_vec();
    all.extend_from_slice(&u16::try_from(hello.len()).unwrap().to_be_bytes());
    all.extend_from_slice(&hello);
    all
}

/// A node that is sent `bytes` over and over, and still answers those who belong to it.
fn survives(security: Security, bytes: impl Strategy<Value = Vec<u8>>, cases: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (a, b): (Arc<Rpc>, Arc<Rpc>) = runtime.block_on(pair(security));
    echo(&*b);
    let result = TestRunner::new(Config { cases, ..Config::default() }).run(&bytes, |bytes| {
        runtime.block_on(async {
            let mut tcp = TcpStream::connect(b.local_addr()).await.unwrap();
            // It may close before it has read all.
            let _ = tcp.write_all(&bytes).await;
            let _ = tcp.shutdown().await;
            let _ = tokio::time::timeout(SOON, tcp.read_to_end(&mut Vec::new())).await.expect("it is closed");
            assert_eq!(a.call(B, Lane::Data, Service::ADMIN, "x".into(), SOON).await, Ok("x".into()));
        });
        Ok(())
    });
    result.unwrap();
}

fn junk() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..600)
}

#[test]
fn any_bytes_before_the_proof_harm_nobody() {
    for (mode, security) in [(0, Security::Plain), (1, secret("s")), (2, tls("cluster"))] {
        let begun = (0usize..12, junk()).prop_map(move |(kept, junk)| {
            let begin = [72, 82, 77, 68, 0, 1, mode, 0, 0, 90, 4, b't'];
            [&begin[..kept], &junk].concat()
        });
        survives(security, begun, 64);
    }
}

#[test]
fn any_bytes_after_the_hello_harm_nobody() {
    let incarnations = AtomicU64::new(0);
    let after = (0usize..80, junk()).prop_map(move |(cut, junk)| {
        let mut bytes = plain_hello(incarnations.fetch_add(1, Relaxed));
        bytes.truncate(bytes.len().saturating_sub(cut.saturating_sub(40)));
        bytes.extend_from_slice(&junk);
        bytes
    });
    survives(Security::Plain, after, 128);
}

#[tokio::test]
async fn a_claim_of_a_length_that_is_too_large_ends_the_connection() {
    let b = start(run(B, 1), Security::Plain).await;
    let mut tcp = TcpStream::connect(b.local_addr()).await.unwrap();
    tcp.write_all(&[&plain_hello(1)[..], &[0xff; 4]].concat()).await.unwrap();
    let ended = tokio::time::timeout(SOON, tcp.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "closed by the node");
    eventually("it is counted", || b.counters().refused(RefusedBecause::Protocol) == 1).await;
}

/// A one-way message with a number, as it is on the wire.
fn one_way(number: u8) -> [u8; 14] {
    [0, 0, 0, 10, 2, Service::LIVE.0, 0, 0, 0, 0, 0, 0, 0, number]
}

#[tokio::test]
async fn a_connection_that_was_replaced_is_not_heard_any_more() {
    let b = start(run(B, 1), Security::Plain).await;
    let seen = Collected::serve(&*b, Service::LIVE);
    let connect = async |hello: Vec<u8>| {
        let mut tcp = TcpStream::connect(b.local_addr()).await.unwrap();
        tcp.write_all(&hello).await.unwrap();
        // The preface, and a welcome of 23 bytes with its length.
        tcp.read_exact(&mut [0; 32]).await.unwrap();
        tcp
    };
    let mut first = connect(plain_hello_of(5, 7)).await;
    first.write_all(&one_way(1)).await.unwrap();
    eventually("the first is heard", || seen.numbers() == [1]).await;
    let mut second = connect(plain_hello_of(5, 8)).await;
    second.write_all(&one_way(2)).await.unwrap();
    eventually("the second is heard", || seen.numbers() == [1, 2]).await;
    let _ = first.write_all(&one_way(3)).await;
    let mut late = connect(plain_hello_of(5, 6)).await;
    let _ = late.write_all(&one_way(4)).await;
    for old in [&mut first, &mut late] {
        assert!(!matches!(old.read(&mut [0; 1]).await, Ok(1..)), "it is closed");
    }
    let mut newer = connect(plain_hello_of(6, 1)).await;
    newer.write_all(&one_way(5)).await.unwrap();
    assert!(!matches!(second.read(&mut [0; 1]).await, Ok(1..)), "with its run");
    eventually("the newer run is heard", || seen.numbers() == [1, 2, 5]).await;
    assert_eq!(b.counters().refused(RefusedBecause::Superseded), 1);
}

#[tokio::test]
async fn connections_are_limited_and_one_who_asks_without_reading_costs_a_bounded_amount() {
    let mut small = config(run(B, 1), Security::Plain);
    small.bounds.connections = 1;
    let b = Rpc::start(small).await.unwrap();
    b.serve(Service::LIVE, Arc::new(|_: NodeIncarnation, _: Bytes, reply: Reply| reply.send(vec![0; 1 << 20].into())));
    let mut greedy = TcpStream::connect(b.local_addr()).await.unwrap();
    greedy.write_all(&plain_hello(1)).await.unwrap();
    greedy.read_exact(&mut [0; 32]).await.unwrap();
    let mut request = one_way(1);
    request[4] = 1;
    // Ten thousand replies of a MiB do not fit into any machine.
    let asking = tokio::spawn(async move {
        let _ = greedy.write_all(&request.repeat(10_000)).await;
        greedy
    });
    let data = Lane::Data.index();
    eventually("replies are dropped", || b.counters().lanes[data].busy > 0).await;
    let a = start(run(A, 1), Security::Plain).await;
    refused_with(&a, &b, RefusedBecause::TooMany).await;
    drop(asking);
}

async fn refused_with(a: &Rpc, b: &Rpc, because: RefusedBecause) {
    a.set_peer(b.me(), b.local_addr());
    eventually("both count it", || [a, b].iter().all(|node| node.counters().refused(because) > 0)).await;
}

#[tokio::test]
async fn changed_bytes_of_a_sealed_connection_end_it() {
    let (a, b) = (start(run(A, 1), secret("s")).await, start(run(B, 1), secret("s")).await);
    echo(&*b);
    // A man in the middle who changes one byte some way into the stream.
    let listener = base_rpc::net::TcpListener::bind(common::any_port()).await.unwrap();
    let middle = listener.local_addr().unwrap();
    let to = b.local_addr();
    tokio::spawn(async move {
        while let Ok((from, _)) = listener.accept().await {
            tokio::spawn(async move {
                let ((mut a, mut b), (mut c, mut d)) =
                    (from.into_split(), TcpStream::connect(to).await.unwrap().into_split());
                tokio::spawn(async move { tokio::io::copy(&mut c, &mut b).await });
                let (mut seen, mut buffer) = (0, vec![0; 4096]);
                while let Ok(n @ 1..) = a.read(&mut buffer).await {
                    let (before, target) = (seen, 2000);
                    seen += n;
                    if before <= target && target < seen {
                        buffer[target - before] ^= 1;
                    }
                    if d.write_all(&buffer[..n]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    a.set_peer(b.me(), middle);
    let body = Bytes::from(vec![1; 4000]);
    let call = a.call(B, Lane::Data, Service::ADMIN, body, SOON).await;
    assert_eq!(call, Err(CallError::Lost { to: B }));
    eventually("it is counted", || b.counters().refused(RefusedBecause::Protocol) > 0).await;
}
