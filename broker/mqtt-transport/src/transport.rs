//! The stream that MQTT is read from and written to.

use crate::{TransportKind, WsStream};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A plain stream of MQTT bytes both ways, whatever carries it.
///
/// It is owned by one task: reading may have to write (a TLS key update, a WebSocket pong), so the halves must not be polled by two
/// tasks. After writing, poll `flush` until ready: TLS and WebSocket hold back what the socket did not take, up to 64 KiB, and
/// report it as written. Reading goes on with what a flush could not finish, so a task that keeps reading need not poll it again. Nothing is
/// buffered for reading over TCP and WebSocket.
#[derive(Debug)]
pub enum Transport {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// WebSocket.
    Ws(Box<WsStream<TcpStream>>),
    /// WebSocket over TLS.
    Wss(Box<WsStream<TlsStream<TcpStream>>>),
}

impl Transport {
    /// The name of its layers.
    pub fn kind(&self) -> TransportKind {
        match self {
            Self::Tcp(_) => TransportKind::Tcp,
            Self::Tls(_) => TransportKind::Tls,
            Self::Ws(_) => TransportKind::Ws,
            Self::Wss(_) => TransportKind::Wss,
        }
    }

    /// The socket underneath, e.g. to set an option or to wait for readiness. Not for reading or writing past the layers.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
            Self::Ws(stream) => stream.get_ref(),
            Self::Wss(stream) => stream.get_ref().get_ref().0,
        }
    }
}

macro_rules! delegate {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Transport::Tcp(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Transport::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
            Transport::Ws(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
            Transport::Wss(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Self::Tls(stream) = this
            && stream.get_ref().1.wants_write()
        {
            // That it fails keeps nobody from reading what has come.
            let _ = Pin::new(stream.as_mut()).poll_flush(cx);
        }
        delegate!(Pin::new(this), stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, stream => stream.poll_write(cx, buf))
    }

    /// Over WebSocket one call is one binary frame (of at most 64 KiB); over TCP it is one `writev`.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, stream => stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_flush(cx))
    }

    /// Says goodbye in every layer (a WebSocket Close, a TLS `close_notify`) and closes our direction.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_shutdown(cx))
    }
}
