use super::*;
use base_types::{TopicName, filter_matches};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).unwrap()
}

fn trie_of(filters: &[&str]) -> TopicTrie<String> {
    let mut trie = TopicTrie::new();
    for text in filters {
        trie.insert(&filter(text), (*text).to_owned());
    }
    trie
}

fn matches(trie: &TopicTrie<String>, topic: &str) -> Vec<String> {
    let mut found = Vec::new();
    trie.for_each_match(topic, |value| found.push(value.clone()));
    found.sort();
    found
}

#[test]
fn multi_level_wildcard_matches_its_parent_level() {
    let trie = trie_of(&["#", "a/#", "a/b/#", "a/+/#", "a/b/c/#"]);
    assert_eq!(matches(&trie, "a/b"), ["#", "a/#", "a/+/#", "a/b/#"]);
    assert_eq!(matches(&trie, "a"), ["#", "a/#"]);
    assert_eq!(matches(&trie, "b"), ["#"]);
}

#[test]
fn leading_wildcards_leave_system_topics_alone() {
    let trie = trie_of(&["#", "+", "+/x", "$SYS/#", "$SYS/+", "$SYS/x"]);
    assert_eq!(matches(&trie, "$SYS/x"), ["$SYS/#", "$SYS/+", "$SYS/x"]);
    assert_eq!(matches(&trie, "$SYS"), ["$SYS/#"]);
    assert_eq!(matches(&trie, "a/x"), ["#", "+/x"]);
}

#[test]
fn empty_levels_are_levels() {
    let trie = trie_of(&["/", "+/+", "/+", "a//b", "a/+/b", "+", "//", "/#"]);
    assert_eq!(matches(&trie, "/"), ["+/+", "/", "/#", "/+"]);
    assert_eq!(matches(&trie, "a//b"), ["a/+/b", "a//b"]);
    assert_eq!(matches(&trie, "//"), ["/#", "//"]);
}

#[test]
fn levels_of_any_length_are_kept() {
    let long = "l".repeat(300);
    let (fifteen, sixteen) = ("x".repeat(15), "x".repeat(16));
    let filters = [format!("a/{long}/b"), format!("{fifteen}/{sixteen}"), format!("{sixteen}/{fifteen}")];
    let mut trie = TopicTrie::new();
    for text in &filters {
        trie.insert(&filter(text), text.clone());
    }
    for text in &filters {
        assert_eq!(matches(&trie, text), std::slice::from_ref(text));
        assert_eq!(trie.remove(&filter(text)), Some(text.clone()));
    }
    assert!(trie.is_empty());
}

#[test]
fn a_topic_of_32768_levels_neither_recurses_nor_explodes() {
    let deep = vec!["a"; 32_768].join("/");
    let mut trie = trie_of(&["#", "a/#", "+/+/#", &deep]);
    assert_eq!(matches(&trie, &deep).len(), 4);
    assert_eq!(matches(&trie, &"/".repeat(65_535)), ["#", "+/+/#"]);
    assert!(trie.remove(&filter(&deep)).is_some());
    assert_eq!(trie.nodes.len() - trie.free_nodes.len(), 4);
}

#[test]
fn removing_all_gives_the_memory_back() {
    let filters: Vec<_> = (0..1000).map(|i| filter(&format!("s/{}/{i}/+/a-rather-long-level", i % 7))).collect();
    let mut trie = TopicTrie::new();
    for f in &filters {
        trie.insert(f, ());
    }
    for f in &filters {
        assert_eq!(trie.remove(f), Some(()));
        assert_eq!(trie.remove(f), None);
    }
    assert_eq!((trie.nodes.len(), trie.nodes.capacity(), trie.children.len(), trie.values.len()), (1, 1, 0, 0));
}

fn topics() -> impl Strategy<Value = String> {
    "\\$?([abc]|/|a-level-of-20-bytes){1,6}".prop_filter("topic", |t| TopicName::new(t.as_str()).is_ok())
}

fn filters() -> impl Strategy<Value = TopicFilter> {
    ("\\$?", prop::collection::vec("[abc]|\\+||a-level-of-20-bytes", 0..5), any::<bool>())
        .prop_map(|(dollar, mut levels, multi)| {
            if multi {
                levels.push("#".to_owned());
            }
            dollar + &levels.join("/")
        })
        .prop_filter_map("filter", |text| TopicFilter::new(text).ok())
}

#[derive(Clone, Debug)]
enum Op {
    Insert(TopicFilter, u32),
    GetOrInsert(TopicFilter, u32),
    Remove(TopicFilter),
    RemoveNth(usize),
    Match(String),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(
        prop_oneof![
            (filters(), any::<u32>()).prop_map(|(f, v)| Op::Insert(f, v)),
            (filters(), any::<u32>()).prop_map(|(f, v)| Op::GetOrInsert(f, v)),
            filters().prop_map(Op::Remove),
            any::<usize>().prop_map(Op::RemoveNth),
            topics().prop_map(Op::Match),
        ],
        0..120,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Against a map of filters and the matching rule of `base-types`.
    #[test]
    fn it_behaves_like_a_list_of_filters(ops in ops()) {
        let mut trie = TopicTrie::new();
        let mut list = BTreeMap::new();
        for op in ops {
            match op {
                Op::Insert(f, v) => prop_assert_eq!(trie.insert(&f, v), list.insert(f, v)),
                Op::GetOrInsert(f, v) => {
                    let want = *list.entry(f.clone()).or_insert(v);
                    prop_assert_eq!(*trie.get_or_insert_with(&f, || v), want);
                }
                Op::Remove(f) => prop_assert_eq!(trie.remove(&f), list.remove(&f)),
                Op::RemoveNth(n) => {
                    if let Some(f) = list.keys().nth(n % list.len().max(1)).cloned() {
                        prop_assert_eq!(trie.remove(&f), list.remove(&f));
                    }
                }
                Op::Match(topic) => {
                    let mut found = Vec::new();
                    trie.for_each_match(&topic, |v| found.push(*v));
                    let mut want: Vec<_> =
                        list.iter().filter(|(f, _)| filter_matches(f.as_str(), &topic)).map(|(_, v)| *v).collect();
                    found.sort_unstable();
                    want.sort_unstable();
                    prop_assert_eq!(found, want, "{}", topic);
                }
            }
            prop_assert_eq!(trie.len(), list.len());
        }
        for (f, v) in &mut list {
            prop_assert_eq!(trie.get(f), Some(&*v));
            prop_assert_eq!(trie.get_mut(f), Some(v));
        }
        let all: BTreeMap<_, _> = trie.iter().map(|(f, v)| (f, *v)).collect();
        prop_assert_eq!(all, list);
    }
}
