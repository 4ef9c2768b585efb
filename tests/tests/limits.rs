//! Everything is bounded, and what does not fit is counted: published = delivered + queued + expired + dropped, by cause.

use hermod_tests::wire::{self, AckKind, Connect, Incoming, Level, Publish, Will};
use hermod_tests::{Client, Node, NodeSetup, Usage, wait_until};
use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const BOTH: [Level; 2] = [Level::V4, Level::V5];
const LIMIT: Duration = Duration::from_secs(10);

fn node(settings: &[&str]) -> io::Result<Node> {
    let arguments = settings.iter().map(|setting| format!("-D{setting}")).collect();
    Node::start(NodeSetup { arguments, ..NodeSetup::default() })
}

fn dropped(node: &Node, cause: &str) -> io::Result<f64> {
    node.metric(&format!("hermod_messages_dropped_total{{cause=\"{cause}\"}}"))
}

/// A persistent session that is subscribed to a topic and away.
fn offline(node: &Node, level: Level, name: &str, qos: u8) -> io::Result<()> {
    let mut client = Client::connect(node.mqtt(), &Connect::persistent(level, name))?;
    assert_eq!(client.subscribe(name, qos)?, qos);
    client.disconnect()
}

#[test]
fn who_does_not_read_loses_qos_0_messages_and_each_is_counted() -> io::Result<()> {
    const SLOW: usize = 10;
    const MESSAGES: usize = 3000;
    let node = node(&["mqttServiceConfig.server.workerThreads=2"])?;
    let subscriber = |name: String| -> io::Result<Client> {
        let mut client = Client::connect(node.mqtt(), &Connect::clean(Level::V5, &name))?;
        client.subscribe("flood", 0)?;
        Ok(client)
    };
    let mut slow = (0..SLOW).map(|number| subscriber(format!("slow-{number}"))).collect::<io::Result<Vec<_>>>()?;
    let mut good = subscriber("good".to_owned())?;
    let mut publisher = Client::connect(node.mqtt(), &Connect::clean(Level::V5, "publisher"))?;
    let before = Usage::of(node.pid())?.rss;
    // 24 MB for each of them: more than what two socket buffers of loopback and the outbox hold.
    let filler = "x".repeat(8000);
    for number in 0..MESSAGES {
        publisher.publish("flood", &format!("{number} {filler}"), 0, false)?;
        if number % 50 == 49 {
            for expected in number - 49..=number {
                assert_eq!(good.message()?.payload.split(' ').next(), Some(expected.to_string().as_str()));
            }
        }
    }
    let grown = Usage::of(node.pid())?.peak.saturating_sub(before);
    assert!(grown < SLOW as u64 * (1 << 20) + (24 << 20), "{grown} bytes for {SLOW} slow receivers");

    let all = (MESSAGES * (SLOW + 1)) as f64;
    wait_until("every message is sent or dropped", LIMIT, || {
        let sent = node.metric("hermod_messages_sent_total{qos=\"0\"}")?;
        Ok(sent + dropped(&node, "slow_receiver")? >= all)
    })?;
    let lost = dropped(&node, "slow_receiver")?;
    assert!(lost > 0.0, "everything fitted somewhere, so this shows nothing");
    let mut delivered = MESSAGES;
    for client in &mut slow {
        let numbers: Vec<usize> =
            client.drain()?.iter().map(|message| message.payload.split(' ').next().unwrap().parse().unwrap()).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "out of order, or twice");
        assert!(numbers.len() < MESSAGES);
        delivered += numbers.len();
    }
    assert_eq!(delivered as f64 + lost, all, "delivered + dropped is not what was published");
    // Who reads again gets everything again.
    publisher.publish("flood", "again", 0, false)?;
    for client in &mut slow {
        assert_eq!(client.message()?.payload, "again");
    }
    assert_eq!(dropped(&node, "slow_receiver")?, lost);
    Ok(())
}

#[test]
fn who_does_not_acknowledge_gets_a_window_and_a_queue_and_no_more() -> io::Result<()> {
    let node = node(&["SendingMaximum=10", "SessionInboxSize=50"])?;
    for (round, level) in BOTH.into_iter().enumerate() {
        let mut silent = Client::connect(node.mqtt(), &Connect::clean(level, "silent"))?;
        silent.subscribe("t", 1)?;
        silent.be_silent();
        let mut publisher = Client::connect(node.mqtt(), &Connect::clean(level, "publisher"))?;
        for number in 0..200 {
            assert_eq!(publisher.publish("t", &number.to_string(), 1, false)?, 0);
        }
        let drops = 140.0 * (round + 1) as f64;
        wait_until("the drops are counted", LIMIT, || Ok(dropped(&node, "queue_full")? >= drops))?;
        let mut unacknowledged = silent.drain()?;
        assert_eq!(unacknowledged.len(), 10, "the window");
        let mut got = Vec::new();
        while got.len() < 60 {
            let message = if unacknowledged.is_empty() { silent.message()? } else { unacknowledged.remove(0) };
            let mut ack = Vec::new();
            wire::ack(&mut ack, AckKind::PubAck, message.packet_id);
            silent.send(&ack)?;
            got.push(message.payload.parse::<u32>().unwrap());
        }
        assert_eq!(silent.drain()?, []);
        assert_eq!(dropped(&node, "queue_full")?, drops);
        assert!(got.iter().copied().eq((0..10).chain(150..200)), "{got:?}");
        silent.disconnect()?;
    }
    Ok(())
}

#[test]
fn a_full_inbox_does_what_its_policy_says_and_counts_it() -> io::Result<()> {
    const SIZE: u32 = 5;
    const SENT: u32 = 12;
    for policy in ["DropOldest", "DropNewest", "Reject"] {
        let node = node(&["SessionInboxSize=5", &format!("SessionInboxFull={policy}")])?;
        let (cause, kept) = match policy {
            "DropOldest" => ("queue_full_oldest", SENT - SIZE..SENT),
            "DropNewest" => ("queue_full_newest", 0..SIZE),
            _ => ("queue_full_rejected", 0..SIZE),
        };
        let mut counted = 0.0;
        for level in BOTH {
            for qos in [1, 2] {
                let name = format!("{level:?}-{qos}");
                offline(&node, level, &name, qos)?;
                let mut publisher = Client::connect(node.mqtt(), &Connect::clean(level, "publisher"))?;
                for number in 0..SENT {
                    let told = policy == "Reject" && level == Level::V5 && number >= SIZE;
                    let code = publisher.publish(&name, &number.to_string(), qos, false)?;
                    assert_eq!(code, if told { 0x97 } else { 0 }, "{policy} {name} {number}");
                }
                counted += f64::from(SENT - SIZE);
                assert_eq!(dropped(&node, cause)?, counted, "{policy} {name}");
                assert_eq!(node.metric("hermod_queued_messages")?, f64::from(SIZE), "{policy} {name}");

                let mut client = Client::connect(node.mqtt(), &Connect::persistent(level, &name))?;
                let got: Vec<_> = client.messages(SIZE as usize)?.into_iter().map(|(_, payload)| payload).collect();
                let expected: Vec<_> = kept.clone().map(|number| number.to_string()).collect();
                assert_eq!(got, expected, "{policy} {name}");
                assert_eq!(client.drain()?, []);
                // Once it is read there is room again.
                wait_until("the queue is empty", LIMIT, || Ok(node.metric("hermod_queued_messages")? == 0.0))?;
                assert_eq!(publisher.publish(&name, "more", qos, false)?, 0);
                assert_eq!(client.message()?.payload, "more");
                client.disconnect()?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_rejecting_inbox_speaks_for_itself_alone() -> io::Result<()> {
    let node = node(&["SessionInboxSize=1", "SessionInboxFull=Reject"])?;
    offline(&node, Level::V5, "full", 1)?;
    let mut publisher = Client::connect(node.mqtt(), &Connect::clean(Level::V5, "publisher"))?;
    assert_eq!(publisher.publish("full", "fits", 1, false)?, 0);
    assert_eq!(publisher.publish("full", "nobody", 1, false)?, 0x97);
    let mut live = Client::connect(node.mqtt(), &Connect::clean(Level::V5, "live"))?;
    live.subscribe("full", 1)?;
    assert_eq!(publisher.publish("full", "somebody", 1, false)?, 0);
    assert_eq!(live.message()?.payload, "somebody");
    assert_eq!(dropped(&node, "queue_full_rejected")?, 2.0);
    Ok(())
}

#[test]
fn an_inbox_is_bounded_in_bytes_too() -> io::Result<()> {
    let node = node(&["SessionInboxBytes=100000"])?;
    offline(&node, Level::V5, "bytes", 1)?;
    let mut publisher = Client::connect(node.mqtt(), &Connect::clean(Level::V5, "publisher"))?;
    let filler = "x".repeat(10_000);
    for number in 0..30 {
        assert_eq!(publisher.publish("bytes", &format!("{number} {filler}"), 1, false)?, 0);
    }
    assert!(node.metric("hermod_queued_bytes")? <= 100_000.0);
    let queued = node.metric("hermod_queued_messages")?;
    assert!((8.0..10.0).contains(&queued), "{queued}");
    assert_eq!(dropped(&node, "queue_full_oldest")? + queued, 30.0);
    let mut client = Client::connect(node.mqtt(), &Connect::persistent(Level::V5, "bytes"))?;
    let got = client.messages(queued as usize)?;
    assert!(got.last().unwrap().1.starts_with("29 "));
    assert_eq!(client.drain()?, []);
    // A single message that is larger than all of it still fits.
    client.disconnect()?;
    assert_eq!(publisher.publish("bytes", &"y".repeat(200_000), 1, false)?, 0);
    let mut client = Client::connect(node.mqtt(), &Connect::persistent(Level::V5, "bytes"))?;
    assert_eq!(client.message()?.payload.len(), 200_000);
    Ok(())
}

#[test]
fn filters_are_limited_for_each_session_and_each_packet() -> io::Result<()> {
    let node = node(&["MaxTopicFiltersPerInbox=3", "MaxTopicFiltersPerSub=5"])?;
    for level in BOTH {
        let quota = if level == Level::V5 { 0x97 } else { 0x80 };
        for (name, how) in
            [("brief", Connect::clean(level, "brief")), ("lasting", Connect::persistent(level, "lasting"))]
        {
            let mut client = Client::connect(node.mqtt(), &how)?;
            for filter in ["a", "b/#", "$share/g/c"] {
                assert_eq!(client.subscribe(filter, 1)?, 1, "{level:?} {name} {filter}");
            }
            assert_eq!(client.subscribe("d", 1)?, quota, "{level:?} {name}");
            assert_eq!(client.subscribe("a", 0)?, 0, "{level:?} {name}: one that is there is no new one");
            client.unsubscribe("b/#")?;
            assert_eq!(client.subscribe("d", 1)?, 1, "{level:?} {name}");
            assert_eq!(client.subscribe("e", 1)?, quota, "{level:?} {name}");
            for filter in ["a", "$share/g/c", "d"] {
                client.unsubscribe(filter)?;
            }

            // In one packet: the first three of five; and none of six.
            let mut many = |count: usize| {
                let filters: Vec<_> = (0..count).map(|number| (format!("many/{number}"), 1)).collect();
                let mut out = Vec::new();
                wire::subscribe(&mut out, level, 999, &filters);
                client.send(&out)?;
                client.wait("a SUBACK", |incoming| match incoming {
                    Incoming::SubAck(999, codes) => Some(codes.to_vec()),
                    _ => None,
                })
            };
            assert_eq!(many(6)?, [quota; 6], "{level:?} {name}");
            assert_eq!(many(5)?, [1, 1, 1, quota, quota], "{level:?} {name}");
            client.drain()?;
            client.disconnect()?;
            Client::connect(node.mqtt(), &Connect::clean(level, "lasting"))?.disconnect()?;
        }
    }
    wait_until("no subscription is left", LIMIT, || {
        Ok(node.metric("hermod_subscriptions")? == 0.0 && node.metric("hermod_routes")? == 0.0)
    })
}

#[test]
fn a_tenant_keeps_as_many_sessions_as_it_may_and_a_client_beyond_is_refused_with_the_reason() -> io::Result<()> {
    let node = node(&["MaxSessionsPerTenant=4"])?;
    let mortal =
        Connect { will: Some(Will { topic: "w", payload: "gone", delay: 0 }), ..Connect::clean(Level::V4, "mortal") };
    for name in ["a", "b"] {
        Client::connect(node.mqtt(), &Connect::persistent(Level::V5, name))?.disconnect()?;
    }
    let connected = Client::connect(node.mqtt(), &Connect::persistent(Level::V4, "c"))?;
    let will = Client::connect(node.mqtt(), &mortal)?;
    let refused = |level, code| -> io::Result<()> {
        assert_eq!(Client::refused(node.mqtt(), &Connect::persistent(level, "one-more"))?, code);
        assert_eq!(Client::refused(node.mqtt(), &Connect { level, client_id: "will", ..mortal })?, code);
        Ok(())
    };
    refused(Level::V4, 3)?;
    refused(Level::V5, 0x97)?;
    wait_until("they are counted", LIMIT, || {
        Ok(node.metric("hermod_connects_refused_total{cause=\"quota_exceeded\"}")? == 4.0)
    })?;
    // What nobody keeps is not counted, and who is there comes back, anew too.
    Client::connect(node.mqtt(), &Connect::clean(Level::V5, "transient"))?.disconnect()?;
    assert!(Client::connect(node.mqtt(), &Connect::persistent(Level::V5, "a"))?.session_present());
    drop(connected);
    let anew = Connect { clean: true, ..Connect::persistent(Level::V5, "b") };
    drop(Client::connect(node.mqtt(), &anew)?);
    refused(Level::V5, 0x97)?;
    // A session that ends makes room.
    will.disconnect()?;
    wait_until("there is room", LIMIT, || {
        Ok(Client::connect(node.mqtt(), &Connect::persistent(Level::V5, "one-more")).is_ok())
    })?;
    Ok(())
}

#[test]
fn a_session_that_expires_frees_what_it_held() -> io::Result<()> {
    let node = node(&["MaxSessionExpirySeconds=1"])?;
    let routes = node.metric("hermod_routes")?;
    // One that asks for a second, one that asks for ever and is given a second, and one of 3.1.1.
    let asked = [
        Connect { session_expiry: 1, ..Connect::persistent(Level::V5, "second") },
        Connect::persistent(Level::V5, "ever"),
        Connect::persistent(Level::V4, "old"),
    ];
    let left = Instant::now();
    for me in &asked {
        let mut client = Client::connect(node.mqtt(), me)?;
        client.subscribe("t", 1)?;
        client.disconnect()?;
    }
    let mut publisher = Client::connect(node.mqtt(), &Connect::clean(Level::V5, "publisher"))?;
    for number in 0..5 {
        publisher.publish("t", &number.to_string(), 1, false)?;
    }
    let queued = node.metric("hermod_queued_messages")?;
    // Nothing ends early.
    assert!(queued == 15.0 || left.elapsed() > Duration::from_millis(900), "{queued} after {:?}", left.elapsed());
    wait_until("the sessions are gone, with their routes and messages", LIMIT, || {
        Ok(node.metric("hermod_sessions{state=\"disconnected\"}")? == 0.0
            && node.metric("hermod_queued_messages")? == 0.0
            && node.metric("hermod_queued_bytes")? == 0.0
            && node.metric("hermod_routes")? == routes)
    })?;
    assert_eq!(dropped(&node, "session_ended")?, queued);
    for me in &asked {
        let mut client = Client::connect(node.mqtt(), me)?;
        assert!(!client.session_present(), "{me:?}");
        assert_eq!(client.drain()?, []);
    }
    Ok(())
}

#[test]
fn a_message_that_expires_in_a_queue_is_not_delivered_and_is_counted() -> io::Result<()> {
    let node = Node::start_default()?;
    offline(&node, Level::V5, "t", 1)?;
    let mut publisher = Client::connect(node.mqtt(), &Connect::clean(Level::V5, "publisher"))?;
    let start = Instant::now();
    for number in 0..6_u8 {
        // Every second one is over after a second, the others after an hour.
        let expiry: u32 = if number % 2 == 0 { 1 } else { 3600 };
        let mut publish = vec![0x32, 12, 0, 1, b't', 0, number + 1, 5, 0x02];
        publish.extend_from_slice(&expiry.to_be_bytes());
        publish.push(b'0' + number);
        publish[1] = publish.len() as u8 - 2;
        publisher.send(&publish)?;
    }
    publisher.drain()?;
    wait_until("the time is over", LIMIT, || Ok(start.elapsed() > Duration::from_millis(1200)))?;
    let mut client = Client::connect(node.mqtt(), &Connect::persistent(Level::V5, "t"))?;
    let got: Vec<_> = client.messages(3)?.into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(got, ["1", "3", "5"]);
    assert_eq!(client.drain()?, []);
    wait_until("the others are counted", LIMIT, || Ok(dropped(&node, "expired")? >= 3.0))?;
    assert_eq!(dropped(&node, "expired")?, 3.0);
    wait_until("the queue is empty", LIMIT, || Ok(node.metric("hermod_queued_messages")? == 0.0))
}

#[test]
fn connections_beyond_the_limit_are_closed_at_once_and_the_others_stay() -> io::Result<()> {
    let server = "maxConnections: 10".to_owned();
    let node = Node::start(NodeSetup { server, ..NodeSetup::default() })?;
    let connect = |number: usize| Client::connect(node.mqtt(), &Connect::clean(Level::V5, &format!("client-{number}")));
    wait_until("the client that asked whether it is up has left", LIMIT, || {
        Ok(node.metric("hermod_connections{layer=\"tcp\"}")? == 0.0)
    })?;
    let mut clients = (0..10).map(connect).collect::<io::Result<Vec<_>>>()?;
    for _ in 0..20 {
        let mut stream = TcpStream::connect(node.mqtt())?;
        stream.set_read_timeout(Some(LIMIT))?;
        let start = Instant::now();
        let end = stream.read(&mut [0; 16]);
        assert!(matches!(end, Ok(0)) || end.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset));
        assert!(start.elapsed() < Duration::from_secs(1));
    }
    for client in &mut clients {
        client.drain()?;
    }
    clients.pop().unwrap().disconnect()?;
    let mut came = None;
    wait_until("there is room for one", LIMIT, || {
        came = connect(11).ok();
        Ok(came.is_some())
    })?;
    came.unwrap().drain().map(|_| ())
}

#[test]
fn what_one_client_sends_is_limited_with_the_reason() -> io::Result<()> {
    let settings = [
        "MaxUserPayloadBytes=4096",
        "MaxLastWillBytes=100",
        "MaxTopicLevels=4",
        "MaxTopicLength=40",
        "MsgPubPerSec=50",
    ];
    let arguments = settings.iter().map(|setting| format!("-D{setting}")).collect();
    let server = "maxConnectByteSize: 2048".to_owned();
    let node = Node::start(NodeSetup { server, arguments, ..NodeSetup::default() })?;
    let to = node.mqtt();
    let mut bystander = Client::connect(to, &Connect::clean(Level::V5, "bystander"))?;

    let long = "x".repeat(3000);
    assert!(Client::connect(to, &Connect::clean(Level::V5, &long)).is_err(), "a CONNECT of 3000 bytes");
    let will = Will { topic: "w", payload: &long[..101], delay: 0 };
    assert_eq!(Client::refused(to, &Connect { will: Some(will), ..Connect::clean(Level::V5, "w") })?, 0x95);
    let will = Will { payload: &long[..100], ..will };
    Client::connect(to, &Connect { will: Some(will), ..Connect::clean(Level::V5, "w") })?.disconnect()?;

    for (topic, code) in [("a/b/c/d", 0), ("a/b/c/d/e", 0x90), (&long[..40], 0), (&long[..41], 0x90)] {
        assert_eq!(bystander.publish(topic, "", 1, false)? & 0x80, code & 0x80, "{topic}");
        let granted = bystander.subscribe(topic, 1)?;
        assert_eq!(granted, if code == 0 { 1 } else { 0x8f }, "{topic}");
    }

    for level in BOTH {
        let mut out = Vec::new();
        for packet_id in 1..=60 {
            let publish = Publish { dup: false, qos: 1, retain: false, packet_id, topic: b"t", payload: b"x" };
            wire::publish(&mut out, level, &publish);
        }
        let mut client = Client::connect(to, &Connect::clean(level, "fast"))?;
        client.send(&out)?;
        assert_eq!(client.closed()?, (level == Level::V5).then_some(0x96));
        let mut client = Client::connect(to, &Connect::clean(level, "large"))?;
        client.publish("t", &"x".repeat(5000), 0, false)?;
        assert_eq!(client.closed()?, (level == Level::V5).then_some(0x95));
    }
    bystander.drain().map(|_| ())
}

#[test]
fn subscriptions_that_come_and_go_with_their_clients_leave_nothing_behind() -> io::Result<()> {
    const IDS: usize = 6;
    let node = node(&["mqttServiceConfig.server.workerThreads=2"])?;
    let routes = node.metric("hermod_routes")?;
    // Fewer ids than clients: they also take each other's sessions over, in the middle of anything.
    let round = |thread: usize, round: usize| -> io::Result<()> {
        let level = BOTH[round / 3 % 2];
        let name = format!("jitter-{}", (thread * 7 + round) % IDS);
        let me = if round.is_multiple_of(3) { Connect::persistent(level, &name) } else { Connect::clean(level, &name) };
        let mut client = Client::connect(node.mqtt(), &me)?;
        for filter in 0..4 {
            client.subscribe(&format!("jitter/{}/#", (round + filter) % 5), filter as u8 % 3)?;
            client.subscribe(&format!("$share/g{}/jitter/+", (thread + filter) % 3), 1)?;
        }
        client.publish(&format!("jitter/{}", round % 5), "x", round as u8 % 3, false)?;
        client.unsubscribe(&format!("jitter/{}/#", round % 5))?;
        client.unsubscribe(&format!("$share/g{}/jitter/+", thread % 3))?;
        if round.is_multiple_of(2) { client.disconnect() } else { Ok(()) }
    };
    let whole = &AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for number in 0..60 {
                    // A connection that was taken over is no error here.
                    if round(thread, number).is_ok() {
                        whole.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert!(whole.load(Ordering::Relaxed) > 60, "{whole:?} of 240 rounds went through");
    for number in 0..IDS {
        Client::connect(node.mqtt(), &Connect::clean(Level::V5, &format!("jitter-{number}")))?.disconnect()?;
    }
    let all = ["hermod_subscriptions", "hermod_shared_subscriptions", "hermod_queued_messages"];
    wait_until("nothing is left", LIMIT, || {
        let mut left = node.metric("hermod_routes")? - routes;
        left += node.metric("hermod_sessions{state=\"connected\"}")?;
        left += node.metric("hermod_sessions{state=\"disconnected\"}")?;
        for metric in all {
            left += node.metric(metric)?;
        }
        Ok(left == 0.0)
    })?;
    let mut publisher = Client::connect(node.mqtt(), &Connect::clean(Level::V5, "publisher"))?;
    for number in 0..5 {
        let code = publisher.publish(&format!("jitter/{number}"), "x", 1, false)?;
        assert_eq!(code, 0x10, "somebody matches, who has unsubscribed");
    }
    Ok(())
}

#[test]
fn a_client_that_does_not_read_delays_neither_its_successor_nor_a_stop() -> io::Result<()> {
    let mut node = Node::start_default()?;
    let mut publisher = Client::connect(node.mqtt(), &Connect::clean(Level::V5, "publisher"))?;
    let me = Connect::clean(Level::V5, "stuck");
    let filler = "x".repeat(100_000);
    let mut stuck = Vec::new();
    for round in 1..=2 {
        let start = Instant::now();
        let mut client = Client::connect(node.mqtt(), &me)?;
        assert!(start.elapsed() < Duration::from_secs(1), "it took {:?} to take over", start.elapsed());
        client.subscribe("flood", 0)?;
        let before = dropped(&node, "slow_receiver")?;
        wait_until("it is stuck", LIMIT, || {
            for _ in 0..20 {
                publisher.publish("flood", &filler, 0, false)?;
            }
            publisher.drain()?;
            Ok(dropped(&node, "slow_receiver")? > before)
        })?;
        stuck.push(client);
        assert_eq!(stuck.len(), round);
    }
    // Once it reads, the one that was taken over finds out why.
    assert_eq!(stuck[0].closed()?, Some(0x8e));
    let start = Instant::now();
    let status = node.daemon().terminate(LIMIT)?;
    assert!(status.success(), "{status}");
    assert!(start.elapsed() < Duration::from_secs(6), "it took {:?} to stop", start.elapsed());
    Ok(())
}
