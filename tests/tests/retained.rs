//! Retained messages.

use hermod_tests::wire::{Connect, Level};
use hermod_tests::{Client, Node};
use std::io;

fn reader(node: &Node, filter: &str, options: u8) -> io::Result<Client> {
    let mut client = Client::connect(node.mqtt(), &Connect::clean(Level::V5, ""))?;
    assert!(client.subscribe(filter, options)? < 0x80);
    Ok(client)
}

#[test]
fn a_new_subscriber_gets_the_newest_value_of_each_topic() -> io::Result<()> {
    let node = Node::start_default()?;
    let mut client = Client::connect(node.mqtt(), &Connect::clean(Level::V4, "setter"))?;
    for (topic, payload) in [("r/a", "1"), ("r/b", "1"), ("r/a", "2"), ("r/c/d", "3"), ("r/b", "")] {
        assert_eq!(client.publish(topic, payload, 1, true)?, 0);
    }
    let mut got = reader(&node, "r/#", 1)?.messages(2)?;
    got.sort();
    assert_eq!(got, [("r/a".into(), "2".into()), ("r/c/d".into(), "3".into())]);
    let mut one = reader(&node, "r/+", 0)?;
    let message = one.message()?;
    assert_eq!((message.topic.as_str(), message.payload.as_str(), message.retain), ("r/a", "2", true));
    assert_eq!(one.drain()?, []);
    Ok(())
}

#[test]
fn a_live_subscriber_sees_the_flag_only_when_it_asks() -> io::Result<()> {
    const AS_PUBLISHED: u8 = 8;
    let node = Node::start_default()?;
    let mut plain = reader(&node, "r", 1)?;
    let mut kept = reader(&node, "r", 1 | AS_PUBLISHED)?;
    let mut client = Client::connect(node.mqtt(), &Connect::clean(Level::V4, "setter"))?;
    client.publish("r", "x", 1, true)?;
    assert!(!plain.message()?.retain);
    assert!(kept.message()?.retain);
    Ok(())
}

#[test]
fn retain_handling_decides_what_a_subscription_brings() -> io::Result<()> {
    let node = Node::start_default()?;
    let mut client = Client::connect(node.mqtt(), &Connect::clean(Level::V5, "me"))?;
    client.publish("r", "x", 1, true)?;
    const NEVER: u8 = 0x20;
    const IF_NEW: u8 = 0x10;
    client.subscribe("r", NEVER)?;
    assert_eq!(client.drain()?, []);
    client.subscribe("r", IF_NEW)?;
    assert_eq!(client.drain()?, [], "it is not new");
    client.unsubscribe("r")?;
    client.subscribe("r", IF_NEW)?;
    assert_eq!(client.message()?.payload, "x");
    client.subscribe("r", 0)?;
    assert_eq!(client.message()?.payload, "x");
    Ok(())
}

#[test]
fn thousands_are_read_without_a_cap() -> io::Result<()> {
    let node = Node::start_default()?;
    let mut client = Client::connect(node.mqtt(), &Connect::clean(Level::V4, "setter"))?;
    for number in 0..3000 {
        client.publish(&format!("many/{number}"), "x", 0, true)?;
    }
    client.publish("many/last", "x", 1, true)?;
    assert_eq!(reader(&node, "many/+", 0)?.messages(3001)?.len(), 3001);
    Ok(())
}
