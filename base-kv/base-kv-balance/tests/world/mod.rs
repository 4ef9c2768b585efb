//! A cluster in a box: model nodes with model ranges that carry out commands, and a world that kills, cuts, wipes and restarts them.
//!
//! Raft is abstracted: a group has one true membership and at most one true leader, which needs a majority that it can reach. What a node
//! *believes* is kept apart from that: facts travel late and not across a cut, a deposed leader goes on believing, a restart forgets.

use base_kv_api::balance::{Command, Decision, Joined, Landscape, Liveness, NodeView, ReplicaView, Role};
use base_kv_api::{RangeId, ReplicaId};
use base_kv_balance::{BalancerSpec, Controller, Registry, StoreSetup};
use base_types::{Incarnation, NodeId, NodeIncarnation};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(crate) const TICK: Duration = Duration::from_millis(500);
const DEAD_AFTER_SWIM: Duration = Duration::from_secs(4);

/// SplitMix64.
pub(crate) struct Rng(pub u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// A replica on a disk, with what it believes.
#[derive(Clone)]
struct Replica {
    view: ReplicaView,
}

/// The truth about a range.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) range: RangeId,
    pub(crate) voters: BTreeMap<ReplicaId, NodeId>,
    pub(crate) joint: Option<BTreeMap<ReplicaId, NodeId>>,
    pub(crate) learners: BTreeMap<ReplicaId, NodeId>,
    pub(crate) leader: Option<ReplicaId>,
    term: u64,
    config: u64,
    last: u64,
    committed: u64,
    at: BTreeMap<ReplicaId, u64>,
}

/// What a node has heard of another.
#[derive(Clone)]
struct Heard {
    view: NodeView,
    last: Duration,
    dead_since: Option<Duration>,
    left: bool,
    late: bool,
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) up: bool,
    pub(crate) draining: bool,
    left: bool,
    started: Duration,
    run: u64,
    store: u64,
    counter: u64,
    disk: Vec<Replica>,
    heard: BTreeMap<NodeId, Heard>,
    controller: Controller,
    flight: Option<(Duration, Command)>,
    /// Which part of a cut network it is in.
    pub(crate) part: usize,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: Duration,
    /// What passes in a tick.
    pub(crate) step: Duration,
    pub(crate) nodes: Vec<Node>,
    pub(crate) groups: Vec<Group>,
    pub(crate) wanted: u32,
    pub(crate) learners: i32,
    pub(crate) ranges: u64,
    /// No facts are older than half a second.
    pub(crate) prompt: bool,
    /// Histories that were ever made.
    pub(crate) made: usize,
    /// Commands that were carried out, and when.
    pub(crate) done: Vec<(Duration, NodeId, Command)>,
    seeds: usize,
    lineage: u64,
}

pub(crate) fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

impl World {
    pub(crate) fn new(seed: u64, nodes: usize, wanted: u32, learners: i32, ranges: u64) -> Self {
        let mut world = Self {
            rng: Rng(seed),
            now: Duration::ZERO,
            step: TICK,
            nodes: Vec::new(),
            groups: Vec::new(),
            wanted,
            learners,
            ranges,
            prompt: true,
            made: 0,
            done: Vec::new(),
            seeds: nodes,
            lineage: 0,
        };
        for _ in 0..nodes {
            world.add_node();
        }
        world
    }

    /// A fresh machine.
    pub(crate) fn add_node(&mut self) -> usize {
        let (id, store) = (NodeId(self.rng.next()), self.rng.next());
        let node = Node {
            id,
            up: false,
            draining: false,
            left: false,
            started: Duration::ZERO,
            run: 0,
            store,
            counter: 0,
            disk: Vec::new(),
            heard: BTreeMap::new(),
            controller: self.controller(),
            flight: None,
            part: 0,
        };
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn controller(&self) -> Controller {
        let options = json!({ "learnersPerRange": self.learners, "replaceDeadAfterSec": 10, "replaceLeftAfterSec": 8 });
        let list =
            [BalancerSpec { name: "ReplicaCntBalancer".into(), options }, BalancerSpec::named("RangeLeaderBalancer")];
        let setup = StoreSetup { voters: self.wanted, ranges: (0..self.ranges).collect() };
        Registry::standard().build(&list, &setup).unwrap()
    }

    pub(crate) fn start(&mut self, index: usize) {
        let controller = self.controller();
        let node = &mut self.nodes[index];
        node.up = true;
        (node.draining, node.left) = (false, false);
        node.run += 1;
        node.started = self.now;
        node.heard.clear();
        node.controller = controller;
        node.flight = None;
        for replica in &mut node.disk {
            replica.view.role = Role::Follower;
            replica.view.leader = None;
            replica.view.matched.clear();
        }
    }

    pub(crate) fn kill(&mut self, index: usize) {
        self.nodes[index].up = false;
        self.nodes[index].flight = None;
    }

    /// A stop in order.
    pub(crate) fn leave(&mut self, index: usize) {
        self.kill(index);
        self.nodes[index].left = true;
    }

    /// The data directory is lost: what comes back is another node.
    pub(crate) fn wipe_whole(&mut self, index: usize) {
        self.kill(index);
        let (id, store) = (NodeId(self.rng.next()), self.rng.next());
        let node = &mut self.nodes[index];
        (node.id, node.store, node.counter, node.run) = (id, store, 0, 0);
        node.disk.clear();
    }

    /// The data of the store is lost, the node goes on.
    pub(crate) fn wipe_store(&mut self, index: usize) {
        let store = self.rng.next();
        let node = &mut self.nodes[index];
        node.disk.clear();
        (node.store, node.counter) = (store, 0);
    }

    fn index_of(&self, id: NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }

    fn reaches(&self, a: usize, b: usize) -> bool {
        self.nodes[a].up && self.nodes[b].up && self.nodes[a].part == self.nodes[b].part
    }

    fn has(&self, index: usize, range: RangeId, replica: ReplicaId) -> bool {
        self.nodes[index].disk.iter().any(|there| there.view.range == range && there.view.replica == replica)
    }

    /// Whether a member works, and where.
    fn works(&self, range: RangeId, replica: ReplicaId, home: NodeId) -> Option<usize> {
        self.index_of(home).filter(|index| self.nodes[*index].up && self.has(*index, range, replica))
    }

    /// Whether a majority of the voters (in a joint change: of both) works, wherever it is.
    pub(crate) fn has_quorum(&self, group: &Group) -> bool {
        std::iter::once(&group.voters).chain(&group.joint).all(|voters| {
            let live = voters.iter().filter(|(id, home)| self.works(group.range, **id, **home).is_some()).count();
            live >= quorum(voters.len())
        })
    }

    /// Whether it may die, since every range keeps a majority.
    pub(crate) fn may_lose(&mut self, index: usize) -> bool {
        if !self.nodes[index].up {
            return false;
        }
        self.nodes[index].up = false;
        let safe = self.groups.iter().all(|group| self.has_quorum(group));
        self.nodes[index].up = true;
        safe
    }

    /// Time passes.
    pub(crate) fn tick(&mut self) {
        self.now += self.step;
        for group in 0..self.groups.len() {
            self.raft(group);
        }
        self.gossip();
        for node in 0..self.nodes.len() {
            if self.nodes[node].up {
                self.drive(node);
            }
        }
    }

    /// One group: elect, replicate, commit, spread what is believed.
    fn raft(&mut self, index: usize) {
        let mut group = std::mem::replace(
            &mut self.groups[index],
            Group {
                range: RangeId { id: u64::MAX, lineage: 0, epoch: 0 },
                voters: BTreeMap::new(),
                joint: None,
                learners: BTreeMap::new(),
                leader: None,
                term: 0,
                config: 0,
                last: 0,
                committed: 0,
                at: BTreeMap::new(),
            },
        );
        self.elect(&mut group);
        if let Some(leader) = group.leader
            && let Some(home) = self.home(&group, leader)
        {
            self.replicate(&mut group, leader, home);
        }
        self.groups[index] = group;
    }

    fn home(&self, group: &Group, replica: ReplicaId) -> Option<usize> {
        let all = group.voters.iter().chain(group.joint.iter().flatten()).chain(&group.learners);
        let home = all.into_iter().find(|(id, _)| **id == replica).map(|(_, home)| *home)?;
        self.works(group.range, replica, home)
    }

    /// Whether a node reaches majorities of all voter sets that count, which also are at an index.
    fn majority_from(&self, group: &Group, from: usize, index: u64) -> bool {
        std::iter::once(&group.voters).chain(&group.joint).all(|voters| {
            let there = voters
                .iter()
                .filter(|(id, home)| {
                    let at = group.at.get(id).copied().unwrap_or(0);
                    self.works(group.range, **id, **home).is_some_and(|home| self.reaches(from, home)) && at >= index
                })
                .count();
            there >= quorum(voters.len())
        })
    }

    fn elect(&mut self, group: &mut Group) {
        let leads = group
            .leader
            .and_then(|leader| self.home(group, leader))
            .is_some_and(|home| self.majority_from(group, home, 0));
        if leads {
            return;
        }
        group.leader = None;
        if !self.rng.chance(50) {
            return;
        }
        let candidates: BTreeMap<ReplicaId, NodeId> =
            group.voters.iter().chain(group.joint.iter().flatten()).map(|(id, home)| (*id, *home)).collect();
        let best = candidates
            .iter()
            .filter_map(|(id, home)| Some((*id, self.works(group.range, *id, *home)?)))
            .filter(|(_, home)| self.majority_from(group, *home, 0))
            .max_by_key(|(id, _)| (group.at.get(id).copied().unwrap_or(0), *id));
        if let Some((id, home)) = best {
            assert!(group.at[&id] >= group.committed, "elected without all that was committed");
            group.term += 1;
            group.leader = Some(id);
            group.last = group.at[&id];
            for there in self.nodes[home].disk.iter_mut().filter(|there| there.view.range == group.range) {
                there.view.role = Role::Leader;
            }
        }
    }

    fn replicate(&mut self, group: &mut Group, leader: ReplicaId, home: usize) {
        group.last += self.rng.below(40) as u64;
        group.at.insert(leader, group.last);
        let members: Vec<(ReplicaId, NodeId)> = group
            .voters
            .iter()
            .chain(group.joint.iter().flatten())
            .chain(&group.learners)
            .map(|(id, home)| (*id, *home))
            .collect();
        for (id, node) in &members {
            if self.works(group.range, *id, *node).is_some_and(|there| self.reaches(home, there)) {
                let speed = 30 + self.rng.below(400) as u64;
                let at = group.at.entry(*id).or_insert(0);
                *at = (*at + speed).min(group.last);
            }
        }
        // What a majority has is committed; a change with it.
        while group.committed < group.last && self.majority_from(group, home, group.committed + 1) {
            group.committed += 1;
        }
        if let Some(voters) = group.joint.clone()
            && self.majority_from(group, home, group.committed)
            && self.rng.chance(60)
        {
            let gone: Vec<ReplicaId> = group.voters.keys().filter(|id| !voters.contains_key(id)).copied().collect();
            group.joint = None;
            group.learners.retain(|id, _| !voters.contains_key(id));
            let old = std::mem::replace(&mut group.voters, voters);
            group.config += 1;
            for id in gone {
                group.at.remove(&id);
                if let Some(there) = self.index_of(old[&id]).filter(|there| self.reaches(home, *there)) {
                    self.nodes[there].disk.retain(|replica| replica.view.replica != id);
                }
            }
            if !group.voters.contains_key(&leader) {
                group.leader = None;
            }
            let have =
                group.voters.keys().filter(|id| group.at.get(id).copied().unwrap_or(0) >= group.committed).count();
            assert!(have >= quorum(group.voters.len()), "a change left fewer good copies than a majority");
        }
        for (id, node) in members {
            let Some(there) = self.works(group.range, id, node).filter(|there| self.reaches(home, *there)) else {
                continue;
            };
            let view = ReplicaView {
                range: group.range,
                replica: id,
                role: if id == leader {
                    Role::Leader
                } else if group.learners.contains_key(&id) {
                    Role::Learner
                } else {
                    Role::Follower
                },
                term: group.term,
                leader: group.leader,
                config: group.config,
                changing: group.joint.is_some(),
                voters: group.voters.clone(),
                learners: group.learners.clone(),
                last: (group.term, group.at.get(&id).copied().unwrap_or(0)),
                committed: group.committed,
                applied: group.committed,
                matched: if id == leader { group.at.clone() } else { BTreeMap::new() },
                fault: None,
            };
            for replica in self.nodes[there].disk.iter_mut().filter(|replica| replica.view.replica == id) {
                replica.view = view.clone();
            }
        }
    }

    fn own_view(&self, index: usize) -> NodeView {
        let node = &self.nodes[index];
        NodeView {
            run: NodeIncarnation { node: node.id, incarnation: Incarnation(node.run) },
            liveness: Liveness::Alive,
            draining: node.draining,
            known: true,
            replicas: node.disk.iter().map(|replica| replica.view.clone()).collect(),
        }
    }

    /// Facts travel: most of them at once, some later; of dead nodes those that others remember.
    fn gossip(&mut self) {
        let views: Vec<NodeView> = (0..self.nodes.len()).map(|index| self.own_view(index)).collect();
        for here in 0..self.nodes.len() {
            if !self.nodes[here].up {
                continue;
            }
            for (there, view) in views.iter().enumerate() {
                if here == there || !self.reaches(here, there) {
                    continue;
                }
                let (id, fresh) = (self.nodes[there].id, self.rng.chance(70));
                let remembered: Vec<(NodeId, Heard)> = self.nodes[there]
                    .heard
                    .iter()
                    .filter(|(other, heard)| heard.dead_since.is_some() && !self.nodes[here].heard.contains_key(other))
                    .filter(|(other, _)| **other != self.nodes[here].id)
                    .map(|(other, heard)| (*other, heard.clone()))
                    .collect();
                let now = self.now;
                let node = &mut self.nodes[here];
                let unknown = NodeView { known: false, replicas: Vec::new(), ..view.clone() };
                let heard = node.heard.entry(id).or_insert(Heard {
                    view: unknown,
                    last: now,
                    dead_since: None,
                    left: false,
                    late: false,
                });
                (heard.last, heard.dead_since, heard.left) = (now, None, false);
                heard.late = !(fresh || self.prompt && heard.late);
                if !heard.late {
                    heard.view = view.clone();
                }
                for (other, mut memory) in remembered {
                    memory.last = Duration::ZERO;
                    node.heard.entry(other).or_insert(memory);
                }
            }
            let left: BTreeSet<NodeId> =
                self.nodes.iter().filter(|node| node.left && !node.up).map(|node| node.id).collect();
            let now = self.now;
            for (id, heard) in &mut self.nodes[here].heard {
                if heard.last < now && heard.dead_since.is_none() {
                    if left.contains(id) {
                        (heard.dead_since, heard.left) = (Some(now), true);
                    } else if now - heard.last >= DEAD_AFTER_SWIM {
                        heard.dead_since = Some(now);
                    }
                }
            }
        }
    }

    pub(crate) fn landscape(&self, index: usize) -> Landscape {
        let node = &self.nodes[index];
        let mut nodes: BTreeMap<NodeId, NodeView> = node
            .heard
            .iter()
            .map(|(id, heard)| {
                let liveness = match heard.dead_since {
                    None => Liveness::Alive,
                    Some(since) if heard.left => Liveness::Left(self.now - since),
                    Some(since) => Liveness::Dead(self.now - since),
                };
                (*id, NodeView { liveness, ..heard.view.clone() })
            })
            .collect();
        nodes.insert(node.id, self.own_view(index));
        let seen = |seed: &usize| {
            *seed == index
                || nodes.get(&self.nodes[*seed].id).is_some_and(|seed| seed.known && seed.liveness == Liveness::Alive)
        };
        let met = (0..self.seeds).filter(seen).count();
        let joined = match self.seeds {
            1 if index == 0 => Joined::Alone,
            seeds if met >= quorum(seeds) => Joined::Majority,
            _ => Joined::Looking { since: Duration::ZERO },
        };
        Landscape { me: node.id, store: "inbox".into(), nodes, joined }
    }

    fn drive(&mut self, index: usize) {
        let landscape = self.landscape(index);
        let now = self.now - self.nodes[index].started;
        if self.nodes[index].flight.is_some() {
            return self.land(index, now);
        }
        if let (Decision::Now(command), _) = self.nodes[index].controller.next(now, &landscape) {
            if let Command::ChangeVoters { range, voters, .. } = &command {
                self.check_change(&landscape, *range, voters);
            }
            let at_once = matches!(command, Command::Bootstrap { .. });
            let delay = TICK * if at_once { 0 } else { self.rng.below(4) as u32 };
            self.nodes[index].flight = Some((self.now + delay, command));
            if at_once {
                self.land(index, now);
            }
        }
    }

    /// Carries out what is under way, when it is time.
    fn land(&mut self, index: usize, now: Duration) {
        let Some((due, command)) = self.nodes[index].flight.clone() else { return };
        if self.now >= due {
            let outcome = self.execute(index, &command);
            if outcome.is_ok() {
                self.done.push((self.now, self.nodes[index].id, command));
            }
            self.nodes[index].flight = None;
            self.nodes[index].controller.settled(now, outcome);
        }
    }

    /// What must be true of every change in the eyes of who proposes it.
    fn check_change(&self, landscape: &Landscape, range: RangeId, voters: &BTreeSet<ReplicaId>) {
        let own = &landscape.nodes[&landscape.me];
        let leader = own.replicas.iter().find(|replica| replica.range == range).unwrap();
        assert!(voters.contains(&leader.replica), "the leader removes itself");
        assert!(voters.len() <= (self.wanted as usize).max(leader.voters.len()), "more voters than wanted");
        let live = voters
            .iter()
            .filter(|id| {
                let home = leader.voters.get(id).or(leader.learners.get(id)).unwrap();
                let there = landscape.nodes.get(home).filter(|node| node.liveness == Liveness::Alive && node.known);
                there.is_some_and(|node| node.replicas.iter().any(|replica| replica.replica == **id))
            })
            .count();
        assert!(live >= quorum(voters.len()), "a change without a live majority");
        let homes: BTreeSet<NodeId> =
            voters.iter().map(|id| *leader.voters.get(id).or(leader.learners.get(id)).unwrap()).collect();
        assert_eq!(homes.len(), voters.len(), "two votes on one node");
    }

    fn execute(&mut self, index: usize, command: &Command) -> Result<(), String> {
        match command {
            Command::Bootstrap { id } => {
                if self.nodes[index].disk.iter().any(|replica| replica.view.range.id == *id) {
                    return Err("there is one already".into());
                }
                self.made += 1;
                self.lineage = self.rng.next();
                let range = RangeId { id: *id, lineage: self.lineage, epoch: 0 };
                let replica = self.make_replica(index, range);
                self.groups.push(Group {
                    range,
                    voters: BTreeMap::from([(replica, self.nodes[index].id)]),
                    joint: None,
                    learners: BTreeMap::new(),
                    leader: Some(replica),
                    term: 1,
                    config: 1,
                    last: 1,
                    committed: 1,
                    at: BTreeMap::from([(replica, 1)]),
                });
                let last = self.groups.len() - 1;
                self.raft(last);
                Ok(())
            }
            Command::AddLearner { range, config, node } => {
                let group = self.leading(index, *range, Some(*config))?;
                let there =
                    self.index_of(*node).filter(|there| self.reaches(index, *there)).ok_or("the node is not there")?;
                if self.nodes[there]
                    .disk
                    .iter()
                    .any(|replica| replica.view.range.id == range.id && replica.view.range != *range)
                {
                    return Err("the node has another history".into());
                }
                let members: BTreeSet<ReplicaId> =
                    self.groups[group].voters.keys().chain(self.groups[group].learners.keys()).copied().collect();
                let old = self.nodes[there]
                    .disk
                    .iter()
                    .find(|replica| replica.view.range == *range)
                    .map(|old| old.view.replica);
                if old.is_some_and(|old| members.contains(&old)) {
                    return Err("the node has a member".into());
                }
                self.nodes[there].disk.retain(|replica| replica.view.range != *range);
                let replica = self.make_replica(there, *range);
                self.groups[group].learners.insert(replica, *node);
                self.groups[group].config += 1;
                self.raft(group);
                Ok(())
            }
            Command::ChangeVoters { range, config, voters } => {
                let here = index;
                let index = self.leading(index, *range, Some(*config))?;
                let group = &self.groups[index];
                let answers = |id: &ReplicaId| self.home(group, *id).is_some_and(|there| self.reaches(here, there));
                if voters.iter().any(|id| !group.voters.contains_key(id) && !answers(id)) {
                    return Err("a new voter does not answer".into());
                }
                let group = &mut self.groups[index];
                let homes: Option<BTreeMap<ReplicaId, NodeId>> =
                    voters.iter().map(|id| Some((*id, *group.voters.get(id).or(group.learners.get(id))?))).collect();
                group.joint = Some(homes.ok_or("not a member")?);
                group.config += 1;
                self.raft(index);
                Ok(())
            }
            Command::RemoveLearners { range, config, learners } => {
                let group = self.leading(index, *range, Some(*config))?;
                for id in learners {
                    let home = self.groups[group].learners.remove(id).ok_or("no learner")?;
                    self.groups[group].at.remove(id);
                    if let Some(there) = self.index_of(home).filter(|there| self.reaches(index, *there)) {
                        self.nodes[there].disk.retain(|replica| replica.view.replica != *id);
                    }
                }
                self.groups[group].config += 1;
                self.raft(group);
                Ok(())
            }
            Command::TransferLeader { range, to } => {
                let index = self.leading(index, *range, None)?;
                let home = self.home(&self.groups[index], *to).ok_or("the target is not there")?;
                if !self.majority_from(&self.groups[index], home, 0)
                    || self.groups[index].at[to] < self.groups[index].committed
                {
                    return Err("the target can't lead".into());
                }
                let group = &mut self.groups[index];
                group.leader = Some(*to);
                group.term += 1;
                group.last = group.at[to];
                self.raft(index);
                Ok(())
            }
            Command::Merge { loser, winner } => {
                let at = self.leading(index, *loser, None)?;
                let won = self.groups.iter().any(|group| group.range == *winner && group.leader.is_some());
                if !won {
                    return Err("the winner is not led".into());
                }
                assert!(winner.lineage < loser.lineage, "the wrong one gives way");
                self.groups.remove(at);
                for node in &mut self.nodes {
                    node.disk.retain(|replica| replica.view.range != *loser);
                }
                Ok(())
            }
        }
    }

    fn make_replica(&mut self, index: usize, range: RangeId) -> ReplicaId {
        let node = &mut self.nodes[index];
        node.counter += 1;
        let replica = ReplicaId { store: node.store, counter: node.counter };
        let view = ReplicaView {
            range,
            replica,
            role: Role::Learner,
            term: 0,
            leader: None,
            config: 0,
            changing: false,
            voters: BTreeMap::new(),
            learners: BTreeMap::new(),
            last: (0, 0),
            committed: 0,
            applied: 0,
            matched: BTreeMap::new(),
            fault: None,
        };
        node.disk.push(Replica { view });
        replica
    }

    /// The group that a node truly leads, with that membership, and with a majority.
    fn leading(&self, index: usize, range: RangeId, config: Option<u64>) -> Result<usize, String> {
        let at = self.groups.iter().position(|group| group.range == range).ok_or("no such range")?;
        let group = &self.groups[at];
        let leader = group.leader.ok_or("no leader")?;
        if self.home(group, leader) != Some(index) || !self.majority_from(group, index, 0) {
            return Err("not the leader".into());
        }
        if group.joint.is_some() || config.is_some_and(|config| config != group.config) {
            return Err("the membership is another one".into());
        }
        Ok(at)
    }

    /// Why this is not how it should be in the end; `None` when it is.
    pub(crate) fn unfinished(&self) -> Option<String> {
        let up: BTreeSet<NodeId> = self.nodes.iter().filter(|node| node.up).map(|node| node.id).collect();
        if self.groups.len() != self.ranges as usize {
            return Some(format!("{} histories of {} ranges", self.groups.len(), self.ranges));
        }
        let mut leaders: BTreeMap<NodeId, usize> = up.iter().map(|id| (*id, 0)).collect();
        for group in &self.groups {
            let name = group.range;
            let Some(leader) = group.leader else { return Some(format!("{name}: no leader")) };
            if group.joint.is_some() {
                return Some(format!("{name}: a joint change was left behind"));
            }
            let live: BTreeSet<NodeId> = group
                .voters
                .iter()
                .filter(|(id, home)| self.works(name, **id, **home).is_some())
                .map(|(_, home)| *home)
                .collect();
            let wanted = match up.len().min(self.wanted as usize) {
                2 => 2,
                even if even % 2 == 0 => even - 1,
                odd => odd,
            };
            if live.len() < wanted {
                return Some(format!("{name}: {} live voters, {wanted} are wanted; {:?}", live.len(), group.voters));
            }
            let learners: BTreeSet<NodeId> = group
                .learners
                .iter()
                .filter(|(id, home)| self.works(name, **id, **home).is_some())
                .map(|(_, home)| *home)
                .collect();
            let expected = match self.learners {
                -1 => up.difference(&live).count(),
                some => (some as usize).min(up.len() - live.len()),
            };
            if learners.len() != expected || !learners.is_disjoint(&live) {
                return Some(format!("{name}: {} learners, {expected} are wanted", learners.len()));
            }
            *leaders.entry(group.voters[&leader]).or_default() += 1;
        }
        // Only where every node can lead every range can leaders be even.
        let everywhere = self.groups.iter().all(|group| group.voters.len() == up.len());
        let (least, most) =
            (leaders.values().min().copied().unwrap_or(0), leaders.values().max().copied().unwrap_or(0));
        (everywhere && most > least + 1).then(|| format!("leaders are uneven: {leaders:?}"))
    }

    /// Runs until nothing was commanded for a while, and says how many commands it took.
    pub(crate) fn settle(&mut self, limit: Duration) -> usize {
        let (start, before) = (self.now, self.done.len());
        while self.now < start + limit {
            self.tick();
            let quiet_since = self.done.last().map_or(start, |(at, _, _)| (*at).max(start));
            if self.now - quiet_since >= Duration::from_secs(20) && self.unfinished().is_none() {
                return self.done.len() - before;
            }
        }
        self.done.len() - before
    }
}
