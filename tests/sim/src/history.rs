//! What clients did and saw, as they would tell it. The invariants look at nothing else but this and the state of the replicas.

use base_kv_api::balance::{ReplicaView, Role};
use base_kv_api::{RangeId, ReplicaId};
use base_types::QoS;
use inbox_api::SessionVersion;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A message by its publisher and number.
pub type MessageId = (usize, u64);

/// Everything that was seen.
pub struct History {
    /// What publishers sent.
    pub published: BTreeMap<MessageId, Published>,
    /// What subscribers asked for, by subscriber.
    pub subscriptions: BTreeMap<String, Vec<Subscription>>,
    /// When they tried to subscribe last, by subscriber and topic.
    pub tried: BTreeMap<(String, String), Duration>,
    /// What they got, in order.
    pub deliveries: Vec<Delivery>,
    /// Every attach of a session that was answered.
    pub attaches: Vec<Attached>,
    /// Every change that an owner made and was answered.
    pub commits: Vec<Committed>,
    /// Who followed another one as the leader of a range in a term.
    pub followed: BTreeSet<(&'static str, RangeId, u64, ReplicaId)>,
    /// Who led, and in which term; in the order in which it was seen.
    pub led: Vec<(&'static str, RangeId, u64, ReplicaId)>,
    /// Who led although he had followed another one in that term.
    pub led_again: BTreeSet<(&'static str, RangeId, u64, ReplicaId)>,
    /// Somebody's clock was wrong: what is timed may be late by that.
    pub wrong_clocks: bool,
    /// What became of retained messages, by topic.
    pub retained: BTreeMap<String, Vec<Retained>>,
    /// What new subscribers were shown of them.
    pub shown: Vec<Shown>,
    /// Wills that had to fire, by client and attach; and those that must not.
    pub wills: Vec<Will>,
    /// Publishes that were sent after all was well again, and took long: until when, how long, and how they ended.
    pub slow: Vec<(Duration, Duration, String)>,
    /// How long it took after the faults until all was well; `None` when it never was, and why.
    pub healed: Result<Duration, String>,
    /// Per store, what each node holds in the end: checksum and keys, or why it can't be told.
    pub replicas: BTreeMap<&'static str, Vec<Result<(u64, usize), String>>>,
    /// The ranges of each store in the end, over all nodes.
    pub lineages: BTreeMap<&'static str, BTreeSet<RangeId>>,
    /// In the end: subscriber, topic, node, whether the topic leads to the subscriber there.
    pub routes: Vec<(String, String, usize, bool)>,
}

/// A message of a publisher.
#[derive(Clone, Debug)]
pub struct Published {
    /// Where to.
    pub topic: String,
    /// How.
    pub qos: QoS,
    /// When the attempt that was acknowledged was sent; the first until then.
    pub sent_at: Duration,
    /// When the first attempt was sent.
    pub first_sent_at: Duration,
    /// When it was acknowledged.
    pub acked_at: Option<Duration>,
}

/// A subscription of a persistent session.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// To what.
    pub topic: String,
    /// When SUBACK came.
    pub acked_at: Duration,
    /// When UNSUBSCRIBE was sent.
    pub ended_at: Option<Duration>,
    /// When UNSUBACK came.
    pub end_acked_at: Option<Duration>,
}

/// A PUBLISH that a client got.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Who.
    pub subscriber: String,
    /// On which connection.
    pub connection: u64,
    /// The life of its inbox, and the number in the queue.
    pub entry: (u64, u64),
    /// What.
    pub message: MessageId,
    /// Its topic.
    pub topic: String,
    /// How.
    pub qos: QoS,
    /// The DUP flag.
    pub dup: bool,
    /// It was given to the application: QoS 2 hides the repetitions of what the client holds already.
    pub surfaced: bool,
    /// When.
    pub at: Duration,
}

/// An attach that was answered.
#[derive(Clone, Debug)]
pub struct Attached {
    /// Whose.
    pub client: String,
    /// With what.
    pub version: SessionVersion,
    /// Asked for at.
    pub started: Duration,
    /// Answered at.
    pub ended: Duration,
    /// Session present.
    pub present: bool,
}

/// A change of an owner that was answered well.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Whose.
    pub client: String,
    /// By which ownership.
    pub version: SessionVersion,
    /// Asked for at.
    pub started: Duration,
}

/// A retained message of its one writer: the numbers rise.
#[derive(Clone, Debug)]
pub struct Retained {
    /// Its number.
    pub number: u64,
    /// Set, or cleared.
    pub set: bool,
    /// First sent at.
    pub sent_at: Duration,
    /// Acknowledged at.
    pub acked_at: Option<Duration>,
    /// An attempt was given up without an answer, on another connection: it may be carried out later, by a node that did not notice.
    pub abandoned: bool,
}

/// What a new subscriber was shown of a topic.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The topic.
    pub topic: String,
    /// The number that it was shown; `None` for nothing.
    pub number: Option<u64>,
    /// SUBSCRIBE was sent at.
    pub started: Duration,
    /// It was shown at.
    pub ended: Duration,
}

/// A will.
#[derive(Clone, Debug)]
pub struct Will {
    /// Of which client.
    pub client: String,
    /// Its number, in the payload.
    pub number: u64,
    /// When CONNECT was sent.
    pub set_at: Duration,
    /// Under which ownership it was set.
    pub version: SessionVersion,
    /// No DISCONNECT was sent: once the connection has ended it has to fire, for it has no delay.
    pub due: bool,
    /// DISCONNECT was acknowledged: it must not.
    pub discarded: bool,
}

impl Default for History {
    fn default() -> Self {
        Self {
            published: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            tried: BTreeMap::new(),
            deliveries: Vec::new(),
            attaches: Vec::new(),
            commits: Vec::new(),
            followed: BTreeSet::new(),
            led: Vec::new(),
            led_again: BTreeSet::new(),
            wrong_clocks: false,
            retained: BTreeMap::new(),
            shown: Vec::new(),
            wills: Vec::new(),
            slow: Vec::new(),
            healed: Err("the run ended before".into()),
            replicas: BTreeMap::new(),
            lineages: BTreeMap::new(),
            routes: Vec::new(),
        }
    }
}

impl History {
    /// A replica was seen.
    pub(crate) fn saw(&mut self, store: &'static str, view: &ReplicaView) {
        let key = (store, view.range, view.term, view.replica);
        if view.role == Role::Leader {
            if self.followed.contains(&key) {
                self.led_again.insert(key);
            }
            if self.led.last() != Some(&key) {
                self.led.push(key);
            }
        } else if view.leader.is_some_and(|leader| leader != view.replica) {
            self.followed.insert(key);
        }
    }

    pub(crate) fn sent(&mut self, message: MessageId, topic: &str, qos: QoS, now: Duration) {
        let first = || Published { topic: topic.into(), qos, sent_at: now, first_sent_at: now, acked_at: None };
        let published = self.published.entry(message).or_insert_with(first);
        if published.acked_at.is_none() {
            published.sent_at = now;
        }
    }

    pub(crate) fn acked(&mut self, message: MessageId, now: Duration) {
        if let Some(published) = self.published.get_mut(&message) {
            published.acked_at.get_or_insert(now);
        }
    }

    /// Messages that a subscriber must get: acknowledged, and subscribed to from before they were sent (with the bound) until after.
    pub(crate) fn expected(&self, subscriber: &str, bound: Duration) -> BTreeSet<MessageId> {
        let Some(subscriptions) = self.subscriptions.get(subscriber) else { return BTreeSet::new() };
        let wanted = |published: &Published| {
            let Some(acked_at) = published.acked_at else { return false };
            // Of QoS 2 the first attempt may have been the one that counts: later ones are repetitions.
            let once = published.qos == QoS::ExactlyOnce;
            let sent_at = if once { published.first_sent_at } else { published.sent_at };
            subscriptions.iter().any(|subscription| {
                subscription.topic == published.topic
                    && subscription.acked_at + bound <= sent_at
                    && subscription.ended_at.is_none_or(|ended| ended > acked_at)
            })
        };
        self.published.iter().filter(|(_, published)| wanted(published)).map(|(id, _)| *id).collect()
    }

    /// What a subscriber's application got.
    pub(crate) fn got(&self, subscriber: &str) -> BTreeSet<MessageId> {
        self.deliveries.iter().filter(|d| d.subscriber == subscriber).map(|d| d.message).collect()
    }
}
