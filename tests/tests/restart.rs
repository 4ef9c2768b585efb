//! The end of a process, wanted or not, and the next start.

use hermod_tests::wire::{Connect, Level};
use hermod_tests::{Client, Node};
use std::io;
use std::time::{Duration, Instant};

#[test]
fn sigkill_loses_nothing_that_was_acknowledged() -> io::Result<()> {
    let mut node = Node::start_default()?;
    let me = Connect::persistent(Level::V5, "me");
    let mut client = Client::connect(node.mqtt(), &me)?;
    client.subscribe("q", 2)?;
    client.disconnect()?;
    let mut other = Client::connect(node.mqtt(), &Connect::clean(Level::V4, "other"))?;
    other.publish("q", "one", 1, false)?;
    other.publish("q", "two", 2, false)?;
    other.publish("r", "retained", 1, true)?;
    node.daemon().kill()?;
    node.restart()?;
    let mut client = Client::connect(node.mqtt(), &me)?;
    assert!(client.session_present());
    assert_eq!(client.messages(2)?, [("q".into(), "one".into()), ("q".into(), "two".into())]);
    client.subscribe("r", 1)?;
    assert_eq!(client.message()?.payload, "retained");
    Ok(())
}

#[test]
fn sigterm_tells_the_clients_and_ends_with_0_within_5_seconds() -> io::Result<()> {
    let mut node = Node::start_default()?;
    let mut five = Client::connect(node.mqtt(), &Connect::persistent(Level::V5, "five"))?;
    let mut four = Client::connect(node.mqtt(), &Connect::persistent(Level::V4, "four"))?;
    five.subscribe("t", 1)?;
    let start = Instant::now();
    let status = node.daemon().terminate(Duration::from_secs(10))?;
    assert!(status.success(), "{status}");
    assert!(start.elapsed() < Duration::from_secs(5), "after {:?}", start.elapsed());
    assert_eq!(five.closed()?, Some(0x8b));
    assert_eq!(four.closed()?, None);
    // The ports can be bound again at once, and the sessions are there.
    node.restart()?;
    assert!(Client::connect(node.mqtt(), &Connect::persistent(Level::V5, "five"))?.session_present());
    assert!(Client::connect(node.mqtt(), &Connect::persistent(Level::V4, "four"))?.session_present());
    Ok(())
}

#[test]
fn sigint_ends_it_as_well() -> io::Result<()> {
    let mut node = Node::start_default()?;
    node.daemon().signal(rustix::process::Signal::INT)?;
    assert!(node.daemon().wait(Duration::from_secs(10))?.success());
    Ok(())
}

#[test]
fn a_node_says_that_it_is_healthy_and_ready() -> io::Result<()> {
    let node = Node::start_default()?;
    assert_eq!(node.get("/health")?.0, 200);
    assert_eq!(node.get("/ready")?.0, 200);
    let (status, metrics) = node.get("/metrics")?;
    assert_eq!(status, 200);
    assert!(metrics.contains("# TYPE"), "{metrics}");
    Ok(())
}
