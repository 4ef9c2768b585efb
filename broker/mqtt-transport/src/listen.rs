//! Binding a listener.

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// How a listener is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Connections that the kernel completes before we accept them; it caps this at `net.core.somaxconn`.
    pub backlog: i32,
    /// Whether several sockets may listen on one address, and the kernel deals connections out among them.
    pub reuse_port: bool,
    /// Idle time after which the kernel probes a connection: it finds dead peers of clients with keep alive 0.
    pub keepalive: Option<Duration>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { backlog: 4096, reuse_port: false, keepalive: Some(Duration::from_secs(120)) }
    }
}

/// Binds and listens. The socket is nonblocking, ready for `tokio::net::TcpListener::from_std`.
///
/// The address can be bound again at once after a stop, while connections of the former process linger in TIME-WAIT
/// (SO_REUSEADDR), yet not while another process listens on it. An IPv6 socket takes IPv6 only, so that `0.0.0.0` and `::` go
/// together on every system.
pub fn listen(addr: SocketAddr, options: ListenOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Accepted sockets inherit this.
    if let Some(idle) = options.keepalive {
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
    }
    socket.bind(&addr.into())?;
    socket.listen(options.backlog)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn a_port_can_be_bound_again_right_after_its_connections_were_closed_by_us() {
        let listener = listen(loopback(), ListenOptions::default()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let addr = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(addr).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(b"x").unwrap();
        drop(server);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        drop((client, listener));
        listen(addr, ListenOptions::default()).unwrap();
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_refused() {
        let listener = listen(loopback(), ListenOptions::default()).unwrap();
        let error = listen(listener.local_addr().unwrap(), ListenOptions::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn several_sockets_share_a_port_when_asked() {
        let shared = ListenOptions { reuse_port: true, ..ListenOptions::default() };
        let first = listen(loopback(), shared).unwrap();
        listen(first.local_addr().unwrap(), shared).unwrap();
    }
}
