use base_types::wire::{Reader, WireError};
use base_types::{ClientId, Incarnation, NodeId, NodeIncarnation, SubscriptionFilter, SubscriptionOptions, TenantId};
use bytes::{BufMut, Bytes};
use bytestring::ByteString;
use dist_api::{Receiver, Route};
use std::ops::Range;

/// The first byte of every key. Persisted: a number is never given another meaning.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum KeyKind {
    Route = 1,
}

impl KeyKind {
    /// All keys of this kind.
    pub(crate) fn keys(self) -> Range<[u8; 1]> {
        [self as u8]..[self as u8 + 1]
    }
}

const NODE: u8 = 0;
const INBOX: u8 = 1;
/// A route to a node: nothing more. One to an inbox from before ownerships stood in it: `incarnation(8) options`.
const PLAIN: u8 = 1;
/// A route to an inbox: `incarnation(8) attach(8) options`.
const OWNED: u8 = 2;

/// Appends the key of a route, by which it is unique.
///
/// Layout: `kind(1) tenant_len(1) tenant filter receiver`, filter as [`SubscriptionFilter::encode_to`] writes it, receiver
/// `0 node(8) incarnation(8)` or `1 client…`. Big-endian. The keys of a tenant, and of a filter in it, lie together.
pub(crate) fn encode_key(route: &Route, out: &mut impl BufMut) {
    let tenant = route.tenant.as_str().as_bytes();
    out.put_u8(KeyKind::Route as u8);
    out.put_u8(tenant.len() as u8); // TenantId::LENGTH_MAX is 255
    out.put_slice(tenant);
    route.filter.encode_to(out);
    match &route.receiver {
        Receiver::Node(run) => {
            out.put_u8(NODE);
            out.put_u64(run.node.0);
            out.put_u64(run.incarnation.0);
        }
        Receiver::Inbox { client, .. } => {
            out.put_u8(INBOX);
            out.put_slice(client.as_str().as_bytes());
        }
    }
}

/// Appends the value of a route: `format(1)`, and what that format says.
pub(crate) fn encode_value(route: &Route, out: &mut impl BufMut) {
    match &route.receiver {
        Receiver::Node(_) => out.put_u8(PLAIN),
        Receiver::Inbox { incarnation, attach, options, .. } => {
            out.put_u8(OWNED);
            out.put_u64(*incarnation);
            out.put_u64(*attach);
            options.encode_to(out);
        }
    }
}

/// Whether a value says under which ownership it was written.
pub(crate) fn is_owned(value: &[u8]) -> bool {
    value.first() == Some(&OWNED)
}

/// Reads a route back; its texts are slices of `key`. One that does not say whose it is counts as set before any attach.
pub(crate) fn decode(key: Bytes, value: Bytes) -> Result<Route, WireError> {
    let (mut key, mut value) = (Reader::new(key), Reader::new(value));
    match key.u8()? {
        kind if kind == KeyKind::Route as u8 => {}
        kind => return Err(WireError::Invalid { what: "the kind of a key", value: u64::from(kind) }),
    }
    let owned = match value.u8()? {
        PLAIN => false,
        OWNED => true,
        other => return Err(WireError::UnknownFormat(other)),
    };
    let tenant_len = usize::from(key.u8()?);
    let tenant = text(key.bytes(tenant_len)?, "tenant", TenantId::new)?;
    let filter = SubscriptionFilter::decode(&mut key)?;
    let receiver = match key.u8()? {
        NODE => {
            let run = NodeIncarnation { node: NodeId(key.u64()?), incarnation: Incarnation(key.u64()?) };
            key.finish()?;
            Receiver::Node(run)
        }
        INBOX => Receiver::Inbox {
            client: text(key.rest(), "client id", ClientId::new)?,
            incarnation: value.u64()?,
            attach: if owned { value.u64()? } else { 0 },
            options: SubscriptionOptions::decode(&mut value)?,
        },
        other => return Err(WireError::Invalid { what: "the kind of a receiver", value: u64::from(other) }),
    };
    value.finish()?;
    Ok(Route { tenant, filter, receiver })
}

fn text<T, E>(bytes: Bytes, what: &'static str, new: impl FnOnce(ByteString) -> Result<T, E>) -> Result<T, WireError> {
    ByteString::try_from(bytes).ok().and_then(|text| new(text).ok()).ok_or(WireError::Text(what))
}

#[cfg(test)]
#[path = "route_test.rs"]
mod route_test;
