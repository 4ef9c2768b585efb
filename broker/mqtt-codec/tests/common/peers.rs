//! Other codecs, all behind one function: what they make of one packet.

use bytes::{Bytes, BytesMut};
use mqtt_codec::Version;

/// What a peer makes of the bytes of one packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is no packet, or not a whole one.
    Refused(String),
    /// It is one, and these are its bytes as the peer writes it; `None` when it cannot.
    Accepted(Option<Bytes>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Mqttbytes,
    Rumqttc,
    Rmqtt,
    ProtocolCore,
}

pub(crate) const PEERS: [Peer; 4] = [Peer::Mqttbytes, Peer::Rumqttc, Peer::Rmqtt, Peer::ProtocolCore];

const MAX: u32 = 1 << 20;

fn verdict<E: std::fmt::Debug>(written: Result<Option<Bytes>, E>) -> Verdict {
    match written {
        Ok(bytes) => Verdict::Accepted(bytes),
        Err(error) => Verdict::Refused(format!("{error:?}")),
    }
}

impl Peer {
    pub(crate) fn speaks(self, version: Version) -> bool {
        version > Version::V3 || self == Self::Rmqtt
    }

    pub(crate) fn judge(self, version: Version, bytes: &[u8]) -> Verdict {
        let v5 = version == Version::V5;
        let buf = &mut BytesMut::from(bytes);
        match self {
            Self::Mqttbytes if v5 => verdict(mqttbytes::v5::read(buf, MAX as usize).map(|p| mqttbytes_v5(&p))),
            Self::Mqttbytes => verdict(mqttbytes::v4::read(buf, MAX as usize).map(|p| mqttbytes_v4(&p))),
            Self::Rumqttc if v5 => {
                use rumqttc::v5::mqttbytes::v5::Packet;
                verdict(Packet::read(buf, Some(MAX)).map(|p| written(|out| p.write(out, None).is_ok())))
            }
            Self::Rumqttc => {
                let read = rumqttc::Packet::read(buf, MAX as usize);
                verdict(read.map(|p| written(|out| p.write(out, MAX as usize).is_ok())))
            }
            Self::Rmqtt if v5 => {
                use rmqtt_codec::{MqttCodec, MqttPacket, v5};
                rmqtt(MqttCodec::V5(v5::Codec::new(MAX, MAX)), buf, |p| matches!(p, MqttPacket::V5(_)))
            }
            Self::Rmqtt => {
                use rmqtt_codec::{MqttCodec, MqttPacket, v3};
                rmqtt(MqttCodec::V3(v3::Codec::new(MAX)), buf, |p| matches!(p, MqttPacket::V3(_)))
            }
            Self::ProtocolCore => protocol_core(v5, bytes),
        }
    }
}

fn written(write: impl FnOnce(&mut BytesMut) -> bool) -> Option<Bytes> {
    let mut out = BytesMut::new();
    write(&mut out).then(|| out.freeze())
}

fn mqttbytes_v4(packet: &mqttbytes::v4::Packet) -> Option<Bytes> {
    use mqttbytes::v4::{Disconnect, Packet, PingReq, PingResp};
    written(|out| {
        match packet {
            Packet::Connect(p) => p.write(out),
            Packet::ConnAck(p) => p.write(out),
            Packet::Publish(p) => p.write(out),
            Packet::PubAck(p) => p.write(out),
            Packet::PubRec(p) => p.write(out),
            Packet::PubRel(p) => p.write(out),
            Packet::PubComp(p) => p.write(out),
            Packet::Subscribe(p) => p.write(out),
            Packet::SubAck(p) => p.write(out),
            Packet::Unsubscribe(p) => p.write(out),
            Packet::UnsubAck(p) => p.write(out),
            Packet::PingReq => PingReq.write(out),
            Packet::PingResp => PingResp.write(out),
            Packet::Disconnect => Disconnect.write(out),
        }
        .is_ok()
    })
}

fn mqttbytes_v5(packet: &mqttbytes::v5::Packet) -> Option<Bytes> {
    use mqttbytes::v5::{Packet, PingReq, PingResp};
    written(|out| {
        match packet {
            Packet::Connect(p) => p.write(out),
            Packet::ConnAck(p) => p.write(out),
            Packet::Publish(p) => p.write(out),
            Packet::PubAck(p) => p.write(out),
            Packet::PubRec(p) => p.write(out),
            Packet::PubRel(p) => p.write(out),
            Packet::PubComp(p) => p.write(out),
            Packet::Subscribe(p) => p.write(out),
            Packet::SubAck(p) => p.write(out),
            Packet::Unsubscribe(p) => p.write(out),
            Packet::UnsubAck(p) => p.write(out),
            Packet::PingReq => PingReq.write(out),
            Packet::PingResp => PingResp.write(out),
            Packet::Disconnect(p) => p.write(out),
        }
        .is_ok()
    })
}

fn rmqtt(
    mut codec: rmqtt_codec::MqttCodec,
    buf: &mut BytesMut,
    known: impl Fn(&rmqtt_codec::MqttPacket) -> bool,
) -> Verdict {
    use tokio_util::codec::{Decoder, Encoder};
    match codec.decode(buf) {
        Ok(Some((packet, _))) if known(&packet) => Verdict::Accepted(written(|out| codec.encode(packet, out).is_ok())),
        Ok(other) => Verdict::Refused(format!("{other:?}")),
        Err(error) => Verdict::Refused(format!("{error:?}")),
    }
}

/// Its parsers take bodies; flags are judged by its connections, which are more than a codec.
fn protocol_core(v5: bool, bytes: &[u8]) -> Verdict {
    use mqtt_protocol_core::mqtt::packet::{v3_1_1 as old, v5_0 as new};
    let (mut header, mut length) = (1, 0);
    loop {
        let Some(byte) = bytes.get(header).filter(|_| header < 5) else { return Verdict::Refused("no length".into()) };
        length |= usize::from(byte & 0x7f) << (7 * (header - 1));
        header += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let Some(body) = bytes.get(header..header + length) else { return Verdict::Refused("cut short".into()) };
    macro_rules! parse {
        ($parsed:expr) => {
            match $parsed {
                Ok((packet, used)) if used == body.len() => {
                    Verdict::Accepted(Some(packet.to_continuous_buffer().into()))
                }
                Ok(_) => Verdict::Refused("bytes are left".into()),
                Err(error) => Verdict::Refused(format!("{error:?}")),
            }
        };
    }
    macro_rules! both {
        ($kind:ident) => {
            if v5 { parse!(new::$kind::parse(body)) } else { parse!(old::$kind::parse(body)) }
        };
    }
    match bytes[0] >> 4 {
        1 => both!(Connect),
        2 => both!(Connack),
        3 if v5 => parse!(new::Publish::parse(bytes[0] & 15, body.into())),
        3 => parse!(old::Publish::parse(bytes[0] & 15, body.into())),
        4 => both!(Puback),
        5 => both!(Pubrec),
        6 => both!(Pubrel),
        7 => both!(Pubcomp),
        8 => both!(Subscribe),
        9 => both!(Suback),
        10 => both!(Unsubscribe),
        11 => both!(Unsuback),
        12 => both!(Pingreq),
        13 => both!(Pingresp),
        14 => both!(Disconnect),
        15 if v5 => parse!(new::Auth::parse(body)),
        _ => Verdict::Refused("no such packet".into()),
    }
}
