//! An entry of a queue. Layout: `kind(1) incarnation(8) seq(8)` →
//! `head(1) cost(varint) [expires_at(varint)] [n(varint) identifier(varint)…] (message… | incarnation(varint) seq(varint))`.
//!
//! The head holds the format (2 bits), and flags. A message for a single receiver stands in the entry itself: one key instead of
//! three. For several receivers each has a reference to the body, about 25 bytes with its key.

use super::body::BodyId;
use super::{KeyKind, numbered, read_numbered};
use base_types::wire::{Reader, WireError, put_varint};
use base_types::{QoS, WallMs};
use bytes::{BufMut, Bytes};

const FORMAT: u8 = 0b0100_0000;
const FORMAT_BITS: u8 = 0b1100_0000;
const QOS_BITS: u8 = 0b0000_0011;
const RETAIN: u8 = 0b0000_0100;
const IDENTIFIERS: u8 = 0b0000_1000;
const EXPIRES: u8 = 0b0001_0000;
const INLINE: u8 = 0b0010_0000;

/// What an entry says beside its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryHead {
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) subscription_identifiers: Vec<u32>,
    /// As [`base_types::Message::cost`].
    pub(crate) cost: u64,
    pub(crate) expires_at: Option<WallMs>,
}

/// Where its message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EntryBody {
    Inline(Bytes),
    Shared(BodyId),
}

pub(crate) fn key(incarnation: u64, seq: u64) -> [u8; 17] {
    numbered(KeyKind::Entry, incarnation, seq)
}

pub(crate) fn decode_key(key: &[u8]) -> Option<(u64, u64)> {
    read_numbered(KeyKind::Entry, key)
}

pub(crate) fn encode(head: &EntryHead, body: &EntryBody, out: &mut Vec<u8>) {
    let mut flags = FORMAT | u8::from(head.qos);
    for (flag, set) in [
        (RETAIN, head.retain),
        (IDENTIFIERS, !head.subscription_identifiers.is_empty()),
        (EXPIRES, head.expires_at.is_some()),
        (INLINE, matches!(body, EntryBody::Inline(_))),
    ] {
        flags |= if set { flag } else { 0 };
    }
    out.put_u8(flags);
    put_varint(out, head.cost);
    if let Some(at) = head.expires_at {
        put_varint(out, at.0);
    }
    if !head.subscription_identifiers.is_empty() {
        put_varint(out, head.subscription_identifiers.len() as u64);
        for &identifier in &head.subscription_identifiers {
            put_varint(out, u64::from(identifier));
        }
    }
    match body {
        EntryBody::Inline(message) => out.put_slice(message),
        EntryBody::Shared(id) => {
            put_varint(out, id.incarnation);
            put_varint(out, id.seq);
        }
    }
}

/// The message of the answer, if it is inline, is a slice of `value`.
pub(crate) fn decode(value: Bytes) -> Result<(EntryHead, EntryBody), WireError> {
    let mut r = Reader::new(value);
    let flags = r.u8()?;
    if flags & FORMAT_BITS != FORMAT {
        return Err(WireError::UnknownFormat(flags));
    }
    let cost = r.varint()?;
    let expires_at = if flags & EXPIRES == 0 { None } else { Some(WallMs(r.varint()?)) };
    let mut subscription_identifiers = Vec::new();
    if flags & IDENTIFIERS != 0 {
        for _ in 0..r.varint()? {
            subscription_identifiers.push(r.varint()? as u32);
        }
    }
    let qos = QoS::try_from(flags & QOS_BITS)?;
    let body = if flags & INLINE == 0 {
        let id = BodyId { incarnation: r.varint()?, seq: r.varint()? };
        r.finish()?;
        EntryBody::Shared(id)
    } else {
        EntryBody::Inline(r.rest())
    };
    Ok((EntryHead { qos, retain: flags & RETAIN != 0, subscription_identifiers, cost, expires_at }, body))
}

/// Cost and shared body alone, without copying the message.
pub(crate) fn decode_account(value: &[u8]) -> Result<(u64, Option<BodyId>), WireError> {
    // The cost stands in the first eleven bytes.
    let inline = value.first().is_some_and(|flags| flags & INLINE != 0);
    let mut r = Reader::new(Bytes::copy_from_slice(value.get(..11).filter(|_| inline).unwrap_or(value)));
    if inline {
        return match r.u8()? {
            flags if flags & FORMAT_BITS == FORMAT => Ok((r.varint()?, None)),
            other => Err(WireError::UnknownFormat(other)),
        };
    }
    match decode(r.rest())? {
        (head, EntryBody::Shared(id)) => Ok((head.cost, Some(id))),
        (head, EntryBody::Inline(_)) => Ok((head.cost, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head() -> impl Strategy<Value = EntryHead> {
        (0u8..3, any::<bool>(), prop::collection::vec(any::<u32>(), 0..4), any::<u64>(), prop::option::of(any::<u64>()))
            .prop_map(|(qos, retain, subscription_identifiers, cost, expires_at)| EntryHead {
                qos: QoS::try_from(qos).unwrap(),
                retain,
                subscription_identifiers,
                cost,
                expires_at: expires_at.map(WallMs),
            })
    }

    fn body() -> impl Strategy<Value = EntryBody> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..100).prop_map(|b| EntryBody::Inline(b.into())),
            any::<(u64, u64)>().prop_map(|(incarnation, seq)| EntryBody::Shared(BodyId { incarnation, seq })),
        ]
    }

    proptest! {
        #[test]
        fn values_round_trip(head in head(), body in body()) {
            let mut out = Vec::new();
            encode(&head, &body, &mut out);
            let shared = match &body { EntryBody::Shared(id) => Some(*id), EntryBody::Inline(_) => None };
            prop_assert_eq!(decode_account(&out), Ok((head.cost, shared)));
            prop_assert_eq!(decode(out.into()), Ok((head, body)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode_account(&bytes);
            let _ = decode(bytes.into());
        }
    }

    #[test]
    fn a_reference_costs_less_than_64_bytes_with_its_key() {
        let head = EntryHead {
            qos: QoS::AtLeastOnce,
            retain: false,
            subscription_identifiers: vec![268_435_455],
            cost: 1 << 20,
            expires_at: Some(WallMs(1 << 42)),
        };
        let mut out = Vec::new();
        encode(&head, &EntryBody::Shared(BodyId { incarnation: 1 << 40, seq: 1 << 40 }), &mut out);
        assert!(key(1, 1).len() + out.len() <= 64, "{}", out.len());
    }
}
