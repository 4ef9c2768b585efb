//! A WebSocket after its upgrade, as a stream of bytes.

use super::frame::{Decoder, End, binary_header, close_frame};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Slices of one write that go into one frame.
const MAX_SLICES: usize = 64;

/// The bytes that binary frames carry; each write is one frame.
///
/// A write takes all of up to 64 KiB or nothing: what the socket does not take of a frame that has begun waits here for `flush` or the next
/// write. Reading goes on with that, too, and answers pings. A peer's Close is answered and ends the stream; a frame that is refused is answered with Close and
/// ends it with [`InvalidData`](io::ErrorKind::InvalidData) and a [`FrameError`](super::FrameError) inside. One task reads and writes.
#[derive(Debug)]
pub struct WsStream<S> {
    inner: S,
    decoder: Decoder,
    /// What came in one read with the upgrade request and is not decoded.
    early: Vec<u8>,
    /// Bytes of frames that have begun; written up to `written`.
    out: Vec<u8>,
    written: usize,
    close_sent: bool,
    /// Whether the stream underneath may hold bytes back.
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WsStream<S> {
    pub(crate) fn new(inner: S, early: Vec<u8>, max_frame: u64) -> Self {
        Self {
            inner,
            decoder: Decoder::new(max_frame),
            early,
            out: Vec::new(),
            written: 0,
            close_sent: false,
            unflushed: false,
        }
    }

    /// The stream underneath.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Writes what has begun, then what we owe in answer to control frames, down to the socket.
    fn poll_drain_and_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        if self.unflushed {
            ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// The same down to the stream underneath.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.written < self.out.len() {
                let n = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.out[self.written..]))?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.written += n;
                self.unflushed = true;
            }
            self.written = 0;
            self.out = Vec::new(); // an idle connection holds no buffer
            if self.close_sent {
                return Poll::Ready(Ok(()));
            }
            self.close_sent = self.decoder.answer(&mut self.out);
            if self.out.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WsStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while buf.remaining() > 0 {
            // Answers go out when they can. That they cannot, yet or any more, keeps nobody from reading what has come.
            let _ = this.poll_drain_and_flush(cx);
            match this.decoder.end() {
                Some(End::Closed) => break,
                Some(End::Failed(error)) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error))),
                None => {}
            }
            let start = buf.filled().len();
            if this.early.is_empty() {
                ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
                if buf.filled().len() == start {
                    break;
                }
            } else {
                let n = this.early.len().min(buf.remaining());
                buf.put_slice(&this.early[..n]);
                this.early.drain(..n);
                this.early.shrink_to_fit();
            }
            let n = this.decoder.decode(&mut buf.filled_mut()[start..]);
            buf.set_filled(start + n);
            if n > 0 {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WsStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        if this.close_sent {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }

        // The first slice is the header, when the length is known.
        let mut slices = [IoSlice::new(&[]); 1 + MAX_SLICES];
        let (mut count, mut len) = (1, 0);
        for buf in bufs.iter().filter(|buf| !buf.is_empty()).take(MAX_SLICES) {
            let part = &buf[..buf.len().min(usize::from(u16::MAX) - len)];
            slices[count] = IoSlice::new(part);
            (count, len) = (count + 1, len + part.len());
        }
        if len == 0 {
            return Poll::Ready(Ok(0));
        }
        let (header, header_len) = binary_header(len as u16);
        slices[0] = IoSlice::new(&header[..header_len]);
        let frame = &slices[..count];

        let mut written = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, frame))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        this.unflushed = true;
        if written < header_len + len {
            this.out.reserve_exact(header_len + len - written);
            for slice in frame {
                let skip = written.min(slice.len());
                written -= skip;
                this.out.extend_from_slice(&slice[skip..]);
            }
        }
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_drain_and_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        if !this.close_sent {
            this.close_sent = true;
            close_frame(1000, &mut this.out);
            ready!(this.poll_drain(cx))?;
        }
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "stream_test.rs"]
mod tests;
