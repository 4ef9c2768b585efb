//! What a hostile or broken client may try: it costs its own connection, with the reason that the specification gives, and never more
//! than a bounded piece of memory; whoever else is connected notices nothing.

use hermod_tests::wire::{self, AckKind, Connect, Incoming, Level, Publish, Will};
use hermod_tests::{Client, Node, NodeSetup, Usage, hermod, wait_until};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const BOTH: [Level; 2] = [Level::V4, Level::V5];
const LIMIT: Duration = Duration::from_secs(10);
const MIB: u64 = 1024 * 1024;

/// A node with two well-behaved clients that must notice nothing.
struct Scene {
    node: Node,
    bystanders: Vec<Client>,
}

impl Scene {
    fn new(server: &str, arguments: &[&str]) -> io::Result<Self> {
        let mut arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        // Two shards: what happens on one must not show on the other either.
        arguments.push("-DmqttServiceConfig.server.workerThreads=2".to_owned());
        let node = Node::start(NodeSetup { server: server.to_owned(), arguments, ..NodeSetup::default() })?;
        let mut bystanders = Vec::new();
        for level in BOTH {
            let mut client = Client::connect(node.mqtt(), &Connect::clean(level, &format!("bystander-{level:?}")))?;
            client.subscribe("bystanders", 1)?;
            bystanders.push(client);
        }
        Ok(Self { node, bystanders })
    }

    fn to(&self) -> SocketAddr {
        self.node.mqtt()
    }

    /// The bystanders still have the connections that they had, and talk to each other at once.
    fn all_is_well(&mut self, after: &str) -> io::Result<()> {
        let start = Instant::now();
        for from in 0..self.bystanders.len() {
            assert_eq!(self.bystanders[from].publish("bystanders", after, 1, false)?, 0, "after {after}");
            for client in &mut self.bystanders {
                assert_eq!(client.message()?.payload, after);
            }
        }
        assert!(start.elapsed() < Duration::from_secs(2), "after {after} it took {:?}", start.elapsed());
        Ok(())
    }
}

fn raw(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// What the server sends until it closes. That it resets the connection is as good, but what it said may then be lost.
fn until_closed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
        _ => Ok(answer),
    }
}

fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text].concat()
}

/// A packet of any size that four length bytes can tell.
fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let (mut out, mut length) = (vec![first], body.len());
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    [out, body].concat()
}

/// SUBSCRIBE with filters that need not be UTF-8.
fn subscribe(level: Level, filters: &[(&[u8], u8)]) -> Vec<u8> {
    let filters: Vec<u8> =
        filters.iter().flat_map(|(filter, options)| [string(filter), vec![*options]].concat()).collect();
    packet(0x82, &[&[0, 9], properties(level), &filters])
}

fn publish_raw(level: Level, topic: &[u8], payload: &[u8]) -> Vec<u8> {
    packet(0x32, &[&string(topic), &[0, 9], properties(level), payload])
}

fn properties(level: Level) -> &'static [u8] {
    if level == Level::V5 { &[0] } else { &[] }
}

/// Sends bytes as a client that is let in, and tells with which code the connection ended.
fn ends(to: SocketAddr, level: Level, bytes: &[u8]) -> io::Result<Option<u8>> {
    let mut client = Client::connect(to, &Connect::clean(level, "hostile"))?;
    client.send(bytes)?;
    client.closed()
}

#[test]
fn who_does_not_finish_connect_in_time_is_closed_and_nobody_waits_for_it() -> io::Result<()> {
    const EACH: usize = 200;
    let mut scene = Scene::new("connTimeoutSec: 2", &[])?;
    let before = Usage::of(scene.node.pid())?.rss;
    let start = Instant::now();
    let silent: Vec<_> = (0..EACH).map(|_| raw(scene.to())).collect::<io::Result<_>>()?;
    let slow: Vec<_> = (0..EACH).map(|_| raw(scene.to())).collect::<io::Result<_>>()?;
    let mut connect = Vec::new();
    wire::connect(&mut connect, &Connect::clean(Level::V4, &"x".repeat(4000)));
    // The same before the HTTP upgrade of a WebSocket: the first never begins, the others never finish.
    let upgrade = b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n";
    let mut sockets = (0..20).map(|_| TcpStream::connect(scene.node.ws())).collect::<io::Result<Vec<_>>>()?;
    for stream in &mut sockets[1..] {
        stream.write_all(upgrade)?;
    }
    let (mut open, mut sent) = ([silent, slow, sockets], 0);
    let mut first_close = None;
    while open.iter().any(|some| !some.is_empty()) {
        assert!(start.elapsed() < Duration::from_secs(5), "{:?} are open", open.map(|some| some.len()));
        for stream in &mut open[1] {
            // It may be closed already; that shows below.
            let _ = stream.write(&connect[sent..=sent]);
        }
        sent += 1;
        if sent == 2 {
            let start = Instant::now();
            Client::connect(scene.to(), &Connect::clean(Level::V5, "meanwhile"))?.disconnect()?;
            assert!(start.elapsed() < Duration::from_secs(1));
            let grown = Usage::of(scene.node.pid())?.rss.saturating_sub(before);
            assert!(grown < 2 * EACH as u64 * 16 * 1024, "{grown} bytes for {} connections", 2 * EACH);
        }
        // The wait for the first of them is what paces the single bytes.
        for some in &mut open {
            let mut paced = false;
            some.retain_mut(|stream| {
                stream.set_nonblocking(paced).unwrap();
                stream.set_read_timeout(Some(Duration::from_millis(40))).unwrap();
                paced = true;
                let read = stream.read(&mut [0; 64]);
                let waits =
                    |error: &io::Error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                match read {
                    Ok(0) => {}
                    Ok(_) => panic!("it was answered"),
                    Err(error) if waits(&error) => return true,
                    Err(_) => {}
                }
                first_close.get_or_insert(start.elapsed());
                false
            });
        }
    }
    assert!(first_close.unwrap() >= Duration::from_millis(1900), "closed after {first_close:?}");
    wait_until("every one is counted", LIMIT, || {
        Ok(scene.node.metric("hermod_connects_refused_total{cause=\"connect_timeout\"}")? >= 2.0 * EACH as f64)
    })?;
    scene.all_is_well("slow connects")
}

#[test]
fn a_first_packet_that_is_not_connect_is_closed_without_an_answer() -> io::Result<()> {
    let mut scene = Scene::new("", &[])?;
    for kind in (0..=15u8).filter(|kind| *kind != 1) {
        let flags = if matches!(kind, 6 | 8 | 10) { 2 } else { 0 };
        for body in [&[][..], &[0, 1], &[0, 1, b'a', 0, 0, 0]] {
            let mut stream = raw(scene.to())?;
            stream.write_all(&packet(kind << 4 | flags, &[body]))?;
            // Where the body is too short for the packet, the rest of a stream that ends is no excuse to wait.
            assert_eq!(until_closed(&mut stream)?, [0_u8; 0], "packet type {kind} with {body:?}");
        }
    }
    scene.all_is_well("strange first packets")
}

#[test]
fn what_only_a_server_sends_and_a_second_connect_end_the_connection() -> io::Result<()> {
    let mut scene = Scene::new("", &[])?;
    let server_only: [(&str, &[u8], &[u8]); 4] = [
        ("CONNACK", &[0x20, 2, 0, 0], &[0x20, 3, 0, 0, 0]),
        ("SUBACK", &[0x90, 3, 0, 1, 0], &[0x90, 4, 0, 1, 0, 0]),
        ("UNSUBACK", &[0xb0, 2, 0, 1], &[0xb0, 4, 0, 1, 0, 0]),
        ("PINGRESP", &[0xd0, 0], &[0xd0, 0]),
    ];
    for (what, v4, v5) in server_only {
        assert_eq!(ends(scene.to(), Level::V4, v4)?, None, "{what}");
        assert_eq!(ends(scene.to(), Level::V5, v5)?, Some(0x82), "{what}");
        scene.all_is_well(what)?;
    }
    for level in BOTH {
        let mut again = Vec::new();
        wire::connect(&mut again, &Connect::clean(level, "hostile"));
        assert_eq!(ends(scene.to(), level, &again)?, (level == Level::V5).then_some(0x82));
        for nonsense in
            [&[0x00, 0][..], &[0x30, 0], &[0xc1, 0], &[0xe0, 1, 0xff], &[0xf1, 0], &[0x36, 5, 0, 1, b'a', 0, 1]]
        {
            let told = ends(scene.to(), level, nonsense)?;
            let right = if level == Level::V5 { matches!(told, Some(0x81 | 0x82)) } else { told.is_none() };
            assert!(right, "{level:?} {nonsense:02x?}: {told:02x?}");
        }
        // AUTH is not in 3.1.1, and not without a method in 5.0.
        assert_eq!(ends(scene.to(), level, &[0xf0, 0])?, (level == Level::V5).then_some(0x82));
    }
    scene.all_is_well("a second CONNECT")
}

#[test]
fn a_claimed_length_is_judged_by_the_header_alone_and_reserves_nothing() -> io::Result<()> {
    let mut scene = Scene::new("", &[])?;
    let node = scene.node.pid();
    let before = Usage::of(node)?.rss;

    // Before CONNECT: 64 KiB.
    let mut streams = (0..500).map(|_| raw(scene.to())).collect::<io::Result<Vec<_>>>()?;
    for (at, stream) in streams.iter_mut().enumerate() {
        let header: &[u8] = if at % 2 == 0 { &[0x10, 0xff, 0xff, 0xff, 0x7f] } else { &[0x10, 0x81, 0x80, 0x04] };
        stream.write_all(header)?;
    }
    for stream in &mut streams {
        assert_eq!(until_closed(stream)?, [0_u8; 0]);
    }
    scene.all_is_well("claims before CONNECT")?;

    // After it: what CONNACK announced, told before the close.
    for _ in 0..20 {
        assert_eq!(ends(scene.to(), Level::V5, &[0x30, 0xff, 0xff, 0xff, 0x7f])?, Some(0x95));
        assert_eq!(ends(scene.to(), Level::V4, &[0x30, 0xff, 0xff, 0xff, 0x7f])?, None);
    }
    let largest = |payload: usize| packet(0x30, &[&string(b"nobody"), &[0], &vec![b'x'; payload]]);
    let fits = MIB as usize - 4 - 9;
    assert_eq!(ends(scene.to(), Level::V5, &[largest(fits), vec![0xe0, 0]].concat())?, None, "1 MiB is allowed");
    assert_eq!(ends(scene.to(), Level::V5, &largest(fits + 1))?, Some(0x95), "one byte more is not");

    // What is allowed is not reserved before it comes.
    let mut waiting = Vec::new();
    for number in 0..500 {
        let mut client = Client::connect(scene.to(), &Connect::clean(Level::V4, &format!("claims-{number}")))?;
        client.send(&[0x30, 0xf0, 0xff, 0x3f, 0, 1, b'a'])?;
        waiting.push(client);
    }
    scene.all_is_well("claims after CONNECT")?;
    let grown = Usage::of(node)?.rss.saturating_sub(before);
    assert!(grown < 32 * MIB, "{grown} bytes after 1000 claims");
    Ok(())
}

#[test]
fn a_packet_that_does_not_come_to_its_end_in_time_ends_its_connection() -> io::Result<()> {
    let mut scene = Scene::new("packetTimeoutSec: 1", &[])?;
    for level in BOTH {
        let bytes = publish_raw(level, b"t", &[b'x'; 1000]);
        let told = (level == Level::V5).then_some(0x83);
        let endless = Connect { keep_alive: 0, ..Connect::clean(level, "stops") };
        let mut stops = Client::connect(scene.to(), &endless)?;
        let start = Instant::now();
        stops.send(&bytes[..500])?;
        assert_eq!(stops.closed()?, told);
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(950) && took < Duration::from_secs(5), "closed after {took:?}");
        // That bytes trickle in is no excuse.
        let mut trickles = Client::connect(scene.to(), &Connect { client_id: "trickles", ..endless })?;
        let mut bytes = bytes.into_iter();
        wait_until("a packet that trickles in is given up", LIMIT, || {
            let byte = bytes.next().ok_or_else(|| io::Error::other("it went through"))?;
            Ok(trickles.send(&[byte]).is_err())
        })?;
    }
    wait_until("they are counted", LIMIT, || {
        Ok(scene.node.metric("hermod_disconnects_total{cause=\"packet_timeout\"}")? == 4.0)
    })?;
    scene.all_is_well("packets without an end")
}

#[test]
fn each_packet_that_comes_in_pieces_has_its_own_time_and_none_is_needed_between_packets() -> io::Result<()> {
    let scene = Scene::new("packetTimeoutSec: 1", &[])?;
    let mut stream = raw(scene.to())?;
    let (mut connect, mut answer) = (Vec::new(), [0; 4]);
    wire::connect(&mut connect, &Connect { keep_alive: 0, ..Connect::clean(Level::V4, "slow") });
    stream.write_all(&connect)?;
    stream.read_exact(&mut answer)?;
    let bytes = publish_raw(Level::V4, b"t", &[b'x'; 1000]);
    // Nothing comes for so long: that is what paces the pieces.
    let quiet = |stream: &mut TcpStream, for_millis| {
        stream.set_read_timeout(Some(Duration::from_millis(for_millis)))?;
        assert!(stream.read(&mut [0; 4]).is_err(), "the connection ended");
        stream.set_read_timeout(Some(LIMIT))
    };
    // The end of each packet comes with the beginning of the next.
    stream.write_all(&bytes[..500])?;
    for _ in 0..4 {
        quiet(&mut stream, 500)?;
        stream.write_all(&[&bytes[500..], &bytes[..500]].concat())?;
        stream.read_exact(&mut answer)?;
        assert_eq!(answer, [0x40, 2, 0, 9]);
    }
    stream.write_all(&bytes[500..])?;
    stream.read_exact(&mut answer)?;
    quiet(&mut stream, 2500)?;
    stream.write_all(&bytes)?;
    stream.read_exact(&mut answer)
}

#[test]
fn lengths_that_are_too_long_or_not_minimal_are_malformed() -> io::Result<()> {
    let mut scene = Scene::new("", &[])?;
    let lengths: [(&str, &[u8]); 4] = [
        ("five bytes", &[0x30, 0x80, 0x80, 0x80, 0x80, 0x01]),
        ("four bytes that go on", &[0x30, 0xff, 0xff, 0xff, 0xff]),
        ("a two byte zero", &[0xc0, 0x80, 0x00]),
        ("a four byte 3", &[0x30, 0x83, 0x80, 0x80, 0x00, 0, 1, b'a']),
    ];
    for (what, bytes) in lengths {
        assert_eq!(ends(scene.to(), Level::V5, bytes)?, Some(0x81), "{what}");
        assert_eq!(ends(scene.to(), Level::V4, bytes)?, None, "{what}");
        let mut stream = raw(scene.to())?;
        stream.write_all(&[&[0x10], &bytes[1..]].concat())?;
        assert_eq!(until_closed(&mut stream)?, [0_u8; 0], "{what} in CONNECT");
    }
    // A property length, and a length inside the packet that points behind its end.
    assert_eq!(ends(scene.to(), Level::V5, &[0x30, 5, 0, 1, b'a', 0x80, 0x00])?, Some(0x81));
    assert_eq!(ends(scene.to(), Level::V5, &[0x30, 4, 0, 9, b'a', 0])?, Some(0x81));
    scene.all_is_well("lengths")
}

#[test]
fn a_connection_that_ends_inside_a_packet_ends_like_any_other() -> io::Result<()> {
    let mut scene = Scene::new("", &[])?;
    scene.bystanders[0].subscribe("will/#", 1)?;
    for level in BOTH {
        let whole = publish_raw(level, b"cut/topic", b"never whole");
        for at in 1..whole.len() {
            let topic = format!("will/{level:?}/{at}");
            let will = Will { topic: &topic, payload: "cut", delay: 0 };
            let mut client = raw(scene.to())?;
            let mut out = Vec::new();
            wire::connect(&mut out, &Connect { will: Some(will), ..Connect::clean(level, "cut") });
            out.extend_from_slice(&whole[..at]);
            client.write_all(&out)?;
            client.shutdown(Shutdown::Write)?;
            assert_eq!(until_closed(&mut client)?.first(), Some(&0x20), "CONNACK came before the end");
            assert_eq!(scene.bystanders[0].message()?.topic, topic);
        }
    }
    scene.all_is_well("cut packets")
}

/// A stream that writes in pieces of random length.
struct Chunked {
    stream: TcpStream,
    most: usize,
    seed: u64,
}

impl Read for Chunked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Chunked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.stream.write(&bytes[..bytes.len().min(1 + self.seed as usize % self.most)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[test]
fn however_the_bytes_are_cut_the_packets_are_the_same() -> io::Result<()> {
    let mut scene = Scene::new("", &[])?;
    for level in BOTH {
        // The first sends single bytes.
        for most in [1, 3, 17, 80, 400, 5000] {
            let stream = raw(scene.to())?;
            let stream = Chunked { stream, most, seed: 0x9e37_79b9_7f4a_7c15 + most as u64 };
            let mut client = Client::over(stream, &Connect::clean(level, "chunks"))?;
            assert_eq!(client.subscribe("chunks", 2)?, 2);
            let payloads: Vec<String> = (0..40).map(|number| format!("{number}:{}", "x".repeat(number * 7))).collect();
            let mut bytes = Vec::new();
            for (number, payload) in payloads.iter().enumerate() {
                let (qos, packet_id, payload) = (number as u8 % 2, number as u16 + 2, payload.as_bytes());
                let publish = Publish { dup: false, qos, retain: false, packet_id, topic: b"chunks", payload };
                wire::publish(&mut bytes, level, &publish);
            }
            client.send(&bytes)?;
            let mut acks = Vec::new();
            client.wait("the last PUBACK", |incoming| {
                if let Incoming::Ack(AckKind::PubAck, id, 0) = incoming {
                    acks.push(*id);
                }
                (acks.len() == 20).then_some(())
            })?;
            assert!(acks.iter().copied().eq((3..=41).step_by(2)), "{level:?} {most}: {acks:?}");
            let came: Vec<_> = client.drain()?.into_iter().map(|message| message.payload).collect();
            assert_eq!(came, payloads, "{level:?} {most}");
            client.disconnect()?;
        }
    }
    scene.all_is_well("chunks")
}

#[test]
fn an_unknown_protocol_is_told_in_a_way_that_its_client_understands() -> io::Result<()> {
    let mut scene = Scene::new("", &[])?;
    let connect = |name: &[u8], level: u8| packet(0x10, &[&string(name), &[level, 2, 0, 0], &[0], &string(b"x")]);
    for level in [0, 6, 9, 0x83, 255] {
        let mut stream = raw(scene.to())?;
        stream.write_all(&connect(b"MQTT", level))?;
        assert_eq!(until_closed(&mut stream)?, [0x20, 2, 0, 1], "level {level}");
    }
    for name in [&b"MQTX"[..], b"", b"mqtt", b"MQIsdp", b"HTTP/1.1"] {
        let mut stream = raw(scene.to())?;
        stream.write_all(&connect(name, 4))?;
        let answer = until_closed(&mut stream)?;
        assert!(answer.is_empty() || answer == [0x20, 2, 0, 1], "{}: {answer:02x?}", String::from_utf8_lossy(name));
    }
    scene.all_is_well("protocols")?;
    // Those that are known and switched off.
    let arguments = vec!["-DMQTT5Enabled=false".to_owned(), "-DMQTT3Enabled=false".to_owned()];
    let node = Node::start(NodeSetup { arguments, ..NodeSetup::default() })?;
    assert_eq!(Client::refused(node.mqtt(), &Connect::clean(Level::V5, "x"))?, 0x84);
    let mut stream = raw(node.mqtt())?;
    stream.write_all(&packet(0x10, &[&string(b"MQIsdp"), &[3, 2, 0, 0], &string(b"x")]))?;
    assert_eq!(until_closed(&mut stream)?, [0x20, 2, 0, 1]);
    Ok(())
}

#[test]
fn text_that_is_not_utf_8_or_has_nul_is_malformed_wherever_it_stands() -> io::Result<()> {
    let mut scene = Scene::new("", &[])?;
    let bad: [(&str, &[u8]); 7] = [
        ("a stray continuation", b"a\x80"),
        ("a cut sequence", b"a\xc3"),
        ("an overlong slash", b"a\xc0\xaf"),
        ("a surrogate", b"a\xed\xa0\x80"),
        ("beyond U+10FFFF", b"a\xf4\x90\x80\x80"),
        ("NUL", b"a\0b"),
        ("an overlong NUL", b"a\xc0\x80"),
    ];
    for (what, text) in bad {
        for level in BOTH {
            let reason = (level == Level::V5).then_some(0x81);
            assert_eq!(ends(scene.to(), level, &publish_raw(level, text, b""))?, reason, "{what} in a topic");
            assert_eq!(ends(scene.to(), level, &subscribe(level, &[(text, 0)]))?, reason, "{what} in a filter");
            let mut stream = raw(scene.to())?;
            let fixed = [string(b"MQTT"), vec![level as u8, 2, 0, 0]].concat();
            stream.write_all(&packet(0x10, &[&fixed, properties(level), &string(text)]))?;
            let answer = until_closed(&mut stream)?;
            let refused = answer.first() == Some(&0x20) && matches!(answer.get(3), Some(0x81 | 0x85 | 2));
            assert!(answer.is_empty() || refused, "{what} in a client id: {answer:02x?}");
        }
        let user_property = [&[0x26][..], &string(b"k"), &string(text)].concat();
        let with_property = packet(0x30, &[&string(b"t"), &[user_property.len() as u8], &user_property]);
        assert_eq!(ends(scene.to(), Level::V5, &with_property)?, Some(0x81), "{what} in a user property");
    }
    // A byte order mark is a character like any other [MQTT-1.5.4-3].
    for client in &mut scene.bystanders {
        client.subscribe("\u{feff}t", 0)?;
        client.publish("\u{feff}t", "bom", 0, false)?;
        client.publish("t", "none", 0, false)?;
        assert_eq!(client.message()?.topic, "\u{feff}t");
        assert_eq!(client.drain()?, []);
        client.unsubscribe("\u{feff}t")?;
    }
    scene.all_is_well("bad text")
}

#[test]
fn filters_that_cannot_be_are_refused_one_by_one() -> io::Result<()> {
    let mut scene = Scene::new("", &[])?;
    let deep = "/".repeat(65_535);
    let bad: &[&str] = &[
        "",
        "a#",
        "#a",
        "a/#/b",
        "##",
        "a+",
        "+a",
        "a/+b/c",
        "$share/g",
        "$share//x",
        "$share/g/",
        "$share/g+/x",
        "$share/#/x",
        "$share/g/a#",
        "$oshare//x",
        "$oshare/g/",
        &deep,
    ];
    for (at, level) in BOTH.into_iter().enumerate() {
        let code = if level == Level::V5 { 0x8f } else { 0x80 };
        for &filter in bad {
            let shown = &filter[..filter.len().min(20)];
            assert_eq!(scene.bystanders[at].subscribe(filter, 1)?, code, "{level:?} {shown}");
        }
        let client = &mut scene.bystanders[at];
        // The good ones among them are granted, in their places.
        client
            .send(&subscribe(level, &[(b"good/1", 1), (b"a#", 1), (b"good/2", 2), (b"$share//x", 0), (b"+/g/#", 0)]))?;
        let codes = client.wait("a SUBACK", |incoming| match incoming {
            Incoming::SubAck(9, codes) => Some(codes.to_vec()),
            _ => None,
        })?;
        assert_eq!(codes, [1, code, 2, code, 0], "{level:?}");
        client.publish("good/2", "yes", 1, false)?;
        assert_eq!(client.message()?.payload, "yes");
        for filter in ["good/1", "good/2", "+/g/#"] {
            client.unsubscribe(filter)?;
        }
        // What ends the connection: no filter, reserved bits and, below, No Local on a shared subscription.
        let none = ends(scene.to(), level, &subscribe(level, &[]))?;
        assert_eq!(none, (level == Level::V5).then_some(0x82));
        for options in [0x03, 0xc0] {
            let told = ends(scene.to(), level, &subscribe(level, &[(b"a", options)]))?;
            assert!(level == Level::V4 && told.is_none() || matches!(told, Some(0x81 | 0x82)), "{told:02x?}");
        }
    }
    assert_eq!(ends(scene.to(), Level::V5, &subscribe(Level::V5, &[(b"$share/g/x", 0x04)]))?, Some(0x82));
    scene.all_is_well("filters")
}

#[test]
fn topic_names_that_cannot_be_are_refused() -> io::Result<()> {
    let mut scene = Scene::new("", &[])?;
    for topic in ["a/#", "+", "a+b", "#"] {
        assert_eq!(ends(scene.to(), Level::V5, &publish_raw(Level::V5, topic.as_bytes(), b""))?, Some(0x90), "{topic}");
        assert_eq!(ends(scene.to(), Level::V4, &publish_raw(Level::V4, topic.as_bytes(), b""))?, None, "{topic}");
    }
    assert_eq!(ends(scene.to(), Level::V4, &publish_raw(Level::V4, b"", b""))?, None);
    let empty = ends(scene.to(), Level::V5, &publish_raw(Level::V5, b"", b""))?;
    assert!(matches!(empty, Some(0x82 | 0x90)), "{empty:02x?}");
    // More levels than MaxTopicLevels: 5.0 has a reason for that message alone.
    let deep = "/".repeat(65_535);
    assert_eq!(scene.bystanders[1].publish(&deep, "", 1, false)?, 0x90);
    assert_eq!(ends(scene.to(), Level::V4, &publish_raw(Level::V4, deep.as_bytes(), b""))?, None);
    scene.all_is_well("topic names")
}

#[test]
fn dollar_topics_are_for_filters_that_name_them_and_nobody_publishes_there() -> io::Result<()> {
    let mut scene = Scene::new("", &[])?;
    let to = scene.to();
    for (at, level) in BOTH.into_iter().enumerate() {
        let mut everything = Client::connect(to, &Connect::clean(level, "everything"))?;
        for filter in ["#", "+/#", "+/broker/#", "+/+/uptime", "$share/g/#", "$share/h/+/broker/#"] {
            assert_eq!(everything.subscribe(filter, 0)?, 0, "{filter}");
        }
        let mut system = Client::connect(to, &Connect::clean(level, "system"))?;
        system.subscribe("$SYS/broker/+", 0)?;
        let message = system.message()?;
        assert!(message.topic.starts_with("$SYS/broker/"), "{message:?}");
        system.subscribe("$SYS/forged", 1)?;

        let refused = if level == Level::V5 { 0x87 } else { 0 };
        for topic in ["$SYS/forged", "$SYS/broker/uptime", "$SYS", "$share/g/x", "$other/x"] {
            for retain in [false, true] {
                let code = scene.bystanders[at].publish(topic, "forged", 1, retain)?;
                assert_eq!(code, refused, "{level:?} {topic}");
            }
        }
        let forged = |message: &hermod_tests::Message| message.payload == "forged";
        assert!(!system.drain()?.iter().any(forged));
        system.subscribe("$SYS/#", 0)?;
        assert!(!system.drain()?.iter().any(forged), "a forged value was retained");
        let leaked = everything.drain()?;
        assert!(leaked.iter().all(|message| !message.topic.starts_with('$')), "{leaked:?}");
    }
    scene.all_is_well("$-topics")
}

#[test]
fn the_receive_maximum_is_exactly_what_connack_said() -> io::Result<()> {
    let mut scene = Scene::new("", &["-DReceivingMaximum=10"])?;
    let flood = |level, ids: std::ops::RangeInclusive<u16>| {
        let mut out = Vec::new();
        for packet_id in ids {
            let publish = Publish { dup: false, qos: 2, retain: false, packet_id, topic: b"flood", payload: b"x" };
            wire::publish(&mut out, level, &publish);
        }
        out
    };
    // PUBREC never gets its PUBREL: all of them stay open.
    let mut client = Client::connect(scene.to(), &Connect::clean(Level::V5, "greedy"))?;
    client.be_silent();
    client.send(&flood(Level::V5, 1..=10))?;
    client.drain()?;
    // The same again is a repetition, not another message.
    client.send(&flood(Level::V5, 1..=10))?;
    client.drain()?;
    // One that is released makes room for one.
    client.send(&[0x62, 2, 0, 3])?;
    client.wait("PUBCOMP", |incoming| matches!(incoming, Incoming::Ack(AckKind::PubComp, 3, 0)).then_some(()))?;
    client.send(&flood(Level::V5, 11..=11))?;
    client.drain()?;
    client.send(&flood(Level::V5, 12..=12))?;
    assert_eq!(client.closed()?, Some(0x93));
    scene.all_is_well("more than Receive Maximum")?;

    // 3.1.1 knows no such limit: whoever opens many QoS 2 exchanges, and repeats one, costs little and is answered.
    let before = Usage::of(scene.node.pid())?.rss;
    let mut client = Client::connect(scene.to(), &Connect::clean(Level::V4, "many"))?;
    client.be_silent();
    client.send(&flood(Level::V4, 1..=u16::MAX))?;
    client.drain()?;
    for _ in 0..5000 {
        client.send(&flood(Level::V4, 7..=7))?;
    }
    client.drain()?;
    let grown = Usage::of(scene.node.pid())?.rss.saturating_sub(before);
    assert!(grown < 16 * MIB, "{grown} bytes");
    scene.all_is_well("open QoS 2 exchanges")
}

#[test]
fn a_topic_alias_that_was_not_granted_or_never_set_has_its_reason() -> io::Result<()> {
    let mut scene = Scene::new("", &[])?;
    let with_alias = |topic: &[u8], alias: u16| {
        let [high, low] = alias.to_be_bytes();
        packet(0x30, &[&string(topic), &[3, 0x23, high, low], b"x"])
    };
    for (what, topic, alias, reason) in [
        ("0", &b"t"[..], 0, 0x94),
        ("above Topic Alias Maximum", b"t", 11, 0x94),
        ("far above", b"t", u16::MAX, 0x94),
        ("above, and without a topic", b"", 11, 0x94),
        ("never set", b"", 10, 0x82),
    ] {
        assert_eq!(ends(scene.to(), Level::V5, &with_alias(topic, alias))?, Some(reason), "{what}");
    }
    // All that were granted, set and used; and set anew by the one whose they are alone.
    let client = &mut scene.bystanders[1];
    client.subscribe("alias/#", 0)?;
    for alias in 1..=10 {
        client.send(&with_alias(format!("alias/{alias}").as_bytes(), alias))?;
        client.send(&with_alias(b"", alias))?;
    }
    for alias in 1..=10 {
        let topic = format!("alias/{alias}");
        assert_eq!((client.message()?.topic, client.message()?.topic), (topic.clone(), topic));
    }
    client.unsubscribe("alias/#")?;
    assert_eq!(ends(scene.to(), Level::V5, &with_alias(b"", 1))?, Some(0x82), "the alias of somebody else");
    scene.all_is_well("aliases")
}

#[test]
fn more_properties_than_anybody_needs_are_refused_quickly() -> io::Result<()> {
    let mut scene = Scene::new("", &[])?;
    let properties = |count: usize| {
        let all = [&[0x26][..], &string(b"k"), &string(b"v")].concat().repeat(count);
        let length = packet(0, &[&all]);
        // Its own packet header is the length as a variable byte integer.
        packet(0x30, &[&string(b"t"), &length[1..], b"x"])
    };
    let start = Instant::now();
    for _ in 0..10 {
        assert_eq!(ends(scene.to(), Level::V5, &properties(65_000))?, Some(0x97));
    }
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    let twice = packet(0x30, &[&string(b"t"), &[4, 0x01, 0, 0x01, 0]]);
    assert_eq!(ends(scene.to(), Level::V5, &twice)?, Some(0x82));
    scene.all_is_well("properties")
}

#[test]
fn taking_over_and_falling_silent_end_one_connection_with_the_reason() -> io::Result<()> {
    let mut scene = Scene::new("", &[])?;
    for level in BOTH {
        let reason = |code| (level == Level::V5).then_some(code);
        for round in 0..10 {
            let me = if round % 2 == 0 { Connect::clean(level, "same") } else { Connect::persistent(level, "same") };
            let mut first = Client::connect(scene.to(), &me)?;
            let second = Client::connect(scene.to(), &me)?;
            assert_eq!(first.closed()?, reason(0x8e));
            second.disconnect()?;
        }
        scene.all_is_well("takeovers")?;

        let start = Instant::now();
        let brief =
            |name: &str| Client::connect(scene.node.mqtt(), &Connect { keep_alive: 1, ..Connect::clean(level, name) });
        let (mut silent, mut dripping, mut alive) = (brief("silent")?, brief("dripping")?, brief("alive")?);
        // Half a packet is no packet: single bytes do not keep a connection alive.
        let packet = publish_raw(level, b"t", &[b'x'; 100]);
        let mut at = 0;
        while start.elapsed() < Duration::from_millis(1300) {
            dripping.send(&packet[at..=at])?;
            at += 1;
            // The time that the answer takes paces it.
            alive.drain()?;
            wait_until("a moment", LIMIT, || Ok(start.elapsed() >= Duration::from_millis(100) * at as u32))?;
        }
        assert_eq!(silent.closed()?, reason(0x8d));
        assert!(
            (Duration::from_millis(1400)..Duration::from_secs(4)).contains(&start.elapsed()),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(dripping.closed()?, reason(0x8d));
        assert!(start.elapsed() < Duration::from_secs(4));
        scene.all_is_well("a keep-alive that ran out")?;
    }
    Ok(())
}

#[test]
fn a_client_id_is_never_a_pattern_and_never_a_line_of_the_log() -> io::Result<()> {
    let mut scene = Scene::new("", &["-Dlog.level=debug"])?;
    let names =
        ["#", "+", "/", "$share", "%c", "../..", "<b>", "a\nERROR forged", "a\u{1b}[31mred", ".*", "${x}", "+/#"];
    for name in names {
        let mut client = Client::connect(scene.to(), &Connect::persistent(Level::V5, name))?;
        assert!(!client.session_present(), "{name:?}");
        client.subscribe(&format!("to/{}", names.iter().position(|one| *one == name).unwrap()), 1)?;
        client.disconnect()?;
    }
    for (at, name) in names.iter().enumerate() {
        scene.bystanders[1].publish(&format!("to/{at}"), name, 1, false)?;
    }
    for name in names {
        let mut client = Client::connect(scene.to(), &Connect::persistent(Level::V5, name))?;
        assert!(client.session_present(), "{name:?}");
        assert_eq!(client.message()?.payload, name);
        assert_eq!(client.drain()?, [], "{name:?} got what was for another");
    }
    scene.all_is_well("odd client ids")?;
    let log = scene.node.log();
    assert!(log.contains("forged"), "the client id is not in the log, so this shows nothing");
    assert!(!log.lines().any(|line| line.starts_with("ERROR forged")), "a client wrote a line of the log");
    assert!(!log.contains('\u{1b}'), "a client wrote to the terminal");
    Ok(())
}

#[test]
fn nobody_else_is_reached_by_an_open_node_by_mistake() -> io::Result<()> {
    let check = |arguments: &[&str]| -> io::Result<(bool, String)> {
        let out = Command::new(hermod()?).args(["config", "check"]).args(arguments).output()?;
        let text = [out.stdout, out.stderr].concat();
        Ok((out.status.success(), String::from_utf8_lossy(&text).into_owned()))
    };
    for listener in ["tcpListener", "wsListener"] {
        for host in ["0.0.0.0", "::", "*", "192.0.2.1"] {
            let open = format!("-DmqttServiceConfig.server.{listener}.host={host}");
            let (accepted, text) = check(&[&open])?;
            assert!(!accepted && text.contains("allowAnonymous"), "{open}: {text}");
            let (accepted, text) = check(&[&open, "-DallowAnonymous=true"])?;
            assert!(accepted, "{open}: {text}");
        }
    }
    let (accepted, text) = check(&[])?;
    assert!(accepted, "{text}");
    Ok(())
}

fn add_user(users: &Path, name: &str) -> io::Result<()> {
    let mut command = Command::new(hermod()?);
    command.args(["user", "add", "--file"]).arg(users).arg(name).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        writeln!(stdin, "secret")?;
    }
    assert!(child.wait()?.success());
    Ok(())
}

#[test]
fn a_session_is_not_to_be_had_by_its_client_id() -> io::Result<()> {
    let directory = TempDir::new()?;
    let users = directory.path().join("users.txt");
    add_user(&users, "ann")?;
    add_user(&users, "bob")?;
    let top = format!("auth: {{ usersFile: {} }}\n", users.display());
    let node = Node::start(NodeSetup { top, ..NodeSetup::default() })?;
    for level in BOTH {
        let refusal = if level == Level::V5 { 0x85 } else { 2 };
        let owned = Connect::persistent(level, "device");
        for owned in [owned, Connect { client_id: "brief", ..Connect::clean(level, "brief") }] {
            let ann = Connect { login: Some(("ann", "secret")), ..owned };
            let bob = Connect { login: Some(("bob", "secret")), ..owned };
            let mut client = Client::connect(node.mqtt(), &ann)?;
            client.subscribe("mine", 1)?;
            // By another user, with and without clean start, and by nobody.
            for thief in [bob, Connect { clean: true, ..bob }, owned, Connect { clean: true, ..owned }] {
                assert_eq!(Client::refused(node.mqtt(), &thief)?, refusal, "{thief:?}");
            }
            client.publish("mine", "still here", 1, false)?;
            assert_eq!(client.message()?.payload, "still here");
            client.disconnect()?;
            if owned.client_id == "device" {
                // Nor while its owner is away.
                assert_eq!(Client::refused(node.mqtt(), &bob)?, refusal);
                let client = Client::connect(node.mqtt(), &ann)?;
                assert!(client.session_present());
                client.disconnect()?;
                Client::connect(node.mqtt(), &Connect { login: ann.login, ..Connect::clean(level, "device") })?
                    .disconnect()?;
            }
            // One that is over is anybody's.
            Client::connect(node.mqtt(), &Connect { login: bob.login, ..Connect::clean(level, owned.client_id) })?
                .disconnect()?;
        }
    }
    Ok(())
}

#[test]
fn a_client_id_in_a_rule_does_not_become_a_wildcard() -> io::Result<()> {
    let directory = TempDir::new()?;
    let rules = directory.path().join("acl.yml");
    fs::write(&rules, "rules:\n- allow: all\n  topics: \"devices/%c/#\"\n")?;
    let node =
        Node::start(NodeSetup { top: format!("auth: {{ aclFile: {} }}\n", rules.display()), ..NodeSetup::default() })?;
    for level in BOTH {
        let denied = if level == Level::V5 { 0x87 } else { 0x80 };
        let mut good = Client::connect(node.mqtt(), &Connect::clean(level, "good"))?;
        assert_eq!(good.subscribe("devices/good/#", 0)?, 0);
        assert_eq!(good.subscribe("devices/+/x", 0)?, denied);
        for name in ["+", "#", "good/#", "+/good", "/"] {
            let mut client = Client::connect(node.mqtt(), &Connect::clean(level, name))?;
            for filter in ["devices/#", "devices/+/x", "devices/+/good/x", "devices/good/x", "devices/good/#", "#"] {
                assert_eq!(client.subscribe(filter, 0)?, denied, "{name} {filter}");
            }
            client.publish("devices/good/x", "forged", 1, false)?;
        }
        good.publish("devices/good/x", "own", 0, false)?;
        assert_eq!(good.message()?.payload, "own");
        good.disconnect()?;
    }
    Ok(())
}
