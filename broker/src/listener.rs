//! Accepting connections: which socket, what it speaks, and how many at a time.

use crate::shard::{Letter, ShardHandle};
use mqtt_transport::Setup;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
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

/// How many connections per second are accepted, all listeners together, with bursts of a second. Others wait in the kernel's queue.
#[derive(Debug)]
pub(crate) struct ConnectionRate {
    per_sec: f64,
    bucket: Mutex<(f64, Instant)>,
}

impl ConnectionRate {
    pub(crate) fn new(per_sec: u32, now: Instant) -> Self {
        let per_sec = f64::from(per_sec.max(1));
        Self { per_sec, bucket: Mutex::new((per_sec, now)) }
    }

    /// Takes one, and tells how long to wait before the next.
    fn take(&self, now: Instant) -> Duration {
        let mut bucket = self.bucket.lock();
        let passed = now.saturating_duration_since(bucket.1).as_secs_f64();
        let left = (bucket.0 + passed * self.per_sec).min(self.per_sec) - 1.0;
        *bucket = (left, now);
        if left >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-left / self.per_sec) }
    }
}

/// What is done with the sockets of one listener.
pub(crate) struct Dealer {
    pub(crate) setup: Arc<Setup>,
    pub(crate) shards: Arc<[ShardHandle]>,
    pub(crate) limit: ConnectionLimit,
    pub(crate) rate: Arc<ConnectionRate>,
}

/// Accepts until told to stop, and deals the sockets out to the shards in turn.
pub(crate) async fn accept_loop(listener: TcpListener, dealer: Dealer, stop: CancellationToken) {
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
        let Some(permit) = dealer.limit.admit() else {
            debug!(%peer, limit = dealer.limit.max, "connection refused: the limit of open connections is reached");
            continue;
        };
        // The socket moves to the event loop of its shard.
        match stream.into_std() {
            Ok(stream) => {
                next = (next + 1) % dealer.shards.len();
                let setup = Arc::clone(&dealer.setup);
                dealer.shards[next].send(Letter::Arrival(Arrival { stream, peer, setup, permit }));
            }
            Err(error) => debug!(%peer, %error, "a socket could not be handed to its shard"),
        }
        let wait = dealer.rate.take(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}
