use super::*;
use crate::testing::{identity, node_route, owned, routes, run};
use proptest::prelude::*;

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::new();
    write(&mut out);
    out.into()
}

fn key(route: &Route) -> Bytes {
    written(|out| encode_key(route, out))
}

proptest! {
    #[test]
    fn a_route_survives_its_key_and_value(route in routes()) {
        let value = written(|out| encode_value(&route, out));
        prop_assert_eq!(decode(key(&route), value), Ok(route));
    }

    #[test]
    fn keys_are_equal_when_the_identity_is(a in routes(), b in routes()) {
        prop_assert_eq!(key(&a) == key(&b), identity(&a) == identity(&b));
    }

    /// Whatever the tenants are called, one's keys never lie among another's.
    #[test]
    fn the_keys_of_a_tenant_lie_together(mut all in prop::collection::vec(routes(), 0..40)) {
        all.sort_by_key(key);
        let mut tenants: Vec<_> = all.iter().map(|route| &route.tenant).collect();
        tenants.dedup();
        let blocks = tenants.len();
        tenants.sort();
        tenants.dedup();
        prop_assert_eq!(blocks, tenants.len());
    }

    #[test]
    fn any_bytes_are_read_or_refused(key in prop::collection::vec(0u8..40, 0..64), value in prop::collection::vec(any::<u8>(), 0..16)) {
        let _ = decode(key.into(), value.into());
    }
}

#[test]
fn the_layout_does_not_change_unnoticed() {
    let route = Route {
        tenant: TenantId::new("t").unwrap(),
        filter: SubscriptionFilter::parse(&"$share/g/a/+".into()).unwrap(),
        receiver: Receiver::Inbox {
            client: ClientId::new("c").unwrap(),
            incarnation: 7,
            attach: 9,
            options: SubscriptionOptions::default(),
        },
    };
    assert_eq!(&key(&route)[..], b"\x01\x01t\x01\x01g\x03a/+\x01c");
    assert_eq!(&written(|out| encode_value(&route, out))[..], b"\x02\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x09\x00");

    let node = node_route("t", "a", run(1, 2));
    assert_eq!(&written(|out| encode_value(&node, out))[..], b"\x01");

    // As it was written before ownerships.
    let before = decode(key(&route), Bytes::from_static(b"\x01\0\0\0\0\0\0\0\x07\x00"));
    assert_eq!(before, Ok(owned(route, 0)));
}
