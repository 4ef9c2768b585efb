//! A client sees one broker, whichever node it is connected to.

use hermod_tests::lab::{Cluster, ClusterSetup, Net};
use hermod_tests::wire::{Connect, Level};
use hermod_tests::{Client, hermod};
use std::io;
use std::time::Duration;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);

/// Runs a test on three nodes.
fn on_three(test: impl FnOnce(&Cluster<'_>) -> io::Result<()>) -> io::Result<()> {
    let (net, scratch) = (Net::loopback(3), TempDir::new()?);
    let setup = ClusterSetup {
        program: hermod()?,
        nodes: 3,
        voters: 3,
        disks: false,
        replace_after: None,
        arguments: Vec::new(),
    };
    test(&Cluster::start(&net, setup, scratch.path(), LIMIT)?)
}

fn clean(cluster: &Cluster<'_>, node: usize, client_id: &str) -> io::Result<Client> {
    Client::connect(cluster.mqtt(node), &Connect::clean(Level::V5, client_id))
}

fn persistent(cluster: &Cluster<'_>, node: usize, client_id: &str) -> io::Result<Client> {
    Client::connect(cluster.mqtt(node), &Connect::persistent(Level::V5, client_id))
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

fn payloads(client: &mut Client, count: usize) -> io::Result<Vec<String>> {
    Ok(client.messages(count)?.into_iter().map(|(_, payload)| payload).collect())
}

/// A PUBACK or PUBREC that takes the message.
fn accepted(code: u8) {
    assert!(code < 0x80, "refused with {code:#04x}");
}

#[test]
fn a_message_reaches_live_subscribers_of_every_node_in_order() -> io::Result<()> {
    on_three(|cluster| {
        let mut subscribers = Vec::new();
        for node in 0..3 {
            let mut subscriber = clean(cluster, node, &format!("subscriber-{node}"))?;
            subscriber.subscribe("sensors/#", 1)?;
            subscribers.push(subscriber);
        }
        for node in 0..3 {
            let mut publisher = clean(cluster, node, &format!("publisher-{node}"))?;
            for number in numbers(20) {
                accepted(publisher.publish(&format!("sensors/{node}"), &number, 1, false)?);
            }
            for subscriber in &mut subscribers {
                assert_eq!(payloads(subscriber, 20)?, numbers(20), "from node {}", node + 1);
            }
        }
        Ok(())
    })
}

#[test]
fn a_persistent_session_moves_with_its_client() -> io::Result<()> {
    on_three(|cluster| {
        let mut subscriber = persistent(cluster, 0, "mover")?;
        subscriber.subscribe("orders/#", 1)?;
        subscriber.disconnect()?;
        let mut publisher = clean(cluster, 1, "publisher")?;
        for number in numbers(20) {
            accepted(publisher.publish("orders/1", &number, 1, false)?);
        }
        let mut subscriber = persistent(cluster, 2, "mover")?;
        assert!(subscriber.session_present());
        assert_eq!(payloads(&mut subscriber, 20)?, numbers(20));
        Ok(())
    })
}

#[test]
fn a_retained_message_is_there_on_every_node() -> io::Result<()> {
    on_three(|cluster| {
        accepted(clean(cluster, 0, "publisher")?.publish("state/door", "open", 1, true)?);
        for node in 0..3 {
            let mut subscriber = clean(cluster, node, &format!("subscriber-{node}"))?;
            subscriber.subscribe("state/#", 1)?;
            let message = subscriber.message()?;
            assert_eq!((message.payload.as_str(), message.retain), ("open", true), "node {}", node + 1);
        }
        Ok(())
    })
}

#[test]
fn a_client_id_has_one_owner_in_the_cluster() -> io::Result<()> {
    on_three(|cluster| {
        for connect in [Connect::clean(Level::V5, "transient"), Connect::persistent(Level::V5, "persistent")] {
            let mut old = Client::connect(cluster.mqtt(0), &connect)?;
            for node in [1, 2, 0] {
                let new = Client::connect(cluster.mqtt(node), &connect)?;
                // 5.0: Session taken over.
                assert_eq!(old.closed()?, Some(0x8e), "{} at node {}", connect.client_id, node + 1);
                old = new;
            }
        }
        Ok(())
    })
}

#[test]
fn a_shared_group_spans_nodes() -> io::Result<()> {
    on_three(|cluster| {
        let mut members = Vec::new();
        for node in 0..3 {
            let mut member = persistent(cluster, node, &format!("member-{node}"))?;
            member.subscribe("$share/workers/jobs/#", 1)?;
            // Long before it is published to: another node may take 50 ms to know of it.
            member.subscribe(&format!("end/{node}"), 1)?;
            members.push(member);
        }
        let mut publisher = clean(cluster, 1, "publisher")?;
        for number in numbers(60) {
            accepted(publisher.publish("jobs/1", &number, 1, false)?);
        }
        // They end with a message for each alone.
        let mut got = Vec::new();
        for (node, member) in members.iter_mut().enumerate() {
            accepted(publisher.publish(&format!("end/{node}"), "end", 1, false)?);
            loop {
                let message = member.message()?;
                if message.payload == "end" {
                    break;
                }
                got.push(message.payload);
            }
        }
        got.sort_by_key(|number| number.parse::<u32>().unwrap_or(u32::MAX));
        assert_eq!(got, numbers(60));
        Ok(())
    })
}
