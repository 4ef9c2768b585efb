//! Sessions that outlive their connections, and those that do not.

use hermod_tests::wire::{Connect, Level};
use hermod_tests::{Client, Node};
use std::io;

const BOTH: [Level; 2] = [Level::V4, Level::V5];

#[test]
fn an_offline_session_gets_everything_in_order_once() -> io::Result<()> {
    let node = Node::start_default()?;
    for level in BOTH {
        let me = Connect::persistent(level, "me");
        let mut client = Client::connect(node.mqtt(), &me)?;
        assert!(!client.session_present());
        assert_eq!(client.subscribe("queue/#", 2)?, 2);
        client.disconnect()?;

        let mut other = Client::connect(node.mqtt(), &Connect::clean(level, "other"))?;
        let expected: Vec<_> = (0..200).map(|number| ("queue/x".to_owned(), number.to_string())).collect();
        for (number, (topic, payload)) in expected.iter().enumerate() {
            assert_eq!(other.publish(topic, payload, 1 + number as u8 % 2, false)?, 0);
        }
        let mut client = Client::connect(node.mqtt(), &me)?;
        assert!(client.session_present());
        assert_eq!(client.messages(200)?, expected);
        assert_eq!(client.drain()?, []);
        client.disconnect()?;
        let mut client = Client::connect(node.mqtt(), &me)?;
        assert_eq!(client.drain()?, [], "acknowledged messages came again");
        client.disconnect()?;
        Client::connect(node.mqtt(), &Connect::clean(level, "me"))?.disconnect()?;
    }
    Ok(())
}

#[test]
fn what_was_not_acknowledged_comes_again_with_dup_and_the_same_packet_id() -> io::Result<()> {
    let node = Node::start_default()?;
    for level in BOTH {
        for qos in [1, 2] {
            let name = format!("slow-{level:?}-{qos}");
            let me = Connect::persistent(level, &name);
            let mut client = Client::connect(node.mqtt(), &me)?;
            client.subscribe(&name, qos)?;
            client.be_silent();
            let mut other = Client::connect(node.mqtt(), &Connect::clean(level, "other"))?;
            for payload in ["a", "b", "c"] {
                other.publish(&name, payload, qos, false)?;
            }
            let before = [client.message()?, client.message()?, client.message()?];
            assert!(before.iter().all(|message| !message.dup));
            drop(client);
            let mut client = Client::connect(node.mqtt(), &me)?;
            let after = [client.message()?, client.message()?, client.message()?];
            for (before, after) in before.iter().zip(&after) {
                assert!(after.dup, "{after:?}");
                assert_eq!((&before.payload, before.packet_id), (&after.payload, after.packet_id));
            }
        }
    }
    Ok(())
}

#[test]
fn a_clean_start_forgets() -> io::Result<()> {
    let node = Node::start_default()?;
    for level in BOTH {
        let mut client = Client::connect(node.mqtt(), &Connect::persistent(level, "me"))?;
        client.subscribe("old", 1)?;
        client.disconnect()?;
        let client = Client::connect(node.mqtt(), &Connect::clean(level, "me"))?;
        assert!(!client.session_present());
        client.disconnect()?;
        let mut other = Client::connect(node.mqtt(), &Connect::clean(level, "other"))?;
        other.publish("old", "x", 1, false)?;
        let mut client = Client::connect(node.mqtt(), &Connect::persistent(level, "me"))?;
        assert!(!client.session_present());
        assert_eq!(client.drain()?, []);
        Client::connect(node.mqtt(), &Connect::clean(level, "me"))?.disconnect()?;
    }
    Ok(())
}

#[test]
fn a_second_connection_takes_over_and_the_first_is_told() -> io::Result<()> {
    let node = Node::start_default()?;
    for level in BOTH {
        let me = Connect::persistent(level, "twice");
        let mut first = Client::connect(node.mqtt(), &me)?;
        first.subscribe("t", 1)?;
        let mut second = Client::connect(node.mqtt(), &me)?;
        assert!(second.session_present());
        let told = first.closed()?;
        assert_eq!(told, if level == Level::V5 { Some(0x8e) } else { None });
        assert_eq!(second.publish("t", "x", 1, false)?, 0);
        assert_eq!(second.message()?.payload, "x");
        second.disconnect()?;
        Client::connect(node.mqtt(), &Connect::clean(level, "twice"))?.disconnect()?;
    }
    Ok(())
}

#[test]
fn a_session_of_expiry_zero_ends_with_its_connection() -> io::Result<()> {
    let node = Node::start_default()?;
    let me = Connect { clean: false, ..Connect::clean(Level::V5, "brief") };
    let mut client = Client::connect(node.mqtt(), &me)?;
    client.subscribe("t", 1)?;
    client.disconnect()?;
    assert!(!Client::connect(node.mqtt(), &me)?.session_present());
    Ok(())
}

#[test]
fn qos_2_is_published_once_however_often_it_is_sent() -> io::Result<()> {
    let node = Node::start_default()?;
    let mut receiver = Client::connect(node.mqtt(), &Connect::clean(Level::V4, "receiver"))?;
    receiver.subscribe("once", 2)?;
    let me = Connect::persistent(Level::V4, "sender");
    for (dup, attempt) in [(false, 0), (true, 1), (true, 2)] {
        let mut sender = Client::connect(node.mqtt(), &me)?;
        assert_eq!(sender.session_present(), attempt > 0);
        sender.be_silent();
        let mut out = Vec::new();
        let publish =
            hermod_tests::wire::Publish { dup, qos: 2, retain: false, packet_id: 7, topic: b"once", payload: b"one" };
        hermod_tests::wire::publish(&mut out, Level::V4, &publish);
        sender.send(&out)?;
        // PUBREC has come when PINGRESP has; PUBREL is never sent.
        sender.drain()?;
    }
    let mut sender = Client::connect(node.mqtt(), &me)?;
    sender.send(&[0x62, 2, 0, 7])?;
    sender.drain()?;
    sender.publish("once", "two", 2, false)?;
    assert_eq!(receiver.messages(2)?, [("once".into(), "one".into()), ("once".into(), "two".into())]);
    assert_eq!(receiver.drain()?, []);
    Ok(())
}
