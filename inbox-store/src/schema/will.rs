//! A will. Layout: `kind(1) incarnation(8) attach(8)` →
//! `format(1) due(varint, 0: the connection lives) tenant client owner delay_secs [expiry_secs + 1 or 0] message…`; format 1 had no owner.
//!
//! It is a key of its own, so that it outlives the connection that set it, and the inbox. Those that are due, and when, is also
//! kept in memory: a leader finds them again after a restart by reading these keys, without keys ordered by time.

use super::inbox::{client_id, read_u32, tenant_id};
use super::{KeyKind, numbered, read_numbered};
use base_types::wire::{Reader, WireError, put_prefixed, put_varint};
use base_types::{Message, WallMs};
use bytes::{BufMut, Bytes};
use bytestring::ByteString;
use inbox_api::{InboxId, PendingWill, SessionVersion};
use std::sync::Arc;

const FORMAT: u8 = 2;
const WITHOUT_OWNER: u8 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WillRecord {
    pub(crate) id: InboxId,
    /// `None` as long as the connection lives.
    pub(crate) due: Option<WallMs>,
    pub(crate) will: PendingWill,
}

pub(crate) fn key(version: SessionVersion) -> [u8; 17] {
    numbered(KeyKind::Will, version.incarnation, version.attach)
}

pub(crate) fn decode_key(key: &[u8]) -> Option<SessionVersion> {
    read_numbered(KeyKind::Will, key).map(|(incarnation, attach)| SessionVersion { incarnation, attach })
}

pub(crate) fn encode_will(will: &PendingWill, out: &mut impl BufMut) {
    put_varint(out, u64::from(will.delay_secs));
    put_varint(out, will.expiry_secs.map_or(0, |secs| u64::from(secs) + 1));
    let mut message = Vec::with_capacity(will.message.encoded_len_max());
    will.message.encode_to(&mut message);
    put_prefixed(out, &message);
}

pub(crate) fn decode_will(r: &mut Reader) -> Result<PendingWill, WireError> {
    let delay_secs = read_u32(r, "a will delay")?;
    let expiry_secs = match r.varint()? {
        0 => None,
        n => Some(u32::try_from(n - 1).map_err(|_| WireError::Invalid { what: "a message expiry", value: n })?),
    };
    Ok(PendingWill {
        message: Arc::new(Message::decode(r.prefixed()?)?),
        delay_secs,
        expiry_secs,
        owner: ByteString::new(),
    })
}

pub(crate) fn encode(id: &InboxId, owner: &ByteString, due: Option<WallMs>, will: &PendingWill) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + will.message.encoded_len_max());
    out.put_u8(FORMAT);
    put_varint(&mut out, due.map_or(0, |at| at.0.max(1)));
    put_prefixed(&mut out, id.tenant.as_str().as_bytes());
    put_prefixed(&mut out, id.client.as_str().as_bytes());
    put_prefixed(&mut out, owner.as_bytes());
    encode_will(will, &mut out);
    out
}

pub(crate) fn decode(value: Bytes) -> Result<WillRecord, WireError> {
    let mut r = Reader::new(value);
    let format = r.u8()?;
    if !matches!(format, FORMAT | WITHOUT_OWNER) {
        return Err(WireError::UnknownFormat(format));
    }
    let due = match r.varint()? {
        0 => None,
        at => Some(WallMs(at)),
    };
    let id = InboxId { tenant: tenant_id(r.prefixed()?)?, client: client_id(r.prefixed()?)? };
    let owner = if format == FORMAT { r.text("owner")? } else { ByteString::new() };
    let will = PendingWill { owner, ..decode_will(&mut r)? };
    r.finish()?;
    Ok(WillRecord { id, due, will })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base_types::{ClientId, QoS, TenantId, TopicName};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn wills_round_trip(due in prop::option::of(1u64..), delay_secs in any::<u32>(), expiry_secs in any::<Option<u32>>(),
                            owner in ".{0,20}",
                            payload in prop::collection::vec(any::<u8>(), 0..50)) {
            let message = Message {
                topic: TopicName::new("a/b").unwrap(),
                payload: payload.into(),
                qos: QoS::AtLeastOnce,
                retain: true,
                properties: Bytes::new(),
                expires_at: None,
                publisher: None,
            };
            let record = WillRecord {
                id: InboxId { tenant: TenantId::default(), client: ClientId::new("c").unwrap() },
                due: due.map(WallMs),
                will: PendingWill { message: Arc::new(message), delay_secs, expiry_secs, owner: owner.into() },
            };
            prop_assert_eq!(decode(encode(&record.id, &record.will.owner, record.due, &record.will).into()), Ok(record));
        }
    }
}
