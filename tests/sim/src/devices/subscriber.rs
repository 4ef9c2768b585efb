use super::{Device, attach, inbox};
use crate::chance::Chance;
use crate::history::{Attached, Committed, Delivery, MessageId, Subscription};
use crate::node::Node;
use crate::plant::Plant;
use crate::world::{Phase, World};
use base_types::{QoS, RetainHandling, SubscriptionFilter, SubscriptionOptions, TenantId};
use dist_api::{DistService, Receiver, Route};
use inbox_api::{Commit, Detach, Entry, InboxError, InboxId, InboxService, SessionVersion, WillFate, packet_id_of};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// A client with a persistent session that subscribes, unsubscribes, and acknowledges what it gets; it changes nodes often.
pub(crate) struct Subscriber {
    world: Rc<World>,
    name: String,
    inbox: InboxId,
    qos: QoS,
    /// What it always wants, and what it wants now and then.
    topics: Vec<String>,
    now_and_then: Option<String>,
    chance: RefCell<Chance>,
    connection: Cell<u64>,
    /// Packet ids of QoS 2 that it has and that were not released.
    held: RefCell<BTreeSet<u16>>,
    subscribed: RefCell<BTreeSet<String>>,
    /// The life of the inbox in which it subscribed.
    life: Cell<u64>,
}

/// Entries that are fetched at once.
const WINDOW: usize = 8;

impl Subscriber {
    pub(crate) fn new(
        world: &Rc<World>,
        name: &str,
        qos: QoS,
        topics: Vec<String>,
        now_and_then: Option<String>,
    ) -> Option<Rc<Self>> {
        Some(Rc::new(Self {
            world: Rc::clone(world),
            name: name.to_owned(),
            inbox: inbox(name)?,
            qos,
            topics,
            now_and_then,
            chance: RefCell::new(Chance::new(world.seed, &format!("{name} itself"))),
            connection: Cell::new(0),
            held: RefCell::default(),
            subscribed: RefCell::default(),
            life: Cell::new(0),
        }))
    }

    fn route(&self, topic: &str, version: SessionVersion) -> Option<Route> {
        Some(Route {
            tenant: TenantId::default(),
            filter: SubscriptionFilter::parse(&topic.into()).ok()?,
            receiver: Receiver::Inbox {
                client: self.inbox.client.clone(),
                incarnation: version.incarnation,
                attach: version.attach,
                options: self.options(),
            },
        })
    }

    fn options(&self) -> SubscriptionOptions {
        SubscriptionOptions {
            qos: self.qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::default(),
            identifier: None,
        }
    }

    /// SUBSCRIBE and SUBACK: kept by the inbox, and a route to it.
    async fn subscribe(&self, node: &Node, version: SessionVersion, topic: &str) -> Option<()> {
        let route = self.route(topic, version)?;
        let filters = vec![(route.filter.clone(), self.options())];
        let tried = (self.name.clone(), topic.to_owned());
        self.world.history.borrow_mut().tried.insert(tried, self.world.now());
        node.inbox.subscribe(&self.inbox, version, filters).await.ok()?;
        node.dist.add(vec![route]).await.ok()?;
        self.subscribed.borrow_mut().insert(topic.to_owned());
        let acked_at = self.world.now();
        self.world.trace(format_args!("{} subscribed to {topic}", self.name));
        let mut history = self.world.history.borrow_mut();
        let subscriptions = history.subscriptions.entry(self.name.clone()).or_default();
        subscriptions.push(Subscription { topic: topic.into(), acked_at, ended_at: None, end_acked_at: None });
        Some(())
    }

    /// UNSUBSCRIBE and UNSUBACK.
    async fn unsubscribe(&self, node: &Node, version: SessionVersion, topic: &str) -> Option<()> {
        let route = self.route(topic, version)?;
        let now = self.world.now();
        let open =
            |subscription: &&mut Subscription| subscription.topic == topic && subscription.end_acked_at.is_none();
        if let Some(subscriptions) = self.world.history.borrow_mut().subscriptions.get_mut(&self.name) {
            subscriptions.iter_mut().filter(open).for_each(|subscription| _ = subscription.ended_at.get_or_insert(now));
        }
        self.subscribed.borrow_mut().remove(topic);
        node.inbox.unsubscribe(&self.inbox, version, vec![route.filter.clone()]).await.ok()?;
        node.dist.remove(vec![route]).await.ok()?;
        let now = self.world.now();
        self.world.trace(format_args!("{} unsubscribed from {topic}", self.name));
        if let Some(subscriptions) = self.world.history.borrow_mut().subscriptions.get_mut(&self.name) {
            subscriptions.iter_mut().filter(open).for_each(|subscription| subscription.end_acked_at = Some(now));
        }
        Some(())
    }

    /// A PUBLISH comes in. False: this connection is not the client's any more.
    fn receive(&self, connection: u64, version: SessionVersion, entry: &Entry, dup: bool) -> bool {
        if self.connection.get() != connection {
            return false;
        }
        let text = std::str::from_utf8(&entry.message.payload).unwrap_or_default();
        let numbers = text.split_once(':').and_then(|(p, n)| Some((p.parse().ok()?, n.parse().ok()?)));
        let message: MessageId = numbers.unwrap_or((usize::MAX, 0));
        let packet_id = packet_id_of(entry.seq).get();
        let surfaced = entry.qos != QoS::ExactlyOnce || self.held.borrow_mut().insert(packet_id);
        self.world.trace(format_args!("{} got {text} as {} dup {dup}", self.name, entry.seq));
        self.world.history.borrow_mut().deliveries.push(Delivery {
            subscriber: self.name.clone(),
            connection,
            entry: (version.incarnation, entry.seq),
            message,
            topic: entry.message.topic.as_str().to_owned(),
            qos: entry.qos,
            dup,
            surfaced,
            at: self.world.now(),
        });
        true
    }

    async fn commit(&self, node: &Node, version: SessionVersion, commit: Commit) -> Result<(), InboxError> {
        let started = self.world.now();
        node.inbox.commit(&self.inbox, version, commit).await?;
        let client = self.name.clone();
        self.world.history.borrow_mut().commits.push(Committed { client, version, started });
        Ok(())
    }

    /// Everything of a connection after CONNACK.
    async fn serve(&self, node: &Node, connection: u64, attached: inbox_api::Attached) -> Option<()> {
        let version = attached.version?;
        let signal = node.ears.listen(&self.inbox);
        if !node.inbox.owns(version) {
            return None;
        }
        if self.life.replace(version.incarnation) != version.incarnation {
            self.subscribed.borrow_mut().clear();
        }
        // PUBREL again for what PUBREC came for.
        if !attached.released.is_empty() {
            attached.released.iter().for_each(|seq| _ = self.held.borrow_mut().remove(&packet_id_of(*seq).get()));
            let done = Commit { done: attached.released.clone(), ..Commit::default() };
            self.commit(node, version, done).await.ok()?;
        }
        for topic in &self.topics {
            if !self.subscribed.borrow().contains(topic) {
                self.subscribe(node, version, topic).await?;
            }
        }
        let life = match self.world.phase() {
            Phase::Drain => Duration::from_secs(3600),
            _ => Duration::from_millis(self.chance.borrow_mut().within(300..4_000)),
        };
        let quits = Instant::now() + life;
        let (mut next, mut marked) = (attached.first_seq, attached.sent_upto);
        while Instant::now() < quits && self.world.phase() != Phase::Over && !signal.is_fenced(version) {
            if let Some(topic) = &self.now_and_then
                && self.world.phase() < Phase::Calm
                && self.chance.borrow_mut().one_in(6)
            {
                if self.subscribed.borrow().contains(topic) {
                    self.unsubscribe(node, version, topic).await?;
                } else {
                    self.subscribe(node, version, topic).await?;
                }
            }
            let entries = node.inbox.fetch(&self.inbox, version, next, WINDOW, 1 << 16).ok()?;
            let Some(last) = entries.last() else {
                tokio::select! {
                    () = signal.queued.notified() => {}
                    () = sleep(Duration::from_millis(200)) => {}
                    () = sleep_until(quits) => {}
                }
                continue;
            };
            if last.seq >= marked {
                marked = last.seq + 1 + self.chance.borrow_mut().within(0..16);
                self.commit(node, version, Commit { sent_upto: Some(marked), ..Commit::default() }).await.ok()?;
            }
            let mut acks = Commit::default();
            for entry in &entries {
                let dup = entry.seq < attached.sent_upto && self.world.plant != Some(Plant::DropDup);
                if !self.receive(connection, version, entry, dup) {
                    // Nobody acknowledges. The connection hangs until somebody notices.
                    sleep_until(quits).await;
                    return None;
                }
                next = entry.seq + 1;
                let acked = if entry.qos == QoS::ExactlyOnce { &mut acks.received } else { &mut acks.done };
                acked.push(entry.seq);
            }
            // Now and then the network is slow, or the client.
            if self.chance.borrow_mut().one_in(8) {
                sleep(Duration::from_millis(self.chance.borrow_mut().within(1..150))).await;
            }
            let received = acks.received.clone();
            self.commit(node, version, acks).await.ok()?;
            if !received.is_empty() && self.connection.get() == connection {
                received.iter().for_each(|seq| _ = self.held.borrow_mut().remove(&packet_id_of(*seq).get()));
                self.commit(node, version, Commit { done: received, ..Commit::default() }).await.ok()?;
            }
        }
        // Some say good-bye, others do not.
        if self.chance.borrow_mut().one_in(2) {
            let inbox = self.inbox.clone();
            let detach = Detach { inbox, version, expiry_secs: None, will: WillFate::Discard };
            node.inbox.detach(detach).await.ok()?;
        }
        Some(())
    }
}

impl Device for Subscriber {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn is_busy(&self, _: Phase) -> bool {
        true
    }

    fn connect(&self) -> u64 {
        self.connection.set(self.connection.get() + 1);
        self.connection.get()
    }

    async fn session(self: Rc<Self>, node: Rc<Node>, connection: u64) {
        let started = self.world.now();
        let attached = match node.inbox.attach(attach(&self.inbox, &node, None)).await {
            Ok(attached) => attached,
            Err(error) => {
                self.world.trace(format_args!("{} can't attach at n{}: {error}", self.name, node.index + 1));
                return;
            }
        };
        let ended = self.world.now();
        if let Some(version) = attached.version
            && self.connection.get() == connection
        {
            let (client, present) = (self.name.clone(), attached.session_present);
            self.world.trace(format_args!("{client} attached at n{} as {version:?}", node.index + 1));
            let attached = Attached { client, version, started, ended, present };
            self.world.history.borrow_mut().attaches.push(attached);
        }
        let _ = self.serve(&node, connection, attached).await;
    }
}
