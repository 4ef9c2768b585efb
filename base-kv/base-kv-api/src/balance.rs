//! Policy over ranges: what is there, what should be there, and the one next step.
//!
//! A [`Balancer`] is a pure value: it looks at a [`Landscape`], and says what to do. It has no clock, no I/O and no memory beyond its
//! own fields; whoever drives it carries out its [`Command`], tells it the outcome, and shows it the next landscape, with the time since
//! the process started. A command names the membership that it was computed for ([`ReplicaView::config`]); when that has changed in the
//! meantime the command is refused and nothing happens.

use crate::{RangeId, ReplicaId};
use base_types::{NodeId, NodeIncarnation};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// What one node knows of the whole cluster. Views of different nodes differ for a while; none of them is the truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landscape {
    /// Whose view.
    pub me: NodeId,
    /// The store that is looked at: `dist`, `inbox` or `retain`.
    pub store: String,
    /// Every node that is known, the own one included.
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// Whether this node has met the nodes that it was told to look for (seeds), and for how long it has been looking if not.
    pub joined: Joined,
}

/// How far a node has come in finding the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// It has no seeds but itself: there is nobody to wait for.
    Alone,
    /// At least a majority of the seeds, the node itself counted if it is one, is alive and has told its facts.
    Majority,
    /// Some seeds, or none, could be reached; looking since the start of the process.
    Looking {
        /// Since when, on the time line of [`Balancer::balance`]'s `now`.
        since: Duration,
    },
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// The run that was seen last.
    pub run: NodeIncarnation,
    /// Whether it is there.
    pub liveness: Liveness,
    /// It is on its way out and takes nothing new.
    pub draining: bool,
    /// Its facts have arrived: `replicas` says what it has. Without them nothing is known.
    pub known: bool,
    /// Its replicas of the store.
    pub replicas: Vec<ReplicaView>,
}

/// Whether a node is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It answers.
    Alive,
    /// It was declared dead so long ago.
    Dead(Duration),
    /// It said that it leaves.
    Left(Duration),
}

/// A replica, as its node describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaView {
    /// Of which range.
    pub range: RangeId,
    /// Its name.
    pub replica: ReplicaId,
    /// What it is.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The leader that it knows.
    pub leader: Option<ReplicaId>,
    /// Index of the membership that is in force for it: rises with each change.
    pub config: u64,
    /// A change of membership is under way.
    pub changing: bool,
    /// Who votes, and where they live.
    pub voters: BTreeMap<ReplicaId, NodeId>,
    /// Who gets the log without a vote.
    pub learners: BTreeMap<ReplicaId, NodeId>,
    /// Term and index of its last log entry.
    pub last: (u64, u64),
    /// Index of the last entry that it knows to be committed.
    pub committed: u64,
    /// Index of the last entry that it applied.
    pub applied: u64,
    /// Told by a leader: how far the log of each other replica is.
    pub matched: BTreeMap<ReplicaId, u64>,
    /// Why it does not work, if so.
    pub fault: Option<String>,
}

/// What a replica is in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Gets the log, has no vote.
    Learner,
    /// Follows a leader.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
    /// Stopped, see [`ReplicaView::fault`].
    Stopped,
}

/// One step. Each is carried out whole or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Makes the first replica of a range, here, as its only voter.
    Bootstrap {
        /// Which range of the store.
        id: u64,
    },
    /// Has a node make a replica, under a new name, and feeds it as a learner. For the leader. What the node still holds of the same
    /// lineage from earlier, and is no member of this membership, is set aside first (on disk).
    AddLearner {
        /// Of which range.
        range: RangeId,
        /// Computed for this membership.
        config: u64,
        /// Where.
        node: NodeId,
    },
    /// Makes these the voters, in a joint change; a voter that is not among them becomes nothing, a learner that is becomes a voter.
    /// For the leader. Refused when one that would be new has not answered the leader lately: a joint change that can't be committed would
    /// be left behind.
    ChangeVoters {
        /// Of which range.
        range: RangeId,
        /// Computed for this membership.
        config: u64,
        /// All voters, by name.
        voters: BTreeSet<ReplicaId>,
    },
    /// Takes learners out of the group. For the leader.
    RemoveLearners {
        /// Of which range.
        range: RangeId,
        /// Computed for this membership.
        config: u64,
        /// Whom.
        learners: BTreeSet<ReplicaId>,
    },
    /// Hands leadership to a voter. For the leader.
    TransferLeader {
        /// Of which range.
        range: RangeId,
        /// To whom.
        to: ReplicaId,
    },
    /// Brings what a lineage that lost against another one holds into the winner, then sets its replicas aside (on disk). For the loser's leader.
    Merge {
        /// The range that ends.
        loser: RangeId,
        /// The range that goes on.
        winner: RangeId,
    },
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, replicas: &BTreeSet<ReplicaId>| {
            let texts: Vec<_> = replicas.iter().map(ToString::to_string).collect();
            f.write_str(&texts.join(", "))
        };
        match self {
            Self::Bootstrap { id } => write!(f, "makes range {id}"),
            Self::AddLearner { range, node, .. } => write!(f, "range {range}: adds a learner on node {node}"),
            Self::ChangeVoters { range, voters, .. } => {
                write!(f, "range {range}: makes these the voters: ")?;
                list(f, voters)
            }
            Self::RemoveLearners { range, learners, .. } => {
                write!(f, "range {range}: removes the learners ")?;
                list(f, learners)
            }
            Self::TransferLeader { range, to } => write!(f, "range {range}: hands leadership to {to}"),
            Self::Merge { loser, winner } => write!(f, "range {loser}: goes into {winner}"),
        }
    }
}

/// What a balancer wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing, until the landscape changes.
    Idle,
    /// Nothing now; look again after so long.
    WakeAfter(Duration),
    /// This, now.
    Now(Command),
}

/// A policy.
pub trait Balancer: Send + 'static {
    /// Its name in the configuration, in logs and metrics.
    fn name(&self) -> &'static str;

    /// The one next step for what this node is responsible for: the ranges that it leads, and those that nobody has made.
    ///
    /// `now` is the time since the process started. It never goes back.
    fn balance(&mut self, now: Duration, landscape: &Landscape) -> Decision;

    /// What became of the last command: carried out, or why not. A balancer that remembers can try something else first.
    fn settled(&mut self, _now: Duration, _command: &Command, _outcome: Result<(), &str>) {}

    /// Why the last decision is what it is, for people.
    fn why(&self) -> &str {
        ""
    }
}
