//! What is proposed to a range. Layout: `format(1) kind(1) …`, numbers as varints; an insert ends with the message, as it goes to disk.

use crate::adoption::Part;
use crate::schema::inbox::{client_id, decode_policy, encode_policy, read_u32, tenant_id};
use crate::schema::will::{decode_will, encode_will};
use base_types::wire::{Reader, WireError, put_prefixed, put_varint};
use base_types::{
    Incarnation, NodeId, NodeIncarnation, PacketId, QoS, SubscriptionFilter, SubscriptionOptions, TenantId, WallMs,
};
use bytes::{BufMut, Bytes, BytesMut};
use inbox_api::{Attach, Commit, Detach, InboxId, Insert, Origin, QueueLimits, SessionVersion, WillFate};

const FORMAT: u8 = 1;

// Persisted in the log: never change or reuse a number.
/// As [`ATTACH`], of before lives of inboxes began with the time: read only.
const ATTACH_COUNTED: u8 = 1;
const DETACH: u8 = 2;
const SUBSCRIBE: u8 = 3;
const UNSUBSCRIBE: u8 = 4;
const INSERT: u8 = 5;
const COMMIT: u8 = 6;
const DETACH_RUNS: u8 = 7;
const EXPIRE: u8 = 8;
const DISCARD: u8 = 9;
const SWEEP: u8 = 10;
/// As [`ABANDON`], of before it ended what the attach had made: read only.
const ABANDON_KEPT: u8 = 11;
const SETTLE_ENDED: u8 = 12;
const ADOPT: u8 = 13;
const ATTACH: u8 = 14;
const ABANDON: u8 = 15;

/// A command, taken apart.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Attach {
        attach: Box<Attach>,
        /// Names this call among those of its node's run.
        token: u64,
        /// The life of an inbox that it makes begins with the time.
        timed: bool,
    },
    Detach {
        version: SessionVersion,
        expiry_secs: Option<u32>,
        will: WillFate,
    },
    Subscribe {
        version: SessionVersion,
        subscriptions: Vec<(SubscriptionFilter, SubscriptionOptions)>,
    },
    Unsubscribe {
        version: SessionVersion,
        filters: Vec<SubscriptionFilter>,
    },
    Insert(InsertCommand),
    Commit {
        version: SessionVersion,
        mark: u64,
        commit: Commit,
    },
    /// Detaches inboxes of earlier runs, looking only at incarnations from `from` on, and only at `max` of them.
    DetachRuns {
        current: NodeIncarnation,
        from: u64,
        max: u64,
    },
    /// Ends those of these inboxes whose time has come.
    Expire {
        incarnations: Vec<u64>,
    },
    /// Removes those of these entries that have expired, for the owner that left them out of a fetch.
    Discard {
        version: SessionVersion,
        seqs: Vec<u64>,
    },
    /// Detaches an inbox if this call attached it, or ends it if this call made it, and nobody attached after it: nobody learned of it.
    Abandon {
        inbox: InboxId,
        run: NodeIncarnation,
        token: u64,
        /// Ends it too, if this call made it.
        ends: bool,
    },
    /// Takes over a part of an inbox of another lineage, which had this incarnation there.
    Adopt {
        lineage: u64,
        incarnation: u64,
        part: Part,
    },
    /// No route leads to these inboxes that ended.
    SettleEnded {
        incarnations: Vec<u64>,
    },
    /// Removes the next `max` entries of an inbox that ended.
    Sweep {
        incarnation: u64,
        max: u64,
    },
}

/// An [`Insert`] on its way.
#[derive(Clone, Debug)]
pub(crate) struct InsertCommand {
    pub(crate) tenant: TenantId,
    pub(crate) origin: Settled,
    pub(crate) receivers: Vec<Receiver>,
    pub(crate) cost: u64,
    pub(crate) expires_at: Option<WallMs>,
    /// The message as it goes to disk; a slice of the command.
    pub(crate) body: Bytes,
}

/// An [`Origin`] on its way: incarnations are unique within a range, so no name is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    Nothing,
    Inbound(SessionVersion, PacketId),
    Will(SessionVersion),
}

/// An [`inbox_api::InboxReceiver`] on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Receiver {
    pub(crate) incarnation: u64,
    /// See [`client_tag`].
    pub(crate) tag: u32,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) subscription_identifiers: Vec<u32>,
}

/// A short stand-in for the client id in an insert. The incarnation names the inbox; this catches a route from a history that a forced
/// recovery gave up, whose incarnation may have been allotted again. FNV-1a.
pub(crate) fn client_tag(client: &str) -> u32 {
    client.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn begin(kind: u8, capacity: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(2 + capacity);
    out.put_u8(FORMAT);
    out.put_u8(kind);
    out
}

fn put_version(out: &mut BytesMut, version: SessionVersion) {
    put_varint(out, version.incarnation);
    put_varint(out, version.attach);
}

fn read_version(r: &mut Reader) -> Result<SessionVersion, WireError> {
    Ok(SessionVersion { incarnation: r.varint()?, attach: r.varint()? })
}

fn put_numbers(out: &mut BytesMut, numbers: impl ExactSizeIterator<Item = u64>) {
    put_varint(out, numbers.len() as u64);
    for number in numbers {
        put_varint(out, number);
    }
}

/// A list; nothing is reserved by claim.
pub(crate) fn read_list<T>(
    r: &mut Reader,
    mut item: impl FnMut(&mut Reader) -> Result<T, WireError>,
) -> Result<Vec<T>, WireError> {
    let count = r.varint()?;
    let mut list = Vec::with_capacity(count.min(64) as usize);
    for _ in 0..count {
        list.push(item(r)?);
    }
    Ok(list)
}

pub(crate) fn read_packet_id(r: &mut Reader) -> Result<PacketId, WireError> {
    let value = r.varint()?;
    let id = u16::try_from(value).ok().and_then(PacketId::new);
    id.ok_or(WireError::Invalid { what: "a packet id", value })
}

fn put_inbox(out: &mut BytesMut, inbox: &InboxId) {
    put_prefixed(out, inbox.tenant.as_str().as_bytes());
    put_prefixed(out, inbox.client.as_str().as_bytes());
}

fn read_inbox(r: &mut Reader) -> Result<InboxId, WireError> {
    Ok(InboxId { tenant: tenant_id(r.prefixed()?)?, client: client_id(r.prefixed()?)? })
}

fn put_run(out: &mut BytesMut, run: NodeIncarnation) {
    out.put_u64(run.node.0);
    put_varint(out, run.incarnation.0);
}

fn read_run(r: &mut Reader) -> Result<NodeIncarnation, WireError> {
    Ok(NodeIncarnation { node: NodeId(r.u64()?), incarnation: Incarnation(r.varint()?) })
}

pub(crate) fn attach(attach: &Attach, token: u64) -> Bytes {
    let mut out = begin(ATTACH, 128);
    put_varint(&mut out, token);
    put_inbox(&mut out, &attach.inbox);
    out.put_u8(u8::from(attach.clean_start) | u8::from(attach.will.is_some()) << 1);
    put_varint(&mut out, u64::from(attach.expiry_secs));
    put_prefixed(&mut out, attach.owner.as_bytes());
    put_run(&mut out, attach.node);
    put_varint(&mut out, attach.limits.messages);
    put_varint(&mut out, attach.limits.bytes);
    out.put_u8(encode_policy(attach.limits.when_full));
    if let Some(will) = &attach.will {
        encode_will(will, &mut out);
    }
    out.freeze()
}

fn read_attach(r: &mut Reader) -> Result<Attach, WireError> {
    let inbox = read_inbox(r)?;
    let flags = r.u8()?;
    Ok(Attach {
        inbox,
        clean_start: flags & 1 != 0,
        expiry_secs: read_u32(r, "a session expiry")?,
        owner: r.text("owner")?,
        node: read_run(r)?,
        limits: QueueLimits { messages: r.varint()?, bytes: r.varint()?, when_full: r.u8().and_then(decode_policy)? },
        will: if flags & 2 == 0 { None } else { Some(decode_will(r)?) },
    })
}

pub(crate) fn detach(detach: &Detach) -> Bytes {
    let mut out = begin(DETACH, 32);
    put_version(&mut out, detach.version);
    out.put_u8(u8::from(detach.will == WillFate::Publish));
    put_varint(&mut out, detach.expiry_secs.map_or(0, |secs| u64::from(secs) + 1));
    out.freeze()
}

pub(crate) fn subscribe(version: SessionVersion, subscriptions: &[(SubscriptionFilter, SubscriptionOptions)]) -> Bytes {
    let mut out = begin(SUBSCRIBE, 32 + 32 * subscriptions.len());
    put_version(&mut out, version);
    put_varint(&mut out, subscriptions.len() as u64);
    for (filter, options) in subscriptions {
        filter.encode_to(&mut out);
        options.encode_to(&mut out);
    }
    out.freeze()
}

pub(crate) fn unsubscribe(version: SessionVersion, filters: &[SubscriptionFilter]) -> Bytes {
    let mut out = begin(UNSUBSCRIBE, 32 + 32 * filters.len());
    put_version(&mut out, version);
    put_varint(&mut out, filters.len() as u64);
    for filter in filters {
        filter.encode_to(&mut out);
    }
    out.freeze()
}

const RECEIVER_QOS: u8 = 0b0011;
const RECEIVER_RETAIN: u8 = 0b0100;
const RECEIVER_IDENTIFIERS: u8 = 0b1000;

pub(crate) fn insert(insert: &Insert) -> Bytes {
    let message = &insert.message;
    let mut out = begin(INSERT, 300 + 24 * insert.receivers.len() + message.encoded_len_max());
    put_prefixed(&mut out, insert.tenant.as_str().as_bytes());
    match &insert.origin {
        Origin::None => out.put_u8(0),
        Origin::Inbound { version, packet_id, .. } => {
            out.put_u8(1);
            put_version(&mut out, *version);
            put_varint(&mut out, u64::from(packet_id.get()));
        }
        Origin::Will { version, .. } => {
            out.put_u8(2);
            put_version(&mut out, *version);
        }
    }
    put_varint(&mut out, insert.receivers.len() as u64);
    for receiver in &insert.receivers {
        put_varint(&mut out, receiver.incarnation);
        out.put_u32(client_tag(receiver.client.as_str()));
        let identifiers = &receiver.subscription_identifiers;
        out.put_u8(
            u8::from(receiver.qos)
                | if receiver.retain { RECEIVER_RETAIN } else { 0 }
                | if identifiers.is_empty() { 0 } else { RECEIVER_IDENTIFIERS },
        );
        if !identifiers.is_empty() {
            put_numbers(&mut out, identifiers.iter().map(|&id| u64::from(id)));
        }
    }
    put_varint(&mut out, message.cost() as u64);
    put_varint(&mut out, message.expires_at.map_or(0, |at| at.0.max(1)));
    message.encode_to(&mut out);
    out.freeze()
}

fn read_insert(mut r: Reader) -> Result<InsertCommand, WireError> {
    let tenant = tenant_id(r.prefixed()?)?;
    let origin = match r.u8()? {
        0 => Settled::Nothing,
        1 => Settled::Inbound(read_version(&mut r)?, read_packet_id(&mut r)?),
        2 => Settled::Will(read_version(&mut r)?),
        other => return Err(WireError::Invalid { what: "an origin", value: u64::from(other) }),
    };
    let receivers = read_list(&mut r, |r| {
        let incarnation = r.varint()?;
        let tag = u32::from_be_bytes([r.u8()?, r.u8()?, r.u8()?, r.u8()?]);
        let flags = r.u8()?;
        let subscription_identifiers = if flags & RECEIVER_IDENTIFIERS == 0 {
            Vec::new()
        } else {
            read_list(r, |r| read_u32(r, "a subscription identifier"))?
        };
        let (qos, retain) = (QoS::try_from(flags & RECEIVER_QOS)?, flags & RECEIVER_RETAIN != 0);
        Ok(Receiver { incarnation, tag, qos, retain, subscription_identifiers })
    })?;
    let cost = r.varint()?;
    let expires_at = match r.varint()? {
        0 => None,
        at => Some(WallMs(at)),
    };
    Ok(InsertCommand { tenant, origin, receivers, cost, expires_at, body: r.rest() })
}

/// `mark` numbers the commits of a connection in the order of the calls.
pub(crate) fn commit(version: SessionVersion, mark: u64, commit: &Commit) -> Bytes {
    let capacity = 40 + 5 * (commit.done.len() + commit.received.len()) + 3 * commit.released_inbound.len();
    let mut out = begin(COMMIT, capacity);
    put_version(&mut out, version);
    put_varint(&mut out, mark);
    put_numbers(&mut out, commit.done.iter().copied());
    put_numbers(&mut out, commit.received.iter().copied());
    put_varint(&mut out, commit.sent_upto.unwrap_or(0));
    put_numbers(&mut out, commit.released_inbound.iter().map(|id| u64::from(id.get())));
    out.freeze()
}

fn read_commit(r: &mut Reader) -> Result<Commit, WireError> {
    Ok(Commit {
        done: read_list(r, Reader::varint)?,
        received: read_list(r, Reader::varint)?,
        sent_upto: Some(r.varint()?).filter(|&upto| upto > 0),
        released_inbound: read_list(r, read_packet_id)?,
    })
}

pub(crate) fn detach_runs(current: NodeIncarnation, from: u64, max: u64) -> Bytes {
    let mut out = begin(DETACH_RUNS, 40);
    put_run(&mut out, current);
    put_varint(&mut out, from);
    put_varint(&mut out, max);
    out.freeze()
}

pub(crate) fn expire(incarnations: &[u64]) -> Bytes {
    let mut out = begin(EXPIRE, 10 + 5 * incarnations.len());
    put_numbers(&mut out, incarnations.iter().copied());
    out.freeze()
}

pub(crate) fn discard(version: SessionVersion, seqs: &[u64]) -> Bytes {
    let mut out = begin(DISCARD, 24 + 5 * seqs.len());
    put_version(&mut out, version);
    put_numbers(&mut out, seqs.iter().copied());
    out.freeze()
}

pub(crate) fn abandon(inbox: &InboxId, run: NodeIncarnation, token: u64) -> Bytes {
    let mut out = begin(ABANDON, 64);
    put_inbox(&mut out, inbox);
    put_run(&mut out, run);
    put_varint(&mut out, token);
    out.freeze()
}

pub(crate) fn settle_ended(incarnations: &[u64]) -> Bytes {
    let mut out = begin(SETTLE_ENDED, 10 + 5 * incarnations.len());
    put_numbers(&mut out, incarnations.iter().copied());
    out.freeze()
}

pub(crate) fn adopt(lineage: u64, incarnation: u64, part: &Part) -> Bytes {
    let mut out = begin(ADOPT, 256);
    out.put_u64(lineage);
    put_varint(&mut out, incarnation);
    part.encode_to(&mut out);
    out.freeze()
}

pub(crate) fn sweep(incarnation: u64, max: u64) -> Bytes {
    let mut out = begin(SWEEP, 20);
    put_varint(&mut out, incarnation);
    put_varint(&mut out, max);
    out.freeze()
}

impl Command {
    pub(crate) fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            FORMAT => {}
            other => return Err(WireError::UnknownFormat(other)),
        }
        let command = match r.u8()? {
            // The message is the rest.
            INSERT => return read_insert(r).map(Self::Insert),
            kind @ (ATTACH | ATTACH_COUNTED) => {
                let token = r.varint()?;
                Self::Attach { attach: Box::new(read_attach(&mut r)?), token, timed: kind == ATTACH }
            }
            DETACH => Self::Detach {
                version: read_version(&mut r)?,
                will: if r.u8()? == 0 { WillFate::Discard } else { WillFate::Publish },
                expiry_secs: match r.varint()? {
                    0 => None,
                    n => Some((n - 1).min(u64::from(u32::MAX)) as u32),
                },
            },
            SUBSCRIBE => Self::Subscribe {
                version: read_version(&mut r)?,
                subscriptions: read_list(&mut r, |r| {
                    Ok((SubscriptionFilter::decode(r)?, SubscriptionOptions::decode(r)?))
                })?,
            },
            UNSUBSCRIBE => Self::Unsubscribe {
                version: read_version(&mut r)?,
                filters: read_list(&mut r, SubscriptionFilter::decode)?,
            },
            COMMIT => Self::Commit { version: read_version(&mut r)?, mark: r.varint()?, commit: read_commit(&mut r)? },
            DETACH_RUNS => Self::DetachRuns { current: read_run(&mut r)?, from: r.varint()?, max: r.varint()? },
            EXPIRE => Self::Expire { incarnations: read_list(&mut r, Reader::varint)? },
            DISCARD => Self::Discard { version: read_version(&mut r)?, seqs: read_list(&mut r, Reader::varint)? },
            kind @ (ABANDON | ABANDON_KEPT) => {
                let (inbox, run, token) = (read_inbox(&mut r)?, read_run(&mut r)?, r.varint()?);
                Self::Abandon { inbox, run, token, ends: kind == ABANDON }
            }
            ADOPT => Self::Adopt { lineage: r.u64()?, incarnation: r.varint()?, part: Part::decode(&mut r)? },
            SETTLE_ENDED => Self::SettleEnded { incarnations: read_list(&mut r, Reader::varint)? },
            SWEEP => Self::Sweep { incarnation: r.varint()?, max: r.varint()? },
            other => return Err(WireError::Invalid { what: "a command", value: u64::from(other) }),
        };
        r.finish()?;
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base_types::{ClientId, Message, TopicName};
    use inbox_api::InboxReceiver;
    use proptest::prelude::*;
    use std::sync::Arc;

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(kind in 0u8..20, bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut command = vec![FORMAT, kind];
            command.extend(bytes);
            let _ = Command::decode(command.into());
        }

        #[test]
        fn commits_survive_the_wire(
            version in any::<(u64, u64)>(),
            done in prop::collection::vec(any::<u64>(), 0..5),
            received in prop::collection::vec(any::<u64>(), 0..5),
            sent_upto in prop::option::of(1u64..),
            released in prop::collection::vec(1u16.., 0..5),
        ) {
            let version = SessionVersion { incarnation: version.0, attach: version.1 };
            let released_inbound = released.into_iter().filter_map(PacketId::new).collect();
            let sent = Commit { done, received, sent_upto, released_inbound };
            let Ok(Command::Commit { version: v, mark: 7, commit: read }) = Command::decode(commit(version, 7, &sent)) else {
                panic!("no commit")
            };
            prop_assert_eq!((v, read), (version, sent));
        }
    }

    /// What stands in logs is applied again as it was: later entries name the lives that it made.
    #[test]
    fn numbers_of_before_keep_their_meaning() {
        let old = |bytes: Bytes, kind: u8| Command::decode([&[FORMAT, kind], &bytes[2..]].concat().into());
        let attach = attach(&crate::testing::attach("c", 5), 7);
        assert!(matches!(old(attach.clone(), ATTACH_COUNTED), Ok(Command::Attach { token: 7, timed: false, .. })));
        assert!(matches!(Command::decode(attach), Ok(Command::Attach { timed: true, .. })));
        let abandon = abandon(&crate::testing::inbox("c"), crate::testing::RUN, 7);
        assert!(matches!(old(abandon.clone(), ABANDON_KEPT), Ok(Command::Abandon { token: 7, ends: false, .. })));
        assert!(matches!(Command::decode(abandon), Ok(Command::Abandon { ends: true, .. })));
    }

    #[test]
    fn the_message_of_an_insert_is_a_slice_of_the_command() {
        let message = Message {
            topic: TopicName::new("a/b").unwrap(),
            payload: Bytes::from_static(b"payload"),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Bytes::new(),
            expires_at: Some(WallMs(7)),
            publisher: None,
        };
        let bytes = insert(&Insert {
            tenant: TenantId::default(),
            message: Arc::new(message.clone()),
            receivers: vec![InboxReceiver {
                client: ClientId::new("c").unwrap(),
                incarnation: 300,
                qos: QoS::ExactlyOnce,
                retain: true,
                subscription_identifiers: vec![1, 70_000],
            }],
            origin: Origin::None,
        });
        let Ok(Command::Insert(read)) = Command::decode(bytes.clone()) else { panic!("no insert") };
        assert!(bytes.as_ptr_range().contains(&read.body.as_ptr()));
        assert_eq!(Message::decode(read.body), Ok(message));
        assert_eq!((read.cost, read.expires_at), (10, Some(WallMs(7))));
        let want = Receiver {
            incarnation: 300,
            tag: client_tag("c"),
            qos: QoS::ExactlyOnce,
            retain: true,
            subscription_identifiers: vec![1, 70_000],
        };
        assert_eq!(read.receivers, [want]);
    }
}
