//! What does a match cost with 1,000 and with 1,000,000 filters, and how many bytes does a filter take?
//!
//! `cargo bench -p topic-trie`. Filters are `s/{site}/{device}/x` with 200 sites. *warm* matches one topic again and again, *spread*
//! walks over all of them in a random order, so that each node comes from memory. Bytes are the growth of the resident set.

use base_types::TopicFilter;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use topic_trie::TopicTrie;

const SITES: usize = 200;

fn topic(i: usize) -> String {
    format!("s/{}/{}/x", i % SITES, i / SITES)
}

fn trie(filters: usize) -> TopicTrie<u32> {
    let mut trie = TopicTrie::new();
    for i in 0..filters {
        if let Ok(filter) = TopicFilter::new(topic(i)) {
            trie.insert(&filter, i as u32);
        }
    }
    trie
}

/// Bytes of this process that are in memory (Linux).
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn matching(c: &mut Criterion) {
    for filters in [1_000, 1_000_000] {
        let before = resident();
        let trie = trie(filters);
        println!("{filters} filters: {} bytes each", resident().saturating_sub(before) / filters);
        let mut group = c.benchmark_group(format!("match among {filters}"));
        let count = |topic: &str| {
            let mut sum = 0;
            trie.for_each_match(black_box(topic), |v| sum += *v);
            sum
        };
        let four = topic(filters / 2);
        group.bench_function("4 levels, hit, warm", |b| b.iter(|| count(&four)));
        group.bench_function("3 levels, miss, warm", |b| b.iter(|| count("s/17/none")));
        let topics: Vec<_> = (0..4096).map(|i: usize| topic(i.wrapping_mul(2_654_435_761) % filters)).collect();
        let mut next = 0;
        group.bench_function("4 levels, hit, spread", |b| {
            b.iter_batched(
                || {
                    next += 1;
                    &topics[next % topics.len()]
                },
                |topic| count(topic),
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
    let mut wild = trie(1_000);
    for text in ["#", "s/#", "s/+/+/x", "+/+/+/+", "s/17/+/x", "+/17/3/x", "s/+/3/#", "t/+/+/x"] {
        if let Ok(filter) = TopicFilter::new(text) {
            wild.insert(&filter, 1);
        }
    }
    c.bench_function("4 levels, 8 hits by wildcards among 1008", |b| {
        b.iter(|| {
            let mut sum = 0;
            wild.for_each_match(black_box("s/17/3/x"), |v| sum += *v);
            sum
        });
    });
}

criterion_group!(benches, matching);
criterion_main!(benches);
