//! What does a match cost with 1,000 and with 1,000,000 routes to inboxes, and how much memory does a route take in the index?
//!
//! `cargo bench -p dist-worker`. 200 clients, one route each to filters `s/{client}/{n}/x`, added by commands of one route through the
//! coprocessor, over a space that keeps nothing. Bytes are the growth of the resident set.

use base_kv_api::{ApplyCx, Coproc, KvError, KvRead, KvSpace, MutateError, MutateFuture, RangeClient, Visit};
use base_types::{
    ClientId, Incarnation, NodeId, NodeIncarnation, SubscriptionFilter, SubscriptionOptions, TenantId, TopicName,
    WallMs,
};
use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use dist_api::{DistService, Matches, Receiver, Route};
use dist_worker::{DistCoproc, DistWorker, RouteIndex};
use std::hint::black_box;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// A space without memory.
struct Nowhere;

impl KvRead for Nowhere {
    fn get(&self, _: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(None)
    }
    fn scan(&self, _: Range<&[u8]>, _: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), KvError> {
        Ok(())
    }
}

impl KvSpace for Nowhere {
    fn put(&mut self, _: &[u8], _: &[u8]) {}
    fn delete(&mut self, _: &[u8]) {}
    fn delete_range(&mut self, _: Range<&[u8]>) {}
}

/// A range that applies at once.
struct Direct(Mutex<DistCoproc>);

#[async_trait::async_trait]
impl RangeClient for Direct {
    fn mutate(&self, _: &[u8], command: Bytes) -> MutateFuture {
        let cx = ApplyCx { index: 1, position: 0, stamped: WallMs(0) };
        let mut coproc = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = coproc.mutate(&cx, &command, &mut Nowhere);
        coproc.applied();
        Box::pin(async move { reply.map_err(|_| MutateError::Unknown) })
    }
    fn read(&self, _: &[u8], with: &mut dyn FnMut(&dyn KvRead) -> Result<(), KvError>) -> Result<(), KvError> {
        with(&Nowhere)
    }
    async fn linearize(&self, _: &[u8]) -> Result<(), MutateError> {
        Ok(())
    }
    async fn ready(&self) {}
}

const CLIENTS: usize = 200;

fn filled(routes: usize) -> Option<Arc<RouteIndex>> {
    let own = NodeIncarnation { node: NodeId(1), incarnation: Incarnation(1) };
    let (coproc, index) = DistCoproc::new(own);
    let worker = DistWorker::new(Arc::new(Direct(Mutex::new(coproc))), Arc::clone(&index));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().ok()?;
    for i in 0..routes {
        let (client, n) = (i % CLIENTS, i / CLIENTS);
        let route = Route {
            tenant: TenantId::default(),
            filter: SubscriptionFilter::parse(&format!("s/{client}/{n}/x").into()).ok()?,
            receiver: Receiver::Inbox {
                client: ClientId::new(format!("client-{client}")).ok()?,
                incarnation: 1,
                attach: 1,
                options: SubscriptionOptions::default(),
            },
        };
        runtime.block_on(worker.add(vec![route])).ok()?;
    }
    Some(index)
}

/// Bytes of this process that are in memory (Linux).
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn matching(c: &mut Criterion) {
    for routes in [1_000, 1_000_000] {
        let (before, start) = (resident(), Instant::now());
        let Some(index) = filled(routes) else { return };
        println!(
            "{routes} routes: {} bytes and {} ns each",
            resident().saturating_sub(before) / routes,
            start.elapsed().as_nanos() / routes as u128
        );
        let (tenant, mut found) = (TenantId::default(), Matches::default());
        let mut bench = |name: &str, topic: &str| {
            let Ok(topic) = TopicName::new(topic.to_owned()) else { return };
            c.bench_function(&format!("{name} among {routes}"), |b| {
                b.iter(|| {
                    found.clear();
                    index.matches(&tenant, black_box(&topic), &mut found);
                    found.inboxes.len()
                });
            });
        };
        bench("one match", "s/17/3/x");
        bench("no match", "s/17/none");
    }
}

criterion_group!(benches, matching);
criterion_main!(benches);
