//! What a range answers. Layout: `status(1) …`.

use crate::command::{read_list, read_packet_id};
use base_types::wire::{Reader, WireError, put_varint};
use base_types::{SubscriptionFilter, SubscriptionOptions};
use bytes::{BufMut, Bytes};
use inbox_api::{AttachError, Attached, DropCause, InboxError, InsertOutcome, SessionVersion};

const OK: u8 = 0;
const FENCED: u8 = 1;
const NOT_OWNER: u8 = 2;
const NOT_UNDERSTOOD: u8 = 3;

pub(crate) const fn done() -> Bytes {
    Bytes::from_static(&[OK])
}

pub(crate) const fn fenced() -> Bytes {
    Bytes::from_static(&[FENCED])
}

pub(crate) const fn not_owner() -> Bytes {
    Bytes::from_static(&[NOT_OWNER])
}

pub(crate) const fn not_understood() -> Bytes {
    Bytes::from_static(&[NOT_UNDERSTOOD])
}

fn outcome_code(outcome: InsertOutcome) -> u8 {
    match outcome {
        InsertOutcome::Stored => 0,
        InsertOutcome::Dropped(DropCause::QueueFullOldest) => 1,
        InsertOutcome::Dropped(DropCause::QueueFullNewest) => 2,
        InsertOutcome::Dropped(DropCause::QueueFullRejected) => 3,
        InsertOutcome::Dropped(DropCause::Expired) => 4,
        InsertOutcome::NoInbox => 5,
        InsertOutcome::Repeated => 6,
    }
}

fn outcome(code: u8) -> Result<InsertOutcome, WireError> {
    Ok(match code {
        0 => InsertOutcome::Stored,
        1 => InsertOutcome::Dropped(DropCause::QueueFullOldest),
        2 => InsertOutcome::Dropped(DropCause::QueueFullNewest),
        3 => InsertOutcome::Dropped(DropCause::QueueFullRejected),
        4 => InsertOutcome::Dropped(DropCause::Expired),
        5 => InsertOutcome::NoInbox,
        6 => InsertOutcome::Repeated,
        other => return Err(WireError::Invalid { what: "an outcome", value: u64::from(other) }),
    })
}

/// One outcome stands for all when they are equal, which they mostly are.
pub(crate) fn outcomes(outcomes: &[InsertOutcome]) -> Bytes {
    match outcomes.first() {
        None | Some(InsertOutcome::Stored) if outcomes.iter().all(|o| *o == InsertOutcome::Stored) => {
            Bytes::from_static(&[OK, 0])
        }
        Some(first) if outcomes.iter().all(|o| o == first) => Bytes::copy_from_slice(&[OK, outcome_code(*first)]),
        _ => std::iter::once(OK).chain(outcomes.iter().map(|o| outcome_code(*o))).collect(),
    }
}

pub(crate) fn all_repeated() -> Bytes {
    Bytes::from_static(&[OK, 6])
}

pub(crate) fn flags(flags: &[bool]) -> Bytes {
    std::iter::once(OK).chain(flags.iter().map(|&flag| u8::from(flag))).collect()
}

pub(crate) fn detached_runs(count: u64, next: Option<u64>) -> Bytes {
    let mut out = vec![OK];
    put_varint(&mut out, count);
    put_varint(&mut out, next.unwrap_or(0));
    out.into()
}

pub(crate) fn attached(attached: &Attached) -> Bytes {
    let mut out = Vec::with_capacity(32 + 32 * attached.subscriptions.len());
    out.put_u8(OK);
    let version = attached.version.unwrap_or(SessionVersion { incarnation: 0, attach: 0 });
    put_varint(&mut out, version.incarnation);
    put_varint(&mut out, version.attach);
    out.put_u8(u8::from(attached.session_present));
    put_varint(&mut out, attached.first_seq);
    put_varint(&mut out, attached.sent_upto);
    put_varint(&mut out, attached.inbound.len() as u64);
    for id in &attached.inbound {
        put_varint(&mut out, u64::from(id.get()));
    }
    put_varint(&mut out, attached.released.len() as u64);
    for &seq in &attached.released {
        put_varint(&mut out, seq);
    }
    put_varint(&mut out, attached.subscriptions.len() as u64);
    for (filter, options) in &attached.subscriptions {
        filter.encode_to(&mut out);
        options.encode_to(&mut out);
    }
    out.into()
}

/// What stands behind the status.
fn body(reply: Bytes) -> Result<Reader, AttachError> {
    let mut r = Reader::new(reply);
    match r.u8() {
        Ok(OK) => Ok(r),
        Ok(FENCED) => Err(InboxError::Fenced.into()),
        Ok(NOT_OWNER) => Err(AttachError::NotOwner),
        Ok(NOT_UNDERSTOOD) => {
            Err(InboxError::Unavailable { cause: "the range did not understand the command".into() }.into())
        }
        Ok(_) | Err(_) => Err(InboxError::Unknown.into()),
    }
}

fn open(reply: Bytes) -> Result<Reader, InboxError> {
    body(reply).map_err(|error| match error {
        AttachError::Inbox(error) => error,
        AttachError::NotOwner => InboxError::Fenced,
    })
}

/// The command was applied, but what was answered can't be read: nobody knows what happened.
fn unreadable(_: WireError) -> InboxError {
    InboxError::Unknown
}

pub(crate) fn read_done(reply: Bytes) -> Result<(), InboxError> {
    open(reply).map(drop)
}

pub(crate) fn read_outcomes(reply: Bytes, receivers: usize) -> Result<Vec<InsertOutcome>, InboxError> {
    let codes = open(reply)?.rest();
    match *codes {
        [code] => {
            let outcome = outcome(code).map_err(unreadable)?;
            // Somebody who only wants an origin settled learns that it was before.
            let count = receivers.max(usize::from(outcome == InsertOutcome::Repeated));
            Ok(vec![outcome; count])
        }
        _ if codes.len() == receivers => codes.iter().map(|&code| outcome(code).map_err(unreadable)).collect(),
        _ => Err(InboxError::Unknown),
    }
}

pub(crate) fn read_flags(reply: Bytes) -> Result<Vec<bool>, InboxError> {
    Ok(open(reply)?.rest().iter().map(|&flag| flag != 0).collect())
}

/// How many were detached, and where to go on.
pub(crate) fn read_detached_runs(reply: Bytes) -> Result<(u64, Option<u64>), InboxError> {
    let mut r = open(reply)?;
    let count = r.varint().map_err(unreadable)?;
    let next = r.varint().map_err(unreadable)?;
    Ok((count, Some(next).filter(|&next| next > 0)))
}

pub(crate) fn read_attached(reply: Bytes) -> Result<Attached, AttachError> {
    fn read(mut r: Reader) -> Result<Attached, WireError> {
        let version = SessionVersion { incarnation: r.varint()?, attach: r.varint()? };
        let session_present = r.u8()? != 0;
        let (first_seq, sent_upto) = (r.varint()?, r.varint()?);
        let inbound = read_list(&mut r, read_packet_id)?;
        let released = read_list(&mut r, Reader::varint)?;
        let subscriptions =
            read_list(&mut r, |r| Ok((SubscriptionFilter::decode(r)?.detached(), SubscriptionOptions::decode(r)?)))?;
        r.finish()?;
        let version = Some(version).filter(|version| version.attach > 0);
        Ok(Attached { version, session_present, subscriptions, inbound, released, first_seq, sent_upto })
    }
    read(body(reply)?).map_err(|error| unreadable(error).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use base_types::PacketId;
    use bytestring::ByteString;

    #[test]
    fn outcomes_survive_the_wire() {
        let stored = InsertOutcome::Stored;
        let dropped = InsertOutcome::Dropped(DropCause::QueueFullRejected);
        for case in [vec![], vec![stored; 3], vec![dropped; 2], vec![stored, InsertOutcome::NoInbox, dropped]] {
            assert_eq!(read_outcomes(outcomes(&case), case.len()), Ok(case));
        }
        assert_eq!(outcomes(&[stored; 1000]).len(), 2);
        assert_eq!(read_outcomes(all_repeated(), 0), Ok(vec![InsertOutcome::Repeated]));
        assert_eq!(read_outcomes(fenced(), 1), Err(InboxError::Fenced));
    }

    #[test]
    fn what_is_attached_survives_the_wire() {
        let filter = SubscriptionFilter::parse(&ByteString::from_static("$share/g/a/#")).unwrap();
        let full = Attached {
            version: Some(SessionVersion { incarnation: 7, attach: 3 }),
            session_present: true,
            subscriptions: vec![(filter, SubscriptionOptions::default())],
            inbound: vec![PacketId::new(9).unwrap()],
            released: vec![5, 4],
            first_seq: 4,
            sent_upto: 6,
        };
        assert_eq!(read_attached(attached(&full)), Ok(full.clone()));
        let none = Attached { version: None, session_present: false, ..full };
        assert_eq!(read_attached(attached(&none)), Ok(none));
        assert_eq!(read_attached(not_owner()), Err(AttachError::NotOwner));
    }
}
