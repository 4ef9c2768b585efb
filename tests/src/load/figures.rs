use crate::wire::Level;
use crate::{Found, Histogram, Usage};
use serde::Serialize;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The broker under load.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it speaks MQTT.
    pub address: SocketAddr,
    /// Its process, whose time and memory are measured.
    pub pid: u32,
    /// What the clients speak.
    pub level: Level,
    /// How long is measured, where a scenario has no end of its own.
    pub measure: Duration,
    /// A directory on the disk that holds the broker's data, to measure what one fsync costs there; only for `durable`.
    pub disk: Option<PathBuf>,
}

/// What a scenario showed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// Which scenario.
    pub scenario: String,
    /// What the messages are that `cpu_per_million` counts.
    pub unit: &'static str,
    /// How many of them the measurement has.
    pub messages: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// CPU seconds of the broker, all threads, per million messages.
    pub cpu_per_million: f64,
    /// CPU seconds of the broker, per second.
    pub broker_cpu: f64,
    /// CPU seconds of the load generator, per second: near 1 it may be what limits the rate.
    pub generator_cpu: f64,
    /// Resident memory of the broker before the clients came, in bytes.
    pub rss_before: u64,
    /// The most that it had, in bytes.
    pub rss_peak: u64,
    /// From publish to delivery, in microseconds; 0 where it is not measured.
    pub p50_us: u64,
    /// The same, of 99 in 100.
    pub p99_us: u64,
    /// Loss, reorder, duplicates.
    pub found: Found,
    /// Other figures of this scenario: name, value.
    pub more: Vec<(&'static str, f64)>,
}

impl Figures {
    /// Messages per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.seconds.max(1e-9)
    }

    /// The scenario found loss, reorder or duplicates.
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        self.found != Found::default()
    }

    pub(super) fn set_latency(&mut self, latency: &Histogram) {
        self.p50_us = latency.quantile(0.5).as_micros() as u64;
        self.p99_us = latency.quantile(0.99).as_micros() as u64;
    }
}

/// A stretch of time in which the broker's and our own use is measured.
pub(super) struct Span {
    pid: u32,
    broker: Usage,
    own: Usage,
    start: Instant,
}

impl Span {
    pub(super) fn start(target: &Target) -> io::Result<Self> {
        let own = Usage::of(std::process::id())?;
        Ok(Self { pid: target.pid, broker: Usage::of(target.pid)?, own, start: Instant::now() })
    }

    /// Ends it: fills the figures for that many messages.
    pub(super) fn end(self, figures: &mut Figures, messages: u64) -> io::Result<()> {
        let seconds = self.start.elapsed().as_secs_f64();
        let broker = Usage::of(self.pid)?;
        let own = Usage::of(std::process::id())?;
        figures.messages = messages;
        figures.seconds = seconds;
        figures.cpu_per_million = (broker.cpu - self.broker.cpu) * 1e6 / messages.max(1) as f64;
        figures.broker_cpu = (broker.cpu - self.broker.cpu) / seconds;
        figures.generator_cpu = (own.cpu - self.own.cpu) / seconds;
        figures.rss_peak = broker.peak;
        Ok(())
    }
}
