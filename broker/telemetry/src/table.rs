//! All metrics: name, type, unit, labels and meaning, in one place.

use crate::counter::{Causes, Counter, Family, Level, Measure};
use crate::histogram::{Histogram, Histograms};
use crate::label::{Layer, PacketKind, ProtocolVersion, Store};
use crate::samples::Samples;
use base_types::QoS;
use std::fmt::Write;

/// A row of the table.
#[derive(Debug)]
pub struct Metric {
    /// The name; it ends in its unit, and in `_total` if it only grows.
    pub name: &'static str,
    /// Whether it only grows.
    pub kind: Kind,
    /// What one is.
    pub unit: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

/// The types of Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at start.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! metrics {
    (
        $(#[$shard_meta:meta])* struct $shard:ident {
            $($s_field:ident: $s_type:ty = $s_id:ident, $s_kind:ident, $s_name:literal, $s_unit:literal, $s_help:literal;)*
        }
        $(#[$node_meta:meta])* struct $node:ident {
            $($n_field:ident: $n_type:ty = $n_id:ident, $n_kind:ident, $n_name:literal, $n_unit:literal, $n_help:literal;)*
        }
        scraped {
            $($g_id:ident [$($g_label:literal),*], $g_kind:ident, $g_name:literal, $g_unit:literal, $g_help:literal;)*
        }
    ) => {
        $(
            #[doc = $s_help]
            pub static $s_id: Metric = Metric {
                name: $s_name, kind: Kind::$s_kind, unit: $s_unit, labels: <$s_type as Measure>::LABELS, help: $s_help,
            };
        )*
        $(
            #[doc = $n_help]
            pub static $n_id: Metric = Metric {
                name: $n_name, kind: Kind::$n_kind, unit: $n_unit, labels: <$n_type as Measure>::LABELS, help: $n_help,
            };
        )*
        $(
            #[doc = $g_help]
            pub static $g_id: Metric = Metric {
                name: $g_name, kind: Kind::$g_kind, unit: $g_unit, labels: &[$($g_label),*], help: $g_help,
            };
        )*

        /// All rows.
        pub static TABLE: &[&Metric] = &[$(&$s_id,)* $(&$n_id,)* $(&$g_id,)*];

        $(#[$shard_meta])*
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct $shard { $(#[doc = $s_help] pub $s_field: $s_type,)* }

        impl $shard {
            pub(crate) fn read(&self, out: &mut Samples) {
                $(self.$s_field.read(&$s_id, out);)*
            }
        }

        $(#[$node_meta])*
        #[derive(Debug, Default)]
        pub struct $node { $(#[doc = $n_help] pub $n_field: $n_type,)* }

        impl $node {
            pub(crate) fn read(&self, out: &mut Samples) {
                $(self.$n_field.read(&$n_id, out);)*
            }
        }
    };
}

metrics! {
    /// What a shard counts, on cache lines of its own; see [`ShardMetrics`](crate::ShardMetrics).
    struct ShardCounters {
        connections: Family<Layer, Level> = CONNECTIONS, Gauge, "hermod_connections", "connections",
            "Open connections, those before CONNECT included.";
        connections_total: Family<Layer, Counter> = CONNECTIONS_TOTAL, Counter, "hermod_connections_total", "connections",
            "Connections that were accepted since the start.";
        clients: Family<ProtocolVersion, Level> = CLIENTS, Gauge, "hermod_clients", "clients",
            "Clients that are connected: CONNACK was sent.";
        connects: Family<ProtocolVersion, Counter> = CONNECTS, Counter, "hermod_connects_total", "clients",
            "CONNECT packets that were granted.";
        packets_received: Family<PacketKind, Counter> = PACKETS_RECEIVED, Counter, "hermod_packets_received_total", "packets",
            "MQTT packets from clients.";
        packets_sent: Family<PacketKind, Counter> = PACKETS_SENT, Counter, "hermod_packets_sent_total", "packets",
            "MQTT packets to clients.";
        bytes_received: Counter = BYTES_RECEIVED, Counter, "hermod_received_bytes_total", "bytes",
            "Bytes of MQTT from clients, without TLS and WebSocket.";
        bytes_sent: Counter = BYTES_SENT, Counter, "hermod_sent_bytes_total", "bytes",
            "Bytes of MQTT to clients, without TLS and WebSocket.";
        messages_received: Family<QoS, Counter> = MESSAGES_RECEIVED, Counter, "hermod_messages_received_total", "messages",
            "Application messages (PUBLISH) from clients, repetitions included.";
        messages_sent: Family<QoS, Counter> = MESSAGES_SENT, Counter, "hermod_messages_sent_total", "messages",
            "Application messages (PUBLISH) to clients, repetitions included.";
        payload_received: Family<QoS, Counter> = PAYLOAD_RECEIVED, Counter, "hermod_messages_received_bytes_total", "bytes",
            "Payload bytes of application messages from clients.";
        payload_sent: Family<QoS, Counter> = PAYLOAD_SENT, Counter, "hermod_messages_sent_bytes_total", "bytes",
            "Payload bytes of application messages to clients.";
        unrouted: Counter = UNROUTED, Counter, "hermod_messages_unrouted_total", "messages",
            "Application messages from clients that no subscription matched.";
        handed_over: Counter = HANDED_OVER, Counter, "hermod_shard_handovers_total", "deliveries",
            "Deliveries from one shard to another of this node.";
        reads: Counter = READS, Counter, "hermod_socket_reads_total", "calls",
            "Reads from sockets of clients that brought bytes.";
        writes: Counter = WRITES, Counter, "hermod_socket_writes_total", "calls",
            "Writes to sockets of clients.";
    }

    /// What is counted for the node as a whole, by any thread.
    struct NodeMetrics {
        handshakes_failed: Causes = HANDSHAKES_FAILED, Counter, "hermod_handshakes_failed_total", "connections",
            "Connections that ended before the first MQTT byte: proxy_header, tls_handshake, too_many_handshakes, ws_upgrade, timeout, io.";
        refused: Causes = REFUSED, Counter, "hermod_connects_refused_total", "connections",
            "Connections that ended before CONNACK with success, by the reason.";
        disconnects: Causes = DISCONNECTS, Counter, "hermod_disconnects_total", "clients",
            "Clients whose connection ended after CONNACK, by the reason.";
        denied: Causes = DENIED, Counter, "hermod_denied_total", "requests",
            "Requests that permissions denied: publish, subscribe, retain.";
        dropped: Causes = DROPPED, Counter, "hermod_messages_dropped_total", "messages",
            "Messages that did not reach a receiver that subscribed to them, by the reason.";
        log_fsync: Histogram = LOG_FSYNC, Histogram, "hermod_log_fsync_seconds", "seconds",
            "How long a write to the replicated log took until it was on disk.";
        commit: Histograms<Store> = COMMIT, Histogram, "hermod_commit_seconds", "seconds",
            "How long a proposal to a range took until it was committed and applied.";
    }

    scraped {
        SESSIONS ["state"], Gauge, "hermod_sessions", "sessions",
            "Persistent sessions whose inbox this node has: connected or disconnected.";
        SUBSCRIPTIONS [], Gauge, "hermod_subscriptions", "subscriptions",
            "Subscriptions of the sessions of this node, persistent ones included.";
        SHARED_SUBSCRIPTIONS [], Gauge, "hermod_shared_subscriptions", "subscriptions",
            "Those of them that are shared.";
        ROUTES [], Gauge, "hermod_routes", "routes",
            "Routes that this node has a replica of.";
        RETAINED_MESSAGES [], Gauge, "hermod_retained_messages", "messages",
            "Retained messages that this node has a replica of.";
        RETAINED_BYTES [], Gauge, "hermod_retained_bytes", "bytes",
            "Bytes of retained messages that this node has a replica of.";
        QUEUED_MESSAGES [], Gauge, "hermod_queued_messages", "messages",
            "Messages that wait in the inboxes of this node; once for each inbox.";
        QUEUED_BYTES [], Gauge, "hermod_queued_bytes", "bytes",
            "Bytes of messages that wait in the inboxes of this node.";
        RANGE_LEADER ["store", "range"], Gauge, "hermod_range_leader", "1",
            "1 if this replica leads the range, else 0.";
        RANGE_TERM ["store", "range"], Gauge, "hermod_range_term", "1",
            "Raft term of the range.";
        RANGE_LAST_INDEX ["store", "range"], Gauge, "hermod_range_last_index", "entries",
            "Index of the last entry in the log of this replica.";
        RANGE_COMMITTED_INDEX ["store", "range"], Gauge, "hermod_range_committed_index", "entries",
            "Index of the last entry that this replica knows as committed.";
        RANGE_APPLIED_INDEX ["store", "range"], Gauge, "hermod_range_applied_index", "entries",
            "Index of the last entry that this replica has applied.";
        RANGE_PURGED_INDEX ["store", "range"], Gauge, "hermod_range_purged_index", "entries",
            "Index of the last entry that is no longer in the log of this replica.";
        RANGE_VOTERS ["store", "range"], Gauge, "hermod_range_voters", "replicas",
            "Replicas that vote in the range.";
        RANGE_WAITING ["store", "range"], Gauge, "hermod_range_waiting_commands", "commands",
            "Commands that wait to be proposed to the range.";
        RANGE_WAITING_BYTES ["store", "range"], Gauge, "hermod_range_waiting_bytes", "bytes",
            "Bytes of the commands that wait to be proposed to the range.";
        RANGE_READY ["store", "range"], Gauge, "hermod_range_ready", "1",
            "1 if this replica can take commands or pass them on, else 0.";
        LOG_SYNCS [], Counter, "hermod_log_syncs_total", "batches",
            "Batches that were made durable in the replicated log: fsyncs.";
        LOG_ENTRIES [], Counter, "hermod_log_entries_total", "entries",
            "Entries that were made durable in the replicated log.";
        LOG_BYTES [], Counter, "hermod_log_written_bytes_total", "bytes",
            "Bytes that were made durable in the replicated log.";
        ENGINE_MEMORY [], Gauge, "hermod_engine_memory_bytes", "bytes",
            "Memory of the storage engines, roughly.";
        DISK_FREE [], Gauge, "hermod_disk_free_bytes", "bytes",
            "Free space where the data is.";
        DISK_TOTAL [], Gauge, "hermod_disk_total_bytes", "bytes",
            "Size of the disk where the data is.";
        DISK_ALARM [], Gauge, "hermod_disk_alarm", "1",
            "How full that disk is: 0 below diskAlarmPercent, 1 from there on, 2 from diskRefusePercent on.";
        DISK_WRITABLE [], Gauge, "hermod_disk_writable", "1",
            "1 if the log takes writes; 0 after a failed write or while the disk is full.";
        CLUSTER_NODES ["state"], Gauge, "hermod_cluster_nodes", "nodes",
            "Nodes of the cluster as this one sees them, itself included, by state.";
        CLUSTER_REFUSED ["transport", "cause"], Counter, "hermod_cluster_refused_total", "1",
            "Packets (udp) and connections (tcp) on the cluster port that were refused, by cause.";
        CLUSTER_PACKETS ["direction"], Counter, "hermod_cluster_packets_total", "packets",
            "Gossip packets that were sent, and received and used.";
        RPC_BYTES ["lane", "direction"], Counter, "hermod_rpc_bytes_total", "bytes",
            "Bytes between this node and others.";
        RPC_FRAMES ["lane", "direction"], Counter, "hermod_rpc_frames_total", "frames",
            "Messages between this node and others.";
        RPC_DROPPED ["lane", "cause"], Counter, "hermod_rpc_dropped_total", "messages",
            "Messages to other nodes that were not delivered.";
        SHARDS [], Gauge, "hermod_shards", "threads",
            "Threads that connections live on.";
        READY [], Gauge, "hermod_ready", "1",
            "1 if /ready says so, else 0.";
        LOG_LINES_DROPPED [], Counter, "hermod_log_lines_dropped_total", "lines",
            "Lines of the log that were dropped because standard error did not take them.";
        BUILD_INFO ["version", "commit"], Gauge, "hermod_build_info", "1",
            "Always 1; what runs here.";
        UPTIME [], Gauge, "hermod_uptime_seconds", "seconds",
            "Time since the start.";
        PROCESS_START [], Gauge, "process_start_time_seconds", "seconds",
            "When the process started, since 1970.";
        PROCESS_CPU [], Counter, "process_cpu_seconds_total", "seconds",
            "CPU time of the process, user and system.";
        PROCESS_RSS [], Gauge, "process_resident_memory_bytes", "bytes",
            "Memory of the process that is resident.";
        PROCESS_VIRTUAL [], Gauge, "process_virtual_memory_bytes", "bytes",
            "Address space of the process.";
        PROCESS_FDS [], Gauge, "process_open_fds", "files",
            "Open file descriptors of the process.";
        PROCESS_MAX_FDS [], Gauge, "process_max_fds", "files",
            "Most file descriptors that the process may open.";
        PROCESS_THREADS [], Gauge, "process_threads", "threads",
            "Threads of the process.";
    }
}

/// `docs/metrics.md`.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         `GET /metrics` on the HTTP port gives them in Prometheus text format 0.0.4. Counters start at 0 with the process. This page is made from\n\
         `broker/telemetry/src/table.rs`; `UPDATE_DOCS=1 cargo test -p telemetry` writes it.\n\n\
         | name | type | unit | labels | meaning |\n| --- | --- | --- | --- | --- |\n",
    );
    for Metric { name, kind, unit, labels, help } in TABLE {
        let labels = labels.join(", ");
        let _ = writeln!(text, "| `{name}` | {} | {unit} | {labels} | {help} |", kind.name());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_page_in_docs_is_the_table() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(file, markdown()).unwrap();
        }
        let page = std::fs::read_to_string(file).unwrap_or_default();
        assert!(page == markdown(), "docs/metrics.md is not what the table says; UPDATE_DOCS=1 writes it");
    }

    #[test]
    fn names_are_unique_and_formed_as_prometheus_advises() {
        let names: BTreeSet<_> = TABLE.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), TABLE.len());
        for metric in TABLE {
            assert!(metric.name.starts_with("hermod_") || metric.name.starts_with("process_"), "{}", metric.name);
            assert!(metric.name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            let stem = metric.name.trim_end_matches("_total");
            for unit in ["bytes", "seconds"] {
                assert_eq!(stem.ends_with(unit), metric.unit == unit, "{}", metric.name);
            }
            assert!(!metric.help.contains(['\n', '|']) && metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
