use base_types::{TenantId, TopicName, WallMs};
use std::ops::Range;

/// The first byte of every key. Persisted: a number is never given another meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum KeyKind {
    /// `1 tenant_len(1) tenant levels…` → the message.
    ///
    /// Levels are separated by 0x00, which no topic contains and which sorts before whatever else stands in one: so keys are ordered level by
    /// level, and a topic is followed by all that is below it.
    Retained = 1,
    /// `2 expires_at(8) retained-key…` → nothing. One for each retained message that expires. Big-endian.
    Expiry = 2,
}

/// Between levels in a key.
pub(crate) const SEPARATOR: u8 = 0;

/// All keys of a kind.
pub(crate) fn keys(kind: KeyKind) -> Range<[u8; 1]> {
    [kind as u8]..[kind as u8 + 1]
}

/// What the keys of all retained messages of a tenant begin with.
pub(crate) fn tenant_prefix(tenant: &TenantId) -> Vec<u8> {
    let tenant = tenant.as_str().as_bytes();
    let mut key = Vec::with_capacity(2 + tenant.len() + 64);
    key.extend([KeyKind::Retained as u8, tenant.len() as u8]); // TenantId::LENGTH_MAX is 255
    key.extend(tenant);
    key
}

/// The key of a topic, or of the beginning of one.
pub(crate) fn retained_key(tenant: &TenantId, topic: &str) -> Vec<u8> {
    let mut key = tenant_prefix(tenant);
    key.extend(topic.bytes().map(|b| if b == b'/' { SEPARATOR } else { b }));
    key
}

/// How many bytes of a retained key name the tenant.
pub(crate) fn tenant_prefix_len(key: &[u8]) -> usize {
    key.get(1).map_or(0, |&len| 2 + usize::from(len)).min(key.len())
}

/// The topic of a retained key.
pub(crate) fn topic(key: &[u8]) -> Option<TopicName> {
    let levels = key.get(tenant_prefix_len(key)..)?;
    let text = levels.iter().map(|&b| if b == SEPARATOR { b'/' } else { b }).collect();
    TopicName::new(String::from_utf8(text).ok()?).ok()
}

/// The key that says when a retained message expires.
pub(crate) fn expiry_key(at: WallMs, retained_key: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + retained_key.len());
    key.push(KeyKind::Expiry as u8);
    key.extend(at.0.to_be_bytes());
    key.extend(retained_key);
    key
}

/// The retained key in an expiry key.
pub(crate) fn expiring(key: &[u8]) -> &[u8] {
    key.get(9..).unwrap_or_default()
}

/// The keys of all that has expired at `now`.
pub(crate) fn expired(now: WallMs) -> Range<Vec<u8>> {
    vec![KeyKind::Expiry as u8]..expiry_key(WallMs(now.0.saturating_add(1)), &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tenants() -> impl Strategy<Value = TenantId> {
        "[a\u{1}\u{2}]{1,3}".prop_map(|t| TenantId::new(t).unwrap())
    }

    fn topics() -> impl Strategy<Value = String> {
        "[a\\-\u{1}é/0]{1,8}"
    }

    proptest! {
        #[test]
        fn keys_are_ordered_by_level(tenant in tenants(), a in topics(), b in topics()) {
            let levels = |topic: &str| topic.split('/').map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(
                retained_key(&tenant, &a).cmp(&retained_key(&tenant, &b)),
                levels(&a).cmp(&levels(&b))
            );
        }

        #[test]
        fn keys_of_two_tenants_never_overlap(t in tenants(), u in tenants(), a in topics()) {
            let key = retained_key(&t, &a);
            prop_assert_eq!(key.starts_with(&tenant_prefix(&u)), t == u);
            prop_assert_eq!(&key[..tenant_prefix_len(&key)], &tenant_prefix(&t)[..]);
            prop_assert_eq!(topic(&key), TopicName::new(a).ok());
        }

        #[test]
        fn expiry_keys_are_ordered_by_time(t in tenants(), a in topics(), b in topics(), x in 0u64..9, y in 0u64..9) {
            let (a, b) = (retained_key(&t, &a), retained_key(&t, &b));
            let (first, second) = (expiry_key(WallMs(x), &a), expiry_key(WallMs(y), &b));
            prop_assert_eq!(first.cmp(&second), (x, &a).cmp(&(y, &b)));
            prop_assert_eq!(expiring(&first), &a[..]);
            prop_assert_eq!(expired(WallMs(y)).contains(&first), x <= y);
        }
    }

    #[test]
    fn the_layout_does_not_change_unnoticed() {
        let key = retained_key(&TenantId::new("t").unwrap(), "a//b");
        assert_eq!(key, b"\x01\x01ta\0\0b");
        assert_eq!(expiry_key(WallMs(258), &key), b"\x02\0\0\0\0\0\0\x01\x02\x01\x01ta\0\0b");
    }
}
