//! An inbox: who owns it, and until when. Layout:
//! `kind(1) len(1) tenant len(2) client` → `format(1) incarnation attach token owner expiry_secs messages bytes when_full(1) flags(1)
//! [node(8) run] [detached_at] [will_delay]`, numbers as varints.
//!
//! Written at attach and detach only; what changes with each message is in the entries and the cursor.

use super::KeyKind;
use base_types::wire::{Reader, WireError, put_prefixed, put_varint};
use base_types::{ClientId, Incarnation, NodeId, NodeIncarnation, TenantId, WallMs};
use bytes::{BufMut, Bytes};
use bytestring::ByteString;
use inbox_api::{FullPolicy, InboxId, QueueLimits, SessionVersion};

const FORMAT: u8 = 1;
const ATTACHED: u8 = 0b01;
const WILL: u8 = 0b10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InboxRecord {
    pub(crate) version: SessionVersion,
    /// Which call of its node attached it, so that one whose reply was lost can be undone.
    pub(crate) token: u64,
    pub(crate) owner: ByteString,
    pub(crate) expiry_secs: u32,
    pub(crate) limits: QueueLimits,
    pub(crate) holder: Holder,
    /// The delay of the will of the current attach, in seconds. The will itself is a key of its own and may be gone already.
    pub(crate) will_delay: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Attached(NodeIncarnation),
    DetachedAt(WallMs),
}

impl InboxRecord {
    /// When the session ends, unless somebody attaches before.
    pub(crate) fn expires_at(&self) -> Option<WallMs> {
        match self.holder {
            Holder::DetachedAt(at) if self.expiry_secs != u32::MAX => Some(at.plus_secs(u64::from(self.expiry_secs))),
            _ => None,
        }
    }

    pub(crate) fn is_attached(&self) -> bool {
        matches!(self.holder, Holder::Attached(_))
    }
}

pub(crate) fn encode_policy(policy: FullPolicy) -> u8 {
    match policy {
        FullPolicy::DropOldest => 0,
        FullPolicy::DropNewest => 1,
        FullPolicy::Reject => 2,
    }
}

pub(crate) fn decode_policy(value: u8) -> Result<FullPolicy, WireError> {
    match value {
        0 => Ok(FullPolicy::DropOldest),
        1 => Ok(FullPolicy::DropNewest),
        2 => Ok(FullPolicy::Reject),
        other => Err(WireError::Invalid { what: "what gives way in a full queue", value: u64::from(other) }),
    }
}

pub(crate) fn read_u32(r: &mut Reader, what: &'static str) -> Result<u32, WireError> {
    let value = r.varint()?;
    u32::try_from(value).map_err(|_| WireError::Invalid { what, value })
}

pub(crate) fn key(id: &InboxId) -> Vec<u8> {
    let (tenant, client) = (id.tenant.as_str().as_bytes(), id.client.as_str().as_bytes());
    let mut key = Vec::with_capacity(4 + tenant.len() + client.len());
    key.put_u8(KeyKind::Inbox as u8);
    // Ids check their lengths: at most 255 and 65,535.
    key.put_u8(tenant.len() as u8);
    key.put_slice(tenant);
    key.put_u16(client.len() as u16);
    key.put_slice(client);
    key
}

pub(crate) fn decode_key(key: &[u8]) -> Result<InboxId, WireError> {
    let mut r = Reader::new(Bytes::copy_from_slice(key));
    if r.u8()? != KeyKind::Inbox as u8 {
        return Err(WireError::Invalid { what: "the key of an inbox", value: 0 });
    }
    let tenant = usize::from(r.u8()?);
    let tenant = r.bytes(tenant)?;
    let client = usize::from(r.u8()?) << 8 | usize::from(r.u8()?);
    let client = r.bytes(client)?;
    r.finish()?;
    Ok(InboxId { tenant: tenant_id(tenant)?, client: client_id(client)? })
}

pub(crate) fn tenant_id(bytes: Bytes) -> Result<TenantId, WireError> {
    let text = ByteString::try_from(bytes).map_err(|_| WireError::Text("tenant id"))?;
    TenantId::new(text).map_err(|_| WireError::Text("tenant id"))
}

pub(crate) fn client_id(bytes: Bytes) -> Result<ClientId, WireError> {
    let text = ByteString::try_from(bytes).map_err(|_| WireError::Text("client id"))?;
    ClientId::new(text).map_err(|_| WireError::Text("client id"))
}

pub(crate) fn encode(record: &InboxRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.put_u8(FORMAT);
    put_varint(&mut out, record.version.incarnation);
    put_varint(&mut out, record.version.attach);
    put_varint(&mut out, record.token);
    put_prefixed(&mut out, record.owner.as_bytes());
    put_varint(&mut out, u64::from(record.expiry_secs));
    put_varint(&mut out, record.limits.messages);
    put_varint(&mut out, record.limits.bytes);
    out.put_u8(encode_policy(record.limits.when_full));
    let attached = if record.is_attached() { ATTACHED } else { 0 };
    out.put_u8(attached | if record.will_delay.is_some() { WILL } else { 0 });
    match record.holder {
        Holder::Attached(run) => {
            out.put_u64(run.node.0);
            put_varint(&mut out, run.incarnation.0);
        }
        Holder::DetachedAt(at) => put_varint(&mut out, at.0),
    }
    if let Some(delay) = record.will_delay {
        put_varint(&mut out, u64::from(delay));
    }
    out
}

pub(crate) fn decode(value: Bytes) -> Result<InboxRecord, WireError> {
    let mut r = Reader::new(value);
    match r.u8()? {
        FORMAT => {}
        other => return Err(WireError::UnknownFormat(other)),
    }
    let version = SessionVersion { incarnation: r.varint()?, attach: r.varint()? };
    let token = r.varint()?;
    let owner = r.text("owner")?;
    let expiry_secs = read_u32(&mut r, "a session expiry")?;
    let limits = QueueLimits { messages: r.varint()?, bytes: r.varint()?, when_full: r.u8().and_then(decode_policy)? };
    let flags = r.u8()?;
    let holder = if flags & ATTACHED == 0 {
        Holder::DetachedAt(WallMs(r.varint()?))
    } else {
        Holder::Attached(NodeIncarnation { node: NodeId(r.u64()?), incarnation: Incarnation(r.varint()?) })
    };
    let will_delay = if flags & WILL == 0 { None } else { Some(read_u32(&mut r, "a will delay")?) };
    r.finish()?;
    Ok(InboxRecord { version, token, owner, expiry_secs, limits, holder, will_delay })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id() -> impl Strategy<Value = InboxId> {
        ("[a-c/]{1,4}", "[a-c/\u{1}]{1,5}")
            .prop_map(|(t, c)| InboxId { tenant: TenantId::new(t).unwrap(), client: ClientId::new(c).unwrap() })
    }

    prop_compose! {
        fn record()(
            (incarnation, attach, messages, bytes, policy) in any::<(u64, u64, u64, u64, u8)>(),
            owner in "[a-z]{0,9}",
            (attached, node, run, at) in any::<(bool, u64, u64, u64)>(),
            expiry_secs in any::<u32>(),
            will_delay in any::<Option<u32>>(),
        ) -> InboxRecord {
            InboxRecord {
                version: SessionVersion { incarnation, attach },
                token: run ^ node,
                owner: owner.into(),
                expiry_secs,
                limits: QueueLimits { messages, bytes, when_full: decode_policy(policy % 3).unwrap() },
                holder: if attached {
                    Holder::Attached(NodeIncarnation { node: NodeId(node), incarnation: Incarnation(run) })
                } else {
                    Holder::DetachedAt(WallMs(at))
                },
                will_delay,
            }
        }
    }

    proptest! {
        #[test]
        fn no_two_inboxes_have_keys_that_are_equal_or_begin_one_another(a in id(), b in id()) {
            let (x, y) = (key(&a), key(&b));
            prop_assert_eq!(decode_key(&x), Ok(a.clone()));
            prop_assert_eq!(x.starts_with(&y), a == b);
        }

        #[test]
        fn clients_of_a_tenant_stand_together(a in id(), b in id()) {
            let tenant = |id: &InboxId| id.tenant.as_str().len() + 2;
            let (x, y) = (key(&a), key(&b));
            prop_assert_eq!(x.get(..tenant(&a)) == y.get(..tenant(&a)), a.tenant == b.tenant);
        }

        #[test]
        fn records_round_trip(record in record()) {
            prop_assert_eq!(decode(encode(&record).into()), Ok(record));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode_key(&bytes);
            let _ = decode(bytes.into());
        }
    }
}
