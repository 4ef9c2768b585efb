use super::answers::{Answer, Answers};
use crate::raft::Gathering;
use base_kv_api::MutateError;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The commands that wait, already in the form of the entries that they will become: a command is copied once, here.
pub(crate) struct Queue {
    limits: Limits,
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) queue_commands: usize,
    pub(crate) queue_bytes: usize,
    pub(crate) command_bytes: usize,
    pub(crate) entry_commands: usize,
    pub(crate) entry_bytes: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    commands: usize,
    bytes: usize,
    closed: Option<MutateError>,
}

/// An entry to be.
pub(crate) struct Waiting {
    pub(crate) gathering: Gathering,
    pub(crate) answers: Arc<Answers>,
    pub(crate) since: Instant,
    bytes: usize,
}

impl Queue {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, state: Mutex::default(), filled: Notify::new() }
    }

    /// Appends a command, or says why not.
    pub(crate) fn push(&self, command: &[u8]) -> Result<Answer, MutateError> {
        let Limits { queue_commands, queue_bytes, command_bytes, entry_commands, entry_bytes } = self.limits;
        let size = command.len();
        if size > command_bytes {
            return Err(MutateError::TooLarge { size, limit: command_bytes });
        }
        let mut state = self.state.lock();
        if let Some(why) = &state.closed {
            return Err(why.clone());
        }
        if state.commands >= queue_commands || (state.bytes + size > queue_bytes && state.commands > 0) {
            return Err(MutateError::Busy { waiting: state.commands });
        }
        state.commands += 1;
        state.bytes += size;
        let first = state.waiting.is_empty();
        let room = |w: &Waiting| w.gathering.count() < entry_commands && w.gathering.len() + size <= entry_bytes;
        if !state.waiting.back().is_some_and(room) {
            let since = Instant::now();
            state.waiting.push_back(Waiting {
                gathering: Gathering::new(size),
                answers: Arc::default(),
                since,
                bytes: 0,
            });
        }
        let Some(last) = state.waiting.back_mut() else { return Err(MutateError::Unknown) };
        last.bytes += size;
        let position = last.gathering.push(command) as usize;
        let answers = Arc::clone(&last.answers);
        drop(state);
        if first {
            self.filled.notify_one();
        }
        Ok(Answer { answers, position })
    }

    /// Returns when something waits.
    pub(crate) async fn filled(&self) {
        while self.state.lock().waiting.is_empty() {
            self.filled.notified().await;
        }
    }

    /// Takes the entry that waits longest.
    pub(crate) fn take(&self) -> Option<Waiting> {
        let mut state = self.state.lock();
        let taken = state.waiting.pop_front()?;
        state.commands -= taken.gathering.count();
        state.bytes -= taken.bytes;
        Some(taken)
    }

    /// Answers what waits since before `then`, without proposing it. Tells since when the rest waits.
    pub(crate) fn refuse_older(&self, then: Option<Instant>, why: &MutateError) -> Option<Instant> {
        let mut old = Vec::new();
        let since = {
            let mut state = self.state.lock();
            while state.waiting.front().is_some_and(|entry| then.is_none_or(|then| entry.since <= then)) {
                let Some(entry) = state.waiting.pop_front() else { break };
                state.commands -= entry.gathering.count();
                state.bytes -= entry.bytes;
                old.push(entry);
            }
            state.waiting.front().map(|entry| entry.since)
        };
        old.into_iter().for_each(|entry| entry.answers.complete(Err(why.clone())));
        since
    }

    /// Answers all that waits and all that comes, until it is opened again.
    pub(crate) fn close(&self, why: &MutateError) {
        self.state.lock().closed = Some(why.clone());
        self.refuse_older(None, why);
        self.filled.notify_one();
    }

    /// Takes commands again.
    pub(crate) fn open(&self) {
        self.state.lock().closed = None;
    }

    /// Commands that wait, and their bytes.
    pub(crate) fn depth(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.commands, state.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Queue {
        Queue::new(Limits {
            queue_commands: 5,
            queue_bytes: 100,
            command_bytes: 60,
            entry_commands: 2,
            entry_bytes: 80,
        })
    }

    #[test]
    fn commands_stand_in_the_order_of_the_calls_in_entries_of_bounded_size() {
        let queue = queue();
        for n in 0..5u8 {
            queue.push(&[n]).unwrap();
        }
        let mut seen = Vec::new();
        while let Some(entry) = queue.take() {
            assert!(entry.gathering.count() <= 2);
            let origin = crate::raft::Origin { proposer: 0, life: 0, seq: 0 };
            let proposal = entry.gathering.finish(base_types::WallMs(0), &origin);
            seen.extend(proposal.commands().unwrap().map(|c| c.unwrap()[0]));
        }
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        assert_eq!(queue.depth(), (0, 0));
    }

    #[test]
    fn a_full_queue_is_busy_and_takes_again_once_emptied() {
        let queue = queue();
        for _ in 0..5 {
            queue.push(b"x").unwrap();
        }
        assert_eq!(queue.push(b"x").err(), Some(MutateError::Busy { waiting: 5 }));
        while queue.take().is_some() {}
        queue.push(&[0; 60]).unwrap();
        assert_eq!(queue.push(&[0; 60]).err(), Some(MutateError::Busy { waiting: 1 }));
        assert_eq!(queue.push(&[0; 61]).err(), Some(MutateError::TooLarge { size: 61, limit: 60 }));
    }

    #[tokio::test]
    async fn closed_means_those_that_wait_and_those_that_come_until_it_is_opened() {
        let queue = queue();
        let answer = queue.push(b"x").unwrap();
        queue.close(&MutateError::NoLeader);
        assert_eq!(answer.await, Err(MutateError::NoLeader));
        assert_eq!(queue.push(b"x").err(), Some(MutateError::NoLeader));
        queue.open();
        queue.push(b"x").unwrap();
        assert_eq!(queue.depth(), (1, 1));
    }
}
