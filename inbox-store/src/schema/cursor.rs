//! Where a queue stands. Layout: `kind(1) incarnation(8)` →
//! `format(1) first next sent_upto mark messages bytes shared gaps [(before length)…]`, varints.
//!
//! It is written whenever an entry goes, and after every [`EVERY`] entries that came, so that a start reads at most that many entries of
//! each inbox: what came after `next` of the cursor. Gaps are what went out of order; when there are more than [`GAPS_MAX`],
//! they are left out and the queue is read from `first` on.

use super::{KeyKind, below};
use crate::seqs::Seqs;
use base_types::wire::{Reader, WireError, put_varint};
use bytes::{BufMut, Bytes};

const FORMAT: u8 = 1;
// Small in tests, so that short histories come to it; likewise below.
const GAPS_MAX: usize = if cfg!(test) { 2 } else { 16 };
const GAPS_UNKNOWN: u64 = 255;

/// A cursor is written after so many entries at the latest.
pub(crate) const EVERY: u64 = if cfg!(test) { 4 } else { 64 };

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) seqs: Seqs,
    /// Whether `seqs` knows its gaps.
    pub(crate) gaps_known: bool,
    pub(crate) queue: Queue,
}

/// What is known of a queue beside its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queue {
    /// Entries below may have been sent; ahead of the queue while a connection marks ahead.
    pub(crate) sent_upto: u64,
    /// Which commit of the connection said so: one that is tried again must not undo a later one.
    pub(crate) mark: u64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// Entries whose body is shared with other inboxes.
    pub(crate) shared: u64,
}

pub(crate) fn key(incarnation: u64) -> [u8; 9] {
    below(KeyKind::Cursor, incarnation)
}

pub(crate) fn encode(seqs: &Seqs, queue: &Queue, out: &mut Vec<u8>) {
    let Queue { sent_upto, mark, messages, bytes, shared } = *queue;
    out.put_u8(FORMAT);
    for value in [seqs.first(), seqs.next(), sent_upto, mark, messages, bytes, shared] {
        put_varint(out, value);
    }
    if seqs.gaps().len() > GAPS_MAX {
        return put_varint(out, GAPS_UNKNOWN);
    }
    put_varint(out, seqs.gaps().len() as u64);
    let mut at = seqs.first();
    for (&start, &end) in seqs.gaps() {
        put_varint(out, start - at);
        put_varint(out, end - start);
        at = end;
    }
}

pub(crate) fn decode(value: Bytes) -> Result<Cursor, WireError> {
    let mut r = Reader::new(value);
    match r.u8()? {
        FORMAT => {}
        other => return Err(WireError::UnknownFormat(other)),
    }
    let (first, next) = (r.varint()?, r.varint()?);
    if first > next {
        return Err(WireError::Invalid { what: "the first entry of a queue", value: first });
    }
    let queue = Queue {
        sent_upto: r.varint()?,
        mark: r.varint()?,
        messages: r.varint()?,
        bytes: r.varint()?,
        shared: r.varint()?,
    };
    let gaps = r.varint()?;
    let mut seqs = Seqs::between(first, next);
    if gaps != GAPS_UNKNOWN {
        let mut at = first;
        for _ in 0..gaps {
            let start = at.saturating_add(r.varint()?);
            at = start.saturating_add(r.varint()?);
            seqs.add_gap(start, at);
        }
    }
    r.finish()?;
    Ok(Cursor { seqs, gaps_known: gaps != GAPS_UNKNOWN, queue })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cursors_round_trip(removed in prop::collection::vec(1u64..40, 0..20), rest in any::<[u64; 5]>()) {
            let mut seqs = Seqs::between(1, 40);
            for seq in removed {
                seqs.remove(seq);
            }
            let mut out = Vec::new();
            let [sent_upto, mark, messages, bytes, shared] = rest;
            let queue = Queue { sent_upto, mark, messages, bytes, shared };
            encode(&seqs, &queue, &mut out);
            let cursor = decode(out.into()).unwrap();
            prop_assert_eq!(cursor.queue, queue);
            prop_assert!(!cursor.gaps_known || cursor.seqs == seqs);
            prop_assert_eq!((cursor.seqs.first(), cursor.seqs.next()), (seqs.first(), seqs.next()));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(bytes.into());
        }
    }
}
