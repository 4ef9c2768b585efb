//! The sockets: those of the system, or with the feature `turmoil` those of the simulated network.

use std::io;
use std::net::{IpAddr, SocketAddr};

#[cfg(not(feature = "turmoil"))]
pub use tokio::net::UdpSocket;
#[cfg(feature = "turmoil")]
pub use turmoil::net::UdpSocket;

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
