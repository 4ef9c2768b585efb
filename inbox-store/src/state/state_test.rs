//! Random commands against a naive model: the laws of inboxes.

use super::State;
use crate::command;
use crate::reply;
use crate::schema::entry::{self, EntryBody};
use crate::schema::{KeyKind, body, incarnation_of, subscription};
use crate::tail::Page;
use crate::testing::{RUN, START, client, inbox, message, to, will};
use crate::{InboxConfig, InboxCoproc};
use base_kv_api::testing::CoprocHarness;
use base_kv_api::{Coproc, KvRead, RangeId, Visit};
use base_types::{Incarnation, Message, NodeIncarnation, PacketId, SubscriptionFilter, WallMs};
use bytes::Bytes;
use bytestring::ByteString;
use inbox_api::{
    Attach, AttachError, Commit, Detach, DropCause, FullPolicy, InboxError, InboxReceiver, Insert, InsertOutcome,
    Origin, QueueLimits, SessionVersion, WillFate,
};
use parking_lot::MutexGuard;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const CLIENTS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Op {
    Attach { client: usize, clean_start: bool, expiry_secs: u32, owner: bool, will: Option<u32>, old_run: bool },
    Detach { client: usize, stale: bool, expiry_secs: Option<u32>, publish: bool },
    Subscribe { client: usize, filter: u8 },
    Unsubscribe { client: usize, filter: u8 },
    Insert { receivers: Vec<(usize, bool)>, len: usize, expires_in: Option<u64>, origin: Source },
    Commit { client: usize, stale: bool, late: bool, done: Vec<u64>, received: Vec<u64>, sent: u64, released: Vec<u16> },
    Abandon { client: usize, own: bool },
    DetachRuns,
    Expire,
    Discard { client: usize },
    Sweep { max: u64 },
    SettleEnded { nth: usize },
    Pass { secs: u64 },
}

#[derive(Clone, Copy, Debug)]
enum Source {
    None,
    Inbound { client: usize, id: u16 },
    Will { nth: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let who = 0..CLIENTS.len();
    let expiry = prop_oneof![Just(0u32), Just(5), Just(5), Just(u32::MAX)];
    let near = || prop::collection::vec(0u64..8, 0..4);
    let source = prop_oneof![
        4 => Just(Source::None),
        1 => (who.clone(), 1u16..4).prop_map(|(client, id)| Source::Inbound { client, id }),
        1 => (0usize..4).prop_map(|nth| Source::Will { nth }),
    ];
    prop_oneof![
        4 => (who.clone(), prop::bool::weighted(0.2), expiry.clone(), prop::bool::weighted(0.95),
              prop::option::of(prop_oneof![Just(0u32), Just(2), Just(9)]), any::<bool>())
            .prop_map(|(client, clean_start, expiry_secs, owner, will, old_run)|
                Op::Attach { client, clean_start, expiry_secs, owner, will, old_run }),
        3 => (who.clone(), prop::bool::weighted(0.2), prop::option::weighted(0.2, expiry), any::<bool>())
            .prop_map(|(client, stale, expiry_secs, publish)| Op::Detach { client, stale, expiry_secs, publish }),
        1 => (who.clone(), 0u8..3).prop_map(|(client, filter)| Op::Subscribe { client, filter }),
        1 => (who.clone(), 0u8..3).prop_map(|(client, filter)| Op::Unsubscribe { client, filter }),
        10 => (prop::collection::vec((who.clone(), prop::bool::weighted(0.1)), 0..4), 0usize..30,
              prop::option::weighted(0.3, 1u64..6), source)
            .prop_map(|(receivers, len, expires_in, origin)| Op::Insert { receivers, len, expires_in, origin }),
        8 => (who.clone(), prop::bool::weighted(0.1), prop::bool::weighted(0.2), near(), near(), 0u64..6, prop::collection::vec(1u16..4, 0..2))
            .prop_map(|(client, stale, late, done, received, sent, released)|
                Op::Commit { client, stale, late, done, received, sent, released }),
        1 => (who.clone(), any::<bool>()).prop_map(|(client, own)| Op::Abandon { client, own }),
        1 => Just(Op::DetachRuns),
        1 => Just(Op::Expire),
        1 => who.prop_map(|client| Op::Discard { client }),
        1 => (1u64..4).prop_map(|max| Op::Sweep { max }),
        1 => (0usize..3).prop_map(|nth| Op::SettleEnded { nth }),
        2 => (1u64..4).prop_map(|secs| Op::Pass { secs }),
    ]
}

/// What a queue may hold, for each client another policy.
fn limits(client: usize) -> QueueLimits {
    let when_full = [FullPolicy::DropOldest, FullPolicy::DropNewest, FullPolicy::Reject][client];
    QueueLimits { messages: 8, bytes: 120, when_full }
}

#[derive(Clone, Debug)]
struct ModelInbox {
    version: SessionVersion,
    token: u64,
    owner: bool,
    attached: Option<NodeIncarnation>,
    detached_at: WallMs,
    expiry_secs: u32,
    limits: QueueLimits,
    queue: BTreeMap<u64, ModelEntry>,
    next: u64,
    sent_upto: u64,
    mark: u64,
    released: Vec<u64>,
    inbound: BTreeSet<PacketId>,
    subscriptions: BTreeSet<u8>,
    will_delay: Option<u32>,
}

#[derive(Clone, Debug)]
struct ModelEntry {
    message: Arc<Message>,
    cost: u64,
}

#[derive(Debug, Default)]
struct Model {
    inboxes: BTreeMap<usize, ModelInbox>,
    wills: BTreeMap<SessionVersion, Option<WallMs>>,
    /// Subscriptions of what ended and was not settled.
    ended: BTreeMap<u64, BTreeSet<u8>>,
    incarnations: u64,
    stored: u64,
    done: u64,
    dropped_oldest: u64,
    expired: u64,
    discarded: u64,
}

impl ModelInbox {
    fn bytes(&self) -> u64 {
        self.queue.values().map(|entry| entry.cost).sum()
    }

    fn is_over(&self, now: WallMs) -> bool {
        self.attached.is_none()
            && self.expiry_secs != u32::MAX
            && self.detached_at.plus_secs(u64::from(self.expiry_secs)) <= now
    }
}

impl Model {
    fn version(&self, client: usize, stale: bool) -> SessionVersion {
        let version = self.inboxes.get(&client).map_or(SessionVersion { incarnation: 999, attach: 1 }, |i| i.version);
        if stale { SessionVersion { attach: version.attach.wrapping_sub(1), ..version } } else { version }
    }

    fn owned(&mut self, version: SessionVersion) -> Option<&mut ModelInbox> {
        self.inboxes.values_mut().find(|inbox| inbox.version == version && inbox.attached.is_some())
    }

    fn due(&mut self, version: SessionVersion, at: WallMs) {
        if let Some(due) = self.wills.get_mut(&version) {
            *due = Some(due.map_or(at, |due| due.min(at)));
        }
    }

    fn end(&mut self, client: usize, publish: bool, now: WallMs) {
        let Some(inbox) = self.inboxes.remove(&client) else { return };
        self.discarded += inbox.queue.len() as u64;
        if !inbox.subscriptions.is_empty() {
            self.ended.insert(inbox.version.incarnation, inbox.subscriptions);
        }
        if publish {
            self.due(inbox.version, now);
        } else {
            self.wills.remove(&inbox.version);
        }
    }

    fn leave(&mut self, client: usize, publish: bool, now: WallMs) {
        let Some(inbox) = self.inboxes.get_mut(&client) else { return };
        if inbox.expiry_secs == 0 {
            return self.end(client, publish, now);
        }
        inbox.attached = None;
        (inbox.sent_upto, inbox.mark) = (inbox.sent_upto.min(inbox.next), 0);
        inbox.detached_at = now;
        let (version, delay) = (inbox.version, inbox.will_delay.unwrap_or(0).min(inbox.expiry_secs));
        if publish {
            self.due(version, WallMs(now.plus_secs(u64::from(delay)).0 + u64::from(delay > 0)));
        } else {
            self.wills.remove(&version);
        }
    }

    /// The version and whether the session is present; `Err` for another owner.
    fn attach(
        &mut self,
        client: usize,
        attach: &Attach,
        owner: bool,
        now: WallMs,
    ) -> Result<(Option<SessionVersion>, bool), ()> {
        if self.inboxes.get(&client).is_some_and(|inbox| inbox.is_over(now)) {
            self.end(client, true, now);
        }
        if let Some(inbox) = self.inboxes.get(&client).cloned() {
            if inbox.owner != owner {
                return Err(());
            }
            let taken_over = inbox.attached.is_some();
            if attach.clean_start || (taken_over && inbox.expiry_secs == 0) {
                self.end(client, true, now);
            } else if taken_over {
                if inbox.will_delay == Some(0) {
                    self.due(inbox.version, now);
                } else {
                    self.wills.remove(&inbox.version);
                }
            } else if self.wills.get(&inbox.version).is_some_and(|due| due.is_none_or(|due| due > now)) {
                self.wills.remove(&inbox.version);
            }
        }
        let present = self.inboxes.contains_key(&client);
        if !present && attach.expiry_secs == 0 && attach.will.is_none() {
            return Ok((None, false));
        }
        let incarnations = &mut self.incarnations;
        let inbox = self.inboxes.entry(client).or_insert_with(|| {
            *incarnations += 1;
            ModelInbox {
                version: SessionVersion { incarnation: *incarnations, attach: 0 },
                token: 0,
                owner,
                attached: None,
                detached_at: now,
                expiry_secs: 0,
                limits: attach.limits,
                queue: BTreeMap::new(),
                next: 1,
                sent_upto: 0,
                mark: 0,
                released: Vec::new(),
                inbound: BTreeSet::new(),
                subscriptions: BTreeSet::new(),
                will_delay: None,
            }
        });
        inbox.version.attach += 1;
        (inbox.sent_upto, inbox.mark) = (inbox.sent_upto.min(inbox.next), 0);
        inbox.attached = Some(attach.node);
        inbox.expiry_secs = attach.expiry_secs;
        inbox.will_delay = attach.will.as_ref().map(|will| will.delay_secs);
        if attach.will.is_some() {
            self.wills.insert(inbox.version, None);
        }
        Ok((Some(inbox.version), present))
    }

    fn insert(&mut self, insert: &Insert, now: WallMs) -> Result<Vec<InsertOutcome>, ()> {
        match &insert.origin {
            Origin::None => {}
            Origin::Inbound { version, packet_id, .. } => match self.owned(*version) {
                None => return Err(()),
                Some(inbox) if inbox.inbound.contains(packet_id) => {
                    return Ok(vec![InsertOutcome::Repeated; insert.receivers.len().max(1)]);
                }
                Some(_) => {}
            },
            Origin::Will { version, .. } => {
                if self.wills.get(version).is_none_or(Option::is_none) {
                    return Ok(vec![InsertOutcome::Repeated; insert.receivers.len().max(1)]);
                }
                self.wills.remove(version);
            }
        }
        let outcomes: Vec<_> = insert.receivers.iter().map(|r| self.queue(r, &insert.message, now)).collect();
        let rejected = InsertOutcome::Dropped(DropCause::QueueFullRejected);
        if let Origin::Inbound { version, packet_id, .. } = &insert.origin
            && (outcomes.is_empty() || outcomes.iter().any(|outcome| *outcome != rejected))
            && let Some(inbox) = self.owned(*version)
        {
            inbox.inbound.insert(*packet_id);
        }
        Ok(outcomes)
    }

    fn queue(&mut self, receiver: &InboxReceiver, message: &Arc<Message>, now: WallMs) -> InsertOutcome {
        let found = self.inboxes.values_mut().find(|inbox| inbox.version.incarnation == receiver.incarnation);
        let Some(inbox) = found else { return InsertOutcome::NoInbox };
        let cost = message.cost() as u64;
        let limits = inbox.limits;
        let full = |i: &ModelInbox| {
            let messages = i.queue.len() as u64;
            messages >= limits.messages || (messages > 0 && i.bytes() + cost > limits.bytes)
        };
        let mut dropped = false;
        while full(inbox) {
            let Some((&oldest, entry)) = inbox.queue.range(inbox.sent_upto..).next() else { break };
            if !dropped && entry.message.is_expired(now) {
                self.expired += 1;
            } else if limits.when_full == FullPolicy::DropOldest {
                self.dropped_oldest += 1;
                dropped = true;
            } else {
                break;
            }
            inbox.queue.remove(&oldest);
        }
        if full(inbox) {
            return InsertOutcome::Dropped(match limits.when_full {
                FullPolicy::Reject => DropCause::QueueFullRejected,
                FullPolicy::DropOldest | FullPolicy::DropNewest => DropCause::QueueFullNewest,
            });
        }
        inbox.queue.insert(inbox.next, ModelEntry { message: message.clone(), cost });
        inbox.next += 1;
        self.stored += 1;
        if dropped { InsertOutcome::Dropped(DropCause::QueueFullOldest) } else { InsertOutcome::Stored }
    }

    fn commit(&mut self, version: SessionVersion, mark: u64, commit: &Commit) -> Result<(), ()> {
        let inbox = self.owned(version).ok_or(())?;
        let mut done = 0;
        for seq in &commit.done {
            done += u64::from(inbox.queue.remove(seq).is_some());
            inbox.released.retain(|released| released != seq);
        }
        for seq in &commit.received {
            if inbox.queue.remove(seq).is_some() {
                inbox.released.push(*seq);
                done += 1;
            }
        }
        if let Some(upto) = commit.sent_upto
            && mark > inbox.mark
        {
            (inbox.sent_upto, inbox.mark) = (upto, mark);
        }
        for id in &commit.released_inbound {
            inbox.inbound.remove(id);
        }
        self.done += done;
        Ok(())
    }
}

/// Replicas and the model that they must agree with.
struct World {
    model: Model,
    /// Applies everything twice; one replica is made anew from its keys before each command.
    replicas: CoprocHarness<InboxCoproc>,
    commands: u64,
    now: WallMs,
}

fn filter(n: u8) -> SubscriptionFilter {
    SubscriptionFilter::parse(&ByteString::from(format!("f/{n}"))).unwrap()
}

impl World {
    fn new() -> Self {
        let config = || InboxConfig { cache_bytes: 1500, ..InboxConfig::new(RUN.node) };
        let world = Self {
            model: Model::default(),
            replicas: CoprocHarness::new(move || InboxCoproc::new(config()).0),
            commands: 0,
            now: START,
        };
        world.state().set_leads(true);
        world
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.replicas.coproc().state()
    }

    fn apply(&mut self, command: Bytes) -> Bytes {
        self.commands += 1;
        self.replicas.apply(self.now, command)
    }

    fn of(&self, kind: KeyKind) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.replicas.space().pairs().filter(move |(key, _)| key[0] == kind as u8)
    }

    fn run(&mut self, op: &Op) {
        let now = self.now;
        match op {
            Op::Attach { client, clean_start, expiry_secs, owner, will: delay, old_run } => {
                let node = if *old_run { NodeIncarnation { incarnation: Incarnation(1), ..RUN } } else { RUN };
                let attach = Attach {
                    inbox: inbox(CLIENTS[*client]),
                    clean_start: *clean_start,
                    expiry_secs: *expiry_secs,
                    owner: if *owner { "me" } else { "other" }.into(),
                    node,
                    will: delay.map(will),
                    limits: limits(*client),
                };
                let want = self.model.attach(*client, &attach, *owner, now);
                let token = self.commands;
                let got = reply::read_attached(self.apply(command::attach(&attach, token)));
                match (want, got) {
                    (Err(()), Err(AttachError::NotOwner)) => {}
                    (Ok((version, present)), Ok(got)) => {
                        assert_eq!((got.version, got.session_present), (version, present));
                        let Some(model) = self.model.inboxes.get_mut(client).filter(|_| version.is_some()) else {
                            return;
                        };
                        model.token = token;
                        let subscriptions: Vec<_> = model.subscriptions.iter().map(|&n| filter(n)).collect();
                        assert_eq!(got.subscriptions.into_iter().map(|(f, _)| f).collect::<Vec<_>>(), subscriptions);
                        assert_eq!(got.inbound, model.inbound.iter().copied().collect::<Vec<_>>());
                        assert_eq!(got.released, model.released);
                        let first = model.queue.keys().chain(&model.released).copied().min().unwrap_or(model.next);
                        assert_eq!((got.first_seq, got.sent_upto), (first, model.sent_upto));
                    }
                    (want, got) => panic!("{want:?} but {got:?}"),
                }
            }
            Op::Detach { client, stale, expiry_secs, publish } => {
                let version = self.model.version(*client, *stale);
                let fate = if *publish { WillFate::Publish } else { WillFate::Discard };
                let detach = Detach { inbox: inbox(CLIENTS[*client]), version, expiry_secs: *expiry_secs, will: fate };
                let there = self.model.inboxes.values().any(|inbox| inbox.version == version);
                if let Some(inbox) = self.model.owned(version) {
                    inbox.expiry_secs = expiry_secs.unwrap_or(inbox.expiry_secs);
                    self.model.leave(*client, *publish, now);
                }
                let got = reply::read_done(self.apply(command::detach(&detach)));
                assert_eq!(got, if there { Ok(()) } else { Err(InboxError::Fenced) });
            }
            Op::Subscribe { client, filter: n } => {
                let version = self.model.version(*client, false);
                let want = self.model.owned(version).map(|inbox| !inbox.subscriptions.insert(*n));
                let got =
                    reply::read_flags(self.apply(command::subscribe(version, &[(filter(*n), Default::default())])));
                assert_eq!(got, want.map(|existed| vec![existed]).ok_or(InboxError::Fenced));
            }
            Op::Unsubscribe { client, filter: n } => {
                let version = self.model.version(*client, false);
                let want = self.model.owned(version).map(|inbox| inbox.subscriptions.remove(n));
                let got = reply::read_flags(self.apply(command::unsubscribe(version, &[filter(*n)])));
                assert_eq!(got, want.map(|existed| vec![existed]).ok_or(InboxError::Fenced));
            }
            Op::Insert { receivers, len, expires_in, origin } => {
                let receivers = receivers.iter().map(|&(client, stale)| {
                    let incarnation = self.model.version(client, false).incarnation;
                    to(CLIENTS[client], if stale { incarnation.wrapping_sub(1) } else { incarnation })
                });
                let mut message = message(&vec![self.commands as u8; *len]);
                message.expires_at = expires_in.map(|secs| now.plus_secs(secs));
                let origin = match *origin {
                    Source::None => Origin::None,
                    Source::Inbound { client, id } => Origin::Inbound {
                        inbox: inbox(CLIENTS[client]),
                        version: self.model.version(client, false),
                        packet_id: PacketId::new(id).unwrap(),
                    },
                    Source::Will { nth } => {
                        let waiting = self.model.wills.keys().nth(nth).copied();
                        let version = waiting.unwrap_or(SessionVersion { incarnation: 1, attach: 1 });
                        Origin::Will { inbox: inbox("a"), version }
                    }
                };
                let mut insert = crate::testing::insert(&[], receivers.collect());
                // The incarnation of another client's inbox is none of this client's.
                insert.receivers.retain(|r| {
                    let of = self.model.inboxes.iter().find(|(_, i)| i.version.incarnation == r.incarnation);
                    of.is_none_or(|(&owner, _)| client(CLIENTS[owner]) == r.client)
                });
                (insert.message, insert.origin) = (Arc::new(message), origin);
                let want = self.model.insert(&insert, now).map_err(|()| InboxError::Fenced);
                let got = reply::read_outcomes(self.apply(command::insert(&insert)), insert.receivers.len());
                assert_eq!(got, want);
            }
            Op::Commit { client, stale, late, done, received, sent, released } => {
                let version = self.model.version(*client, *stale);
                let base =
                    self.model.inboxes.get(client).map_or(1, |inbox| {
                        inbox.queue.keys().chain(&inbox.released).copied().min().unwrap_or(inbox.next)
                    });
                let commit = Commit {
                    done: done.iter().map(|n| base + n).collect(),
                    received: received.iter().map(|n| base + n).collect(),
                    sent_upto: Some(base + sent).filter(|_| *sent > 0),
                    released_inbound: released.iter().map(|&id| PacketId::new(id).unwrap()).collect(),
                };
                let mark = if *late { 1 } else { self.commands + 2 };
                let want = self.model.commit(version, mark, &commit).map_err(|()| InboxError::Fenced);
                assert_eq!(reply::read_done(self.apply(command::commit(version, mark, &commit))), want);
            }
            Op::Abandon { client, own } => {
                let Some(inbox) = self.model.inboxes.get(client) else { return };
                let (token, run) = (inbox.token + u64::from(!own), inbox.attached.unwrap_or(RUN));
                match inbox.version.attach {
                    _ if !*own || inbox.attached.is_none() => {}
                    1 => self.model.end(*client, false, now),
                    _ => self.model.leave(*client, false, now),
                }
                self.apply(command::abandon(&crate::testing::inbox(CLIENTS[*client]), run, token));
            }
            Op::DetachRuns => {
                let stale = |inbox: &ModelInbox| inbox.attached.is_some_and(|run| run.incarnation < RUN.incarnation);
                let clients: Vec<_> = self.model.inboxes.iter().filter(|(_, i)| stale(i)).map(|(&c, _)| c).collect();
                for &client in &clients {
                    self.model.leave(client, true, now);
                }
                let (mut from, mut count) = (Some(0), 0);
                while let Some(start) = from {
                    let reply = self.apply(command::detach_runs(RUN, start, 2));
                    let (detached, next) = reply::read_detached_runs(reply).unwrap();
                    (from, count) = (next, count + detached);
                }
                assert_eq!(count, clients.len() as u64);
            }
            Op::Expire => {
                let over: Vec<_> = self.model.inboxes.iter().filter(|(_, i)| i.is_over(now)).map(|(&c, _)| c).collect();
                for client in over {
                    self.model.end(client, true, now);
                }
                let all: Vec<u64> = (0..=self.model.incarnations).collect();
                self.apply(command::expire(&all));
            }
            Op::Discard { client } => {
                let Some(inbox) = self.model.inboxes.get_mut(client) else { return };
                let all: Vec<u64> = (0..inbox.next + 2).collect();
                let (before, sent) = (inbox.queue.len(), inbox.sent_upto);
                // An earlier session left them out; this one may have sent those below its mark.
                let stale = inbox.attached.is_none() || inbox.next % 2 == 1;
                inbox.queue.retain(|seq, entry| (stale && *seq < sent) || !entry.message.is_expired(now));
                self.model.expired += (before - inbox.queue.len()) as u64;
                let SessionVersion { incarnation, attach } = inbox.version;
                let version = SessionVersion { incarnation, attach: attach + u64::from(inbox.next % 2 == 1) };
                self.apply(command::discard(version, &all));
            }
            Op::Sweep { max } => {
                for incarnation in 0..=self.model.incarnations {
                    self.apply(command::sweep(incarnation, *max));
                }
            }
            Op::SettleEnded { nth } => {
                let ended = self.model.ended.keys().nth(*nth).copied();
                let living = self.model.inboxes.values().map(|inbox| inbox.version.incarnation).max();
                if let Some(ended) = ended {
                    self.model.ended.remove(&ended);
                }
                self.apply(command::settle_ended(&[ended.unwrap_or(77), living.unwrap_or(78)]));
            }
            Op::Pass { secs } => self.now = self.now.plus_secs(*secs),
        }
    }

    fn check(&mut self) {
        let mut rebuilt = State::new(self.state().config.clone());
        rebuilt.reset(self.replicas.space()).unwrap();
        assert_eq!(rebuilt.digest(), self.state().digest(), "rebuilding from the keys gives another state");
        self.check_queues();
        self.check_bodies();
        self.check_wills();
        self.check_subscriptions();
        let (model, stats) = (&self.model, self.state().stats());
        let queued: usize = model.inboxes.values().map(|inbox| inbox.queue.len()).sum();
        assert_eq!(stats.queued_messages, queued as u64);
        assert_eq!(stats.queued_bytes, model.inboxes.values().map(ModelInbox::bytes).sum::<u64>());
        assert_eq!(stats.attached, model.inboxes.values().filter(|inbox| inbox.attached.is_some()).count() as u64);
        assert_eq!(
            (stats.stored, stats.done, stats.dropped_oldest, stats.expired, stats.discarded),
            (model.stored, model.done, model.dropped_oldest, model.expired, model.discarded),
        );
        assert_eq!(model.stored, model.done + queued as u64 + model.dropped_oldest + model.expired + model.discarded);
    }

    /// Nothing that was acknowledged is lost, and everything stands in its order, on disk and in memory.
    fn check_queues(&mut self) {
        for inbox in self.model.inboxes.values() {
            let found = self.of(KeyKind::Entry).map(|(key, value)| (entry::decode_key(key).unwrap(), value.clone()));
            let found = found.filter(|((incarnation, _), _)| *incarnation == inbox.version.incarnation);
            let found: Vec<_> = found
                .map(|((_, seq), value)| {
                    let bytes = match entry::decode(value).unwrap().1 {
                        EntryBody::Inline(bytes) => bytes,
                        EntryBody::Shared(id) => self.replicas.space().get(&body::key(id)).unwrap().expect("a body"),
                    };
                    (seq, Message::decode(bytes).unwrap())
                })
                .collect();
            let want: Vec<_> = inbox.queue.iter().map(|(&seq, entry)| (seq, (*entry.message).clone())).collect();
            assert_eq!(found, want);

            let plan = self.state().plan_fetch(inbox.version, 0, Page::new(100, 10_000), WallMs(0));
            assert_eq!(plan.is_some(), inbox.attached.is_some());
            if let Some(plan) = plan {
                let cached = plan.cached.entries.iter().map(|entry| (entry.seq, (*entry.message).clone()));
                let behind = want.iter().filter(|(seq, _)| *seq >= plan.disk.end).cloned();
                assert_eq!(cached.collect::<Vec<_>>(), behind.collect::<Vec<_>>());
            }
        }
        assert!(self.state().stats().cached_bytes <= 1500);
    }

    /// A body is there as long as an entry refers to it, and knows how many do.
    fn check_bodies(&self) {
        let mut refs: BTreeMap<_, u64> = BTreeMap::new();
        for (_, value) in self.of(KeyKind::Entry) {
            if let EntryBody::Shared(id) = entry::decode(value.clone()).unwrap().1 {
                *refs.entry(id).or_default() += 1;
            }
        }
        let id = |key: &[u8], kind| {
            let (incarnation, seq) = crate::schema::read_numbered(kind, key).unwrap();
            body::BodyId { incarnation, seq }
        };
        let bodies: Vec<_> = self.of(KeyKind::Body).map(|(key, _)| id(key, KeyKind::Body)).collect();
        assert_eq!(bodies, refs.keys().copied().collect::<Vec<_>>());
        let counts = self.of(KeyKind::BodyRefs);
        let counts = counts.map(|(key, value)| (id(key, KeyKind::BodyRefs), body::decode_refs(value.clone()).unwrap()));
        assert_eq!(counts.collect::<BTreeMap<_, _>>(), refs);
    }

    fn check_subscriptions(&self) {
        use crate::schema::ended;
        let mut want = self.model.ended.clone();
        let found: BTreeMap<_, _> = self
            .of(KeyKind::Ended)
            .map(|(key, value)| (incarnation_of(key).unwrap(), ended::decode(value.clone()).unwrap().1))
            .collect();
        assert_eq!(found, want.iter().map(|(&i, filters)| (i, filters.len() as u64)).collect());
        for inbox in self.model.inboxes.values() {
            want.insert(inbox.version.incarnation, inbox.subscriptions.clone());
        }
        let found: Vec<_> = self
            .of(KeyKind::Subscription)
            .map(|(key, _)| (incarnation_of(key).unwrap(), subscription::decode_key(key).unwrap()))
            .collect();
        let want = want.iter().flat_map(|(&i, filters)| filters.iter().map(move |&n| (i, filter(n))));
        assert_eq!(found, want.collect::<Vec<_>>());
    }

    fn check_wills(&self) {
        use crate::schema::will;
        let found = self.of(KeyKind::Will);
        let found: BTreeMap<_, _> = found
            .map(|(key, value)| (will::decode_key(key).unwrap(), will::decode(value.clone()).unwrap().due))
            .collect();
        assert_eq!(found, self.model.wills);
    }
}

proptest! {
    #[test]
    fn replicas_agree_with_each_other_with_their_keys_and_with_the_model(ops in prop::collection::vec(op(), 1..80)) {
        let mut world = World::new();
        for op in &ops {
            world.run(op);
            world.check();
        }
        world.replicas.check();
    }
}

/// The payloads of a queue, in order.
fn payloads(inbox: &ModelInbox) -> Vec<Bytes> {
    inbox.queue.values().map(|entry| entry.message.payload.clone()).collect()
}

impl World {
    /// The messages of an inbox, in order, as they are on disk.
    fn stored(&self, incarnation: u64) -> Vec<Bytes> {
        let space = self.replicas.space();
        let entries = self.of(KeyKind::Entry).filter(|(key, _)| entry::decode_key(key).unwrap().0 == incarnation);
        let bytes = entries.map(|(_, value)| match entry::decode(value.clone()).unwrap().1 {
            EntryBody::Inline(bytes) => bytes,
            EntryBody::Shared(id) => space.get(&body::key(id)).unwrap().unwrap(),
        });
        bytes.map(|bytes| Message::decode(bytes).unwrap().payload).collect()
    }

    fn filters(&self, incarnation: u64) -> BTreeSet<u8> {
        let keys = self.of(KeyKind::Subscription).filter(|(key, _)| incarnation_of(key) == Some(incarnation));
        let found: Vec<_> = keys.map(|(key, _)| subscription::decode_key(key).unwrap()).collect();
        (0..3).filter(|&n| found.contains(&filter(n))).collect()
    }

    /// Takes over what another lineage holds, in pieces of so many commands.
    fn adopt(&mut self, loser: &Self, piece: usize) {
        let from = RangeId { id: 0, lineage: 7, epoch: 1 };
        let mut after = Vec::new();
        loop {
            let (start, mut commands) = (after.clone(), Vec::new());
            let take = &mut |place: &[u8], command| {
                after = place.to_vec();
                commands.push(command);
                if commands.len() < piece { Visit::More } else { Visit::Enough }
            };
            loser.replicas.coproc().adopt(from, loser.replicas.space(), &start, take).unwrap();
            if commands.is_empty() {
                return;
            }
            for command in commands {
                assert_eq!(reply::read_done(self.apply(command)), Ok(()));
            }
        }
    }
}

proptest! {
    /// Of two halves that each went on, nothing that was acknowledged in either is missing in the one that stays.
    #[test]
    fn a_lineage_is_adopted_whole_and_once(
        one in prop::collection::vec(op(), 0..40),
        other in prop::collection::vec(op(), 0..40),
        piece in 1usize..4,
    ) {
        let (mut winner, mut loser) = (World::new(), World::new());
        one.iter().for_each(|op| winner.run(op));
        other.iter().for_each(|op| loser.run(op));
        winner.now = winner.now.max(loser.now);
        winner.adopt(&loser, piece);
        let once = winner.replicas.space().clone();
        winner.adopt(&loser, piece + 1);
        prop_assert_eq!(&once, winner.replicas.space());
        winner.replicas.check();
        let mut rebuilt = State::new(winner.state().config.clone());
        rebuilt.reset(winner.replicas.space()).unwrap();
        prop_assert_eq!(rebuilt.digest(), winner.state().digest());

        let stats = winner.state().stats();
        let mut queued = 0;
        for (client, name) in CLIENTS.iter().enumerate() {
            let (ours, theirs) = (winner.model.inboxes.get(&client), loser.model.inboxes.get(&client));
            let theirs = theirs.filter(|theirs| theirs.expiry_secs > 0 && ours.is_none_or(|ours| ours.owner == theirs.owner));
            let incarnation = winner.state().incarnation(&inbox(name));
            prop_assert_eq!(incarnation.is_some(), ours.is_some() || theirs.is_some());
            let Some(incarnation) = incarnation else { continue };
            let want = ours.iter().chain(&theirs).flat_map(|inbox| payloads(inbox)).collect::<Vec<_>>();
            let filters = ours.iter().chain(&theirs).flat_map(|inbox| inbox.subscriptions.clone()).collect();
            queued += want.len() as u64;
            prop_assert_eq!(winner.stored(incarnation), want);
            prop_assert_eq!(winner.filters(incarnation), filters);
            if let (None, Some(theirs)) = (ours, theirs) {
                let state = winner.state();
                let got = &state.inboxes[&incarnation];
                let seqs: Vec<_> = (0..theirs.next + 5).filter(|&seq| got.seqs.contains(seq)).collect();
                prop_assert_eq!(seqs, theirs.queue.keys().copied().collect::<Vec<_>>());
                prop_assert_eq!(&got.inbound, &theirs.inbound);
                prop_assert_eq!(got.released.iter().map(|r| r.seq).collect::<Vec<_>>(), theirs.released.clone());
                prop_assert!(got.queue.sent_upto >= theirs.sent_upto.min(theirs.next));
            }
        }
        prop_assert_eq!(stats.queued_messages, queued);
        // A will that was to be sent is sent.
        let due = |world: &World| world.model.wills.values().filter(|due| due.is_some()).count();
        prop_assert!(stats.wills as usize >= due(&winner) + due(&loser));
    }
}
