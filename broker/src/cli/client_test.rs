use super::*;
use base_types::TopicName;
use bytes::Bytes;
use clap::Parser;
use std::collections::VecDeque;
use tokio::net::TcpListener;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    connection: ConnectionArgs,
}

fn arguments(port: u16, more: &[&str]) -> ConnectionArgs {
    let port = port.to_string();
    let line = ["test", "-p", &port].into_iter().chain(more.iter().copied());
    Arguments::command_line(line).connection
}

impl Arguments {
    fn command_line<'a>(line: impl Iterator<Item = &'a str>) -> Self {
        // `-h` is the host, as in the commands that have these arguments.
        let command = <Self as clap::CommandFactory>::command().disable_help_flag(true);
        <Self as clap::FromArgMatches>::from_arg_matches(&command.get_matches_from(line)).unwrap()
    }
}

/// The other end: says what it is told to say, and keeps what it got.
struct Peer {
    stream: TcpStream,
    decoder: Decoder,
    buffer: BytesMut,
    got: VecDeque<Packet>,
}

impl Peer {
    async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        Self { stream, decoder: Decoder::new(Role::Server, 65_536), buffer: BytesMut::new(), got: VecDeque::new() }
    }

    async fn next(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = self.got.pop_front() {
                return Some(packet);
            }
            while let Some(packet) = self.decoder.decode(&mut self.buffer).unwrap() {
                self.got.push_back(packet);
            }
            if self.got.is_empty() && self.stream.read_buf(&mut self.buffer).await.unwrap() == 0 {
                return None;
            }
        }
    }

    async fn say(&mut self, packet: Packet) {
        let mut out = BytesMut::new();
        encode(&packet, Version::V5, &mut out).unwrap();
        self.stream.write_all(&out).await.unwrap();
    }

    async fn greet(&mut self, connack: ConnAck) {
        assert!(matches!(self.next().await, Some(Packet::Connect(_))));
        self.say(Packet::ConnAck(Box::new(connack))).await;
    }
}

fn message(qos: QoS, packet_id: Option<PacketId>) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: Some(TopicName::new("a").unwrap()),
        packet_id,
        payload: Bytes::from_static(b"x"),
        message_expiry_interval: None,
        topic_alias: None,
        subscription_identifiers: Vec::new(),
        payload_is_utf8: false,
        forwarded: Bytes::new(),
    }
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[tokio::test]
async fn a_refusal_is_told_with_what_to_do() {
    let (listener, port) = listener().await;
    let peer = tokio::spawn(async move {
        let reason_code = ReasonCode::BadUserNameOrPassword;
        Peer::accept(&listener).await.greet(ConnAck { reason_code, ..ConnAck::default() }).await;
    });
    let error = Client::connect(&arguments(port, &["-u", "ann"])).await.err().unwrap().to_string();
    assert!(error.contains("(0x86)") && error.contains("check -u"), "{error}");
    peer.await.unwrap();
    let error = Client::connect(&arguments(port, &[])).await.err().unwrap().to_string();
    assert!(error.contains(&format!("127.0.0.1:{port}")) && error.contains("hermod start"), "{error}");
}

#[tokio::test]
async fn no_more_messages_are_open_than_the_broker_wants() {
    let (listener, port) = listener().await;
    let peer = tokio::spawn(async move {
        let mut peer = Peer::accept(&listener).await;
        let mut connack = ConnAck::default();
        connack.properties.receive_maximum = std::num::NonZeroU16::new(2);
        peer.greet(connack).await;
        let mut open = VecDeque::new();
        let mut refused = 0;
        while let Some(packet) = peer.next().await {
            match packet {
                Packet::Publish(publish) => {
                    open.push_back(publish.packet_id.unwrap());
                    assert!(open.len() <= 2);
                    if open.len() == 2 || refused == 2 {
                        let id = open.pop_front().unwrap();
                        let code = if refused < 2 { ReasonCode::NotAuthorized } else { ReasonCode::Success };
                        refused += u32::from(refused < 2);
                        peer.say(Packet::PubRec(Ack::new(id, code))).await;
                    }
                }
                Packet::PubRel(ack) => peer.say(Packet::PubComp(Ack::new(ack.packet_id, ReasonCode::Success))).await,
                Packet::Disconnect(_) => break,
                other => panic!("{other:?}"),
            }
            // Nothing more will come when one is still open.
            if refused == 2 {
                while let Some(id) = open.pop_front() {
                    peer.say(Packet::PubRec(Ack::new(id, ReasonCode::NoMatchingSubscribers))).await;
                }
            }
        }
    });
    let (mut client, _) = Client::connect(&arguments(port, &[])).await.unwrap();
    for _ in 0..10 {
        client.publish(message(QoS::ExactlyOnce, None)).await.unwrap();
    }
    assert_eq!(client.settle().await.unwrap(), Some((2, "Not Authorized (0x87)".to_owned())));
    client.disconnect().await.unwrap();
    peer.await.unwrap();
}

#[tokio::test]
async fn a_qos_2_message_that_is_sent_again_is_shown_once() {
    let (listener, port) = listener().await;
    let id = PacketId::MIN;
    let peer = tokio::spawn(async move {
        let mut peer = Peer::accept(&listener).await;
        peer.greet(ConnAck::default()).await;
        peer.say(Packet::Publish(message(QoS::ExactlyOnce, Some(id)))).await;
        assert!(matches!(peer.next().await, Some(Packet::PubRec(_))));
        peer.say(Packet::Publish(Publish { dup: true, ..message(QoS::ExactlyOnce, Some(id)) })).await;
        assert!(matches!(peer.next().await, Some(Packet::PubRec(_))));
        peer.say(Packet::PubRel(Ack::new(id, ReasonCode::Success))).await;
        assert!(matches!(peer.next().await, Some(Packet::PubComp(_))));
        peer.say(Packet::Disconnect(Disconnect { reason_code: ReasonCode::ServerShuttingDown, ..Default::default() }))
            .await;
    });
    let (mut client, _) = Client::connect(&arguments(port, &[])).await.unwrap();
    let mut shown = 0;
    let error = loop {
        match client.step().await {
            Ok(Incoming::Message(publish)) => {
                shown += 1;
                client.acknowledge(&publish).await.unwrap();
            }
            Ok(_) => {}
            Err(error) => break error.to_string(),
        }
    };
    assert_eq!(shown, 1);
    assert!(error.contains("Server Shutting Down (0x8B)"), "{error}");
    peer.await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_pings_and_a_silent_broker_is_noticed() {
    let (listener, port) = listener().await;
    let peer = tokio::spawn(async move {
        let mut peer = Peer::accept(&listener).await;
        peer.greet(ConnAck::default()).await;
        assert_eq!(peer.next().await, Some(Packet::PingReq));
        peer.say(Packet::PingResp).await;
        assert_eq!(peer.next().await, Some(Packet::PingReq));
        assert_eq!(peer.next().await, None, "it gave up");
    });
    let (mut client, _) = Client::connect(&arguments(port, &["-k", "1"])).await.unwrap();
    assert!(matches!(client.step().await, Err(ClientError::NoPingResponse(1))));
    drop(client);
    peer.await.unwrap();
}

#[test]
fn reasons_are_words_and_numbers() {
    assert_eq!(explain(ReasonCode::NotAuthorized, None), "Not Authorized (0x87)");
    assert_eq!(explain(ReasonCode::QuotaExceeded, Some("a\nb")), "Quota Exceeded (0x97): a\\nb");
    assert_eq!(name(&Packet::PingReq), "PINGREQ");
    assert_eq!(name(&Packet::PubAck(Ack::new(PacketId::MIN, ReasonCode::Success))), "PUBACK");
}
