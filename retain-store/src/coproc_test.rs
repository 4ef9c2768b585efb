use super::*;
use crate::testing::{Keys, message, tenant};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Op {
    Retain { tenant: &'static str, topic: String, payload: String, lives_for: Option<u64> },
    Purge { max: u64 },
}

const TOPICS_MAX: u64 = 4;

fn ops() -> impl Strategy<Value = Vec<(u64, Op)>> {
    let retain = (prop::sample::select(&["t", "u"]), "[ab]/[abc]", "x{0,2}", prop::option::of(0u64..50));
    let op = prop_oneof![
        8 => retain.prop_map(|(tenant, topic, payload, lives_for)| Op::Retain { tenant, topic, payload, lives_for }),
        1 => (0u64..4).prop_map(|max| Op::Purge { max }),
    ];
    prop::collection::vec((0u64..20, op), 0..80)
}

/// A replica, and time that goes on.
#[derive(Default)]
struct Replica {
    coproc: RetainCoproc,
    keys: Keys,
    now: u64,
}

impl Replica {
    fn apply(&mut self, command: &Bytes) -> Reply {
        let cx = ApplyCx { index: 1, position: 0, stamped: WallMs(self.now) };
        let reply = self.coproc.mutate(&cx, command, &mut self.keys).unwrap();
        self.coproc.applied();
        Reply::decode(reply).unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Against a map of topics. Afterwards a second replica that applied the same has the same bytes, and one that starts from
    /// the keys counts the same.
    #[test]
    fn it_behaves_like_a_map_of_topics(ops in ops()) {
        let (mut one, mut two) = (Replica::default(), Replica::default());
        let mut model: BTreeMap<(&str, String), Message> = BTreeMap::new();
        for (pause, op) in ops {
            one.now += pause;
            two.now = one.now;
            let (command, want) = match op {
                Op::Retain { tenant: t, topic, payload, lives_for } => {
                    let message = message(&topic, &payload, lives_for.map(|ms| one.now + ms));
                    let command = Command::encode_retain(&tenant(t), &message, Some(TOPICS_MAX));
                    let topics = model.keys().filter(|key| key.0 == t).count() as u64;
                    let key = (t, topic);
                    let want = if payload.is_empty() {
                        model.remove(&key);
                        Reply::Done
                    } else if topics >= TOPICS_MAX && !model.contains_key(&key) {
                        Reply::TooMany
                    } else {
                        model.insert(key, message);
                        Reply::Done
                    };
                    (command, want)
                }
                Op::Purge { max } => {
                    let expired = |message: &Message| message.is_expired(WallMs(one.now));
                    let mut due: Vec<_> = model.iter().filter(|(_, m)| expired(m)).map(|(key, m)| (m.expires_at, key.clone())).collect();
                    due.sort();
                    due.truncate(usize::try_from(max).unwrap());
                    for (_, key) in &due {
                        model.remove(key);
                    }
                    (Command::encode_purge(max), Reply::Purged(due.len() as u64))
                }
            };
            prop_assert_eq!(one.apply(&command), want);
            prop_assert_eq!(two.apply(&command), want);

            let retained = model.iter().map(|((t, topic), m)| {
                let mut value = Vec::new();
                m.encode_to(&mut value);
                (schema::retained_key(&tenant(t), topic), Bytes::from(value))
            });
            let expiries = model.iter().filter_map(|((t, topic), m)| {
                Some((schema::expiry_key(m.expires_at?, &schema::retained_key(&tenant(t), topic)), Bytes::new()))
            });
            let want: BTreeMap<_, _> = retained.chain(expiries).collect();
            let have: BTreeMap<_, _> = one.keys.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            prop_assert_eq!(have, want);
            prop_assert_eq!(one.coproc.figures.topics(), model.len());
        }
        prop_assert_eq!(&one.keys, &two.keys);
        let (mut restarted, figures) = RetainCoproc::new();
        restarted.reset(&one.keys).unwrap();
        prop_assert_eq!(&restarted.topics, &one.coproc.topics);
        prop_assert_eq!(figures.topics(), one.coproc.figures.topics());
    }

    #[test]
    fn commands_that_make_no_sense_change_nothing(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut replica = Replica::default();
        let op = bytes.get(..2).map(<[u8]>::to_vec);
        let reply = replica.apply(&bytes.into());
        prop_assert!(reply == Reply::NotUnderstood || matches!(op.as_deref(), Some([1, 1..=3])));
        prop_assert!(reply != Reply::NotUnderstood || replica.keys == Keys::default());
    }
}
