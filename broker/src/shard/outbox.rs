use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;

/// Payloads from this size on are sent from where they lie instead of being copied behind their header. A smaller one would keep too
/// much of the buffer alive that it was read into.
pub(crate) const SHARE_FROM: usize = 16 * 1024;

/// How many written-out buffers a shard keeps for the next writers, and how large each may be.
const SPARE: usize = 16;
const SPARE_BYTES: usize = 64 * 1024;

/// How many slices one vectored write carries at most.
const SLICES: usize = 32;

/// What a connection has yet to write: small packets packed into one buffer, large payloads and frames for many receivers shared.
/// Empty, it owns no memory.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    shared: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl Outbox {
    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Lets `write` append to the packed part.
    pub(crate) fn append<R>(&mut self, write: impl FnOnce(&mut BytesMut) -> R) -> R {
        let before = self.tail.len();
        let result = write(&mut self.tail);
        self.len += self.tail.len() - before;
        result
    }

    /// Appends bytes without copying them.
    pub(crate) fn push_shared(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        if !self.tail.is_empty() {
            let packed = self.tail.split().freeze();
            self.shared.push_back(packed);
        }
        self.len += bytes.len();
        self.shared.push_back(bytes);
    }

    /// Writes as much as the transport takes. Ready when everything is written.
    pub(crate) fn poll_write(
        &mut self,
        transport: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        while self.len > 0 {
            let written = if self.shared.is_empty() {
                match Pin::new(&mut *transport).poll_write(cx, &self.tail) {
                    Poll::Ready(result) => result?,
                    Poll::Pending => return Poll::Pending,
                }
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let mut count = 0;
                for bytes in self.shared.iter().take(SLICES - 1) {
                    slices[count] = IoSlice::new(bytes);
                    count += 1;
                }
                if self.shared.len() < SLICES && !self.tail.is_empty() {
                    slices[count] = IoSlice::new(&self.tail);
                    count += 1;
                }
                match Pin::new(&mut *transport).poll_write_vectored(cx, &slices[..count]) {
                    Poll::Ready(result) => result?,
                    Poll::Pending => return Poll::Pending,
                }
            };
            if written == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        self.len -= written;
        while let Some(front) = self.shared.front_mut() {
            if written < front.len() {
                bytes::Buf::advance(front, written);
                return;
            }
            written -= front.len();
            self.shared.pop_front();
        }
        bytes::Buf::advance(&mut self.tail, written);
    }

    /// Takes a spare buffer to pack into, so that a busy shard does not allocate one for each write.
    pub(crate) fn borrow(&mut self, spare: &mut Vec<BytesMut>) {
        if self.tail.capacity() == 0
            && let Some(buffer) = spare.pop()
        {
            self.tail = buffer;
        }
    }

    /// Gives the buffers back once everything is written: an idle connection keeps none.
    pub(crate) fn give_back(&mut self, spare: &mut Vec<BytesMut>) {
        let mut tail = std::mem::take(&mut self.tail);
        self.shared = VecDeque::new();
        tail.clear();
        if spare.len() < SPARE && tail.try_reclaim(1024) && tail.capacity() <= SPARE_BYTES {
            spare.push(tail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn packed_and_shared_bytes_leave_in_order_through_a_narrow_pipe() {
        let (mut ours, mut theirs) = tokio::io::duplex(7);
        let mut outbox = Outbox::default();
        outbox.append(|b| b.extend_from_slice(b"one "));
        outbox.push_shared(Bytes::from_static(b"two "));
        outbox.append(|b| b.extend_from_slice(b"three "));
        outbox.push_shared(Bytes::from_static(b"four"));
        assert_eq!(outbox.len(), 18);
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).await.unwrap();
            all
        });
        std::future::poll_fn(|cx| outbox.poll_write(&mut ours, cx)).await.unwrap();
        assert!(outbox.is_empty());
        drop(ours);
        assert_eq!(reader.await.unwrap(), b"one two three four");
    }
}
