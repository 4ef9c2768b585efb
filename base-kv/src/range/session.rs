use super::answers::Answers;
use super::queue::Waiting;
use crate::raft::{Last, Origin, Outcome, Proposal, Settle, Verdict};
use crate::stats::KvObserver;
use base_kv_api::MutateError;
use base_types::WallMs;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What this node proposed to a range and has no outcome for: numbered, in order, until its own replica has applied it.
///
/// Each entry carries (proposer, life, number), and the range applies the numbers of a life once and in order. So whatever is not settled
/// can be sent again, to anybody who leads. Who gives something up begins a new life: once an entry of that one is applied, none of
/// an older one ever is.
pub(crate) struct Session {
    proposer: u64,
    store: &'static str,
    observer: Arc<dyn KvObserver>,
    state: Mutex<State>,
    changed: Notify,
}

/// How far a session is.
pub(crate) struct Progress {
    pub(crate) life: u64,
    /// Entries that have no outcome yet.
    pub(crate) unsettled: usize,
    /// Entries that had one.
    pub(crate) settled: u64,
    /// Something was not applied because something before it is missing in the log.
    pub(crate) gap: bool,
}

struct State {
    life: u64,
    /// The number of the next entry.
    next: u64,
    unsettled: VecDeque<Unsettled>,
    /// Something was not applied because something before it is missing.
    gap: bool,
    /// How many were ever settled: progress.
    settled: u64,
    used: Instant,
}

struct Unsettled {
    seq: u64,
    proposal: Proposal,
    answers: Arc<Answers>,
    since: Instant,
    commands: u64,
}

/// Well before the range forgets a proposer that is silent.
const NEW_LIFE_AFTER: std::time::Duration = std::time::Duration::from_secs(3600);

impl Session {
    pub(crate) fn new(proposer: u64, life: u64, store: &'static str, observer: Arc<dyn KvObserver>) -> Self {
        let state = State { life, next: 1, unsettled: VecDeque::new(), gap: false, settled: 0, used: Instant::now() };
        Self { proposer, store, observer, state: Mutex::new(state), changed: Notify::new() }
    }

    /// Returns when something was settled, or needs to be sent again.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// How far it is; tells a gap once.
    pub(crate) fn progress(&self) -> Progress {
        let mut state = self.state.lock();
        let gap = std::mem::take(&mut state.gap);
        Progress { life: state.life, unsettled: state.unsettled.len(), settled: state.settled, gap }
    }

    /// Numbers an entry.
    pub(crate) fn begin(&self, entry: Waiting, stamped: WallMs) -> (u64, Proposal) {
        let mut state = self.state.lock();
        if state.unsettled.is_empty() && state.used.elapsed() > NEW_LIFE_AFTER {
            state.new_life();
        }
        state.used = Instant::now();
        let seq = state.next;
        state.next += 1;
        let commands = entry.gathering.count() as u64;
        let origin = Origin { proposer: self.proposer, life: state.life, seq };
        let proposal = entry.gathering.finish(stamped, &origin);
        let (answers, since) = (entry.answers, entry.since);
        state.unsettled.push_back(Unsettled { seq, proposal: proposal.clone(), answers, since, commands });
        (seq, proposal)
    }

    /// Entries after a number that are not settled.
    pub(crate) fn after(&self, seq: u64) -> Vec<(u64, Proposal)> {
        let state = self.state.lock();
        let after = state.unsettled.iter().filter(|entry| entry.seq > seq);
        after.map(|entry| (entry.seq, entry.proposal.clone())).collect()
    }

    /// Gives up all when the oldest is from before `then` (or in any case). Tells since when the oldest waits.
    pub(crate) fn give_up(&self, then: Option<Instant>) -> Option<Instant> {
        let given_up = {
            let mut state = self.state.lock();
            let oldest = state.unsettled.front()?.since;
            if then.is_some_and(|then| oldest > then) {
                return Some(oldest);
            }
            state.new_life()
        };
        unknown(given_up);
        None
    }
}

fn unknown(entries: impl IntoIterator<Item = Unsettled>) {
    entries.into_iter().for_each(|entry| entry.answers.complete(Err(MutateError::Unknown)));
}

impl State {
    /// What was not settled never will be, once something of the new life is applied.
    fn new_life(&mut self) -> VecDeque<Unsettled> {
        self.life += 1;
        self.next = 1;
        self.gap = false;
        std::mem::take(&mut self.unsettled)
    }
}

impl Settle for Session {
    fn proposer(&self) -> u64 {
        self.proposer
    }

    fn settled(&self, entries: Vec<(Origin, Outcome)>) {
        let (mut answered, mut lost) = (Vec::new(), Vec::new());
        {
            let mut state = self.state.lock();
            for (origin, outcome) in entries {
                if origin.life != state.life {
                    continue;
                }
                match outcome {
                    Outcome::Applied(replies) => {
                        while state.unsettled.front().is_some_and(|entry| entry.seq <= origin.seq) {
                            let Some(entry) = state.unsettled.pop_front() else { break };
                            state.settled += 1;
                            if entry.seq == origin.seq {
                                answered.push((entry, replies));
                                break;
                            }
                            lost.push(entry);
                        }
                    }
                    // Applied before, or there will be a newer life before this one is.
                    Outcome::Refused(Verdict::Apply | Verdict::Duplicate) => {}
                    Outcome::Refused(Verdict::Gap) => state.gap = true,
                    Outcome::Refused(Verdict::Superseded) => lost.extend(state.new_life()),
                }
            }
        }
        for (entry, replies) in answered {
            entry.answers.complete(Ok(replies));
            self.observer.committed(self.store, entry.since.elapsed(), entry.commands);
        }
        unknown(lost);
        self.changed.notify_one();
    }

    fn skipped(&self, last: Last) {
        let lost = {
            let mut state = self.state.lock();
            if last.life < state.life {
                return;
            }
            if last.life > state.life {
                // A life that this process never had: a clone of the disk is about.
                state.life = last.life;
                state.new_life()
            } else {
                let settled = state.unsettled.iter().take_while(|entry| entry.seq <= last.seq).count();
                state.settled += settled as u64;
                state.unsettled.drain(..settled).collect()
            }
        };
        unknown(lost);
        self.changed.notify_one();
    }
}
