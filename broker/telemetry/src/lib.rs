//! What a node tells about itself: metrics, logs, health, and the HTTP that they are read by.
//!
//! This crate does not know the broker. Whatever counts holds a [`ShardMetrics`] or [`NodeMetrics`], whatever has a state gives it when
//! asked ([`Metrics::on_scrape`]), and [`table`] names and explains it all, once: `/metrics`, `docs/metrics.md` and `$SYS` are
//! made from it.

mod counter;
mod encode;
mod histogram;
mod http;
mod label;
mod logs;
mod metrics;
mod process;
mod samples;
mod sys_topics;
pub mod table;

pub use counter::{Causes, Counter, Family, Level};
pub use histogram::{Histogram, Histograms};
pub use http::{ApiState, Readiness, Reason, Token, may_change, router, serve};
pub use label::{Label, Layer, PacketKind, ProtocolVersion, Store};
pub use logs::{LogConfig, LogError, LogFormat, LogHandle, init_logs};
pub use metrics::{BuildInfo, Metrics, ShardMetrics};
pub use samples::Samples;
pub use sys_topics::SysTopics;
pub use table::{NodeMetrics, ShardCounters};
