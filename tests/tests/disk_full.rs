//! A full disk (faults F22, O07): what needs it is refused and says so, the rest goes on, and everything resumes when there is space.

use hermod_tests::wire::{self, AckKind, Connect, Incoming, Level, Publish};
use hermod_tests::{Client, Node, NodeSetup, wait_until};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(10);
/// A node stops accepting at 64 MiB free.
const DISK: &str = "192m";

/// A file system of its own, gone when dropped.
struct SmallDisk {
    at: TempDir,
}

impl SmallDisk {
    /// `None`, with a word why, where this process may not mount.
    fn mount() -> io::Result<Option<Self>> {
        let at = TempDir::with_prefix("hermod-disk-")?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={DISK},mode=0700"), "hermod-test"])
            .arg(at.path())
            .output();
        match mounted {
            Ok(done) if done.status.success() => Ok(Some(Self { at })),
            Ok(done) => {
                println!("SKIPPED: mounting is not permitted: {}", String::from_utf8_lossy(&done.stderr).trim());
                Ok(None)
            }
            Err(error) => {
                println!("SKIPPED: there is no `mount`: {error}");
                Ok(None)
            }
        }
    }

    fn data_dir(&self) -> PathBuf {
        self.at.path().join("data")
    }

    fn ballast(&self) -> PathBuf {
        self.at.path().join("ballast")
    }

    /// Writes until nothing more fits.
    fn fill(&self) -> io::Result<()> {
        let mut file = File::create(self.ballast())?;
        let block = vec![0; 1 << 20];
        loop {
            match file.write(&block) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Leaves so many bytes.
    fn fill_up_to(&self, left: u64) -> io::Result<()> {
        let stat = rustix::fs::statvfs(self.at.path())?;
        let size = (stat.f_bavail * stat.f_frsize).saturating_sub(left);
        io::copy(&mut io::repeat(0).take(size), &mut File::create(self.ballast())?).map(|_| ())
    }

    fn free(&self) -> io::Result<()> {
        fs::remove_file(self.ballast())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(self.at.path()).status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("{} could not be unmounted", self.at.path().display());
        }
    }
}

fn start(data_dir: &Path) -> io::Result<Node> {
    Node::start(NodeSetup { data_dir: Some(data_dir.to_owned()), ..NodeSetup::default() })
}

fn publish(level: Level, packet_id: u16, topic: &str, payload: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let (topic, payload) = (topic.as_bytes(), payload.as_bytes());
    wire::publish(&mut out, level, &Publish { dup: false, qos: 1, retain: false, packet_id, topic, payload });
    out
}

#[test]
fn a_full_disk_stops_acknowledgements_says_so_and_resumes_with_space() -> io::Result<()> {
    let Some(disk) = SmallDisk::mount()? else { return Ok(()) };
    let mut node = start(&disk.data_dir())?;
    let me = Connect::persistent(Level::V5, "queue");
    let mut queue = Client::connect(node.mqtt(), &me)?;
    queue.subscribe("queue/#", 1)?;
    queue.disconnect()?;
    let mut v5 = Client::connect(node.mqtt(), &Connect::clean(Level::V5, "five"))?;
    let mut live = Client::connect(node.mqtt(), &Connect::clean(Level::V4, "live"))?;
    live.subscribe("live", 0)?;
    let mut acknowledged = Vec::new();
    for number in 0..50 {
        let payload = format!("before {number}");
        assert_eq!(v5.publish("queue/5", &payload, 1, false)?, 0);
        acknowledged.push(payload);
    }
    assert_eq!(node.get("/ready")?.0, 200);
    assert_eq!(node.metric("hermod_disk_writable")?, 1.0);

    // It fills up while messages come.
    let filler = "x".repeat(4000);
    disk.fill()?;
    let mut refused = 0;
    for number in 0..2000 {
        let payload = format!("filling {number} {filler}");
        match v5.publish("queue/5", &payload, 1, false)? {
            0 => acknowledged.push(payload),
            code => {
                assert!(code >= 0x80, "{code:#04x}");
                refused += 1;
            }
        }
        if refused == 20 {
            break;
        }
    }
    assert_eq!(refused, 20, "a full disk goes on acknowledging");
    // Before 5.0 there is no way to say no: there is no PUBACK, and the connection stays.
    let mut v4 = Client::connect(node.mqtt(), &Connect::clean(Level::V4, "four"))?;
    v4.send(&publish(Level::V4, 7, "queue/4", "unheard"))?;
    let mut answered = false;
    v4.send(&[0xc0, 0])?;
    v4.wait("a PINGRESP", |incoming| {
        answered |= matches!(incoming, Incoming::Ack(..));
        (*incoming == Incoming::PingResp).then_some(())
    })?;
    assert!(!answered, "3.1.1 was told yes");

    // It says so.
    wait_until("/ready says why", LIMIT, || Ok(node.get("/ready")?.0 == 503))?;
    let (_, body) = node.get("/ready")?;
    assert!(body.contains("disk"), "{body}");
    assert_eq!(node.get("/health")?.0, 200, "a full disk is no reason to restart the process");
    assert_eq!(node.metric("hermod_disk_writable")?, 0.0);
    assert!(node.metric("hermod_disk_free_bytes")? < (64 << 20) as f64);
    assert!(node.log().contains("the disk is full"), "the log does not say it");

    // What needs no disk goes on: QoS 0, pings, new clients, QoS 1 between live clients, and who is refused may try again.
    let mut newcomer = Client::connect(node.mqtt(), &Connect::clean(Level::V5, "newcomer"))?;
    for number in 0..100 {
        newcomer.publish("live", &number.to_string(), 0, false)?;
        assert_eq!(live.message()?.payload, number.to_string());
    }
    assert_eq!(newcomer.publish("live", "one", 1, false)?, 0);
    assert_eq!(live.message()?.payload, "one");
    assert!(newcomer.publish("queue/5", "still", 1, false)? >= 0x80);
    assert!(newcomer.publish("kept", "still", 1, true)? >= 0x80, "a retained message was acknowledged");
    assert_eq!(node.daemon().exited()?, None);

    // Space again: everything resumes, without a restart.
    disk.free()?;
    wait_until("/ready again", LIMIT, || Ok(node.get("/ready")?.0 == 200))?;
    assert_eq!(node.metric("hermod_disk_writable")?, 1.0);
    v4.send(&publish(Level::V4, 8, "queue/4", "heard"))?;
    v4.wait("a PUBACK", |incoming| matches!(incoming, Incoming::Ack(AckKind::PubAck, 8, 0)).then_some(()))?;
    for number in 0..50 {
        let payload = format!("after {number}");
        assert_eq!(v5.publish("queue/5", &payload, 1, false)?, 0);
        acknowledged.push(payload);
    }
    live.drain()?;

    // Killed and started again: what was acknowledged is there, in order; what was not may be.
    node.daemon().kill()?;
    node.restart()?;
    let mut queue = Client::connect(node.mqtt(), &me)?;
    assert!(queue.session_present());
    let mut got = Vec::new();
    let mut heard = false;
    while got.last().is_none_or(|last| last != "after 49") || !heard {
        let message = queue.message()?;
        match message.topic.as_str() {
            "queue/4" => heard |= message.payload == "heard",
            _ => got.push(message.payload),
        }
    }
    let known: std::collections::HashSet<_> = acknowledged.iter().collect();
    got.retain(|payload| known.contains(payload));
    assert!(got == acknowledged, "{} of {} acknowledged messages came, in order", got.len(), acknowledged.len());
    Ok(())
}

#[test]
fn before_the_disk_is_full_it_is_told_and_then_nothing_new_is_stored_while_consumers_go_on() -> io::Result<()> {
    let Some(disk) = SmallDisk::mount()? else { return Ok(()) };
    // Long before the absolute reserve of this small disk counts.
    let arguments = ["diskAlarmPercent=30", "diskRefusePercent=45"].map(|limit| format!("-DstateStoreConfig.{limit}"));
    let node = Node::start(NodeSetup {
        data_dir: Some(disk.data_dir()),
        arguments: arguments.to_vec(),
        ..NodeSetup::default()
    })?;
    let stage = |stage: f64| wait_until("the stage", LIMIT, || Ok(node.metric("hermod_disk_alarm")? == stage));
    let me = Connect::persistent(Level::V5, "queue");
    let mut queue = Client::connect(node.mqtt(), &me)?;
    queue.subscribe("queue/#", 1)?;
    queue.disconnect()?;
    let mut live = Client::connect(node.mqtt(), &Connect::clean(Level::V5, "live"))?;
    live.subscribe("#", 1)?;
    let mut publisher = Client::connect(node.mqtt(), &Connect::clean(Level::V5, "publisher"))?;
    assert_eq!(publisher.publish("queue/x", "calm", 1, false)?, 0);
    assert_eq!(publisher.publish("kept", "calm", 1, true)?, 0);
    stage(0.0)?;
    assert!(!node.get("/ready")?.1.contains("warnings"));

    disk.fill_up_to(120 << 20)?;
    stage(1.0)?;
    let (status, body) = node.get("/ready")?;
    assert!(status == 200 && body.contains("warnings") && body.contains("disk"), "{status} {body}");
    assert!(node.log().contains("the disk fills up"));
    assert_eq!(publisher.publish("queue/x", "alarm", 1, false)?, 0, "an alarm refuses nothing");

    disk.free()?;
    disk.fill_up_to(96 << 20)?;
    stage(2.0)?;
    assert_eq!(node.get("/health")?.0, 200);
    assert_eq!(publisher.publish("queue/x", "refused", 1, false)?, 0x97);
    assert_eq!(publisher.publish("queue/x", "refused", 2, false)?, 0x97);
    assert_eq!(publisher.publish("kept", "refused", 1, true)?, 0x97);
    // Before 5.0 there is no way to say no: there is no PUBACK.
    let mut v4 = Client::connect(node.mqtt(), &Connect::clean(Level::V4, "four"))?;
    v4.send(&publish(Level::V4, 7, "queue/x", "refused"))?;
    v4.send(&[0xc0, 0])?;
    v4.wait("a PINGRESP", |incoming| {
        assert!(!matches!(incoming, Incoming::Ack(..)), "3.1.1 was told yes");
        (*incoming == Incoming::PingResp).then_some(())
    })?;
    // What stores nothing, or makes room, goes on.
    publisher.publish("queue/x", "qos 0", 0, false)?;
    publisher.publish("kept", "qos 0", 0, true)?;
    assert_eq!(publisher.publish("live", "qos 1", 1, false)?, 0);
    assert_eq!(publisher.publish("kept", "", 1, true)?, 0);
    let payloads: Vec<_> = live.messages(7)?.into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(payloads, ["calm", "calm", "alarm", "qos 0", "qos 0", "qos 1", ""]);
    assert_eq!(node.metric("hermod_messages_dropped_total{cause=\"disk_alarm\"}")?, 1.0);
    assert_eq!(node.metric("hermod_retained_messages")?, 0.0);
    let mut queue = Client::connect(node.mqtt(), &me)?;
    for expected in ["calm", "alarm"] {
        assert_eq!(queue.message()?.payload, expected);
    }

    disk.free()?;
    stage(0.0)?;
    assert_eq!(publisher.publish("queue/x", "room", 1, false)?, 0);
    assert_eq!(queue.message()?.payload, "room");
    Ok(())
}

#[test]
fn what_is_queued_is_read_and_acknowledged_while_the_disk_is_full() -> io::Result<()> {
    let Some(disk) = SmallDisk::mount()? else { return Ok(()) };
    let node = start(&disk.data_dir())?;
    for level in [Level::V4, Level::V5] {
        let name = format!("reader-{level:?}");
        let me = Connect::persistent(level, &name);
        let mut reader = Client::connect(node.mqtt(), &me)?;
        reader.subscribe(&name, 2)?;
        reader.disconnect()?;
        let mut publisher = Client::connect(node.mqtt(), &Connect::clean(Level::V5, "publisher"))?;
        // More than the session reads ahead.
        for number in 0..3000 {
            assert_eq!(publisher.publish(&name, &number.to_string(), 1 + number as u8 % 2, false)?, 0);
        }
        // Nothing new is taken, and there is some of the reserve left.
        disk.fill_up_to(48 << 20)?;
        wait_until("the disk is full", LIMIT, || Ok(node.metric("hermod_disk_writable")? == 0.0))?;
        assert!(publisher.publish(&name, "new", 1, false)? >= 0x80);
        // Who comes back finds his session, reads, and is done with what he acknowledged.
        let mut reader = Client::connect(node.mqtt(), &me)?;
        assert!(reader.session_present());
        let mut all: Vec<_> = reader.messages(1500)?.into_iter().map(|(_, payload)| payload).collect();
        all.extend(reader.drain()?.into_iter().map(|message| message.payload));
        drop(reader);
        let mut reader = Client::connect(node.mqtt(), &me)?;
        assert!(reader.session_present());
        while all.last().is_none_or(|last| last != "2999") {
            let message = reader.message()?;
            // What was on its way when the connection ended comes again, and says so.
            let repeated = all.contains(&message.payload);
            assert!(!repeated || message.dup, "{message:?}");
            if !repeated {
                all.push(message.payload);
            }
        }
        assert!(all.iter().enumerate().all(|(at, payload)| *payload == at.to_string()), "{all:?}");
        assert_eq!(reader.drain()?, []);
        wait_until("the queue is empty", LIMIT, || Ok(node.metric("hermod_queued_messages")? == 0.0))?;
        assert_eq!(node.metric("hermod_disk_writable")?, 0.0, "there was space, so this shows nothing");

        disk.free()?;
        wait_until("there is space", LIMIT, || Ok(node.metric("hermod_disk_writable")? == 1.0))?;
        assert_eq!(publisher.publish(&name, "on", 1, false)?, 0);
        assert_eq!(reader.message()?.payload, "on");
        reader.disconnect()?;
    }
    Ok(())
}

#[test]
fn a_session_whose_client_left_while_the_disk_was_full_expires_once_there_is_space() -> io::Result<()> {
    let Some(disk) = SmallDisk::mount()? else { return Ok(()) };
    let arguments = vec!["-DMaxSessionExpirySeconds=1".to_owned()];
    let node = Node::start(NodeSetup { data_dir: Some(disk.data_dir()), arguments, ..NodeSetup::default() })?;
    let mut client = Client::connect(node.mqtt(), &Connect::persistent(Level::V5, "leaves"))?;
    client.subscribe("t", 1)?;
    disk.fill()?;
    wait_until("the disk is full", LIMIT, || Ok(node.metric("hermod_disk_writable")? == 0.0))?;
    client.disconnect()?;
    // Until the node has given up once: five seconds of trying, and up to eight for a command that was on its way when the disk filled.
    wait_until("it says so", 2 * LIMIT, || Ok(node.log().contains("could not be detached")))?;
    disk.free()?;
    wait_until("the session is gone", LIMIT, || {
        let connected = node.metric("hermod_sessions{state=\"connected\"}")?;
        Ok(connected == 0.0 && node.metric("hermod_sessions{state=\"disconnected\"}")? == 0.0)
    })
}

#[test]
fn a_node_stops_in_order_on_a_full_disk_and_loses_nothing() -> io::Result<()> {
    let Some(disk) = SmallDisk::mount()? else { return Ok(()) };
    let mut node = start(&disk.data_dir())?;
    let me = Connect::persistent(Level::V5, "stays");
    let mut client = Client::connect(node.mqtt(), &me)?;
    client.subscribe("t", 1)?;
    client.be_silent();
    let mut publisher = Client::connect(node.mqtt(), &Connect::clean(Level::V5, "publisher"))?;
    for number in 0..100 {
        assert_eq!(publisher.publish("t", &number.to_string(), 1, false)?, 0);
    }
    disk.fill()?;
    wait_until("the disk is full", LIMIT, || Ok(node.metric("hermod_disk_writable")? == 0.0))?;
    let start = Instant::now();
    let status = node.daemon().terminate(LIMIT)?;
    assert!(status.success(), "{status}");
    assert!(start.elapsed() < Duration::from_secs(6), "it took {:?} to stop", start.elapsed());
    assert_eq!(client.closed()?, Some(0x8b));
    disk.free()?;
    node.restart()?;
    let mut client = Client::connect(node.mqtt(), &me)?;
    assert!(client.session_present());
    for number in 0..100 {
        assert_eq!(client.message()?.payload, number.to_string());
    }
    Ok(())
}
