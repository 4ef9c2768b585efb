use super::*;
use crate::RetainCoproc;
use crate::testing::{message, tenant};
use base_kv_api::testing::{MemGroup, MemRange};
use base_types::{ManualClock, WallMs};
use std::time::Duration;

fn store(config: RetainConfig) -> (RetainStore, MemRange, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(WallMs(1_000)));
    let (coproc, figures) = RetainCoproc::new();
    let range = MemRange::new(coproc, clock.clone()).unwrap();
    (RetainStore::new(Arc::new(range.clone()), figures, clock.clone(), config), range, clock)
}

async fn retain(store: &RetainStore, message: Message) -> Result<(), RetainError> {
    store.retain(&tenant("t"), Arc::new(message)).await
}

fn payloads(store: &RetainStore, filter: &str) -> Vec<String> {
    let found = store.matches(&tenant("t"), &TopicFilter::new(filter).unwrap(), None, usize::MAX).unwrap();
    found.iter().map(|m| String::from_utf8(m.payload.to_vec()).unwrap()).collect()
}

#[tokio::test]
async fn the_last_message_of_a_topic_is_kept() {
    let (store, ..) = store(RetainConfig::default());
    for payload in ["1", "2", "3"] {
        retain(&store, message("a/b", payload, None)).await.unwrap();
    }
    retain(&store, message("a/c", "c", None)).await.unwrap();
    assert_eq!(payloads(&store, "a/b"), ["3"]);
    assert_eq!(payloads(&store, "a/+"), ["3", "c"]);
    assert_eq!(store.topic_count(), 2);
}

#[tokio::test]
async fn an_empty_payload_clears() {
    let (store, ..) = store(RetainConfig::default());
    retain(&store, message("a", "1", None)).await.unwrap();
    retain(&store, message("a", "", None)).await.unwrap();
    retain(&store, message("never/there", "", None)).await.unwrap();
    assert!(payloads(&store, "#").is_empty());
    assert_eq!(store.topic_count(), 0);
}

#[tokio::test]
async fn a_message_comes_back_as_it_was() {
    let (store, ..) = store(RetainConfig::default());
    let sent = Message {
        properties: Bytes::from_static(b"\x26\0\x01k\0\x01v"),
        publisher: Some(base_types::ClientId::new("c").unwrap()),
        ..message("a", "payload", Some(60_000))
    };
    retain(&store, sent.clone()).await.unwrap();
    let found = store.matches(&tenant("t"), &TopicFilter::new("a").unwrap(), None, 1).unwrap();
    assert_eq!(*found[0], sent);
}

#[tokio::test]
async fn expired_messages_are_not_read_and_then_collected() {
    let (store, _, clock) = store(RetainConfig::default());
    for i in 0..2_500 {
        retain(&store, message(&format!("a/{i}"), "x", Some(2_000))).await.unwrap();
    }
    retain(&store, message("b", "lives", Some(2_001))).await.unwrap();
    assert_eq!(store.collect_expired().await, Ok(0));
    clock.advance(Duration::from_secs(1));
    assert_eq!(payloads(&store, "#"), ["lives"]);
    assert_eq!(store.topic_count(), 2_501);
    assert_eq!(store.collect_expired().await, Ok(2_500));
    assert_eq!(store.topic_count(), 1);
}

#[tokio::test]
async fn a_page_is_full_unless_it_is_the_last() {
    let (store, ..) = store(RetainConfig::default());
    for i in 0..25 {
        // Every other one has expired and takes no place in a page.
        retain(&store, message(&format!("a/{i:02}"), "x", (i % 2 == 0).then_some(500))).await.unwrap();
    }
    let filter = TopicFilter::new("a/#").unwrap();
    let (mut sizes, mut after) = (Vec::new(), None);
    loop {
        let page = store.matches(&tenant("t"), &filter, after.as_ref(), 5).unwrap();
        sizes.push(page.len());
        let Some(last) = page.last() else { break };
        after = Some(last.topic.clone());
    }
    assert_eq!(sizes, [5, 5, 2, 0]);
}

#[tokio::test]
async fn one_topic_too_many_is_refused_by_its_limit() {
    let (store, ..) = store(RetainConfig { topics_max: Some(1) });
    retain(&store, message("a", "1", None)).await.unwrap();
    assert_eq!(retain(&store, message("b", "1", None)).await, Err(RetainError::TooMany { limit: 1 }));
    retain(&store, message("a", "2", None)).await.unwrap();
    assert_eq!(store.retain(&tenant("u"), Arc::new(message("b", "1", None))).await, Ok(()));
    assert_eq!(payloads(&store, "#"), ["2"]);
}

#[tokio::test]
async fn changes_are_applied_in_the_order_of_the_calls() {
    let (store, range, _) = store(RetainConfig::default());
    range.hold();
    let calls: Vec<_> =
        ["1", "", "2", "3"].map(|payload| store.retain(&tenant("t"), Arc::new(message("a", payload, None)))).into();
    assert!(payloads(&store, "a").is_empty());
    range.release();
    for call in calls.into_iter().rev() {
        call.await.unwrap();
    }
    assert_eq!(payloads(&store, "a"), ["3"]);
}

#[tokio::test]
async fn a_refusal_is_told_and_nothing_is_changed() {
    let (store, range, _) = store(RetainConfig::default());
    range.refuse_next(MutateError::Busy { waiting: 9 });
    let refused = retain(&store, message("a", "1", None)).await;
    assert!(matches!(refused, Err(RetainError::Unavailable { .. })), "{refused:?}");
    range.refuse_next(MutateError::Unknown);
    assert_eq!(retain(&store, message("a", "1", None)).await, Err(RetainError::Unknown));
    assert!(payloads(&store, "#").is_empty());
}

#[tokio::test]
async fn a_restart_finds_what_was_retained() {
    let (store, range, clock) = store(RetainConfig::default());
    retain(&store, message("a/b", "1", Some(5_000))).await.unwrap();
    retain(&store, message("a/c", "2", None)).await.unwrap();
    let (coproc, figures) = RetainCoproc::new();
    let range = MemRange::over(range.space(), coproc, clock.clone()).unwrap();
    let store = RetainStore::new(Arc::new(range), figures, clock.clone(), RetainConfig::default());
    assert_eq!(store.topic_count(), 2);
    assert_eq!(payloads(&store, "a/#"), ["1", "2"]);
    clock.advance(Duration::from_secs(10));
    assert_eq!(store.collect_expired().await, Ok(1));
    assert_eq!(payloads(&store, "a/#"), ["2"]);
}

fn cluster() -> (MemGroup, Vec<RetainStore>) {
    let clock = Arc::new(ManualClock::new(WallMs(1_000)));
    let (coprocs, figures): (Vec<_>, Vec<_>) = (0..3).map(|_| RetainCoproc::new()).unzip();
    let group = MemGroup::new(coprocs, clock.clone()).unwrap();
    let store =
        |(node, figures)| RetainStore::new(Arc::new(group.on(node)), figures, clock.clone(), RetainConfig::default());
    let stores = figures.into_iter().enumerate().map(store).collect();
    (group, stores)
}

#[tokio::test]
async fn a_fresh_view_has_what_was_acknowledged_on_another_node() {
    let (group, stores) = cluster();
    retain(&stores[0], message("a", "old", None)).await.unwrap();
    group.hold(1);
    retain(&stores[0], message("a", "new", None)).await.unwrap();
    retain(&stores[0], message("b", "1", None)).await.unwrap();
    assert_eq!(payloads(&stores[1], "#"), ["old"]);
    let store = stores[1].clone();
    let fresh = tokio::spawn(async move { store.fresh().await.map(|()| payloads(&store, "#")) });
    tokio::task::yield_now().await;
    assert!(!fresh.is_finished());
    group.release(1);
    assert_eq!(fresh.await.unwrap(), Ok(vec!["new".to_owned(), "1".to_owned()]));
    assert_eq!(stores.iter().map(RetainService::topic_count).collect::<Vec<_>>(), [2; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_view_is_not_waited_for_longer_than_five_seconds() {
    let (group, stores) = cluster();
    group.hold(1);
    retain(&stores[0], message("a", "1", None)).await.unwrap();
    for leader in [Some(0), None] {
        group.lead(leader);
        let start = Instant::now();
        let refused = stores[1].fresh().await;
        assert!(matches!(refused, Err(RetainError::Unavailable { .. })), "{refused:?}");
        assert!(start.elapsed() <= FRESH_WAIT);
    }
    group.release(1);
    group.lead(Some(1));
    assert_eq!(stores[1].fresh().await, Ok(()));
    assert_eq!(stores.iter().map(RetainService::leads).collect::<Vec<_>>(), [false, true, false]);
}

#[tokio::test]
async fn a_page_looks_at_so_much_and_no_more() {
    let (store, ..) = store(RetainConfig::default());
    for i in 0..12_000 {
        retain(&store, message(&format!("a/{i:05}/b"), "b", None)).await.unwrap();
    }
    retain(&store, message("a/11500/c", "c", None)).await.unwrap();
    let filter = TopicFilter::new("a/+/c").unwrap();
    let (mut found, mut after) = (Vec::new(), None);
    let mut pages = 0;
    loop {
        let page = store.page(&tenant("t"), &filter, after.as_ref(), 10).unwrap();
        found.extend(page.messages);
        pages += 1;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((found.len(), pages), (1, 3));
    assert_eq!(payloads(&store, "a/+/c"), ["c"]);
}
