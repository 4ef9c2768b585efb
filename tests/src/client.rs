use crate::answer;
use crate::wire::{self, AckKind, Connect, Incoming, Level};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A client for tests that need to see every packet: blocking, with a deadline for each answer.
///
/// It acknowledges what it receives, unless told not to.
#[derive(Debug)]
pub struct Client<S = TcpStream> {
    stream: S,
    level: Level,
    unread: Vec<u8>,
    messages: VecDeque<Message>,
    last_packet_id: u16,
    session_present: bool,
    silent: bool,
}

/// A message that came.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub struct Message {
    pub topic: String,
    pub payload: String,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub packet_id: u16,
}

const DEADLINE: Duration = Duration::from_secs(20);

impl Client {
    /// Connects, and is accepted.
    ///
    /// # Errors
    /// It is not; with the code.
    pub fn connect(to: SocketAddr, connect: &Connect<'_>) -> io::Result<Self> {
        Self::over(tcp(to)?, connect)
    }

    /// Connects, and is refused: the code.
    ///
    /// # Errors
    /// The broker closes without a CONNACK.
    pub fn refused(to: SocketAddr, connect: &Connect<'_>) -> io::Result<u8> {
        let mut client = Self::unconnected(tcp(to)?, connect);
        client.handshake(connect)
    }
}

impl<S: Read + Write> Client<S> {
    /// Connects over a stream that stands.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn over(stream: S, connect: &Connect<'_>) -> io::Result<Self> {
        let mut client = Self::unconnected(stream, connect);
        match client.handshake(connect)? {
            0 => Ok(client),
            code => Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("refused with {code:#04x}"))),
        }
    }

    /// The server had a session.
    #[must_use]
    pub fn session_present(&self) -> bool {
        self.session_present
    }

    /// From now on it does not acknowledge what it receives.
    pub fn be_silent(&mut self) {
        self.silent = true;
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Subscribes; the code of the SUBACK. `options` is the options byte: the QoS, and in 5.0 the flags.
    ///
    /// # Errors
    /// No answer.
    pub fn subscribe(&mut self, filter: &str, options: u8) -> io::Result<u8> {
        let (mut out, id) = (Vec::new(), self.packet_id());
        wire::subscribe(&mut out, self.level, id, &[(filter, options)]);
        self.send(&out)?;
        self.wait("a SUBACK", |incoming| match incoming {
            Incoming::SubAck(of, [code]) if *of == id => Some(*code),
            _ => None,
        })
    }

    /// Unsubscribes.
    ///
    /// # Errors
    /// No answer.
    pub fn unsubscribe(&mut self, filter: &str) -> io::Result<()> {
        let (mut out, id) = (Vec::new(), self.packet_id());
        wire::unsubscribe(&mut out, self.level, id, filter);
        self.send(&out)?;
        self.wait("an UNSUBACK", |incoming| (*incoming == Incoming::UnsubAck(id)).then_some(()))
    }

    /// Publishes, and waits for the last acknowledgement; the code of the first.
    ///
    /// # Errors
    /// No answer.
    pub fn publish(&mut self, topic: &str, payload: &str, qos: u8, retain: bool) -> io::Result<u8> {
        let packet_id = if qos > 0 { self.packet_id() } else { 0 };
        let (topic, payload) = (topic.as_bytes(), payload.as_bytes());
        let mut out = Vec::new();
        wire::publish(&mut out, self.level, &wire::Publish { dup: false, qos, retain, packet_id, topic, payload });
        self.send(&out)?;
        let first = match qos {
            0 => return Ok(0),
            1 => AckKind::PubAck,
            _ => AckKind::PubRec,
        };
        let ack = |kind| {
            move |incoming: &Incoming<'_>| match incoming {
                Incoming::Ack(of, id, code) if *of == kind && *id == packet_id => Some(*code),
                _ => None,
            }
        };
        let code = self.wait("an acknowledgement", ack(first))?;
        if qos == 2 && code < 0x80 {
            self.wait("a PUBCOMP", ack(AckKind::PubComp))?;
        }
        Ok(code)
    }

    /// The next message.
    ///
    /// # Errors
    /// None comes.
    pub fn message(&mut self) -> io::Result<Message> {
        let start = Instant::now();
        self.take(|_| None::<()>)?;
        while self.messages.is_empty() {
            self.read("a message", start)?;
            self.take(|_| None::<()>)?;
        }
        self.messages.pop_front().ok_or_else(|| io::Error::other("no message"))
    }

    /// Topic and payload of the next messages, in order.
    ///
    /// # Errors
    /// Fewer come.
    pub fn messages(&mut self, count: usize) -> io::Result<Vec<(String, String)>> {
        (0..count).map(|_| self.message().map(|message| (message.topic, message.payload))).collect()
    }

    /// What comes before the answer to a PINGREQ, which overtakes nothing that the broker has for this connection.
    ///
    /// # Errors
    /// No answer.
    pub fn drain(&mut self) -> io::Result<Vec<Message>> {
        self.send(&[0xc0, 0])?;
        self.wait("a PINGRESP", |incoming| (*incoming == Incoming::PingResp).then_some(()))?;
        Ok(self.messages.drain(..).collect())
    }

    /// Sends a DISCONNECT and waits for the end.
    ///
    /// # Errors
    /// It does not come.
    pub fn disconnect(mut self) -> io::Result<()> {
        self.send(&[0xe0, 0])?;
        self.closed().map(|_| ())
    }

    /// Waits until the server closes; the code of its DISCONNECT, where it sent one.
    ///
    /// # Errors
    /// It does not.
    pub fn closed(&mut self) -> io::Result<Option<u8>> {
        let mut code = None;
        let start = Instant::now();
        loop {
            self.take(|incoming| {
                if let Incoming::Disconnect(of) = incoming {
                    code = Some(*of);
                }
                None::<()>
            })?;
            match self.read("the end", start) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(error),
                Err(_) => return Ok(code),
            }
        }
    }

    fn unconnected(stream: S, connect: &Connect<'_>) -> Self {
        Self {
            stream,
            level: connect.level,
            unread: Vec::new(),
            messages: VecDeque::new(),
            last_packet_id: 0,
            session_present: false,
            silent: false,
        }
    }

    fn handshake(&mut self, connect: &Connect<'_>) -> io::Result<u8> {
        let mut out = Vec::new();
        wire::connect(&mut out, connect);
        self.send(&out)?;
        let (session_present, code) = self.wait("a CONNACK", |incoming| match incoming {
            Incoming::ConnAck { session_present, code, .. } => Some((*session_present, *code)),
            _ => None,
        })?;
        self.session_present = session_present;
        Ok(code)
    }

    fn packet_id(&mut self) -> u16 {
        self.last_packet_id += 1;
        self.last_packet_id
    }

    /// Waits for the first packet that `found` finds something in; messages before it are kept.
    ///
    /// # Errors
    /// None comes; `what` says what was waited for.
    pub fn wait<T>(&mut self, what: &str, mut found: impl FnMut(&Incoming<'_>) -> Option<T>) -> io::Result<T> {
        let start = Instant::now();
        loop {
            if let Some(found) = self.take(&mut found)? {
                return Ok(found);
            }
            self.read(what, start)?;
        }
    }

    /// Goes through what has been read, up to what was looked for.
    fn take<T>(&mut self, mut found: impl FnMut(&Incoming<'_>) -> Option<T>) -> io::Result<Option<T>> {
        while let Some((first, body, length)) = wire::split(&self.unread)? {
            let incoming = wire::parse(self.level, first, body)?;
            let result = found(&incoming);
            if let Incoming::Publish(publish) = &incoming {
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                self.messages.push_back(Message {
                    topic: text(publish.topic),
                    payload: text(publish.payload),
                    qos: publish.qos,
                    retain: publish.retain,
                    dup: publish.dup,
                    packet_id: publish.packet_id,
                });
            }
            let mut out = Vec::new();
            if !self.silent {
                answer(&incoming, &mut out);
            }
            self.unread.drain(..length);
            self.stream.write_all(&out)?;
            if result.is_some() {
                return Ok(result);
            }
        }
        Ok(None)
    }

    fn read(&mut self, what: &str, start: Instant) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        loop {
            if start.elapsed() > DEADLINE {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("waited in vain for {what}")));
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("closed instead of {what}")));
                }
                Ok(count) => {
                    self.unread.extend_from_slice(&chunk[..count]);
                    return Ok(());
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn tcp(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    Ok(stream)
}
