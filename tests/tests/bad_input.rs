//! Bytes that no client should send: they cost their own connection, with a reason, and nothing else.

use hermod_tests::wire::{Connect, Level};
use hermod_tests::{Client, Node};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

#[test]
fn a_malformed_packet_closes_its_connection_with_the_reason_and_no_other() -> io::Result<()> {
    let cases: &[(&str, &[u8], u8)] = &[
        ("a reserved packet type", &[0x00, 0], 0x81),
        ("reserved bits of SUBSCRIBE", &[0x80, 6, 0, 1, 0, 0, 0, 0], 0x81),
        ("packet id 0", &[0x82, 7, 0, 0, 0, 0, 1, b'a', 0], 0x82),
        ("an empty SUBSCRIBE", &[0x82, 3, 0, 1, 0], 0x82),
        ("a wildcard in a topic", &[0x30, 4, 0, 1, b'#', 0], 0x90),
        ("QoS 3", &[0x36, 6, 0, 1, b'a', 0, 1, 0], 0x81),
        ("a remaining length of five bytes", &[0x30, 0xff, 0xff, 0xff, 0xff, 1], 0x81),
        ("a packet that only servers send", &[0x20, 3, 0, 0, 0], 0x82),
        ("a second CONNECT", &[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 0, 0, 0], 0x82),
        ("more than the announced size", &[0x30, 0xff, 0xff, 0xff, 0x7f], 0x95),
        ("an alias that was not granted", &[0x30, 6, 0, 0, 3, 0x23, 0xff, 0xff], 0x94),
    ];
    let node = Node::start_default()?;
    let mut bystander = Client::connect(node.mqtt(), &Connect::clean(Level::V5, "bystander"))?;
    bystander.subscribe("b", 1)?;
    for (what, bytes, reason) in cases {
        let mut client = Client::connect(node.mqtt(), &Connect::clean(Level::V5, "bad"))?;
        client.send(bytes)?;
        let told = client.closed()?;
        // The specification calls some of these malformed and a protocol error in turn.
        let either = |code| matches!(code, 0x81 | 0x82);
        assert!(told.is_some_and(|told| told == *reason || (either(told) && either(*reason))), "{what}: {told:?}");
        assert_eq!(bystander.publish("b", what, 1, false)?, 0);
        assert_eq!(bystander.message()?.payload, *what);
    }
    Ok(())
}

#[test]
fn an_unknown_protocol_level_is_told_so() -> io::Result<()> {
    let node = Node::start_default()?;
    let mut stream = TcpStream::connect(node.mqtt())?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(&[0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 9, 2, 0, 0, 0, 0])?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    assert!(answer.starts_with(&[0x20]) && matches!(answer.get(3), Some(1 | 0x84)), "{answer:02x?}");
    Ok(())
}

#[test]
fn noise_before_connect_is_closed() -> io::Result<()> {
    let node = Node::start_default()?;
    for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x30, 3, 0, 1, b'a'], &[0xff; 64]] {
        let mut stream = TcpStream::connect(node.mqtt())?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(noise)?;
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        let closed = end.is_ok() || end.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
        assert!(closed, "{noise:02x?}: {answer:02x?}");
    }
    Client::connect(node.mqtt(), &Connect::clean(Level::V4, "after"))?.disconnect()
}

#[test]
fn more_than_the_receive_maximum_is_refused_with_0x93() -> io::Result<()> {
    let node = Node::start_default()?;
    let mut client = Client::connect(node.mqtt(), &Connect::clean(Level::V5, "greedy"))?;
    client.be_silent();
    let mut out = Vec::new();
    // PUBREC never gets its PUBREL, so each of these stays open.
    for packet_id in 1..=2000 {
        let publish =
            hermod_tests::wire::Publish { dup: false, qos: 2, retain: false, packet_id, topic: b"t", payload: b"x" };
        hermod_tests::wire::publish(&mut out, Level::V5, &publish);
    }
    client.send(&out)?;
    assert_eq!(client.closed()?, Some(0x93));
    Ok(())
}
