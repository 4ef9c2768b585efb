use crate::pattern::Pattern;
use base_types::{SubscriptionFilter, TopicName};
use std::sync::Arc;

/// What one client may do, as of a generation. Cheap to clone; answers without I/O, lock or allocation.
///
/// Whoever may subscribe to a filter may still not get everything that matches it: ask [`Permissions::may_receive`] for each topic
/// on every path (live, queued, retained, shared), unless [`Subscribing::Allowed`] says that it is not needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    generation: u64,
    connect: bool,
    rules: Option<Arc<Compiled>>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Compiled {
    pub(crate) publish: Vec<Entry>,
    pub(crate) retain: Vec<Entry>,
    pub(crate) subscribe: Vec<Entry>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) allow: bool,
    pub(crate) pattern: Pattern,
}

/// Whether a client may subscribe to a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribing {
    /// Yes.
    Allowed {
        /// Some topics of the filter are denied: [`Permissions::may_receive`] must be asked for each message.
        check_each: bool,
    },
    /// No: 0x80 before 5.0, 0x87 or 0x80 in 5.0 (see `subAckDeniedCode`).
    Denied,
}

impl Permissions {
    /// Everything, except what no client may: publish to `$…`.
    #[must_use]
    pub fn everything(generation: u64) -> Self {
        Self { generation, connect: true, rules: None }
    }

    /// Nothing, not even to be connected.
    #[must_use]
    pub fn nothing(generation: u64) -> Self {
        Self { generation, connect: false, rules: Some(Arc::default()) }
    }

    pub(crate) fn ruled(generation: u64, connect: bool, rules: Compiled) -> Self {
        Self { generation, connect, rules: Some(Arc::new(rules)) }
    }

    /// Whether the client may be connected: `false` when its user is gone, or a rule that was reloaded says so.
    #[must_use]
    pub fn may_connect(&self) -> bool {
        self.connect
    }

    /// Of which generation they are: outdated when [`crate::Authorizer::generation`] says something else.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether a PUBLISH, or a will, to this topic is allowed; a retained one needs the right to publish and the right to retain.
    #[must_use]
    pub fn may_publish(&self, topic: &TopicName, retain: bool) -> bool {
        // `$SYS` and its like are the server's [5.0 §4.7.2].
        !topic.is_system()
            && self.rules.as_ref().is_none_or(|rules| {
                decide(&rules.publish, topic.as_str()) && (!retain || decide(&rules.retain, topic.as_str()))
            })
    }

    /// Whether a message with this topic may be delivered.
    #[must_use]
    pub fn may_receive(&self, topic: &TopicName) -> bool {
        self.rules.as_ref().is_none_or(|rules| decide(&rules.subscribe, topic.as_str()))
    }

    /// Whether a filter may be subscribed to; of a shared subscription the filter behind the group counts.
    ///
    /// The first rule decides that covers the filter whole. One that denies only a part of it shows at delivery.
    #[must_use]
    pub fn may_subscribe(&self, filter: &SubscriptionFilter) -> Subscribing {
        let Some(rules) = &self.rules else { return Subscribing::Allowed { check_each: false } };
        let filter = filter.topic_filter().as_str();
        let mut check_each = false;
        for entry in &rules.subscribe {
            match (entry.pattern.covers(filter), entry.allow) {
                (true, true) => return Subscribing::Allowed { check_each },
                (true, false) => return Subscribing::Denied,
                (false, allow) => check_each |= !allow && entry.pattern.overlaps(filter),
            }
        }
        Subscribing::Denied
    }
}

fn decide(entries: &[Entry], topic: &str) -> bool {
    entries.iter().find(|entry| entry.pattern.matches(topic)).is_some_and(|entry| entry.allow)
}
