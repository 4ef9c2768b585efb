//! What the targets check.

use bytes::BytesMut;
use mqtt_codec::{DecodeError, Decoder, Packet, Role, Version, encode, encoded_len};

const MAX_PACKET_SIZE: u32 = 1 << 20;

fn decoder(role: Role, version: Option<Version>) -> Decoder {
    let mut decoder = Decoder::new(role, MAX_PACKET_SIZE);
    if let Some(version) = version {
        decoder.set_version(version);
    }
    decoder
}

fn role(bits: u8) -> Role {
    if bits & 1 == 0 { Role::Server } else { Role::Client }
}

/// One packet, of either direction and, for servers, before or after CONNECT: no panic, and what it was decoded to is what is read again
/// when it is written, in as many bytes as were announced.
pub fn one_packet(version: Version, data: &[u8]) {
    let Some((&bits, data)) = data.split_first() else { return };
    let known = (bits & 2 == 0).then_some(version);
    let mut fresh = decoder(role(bits), known);
    let Ok(Some(packet)) = fresh.decode(&mut BytesMut::from(data)) else { return };
    // A CONNECT brings its own version.
    let version = fresh.version().unwrap_or(version);
    let mut written = BytesMut::new();
    encode(&packet, version, &mut written).expect("what was decoded can be written");
    assert_eq!(encoded_len(&packet, version), Ok(written.len()));
    let first = written.clone();
    let again = decoder(role(bits), known).decode(&mut written);
    assert!(written.is_empty());
    let again = again.expect("what was written is valid").expect("what was written is complete");
    assert_eq!(again, packet);
    let mut second = BytesMut::new();
    encode(&again, version, &mut second).expect("what was decoded can be written");
    assert_eq!(first, second);
}

fn all(decoder: &mut Decoder, buf: &mut BytesMut, packets: &mut Vec<Packet>) -> Option<DecodeError> {
    loop {
        match decoder.decode(buf) {
            Ok(Some(packet)) => packets.push(packet),
            Ok(None) => return None,
            Err(error) => return Some(error),
        }
    }
}

/// A stream of packets: the same ones, and the same error, in whatever pieces it arrives; and no buffer grows by what a length
/// claims.
pub fn stream(data: &[u8]) {
    let [bits, step, data @ ..] = data else { return };
    let version = [None, Some(Version::V3), Some(Version::V4), Some(Version::V5)][usize::from(bits >> 1 & 3)];
    let mut whole = Vec::new();
    let error = all(&mut decoder(role(*bits), version), &mut BytesMut::from(data), &mut whole);

    let mut pieces = Vec::new();
    let mut piecewise = decoder(role(*bits), version);
    let mut buf = BytesMut::with_capacity(data.len());
    let mut got = None;
    for piece in data.chunks(usize::from(*step).max(1)) {
        buf.extend_from_slice(piece);
        got = all(&mut piecewise, &mut buf, &mut pieces);
        assert!(buf.capacity() <= data.len());
        if got.is_some() {
            break;
        }
    }
    assert_eq!((pieces, got), (whole, error));
}
