//! Users and rules.

use hermod_tests::wire::{Connect, Level, Will};
use hermod_tests::{Client, Node, NodeSetup, hermod, wait_until};
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const RULES: &str = "rules:\n\
    - allow: subscribe\n  topics: open/#\n\
    - deny: subscribe\n  topics: devices/+/secret\n\
    - allow: all\n  users: ann\n  topics: [\"#\"]\n\
    - allow: all\n  users: dev-*\n  topics: devices/%u/#\n";

fn hermod_user(command: &str, users: &Path, name: &str, password: &str) -> io::Result<bool> {
    let mut child = Command::new(hermod()?)
        .args(["user", command, "--file"])
        .arg(users)
        .arg(name)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // `remove` reads none.
        let _ = writeln!(stdin, "{password}");
    }
    Ok(child.wait()?.success())
}

/// A node with the users ann and dev-1, passwords as names; its own machine may come without a name.
fn node(directory: &TempDir) -> io::Result<Node> {
    let (users, rules) = (directory.path().join("users.txt"), directory.path().join("acl.yml"));
    for name in ["ann", "dev-1"] {
        assert!(hermod_user("add", &users, name, name)?);
    }
    fs::write(&rules, RULES)?;
    let top =
        format!("auth: {{ usersFile: {}, aclFile: {}, reloadIntervalSec: 1 }}\n", users.display(), rules.display());
    Node::start(NodeSetup { top, ..NodeSetup::default() })
}

fn named<'a>(level: Level, name: &'a str, password: &'a str) -> Connect<'a> {
    Connect { login: Some((name, password)), ..Connect::clean(level, name) }
}

#[test]
fn a_password_is_asked_for_and_a_wrong_one_refused() -> io::Result<()> {
    let directory = TempDir::new()?;
    let node = node(&directory)?;
    Client::connect(node.mqtt(), &named(Level::V4, "ann", "ann"))?.disconnect()?;
    Client::connect(node.mqtt(), &named(Level::V5, "ann", "ann"))?.disconnect()?;
    for (name, password) in [("ann", "wrong"), ("nobody", "ann")] {
        assert!(matches!(Client::refused(node.mqtt(), &named(Level::V4, name, password))?, 4 | 5));
        assert!(matches!(Client::refused(node.mqtt(), &named(Level::V5, name, password))?, 0x86 | 0x87));
    }
    Ok(())
}

#[test]
fn rules_decide_who_subscribes_publishes_and_is_delivered_to() -> io::Result<()> {
    let directory = TempDir::new()?;
    let node = node(&directory)?;
    let mut ann = Client::connect(node.mqtt(), &named(Level::V5, "ann", "ann"))?;
    let mut device = Client::connect(node.mqtt(), &named(Level::V5, "dev-1", "dev-1"))?;
    assert_eq!(device.subscribe("devices/dev-2/x", 1)?, 0x87);
    assert_eq!(device.subscribe("devices/dev-1/secret", 1)?, 0x87);
    assert_eq!(device.publish("devices/dev-2/x", "x", 1, false)?, 0x87);
    let mut old = Client::connect(node.mqtt(), &Connect { client_id: "old", ..named(Level::V4, "dev-1", "dev-1") })?;
    assert_eq!(old.subscribe("devices/dev-2/x", 1)?, 0x80);

    // What the wildcard covers and the rules deny does not come: not live, and not retained.
    assert!(ann.publish("devices/dev-1/secret", "retained", 1, true)? < 0x80);
    assert_eq!(device.subscribe("devices/dev-1/#", 1)?, 1);
    assert!(ann.publish("devices/dev-1/secret", "live", 1, false)? < 0x80);
    assert!(ann.publish("devices/dev-1/open", "seen", 1, false)? < 0x80);
    assert_eq!(device.message()?.payload, "seen");
    assert_eq!(device.drain()?, []);
    Ok(())
}

#[test]
fn a_changed_file_counts_without_a_restart_and_a_broken_one_does_not() -> io::Result<()> {
    let directory = TempDir::new()?;
    let node = node(&directory)?;
    let rules = directory.path().join("acl.yml");
    let granted = |topic: &str| -> io::Result<bool> {
        let mut client = Client::connect(node.mqtt(), &named(Level::V5, "dev-1", "dev-1"))?;
        Ok(client.subscribe(topic, 0)? < 0x80)
    };
    assert!(!granted("more/x")?);
    fs::write(&rules, format!("{RULES}- allow: subscribe\n  topics: more/#\n"))?;
    let start = Instant::now();
    while !granted("more/x")? {
        assert!(start.elapsed() < Duration::from_secs(20), "the rules are not read again");
    }
    fs::write(&rules, "rules: [nonsense")?;
    assert!(hermod_user("add", &directory.path().join("users.txt"), "late", "late")?);
    let start = Instant::now();
    while !node.log().contains("acl.yml") {
        assert!(start.elapsed() < Duration::from_secs(20), "nothing is said of the broken file");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(granted("more/x")?, "the rules before it hold");
    Ok(())
}

#[test]
fn a_will_is_dropped_and_counted_when_its_client_may_not_publish_it_any_more() -> io::Result<()> {
    const LIMIT: Duration = Duration::from_secs(20);
    let directory = TempDir::new()?;
    let mut node = node(&directory)?;
    let (users, rules) = (directory.path().join("users.txt"), directory.path().join("acl.yml"));
    let dropped = "hermod_messages_dropped_total{cause=\"will_not_authorized\"}";
    fn mortal<'a>(name: &'a str, topic: &'a str, delay: u32) -> Connect<'a> {
        let will = Some(Will { topic, payload: topic, delay });
        Connect { will, clean: false, session_expiry: 60, ..named(Level::V5, name, name) }
    }
    let mut watcher =
        Client::connect(node.mqtt(), &Connect { client_id: "watcher", ..named(Level::V5, "ann", "ann") })?;
    watcher.subscribe("devices/#", 1)?;
    let forbidden = mortal("dev-1", "devices/dev-2/will", 0);
    assert_eq!(Client::refused(node.mqtt(), &forbidden)?, 0x87, "it was not asked for at CONNECT");

    // A rule takes the right away between the end of the connection and the will.
    drop(Client::connect(node.mqtt(), &mortal("dev-1", "devices/dev-1/will", 5))?);
    drop(Client::connect(node.mqtt(), &mortal("ann", "devices/ann/will", 6))?);
    let without = RULES.replace("rules:\n", "rules:\n- deny: publish\n  users: dev-1\n  topics: devices/+/will\n");
    fs::write(&rules, without)?;
    wait_until("the rules count", LIMIT, || Ok(node.log().contains("were read again")))?;
    assert_eq!(watcher.message()?.payload, "devices/ann/will", "who may still publish does");
    assert_eq!(watcher.drain()?, []);
    assert_eq!(node.metric(dropped)?, 1.0);

    // So does the end of the user, also while the node is down.
    fs::write(&rules, RULES)?;
    wait_until("the rules count", LIMIT, || Ok(node.log().matches("were read again").count() == 2))?;
    drop(Client::connect(node.mqtt(), &mortal("dev-1", "devices/dev-1/will", 3))?);
    Client::connect(node.mqtt(), &named(Level::V5, "ann", "ann"))?.disconnect()?;
    node.daemon().kill()?;
    assert!(hermod_user("remove", &users, "dev-1", "")?);
    node.restart()?;
    let mut watcher =
        Client::connect(node.mqtt(), &Connect { client_id: "watcher", ..named(Level::V5, "ann", "ann") })?;
    watcher.subscribe("devices/#", 1)?;
    wait_until("it is dropped", LIMIT, || Ok(node.metric(dropped)? == 1.0))?;
    assert_eq!(watcher.drain()?, []);
    assert_eq!(node.metric(dropped)?, 1.0, "it is settled");
    Ok(())
}
