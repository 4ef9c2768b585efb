//! Shared subscriptions.

use hermod_tests::wire::{Connect, Level};
use hermod_tests::{Client, Node};
use std::collections::BTreeSet;
use std::io;

fn member(node: &Node, name: &str, filter: &str) -> io::Result<Client> {
    let mut client = Client::connect(node.mqtt(), &Connect::clean(Level::V5, name))?;
    assert!(client.subscribe(filter, 1)? < 0x80);
    Ok(client)
}

#[test]
fn each_message_comes_to_one_member_of_each_group() -> io::Result<()> {
    let node = Node::start_default()?;
    let mut members = [member(&node, "a", "$share/g/s/+")?, member(&node, "b", "$share/g/s/+")?];
    let mut other_group = member(&node, "c", "$share/h/s/#")?;
    let mut alone = member(&node, "d", "s/x")?;
    let mut publisher = Client::connect(node.mqtt(), &Connect::clean(Level::V4, "publisher"))?;
    for number in 0..200 {
        publisher.publish("s/x", &number.to_string(), 1, false)?;
    }
    assert_eq!(alone.messages(200)?.len(), 200);
    assert_eq!(other_group.messages(200)?.len(), 200);
    // The others have everything, so the members have, too.
    let shares = [members[0].drain()?, members[1].drain()?];
    let all: BTreeSet<&String> = shares.iter().flatten().map(|message| &message.payload).collect();
    assert_eq!((all.len(), shares[0].len() + shares[1].len()), (200, 200));
    assert!(shares.iter().all(|share| !share.is_empty()), "one member got nothing of 200");
    Ok(())
}

#[test]
fn a_group_whose_only_member_is_offline_keeps_the_messages() -> io::Result<()> {
    let node = Node::start_default()?;
    let me = Connect::persistent(Level::V5, "me");
    let mut client = Client::connect(node.mqtt(), &me)?;
    assert!(client.subscribe("$share/g/s", 1)? < 0x80);
    client.disconnect()?;
    let mut publisher = Client::connect(node.mqtt(), &Connect::clean(Level::V4, "publisher"))?;
    publisher.publish("s", "kept", 1, false)?;
    assert_eq!(Client::connect(node.mqtt(), &me)?.message()?.payload, "kept");
    Ok(())
}

#[test]
fn no_retained_messages_come_to_a_shared_subscription() -> io::Result<()> {
    let node = Node::start_default()?;
    let mut publisher = Client::connect(node.mqtt(), &Connect::clean(Level::V4, "publisher"))?;
    publisher.publish("s", "retained", 1, true)?;
    let mut member = member(&node, "a", "$share/g/s")?;
    publisher.publish("s", "live", 1, false)?;
    assert_eq!(member.message()?.payload, "live");
    Ok(())
}

#[test]
fn no_local_is_an_error_for_a_shared_subscription() -> io::Result<()> {
    const NO_LOCAL: u8 = 4;
    let node = Node::start_default()?;
    let mut client = Client::connect(node.mqtt(), &Connect::clean(Level::V5, "me"))?;
    // A protocol error [MQTT-3.8.3-4].
    assert!(client.subscribe("$share/g/s", 1 | NO_LOCAL).is_err());
    assert_eq!(client.closed()?, None, "the reason was read with the failed SUBSCRIBE");
    Ok(())
}
