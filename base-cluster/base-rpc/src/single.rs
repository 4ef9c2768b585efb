use crate::frame::{Frame, Kind};
use crate::hello::Hello;
use crate::line::Outcome;
use crate::mesh::{CallError, Lane, Service};
use crate::pump::{End, Moved, Pump, Side};
use crate::refusal::Refusal;
use crate::rpc::{AddrCallError, Shared};
use base_types::{NodeId, NodeIncarnation};
use bytes::Bytes;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

/// One call to an address, over a connection of its own.
pub(crate) async fn call(
    shared: &Arc<Shared>,
    addr: SocketAddr,
    lane: Lane,
    service: Service,
    body: Bytes,
    deadline: Duration,
) -> Result<(NodeIncarnation, Bytes), AddrCallError> {
    let unreachable = |cause: String| AddrCallError::Unreachable { addr, cause };
    if body.len() > shared.bounds.body {
        return Err(unreachable(format!("a body of {} bytes is too large", body.len())));
    }
    let until = Instant::now() + deadline;
    let hello = Hello {
        env: shared.passport.env.clone(),
        run: shared.passport.me,
        to: None,
        lane,
        single: true,
        connection: shared.next_connection(),
    };
    let connecting = timeout(shared.timing.connect.min(deadline), shared.passport.call(addr, &hello));
    let proven = match Box::pin(connecting).await {
        Ok(Ok(proven)) => proven,
        Ok(Err(Refusal::Itself)) => return Err(AddrCallError::Itself { addr }),
        Ok(Err(refusal)) => {
            shared.refused(addr, &refusal, false);
            return Err(unreachable(refusal.to_string()));
        }
        Err(_) => return Err(unreachable("it did not answer in time".into())),
    };
    let peer = proven.peer;
    let (sender, receiver) = oneshot::channel();
    let side = Caller {
        to: peer.node,
        request: Some(Frame { kind: Kind::Request, service, id: 1, body }),
        waiter: Some(sender),
    };
    let stats = Arc::clone(&shared.stats);
    let pump = Pump::new(proven, side, lane, stats, shared.bounds.body, shared.timing.ping);
    let lost = CallError::Lost { to: peer.node };
    let pumped = shared.stop.run_until_cancelled(Box::pin(pump.run()));
    let outcome = timeout_at(until, async {
        tokio::select! {
            biased;
            outcome = receiver => outcome.unwrap_or(Err(lost.clone())),
            _ = pumped => Err(lost.clone()),
        }
    });
    let outcome = outcome.await.unwrap_or(Err(CallError::TimedOut { to: peer.node }));
    Ok((peer, outcome?))
}

struct Caller {
    to: NodeId,
    request: Option<Frame>,
    waiter: Option<oneshot::Sender<Outcome>>,
}

impl Side for Caller {
    fn came(&mut self, frames: &mut Vec<Frame>, _: &mut VecDeque<Frame>) -> Result<(), End> {
        for frame in frames.drain(..) {
            let outcome = match frame.kind {
                Kind::Reply => Ok(frame.body),
                Kind::Refused => Err(CallError::Refused { to: self.to }),
                Kind::Pong => continue,
                other => return Err(End::Protocol(format!("a caller got {other:?}"))),
            };
            if let Some(waiter) = self.waiter.take() {
                let _ = waiter.send(outcome);
            }
        }
        Ok(())
    }

    fn take(&mut self, _: &mut Context<'_>, out: &mut VecDeque<Frame>) -> Result<(), End> {
        out.extend(self.request.take());
        Ok(())
    }

    fn disarm(&mut self) {}

    /// The deadline of the call is enough.
    fn tick(&mut self, _: Moved, _: &mut VecDeque<Frame>) -> Result<(), End> {
        Ok(())
    }
}
