//! Clients. Each has a supervisor outside of the cluster, which connects it to one node after the other; what happens on a connection runs on
//! the node, as in the broker, and dies with it. What the client itself knows survives.

mod keeper;
mod mortal;
mod publisher;
mod subscriber;

pub(crate) use keeper::Keeper;
pub(crate) use mortal::{FIRST as FIRST_WITH_WILL, Mortal, WILLS};
pub(crate) use publisher::Publisher;
pub(crate) use subscriber::Subscriber;

use crate::chance::Chance;
use crate::world::{Phase, World};
use base_types::{ClientId, Message, QoS, TenantId, TopicName};
use bytes::Bytes;
use inbox_api::{Attach, FullPolicy, InboxId, PendingWill, QueueLimits};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// A client, as its supervisor sees it.
pub(crate) trait Device: 'static {
    /// Its name, which is its client id.
    fn name(&self) -> String;
    /// Whether it still has something to do in this phase.
    fn is_busy(&self, phase: Phase) -> bool;
    /// A connection that begins: from now on older ones are nothing to it. Answers its number.
    fn connect(&self) -> u64;
    /// A connection to a node. Returns when it ends.
    fn session(self: Rc<Self>, node: Rc<crate::node::Node>, connection: u64) -> impl Future<Output = ()>;
}

/// Keeps a client connected: to a node, and after that connection to another one.
pub(crate) async fn supervise<D: Device>(world: Rc<World>, device: Rc<D>, patience: Duration) {
    let mut chance = Chance::new(world.seed, &device.name());
    while world.phase() != Phase::Over {
        sleep(Duration::from_millis(chance.within(5..200))).await;
        if world.phase() == Phase::Forming || !device.is_busy(world.phase()) {
            continue;
        }
        let Some(at) = chance.pick(&world.up()) else { continue };
        let connection = device.connect();
        let mine = Rc::clone(&device);
        let session = world.on(at, move |node| mine.session(node, connection));
        // A client that hears nothing for a while tries another node; the old one may not know that for long.
        let ended = timeout(patience, session).await;
        if ended.is_err() {
            world.trace(format_args!("{} gives up connection {connection} to n{}", device.name(), at + 1));
        }
    }
}

pub(crate) fn inbox(client: &str) -> Option<InboxId> {
    Some(InboxId { tenant: TenantId::default(), client: ClientId::new(client).ok()? })
}

pub(crate) fn topic(name: &str) -> Option<TopicName> {
    TopicName::new(name).ok()
}

pub(crate) fn message(to: &str, payload: String, qos: QoS, retain: bool) -> Option<Message> {
    let payload = Bytes::from(payload);
    Some(Message {
        topic: topic(to)?,
        payload,
        qos,
        retain,
        properties: Bytes::new(),
        expires_at: None,
        publisher: None,
    })
}

/// A session that never expires, with room for everything.
pub(crate) fn attach(inbox: &InboxId, node: &crate::node::Node, will: Option<PendingWill>) -> Attach {
    Attach {
        inbox: inbox.clone(),
        clean_start: false,
        expiry_secs: u32::MAX,
        owner: "".into(),
        node: node.run,
        will,
        limits: QueueLimits { messages: 100_000, bytes: 1 << 30, when_full: FullPolicy::Reject },
    }
}
