use crate::mesh::Service;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What a frame is. The numbers go over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Wants a reply.
    Request = 1,
    /// Wants none.
    OneWay = 2,
    /// What was asked.
    Reply = 3,
    /// Nobody does what was asked.
    Refused = 4,
    /// Are you there?
    Ping = 5,
    /// Yes.
    Pong = 6,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [Self::Request, Self::OneWay, Self::Reply, Self::Refused, Self::Ping, Self::Pong]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// One message on a connection: u32 bytes that follow, u8 kind, u8 service, u32 id, body; numbers are big-endian.
/// The id ties a reply to its request; it is 0 where there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) service: Service,
    pub(crate) id: u32,
    pub(crate) body: Bytes,
}

/// The bytes can't be of a peer that speaks this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {0} bytes is longer than allowed")]
    TooLong(usize),
    #[error("a frame of {0} bytes is shorter than its head")]
    TooShort(usize),
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
}

impl Frame {
    /// Bytes in front of a body.
    pub(crate) const HEAD: usize = 10;
    /// Of these, what the length counts.
    const COUNTED: usize = Self::HEAD - 4;

    /// A frame without service and body.
    pub(crate) fn bare(kind: Kind, id: u32) -> Self {
        Self { kind, service: Service(0), id, body: Bytes::new() }
    }

    /// Bytes on the wire.
    pub(crate) fn len(&self) -> usize {
        Self::HEAD + self.body.len()
    }

    /// The head; the body follows it.
    pub(crate) fn head(&self) -> [u8; Self::HEAD] {
        // A body is bounded far below 4 GiB before it gets here.
        let counted = u32::try_from(Self::COUNTED + self.body.len()).unwrap_or(u32::MAX);
        let mut head = [0; Self::HEAD];
        let mut to = &mut head[..];
        to.put_u32(counted);
        to.put_u8(self.kind as u8);
        to.put_u8(self.service.0);
        to.put_u32(self.id);
        head
    }

    /// Takes the first frame off `from`, without copying; none while it is not complete. Reserves nothing.
    pub(crate) fn decode(from: &mut BytesMut, max_body: usize) -> Result<Option<Self>, FrameError> {
        let Some(len) = Self::announced(from) else { return Ok(None) };
        if len < Self::COUNTED {
            return Err(FrameError::TooShort(len));
        }
        if len - Self::COUNTED > max_body {
            return Err(FrameError::TooLong(len));
        }
        if let Some(&kind) = from.get(4)
            && Kind::of(kind).is_none()
        {
            return Err(FrameError::Kind(kind));
        }
        if from.len() < 4 + len {
            return Ok(None);
        }
        let mut body = from.split_to(4 + len).freeze();
        body.advance(4);
        let kind = body.get_u8();
        let kind = Kind::of(kind).ok_or(FrameError::Kind(kind))?;
        let service = Service(body.get_u8());
        let id = body.get_u32();
        Ok(Some(Self { kind, service, id, body }))
    }

    /// Bytes that are missing from the first frame of `from`, as it says itself.
    pub(crate) fn missing(from: &[u8]) -> usize {
        Self::announced(from).map_or(0, |len| (4 + len).saturating_sub(from.len()))
    }

    fn announced(from: &[u8]) -> Option<usize> {
        let len = u32::from_be_bytes(*from.first_chunk()?);
        usize::try_from(len).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame() -> impl Strategy<Value = Frame> {
        (1u8..=6, any::<u8>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..200)).prop_map(
            |(kind, service, id, body)| Frame {
                kind: Kind::of(kind).unwrap(),
                service: Service(service),
                id,
                body: body.into(),
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_however_it_is_cut(frames in proptest::collection::vec(frame(), 1..20), cut in 1usize..300) {
            let mut wire = Vec::new();
            for frame in &frames {
                wire.extend_from_slice(&frame.head());
                wire.extend_from_slice(&frame.body);
            }
            let (mut buffer, mut decoded) = (BytesMut::new(), Vec::new());
            for piece in wire.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = Frame::decode(&mut buffer, 200).unwrap() {
                    decoded.push(frame);
                }
            }
            prop_assert_eq!(decoded, frames);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn any_bytes_end_in_frames_an_error_or_waiting(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(frame)) = Frame::decode(&mut buffer, 100) {
                prop_assert!(frame.body.len() <= 100);
            }
            prop_assert!(buffer.len() <= bytes.len());
        }
    }

    #[test]
    fn a_length_that_is_too_large_is_refused_before_anything_else_came() {
        let mut buffer = BytesMut::from(&[0xff, 0xff, 0xff, 0xff][..]);
        assert_eq!(Frame::decode(&mut buffer, 16 << 20), Err(FrameError::TooLong(0xffff_ffff)));
        let mut buffer = BytesMut::from(&[0, 0, 0, 5][..]);
        assert_eq!(Frame::decode(&mut buffer, 16 << 20), Err(FrameError::TooShort(5)));
    }
}
