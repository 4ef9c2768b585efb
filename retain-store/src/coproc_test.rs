use super::*;
use crate::testing::{message, tenant};
use base_kv_api::testing::CoprocHarness;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Op {
    Retain { tenant: &'static str, topic: String, payload: String, lives_for: Option<u64> },
    Purge { max: u64 },
}

const TOPICS_MAX: u64 = 4;
const LOSER: RangeId = RangeId { id: 0, lineage: 7, epoch: 1 };

fn ops() -> impl Strategy<Value = Vec<(u64, Op)>> {
    let retain = (prop::sample::select(&["t", "u"]), "[ab]/[abc]", "x{0,2}", prop::option::of(0u64..50));
    let op = prop_oneof![
        8 => retain.prop_map(|(tenant, topic, payload, lives_for)| Op::Retain { tenant, topic, payload, lives_for }),
        1 => (0u64..4).prop_map(|max| Op::Purge { max }),
    ];
    prop::collection::vec((0u64..20, op), 0..80)
}

fn harness() -> CoprocHarness<RetainCoproc> {
    CoprocHarness::new(|| RetainCoproc::new().0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Against a map of topics; the harness compares with replicas that restart and replay.
    #[test]
    fn it_behaves_like_a_map_of_topics(ops in ops()) {
        let mut replica = harness();
        let mut now = 0;
        let mut model: BTreeMap<(&str, String), Message> = BTreeMap::new();
        for (pause, op) in ops {
            now += pause;
            let (command, want) = match op {
                Op::Retain { tenant: t, topic, payload, lives_for } => {
                    let message = message(&topic, &payload, lives_for.map(|ms| now + ms));
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
                    let expired = |message: &Message| message.is_expired(WallMs(now));
                    let mut due: Vec<_> = model.iter().filter(|(_, m)| expired(m)).map(|(key, m)| (m.expires_at, key.clone())).collect();
                    due.sort();
                    due.truncate(usize::try_from(max).unwrap());
                    for (_, key) in &due {
                        model.remove(key);
                    }
                    (Command::encode_purge(max), Reply::Purged(due.len() as u64))
                }
            };
            prop_assert_eq!(Reply::decode(replica.apply(WallMs(now), command)), Ok(want));

            let retained = model.iter().map(|((t, topic), m)| {
                let mut value = Vec::new();
                m.encode_to(&mut value);
                (Bytes::from(schema::retained_key(&tenant(t), topic)), Bytes::from(value))
            });
            let expiries = model.iter().filter_map(|((t, topic), m)| {
                let key = schema::expiry_key(m.expires_at?, &schema::retained_key(&tenant(t), topic));
                Some((Bytes::from(key), Bytes::new()))
            });
            let want: BTreeMap<_, _> = retained.chain(expiries).collect();
            let have: BTreeMap<_, _> = replica.space().pairs().map(|(key, value)| (key.clone(), value.clone())).collect();
            prop_assert_eq!(have, want);
            prop_assert_eq!(replica.coproc().figures.topics(), model.len());
        }
        replica.check();
        let (mut restarted, figures) = RetainCoproc::new();
        restarted.reset(replica.space()).unwrap();
        prop_assert_eq!(&restarted.topics, &replica.coproc().topics);
        prop_assert_eq!(figures.topics(), model.len());
    }

    /// What only one of two lineages holds is there afterwards, and doing it again, in whatever pieces, changes nothing.
    #[test]
    fn a_lineage_is_adopted_once(one in ops(), other in ops(), piece in 1usize..4) {
        let [mut winner, loser] = [one, other].map(|ops| {
            let (mut replica, mut now) = (harness(), 0);
            for (pause, op) in ops {
                now += pause;
                if let Op::Retain { tenant: t, topic, payload, lives_for } = op {
                    let message = message(&topic, &payload, lives_for.map(|ms| now + ms));
                    replica.apply(WallMs(now), Command::encode_retain(&tenant(t), &message, None));
                }
            }
            replica
        });
        let retained = |replica: &CoprocHarness<RetainCoproc>| -> BTreeMap<Bytes, Bytes> {
            let pairs = replica.space().pairs().filter(|(key, _)| key[0] == KeyKind::Retained as u8);
            pairs.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        let mut want = retained(&loser);
        want.extend(retained(&winner));
        for _ in 0..2 {
            let mut after = Vec::new();
            loop {
                let mut commands = Vec::new();
                loser.coproc().adopt(LOSER, loser.space(), &after.clone(), &mut |place, command| {
                    after = place.to_vec();
                    commands.push(command);
                    if commands.len() < piece { Visit::More } else { Visit::Enough }
                }).unwrap();
                if commands.is_empty() {
                    break;
                }
                for command in commands {
                    prop_assert_eq!(Reply::decode(winner.apply(WallMs(10_000), command)), Ok(Reply::Done));
                }
            }
            prop_assert_eq!(retained(&winner), want.clone());
        }
        winner.check();
        prop_assert_eq!(winner.coproc().figures.topics(), want.len());
    }

    #[test]
    fn commands_that_make_no_sense_change_nothing(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut replica = harness();
        let op = bytes.get(..2).map(<[u8]>::to_vec);
        let reply = Reply::decode(replica.apply(WallMs(0), bytes)).unwrap();
        prop_assert!(reply == Reply::NotUnderstood || matches!(op.as_deref(), Some([1, 1..=4])));
        prop_assert!(reply != Reply::NotUnderstood || replica.space().is_empty());
    }
}
