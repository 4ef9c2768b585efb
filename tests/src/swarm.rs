use crate::wire::{self, AckKind, Incoming, Level};
use mio::{Events, Interest, Poll, Token};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Many clients of one broker on one thread: one poll, one read buffer, and per connection what is not sent yet.
///
/// Everything that one read brought is handled before anything is written; then each connection is written to once.
pub struct Swarm {
    poll: Poll,
    events: Events,
    scratch: Vec<u8>,
    clients: Vec<Client>,
    unsent: Vec<usize>,
    auto_ack: bool,
}

struct Client {
    stream: Option<mio::net::TcpStream>,
    level: Level,
    /// The part of a packet whose rest has not come yet.
    partial: Vec<u8>,
    out: Vec<u8>,
    listed: bool,
    next_id: u16,
}

/// What happened to a client.
#[derive(Debug)]
pub enum Event<'a> {
    /// A packet came.
    Packet(Incoming<'a>),
    /// The server closed, or the connection broke.
    Closed,
}

const WRITE_ROOM: usize = 1 << 20;

impl Swarm {
    /// No clients yet. With `auto_ack` it answers PUBLISH, PUBREC and PUBREL by itself, after the handler has seen them.
    ///
    /// # Errors
    /// The system gives no poll.
    pub fn new(auto_ack: bool) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            scratch: vec![0; 1 << 20],
            clients: Vec::new(),
            unsent: Vec::new(),
            auto_ack,
        })
    }

    /// Adds a client and sends its CONNECT; the CONNACK comes as an event. Answers with the client's number, counted from 0.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(&mut self, to: SocketAddr, connect: &wire::Connect<'_>) -> io::Result<usize> {
        let client = self.add(connect.level);
        self.reconnect(client, to, connect)?;
        Ok(client)
    }

    /// Connects a client again, under its number.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn reconnect(&mut self, client: usize, to: SocketAddr, connect: &wire::Connect<'_>) -> io::Result<()> {
        self.close(client);
        let stream = std::net::TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = mio::net::TcpStream::from_std(stream);
        self.poll.registry().register(&mut stream, Token(client), Interest::READABLE | Interest::WRITABLE)?;
        let state = &mut self.clients[client];
        state.stream = Some(stream);
        wire::connect(&mut state.out, connect);
        self.touched(client);
        Ok(())
    }

    /// Adds a client without a connection: [`Self::dial`] makes one.
    pub fn add(&mut self, level: Level) -> usize {
        self.clients.push(Client {
            stream: None,
            level,
            partial: Vec::new(),
            out: Vec::new(),
            listed: false,
            next_id: 0,
        });
        self.clients.len() - 1
    }

    /// As [`Self::reconnect`], but does not wait for the connection: that it fails comes as [`Event::Closed`].
    ///
    /// # Errors
    /// The system has no socket left, or no way to there.
    pub fn dial(&mut self, client: usize, to: SocketAddr, connect: &wire::Connect<'_>) -> io::Result<()> {
        self.close(client);
        let mut stream = mio::net::TcpStream::connect(to)?;
        let _ = stream.set_nodelay(true);
        self.poll.registry().register(&mut stream, Token(client), Interest::READABLE | Interest::WRITABLE)?;
        let state = &mut self.clients[client];
        state.stream = Some(stream);
        wire::connect(&mut state.out, connect);
        self.touched(client);
        Ok(())
    }

    /// Cuts the connection, without a DISCONNECT.
    pub fn close(&mut self, client: usize) {
        let state = &mut self.clients[client];
        if let Some(mut stream) = state.stream.take() {
            let _ = self.poll.registry().deregister(&mut stream);
        }
        state.out.clear();
        state.partial.clear();
    }

    /// Whether the connection stands.
    #[must_use]
    pub fn is_open(&self, client: usize) -> bool {
        self.clients[client].stream.is_some()
    }

    /// The protocol level that a client speaks.
    #[must_use]
    pub fn level(&self, client: usize) -> Level {
        self.clients[client].level
    }

    /// How many clients there are, open or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// The next packet id of a client: 1 to 65,535, round and round.
    pub fn packet_id(&mut self, client: usize) -> u16 {
        let next = &mut self.clients[client].next_id;
        *next = if *next == u16::MAX { 1 } else { *next + 1 };
        *next
    }

    /// Where to append packets for a client; [`Self::flush`] or the next turn sends them.
    pub fn out(&mut self, client: usize) -> &mut Vec<u8> {
        self.touched(client);
        &mut self.clients[client].out
    }

    /// Sends what was appended, waits for at most `timeout`, and hands on what came. Answers whether anything did.
    ///
    /// # Errors
    /// The poll fails, or the server sends what is not MQTT.
    pub fn turn(
        &mut self,
        timeout: Duration,
        mut handle: impl FnMut(usize, Event<'_>, &mut Vec<u8>),
    ) -> io::Result<bool> {
        self.flush();
        if let Err(error) = self.poll.poll(&mut self.events, Some(timeout)) {
            return if error.kind() == io::ErrorKind::Interrupted { Ok(false) } else { Err(error) };
        }
        let mut came = false;
        for event in &self.events {
            let index = event.token().0;
            let client = &mut self.clients[index];
            if event.is_writable() && !client.out.is_empty() && !client.listed {
                client.listed = true;
                self.unsent.push(index);
            }
            if !event.is_readable() && !event.is_read_closed() && !event.is_error() {
                continue;
            }
            came = true;
            let ends = event.is_read_closed() || event.is_error();
            if !client.read(&mut self.scratch, self.auto_ack, ends, |event, out| handle(index, event, out))? {
                if let Some(mut stream) = client.stream.take() {
                    let _ = self.poll.registry().deregister(&mut stream);
                }
                client.partial.clear();
                client.out.clear();
                handle(index, Event::Closed, &mut client.out);
                client.out.clear();
            } else if !client.out.is_empty() && !client.listed {
                client.listed = true;
                self.unsent.push(index);
            }
        }
        Ok(came)
    }

    /// Writes what the sockets take.
    pub fn flush(&mut self) {
        for index in std::mem::take(&mut self.unsent) {
            let client = &mut self.clients[index];
            client.listed = false;
            // A connection that broke shows itself when it is read.
            let _ = client.write();
        }
    }

    /// Turns until `done` says so.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`], naming `what`, when it does not within `limit`; and those of [`Self::turn`].
    pub fn turn_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut handle: impl FnMut(usize, Event<'_>, &mut Vec<u8>),
        mut done: impl FnMut() -> bool,
    ) -> io::Result<()> {
        let start = Instant::now();
        while !done() {
            if start.elapsed() > limit {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{what}: not within {limit:?}")));
            }
            self.turn(Duration::from_millis(50), &mut handle)?;
        }
        Ok(())
    }

    fn touched(&mut self, client: usize) {
        if !self.clients[client].listed {
            self.clients[client].listed = true;
            self.unsent.push(client);
        }
    }
}

impl Client {
    /// Reads until the socket is empty; `false`: the connection is over. `ends`: its end waits behind the data, and is told once only.
    fn read(
        &mut self,
        scratch: &mut [u8],
        auto_ack: bool,
        ends: bool,
        mut handle: impl FnMut(Event<'_>, &mut Vec<u8>),
    ) -> io::Result<bool> {
        while let Some(stream) = &mut self.stream {
            // The partial packet goes in front, so that one pass sees whole packets.
            let start = self.partial.len();
            if scratch.len() < start + 4096 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the server sent a packet of more than 1 MiB"));
            }
            scratch[..start].copy_from_slice(&self.partial);
            let count = match stream.read(&mut scratch[start..]) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Ok(false),
            };
            let (filled, full) = (start + count, start + count == scratch.len());
            let mut rest = &scratch[..filled];
            while let Some((first, body, length)) = wire::split(rest)? {
                let incoming = wire::parse(self.level, first, body)?;
                handle(Event::Packet(incoming), &mut self.out);
                if auto_ack {
                    answer(&incoming, &mut self.out);
                }
                rest = &rest[length..];
            }
            self.partial.clear();
            self.partial.extend_from_slice(rest);
            if !full && !ends {
                return Ok(true);
            }
        }
        Ok(true)
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else {
            self.out.clear();
            return Ok(());
        };
        let mut sent = 0;
        let result = loop {
            if sent == self.out.len() {
                break Ok(());
            }
            match stream.write(&self.out[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.out.drain(..sent);
        if self.out.is_empty() && self.out.capacity() > WRITE_ROOM {
            self.out = Vec::new();
        }
        result
    }
}

/// The answer that the receiver of a packet owes.
pub fn answer(incoming: &Incoming<'_>, out: &mut Vec<u8>) {
    match incoming {
        Incoming::Publish(publish) if publish.qos == 1 => wire::ack(out, AckKind::PubAck, publish.packet_id),
        Incoming::Publish(publish) if publish.qos == 2 => wire::ack(out, AckKind::PubRec, publish.packet_id),
        Incoming::Ack(AckKind::PubRec, id, code) if *code < 0x80 => wire::ack(out, AckKind::PubRel, *id),
        Incoming::Ack(AckKind::PubRel, id, _) => wire::ack(out, AckKind::PubComp, *id),
        _ => {}
    }
}
