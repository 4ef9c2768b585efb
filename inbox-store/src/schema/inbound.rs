//! QoS 2 packet ids that were received from the client and not released yet. Layout: `kind(1) incarnation(8) packet_id(2)` → nothing.

use super::{KeyKind, incarnation_of};
use base_types::PacketId;

pub(crate) fn key(incarnation: u64, id: PacketId) -> [u8; 11] {
    let mut key = [KeyKind::Inbound as u8; 11];
    key[1..9].copy_from_slice(&incarnation.to_be_bytes());
    key[9..].copy_from_slice(&id.get().to_be_bytes());
    key
}

pub(crate) fn decode_key(key: &[u8]) -> Option<(u64, PacketId)> {
    let id = u16::from_be_bytes(key.get(9..11)?.try_into().ok()?);
    Some((incarnation_of(key)?, PacketId::new(id)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_round_trip_in_order(a in (any::<u64>(), 1u16..), b in (any::<u64>(), 1u16..)) {
            let id = |n| PacketId::new(n).unwrap();
            let (x, y) = (key(a.0, id(a.1)), key(b.0, id(b.1)));
            prop_assert_eq!(decode_key(&x), Some((a.0, id(a.1))));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }
    }
}
