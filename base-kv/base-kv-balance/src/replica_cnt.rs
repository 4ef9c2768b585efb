use crate::backoff::Backoff;
use crate::registry::{BalancerKind, StoreSetup};
use crate::since::Since;
use crate::view::{LAG_MAX, SOON, is_alive, led, preference, quorum, replicas, sooner, takes, winner_over};
use base_kv_api::balance::{Balancer, Command, Decision, Landscape, Liveness, ReplicaView, Role};
use base_kv_api::{RangeId, ReplicaId};
use base_types::NodeId;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Brings every range that is led here to its voters and learners, one change at a time.
///
/// **Voters.** As many as wanted, or as there are nodes. Even counts are avoided, since the even one only makes the majority larger: with
/// four nodes and five wanted, three vote. Two nodes are the exception, two voters: whatever is acknowledged is on both disks.
/// That range stops while either node is away; a single voter would stop for one of them, but lose what was acknowledged with its disk.
///
/// **Who.** Only a learner that has caught up becomes a voter, on a node that stays. It takes the place of a voter that is gone, in one joint
/// change, so that there are never fewer. A voter is gone when its node
///
/// - was declared dead `replaceDeadAfterSec` ago, or is not heard of for as long;
/// - left `replaceLeftAfterSec` ago: a restart in order is back before;
/// - is alive and says, for ten seconds, that it does not have the replica: its disk was lost;
/// - has it, but stopped, for `replaceDeadAfterSec`.
///
/// A voter on a draining node is replaced at once when another can take over. Without a replacement a gone voter stays, for it may come
/// back, unless the others tolerate more failures without it: five voters of which two are gone become three.
///
/// **Learners.** On every node without a replica that is alive, known and not draining (−1), or so many. Learners of nodes that
/// are gone, or that are too many, are removed.
///
/// Nothing is done while a change is under way, without a live majority of the voters, by a leader that sees that it was
/// deposed, or for a history that loses against another one.
pub struct ReplicaCnt {
    policy: Policy,
    absent: Since<NodeId>,
    lost: Since<(RangeId, ReplicaId)>,
    stopped: Since<(RangeId, ReplicaId)>,
    uneven: Since<RangeId>,
    refused: Backoff<NodeId>,
    why: String,
}

/// How long a node says that it lacks a replica before it is believed: its facts may be older than the replica.
const LOST_AFTER: Duration = Duration::from_secs(10);
/// How long to wait for a third before two vote.
const PATIENCE: Duration = Duration::from_secs(10);

/// Options of [`ReplicaCnt`].
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReplicaCntOptions {
    /// Voters of a range, 1 to 15; even counts are rounded down. Without it: what the store says.
    pub voters_per_range: Option<u32>,
    /// Learners of a range, besides the voters, 0 to 1000; −1: on every other node.
    pub learners_per_range: i32,
    /// Seconds after which a dead node's replicas are replaced, 1 to 2592000.
    pub replace_dead_after_sec: u64,
    /// Seconds after which the replicas of a node that left are replaced, 0 to 2592000.
    pub replace_left_after_sec: u64,
}

impl Default for ReplicaCntOptions {
    fn default() -> Self {
        Self { voters_per_range: None, learners_per_range: -1, replace_dead_after_sec: 300, replace_left_after_sec: 30 }
    }
}

#[derive(Clone, Debug)]
struct Policy {
    voters: usize,
    learners: Option<usize>,
    dead_after: Duration,
    left_after: Duration,
}

impl BalancerKind for ReplicaCnt {
    const NAME: &'static str = "ReplicaCntBalancer";
    type Options = ReplicaCntOptions;

    fn build(options: Self::Options, setup: &StoreSetup) -> Result<Box<dyn Balancer>, String> {
        Ok(Box::new(Self::new(&options, setup)?))
    }
}

impl ReplicaCnt {
    /// With these options.
    ///
    /// # Errors
    /// With what is allowed, when an option is out of its range.
    pub fn new(options: &ReplicaCntOptions, setup: &StoreSetup) -> Result<Self, String> {
        let voters = options.voters_per_range.unwrap_or(setup.voters);
        if !(1..=15).contains(&voters) {
            return Err("votersPerRange must be from 1 to 15".into());
        }
        if !(-1..=1000).contains(&options.learners_per_range) {
            return Err("learnersPerRange must be from 0 to 1000, or -1 for every other node".into());
        }
        if !(1..=2_592_000).contains(&options.replace_dead_after_sec) {
            return Err("replaceDeadAfterSec must be from 1 to 2592000".into());
        }
        if options.replace_left_after_sec > 2_592_000 {
            return Err("replaceLeftAfterSec must be from 0 to 2592000".into());
        }
        let policy = Policy {
            voters: (voters - u32::from(voters.is_multiple_of(2))) as usize,
            learners: usize::try_from(options.learners_per_range).ok(),
            dead_after: Duration::from_secs(options.replace_dead_after_sec),
            left_after: Duration::from_secs(options.replace_left_after_sec),
        };
        Ok(Self {
            policy,
            absent: Since::default(),
            lost: Since::default(),
            stopped: Since::default(),
            uneven: Since::default(),
            refused: Backoff::default(),
            why: String::new(),
        })
    }

    /// Takes note of what has to last before it counts.
    fn observe(&mut self, now: Duration, landscape: &Landscape, led: &[&ReplicaView]) {
        let members = || led.iter().flat_map(|leader| members(leader).map(move |(id, home)| (*leader, id, home)));
        self.absent.observe(now, members().map(|(_, _, home)| home).filter(|home| !landscape.nodes.contains_key(home)));
        let is = |leader: &ReplicaView, replica, home, state: fn(Option<&ReplicaView>) -> bool| {
            let node = landscape.nodes.get(&home).filter(|node| is_alive(node) && node.known);
            node.is_some_and(|_| state(replica_at(landscape, leader.range, replica, home)))
        };
        let lasting = |state: fn(Option<&ReplicaView>) -> bool| {
            members()
                .filter(move |(leader, replica, home)| is(leader, *replica, *home, state))
                .map(|(leader, replica, _)| (leader.range, replica))
                .collect::<Vec<_>>()
        };
        let (lost, stopped) = (
            lasting(|there| there.is_none()),
            lasting(|there| there.is_some_and(|replica| replica.role == Role::Stopped)),
        );
        self.lost.observe(now, lost);
        self.stopped.observe(now, stopped);
    }

    /// What can be expected of a member.
    fn standing(
        &self,
        now: Duration,
        landscape: &Landscape,
        leader: &ReplicaView,
        replica: ReplicaId,
        home: NodeId,
    ) -> Standing {
        let gone_when = |gone| if gone { Standing::Gone } else { Standing::Away };
        let lasts = |lasting: Option<Duration>, limit| lasting.is_some_and(|lasting| lasting >= limit);
        if replica == leader.replica {
            return Standing::Here;
        }
        let Some(node) = landscape.nodes.get(&home) else {
            return gone_when(lasts(self.absent.lasting(now, &home), self.policy.dead_after));
        };
        match node.liveness {
            Liveness::Dead(since) => gone_when(since >= self.policy.dead_after),
            Liveness::Left(since) => gone_when(since >= self.policy.left_after),
            Liveness::Alive if !node.known => Standing::Away,
            Liveness::Alive => match replica_at(landscape, leader.range, replica, home) {
                None => gone_when(lasts(self.lost.lasting(now, &(leader.range, replica)), LOST_AFTER)),
                Some(there) if there.role == Role::Stopped => {
                    gone_when(lasts(self.stopped.lasting(now, &(leader.range, replica)), self.policy.dead_after))
                }
                Some(_) if node.draining => Standing::Leaving,
                Some(_) => Standing::Here,
            },
        }
    }

    fn step(&mut self, now: Duration, landscape: &Landscape, leader: &ReplicaView) -> Decision {
        let range = leader.range;
        if leader.changing {
            self.why = format!("range {range}: a change is under way");
            return Decision::WakeAfter(SOON);
        }
        if let Some(winner) = winner_over(landscape, range) {
            self.why = format!("range {range}: gives way to {winner}");
            return Decision::Idle;
        }
        let group = Group::of(self, now, landscape, leader);
        if group.live(&group.voters_now()) < quorum(leader.voters.len()) {
            self.why = format!("range {range}: no majority of its voters is there");
            return Decision::WakeAfter(SOON);
        }
        let (voters, waits) = self.voters(now, &group);
        if voters != group.voters_now() && group.is_no_worse(&voters, self.policy.voters) {
            self.why = group.reason(&voters);
            return Decision::Now(Command::ChangeVoters { range, config: leader.config, voters });
        }
        let learners = self.learners_to_remove(&group);
        if !learners.is_empty() {
            self.why = format!("range {range}: {learners:?} learn in vain");
            return Decision::Now(Command::RemoveLearners { range, config: leader.config, learners });
        }
        let added = self.learner_to_add(now, &group);
        if let Decision::Idle = added
            && (waits || group.is_unsettled())
        {
            self.why = format!("range {range}: waits for learners to catch up, or nodes to come back");
            return Decision::WakeAfter(SOON);
        }
        added
    }

    /// Who should vote, and whether that waits for something.
    fn voters(&mut self, now: Duration, group: &Group<'_>) -> (BTreeSet<ReplicaId>, bool) {
        let wanted = self.policy.voters;
        let mut chosen: Vec<ReplicaId> = group.kept().into_iter().take(wanted).collect();
        let kept = chosen.len();
        chosen.extend(group.promotable().into_iter().take(wanted - kept));
        if chosen.len() % 2 == 1 {
            return (chosen.into_iter().collect(), false);
        }
        // An even number. One more that votes today costs nothing: who leaves still counts, who is gone may come back.
        if let Some(spare) = group.spare(&chosen) {
            chosen.push(spare);
            return (chosen.into_iter().collect(), true);
        }
        let third_to_come = group.homes_free_of_voters(&chosen) > 0;
        let patient = {
            let held = self.uneven.lasting(now, &group.leader.range).unwrap_or_default();
            if !third_to_come || chosen.len() > 2 { chosen.len() == 2 } else { held >= PATIENCE }
        };
        if !patient && (chosen.len() > kept || chosen.len() > 2) {
            chosen.pop();
        }
        (chosen.into_iter().collect(), third_to_come)
    }

    /// How many learners there should be; `None`: on every node.
    fn learners_wanted(&self, group: &Group<'_>) -> Option<usize> {
        // What is still to become a voter learns first.
        Some(self.policy.learners? + self.policy.voters.saturating_sub(group.kept().len()))
    }

    fn learners_to_remove(&self, group: &Group<'_>) -> BTreeSet<ReplicaId> {
        let mut homes: BTreeSet<NodeId> =
            group.voters().filter(|member| member.counts()).map(|member| member.home).collect();
        let mut left = self.learners_wanted(group).unwrap_or(usize::MAX);
        // The best first, so that the others are the ones to go.
        let mut learners: Vec<&Member> = group.learners().collect();
        learners.sort_by_key(|member| (member.standing, !member.caught_up, group.rank(member.home)));
        let mut remove = BTreeSet::new();
        for member in learners {
            let gone = member.standing == Standing::Gone && !member.lost;
            if gone || left == 0 || !homes.insert(member.home) {
                remove.insert(member.replica);
            } else {
                left -= 1;
            }
        }
        remove
    }

    fn learner_to_add(&mut self, now: Duration, group: &Group<'_>) -> Decision {
        let range = group.leader.range;
        if self.learners_wanted(group).is_some_and(|wanted| group.learners().count() >= wanted) {
            return Decision::Idle;
        }
        let mut decision = Decision::Idle;
        for node in group.homes_without_replica() {
            if let Some(left) = self.refused.wait(now, &node) {
                self.why = format!("range {range}: node {node} refused a replica; tries again in {left:?}");
                decision = sooner(decision, Decision::WakeAfter(left));
                continue;
            }
            self.why = format!("range {range}: node {node} has no replica");
            return Decision::Now(Command::AddLearner { range, config: group.leader.config, node });
        }
        decision
    }
}

impl Balancer for ReplicaCnt {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn balance(&mut self, now: Duration, landscape: &Landscape) -> Decision {
        let led = led(landscape);
        self.observe(now, landscape, &led);
        self.why.clear();
        if landscape.nodes.get(&landscape.me).is_none_or(|me| me.draining) {
            self.why = "this node is on its way out: who leads next goes on".into();
            return Decision::Idle;
        }
        let two: Vec<RangeId> = led
            .iter()
            .filter(|leader| Group::of(self, now, landscape, leader).is_two_to_be())
            .map(|leader| leader.range)
            .collect();
        self.uneven.observe(now, two);
        let mut decision = Decision::Idle;
        for leader in led {
            decision = sooner(decision, self.step(now, landscape, leader));
            if matches!(decision, Decision::Now(_)) {
                break;
            }
        }
        decision
    }

    fn settled(&mut self, now: Duration, command: &Command, outcome: Result<(), &str>) {
        if let Command::AddLearner { node, .. } = command {
            match outcome {
                Ok(()) => self.refused.accepted(node),
                Err(_) => self.refused.refused(now, *node),
            }
        }
    }

    fn why(&self) -> &str {
        &self.why
    }
}

/// What can be expected of a member, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// It works.
    Here,
    /// It does not answer, or does not work, for now.
    Away,
    /// It works, and is about to go.
    Leaving,
    /// It won't come back.
    Gone,
}

/// A voter or learner of a range.
#[derive(Clone, Debug)]
struct Member {
    replica: ReplicaId,
    home: NodeId,
    votes: bool,
    standing: Standing,
    caught_up: bool,
    /// Its node is there and does not have it.
    lost: bool,
}

impl Member {
    /// Whether it is one of those that are to be there.
    fn counts(&self) -> bool {
        matches!(self.standing, Standing::Here | Standing::Away)
    }

    /// Whether it takes part in a majority now.
    fn is_live(&self) -> bool {
        matches!(self.standing, Standing::Here | Standing::Leaving)
    }
}

/// A range as its leader sees it.
struct Group<'a> {
    landscape: &'a Landscape,
    leader: &'a ReplicaView,
    members: Vec<Member>,
    /// Voters of each node, all ranges of the store together.
    load: BTreeMap<NodeId, usize>,
}

impl<'a> Group<'a> {
    fn of(balancer: &ReplicaCnt, now: Duration, landscape: &'a Landscape, leader: &'a ReplicaView) -> Self {
        let last = leader.last.1;
        let members = members(leader)
            .map(|(replica, home)| Member {
                replica,
                home,
                votes: leader.voters.contains_key(&replica),
                standing: balancer.standing(now, landscape, leader, replica, home),
                caught_up: leader.matched.get(&replica).is_some_and(|matched| matched + LAG_MAX >= last),
                lost: landscape.nodes.get(&home).is_some_and(|node| is_alive(node) && node.known)
                    && replica_at(landscape, leader.range, replica, home).is_none(),
            })
            .collect();
        let mut load = BTreeMap::new();
        for (_, leader) in crate::view::leaders(landscape) {
            for home in leader.voters.values() {
                *load.entry(*home).or_default() += 1;
            }
        }
        Self { landscape, leader, members, load }
    }

    fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.votes)
    }

    fn learners(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.votes)
    }

    fn voters_now(&self) -> BTreeSet<ReplicaId> {
        self.leader.voters.keys().copied().collect()
    }

    /// Nodes with few voters first, then in the range's own order.
    fn rank(&self, node: NodeId) -> (usize, u64) {
        (self.load.get(&node).copied().unwrap_or(0), preference(self.leader.range, node))
    }

    /// Voters to keep: the leader first, who is away last.
    fn kept(&self) -> Vec<ReplicaId> {
        let mut kept: Vec<&Member> = self.voters().filter(|member| member.counts()).collect();
        kept.sort_by_key(|member| {
            (member.replica != self.leader.replica, member.standing, preference(self.leader.range, member.home))
        });
        let mut homes = BTreeSet::new();
        kept.into_iter().filter(|member| homes.insert(member.home)).map(|member| member.replica).collect()
    }

    /// Learners that can become voters, the best first.
    fn promotable(&self) -> Vec<ReplicaId> {
        let mut homes: BTreeSet<NodeId> =
            self.voters().filter(|member| member.counts()).map(|member| member.home).collect();
        let mut ready: Vec<&Member> =
            self.learners().filter(|member| member.standing == Standing::Here && member.caught_up).collect();
        ready.sort_by_key(|member| self.rank(member.home));
        ready.into_iter().filter(|member| homes.insert(member.home)).map(|member| member.replica).collect()
    }

    /// A voter that need not stay, but may: on a node of its own.
    fn spare(&self, chosen: &[ReplicaId]) -> Option<ReplicaId> {
        let homes = self.homes(chosen);
        self.voters()
            .filter(|member| !member.counts() && !homes.contains(&member.home))
            .min_by_key(|member| member.standing)
            .map(|member| member.replica)
    }

    fn homes(&self, chosen: &[ReplicaId]) -> BTreeSet<NodeId> {
        self.members.iter().filter(|member| chosen.contains(&member.replica)).map(|member| member.home).collect()
    }

    /// How many nodes could have a voter besides these.
    fn homes_free_of_voters(&self, chosen: &[ReplicaId]) -> usize {
        let homes = self.homes(chosen);
        self.landscape.nodes.iter().filter(|(id, node)| takes(node) && !homes.contains(id)).count()
    }

    /// Nodes that can be given a learner, the best first.
    fn homes_without_replica(&self) -> Vec<NodeId> {
        let range = self.leader.range;
        let taken = |node: NodeId| {
            let member = |member: &Member| member.home == node && !(member.votes && member.standing == Standing::Gone);
            // Another history, or a later epoch: not ours to set aside.
            let foreign = |other: &ReplicaView| {
                other.range.id == range.id && (other.range.lineage != range.lineage || other.range.epoch > range.epoch)
            };
            self.members.iter().any(member)
                || self.landscape.nodes.get(&node).is_some_and(|node| node.replicas.iter().any(foreign))
        };
        let mut nodes: Vec<NodeId> =
            self.landscape.nodes.iter().filter(|(id, node)| takes(node) && !taken(**id)).map(|(id, _)| *id).collect();
        nodes.sort_by_key(|node| self.rank(*node));
        nodes
    }

    fn live(&self, voters: &BTreeSet<ReplicaId>) -> usize {
        self.members.iter().filter(|member| voters.contains(&member.replica) && member.is_live()).count()
    }

    /// How many more failures these voters stand; negative when there is no majority. Who leaves is counted as gone.
    fn tolerance(&self, voters: &BTreeSet<ReplicaId>) -> i64 {
        let stays = |member: &&Member| voters.contains(&member.replica) && member.standing == Standing::Here;
        let live = self.members.iter().filter(stays).count();
        i64::try_from(live).unwrap_or(i64::MAX) - i64::try_from(quorum(voters.len())).unwrap_or(i64::MAX)
    }

    /// Whether these voters have a live majority, and stand as many failures as those of today, unless fewer are wanted. A voter that
    /// works is given up only when the majority does not hang on the new ones: they may have died a moment ago.
    fn is_no_worse(&self, voters: &BTreeSet<ReplicaId>, wanted: usize) -> bool {
        let today = self.voters_now();
        let old: BTreeSet<ReplicaId> = voters.intersection(&today).copied().collect();
        let gives_up = self.live(&today) > self.live(&old);
        voters.contains(&self.leader.replica)
            && self.live(if gives_up { &old } else { voters }) >= quorum(voters.len())
            && (self.tolerance(voters) >= self.tolerance(&today) || today.len() > wanted)
    }

    /// Whether it has one voter, or is to have two: then a third is worth waiting for.
    fn is_two_to_be(&self) -> bool {
        self.kept().len() == 1 && !self.promotable().is_empty()
    }

    /// Whether something here will be different by time alone.
    fn is_unsettled(&self) -> bool {
        self.members.iter().any(|member| {
            member.standing == Standing::Away
                || (!member.votes && member.standing == Standing::Here && !member.caught_up)
        })
    }

    fn reason(&self, voters: &BTreeSet<ReplicaId>) -> String {
        let mut reasons: Vec<String> = Vec::new();
        for member in &self.members {
            let what = match (member.votes, voters.contains(&member.replica)) {
                (false, true) => "has caught up and gets a vote",
                (true, false) => match member.standing {
                    Standing::Gone if member.lost => "lost its replica",
                    Standing::Gone => "is gone",
                    Standing::Leaving => "is on its way out",
                    Standing::Here | Standing::Away => "is one voter too many",
                },
                _ => continue,
            };
            reasons.push(format!("node {} {what}", member.home));
        }
        format!("range {}: {}", self.leader.range, reasons.join(", "))
    }
}

fn members(leader: &ReplicaView) -> impl Iterator<Item = (ReplicaId, NodeId)> + '_ {
    leader.voters.iter().chain(&leader.learners).map(|(replica, home)| (*replica, *home))
}

/// The replica as its own node describes it.
fn replica_at(landscape: &Landscape, range: RangeId, replica: ReplicaId, home: NodeId) -> Option<&ReplicaView> {
    replicas(landscape)
        .find(|(id, _, there)| *id == home && there.range == range && there.replica == replica)
        .map(|(_, _, there)| there)
}
