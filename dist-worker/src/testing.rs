use crate::RouteIndex;
use crate::command::Op;
use crate::schema;
use base_types::wire::put_prefixed;
use base_types::{
    ClientId, Incarnation, NodeId, NodeIncarnation, QoS, SubscriptionFilter, SubscriptionOptions, TenantId, TopicName,
};
use bytes::Bytes;
use bytestring::ByteString;
use dist_api::{InboxMatch, Matches, Receiver, Route};
use proptest::prelude::*;
use std::collections::BTreeMap;

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
    route(tenant, filter, Receiver::Inbox { client, incarnation, attach: 0, options: SubscriptionOptions::default() })
}

/// The route as set under an ownership.
pub(crate) fn owned(mut route: Route, by: u64) -> Route {
    if let Receiver::Inbox { attach, .. } = &mut route.receiver {
        *attach = by;
    }
    route
}

/// A command as it was written before ownerships stood in routes.
pub(crate) fn command_as_before(op: Op, routes: &[Route]) -> Bytes {
    let mut command = vec![1, op as u8];
    for route in routes {
        let (mut key, mut value) = (Vec::new(), vec![1]);
        schema::encode_key(route, &mut key);
        if let Receiver::Inbox { incarnation, options, .. } = &route.receiver {
            value.extend(incarnation.to_be_bytes());
            options.encode_to(&mut value);
        }
        put_prefixed(&mut command, &key);
        put_prefixed(&mut command, &value);
    }
    command.into()
}

/// Routes from a world so small that they meet each other: few tenants, filters, receivers.
pub(crate) fn routes() -> impl Strategy<Value = Route> {
    let receiver = prop_oneof![
        (1u64..3, 2u64..5).prop_map(|(node, incarnation)| Receiver::Node(run(node, incarnation))),
        ("[ab]{1,2}", 1u64..4, 0u64..4, 0u8..3).prop_map(|(client, incarnation, attach, qos)| Receiver::Inbox {
            client: ClientId::new(client).unwrap(),
            incarnation,
            attach,
            options: SubscriptionOptions { qos: QoS::try_from(qos).unwrap(), ..SubscriptionOptions::default() },
        }),
    ];
    ("[tu]{1,2}", "(\\$(o)?share/[gh]/)?([ab]/|\\+/|/){0,2}([ab]|#|\\+)", receiver)
        .prop_map(|(tenant, filter, receiver)| route(&tenant, &filter, receiver))
}

pub(crate) fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

pub(crate) type Identity = (TenantId, SubscriptionFilter, Result<NodeIncarnation, ClientId>);

/// Routes as a plain list.
#[derive(Debug, Default)]
pub(crate) struct Model(BTreeMap<Identity, Route>);

impl Model {
    pub(crate) fn routes(&self) -> impl Iterator<Item = &Route> {
        self.0.values()
    }

    pub(crate) fn change(&mut self, route: &Route, add: bool) {
        let identity = identity(route);
        if add {
            self.0.insert(identity, route.clone());
        } else {
            self.0.remove(&identity);
        }
    }

    /// As `change`, but an older life of an inbox does nothing to a newer one, nor an older ownership of a life.
    pub(crate) fn change_guarded(&mut self, route: &Route, add: bool) {
        if self.0.get(&identity(route)).is_none_or(|stored| ownership(stored) <= ownership(route)) {
            self.change(route, add);
        }
    }

    /// As `change_guarded` was before there were ownerships.
    pub(crate) fn change_as_before(&mut self, route: &Route, add: bool) {
        if self.0.get(&identity(route)).is_none_or(|stored| ownership(stored).0 <= ownership(route).0) {
            self.change(&owned(route.clone(), 0), add);
        }
    }

    /// Compares all that topics of this small world match.
    pub(crate) fn check(&self, index: &RouteIndex) {
        for tenant in ["t", "u", "tu", "uu"].map(|t| TenantId::new(t).unwrap()) {
            for name in ["a", "b", "a/b", "b/a", "/", "/a", "a/", "a/b/a", "a//b", "$a"] {
                let mut found = Matches::default();
                index.matches(&tenant, &topic(name), &mut found);
                assert_eq!(flat_matches(found), self.matches(&tenant, name), "{tenant} {name}");
            }
        }
    }

    fn matches(&self, tenant: &TenantId, name: &str) -> Vec<String> {
        let mut found: Vec<_> = self
            .routes()
            .filter(|route| route.tenant == *tenant && route.filter.topic_filter().matches(&topic(name)))
            .filter_map(|route| match (&route.filter, &route.receiver) {
                (SubscriptionFilter::Normal(_), Receiver::Node(run)) => {
                    (run.node != OWN.node).then(|| format!("{run:?}"))
                }
                (SubscriptionFilter::Shared(shared), Receiver::Node(run)) => {
                    (run.node != OWN.node || *run == OWN).then(|| format!("{shared:?} {run:?}"))
                }
                (SubscriptionFilter::Normal(_), Receiver::Inbox { client, incarnation, options, .. }) => {
                    Some(format!("{client} {incarnation} {options:?}"))
                }
                (SubscriptionFilter::Shared(shared), Receiver::Inbox { client, incarnation, options, .. }) => {
                    Some(format!("{shared:?} {client} {incarnation} {options:?}"))
                }
            })
            .collect();
        found.sort();
        // Each node stands once, however many of its filters match.
        found.dedup_by(|a, b| a == b && a.starts_with("NodeIncarnation"));
        found
    }
}

/// The life of an inbox, and the attach in it.
fn ownership(route: &Route) -> (u64, u64) {
    match route.receiver {
        Receiver::Node(_) => (0, 0),
        Receiver::Inbox { incarnation, attach, .. } => (incarnation, attach),
    }
}

pub(crate) fn identity(route: &Route) -> Identity {
    let receiver = match &route.receiver {
        Receiver::Node(run) => Ok(*run),
        Receiver::Inbox { client, .. } => Err(client.clone()),
    };
    (route.tenant.clone(), route.filter.clone(), receiver)
}

fn flat_matches(found: Matches) -> Vec<String> {
    let inbox = |m: &InboxMatch| format!("{} {} {:?}", m.client, m.incarnation, m.options);
    let nodes = found.nodes.iter().map(|run| format!("{run:?}"));
    let inboxes = found.inboxes.iter().map(inbox);
    let groups = found.groups.iter().flat_map(|group| {
        let share = |member: String| format!("{:?} {member}", group.filter);
        assert!(!group.nodes.is_empty() || !group.inboxes.is_empty(), "an empty group");
        let nodes = group.nodes.iter().map(move |run| share(format!("{run:?}")));
        nodes.chain(group.inboxes.iter().map(move |m| share(inbox(m)))).collect::<Vec<_>>()
    });
    let mut all: Vec<_> = nodes.chain(inboxes).chain(groups).collect();
    all.sort();
    all
}
