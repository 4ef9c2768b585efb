//! Accepting connections: which socket, what it speaks, and how many at a time.

use crate::shard::{Letter, ShardHandle};
use mqtt_transport::Setup;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// A socket that was accepted and not looked at yet.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) stream: std::net::TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) setup: Arc<Setup>,
    pub(crate) permit: ConnectionPermit,
}

/// How many connections the node has, those before CONNECT included, and how many it may have.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionLimit {
    open: Arc<AtomicUsize>,
    max: usize,
}

/// One of the connections that the node may have; given back when dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPermit(Arc<AtomicUsize>);

impl ConnectionLimit {
    pub(crate) fn new(max: usize) -> Self {
        Self { open: Arc::new(AtomicUsize::new(0)), max }
    }

    fn admit(&self) -> Option<ConnectionPermit> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(ConnectionPermit(Arc::clone(&self.open)))
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts until told to stop, and deals the sockets out to the shards in turn.
pub(crate) async fn accept_loop(
    listener: TcpListener,
    setup: Arc<Setup>,
    shards: Arc<[ShardHandle]>,
    limit: ConnectionLimit,
    stop: CancellationToken,
) {
    let mut next = 0;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors or memory: what is open goes on, and accepting is tried again.
                warn!(%error, "accepting a connection failed; trying again in 100 ms");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(permit) = limit.admit() else {
            debug!(%peer, limit = limit.max, "connection refused: the limit of open connections is reached");
            continue;
        };
        // The socket moves to the event loop of its shard.
        match stream.into_std() {
            Ok(stream) => {
                next = (next + 1) % shards.len();
                shards[next].send(Letter::Arrival(Arrival { stream, peer, setup: Arc::clone(&setup), permit }));
            }
            Err(error) => debug!(%peer, %error, "a socket could not be handed to its shard"),
        }
    }
}
