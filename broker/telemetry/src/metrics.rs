//! All that is counted on a node.

use crate::encode::encode;
use crate::table::{self, NodeMetrics, ShardCounters};
use crate::{Samples, process};
use parking_lot::Mutex;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What runs here.
#[derive(Clone, Copy, Debug)]
pub struct BuildInfo {
    /// `0.1.0`.
    pub version: &'static str,
    /// The commit it was built from, if known.
    pub commit: &'static str,
}

type Read = Box<dyn Fn(&mut Samples) + Send + Sync>;

/// The metrics of a node: what is counted, and who is asked at a scrape.
pub struct Metrics {
    node: NodeMetrics,
    shards: Mutex<Vec<Arc<ShardCounters>>>,
    asked: Mutex<Vec<Arc<Read>>>,
    build: BuildInfo,
    started: Instant,
    started_unix: Duration,
}

/// The counters of one shard, `metrics.messages_received[qos].inc()`. There is one handle, and it stays on one thread at a time, so that counting
/// is a plain load and store.
#[derive(Debug)]
pub struct ShardMetrics {
    counters: Arc<ShardCounters>,
    /// Not `Sync`.
    one_thread: PhantomData<Cell<()>>,
}

impl Deref for ShardMetrics {
    type Target = ShardCounters;

    fn deref(&self) -> &ShardCounters {
        &self.counters
    }
}

impl Metrics {
    /// Nothing counted yet; the uptime begins.
    pub fn new(build: BuildInfo) -> Arc<Self> {
        let started_unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Arc::new(Self {
            node: NodeMetrics::default(),
            shards: Mutex::default(),
            asked: Mutex::default(),
            build,
            started: Instant::now(),
            started_unix,
        })
    }

    /// The counters of one more shard.
    pub fn shard(&self) -> ShardMetrics {
        let counters = Arc::<ShardCounters>::default();
        self.shards.lock().push(Arc::clone(&counters));
        ShardMetrics { counters, one_thread: PhantomData }
    }

    /// What is counted for the node as a whole.
    pub fn node(&self) -> &NodeMetrics {
        &self.node
    }

    /// At each scrape `read` adds what it knows. It must not block, and not take longer than some milliseconds.
    pub fn on_scrape(&self, read: impl Fn(&mut Samples) + Send + Sync + 'static) {
        self.asked.lock().push(Arc::new(Box::new(read)));
    }

    /// What runs here.
    pub fn build(&self) -> BuildInfo {
        self.build
    }

    /// Time since [`Metrics::new`].
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// All values now.
    pub fn samples(&self) -> Samples {
        let mut out = Samples::default();
        let shards = self.shards.lock().clone();
        for shard in &shards {
            shard.read(&mut out);
        }
        out.add(&table::SHARDS, &[], shards.len() as f64);
        self.node.read(&mut out);
        out.add(&table::BUILD_INFO, &[self.build.version, self.build.commit], 1.0);
        out.add(&table::UPTIME, &[], self.uptime().as_secs_f64());
        out.add(&table::PROCESS_START, &[], self.started_unix.as_secs_f64());
        process::read(&mut out);
        // Asked without the lock: they may take their time, or add another.
        let asked = self.asked.lock().clone();
        for read in asked {
            read(&mut out);
        }
        out
    }

    /// All values now in Prometheus text format 0.0.4.
    pub fn prometheus(&self) -> String {
        encode(&self.samples())
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("node", &self.node).field("build", &self.build).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Layer, PacketKind, ProtocolVersion};
    use base_types::QoS;

    fn metrics() -> Arc<Metrics> {
        Metrics::new(BuildInfo { version: "1.2.3", commit: "abc" })
    }

    #[test]
    fn shards_count_by_themselves_and_are_summed() {
        let metrics = metrics();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let shard = metrics.shard();
                std::thread::spawn(move || {
                    for _ in 0..10_000 {
                        shard.messages_received[QoS::AtLeastOnce].inc();
                        shard.bytes_received.add(10);
                        shard.connections[Layer::Ws].inc();
                        shard.connections[Layer::Ws].dec();
                    }
                    shard.clients[ProtocolVersion::V5].inc();
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let samples = metrics.samples();
        assert_eq!(samples.get(&table::MESSAGES_RECEIVED, &["1"]), 40_000.0, "also of shards that are gone");
        assert_eq!(samples.sum(&table::MESSAGES_RECEIVED), 40_000.0);
        assert_eq!(samples.sum(&table::BYTES_RECEIVED), 400_000.0);
        assert_eq!(samples.sum(&table::CONNECTIONS), 0.0);
        assert_eq!(samples.get(&table::CLIENTS, &["5.0"]), 4.0);
        assert_eq!(samples.sum(&table::SHARDS), 4.0);
    }

    #[test]
    fn what_is_asked_at_a_scrape_adds_to_what_was_counted() {
        let metrics = metrics();
        metrics.node().dropped.inc("expired");
        metrics.on_scrape(|out| {
            out.add(&table::DROPPED, &["expired"], 2.0);
            out.add(&table::RANGE_LEADER, &["dist", "1"], 1.0);
        });
        let text = metrics.prometheus();
        for line in [
            "hermod_messages_dropped_total{cause=\"expired\"} 3",
            "hermod_range_leader{store=\"dist\",range=\"1\"} 1",
            "hermod_build_info{version=\"1.2.3\",commit=\"abc\"} 1",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn every_packet_type_is_counted_under_its_name() {
        let shard = metrics().shard();
        for number in 1..=15 {
            shard.packets_sent[PacketKind::from_number(number).unwrap()].inc();
        }
        assert!(shard.packets_sent.iter().all(|(_, counter)| counter.get() == 1));
        assert_eq!(PacketKind::from_number(14), Some(PacketKind::Disconnect));
        assert_eq!((PacketKind::from_number(0), PacketKind::from_number(16)), (None, None));
    }
}
