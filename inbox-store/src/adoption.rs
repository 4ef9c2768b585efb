//! Bringing the inboxes of a lineage that gave way into the one that goes on: what is proposed, and how it is made from the other's keys.
//!
//! An inbox comes in parts: what it is, its subscriptions, its queue in pieces. Incarnations are those of the other lineage; the range
//! allots new ones.

use crate::command::{read_list, read_packet_id};
use crate::corrupt;
use crate::schema::cursor::EVERY;
use crate::schema::entry::{EntryBody, EntryHead};
use crate::schema::inbox::{Holder, InboxRecord, decode_policy, encode_policy, read_u32};
use crate::schema::will::WillRecord;
use crate::schema::{KeyKind, all_below, body, cursor, entry, inbound, inbox, released, subscription, will};
use base_kv_api::{KvError, KvRead, Visit};
use base_types::wire::{Reader, WireError, put_prefixed, put_varint};
use base_types::{PacketId, SubscriptionFilter, SubscriptionOptions, WallMs};
use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use inbox_api::{InboxId, QueueLimits};
use std::collections::BTreeMap;
use std::ops::Range;

/// A part of what a lineage holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Inbox(Box<Inbox>),
    Subscriptions(Vec<(SubscriptionFilter, SubscriptionOptions)>),
    /// Entries in order, each with the message in it.
    Entries(Vec<(u64, EntryHead, Bytes)>),
    /// A will whose inbox is gone, or has another by now; without a due time it is due now.
    Will {
        attach: u64,
        will: Box<WillRecord>,
    },
}

/// What an inbox is, without its subscriptions and its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inbox {
    pub(crate) id: InboxId,
    pub(crate) owner: ByteString,
    pub(crate) expiry_secs: u32,
    pub(crate) limits: QueueLimits,
    /// `None`: it was attached, and the connection ends now.
    pub(crate) detached_at: Option<WallMs>,
    /// No entry has this number or a higher one.
    pub(crate) next: u64,
    pub(crate) sent_upto: u64,
    /// Entries in the PUBREL phase, in their order.
    pub(crate) released: Vec<u64>,
    pub(crate) inbound: Vec<PacketId>,
    /// The will of the last connection.
    pub(crate) will: Option<WillRecord>,
}

// Persisted in the log: never change or reuse a number.
const INBOX: u8 = 1;
const SUBSCRIPTIONS: u8 = 2;
const ENTRIES: u8 = 3;
const WILL: u8 = 4;

fn put_will(out: &mut BytesMut, record: &WillRecord) {
    put_prefixed(out, &will::encode(&record.id, &record.will.owner, record.due, &record.will));
}

impl Part {
    pub(crate) fn encode_to(&self, out: &mut BytesMut) {
        match self {
            Self::Inbox(inbox) => {
                out.put_u8(INBOX);
                put_prefixed(out, &inbox::key(&inbox.id));
                put_prefixed(out, inbox.owner.as_bytes());
                put_varint(out, u64::from(inbox.expiry_secs));
                put_varint(out, inbox.limits.messages);
                put_varint(out, inbox.limits.bytes);
                out.put_u8(encode_policy(inbox.limits.when_full));
                put_varint(out, inbox.detached_at.map_or(0, |at| at.0.max(1)));
                put_varint(out, inbox.next);
                put_varint(out, inbox.sent_upto);
                put_varint(out, inbox.released.len() as u64);
                inbox.released.iter().for_each(|&seq| put_varint(out, seq));
                put_varint(out, inbox.inbound.len() as u64);
                inbox.inbound.iter().for_each(|id| put_varint(out, u64::from(id.get())));
                out.put_u8(u8::from(inbox.will.is_some()));
                inbox.will.iter().for_each(|will| put_will(out, will));
            }
            Self::Subscriptions(subscriptions) => {
                out.put_u8(SUBSCRIPTIONS);
                put_varint(out, subscriptions.len() as u64);
                for (filter, options) in subscriptions {
                    filter.encode_to(out);
                    options.encode_to(out);
                }
            }
            Self::Entries(entries) => {
                out.put_u8(ENTRIES);
                put_varint(out, entries.len() as u64);
                for (seq, head, message) in entries {
                    put_varint(out, *seq);
                    let mut value = Vec::with_capacity(32 + message.len());
                    entry::encode(head, &EntryBody::Inline(message.clone()), &mut value);
                    put_prefixed(out, &value);
                }
            }
            Self::Will { attach, will } => {
                out.put_u8(WILL);
                put_varint(out, *attach);
                put_will(out, will);
            }
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, WireError> {
        Ok(match r.u8()? {
            INBOX => Self::Inbox(Box::new(Inbox {
                id: inbox::decode_key(&r.prefixed()?)?,
                owner: r.text("owner")?,
                expiry_secs: read_u32(r, "a session expiry")?,
                limits: QueueLimits {
                    messages: r.varint()?,
                    bytes: r.varint()?,
                    when_full: r.u8().and_then(decode_policy)?,
                },
                detached_at: Some(WallMs(r.varint()?)).filter(|at| at.0 > 0),
                next: r.varint()?,
                sent_upto: r.varint()?,
                released: read_list(r, Reader::varint)?,
                inbound: read_list(r, read_packet_id)?,
                will: if r.u8()? == 0 { None } else { Some(will::decode(r.prefixed()?)?) },
            })),
            SUBSCRIPTIONS => Self::Subscriptions(read_list(r, |r| {
                Ok((SubscriptionFilter::decode(r)?, SubscriptionOptions::decode(r)?))
            })?),
            ENTRIES => Self::Entries(read_list(r, |r| match (r.varint()?, entry::decode(r.prefixed()?)?) {
                (seq, (head, EntryBody::Inline(message))) => Ok((seq, head, message)),
                (seq, _) => Err(WireError::Invalid { what: "an entry without its message", value: seq }),
            })?),
            WILL => Self::Will { attach: r.varint()?, will: Box::new(will::decode(r.prefixed()?)?) },
            other => return Err(WireError::Invalid { what: "a part of an inbox", value: u64::from(other) }),
        })
    }
}

/// Subscriptions, or entries, of one part.
const PART_MAX: usize = if cfg!(test) { 3 } else { 256 };
/// Bytes of messages of one part, about.
const PART_BYTES: usize = 128 << 10;

/// Whoever takes the parts: the place behind each, the incarnation that it belongs to, the part.
pub(crate) type Take<'a> = dyn FnMut(&[u8], u64, Part) -> Visit + 'a;

/// Where one may go on. Layout: a key, all up to which is done; or `0 pos_len(4) pos inbox-key`: within that inbox, behind its part of the
/// key `pos`, a subscription or an entry.
fn within(inbox: &[u8], pos: &[u8]) -> Vec<u8> {
    [&[0], &(pos.len() as u32).to_be_bytes()[..], pos, inbox].concat()
}

/// The inbox, and the key in it.
fn read_within(place: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = place.strip_prefix(&[0])?.split_first_chunk()?;
    let (pos, inbox) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
    Some((inbox, pos))
}

/// Gives the parts of all inboxes, and then wills that are not theirs, behind `after`.
pub(crate) fn parts(keys: &dyn KvRead, after: &[u8], take: &mut Take<'_>) -> Result<(), KvError> {
    let mut done = after.to_vec();
    if let Some((inbox, pos)) = read_within(after) {
        if let Some(value) = keys.get(inbox)?
            && inbox_parts(keys, inbox, value, Some(pos), take)? == Visit::Enough
        {
            return Ok(());
        }
        done = inbox.to_vec();
    }
    while let Some((key, value)) = next(keys, KeyKind::Inbox, &done)? {
        if inbox_parts(keys, &key, value, None, take)? == Visit::Enough {
            return Ok(());
        }
        done = key;
    }
    while let Some((key, value)) = next(keys, KeyKind::Will, &done)? {
        let version = will::decode_key(&key).ok_or(WireError::Truncated).map_err(corrupt("read a will"))?;
        let record = will::decode(value).map_err(corrupt("read a will"))?;
        let of_inbox = match keys.get(&inbox::key(&record.id))? {
            Some(value) => {
                let inbox = inbox::decode(value).map_err(corrupt("read an inbox"))?;
                inbox.version == version && outlives(&inbox)
            }
            None => false,
        };
        let part = Part::Will { attach: version.attach, will: Box::new(record) };
        if !of_inbox && take(&key, version.incarnation, part) == Visit::Enough {
            return Ok(());
        }
        done = key;
    }
    Ok(())
}

/// Whether there is something left of a session whose connection ends now.
fn outlives(record: &InboxRecord) -> bool {
    record.expiry_secs > 0
}

/// The first key of a kind behind `after`.
fn next(keys: &dyn KvRead, kind: KeyKind, after: &[u8]) -> Result<Option<(Vec<u8>, Bytes)>, KvError> {
    let all = kind.all();
    let behind = [after, &[0]].concat();
    let start = if after < &all.start[..] { &all.start[..] } else { &behind };
    let mut found = None;
    keys.scan(start..&all.end, &mut |key, value| {
        found = Some((key.to_vec(), Bytes::copy_from_slice(value)));
        Visit::Enough
    })?;
    Ok(found)
}

/// Gives the parts of an inbox behind `pos`.
fn inbox_parts(
    keys: &dyn KvRead,
    key: &[u8],
    record: Bytes,
    pos: Option<&[u8]>,
    take: &mut Take<'_>,
) -> Result<Visit, KvError> {
    let record = inbox::decode(record).map_err(corrupt("read an inbox"))?;
    let incarnation = record.version.incarnation;
    if !outlives(&record) {
        return Ok(Visit::More);
    }
    let pos = match pos {
        Some(pos) => pos,
        None => {
            let id = inbox::decode_key(key).map_err(corrupt("read an inbox"))?;
            let part = Part::Inbox(Box::new(describe(keys, id, &record)?));
            if take(&within(key, &[]), incarnation, part) == Visit::Enough {
                return Ok(Visit::Enough);
            }
            &[]
        }
    };
    let below = all_below(KeyKind::Subscription, incarnation);
    if pos < &below.end[..] {
        let mut from = [pos.max(&below.start), &[0]].concat();
        loop {
            let (part, last) = read_subscriptions(keys, &from..&below.end)?;
            let Some(last) = last else { break };
            if take(&within(key, &last), incarnation, Part::Subscriptions(part)) == Visit::Enough {
                return Ok(Visit::Enough);
            }
            from = [&last[..], &[0]].concat();
        }
    }
    let below = all_below(KeyKind::Entry, incarnation);
    let mut from = [pos.max(&below.start), &[0]].concat();
    loop {
        let part = read_entries(keys, &from..&below.end)?;
        let Some((last, ..)) = part.last() else { return Ok(Visit::More) };
        let last = entry::key(incarnation, *last);
        if take(&within(key, &last), incarnation, Part::Entries(part)) == Visit::Enough {
            return Ok(Visit::Enough);
        }
        from = [&last[..], &[0]].concat();
    }
}

type Subscriptions = Vec<(SubscriptionFilter, SubscriptionOptions)>;

/// The next subscriptions, and the key of the last one.
fn read_subscriptions(keys: &dyn KvRead, range: Range<&[u8]>) -> Result<(Subscriptions, Option<Vec<u8>>), KvError> {
    let (mut part, mut last, mut failed) = (Vec::new(), None, None);
    keys.scan(range, &mut |key, value| {
        match subscription::decode_key(key).and_then(|filter| Ok((filter, subscription::decode(value)?))) {
            Ok(subscription) => part.push(subscription),
            Err(error) => failed = Some(error),
        }
        last = Some(key.to_vec());
        if failed.is_some() || part.len() >= PART_MAX { Visit::Enough } else { Visit::More }
    })?;
    failed.map_or(Ok((part, last)), |error| Err(corrupt("read a subscription")(error)))
}

/// The next entries, each with its message.
fn read_entries(keys: &dyn KvRead, range: Range<&[u8]>) -> Result<Vec<(u64, EntryHead, Bytes)>, KvError> {
    let (mut found, mut failed) = (Vec::new(), None);
    keys.scan(range, &mut |key, value| {
        let Some((_, seq)) = entry::decode_key(key) else { return Visit::More };
        match entry::decode(Bytes::copy_from_slice(value)) {
            Ok((head, body)) => found.push((seq, head, body)),
            Err(error) => failed = Some(error),
        }
        if failed.is_some() || found.len() >= PART_MAX { Visit::Enough } else { Visit::More }
    })?;
    if let Some(error) = failed {
        return Err(corrupt("read a queued entry")(error));
    }
    let (mut part, mut bytes) = (Vec::new(), 0);
    for (seq, head, body) in found {
        let message = match body {
            EntryBody::Inline(message) => message,
            EntryBody::Shared(id) => keys
                .get(&body::key(id))?
                .ok_or_else(|| KvError { doing: "read a queued message", cause: "its body is not there".into() })?,
        };
        bytes += message.len();
        part.push((seq, head, message));
        if bytes >= PART_BYTES {
            break;
        }
    }
    Ok(part)
}

fn describe(keys: &dyn KvRead, id: InboxId, record: &InboxRecord) -> Result<Inbox, KvError> {
    let incarnation = record.version.incarnation;
    let queue = match keys.get(&cursor::key(incarnation))? {
        Some(value) => Some(cursor::decode(value).map_err(corrupt("read a cursor"))?),
        None => None,
    };
    let mut order = BTreeMap::new();
    let mut failed = None;
    let below = all_below(KeyKind::Released, incarnation);
    keys.scan(&below.start..&below.end, &mut |key, value| {
        match (released::decode_key(key), released::decode(value)) {
            (Some((_, seq)), Ok(at)) => drop(order.insert(at, seq)),
            (_, Err(error)) => failed = Some(error),
            (None, _) => {}
        }
        Visit::More
    })?;
    if let Some(error) = failed {
        return Err(corrupt("read an entry in the PUBREL phase")(error));
    }
    let mut inbound = Vec::new();
    let below = all_below(KeyKind::Inbound, incarnation);
    keys.scan(&below.start..&below.end, &mut |key, _| {
        inbound.extend(inbound::decode_key(key).map(|(_, id)| id));
        Visit::More
    })?;
    let will = keys.get(&will::key(record.version))?.map(will::decode).transpose().map_err(corrupt("read a will"))?;
    Ok(Inbox {
        id,
        owner: record.owner.clone(),
        expiry_secs: record.expiry_secs,
        limits: record.limits,
        detached_at: match record.holder {
            Holder::Attached(_) => None,
            Holder::DetachedAt(at) => Some(at),
        },
        // A cursor is written after so many entries at the latest.
        next: queue.as_ref().map_or(1, |cursor| cursor.seqs.next()) + EVERY,
        sent_upto: queue.map_or(0, |cursor| cursor.queue.sent_upto),
        released: order.into_values().collect(),
        inbound,
        will,
    })
}
