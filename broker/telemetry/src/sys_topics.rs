//! `$SYS/broker/…` by the names of Mosquitto (mosquitto(8), "Broker status").

use crate::table::{self, Metric};
use crate::{Metrics, Samples};
use std::time::Duration;

/// The minutes over which loads are averaged.
const MINUTES: [(&str, f64); 3] = [("1min", 1.0), ("5min", 5.0), ("15min", 15.0)];

/// What is averaged, by the part of the topic between `load/` and the minutes.
static LOADS: [(&str, &Metric); 7] = [
    ("messages/received", &table::PACKETS_RECEIVED),
    ("messages/sent", &table::PACKETS_SENT),
    ("bytes/received", &table::BYTES_RECEIVED),
    ("bytes/sent", &table::BYTES_SENT),
    ("publish/received", &table::MESSAGES_RECEIVED),
    ("publish/sent", &table::MESSAGES_SENT),
    ("connections", &table::CONNECTS),
];

/// Remembers between two rounds what averages and maxima need.
#[derive(Debug, Default)]
pub struct SysTopics {
    maximum: f64,
    loads: [Load; 7],
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    last: f64,
    /// Per minute, one for each of [`MINUTES`].
    averages: [f64; MINUTES.len()],
}

impl SysTopics {
    /// All topics behind `$SYS/broker/` with their payloads, to be published retained; `passed` is the time since the last call.
    pub fn round(&mut self, metrics: &Metrics, passed: Duration) -> Vec<(String, String)> {
        let samples = metrics.samples();
        let mut topics: Vec<(String, String)> = vec![
            ("version".into(), format!("hermod version {}", metrics.build().version)),
            ("uptime".into(), format!("{} seconds", metrics.uptime().as_secs())),
        ];
        for (topic, value) in self.figures(&samples) {
            topics.push((topic.into(), value.to_string()));
        }
        for ((name, metric), load) in LOADS.iter().zip(&mut self.loads) {
            load.update(samples.sum(metric), passed);
            for ((minutes, _), average) in MINUTES.iter().zip(load.averages) {
                topics.push((format!("load/{name}/{minutes}"), format!("{average:.2}")));
            }
        }
        topics
    }

    fn figures(&mut self, samples: &Samples) -> Vec<(&'static str, f64)> {
        let connected = samples.sum(&table::CLIENTS);
        let disconnected = samples.get(&table::SESSIONS, &["disconnected"]);
        let total = connected + disconnected;
        self.maximum = self.maximum.max(total);
        let queued = samples.sum(&table::QUEUED_MESSAGES);
        vec![
            ("clients/connected", connected),
            ("clients/active", connected),
            ("clients/disconnected", disconnected),
            ("clients/inactive", disconnected),
            ("clients/total", total),
            ("clients/maximum", self.maximum),
            ("messages/received", samples.sum(&table::PACKETS_RECEIVED)),
            ("messages/sent", samples.sum(&table::PACKETS_SENT)),
            ("messages/stored", queued + samples.sum(&table::RETAINED_MESSAGES)),
            ("publish/messages/received", samples.sum(&table::MESSAGES_RECEIVED)),
            ("publish/messages/sent", samples.sum(&table::MESSAGES_SENT)),
            ("publish/messages/dropped", samples.sum(&table::DROPPED)),
            ("publish/bytes/received", samples.sum(&table::PAYLOAD_RECEIVED)),
            ("publish/bytes/sent", samples.sum(&table::PAYLOAD_SENT)),
            ("bytes/received", samples.sum(&table::BYTES_RECEIVED)),
            ("bytes/sent", samples.sum(&table::BYTES_SENT)),
            ("retained messages/count", samples.sum(&table::RETAINED_MESSAGES)),
            ("store/messages/count", queued + samples.sum(&table::RETAINED_MESSAGES)),
            ("store/messages/bytes", samples.sum(&table::QUEUED_BYTES) + samples.sum(&table::RETAINED_BYTES)),
            ("subscriptions/count", samples.sum(&table::SUBSCRIPTIONS)),
            ("shared_subscriptions/count", samples.sum(&table::SHARED_SUBSCRIPTIONS)),
            ("heap/current", samples.sum(&table::PROCESS_RSS)),
        ]
    }
}

impl Load {
    /// Exponentially decaying averages, as the load of Unix is computed.
    fn update(&mut self, count: f64, passed: Duration) {
        let minutes = passed.as_secs_f64() / 60.0;
        if minutes <= 0.0 {
            return;
        }
        let rate = (count - self.last).max(0.0) / minutes;
        self.last = count;
        for ((_, over), average) in MINUTES.iter().zip(&mut self.averages) {
            *average = rate + (-minutes / over).exp() * (*average - rate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BuildInfo, PacketKind, ProtocolVersion};
    use base_types::QoS;
    use std::collections::HashMap;

    const TEN_SECONDS: Duration = Duration::from_secs(10);

    #[test]
    fn the_usual_topics_carry_what_was_counted() {
        let metrics = Metrics::new(BuildInfo { version: "1.2.3", commit: "" });
        let shard = metrics.shard();
        shard.clients[ProtocolVersion::V5].add(2);
        shard.packets_received[PacketKind::PingReq].add(5);
        shard.messages_sent[QoS::AtMostOnce].add(7);
        metrics.node().dropped.add("expired", 3);
        metrics.on_scrape(|out| {
            out.add(&table::SESSIONS, &["disconnected"], 4.0);
            out.add(&table::RETAINED_MESSAGES, &[], 9.0);
        });
        let mut sys = SysTopics::default();
        let first: HashMap<_, _> = sys.round(&metrics, TEN_SECONDS).into_iter().collect();
        for (topic, payload) in [
            ("version", "hermod version 1.2.3"),
            ("clients/connected", "2"),
            ("clients/disconnected", "4"),
            ("clients/total", "6"),
            ("messages/received", "5"),
            ("publish/messages/sent", "7"),
            ("publish/messages/dropped", "3"),
            ("retained messages/count", "9"),
        ] {
            assert_eq!(first.get(topic).map(String::as_str), Some(payload), "{topic}");
        }
        assert!(first["uptime"].ends_with(" seconds"));
        shard.clients[ProtocolVersion::V5].dec();
        let second: HashMap<_, _> = sys.round(&metrics, TEN_SECONDS).into_iter().collect();
        assert_eq!((second["clients/connected"].as_str(), second["clients/maximum"].as_str()), ("1", "6"));
    }

    #[test]
    fn a_load_approaches_the_rate_per_minute_and_fades() {
        let mut load = Load::default();
        for round in 1..=60 {
            load.update(f64::from(round) * 100.0, TEN_SECONDS);
        }
        let [one, five, fifteen] = load.averages;
        assert!((one - 600.0).abs() < 1.0 && five < one && fifteen < five, "{load:?}");
        for _ in 0..60 {
            load.update(6000.0, TEN_SECONDS);
        }
        assert!(load.averages[0] < 1.0, "{load:?}");
    }
}
