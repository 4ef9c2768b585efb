//! Wills.

use hermod_tests::wire::{Connect, Level, Will};
use hermod_tests::{Client, Node};
use std::io;
use std::time::{Duration, Instant};

fn watcher(node: &Node) -> io::Result<Client> {
    let mut watcher = Client::connect(node.mqtt(), &Connect::clean(Level::V5, "watcher"))?;
    watcher.subscribe("will/#", 1)?;
    Ok(watcher)
}

fn mortal(level: Level, delay: u32) -> Connect<'static> {
    let will = Some(Will { topic: "will/mortal", payload: "gone", delay });
    Connect { will, ..Connect::clean(level, "mortal") }
}

#[test]
fn a_broken_connection_publishes_the_will_once() -> io::Result<()> {
    let node = Node::start_default()?;
    let mut watcher = watcher(&node)?;
    for level in [Level::V4, Level::V5] {
        drop(Client::connect(node.mqtt(), &mortal(level, 0))?);
        assert_eq!(watcher.message()?.payload, "gone");
        assert_eq!(watcher.drain()?, []);
    }
    Ok(())
}

#[test]
fn a_disconnect_takes_the_will_along() -> io::Result<()> {
    let node = Node::start_default()?;
    let mut watcher = watcher(&node)?;
    Client::connect(node.mqtt(), &mortal(Level::V4, 0))?.disconnect()?;
    // 5.0 can leave and still want it: Disconnect with Will Message.
    let mut client = Client::connect(node.mqtt(), &mortal(Level::V5, 0))?;
    client.send(&[0xe0, 1, 4])?;
    client.closed()?;
    assert_eq!(watcher.message()?.payload, "gone");
    assert_eq!(watcher.drain()?, []);
    Ok(())
}

#[test]
fn a_delayed_will_waits_and_a_return_cancels_it() -> io::Result<()> {
    let node = Node::start_default()?;
    let mut watcher = watcher(&node)?;
    let me = Connect { clean: false, session_expiry: 60, ..mortal(Level::V5, 2) };
    drop(Client::connect(node.mqtt(), &me)?);
    let client = Client::connect(node.mqtt(), &me)?;
    let broken = Instant::now();
    drop(client);
    assert_eq!(watcher.message()?.payload, "gone");
    assert!(broken.elapsed() >= Duration::from_secs(2), "it came after {:?}", broken.elapsed());
    assert_eq!(watcher.drain()?, [], "the first will was cancelled");
    Ok(())
}

#[test]
fn a_delayed_will_survives_the_node() -> io::Result<()> {
    let mut node = Node::start_default()?;
    drop(Client::connect(node.mqtt(), &Connect { clean: false, session_expiry: 60, ..mortal(Level::V5, 3) })?);
    // The node has heard of the end of the connection once a client that comes later has been served.
    Client::connect(node.mqtt(), &Connect::clean(Level::V5, "later"))?.disconnect()?;
    node.daemon().kill()?;
    node.restart()?;
    assert_eq!(watcher(&node)?.message()?.payload, "gone");
    Ok(())
}

#[test]
fn keep_alive_runs_out_after_one_and_a_half_times() -> io::Result<()> {
    let node = Node::start_default()?;
    let mut watcher = watcher(&node)?;
    let start = Instant::now();
    let _silent = Client::connect(node.mqtt(), &Connect { keep_alive: 2, ..mortal(Level::V4, 0) })?;
    assert_eq!(watcher.message()?.payload, "gone");
    assert!(start.elapsed() >= Duration::from_secs(3), "after {:?}", start.elapsed());
    Ok(())
}

#[test]
fn the_largest_will_that_is_allowed_fits_into_a_connect() -> io::Result<()> {
    let node = Node::start_default()?;
    let mut watcher = watcher(&node)?;
    let (payload, name) = ("x".repeat(usize::from(u16::MAX)), "n".repeat(20_000));
    for level in [Level::V4, Level::V5] {
        let will = Some(Will { topic: "will/large", payload: &payload, delay: 0 });
        drop(Client::connect(node.mqtt(), &Connect { will, ..Connect::clean(level, &name) })?);
        assert!(watcher.message()?.payload == payload);
    }
    Ok(())
}
