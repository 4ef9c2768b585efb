use super::*;
use crate::RetainCoproc;
use crate::testing::{Replica, message, tenant};
use base_types::{ManualClock, WallMs};
use std::time::Duration;

fn store(config: RetainConfig) -> (RetainStore, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(WallMs(1_000)));
    let (coproc, figures) = RetainCoproc::new();
    let range = Arc::new(Replica::new(coproc, Arc::clone(&clock)));
    (RetainStore::new(range, figures, Arc::clone(&clock) as Arc<dyn Clock>, config), clock)
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
    let (store, _) = store(RetainConfig::default());
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
    let (store, _) = store(RetainConfig::default());
    retain(&store, message("a", "1", None)).await.unwrap();
    retain(&store, message("a", "", None)).await.unwrap();
    retain(&store, message("never/there", "", None)).await.unwrap();
    assert!(payloads(&store, "#").is_empty());
    assert_eq!(store.topic_count(), 0);
}

#[tokio::test]
async fn a_message_comes_back_as_it_was() {
    let (store, _) = store(RetainConfig::default());
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
    let (store, clock) = store(RetainConfig::default());
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
    let (store, _) = store(RetainConfig::default());
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
    let (store, _) = store(RetainConfig { topics_max: Some(1) });
    retain(&store, message("a", "1", None)).await.unwrap();
    assert_eq!(retain(&store, message("b", "1", None)).await, Err(RetainError::TooMany { limit: 1 }));
    retain(&store, message("a", "2", None)).await.unwrap();
    assert_eq!(store.retain(&tenant("u"), Arc::new(message("b", "1", None))).await, Ok(()));
    assert_eq!(payloads(&store, "#"), ["2"]);
}
