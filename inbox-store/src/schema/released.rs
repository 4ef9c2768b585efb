//! QoS 2 entries in the PUBREL phase: the message is gone, the number is kept. Layout: `kind(1) incarnation(8) seq(8)` →
//! `order(varint)`: PUBREL leaves in the order in which PUBREC came [MQTT-4.6.0-4].

use super::{KeyKind, numbered, read_numbered};
use base_types::wire::{Reader, WireError, put_varint};
use bytes::Bytes;

pub(crate) fn key(incarnation: u64, seq: u64) -> [u8; 17] {
    numbered(KeyKind::Released, incarnation, seq)
}

pub(crate) fn decode_key(key: &[u8]) -> Option<(u64, u64)> {
    read_numbered(KeyKind::Released, key)
}

pub(crate) fn encode(order: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(4);
    put_varint(&mut out, order);
    out
}

pub(crate) fn decode(value: &[u8]) -> Result<u64, WireError> {
    Reader::new(Bytes::copy_from_slice(value)).varint()
}
