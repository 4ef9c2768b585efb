use crate::view::{LAG_MAX, is_alive, leaders, quorum, replicas};
use base_kv_api::balance::{Joined, Landscape, Liveness, ReplicaView, Role};
use base_kv_api::{RangeId, ReplicaId};
use base_types::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How a store is, as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// Every range that anybody has a replica of.
    pub ranges: Vec<RangeHealth>,
    /// Everything that is not as it should be, the worst first.
    pub problems: Vec<Problem>,
    /// How many more nodes may die, whichever they are, so that every range keeps a majority.
    pub tolerates: usize,
}

/// How a range is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeHealth {
    /// Which.
    pub range: RangeId,
    /// Who leads it, and where.
    pub leader: Option<(ReplicaId, NodeId)>,
    /// Who votes, and where.
    pub voters: BTreeMap<ReplicaId, NodeId>,
    /// Who learns, and where.
    pub learners: BTreeMap<ReplicaId, NodeId>,
    /// Voters that work and, as far as a leader tells, have caught up.
    pub in_sync: usize,
    /// Log entries that each member lacks, as far as a leader tells.
    pub lag: BTreeMap<ReplicaId, u64>,
    /// How many more nodes may die, whichever they are, so that the range keeps a majority.
    pub tolerates: usize,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// What.
    pub kind: ProblemKind,
    /// Of which range; `None`: of the store.
    pub range: Option<RangeId>,
}

/// What can be wrong, the worst first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemKind {
    /// Nobody leads the range, since too few of its voters are there.
    NoMajority {
        /// Voters that work.
        live: usize,
        /// How many it takes.
        needed: usize,
        /// The others, where they live, and what is known of them.
        missing: Vec<(ReplicaId, NodeId, String)>,
    },
    /// Nobody leads the range, though a majority is there: it elects, or its nodes don't reach each other.
    NoLeader,
    /// Nobody has made any range yet.
    NotMade {
        /// What is waited for.
        why: String,
    },
    /// There are two histories of the range.
    TwoHistories {
        /// The other one.
        other: RangeId,
    },
    /// A replica has stopped.
    Stopped {
        /// Which.
        replica: ReplicaId,
        /// Where.
        node: NodeId,
        /// As it says.
        fault: String,
    },
    /// Voters are missing or behind.
    UnderReplicated {
        /// Voters that work and have caught up.
        in_sync: usize,
        /// Voters.
        voters: usize,
        /// Those that don't, where they live, and what is known of them.
        missing: Vec<(ReplicaId, NodeId, String)>,
    },
    /// Fewer voters than the store wants.
    TooFewVoters {
        /// Voters.
        voters: usize,
        /// How many are wanted.
        wanted: usize,
    },
    /// A learner is behind.
    Lagging {
        /// Which.
        replica: ReplicaId,
        /// Where.
        node: NodeId,
        /// Log entries that it lacks.
        entries: u64,
    },
    /// A change of membership is under way.
    Changing,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(range) = self.range {
            write!(f, "range {range}: ")?;
        }
        let list = |f: &mut fmt::Formatter<'_>, missing: &[(ReplicaId, NodeId, String)]| {
            missing.iter().try_for_each(|(_, node, what)| write!(f, "; the voter on node {node} {what}"))
        };
        match &self.kind {
            ProblemKind::NoMajority { live, needed, missing } => {
                write!(f, "unavailable: {live} of the {needed} voters that it needs are there")?;
                list(f, missing)
            }
            ProblemKind::NoLeader => f.write_str("unavailable: a majority is there, and elects a leader"),
            ProblemKind::NotMade { why } => write!(f, "no range was made yet: {why}"),
            ProblemKind::TwoHistories { other } => write!(f, "has another history, {other}: they are to be joined"),
            ProblemKind::Stopped { node, fault, .. } => write!(f, "the replica on node {node} has stopped: {fault}"),
            ProblemKind::UnderReplicated { in_sync, voters, missing } => {
                write!(f, "{in_sync} of {voters} voters are in sync")?;
                list(f, missing)
            }
            ProblemKind::TooFewVoters { voters, wanted } => write!(f, "{voters} voters, {wanted} are wanted"),
            ProblemKind::Lagging { node, entries, .. } => {
                write!(f, "the learner on node {node} is {entries} entries behind")
            }
            ProblemKind::Changing => f.write_str("its membership is being changed"),
        }
    }
}

/// Says what is wrong with a store, as one node sees it, and how many voters it wants.
#[must_use]
pub fn diagnose(landscape: &Landscape, wanted: u32) -> Diagnosis {
    let mut problems = Vec::new();
    let mut ranges: Vec<RangeHealth> = Vec::new();
    for view in best_views(landscape) {
        ranges.push(examine(landscape, view, wanted, &mut problems));
    }
    for range in &ranges {
        for other in ranges.iter().filter(|other| other.range.id == range.range.id && other.range < range.range) {
            let kind = ProblemKind::TwoHistories { other: other.range };
            problems.push(Problem { kind, range: Some(range.range) });
        }
    }
    if ranges.is_empty() {
        problems.push(Problem { kind: ProblemKind::NotMade { why: not_made(landscape) }, range: None });
    }
    problems.sort();
    let tolerates = ranges.iter().map(|range| range.tolerates).min().unwrap_or(0);
    Diagnosis { ranges, problems, tolerates }
}

/// Of each range the view that knows best: its leader's, else the latest membership that anybody has. Epochs that were left are not
/// looked at.
fn best_views(landscape: &Landscape) -> Vec<&ReplicaView> {
    let leaders = leaders(landscape);
    let mut best: BTreeMap<(u64, u64), (bool, bool, &ReplicaView)> = BTreeMap::new();
    for (_, node, view) in replicas(landscape) {
        let leads = leaders.iter().any(|(_, leader)| leader.range == view.range && leader.replica == view.replica);
        let rank = |(leads, alive, view): &(bool, bool, &ReplicaView)| {
            (view.range.epoch, *leads, view.config, *alive, view.term)
        };
        let entry = (leads, is_alive(node), view);
        let known = best.entry((view.range.id, view.range.lineage)).or_insert(entry);
        if rank(&entry) > rank(known) {
            *known = entry;
        }
    }
    best.into_values().map(|(_, _, view)| view).collect()
}

fn examine(landscape: &Landscape, view: &ReplicaView, wanted: u32, problems: &mut Vec<Problem>) -> RangeHealth {
    let range = view.range;
    let mut problem = |kind| problems.push(Problem { kind, range: Some(range) });
    let leader = leaders(landscape)
        .into_iter()
        .find(|(_, leader)| leader.range == range)
        .map(|(node, leader)| (leader.replica, node));
    let lag: BTreeMap<ReplicaId, u64> = if leader.is_some() {
        view.matched.iter().map(|(id, at)| (*id, view.last.1.saturating_sub(*at))).collect()
    } else {
        BTreeMap::new()
    };
    let faults = |replica: ReplicaId, home: NodeId| absence(landscape, range, replica, home);
    let missing: Vec<(ReplicaId, NodeId, String)> =
        view.voters.iter().filter_map(|(id, home)| Some((*id, *home, faults(*id, *home)?))).collect();
    let behind = |id: &ReplicaId| lag.get(id).copied().filter(|entries| *entries > LAG_MAX);
    let mut not_in_sync = missing.clone();
    for (id, home) in &view.voters {
        if let (Some(entries), false) = (behind(id), missing.iter().any(|(other, _, _)| other == id)) {
            not_in_sync.push((*id, *home, format!("is {entries} entries behind")));
        }
    }
    let (live, needed) = (view.voters.len() - missing.len(), quorum(view.voters.len()));
    let in_sync = view.voters.len() - not_in_sync.len();

    if live < needed {
        problem(ProblemKind::NoMajority { live, needed, missing: missing.clone() });
    } else if leader.is_none() {
        problem(ProblemKind::NoLeader);
    } else {
        if !not_in_sync.is_empty() {
            problem(ProblemKind::UnderReplicated { in_sync, voters: view.voters.len(), missing: not_in_sync });
        }
        let there = landscape.nodes.values().filter(|node| is_alive(node)).count();
        let wanted =
            (wanted as usize).min(if there == 2 { 2 } else { there - usize::from(there % 2 == 0 && there > 0) });
        if view.voters.len() < wanted {
            problem(ProblemKind::TooFewVoters { voters: view.voters.len(), wanted });
        }
        if view.changing {
            problem(ProblemKind::Changing);
        }
    }
    for (id, home) in &view.learners {
        if let Some(entries) = behind(id) {
            problem(ProblemKind::Lagging { replica: *id, node: *home, entries });
        }
    }
    for (node, _, there) in replicas(landscape).filter(|(_, node, there)| is_alive(node) && there.range == range) {
        if there.role == Role::Stopped {
            let fault = there.fault.clone().unwrap_or_else(|| "it does not say why".into());
            problem(ProblemKind::Stopped { replica: there.replica, node, fault });
        }
    }
    RangeHealth {
        range,
        leader,
        voters: view.voters.clone(),
        learners: view.learners.clone(),
        in_sync,
        lag,
        tolerates: tolerates(view, &missing, needed),
    }
}

/// Deaths of the nodes with the most live voters first.
fn tolerates(view: &ReplicaView, missing: &[(ReplicaId, NodeId, String)], needed: usize) -> usize {
    let mut live: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (_, home) in view.voters.iter().filter(|(id, _)| !missing.iter().any(|(other, _, _)| other == *id)) {
        *live.entry(*home).or_default() += 1;
    }
    let mut left: usize = live.values().sum();
    let mut counts: Vec<usize> = live.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    counts
        .into_iter()
        .take_while(|count| {
            left = left.saturating_sub(*count);
            left >= needed
        })
        .count()
}

/// Why a member does not work; `None` when it does.
fn absence(landscape: &Landscape, range: RangeId, replica: ReplicaId, home: NodeId) -> Option<String> {
    let Some(node) = landscape.nodes.get(&home) else { return Some("is unknown: nobody has heard of its node".into()) };
    match node.liveness {
        Liveness::Dead(since) => return Some(format!("is gone: its node was declared dead {} s ago", since.as_secs())),
        Liveness::Left(since) => return Some(format!("is gone: its node left {} s ago", since.as_secs())),
        Liveness::Alive if !node.known => return Some("is unknown: its node has not told what it has".into()),
        Liveness::Alive => {}
    }
    let there = node.replicas.iter().find(|there| there.range == range && there.replica == replica);
    match there {
        None => Some("is lost: its node does not have it".into()),
        Some(there) if there.role == Role::Stopped => {
            Some(format!("has stopped: {}", there.fault.as_deref().unwrap_or("it does not say why")))
        }
        Some(_) => None,
    }
}

fn not_made(landscape: &Landscape) -> String {
    let alive: BTreeSet<NodeId> =
        landscape.nodes.iter().filter(|(_, node)| is_alive(node)).map(|(node, _)| *node).collect();
    if let Some((node, _)) = landscape.nodes.iter().find(|(_, node)| is_alive(node) && !node.known) {
        return format!("node {node} has not told what it has");
    }
    match (landscape.joined, alive.first()) {
        (Joined::Looking { .. }, _) => "a majority of the seeds is looked for".into(),
        (_, Some(first)) => format!("node {first} is to make it"),
        (_, None) => "no node is alive".into(),
    }
}
