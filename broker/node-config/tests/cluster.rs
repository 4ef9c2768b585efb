//! What a configuration may say about other nodes, copies and policies.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up fails")]
use base_kv_balance::Registry;
use node_config::{Inputs, Loaded, Refused, Source, load};

fn load_all(yaml: &str, environment: &[(&str, &str)], defines: &[(&str, &str)]) -> Result<Loaded, Refused> {
    let pairs = |list: &[(&str, &str)]| list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("test.yml");
    std::fs::write(&file, yaml).unwrap();
    std::fs::write(directory.path().join("secret"), "0123456789abcdef\n").unwrap();
    for name in ["cert.pem", "key.pem", "ca.pem"] {
        std::fs::write(directory.path().join(name), "").unwrap();
    }
    load(&Inputs {
        file: Some(file),
        environment: pairs(environment),
        defines: pairs(defines),
        directory: directory.path().to_owned(),
    })
}

fn cluster(yaml: &str) -> Result<Loaded, Refused> {
    load_all(&format!("clusterConfig: {{ {yaml} }}\n"), &[], &[])
}

/// Key and message of the only thing that is wrong.
fn refusal(yaml: &str) -> String {
    let refused = cluster(yaml).expect_err(yaml);
    assert_eq!(refused.violations.len(), 1, "{yaml}: {refused}");
    format!("{}: {}", refused.violations[0].key, refused.violations[0].message)
}

#[test]
fn a_node_runs_alone_unless_it_is_told_of_a_cluster() {
    for yaml in ["", "env: Test, host: , port: , seedEndpoints: , clusterDomainName: ", "env: prod, port: 0"] {
        let loaded = cluster(yaml).unwrap();
        assert_eq!(loaded.cluster, None, "{yaml}");
        assert_eq!(loaded.warnings, [], "{yaml}");
    }
    let loaded = cluster("secret: 0123456789abcdef").unwrap();
    assert!(loaded.warnings[0].message.contains("runs alone"), "{:?}", loaded.warnings);
}

#[test]
fn on_loopback_a_cluster_needs_no_secret() {
    let loaded =
        cluster("env: test, host: 127.0.0.1, port: 8899, seedEndpoints: '127.0.0.1:8899, localhost:8900'").unwrap();
    let cluster = loaded.cluster.unwrap();
    assert_eq!(
        (cluster.bind.to_string(), cluster.advertise.to_string()),
        ("127.0.0.1:8899".into(), "127.0.0.1:8899".into())
    );
    let seeds: Vec<String> = cluster.seeds.iter().map(ToString::to_string).collect();
    assert_eq!(seeds, ["127.0.0.1:8899", "localhost:8900"]);
    assert_eq!((cluster.env.as_str(), cluster.protection.secret, cluster.protection.tls), ("test", None, None));
    assert_eq!(loaded.warnings, []);
}

#[test]
fn off_loopback_a_cluster_needs_a_secret_or_certificates_or_an_explicit_no() {
    let open = "host: 192.0.2.1, port: 8899";
    let refused = refusal(open);
    assert!(refused.starts_with("clusterConfig.host: ") && refused.contains("insecure: true"), "{refused}");
    assert!(refusal("host: '*', port: 8899, advertiseHost: n1").contains("clusterConfig.secret"));

    let loaded = cluster(&format!("{open}, insecure: true")).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    let loaded = cluster(&format!("{open}, secret: 'file:secret'")).unwrap();
    assert_eq!(loaded.cluster.unwrap().protection.secret.unwrap().expose(), "0123456789abcdef");
    assert_eq!(loaded.warnings, []);
    let tls = "tls: { certFile: cert.pem, keyFile: key.pem, trustCertsFile: ca.pem }";
    let loaded = cluster(&format!("{open}, {tls}")).unwrap();
    assert!(loaded.warnings[0].message.contains("forge over UDP"), "{:?}", loaded.warnings);
    assert!(loaded.cluster.unwrap().protection.tls.unwrap().trust_certs_file.ends_with("ca.pem"));
    assert!(refusal(&format!("{open}, tls: {{ certFile: cert.pem, keyFile: key.pem }}")).contains("trustCertsFile"));
    assert!(refusal(&format!("{open}, {}", tls.replace("ca.pem", "no.pem"))).contains("cannot be read"));
}

#[test]
fn a_secret_is_found_long_enough_and_never_shown() {
    let yaml = "clusterConfig: { port: 8899, secret: 'env:CLUSTER_SECRET' }";
    let loaded = load_all(yaml, &[("CLUSTER_SECRET", "a secret of enough bytes")], &[]).unwrap();
    assert_eq!(
        loaded.cluster.as_ref().unwrap().protection.secret.as_ref().unwrap().expose(),
        "a secret of enough bytes"
    );
    assert!(loaded.print().contains("secret: \"env:CLUSTER_SECRET\""), "{}", loaded.print());
    assert!(load_all(yaml, &[], &[]).unwrap_err().to_string().contains("no environment variable CLUSTER_SECRET"));
    assert!(refusal("port: 8899, secret: 'file:nowhere'").contains("nowhere"));

    for yaml in ["port: 8899, secret: hunter2", "port: 8899, secret: [hunter2]"] {
        let text = cluster(yaml).unwrap_err().to_string();
        assert!(text.contains("clusterConfig.secret") && !text.contains("hunter2"), "{text}");
    }
    let rotating = "port: 8899, secret: 0123456789abcdef, otherSecret: 'file:secret'";
    assert!(cluster(rotating).unwrap().cluster.unwrap().protection.other_secret.is_some());
    assert!(refusal("port: 8899, otherSecret: 'file:secret'").contains("needs clusterConfig.secret"));
    let loaded = cluster("port: 8899, secret: hunter2hunter2hunter2").unwrap();
    for text in [loaded.print(), format!("{loaded:?}")] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn the_token_of_the_http_interface_is_long_enough_and_never_shown() {
    let loaded = load_all("apiServerConfig: { token: 'env:API' }", &[("API", "hunter2hunter2hunter2")], &[]).unwrap();
    assert_eq!(loaded.api_token.as_ref().unwrap().expose(), "hunter2hunter2hunter2");
    for text in [loaded.print(), format!("{loaded:?}")] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    let refused = load_all("apiServerConfig: { token: hunter2 }", &[], &[]).unwrap_err().to_string();
    assert!(refused.contains("apiServerConfig.token") && !refused.contains("hunter2"), "{refused}");
    assert!(load_all("", &[], &[]).unwrap().api_token.is_none());
}

#[test]
fn what_others_cannot_find_is_refused_with_the_reason() {
    assert!(refusal("host: 127.0.0.1").starts_with("clusterConfig.port: must be from 1 to 65535"));
    assert!(refusal("port: 8899, seedEndpoints: [n1]").contains("\"n1\" has no port"));
    assert!(
        refusal("port: 8899, seedEndpoints: '127.0.0.1:8899,127.0.0.1:0'")
            .contains("\"127.0.0.1:0\" has no port from 1")
    );
    assert!(
        refusal("port: 8899, seedEndpoints: '127.0.0.1:8899 127.0.0.1:8900'").contains("neither an IP address nor")
    );
    assert!(refusal("port: 70000").contains("from 0 to 65535"));
    assert!(refusal("port: 8899, host: n1.example.org").contains("advertiseHost"));
    assert!(refusal("port: 8899, host: 0.0.0.0, insecure: true").contains("must say how others reach this node"));
    assert!(refusal("port: 8899, advertiseHost: '0.0.0.0'").contains("at which others reach"));
    assert!(refusal("port: 8899, advertiseHost: 'n1:8899'").contains("without a port"));
    assert!(refusal("port: 8899, clusterDomainName: 'n1:8899'").contains("without a port"));
    assert!(refusal("port: 8899, seedEndpoints: '192.0.2.7:8899'").contains("must be an address of this machine"));
    assert!(refusal("port: 8899, host: 127.0.0.1, seedEndpoints: '192.0.2.7:8899'").contains("is not on it"));
    assert!(refusal("port: 1883").contains("tcpListener.port has 127.0.0.1:1883 already"));
    assert!(refusal("port: 8899, prot: 1").contains("did you mean \"port\""));
}

#[test]
fn names_are_taken_as_they_are() {
    let yaml =
        "port: 8899, host: '*', advertiseHost: hermod-0.hermod, clusterDomainName: hermod.default.svc, insecure: true";
    let cluster = cluster(yaml).unwrap().cluster.unwrap();
    assert_eq!(cluster.advertise.to_string(), "hermod-0.hermod:8899");
    assert_eq!(cluster.domain.unwrap().to_string(), "hermod.default.svc:8899");
    assert_eq!(cluster.bind.to_string(), "0.0.0.0:8899");
}

#[test]
fn voter_counts_come_from_the_command_line_the_environment_the_file_in_this_order() {
    let yaml = "stateStoreConfig: { distWorkerConfig: { votersPerRange: 1 }, inboxStoreConfig: { votersPerRange: 1 }, retainStoreConfig: { votersPerRange: 1 } }";
    let environment = [("inbox_store_range_voter_count", "5"), ("RETAIN_STORE_RANGE_VOTER_COUNT", "5")];
    let loaded = load_all(yaml, &environment, &[("retain_store_range_voter_count", "7")]).unwrap();
    let counts = loaded.voter_counts();
    assert_eq!(
        counts.iter().map(|count| (count.store, count.voters)).collect::<Vec<_>>(),
        [("dist", 1), ("inbox", 5), ("retain", 7)]
    );
    assert!(matches!(counts[0].source, Source::File(_)));
    assert_eq!(counts[1].source, Source::Environment("inbox_store_range_voter_count".into()));
    assert_eq!(counts[2].to_string(), "retain: 7 voters per range at most (-D)");
    let counts = load_all("", &[], &[]).unwrap().voter_counts();
    assert_eq!(counts[1].to_string(), "inbox: 3 voters per range at most (default)");
}

#[test]
fn even_voter_counts_are_rounded_down_and_impossible_ones_refused() {
    let loaded =
        load_all("", &[], &[("dist_worker_range_voter_count", "4"), ("inbox_store_range_voter_count", "2")]).unwrap();
    assert_eq!(loaded.config.state_store.dist_worker.voters_per_range, 3);
    assert_eq!(loaded.config.state_store.inbox_store.voters_per_range, 1);
    assert_eq!(loaded.warnings.len(), 2);
    assert!(loaded.warnings[0].message.contains("4 is even"), "{}", loaded.warnings[0]);
    for bad in ["0", "16", "-3", "three", "3.5"] {
        let refused = load_all("", &[("dist_worker_range_voter_count", bad)], &[]).unwrap_err().to_string();
        assert!(refused.contains("votersPerRange") && refused.contains("from 1 to 15"), "{refused}");
        assert!(refused.contains("dist_worker_range_voter_count"), "{refused}");
    }
}

fn balancers(list: &str) -> Result<Loaded, Refused> {
    load_all(
        &format!("stateStoreConfig: {{ inboxStoreConfig: {{ balanceConfig: {{ balancers: {list} }} }} }}"),
        &[],
        &[],
    )
}

#[test]
fn balancers_are_a_list_or_a_mapping_and_bifromqs_names_are_known() {
    let names = |loaded: &Loaded| -> Vec<String> {
        loaded.config.state_store.inbox_store.balancers().into_iter().map(|spec| spec.name).collect()
    };
    assert_eq!(names(&load_all("", &[], &[]).unwrap()), ["ReplicaCntBalancer", "RangeLeaderBalancer"]);
    let loaded = balancers("[com.baidu.bifromq.inbox.store.balance.ReplicaCntBalancerFactory]").unwrap();
    assert_eq!(names(&loaded), ["ReplicaCntBalancer"]);
    assert_eq!(loaded.warnings, []);
    let loaded =
        balancers("{ org.apache.bifromq.inbox.store.balance.ReplicaCntBalancerFactory: { votersPerRange: 5, learnersPerRange: 0 }, RangeLeaderBalancer: , RangeBootstrapBalancer: { bootstrapTimeoutSec: 1 } }")
            .unwrap();
    assert_eq!(names(&loaded), ["ReplicaCntBalancer", "RangeLeaderBalancer", "RangeBootstrapBalancer"]);
    let inbox = &loaded.config.state_store.inbox_store;
    assert_eq!(inbox.voters_per_range, 5);
    assert!(matches!(loaded.voter_counts()[1].source, Source::File(_)));
    Registry::standard().build(&inbox.balancers(), &inbox.setup()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("printed.yml");
    std::fs::write(&file, loaded.print()).unwrap();
    let again = load(&Inputs { file: Some(file), ..Inputs::default() }).unwrap();
    assert_eq!(again.config.state_store, loaded.config.state_store);

    assert!(balancers("[RangeLeaderBalancer]").unwrap().warnings[0].message.contains("without ReplicaCntBalancer"));
    let loaded =
        load_all("", &[], &[("stateStoreConfig.distWorkerConfig.balanceConfig.balancers", "ReplicaCntBalancer")])
            .unwrap();
    assert_eq!(loaded.config.state_store.dist_worker.balancers().len(), 1);
}

#[test]
fn balancers_that_cannot_be_are_refused_with_the_reason() {
    for (list, want) in [
        ("[ReplicaCountBalancer]", "did you mean \"ReplicaCntBalancer\""),
        ("[com.example.MyOwn]", "known are RedundantRangeRemovalBalancer"),
        ("[ReplicaCntBalancer, com.baidu.ReplicaCntBalancerFactory]", "stands there twice"),
        (
            "{ ReplicaCntBalancer: { voterPerRange: 3 } }",
            "unknown field `voterPerRange`, expected one of `votersPerRange`",
        ),
        ("{ ReplicaCntBalancer: { learnersPerRange: all } }", "invalid type: string \"all\""),
        ("{ ReplicaCntBalancer: { replaceDeadAfterSec: 0 } }", "replaceDeadAfterSec must be from 1"),
        ("{ ReplicaCntBalancer: { votersPerRange: 99 } }", "from 1 to 15"),
        ("{ ReplicaCntBalancer: 3 }", "no mapping"),
    ] {
        let refused = balancers(list).expect_err(list).to_string();
        assert!(refused.contains(want) && refused.contains("balanceConfig.balancers"), "{list}: {refused}");
    }
}

#[test]
fn voters_may_be_said_twice_when_the_higher_place_wins_or_both_agree() {
    let yaml = |other: &str| {
        format!(
            "stateStoreConfig: {{ inboxStoreConfig: {{ {other} balanceConfig: {{ balancers: {{ ReplicaCntBalancer: {{ votersPerRange: 5 }} }} }} }} }}"
        )
    };
    let voters = |loaded: Loaded| loaded.config.state_store.inbox_store.voters_per_range;
    assert_eq!(voters(load_all(&yaml("votersPerRange: 5,"), &[], &[]).unwrap()), 5);
    assert_eq!(voters(load_all(&yaml(""), &[("inbox_store_range_voter_count", "1")], &[]).unwrap()), 1);
    let refused = load_all(&yaml("votersPerRange: 3,"), &[], &[]).unwrap_err().to_string();
    assert!(refused.contains("one of them is enough"), "{refused}");
}
