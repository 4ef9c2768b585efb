use crate::schema::{SEPARATOR, retained_key, tenant_prefix};
use base_kv_api::{KvError, KvRead, Visit};
use base_types::{TenantId, TopicFilter, TopicName};
use std::ops::Range;

/// The way of a filter through the retained keys of a tenant.
///
/// Keys are in order of levels. At each key the filter says: this one, or nothing before that one. What lies between is skipped by reading on
/// when it is near and by a new seek when it is not.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    levels: Vec<&'a [u8]>,
    tenant_len: usize,
    keys: Range<Vec<u8>>,
}

/// What a filter says to a key.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Match,
    /// No match, and none before this key.
    Leap(Vec<u8>),
    /// No match, and none behind it.
    End,
}

/// A seek costs about as much as reading on over so many keys.
const NEAR: usize = 8;

impl<'a> Walk<'a> {
    /// The keys that match `filter` and come after that of `after`.
    pub(crate) fn new(tenant: &TenantId, filter: &'a TopicFilter, after: Option<&TopicName>) -> Self {
        let levels: Vec<_> = filter.as_str().as_bytes().split(|&b| b == b'/').collect();
        let tenant_key = tenant_prefix(tenant);
        // All that can match begins with the levels before the first wildcard, and then ends or goes on below.
        let literal: Vec<_> = levels.iter().take_while(|level| !is_wildcard(level)).copied().collect();
        let mut start = tenant_key.clone();
        start.extend(literal.join(&SEPARATOR));
        let mut end = start.clone();
        end.push(match literal.len() {
            0 => u8::MAX, // in no UTF-8
            n if n == levels.len() => SEPARATOR,
            _ => SEPARATOR + 1,
        });
        if let Some(after) = after {
            let mut behind = retained_key(tenant, after.as_str());
            behind.push(SEPARATOR);
            start = start.max(behind);
        }
        Self { levels, tenant_len: tenant_key.len(), keys: start..end }
    }

    /// Visits what matches, in key order, until the visitor has enough. Looks at `looks` keys at most; answers the last of them when it
    /// stopped for that.
    pub(crate) fn run(
        mut self,
        keys: &dyn KvRead,
        mut looks: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<Option<Vec<u8>>, KvError> {
        if !self.levels.iter().any(|level| is_wildcard(level)) {
            if self.keys.start < self.keys.end
                && let Some(value) = keys.get(&self.keys.start)?
            {
                visit(&self.keys.start, &value);
            }
            return Ok(None);
        }
        let mut tired = None;
        let mut leaped = true;
        while leaped && self.keys.start < self.keys.end {
            leaped = false;
            let mut next = std::mem::take(&mut self.keys.start);
            let start = next.clone();
            let mut skipped = 0;
            keys.scan(&start..&self.keys.end, &mut |key, value| {
                looks = looks.saturating_sub(1);
                let wanted = if key < next.as_slice() {
                    skipped += 1;
                    leaped = skipped > NEAR;
                    if leaped { Visit::Enough } else { Visit::More }
                } else {
                    skipped = 0;
                    match self.step(key) {
                        Step::Match => visit(key, value),
                        Step::Leap(to) => {
                            next = to;
                            Visit::More
                        }
                        Step::End => Visit::Enough,
                    }
                };
                if looks == 0 && (leaped || wanted == Visit::More) {
                    tired = Some(key.to_vec());
                    leaped = false;
                    return Visit::Enough;
                }
                wanted
            })?;
            self.keys.start = next;
        }
        Ok(tired)
    }

    fn step(&self, key: &[u8]) -> Step {
        let topic = &key[self.tenant_len..];
        if topic.first() == Some(&b'$') && self.levels.first().is_some_and(|level| is_wildcard(level)) {
            // [MQTT-4.7.2-1]: on to the first topic that does not begin with `$`.
            return Step::Leap([&key[..self.tenant_len], &[b'$' + 1]].concat());
        }
        // Where the level of the last `+` ends in the key.
        let mut plus_end = None;
        let mut at = self.tenant_len;
        for (i, &level) in self.levels.iter().enumerate() {
            if level == b"#" {
                return Step::Match;
            }
            if at > key.len() {
                // The key ended early. Below it there may be something.
                return Step::Leap([key, &[SEPARATOR], if level == b"+" { b"" } else { level }].concat());
            }
            let end = key[at..].iter().position(|&b| b == SEPARATOR).map_or(key.len(), |len| at + len);
            if level == b"+" {
                plus_end = Some(end);
            } else if key[at..end] < *level {
                return Step::Leap([&key[..at], level].concat());
            } else if key[at..end] > *level {
                return Self::behind(key, plus_end);
            }
            at = end + 1;
            if i + 1 == self.levels.len() {
                return if end == key.len() { Step::Match } else { Self::behind(key, plus_end) };
            }
        }
        Step::End
    }

    /// Behind all that lies below the level of the last `+`.
    fn behind(key: &[u8], plus_end: Option<usize>) -> Step {
        plus_end.map_or(Step::End, |end| Step::Leap([&key[..end], &[SEPARATOR + 1]].concat()))
    }
}

fn is_wildcard(level: &[u8]) -> bool {
    matches!(level, b"+" | b"#")
}

#[cfg(test)]
mod tests {
    use super::*;
    use base_kv_api::KvSpace;
    use base_kv_api::testing::MemSpace;
    use base_types::filter_matches;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::cell::Cell;

    /// Counts how many keys scans look at.
    struct Counting {
        keys: MemSpace,
        visited: Cell<usize>,
    }

    impl KvRead for Counting {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
            self.keys.get(key)
        }

        fn scan(&self, keys: Range<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), KvError> {
            self.keys.scan(keys, &mut |key, value| {
                self.visited.set(self.visited.get() + 1);
                visit(key, value)
            })
        }
    }

    fn tenant() -> TenantId {
        TenantId::new("t").unwrap()
    }

    /// Keys of topics, among those of tenants before and behind.
    fn keys_of(topics: &[String]) -> MemSpace {
        let mut keys = MemSpace::default();
        for tenant in ["s", "t", "u", "tt"].map(|t| TenantId::new(t).unwrap()) {
            for topic in topics {
                keys.put(&retained_key(&tenant, topic), format!("{tenant}:{topic}").as_bytes());
            }
        }
        keys
    }

    /// What a walk finds, and the topic after which it goes on when it looked at too much.
    fn walk(
        keys: &dyn KvRead,
        filter: &TopicFilter,
        after: Option<&TopicName>,
        max: usize,
        looks: usize,
    ) -> (Vec<String>, Option<TopicName>) {
        let mut found = Vec::new();
        let tired = Walk::new(&tenant(), filter, after)
            .run(keys, looks, &mut |_, value| {
                found.push(String::from_utf8(value.to_vec()).unwrap().strip_prefix("t:").unwrap().to_owned());
                if found.len() < max { Visit::More } else { Visit::Enough }
            })
            .unwrap();
        (found, tired.map(|key| crate::schema::topic(&key).unwrap()))
    }

    fn topics() -> impl Strategy<Value = String> {
        "\\$?([ab\\-\u{1}]{0,2}/){0,3}[ab]{0,2}".prop_filter("not empty", |topic| !topic.is_empty())
    }

    fn filters() -> impl Strategy<Value = TopicFilter> {
        "\\$?([ab\\-]{0,2}/|\\+/|[ab]/){0,3}([ab]{0,2}|\\+|#)"
            .prop_filter_map("a filter", |text| TopicFilter::new(text).ok())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Against the matching rule of `base-types`, in pages of any size and with any patience.
        #[test]
        fn pages_together_are_what_matches(
            topics in prop::collection::btree_set(topics(), 0..60),
            filter in filters(),
            page in 1usize..5,
            looks in 1usize..20,
        ) {
            let topics: Vec<_> = topics.into_iter().collect();
            let keys = keys_of(&topics);
            let mut want: Vec<_> = topics.into_iter().filter(|topic| filter_matches(filter.as_str(), topic)).collect();
            want.sort_by_key(|topic| retained_key(&tenant(), topic));
            prop_assert_eq!(walk(&keys, &filter, None, usize::MAX, usize::MAX), (want.clone(), None));
            let (mut paged, mut after): (Vec<String>, _) = (Vec::new(), None);
            loop {
                let (found, tired) = walk(&keys, &filter, after.as_ref(), page, looks);
                prop_assert!(found.len() <= page && found.len() <= looks);
                let full = found.len() == page;
                paged.extend(found);
                after = if full { paged.last().map(|topic| TopicName::new(topic.as_str()).unwrap()) } else { tired };
                if after.is_none() {
                    break;
                }
            }
            prop_assert_eq!(paged, want);
        }
    }

    #[test]
    fn a_walk_leaps_over_what_cannot_match() {
        let topics: Vec<_> = (0..100).flat_map(|i| (0..100).map(move |j| format!("a/{i:02}/{j:02}"))).collect();
        let keys = Counting { keys: keys_of(&topics), visited: Cell::default() };
        let filter = TopicFilter::new("a/+/42").unwrap();
        assert_eq!(walk(&keys, &filter, None, usize::MAX, usize::MAX).0.len(), 100);
        // For each of the hundred: its match, and what is read on behind it and before it.
        assert!(keys.visited.get() < 100 * 2 * (NEAR + 3), "{}", keys.visited.get());
    }
}
