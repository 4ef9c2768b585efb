//! What a configuration may say, and what is told when it says something else.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up fails")]
use node_config::{
    AllowAnonymous, DeniedSubAck, Durability, Inputs, Loaded, LogFormat, NodeConfig, ProxyProtocolMode, Refused,
    Source, load,
};
use std::path::{Path, PathBuf};

/// A file with this content, environment and definitions.
fn load_all(yaml: &str, environment: &[(&str, &str)], defines: &[(&str, &str)]) -> Result<Loaded, Refused> {
    let pairs = |list: &[(&str, &str)]| list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("test.yml");
    std::fs::write(&file, yaml).unwrap();
    load(&Inputs {
        file: Some(file),
        environment: pairs(environment),
        defines: pairs(defines),
        directory: directory.path().to_owned(),
    })
}

fn load_yaml(yaml: &str) -> Result<Loaded, Refused> {
    load_all(yaml, &[], &[])
}

/// The keys and messages of a refusal.
fn refusal(yaml: &str) -> Vec<(String, String)> {
    let refused = load_yaml(yaml).expect_err(yaml);
    refused.violations.into_iter().map(|violation| (violation.key, violation.message)).collect()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn without_anything_the_defaults_hold_and_nothing_is_said() {
    let loaded = load(&Inputs::default()).unwrap();
    assert_eq!(loaded.config, NodeConfig::default());
    assert_eq!(loaded.warnings, []);
    let server = &loaded.config.mqtt_service.server;
    let bound = |listener: &node_config::Listener| -> Vec<String> {
        listener.hosts.with_port(listener.port).map(|address| address.to_string()).collect()
    };
    assert_eq!(bound(&server.tcp), ["127.0.0.1:1883", "[::1]:1883"]);
    assert_eq!(bound(&server.ws), ["127.0.0.1:8080", "[::1]:8080"]);
    assert!(server.tcp.enable && server.ws.enable && !server.tls.enable && !server.wss.enable);
}

#[test]
fn every_shipped_file_is_accepted() {
    let mut folders = vec![repository().join("conf")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            // The other files of the folder are what these name: users and rules.
            if path.extension().is_some_and(|extension| extension == "yml") && !text.contains("\nrules:") {
                let inputs = Inputs { file: Some(path.clone()), directory: repository(), ..Inputs::default() };
                load(&inputs).unwrap_or_else(|refused| panic!("{}: {refused}", path.display()));
            }
        }
    }
}

#[test]
fn node_yml_has_every_key_with_its_default() {
    let path = repository().join("conf/node.yml");
    let loaded = load(&Inputs { file: Some(path.clone()), ..Inputs::default() }).unwrap();
    assert_eq!(loaded.config, NodeConfig::default());
    assert_eq!(loaded.warnings, []);
    let printed: serde_yaml::Value = serde_yaml::from_str(&NodeConfig::default().print(&Default::default())).unwrap();
    let shipped: serde_yaml::Value = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(printed, shipped);
}

#[test]
fn what_is_printed_leads_to_the_same_configuration() {
    let first = load_all(
        "dataDir: /var/lib/hermod\nlog: { level: 'info,hermod=debug', format: json }\nallowAnonymous: true\n",
        &[],
        &[("mqttServiceConfig.server.tcpListener.host", "*"), ("dataDir", "a: b # c")],
    )
    .unwrap();
    let second = load_yaml(&first.print()).unwrap();
    assert_eq!(first.config, second.config);
    assert!(first.print().contains("port: 1883\n"), "{}", first.print());
    assert!(first.print().contains("  # -D\n"), "{}", first.print());
    assert!(first.print().contains("format: json  # "), "{}", first.print());
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
    let yaml = "log: { format: json }\ndataDir: a\napiServerConfig: { httpPort: 1001 }\n";
    let environment = [("HERMOD_LOG__LEVEL", "debug"), ("HERMOD_dataDir", "b"), ("PATH", "/bin")];
    let defines = [("apiServerConfig.httpPort", "1003")];
    let environment = [&environment[..], &[("HERMOD_apiServerConfig__httpPort", "1002")]].concat();
    let loaded = load_all(yaml, &environment, &defines).unwrap();
    assert_eq!(loaded.config.log.format, LogFormat::Json);
    assert_eq!(loaded.config.log.level, "debug");
    assert_eq!(loaded.config.data_dir, PathBuf::from("b"));
    assert_eq!(loaded.config.api_server.http_port, 1003);
    assert_eq!(loaded.sources.of("apiServerConfig.httpPort"), Source::Define);
    assert_eq!(loaded.sources.of("dataDir"), Source::Environment("HERMOD_dataDir".into()));
    assert!(matches!(loaded.sources.of("log.format"), Source::File(_)));
    assert_eq!(loaded.sources.of("allowAnonymous"), Source::Default);
    assert_eq!(loaded.warnings, []);
}

#[test]
fn everything_wrong_is_told_at_once_with_key_value_and_what_is_allowed() {
    let found = refusal(
        "mqttServiceConfig:\n  server:\n    tcpListener: { prot: 1883, enable: maybe }\n    wsListener: { port: 70000 }\n    \
         connTimeoutSec: 0\n    maxConnPerSec: fast\nallowAnonymous: sometimes\nlogg: {}\nlog: { level: loud }\nstateStoreConfig: 3\n",
    );
    let expected = [
        ("mqttServiceConfig.server.tcpListener.prot", "did you mean \"port\"?"),
        ("mqttServiceConfig.server.tcpListener.enable", "must be true or false"),
        ("mqttServiceConfig.server.wsListener.port", "from 1 to 65535"),
        ("mqttServiceConfig.server.connTimeoutSec", "from 1 to 300"),
        ("mqttServiceConfig.server.maxConnPerSec", "from 1 to 1000000"),
        ("allowAnonymous", "one of only-loopback, true, false"),
        ("logg", "did you mean \"log\"?"),
        ("stateStoreConfig", "this is a section"),
        ("log.level", "must be error, warn"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((key, message), (wanted_key, wanted)) in found.iter().zip(expected) {
        assert_eq!(key, wanted_key);
        assert!(message.contains(wanted), "{key}: {message}");
    }
    let text = load_yaml("apiServerConfig: { httpPort: 99999 }").unwrap_err().to_string();
    assert!(text.contains("1 error:") && text.contains("apiServerConfig.httpPort = 99999 ("), "{text}");
}

#[test]
fn a_key_in_the_wrong_place_is_told_where_it_belongs() {
    let found = refusal("connTimeoutSec: 5\n");
    assert!(found[0].1.contains("mqttServiceConfig.server.connTimeoutSec"), "{found:?}");
    let found = refusal("zebra: 5\n");
    assert!(found[0].1.contains("known here: dataDir"), "{found:?}");
}

#[test]
fn a_file_that_is_missing_or_no_yaml_is_refused() {
    assert!(refusal("a: [")[0].1.contains("no YAML"));
    assert!(refusal("dataDir: a\ndataDir: b\n")[0].1.contains("duplicate"));
    let refused = load(&Inputs { file: Some("/does/not/exist.yml".into()), ..Inputs::default() }).unwrap_err();
    assert!(refused.to_string().contains("/does/not/exist.yml"), "{refused}");
    // An empty file says nothing, which is allowed.
    assert_eq!(load_yaml("").unwrap().config, NodeConfig::default());
}

#[test]
fn a_listener_that_others_can_reach_needs_users_or_an_explicit_yes() {
    let open = "mqttServiceConfig: { server: { tcpListener: { host: 0.0.0.0 } } }\n";
    let found = refusal(open);
    assert_eq!(found[0].0, "mqttServiceConfig.server.tcpListener.host");
    assert!(found[0].1.contains("hermod user add") && found[0].1.contains("allowAnonymous: true"), "{found:?}");

    let loaded = load_yaml(&format!("{open}allowAnonymous: true\n")).unwrap();
    assert_eq!(loaded.config.allow_anonymous, AllowAnonymous::Yes);
    assert_eq!(loaded.warnings.len(), 1);

    let users = tempfile::NamedTempFile::new().unwrap();
    let with_users = format!("{open}auth: {{ usersFile: {} }}\n", users.path().display());
    assert_eq!(load_yaml(&with_users).unwrap().warnings, []);
    // A listener that is off reaches nobody.
    load_yaml("mqttServiceConfig: { server: { tlsListener: { host: 0.0.0.0 } } }\n").unwrap();
    assert!(refusal("allowAnonymous: false\n")[0].1.contains("nobody could connect"));
}

#[test]
fn files_that_are_named_must_be_there() {
    let found = refusal(
        "auth: { usersFile: no/users, aclFile: / }\nmqttServiceConfig: { server: { tlsListener: { enable: true, sslConfig: { certFile: nope.pem, clientAuth: REQUIRED } } } }\n",
    );
    let keys: Vec<&str> = found.iter().map(|(key, _)| key.rsplit('.').next().unwrap()).collect();
    assert_eq!(keys, ["certFile", "keyFile", "trustCertsFile", "usersFile", "aclFile"]);
    assert!(found[0].1.contains("nope.pem cannot be read"), "{found:?}");
    assert!(found[4].1.contains("is no file"), "{found:?}");
}

#[test]
fn two_listeners_cannot_share_a_port() {
    let found = refusal("apiServerConfig: { httpPort: 8080 }\n");
    assert!(found[0].1.contains("mqttServiceConfig.server.wsListener.port has 127.0.0.1:8080"), "{found:?}");
    // Other addresses are other ports.
    load_yaml("apiServerConfig: { httpPort: 8080, host: 127.0.0.2 }\n").unwrap();
    assert_eq!(refusal("apiServerConfig: { httpPort: 8080, host: '*' }\n").len(), 1);
    // A listener that is off has none.
    load_yaml("apiServerConfig: { httpPort: 8883 }\n").unwrap();
}

#[test]
fn a_proxy_header_needs_somebody_to_believe() {
    let with =
        |proxy: &str| format!("mqttServiceConfig: {{ server: {{ tcpListener: {{ proxyProtocol: {proxy} }} }} }}");
    assert!(refusal(&with("{ mode: required }"))[0].1.contains("trustedAddresses"));
    let loaded = load_yaml(&with("{ mode: required, trustedAddresses: [10.0.0.0/8, '::1'] }")).unwrap();
    let proxy = &loaded.config.mqtt_service.server.tcp.proxy_protocol;
    assert_eq!(proxy.mode, ProxyProtocolMode::Required);
    assert!(proxy.trusted_addresses[0].contains("10.9.9.9".parse().unwrap()));
    assert!(refusal(&with("{ trustedAddresses: [10.0.0.0/40] }"))[0].1.contains("10.0.0.0/8"));
}

#[test]
fn keys_belong_to_listeners_that_use_them() {
    let found = refusal("mqttServiceConfig: { server: { tcpListener: { wsPath: /mqtt, sslConfig: {} } } }");
    assert!(found[0].1.contains("wsListener.wsPath or"), "{found:?}");
    assert_eq!(found.len(), 2);
    assert!(refusal("mqttServiceConfig: { server: { wsListener: { wsPath: mqtt } } }")[0].1.contains("start with `/`"));
}

/// What BifroMQ 4 ships, and what its high-availability page of version 3 shows, put together.
#[test]
fn files_of_bifromq_start_with_a_warning_for_what_has_no_meaning() {
    let loaded = load_yaml(
        r#"
bootstrap: true
metricsTags: { env: "Test" }
mqttServerConfig:
  connTimeoutSec: 20
  workerELGThreads: 4
  defaultKeepAliveSec: 300
  tcpListener: { port: 1884 }
  wsListener: { enable: false, wsPath: "/mqtt" }
clusterConfig: { env: "Test", host: , port: , seedEndpoints: , clusterDomainName: }
rpcConfig: { host: , port: 0 }
stateStoreConfig:
  queryThreads: 2
  inboxStoreConfig:
    balanceConfig:
      balancers:
        - "com.baidu.bifromq.inbox.store.balance.ReplicaCntBalancerFactory"
        - "com.baidu.bifromq.inbox.store.balance.RecoveryBalancerFactory"
"#,
    )
    .unwrap();
    let server = &loaded.config.mqtt_service.server;
    assert_eq!((server.conn_timeout_sec, server.worker_threads, server.tcp.port), (20, 4, 1884));
    assert!(!server.ws.enable);
    let keys: Vec<&str> = loaded.warnings.iter().map(|warning| warning.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "bootstrap",
            "metricsTags",
            "mqttServiceConfig.server.defaultKeepAliveSec",
            "rpcConfig",
            "stateStoreConfig.queryThreads",
            "stateStoreConfig.inboxStoreConfig.balanceConfig.balancers",
        ]
    );
    assert!(loaded.warnings[5].message.contains("RecoveryBalancer has no effect yet"), "{}", loaded.warnings[5]);
    assert_eq!(loaded.cluster, None);
}

#[test]
fn system_properties_of_bifromq_are_names() {
    let defines = [("inbox_store_range_voter_count", "5"), ("dist_worker_recovery_timeout_millis", "10000")];
    let loaded = load_all("", &[("HERMOD_RETAIN_STORE_RANGE_VOTER_COUNT", "7")], &defines).unwrap();
    assert_eq!(loaded.config.state_store.inbox_store.voters_per_range, 5);
    assert_eq!(loaded.config.state_store.retain_store.voters_per_range, 7);
    assert_eq!(loaded.config.state_store.dist_worker.voters_per_range, 3);
    // The recovery timeout changes nothing, which is told.
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);

    let java = [("EXTRA_JVM_OPTS", "-Xmx4g -Ddist_worker_range_voter_count=9 -DMaxTopicLevels=5 -Dsun.thing=1")];
    let loaded = load_all("", &java, &[]).unwrap();
    assert_eq!((loaded.config.state_store.dist_worker.voters_per_range, loaded.config.tenant.max_topic_levels), (9, 5));
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);

    let refused = load_all("", &[], &[("inbox_store_range_voter_cont", "5"), ("inbox_store_range_voter_count", "0")]);
    let refused = refused.unwrap_err();
    assert!(refused.violations[0].message.contains("inbox_store_range_voter_count"), "{refused}");
    assert!(refused.violations[1].message.contains("from 1"), "{refused}");
}

#[test]
fn a_definition_may_be_a_number_a_flag_a_list_or_a_text() {
    let loaded = load_all(
        "",
        &[],
        &[
            ("mqttServerConfig.tcpListener.host", "127.0.0.1, 127.0.0.2"),
            ("mqttServiceConfig.server.wsListener.enable", "false"),
            ("stateStoreConfig.durability", "OS"),
            ("auth.subAckDeniedCode", "generic"),
            ("dataDir", "0123"),
            ("auth.usersFile", ""),
        ],
    )
    .unwrap();
    assert_eq!(loaded.config.mqtt_service.server.tcp.hosts.to_string(), "127.0.0.1, 127.0.0.2");
    assert!(!loaded.config.mqtt_service.server.ws.enable);
    assert_eq!(loaded.config.state_store.durability, Durability::Os);
    assert_eq!(loaded.config.auth.sub_ack_denied_code, DeniedSubAck::Generic);
    assert_eq!(loaded.config.data_dir, PathBuf::from("0123"));
    assert_eq!(loaded.config.auth.users_file, None);
    // What is not on disk is lost with the power: that is said.
    assert_eq!(loaded.warnings.len(), 1);
}

#[test]
fn a_variable_that_means_nothing_is_a_warning_since_platforms_set_their_own() {
    let loaded = load_all("", &[("HERMOD_PORT_1883_TCP_ADDR", "10.0.0.1"), ("HERMOD_dataDri", "x")], &[]).unwrap();
    assert_eq!(loaded.warnings.len(), 2);
    assert!(loaded.warnings[1].message.contains("did you mean dataDir"), "{:?}", loaded.warnings);
}

proptest::proptest! {
    #[test]
    fn no_input_panics(yaml in "[ -~\n]{0,200}", name in "[ -~]{0,40}", value in "\\PC{0,20}") {
        let _ = load_all(&yaml, &[(&format!("HERMOD_{name}"), &value)], &[(&name, &value)]);
    }
}

#[test]
fn settings_go_by_their_name_alone_or_stand_in_their_section() {
    let yaml = "tenantSettings: { MaxTopicLevels: 7, SessionInboxFull: Reject, MaximumQoS: 1 }\nmqttServerConfig: { maxMsgByteSize: 70000, connTimeoutSec: 7 }\n";
    let environment = [("HERMOD_RETAINENABLED", "false"), ("HERMOD_tenantSettings__MaxTopicAlias", "3")];
    let loaded = load_all(yaml, &environment, &[("MaxTopicLength", "99"), ("ByPassPermCheckError", "true")]).unwrap();
    let settings = &loaded.config.tenant;
    assert_eq!((settings.max_topic_levels, settings.max_topic_length, settings.max_topic_alias), (7, 99, 3));
    assert_eq!((settings.max_user_payload_bytes, settings.connect_timeout_seconds), (70_000, 7));
    assert!(!settings.retain_enabled);
    assert_eq!(u8::from(settings.maximum_qos), 1);
    assert_eq!(loaded.warnings.len(), 1);
    assert_eq!(loaded.warnings[0].key, "ByPassPermCheckError");
    assert!(loaded.print().contains("SessionInboxFull: Reject  # "), "{}", loaded.print());

    let found = refusal(
        "tenantSettings: { MaxTopicLevels: 0, MaximumQoS: 3, RetainEnabled: perhaps, MaxTopicLevel: 1, MinSendPerSec: 8 }",
    );
    let messages: Vec<&str> = found.iter().map(|(_, message)| message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "must be a whole number from 1 to 65535",
            "must be a whole number from 0 to 2",
            "must be one of true, false",
            "unknown key; did you mean \"MaxTopicLevels\"?",
        ]
    );
    let found = refusal("tenantSettings: { MinSessionExpirySeconds: 10, MaxSessionExpirySeconds: 9 }");
    assert!(found[0].1.contains("MinSessionExpirySeconds (10)"), "{found:?}");
}
