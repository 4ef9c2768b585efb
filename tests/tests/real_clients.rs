//! Programs that people use: each publishes to itself and to the others.

use hermod_tests::wire::{Connect, Level};
use hermod_tests::{Client, Node, Tool, python, script};
use std::io;
use std::path::Path;
use std::process::Command;

const MOSQUITTO_VERSIONS: [&str; 3] = ["mqttv31", "mqttv311", "mqttv5"];

/// `false`, with a word to whoever reads: the client could not be installed on this machine.
fn installed(program: &str, argument: &str) -> bool {
    let found = Command::new(program).arg(argument).output().is_ok();
    if !found {
        eprintln!("SKIPPED: {program} is not installed; scripts/setup.sh installs it");
    }
    found
}

#[test]
fn mosquitto_clients_hear_each_other_in_every_version_and_qos() -> io::Result<()> {
    if !installed("mosquitto_pub", "--help") {
        return Ok(());
    }
    let node = Node::start_default()?;
    let port = node.mqtt().port().to_string();
    for subscriber in MOSQUITTO_VERSIONS {
        let arguments =
            ["-h", "127.0.0.1", "-p", &port, "-V", subscriber, "-q", "2", "-t", "m/#", "-v", "-d", "-C", "9", "-i"];
        let client_id = format!("sub-{subscriber}");
        // What it writes is held back when nobody looks at a terminal.
        let unbuffered = ["-oL", "mosquitto_sub"];
        let mut sub = Tool::start("stdbuf", &[&unbuffered[..], &arguments, &[&client_id]].concat())?;
        sub.wait_for("SUBACK")?;
        for publisher in MOSQUITTO_VERSIONS {
            for qos in ["0", "1", "2"] {
                let topic = format!("m/{publisher}/{qos}");
                Tool::run(
                    "mosquitto_pub",
                    &["-h", "127.0.0.1", "-p", &port, "-V", publisher, "-q", qos, "-t", &topic, "-m", "hello"],
                )?;
            }
        }
        let output = sub.finish()?;
        for publisher in MOSQUITTO_VERSIONS {
            for qos in 0..3 {
                assert!(output.contains(&format!("m/{publisher}/{qos} hello")), "{subscriber}: {output}");
            }
        }
    }
    Ok(())
}

#[test]
fn mosquitto_sub_gets_what_was_retained_before() -> io::Result<()> {
    if !installed("mosquitto_pub", "--help") {
        return Ok(());
    }
    let node = Node::start_default()?;
    let port = node.mqtt().port().to_string();
    let to = ["-h", "127.0.0.1", "-p", &port, "-t", "kept"];
    Tool::run("mosquitto_pub", &[&to[..], &["-r", "-q", "1", "-m", "one"]].concat())?;
    assert_eq!(Tool::run("mosquitto_sub", &[&to[..], &["-C", "1"]].concat())?, "one\n");
    Ok(())
}

#[test]
fn paho_mqtt_passes_its_script() -> io::Result<()> {
    let node = Node::start_default()?;
    let output = Tool::run(python(), &[&script("paho_client.py"), &node.mqtt().port().to_string()])?;
    assert!(output.ends_with("passed\n"), "{output}");
    Ok(())
}

#[test]
fn mqtt_js_passes_its_script_over_tcp_and_websocket() -> io::Result<()> {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("node_modules/mqtt");
    if !installed("node", "--version") || !modules.exists() {
        eprintln!("SKIPPED: mqtt.js is not installed; scripts/setup.sh installs it");
        return Ok(());
    }
    let node = Node::start_default()?;
    for url in [format!("mqtt://{}", node.mqtt()), format!("ws://{}/mqtt", node.ws())] {
        let output = Tool::run("node", &[&script("mqttjs_client.js"), &url])?;
        assert!(output.ends_with("passed\n"), "{url}: {output}");
    }
    Ok(())
}

#[test]
fn rumqttc_publishes_and_receives_in_both_versions() -> io::Result<()> {
    let node = Node::start_default()?;
    let mut witness = Client::connect(node.mqtt(), &Connect::clean(Level::V5, "witness"))?;
    assert_eq!(witness.subscribe("r/#", 2)?, 2);

    let mut options = rumqttc::MqttOptions::new("rumqttc-4", "127.0.0.1", node.mqtt().port());
    options.set_clean_session(true);
    let (client, mut events) = rumqttc::Client::new(options, 10);
    client.subscribe("r/4", rumqttc::QoS::ExactlyOnce).map_err(io::Error::other)?;
    client.publish("r/4", rumqttc::QoS::ExactlyOnce, false, "four").map_err(io::Error::other)?;
    let heard = events.iter().find_map(|event| match event {
        Ok(rumqttc::Event::Incoming(rumqttc::Packet::Publish(publish))) => Some(Ok(publish.payload)),
        Ok(_) => None,
        Err(error) => Some(Err(io::Error::other(error))),
    });
    assert_eq!(heard.transpose()?.as_deref(), Some(&b"four"[..]));

    let options = rumqttc::v5::MqttOptions::new("rumqttc-5", "127.0.0.1", node.mqtt().port());
    let (client, mut events) = rumqttc::v5::Client::new(options, 10);
    let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
    client.subscribe("r/5", qos).map_err(io::Error::other)?;
    client.publish("r/5", qos, false, "five").map_err(io::Error::other)?;
    let heard = events.iter().find_map(|event| match event {
        Ok(rumqttc::v5::Event::Incoming(rumqttc::v5::mqttbytes::v5::Packet::Publish(publish))) => {
            Some(Ok(publish.payload))
        }
        Ok(_) => None,
        Err(error) => Some(Err(io::Error::other(error))),
    });
    assert_eq!(heard.transpose()?.as_deref(), Some(&b"five"[..]));
    assert_eq!(witness.messages(2)?, [("r/4".into(), "four".into()), ("r/5".into(), "five".into())]);
    Ok(())
}
