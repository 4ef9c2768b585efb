//! QoS 2 entries in the PUBREL phase: the message is gone, the number is kept. Layout: `kind(1) incarnation(8) seq(8)` →
//! `index(8) position(4) nth(4)`, big-endian: when PUBREC came, because PUBREL leaves in that order [MQTT-4.6.0-4].

use super::{KeyKind, numbered, read_numbered};
use base_kv_api::ApplyCx;

pub(crate) type Order = [u8; 16];

pub(crate) fn key(incarnation: u64, seq: u64) -> [u8; 17] {
    numbered(KeyKind::Released, incarnation, seq)
}

pub(crate) fn decode_key(key: &[u8]) -> Option<(u64, u64)> {
    read_numbered(KeyKind::Released, key)
}

pub(crate) fn order(cx: &ApplyCx, nth: u32) -> Order {
    let mut order = [0; 16];
    order[..8].copy_from_slice(&cx.index.to_be_bytes());
    order[8..12].copy_from_slice(&cx.position.to_be_bytes());
    order[12..].copy_from_slice(&nth.to_be_bytes());
    order
}
