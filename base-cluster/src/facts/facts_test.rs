use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn run(node: u64, incarnation: u64) -> NodeIncarnation {
    NodeIncarnation { node: NodeId(node), incarnation: Incarnation(incarnation) }
}

/// As it goes over the wire.
fn sent(deltas: &[Delta]) -> Vec<Delta> {
    let mut out = Vec::new();
    put_list(deltas, &mut out, Delta::put);
    let mut r = Reader::new(out.into());
    let deltas = Delta::get_list(&mut r).unwrap();
    r.finish().unwrap();
    deltas
}

/// `to` is told what it lacks of what `from` has.
fn tell(books: &mut [FactBook], from: usize, to: usize) {
    let deltas = books[from].lacking(&books[to].digest());
    books[to].learn(sent(&deltas));
}

#[derive(Clone, Debug)]
enum Step {
    Write {
        node: usize,
        key: u8,
        value: Option<u8>,
    },
    /// The node's own facts, as if the receiver had them up to change `upto`; it may be wrong.
    Push {
        from: usize,
        to: usize,
        upto: Option<u64>,
    },
    Compare {
        from: usize,
        to: usize,
    },
    Restart {
        node: usize,
    },
}

const NODES: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    let node = 0..NODES;
    prop_oneof![
        5 => (node.clone(), 0..5u8, any::<Option<u8>>()).prop_map(|(node, key, value)| Step::Write { node, key, value }),
        3 => (node.clone(), 0..NODES, proptest::option::of(0..20u64))
            .prop_map(|(from, to, upto)| Step::Push { from, to, upto }),
        3 => (node.clone(), 0..NODES).prop_map(|(from, to)| Step::Compare { from, to }),
        1 => node.prop_map(|node| Step::Restart { node }),
    ]
}

proptest! {
    #[test]
    fn all_agree_with_each_owner_whatever_got_lost_on_the_way(steps in proptest::collection::vec(step(), 1..80)) {
        let mut books: Vec<_> = (0..NODES).map(|node| FactBook::new(run(node as u64, 1))).collect();
        for step in steps {
            match step {
                Step::Write { node, key, value } => {
                    let value = value.map(|value| Bytes::from(vec![value; 3]));
                    books[node].write(&format!("key {key}"), value).unwrap();
                }
                Step::Push { from, to, upto } => {
                    let deltas = books[from].own_since(upto);
                    books[to].learn(sent(&deltas));
                }
                Step::Compare { from, to } => tell(&mut books, from, to),
                Step::Restart { node } => {
                    let me = books[node].me;
                    books[node] = FactBook::new(run(me.node.0, me.incarnation.0 + 1));
                }
            }
            // Nobody has ever anything of a run that the run has not written by then.
            for (book, owner) in books.iter().flat_map(|book| books.iter().map(move |owner| (book, owner))) {
                let mine = owner.facts.of(owner.me.node).unwrap();
                if let Some(theirs) = book.facts.of(owner.me.node).filter(|theirs| theirs.run == mine.run) {
                    prop_assert!(theirs.upto <= mine.upto);
                }
            }
        }
        for (from, to) in (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to))) {
            tell(&mut books, from, to);
        }
        for owner in 0..NODES {
            let node = NodeId(owner as u64);
            let truth: BTreeSet<_> = books[owner].facts.of(node).unwrap().iter().collect();
            for book in &books {
                prop_assert_eq!(book.facts.of(node).unwrap().iter().collect::<BTreeSet<_>>(), truth.clone());
            }
        }
    }

    #[test]
    fn noise_is_no_delta_or_does_no_harm(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut book = FactBook::new(run(1, 1));
        book.write("k", Some("v".into())).unwrap();
        if let Ok(deltas) = Delta::get_list(&mut Reader::new(noise.into())) {
            book.learn(deltas);
        }
        prop_assert_eq!(book.facts.get(NodeId(1), "k").map(|value| &value[..]), Some(&b"v"[..]));
    }
}

#[test]
fn much_comes_in_parts() {
    let mut books = [FactBook::new(run(0, 1)), FactBook::new(run(1, 1))];
    for key in 0..10 {
        books[0].write(&key.to_string(), Some(vec![key; VALUE / 2].into())).unwrap();
    }
    let mut rounds = 0;
    while books[1].facts.of(NodeId(0)).is_none_or(|facts| facts.iter().count() < 10) {
        let size: usize = books[0].lacking(&books[1].digest()).iter().flat_map(|delta| &delta.entries).count();
        assert!(size <= 3, "a message has not much more than {CHUNK} bytes");
        tell(&mut books, 0, 1);
        rounds += 1;
    }
    assert!((4..=5).contains(&rounds), "{rounds}");
}

#[test]
fn what_was_forgotten_is_not_taken_back_from_others() {
    let mut books = [FactBook::new(run(0, 1)), FactBook::new(run(1, 1)), FactBook::new(run(2, 1))];
    books[0].write("k", Some("v".into())).unwrap();
    tell(&mut books, 0, 1);
    tell(&mut books, 0, 2);
    assert!(books[1].forget(|run| run.node == NodeId(0)));
    tell(&mut books, 2, 1);
    assert!(books[1].facts.of(NodeId(0)).is_none());
    books[1].remember(run(0, 1));
    tell(&mut books, 2, 1);
    assert!(books[1].facts.of(NodeId(0)).is_some(), "it is alive after all");
}
