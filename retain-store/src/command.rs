use base_types::wire::{Reader, WireError, put_varint};
use base_types::{Message, TenantId, TopicName};
use bytes::{BufMut, Bytes};
use bytestring::ByteString;

/// What is proposed to the range: `format(1) op(1)`, then by op
/// set: `topics_max tenant_len(1) tenant message…`, clear: `tenant_len(1) tenant topic…`, purge: `max`,
/// adopt: `tenant_len(1) tenant message…`. Numbers are varints.
#[derive(Debug)]
pub(crate) enum Command {
    /// Set the retained message of its topic, unless that were one more topic than the tenant may have.
    Set { topics_max: Option<u64>, tenant: TenantId, message: Message, encoded: Bytes },
    /// Set the retained message of its topic unless there is one: it comes from another lineage.
    Adopt { tenant: TenantId, message: Message, encoded: Bytes },
    /// Remove the retained message of a topic.
    Clear { tenant: TenantId, topic: TopicName },
    /// Remove at most `max` messages that have expired.
    Purge { max: u64 },
}

const FORMAT: u8 = 1;
const SET: u8 = 1;
const CLEAR: u8 = 2;
const PURGE: u8 = 3;
const ADOPT: u8 = 4;

impl Command {
    pub(crate) fn encode_retain(tenant: &TenantId, message: &Message, topics_max: Option<u64>) -> Bytes {
        let clear = message.payload.is_empty();
        let mut out = Vec::with_capacity(message.encoded_len_max() + tenant.as_str().len() + 13);
        out.extend([FORMAT, if clear { CLEAR } else { SET }]);
        if !clear {
            put_varint(&mut out, topics_max.map_or(0, |max| max.saturating_add(1)));
        }
        out.put_u8(tenant.as_str().len() as u8); // TenantId::LENGTH_MAX is 255
        out.put_slice(tenant.as_str().as_bytes());
        if clear {
            out.put_slice(message.topic.as_str().as_bytes());
        } else {
            message.encode_to(&mut out);
        }
        out.into()
    }

    /// `message` as it is stored.
    pub(crate) fn encode_adopt(tenant: &[u8], message: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(3 + tenant.len() + message.len());
        out.extend([FORMAT, ADOPT, tenant.len() as u8]); // TenantId::LENGTH_MAX is 255
        out.extend(tenant);
        out.extend(message);
        out.into()
    }

    pub(crate) fn encode_purge(max: u64) -> Bytes {
        let mut out = vec![FORMAT, PURGE];
        put_varint(&mut out, max);
        out.into()
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes.clone());
        match r.u8()? {
            FORMAT => {}
            other => return Err(WireError::UnknownFormat(other)),
        }
        match r.u8()? {
            SET => {
                let topics_max = r.varint()?.checked_sub(1);
                let tenant = tenant(&mut r)?;
                let encoded = r.rest();
                Ok(Self::Set { topics_max, tenant, message: Message::decode(encoded.clone())?, encoded })
            }
            ADOPT => {
                let tenant = tenant(&mut r)?;
                let encoded = r.rest();
                Ok(Self::Adopt { tenant, message: Message::decode(encoded.clone())?, encoded })
            }
            CLEAR => {
                let tenant = tenant(&mut r)?;
                let topic = ByteString::try_from(r.rest()).ok().and_then(|text| TopicName::new(text).ok());
                Ok(Self::Clear { tenant, topic: topic.ok_or(WireError::Text("topic name"))? })
            }
            PURGE => {
                let max = r.varint()?;
                r.finish()?;
                Ok(Self::Purge { max })
            }
            other => Err(WireError::Invalid { what: "a command", value: u64::from(other) }),
        }
    }
}

fn tenant(r: &mut Reader) -> Result<TenantId, WireError> {
    let len = usize::from(r.u8()?);
    let text = ByteString::try_from(r.bytes(len)?).ok().and_then(|text| TenantId::new(text).ok());
    text.ok_or(WireError::Text("tenant"))
}

/// The answer to a command: a byte, and for a purge how many messages went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Done,
    /// The command makes no sense to the replicas; nothing was changed.
    NotUnderstood,
    /// The tenant has as many topics as it may; nothing was changed.
    TooMany,
    Purged(u64),
}

impl Reply {
    pub(crate) fn encode(self) -> Bytes {
        match self {
            Self::Done => Bytes::from_static(&[0]),
            Self::NotUnderstood => Bytes::from_static(&[1]),
            Self::TooMany => Bytes::from_static(&[2]),
            Self::Purged(count) => {
                let mut out = vec![3];
                put_varint(&mut out, count);
                out.into()
            }
        }
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let reply = match r.u8()? {
            0 => Self::Done,
            1 => Self::NotUnderstood,
            2 => Self::TooMany,
            3 => Self::Purged(r.varint()?),
            other => return Err(WireError::Invalid { what: "a reply", value: u64::from(other) }),
        };
        r.finish()?;
        Ok(reply)
    }
}
