//! What was taken over from another lineage of the range, so that it is taken over once. Layout:
//! `kind(1) lineage(8) incarnation(8) attach(8)` → `format(1) target next_seq whole(1)`, numbers as varints.
//!
//! `incarnation` is that of the other lineage. With an attach of 0 it is an inbox, else a will. They stay: a few bytes for each session.

use super::KeyKind;
use base_types::wire::{Reader, WireError, put_varint};
use bytes::{BufMut, Bytes};

const FORMAT: u8 = 1;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Adopted {
    /// The inbox here that got it; 0 when none did.
    pub(crate) target: u64,
    /// Entries below have been taken over.
    pub(crate) next_seq: u64,
    /// The inbox was not here before: entries keep their numbers.
    pub(crate) whole: bool,
}

pub(crate) fn key(lineage: u64, incarnation: u64, attach: u64) -> [u8; 25] {
    let mut key = [KeyKind::Adopted as u8; 25];
    key[1..9].copy_from_slice(&lineage.to_be_bytes());
    key[9..17].copy_from_slice(&incarnation.to_be_bytes());
    key[17..].copy_from_slice(&attach.to_be_bytes());
    key
}

pub(crate) fn encode(adopted: &Adopted) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    out.put_u8(FORMAT);
    put_varint(&mut out, adopted.target);
    put_varint(&mut out, adopted.next_seq);
    out.put_u8(u8::from(adopted.whole));
    out
}

pub(crate) fn decode(value: Bytes) -> Result<Adopted, WireError> {
    let mut r = Reader::new(value);
    match r.u8()? {
        FORMAT => {}
        other => return Err(WireError::UnknownFormat(other)),
    }
    let adopted = Adopted { target: r.varint()?, next_seq: r.varint()?, whole: r.u8()? != 0 };
    r.finish()?;
    Ok(adopted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn values_round_trip(target in any::<u64>(), next_seq in any::<u64>(), whole in any::<bool>()) {
            let adopted = Adopted { target, next_seq, whole };
            prop_assert_eq!(decode(encode(&adopted).into()), Ok(adopted));
        }
    }
}
