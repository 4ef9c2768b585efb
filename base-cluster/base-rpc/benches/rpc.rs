//! What a message between two nodes costs: wall time by criterion, CPU time of both ends by the process clock.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a failure here is the finding")]

use base_rpc::{CallError, Lane, Listen, Mesh, Reply, Rpc, RpcConfig, Secret, Security, Service, Tls};
use base_types::{Incarnation, NodeId, NodeIncarnation};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

const B: NodeId = NodeId(2);
const SOON: Duration = Duration::from_secs(30);
/// Calls that are under way at once, unless they are large.
const WINDOW: usize = 32;

async fn node(node: u64, security: &Security) -> Arc<Rpc> {
    let me = NodeIncarnation { node: NodeId(node), incarnation: Incarnation(1) };
    let listen = Listen::Bind((Ipv4Addr::LOCALHOST, 0).into());
    Rpc::start(RpcConfig::new(me, "bench", listen, security.clone())).await.unwrap()
}

fn tls() -> Security {
    let cert = rcgen::generate_simple_self_signed(vec!["bench".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(cert.signing_key.serialize_der()).unwrap();
    let der = cert.cert.der().clone();
    Security::Tls(Tls::new(vec![der.clone()], key, vec![der], "bench").unwrap())
}

async fn pair(security: Security) -> (Arc<Rpc>, Arc<Rpc>) {
    let (a, b) = (node(1, &security).await, node(2, &security).await);
    a.set_peer(b.me(), b.local_addr());
    b.serve(Service::LIVE, Arc::new(|_: NodeIncarnation, _: Bytes, reply: Reply| reply.send(Bytes::new())));
    let first = a.call(B, Lane::Data, Service::LIVE, Bytes::new(), SOON).await;
    assert!(first.is_ok(), "{first:?}");
    (a, b)
}

/// So many calls, a window of them at once.
async fn calls(a: &Rpc, many: u64, body: &Bytes) {
    let limit = WINDOW.min((8 << 20) / body.len().max(1));
    let mut window = VecDeque::with_capacity(limit);
    for _ in 0..many {
        if window.len() == limit {
            let call: base_rpc::CallFuture = window.pop_front().unwrap();
            call.await.unwrap();
        }
        window.push_back(a.call(B, Lane::Data, Service::LIVE, body.clone(), SOON));
    }
    for call in window {
        call.await.unwrap();
    }
}

/// So many messages without replies, and a call behind them.
async fn sends(a: &Rpc, many: u64, body: &Bytes) {
    for _ in 0..many {
        while let Err(error) = a.send(B, Lane::Data, Service::LIVE, body.clone()) {
            assert_eq!(error, CallError::Busy { to: B });
            tokio::task::yield_now().await;
        }
    }
    while a.call(B, Lane::Data, Service::LIVE, Bytes::new(), SOON).await.is_err() {
        tokio::task::yield_now().await;
    }
}

/// CPU time of the process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let main = stat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
    let mut all = 0u64;
    if let Ok(tasks) = std::fs::read_dir("/proc/self/task") {
        for task in tasks.flatten() {
            let stat = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            all += stat.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Duration::from_nanos(all.max(main))
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn measure(c: &mut Criterion) {
    let shapes: [(&str, u64, usize, bool); 4] = [
        ("call, 300 B", 1, 300, true),
        ("call, 64 x 300 B", 64, 64 * 300, true),
        ("send, 300 B", 1, 300, false),
        ("call, 1 MiB", 1, 1 << 20, true),
    ];
    let securities = [("plain", Security::Plain), ("secret", Security::Secret(Secret::new("bench"))), ("tls", tls())];
    for (name, security) in securities {
        let runtime = runtime();
        let (a, _b) = runtime.block_on(pair(security));
        let mut group = c.benchmark_group(name);
        for (shape, messages, size, replies) in shapes {
            let body = Bytes::from(vec![7; size]);
            group.throughput(Throughput::Elements(messages));
            let (mut used, mut done) = (Duration::ZERO, 0);
            group.bench_function(shape, |bencher| {
                bencher.iter_custom(|many| {
                    let (began, cpu_began) = (Instant::now(), cpu());
                    let (a, body) = (Arc::clone(&a), body.clone());
                    let run = async move {
                        if replies { calls(&a, many, &body).await } else { sends(&a, many, &body).await }
                    };
                    runtime.block_on(runtime.spawn(run)).unwrap();
                    used += cpu().saturating_sub(cpu_began);
                    done += many * messages;
                    began.elapsed()
                });
            });
            if done == 0 {
                continue;
            }
            println!("{name}, {shape}: {:.3} us CPU of both ends per message", used.as_secs_f64() * 1e6 / done as f64);
        }
    }
}

criterion_group!(benches, measure);
criterion_main!(benches);
