use base_kv_api::MutateError;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Reads that wait for the index up to which they must be applied: one question to the leader for all that came before it.
#[derive(Default)]
pub(crate) struct Reads(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    asking: bool,
    next: Vec<oneshot::Sender<Result<u64, MutateError>>>,
}

impl Reads {
    /// Joins the next question; asks it, and those of all who come meanwhile, if nobody does.
    pub(crate) fn index<F: Future<Output = Result<u64, MutateError>> + Send>(
        self: &Arc<Self>,
        ask: impl Fn() -> F + Send + 'static,
    ) -> oneshot::Receiver<Result<u64, MutateError>> {
        let (sender, receiver) = oneshot::channel();
        let first = {
            let mut waiting = self.0.lock();
            waiting.next.push(sender);
            !std::mem::replace(&mut waiting.asking, true)
        };
        if first {
            let reads = Arc::clone(self);
            tokio::spawn(async move {
                while let Some(batch) = reads.take() {
                    let answer = ask().await;
                    // Who no longer waits need not know.
                    batch.into_iter().for_each(|reader| _ = reader.send(answer.clone()));
                }
            });
        }
        receiver
    }

    fn take(&self) -> Option<Vec<oneshot::Sender<Result<u64, MutateError>>>> {
        let mut waiting = self.0.lock();
        let batch = std::mem::take(&mut waiting.next);
        waiting.asking = !batch.is_empty();
        waiting.asking.then_some(batch)
    }
}
