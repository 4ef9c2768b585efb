//! An inbox that ended with subscriptions, until somebody says that no route leads to it any more. Layout: `kind(1) incarnation(8)` →
//! `format(1) subscriptions(varint) tenant client`. The subscriptions themselves stay where they were until then.

use super::inbox::{client_id, tenant_id};
use super::{KeyKind, below};
use base_types::wire::{Reader, WireError, put_prefixed, put_varint};
use bytes::{BufMut, Bytes};
use inbox_api::InboxId;

const FORMAT: u8 = 1;

pub(crate) fn key(incarnation: u64) -> [u8; 9] {
    below(KeyKind::Ended, incarnation)
}

pub(crate) fn encode(id: &InboxId, subscriptions: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.put_u8(FORMAT);
    put_varint(&mut out, subscriptions);
    put_prefixed(&mut out, id.tenant.as_str().as_bytes());
    put_prefixed(&mut out, id.client.as_str().as_bytes());
    out
}

/// Whose it was, and how many subscriptions it had.
pub(crate) fn decode(value: Bytes) -> Result<(InboxId, u64), WireError> {
    let mut r = Reader::new(value);
    match r.u8()? {
        FORMAT => {}
        other => return Err(WireError::UnknownFormat(other)),
    }
    let subscriptions = r.varint()?;
    let id = InboxId { tenant: tenant_id(r.prefixed()?)?, client: client_id(r.prefixed()?)? };
    r.finish()?;
    Ok((id, subscriptions))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_ended_round_trips(tenant in "[a-z]{1,9}", client in ".{1,20}", subscriptions in any::<u64>()) {
            prop_assume!(!client.contains('\0'));
            let id = InboxId { tenant: tenant_id(tenant.into()).unwrap(), client: client_id(client.into()).unwrap() };
            prop_assert_eq!(decode(encode(&id, subscriptions).into()), Ok((id, subscriptions)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(bytes.into());
        }
    }
}
