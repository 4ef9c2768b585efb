//! What a node sees of its inboxes, over a range in memory.

use crate::testing::{NODE, RUN, START, attach, client, inbox, insert, message, to, will};
use crate::{InboxConfig, InboxCoproc, InboxStore};
use base_kv_api::testing::MemRange;
use base_kv_api::{MutateError, RangeClient};
use base_types::{Clock, Incarnation, ManualClock, NodeIncarnation, PacketId, SubscriptionFilter, TenantId};
use bytestring::ByteString;
use inbox_api::{
    Attach, AttachError, Commit, Detach, DropCause, Entry, FullPolicy, InboxError, InboxId, InboxListener,
    InboxService, Insert, InsertOutcome, Origin, PendingWill, SessionVersion, WillFate,
};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Queued(InboxId, SessionVersion),
    Will(InboxId, SessionVersion),
    Ended(InboxId, u64, Vec<SubscriptionFilter>),
    Fenced(InboxId, SessionVersion),
}

#[derive(Default)]
pub(super) struct Listener(pub(super) Mutex<Vec<Told>>);

impl InboxListener for Listener {
    fn queued(&self, inbox: &InboxId, version: SessionVersion) {
        self.0.lock().push(Told::Queued(inbox.clone(), version));
    }

    fn will_due(&self, inbox: &InboxId, version: SessionVersion, will: PendingWill) {
        assert_eq!(&will.message.payload[..], b"will");
        assert_eq!(will.owner, "ann", "whoever attached");
        self.0.lock().push(Told::Will(inbox.clone(), version));
    }

    fn ended(&self, inbox: &InboxId, incarnation: u64, subscriptions: Vec<SubscriptionFilter>) {
        self.0.lock().push(Told::Ended(inbox.clone(), incarnation, subscriptions));
    }

    fn fenced(&self, inbox: &InboxId, version: SessionVersion) {
        self.0.lock().push(Told::Fenced(inbox.clone(), version));
    }
}

struct Node {
    range: MemRange,
    store: Arc<InboxStore>,
    clock: Arc<ManualClock>,
    listener: Arc<Listener>,
}

impl Node {
    fn new() -> Self {
        Self::with(InboxConfig::new(NODE))
    }

    fn with(config: InboxConfig) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let (coproc, handle) = InboxCoproc::new(config);
        let range = MemRange::new(coproc, clock.clone()).unwrap();
        let store = InboxStore::start(Arc::new(range.clone()), handle, clock.clone());
        Self::listening(range, store, clock)
    }

    fn listening(range: MemRange, store: Arc<InboxStore>, clock: Arc<ManualClock>) -> Self {
        let listener = Arc::new(Listener::default());
        store.listen(listener.clone());
        Self { range, store, clock, listener }
    }

    /// As after a crash: what is left is what is on disk.
    fn restarted(self) -> Self {
        let (coproc, handle) = InboxCoproc::new(InboxConfig::new(NODE));
        let range = MemRange::over(self.range.space(), coproc, self.clock.clone()).unwrap();
        let store = InboxStore::start(Arc::new(range.clone()), handle, self.clock.clone());
        Self::listening(range, store, self.clock)
    }

    async fn attach(&self, attach: Attach) -> SessionVersion {
        self.store.attach(attach).await.unwrap().version.unwrap()
    }

    async fn detach(&self, name: &str, version: SessionVersion, will: WillFate) {
        let detach = Detach { inbox: inbox(name), version, expiry_secs: None, will };
        self.store.detach(detach).await.unwrap();
    }

    async fn queue(&self, name: &str, version: SessionVersion, payload: &[u8]) {
        let outcomes = self.store.insert(insert(payload, vec![to(name, version.incarnation)])).await;
        assert_eq!(outcomes, Ok(vec![InsertOutcome::Stored]));
    }

    fn fetch(&self, name: &str, version: SessionVersion, from_seq: u64) -> Vec<Entry> {
        self.store.fetch(&inbox(name), version, from_seq, 1000, 1 << 20).unwrap()
    }

    async fn commit(&self, name: &str, version: SessionVersion, commit: Commit) {
        self.store.commit(&inbox(name), version, commit).await.unwrap();
    }

    fn told(&self) -> Vec<Told> {
        std::mem::take(&mut *self.listener.0.lock())
    }

    fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.store.wake();
    }

    /// What is told next.
    async fn next_told(&self) -> Told {
        eventually(|| {
            let mut told = self.listener.0.lock();
            (!told.is_empty()).then(|| told.remove(0))
        })
        .await
    }
}

pub(super) async fn eventually<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(met) = condition() {
                return met;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("it did not happen in time")
}

/// Lets the timer look at the clock, and find that there is nothing to do.
pub(super) async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn payloads(entries: &[Entry]) -> Vec<Vec<u8>> {
    entries.iter().map(|entry| entry.message.payload.to_vec()).collect()
}

fn done(seqs: impl IntoIterator<Item = u64>) -> Commit {
    Commit { done: seqs.into_iter().collect(), ..Commit::default() }
}

fn filter(text: &str) -> SubscriptionFilter {
    SubscriptionFilter::parse(&ByteString::from(text)).unwrap()
}

fn with_will(attach: Attach, delay_secs: u32) -> Attach {
    Attach { will: Some(will(delay_secs)), ..attach }
}

#[tokio::test]
async fn a_session_that_keeps_nothing_commits_nothing() {
    let node = Node::new();
    let attached = node.store.attach(attach("c", 0)).await.unwrap();
    assert_eq!((attached.version, attached.session_present), (None, false));
    assert!(node.range.space().is_empty());
}

#[tokio::test]
async fn what_was_queued_is_fetched_in_order_after_a_crash_too() {
    let node = Node::new();
    let version = node.attach(attach("c", 100)).await;
    for n in 0..10u8 {
        node.queue("c", version, &[n]).await;
    }
    let want: Vec<_> = (0..10u8).map(|n| vec![n]).collect();
    assert_eq!(payloads(&node.fetch("c", version, 1)), want);
    assert!(node.store.stats().cached_bytes > 0);

    let node = node.restarted();
    let entries = node.fetch("c", version, 1);
    assert_eq!(payloads(&entries), want);
    assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    // What comes now is in memory, what came before is on disk.
    node.queue("c", version, &[10]).await;
    assert_eq!(payloads(&node.fetch("c", version, 9)), [[8], [9], [10]]);
    assert_eq!(payloads(&node.store.fetch(&inbox("c"), version, 8, 2, 1000).unwrap()), [[7], [8]]);
    // Each message costs two bytes, and one always comes.
    assert_eq!(payloads(&node.store.fetch(&inbox("c"), version, 8, 10, 6).unwrap()), [[7], [8], [9]]);
    assert_eq!(payloads(&node.store.fetch(&inbox("c"), version, 8, 10, 1).unwrap()), [[7]]);
}

#[tokio::test]
async fn an_attached_session_is_told_once_until_it_fetches() {
    let node = Node::new();
    let version = node.attach(attach("c", 100)).await;
    node.queue("c", version, b"1").await;
    node.queue("c", version, b"2").await;
    assert_eq!(node.told(), [Told::Queued(inbox("c"), version)]);
    assert_eq!(node.fetch("c", version, 1).len(), 2);
    node.queue("c", version, b"3").await;
    assert_eq!(node.told(), [Told::Queued(inbox("c"), version)]);
    node.detach("c", version, WillFate::Discard).await;
    node.queue("c", version, b"4").await;
    assert_eq!(node.told(), []);
}

#[tokio::test]
async fn a_takeover_fences_the_older_connection() {
    let node = Node::new();
    let old = node.attach(attach("c", 100)).await;
    node.queue("c", old, b"1").await;
    let attached = node.store.attach(attach("c", 100)).await.unwrap();
    let new = attached.version.unwrap();
    assert!(attached.session_present);
    assert_eq!((new.incarnation, new.attach), (old.incarnation, old.attach + 1));
    assert_eq!(node.told(), [Told::Queued(inbox("c"), old), Told::Fenced(inbox("c"), old)]);

    assert_eq!(node.store.fetch(&inbox("c"), old, 1, 10, 100), Err(InboxError::Fenced));
    assert_eq!(node.store.commit(&inbox("c"), old, done([1])).await, Err(InboxError::Fenced));
    let detach = Detach { inbox: inbox("c"), version: old, expiry_secs: None, will: WillFate::Publish };
    assert_eq!(node.store.detach(detach).await, Err(InboxError::Fenced));
    let subscriptions = vec![(filter("a"), Default::default())];
    assert_eq!(node.store.subscribe(&inbox("c"), old, subscriptions).await, Err(InboxError::Fenced));
    assert_eq!(payloads(&node.fetch("c", new, 1)), [b"1"]);
}

#[tokio::test]
async fn another_user_cannot_take_a_session_over_nor_end_it() {
    let node = Node::new();
    let version = node.attach(Attach { owner: "ann".into(), ..attach("c", 100) }).await;
    for clean_start in [false, true] {
        let other = Attach { owner: "bob".into(), clean_start, ..attach("c", 100) };
        assert_eq!(node.store.attach(other).await, Err(AttachError::NotOwner));
    }
    assert_eq!(node.told(), []);
    assert_eq!(node.store.incarnation(&inbox("c")), Some(version.incarnation));
    assert_eq!(node.fetch("c", version, 1), []);
}

#[tokio::test]
async fn a_clean_start_ends_the_old_life_with_all_it_had() {
    let node = Node::new();
    let old = node.attach(attach("c", 100)).await;
    let subscriptions = vec![(filter("a/#"), Default::default()), (filter("$share/g/b"), Default::default())];
    assert_eq!(node.store.subscribe(&inbox("c"), old, subscriptions).await, Ok(vec![false, false]));
    let again = vec![(filter("a/#"), Default::default())];
    assert_eq!(node.store.subscribe(&inbox("c"), old, again).await, Ok(vec![true]));
    node.queue("c", old, b"1").await;
    node.detach("c", old, WillFate::Discard).await;
    node.told();

    let attached = node.store.attach(Attach { clean_start: true, ..attach("c", 100) }).await.unwrap();
    let new = attached.version.unwrap();
    assert!(!attached.session_present && attached.subscriptions.is_empty());
    assert_ne!(new.incarnation, old.incarnation);
    let ended = Told::Ended(inbox("c"), old.incarnation, vec![filter("a/#"), filter("$share/g/b")]);
    assert_eq!(node.next_told().await, ended);
    assert_eq!(node.fetch("c", new, 1), []);
    let outcomes = node.store.insert(insert(b"2", vec![to("c", old.incarnation)])).await;
    assert_eq!(outcomes, Ok(vec![InsertOutcome::NoInbox]));
}

#[tokio::test]
async fn a_session_without_expiry_leaves_nothing_behind() {
    let node = Node::new();
    let version = node.attach(with_will(attach("c", 0), 0)).await;
    node.queue("c", version, b"1").await;
    node.detach("c", version, WillFate::Discard).await;
    // The counter of inboxes is all.
    assert_eq!(node.range.space().len(), 1);
    assert_eq!(node.store.incarnation(&inbox("c")), None);
    assert_eq!(node.store.stats().inboxes, 0);
}

#[tokio::test]
async fn a_will_without_delay_is_told_before_the_detach_is_answered() {
    let node = Node::new();
    for expiry_secs in [0, 100] {
        let version = node.attach(with_will(attach("c", expiry_secs), 0)).await;
        node.detach("c", version, WillFate::Publish).await;
        let told = node.told();
        assert!(told.contains(&Told::Will(inbox("c"), version)), "{told:?}");
    }
}

#[tokio::test]
async fn a_delayed_will_is_never_early_and_told_until_it_is_settled_and_then_never_again() {
    let node = Node::new();
    let version = node.attach(with_will(attach("c", 100), 10)).await;
    node.detach("c", version, WillFate::Publish).await;
    node.pass(Duration::from_millis(10_000));
    settle().await;
    assert_eq!(node.told(), []);
    node.pass(Duration::from_millis(1));
    assert_eq!(node.next_told().await, Told::Will(inbox("c"), version));
    node.pass(Duration::from_secs(5));
    assert_eq!(node.next_told().await, Told::Will(inbox("c"), version));

    let receiver = node.attach(attach("r", 100)).await;
    let mut fire = insert(b"will", vec![to("r", receiver.incarnation)]);
    fire.origin = Origin::Will { inbox: inbox("c"), version };
    assert_eq!(node.store.stats().wills, 1);
    assert_eq!(node.store.insert(fire.clone()).await, Ok(vec![InsertOutcome::Stored]));
    assert_eq!(node.store.insert(fire).await, Ok(vec![InsertOutcome::Repeated]));
    assert_eq!((node.store.stats().wills, node.store.stats().queued_messages), (0, 1));
    node.told();
    node.pass(Duration::from_secs(60));
    settle().await;
    assert_eq!(node.told(), []);
}

#[tokio::test]
async fn a_will_fires_at_the_end_of_the_session_when_that_comes_before_its_delay() {
    let node = Node::new();
    let version = node.attach(with_will(attach("c", 3), 60)).await;
    node.detach("c", version, WillFate::Publish).await;
    node.pass(Duration::from_secs(3));
    let mut told = vec![node.next_told().await, node.next_told().await];
    told.sort_by_key(|told| matches!(told, Told::Will(..)));
    assert_eq!(told, [Told::Ended(inbox("c"), version.incarnation, vec![]), Told::Will(inbox("c"), version)]);
}

#[tokio::test]
async fn a_connection_to_the_same_session_cancels_a_delayed_will_and_a_clean_start_fires_it() {
    let node = Node::new();
    let first = node.attach(with_will(attach("c", 100), 10)).await;
    node.detach("c", first, WillFate::Publish).await;
    let second = node.attach(with_will(attach("c", 100), 10)).await;
    node.pass(Duration::from_secs(11));
    settle().await;
    assert_eq!(node.told(), []);

    node.detach("c", second, WillFate::Publish).await;
    node.attach(Attach { clean_start: true, ..attach("c", 100) }).await;
    let told = node.told();
    assert!(told.contains(&Told::Will(inbox("c"), second)), "{told:?}");
}

#[tokio::test]
async fn a_takeover_fires_a_will_without_delay_and_cancels_one_with_delay() {
    for (delay, fires) in [(0, true), (10, false)] {
        let node = Node::new();
        let first = node.attach(with_will(attach("c", 100), delay)).await;
        node.attach(attach("c", 100)).await;
        node.pass(Duration::from_secs(11));
        settle().await;
        assert_eq!(node.told().contains(&Told::Will(inbox("c"), first)), fires, "delay {delay}");
    }
}

#[tokio::test]
async fn wills_and_expiry_survive_a_restart() {
    let node = Node::new();
    let a = node.attach(with_will(attach("a", 100), 10)).await;
    let b = node.attach(attach("b", 20)).await;
    node.detach("a", a, WillFate::Publish).await;
    node.detach("b", b, WillFate::Discard).await;
    let node = node.restarted();
    node.pass(Duration::from_millis(10_001));
    assert_eq!(node.next_told().await, Told::Will(inbox("a"), a));
    node.pass(Duration::from_secs(10));
    loop {
        match node.next_told().await {
            Told::Will(..) => {}
            told => break assert_eq!(told, Told::Ended(inbox("b"), b.incarnation, vec![])),
        }
    }
    assert_eq!(node.store.incarnation(&inbox("b")), None);
}

#[tokio::test]
async fn a_crash_of_a_node_detaches_what_its_earlier_runs_held_and_nothing_else() {
    let node = Node::new();
    let earlier = NodeIncarnation { incarnation: Incarnation(RUN.incarnation.0 - 1), ..RUN };
    let old = node.attach(Attach { node: earlier, ..with_will(attach("old", 5), 0) }).await;
    let now = node.attach(attach("now", 5)).await;
    assert_eq!(node.store.detach_runs_before(RUN).await, Ok(1));
    assert_eq!(node.told(), [Told::Fenced(inbox("old"), old), Told::Will(inbox("old"), old)]);
    assert_eq!(node.store.fetch(&inbox("old"), old, 1, 1, 1), Err(InboxError::Fenced));
    assert_eq!(node.fetch("now", now, 1), []);
    node.pass(Duration::from_secs(5));
    eventually(|| node.store.incarnation(&inbox("old")).is_none().then_some(())).await;
    assert_eq!(node.store.stats().attached, 1);
}

#[tokio::test]
async fn acknowledgements_out_of_order_leave_what_was_not_acknowledged() {
    let node = Node::new();
    let version = node.attach(attach("c", 100)).await;
    for n in 1..=5u8 {
        node.queue("c", version, &[n]).await;
    }
    node.commit("c", version, Commit { sent_upto: Some(6), ..done([2, 5, 3]) }).await;
    let node = node.restarted();
    let attached = node.store.attach(attach("c", 100)).await.unwrap();
    assert_eq!((attached.first_seq, attached.sent_upto), (1, 6));
    let version = attached.version.unwrap();
    assert_eq!(payloads(&node.fetch("c", version, 1)), [[1], [4]]);
    node.commit("c", version, done([1, 4])).await;
    // An empty queue does not forget where it was: packet ids go on.
    let node = node.restarted();
    let attached = node.store.attach(attach("c", 100)).await.unwrap();
    assert_eq!(attached.first_seq, 6);
    node.queue("c", attached.version.unwrap(), b"6").await;
    assert_eq!(node.fetch("c", attached.version.unwrap(), 1)[0].seq, 6);
}

#[tokio::test]
async fn qos_2_survives_a_crash_in_every_phase() {
    let node = Node::new();
    let version = node.attach(attach("c", 100)).await;
    for n in 1..=3u8 {
        node.queue("c", version, &[n]).await;
    }
    let id = PacketId::new(9).unwrap();
    let publish = || Insert {
        origin: Origin::Inbound { inbox: inbox("c"), version, packet_id: id },
        ..insert(b"own", vec![to("c", version.incarnation)])
    };
    assert_eq!(node.store.insert(publish()).await, Ok(vec![InsertOutcome::Stored]));
    let received = Commit { received: vec![3, 1], sent_upto: Some(4), ..Commit::default() };
    node.commit("c", version, received).await;

    let node = node.restarted();
    // Again by the same ownership: a repetition, and no second copy.
    assert_eq!(node.store.insert(publish()).await, Ok(vec![InsertOutcome::Repeated]));
    let attached = node.store.attach(attach("c", 100)).await.unwrap();
    assert_eq!((attached.inbound, attached.released, attached.first_seq), (vec![id], vec![3, 1], 1));
    assert_eq!(node.store.insert(publish()).await, Err(InboxError::Fenced));
    let version = attached.version.unwrap();
    assert_eq!(payloads(&node.fetch("c", version, 1)), [b"\x02".to_vec(), b"own".to_vec()]);
    node.commit("c", version, Commit { released_inbound: vec![id], ..done([1, 3]) }).await;
    let attached = node.store.attach(attach("c", 100)).await.unwrap();
    assert_eq!((attached.inbound, attached.released, attached.first_seq), (vec![], vec![], 2));
}

#[tokio::test]
async fn a_full_queue_gives_way_as_it_was_told_and_counts_it() {
    let cases = [
        (FullPolicy::DropOldest, DropCause::QueueFullOldest, vec![1, 3]),
        (FullPolicy::DropNewest, DropCause::QueueFullNewest, vec![1, 2]),
        (FullPolicy::Reject, DropCause::QueueFullRejected, vec![1, 2]),
    ];
    for (when_full, cause, left) in cases {
        let node = Node::new();
        let mut attach = attach("c", 100);
        (attach.limits.messages, attach.limits.when_full) = (2, when_full);
        let version = node.attach(attach).await;
        node.queue("c", version, b"1").await;
        node.queue("c", version, b"2").await;
        // The first may be in flight: it stays.
        node.commit("c", version, Commit { sent_upto: Some(2), ..Commit::default() }).await;
        let outcomes = node.store.insert(insert(b"3", vec![to("c", version.incarnation)])).await;
        assert_eq!(outcomes, Ok(vec![InsertOutcome::Dropped(cause)]));
        assert_eq!(node.fetch("c", version, 1).iter().map(|entry| entry.seq).collect::<Vec<_>>(), left);
        let stats = node.store.stats();
        assert_eq!(stats.dropped_oldest + stats.dropped_newest + stats.rejected, 1);
        assert_eq!(stats.queued_messages, 2);
    }
}

#[tokio::test]
async fn a_publish_that_all_refuse_does_not_keep_its_packet_id() {
    let node = Node::new();
    let publisher = node.attach(attach("p", 100)).await;
    let mut full = attach("c", 100);
    (full.limits.messages, full.limits.when_full) = (1, FullPolicy::Reject);
    let version = node.attach(full).await;
    let publish = |payload: &[u8]| {
        let id = PacketId::new(1).unwrap();
        let origin = Origin::Inbound { inbox: inbox("p"), version: publisher, packet_id: id };
        node.store.insert(Insert { origin, ..insert(payload, vec![to("c", version.incarnation)]) })
    };
    node.queue("c", version, b"1").await;
    assert_eq!(publish(b"2").await, Ok(vec![InsertOutcome::Dropped(DropCause::QueueFullRejected)]));
    node.commit("c", version, done([1])).await;
    // PUBREC with an error ended the exchange: the same id is another message.
    assert_eq!(publish(b"3").await, Ok(vec![InsertOutcome::Stored]));
    assert_eq!(publish(b"3").await, Ok(vec![InsertOutcome::Repeated]));
    assert_eq!(payloads(&node.fetch("c", version, 1)), [b"3"]);
}

#[tokio::test]
async fn a_route_reaches_neither_another_client_nor_another_tenant_by_its_incarnation() {
    let node = Node::new();
    let version = node.attach(attach("c", 100)).await;
    let another_client = insert(b"1", vec![to("d", version.incarnation)]);
    let mut another_tenant = insert(b"1", vec![to("c", version.incarnation)]);
    another_tenant.tenant = TenantId::new("another").unwrap();
    for stray in [another_client, another_tenant] {
        assert_eq!(node.store.insert(stray).await, Ok(vec![InsertOutcome::NoInbox]));
    }
}

#[tokio::test]
async fn what_a_connection_marked_ahead_and_never_queued_was_not_sent() {
    let node = Node::new();
    let version = node.attach(attach("c", 100)).await;
    node.commit("c", version, Commit { sent_upto: Some(50), ..Commit::default() }).await;
    node.queue("c", version, b"1").await;
    node.detach("c", version, WillFate::Discard).await;
    node.queue("c", version, b"2").await;
    let attached = node.restarted().store.attach(attach("c", 100)).await.unwrap();
    assert_eq!((attached.first_seq, attached.sent_upto), (1, 2));
}

#[tokio::test]
async fn a_session_that_keeps_nothing_waits_for_the_attach_before_it() {
    let node = Node::new();
    node.range.hold();
    let (first, second) = (node.store.clone(), node.store.clone());
    let first = tokio::spawn(async move { first.attach(attach("c", 100)).await });
    eventually(|| (node.range.waiting() == 1).then_some(())).await;
    let second = tokio::spawn(async move { second.attach(Attach { clean_start: true, ..attach("c", 0) }).await });
    eventually(|| (node.range.waiting() == 2).then_some(())).await;
    node.range.release();
    assert!(first.await.unwrap().unwrap().version.is_some());
    assert_eq!(second.await.unwrap().unwrap().version, None);
    assert_eq!(node.store.incarnation(&inbox("c")), None);
}

#[tokio::test]
async fn an_attach_that_nobody_learned_of_is_undone_and_fires_no_will() {
    let node = Node::new();
    node.range.hold();
    let store = node.store.clone();
    let attaching = tokio::spawn(async move { store.attach(with_will(attach("c", 5), 0)).await });
    eventually(|| (node.range.waiting() == 1).then_some(())).await;
    attaching.abort();
    assert!(attaching.await.is_err());
    node.range.release();
    eventually(|| (node.store.stats().attached == 0).then_some(())).await;
    node.pass(Duration::from_secs(5));
    let Told::Ended(ended, ..) = node.next_told().await else { panic!("a will") };
    assert_eq!(ended, inbox("c"));

    // One that came after it stays.
    node.range.refuse_next(MutateError::Unknown);
    assert_eq!(node.store.attach(attach("c", 5)).await, Err(InboxError::Unknown.into()));
    let version = node.attach(attach("c", 5)).await;
    settle().await;
    assert_eq!(node.fetch("c", version, 1), []);
}

#[tokio::test]
async fn what_expired_in_the_queue_is_left_out_removed_and_counted() {
    let node = Node::new();
    let version = node.attach(attach("c", 100)).await;
    for (payload, lives) in [(b"1", 100), (b"2", 5), (b"3", 100), (b"4", 5)] {
        let mut message = message(payload);
        message.expires_at = Some(START.plus_secs(lives));
        let insert = Insert { message: Arc::new(message), ..insert(b"", vec![to("c", version.incarnation)]) };
        node.store.insert(insert).await.unwrap();
    }
    node.pass(Duration::from_secs(6));
    assert_eq!(payloads(&node.fetch("c", version, 1)), [b"1", b"3"]);
    // The session goes on before they are removed, and sets its mark ahead, beyond them.
    let ahead = Commit { sent_upto: Some(100), ..Commit::default() };
    node.store.commit(&inbox("c"), version, ahead).await.unwrap();
    eventually(|| (node.store.stats().expired == 2).then_some(())).await;
    assert_eq!(node.store.stats().queued_messages, 2);
    let node = node.restarted();
    assert_eq!(payloads(&node.fetch("c", version, 1)), [b"1", b"3"]);
}

#[tokio::test]
async fn a_message_for_many_is_stored_once_and_goes_with_the_last_of_them() {
    const MANY: usize = 1000;
    let node = Node::new();
    let mut versions = Vec::new();
    for n in 0..MANY {
        versions.push(node.attach(attach(&format!("client-{n}"), 100)).await);
    }
    let size = |node: &Node| node.range.space().pairs().map(|(k, v)| k.len() + v.len()).sum::<usize>();
    let before = size(&node);
    let payload = vec![7; 10_000];
    let receivers = versions.iter().enumerate().map(|(n, v)| to(&format!("client-{n}"), v.incarnation)).collect();
    let outcomes = node.store.insert(insert(&payload, receivers)).await.unwrap();
    assert!(outcomes.iter().all(|outcome| *outcome == InsertOutcome::Stored));
    let grown = size(&node) - before;
    assert!(grown <= payload.len() + 64 * MANY, "{grown} bytes");

    for (n, version) in versions.iter().enumerate() {
        let name = format!("client-{n}");
        assert_eq!(node.fetch(&name, *version, 1)[0].message.payload, payload);
        assert!(size(&node) > payload.len());
        node.commit(&name, *version, done([1])).await;
    }
    assert!(size(&node) - before < 32 * MANY);
    assert_eq!(node.store.stats().queued_messages, 0);
}

#[tokio::test]
async fn a_long_shared_queue_of_a_session_that_ended_is_removed_bit_by_bit() {
    let node = Node::new();
    let (a, b) = (node.attach(attach("a", 100)).await, node.attach(attach("b", 100)).await);
    let before = node.range.space().len();
    for n in 0..600u32 {
        let receivers = vec![to("a", a.incarnation), to("b", b.incarnation)];
        node.store.insert(insert(&n.to_be_bytes(), receivers)).await.unwrap();
    }
    let detach = Detach { inbox: inbox("a"), version: a, expiry_secs: Some(0), will: WillFate::Discard };
    node.store.detach(detach).await.unwrap();
    assert_eq!(node.store.stats().queued_messages, 600);
    // The bodies stay for the other one.
    let want: Vec<_> = (0..600u32).map(|n| n.to_be_bytes().to_vec()).collect();
    assert_eq!(payloads(&node.fetch("b", b, 1)), want);
    node.commit("b", b, done(1..=600)).await;
    eventually(|| (node.range.space().len() <= before).then_some(())).await;
}

#[tokio::test]
async fn an_insert_is_not_tried_again_and_other_changes_are() {
    let node = Node::new();
    let busy = || node.range.refuse_next(MutateError::Busy { waiting: 1 });
    busy();
    busy();
    let version = node.attach(attach("c", 100)).await;
    busy();
    let refused = node.store.insert(insert(b"1", vec![to("c", version.incarnation)])).await;
    assert!(matches!(refused, Err(InboxError::Unavailable { .. })));
    node.queue("c", version, b"2").await;
    busy();
    node.commit("c", version, done([1])).await;
    assert_eq!(node.store.stats().done, 1);
    node.range.refuse_next(MutateError::Unknown);
    assert_eq!(node.store.commit(&inbox("c"), version, done([1])).await, Err(InboxError::Unknown));
}

#[tokio::test]
async fn inserts_stand_in_the_order_of_the_calls_however_they_are_awaited() {
    let node = Node::new();
    let version = node.attach(attach("c", 100)).await;
    node.range.hold();
    let mut inserts: Vec<_> =
        (0..5u8).map(|n| node.store.insert(insert(&[n], vec![to("c", version.incarnation)]))).collect();
    inserts.reverse();
    node.range.release();
    for insert in inserts {
        assert_eq!(insert.await, Ok(vec![InsertOutcome::Stored]));
    }
    assert_eq!(payloads(&node.fetch("c", version, 1)), [[0], [1], [2], [3], [4]]);
    assert_eq!(node.told(), [Told::Queued(inbox("c"), version)]);
}

#[tokio::test]
async fn operators_page_through_the_inboxes_of_a_tenant() {
    let node = Node::new();
    let mut versions = Vec::new();
    for name in ["a", "b", "c"] {
        versions.push(node.attach(attach(name, 100)).await);
    }
    let mut other = attach("a", 100);
    other.inbox.tenant = TenantId::new("another").unwrap();
    node.attach(other).await;
    node.detach("b", versions[1], WillFate::Discard).await;
    node.queue("b", versions[1], b"1").await;

    let tenant = TenantId::default();
    let counts = ["another", "nobody"].map(|name| node.store.count_of(&TenantId::new(name).unwrap()));
    assert_eq!((node.store.count_of(&tenant), counts), (3, [1, 0]));
    let page = node.store.list(&tenant, None, 2);
    assert_eq!(page.iter().map(|i| i.inbox.clone()).collect::<Vec<_>>(), [inbox("a"), inbox("b")]);
    assert_eq!((page[0].attached, page[0].messages), (Some(RUN), 0));
    assert_eq!((page[1].attached, page[1].messages, page[1].expires_at), (None, 1, Some(START.plus_secs(100))));
    let rest = node.store.list(&tenant, Some(&client("b")), 10);
    assert_eq!(rest.into_iter().map(|i| i.inbox).collect::<Vec<_>>(), [inbox("c")]);
}

/// A session fetches while others queue, with next to no memory for it: each entry comes once and in order, wherever it is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_beside_inserts_skips_nothing() {
    const MESSAGES: u64 = 3000;
    let config = InboxConfig { cache_bytes: 1000, cache_bytes_per_inbox: 600, ..InboxConfig::new(NODE) };
    let node = Node::with(config);
    let mut attach = attach("c", 100);
    attach.limits.messages = u64::MAX;
    let version = node.attach(attach).await;
    let (store, range) = (node.store.clone(), node.range.clone());
    let publisher = tokio::spawn(async move {
        for n in 0..MESSAGES {
            if n % 7 == 0 {
                range.hold();
            }
            drop(store.insert(insert(&n.to_be_bytes(), vec![to("c", version.incarnation)])));
            if n % 7 == 6 {
                range.release();
                tokio::task::yield_now().await;
            }
        }
        range.release();
    });
    let mut next = 1;
    while next <= MESSAGES {
        let entries = node.store.fetch(&inbox("c"), version, next, 16, 1 << 20).unwrap();
        for entry in &entries {
            assert_eq!(entry.seq, next, "skipped or repeated");
            assert_eq!(&entry.message.payload[..], (next - 1).to_be_bytes());
            next += 1;
        }
        if entries.is_empty() {
            tokio::task::yield_now().await;
        }
    }
    publisher.await.unwrap();
    assert!(node.store.stats().cached_bytes <= 1000);
    assert!(node.clock.wall() == START);
    node.range.ready().await;
}
