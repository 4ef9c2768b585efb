//! The queue of an inbox that ended, too long to be removed by one command. Layout: `kind(1) incarnation(8)` → `from_seq(varint)`,
//! the entry at which the removal goes on.

use super::{KeyKind, below};
use base_types::wire::{Reader, WireError, put_varint};
use bytes::Bytes;

pub(crate) fn key(incarnation: u64) -> [u8; 9] {
    below(KeyKind::Doomed, incarnation)
}

pub(crate) fn encode(from_seq: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(10);
    put_varint(&mut out, from_seq);
    out
}

pub(crate) fn decode(value: Bytes) -> Result<u64, WireError> {
    Reader::new(value).varint()
}
