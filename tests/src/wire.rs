//! The client's half of MQTT on the wire, written apart from `mqtt-codec`: what judges the broker must not share its mistakes.

use std::io;

/// The protocol level in CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// MQTT 3.1.1.
    V4 = 4,
    /// MQTT 5.0.
    V5 = 5,
}

/// What a CONNECT says.
#[derive(Clone, Copy, Debug)]
pub struct Connect<'a> {
    /// The protocol level.
    pub level: Level,
    /// The client identifier.
    pub client_id: &'a str,
    /// Start without a session; for 3.1.1 also end without one.
    pub clean: bool,
    /// Seconds; 0 turns it off.
    pub keep_alive: u16,
    /// Seconds that the session outlives the connection; 5.0 only.
    pub session_expiry: u32,
    /// The will.
    pub will: Option<Will<'a>>,
    /// User name and password.
    pub login: Option<(&'a str, &'a str)>,
}

/// The will in a CONNECT, at QoS 1.
#[derive(Clone, Copy, Debug)]
pub struct Will<'a> {
    /// Where it is published to.
    pub topic: &'a str,
    /// What it says.
    pub payload: &'a str,
    /// Seconds between the end of the connection and the will; 5.0 only.
    pub delay: u32,
}

impl<'a> Connect<'a> {
    /// A transient session, without keep-alive.
    #[must_use]
    pub fn clean(level: Level, client_id: &'a str) -> Self {
        Self { level, client_id, clean: true, keep_alive: 0, session_expiry: 0, will: None, login: None }
    }

    /// A session that goes on and never expires.
    #[must_use]
    pub fn persistent(level: Level, client_id: &'a str) -> Self {
        Self { clean: false, session_expiry: u32::MAX, ..Self::clean(level, client_id) }
    }
}

/// The four acknowledgements, by the first byte of their packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckKind {
    /// PUBACK.
    PubAck = 0x40,
    /// PUBREC.
    PubRec = 0x50,
    /// PUBREL.
    PubRel = 0x62,
    /// PUBCOMP.
    PubComp = 0x70,
}

/// A packet from the server, borrowed from the read buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// CONNACK.
    ConnAck {
        /// The server kept a session.
        session_present: bool,
        /// The return code (3.1.1) or reason code (5.0).
        code: u8,
        /// Receive Maximum; 65,535 where the packet does not say.
        receive_maximum: u16,
    },
    /// PUBLISH.
    Publish(Publish<'a>),
    /// One of the four acknowledgements, its packet id and reason code (0 before 5.0).
    Ack(AckKind, u16, u8),
    /// SUBACK: packet id and codes.
    SubAck(u16, &'a [u8]),
    /// UNSUBACK: packet id.
    UnsubAck(u16),
    /// PINGRESP.
    PingResp,
    /// DISCONNECT (5.0): the reason code.
    Disconnect(u8),
}

/// A PUBLISH from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// DUP.
    pub dup: bool,
    /// 0, 1 or 2.
    pub qos: u8,
    /// RETAIN.
    pub retain: bool,
    /// 0 for QoS 0.
    pub packet_id: u16,
    /// The topic.
    pub topic: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

/// Appends a CONNECT.
pub fn connect(out: &mut Vec<u8>, connect: &Connect<'_>) {
    let v5 = connect.level == Level::V5;
    let mut flags = u8::from(connect.clean) << 1;
    let mut body = Vec::with_capacity(64 + connect.client_id.len());
    string(&mut body, b"MQTT");
    body.push(connect.level as u8);
    let flags_at = body.len();
    body.push(0);
    body.extend_from_slice(&connect.keep_alive.to_be_bytes());
    if v5 {
        property(&mut body, 0x11, connect.session_expiry);
    }
    string(&mut body, connect.client_id.as_bytes());
    if let Some(will) = connect.will {
        flags |= 0b0000_1100;
        if v5 {
            property(&mut body, 0x18, will.delay);
        }
        string(&mut body, will.topic.as_bytes());
        string(&mut body, will.payload.as_bytes());
    }
    if let Some((name, password)) = connect.login {
        flags |= 0b1100_0000;
        string(&mut body, name.as_bytes());
        string(&mut body, password.as_bytes());
    }
    body[flags_at] = flags;
    packet(out, 0x10, &body);
}

/// Appends a SUBSCRIBE.
pub fn subscribe<S: AsRef<str>>(out: &mut Vec<u8>, level: Level, packet_id: u16, filters: &[(S, u8)]) {
    let mut body = packet_id.to_be_bytes().to_vec();
    if level == Level::V5 {
        body.push(0);
    }
    for (filter, qos) in filters {
        string(&mut body, filter.as_ref().as_bytes());
        body.push(*qos);
    }
    packet(out, 0x82, &body);
}

/// Appends an UNSUBSCRIBE of one filter.
pub fn unsubscribe(out: &mut Vec<u8>, level: Level, packet_id: u16, filter: &str) {
    let mut body = packet_id.to_be_bytes().to_vec();
    if level == Level::V5 {
        body.push(0);
    }
    string(&mut body, filter.as_bytes());
    packet(out, 0xa2, &body);
}

/// Appends a PUBLISH. `packet_id` is left out for QoS 0.
pub fn publish(out: &mut Vec<u8>, level: Level, publish: &Publish<'_>) {
    let first = 0x30 | u8::from(publish.dup) << 3 | publish.qos << 1 | u8::from(publish.retain);
    let id = if publish.qos > 0 { 2 } else { 0 };
    let properties = usize::from(level == Level::V5);
    header(out, first, 2 + publish.topic.len() + id + properties + publish.payload.len());
    string(out, publish.topic);
    if publish.qos > 0 {
        out.extend_from_slice(&publish.packet_id.to_be_bytes());
    }
    if level == Level::V5 {
        out.push(0);
    }
    out.extend_from_slice(publish.payload);
}

/// Appends an acknowledgement with success.
pub fn ack(out: &mut Vec<u8>, kind: AckKind, packet_id: u16) {
    let [high, low] = packet_id.to_be_bytes();
    out.extend_from_slice(&[kind as u8, 2, high, low]);
}

/// Appends a PINGREQ.
pub fn ping(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xc0, 0]);
}

/// Appends a bare DISCONNECT: normal disconnection.
pub fn disconnect(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xe0, 0]);
}

/// Cuts the next packet out of `buffer`: its first byte, its body, and how many bytes it takes. `None`: it is not all there.
///
/// # Errors
/// A remaining length of more than four bytes.
pub fn split(buffer: &[u8]) -> io::Result<Option<(u8, &[u8], usize)>> {
    let mut length = 0usize;
    for at in 1..=4 {
        let Some(&byte) = buffer.get(at) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            let end = at + 1 + length;
            return Ok(buffer.get(at + 1..end).map(|body| (buffer[0], body, end)));
        }
    }
    Err(bad("remaining length"))
}

/// Reads the packet that [`split`] cut out.
///
/// # Errors
/// What a server does not send, or not like that.
pub fn parse(level: Level, first: u8, body: &[u8]) -> io::Result<Incoming<'_>> {
    let mut rest = body;
    Ok(match first >> 4 {
        2 => {
            let [flags, code] = take(&mut rest)?;
            let receive_maximum = if level == Level::V5 { receive_maximum(rest)? } else { u16::MAX };
            Incoming::ConnAck { session_present: flags & 1 == 1, code, receive_maximum }
        }
        3 => {
            let length = usize::from(u16::from_be_bytes(take(&mut rest)?));
            let topic = bytes(&mut rest, length)?;
            let qos = first >> 1 & 3;
            let packet_id = if qos > 0 { u16::from_be_bytes(take(&mut rest)?) } else { 0 };
            if level == Level::V5 {
                let length = variable(&mut rest)?;
                bytes(&mut rest, length)?;
            }
            let (dup, retain) = (first & 8 != 0, first & 1 != 0);
            Incoming::Publish(Publish { dup, qos, retain, packet_id, topic, payload: rest })
        }
        kind @ 4..=7 => {
            let kind = [AckKind::PubAck, AckKind::PubRec, AckKind::PubRel, AckKind::PubComp][usize::from(kind - 4)];
            let packet_id = u16::from_be_bytes(take(&mut rest)?);
            Incoming::Ack(kind, packet_id, rest.first().copied().unwrap_or(0))
        }
        kind @ (9 | 11) => {
            let packet_id = u16::from_be_bytes(take(&mut rest)?);
            if level == Level::V5 {
                let length = variable(&mut rest)?;
                bytes(&mut rest, length)?;
            }
            if kind == 9 { Incoming::SubAck(packet_id, rest) } else { Incoming::UnsubAck(packet_id) }
        }
        13 => Incoming::PingResp,
        14 => Incoming::Disconnect(rest.first().copied().unwrap_or(0)),
        _ => return Err(bad("packet type")),
    })
}

fn receive_maximum(mut rest: &[u8]) -> io::Result<u16> {
    let length = variable(&mut rest)?;
    let mut properties = bytes(&mut rest, length)?;
    while let Some((&id, tail)) = properties.split_first() {
        properties = tail;
        let skip = match id {
            0x21 => return Ok(u16::from_be_bytes(take(&mut properties)?)),
            0x24 | 0x25 | 0x28 | 0x29 | 0x2a => 1,
            0x13 | 0x22 => 2,
            0x11 | 0x27 => 4,
            0x26 => {
                let name = usize::from(u16::from_be_bytes(take(&mut properties)?));
                bytes(&mut properties, name)?;
                usize::from(u16::from_be_bytes(take(&mut properties)?))
            }
            _ => usize::from(u16::from_be_bytes(take(&mut properties)?)),
        };
        bytes(&mut properties, skip)?;
    }
    Ok(u16::MAX)
}

/// The only property, four bytes wide; none when it is 0.
fn property(out: &mut Vec<u8>, id: u8, value: u32) {
    if value == 0 {
        return out.push(0);
    }
    out.extend_from_slice(&[5, id]);
    out.extend_from_slice(&value.to_be_bytes());
}

fn packet(out: &mut Vec<u8>, first: u8, body: &[u8]) {
    header(out, first, body.len());
    out.extend_from_slice(body);
}

fn header(out: &mut Vec<u8>, first: u8, mut length: usize) {
    out.push(first);
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        out.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            return;
        }
    }
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}

fn take<const N: usize>(rest: &mut &[u8]) -> io::Result<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or_else(|| bad("a short packet"))?;
    *rest = tail;
    Ok(*head)
}

fn bytes<'a>(rest: &mut &'a [u8], length: usize) -> io::Result<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length).ok_or_else(|| bad("a short packet"))?;
    *rest = tail;
    Ok(head)
}

fn variable(rest: &mut &[u8]) -> io::Result<usize> {
    let mut value = 0;
    for shift in [0, 7, 14, 21] {
        let [byte] = take(rest)?;
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(bad("variable byte integer"))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the server sent something wrong: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_comes_back_as_it_went_out() {
        for level in [Level::V4, Level::V5] {
            for qos in 0..=2 {
                let payload = vec![7; 300];
                let packet_id = if qos > 0 { 513 } else { 0 };
                let sent = Publish { dup: qos > 0, qos, retain: true, packet_id, topic: b"a/b", payload: &payload };
                let mut out = Vec::new();
                publish(&mut out, level, &sent);
                let (first, body, end) = split(&out).unwrap().unwrap();
                assert_eq!(end, out.len());
                assert_eq!(parse(level, first, body).unwrap(), Incoming::Publish(sent));
                assert_eq!(split(&out[..out.len() - 1]).unwrap(), None);
            }
        }
    }

    #[test]
    fn the_receive_maximum_is_found_among_other_properties() {
        let body = [0, 0, 11, 0x25, 1, 0x26, 0, 0, 0, 1, b'x', 0x21, 0, 20];
        let expected = Incoming::ConnAck { session_present: false, code: 0, receive_maximum: 20 };
        assert_eq!(parse(Level::V5, 0x20, &body).unwrap(), expected);
    }
}
