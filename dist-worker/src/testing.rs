use base_types::{
    ClientId, Incarnation, NodeId, NodeIncarnation, QoS, SubscriptionFilter, SubscriptionOptions, TenantId,
};
use bytestring::ByteString;
use dist_api::{Receiver, Route};
use proptest::prelude::*;

pub(crate) const OWN: NodeIncarnation = run(1, 3);

pub(crate) const fn run(node: u64, incarnation: u64) -> NodeIncarnation {
    NodeIncarnation { node: NodeId(node), incarnation: Incarnation(incarnation) }
}

fn route(tenant: &str, filter: &str, receiver: Receiver) -> Route {
    Route {
        tenant: TenantId::new(tenant).unwrap(),
        filter: SubscriptionFilter::parse(&ByteString::from(filter)).unwrap(),
        receiver,
    }
}

pub(crate) fn node_route(tenant: &str, filter: &str, run: NodeIncarnation) -> Route {
    route(tenant, filter, Receiver::Node(run))
}

pub(crate) fn inbox_route(tenant: &str, filter: &str, client: &str, incarnation: u64) -> Route {
    let client = ClientId::new(client).unwrap();
    route(tenant, filter, Receiver::Inbox { client, incarnation, options: SubscriptionOptions::default() })
}

/// Routes from a world so small that they meet each other: few tenants, filters, receivers.
pub(crate) fn routes() -> impl Strategy<Value = Route> {
    let receiver = prop_oneof![
        (1u64..3, 2u64..5).prop_map(|(node, incarnation)| Receiver::Node(run(node, incarnation))),
        ("[ab]{1,2}", 1u64..4, 0u8..3).prop_map(|(client, incarnation, qos)| Receiver::Inbox {
            client: ClientId::new(client).unwrap(),
            incarnation,
            options: SubscriptionOptions { qos: QoS::try_from(qos).unwrap(), ..SubscriptionOptions::default() },
        }),
    ];
    ("[tu]{1,2}", "(\\$(o)?share/[gh]/)?([ab]/|\\+/|/){0,2}([ab]|#|\\+)", receiver)
        .prop_map(|(tenant, filter, receiver)| route(&tenant, &filter, receiver))
}
