use super::wire::{head_of_many, kind, opened};
use base_rpc::{CallError, CallFuture, Lane, Mesh, Service};
use base_types::NodeId;
use base_types::wire::{Reader, WireError, put_prefixed, put_varint};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Heartbeats of all ranges, gathered per node: those that are due together go in one frame.
#[derive(Clone, Default)]
pub(crate) struct Heartbeats(Arc<Mutex<BTreeMap<NodeId, Vec<Waiting>>>>);

struct Waiting {
    body: Bytes,
    reply: oneshot::Sender<Result<Bytes, CallError>>,
}

/// For so long the first one waits for company.
const GATHER: Duration = Duration::from_millis(1);

impl Heartbeats {
    /// Sends a heartbeat, together with others.
    pub(crate) fn call(&self, mesh: &Arc<dyn Mesh>, to: NodeId, body: Bytes, deadline: Duration) -> CallFuture {
        let (reply, replied) = oneshot::channel();
        let first = {
            let mut waiting = self.0.lock();
            let waiting = waiting.entry(to).or_default();
            waiting.push(Waiting { body, reply });
            waiting.len() == 1
        };
        if first {
            let (all, mesh) = (self.clone(), Arc::clone(mesh));
            tokio::spawn(async move {
                tokio::time::sleep(GATHER).await;
                let gathered = all.0.lock().remove(&to).unwrap_or_default();
                send(&*mesh, to, gathered, deadline).await;
            });
        }
        Box::pin(async move { replied.await.unwrap_or(Err(CallError::Lost { to })) })
    }
}

async fn send(mesh: &dyn Mesh, to: NodeId, gathered: Vec<Waiting>, deadline: Duration) {
    let body = if let [one] = &gathered[..] {
        one.body.clone()
    } else {
        let mut body = head_of_many(kind::HEARTBEATS, gathered.iter().map(|waiting| 4 + waiting.body.len()).sum());
        gathered.iter().for_each(|waiting| put_prefixed(&mut body, &waiting.body));
        body.freeze()
    };
    let replied = mesh.call(to, Lane::Raft, Service::RAFT, body, deadline).await;
    let outcomes = match (replied, gathered.len()) {
        (Ok(reply), 1) => vec![Ok(reply)],
        (Ok(reply), count) => split(reply, count).unwrap_or_else(|_| vec![Err(CallError::Refused { to }); count]),
        (Err(error), count) => vec![Err(error); count],
    };
    for (waiting, outcome) in gathered.into_iter().zip(outcomes) {
        // Nobody waits any more: his matter.
        let _ = waiting.reply.send(outcome);
    }
}

/// The heartbeats of a frame.
pub(crate) fn heartbeats(mut frame: Reader) -> Result<Vec<Bytes>, WireError> {
    let mut all = Vec::new();
    while !frame.is_empty() {
        let body = frame.prefixed()?;
        if opened(body.clone())?.0 != kind::APPEND {
            return Err(WireError::Invalid { what: "a heartbeat", value: u64::from(kind::HEARTBEATS) });
        }
        all.push(body);
    }
    Ok(all)
}

/// The replies to the heartbeats of a frame, as one; `None` where nobody answered.
pub(crate) fn joined(replies: Vec<Option<Bytes>>) -> Bytes {
    let mut out = BytesMut::new();
    put_varint(&mut out, replies.len() as u64);
    replies.iter().for_each(|reply| put_prefixed(&mut out, reply.as_deref().unwrap_or_default()));
    out.freeze()
}

fn split(reply: Bytes, count: usize) -> Result<Vec<Result<Bytes, CallError>>, WireError> {
    let mut r = Reader::new(reply);
    if r.varint()? != count as u64 {
        return Err(WireError::Truncated);
    }
    // An empty one is no reply that a replica gives: it is read as malformed.
    (0..count).map(|_| Ok(Ok(r.prefixed()?))).collect()
}
