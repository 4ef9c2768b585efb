//! Links that are cut at random, nodes that lose power, leaders that are sent away, while all nodes take commands.

use super::harness::{Cluster, SOON, command, soon};
use crate::{Range, Role};
use base_kv_api::balance::Command;
use base_kv_api::{MutateError, RangeClient};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// xorshift: the same faults for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

/// What callers were told.
#[derive(Default)]
struct Told {
    answered: Mutex<BTreeSet<u64>>,
    /// These were surely not done.
    refused: Mutex<BTreeSet<u64>>,
    unknown: AtomicU64,
    stale: Mutex<Vec<u64>>,
    reads: AtomicU64,
}

const NODE: u64 = 1 << 40;

/// Calls of one node, in ascending numbers, a few at a time, as long as its host runs.
async fn call(node: u64, range: Range, next: Arc<AtomicU64>, told: Arc<Told>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let replies: Vec<_> = (0..3)
            .map(|_| {
                let n = node * NODE + next.fetch_add(1, Ordering::Relaxed);
                (n, range.mutate(b"", command(n)))
            })
            .collect();
        for (n, reply) in replies {
            match reply.await {
                Ok(reply) => {
                    assert_eq!(reply, command(n));
                    told.answered.lock().insert(n);
                }
                Err(MutateError::Unknown) => _ = told.unknown.fetch_add(1, Ordering::Relaxed),
                Err(_) => _ = told.refused.lock().insert(n),
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Reads that must see whatever was answered before.
async fn read(range: Range, told: Arc<Told>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let newest: Vec<u64> = {
            let answered = told.answered.lock();
            (0..3).filter_map(|node| answered.range(node * NODE..(node + 1) * NODE).next_back().copied()).collect()
        };
        if range.linearize(b"").await.is_ok()
            && let Some(found) = super::harness::journal(&range)
            // The disk of a node that loses power forgets under the reader.
            && !stop.load(Ordering::Relaxed)
        {
            told.reads.fetch_add(1, Ordering::Relaxed);
            told.stale.lock().extend(newest.into_iter().filter(|n| !found.contains(n)));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

struct Running {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Running {
    fn begin(cluster: &Cluster, node: usize, next: &Arc<AtomicU64>, told: &Arc<Told>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let range = || cluster.range(node).clone();
        let tasks = vec![
            tokio::spawn(call(node as u64, range(), Arc::clone(next), Arc::clone(told), Arc::clone(&stop))),
            tokio::spawn(read(range(), Arc::clone(told), Arc::clone(&stop))),
        ];
        Self { stop, tasks }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            soon(task).await.unwrap();
        }
    }
}

async fn one_run(seed: u64, length: Duration) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut cluster = Cluster::with_deadline(3, Duration::from_millis(1500)).await;
    cluster.grow().await;
    let told = Arc::<Told>::default();
    let next: Vec<_> = (0..3).map(|_| Arc::new(AtomicU64::new(0))).collect();
    let mut running: Vec<_> = (0..3).map(|node| Some(Running::begin(&cluster, node, &next[node], &told))).collect();
    let mut faults = BTreeMap::<&str, u32>::new();
    let until = Instant::now() + length;
    while Instant::now() < until {
        let node = random.below(3) as usize;
        let other = (node + 1 + random.below(2) as usize) % 3;
        let fault = match random.below(9) {
            0 => {
                cluster.cut(node, other);
                "one-way cut"
            }
            1 => {
                cluster.cut(node, other);
                cluster.cut(other, node);
                "cut"
            }
            2 => {
                cluster.isolate(node);
                "isolated"
            }
            3 | 4 => {
                // Its callers are told before it is gone.
                let callers = running[node].take().unwrap();
                callers.stop.store(true, Ordering::Relaxed);
                if random.below(2) == 0 {
                    cluster.crash(node).await
                } else {
                    cluster.kill(node).await
                }
                callers.end().await;
                tokio::time::sleep(Duration::from_millis(random.below(900))).await;
                cluster.start(node).await;
                running[node] = Some(Running::begin(&cluster, node, &next[node], &told));
                "killed"
            }
            5 => {
                let view = cluster.view(node);
                if view.role == Role::Leader
                    && let Some(to) = view.voters.keys().find(|id| **id != view.replica)
                {
                    let transfer = Command::TransferLeader { range: view.range, to: *to };
                    let _ = soon(cluster.node(node).execute("inbox", transfer)).await;
                }
                "transferred"
            }
            _ => {
                cluster.hub.heal();
                "healed"
            }
        };
        *faults.entry(fault).or_default() += 1;
        tokio::time::sleep(Duration::from_millis(100 + random.below(900))).await;
    }
    cluster.hub.heal();
    for callers in running.into_iter().flatten() {
        callers.end().await;
    }
    // It works again, everywhere.
    let healed = Instant::now();
    for (node, next) in next.iter().enumerate() {
        loop {
            let n = node as u64 * NODE + next.fetch_add(1, Ordering::Relaxed);
            if soon(cluster.range(node).mutate(b"", command(n))).await.is_ok() {
                told.answered.lock().insert(n);
                break;
            }
            assert!(healed.elapsed() < SOON);
        }
    }
    let recovered = healed.elapsed();
    cluster.assert_alike().await;
    let found = cluster.journal(0);
    let (answered, refused) = (told.answered.lock().clone(), told.refused.lock().clone());
    println!(
        "seed {seed}: {} answered, {} refused, {} unknown, {} fresh reads, {faults:?}, well again after {recovered:?}",
        answered.len(),
        refused.len(),
        told.unknown.load(Ordering::Relaxed),
        told.reads.load(Ordering::Relaxed),
    );
    let distinct: BTreeSet<u64> = found.iter().copied().collect();
    assert_eq!(distinct.len(), found.len(), "seed {seed}: applied twice");
    let lost: Vec<_> = answered.difference(&distinct).collect();
    assert!(lost.is_empty(), "seed {seed}: answered and lost: {lost:?}");
    let undead: Vec<_> = refused.intersection(&distinct).collect();
    assert!(undead.is_empty(), "seed {seed}: refused and done: {undead:?}");
    for node in 0..3 {
        let of_one: Vec<u64> = found.iter().copied().filter(|n| n / NODE == node).collect();
        assert!(of_one.is_sorted(), "seed {seed}: node {node} out of order");
    }
    let stale = std::mem::take(&mut *told.stale.lock());
    assert!(stale.is_empty(), "seed {seed}: read before they were there: {stale:?}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_random_faults_every_command_is_applied_once_at_most_and_none_that_was_answered_is_lost() {
    let number = |name, default| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (first, seeds, seconds) = (number("CHAOS_SEED", 1), number("CHAOS_SEEDS", 2), number("CHAOS_SECONDS", 6));
    for seed in first..first + seeds {
        one_run(seed, Duration::from_secs(seconds)).await;
    }
}
