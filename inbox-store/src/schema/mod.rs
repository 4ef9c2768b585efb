//! What stands on disk: one module for each kind of key.
//!
//! Everything below an inbox is keyed by the incarnation of the inbox, a number that the range allots once and never again. It is
//! short, and no life of an inbox can ever see the entries of another.

pub(crate) mod adopted;
pub(crate) mod body;
pub(crate) mod counter;
pub(crate) mod cursor;
pub(crate) mod doomed;
pub(crate) mod ended;
pub(crate) mod entry;
pub(crate) mod inbound;
pub(crate) mod inbox;
pub(crate) mod released;
pub(crate) mod subscription;
pub(crate) mod will;

use std::ops::Range;

/// The first byte of each key. The numbers are on disk: never change or reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum KeyKind {
    Counter = 0,
    Inbox = 1,
    Subscription = 2,
    Entry = 3,
    Body = 4,
    BodyRefs = 5,
    Cursor = 6,
    Will = 7,
    Released = 8,
    Inbound = 9,
    Doomed = 10,
    Ended = 11,
    Adopted = 12,
}

impl KeyKind {
    /// All keys of this kind.
    pub(crate) fn all(self) -> Range<[u8; 1]> {
        [self as u8]..[self as u8 + 1]
    }
}

/// `kind(1) incarnation(8)`, big-endian: what everything below an inbox begins with.
pub(crate) fn below(kind: KeyKind, incarnation: u64) -> [u8; 9] {
    let mut key = [kind as u8; 9];
    key[1..].copy_from_slice(&incarnation.to_be_bytes());
    key
}

/// All keys of a kind below one inbox.
pub(crate) fn all_below(kind: KeyKind, incarnation: u64) -> Range<[u8; 9]> {
    // Incarnations count up from 1: the one after the last never comes.
    below(kind, incarnation)..below(kind, incarnation.saturating_add(1))
}

/// `kind(1) incarnation(8) number(8)`, big-endian.
pub(crate) fn numbered(kind: KeyKind, incarnation: u64, number: u64) -> [u8; 17] {
    let mut key = [kind as u8; 17];
    key[1..9].copy_from_slice(&incarnation.to_be_bytes());
    key[9..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Reads what [`numbered`] wrote.
pub(crate) fn read_numbered(kind: KeyKind, key: &[u8]) -> Option<(u64, u64)> {
    let key: &[u8; 17] = key.try_into().ok()?;
    let (incarnation, number) = key[1..].split_at(8);
    (key[0] == kind as u8)
        .then_some((u64::from_be_bytes(incarnation.try_into().ok()?), u64::from_be_bytes(number.try_into().ok()?)))
}

/// The incarnation of a key that begins as [`below`].
pub(crate) fn incarnation_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(1..9)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbered_keys_round_trip_and_sort_by_inbox_then_number(a in any::<(u64, u64)>(), b in any::<(u64, u64)>()) {
            let (x, y) = (numbered(KeyKind::Entry, a.0, a.1), numbered(KeyKind::Entry, b.0, b.1));
            prop_assert_eq!(read_numbered(KeyKind::Entry, &x), Some(a));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }

        #[test]
        fn what_is_below_an_inbox_is_between_its_bounds_alone(a in 0..u64::MAX, b in 0..u64::MAX, number in any::<u64>()) {
            let range = all_below(KeyKind::Entry, a);
            let key = numbered(KeyKind::Entry, b, number);
            prop_assert_eq!(range.start.as_slice() <= key.as_slice() && key.as_slice() < range.end.as_slice(), a == b);
        }
    }
}
