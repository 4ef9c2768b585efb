//! TLS and WebSocket over TLS, with a certificate made for the test.

use hermod_tests::wire::{Connect, Level};
use hermod_tests::{Client, Node, NodeSetup, Tool, free_port, loopback, script};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

struct Secure {
    _node: Node,
    certificate: CertificateDer<'static>,
    directory: TempDir,
    tls: SocketAddr,
    wss: SocketAddr,
}

fn node() -> io::Result<Secure> {
    let directory = TempDir::new()?;
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).map_err(io::Error::other)?;
    let (chain, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    fs::write(&chain, cert.pem())?;
    fs::write(&key, signing_key.serialize_pem())?;
    let (tls, wss) = (free_port()?, free_port()?);
    let ssl = format!("sslConfig: {{ certFile: {}, keyFile: {} }}", chain.display(), key.display());
    let server = format!(
        "tlsListener: {{ enable: true, host: 127.0.0.1, port: {tls}, {ssl} }}\n\
         wssListener: {{ enable: true, host: 127.0.0.1, port: {wss}, {ssl} }}"
    );
    let node = Node::start(NodeSetup { server, ..NodeSetup::default() })?;
    let certificate = cert.der().clone();
    Ok(Secure { _node: node, certificate, directory, tls: loopback(tls), wss: loopback(wss) })
}

fn handshake(
    to: SocketAddr,
    trusted: Option<CertificateDer<'static>>,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    if let Some(trusted) = trusted {
        roots.add(trusted).map_err(io::Error::other)?;
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let mut session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    session.complete_io(&mut stream)?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    Ok(StreamOwned::new(session, stream))
}

#[test]
fn mqtt_over_tls_carries_messages_of_any_size() -> io::Result<()> {
    let secure = node()?;
    let stream = handshake(secure.tls, Some(secure.certificate.clone()))?;
    let mut client = Client::over(stream, &Connect::clean(Level::V5, "tls"))?;
    client.subscribe("tls/#", 2)?;
    let large = "x".repeat(300_000);
    for (qos, payload) in [(0, "small"), (1, &large), (2, "again")] {
        client.publish("tls/x", payload, qos, false)?;
        assert!(client.message()?.payload == *payload);
    }
    Ok(())
}

#[test]
fn a_client_that_does_not_trust_it_does_not_get_through() -> io::Result<()> {
    assert!(handshake(node()?.tls, None).is_err());
    Ok(())
}

#[test]
fn plain_mqtt_on_the_tls_port_is_closed() -> io::Result<()> {
    let secure = node()?;
    assert!(Client::connect(secure.tls, &Connect::clean(Level::V4, "plain")).is_err());
    let stream = handshake(secure.tls, Some(secure.certificate.clone()))?;
    Client::over(stream, &Connect::clean(Level::V4, "after"))?;
    Ok(())
}

#[test]
fn mqtt_js_passes_its_script_over_tls_and_secure_websocket() -> io::Result<()> {
    if !Path::new(env!("CARGO_MANIFEST_DIR")).join("node_modules/mqtt").exists() {
        eprintln!("SKIPPED: mqtt.js is not installed; scripts/setup.sh installs it");
        return Ok(());
    }
    let secure = node()?;
    let authority = secure.directory.path().join("cert.pem").display().to_string();
    for url in
        [format!("mqtts://localhost:{}", secure.tls.port()), format!("wss://localhost:{}/mqtt", secure.wss.port())]
    {
        let output = Tool::run("node", &[&script("mqttjs_client.js"), &url, &authority])?;
        assert!(output.ends_with("passed\n"), "{url}: {output}");
    }
    Ok(())
}
