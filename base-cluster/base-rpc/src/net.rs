//! The sockets of the cluster: tokio's, or with the feature `turmoil` those of a simulated network.

#[cfg(not(feature = "turmoil"))]
pub use tokio::net::{TcpListener, TcpStream, UdpSocket};
#[cfg(feature = "turmoil")]
pub use turmoil::net::{TcpListener, TcpStream, UdpSocket};
