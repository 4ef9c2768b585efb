//! A subscription of an inbox. Layout: `kind(1) incarnation(8) filter` → options, both as `base_types::wire` writes them.

use super::{KeyKind, below};
use base_types::wire::{Reader, WireError};
use base_types::{SubscriptionFilter, SubscriptionOptions};
use bytes::Bytes;

pub(crate) fn key(incarnation: u64, filter: &SubscriptionFilter) -> Vec<u8> {
    let mut key = below(KeyKind::Subscription, incarnation).to_vec();
    filter.encode_to(&mut key);
    key
}

pub(crate) fn decode_key(key: &[u8]) -> Result<SubscriptionFilter, WireError> {
    let mut r = Reader::new(Bytes::copy_from_slice(key.get(9..).ok_or(WireError::Truncated)?));
    let filter = SubscriptionFilter::decode(&mut r)?;
    r.finish()?;
    Ok(filter)
}

pub(crate) fn encode(options: &SubscriptionOptions) -> Vec<u8> {
    let mut out = Vec::with_capacity(6);
    options.encode_to(&mut out);
    out
}

pub(crate) fn decode(value: &[u8]) -> Result<SubscriptionOptions, WireError> {
    SubscriptionOptions::decode(&mut Reader::new(Bytes::copy_from_slice(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytestring::ByteString;
    use proptest::prelude::*;

    fn filter() -> impl Strategy<Value = SubscriptionFilter> {
        "(\\$(o)?share/[a-z]{1,3}/)?([a-z]{0,3}/|\\+/){0,4}([a-z]{1,3}|#|\\+)"
            .prop_map(|text| SubscriptionFilter::parse(&ByteString::from(text)).unwrap())
    }

    proptest! {
        #[test]
        fn keys_round_trip_and_none_begins_another(a in (any::<u64>(), filter()), b in (any::<u64>(), filter())) {
            let (x, y) = (key(a.0, &a.1), key(b.0, &b.1));
            prop_assert_eq!(decode_key(&x), Ok(a.1.clone()));
            prop_assert_eq!(x.starts_with(&y), a == b);
        }
    }
}
