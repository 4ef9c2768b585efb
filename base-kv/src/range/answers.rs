use base_kv_api::MutateError;
use bytes::Bytes;
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// The replies of the commands of one entry, and who waits for them: one lock and one allocation for all.
#[derive(Default)]
pub(crate) struct Answers(Mutex<State>);

#[derive(Default)]
struct State {
    outcome: Option<Result<Vec<Bytes>, MutateError>>,
    waiting: Vec<Option<Waker>>,
}

impl Answers {
    /// Tells everybody. The first outcome counts.
    pub(crate) fn complete(&self, outcome: Result<Vec<Bytes>, MutateError>) {
        let waiting = {
            let mut state = self.0.lock();
            if state.outcome.is_some() {
                return;
            }
            state.outcome = Some(outcome);
            std::mem::take(&mut state.waiting)
        };
        // One task often waits for many commands: it is woken once in a row.
        let mut last: Option<Waker> = None;
        for waker in waiting.into_iter().flatten() {
            if !last.as_ref().is_some_and(|last| last.will_wake(&waker)) {
                waker.wake_by_ref();
                last = Some(waker);
            }
        }
    }
}

/// The future of one reply.
pub(crate) struct Answer {
    pub(crate) answers: Arc<Answers>,
    pub(crate) position: usize,
}

impl Future for Answer {
    type Output = Result<Bytes, MutateError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.answers.0.lock();
        match &mut state.outcome {
            // An entry that answers fewer commands than it has would be a bug of ours; it is not the caller's panic.
            Some(Ok(replies)) => {
                Poll::Ready(replies.get_mut(self.position).map(std::mem::take).ok_or(MutateError::Unknown))
            }
            Some(Err(error)) => Poll::Ready(Err(error.clone())),
            None => {
                if state.waiting.len() <= self.position {
                    state.waiting.resize(self.position + 1, None);
                }
                match &mut state.waiting[self.position] {
                    Some(waker) => waker.clone_from(cx.waker()),
                    slot => *slot = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }
}
