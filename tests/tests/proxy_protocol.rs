//! The PROXY protocol in front of MQTT: the address that counts is the one in the header, when the proxy is believed.

use hermod_tests::wire::{self, Connect, Level};
use hermod_tests::{Node, NodeSetup};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A client at 203.0.113.9, which may not connect without a name, and one on this machine, which may.
const STRANGER_V1: &[u8] = b"PROXY TCP4 203.0.113.9 127.0.0.1 4000 1883\r\n";
const NEIGHBOUR_V1: &[u8] = b"PROXY TCP4 127.0.0.1 127.0.0.1 4000 1883\r\n";
const STRANGER_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x09\x7f\x00\x00\x01\x0f\xa0\x07\x5b";
const NEIGHBOUR_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x0f\xa0\x07\x5b";

fn node(mode: &str, trusted: &str) -> io::Result<Node> {
    let key = "mqttServiceConfig.server.tcpListener.proxyProtocol";
    let defines = [format!("{key}.mode={mode}"), format!("{key}.trustedAddresses=[{trusted}]")];
    let arguments = defines.into_iter().flat_map(|define| ["-D".to_owned(), define]).collect();
    Node::start(NodeSetup { arguments, ..NodeSetup::default() })
}

/// The return code of the CONNACK; `None`: closed without one.
fn answer(node: &Node, header: &[u8]) -> io::Result<Option<u8>> {
    let mut stream = TcpStream::connect(node.mqtt())?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    let mut out = header.to_vec();
    wire::connect(&mut out, &Connect::clean(Level::V4, "proxied"));
    wire::disconnect(&mut out);
    stream.write_all(&out)?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
        _ => Ok((answer.len() == 4).then(|| answer[3])),
    }
}

#[test]
fn the_address_in_the_header_of_a_trusted_proxy_counts() -> io::Result<()> {
    let node = node("optional", "127.0.0.1")?;
    for (header, expected) in [(&b""[..], 0), (NEIGHBOUR_V1, 0), (NEIGHBOUR_V2, 0), (STRANGER_V1, 5), (STRANGER_V2, 5)]
    {
        assert_eq!(answer(&node, header)?, Some(expected), "{}", header.escape_ascii());
    }
    Ok(())
}

#[test]
fn a_header_from_anybody_else_closes_the_connection() -> io::Result<()> {
    for node in [node("optional", "192.0.2.1")?, Node::start_default()?] {
        assert_eq!(answer(&node, b"")?, Some(0));
        for header in [NEIGHBOUR_V1, NEIGHBOUR_V2] {
            assert_eq!(answer(&node, header)?, None, "{}", header.escape_ascii());
        }
    }
    Ok(())
}
