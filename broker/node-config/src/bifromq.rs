//! What BifroMQ's files and system properties say, in our words.

use mqtt_session::Settings;
use std::borrow::Cow;

/// Keys that have another place here: (theirs, ours). Longer ones first where one is a prefix of another.
const RENAMED: &[(&str, &str)] = &[
    ("mqttServerConfig", "mqttServiceConfig.server"),
    ("distServiceConfig.worker", "stateStoreConfig.distWorkerConfig"),
    ("inboxServiceConfig.store", "stateStoreConfig.inboxStoreConfig"),
    ("retainServiceConfig.store", "stateStoreConfig.retainStoreConfig"),
    ("mqttServiceConfig.server.workerELGThreads", "mqttServiceConfig.server.workerThreads"),
    ("mqttServiceConfig.server.maxMsgByteSize", "tenantSettings.MaxUserPayloadBytes"),
];

const PLUGIN: &str = "BifroMQ's plug-ins are Java classes and are not loaded; see `auth` and `tenantSettings`";
const THREADS: &str = "has no effect: all work runs on the shards, see mqttServiceConfig.server.workerThreads";
const CALLS: &str = "has no effect: one node calls its services directly";
const ONE_PORT: &str = "has no effect: nodes talk to each other over clusterConfig.port";
const IDENTITY: &str = "has no effect: a node draws its identity once and keeps it in dataDir";
const PACE: &str = "has no effect: balancers act when something changes; see their options";
const SPLITTING: &str = "has no effect: each store is one range in this version";
const RECOVERY: &str = "has no effect yet: a range that lost the majority of its voters waits for them in this version";
const STORAGE: &str = "has no effect: all stores share one log and one engine; see stateStoreConfig.durability";
const MATCHING: &str = "has no effect: routes are matched in memory, without a cache";
const DELIVERY: &str = "has no effect: messages are handed over in batches without separate queues";

/// Keys that have no meaning here: (path, `*` for one level and everything below; why).
const IGNORED: &[(&str, &str)] = &[
    ("authProviderFQN", PLUGIN),
    ("resourceThrottlerFQN", PLUGIN),
    ("settingProviderFQN", PLUGIN),
    ("mqttServiceConfig.server.userPropsCustomizerFactoryConfig", PLUGIN),
    ("bgTaskThreads", THREADS),
    ("mqttServiceConfig.server.bossELGThreads", THREADS),
    ("mqttServiceConfig.client", CALLS),
    ("mqttClientConfig", CALLS),
    ("metricsTags", "has no effect: labels are added where the metrics are scraped"),
    ("bootstrap", "has no effect: the first ranges are created by themselves"),
    ("rpcConfig", ONE_PORT),
    ("rpcClientConfig", ONE_PORT),
    ("rpcServerConfig", ONE_PORT),
    ("baseKVRpcServerConfig", ONE_PORT),
    ("mqttServiceConfig.server.enable", "has no effect: a node always serves MQTT; turn off its listeners instead"),
    ("mqttServiceConfig.server.maxDisconnPerSec", "has no effect: see mqttServiceConfig.server.shutdownGraceSec"),
    (
        "mqttServiceConfig.server.maxConnBandwidth",
        "has no effect: see tenantSettings.InBoundBandWidth and OutBoundBandWidth",
    ),
    ("mqttServiceConfig.server.defaultKeepAliveSec", "has no effect: see tenantSettings.MinKeepAliveSeconds"),
    ("mqttServiceConfig.server.maxResendTimes", "has no effect: MQTT resends on reconnect only [MQTT-4.4.0-1]"),
    ("mqttServiceConfig.server.qos2ConfirmWindowSec", "has no effect: QoS 2 state is durable and has no window"),
    ("distServiceConfig", CALLS),
    ("inboxServiceConfig", CALLS),
    ("retainServiceConfig", CALLS),
    ("sessionDictServiceConfig", CALLS),
    ("distClientConfig", CALLS),
    ("distServerConfig", CALLS),
    ("inboxClientConfig", CALLS),
    ("inboxServerConfig", CALLS),
    ("retainClientConfig", CALLS),
    ("retainServerConfig", CALLS),
    ("sessionDictClientConfig", CALLS),
    ("sessionDictServerConfig", CALLS),
    ("stateStoreConfig.queryThreads", THREADS),
    ("stateStoreConfig.tickerThreads", THREADS),
    ("stateStoreConfig.bgWorkerThreads", THREADS),
    ("stateStoreConfig.overrideIdentity", IDENTITY),
    ("stateStoreConfig.*.balanceConfig.scheduleIntervalInMs", PACE),
    ("stateStoreConfig.*.balanceConfig.bootstrapDelayInMS", PACE),
    ("stateStoreConfig.*.balanceConfig.zombieProbeDelayInMS", PACE),
    ("stateStoreConfig.*.balanceConfig.retryDelayInMS", PACE),
    ("stateStoreConfig.*.splitHinterConfig", SPLITTING),
    ("stateStoreConfig.*.enable", "has no effect: a node always has all three stores"),
    ("stateStoreConfig.*.attributes", IDENTITY),
    ("stateStoreConfig.*.workerThreads", THREADS),
    ("stateStoreConfig.*.tickerThreads", THREADS),
    ("stateStoreConfig.*.queryPipelinePerStore", CALLS),
    ("stateStoreConfig.*.maxWALFetchSize", STORAGE),
    ("stateStoreConfig.*.compactWALThreshold", STORAGE),
    ("stateStoreConfig.*.dataEngineConfig", STORAGE),
    ("stateStoreConfig.*.walEngineConfig", STORAGE),
    ("stateStoreConfig.*.gcIntervalSeconds", STORAGE),
    ("stateStoreConfig.*.minGCIntervalSeconds", STORAGE),
    ("stateStoreConfig.*.maxGCIntervalSeconds", STORAGE),
    ("stateStoreConfig.*.expireRateLimit", STORAGE),
    ("apiServerConfig.maxContentLength", "has no effect: the API takes no content in this version"),
    ("apiServerConfig.workerThreads", THREADS),
    ("apiServerConfig.sslConfig", "has no effect: TLS for HTTP is not available in this version"),
];

/// System properties: (name, what it means).
const PROPERTIES: &[(&str, Meaning)] = &[
    ("dist_worker_range_voter_count", Meaning::Key(Cow::Borrowed("stateStoreConfig.distWorkerConfig.votersPerRange"))),
    ("inbox_store_range_voter_count", Meaning::Key(Cow::Borrowed("stateStoreConfig.inboxStoreConfig.votersPerRange"))),
    (
        "retain_store_range_voter_count",
        Meaning::Key(Cow::Borrowed("stateStoreConfig.retainStoreConfig.votersPerRange")),
    ),
    ("dist_worker_recovery_timeout_millis", Meaning::Nothing(RECOVERY)),
    ("inbox_store_recovery_timeout_millis", Meaning::Nothing(RECOVERY)),
    ("retain_store_recovery_timeout_millis", Meaning::Nothing(RECOVERY)),
    (
        "cluster_domain_resolve_timeout_seconds",
        Meaning::Nothing("has no effect: clusterConfig.clusterDomainName is resolved again for as long as it takes"),
    ),
    (
        "client_redirect_check_interval_seconds",
        Meaning::Nothing("has no effect: clients are moved on only when their node stops"),
    ),
    ("data_plane_burst_latency_ms", Meaning::Nothing(DELIVERY)),
    ("control_plane_burst_latency_ms", Meaning::Nothing(DELIVERY)),
    ("dist_server_dist_worker_call_queues", Meaning::Nothing(DELIVERY)),
    ("dist_worker_match_parallelism", Meaning::Nothing(MATCHING)),
    ("dist_worker_fanout_parallelism", Meaning::Nothing(DELIVERY)),
    ("dist_worker_inline_fanout_threshold", Meaning::Nothing(DELIVERY)),
    ("dist_worker_max_cached_subs_per_tenant", Meaning::Nothing(MATCHING)),
    ("dist_worker_topic_match_expiry_seconds", Meaning::Nothing(MATCHING)),
    ("dist_worker_cache_fanout_check_seconds", Meaning::Nothing(MATCHING)),
    ("dist_worker_fanout_split_threshold", Meaning::Nothing(SPLITTING)),
    ("inbox_deliverers", Meaning::Nothing(DELIVERY)),
    ("inbox_fetch_queues_per_range", Meaning::Nothing(DELIVERY)),
    ("inbox_check_queues_per_range", Meaning::Nothing(DELIVERY)),
    ("inbox_meta_cache_expiry_second", Meaning::Nothing(DELIVERY)),
    ("persistent_session_detach_timeout_second", Meaning::Nothing(DELIVERY)),
    ("mqtt_deliverers_per_server", Meaning::Nothing(DELIVERY)),
    ("session_register_num", Meaning::Nothing(DELIVERY)),
    ("max_mqtt3_client_id_length", Meaning::Nothing("has no effect: client ids may have 65535 bytes")),
    ("max_mqtt5_client_id_length", Meaning::Nothing("has no effect: client ids may have 65535 bytes")),
    ("mqtt_utf8_sanity_check", Meaning::Nothing("has no effect: texts are always checked")),
    ("maxActiveDedupChannels", Meaning::Nothing(DELIVERY)),
    ("maxActiveDedupTopicsPerChannel", Meaning::Nothing(DELIVERY)),
    (
        "ingress_slowdown_direct_memory_usage",
        Meaning::Nothing("has no effect: there is no Java heap; every queue has its own bound"),
    ),
    (
        "ingress_slowdown_heap_memory_usage",
        Meaning::Nothing("has no effect: there is no Java heap; every queue has its own bound"),
    ),
    (
        "max_slowdown_timeout_seconds",
        Meaning::Nothing("has no effect: there is no Java heap; every queue has its own bound"),
    ),
];

/// Properties of splitting, once per store.
const SPLIT_PROPERTIES: [&str; 5] = [
    "split_max_cpu_usage",
    "split_io_nanos_limit",
    "split_max_io_density",
    "load_estimation_window_seconds",
    "range_split_limit",
];

/// What a system property means here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The value of the key with this path.
    Key(Cow<'static, str>),
    /// Nothing, and why.
    Nothing(&'static str),
}

/// The path of a key in our file.
pub(crate) fn canonical(path: &str) -> Cow<'_, str> {
    let mut path = Cow::Borrowed(path);
    for (theirs, ours) in RENAMED {
        if let Some(rest) = path.strip_prefix(theirs)
            && (rest.is_empty() || rest.starts_with('.'))
        {
            path = Cow::Owned(format!("{ours}{rest}"));
        }
    }
    path
}

/// Why a key of BifroMQ has no meaning here; `None` when it is no key of BifroMQ.
pub(crate) fn ignored(path: &str) -> Option<&'static str> {
    let settings = || {
        let name = path.strip_prefix("tenantSettings.")?;
        Settings::WITHOUT_MEANING.iter().find(|(known, _)| *known == name)
    };
    IGNORED.iter().find(|(pattern, _)| is_prefix(pattern, path)).or_else(settings).map(|(_, why)| *why)
}

fn is_prefix(pattern: &str, path: &str) -> bool {
    let mut levels = path.split('.');
    pattern.split('.').all(|want| levels.next().is_some_and(|level| want == "*" || want == level))
}

/// What a system property means; `None` when BifroMQ has no such property.
pub(crate) fn property(name: &str) -> Option<Meaning> {
    if let Some((_, meaning)) = PROPERTIES.iter().find(|(known, _)| *known == name) {
        return Some(meaning.clone());
    }
    let rest = ["dist_worker_", "inbox_store_", "retain_store_"].iter().find_map(|store| name.strip_prefix(store))?;
    let rest = rest.strip_prefix("range_").filter(|rest| *rest != "split_limit").unwrap_or(rest);
    SPLIT_PROPERTIES.contains(&rest).then_some(Meaning::Nothing(SPLITTING))
}

/// The names of the properties that mean something.
pub(crate) fn property_names() -> impl Iterator<Item = &'static str> {
    PROPERTIES.iter().filter(|(_, meaning)| matches!(meaning, Meaning::Key(_))).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_spelling_is_the_same_key() {
        assert_eq!(canonical("mqttServerConfig.tcpListener.port"), "mqttServiceConfig.server.tcpListener.port");
        assert_eq!(canonical("mqttServerConfig.workerELGThreads"), "mqttServiceConfig.server.workerThreads");
        assert_eq!(canonical("mqttServerConfigs"), "mqttServerConfigs");
    }

    #[test]
    fn ignored_keys_cover_everything_below_them() {
        assert!(ignored("stateStoreConfig.inboxStoreConfig.splitHinterConfig.hinters").is_some());
        assert!(ignored("stateStoreConfig.inboxStoreConfig").is_none());
        assert!(ignored("rpcConfig.port").is_some());
        assert!(ignored("rpc").is_none());
    }

    #[test]
    fn split_properties_are_known_for_each_store() {
        for name in [
            "dist_worker_split_max_cpu_usage",
            "inbox_store_range_split_limit",
            "retain_store_range_split_io_nanos_limit",
        ] {
            assert!(matches!(property(name), Some(Meaning::Nothing(_))), "{name}");
        }
        assert_eq!(property("dist_worker_colour"), None);
    }

    #[test]
    fn properties_lead_to_keys_that_exist() {
        let mut config = crate::NodeConfig::default();
        for (_, meaning) in PROPERTIES {
            if let Meaning::Key(path) = meaning {
                assert!(
                    matches!(crate::section::find(&mut config, path), Some(crate::section::Slot::Leaf(..))),
                    "{path}"
                );
            }
        }
    }
}
