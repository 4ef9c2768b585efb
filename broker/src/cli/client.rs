use super::connection::ConnectionArgs;
use super::{CliError, tls};
use base_types::{PacketId, QoS};
use bytes::BytesMut;
use mqtt_codec::{
    Ack, ConnAck, DecodeError, Decoder, Disconnect, EncodeError, Packet, Publish, ReasonCode, Role, SubAck, Subscribe,
    Unsubscribe, Version, encode,
};
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

/// How long the broker may take to answer a CONNECT.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// QoS 1 and 2 messages that are open at the same time, when the broker allows as many.
const WINDOW_MAX: usize = 100;
const PACKET_SIZE_MAX: u32 = 268_435_460;

/// Why talking to a broker failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody there.
    #[error("cannot connect to {address}: {source}; is the broker running (`hermod start`), and are -h and -p right?")]
    Unreachable {
        /// Host and port.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Somebody there who does not answer.
    #[error("{address} did not answer the CONNECT within {seconds} seconds; is it an MQTT port?")]
    Silent {
        /// Host and port.
        address: String,
        /// How long.
        seconds: u64,
    },
    /// The TLS handshake.
    #[error("no TLS with {address}: {reason}; is it a TLS port, and is --cafile the authority of its certificate?")]
    Tls {
        /// Host and port.
        address: String,
        /// Why.
        reason: String,
    },
    /// A file for TLS.
    #[error("cannot use {path}: {reason}", path = path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// CONNACK with an error.
    #[error("the broker refused the connection: {reason}{hint}")]
    Refused {
        /// As the broker said.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// DISCONNECT from the broker.
    #[error("the broker ended the connection: {0}")]
    Disconnected(String),
    /// Without a word.
    #[error("the connection was closed by the broker; its log says why")]
    Closed,
    /// The network.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// No answer to a ping.
    #[error("the broker does not answer any more: no PINGRESP within {0} seconds")]
    NoPingResponse(u64),
    /// What came is no MQTT.
    #[error("what the broker sent is not MQTT as we know it: {0}; is the protocol version (-V) right?")]
    NotUnderstood(#[from] DecodeError),
    /// What we want to send has no form.
    #[error("{0}")]
    NotExpressible(#[from] EncodeError),
    /// A packet that does not belong here.
    #[error("the broker sent a packet that was not expected: {0}")]
    Unexpected(String),
}

/// What a connection runs over.
trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Transport for T {}

/// One connection to a broker: a client as small as it gets, without reconnecting.
pub(super) struct Client {
    stream: Box<dyn Transport>,
    decoder: Decoder,
    incoming: BytesMut,
    outgoing: BytesMut,
    version: Version,
    keep_alive: Option<Duration>,
    /// When to ping next, and whether an answer is due.
    ping_at: Instant,
    ping_open: bool,
    debug: bool,
    window: usize,
    last_id: u16,
    /// Sent and not settled yet.
    open: BTreeSet<PacketId>,
    /// QoS 2 messages that were taken and not released yet.
    taken: BTreeSet<PacketId>,
    /// Messages that the broker did not take, and what it said of the first.
    refused: Option<(u64, String)>,
}

/// What came in.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A message; it must be acknowledged by [`Client::acknowledge`].
    Message(Publish),
    /// The answer to a SUBSCRIBE.
    SubAck(SubAck),
    /// Something that was dealt with.
    Other,
}

impl Client {
    /// Connects, and waits for CONNACK.
    pub(super) async fn connect(args: &ConnectionArgs) -> Result<(Self, ConnAck), CliError> {
        let connect = args.connect()?;
        let address = format!("{}:{}", args.host, args.port);
        let silent = || ClientError::Silent { address: address.clone(), seconds: CONNECT_TIMEOUT.as_secs() };
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect((args.host.as_str(), args.port)))
            .await
            .map_err(|_| silent())?
            .map_err(|source| ClientError::Unreachable { address: address.clone(), source })?;
        stream.set_nodelay(true).map_err(ClientError::from)?;
        let stream: Box<dyn Transport> = match &args.cafile {
            Some(cafile) => {
                let handshake = tls::handshake(stream, args, cafile);
                Box::new(timeout(CONNECT_TIMEOUT, handshake).await.map_err(|_| silent())??)
            }
            None => Box::new(stream),
        };
        let version = args.version();
        let mut decoder = Decoder::new(Role::Client, PACKET_SIZE_MAX);
        decoder.set_version(version);
        let mut client = Self {
            stream,
            decoder,
            incoming: BytesMut::with_capacity(8192),
            outgoing: BytesMut::new(),
            version,
            keep_alive: None,
            ping_at: Instant::now(),
            ping_open: false,
            debug: args.debug,
            window: WINDOW_MAX,
            last_id: 0,
            open: BTreeSet::new(),
            taken: BTreeSet::new(),
            refused: None,
        };
        client.send(&Packet::Connect(Box::new(connect))).await?;
        let answer = timeout(CONNECT_TIMEOUT, client.read()).await.map_err(|_| silent())??;
        let Packet::ConnAck(connack) = answer else { return Err(unexpected(&answer).into()) };
        if connack.reason_code.is_error() {
            let reason = explain(connack.reason_code, connack.properties.reason_string.as_deref());
            return Err(ClientError::Refused { reason, hint: hint(connack.reason_code) }.into());
        }
        let seconds = connack.properties.server_keep_alive.unwrap_or(args.keepalive);
        client.keep_alive = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
        client.sent_something();
        if let Some(maximum) = connack.properties.receive_maximum {
            client.window = WINDOW_MAX.min(usize::from(maximum.get()));
        }
        Ok((client, *connack))
    }

    /// Sends a message; with QoS 1 and 2 as soon as the window has room. Messages that come in meanwhile are acknowledged and lost.
    pub(super) async fn publish(&mut self, mut publish: Publish) -> Result<(), ClientError> {
        if publish.qos != QoS::AtMostOnce {
            while self.open.len() >= self.window {
                self.step_over_messages().await?;
            }
            let id = self.next_id();
            self.open.insert(id);
            publish.packet_id = Some(id);
        }
        self.send(&Packet::Publish(publish)).await
    }

    /// Waits until the broker has taken, or refused, every message; then says how many it refused, and why the first.
    pub(super) async fn settle(&mut self) -> Result<Option<(u64, String)>, ClientError> {
        while !self.open.is_empty() {
            self.step_over_messages().await?;
        }
        Ok(self.refused.take())
    }

    /// [`Client::step`] for who wants no messages.
    pub(super) async fn step_over_messages(&mut self) -> Result<(), ClientError> {
        if let Incoming::Message(message) = self.step().await? {
            self.acknowledge(&message).await?;
        }
        Ok(())
    }

    /// Subscribes; the answer comes by [`Client::step`].
    pub(super) async fn subscribe(&mut self, mut subscribe: Subscribe) -> Result<(), ClientError> {
        subscribe.packet_id = self.next_id();
        self.send(&Packet::Subscribe(subscribe)).await
    }

    /// Unsubscribes; nobody waits for the answer.
    pub(super) async fn unsubscribe(&mut self, filters: &[String]) -> Result<(), ClientError> {
        let filters = filters.iter().map(|filter| filter.as_str().into()).collect();
        let packet_id = self.next_id();
        self.send(&Packet::Unsubscribe(Unsubscribe { packet_id, user_properties: Vec::new(), filters })).await
    }

    /// Waits for one packet and does what belongs to it. Can be cancelled.
    pub(super) async fn step(&mut self) -> Result<Incoming, ClientError> {
        match self.read().await? {
            Packet::Publish(publish) => match publish.packet_id {
                Some(id) if publish.qos == QoS::ExactlyOnce && self.taken.contains(&id) => {
                    self.send(&Packet::PubRec(Ack::new(id, ReasonCode::Success))).await?;
                    Ok(Incoming::Other)
                }
                _ => Ok(Incoming::Message(publish)),
            },
            Packet::SubAck(suback) => Ok(Incoming::SubAck(suback)),
            Packet::PubRec(ack) if !ack.reason_code.is_error() => {
                self.send(&Packet::PubRel(Ack::new(ack.packet_id, ReasonCode::Success))).await?;
                Ok(Incoming::Other)
            }
            Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubComp(ack) => {
                if self.open.remove(&ack.packet_id) && ack.reason_code.is_error() {
                    let text = ack.properties.as_ref().and_then(|properties| properties.reason_string.as_deref());
                    let first = || (0, explain(ack.reason_code, text));
                    self.refused.get_or_insert_with(first).0 += 1;
                }
                Ok(Incoming::Other)
            }
            Packet::PubRel(ack) => {
                self.taken.remove(&ack.packet_id);
                self.send(&Packet::PubComp(Ack::new(ack.packet_id, ReasonCode::Success))).await?;
                Ok(Incoming::Other)
            }
            Packet::UnsubAck(_) => Ok(Incoming::Other),
            Packet::Disconnect(disconnect) => {
                let text = explain(disconnect.reason_code, disconnect.reason_string.as_deref());
                Err(ClientError::Disconnected(text))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Says that a message was taken.
    pub(super) async fn acknowledge(&mut self, publish: &Publish) -> Result<(), ClientError> {
        match (publish.packet_id, publish.qos) {
            (Some(id), QoS::AtLeastOnce) => self.send(&Packet::PubAck(Ack::new(id, ReasonCode::Success))).await,
            (Some(id), QoS::ExactlyOnce) => {
                self.taken.insert(id);
                self.send(&Packet::PubRec(Ack::new(id, ReasonCode::Success))).await
            }
            _ => Ok(()),
        }
    }

    /// Says goodbye.
    pub(super) async fn disconnect(mut self) -> Result<(), ClientError> {
        self.send(&Packet::Disconnect(Disconnect::default())).await?;
        Ok(self.stream.shutdown().await?)
    }

    fn next_id(&mut self) -> PacketId {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            // Fewer are open than there are numbers.
            if let Some(id) = PacketId::new(self.last_id).filter(|id| !self.open.contains(id)) {
                return id;
            }
        }
    }

    async fn send(&mut self, packet: &Packet) -> Result<(), ClientError> {
        if self.debug {
            eprintln!("sent {}", name(packet));
        }
        encode(packet, self.version, &mut self.outgoing)?;
        self.flush().await?;
        self.sent_something();
        Ok(())
    }

    /// Writes what is there; can be cancelled and goes on where it was.
    async fn flush(&mut self) -> Result<(), ClientError> {
        while !self.outgoing.is_empty() {
            self.stream.write_buf(&mut self.outgoing).await?;
        }
        // TLS keeps what the socket did not take at once.
        Ok(self.stream.flush().await?)
    }

    fn sent_something(&mut self) {
        if let Some(keep_alive) = self.keep_alive.filter(|_| !self.ping_open) {
            self.ping_at = Instant::now() + keep_alive;
        }
    }

    async fn read(&mut self) -> Result<Packet, ClientError> {
        loop {
            self.flush().await?;
            if let Some(packet) = self.decoder.decode(&mut self.incoming)? {
                if self.debug {
                    eprintln!("got {}", name(&packet));
                }
                match packet {
                    Packet::PingResp => self.ping_open = false,
                    packet => return Ok(packet),
                }
                self.sent_something();
                continue;
            }
            tokio::select! {
                read = self.stream.read_buf(&mut self.incoming) => {
                    if read? == 0 {
                        return Err(ClientError::Closed);
                    }
                }
                () = sleep_until(self.ping_at), if self.keep_alive.is_some() => self.ping()?,
            }
        }
    }

    fn ping(&mut self) -> Result<(), ClientError> {
        let keep_alive = self.keep_alive.unwrap_or_default();
        if self.ping_open {
            return Err(ClientError::NoPingResponse(keep_alive.as_secs()));
        }
        encode(&Packet::PingReq, self.version, &mut self.outgoing)?;
        self.ping_open = true;
        self.ping_at = Instant::now() + keep_alive;
        Ok(())
    }
}

fn unexpected(packet: &Packet) -> ClientError {
    ClientError::Unexpected(name(packet))
}

/// The name of a packet as the specification writes it.
fn name(packet: &Packet) -> String {
    let shown = format!("{packet:?}");
    shown.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_uppercase()
}

/// A reason code in words and as a number, and what the broker adds.
pub(super) fn explain(code: ReasonCode, text: Option<&str>) -> String {
    let mut words = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_uppercase() && !words.is_empty() && !words.ends_with(|last: char| last.is_uppercase()) {
            words.push(' ');
        }
        words.push(c);
    }
    let number = code as u8;
    match text {
        Some(text) => format!("{words} (0x{number:02X}): {}", text.escape_debug()),
        None => format!("{words} (0x{number:02X})"),
    }
}

fn hint(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::BadUserNameOrPassword => "; check -u and the password",
        ReasonCode::NotAuthorized => "; it wants a user (-u and --password-file), or has a rule against this one",
        ReasonCode::UnsupportedProtocolVersion => "; try another version (-V)",
        ReasonCode::ClientIdentifierNotValid => "; try another client id (-i)",
        ReasonCode::ConnectionRateExceeded => "; too many logins from here have failed, wait some minutes",
        _ => "",
    }
}

#[cfg(test)]
#[path = "client_test.rs"]
mod client_test;
