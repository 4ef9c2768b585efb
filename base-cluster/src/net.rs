//! The sockets and names: those of the system, or with the feature `turmoil` those of the simulated network.

use base_rpc::net::UdpSocket;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// A socket for packets. [`base_rpc::net::UdpSocket`] is one.
pub trait Datagrams: Send + Sync + 'static {
    /// What it is bound to.
    ///
    /// # Errors
    /// When the system does not tell.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// Waits for a packet; what does not fit into `buffer` is cut off. Dropping the future loses nothing.
    fn recv_from(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<(usize, SocketAddr)>> + Send;

    /// A packet that is here already.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is none.
    fn try_recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)>;

    /// Sends a packet now or not at all.
    ///
    /// # Errors
    /// When it was not sent.
    fn try_send_to(&self, packet: &[u8], to: SocketAddr) -> io::Result<()>;
}

impl Datagrams for UdpSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn recv_from(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<(usize, SocketAddr)>> + Send {
        self.recv_from(buffer)
    }

    fn try_recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.try_recv_from(buffer)
    }

    fn try_send_to(&self, packet: &[u8], to: SocketAddr) -> io::Result<()> {
        self.try_send_to(packet, to).map(drop)
    }
}

/// The addresses of `host:port`, asked anew.
#[cfg(not(feature = "turmoil"))]
pub(crate) async fn resolve(name: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host(name).await?.collect())
}

#[cfg(feature = "turmoil")]
pub(crate) async fn resolve(name: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    let (host, port) = name.rsplit_once(':').ok_or(io::ErrorKind::InvalidInput)?;
    let port = port.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok(vec![SocketAddr::new(turmoil::lookup(host), port)])
}

/// The local address from which packets to `to` leave. Sends nothing.
#[cfg(not(feature = "turmoil"))]
pub(crate) async fn route_to(to: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(to).await?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(feature = "turmoil")]
pub(crate) async fn route_to(_to: SocketAddr) -> io::Result<IpAddr> {
    // The simulated network does not tell: advertise an address.
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether this machine has the address.
#[cfg(not(feature = "turmoil"))]
pub(crate) async fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).await.is_ok()
}

#[cfg(feature = "turmoil")]
pub(crate) async fn is_local(address: IpAddr) -> bool {
    address.is_loopback()
}
