//! Single decisions of the policies, the registry, the controller and the diagnosis.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use base_kv_api::balance::{Balancer, Command, Decision, Joined, Landscape, Liveness, NodeView, ReplicaView, Role};
use base_kv_api::{RangeId, ReplicaId};
use base_kv_balance::{
    BalancerError, BalancerKind, BalancerSpec, Controller, Outcome, ProblemKind, RangeBootstrap, RangeLeader,
    RedundantRangeRemoval, Registry, ReplicaCnt, ReplicaCntOptions, StoreSetup, UnreachableReplicaRemoval, diagnose,
};
use base_types::{Incarnation, NodeId, NodeIncarnation};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const RANGE: RangeId = RangeId { id: 0, lineage: 7, epoch: 0 };
const MINUTE: Duration = Duration::from_secs(60);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The replica on a node, when nothing else is said.
fn on(node: u64) -> ReplicaId {
    ReplicaId { store: node, counter: 1 }
}

/// What node 1 sees of so many nodes.
fn nodes(count: u64) -> Landscape {
    let view = |node| NodeView {
        run: NodeIncarnation { node, incarnation: Incarnation(1) },
        liveness: Liveness::Alive,
        draining: false,
        known: true,
        replicas: Vec::new(),
    };
    Landscape {
        me: NodeId(1),
        store: "inbox".into(),
        nodes: (1..=count).map(|node| (NodeId(node), view(NodeId(node)))).collect(),
        joined: Joined::Majority,
    }
}

/// A range on these nodes, led by the first voter, everybody caught up.
fn with_range(mut landscape: Landscape, range: RangeId, voters: &[u64], learners: &[u64]) -> Landscape {
    let members =
        |of: &[u64]| -> BTreeMap<ReplicaId, NodeId> { of.iter().map(|node| (on(*node), NodeId(*node))).collect() };
    for node in voters.iter().chain(learners) {
        let leads = *node == voters[0];
        let role = if leads {
            Role::Leader
        } else if learners.contains(node) {
            Role::Learner
        } else {
            Role::Follower
        };
        let replica = ReplicaView {
            range,
            replica: on(*node),
            role,
            term: 1,
            leader: Some(on(voters[0])),
            config: 5,
            changing: false,
            voters: members(voters),
            learners: members(learners),
            last: (1, 1000),
            committed: 1000,
            applied: 1000,
            matched: if leads {
                voters.iter().chain(learners).map(|node| (on(*node), 1000)).collect()
            } else {
                BTreeMap::new()
            },
            fault: None,
        };
        landscape.nodes.get_mut(&NodeId(*node)).unwrap().replicas.push(replica);
    }
    landscape
}

fn range(count: u64, voters: &[u64], learners: &[u64]) -> Landscape {
    with_range(nodes(count), RANGE, voters, learners)
}

fn node(landscape: &mut Landscape, id: u64) -> &mut NodeView {
    landscape.nodes.get_mut(&NodeId(id)).unwrap()
}

fn leader(landscape: &mut Landscape) -> &mut ReplicaView {
    &mut node(landscape, 1).replicas[0]
}

fn replica_cnt(voters: u32, learners: i32) -> ReplicaCnt {
    let options = ReplicaCntOptions { learners_per_range: learners, ..ReplicaCntOptions::default() };
    ReplicaCnt::new(&options, &StoreSetup { voters, ..StoreSetup::default() }).unwrap()
}

fn change(voters: &[u64]) -> Decision {
    let voters = voters.iter().map(|node| on(*node)).collect();
    Decision::Now(Command::ChangeVoters { range: RANGE, config: 5, voters })
}

fn add(node: u64) -> Decision {
    Decision::Now(Command::AddLearner { range: RANGE, config: 5, node: NodeId(node) })
}

fn is_quiet(decision: &Decision) -> bool {
    !matches!(decision, Decision::Now(_))
}

#[test]
fn who_has_nobody_to_wait_for_makes_the_range_at_once() {
    let mut balancer = RangeBootstrap::new(BTreeSet::from([0]), seconds(5));
    let landscape = Landscape { joined: Joined::Alone, ..nodes(1) };
    assert_eq!(balancer.balance(Duration::ZERO, &landscape), Decision::Now(Command::Bootstrap { id: 0 }));
    assert_eq!(balancer.balance(seconds(1), &range(1, &[1], &[])), Decision::Idle);
}

#[test]
fn of_a_majority_the_smallest_makes_the_range_when_nothing_changes() {
    let mut balancer = RangeBootstrap::new(BTreeSet::from([0]), seconds(5));
    assert_eq!(balancer.balance(seconds(0), &nodes(2)), Decision::WakeAfter(seconds(1)));
    assert_eq!(balancer.balance(seconds(1), &nodes(3)), Decision::WakeAfter(seconds(1)));
    let make = Decision::Now(Command::Bootstrap { id: 0 });
    assert_eq!(balancer.balance(seconds(2), &nodes(3)), make);
    let mut other = RangeBootstrap::new(BTreeSet::from([0]), seconds(5));
    for second in 0..9 {
        assert!(is_quiet(&other.balance(seconds(second), &Landscape { me: NodeId(2), ..nodes(3) })));
    }
    assert!(other.why().contains("0000000000000001"), "{}", other.why());
}

#[test]
fn without_a_majority_the_range_is_made_after_the_timeout() {
    let mut balancer = RangeBootstrap::new(BTreeSet::from([0]), seconds(5));
    let landscape = Landscape { joined: Joined::Looking { since: seconds(1) }, ..nodes(2) };
    assert_eq!(balancer.balance(seconds(2), &landscape), Decision::WakeAfter(seconds(4)));
    assert_eq!(balancer.balance(seconds(6), &landscape), Decision::Now(Command::Bootstrap { id: 0 }));
    let mut two = RangeBootstrap::new(BTreeSet::from([0, 1]), seconds(5));
    let landscape = Landscape { joined: Joined::Looking { since: seconds(1) }, ..range(1, &[1], &[]) };
    two.balance(seconds(2), &landscape);
    assert!(is_quiet(&two.balance(MINUTE, &landscape)), "range 1 was made with range 0, and is out of reach");
}

#[test]
fn who_was_told_of_others_and_finds_none_never_makes_a_range() {
    let mut balancer = RangeBootstrap::new(BTreeSet::from([0]), seconds(5));
    let landscape = Landscape { joined: Joined::Looking { since: seconds(1) }, ..nodes(1) };
    for minute in 0..100 {
        assert!(is_quiet(&balancer.balance(MINUTE * minute, &landscape)));
    }
    assert!(balancer.why().contains("start one of the seeds"), "{}", balancer.why());
}

#[test]
fn nothing_is_made_while_somebody_may_have_it() {
    let never = |landscape: &Landscape| {
        let mut balancer = RangeBootstrap::new(BTreeSet::from([0]), seconds(5));
        (0..100).all(|second| is_quiet(&balancer.balance(seconds(second), landscape)))
    };
    let mut unknown = nodes(3);
    node(&mut unknown, 3).known = false;
    assert!(never(&unknown));
    for liveness in [Liveness::Dead(MINUTE), Liveness::Left(MINUTE)] {
        let mut gone = with_range(nodes(3), RANGE, &[3], &[]);
        node(&mut gone, 3).liveness = liveness;
        assert!(never(&gone));
    }
}

#[test]
fn every_node_gets_a_learner_and_two_that_caught_up_vote() {
    let mut balancer = replica_cnt(3, -1);
    let first = balancer.balance(seconds(0), &range(3, &[1], &[]));
    assert!(first == add(2) || first == add(3), "{first:?}");
    assert_eq!(balancer.balance(seconds(1), &range(3, &[1], &[2])), add(3), "a third is on its way: two don't vote");
    let mut behind = range(3, &[1], &[2, 3]);
    leader(&mut behind).matched.insert(on(3), 10);
    assert!(is_quiet(&balancer.balance(seconds(2), &behind)));
    assert_eq!(balancer.balance(seconds(3), &range(3, &[1], &[2, 3])), change(&[1, 2, 3]));
    assert!(balancer.why().contains("has caught up"), "{}", balancer.why());
    assert_eq!(balancer.balance(seconds(4), &range(3, &[1, 2, 3], &[])), Decision::Idle);
    assert_eq!(balancer.balance(seconds(5), &range(4, &[1, 2, 3], &[])), add(4));
}

#[test]
fn a_third_that_never_catches_up_is_not_waited_for() {
    let mut balancer = replica_cnt(3, -1);
    let mut behind = range(3, &[1], &[2, 3]);
    leader(&mut behind).matched.insert(on(3), 10);
    assert!(is_quiet(&balancer.balance(seconds(0), &behind)));
    assert!(is_quiet(&balancer.balance(seconds(9), &behind)));
    assert_eq!(balancer.balance(seconds(10), &behind), change(&[1, 2]));
}

#[test]
fn two_nodes_are_two_voters_and_four_are_three() {
    assert_eq!(replica_cnt(3, -1).balance(seconds(0), &range(2, &[1], &[2])), change(&[1, 2]));
    assert!(is_quiet(&replica_cnt(5, -1).balance(seconds(0), &range(4, &[1, 2, 3], &[4]))));
    assert_eq!(replica_cnt(5, -1).balance(seconds(0), &range(5, &[1, 2, 3], &[4, 5])), change(&[1, 2, 3, 4, 5]));
    let Decision::Now(Command::ChangeVoters { voters, .. }) =
        replica_cnt(3, -1).balance(seconds(0), &range(5, &[1, 2, 3, 4, 5], &[]))
    else {
        panic!("fewer are wanted")
    };
    assert!(voters.len() == 3 && voters.contains(&on(1)), "{voters:?}");
}

#[test]
fn a_dead_voter_is_replaced_after_its_time_and_not_before() {
    let dead = |since| {
        let mut landscape = range(4, &[1, 2, 3], &[4]);
        node(&mut landscape, 3).liveness = Liveness::Dead(since);
        landscape
    };
    assert!(is_quiet(&replica_cnt(3, -1).balance(seconds(0), &dead(seconds(299)))));
    assert_eq!(replica_cnt(3, -1).balance(seconds(0), &dead(seconds(300))), change(&[1, 2, 4]));
    let mut left = range(4, &[1, 2, 3], &[4]);
    node(&mut left, 3).liveness = Liveness::Left(seconds(31));
    assert_eq!(replica_cnt(3, -1).balance(seconds(0), &left), change(&[1, 2, 4]));
}

#[test]
fn a_gone_voter_without_a_replacement_goes_only_when_that_helps() {
    let mut three = range(3, &[1, 2, 3], &[]);
    node(&mut three, 3).liveness = Liveness::Dead(10 * MINUTE);
    assert!(is_quiet(&replica_cnt(3, -1).balance(seconds(0), &three)), "it may come back");
    let mut five = range(5, &[1, 2, 3, 4, 5], &[]);
    node(&mut five, 4).liveness = Liveness::Dead(10 * MINUTE);
    node(&mut five, 5).liveness = Liveness::Dead(10 * MINUTE);
    assert_eq!(replica_cnt(5, -1).balance(seconds(0), &five), change(&[1, 2, 3]));
}

#[test]
fn without_a_live_majority_or_during_a_change_nothing_is_done() {
    let mut lost = range(5, &[1, 2, 3], &[4, 5]);
    for id in [2, 3] {
        node(&mut lost, id).liveness = Liveness::Dead(10 * MINUTE);
    }
    assert!(is_quiet(&replica_cnt(3, -1).balance(seconds(0), &lost)));
    let mut changing = range(3, &[1], &[2, 3]);
    leader(&mut changing).changing = true;
    assert!(is_quiet(&replica_cnt(3, -1).balance(seconds(0), &changing)));
    let mut deposed = range(3, &[1], &[2, 3]);
    node(&mut deposed, 2).replicas[0].term = 2;
    assert!(is_quiet(&replica_cnt(3, -1).balance(seconds(0), &deposed)));
}

#[test]
fn a_voter_whose_disk_was_lost_is_replaced_on_the_same_node() {
    let mut balancer = replica_cnt(3, -1);
    let mut wiped = range(3, &[1, 2, 3], &[]);
    node(&mut wiped, 3).replicas.clear();
    assert!(is_quiet(&balancer.balance(seconds(0), &wiped)));
    assert!(is_quiet(&balancer.balance(seconds(9), &wiped)), "its facts may be older than the replica");
    assert_eq!(balancer.balance(seconds(10), &wiped), add(3));
    let fresh = ReplicaId { store: 33, counter: 1 };
    let replica = ReplicaView { replica: fresh, role: Role::Learner, ..wiped.nodes[&NodeId(1)].replicas[0].clone() };
    node(&mut wiped, 3).replicas.push(replica);
    leader(&mut wiped).learners.insert(fresh, NodeId(3));
    leader(&mut wiped).matched.insert(fresh, 990);
    let voters = BTreeSet::from([on(1), on(2), fresh]);
    assert_eq!(
        balancer.balance(seconds(11), &wiped),
        Decision::Now(Command::ChangeVoters { range: RANGE, config: 5, voters })
    );
}

#[test]
fn a_draining_node_gives_up_its_vote_when_another_takes_over() {
    let mut four = range(4, &[1, 2, 3], &[4]);
    node(&mut four, 3).draining = true;
    assert_eq!(replica_cnt(3, -1).balance(seconds(0), &four), change(&[1, 2, 4]));
    let mut three = range(3, &[1, 2, 3], &[]);
    node(&mut three, 3).draining = true;
    assert!(is_quiet(&replica_cnt(3, -1).balance(seconds(0), &three)));
    let mut two = range(2, &[1, 2], &[]);
    node(&mut two, 2).draining = true;
    assert_eq!(replica_cnt(3, -1).balance(seconds(0), &two), change(&[1]), "the other goes on without it");
    // The majority would hang on a learner that may have died a moment ago.
    node(&mut four, 2).liveness = Liveness::Dead(seconds(5));
    assert!(is_quiet(&replica_cnt(3, -1).balance(seconds(0), &four)));
}

#[test]
fn learners_come_and_go_by_their_count() {
    assert!(is_quiet(&replica_cnt(3, 0).balance(seconds(0), &range(5, &[1, 2, 3], &[]))));
    let one = replica_cnt(3, 1).balance(seconds(0), &range(5, &[1, 2, 3], &[]));
    assert!(one == add(4) || one == add(5), "{one:?}");
    let remove = |decision| match decision {
        Decision::Now(Command::RemoveLearners { learners, .. }) => learners.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(remove(replica_cnt(3, 0).balance(seconds(0), &range(5, &[1, 2, 3], &[4, 5]))), 2);
    let mut dead = range(4, &[1, 2, 3], &[4]);
    node(&mut dead, 4).liveness = Liveness::Dead(seconds(300));
    assert_eq!(remove(replica_cnt(3, -1).balance(seconds(0), &dead)), 1);
    let mut lost = range(4, &[1, 2, 3], &[4]);
    node(&mut lost, 4).replicas.clear();
    let mut balancer = UnreachableReplicaRemoval::new(seconds(10));
    assert!(is_quiet(&balancer.balance(seconds(0), &lost)));
    assert_eq!(remove(balancer.balance(seconds(10), &lost)), 1);
}

#[test]
fn a_node_that_refuses_is_left_alone_for_a_while() {
    let mut balancer = replica_cnt(3, -1);
    let landscape = range(4, &[1, 2], &[]);
    let Decision::Now(command) = balancer.balance(seconds(0), &landscape) else { panic!() };
    balancer.settled(seconds(0), &command, Err("no space left"));
    let Decision::Now(second) = balancer.balance(seconds(0), &landscape) else { panic!() };
    assert_ne!(command, second);
    balancer.settled(seconds(0), &second, Err("no space left"));
    assert_eq!(balancer.balance(seconds(0), &landscape), Decision::WakeAfter(Duration::from_millis(500)));
    assert_eq!(balancer.balance(seconds(1), &landscape), Decision::Now(command));
}

#[test]
fn of_two_histories_the_larger_lineage_gives_way() {
    let small = RangeId { lineage: 3, ..RANGE };
    let landscape = with_range(range(2, &[1], &[]), small, &[2], &[]);
    let mut loser = RedundantRangeRemoval::default();
    assert_eq!(loser.balance(seconds(0), &landscape), Decision::WakeAfter(seconds(2)));
    assert_eq!(loser.balance(seconds(2), &landscape), Decision::Now(Command::Merge { loser: RANGE, winner: small }));
    let winner = Landscape { me: NodeId(2), ..landscape.clone() };
    assert_eq!(RedundantRangeRemoval::default().balance(seconds(9), &winner), Decision::Idle);
    assert!(is_quiet(&replica_cnt(3, -1).balance(seconds(9), &landscape)), "the loser does not grow");
    assert!(is_quiet(&replica_cnt(3, -1).balance(seconds(9), &winner)), "nor is anything of it set aside by force");
}

fn leads(id: u64) -> RangeId {
    RangeId { id, ..RANGE }
}

#[test]
fn leaders_are_spread_one_at_a_time_and_rest() {
    let three = (0..3).fold(nodes(3), |landscape, id| with_range(landscape, leads(id), &[1, 2, 3], &[]));
    let mut balancer = RangeLeader::default();
    let first = Decision::Now(Command::TransferLeader { range: leads(0), to: on(2) });
    assert_eq!(balancer.balance(2 * MINUTE, &three), first);
    let mut other = RangeLeader::default();
    assert!(is_quiet(&other.balance(2 * MINUTE, &Landscape { me: NodeId(2), ..three })));
    let two = (0..2).fold(nodes(3), |landscape, id| with_range(landscape, leads(id), &[1, 2, 3], &[]));
    let moved = with_range(with_range(nodes(3), leads(0), &[2, 1, 3], &[]), leads(1), &[2, 1, 3], &[]);
    let mut balancer = RangeLeader::default();
    balancer.balance(2 * MINUTE, &Landscape { me: NodeId(2), ..two });
    let moved = Landscape { me: NodeId(2), ..moved };
    assert_eq!(balancer.balance(3 * MINUTE, &moved), Decision::WakeAfter(MINUTE), "they have just moved");
    assert!(!is_quiet(&balancer.balance(4 * MINUTE, &moved)));
}

#[test]
fn a_draining_node_hands_over_at_once_to_one_that_stays() {
    let mut landscape = range(3, &[1, 2, 3], &[]);
    node(&mut landscape, 1).draining = true;
    node(&mut landscape, 2).draining = true;
    let mut balancer = RangeLeader::default();
    let to_three = Decision::Now(Command::TransferLeader { range: RANGE, to: on(3) });
    assert_eq!(balancer.balance(seconds(0), &landscape), to_three);
    leader(&mut landscape).matched.insert(on(3), 1);
    assert!(is_quiet(&balancer.balance(seconds(0), &landscape)), "it is behind");
}

/// Wants a range of its name made, always.
struct Stubborn(&'static str, u64);

impl Balancer for Stubborn {
    fn name(&self) -> &'static str {
        self.0
    }

    fn balance(&mut self, _: Duration, _: &Landscape) -> Decision {
        Decision::Now(Command::Bootstrap { id: self.1 })
    }

    fn why(&self) -> &str {
        "because"
    }
}

#[test]
fn the_first_that_wants_something_gets_it_and_a_refusal_lets_others_try() {
    let mut controller = Controller::new(vec![Box::new(Stubborn("a", 1)), Box::new(Stubborn("b", 2))]);
    let command = |id| Decision::Now(Command::Bootstrap { id });
    assert_eq!(controller.next(seconds(0), &nodes(1)), (command(1), Some("a")));
    assert_eq!(controller.next(seconds(0), &nodes(1)), (Decision::Idle, None), "one at a time");
    controller.settled(seconds(0), Err("no".into()));
    assert_eq!(controller.next(seconds(0), &nodes(1)), (command(2), Some("b")));
    controller.settled(seconds(0), Ok(()));
    let (waits, by) = controller.next(seconds(0), &nodes(1));
    assert_eq!((waits, by), (Decision::WakeAfter(Duration::from_millis(500)), Some("a")));
    assert_eq!(controller.next(seconds(1), &nodes(1)), (command(1), Some("a")));
    controller.settled(seconds(1), Err("no".into()));
    assert_eq!(controller.next(seconds(1), &nodes(1)), (command(2), Some("b")), "done once is not done for ever");

    let history: Vec<_> = controller.history().map(|record| (record.balancer, record.outcome.clone())).collect();
    assert_eq!(history[0], ("a", Outcome::Refused(seconds(0), "no".into())));
    assert_eq!(history[1], ("b", Outcome::Done(seconds(0))));
    assert_eq!(history[3], ("b", Outcome::UnderWay));
    assert!(controller.history().all(|record| record.why == "because"));
    for _ in 0..500 {
        controller.settled(seconds(1), Ok(()));
        controller.next(seconds(1000), &nodes(1));
    }
    assert_eq!(controller.history().count(), 64);
}

#[test]
fn names_are_ours_or_bifromqs_and_options_are_typed() {
    let registry = Registry::standard();
    let build = |list: &[BalancerSpec]| {
        registry.build(list, &StoreSetup::default()).map(|built| built.whys().map(|(name, _)| name).collect::<Vec<_>>())
    };
    let always = ["RedundantRangeRemovalBalancer", "RangeBootstrapBalancer", "UnreachableReplicaRemovalBalancer"];
    assert_eq!(build(&[]).unwrap(), always);
    assert_eq!(
        build(&registry.defaults()).unwrap(),
        [&always[..], &["ReplicaCntBalancer", "RangeLeaderBalancer"]].concat()
    );
    let class = BalancerSpec {
        name: "org.apache.bifromq.dist.worker.balance.ReplicaCntBalancerFactory".into(),
        options: json!({ "votersPerRange": 5, "learnersPerRange": -1 }),
    };
    assert_eq!(build(std::slice::from_ref(&class)).unwrap(), [&always[..], &["ReplicaCntBalancer"]].concat());
    assert_eq!(
        build(&[class.clone(), BalancerSpec::named(ReplicaCnt::NAME)]).unwrap_err(),
        BalancerError::Twice { name: ReplicaCnt::NAME }
    );
    let wrong = BalancerSpec { options: json!({ "voters": 5 }), ..class };
    assert!(build(&[wrong]).unwrap_err().to_string().contains("unknown field `voters`"));
    let unknown = build(&[BalancerSpec::named("NoSuchBalancer")]).unwrap_err().to_string();
    assert!(unknown.contains("RangeLeaderBalancer"), "{unknown}");
    assert_eq!(build(&[BalancerSpec::named("RecoveryBalancer")]).unwrap(), always);
    assert!(registry.inert("com.baidu.bifromq.dist.worker.balance.RecoveryBalancerFactory").is_some());
    let one = Registry::new().register::<ReplicaCnt>();
    assert_eq!(one.names().collect::<Vec<_>>(), ["ReplicaCntBalancer"]);
}

#[test]
fn a_healthy_range_has_no_problems_and_a_tolerance() {
    for (voters, tolerates) in [(&[1_u64][..], 0), (&[1, 2], 0), (&[1, 2, 3], 1), (&[1, 2, 3, 4, 5], 2)] {
        let count = voters.len() as u64;
        let diagnosis = diagnose(&range(count, voters, &[]), 5);
        assert_eq!((diagnosis.problems, diagnosis.tolerates), (vec![], tolerates), "{voters:?}");
    }
    assert_eq!(
        diagnose(&nodes(3), 3).problems[0].to_string(),
        "no range was made yet: node 0000000000000001 is to make it"
    );
}

#[test]
fn what_is_wrong_is_told_with_its_cause() {
    let mut one_dead = range(3, &[1, 2, 3], &[]);
    node(&mut one_dead, 3).liveness = Liveness::Dead(seconds(42));
    let diagnosis = diagnose(&one_dead, 3);
    assert_eq!(diagnosis.tolerates, 0);
    assert_eq!(diagnosis.problems.len(), 1);
    let text = diagnosis.problems[0].to_string();
    assert!(text.contains("2 of 3 voters are in sync") && text.contains("declared dead 42 s ago"), "{text}");

    node(&mut one_dead, 2).known = false;
    node(&mut one_dead, 1).replicas[0].role = Role::Candidate;
    let diagnosis = diagnose(&one_dead, 3);
    assert!(matches!(diagnosis.problems[0].kind, ProblemKind::NoMajority { live: 1, needed: 2, .. }), "{diagnosis:?}");
    assert!(diagnosis.problems[0].to_string().contains("has not told what it has"));
    assert_eq!(diagnosis.ranges[0].leader, None);

    let mut lagging = range(4, &[1, 2, 3], &[4]);
    leader(&mut lagging).matched.insert(on(4), 100);
    leader(&mut lagging).matched.insert(on(2), 500);
    node(&mut lagging, 3).replicas[0].role = Role::Stopped;
    node(&mut lagging, 3).replicas[0].fault = Some("the disk is full".into());
    let texts: Vec<String> = diagnose(&lagging, 3).problems.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 3, "{texts:#?}");
    assert!(texts[0].contains("has stopped: the disk is full"));
    assert!(texts[1].contains("1 of 3 voters are in sync") && texts[1].contains("500 entries behind"));
    assert!(texts[2].contains("the learner on node 0000000000000004 is 900 entries behind"));

    let few = diagnose(&range(3, &[1], &[2, 3]), 3);
    assert!(matches!(few.problems[0].kind, ProblemKind::TooFewVoters { voters: 1, wanted: 3 }));
    let two = diagnose(&with_range(range(2, &[1], &[]), RangeId { lineage: 3, ..RANGE }, &[2], &[]), 1);
    assert!(two.problems.iter().any(|problem| matches!(problem.kind, ProblemKind::TwoHistories { .. })), "{two:?}");
}
