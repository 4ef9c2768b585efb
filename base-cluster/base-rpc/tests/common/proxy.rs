use base_rpc::net::{TcpListener, TcpStream};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// A way to a node that a test can cut, or make swallow everything.
pub struct Proxy {
    pub addr: SocketAddr,
    links: Arc<Mutex<Vec<AbortHandle>>>,
    flowing: watch::Sender<bool>,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(super::any_port()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let links: Arc<Mutex<Vec<AbortHandle>>> = Arc::default();
        let (flowing, flows) = watch::channel(true);
        let kept = Arc::clone(&links);
        tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                let flows = flows.clone();
                let link = tokio::spawn(async move {
                    let Ok(to) = TcpStream::connect(target).await else { return };
                    let ((a, b), (c, d)) = (from.into_split(), to.into_split());
                    tokio::join!(carry(a, d, flows.clone()), carry(c, b, flows));
                });
                kept.lock().push(link.abort_handle());
            }
        });
        Self { addr, links, flowing }
    }

    /// All connections break.
    pub fn cut(&self) {
        self.links.lock().drain(..).for_each(|link| link.abort());
    }

    /// Connections stay, and nothing comes through.
    pub fn freeze(&self) {
        self.flowing.send_replace(false);
    }

    pub fn thaw(&self) {
        self.flowing.send_replace(true);
    }
}

async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut flows: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if flows.wait_for(|flows| *flows).await.is_err() || to.write_all(&buffer[..n]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
