//! What does a retained message cost to set, and to read by `#` or by a filter that leaps?
//!
//! `cargo bench -p retain-store`. 50,000 topics `s/{site}/{device}/x` with 200 sites, 256 bytes each, over the in-memory range: encoding,
//! apply, walking and decoding are measured, the engine is not. Pages of 256, as the broker reads them.

use base_kv_api::testing::MemRange;
use base_types::{Clock, Message, QoS, SystemClock, TenantId, TopicFilter, TopicName};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use retain_api::RetainService;
use retain_store::{RetainConfig, RetainCoproc, RetainStore};
use std::hint::black_box;
use std::sync::Arc;

const TOPICS: usize = 50_000;
const PAGE: usize = 256;

fn store() -> Option<RetainStore> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (coproc, figures) = RetainCoproc::new();
    let range = MemRange::new(coproc, Arc::clone(&clock)).ok()?;
    Some(RetainStore::new(Arc::new(range), figures, clock, RetainConfig::default()))
}

fn message(i: usize) -> Option<Arc<Message>> {
    Some(Arc::new(Message {
        topic: TopicName::new(format!("s/{}/{}/x", i % 200, i / 200)).ok()?,
        payload: Bytes::from(vec![7; 256]),
        qos: QoS::AtLeastOnce,
        retain: true,
        properties: Bytes::new(),
        expires_at: None,
        publisher: None,
    }))
}

fn read(store: &RetainStore, tenant: &TenantId, filter: &TopicFilter) -> usize {
    let (mut count, mut after) = (0, None);
    while let Ok(page) = store.matches(tenant, filter, after.as_ref(), PAGE) {
        count += page.len();
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.topic.clone()),
            _ => break,
        }
    }
    count
}

fn retained(c: &mut Criterion) {
    let (Some(store), tenant) = (store(), TenantId::default()) else { return };
    let messages: Vec<_> = (0..TOPICS).filter_map(message).collect();
    for message in &messages {
        drop(store.retain(&tenant, Arc::clone(message)));
    }
    let mut next = 0;
    c.bench_function("set", |b| {
        b.iter(|| {
            next = (next + 1) % TOPICS;
            drop(store.retain(&tenant, Arc::clone(&messages[next])));
        });
    });
    for text in ["#", "s/+/+/x", "s/17/#", "s/+/42/x", "s/17/42/x", "t/#"] {
        let Ok(filter) = TopicFilter::new(text) else { return };
        let mut group = c.benchmark_group("read");
        group.throughput(Throughput::Elements(read(&store, &tenant, &filter).max(1) as u64));
        group.bench_function(text, |b| b.iter(|| read(&store, &tenant, black_box(&filter))));
        group.finish();
    }
}

criterion_group!(benches, retained);
criterion_main!(benches);
