//! The next incarnation to allot. Layout: `kind(1)` → `next(varint)`.

use super::KeyKind;
use base_types::wire::{Reader, WireError, put_varint};
use bytes::Bytes;

pub(crate) const KEY: [u8; 1] = [KeyKind::Counter as u8];

pub(crate) fn encode(next: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(10);
    put_varint(&mut out, next);
    out
}

pub(crate) fn decode(value: Bytes) -> Result<u64, WireError> {
    Reader::new(value).varint()
}
