//! Hosts of one process that are a cluster: replication, forwarding, membership, and what happens when links and disks fail.

mod chaos;
mod harness;

use crate::raft::wire::{self, Address, Refusal};
use crate::raft::{LeaderId, LogId, Vote};
use crate::{ExecuteError, Role};
use base_kv_api::balance::{Command, ReplicaView};
use base_kv_api::{MutateError, RangeClient, RangeId, ReplicaId};
use base_rpc::{Lane, Mesh, Service};
use base_types::{Incarnation, NodeId, NodeIncarnation};
use harness::{Cluster, Loss, SOON, command, soon, until};
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_take_commands_anywhere_and_hold_the_same_in_the_end() {
    let mut cluster = Cluster::of(3).await;
    cluster.grow().await;
    for node in 0..3 {
        soon(cluster.range(node).ready()).await;
    }
    let replies: Vec<_> = (0..300).map(|n| (n, cluster.range(n as usize % 3).mutate(b"", command(n)))).collect();
    for (n, reply) in replies {
        assert_eq!(soon(reply).await, Ok(command(n)));
    }
    for node in 0..3 {
        soon(cluster.range(node).linearize(b"")).await.unwrap();
        let found = cluster.journal(node);
        assert_eq!(found.len(), 300);
        // Of each node in the order of its calls.
        for from in 0..3 {
            let of_one: Vec<u64> = found.iter().copied().filter(|n| n % 3 == from).collect();
            assert!(of_one.is_sorted(), "{of_one:?}");
        }
    }
    cluster.assert_alike().await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_is_replaced_and_what_it_left_open_is_settled_once() {
    let mut cluster = Cluster::of(3).await;
    cluster.grow().await;
    let leader = cluster.leader().await;
    let (a, b) = ((leader + 1) % 3, (leader + 2) % 3);
    soon(cluster.range(a).ready()).await;
    let replies: Vec<_> = (0..200).map(|n| cluster.range(a).mutate(b"", command(n))).collect();
    cluster.kill(leader).await;
    let started = Instant::now();
    for (reply, n) in replies.into_iter().zip(0..) {
        assert_eq!(soon(reply).await, Ok(command(n)));
    }
    assert_eq!(soon(cluster.range(b).mutate(b"", command(1000))).await, Ok(command(1000)));
    println!("after {:?} all is settled", started.elapsed());
    let found = cluster.journal(b);
    assert_eq!(found, (0..200).chain([1000]).collect::<Vec<_>>());
    cluster.start(leader).await;
    soon(cluster.range(leader).ready()).await;
    cluster.assert_alike().await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_joiner_gets_a_snapshot_and_a_wiped_node_another_name() {
    let mut cluster = Cluster::of(3).await;
    cluster.bootstrap().await;
    // Far beyond what the log keeps.
    for round in 0..60 {
        let replies: Vec<_> = (0..4).map(|n| cluster.range(0).mutate(b"", command(round * 4 + n))).collect();
        for reply in replies {
            soon(reply).await.unwrap();
        }
    }
    until("the log is purged", || cluster.stats(0).is_some_and(|stats| stats.purged_index > 20)).await;
    cluster.grow().await;
    soon(cluster.range(1).ready()).await;
    assert_eq!(cluster.journal(1), (0..240).collect::<Vec<_>>());
    let before = cluster.range(2).replica_id().unwrap();
    cluster.kill(2).await;
    cluster.wipe(2);
    cluster.start(2).await;
    assert!(cluster.range(2).replica_id().is_none());
    // The old one is taken out; then there is room for a new one on that node.
    let leader = cluster.leader().await;
    let view = cluster.view(leader);
    let voters: BTreeSet<_> = view.voters.keys().copied().filter(|id| *id != before).collect();
    cluster.execute(leader, Command::ChangeVoters { range: view.range, config: view.config, voters }).await.unwrap();
    cluster.grow().await;
    soon(cluster.range(2).ready()).await;
    let after = cluster.range(2).replica_id().unwrap();
    assert_ne!(before.store, after.store);
    assert_eq!(cluster.journal(2), (0..240).collect::<Vec<_>>());
    cluster.assert_alike().await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_lose_power_at_once_and_lose_nothing_that_was_answered() {
    let mut cluster = Cluster::of(3).await;
    cluster.grow().await;
    let mut answered = Vec::new();
    for round in 0..5 {
        for node in 0..3 {
            soon(cluster.range(node).ready()).await;
        }
        let replies: Vec<_> = (0..90)
            .map(|n| (round * 1000 + n, cluster.range(n as usize % 3).mutate(b"", command(round * 1000 + n))))
            .collect();
        for (n, reply) in replies {
            assert_eq!(soon(reply).await, Ok(command(n)));
            answered.push(n);
        }
        // These are cut off.
        let cut_off: Vec<_> = (0..9).map(|n| cluster.range(n % 3).mutate(b"", command(900_000 + n as u64))).collect();
        for node in 0..3 {
            cluster.crash(node).await;
        }
        drop(cut_off);
        for node in 0..3 {
            cluster.start(node).await;
        }
        soon(cluster.range(0).ready()).await;
        let found = cluster.journal(0);
        let lost: Vec<_> = answered.iter().filter(|n| !found.contains(n)).collect();
        assert!(lost.is_empty(), "{lost:?} lost of {} at {:?}", answered.len(), cluster.view(0));
    }
    cluster.assert_alike().await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_majority_refuses_and_its_side_reads_nothing_as_fresh() {
    let mut cluster = Cluster::of(3).await;
    cluster.grow().await;
    let old = cluster.leader().await;
    soon(cluster.range(old).mutate(b"", command(1))).await.unwrap();
    cluster.isolate(old);
    let (a, b) = ((old + 1) % 3, (old + 2) % 3);
    let lost = cluster.range(old).mutate(b"", command(2));
    assert_eq!(soon(cluster.range(a).mutate(b"", command(3))).await, Ok(command(3)));
    until("the old leader says that it does not lead", || {
        cluster.view(old).role != Role::Leader || cluster.stats(old).is_some_and(|stats| stats.unready.is_some())
    })
    .await;
    assert_eq!(soon(cluster.range(old).linearize(b"")).await, Err(MutateError::NoLeader));
    assert_eq!(soon(cluster.range(b).mutate(b"", command(4))).await, Ok(command(4)));
    cluster.hub.heal();
    // It was sent, and nobody gave it up: it is settled now, once. Or it was given up, and may be there.
    let lost = soon(lost).await;
    soon(cluster.range(old).linearize(b"")).await.unwrap();
    let found = cluster.journal(old);
    assert_eq!(found[0], 1);
    let twice = found.iter().filter(|n| **n == 2).count();
    match lost {
        Ok(_) => assert_eq!(twice, 1),
        Err(error) => {
            assert!(error == MutateError::Unknown && twice <= 1 || error == MutateError::NoLeader && twice == 0)
        }
    }
    cluster.assert_alike().await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_and_a_node_in_the_minority_gives_up_in_time() {
    let mut cluster = Cluster::of(3).await;
    cluster.grow().await;
    let old = cluster.leader().await;
    let started = Instant::now();
    assert_eq!(soon(cluster.node(old).hand_over()).await, 0);
    println!("handed over in {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(2));
    until("it follows", || cluster.view(old).role == Role::Follower).await;
    let new = cluster.leader().await;
    assert_ne!(old, new);
    assert_eq!(soon(cluster.range(old).mutate(b"", command(1))).await, Ok(command(1)));
    let lonely = (new + 1) % 3;
    cluster.isolate(lonely);
    let started = Instant::now();
    let error = soon(cluster.range(lonely).mutate(b"", command(2))).await.unwrap_err();
    assert!(matches!(error, MutateError::Unknown | MutateError::NoLeader), "{error}");
    assert!(started.elapsed() < harness::DEADLINE + Duration::from_secs(2));
    cluster.hub.heal();
    assert_eq!(soon(cluster.range(lonely).mutate(b"", command(3))).await, Ok(command(3)));
    let found = cluster.journal(lonely);
    // What was given up is not applied after something newer.
    let (three, two) = (found.iter().position(|n| *n == 3).unwrap(), found.iter().position(|n| *n == 2));
    assert!(two.is_none_or(|two| two < three), "{found:?}");
    cluster.assert_alike().await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_for_another_membership_are_refused_and_removed_replicas_go() {
    let mut cluster = Cluster::of(3).await;
    cluster.grow().await;
    let leader = cluster.leader().await;
    let view = cluster.view(leader);
    let other = (leader + 1) % 3;
    let gone = *view.voters.iter().find(|(_, node)| node.0 == other as u64 + 1).unwrap().0;
    let voters: BTreeSet<_> = view.voters.keys().copied().filter(|id| *id != gone).collect();
    let stale = Command::ChangeVoters { range: view.range, config: view.config - 1, voters: voters.clone() };
    let refused = cluster.execute(leader, stale).await;
    assert!(matches!(refused, Err(ExecuteError::Changed { .. })), "{refused:?}");
    let elsewhere = Command::ChangeVoters { range: view.range, config: view.config, voters: voters.clone() };
    let refused = cluster.execute(other, elsewhere.clone()).await;
    assert!(matches!(refused, Err(ExecuteError::NotLeader { .. })), "{refused:?}");
    cluster.execute(leader, elsewhere).await.unwrap();
    until("the removed replica is gone", || cluster.range(other).replica_id().is_none()).await;
    assert!(cluster.node(other).replicas("inbox").is_empty());
    assert_eq!(soon(cluster.range(leader).mutate(b"", command(1))).await, Ok(command(1)));
    // Back, under another name.
    cluster.grow().await;
    soon(cluster.range(other).ready()).await;
    assert_ne!(cluster.range(other).replica_id(), Some(gone));
    assert_eq!(soon(cluster.range(other).mutate(b"", command(2))).await, Ok(command(2)));

    // One that is away while it is removed learns of it later.
    let leader = cluster.leader().await;
    let away = (leader + 1) % 3;
    let name = cluster.range(away).replica_id().unwrap();
    cluster.kill(away).await;
    let view = cluster.view(leader);
    let voters: BTreeSet<_> = view.voters.keys().copied().filter(|id| *id != name).collect();
    cluster.execute(leader, Command::ChangeVoters { range: view.range, config: view.config, voters }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    cluster.start(away).await;
    let deadline = Instant::now() + SOON;
    while cluster.range(away).replica_id().is_some() {
        assert!(Instant::now() < deadline, "{:?}", cluster.node(away).replicas("inbox"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_for_another_lineage_epoch_or_replica_is_refused_and_changes_nothing() {
    let mut cluster = Cluster::of(3).await;
    cluster.grow().await;
    let leader = cluster.leader().await;
    let before = cluster.view(leader);
    let stranger = NodeIncarnation { node: NodeId(9), incarnation: Incarnation(1) };
    let mesh = cluster.hub.enter(stranger);
    let from = ReplicaId { store: 77, counter: 1 };
    let right = Address { range: before.range, from, to: before.replica };
    let vote = Vote { leader_id: LeaderId { term: 1 << 40, node_id: from }, committed: true };
    let last_log_id = Some(LogId::new(LeaderId { term: 1 << 40, node_id: from }, 1 << 40));
    let append = AppendEntriesRequest { vote, prev_log_id: None, entries: vec![], leader_commit: None };
    let ask = async |address: Address| {
        let messages = [
            wire::append_request(&address, &append),
            wire::vote_request(&address, wire::kind::VOTE, &VoteRequest::new(vote, last_log_id)),
            wire::vote_request(&address, wire::kind::PRE_VOTE, &VoteRequest::new(vote, last_log_id)),
        ];
        let mut refusals = Vec::new();
        for message in messages {
            let to = NodeId(leader as u64 + 1);
            let reply = mesh.call(to, Lane::Raft, Service::RAFT, message.freeze(), SOON).await.unwrap();
            refusals.push(wire::read_reply(reply).err().unwrap());
        }
        refusals
    };
    let range = before.range;
    for range in [
        RangeId { lineage: range.lineage + 1, ..range },
        RangeId { epoch: range.epoch + 1, ..range },
        RangeId { id: range.id + 1, ..range },
    ] {
        assert_eq!(soon(ask(Address { range, ..right })).await, vec![Refusal::OtherRange(before.range); 3]);
    }
    for to in
        [ReplicaId { store: before.replica.store + 1, ..before.replica }, ReplicaId { counter: 99, ..before.replica }]
    {
        assert_eq!(soon(ask(Address { to, ..right })).await, vec![Refusal::Unknown; 3]);
    }
    assert_eq!(soon(cluster.range(leader).mutate(b"", command(1))).await, Ok(command(1)));
    let after = cluster.view(leader);
    assert_eq!((before.term, before.leader, before.voters), (after.term, after.leader, after.voters));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_breaks_stops_and_another_one_leads() {
    let mut cluster = Cluster::of(3).await;
    cluster.grow().await;
    let broken = cluster.leader().await;
    let other = (broken + 1) % 3;
    soon(cluster.range(other).ready()).await;
    cluster.break_disk(broken);
    let open = cluster.range(broken).mutate(b"", command(1));
    let started = Instant::now();
    assert_eq!(soon(cluster.range(other).mutate(b"", command(2))).await, Ok(command(2)));
    println!("another one leads after {:?}", started.elapsed());
    assert_eq!(soon(open).await, Err(MutateError::Unknown));
    until("the broken one says so", || cluster.stats(broken).is_some_and(|stats| stats.role == Role::Stopped)).await;
    assert!(cluster.view(broken).fault.is_some_and(|fault| fault.contains("input/output error")));
    let refused = soon(cluster.range(broken).mutate(b"", command(3))).await;
    assert!(matches!(refused, Err(MutateError::Stopped { .. })), "{refused:?}");
    for (host, _) in cluster.up.iter_mut().filter_map(Option::take) {
        soon(host.shutdown()).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_is_full_lets_another_one_lead() {
    let mut cluster = Cluster::of(3).await;
    cluster.grow().await;
    let full = cluster.leader().await;
    let other = (full + 1) % 3;
    cluster.leave_free(full, 99);
    until("another one leads", || {
        cluster.view(full).leader.is_some_and(|l| Some(l) != cluster.range(full).replica_id())
    })
    .await;
    assert_eq!(soon(cluster.range(other).mutate(b"", command(1))).await, Ok(command(1)));
    let refused = soon(cluster.range(full).mutate(b"", command(2))).await;
    assert_eq!(refused, Err(MutateError::NoSpace { free: 99, needed: 100 }));
    soon(cluster.range(full).linearize(b"")).await.unwrap();
    assert_eq!(cluster.journal(full), [1]);
    cluster.leave_free(full, 1000);
    let deadline = Instant::now() + SOON;
    while soon(cluster.range(full).mutate(b"", command(3))).await.is_err() {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    cluster.assert_alike().await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_after_all_others_waits_for_nobody() {
    let mut cluster = Cluster::of(3).await;
    cluster.grow().await;
    let last = cluster.leader().await;
    for node in (0..3).filter(|node| *node != last) {
        cluster.kill(node).await;
    }
    let started = Instant::now();
    assert_eq!(soon(cluster.node(last).hand_over()).await, 1);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    cluster.shutdown().await;
}

/// Three seconds of each: many times what a follower waits for a leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_cut_one_way_changes_no_term_as_long_as_a_majority_hears_the_leader() {
    let mut cluster = Cluster::of(3).await;
    cluster.grow().await;
    let leader = cluster.leader().await;
    let (deaf, third) = ((leader + 1) % 3, (leader + 2) % 3);
    soon(cluster.range(third).ready()).await;
    let term = cluster.view(leader).term;
    for cut in [(deaf, leader), (leader, deaf)] {
        cluster.cut(cut.0, cut.1);
        let until = Instant::now() + Duration::from_secs(3);
        let mut n = 0;
        while Instant::now() < until {
            n += 1;
            assert_eq!(soon(cluster.range(third).mutate(b"", command(n))).await, Ok(command(n)));
        }
        assert_eq!(cluster.view(leader).role, Role::Leader);
        assert_eq!(cluster.view(leader).term, term, "cut {cut:?}");
        cluster.hub.heal();
        soon(cluster.range(deaf).linearize(b"")).await.unwrap();
    }
    cluster.assert_alike().await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_replica_is_left_alone_and_replaced_by_another_one() {
    let mut cluster = Cluster::of(3).await;
    cluster.grow().await;
    for n in 0..5 {
        soon(cluster.range(0).mutate(b"", command(n))).await.unwrap();
    }
    let leader = cluster.leader().await;
    let hurt = (leader + 1) % 3;
    soon(cluster.range(hurt).linearize(b"")).await.unwrap();
    let name = cluster.range(hurt).replica_id().unwrap();
    cluster.kill(hurt).await;
    cluster.damage(hurt, cluster.view(leader).last.1 - 2);
    cluster.start(hurt).await;
    let view = cluster.view(hurt);
    assert_eq!((view.replica, view.role), (name, Role::Stopped));
    assert!(view.fault.is_some_and(|fault| fault.contains("damaged")));
    assert!(cluster.range(hurt).read(b"", &mut |_| Ok(())).is_err());
    let leader = cluster.leader().await;
    let view = cluster.view(leader);
    let voters: BTreeSet<_> = view.voters.keys().copied().filter(|id| *id != name).collect();
    cluster.execute(leader, Command::ChangeVoters { range: view.range, config: view.config, voters }).await.unwrap();
    cluster.grow().await;
    soon(cluster.range(hurt).ready()).await;
    assert_ne!(cluster.range(hurt).replica_id(), Some(name));
    assert!(cluster.node(hurt).replicas("inbox").iter().all(|view| view.fault.is_none()));
    cluster.assert_alike().await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_histories_of_a_range_do_not_mix_and_a_replica_that_waits_in_vain_stands_in_nobodys_way() {
    let cluster = Cluster::of(3).await;
    cluster.bootstrap().await;
    cluster.bootstrap().await;
    cluster.execute(1, Command::Bootstrap { id: 0 }).await.unwrap();
    soon(cluster.range(1).ready()).await;
    let (one, other) = (cluster.view(0), cluster.view(1));
    assert_ne!(one.range.lineage, other.range.lineage);
    let add =
        |view: &ReplicaView, node| Command::AddLearner { range: view.range, config: view.config, node: NodeId(node) };
    let refused = cluster.execute(0, add(&one, 2)).await;
    assert!(matches!(refused, Err(ExecuteError::Node { node: NodeId(2), .. })), "{refused:?}");
    // The third makes a replica for the first, who never hears of it.
    cluster.cut(2, 0);
    let lost = cluster.execute(0, add(&one, 3)).await;
    assert!(matches!(lost, Err(ExecuteError::Node { node: NodeId(3), .. })), "{lost:?}");
    let waits = cluster.view(2);
    assert_eq!((waits.range, waits.role, waits.config), (one.range, Role::Learner, 0));
    cluster.hub.heal();
    cluster.execute(1, add(&other, 3)).await.unwrap();
    soon(cluster.range(1).mutate(b"", command(1))).await.unwrap();
    soon(cluster.range(2).ready()).await;
    assert_eq!(cluster.view(2).range, other.range);
    assert_ne!(cluster.view(2).replica, waits.replica);
    assert_eq!((cluster.journal(2), cluster.journal(0)), (vec![1], vec![]));
    // A learner proposes and reads as everybody does.
    assert_eq!(soon(cluster.range(2).mutate(b"", command(2))).await, Ok(command(2)));
    // The one that loses takes no commands anywhere, says why, and can be read; the other goes on.
    let merge = Command::Merge { loser: other.range, winner: one.range };
    let refused = cluster.execute(2, merge.clone()).await;
    assert!(matches!(refused, Err(ExecuteError::NotLeader { .. })), "{refused:?}");
    let refused = cluster.execute(1, merge).await;
    assert!(matches!(refused, Err(ExecuteError::Unsupported(_))), "{refused:?}");
    let why = |node: usize| cluster.stats(node).and_then(|stats| stats.unready).unwrap_or_default();
    for node in [1, 2] {
        until("it is told", || why(node).starts_with("another history of this range exists")).await;
        assert_eq!(cluster.view(node).fault, Some(why(node)));
        assert_eq!(soon(cluster.range(node).mutate(b"", command(3))).await, Err(MutateError::NoLeader));
        assert_eq!(cluster.journal(node), [1, 2]);
    }
    assert_eq!(soon(cluster.range(0).mutate(b"", command(4))).await, Ok(command(4)));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_stands_still_lets_another_one_lead_and_holds_up_only_those_who_wait_there() {
    let mut cluster = Cluster::of(3).await;
    cluster.grow().await;
    let slow = cluster.leader().await;
    let other = (slow + 1) % 3;
    soon(cluster.range(other).ready()).await;
    cluster.freeze(slow, true);
    let started = Instant::now();
    let here = cluster.range(slow).mutate(b"", command(1));
    assert_eq!(soon(cluster.range(other).mutate(b"", command(2))).await, Ok(command(2)));
    println!("the majority went on after {:?}", started.elapsed());
    let name = cluster.range(slow).replica_id();
    until("another one leads", || cluster.view(other).leader.is_some_and(|leader| Some(leader) != name)).await;
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(soon(cluster.range(other).mutate(b"", command(3))).await, Ok(command(3)));
    cluster.freeze(slow, false);
    let here = soon(here).await;
    assert!(matches!(here, Ok(_) | Err(MutateError::Unknown)), "{here:?}");
    cluster.assert_alike().await;
    assert!(cluster.journal(slow).iter().filter(|n| **n == 1).count() <= 1);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_lost_on_its_way_is_forwarded_again_long_before_the_deadline_and_done_once() {
    let mut cluster = Cluster::with_deadline(3, SOON).await;
    cluster.grow().await;
    let node = (cluster.leader().await + 1) % 3;
    soon(cluster.range(node).ready()).await;
    let mut expected = Vec::new();
    // Nobody hears of them, nobody hears the answer, or the answer says what is not so.
    for (round, loss) in [Loss::Unheard, Loss::SaidToBeDone, Loss::Unanswered].into_iter().enumerate() {
        for lost in [1, 2, 3] {
            cluster.lose(node, loss, lost);
            let started = Instant::now();
            let replies: Vec<_> = (0..30)
                .map(|n| {
                    let n = (round as u64 * 10 + lost) * 100 + n;
                    expected.push(n);
                    (n, cluster.range(node).mutate(b"", command(n)))
                })
                .collect();
            for (n, reply) in replies {
                assert_eq!(soon(reply).await, Ok(command(n)));
            }
            let took = started.elapsed();
            assert!(took < Duration::from_millis(2_500), "{loss:?} {lost}: {took:?}");
        }
    }
    assert_eq!(cluster.journal(node), expected);
    cluster.assert_alike().await;
    cluster.shutdown().await;
}

/// Two of three, among them the leader, die and start again at the same moment, while all three propose.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_that_start_together_take_commands_at_once() {
    let mut cluster = Cluster::of(3).await;
    cluster.grow().await;
    let mut next = 0;
    for round in 0..8 {
        let leader = cluster.leader().await;
        let other = (leader + 1 + round % 2) % 3;
        let mut propose = |cluster: &Cluster| -> Vec<_> {
            let numbers = (0..3).map(|node| (node, next + node as u64 + 1));
            let proposed = numbers.map(|(node, n)| (n, cluster.range(node).mutate(b"", command(n)))).collect();
            next += 3;
            proposed
        };
        let term = cluster.view(leader).term;
        let cut_off = propose(&cluster);
        cluster.kill(leader).await;
        cluster.kill(other).await;
        cluster.start(other).await;
        cluster.start(leader).await;
        let started = Instant::now();
        for (n, reply) in propose(&cluster) {
            assert_eq!(soon(reply).await, Ok(command(n)));
        }
        assert!(started.elapsed() < Duration::from_secs(3), "round {round}: {:?}", started.elapsed());
        drop(cut_off);
        let now = cluster.leader().await;
        assert!(cluster.view(now).term > term, "who starts anew is elected anew");
        cluster.assert_alike().await;
    }
    cluster.shutdown().await;
}
