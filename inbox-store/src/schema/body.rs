//! A message that several entries share: stored once, counted, gone with the last entry.
//!
//! Layout: `kind(1) index(8) position(4)` → the message; the same under another kind → `refs(varint)`, so that a reference that goes
//! does not write the message again. A body is named by the command that brought it.

use super::KeyKind;
use base_kv_api::ApplyCx;
use base_types::wire::{Reader, WireError, put_varint};
use bytes::Bytes;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BodyId {
    pub(crate) index: u64,
    pub(crate) position: u32,
}

impl BodyId {
    pub(crate) const LEN: usize = 12;

    pub(crate) fn of(cx: &ApplyCx) -> Self {
        Self { index: cx.index, position: cx.position }
    }

    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..8].copy_from_slice(&self.index.to_be_bytes());
        out[8..].copy_from_slice(&self.position.to_be_bytes());
        out
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let (index, position) = bytes.split_at(8);
        Some(Self {
            index: u64::from_be_bytes(index.try_into().ok()?),
            position: u32::from_be_bytes(position.try_into().ok()?),
        })
    }
}

fn named(kind: KeyKind, id: BodyId) -> [u8; 1 + BodyId::LEN] {
    let mut key = [kind as u8; 1 + BodyId::LEN];
    key[1..].copy_from_slice(&id.to_bytes());
    key
}

pub(crate) fn key(id: BodyId) -> [u8; 1 + BodyId::LEN] {
    named(KeyKind::Body, id)
}

pub(crate) fn refs_key(id: BodyId) -> [u8; 1 + BodyId::LEN] {
    named(KeyKind::BodyRefs, id)
}

pub(crate) fn encode_refs(refs: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(4);
    put_varint(&mut out, refs);
    out
}

pub(crate) fn decode_refs(value: Bytes) -> Result<u64, WireError> {
    Reader::new(value).varint()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_round_trip_in_order(a in any::<(u64, u32)>(), b in any::<(u64, u32)>(), refs in any::<u64>()) {
            let id = |(index, position)| BodyId { index, position };
            prop_assert_eq!(BodyId::read(&key(id(a))[1..]), Some(id(a)));
            prop_assert_eq!(key(id(a)).cmp(&key(id(b))), a.cmp(&b));
            prop_assert_ne!(key(id(a)), refs_key(id(b)));
            prop_assert_eq!(decode_refs(encode_refs(refs).into()), Ok(refs));
        }
    }
}
