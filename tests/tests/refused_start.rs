//! What a node does not start with: everything that is wrong is told at once, and nothing is touched.

use hermod_tests::{Node, NodeSetup, hermod};
use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Starts a node that is refused: what it says.
fn refused(directory: &Path, yaml: &str, arguments: &[&str]) -> io::Result<String> {
    let config = directory.join("node.yml");
    fs::write(&config, format!("dataDir: {}\n{yaml}", directory.join("data").display()))?;
    let output = Command::new(hermod()?)
        .args(["start", "--config"])
        .arg(&config)
        .args(arguments)
        .current_dir(directory)
        .output()?;
    assert!(!output.status.success());
    assert_ne!(output.status.code(), None, "it was killed by a signal");
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn every_mistake_of_a_file_is_told_at_once() -> io::Result<()> {
    let directory = TempDir::new()?;
    let yaml = "mqttServiceConfig:\n  server:\n    tcpListner: { port: 1883 }\n    connTimeoutSec: 0\n\
                apiServerConfig: { httpPort: many }\n";
    let told = refused(directory.path(), yaml, &[])?;
    for part in ["tcpListner", "tcpListener", "connTimeoutSec", "1", "300", "httpPort", "many"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!directory.path().join("data").exists(), "the data directory was touched");
    Ok(())
}

#[test]
fn a_port_in_use_is_named() -> io::Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let directory = TempDir::new()?;
    let yaml = format!(
        "mqttServiceConfig:\n  server:\n    tcpListener: {{ host: 127.0.0.1, port: {port} }}\n    \
         wsListener: {{ enable: false }}\napiServerConfig: {{ enable: false }}\n"
    );
    let told = refused(directory.path(), &yaml, &[])?;
    assert!(told.contains(&port.to_string()) && told.contains("tcpListener"), "{told}");
    assert!(!directory.path().join("data").exists(), "the data directory was touched");
    Ok(())
}

#[test]
fn a_data_directory_serves_one_process() -> io::Result<()> {
    let node = Node::start_default()?;
    let second = Node::start(NodeSetup { data_dir: Some(node.data_dir()), ..NodeSetup::default() });
    let told = second.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(told.contains(&node.data_dir().display().to_string()), "{told}");
    Ok(())
}

#[test]
fn nothing_listens_for_strangers_without_a_word() -> io::Result<()> {
    let directory = TempDir::new()?;
    let yaml = "mqttServiceConfig:\n  server:\n    tcpListener: { host: 0.0.0.0, port: 18830 }\n";
    let told = refused(directory.path(), yaml, &[])?;
    assert!(told.contains("allowAnonymous"), "{told}");
    Ok(())
}
