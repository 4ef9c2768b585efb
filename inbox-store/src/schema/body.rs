//! A message that several entries share: stored once, counted, gone with the last entry.
//!
//! Layout: `kind(1) incarnation(8) seq(8)` → the message; the same under another kind → `refs(varint)`, so that a reference that goes
//! does not write the message again. A body is named by the first entry that referred to it: no number is ever used twice.

use super::{KeyKind, numbered};
use base_types::wire::{Reader, WireError, put_varint};
use bytes::Bytes;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BodyId {
    pub(crate) incarnation: u64,
    pub(crate) seq: u64,
}

pub(crate) fn key(id: BodyId) -> [u8; 17] {
    numbered(KeyKind::Body, id.incarnation, id.seq)
}

pub(crate) fn refs_key(id: BodyId) -> [u8; 17] {
    numbered(KeyKind::BodyRefs, id.incarnation, id.seq)
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
        fn keys_sort_by_name_and_counts_round_trip(a in any::<(u64, u64)>(), b in any::<(u64, u64)>(), refs in any::<u64>()) {
            let id = |(incarnation, seq)| BodyId { incarnation, seq };
            prop_assert_eq!(key(id(a)).cmp(&key(id(b))), a.cmp(&b));
            prop_assert_ne!(key(id(a)), refs_key(id(b)));
            prop_assert_eq!(decode_refs(encode_refs(refs).into()), Ok(refs));
        }
    }
}
